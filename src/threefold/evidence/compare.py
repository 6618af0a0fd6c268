"""Whether one classifier scored better than another: the difference on the same people, with its interval.

Two runs on the same folds are right and wrong about the same people, so the difference is far less uncertain than
either score. Every draw of persons gives both scores and their difference (a paired cluster bootstrap, `bootstrap.py`).
There are three answers: better, worse, can't tell. A fourth, "the same", no finite number of people can give; what they
can give is how many of them it would take to tell a difference of the size that was seen (`Comparison.persons_needed`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import LEVEL, Estimate, Floats, Number, Statistic, estimate, t_beyond, t_quantile
from threefold.evidence.ensemble import aligned, label_words
from threefold.evidence.metrics import COLUMNS, columns_of, judged_tasks, macro_counts, macro_mean, person_counts
from threefold.predictions import Predictions

Verdict = Literal["better", "worse", "can't tell"]
POWER = 0.8
"""Chance of telling a true difference apart that `persons_needed` is for."""
DRAWS = 10_000
"""Draws of persons: with them another seed moves the ends of an interval by about 1 % of its width."""
_NOTHING = 1e-12
"""Two sums of the same fractions in another order differ by less."""


@dataclass(frozen=True)
class Comparison:
    """What one classifier is worth against another, on `photos` photos of `persons` persons.

    one, other, difference (one minus other): a Number for each of metrics.COLUMNS. judged: the columns whose mean the
    verdict is about, macro F1 over the 18 classes; the known attributes' macro F1 where no photo knows all three
    labels. headline: the difference of that mean. p: two-sided, of the same t: at most 0.05 where the interval leaves
    out 0, but never below 2 ** (1 - persons), which is what coins say when all persons agree. p_holm: p corrected for
    the number of comparisons made at once (`compare_all`). verdict: of `one`, by p_holm at 5 %.
    persons_needed: so many persons, drawn like these, tell a difference of the size of `headline` apart from 0 with a
    chance of POWER, also where it is one of as many comparisons; None where the difference is 0 and of one person. By
    the same t, whose spread falls with the root of the persons and whose freedom grows with them: never fewer than
    could not tell it now. As uncertain as the difference itself. `benchmarks/comparison.py` draws so many and counts.
    """

    one: dict[str, Number]
    other: dict[str, Number]
    difference: dict[str, Number]
    judged: tuple[str, ...]
    headline: Number
    verdict: Verdict
    p: float
    p_holm: float
    persons_needed: int | None
    photos: int
    persons: int


def compare_predictions(
    one: Predictions, other: Predictions, *, draws: int = DRAWS, seed: int = 0, names: Sequence[str] = ()
) -> Comparison:
    """`one` against `other` on the same persons.

    names: what to call the two in a refusal. Raises DataError, naming run, photo and what, unless both are about the
    same photos, persons and truth (rows may be in any order), and where no photo has a label.
    """
    return compare_all([one, other], draws=draws, seed=seed, names=names)[0]


def compare_all(
    runs: Sequence[Predictions], *, draws: int = DRAWS, seed: int = 0, names: Sequence[str] = ()
) -> list[Comparison]:
    """The first of two or more runs against each of the others, all on the same draws of persons.

    Raises as `compare_predictions`. One of many comparisons comes out by chance alone. `verdict` is therefore by
    `p_holm` (Holm 1979, Scandinavian Journal of Statistics 6): the chance of any wrong better or worse among all of
    them is at most 5 %, however the runs depend on each other. The intervals stay those of each comparison alone, so
    one may leave out 0 where the verdict is "can't tell". Of two runs there is one comparison, and the verdict says
    what the interval does.
    """
    same = aligned(runs, names)
    judged = tuple(f"{name}.macro_f1" for name in _judged(same[0]))
    columns = [COLUMNS.index(column) for column in judged]

    def numbers(sums: Floats) -> Floats:
        """[..., 80] -> [..., 28]: COLUMNS and the judged mean."""
        scores = columns_of(sums)
        return np.concatenate([scores, scores[..., columns].mean(-1, keepdims=True)], axis=-1)

    scores, differences, chances = _paired(same, [person_counts(part) for part in same], numbers, draws, seed)
    persons = len(np.unique(same[0].persons))
    named = [row.named(COLUMNS) for row in scores]
    return [
        Comparison(
            one=named[0],
            other=other,
            difference=row.named(COLUMNS),
            judged=judged,
            headline=row.number(-1),
            verdict=verdict(float(row.value[-1]), p_holm),
            p=p,
            p_holm=p_holm,
            persons_needed=_needed(row, persons, len(chances)),
            photos=len(same[0]),
            persons=persons,
        )
        for other, row, p, p_holm in zip(named[1:], differences, chances, holm(np.array(chances)).tolist(), strict=True)
    ]


def headlines(
    runs: Sequence[Predictions], *, draws: int = DRAWS, seed: int = 0, names: Sequence[str] = ()
) -> list[tuple[Number, float]]:
    """`headline` and `p` of each comparison that `compare_all` would make, for a log of many.

    No other number is worked out, which takes less time. Raises as `compare_predictions`.
    """
    same = aligned(runs, names)
    tasks = _judged(same[0])
    counts = [macro_counts(part, tasks) for part in same]
    _, differences, chances = _paired(same, counts, lambda sums: macro_mean(sums, tasks), draws, seed)
    return [(row.number(-1), p) for row, p in zip(differences, chances, strict=True)]


def changes(one: Predictions, other: Predictions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(classes, photos): where the photos are that only one of two aligned classifiers has right.

    A photo is right when the most probable class contradicts nothing that is known of it. classes: for every
    combination of known labels (`code`: its class 0..17, UNKNOWN where a part is) the photos and persons there are,
    those gained (only `one` is right) and those lost. photos: truth, both answers with their probability, and `moved`,
    how much more probable `one` holds the truth, -1..1; those that moved most come first.
    """
    other = other.align(one.photos.tolist())
    (belief, right), (other_belief, other_right) = _beliefs(one), _beliefs(other)
    labelled = (one.truth >= 0).any(1)
    gained, lost = labelled & right & ~other_right, labelled & other_right & ~right
    kinds, which = np.unique(one.truth, axis=0, return_inverse=True)
    codes = labels.encode_all(kinds)
    classes = []
    for kind in np.flatnonzero((kinds >= 0).any(1)).tolist():
        rows = which.reshape(-1) == kind
        counts: dict[str, int] = {}
        for prefix, part in (("", rows), ("gained_", rows & gained), ("lost_", rows & lost)):
            counts[f"{prefix}photos"] = int(part.sum())
            counts[f"{prefix}persons"] = len(np.unique(one.persons[part]))
        classes.append({"code": int(codes[kind]), "name": label_words(kinds[kind]), **counts})
    moved = belief - other_belief
    rows = np.flatnonzero(gained | lost)
    photos = [
        {
            "photo": str(one.photos[row]),
            "person": str(one.persons[row]),
            "truth": label_words(one.truth[row]),
            "one": _answer(one.probabilities[row]),
            "other": _answer(other.probabilities[row]),
            "moved": float(moved[row]),
            "gained": bool(gained[row]),
        }
        for row in rows[np.argsort(-np.abs(moved[rows]), kind="stable")].tolist()
    ]
    return classes, photos


def holm(p: Floats) -> Floats:
    """[M] p-values -> [M] corrected for being M (Holm 1979): p_holm <= a rejects what his step-down test at a does."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return np.asarray(steps[np.argsort(order)], dtype=np.float64)


def verdict(value: float, p: float) -> Verdict:
    """`better` or `worse` by the sign of a difference where p is at most 5 %, else `can't tell`."""
    return "can't tell" if p > 1 - LEVEL else "better" if value > 0 else "worse"


def _judged(predictions: Predictions) -> tuple[str, ...]:
    names = judged_tasks(predictions)
    if not names:
        raise DataError("compare: no photo has a label, so there is nothing to tell runs apart by")
    return names


def _paired(
    runs: Sequence[Predictions], counts: Sequence[Floats], numbers: Statistic, draws: int, seed: int
) -> tuple[list[Estimate], list[Estimate], list[float]]:
    """(scores of every run, the first run minus each of the others, p of the last number of these differences).

    The scores are `numbers` [S] of `counts`, per run [P, C].
    The interval of a difference is value +- t * spread: the standard deviation of the paired draws, and Student's t
    with the degrees of freedom that this has; of two shares it is never outside -1..1.
    """
    count = len(runs)

    def both(sums: Floats) -> Floats:
        first, *others = (numbers(part) for part in np.split(sums, count, axis=-1))
        return np.concatenate([first, *others, *(first - other for other in others)], axis=-1)

    result = estimate(runs[0].persons, np.concatenate(counts, axis=1), both, draws, seed)
    parts = (result.value, result.low, result.high, result.spread, result.freedom)
    rows = [Estimate(*row) for row in zip(*(part.reshape(2 * count - 1, -1) for part in parts), strict=True)]
    # Not BCa, which is right for a score and too narrow here: the persons whom two runs answer differently are few,
    # those of them in a rare class (1/18 of macro F1 each) fewer, and from a handful neither the skewness that BCa
    # corrects nor the spread is known well (docs/evidence.md has the coverage of both).
    whole = runs[0].label >= 0
    labelled = runs[0].persons[whole if whole.any() else (runs[0].truth >= 0).any(1)]
    # what coins say when all persons agree: so few persons cannot make a p smaller
    least = 2.0 ** (1 - len(np.unique(labelled)))
    differences, chances = [], []
    for row in rows[count:]:
        value = np.where(np.abs(row.value) < _NOTHING, 0, row.value)
        reach = np.array([t_quantile(LEVEL, freedom) for freedom in row.freedom.tolist()]) * row.spread
        most = np.where(np.arange(len(value)) == COLUMNS.index("age_error"), np.inf, 1)
        low, high = (np.clip(end, -most, most) for end in (value - reach, value + reach))
        differences.append(Estimate(value, low, high, row.spread, row.freedom))
        apart, spread, freedom = (float(part[-1]) for part in (value, row.spread, row.freedom))
        p = t_beyond(abs(apart) / spread, freedom) if spread > 0 and freedom >= 1 else float(not apart)
        chances.append(max(p, least))
    return rows[:count], differences, chances


def _needed(difference: Estimate, persons: int, count: int) -> int | None:
    """Persons at which a value is as many standard errors from 0 as t asks for, for a level of 5 % / `count` and POWER.

    The value is the last of `difference`, one of `count`.
    Those standard errors fall as the freedom grows with the persons, so there is one such number; between that of the
    normal distribution and what t asks for there.
    """
    value, spread, df = (float(part[-1]) for part in (difference.value, difference.spread, difference.freedom))
    if not value or persons < 2:
        return None
    chance = (1 - LEVEL) / count

    def needed_at(people: float) -> float:
        freedom = max(min(df * people / persons, people - 1), 1.0)
        errors = t_quantile(1 - chance, freedom) + t_quantile(2 * POWER - 1, freedom)
        return float(persons * (errors * spread / value) ** 2)

    low = needed_at(math.inf)
    high = max(low, needed_at(low))
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if needed_at(middle) > middle else (low, middle)
    return max(math.ceil(high), 1 + math.ceil(-math.log2(chance)))  # fewer may all agree by chance: see `_paired`


def _beliefs(predictions: Predictions) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """[N] probability of the classes that fit what is known, and whether the most probable class is one of them."""
    classes = labels.decode_all(np.arange(labels.CLASSES))
    fits = ((predictions.truth[:, None] == classes) | (predictions.truth[:, None] == labels.UNKNOWN)).all(2)
    return (predictions.probabilities * fits).sum(1), fits[np.arange(len(predictions)), predictions.predicted]


def _answer(joint: NDArray[np.floating]) -> dict[str, Any]:
    return {"answer": labels.class_name(int(joint.argmax())), "confidence": float(joint.max())}
