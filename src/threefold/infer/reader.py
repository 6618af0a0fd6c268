"""`Reader`: photos in, readings out. The same Prepare as in training, to the byte; of several models, each its own.

Where a run holds a decision (`threefold decide`), its readings go by it: confidences are calibrated, the class said is
the rule's, and what is not sure enough is called indeterminate.

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
from threefold.errors import DataError, PhotoError, RunError
from threefold.evidence.decide import FILE, Decision
from threefold.infer.backends import Backend, oof_digest, open_run
from threefold.runs import Run

INDETERMINATE = "indeterminate"
Photo = Path | str | NDArray[np.uint8]
Boxed = tuple[Photo, Box | None]
Prepared = tuple[tuple[NDArray[np.uint8], ...], Box | None] | PhotoError


@dataclass(frozen=True)
class Reading:
    """What was read from one photo.

    code: the class said, 0..17: the most probable, or what the decision prefers; there always is one. mask, gender,
    age_group: its parts, names as in `labels.NAMES`, or INDETERMINATE where one is less sure than the decision asks.
    probabilities: [18] float32, calibrated by the decision. confidence: that of `code`, the chance that it is right;
    confidences: that of each part of it. raw: [18] float32 as the networks gave them, what oof.npz holds and runs are
    compared by. age: years, None where the model has none. box: the face, None where the whole photo was read.
    """

    code: int
    mask: str
    gender: str
    age_group: str
    age: float | None
    probabilities: NDArray[np.float32]
    confidence: float
    confidences: dict[str, float]
    raw: NDArray[np.float32]
    box: Box | None = None

    @property
    def indeterminate(self) -> tuple[str, ...]:
        """The attributes that are not sure enough to be said."""
        return tuple(name for name in labels.ATTRIBUTES if getattr(self, name) == INDETERMINATE)


class Reader:
    """Reads photos with a backend, and by a decision where there is one.

    Thread-safe as far as the backend is (torch and fake are: they keep no state).
    """

    def __init__(self, backend: Backend, *, batch: int = 64, decision: Decision | None = None) -> None:
        self.backend, self.batch, self.decision = backend, batch, decision

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
                yield make_reading(joint[row], None if years is None else float(years[row]), item[1], self.decision)


def make_reading(
    probabilities: NDArray[np.float32], age: float | None, box: Box | None = None, decision: Decision | None = None
) -> Reading:
    """[18] probabilities as a network gives them -> the Reading that `decision` makes of them (None: their largest)."""
    decided = (decision or Decision()).apply(probabilities[None], np.array([np.nan if age is None else age]))
    code = int(decided.code[0])
    names = [labels.name(key, part) for key, part in zip(labels.ATTRIBUTES, labels.decode(code), strict=True)]
    told = zip(decided.indeterminate[0], names, strict=True)
    mask, gender, group = (INDETERMINATE if unsure else name for unsure, name in told)
    calibrated, sure = decided.probabilities[0].astype(np.float32), decided.confidences[0].tolist()
    parts = dict(zip(labels.ATTRIBUTES, sure, strict=True))
    return Reading(code, mask, gender, group, age, calibrated, float(decided.confidence[0]), parts, probabilities, box)


def load(model: Path | str, *, decision: bool = True) -> Reader:
    """A Reader of a run directory, by the run's decision where it has one and `decision` is true.

    Raises RunError naming what is wrong with it: a decision that was fitted on other out-of-fold predictions included.
    """
    backend, run = open_run(Path(model)), Run(Path(model))
    if not decision or not (run.path / FILE).exists():
        return Reader(backend)
    stored, where = run.read(FILE), run.path / FILE
    if stored.get("digest") != oof_digest(run):
        raise RunError(f"{where}: was fitted on other predictions than {run.path / 'oof.npz'}; run `threefold decide`")
    return Reader(backend, decision=Decision.from_dict(stored.get("decision"), where))
