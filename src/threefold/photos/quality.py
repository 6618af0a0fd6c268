"""Whether a face can be read at all: how large it is, and how sharp.

A face of a few pixels, or one that is out of focus, still gets 18 probabilities, and often sure ones. So it is judged
by two numbers that need no network: the shorter side of its box, and a focus measure, the energy of the Laplacian
(Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import RunError, one_of
from threefold.photos.decode import Box
from threefold.photos.networks import scaled

OK, SMALL, BLURRED = "ok", "small", "blurred"
SIDE = 32
"""Pixels a side at which sharpness is measured: what mask, gender and age are read from is still there, the grain of a
sensor and the blocks of a JPEG are not."""


@dataclass(frozen=True)
class Limits:
    """The least a face must have to be read. min_face: pixels of its box's shorter side, 0 or more (0: any size).
    min_sharpness: of `sharpness`, 0 or more (0: any). Raises RunError for numbers outside.

    Measured on the faces that the detector finds in real photos, 1,762 cut from press photos (with masks of all kinds),
    1,500 of All-Age-Faces and 1,500 of UTKFace: 2 are called small, and 6, 0 and 0 blurred, 0.13 % of all; most of the
    6 are out of focus. Blurred by a Gaussian whose standard deviation is a sixteenth of the face's side, after which
    nobody knows who it is, 99 % are called blurred (988 to 996 of 1,000 by set); by a twelfth, 99.8 % or more; by a
    32nd, which leaves eyes, nose and mouth, 15 to 40 %. The lowest value of a portrait was 0.41, the middle 0.8 to 0.9.
    """

    min_face: int = 24
    min_sharpness: float = 0.22

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise RunError(f"limits: {name} is {value!r}; expected a number, 0 or more")

    @classmethod
    def from_dict(cls, values: Any, where: object = "limits") -> Limits:
        """Read {min_face, min_sharpness}, either may be missing, None is the default; RunError naming `where`."""
        names = list(asdict(cls()))
        if values is not None and not isinstance(values, dict):
            raise RunError(f"{where}: limits are {values!r}; expected {{{', '.join(names)}}}")
        for name in values or {}:
            if name not in names:
                raise RunError(f"{where}: limit {name!r} is not known ({one_of(names, str(name))})")
        return cls(**(values or {}))


def quality(image: NDArray[np.uint8], box: Box, limits: Limits) -> str:
    """`ok`, `small` or `blurred`: of the face in `box` (pixels) of an RGB photo [H, W, 3] uint8."""
    left, top, right, bottom = box
    if min(right - left, bottom - top) < limits.min_face:
        return SMALL
    return BLURRED if limits.min_sharpness and sharpness(image, box) < limits.min_sharpness else OK


def sharpness(image: NDArray[np.uint8], box: Box) -> float:
    """Standard deviation of the Laplacian over that of the grey values, in the box scaled to SIDE x SIDE; from 0 on.

    A plain surface has 0, a box that lies off the photo too; white noise has 4.5.
    """
    # Divided by the contrast, so that a dark photo is not taken for a blurred one; scaled to one size, so that a face
    # gets the same number whatever the photo's resolution.
    rows, columns = image.shape[:2]
    left, top = (max(0, round(side)) for side in box[:2])
    right, bottom = min(columns, round(box[2])), min(rows, round(box[3]))
    if right - left < 2 or bottom - top < 2:
        return 0.0
    part = scaled(np.ascontiguousarray(image[top:bottom, left:right]), SIDE, SIDE)
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # the border is left out: OpenCV mirrors the face there
    edges = np.asarray(cv2.Laplacian(grey, cv2.CV_32F))[1:-1, 1:-1]
    return float(edges.std() / max(float(grey.std()), 1.0))
