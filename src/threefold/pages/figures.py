"""Pictures of a report as data URIs: curves, errors by age, thumbnails, heat over photos; the shades of its tables.

Figures are SVG inside `<img>`: sharp at any size, 10 to 20 KB each, and their ids cannot clash with the page. Whatever
a table can show (confusions, bars) is a table in the template instead: readable on a phone and to a screen reader.
`say` translates what stands in a figure; its letters stay text, which the browser draws with its own fonts.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from threefold import labels
from threefold.data.tables import read_rows
from threefold.errors import PhotoError
from threefold.photos.decode import decode
from threefold.runs import Run

Say = Callable[[str], str]

TITLES = {"all": "18 classes", "mask": "Mask", "gender": "Gender", "age_group": "Age group"}
INK, GREY, BLUE, ORANGE, GREEN = "#1b2430", "#69727f", "#1f5fa8", "#b4530a", "#1c7a4d"
AGES = ("#9cc3ea", "#3f79b8", "#173a63")  # from young to old
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"], "font.size": 8, "axes.edgecolor": "#b8c0ca", "axes.labelcolor": GREY,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e7eaee",
    "xtick.color": GREY, "ytick.color": GREY, "text.color": INK,"axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 7.5, "svg.hashsalt": "threefold", "svg.fonttype": "none", "savefig.transparent": True,
}  # fmt: skip
THUMBNAIL = 152  # pixels of height: twice what the page shows, for dense screens; 4 to 8 KB each


def curves(epochs: Sequence[dict[str, Any]], say: Say = str) -> str:
    """Learning curves of one fold from its lines of log.jsonl: losses, macro F1 with the best epoch, learning rate."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.5, 4.2))  # fixed margins: a layout engine costs five times the drawing
        grid = {"left": 0.11, "right": 0.99, "top": 0.95, "bottom": 0.095, "hspace": 0.6}
        loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3], gridspec_kw=grid)
        _line(loss, epochs, "train_loss", BLUE, say("train"))
        _line(loss, epochs, "valid_loss", ORANGE, say("validation"))
        for key, colour in (("mask", "#9aa3ad"), ("gender", "#c9a227"), ("age_group", "#8a5fb0")):
            _line(score, epochs, key, colour, say(TITLES[key]), linewidth=1)
        _line(score, epochs, "macro_f1", GREEN, say("score"))
        best = [e for e in epochs if e.get("best") and e.get("macro_f1") is not None][-1:]
        for e in best:
            score.plot(e["epoch"], e["macro_f1"], "o", color=GREEN, label=say("best, epoch {n}").format(n=e["epoch"]))
        _line(rate, epochs, "lr", GREY, "")
        for axes, name in ((loss, "loss"), (score, "macro F1"), (rate, "learning rate")):
            axes.set_title(say(name), loc="left", fontsize=8, color=INK)
            if len(axes.get_legend_handles_labels()[0]) > 1:  # above its panel: inside, it would cover lines
                axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.96), ncols=3, borderaxespad=0.1,
                            handlelength=1.1, columnspacing=0.9, labelspacing=0.2, handletextpad=0.4)  # fmt: skip
        score.set_ylim(0, 1.02)
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        rate.yaxis.get_offset_text().set_fontsize(7)
        rate.xaxis.get_major_locator().set_params(integer=True)
        rate.set_xlabel(say("epoch"))
        return _uri(figure)


def age_errors(ages: NDArray[np.floating], wrong: NDArray[np.bool_], say: Say = str) -> str:
    """Share of photos in a wrong age group by true year of age, and how many photos each year has; cuts marked."""
    years = np.floor(ages).astype(np.int64)
    shown = np.unique(years)
    total = np.bincount(years)[shown]
    share = np.bincount(years, wrong)[shown] / total
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.9))
        grid = {"left": 0.09, "right": 0.97, "top": 0.93, "bottom": 0.14, "hspace": 0.35}  # right: half a label, "120"
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1], gridspec_kw=grid)
        top.bar(shown, share, width=0.8, color=ORANGE)
        top.set_ylim(0, min(1, 0.1 + share.max() * 1.1))
        top.set_title(say("share of photos in a wrong age group"), loc="left", fontsize=8)
        bottom.bar(shown, total, width=0.8, color=GREY)
        bottom.set_title(say("photos"), loc="left", fontsize=8)
        for cut in labels.CUTS:
            for axes in (top, bottom):
                axes.axvline(cut - 0.5, color=INK, linewidth=0.8, linestyle="--")
        bottom.set_xlabel(say("true age in years (dashed: where the groups change)"))
        return _uri(figure)


def reliability(bins: Sequence[dict[str, Any]], say: Say = str) -> str:
    """How often answers of a confidence are right, a dot per bin of equally many photos, against the diagonal.

    bins: `evidence.calibrate.Bin`s as dicts.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.7, 2.7))
        axes = figure.add_axes((0.15, 0.14, 0.82, 0.77))
        sure, right = ([each[key] for each in bins] for key in ("confidence", "accuracy"))
        low = min(*sure, *right, 0.95) - 0.03
        axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, linestyle="--")
        axes.vlines(sure, right, sure, color=ORANGE, linewidth=1.2)
        axes.plot(sure, right, "o-", color=BLUE, markersize=4, linewidth=1)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel=say("confidence"))
        axes.set_title(say("share that is right"), loc="left", fontsize=8, color=GREY)
        return _uri(figure)


def risk_coverage(curves: Sequence[tuple[str, Sequence[Sequence[float]]]], say: Say = str) -> str:
    """Share that is wrong among the surest photos, by how many are answered; one line per (name, points)."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.7))
        axes = figure.add_axes((0.08, 0.15, 0.9, 0.77))
        for (name, points), colour in zip(curves, (INK, BLUE, ORANGE, GREEN, GREY), strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.4)
        axes.set(xlim=(0, 1), xlabel=say("share of the photos that is answered, surest first"))
        axes.set_title(say("share that is wrong"), loc="left", fontsize=8, color=GREY)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        return _uri(figure)


def age_border(rows: Sequence[dict[str, Any]], cut: int, say: Say = str) -> str:
    """What was said of each true year around a cut (stacked shares) and, where the model has years, their mean error.

    rows: of `evidence.people.years_around`.
    """
    years = np.array([row["year"] for row in rows])
    said = np.array([row["said"] for row in rows]).T
    bias = [(row["year"], row["bias"]) for row in rows if row["bias"]["value"] is not None]
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.6, 3.7 if bias else 2.3))
        grid = {"left": 0.09, "right": 0.99, "top": 0.91 if bias else 0.86, "bottom": 0.11 if bias else 0.18}
        panels = figure.subplots(1 + bool(bias), 1, sharex=True, squeeze=False, gridspec_kw=grid | {"hspace": 0.35})[
            :, 0
        ]
        for share, base, colour, name in zip(said, said.cumsum(0) - said, AGES, labels.NAMES["age_group"], strict=True):
            panels[0].bar(years, share, bottom=base, width=0.84, color=colour, label=name)
        panels[0].set_ylim(0, 1)
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, handlelength=1)
        panels[0].set_title(say("share of photos"), loc="left", fontsize=8, color=GREY)
        if bias:
            shown, middle = [year for year, _ in bias], np.array([number["value"] for _, number in bias])
            ends = np.array([[number["low"], number["high"]] for _, number in bias], dtype=float).T
            panels[1].axhline(0, color=GREY, linewidth=0.8)
            panels[1].vlines(shown, *ends, color=BLUE, linewidth=1.2)
            panels[1].plot(shown, middle, "o", color=BLUE, markersize=4)
            panels[1].set_title(say("said − true, years"), loc="left", fontsize=8, color=GREY)
        for axes in panels:
            axes.axvline(cut - 0.5, color=INK, linewidth=0.9, linestyle="--")
        panels[-1].set_xlabel(say("true age in years"))
        panels[-1].set_xticks(years)
        return _uri(figure)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.floating] | None, height: int = THUMBNAIL) -> str:
    """A photo [H, W, 3] as a small JPEG without metadata; with `heat` [h, w] grey and glowing where it is largest.

    Heat is scaled to its own largest value; what is below 0 stays grey.
    """
    scale = height / image.shape[0]
    size = (min(max(1, round(image.shape[1] * scale)), 2 * height), height)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if heat is not None:
        wide = np.maximum(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0)[..., None]
        grey = np.repeat(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        part = 0.72 * wide / max(float(wide.max()), 1e-12)
        small = np.round(grey * (1 - part) + np.array([255, 92, 0]) * part).astype(np.uint8)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=78, colorspace="RGB", colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def photo_paths(run: Run) -> dict[str, Path]:
    """id of a photo -> its file, of everything in a run's photos.csv; DataError where that cannot be read."""
    return {row.get("photo"): Path(row.get("path")) for row in read_rows(run.path / "photos.csv", ("photo", "path"))[1]}


def thumbnail(path: Path | None, height: int = THUMBNAIL) -> str | None:
    """A photo file as a small JPEG (no metadata), or None when it is gone or cannot be read."""
    try:
        return overlay(decode(path), None, height) if path else None
    except (PhotoError, OSError):
        return None


def shade(share: float, right: bool) -> str:
    """CSS of a confusion cell: white to blue (right) or orange (wrong) by its share; text contrast of 4.5:1 or more."""
    end = np.array([31, 95, 168] if right else [180, 83, 10])
    colour = np.round(255 + (end - 255) * float(np.clip(share, 0, 1)) ** 0.7).astype(int)  # small shares are errors
    linear = np.where(colour > 10, ((colour / 255 + 0.055) / 1.055) ** 2.4, colour / 255 / 12.92)  # WCAG 2.2
    text = "#fff" if linear @ [0.2126, 0.7152, 0.0722] < 0.179 else "#000"
    return f"background:rgb({','.join(map(str, colour.tolist()))});color:{text}"


def _line(
    axes: Axes, epochs: Sequence[dict[str, Any]], key: str, colour: str, label: str, linewidth: float = 1.6
) -> None:
    points = [(e["epoch"], e[key]) for e in epochs if e.get(key) is not None]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, label=label, linewidth=linewidth, marker="." if len(x) < 4 else "")


def _uri(figure: Figure) -> str:
    file = io.BytesIO()
    with warnings.catch_warnings():  # DejaVu has no Hangul; only the browser draws these letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
