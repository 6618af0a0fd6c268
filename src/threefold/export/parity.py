"""Two backends on the same photos: how far apart they are, and what that costs.

The photos are the run's own where they are still here, of people its networks have not seen where that can be; else
random ones, on which only the distance means something.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold import labels, progress
from threefold.data.tables import read_rows
from threefold.errors import AssetError, DataError
from threefold.evidence.metrics import score
from threefold.photos.decode import decode
from threefold.photos.prepare import Prepare
from threefold.predictions import Predictions
from threefold.read.backends import Answer, Backend, Batch
from threefold.runs import Run

CHUNK = 32
"""Photos read at once."""


@dataclass(frozen=True)
class Loss:
    """What smaller weights changed on `photos` photos.

    own: they are the run's, not random ones. unseen: no network in the file was trained on their people. before, after:
    macro F1 in float32 and with the smaller weights (of photos that know only some attributes, the mean over those),
    None where no truth is known. largest, mean: difference of probabilities. changed: share of answers that are others.
    """

    photos: int
    own: bool
    unseen: bool
    before: float | None
    after: float | None
    largest: float
    mean: float
    changed: float

    def lines(self, precision: str) -> list[str]:
        """The same for people."""
        whose = "of the run's photos" if self.own else "random photos"
        seen = "that its network never saw" if self.unseen else "which its networks were trained on: a lower bound"
        of = f"{self.photos:,} {whose}" + (f", {seen}" if self.own else "")
        apart = f"probabilities differ by {self.largest:.4f} at most, {self.mean:.5f} on average"
        said = [f"{precision} against float32: {apart}, {self.changed:.2%} of the answers, on {of}"]
        if self.before is not None and self.after is not None:
            said.append(f"macro F1 {self.before:.4f} in float32, {self.after:.4f} in {precision}")
        return said


@dataclass(frozen=True)
class Photos:
    """Photos as each preprocessing of a model makes them, and their truth [N, 3], UNKNOWN where nobody said."""

    batches: tuple[Batch, ...]
    truth: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.truth)

    def first(self, count: int) -> Photos:
        """Of the first `count`."""
        return Photos(tuple(batch[:count] for batch in self.batches), self.truth[:count])

    def chunks(self) -> Iterator[tuple[Batch, ...]]:
        """One photo, then two, then CHUNK at a time: any number must work."""
        ends = [0, 1, 3, *range(3 + CHUNK, len(self) + CHUNK, CHUNK)]
        for start, end in pairwise(ends):
            if start < len(self):
                yield tuple(batch[start:end] for batch in self.batches)


def random_photos(prepares: Sequence[Prepare], count: int, seed: int) -> Photos:
    """Noisy, smooth and plain ones in turn: noise alone all looks the same to a network."""
    rng = np.random.default_rng(seed)

    def draw(kind: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        grid = (size, (4, 4), (1, 1))[kind % 3]
        small = rng.integers(0, 256, (*grid, 3), dtype=np.uint8)
        return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    batches = tuple(np.stack([draw(kind, prepare.size) for kind in range(count)]) for prepare in prepares)
    return Photos(batches, np.full((count, 3), labels.UNKNOWN, dtype=np.int8))


def own_photos(
    run: Run, prepares: Sequence[Prepare], fold: int | None, count: int, calibration: int, seed: int
) -> tuple[Photos | None, Photos | None]:
    """(at most `count` photos to judge by, `calibration` others), None where the run's photos are not here.

    fold: the one whose people the network has not seen: they judge, and the others calibrate; None: any photos.
    """
    try:
        rows = _rows(run)
    except DataError:
        return None, None
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    held = [at for at in order if fold is not None and rows[at].fold == fold]
    seen = [at for at in order if fold is None or rows[at].fold != fold]
    if not held:
        spared = min(calibration, len(seen) // 2)
        held, seen = seen[spared:], seen[:spared]
    judging, fitting = ([rows[at] for at in part] for part in (held[:count], seen[:calibration]))
    try:
        return _prepared(judging, prepares, "reading photos"), _prepared(
            fitting, prepares, "reading photos to calibrate"
        )
    except AssetError as error:
        progress.say(f"the run's photos are not looked at: {error}")
        return None, None


def differences(one: Backend, other: Backend, photos: Photos) -> tuple[float, float | None]:
    """The largest difference of a probability, and of an age relative to it (None without ages); NaN stays NaN."""
    joint, years = _answers(one, photos)
    joint2, years2 = _answers(other, photos)
    if (years is None) != (years2 is None):
        return float(np.abs(joint - joint2).max()), float("nan")
    relative = None
    if years is not None and years2 is not None:
        relative = float((np.abs(years - years2) / np.maximum(np.abs(years), 1)).max())
    return float(np.abs(joint - joint2).max()), relative


def measure_loss(plain: Backend, smaller: Backend, photos: Photos, *, own: bool, unseen: bool) -> Loss:
    """See `Loss`."""
    before, after = _answers(plain, photos)[0], _answers(smaller, photos)[0]
    apart = np.abs(before - after)
    changed = float((before.argmax(1) != after.argmax(1)).mean())
    one, other = _score(photos, before), _score(photos, after)
    return Loss(len(photos), own, own and unseen, one, other, float(apart.max()), float(apart.mean()), changed)


def _answers(backend: Backend, photos: Photos) -> Answer:
    said = [backend(batch) for batch in photos.chunks()]
    years = [year for _, year in said if year is not None]
    return np.concatenate([joint for joint, _ in said]), np.concatenate(years) if years else None


def _score(photos: Photos, joint: NDArray[np.float32]) -> float | None:
    ids, nothing = np.arange(len(photos)).astype(str), np.full(len(photos), np.nan, dtype=np.float32)
    fold = np.full(len(photos), -1, dtype=np.int16)
    found = score(Predictions(ids, ids, joint, photos.truth, nothing, nothing, fold))
    return None if np.isnan(found) else found


@dataclass(frozen=True)
class _Row:
    path: Path
    truth: tuple[int, ...]
    fold: int


def _rows(run: Run) -> list[_Row]:
    """The run's photos whose files are still here; DataError for tables that cannot be read."""
    dealt = {row.get("photo"): row.get("fold") for row in read_rows(run.path / "split.csv", ("photo", "fold"))[1]}
    found = []
    for row in read_rows(run.path / "photos.csv", ("photo", "path", *labels.ATTRIBUTES))[1]:
        path, fold = Path(row.get("path")), dealt.get(row.get("photo"), "")
        if path.is_file() and fold.removeprefix("-").isdecimal():
            found.append(_Row(path, tuple(labels.parse(name, row.get(name)) for name in labels.ATTRIBUTES), int(fold)))
    return found


def _prepared(rows: Sequence[_Row], prepares: Sequence[Prepare], title: str) -> Photos | None:
    """Photos that can still be read; None where there is none."""

    def make(row: _Row) -> Any:
        with contextlib.suppress(DataError):
            image = decode(row.path)
            return tuple(prepare(image) for prepare in prepares), row.truth
        return None

    made = []
    with ThreadPoolExecutor() as pool, progress.bar(title) as report:
        for done, each in enumerate(pool.map(make, rows), start=1):
            made += [each] if each is not None else []
            report(done, len(rows))
    if not made:
        return None
    crops, truth = zip(*made, strict=True)
    return Photos(tuple(np.stack(batch) for batch in zip(*crops, strict=True)), np.array(truth, dtype=np.int8))
