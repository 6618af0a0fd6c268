"""A backend without a network, for tests of everything above one."""

from __future__ import annotations

import numpy as np

from threefold.labels import CLASSES
from threefold.photos.prepare import Prepare
from threefold.read.backends import Answer


class FakeBackend:
    """Answers by the mean brightness of a photo: for tests of everything above a network."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self.prepares = (prepare or Prepare(),)

    def __call__(self, photos) -> Answer:
        """The class is brightness / 256 * 18, with probability 0.83."""
        code = (photos[0].mean((1, 2, 3)) / 256 * CLASSES).astype(np.int64)
        joint = np.full((len(code), CLASSES), 0.01, dtype=np.float32)
        joint[np.arange(len(code)), code] = 0.83
        return joint, None
