"""Readings that must be whole: the contest's submission, and what is scored against answers. Kept in memory."""

from __future__ import annotations

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
from threefold.files import csv_text, write_json
from threefold.predictions import Predictions
from threefold.read.reader import Reader, Reading

Named = Sequence[tuple[str, Path]]


def matching(answers: Path, named: Named) -> Answers:
    """The answers of just these photos; DataError naming one that is on one side only."""
    truth = read_answers(answers)
    ids, names = set(truth.ids), {name for name, _ in named}
    lacking, stray = "it has no answer for {} photos", "{} of its ImageIDs are no photo here"
    for what, some, others in ((lacking, names - ids, ids), (stray, ids - names, names)):
        if some:
            near = get_close_matches(min(some), others, n=1)
            nearest = f"; the nearest name is {near[0]!r}" if near else ""
            raise DataError(f"{answers}: {what.format(len(some))}, as {min(some)!r}{nearest}")
    return truth


def read_whole(reader: Reader, named: Named, which: str | None) -> dict[str, Reading]:
    """The reading of every photo, of its largest face; DataError when one cannot be read.

    which: as of `Reader.faces`, but for `all`.
    """
    readings: dict[str, Reading] = {}
    broken: list[PhotoError] = []
    with progress.bar("reading") as report:
        answers = reader.stream_faces((path for _, path in named), which)
        for done, ((name, _), found) in enumerate(zip(named, answers, strict=True), start=1):
            if isinstance(found, PhotoError):
                broken.append(found)
            else:
                readings[name] = found[0]
            report(done, len(named))
    if broken:
        raise DataError(f"{len(broken)} photos cannot be read and every one needs an answer: {broken[0]}")
    return readings


def submission(readings: dict[str, Reading]) -> str:
    """`ImageID,ans` as the contest takes it."""
    return csv_text([("ImageID", "ans"), *((name, reading.code) for name, reading in readings.items())])


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
    known = np.array([np.nan if r.age is None else r.age for r in readings.values()], dtype=np.float32)
    predictions = Predictions(
        photos=ids,
        # without a column `person` every photo counts as a person of its own: the interval is then too narrow
        persons=np.array(truth.persons)[rows] if truth and truth.persons else ids,
        probabilities=np.stack([r.raw for r in readings.values()]),
        truth=truth.truth[rows] if truth else np.full((count, 3), labels.UNKNOWN, dtype=np.int8),
        ages=truth.ages[rows] if truth and truth.ages is not None else np.full(count, np.nan, dtype=np.float32),
        years=known,
        fold=np.full(count, -1, dtype=np.int16),
    )
    found = measure(predictions) if truth else None
    if found and decision:
        spoken = measure(as_certain(predictions, np.array([r.code for r in readings.values()])))
        found = {**spoken, "plain": {"macro_f1": found["macro_f1"]}}
    if run and (found or not (run / "eval.json").exists()):
        predictions.save(run / "test.npz")
        if found:
            write_json(run / "eval.json", found)
    return found
