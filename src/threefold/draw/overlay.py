"""A mask drawn into a photo of a face: `draw_mask`.

The sheet of `masks.py` is projected by the camera of `landmarks.py` (the far side of a turned head narrows and hides),
lit by the light measured on the skin it covers, blurred and grained as the photo is, and laid over it with loops and
contact shadows. All arithmetic on colour is in linear light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.draw.landmarks import Array, FaceGeometry
from threefold.draw.masks import COLOURS, MaskDesign, Wear, fabric, linear, surface
from threefold.errors import DataError

Image = NDArray[np.uint8]

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_SKIN_ALBEDO = 0.37
_SKIN_TINT = np.array([1.52, 0.885, 0.60], np.float32)
"""Skin's share of each channel over its luminance under white light: sRGB (205, 160, 135)."""


def draw_mask(image: Image, geometry: FaceGeometry, design: MaskDesign, wear: Wear) -> Image:
    """Photo [H, W, 3] uint8 RGB -> a new photo of the same size in which that face wears that mask.

    Deterministic in its arguments. A mask that reaches over the photo's border is cut by it. Raises DataError for
    another kind of array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"a photo of shape {image.shape} and {image.dtype}: uint8 [H, W, 3] was expected")
    sheet = _Sheet.pose(geometry, design, wear)
    window = sheet.window(geometry, image)
    if min(window.size) < 4:
        return image.copy()
    area = (slice(window.top, window.top + window.size[1]), slice(window.left, window.left + window.size[0]))
    patch = linear(image[area])
    skin = _Skin.measure(image, geometry)
    light = skin.light(geometry, window)
    bare = skin.share(patch, light)
    colour, alpha, side = sheet.render(design, wear, window, skin)
    hair = skin.hair(patch, light, geometry.scale) * np.clip((side - 0.66) / 0.2, 0, 1)
    loops = _loops(sheet, geometry, design, window, skin.blur) * bare * (1 - alpha)
    alpha = alpha * (1 - hair)
    under = patch * _contact_shadow(alpha, loops, bare, geometry.scale)[..., None]
    grain = _soft(np.random.default_rng(design.seed).standard_normal(alpha.shape), max(0.5, 0.7 * skin.blur))
    grain *= skin.grain / max(float(grain.std()), 1e-6)
    cloth = _encode(skin.cast(colour) * light[..., None]) + grain[..., None]
    thread = _encode(skin.cast(0.9 * linear(COLOURS[design.loops])) * light[..., None])
    mixed = np.clip(under, 0, 1) ** (1 / 2.2)
    for above, share in ((thread, loops), (cloth, alpha)):
        mixed += (above - mixed) * share[..., None]
    out = image.copy()
    touched = (np.maximum(alpha, loops)[..., None] > 0.004) | (under < patch * 0.996)
    out[area] = np.where(touched, np.clip(mixed * 255 + 0.5, 0, 255).astype(np.uint8), out[area])
    return out


def wrong_ways(geometry: FaceGeometry, bottom: float) -> list[Wear]:
    """Ways to wear a mask wrongly that can be seen in a photo that ends at row `bottom`: the lower ones need a neck."""
    lowest: dict[Wear, float] = {"nose_out": 1.0, "mouth_out": 1.8, "chin": 1.95}
    heights = geometry.project(np.array([(0, y, 0.15) for y in lowest.values()], np.float32))[:, 1]
    return [wear for wear, y in zip(lowest, heights, strict=True) if y < bottom] or ["nose_out"]


def _soft(values: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(np.asarray(values, np.float32), (0, 0), sigma), np.float32)


def _fit(values: Array, size: tuple[int, int]) -> Array:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def _encode(light: Array) -> Array:
    """Linear light -> 0..1 as stored; above 0.6 it is pressed under 0.95, as cameras do to white in the sun."""
    pressed = np.where(light < 0.6, light, 0.6 + 0.35 * (1 - np.exp((0.6 - light) / 0.35)))
    return np.asarray(np.clip(pressed, 0, 1) ** (1 / 2.2), np.float32)


class _Window(NamedTuple):
    """The part of the photo that is drawn on; size is (width, height)."""

    left: int
    top: int
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The mask's sheet as a mesh in the photo: places [R, C, 2] pixels, nearness [R, C], unit normals [R, C, 3]."""

    xy: Array
    near: Array
    normal: Array

    @classmethod
    def pose(cls, geometry: FaceGeometry, design: MaskDesign, wear: Wear) -> _Sheet:
        a, b = np.meshgrid(np.linspace(-1, 1, 33, dtype=np.float32), np.linspace(0, 1, 29, dtype=np.float32))
        places = surface(design, wear, a, b)
        xy = geometry.project(places)
        depth = np.cross(*geometry.camera) / geometry.scale  # the row that gives nearness to the viewer, in pixels
        near = places @ depth.astype(np.float32)
        solid = np.concatenate([xy, near[..., None]], axis=-1)
        normal = np.cross(np.gradient(solid, axis=1), np.gradient(solid, axis=0))
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-6
        return cls(xy, near.astype(np.float32), normal.astype(np.float32))

    def window(self, geometry: FaceGeometry, image: Image) -> _Window:
        """What mask, loops and shadow can touch, inside the photo."""
        points = np.concatenate([self.xy.reshape(-1, 2), geometry.ears])
        margin, most = 0.3 * geometry.scale, image.shape[1::-1]
        left, top = np.clip(points.min(axis=0) - margin, 0, most).astype(int)
        right, bottom = np.clip(np.ceil(points.max(axis=0) + margin), 0, most).astype(int)
        return _Window(int(left), int(top), (int(right - left), int(bottom - top)))

    def render(self, design: MaskDesign, wear: Wear, window: _Window, skin: _Skin) -> tuple[Array, Array, Array]:
        """Reflectance, shaded by the sheet's folds [h, w, 3], cover [h, w] and |a| [h, w] of the mask on the patch.

        The sheet is sampled denser than the pixels and painted from its far to its near side, which hides what a
        turned head hides, at up to 3 times the photo's resolution, then blurred as the photo is and averaged down.
        """
        span = max(float(np.ptp(self.xy, axis=(0, 1)).max()), 1.0)
        zoom = min(float(np.clip(180 / span, 1.6, 3)), 1000 / span)
        lamp = np.array([np.clip(0.6 * skin.fit[1], -0.45, 0.45), -0.42, 0.85], np.float32)
        # the longest mesh line along each axis, in pixels
        lengths = [np.linalg.norm(np.diff(self.xy, axis=axis), axis=2).sum(axis=axis).max() for axis in (0, 1)]
        rows, columns = (int(np.clip(1.25 * zoom * float(length), 40, 1400)) for length in lengths)
        a, b = np.meshgrid(np.linspace(-1, 1, columns, dtype=np.float32), np.linspace(0, 1, rows, dtype=np.float32))
        at = ((a + 1) * 16, b * 28)
        xy, normal = (cv2.remap(mesh, *at, cv2.INTER_LINEAR) for mesh in (self.xy, self.normal))
        albedo, folds = fabric(design, wear, a[0], b[:, 0])
        facing = (0.40 + 0.62 * np.clip(normal @ lamp, 0, 1)) * folds
        inks = np.dstack([albedo * facing[..., None], np.abs(a)])
        w, h = (max(int(side * zoom), 1) for side in window.size)
        x, y = (((xy[..., k] - window[k]) * zoom).astype(np.int32) for k in (0, 1))
        seen = (normal[..., 2] > 0) & (x >= 0) & (y >= 0) & (x < w) & (y < h)
        nearest_last = slice(None, None, 1 if self.near[:, 0].mean() < self.near[:, -1].mean() else -1)
        order = np.arange(rows * columns).reshape(rows, columns).T[nearest_last]
        order = order[seen.T[nearest_last]]
        hits = np.full(h * w, -1, np.float32)
        hits[(y * w + x).ravel()[order]] = order
        index = hits.reshape(h, w)
        cover = cv2.morphologyEx((index >= 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        filled = np.where(index < 0, cv2.dilate(index, np.ones((3, 3))), index).astype(np.int64)
        solid = (cv2.medianBlur(cover, 5) > 0) & (filled >= 0)
        ink = np.where(solid[..., None], inks.reshape(-1, 4)[filled], 0)
        layer, alpha = (_fit(_soft(part, max(skin.blur, 0.4) * zoom), window.size) for part in (ink, solid))
        layer = layer / (alpha[..., None] + 1e-4)
        return layer[..., :3], alpha, layer[..., 3]


@dataclass(frozen=True, slots=True)
class _Skin:
    """What is measured on the bare skin: `fit` of log light over the face, the light's colour, blur and grain."""

    fit: Array
    colour: Array
    tint: Array
    saturation: float
    blur: float
    grain: float

    @classmethod
    def measure(cls, image: Image, geometry: FaceGeometry) -> _Skin:
        """Robust fit over a net of points on cheeks, nose and chin: hair, beard and lips are outliers to it."""
        x, y = np.meshgrid(np.linspace(-0.85, 0.85, 13), np.concatenate([np.linspace(0.2, 1.6, 12), [-0.35]]))
        net = np.stack([x, y, 0.35 - 0.9 * x**2], axis=-1).reshape(-1, 3).astype(np.float32)
        at = geometry.project(net)
        height, width = image.shape[:2]
        inside = ((at >= 0) & (at < (width - 1, height - 1))).all(axis=1)
        net, at = net[inside], at[inside]
        soft = np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.05 * geometry.scale, 0.5)))
        tones = soft[at[:, 1].astype(int), at[:, 0].astype(int)]
        if len(net) < 12:  # a face that is hardly in the photo: take the mean of the photo
            tones = soft.reshape(-1, 3)[:: max(1, soft.size // 600)]
            net = np.zeros((len(tones), 3), np.float32)
        colours = linear(tones)
        bright = np.log(colours @ _LUMA + 1e-3)
        terms = np.column_stack([np.ones(len(net)), net[:, 0], net[:, 1] - 0.8, net[:, 0] ** 2])
        weight = 1 / (1 + np.exp(-(bright - np.percentile(bright, 60)) / 0.15))
        for _ in range(4):
            hold = np.diag([0, 0.5, 0.5, 1.0])
            fit = np.linalg.solve((terms * weight[:, None]).T @ terms + hold, (terms * weight[:, None]).T @ bright)
            off = bright - terms @ fit
            weight = np.exp(-((off / 0.28) ** 2))
        # Where the photo holds things far whiter than this skin, the skin is dark, and the light stronger.
        white = np.log(np.percentile(linear(image[::4, ::4]) @ _LUMA, 95) + 1e-3)
        fit[0] += float(np.clip(0.6 * (white - np.average(bright, weights=weight + 1e-6) - 1.2), 0, 0.35))
        mean = (colours * weight[:, None]).sum(axis=0) / (weight.sum() + 1e-6)
        tint = (mean / (mean @ _LUMA + 1e-6) / _SKIN_TINT).clip(0.1, 5) ** 0.65
        spread = float(np.ptp(tones.astype(np.float32), axis=1).mean())
        tint = (tint / (tint @ _LUMA)).clip(0.45, 1.7)
        return cls(fit, mean, tint, float(np.clip(spread / 14, 0, 1)), *_sharpness(image, geometry))

    def light(self, geometry: FaceGeometry, window: _Window) -> Array:
        """Light falling on the face at each pixel of the patch, 1 where white cloth shows as white, [h, w]."""
        x, y = (np.arange(window.size[k], dtype=np.float32) + window[k] - geometry.origin[k] for k in (0, 1))
        face = np.stack(np.meshgrid(x, y), axis=-1) @ np.linalg.inv(geometry.camera[:, :2]).T.astype(np.float32)
        u, v = face[..., 0].clip(-1.1, 1.1), face[..., 1].clip(-0.4, 1.7)
        log = self.fit[0] + self.fit[1] * u + self.fit[2] * (v - 0.8) + self.fit[3] * u**2
        return np.asarray(np.exp(log) / _SKIN_ALBEDO, np.float32)

    def share(self, patch: Array, light: Array) -> Array:
        """How much each pixel of the patch [h, w, 3] looks like this person's skin, 0..1, [h, w]."""
        luma = patch @ _LUMA + 1e-3
        dark = np.log(luma / (light * _SKIN_ALBEDO + 1e-3)) / 0.8
        hue = (patch / luma[..., None] - self.colour / (self.colour @ _LUMA + 1e-3))[..., ::2] / 0.5
        return _soft(np.exp(-(dark**2) - (hue**2).sum(axis=2)), 0.8 * max(self.blur, 0.6))

    def hair(self, patch: Array, light: Array, scale: float) -> Array:
        """Cover [h, w] of strands that hang before the cheek: far darker than skin in that light, and
        dark from above: a beard or the jaw's shadow is not."""
        luma = patch @ _LUMA + 1e-3
        dark = np.clip((0.30 - luma / (light * _SKIN_ALBEDO + 1e-3)) / 0.12, 0, 1)
        tall = np.ones((max(3, round(0.3 * scale)), 1), np.uint8)
        hangs = cv2.erode(dark.astype(np.float32), tall, anchor=(0, len(tall) - 1))
        return _soft(hangs, max(self.blur, 0.7))

    def cast(self, albedo: Array) -> Array:
        """Cloth [..., 3] under the photo's light colour; grey photos give grey masks."""
        grey = (albedo @ _LUMA)[..., None]
        return np.asarray(grey + (albedo * self.tint - grey) * self.saturation, np.float32)


def _sharpness(image: Image, geometry: FaceGeometry) -> tuple[float, float]:
    """Gaussian blur (sigma, pixels) of the photo's edges around the eyes, and standard deviation of its grain (0..1).

    An edge blurred by s has gradient energy over curvature energy of 2 s^2; only the steepest tenth is measured, where
    grain does not count. Grain is what a small blur takes away where the photo is smoothest.
    """
    reach = np.array([1.1, 0.6]) * geometry.scale
    low = np.clip(geometry.eyes.mean(axis=0) - reach, 0, None).astype(int)
    high = np.ceil(geometry.eyes.mean(axis=0) + reach * (1, 1.4)).astype(int)
    part = image[max(low[1], 0) : max(high[1], 0), low[0] : max(high[0], 0)]
    if min(part.shape) < 3:
        return 0.6, 0.0
    grey = np.asarray(part @ (_LUMA / 255), np.float32)
    slope, curve = np.gradient(grey, axis=1), cv2.Sobel(grey, cv2.CV_32F, 2, 0, ksize=1)
    steep = np.abs(slope) >= np.percentile(np.abs(slope), 90)
    sigma = np.sqrt((slope[steep] ** 2).sum() / (2 * (curve[steep] ** 2).sum() + 1e-9))
    grain = np.sqrt(np.percentile(cv2.blur((grey - _soft(grey, 1.0)) ** 2, (5, 5)), 15))
    return float(np.clip(sigma, 0.4, 0.06 * geometry.scale + 0.4)), float(np.clip(0.7 * grain, 0, 0.015))


def _loops(sheet: _Sheet, geometry: FaceGeometry, design: MaskDesign, window: _Window, blur: float) -> Array:
    """Cover [h, w] of the ear loops: bent lines from the sheet's corners to the ears that are in view."""
    cover = np.zeros((window.size[1] * 2, window.size[0] * 2), np.uint8)
    middle = sheet.xy[:, 16].mean(axis=0)
    thick = max(1, round(2 * 0.037 * geometry.scale))
    ears = geometry.ears
    for side, column in ((0, 0), (1, -1)):
        for ear, row in ((ears[side], 1), (ears[side + 2], -2)):
            start = sheet.xy[row, column]
            out = start - middle
            if (ear - start) @ out < 0.02 * geometry.scale * np.hypot(*out):
                continue  # the face hides that ear
            bend = (start + ear) / 2 + np.array([0, 0.06 * geometry.scale])
            t = np.linspace(0, 1, 20)[:, None]
            line = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * ear
            points = np.round((line - window[:2] + 0.5) * 2 * 16).astype(np.int32)
            cv2.polylines(cover, [points], False, 255, thick, cv2.LINE_AA, 4)
    return _fit(_soft(cover / 255 * (design.shape != "bandana"), 2 * max(blur, 0.4)), window.size)


def _contact_shadow(alpha: Array, loops: Array, bare: Array, scale: float) -> Array:
    """Factor of light [h, w] on what lies beside and below the mask; only skin is near enough to take the shadow."""
    tight = _soft(np.maximum(alpha, loops), max(0.03 * scale, 0.5))
    drop = np.array([[1, 0, 0], [0, 1, 0.05 * scale]], np.float32)
    wide = _soft(alpha, max(0.09 * scale, 0.5))
    wide = cv2.warpAffine(wide, drop, alpha.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(1 - (0.30 * wide + 0.22 * tight) * (0.25 + 0.75 * bare), np.float32)
