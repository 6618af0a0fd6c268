"""`threefold predict`: photos and a model in; a table of readings, or the contest's submission, out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels, progress
from threefold.data.sources import Answers, eval_photos, read_answers
from threefold.errors import CheckFailed, DataError, PhotoError
from threefold.evidence.decide import Decision, said
from threefold.evidence.metrics import measure
from threefold.files import csv_text, write_csv, write_json
from threefold.infer.inputs import find_photos
from threefold.infer.reader import Reader, Reading, load
from threefold.predictions import Predictions

COLUMNS = ("file", "face", "class", "mask", "gender", "age_group", "age", "confidence")
Broken = list[PhotoError]


@dataclass(frozen=True)
class Predicted:
    """What `predict` did: readings by photo name, where they were written (None: stdout), the score if asked for."""

    readings: dict[str, Reading]
    out: Path | None
    score: dict[str, Any] | None

    @property
    def indeterminate(self) -> dict[str, int]:
        """Of how many photos each attribute is not sure enough to be said."""
        counts = Counter(name for reading in self.readings.values() for name in reading.indeterminate)
        return {name: counts[name] for name in labels.ATTRIBUTES}


def predict(
    photos: Sequence[Path | str], model: Path | str, *, out: Path | str | None = None,
    answers: Path | str | None = None, plain: bool = False,
) -> Predicted:  # fmt: skip
    """Read photos (files, folders, or the contest's eval folder) with the model of a run.

    The contest's eval folder becomes a submission (`ImageID,ans` in the order of info.csv; default RUN/submission.csv),
    anything else a table with COLUMNS (default stdout), where what is not sure enough is `indeterminate` (`class` is
    what was said all the same, as a submission needs one). `plain` leaves the run's decision (decision.json) aside.
    `answers` (CSV: ImageID,ans[,person,age]) are scored by what was said; `plain.macro_f1` beside it is what the most
    probable classes would have scored. For the eval folder predictions and score are kept in the run as test.npz and
    eval.json; test.npz holds the probabilities as the networks gave them, so that runs are compared on it like with
    like, whatever rule either of them has. Photos that cannot be read are left
    out of a table and raise CheckFailed at the end; a submission must be whole, so there they raise DataError at once.
    """
    inputs, model, out = [Path(photo) for photo in photos], Path(model), Path(out) if out else None
    given = eval_photos(inputs[0]) if len(inputs) == 1 and inputs[0].is_dir() else None
    named = given if given is not None else find_photos(inputs)
    truth = read_answers(Path(answers)) if answers else None
    if truth and (missing := set(truth.ids) ^ {name for name, _ in named}):
        raise DataError(f"{answers}: {len(missing)} photos are only here or only in the photos, as {min(missing)!r}")
    reader = load(model, decision=not plain)
    readings, broken = _read(reader, named)
    if broken and (given is not None or truth):
        raise DataError(f"{len(broken)} photos cannot be read and every one needs an answer: {broken[0]}")
    if given is not None:
        out = out or model / "submission.csv"
    _write(out, _submission(readings) if given is not None else _table(readings))
    score = _score(readings, truth, model if given is not None else None, reader.decision) if readings else None
    if broken:
        listed = "\n".join(f"  {error}" for error in broken)
        raise CheckFailed(f"{len(broken)} of {len(named)} photos could not be read, the others were:\n{listed}")
    return Predicted(readings, out, score)


def _read(reader: Reader, named: Sequence[tuple[str, Path]]) -> tuple[dict[str, Reading], Broken]:
    readings: dict[str, Reading] = {}
    broken: Broken = []
    with progress.bar("reading") as report:
        answers = reader.stream(path for _, path in named)
        for done, ((name, _), answer) in enumerate(zip(named, answers, strict=True), start=1):
            if isinstance(answer, PhotoError):
                broken.append(answer)
            else:
                readings[name] = answer
            report(done, len(named))
    return readings, broken


def _submission(readings: dict[str, Reading]) -> list[Sequence[object]]:
    return [("ImageID", "ans"), *((name, reading.code) for name, reading in readings.items())]


def _table(readings: dict[str, Reading]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [COLUMNS]
    for name, r in readings.items():
        age = "" if r.age is None else f"{r.age:.1f}"
        rows.append((name, 0, r.code, r.mask, r.gender, r.age_group, age, f"{r.confidence:.4f}"))
    return rows


def _write(out: Path | None, rows: list[Sequence[object]]) -> None:
    if out is None:
        sys.stdout.write(csv_text(rows))
    else:
        write_csv(out, rows)


def _score(
    readings: dict[str, Reading], truth: Answers | None, run: Path | None, decision: Decision | None
) -> dict[str, Any] | None:
    """Metrics against the answers; for the contest's eval folder also kept in the run, like the predictions."""
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
        truth=labels.decode_all(truth.label[rows]) if truth else np.full((count, 3), labels.UNKNOWN, dtype=np.int8),
        ages=truth.ages[rows] if truth and truth.ages is not None else np.full(count, np.nan, dtype=np.float32),
        years=known,
        fold=np.full(count, -1, dtype=np.int16),
    )
    score = measure(predictions) if truth else None
    if score and decision:
        spoken = measure(said(predictions, np.array([r.code for r in readings.values()])))
        score = {**spoken, "plain": {"macro_f1": score["macro_f1"]}}
    if run:
        predictions.save(run / "test.npz")
        if score:
            write_json(run / "eval.json", score)
    return score
