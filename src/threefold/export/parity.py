"""Two backends on the same photos: how far apart they are, and what that costs.

The photos are the run's where they are still here, of people whom its networks have not seen where there are such; else
random ones, on which only the difference means something.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold import labels, progress
from threefold.data.tables import read_rows
from threefold.errors import DataError
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

    The fields are keys of parity.json. own: they are the run's, not random ones. unseen: no network in the file was
    trained on their people. before, after: macro F1 in float32 and with the smaller weights (where only some attributes
    are labelled, the mean over those), None without any label. largest, mean: difference of probabilities. changed:
    share of answers that are others.
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
        """The difference and the macro F1 in one line each."""
        photos = f"{self.photos:,} random photos"
        if self.own:
            seen = "that its network never saw" if self.unseen else "which its networks were trained on: a lower bound"
            photos = f"{self.photos:,} of the run's photos, {seen}"
        difference = f"probabilities differ by {self.largest:.4f} at most, {self.mean:.5f} on average"
        lines = [f"{precision} against float32: {difference}; {self.changed:.2%} of the answers change, on {photos}"]
        if self.before is not None and self.after is not None:
            lines.append(f"macro F1 {self.before:.4f} in float32, {self.after:.4f} in {precision}")
        return lines


@dataclass(frozen=True)
class Photos:
    """Photos as each preprocessing of a model makes them, and their labels [N, 3], UNKNOWN where one is missing."""

    batches: tuple[Batch, ...]
    truth: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.truth)

    def first(self, count: int) -> Photos:
        """The first `count` of them."""
        return Photos(tuple(batch[:count] for batch in self.batches), self.truth[:count])

    def chunks(self) -> Iterator[tuple[Batch, ...]]:
        """Batches of one photo, then of two, then of CHUNK: any number must work."""
        for start, end in pairwise([0, 1, 3, *range(3 + CHUNK, len(self) + CHUNK, CHUNK)]):
            if start < len(self):
                yield tuple(batch[start:end] for batch in self.batches)


def random_photos(prepares: Sequence[Prepare], count: int, seed: int) -> Photos:
    """Noisy, smooth and plain photos in turn: to a network all noise looks the same."""
    rng = np.random.default_rng(seed)

    def draw(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        grid = (size, (4, 4), (1, 1))[number % 3]
        small = rng.integers(0, 256, (*grid, 3), dtype=np.uint8)
        return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    batches = tuple(np.stack([draw(number, prepare.size) for number in range(count)]) for prepare in prepares)
    return Photos(batches, np.full((count, 3), labels.UNKNOWN, dtype=np.int8))


def run_photos(
    run: Run, prepares: Sequence[Prepare], fold: int | None, count: int, calibration: int, seed: int
) -> tuple[Photos | None, Photos | None]:
    """(at most `count` photos to judge by, at most `calibration` others); None for those that are not here.

    fold: the one whose people the network has not seen: its photos judge, others calibrate. None: any photos. Raises
    AssetError where a preprocessing needs a file that is missing.
    """
    try:
        rows = _rows(run)
    except DataError:
        return None, None
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    judging = [rows[at] for at in order if rows[at].fold == fold]
    fitting = [rows[at] for at in order if rows[at].fold != fold]
    if not judging:
        half = min(calibration, len(fitting) // 2)
        judging, fitting = fitting[half:], fitting[:half]
    judges = _prepared(judging[:count], prepares, "reading photos")
    return judges, _prepared(fitting[:calibration], prepares, "reading photos to calibrate")


def differences(one: Backend, other: Backend, photos: Photos) -> tuple[float, float | None]:
    """The largest difference of a probability, and of an age in years relative to it (None without ages).

    NaN stays NaN; ages that only one of the two has are NaN.
    """
    (joint, years), (joint2, years2) = _answers(one, photos), _answers(other, photos)
    difference = float(np.abs(joint - joint2).max())
    if years is None or years2 is None:
        return difference, None if years is years2 else float("nan")
    return difference, float((np.abs(years - years2) / np.maximum(np.abs(years), 1)).max())


def measure_loss(plain: Backend, smaller: Backend, photos: Photos, *, real: bool, unseen: bool) -> Loss:
    """What `smaller` changes against `plain`. real: the photos are the run's; unseen: see `Loss`."""
    before, after = _answers(plain, photos)[0], _answers(smaller, photos)[0]
    difference = np.abs(before - after)
    return Loss(
        photos=len(photos),
        own=real,
        unseen=real and unseen,
        before=_score(photos, before),
        after=_score(photos, after),
        largest=float(difference.max()),
        mean=float(difference.mean()),
        changed=float((before.argmax(1) != after.argmax(1)).mean()),
    )


def _answers(backend: Backend, photos: Photos) -> Answer:
    answers = [backend(batch) for batch in photos.chunks()]
    years = [years for _, years in answers if years is not None]
    return np.concatenate([joint for joint, _ in answers]), np.concatenate(years) if years else None


def _score(photos: Photos, joint: NDArray[np.float32]) -> float | None:
    ids, nothing = np.arange(len(photos)).astype(str), np.full(len(photos), np.nan, dtype=np.float32)
    fold = np.full(len(photos), -1, dtype=np.int16)
    macro_f1 = score(Predictions(ids, ids, joint, photos.truth, nothing, nothing, fold))
    return None if np.isnan(macro_f1) else macro_f1


@dataclass(frozen=True)
class _Row:
    path: Path
    truth: tuple[int, ...]
    fold: int


def _rows(run: Run) -> list[_Row]:
    """The run's photos whose files are still here; DataError for tables that cannot be read."""
    folds = {row.get("photo"): row.get("fold") for row in read_rows(run.path / "split.csv", ("photo", "fold"))[1]}
    rows = []
    for row in read_rows(run.path / "photos.csv", ("photo", "path", *labels.ATTRIBUTES))[1]:
        path, fold = Path(row.get("path")), folds.get(row.get("photo"), "")
        if path.is_file() and fold.removeprefix("-").isdecimal():
            truth = tuple(labels.parse(name, row.get(name)) for name in labels.ATTRIBUTES)
            rows.append(_Row(path, truth, int(fold)))
    return rows


def _prepared(rows: Sequence[_Row], prepares: Sequence[Prepare], title: str) -> Photos | None:
    """The photos that can still be read; None where there is none."""

    def prepared(row: _Row) -> list[Batch] | None:
        with contextlib.suppress(DataError):
            image = decode(row.path)
            return [prepare(image) for prepare in prepares]
        return None

    crops, truth = [], []
    with ThreadPoolExecutor() as pool, progress.bar(title) as report:
        for done, (row, images) in enumerate(zip(rows, pool.map(prepared, rows), strict=True), start=1):
            if images is not None:
                crops.append(images)
                truth.append(row.truth)
            report(done, len(rows))
    if not crops:
        return None
    return Photos(tuple(np.stack(batch) for batch in zip(*crops, strict=True)), np.array(truth, dtype=np.int8))
