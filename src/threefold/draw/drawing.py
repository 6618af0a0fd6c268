"""Soft shapes on a turned head: the brush that `camera.py` paints with. Geometry and pixels, nothing about people.

All places are in face units: the eyes lie on y = 0, x points right, y down, and 1 is about half the width of a face.
A `Brush` turns that into pixels; a face that looks aside gets its parallax from the depth of an average face.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_MIRROR = np.array((-1, 1), np.float32)


def path(*numbers: float) -> Floats:
    """[N, 2] points from x0, y0, x1, y1, ..."""
    return np.array(numbers, np.float32).reshape(-1, 2)


def even(right: Floats) -> Floats:
    """A closed figure from its right half [N, 2], top to bottom, and the mirror image of that, bottom to top."""
    return np.concatenate([right, right[::-1] * _MIRROR])


def ellipse(x: float, y: float, width: float, height: float) -> Floats:
    """[12, 2] points of an ellipse with these half axes."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1).astype(np.float32)


def mix(first: Floats, second: Floats, share: float) -> Floats:
    """`share` of the second colour, the rest of the first; `share` is clipped to 0..1."""
    return np.asarray(first + (second - first) * np.clip(share, 0, 1), np.float32)


@dataclass
class Brush:
    """A float canvas [H, W, 3] (0..255) and where the head is on it: yaw, pitch, roll; pixels per face unit; x, y.

    `clip` [H, W], 0..1, keeps the paint inside another shape while it is set. Polygons get round corners. `twin=True`
    also paints the mirror image, x to -x.
    """

    canvas: Floats
    turn: tuple[float, float, float]
    scale: float
    origin: tuple[float, float]
    clip: Floats | None = None

    def place(self, points: Floats) -> Floats:
        """[N, 2] face units -> [N, 2] pixels: an ellipsoid with a nose, turned."""
        x, y = points.T
        depth = 0.85 * np.sqrt(np.clip(1 - (x / 1.08) ** 2 - ((y - 0.1) / 1.7) ** 2, 0, 1))
        depth += 0.3 * np.exp(-((x / 0.15) ** 2) - ((y - 0.5) / 0.25) ** 2)
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        flat = points * cos[:2] + depth[:, None] * sin[:2]
        return np.asarray(flat @ [(cos[2], sin[2]), (-sin[2], cos[2])] * self.scale + self.origin, np.float32)

    def shape(self, points: Floats, paint: Floats, alpha: float = 1, blur: float = 0, twin: bool = False) -> None:
        """Fill a polygon; `blur` is in face units. What is nearly transparent is left out."""
        if twin:
            self.shape(points * _MIRROR, paint, alpha, blur)
        corners, sigma = self._rounded(points), blur * self.scale
        pad, size = int(3 * sigma) + 2, self.canvas.shape[1::-1]
        left, top = np.clip(corners.min(0).astype(int) - pad, 0, size)
        right, bottom = np.clip(corners.max(0).astype(int) + pad, 0, size)
        if alpha < 0.03 or left == right or top == bottom:
            return
        part = (slice(top, bottom), slice(left, right))
        cover = _fill(corners - (left, top), (bottom - top, right - left))
        if sigma > 0.3:
            cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), sigma), np.float32)
        cover = cover * np.float32(alpha) if self.clip is None else self.clip[part] * cover * np.float32(alpha)
        self.canvas[part] += (paint - self.canvas[part]) * cover[..., None]

    def line(
        self, points: Floats, paint: Floats, width: float, alpha: float = 1, blur: float = 0, twin: bool = False
    ) -> None:
        """Draw a line; one thinner than a pixel gets paler instead, as a camera would see it."""
        along = np.gradient(points, axis=0)
        side = along[:, ::-1] * _MIRROR * (width / 2) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-6)
        ribbon = np.concatenate([points + side, (points - side)[::-1]])
        self.shape(ribbon, paint, alpha * min(1.0, width * self.scale), blur, twin)

    def inside(self, points: Floats) -> Floats:
        """[H, W] coverage of a polygon, for `clip`."""
        return _fill(self._rounded(points), self.canvas.shape[:2])

    def _rounded(self, points: Floats) -> Floats:
        """[N, 2] face units -> [4 N, 2] pixels, corners cut twice (Chaikin 1974)."""
        for _ in range(2):
            after = np.roll(points, -1, axis=0)
            points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
        return self.place(points)


def _fill(corners: Floats, size: tuple[int, int]) -> Floats:
    """[H, W] how much of each pixel the polygon [N, 2] covers, 0..1."""
    cover = np.zeros(size, np.uint8)
    cv2.fillPoly(cover, [(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(cover, np.float32) / np.float32(255)
