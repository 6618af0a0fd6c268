"""Whether one classifier scored better than another: the difference on the same people, with its interval.

Two runs on the same folds are right and wrong about the same people, so the difference is far less uncertain than
either score. Every draw of persons gives both scores and their difference (a paired cluster bootstrap, `bootstrap.py`).

The interval of a difference is value +- t * spread: the standard deviation of the paired draws, and Student's t with
the degrees of freedom that this has. Not BCa, which is right for a score and too narrow here: the persons whom two runs
answer differently are few, those of them in a rare class (1/18 of macro F1 each) fewer, and from a handful neither the
skewness that BCa corrects nor the spread is known well. Of two equally good runs on 400 people, 1,000 times, when this
was chosen:

    answered alike by both     BCa                            percentiles   value +- t * spread
    80 % of the people         90.9 % (better 4.8, worse 4.3)     93.5 %    95.5 % (better 1.9, worse 2.6)
    nobody                     94.9 % (better 2.3, worse 2.8)     95.0 %    95.0 % (better 2.1, worse 2.9)

hold the 0; an interval that does not is a wrong verdict. `benchmarks/comparison.py` measures the last column anew, and
on other numbers of people and true differences.

There are three answers: better, worse, can't tell. A fourth, "the same", no finite number of people can give; what they
can give is how many of them it would take to tell a difference of the size that was seen (`Comparison.persons_needed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import LEVEL, Estimate, Floats, Number, Statistic, estimate, number
from threefold.evidence.ensemble import aligned
from threefold.evidence.metrics import COLUMNS, columns_of, macro_counts, macro_mean, person_counts
from threefold.evidence.student import t_beyond, t_quantile
from threefold.predictions import Predictions

Verdict = Literal["better", "worse", "can't tell"]
POWER = 0.8
"""Chance of telling a true difference apart that `persons_needed` is for."""
DRAWS = 10_000
"""Draws of persons: with them another seed moves the ends of an interval by about 1 % of its width."""
_NOTHING = 1e-12  # two sums of the same fractions in another order differ by less


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


def compare(
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
    """The first of two or more runs against each of the others, all on the same draws of persons. Raises as `compare`.

    One of many comparisons comes out by chance alone. `verdict` is therefore by `p_holm` (Holm 1979, Scandinavian
    Journal of Statistics 6): the chance of any wrong better or worse among all of them is at most 5 %, however the runs
    depend on each other. The intervals stay those of each comparison alone, so one may leave out 0 where the verdict is
    "can't tell". Of two runs there is one comparison, and the verdict says what the interval does.
    """
    same = aligned(runs, names)
    judged = _judged(same[0])
    chosen = [COLUMNS.index(column) for column in judged]

    def numbers(sums: Floats) -> Floats:
        """[..., 80] -> [..., 28]: COLUMNS and the judged mean."""
        each = columns_of(sums)
        return np.concatenate([each, each[..., chosen].mean(-1, keepdims=True)], axis=-1)

    found = _paired(same[0].persons, [person_counts(part) for part in same], numbers, draws, seed)
    ends = (found.value.tolist(), found.low.tolist(), found.high.tolist())
    tables = [list(map(number, *rows)) for rows in zip(*ends, strict=True)]
    named = [dict(zip(COLUMNS, table, strict=False)) for table in tables]
    heads = _heads(found, len(same))
    persons = len(np.unique(same[0].persons))
    p = np.array([_p(*head, _labelled(same[0])) for head in heads])
    return [
        Comparison(
            named[0], named[other], named[row], judged, tables[row][-1], verdict(head[0], corrected), alone, corrected,
            _needed(*head, persons, len(heads)), len(same[0]), persons,
        )
        for other, (row, head, alone, corrected) in enumerate(
            zip(range(len(same), len(tables)), heads, p.tolist(), holm(p).tolist(), strict=True), start=1
        )
    ]  # fmt: skip


def headlines(
    runs: Sequence[Predictions], *, draws: int = DRAWS, seed: int = 0, names: Sequence[str] = ()
) -> list[tuple[Number, float]]:
    """`headline` and `p` of each comparison that `compare_all` would make, for a log of many: no other number is worked
    out, which takes less time. Raises as `compare`.
    """
    same = aligned(runs, names)
    tasks = [column.removesuffix(".macro_f1") for column in _judged(same[0])]
    counts = [macro_counts(part, tasks) for part in same]
    found = _paired(same[0].persons, counts, lambda sums: macro_mean(sums, tasks), draws, seed)
    ends = (part[len(same) :, 0].tolist() for part in (found.value, found.low, found.high))
    chances = [_p(*head, _labelled(same[0])) for head in _heads(found, len(same))]
    return list(zip(map(number, *ends), chances, strict=True))


def difference(
    one: Predictions, other: Predictions, *, draws: int = DRAWS, seed: int = 0, names: Sequence[str] = ()
) -> dict[str, Any]:
    """`one` minus `other` for every number of `metrics.COLUMNS`: {value, low, high}, null where nothing is known.

    low and high are the ends of the 95 % interval. Raises as `compare`.
    """
    return compare(one, other, draws=draws, seed=seed, names=names).difference


def changes(one: Predictions, other: Predictions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(classes, photos): where the photos are that only one of two aligned classifiers has right.

    A photo is right when the most probable class contradicts nothing that is known of it. classes: for every
    combination of known labels (`code`: its class 0..17, UNKNOWN where a part is) the photos and persons there are,
    those gained (only `one` is right) and those lost. photos: truth, both answers with their probability, and `moved`,
    how much more probable `one` holds the truth, -1..1; those that moved most come first.
    """
    other = other.align(one.photos.tolist())
    beliefs, right = zip(*map(_beliefs, (one, other)), strict=True)
    known = (one.truth >= 0).any(1)
    gained, lost = known & right[0] & ~right[1], known & right[1] & ~right[0]
    kinds, which = np.unique(one.truth, axis=0, return_inverse=True)
    codes = labels.encode_all(kinds)
    classes = []
    for kind in np.flatnonzero((kinds >= 0).any(1)).tolist():
        rows = which.reshape(-1) == kind
        counts: dict[str, int] = {}
        for what, part in (("", rows), ("gained_", rows & gained), ("lost_", rows & lost)):
            counts |= {f"{what}photos": int(part.sum()), f"{what}persons": len(np.unique(one.persons[part]))}
        classes.append({"code": int(codes[kind]), "name": _words(kinds[kind]), **counts})
    moved = beliefs[0] - beliefs[1]
    rows = np.flatnonzero(gained | lost)
    photos = []
    for row in rows[np.argsort(-np.abs(moved[rows]), kind="stable")].tolist():
        answers = {
            side: {"answer": labels.class_name(int(joint.argmax())), "confidence": float(joint.max())}
            for side, joint in (("one", one.probabilities[row]), ("other", other.probabilities[row]))
        }
        photos.append({
            "photo": str(one.photos[row]), "person": str(one.persons[row]), "truth": _words(one.truth[row]), **answers,
            "moved": float(moved[row]), "gained": bool(gained[row]),
        })  # fmt: skip
    return classes, photos


def holm(p: Floats) -> Floats:
    """[M] p-values -> [M] corrected for being M (Holm 1979): p_holm <= a rejects what his step-down test at a does."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return np.asarray(steps[np.argsort(order)], dtype=np.float64)


def _judged(said: Predictions) -> tuple[str, ...]:
    known = [bool((column >= 0).any()) for column in said.truth.T]
    if not any(known):
        raise DataError("compare: no photo has a label, so there is nothing to tell runs apart by")
    if (said.label >= 0).any():
        return ("all.macro_f1",)
    return tuple(f"{name}.macro_f1" for name, there in zip(labels.ATTRIBUTES, known, strict=True) if there)


def verdict(value: float, p: float) -> Verdict:
    """`better` or `worse` by the sign of a difference where p is at most 5 %, else `can't tell`."""
    return "can't tell" if p > 1 - LEVEL else "better" if value > 0 else "worse"


def _paired(persons: NDArray[Any], counts: Sequence[Floats], numbers: Statistic, draws: int, seed: int) -> Estimate:
    """`numbers` [S] of R runs, then of the first minus each of the others: an Estimate whose parts are [2 R - 1, S].

    counts: R times [P, C]. The ends of a difference are those of Student's t, but of two shares never outside -1..1.
    """
    runs = len(counts)

    def both(sums: Floats) -> Floats:
        each = [numbers(part) for part in np.split(sums, runs, axis=-1)]
        return np.concatenate([*each, *(each[0] - part for part in each[1:])], axis=-1)

    found = estimate(persons, np.concatenate(counts, axis=1), both, draws, seed)
    value, low, high, spread, freedom = (
        part.reshape(2 * runs - 1, -1) for part in (found.value, found.low, found.high, found.spread, found.freedom)
    )
    gaps = slice(runs, None)
    value[gaps] = np.where(np.abs(value[gaps]) < _NOTHING, 0, value[gaps])
    reach = np.array([[t_quantile(LEVEL, df) for df in row] for row in freedom[gaps].tolist()]) * spread[gaps]
    most = np.where(np.arange(value.shape[1]) == COLUMNS.index("age_error"), np.inf, 1)
    low[gaps], high[gaps] = (np.clip(end, -most, most) for end in (value[gaps] - reach, value[gaps] + reach))
    return Estimate(value, low, high, spread, freedom)


def _heads(found: Estimate, runs: int) -> list[tuple[float, float, float]]:
    """(value, spread, freedom) of the last number of every difference."""
    return list(zip(*(part[runs:, -1].tolist() for part in (found.value, found.spread, found.freedom)), strict=True))


def _labelled(said: Predictions) -> int:
    """Persons the verdict is about: those with a photo that is judged."""
    whole = said.label >= 0
    return len(np.unique(said.persons[whole if whole.any() else (said.truth >= 0).any(1)]))


def _p(value: float, spread: float, freedom: float, persons: int) -> float:
    """Two-sided, of the t of the interval; see `Comparison`."""
    p = 0.0 if value else 1.0
    if spread > 0 and freedom >= 1:
        p = t_beyond(abs(value) / spread, freedom)
    return max(p, 2.0 ** (1 - persons))


def _needed(value: float, spread: float, freedom: float, persons: int, count: int) -> int | None:
    """Persons at which `value` is as many standard errors from 0 as t asks for, for a level of 5 % / `count` and POWER.

    Those standard errors fall as the freedom grows with the persons, so there is one such number; between that of the
    normal distribution and what t asks for there.
    """
    if not value or persons < 2:
        return None
    chance = (1 - LEVEL) / count

    def asked(people: float) -> float:
        df = max(min(freedom * people / persons, people - 1), 1.0)
        errors = t_quantile(1 - chance, df) + t_quantile(2 * POWER - 1, df)
        return float(persons * (errors * spread / value) ** 2)

    low = asked(math.inf)
    high = max(low, asked(low))
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if asked(middle) > middle else (low, middle)
    return max(math.ceil(high), 1 + math.ceil(-math.log2(chance)))  # fewer may all agree by chance: see `_p`


def _beliefs(said: Predictions) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """[N] probability of the classes that fit what is known, and whether the most probable class is one of them."""
    classes = labels.decode_all(np.arange(labels.CLASSES))
    fits = ((said.truth[:, None] == classes) | (said.truth[:, None] == labels.UNKNOWN)).all(2)
    return (said.probabilities * fits).sum(1), fits[np.arange(len(said)), said.predicted]


def _words(codes: NDArray[np.integer]) -> str:
    return " ".join(labels.name(name, int(code)) or "?" for name, code in zip(labels.ATTRIBUTES, codes, strict=True))
