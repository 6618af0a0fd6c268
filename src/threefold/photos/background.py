"""What is behind the person, kept or painted over: one colour cannot tell a network where a photo was taken.

Applied inside `Prepare` to the crop, at the photo's resolution and before it is scaled for the network: the mask is
found on a small copy and its edge is smoothed on the way back. A crop in which no person is found (under a fiftieth of
it) stays as it is: painted over, it would say nothing at all. `segment` is the good one: hair, hats and dark clothes
stay, also in tight crops. `grabcut` needs no model file, but knows only colours and where a head and shoulders usually
are: of 48 portraits its person overlaps that of `segment` by 0.89 (median), and one in five loses much of its hair or
clothes (under 0.7); in a crop that is nearly all face it cuts into the face. Same pixels, same result, for any number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.assets import HELPERS, asset_path
from threefold.errors import RecipeError
from threefold.photos.networks import Spares, scaled

Pixels = NDArray[np.uint8]
Fill = Literal["grey", "black", "white"]

FILLS: dict[str, int] = {"grey": 128, "black": 0, "white": 255}
SMALL = 128
"""Longer side of the copy that `grabcut` works on: at 256 it looks no better and takes four times as long."""

IDENTITY = f"1 {HELPERS['selfie'].sha256}"
"""Raise the number when the pixels of an equal background change: part of the name of a cache."""


@dataclass(frozen=True)
class GrabCut:
    """Colour models of person and background (Rother et al., "GrabCut", 2004), started from a head and shoulders.

    iterations: 1 to 10. A crop with a side under 16 pixels after scaling is left as it is.
    """

    fill: Fill = "grey"
    iterations: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= 10:
            raise RecipeError(f"prepare.background: grabcut(iterations={self.iterations}) must be from 1 to 10")

    def __call__(self, image: Pixels) -> Pixels:
        """[h, w, 3] uint8 RGB -> the same shape."""
        scale = min(1.0, SMALL / max(image.shape[:2]))
        rows, columns = round(image.shape[0] * scale), round(image.shape[1] * scale)
        if min(rows, columns) < 16:
            return image
        mask = _head_and_shoulders(rows, columns)
        cv2.setRNGSeed(0)  # of this thread: the colour models start from random pixels
        models = np.zeros((1, 65)), np.zeros((1, 65))
        whole = (0, 0, columns, rows)  # not used where a mask is given
        cv2.grabCut(scaled(image, rows, columns), mask, whole, *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        return _painted(image, mask % 2 == 1, self.fill)  # 1 and 3: the person, surely and probably


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
        blob = cv2.dnn.blobFromImage(scaled(image, 256, 256), 1 / 255)

        def person(network: cv2.dnn.Net) -> NDArray[np.float32]:
            network.setInput(blob)
            return np.array(network.forward(), dtype=np.float32).reshape(256, 256)

        return _painted(image, _NETWORKS.use(person) > self.threshold, self.fill)


def _painted(image: Pixels, person: NDArray[np.bool_], fill: Fill) -> Pixels:
    """The image where `person` [any size] is true, else the fill, and between them what scaling makes of it."""
    if person.mean() < 0.02:
        return image
    share = cv2.resize(person.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:, :, None]
    ground = np.float32(FILLS[fill])
    return np.asarray(np.rint(ground + (image - ground) * share), dtype=np.uint8)


def _head_and_shoulders(rows: int, columns: int) -> NDArray[np.uint8]:
    """[rows, columns] of grabCut's marks: surely background in the upper corners and sides, surely person in the middle
    of face and chest, probably person around these, probably background elsewhere."""
    mask = np.full((rows, columns), cv2.GC_PR_BGD, np.uint8)

    def place(x: float, y: float) -> tuple[int, int]:
        return round(x * columns), round(y * rows)

    def body(*corners: tuple[float, float], mark: int) -> None:
        cv2.fillConvexPoly(mask, np.array([place(*corner) for corner in corners], np.int32), mark)

    edge = max(1, columns // 16)
    mask[: rows // 2, :edge] = mask[: rows // 2, -edge:] = cv2.GC_BGD
    for corner in (0, columns - 1):
        cv2.ellipse(mask, (corner, 0), place(0.25, 0.3), 0, 0, 360, cv2.GC_BGD, -1)
    cv2.ellipse(mask, place(0.5, 0.45), place(0.33, 0.4), 0, 0, 360, cv2.GC_PR_FGD, -1)
    body((0.3, 0.75), (0.7, 0.75), (1, 1), (0, 1), mark=cv2.GC_PR_FGD)
    cv2.ellipse(mask, place(0.5, 0.46), place(0.17, 0.26), 0, 0, 360, cv2.GC_FGD, -1)
    body((0.4, 0.7), (0.6, 0.7), (0.75, 1), (0.25, 1), mark=cv2.GC_FGD)
    return mask


def _make() -> cv2.dnn.Net:
    return cv2.dnn.readNetFromTFLite(str(asset_path("selfie", get=True)))


def _same(image: Pixels) -> Pixels:
    return image


_NETWORKS = Spares(_make)
BACKGROUNDS: dict[str, Callable[..., Any]] = {"keep": lambda: _same, "grabcut": GrabCut, "segment": Segment}
