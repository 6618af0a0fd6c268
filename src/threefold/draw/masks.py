"""What a mask is, before it meets a photo: its design, the surface it spans on a face, and its cloth.

All places are in the face units of `landmarks.py`. A mask is a sheet with coordinates `a` in [-1, 1] (across) and `b`
in [0, 1] (down); `surface` says where the sheet lies, `fabric` what it looks like there. Pose, light, blur and noise of
the photo are added by `overlay.py`. The numbers are measures of common masks (a surgical one is 17.5 cm wide, an eye
distance is 6.3 cm) and of how they sit, set by eye on contact sheets of real faces.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Wear = Literal["worn", "nose_out", "mouth_out", "chin"]
Array = NDArray[Any]

WEARS: tuple[Wear, ...] = ("worn", "nose_out", "mouth_out", "chin")
SHAPES = {"surgical": 0.42, "boat": 0.26, "cloth": 0.18, "cup": 0.09, "bandana": 0.05}
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (238, 238, 236), "ivory": (228, 221, 205), "sky": (158, 200, 224), "mint": (165, 212, 203),
    "black": (42, 42, 45), "charcoal": (78, 79, 84), "grey": (152, 154, 158), "pink": (232, 182, 192),
    "navy": (44, 54, 92), "red": (158, 46, 54), "khaki": (140, 130, 100), "lilac": (186, 172, 214),
    "brown": (112, 82, 66), "green": (62, 110, 84), "beige": (208, 184, 158),
}  # fmt: skip
"""sRGB of the cloth under a light that shows white as 238."""
PATTERNS = ("plain", "stripes", "dots", "checks", "print")

_COLOUR_ODDS: dict[str, dict[str, float]] = {
    "surgical": {"white": 5, "sky": 7, "mint": 1.5, "black": 2, "pink": 1, "lilac": 0.4, "grey": 0.5, "navy": 0.3},
    "boat": {"white": 8, "black": 3, "grey": 1, "ivory": 1, "navy": 0.4, "pink": 0.4, "beige": 0.7},
    "cup": {"white": 6, "ivory": 1, "sky": 0.7, "grey": 0.8},
    "cloth": {name: 2.5 if name in ("black", "white", "grey", "charcoal", "navy") else 1 for name in COLOURS},
    "bandana": {"red": 2, "navy": 2, "black": 2, "green": 1, "khaki": 1, "charcoal": 1, "brown": 1},
}  # fmt: skip
_PATTERN_ODDS = {"surgical": (30, 1, 1, 0, 1), "boat": (40, 0, 0, 0, 1), "cup": (1, 0, 0, 0, 0),
                 "cloth": (14, 2, 2, 2, 2), "bandana": (2, 1, 3, 1, 5)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MaskDesign:
    """One mask. Two designs of one `key` look alike to a person; `seed` varies the folds, the fit and the shade."""

    shape: str
    colour: str
    pattern: str = "plain"
    accent: str = "white"
    period: float = 0.2
    angle: float = 0.0
    size: float = 1.0
    loops: str = "white"
    seed: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it another mask: shape, colour, pattern."""
        return self.shape, self.colour, self.pattern


def random_design(rng: np.random.Generator) -> MaskDesign:
    """Draw a design: surgical masks most often, white, light blue and black ones most often, as streets show them."""
    shape = str(rng.choice(list(SHAPES), p=list(SHAPES.values())))
    colours, odds = zip(*_COLOUR_ODDS[shape].items(), strict=True)
    colour = str(rng.choice(colours, p=np.array(odds) / sum(odds)))
    chances = np.array(_PATTERN_ODDS[shape], float)
    pattern = str(rng.choice(PATTERNS, p=chances / chances.sum()))
    light = sum(COLOURS[colour]) > 420
    accents = [name for name, rgb in COLOURS.items() if (sum(rgb) > 420) != light]
    loops = colour if shape == "cloth" or (shape == "boat" and not light) else "white"
    return MaskDesign(
        shape=shape,
        colour=colour,
        pattern=pattern,
        accent=str(rng.choice(accents)),
        period=float(rng.uniform(0.13, 0.3)),
        angle=float(rng.uniform(-0.6, 0.6)),
        size=float(rng.uniform(0.97, 1.06)),
        loops="black" if not light and rng.random() < 0.5 else loops,
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """Outline and profile of a shape: y of the top and bottom edge in the middle and at the side, half width,
    exponents of both edges, and z of the middle line at eight heights from bridge to below the chin."""

    top: tuple[float, float]
    bottom: tuple[float, float]
    width: float
    bend: tuple[float, float]
    ridge: tuple[float, ...]
    tent: float


_HEIGHTS = (0.2, 0.45, 0.62, 0.85, 1.1, 1.4, 1.75, 2.05)
_CUTS = {
    "surgical": _Cut((0.28, 0.57), (1.84, 1.30), 0.98, (1.6, 2.1), (0.33, 0.5, 0.67, 0.66, 0.62, 0.54, 0.34, 0.1), 0.4),
    "boat": _Cut((0.24, 0.66), (1.87, 1.22), 1.0, (1.5, 1.8), (0.3, 0.52, 0.76, 0.86, 0.86, 0.7, 0.33, 0.05), 0.5),
    "cup": _Cut((0.25, 0.70), (1.85, 1.25), 0.93, (1.8, 2.0), (0.3, 0.58, 0.8, 0.88, 0.86, 0.72, 0.35, 0.1), 0.15),
    "cloth": _Cut((0.26, 0.62), (1.85, 1.20), 1.0, (1.3, 1.7), (0.32, 0.54, 0.74, 0.76, 0.71, 0.6, 0.35, 0.1), 0.6),
    "bandana": _Cut((0.33, 0.50), (2.25, 1.25), 1.12, (1.5, 1.2), (0.33, 0.5, 0.65, 0.6, 0.55, 0.5, 0.42, 0.3), 0.3),
}  # fmt: skip
_SLACK = (0.4, 0.4, 0.4, 0.42, 0.5, 0.46, 0.36, 0.1)
"""The middle line of a mask that does not stand on the nose."""
_MOVES = {
    "nose_out": ((0.86, 0.80), (2.00, 1.42)),
    "mouth_out": ((1.40, 1.06), (2.10, 1.52)),
    "chin": ((1.64, 1.22), (2.16, 1.62)),
}
"""y of the top edge in the middle and at the side, of the bottom edge likewise, when the mask is not in its place."""
_JAW_WIDTH = ((0.3, 0.65, 0.93, 1.2, 1.46, 1.7, 2.0), (1.16, 1.12, 1.05, 0.94, 0.80, 0.72, 0.68))
_JAW_DEPTH = ((0.6, 0.93, 1.2, 1.46, 1.7, 2.2), (-0.68, -0.66, -0.6, -0.5, -0.45, -0.6))
"""Heights, and half width and side depth there: a mask's side goes along cheek, jaw and neck."""


def surface(design: MaskDesign, wear: Wear, a: Array, b: Array) -> Array:
    """Sheet coordinates [...] -> [..., 3] places in face units."""
    cut = _CUTS[design.shape]
    rng = np.random.default_rng([design.seed, WEARS.index(wear)])
    jitter = rng.uniform(-0.03, 0.03, 4)
    top, bottom = (cut.top, cut.bottom) if wear == "worn" else _MOVES[wear]
    t = np.abs(a)
    grow = (design.size - 1) * 1.2
    peak = 1 - (1 - t) ** cut.bend[0] if wear == "worn" else t**1.7  # only over the nose is there a peak
    y_top = top[0] + jitter[0] - grow * 0.3 + (top[1] - top[0]) * peak
    y_bottom = bottom[0] + abs(jitter[1]) + grow - (bottom[0] - bottom[1]) * t ** cut.bend[1]
    tilt = jitter[2] * a * (1 if wear == "worn" else 1.6)
    y = y_top + (y_bottom - y_top) * b + tilt
    jaw = np.interp(y, *_JAW_WIDTH).astype(np.float32)
    half = np.minimum(cut.width * design.size - 0.2 * b * (1 - b) * t, jaw + (0.03 if wear == "worn" else -0.04))
    x = a * half + jitter[3] * (1 - t)
    ridge = np.interp(y, _HEIGHTS, cut.ridge if wear == "worn" else _SLACK)
    round_ = (1 - np.sqrt(1 - 0.95 * t**2)) / (1 - np.sqrt(0.05))
    fall = cut.tent * t**1.35 + (1 - cut.tent) * round_
    z = ridge - (ridge - np.interp(y, *_JAW_DEPTH)) * fall
    return np.stack([x, y, z], axis=-1).astype(np.float32)


def fabric(design: MaskDesign, wear: Wear, a: Array, b: Array) -> tuple[Array, Array]:
    """Axes a [W] and b [H] of the sheet -> linear RGB reflectance [H, W, 3] and a factor of light [H, W].

    The factor is what folds, seams and the nose wire do to the light. Creases are long, so they are made on a third
    of the points: they cost most.
    """
    across, down = (a * (1 + 0.22 * a**2))[None, :], (b * 1.5)[:, None]
    creases = cv2.resize(_wrinkles(design, wear, across[:, ::3], down[::3]), (len(a), len(b)))
    shade = creases * _SEAMS[design.shape](a[None, :], b[:, None])
    dye = np.random.default_rng([design.seed, 3]).normal(1, (0.05, 0.03, 0.05)).astype(np.float32)
    base, accent = linear(COLOURS[design.colour]) * dye, linear(COLOURS[design.accent])
    if design.pattern == "plain":
        return np.broadcast_to(base, (*shade.shape, 3)), shade.astype(np.float32)
    amount = _pattern(design, across, down)[..., None]
    return (base + (accent - base) * amount).astype(np.float32), shade.astype(np.float32)


def linear(rgb: tuple[int, ...] | NDArray[Any]) -> Array:
    """sRGB 0..255 -> linear 0..1, by the plain 2.2 power: the photo's true curve is unknown anyway."""
    return ((np.asarray(rgb, np.float32) / 255) ** 2.2).astype(np.float32)


def _pattern(design: MaskDesign, x: Array, y: Array) -> Array:
    """How much of the accent colour shows, 0..1, with soft edges."""
    p, c, s = design.period, np.cos(design.angle), np.sin(design.angle)
    u, v = (c * x + s * y) / p, (c * y - s * x) / p
    if design.pattern == "stripes":
        return _soft(np.cos(2 * np.pi * u) - 0.3, 0.35)
    if design.pattern == "checks":
        return 0.8 * (0.5 * _soft(np.cos(2 * np.pi * u), 0.3) + 0.5 * _soft(np.cos(2 * np.pi * v), 0.3))
    if design.pattern == "dots":
        return _soft(np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v) - 1.15, 0.3)
    rng = np.random.default_rng(design.seed)  # a print of crossing waves
    field = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    waves = rng.uniform(0.5, 1.4, 5), rng.uniform(0, 7, 5), rng.uniform(0, np.pi, 5)
    for k, phase, turn in zip(*waves, strict=True):
        field += np.cos(2 * np.pi * k * (np.cos(turn) * u + np.sin(turn) * v) + phase)
    return (0.75 * _soft(field - 0.9, 0.4)).astype(np.float32)


def _soft(value: Array, width: float) -> Array:
    """A step from 0 to 1 that takes `width`."""
    return np.clip(value / width + 0.5, 0, 1).astype(np.float32)


def _line(b: Array, at: Array | float, width: float) -> Array:
    """A Gaussian line along `b == at`."""
    return np.exp(-(((b - at) / width) ** 2)).astype(np.float32)


def _wrinkles(design: MaskDesign, wear: Wear, x: Array, y: Array) -> Array:
    """Creases: long ones from the corners, where the loops pull, stronger on soft cloth and when pulled down."""
    rng = np.random.default_rng([design.seed, 7])
    strength = {"surgical": 0.05, "cloth": 0.06, "boat": 0.02, "cup": 0.012, "bandana": 0.1}[design.shape]
    strength *= {"worn": 1.0, "nose_out": 1.2, "mouth_out": 1.6, "chin": 2.4}[wear]
    light = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for side in (-1.0, 1.0):
        for corner in (0.1, 1.4):
            dx, dy = (x - side * 1.25) * side, y - corner
            angle, far = np.arctan2(dy, -dx), np.hypot(dx, dy)
            spread = rng.uniform(9, 15)
            light += np.sin(spread * angle + rng.uniform(0, 7)) * np.exp(-(((far - 0.45) / 0.4) ** 2))
    for k in range(4):
        turn, freq, phase = rng.uniform(0, np.pi), rng.uniform(0.7, 2.4), rng.uniform(0, 7)
        light += 0.5 * np.sin(2 * np.pi * freq * (np.cos(turn) * x + np.sin(turn) * y) + phase) / (1 + 0.3 * k)
    if wear == "chin":
        light += 1.2 * np.sin(2 * np.pi * 3.2 * y + 1.5 * np.cos(2 * x + design.seed % 7))
    return 1 + strength * light


def _surgical(a: Array, b: Array) -> Array:
    light = np.ones(np.broadcast_shapes(a.shape, b.shape), np.float32)
    for at in (0.33, 0.53, 0.73):
        line = at + 0.015 * a**2
        light -= 0.23 * _line(b, line + 0.012, 0.021) * (1 - 0.25 * a**2)
        light += 0.07 * _line(b, line - 0.03, 0.03)
        light -= 0.07 * _line(b, line + 0.06, 0.05)
    hem = _line(b, 0.045, 0.012) + _line(b, 0.955, 0.012) + _line(np.abs(a), 0.955, 0.012)
    wire = _line(b, 0.075, 0.03) * _soft(0.42 - np.abs(a), 0.1)
    return light - 0.09 * hem + 0.06 * wire


def _boat(a: Array, b: Array) -> Array:
    upper, lower = 0.36 + 0.10 * a**2, 0.68 - 0.12 * a**2
    light = 1 - 0.16 * _line(b, upper, 0.013) - 0.14 * _line(b, lower, 0.013)
    light += 0.05 * _line(b, upper + 0.04, 0.04) - 0.1 * _soft(b - lower, 0.06)
    weld = _line(np.abs(a), 0.93, 0.015) + _line(b, 0.03, 0.012) + _line(b, 0.97, 0.012)
    wire = _line(b, 0.1, 0.03) * _soft(0.4 - np.abs(a), 0.1)
    return light - 0.07 * weld + 0.05 * wire


def _cup(a: Array, b: Array) -> Array:
    rim = np.maximum(np.abs(a), np.abs(2 * b - 1))
    light = 1 - 0.14 * _line(rim, 0.86, 0.025) + 0.05 * _line(rim, 0.93, 0.03)
    return light + 0.10 * _line(b, 0.13, 0.025) * _soft(0.3 - np.abs(a), 0.08)


def _cloth(a: Array, b: Array) -> Array:
    light = 1 - 0.13 * _line(a, 0.0, 0.012) + 0.05 * _line(np.abs(a), 0.035, 0.02)
    hem = _line(b, 0.05, 0.014) + _line(b, 0.95, 0.014) + _line(np.abs(a), 0.93, 0.014)
    return light - 0.08 * hem


def _bandana(a: Array, b: Array) -> Array:
    light = 1 - 0.12 * _line(b, 0.06, 0.02) * np.ones_like(a)
    for at, sag in ((0.4, 0.25), (0.58, 0.3), (0.78, 0.4)):
        light -= 0.13 * _line(b, at - sag * a**2, 0.03) - 0.08 * _line(b, at - 0.06 - sag * a**2, 0.05)
    return light


_SEAMS = {"surgical": _surgical, "boat": _boat, "cup": _cup, "cloth": _cloth, "bandana": _bandana}
"""What the making of a shape leaves in the light: pleats, welded folds, a moulded rim, a middle seam, a nose wire."""
