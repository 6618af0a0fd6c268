"""What the small networks that look at photos share: a copy for every caller at a time, and one way to scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Network = TypeVar("Network")
Output = TypeVar("Output")


class Spares(Generic[Network]):
    """Copies of a network, made when all others are in use: never more than there were callers at one time."""

    # OpenCV's networks hold the photo they work on, so that two threads must not share one; and making one costs more
    # than using it, while threads of a pool come and go. So a caller borrows a spare copy and gives it back.

    def __init__(self, make: Callable[[], Network]) -> None:
        self._make = make
        self._spare: list[Network] = []

    def use(self, work: Callable[[Network], Output]) -> Output:
        """`work(network)` with a copy that no other thread uses; one that raised is not used again."""
        try:
            network = self._spare.pop()  # atomic, as append is
        except IndexError:
            network = self._make()
        output = work(network)
        self._spare.append(network)
        return output


def scaled(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """[h, w, 3] uint8 -> [height, width, 3]: averaged where both axes shrink, else linear."""
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
