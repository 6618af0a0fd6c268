"""Readings that must be whole: the contest's submission, and what is scored against answers. Kept in memory.

Also whether the photos were among those a run was made from: what is measured on them would say nothing of it. The
contest's eval photos have hashed names, so names prove nothing; bytes do. A copy that was saved anew is not found here
(`threefold check` and training look for those among the photos they are given).
"""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels, progress
from threefold.data.sources import Answers, read_answers
from threefold.data.tables import read_rows
from threefold.errors import DataError, LeakError, PhotoError
from threefold.evidence.decide import FILE, Decision, as_certain
from threefold.evidence.metrics import measure
from threefold.files import write_json
from threefold.photos.cache import content_digests
from threefold.predictions import Predictions
from threefold.read.reader import Reader
from threefold.read.reading import Reading
from threefold.runs import Run

Photos = Sequence[tuple[str, Path]]
"""(name, file) of each."""
EXTRA = "extra/"
"""How ids and persons of `data.extra` begin: photos that train in every fold, pseudo-labelled ones among them."""


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
    count, ids = len(readings), np.array(list(readings))
    order = {name: row for row, name in enumerate(truth.ids)} if truth else {}
    rows = [order[name] for name in readings] if truth else []
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


def check_unseen(run: Path, photos: Photos, persons: Collection[str] = ()) -> list[str]:
    """Sentences about people who may be on both sides; [] for a run without photos.csv.

    run: its directory. photos: (name, file) of those the run must not have seen; persons: who is on them, where known.
    Raises LeakError naming the first photo whose bytes are those of a photo the run trained or validated with; of one
    that only `data.extra` brought it is a sentence, since `threefold pseudo` puts the very photos of a test there,
    without their answers.
    """
    listed = run / "photos.csv"
    if not listed.is_file():
        return []
    names = ("photo", "path", "person")
    rows = [tuple(map(row.get, names)) for row in read_rows(listed, names)[1]]
    digests = content_digests([Path(path) for _, path, _ in rows])
    seen = {digest: photo for digest, (photo, _, _) in zip(digests, rows, strict=True) if digest}
    extra = 0
    for (name, path), digest in zip(photos, content_digests([path for _, path in photos]), strict=True):
        photo = seen.get(digest, "")
        if photo.startswith(EXTRA):
            extra += 1
        elif photo:
            raise LeakError(
                f"{path}: {name} is {photo} of {listed}, which the run was made from; expected photos of people it "
                f"has never seen, for what it says of these tells nothing (its honest score is out of fold)"
            )
    warnings = [f"{extra} of the {len(photos)} photos trained too (data.extra)"] if extra else []
    if both := {person for _, _, person in rows} & set(persons):
        warnings.append(
            f"{len(both)} of the people have names that people of the run have ({min(both)!r}); if they are the same "
            "people, what is measured here is too good"
        )
    return warnings


def check_decision(run: Path) -> list[str]:
    """A sentence where the run's decision was fitted on scored photos, which may be those that are scored again."""
    if (run / FILE).exists() and Run(run).read(FILE).get("on") == "test":
        return [
            f"{FILE} was fitted on scored photos (decide --on test); if these are among them, the score is too good "
            "(decide tells the honest one, --plain leaves it aside)"
        ]
    return []
