"""Pictures of a report as data URIs: learning curves, errors by age, thumbnails; and the shades of its tables.

Figures are SVG inside `<img>`: sharp at any size, 10 to 20 KB each, and their ids cannot clash with the page. Whatever
a table can show (confusions, bars) is a table in the template instead: readable on a phone and to a screen reader.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
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
from threefold.data.photo import decode
from threefold.errors import PhotoError

INK, GREY, BLUE, ORANGE, GREEN = "#1b2430", "#69727f", "#1f5fa8", "#b4530a", "#1c7a4d"
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"], "font.size": 8, "axes.edgecolor": "#b8c0ca", "axes.labelcolor": GREY,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e7eaee",
    "xtick.color": GREY, "ytick.color": GREY, "text.color": INK,"axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 7.5, "svg.hashsalt": "threefold", "svg.fonttype": "none", "savefig.transparent": True,
}  # fmt: skip
THUMBNAIL = 152  # pixels of height: twice what the page shows, for dense screens; 4 to 8 KB each


def curves(epochs: Sequence[dict[str, Any]]) -> str:
    """Learning curves of one fold from its lines of log.jsonl: losses, macro F1 with the best epoch, learning rate."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.5, 4.0))  # fixed margins: a layout engine costs five times the drawing
        grid = {"left": 0.11, "right": 0.99, "top": 0.95, "bottom": 0.1, "hspace": 0.45}
        loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3], gridspec_kw=grid)
        _line(loss, epochs, "train_loss", BLUE, "train")
        _line(loss, epochs, "valid_loss", ORANGE, "validation")
        for key, colour in (("mask", "#9aa3ad"), ("gender", "#c9a227"), ("age_group", "#8a5fb0")):
            _line(score, epochs, key, colour, key.replace("_", " "), linewidth=1)
        _line(score, epochs, "macro_f1", GREEN, "score")
        best = [e for e in epochs if e.get("best") and e.get("macro_f1") is not None][-1:]
        for e in best:
            score.plot(e["epoch"], e["macro_f1"], "o", color=GREEN, label=f"best, epoch {e['epoch']}")
        _line(rate, epochs, "lr", GREY, "")
        for axes, name in ((loss, "loss"), (score, "macro F1"), (rate, "learning rate")):
            axes.set_title(name, loc="left", fontsize=8, color=INK)
            if len(axes.get_legend_handles_labels()[0]) > 1:
                axes.legend(loc="best", ncols=2)
        score.set_ylim(0, 1.02)
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        rate.yaxis.get_offset_text().set_fontsize(7)
        rate.xaxis.get_major_locator().set_params(integer=True)
        rate.set_xlabel("epoch")
        return _uri(figure)


def age_errors(ages: NDArray[np.floating], wrong: NDArray[np.bool_]) -> str:
    """Share of photos in a wrong age group by true year of age, and how many photos each year has; cuts marked."""
    years = np.floor(ages).astype(np.int64)
    shown = np.unique(years)
    total = np.bincount(years)[shown]
    share = np.bincount(years, wrong)[shown] / total
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.9))
        grid = {"left": 0.09, "right": 0.99, "top": 0.93, "bottom": 0.14, "hspace": 0.35}
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1], gridspec_kw=grid)
        top.bar(shown, share, width=0.8, color=ORANGE)
        top.set_ylim(0, min(1, 0.1 + share.max() * 1.1))
        top.set_title("share of photos in a wrong age group", loc="left", fontsize=8)
        bottom.bar(shown, total, width=0.8, color=GREY)
        bottom.set_title("photos", loc="left", fontsize=8)
        for cut in labels.CUTS:
            for axes in (top, bottom):
                axes.axvline(cut - 0.5, color=INK, linewidth=0.8, linestyle="--")
        bottom.set_xlabel("true age in years (dashed: where the groups change)")
        return _uri(figure)


def thumbnail(path: Path) -> str | None:
    """A photo as a small JPEG (no metadata), or None when it is gone or cannot be read."""
    try:
        image = decode(path)
    except (PhotoError, OSError):
        return None
    scale = THUMBNAIL / image.shape[0]
    width = min(max(1, round(image.shape[1] * scale)), 2 * THUMBNAIL)
    small = cv2.resize(image, (width, THUMBNAIL), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=78, colorspace="RGB", colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


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
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
