"""Soft shapes on a turned head: the brush that `portrait` paints with. Geometry and pixels, nothing about people.

All places are in face units: the eyes lie on y = 0, x points right, y down, z to the viewer, and 1 is about half the
width of a face. `Pose` turns that into pixels, so a face that looks aside gets its parallax from the depth of its
points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Color = NDArray[np.float32]
Z = float | Floats | None
"""Depth of points: one for all, one for every point, or None: on the surface of the face."""
_MIRROR = np.array((-1, 1), np.float32)


def color(*rgb: float) -> Color:
    """An RGB colour, 0..255, as the array that the brush works with."""
    return np.array(rgb, dtype=np.float32)


def path(*numbers: float) -> Floats:
    """[N, 2] points from x0, y0, x1, y1, ..."""
    return np.array(numbers, np.float32).reshape(-1, 2)


def even(*numbers: float) -> Floats:
    """A closed figure from its right half, top to bottom, and the mirror image of that, bottom to top."""
    half = path(*numbers)
    return np.concatenate([half, half[::-1] * _MIRROR])


def unit(value: float) -> float:
    """Clip to 0..1."""
    return min(1.0, max(0.0, value))


def mix(first: Color, second: Color, share: float) -> Color:
    """`share` of the second colour, the rest of the first; `share` is clipped to 0..1."""
    return first + (second - first) * np.float32(unit(share))


@lru_cache(maxsize=256)
def _cutter(count: int, closed: bool, rounds: int) -> Floats:
    """[M, count] matrix that cuts the corners of `count` points: Chaikin is linear, so a curve is one product."""
    curve = np.eye(count, dtype=np.float32)
    for _ in range(rounds):
        after = np.roll(curve, -1, axis=0) if closed else curve[1:]
        before = curve if closed else curve[:-1]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1).reshape(-1, count)
        curve = cut if closed else np.concatenate([curve[:1], cut, curve[-1:]])
    return curve


def smooth(points: Floats, closed: bool = True, rounds: int = 2) -> Floats:
    """Cut the corners of a polygon or an open line (Chaikin 1974): [N, 2] -> about [N * 2**rounds, 2]."""
    return _cutter(len(points), closed, rounds) @ points


@lru_cache(maxsize=32)
def _circle(count: int) -> Floats:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def ellipse(x: float, y: float, width: float, height: float, count: int = 20) -> Floats:
    """[count, 2] points of an ellipse with these half axes."""
    return _circle(count) * np.array((width, height), np.float32) + np.array((x, y), np.float32)


@lru_cache(maxsize=128)
def _pen(count: int, taper: float) -> tuple[Floats, Floats, Floats]:
    """Matrices [M, count] to the smoothed line and to its direction, and the swelling [M, 1] of a pen along it."""
    curve = _cutter(count, False, 2)
    swell = 0.5 - 0.5 * taper * np.linspace(-1, 1, len(curve), dtype=np.float32)[:, None] ** 2
    return curve, np.gradient(curve, axis=0), swell


def ribbon(points: Floats, width: float, taper: float = 1.0) -> Floats:
    """Outline of a line `width` thick in its middle, its ends thinned by `taper` (1: to a point, 0: not)."""
    cutter, slope, swell = _pen(len(points), taper)
    curve, along = cutter @ points, slope @ points
    length = np.sqrt(along[:, :1] ** 2 + along[:, 1:] ** 2) + np.float32(1e-6)
    side = along[:, ::-1] * (_MIRROR * np.float32(width)) * (swell / length)  # a quarter turn: swap, negate one
    return np.concatenate([curve + side, (curve - side)[::-1]])


def depth(x: Floats, y: Floats) -> Floats:
    """[N] how far the surface of an average face stands out: an ellipsoid, a chin and a nose."""
    skull = 0.85 * np.sqrt(np.maximum(1 - (x / 1.08) ** 2 - ((y - 0.1) / 1.6) ** 2, 0))
    low = np.minimum(np.maximum(y / 1.4, 0), 1)
    chin = 0.5 * low * low * np.maximum(1.2 - np.abs(x), 0)
    nose = 0.7 * np.exp(x * x / -0.03) * low * np.minimum(np.maximum(3.8 - 4 * y, 0), 1)
    return np.asarray(np.maximum(skull, chin) + nose, np.float32)


@dataclass(frozen=True)
class Pose:
    """Where a head is in the photo and where it looks: angles in radians, `scale` pixels per face unit, origin x, y."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    origin: tuple[float, float]

    def __call__(self, points: Floats, z: Z = None) -> Floats:
        """[N, 2] face units -> [N, 2] pixels; `z` a depth or [N] depths, None lays the points on the face (`depth`)."""
        height = depth(points[:, 0], points[:, 1]) if z is None else np.full(len(points), z, np.float32)
        solid = np.concatenate([points, height[:, None]], axis=1) @ self.turn
        near = np.float32(self.scale) * (1 + np.float32(0.05) * solid[:, 2:])
        return solid[:, :2] * near + np.array(self.origin, np.float32)

    @cached_property
    def turn(self) -> Floats:
        """[3, 3] rotation, to be multiplied from the right: yaw, then pitch, then roll."""
        angles = [self.yaw, self.pitch, self.roll]
        (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
        yaw = np.array([(cy, 0, -sy), (0, 1, 0), (sy, 0, cy)])
        pitch = np.array([(1, 0, 0), (0, cp, sp), (0, -sp, cp)])
        roll = np.array([(cr, sr, 0), (-sr, cr, 0), (0, 0, 1)])
        return np.asarray(yaw @ pitch @ roll, np.float32)


class Painter:
    """A planar float canvas [3, H, W] (0..255) and a pose; `shape` and `line` take face units.

    `clip`, a stencil [H, W], keeps the paint inside another shape while it is set. `twin=True` also paints the mirror
    image, x to -x.
    """

    def __init__(self, canvas: Floats, pose: Pose) -> None:
        self.canvas, self.pose = canvas, pose
        self.clip: Floats | None = None

    def cover(self, points: Floats, blur: float) -> tuple[tuple[slice, slice], Floats] | None:
        """Part of the canvas that a pixel polygon touches, how much (0..1) of each pixel; None when it is outside."""
        height, width = self.canvas.shape[1:]
        pad, step = int(2.5 * blur) + 2, max(1, int(blur / 1.5))
        left, top, across, down = cv2.boundingRect(points)
        x0, y0 = max(0, left - pad), max(0, top - pad)
        x1, y1 = min(width, left + across + pad), min(height, top + down + pad)
        if x1 <= x0 or y1 <= y0:
            return None
        # A wide blur is drawn small and enlarged, which is what makes it fast.
        small = np.zeros(((y1 - y0 - 1) // step + 1, (x1 - x0 - 1) // step + 1), np.uint8)
        corners = ((points - np.array((x0, y0), np.float32)) * np.float32(16 / step)).astype(np.int32)
        cv2.fillPoly(small, [corners], 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(small, (0, 0), blur / step) if blur > 0.3 else small
        full = cv2.resize(soft, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR) if step > 1 else soft
        return (slice(y0, y1), slice(x0, x1)), full.astype(np.float32) * np.float32(1 / 255)

    def shape(
        self, points: Floats, paint: Color, alpha: float = 1, blur: float = 0, z: Z = None, twin: bool = False
    ) -> None:
        """Fill a polygon; `blur` is in face units. What is nearly transparent is left out."""
        covered = self.cover(self.pose(points, z), blur * self.pose.scale) if alpha > 0.03 else None
        if covered is not None:
            part, cover = covered
            cover *= np.float32(alpha) if self.clip is None else self.clip[part] * np.float32(alpha)
            region = self.canvas[:, part[0], part[1]]
            region += (paint[:, None, None] - region) * cover
        if twin:
            self.shape(points * _MIRROR, paint, alpha, blur, z)

    def line(
        self,
        points: Floats,
        paint: Color,
        width: float,
        alpha: float = 1,
        blur: float = 0,
        taper: float = 1,
        **place: Any,
    ) -> None:
        """Draw a swelling line; one thinner than a pixel gets paler instead, as a camera would see it.

        place: `z` and `twin`, as `shape` takes them.
        """
        pale = min(1.0, width * self.pose.scale)
        self.shape(ribbon(points, width, taper), paint, alpha * pale, blur, **place)

    def stencil(self, points: Floats, z: Z = None) -> Floats:
        """[H, W] coverage of a polygon, for `clip`."""
        whole = np.zeros(self.canvas.shape[1:], np.float32)
        if (covered := self.cover(self.pose(points, z), 0.0)) is not None:
            whole[covered[0]] = covered[1]
        return whole
