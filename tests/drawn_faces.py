"""Photos with faces that need no network: textured boxes in red frames, and the detector that finds the frames."""

from __future__ import annotations

import cv2
import numpy as np
from fake_backend import FakeBackend
from numpy.typing import NDArray

from threefold.photos.detect import Detection
from threefold.photos.prepare import Prepare
from threefold.read.backends import Answer

SCORES = (0.9, 0.8, 0.7)
"""From left to right."""


def photo_with(
    *boxes: tuple[int, int, int, int], size: tuple[int, int] = (180, 220), shade: int = 90
) -> NDArray[np.uint8]:
    """RGB [H, W, 3] with a face in each box (left, top, right, bottom)."""
    image = np.full((*size, 3), shade, np.uint8)
    for i, (left, top, right, bottom) in enumerate(boxes):
        rng = np.random.default_rng(i)
        shape = (right - left, bottom - top)
        parts = [cv2.resize(rng.random((n, n)), shape, interpolation=cv2.INTER_CUBIC) / n for n in (2, 4, 8, 16, 32)]
        grey = np.sum(parts, axis=0)  # as in photos, the finer the fainter
        grey = 10 + 230 * (grey - grey.min()) / np.ptp(grey)
        image[top:bottom, left:right] = grey[..., None].astype(np.uint8)
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (255, 0, 0), 1)
    return image


def frame_faces(image: NDArray[np.uint8]) -> list[Detection]:
    """The red frames, the surest first."""
    red = ((image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] < 60)).astype(np.uint8)
    boxes = sorted(tuple(map(float, row[:4])) for row in cv2.connectedComponentsWithStats(red)[2][1:] if row[2] > 4)
    return [
        Detection((left, top, left + width, top + height), SCORES[i % 3], ())
        for i, (left, top, width, height) in enumerate(boxes)
    ]


class Recorder(FakeBackend):
    """A backend that keeps what it was asked."""

    def __init__(self, prepare: Prepare) -> None:
        super().__init__(prepare)
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, photos: tuple[NDArray[np.uint8], ...]) -> Answer:
        self.seen.append(photos[0].copy())
        return super().__call__(photos)
