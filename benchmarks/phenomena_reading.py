"""What a network says of the eval people of a data set, with their photos prepared as in training or otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.sources import eval_photos, read_answers
from threefold.errors import DataError
from threefold.evidence.metrics import measure
from threefold.learn.net_backend import NetBackend
from threefold.photos.prepare import Prepare
from threefold.predictions import Predictions
from threefold.read.backends import Answer, Backend
from threefold.read.reader import Reader

Images = NDArray[np.uint8]


class Altered:
    """A backend whose photos are prepared otherwise (`prepare`) or changed after it (`change`)."""

    def __init__(self, backend: NetBackend, prepare: Prepare, change: Callable[[Images], Images]) -> None:
        self.backend, self.prepares, self.change = backend, (prepare,), change

    def __call__(self, photos: tuple[Images, ...]) -> Answer:
        return self.backend((np.ascontiguousarray(self.change(photos[0])),))


def judged(backend: Backend, data: Path) -> Predictions:
    """What a backend says of the eval people, beside the truth; DataError where DATA has no eval/answers.csv."""
    named = eval_photos(data / "eval") or []
    if not named:
        raise DataError(f"{data / 'eval'}: has no eval photos; expected a set of `threefold synth` or `sample`")
    truth = read_answers(data / "eval" / "answers.csv")
    where = {name: row for row, name in enumerate(truth.ids)}
    rows = np.array([where[name] for name, _ in named])
    readings = Reader(backend).read(path for _, path in named)
    count = len(rows)
    return Predictions(
        photos=np.array([name for name, _ in named]), persons=np.array(truth.persons)[rows],
        probabilities=np.stack([reading.joint for reading in readings]),
        truth=labels.decode_all(truth.label[rows]), ages=np.full(count, np.nan, np.float32),
        years=np.full(count, np.nan, np.float32), fold=np.full(count, -1, np.int16),
    )  # fmt: skip


def number(predictions: Predictions) -> str:
    """`0.494 (0.438 to 0.583)`: macro F1 with its 95 % interval over persons."""
    found = measure(predictions, draws=2000)["macro_f1"]
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
