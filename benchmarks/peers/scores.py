"""What answers are worth: each number is of the photos that know what it needs, with its interval over persons.

An answer that a package owes (its process failed on that photo) counts as wrong. Macro F1 is the mean over the classes
that occur among the photos scored, so that a list without masked faces is not scored on 18 classes; a class that a
package cannot say counts 0. The number of photos and of classes stands beside each number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.asking import Answers
from threefold.data.face import Face, truth
from threefold.evidence.bootstrap import Floats, estimate, person_sums, ratio
from threefold.labels import UNKNOWN, Mask, encode_all

Labels = NDArray[np.int64]
STATES: dict[str, Mask | None] = {"worn": Mask.WORN, "incorrect": Mask.INCORRECT, "none": Mask.NONE, "all": None}
"""Rows of the tables: the photos by how the mask is truly worn, then all of them."""


@dataclass(frozen=True)
class Metric:
    """One column: `needs` among a peer's reads, its number of classes, macro F1 or accuracy, in which states it means
    something, and what it takes from [N, 3] codes and the two-way mask answer: [N] classes, UNKNOWN allowed."""

    title: str
    needs: tuple[str, ...]
    classes: int
    macro: bool
    take: Callable[[Labels, Labels], Labels]
    states: tuple[str, ...] = tuple(STATES)


def _gender_age(said: Labels, _: Labels) -> Labels:
    return np.where((said[:, 1:] < 0).any(1), UNKNOWN, said[:, 1] * 3 + said[:, 2])


def _two_way(_: Labels, two_way: Labels) -> Labels:
    return np.where(two_way == Mask.INCORRECT, UNKNOWN, two_way)


METRICS: dict[str, Metric] = {
    "gender": Metric("gender", ("gender",), 2, False, lambda said, _: said[:, 1]),
    "age_group": Metric("age F1", ("age_group",), 3, True, lambda said, _: said[:, 2]),
    "gender_age": Metric("gender x age F1", ("gender", "age_group"), 6, True, _gender_age),
    "worn_none": Metric("worn / none", ("mask",), 3, False, _two_way, ("worn", "none", "all")),
    "mask": Metric("mask F1", ("mask",), 3, True, lambda said, _: said[:, 0], ("all",)),
    "classes": Metric(
        "18 classes F1", ("mask", "gender", "age_group"), 18, True, lambda said, _: encode_all(said), ("all",)
    ),
}
"""Columns of the tables. gender and worn / none are accuracies."""


def score(true: Labels, said: Labels, persons: NDArray[Any], classes: int, macro: bool, draws: int) -> dict[str, Any]:
    """{value, low, high, photos, classes}: accuracy or macro F1 in 0..1 of the photos whose truth is known.

    true, said: [N] classes, UNKNOWN where unknown or not answered. value is None where no truth is known.
    """
    known = true >= 0
    true, said, persons = true[known], said[known], persons[known]
    every = np.arange(classes)
    is_true, is_said = true[:, None] == every, said[:, None] == every
    sums = person_sums(persons, np.concatenate([is_true & is_said, is_said, is_true], axis=1))
    present = is_true.any(0)

    def statistic(summed: Floats) -> Floats:
        right, given, owed = np.moveaxis(summed.reshape(*summed.shape[:-1], 3, classes), -2, 0)
        if not macro:
            return ratio(right.sum(-1), owed.sum(-1))[..., None]
        f1 = np.divide(2 * right, given + owed, out=np.zeros_like(right), where=given + owed > 0)
        return f1[..., present].mean(-1)[..., None]

    if not len(true):
        return {"value": None, "low": None, "high": None, "photos": 0, "classes": 0}
    found = estimate(persons, sums, statistic, draws)
    return {**found.number(0), "photos": len(true), "classes": int(present.sum())}


def score_all(faces: Sequence[Face], answers: Answers, reads: Sequence[str], draws: int) -> dict[str, dict[str, Any]]:
    """{state: {metric: score}} of one peer on one list; metrics it does not read, or that nothing is known of, are
    left out. Persons are the list's own."""
    labels = truth(faces).astype(np.int64)
    masks = labels[:, 0]
    persons = np.array([face.person for face in faces])
    found: dict[str, dict[str, Any]] = {}
    for state, mask in STATES.items():
        rows = np.full(len(masks), True) if mask is None else masks == mask
        for name, metric in METRICS.items():
            if state not in metric.states or not set(metric.needs) <= set(reads):
                continue
            true = metric.take(labels, masks)[rows]
            said = metric.take(answers.said, answers.two_way)[rows]
            number = score(true, said, persons[rows], metric.classes, metric.macro, draws)
            if number["photos"]:
                found.setdefault(state, {})[name] = number
    return found


def milliseconds(answers: Sequence[Answers]) -> float | None:
    """Median per face over all that was answered, None where nothing was."""
    spent = np.concatenate([part.milliseconds for part in answers])
    spent = spent[np.isfinite(spent)]
    return float(np.median(spent)) if len(spent) else None


def joined(answers: Sequence[Answers]) -> Answers:
    """Answers on several lists as on one."""
    return Answers(
        np.concatenate([part.said for part in answers]),
        np.concatenate([part.two_way for part in answers]),
        np.concatenate([part.milliseconds for part in answers]),
        tuple(line for part in answers for line in part.errors),
    )
