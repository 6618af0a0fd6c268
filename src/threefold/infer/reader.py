"""`Reader`: photos in, readings out. The same Prepare as in training, to the byte; of several models, each its own.

A reading is about one photo of one face. It never says who somebody is, and it is not valid for people under 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.face import Box
from threefold.data.photo import decode
from threefold.errors import DataError, PhotoError
from threefold.infer.backends import Backend, open_run

Photo = Path | str | NDArray[np.uint8]
Boxed = tuple[Photo, Box | None]
Prepared = tuple[tuple[NDArray[np.uint8], ...], Box | None] | PhotoError


@dataclass(frozen=True)
class Reading:
    """What was read from one photo.

    mask, gender, age_group: names as in `labels.NAMES`, of the most probable class; `code` is its number 0..17.
    probabilities: [18] float32. confidence: the probability of `code`. age: years, None where the model has none.
    box: the face, None where the whole photo was read.
    """

    code: int
    mask: str
    gender: str
    age_group: str
    age: float | None
    probabilities: NDArray[np.float32]
    confidence: float
    box: Box | None = None


class Reader:
    """Reads photos with a backend. Thread-safe as far as the backend is (torch and fake are: they keep no state)."""

    def __init__(self, backend: Backend, *, batch: int = 64) -> None:
        self.backend, self.batch = backend, batch

    def __call__(self, photo: Photo, box: Box | None = None) -> Reading:
        """A path or uint8 RGB [H, W, 3] (EXIF applied), and its face's box -> its Reading; raises PhotoError."""
        return self.read([(photo, box)])[0]

    def read(self, photos: Iterable[Photo | Boxed]) -> list[Reading]:
        """Readings of many photos, in order; raises PhotoError for the first that cannot be read."""
        readings = []
        for answer in self.stream(photos):
            if isinstance(answer, PhotoError):
                raise answer
            readings.append(answer)
        return readings

    def stream(self, photos: Iterable[Photo | Boxed]) -> Iterator[Reading | PhotoError]:
        """A Reading or the PhotoError of each photo or (photo, box), in order; memory stays at a batch.

        A photo is decoded once, whatever the number of models. Decoding uses all cores.
        """
        source = iter(photos)
        with ThreadPoolExecutor() as pool:
            part = list(pool.map(self._prepared, islice(source, self.batch)))
            while part:
                # the next batch decodes while the network reads this one
                ahead = [pool.submit(self._prepared, photo) for photo in islice(source, self.batch)]
                yield from self._read(part)
                part = [task.result() for task in ahead]

    def _prepared(self, item: Photo | Boxed) -> Prepared:
        photo, box = item if isinstance(item, tuple) else (item, None)
        name = "photo" if isinstance(photo, np.ndarray) else str(photo)
        try:
            image = photo if isinstance(photo, np.ndarray) else decode(Path(photo))
            return tuple(prepare(image, box) for prepare in self.backend.prepares), box
        except PhotoError as error:
            return error
        except DataError as error:
            return PhotoError(f"{name}: {error}")

    def _read(self, part: list[Prepared]) -> Iterator[Reading | PhotoError]:
        good = [item[0] for item in part if not isinstance(item, PhotoError)]
        if good:
            joint, years = self.backend(tuple(np.stack(batch) for batch in zip(*good, strict=True)))
        rows = iter(range(len(good)))
        for item in part:
            if isinstance(item, PhotoError):
                yield item
            else:
                row = next(rows)
                yield make_reading(joint[row], None if years is None else float(years[row]), item[1])


def make_reading(probabilities: NDArray[np.float32], age: float | None, box: Box | None = None) -> Reading:
    """[18] probabilities -> the Reading of their largest."""
    code = int(probabilities.argmax())
    names = (labels.name(key, part) for key, part in zip(labels.ATTRIBUTES, labels.decode(code), strict=True))
    mask, gender, age_group = names
    return Reading(code, mask, gender, age_group, age, probabilities, float(probabilities[code]), box)


def load(model: Path | str) -> Reader:
    """A Reader of a run directory. Raises RunError naming what is wrong with it."""
    return Reader(open_run(Path(model)))
