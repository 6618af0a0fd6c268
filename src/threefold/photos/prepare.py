"""`Prepare`: photo in, [H, W, 3] bytes for the network out. The one implementation, stored with every model.

The cache that training reads, validation, `predict`, the service and the exported model all call it, so a network never
sees photos cropped or scaled differently from those it learned on (the contest's most expensive fault, worth 0.10 macro
F1). Same photo, same Prepare, same bytes, for any number of threads or processes. Normalisation is carried here, since
it belongs to the model, but applied by the network's side: what is cached stays uint8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threefold import spec
from threefold.errors import DataError, RecipeError, one_of
from threefold.files import digest
from threefold.photos import background, detect
from threefold.photos.decode import Box

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
Colour = tuple[float, float, float]
Crop = Callable[[Pixels, Box | None, Size], Pixels]
Paint = Callable[[Pixels], Pixels]

VERSION = 1
"""Raise it whenever the pixels of an equal Prepare change: caches made before are then not used again."""


@dataclass(frozen=True)
class Prepare:
    """How a photo becomes the network's input.

    crop: `none` (all of it, squeezed to `size` whatever its aspect, as the contest's baseline does), `centre(h,w)` in
    pixels of the photo, `face(margin)`. background: what is done with it in the crop before it is scaled, a row of
    `background.BACKGROUNDS`. size: (height, width), or any form that `parse_size` reads. interpolation:
    `area` averages boxes along an axis that shrinks and is linear along one that grows (OpenCV's own INTER_AREA turns
    into near-blocks when either axis grows); `bilinear` is Pillow's, smoothed when shrinking, which is what
    torchvision's Resize does to a photo; four times slower. mean, std: per channel in 0..1 units.
    Raises RecipeError naming the recipe key.
    """

    crop: str = "none"
    size: Size = (128, 96)
    interpolation: str = "area"
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)
    background: str = "keep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parse_size(self.size))
        object.__setattr__(self, "mean", _colour("mean", self.mean))
        object.__setattr__(self, "std", _colour("std", self.std))
        if (name := str(self.interpolation)) not in RESIZES:
            raise RecipeError(f"prepare.interpolation: {self.interpolation!r} is not known ({one_of(RESIZES, name)})")
        _ = self._crop, self._background  # built now, so that a wrong value is refused now

    def __call__(self, image: Pixels, box: Box | None = None) -> Pixels:
        """[h, w, 3] uint8 RGB, and the face's box in its pixels where one is known -> [H, W, 3] uint8, C-contiguous.

        Raises DataError when the box does not lie on the photo, AssetError when a model file that is needed (of the
        face detector, of the segmentation) is not here and cannot be fetched.
        """
        return self._scaled(self._crop(image, box, self.size))

    def face(self, image: Pixels, box: Box) -> Pixels:
        """The face in `box`, whoever asks: the model's own crop around it, or for a model that was trained on whole
        portraits what is like one (PORTRAIT). Shapes and errors as of a call."""
        around = self._crop if self.finds_faces else PORTRAIT
        return self._scaled(around(image, box, self.size))

    def whole(self, image: Pixels) -> Pixels:
        """The whole photo as a portrait, no face is looked for: the model's own crop; of a model of crops around faces
        what it was trained on where no face was found, the centred part. Shapes and errors as of a call."""
        return self._scaled(centred(image, self.size) if self.finds_faces else self._crop(image, None, self.size))

    def _scaled(self, part: Pixels) -> Pixels:
        part = self._background(part)
        if part.shape[:2] == self.size:
            return np.ascontiguousarray(part)
        return RESIZES[self.interpolation](part, self.size)

    @cached_property
    def _crop(self) -> Crop:
        return cast(Crop, spec.build_one(self.crop, CROPS, "prepare.crop"))

    @cached_property
    def _background(self) -> Paint:
        return cast(Paint, spec.build_one(self.background, background.BACKGROUNDS, "prepare.background"))

    @property
    def finds_faces(self) -> bool:
        """True when the crop is made around a face: of a given box, else of the detector, else a centred part."""
        return isinstance(self._crop, FaceBox)

    @property
    def geometry(self) -> str:
        """Digest of everything that the bytes depend on: not mean and std, but the version of this implementation, of
        the detector where faces are found and of the background where it is not kept."""
        parts = [str(VERSION), repr(spec.parse(self.crop, "prepare.crop")), f"{self.size}", self.interpolation]
        if self.finds_faces:
            parts.append(detect.IDENTITY)
        behind = spec.parse(self.background, "prepare.background")
        if behind[0].name != "keep":
            parts += [repr(behind), background.IDENTITY]
        return digest(*parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prepare:
        """Inverse of `to_dict`; raises RecipeError on an unknown key or a value that cannot be used."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                raise RecipeError(f"prepare.{key} is not known ({one_of(names, key)})")
        return cls(**values)


def parse_size(value: object) -> Size:
    """(height, width) of `"128x96"`, `[128, 96]` or one number for a square, each 8..4096; raises RecipeError."""
    parts: Any = value
    if isinstance(value, str):
        parts = [int(part) if part.strip().isdecimal() else part for part in value.lower().split("x")]
    if isinstance(parts, int):
        parts = [parts]
    parts = list(parts) * (3 - len(parts)) if isinstance(parts, list | tuple) and len(parts) in (1, 2) else []
    if not parts or not all(type(part) is int and 8 <= part <= 4096 for part in parts):
        raise RecipeError(f"prepare.size: expected height x width like 128x96, each 8 to 4096, not {value!r}")
    return parts[0], parts[1]


def _colour(name: str, value: Any) -> Colour:
    parts = value if isinstance(value, list | tuple) else []
    low = 0.0 if name == "mean" else 1e-6
    if len(parts) != 3 or not all(isinstance(part, int | float) and low <= part <= 1 for part in parts):
        raise RecipeError(f"prepare.normalise: {name} must be three numbers from {low:g} to 1, not {value!r}")
    return float(parts[0]), float(parts[1]), float(parts[2])


def dataset_statistics(images: Pixels, chunk: int = 512) -> tuple[Colour, Colour]:
    """(mean, std) per channel over all pixels of [N, H, W, 3] uint8, in 0..1 units; std is the population's.

    Exact: counts the 256 values of each channel, `chunk` images at a time, and computes in float64 from the counts.
    The contest's own script subtracted a mean in 0..1 from pixels in 0..255 and reported 0.60 for 0.24.
    """
    if images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise DataError(f"statistics need photos [N, H, W, 3], not {images.shape}")
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), chunk):
        for channel in range(3):
            counts[channel] += np.bincount(images[start : start + chunk, ..., channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return (mean[0].item(), mean[1].item(), mean[2].item()), (std[0].item(), std[1].item(), std[2].item())


def _whole(image: Pixels, box: Box | None, size: Size) -> Pixels:
    return image


@dataclass(frozen=True)
class Centre:
    """The middle h x w pixels of the photo; along an axis where it has fewer, all of them."""

    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.h, self.w) < 1:
            raise RecipeError(f"prepare.crop: centre({self.h}, {self.w}) needs a height and a width of at least 1")

    def __call__(self, image: Pixels, box: Box | None, size: Size) -> Pixels:
        """[h, w, 3] part of [H, W, 3]; box and size do not matter."""
        height, width = min(self.h, image.shape[0]), min(self.w, image.shape[1])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return image[top : top + height, left : left + width]


def centred(image: Pixels, size: Size) -> Pixels:
    """The largest middle part of [H, W, 3] that has the aspect of `size`, to a pixel: where no face is found."""
    aspect = size[0] / size[1]
    rows, columns = image.shape[:2]
    return Centre(max(1, round(columns * aspect)), max(1, round(rows / aspect)))(image, None, size)


@dataclass(frozen=True)
class FaceBox:
    """`margin` x the longer side of the box as a square around its centre, grown to the aspect of the network's input.

    Where that leaves the photo its edge pixels are repeated. A photo without a box is given that of its largest face;
    one in which no face is found: the largest centred part of that aspect.
    """

    margin: float = 1.6

    def __post_init__(self) -> None:
        if not 0.5 <= self.margin <= 3:
            raise RecipeError(f"prepare.crop: face(margin={self.margin:g}) must be from 0.5 to 3")

    def __call__(self, image: Pixels, box: Box | None, size: Size) -> Pixels:
        """[h, w, 3] with h / w = the aspect of `size`, to a pixel; raises DataError on a box off the photo."""
        rows, columns = image.shape[:2]
        aspect = size[0] / size[1]
        box = detect.largest(image) if box is None else box
        if box is None:
            return centred(image, size)
        side = self.margin * max(_sides(box, rows, columns))
        height, width = max(1, round(side * max(1.0, aspect))), max(1, round(side * max(1.0, 1 / aspect)))
        top = min(max(round((box[1] + box[3] - height) / 2), 1 - height), rows - 1)
        left = min(max(round((box[0] + box[2] - width) / 2), 1 - width), columns - 1)
        inside = image[max(top, 0) : top + height, max(left, 0) : left + width]
        above, before = max(-top, 0), max(-left, 0)
        below, behind = height - above - inside.shape[0], width - before - inside.shape[1]
        if not (above or before or below or behind):
            return inside
        bordered = cv2.copyMakeBorder(inside, above, below, before, behind, cv2.BORDER_REPLICATE)
        return np.asarray(bordered, dtype=np.uint8)


PORTRAIT = FaceBox(1.25)
"""What is cut out around a face for a model that was trained on whole portraits: their shorter side is 1.07 to 1.39
times the longer side of the face's box in 90 of 100 head-and-shoulder portraits of All-Age-Faces, 1.23 in the
middle."""


def _sides(box: Box, rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a box of which at least half lies on the photo: that also bounds the crop's memory."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if all(map(math.isfinite, box)) and width > 0 and height > 0:
        inside = (min(right, columns) - max(left, 0), min(bottom, rows) - max(top, 0))
        if min(inside) > 0 and inside[0] * inside[1] >= width * height / 2:
            return width, height
    place = f"face box {tuple(box)} (left, top, right, bottom)"
    raise DataError(f"{place} does not lie on the photo, {columns}x{rows} pixels")


def _area(image: Pixels, size: Size) -> Pixels:
    rows, columns = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    out = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    if (rows, columns) != size:
        out = cv2.resize(out, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(out, dtype=np.uint8)


def _bilinear(image: Pixels, size: Size) -> Pixels:
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


CROPS: dict[str, Callable[..., Any]] = {"none": lambda: _whole, "centre": Centre, "face": FaceBox}
RESIZES: dict[str, Callable[[Pixels, Size], Pixels]] = {"area": _area, "bilinear": _bilinear}
