"""What is behind the person, kept or painted over, so that a network cannot learn where a photo was taken.

Applied inside `Prepare` to the crop, at the photo's resolution and before it is scaled for the network. `segment` keeps
hair, hats and dark clothes, also in tight crops. Same pixels, same result, for any number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.assets import HELPERS
from threefold.errors import RecipeError
from threefold.photos.networks import Tflite, scaled

Pixels = NDArray[np.uint8]
Fill = Literal["grey", "black", "white"]

FILLS: dict[str, int] = {"grey": 128, "black": 0, "white": 255}

IDENTITY = f"1 {HELPERS['selfie'].sha256}"
"""Raise the number when the pixels of an equal background change: part of the name of a cache."""


@dataclass(frozen=True)
class Segment:
    """MediaPipe's selfie segmentation (general model, 256 x 256): pixels more likely a person than `threshold` stay."""

    fill: Fill = "grey"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise RecipeError(f"prepare.background: segment(threshold={self.threshold:g}) must be between 0 and 1")

    def __call__(self, image: Pixels) -> Pixels:
        """[h, w, 3] uint8 RGB -> the same shape; raises AssetError without the model."""
        person = _SELFIE(scaled(image, 256, 256)).reshape(256, 256) > self.threshold
        # A crop without a person stays as it is: painted over, it would be one colour.
        if person.mean() < 0.02:
            return image
        # scaling the mask smooths its edge
        share = cv2.resize(person.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:, :, None]
        ground = np.float32(FILLS[self.fill])
        return np.asarray(np.rint(ground + (image - ground) * share), dtype=np.uint8)


def _keep(image: Pixels) -> Pixels:
    return image


_SELFIE = Tflite("selfie")
BACKGROUNDS: dict[str, Callable[..., Any]] = {"keep": lambda: _keep, "segment": Segment}
