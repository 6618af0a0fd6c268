"""Readings that must be whole: the contest's submission, and what is scored against answers. Kept in memory."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels, progress
from threefold.data.sources import Answers, read_answers
from threefold.errors import DataError, PhotoError
from threefold.evidence.decide import Decision, as_certain
from threefold.evidence.metrics import measure
from threefold.files import write_json
from threefold.predictions import Predictions
from threefold.read.reader import Reader
from threefold.read.reading import Reading

Photos = Sequence[tuple[str, Path]]
"""(name, file) of each."""


def matching(answers: Path, photos: Photos) -> Answers:
    """The answers of just these photos; DataError naming one that is on one side only."""
    truth = read_answers(answers)
    ids, names = set(truth.ids), {name for name, _ in photos}
    for message, missing, others in (
        ("it has no answer for {} photos", names - ids, ids),
        ("{} of its ImageIDs are no photo here", ids - names, names),
    ):
        if missing:
            near = get_close_matches(min(missing), others, n=1)
            nearest = f"; the nearest name is {near[0]!r}" if near else ""
            raise DataError(f"{answers}: {message.format(len(missing))}, as {min(missing)!r}{nearest}")
    return truth


def read_whole(reader: Reader, photos: Photos, which: str | None) -> dict[str, Reading]:
    """The reading of every photo, of its largest face; DataError when one cannot be read.

    which: as of `Reader.faces`, but for `all`.
    """
    readings: dict[str, Reading] = {}
    broken: list[PhotoError] = []
    with progress.bar("reading") as report:
        answers = reader.stream_faces((path for _, path in photos), which)
        for done, ((name, _), faces) in enumerate(zip(photos, answers, strict=True), start=1):
            if isinstance(faces, PhotoError):
                broken.append(faces)
            else:
                readings[name] = faces[0]
            report(done, len(photos))
    if broken:
        raise DataError(f"{len(broken)} photos cannot be read and every one needs an answer: {broken[0]}")
    return readings


def score(
    readings: dict[str, Reading], truth: Answers | None, run: Path | None, decision: Decision | None
) -> dict[str, Any] | None:
    """Metrics against the answers; with `run` also kept there, like the predictions (test.npz, eval.json).

    Predictions without answers never take the place of scored ones.
    """
    count = len(readings)
    ids = np.array(list(readings))
    order = {name: row for row, name in enumerate(truth.ids)} if truth else {}
    rows = np.array([order[name] for name in readings], dtype=np.int64) if truth else np.empty(0, np.int64)
    years = [np.nan if reading.raw_age is None else reading.raw_age for reading in readings.values()]
    predictions = Predictions(
        photos=ids,
        # without a column `person` every photo counts as a person of its own: the interval is then too narrow
        persons=np.array(truth.persons)[rows] if truth and truth.persons else ids,
        probabilities=np.stack([reading.raw for reading in readings.values()]),
        truth=truth.truth[rows] if truth else np.full((count, 3), labels.UNKNOWN, dtype=np.int8),
        ages=truth.ages[rows] if truth and truth.ages is not None else np.full(count, np.nan, dtype=np.float32),
        years=np.array(years, dtype=np.float32),
        fold=np.full(count, -1, dtype=np.int16),
    )
    metrics = measure(predictions) if truth else None
    if metrics and decision:
        codes = np.array([reading.code for reading in readings.values()])
        metrics = {**measure(as_certain(predictions, codes)), "plain": {"macro_f1": metrics["macro_f1"]}}
    if run and (metrics or not (run / "eval.json").exists()):
        predictions.save(run / "test.npz")
        if metrics:
            write_json(run / "eval.json", metrics)
    return metrics
