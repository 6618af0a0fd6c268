"""Pictures of a page as data URIs: charts, thumbnails, heat over photos; and the shades of its tables.

Charts are SVG inside `<img>`: sharp at any size, 10 to 20 KB each, and their ids cannot clash with the page. Whatever
a table can show (confusions, bars) is a table in the template instead: readable on a phone and to a screen reader.
`translate` gives the words in a chart; its letters stay text, which the browser draws with its own fonts.
"""

from __future__ import annotations

import base64
import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from threefold import labels
from threefold.data.tables import read_rows
from threefold.errors import PhotoError
from threefold.pages.html import TEMPLATES, Translate
from threefold.photos.decode import decode
from threefold.runs import Run

# matplotlib comes with the extra `train` and is imported where a chart is drawn: thumbnails need none
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"all": "18 classes", "mask": "Mask", "gender": "Gender", "age_group": "Age group"}
INK, GREY, BLUE, ORANGE, GREEN = "#1b2430", "#69727f", "#1f5fa8", "#b4530a", "#1c7a4d"
AGES = ("#9cc3ea", "#3f79b8", "#173a63")  # from young to old
ATTRIBUTES = (("mask", "#9aa3ad"), ("gender", "#c9a227"), ("age_group", "#8a5fb0"))
THUMBNAIL = 152  # pixels of height: twice what the page shows, for dense screens; 4 to 8 KB each
STYLE = TEMPLATES / "charts.mplstyle"


def curves(epochs: Sequence[dict[str, Any]], translate: Translate = str) -> str:
    """Learning curves of one fold from its lines of log.jsonl: losses, macro F1 with the best epoch, learning rate."""

    def line(axes: Axes, key: str, colour: str, label: str = "", linewidth: float = 1.6) -> None:
        points = [(line["epoch"], line[key]) for line in epochs if line.get(key) is not None]
        if points:
            marker = "." if len(points) < 4 else ""
            axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=linewidth, marker=marker)

    with _drawing(3.5, 4.2) as figure:
        # margins are fixed: a layout engine costs five times the drawing
        margins = {"left": 0.11, "right": 0.99, "top": 0.95, "bottom": 0.095, "hspace": 0.6}
        loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3], gridspec_kw=margins)
        line(loss, "train_loss", BLUE, translate("train"))
        line(loss, "valid_loss", ORANGE, translate("validation"))
        for key, colour in ATTRIBUTES:
            line(score, key, colour, translate(TITLES[key]), linewidth=1)
        line(score, "macro_f1", GREEN, translate("score"))
        best = [line for line in epochs if line.get("best") and line.get("macro_f1") is not None]
        if best:
            name = translate("best, epoch {n}").format(n=best[-1]["epoch"])
            score.plot(best[-1]["epoch"], best[-1]["macro_f1"], "o", color=GREEN, label=name)
        line(rate, "lr", GREY)
        for axes, name in ((loss, "loss"), (score, "macro F1"), (rate, "learning rate")):
            axes.set_title(translate(name))
            if len(axes.get_legend_handles_labels()[0]) > 1:
                axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.96), ncols=3)  # above: inside, it covers lines
        score.set_ylim(0, 1.02)
        rate.set(ylim=(0, None), xlabel=translate("epoch"))
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        rate.yaxis.get_offset_text().set_fontsize(7)
        rate.xaxis.get_major_locator().set_params(integer=True)
        return _uri(figure)


def age_errors(ages: NDArray[np.floating], wrong: NDArray[np.bool_], translate: Translate = str) -> str:
    """Share of photos in a wrong age group by true year of age, and how many photos each year has; cuts marked."""
    years = np.floor(ages).astype(np.int64)
    shown = np.unique(years)
    total = np.bincount(years)[shown]
    share = np.bincount(years, wrong)[shown] / total
    with _drawing(4.6, 2.9) as figure:
        # right: room for half a label, "120"
        margins = {"left": 0.09, "right": 0.97, "top": 0.93, "bottom": 0.14, "hspace": 0.35}
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1], gridspec_kw=margins)
        top.bar(shown, share, width=0.8, color=ORANGE)
        top.set(ylim=(0, min(1, 0.1 + share.max() * 1.1)), title=translate("share of photos in a wrong age group"))
        bottom.bar(shown, total, width=0.8, color=GREY)
        xlabel = translate("true age in years (dashed: where the groups change)")
        bottom.set(title=translate("photos"), xlabel=xlabel)
        for cut in labels.CUTS:
            for axes in (top, bottom):
                axes.axvline(cut - 0.5, color=INK, linewidth=0.8, linestyle="--")
        return _uri(figure)


def reliability(bins: Sequence[dict[str, Any]], translate: Translate = str) -> str:
    """How often answers of a confidence are right, a dot per bin of equally many photos, against the diagonal.

    bins: `evidence.calibrate.Bin`s as dicts.
    """
    confidence, accuracy = ([part[key] for part in bins] for key in ("confidence", "accuracy"))
    low = min(*confidence, *accuracy, 0.95) - 0.03
    with _drawing(2.7, 2.7) as figure:
        axes = figure.add_axes((0.15, 0.14, 0.82, 0.77))
        axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, linestyle="--")
        axes.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=1.2)
        axes.plot(confidence, accuracy, "o-", color=BLUE, markersize=4, linewidth=1)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01), xlabel=translate("confidence"))
        axes.set_title(translate("share that is right"))
        return _uri(figure)


def risk_coverage(curves: Sequence[tuple[str, Sequence[Sequence[float]]]], translate: Translate = str) -> str:
    """Share that is wrong among the surest photos, by how many are answered; one line per (name, points)."""
    with _drawing(4.6, 2.7) as figure:
        axes = figure.add_axes((0.08, 0.15, 0.9, 0.77))
        for (name, points), colour in zip(curves, (INK, BLUE, ORANGE, GREEN, GREY), strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.4)
        xlabel = translate("share of the photos that is answered, surest first")
        axes.set(xlim=(0, 1), ylim=(0, None), xlabel=xlabel, title=translate("share that is wrong"))
        axes.legend(loc="upper left")
        return _uri(figure)


def age_border(rows: Sequence[dict[str, Any]], cut: int, translate: Translate = str) -> str:
    """Age groups predicted for each true year around a cut (stacked shares) and, where the model has years, their
    mean error.

    rows: of `evidence.groups.years_around`.
    """
    years = [row["year"] for row in rows]
    shares = np.array([row["said"] for row in rows]).T
    errors = [(row["year"], *row["bias"].values()) for row in rows if row["bias"]["value"] is not None]
    with _drawing(3.6, 3.7 if errors else 2.3) as figure:
        top, bottom = (0.91, 0.11) if errors else (0.86, 0.18)
        margins = {"left": 0.09, "right": 0.99, "top": top, "bottom": bottom, "hspace": 0.35}
        panels = figure.subplots(1 + bool(errors), 1, sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
        bases = shares.cumsum(0) - shares
        for share, base, colour, name in zip(shares, bases, AGES, labels.NAMES["age_group"], strict=True):
            panels[0].bar(years, share, bottom=base, width=0.84, color=colour, label=name)
        panels[0].set(ylim=(0, 1), title=translate("share of photos"))
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
        if errors:
            shown, middle, low, high = np.array(errors, dtype=float).T
            panels[1].axhline(0, color=GREY, linewidth=0.8)
            panels[1].vlines(shown, low, high, color=BLUE, linewidth=1.2)
            panels[1].plot(shown, middle, "o", color=BLUE, markersize=4)
            panels[1].set_title(translate("predicted − true, years"))
        for axes in panels:
            axes.axvline(cut - 0.5, color=INK, linewidth=0.9, linestyle="--")
        panels[-1].set(xlabel=translate("true age in years"), xticks=years)
        return _uri(figure)


@contextlib.contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, in the style of the pages."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(fname=STYLE):
        yield Figure(figsize=(width, height))


def _uri(figure: Figure) -> str:
    file = io.BytesIO()
    with warnings.catch_warnings():  # DejaVu has no Hangul; only the browser draws these letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


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


def one_per_person(persons: Sequence[str], rows: Iterable[int]) -> list[int]:
    """Rows to show: in their order, of each person the first. persons: of all rows."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(persons[row], row)
    return list(first.values())


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
