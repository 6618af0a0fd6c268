"""What the small networks that look at photos share: a copy for every caller at a time, and one way to scale."""

from collections.abc import Callable
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.assets import asset_path

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


class Tflite(Spares[cv2.dnn.Net]):
    """A model file of assets.py as a function of a picture; it is fetched and loaded when it is first called."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda: cv2.dnn.readNetFromTFLite(str(asset_path(name, get=True))))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[h, w, 3] uint8 RGB of the network's size -> its first output; raises AssetError without the file."""
        blob = cv2.dnn.blobFromImage(image, 1 / 255)

        def output(network: cv2.dnn.Net) -> NDArray[np.float32]:
            network.setInput(blob)
            return np.array(network.forward(), dtype=np.float32)

        return self.use(output)


def scaled(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """[h, w, 3] uint8 -> [height, width, 3]: averaged where both axes shrink, else linear."""
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
