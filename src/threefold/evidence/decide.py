"""The decision rule: from probabilities to what is said, how sure that is, and when it is better to say nothing.

Macro F1 counts a class of thirty people as much as one of a thousand, and the most probable class is not the answer
that makes it largest (Lipton et al. 2014). Contest teams knew it as "relabel 58 as old", tried blindly. Here it is a
small vector added to the log probabilities, or two borders in years, fitted on out-of-fold predictions, beside one
temperature per attribute (`calibrate.py`). A rule is believed by its cross-fit (`cross_fit`, `review`) or not at all:
only that is about people nothing was fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, RecipeError, RunError, one_of
from threefold.evidence.bootstrap import AnyFloats
from threefold.evidence.calibrate import LEAST, fit_mean_temperature, fit_temperature, least_confidence, temper
from threefold.evidence.metrics import macro_f1, sides
from threefold.predictions import Predictions

Codes = NDArray[np.int64]

FILE = "decision.json"
"""Where a run keeps its decision; in it `decision` (`Decision.to_dict`) and `digest`, of the oof.npz it is from."""
GRID = np.arange(-80, 81) / 20
"""Offsets that are tried: -4 to 4 in steps of 0.05, odds times 1/55 to 55."""
YEARS = (np.arange(150, 450) / 10, np.arange(450, 800) / 10)
"""First years of the middle and of the old group that are tried: 15 to 45 and 45 to 80, in tenths."""
SMOOTH, PULL, NEAR, ROUNDS = 6, 0.002, 0.002, 4
"""Standard deviation of the smoothing in steps; macro F1 an offset of 1 must bring; what counts as equally good; how
often every number is fitted again, the others as they are then."""
# What overfits was measured on twelve models of 700 people, fitted on 560 and scored on 140, in turn: 18 free offsets
# at the highest step of macro F1 lost 0.5 points. So `offsets` moves attributes (five numbers, alike in all classes of
# an attribute's value), `age` only the two age borders; the score is smoothed along each number, pulled towards 0, and
# the middle of the best stretch is taken, not its edge. That gains 0.2 points on average, far inside the noise of one
# run. With 2,700 people there can be more: in one training `classes`, an offset of each class, gained 1.4 points and
# `years` 2, in another of the same recipe nothing (docs/evidence.md).
FITTINGS = 20
"""Passes over the three marginals at most; five bring most photos within 0.0001, those with all but zeros take more."""
_PARTS = labels.decode_all(np.arange(labels.CLASSES))
_AGES = (("age_group", 0), ("age_group", 2))
BLOCKS: dict[str, tuple[tuple[str, int], ...]] = {
    "none": (),
    "age": _AGES,
    "offsets": (("mask", 1), ("mask", 2), ("gender", 1), *_AGES),
    "classes": tuple(("class", code) for code in range(labels.CLASSES) if code != 1),
    "years": (),
}
"""Per rule the values whose offset is fitted; the first mask, gender and the middle age keep 0, of classes number 1."""
RULES = ("auto", *BLOCKS)
STEPS = {"mask": 6, "gender": 3, "age_group": 1}
"""How far apart two classes are that differ by one step of one attribute."""


@dataclass(frozen=True)
class Decided:
    """What a Decision makes of N photos, K = 18 and A = 3 attributes.

    probabilities: [N, 18] calibrated. code: [N] the class said. confidence: [N] calibrated probability that it is
    right, which is not the largest where a rule prefers a rarer class. confidences: [N, 3] the same of each attribute.
    indeterminate: [N, 3] where an attribute is better not said.
    """

    probabilities: AnyFloats
    code: Codes
    confidence: AnyFloats
    confidences: AnyFloats
    indeterminate: NDArray[np.bool_]


@dataclass(frozen=True)
class Decision:
    """How probabilities become answers; as made without arguments it changes nothing.

    temperature: of each attribute, above 0; above 1 where the network is too sure. offsets: 18 numbers added to the
    log probabilities as the network gives them, before the largest is taken. years_cuts: first year of the middle and
    of the old group; the age group then comes from the predicted years where there are any. abstain: of each attribute
    the confidence, 0..1, below which it is indeterminate. Raises DataError for values outside.
    """

    temperature: dict[str, float] = field(default_factory=lambda: dict.fromkeys(labels.ATTRIBUTES, 1.0))
    offsets: tuple[float, ...] = (0.0,) * labels.CLASSES
    years_cuts: tuple[float, float] | None = None
    abstain: dict[str, float] = field(default_factory=lambda: dict.fromkeys(labels.ATTRIBUTES, 0.0))

    def __post_init__(self) -> None:
        for name, values in (("temperature", self.temperature), ("abstain", self.abstain)):
            if list(values) != list(labels.ATTRIBUTES):
                raise DataError(f"{name} is of {', '.join(values)}; expected {', '.join(labels.ATTRIBUTES)}")
        numbers = np.array([*self.temperature.values(), *self.offsets, *self.abstain.values()])
        if len(self.offsets) != labels.CLASSES or not np.isfinite(numbers).all():
            raise DataError(f"{len(self.offsets)} offsets, or a number that is not finite; expected {labels.CLASSES}")
        if min(self.temperature.values()) <= 0 or not all(0 <= least <= 1 for least in self.abstain.values()):
            raise DataError("a temperature is not above 0, or a least confidence is not one of 0..1")
        if self.years_cuts and not 0 < self.years_cuts[0] <= self.years_cuts[1] < np.inf:
            raise DataError(f"years_cuts {self.years_cuts}: expected two rising years")

    def apply(self, probabilities: AnyFloats, years: AnyFloats | None = None) -> Decided:
        """[N, 18] as a network gives them, [N] years (NaN where unknown) -> what is said of them."""
        joint, code = self.calibrate(probabilities), self.answer(probabilities, years)
        rows, parts = np.arange(len(code)), labels.decode_all(code)
        marginals = labels.marginals(joint).values()
        sure = np.stack([part[rows, parts[:, column]] for column, part in enumerate(marginals)], axis=1)
        return Decided(joint, code, joint[rows, code], sure, sure < np.array(list(self.abstain.values())))

    def calibrate(self, probabilities: AnyFloats) -> AnyFloats:
        """[N, 18] -> [N, 18] whose marginals are the tempered ones; what attributes have to do with each other is kept.

        Iterative proportional fitting (Deming & Stephan 1940): of independent attributes one pass is exact, a mean of
        networks takes a few. One pass alone let the age's temperature turn 2 % of a mean's genders.
        """
        if set(self.temperature.values()) == {1.0}:
            return probabilities
        cube = np.maximum(probabilities, LEAST, dtype=np.float64).reshape(-1, *labels.SIZES.values())
        parts = labels.marginals(cube.reshape(-1, labels.CLASSES))
        wanted = [(axis, temper(parts[name], self.temperature[name])) for axis, name in enumerate(parts, start=1)]
        for _ in range(FITTINGS):
            off = 0.0
            for axis, part in wanted:
                others = tuple({1, 2, 3} - {axis})
                ratio = part / cube.sum(others)
                cube = cube * np.expand_dims(ratio, others)
                off = max(off, float(np.abs(ratio - 1).max(initial=0)))
            if off < 1e-6:
                break
        joint = cube.reshape(-1, labels.CLASSES)
        return np.asarray(joint / joint.sum(1, keepdims=True))

    def answer(self, probabilities: AnyFloats, years: AnyFloats | None = None) -> Codes:
        """[N] the class said. By years, it is the best class of the age group they fall into."""
        scores = _logs(probabilities) + np.array(self.offsets)
        code = np.asarray(scores.argmax(1))
        if self.years_cuts is None or years is None:
            return code
        group = (years >= self.years_cuts[0]).astype(np.int64) + (years >= self.years_cuts[1])
        return np.asarray(np.where(np.isfinite(years), _best(scores)[np.arange(len(code)), group], code))

    def words(self) -> list[str]:
        """Lines that say what is said differently, and when nothing is said; none where nothing is.

        An offset of an attribute's value is put in calibrated probability: the share, of what two values have
        together, from which on the first-named is said; 0.50 without it. Offsets of classes are put as they are.
        """
        moves = np.array(self.offsets) - self.offsets[1]
        # class 1 has the usual value of all three; STEPS leads from it to another value of one attribute
        single = {(n, v): moves[1 + STEPS[n] * (v - (n == "age_group"))] for n, v in BLOCKS["offsets"]}
        lines = []
        if np.allclose(moves, sum(move * _inside(*which) for which, move in single.items())):
            for (name, value), move in single.items():
                share, names = 1 / (1 + np.exp(move / self.temperature[name])), labels.NAMES[name]
                usual = names[int(name == "age_group")]
                if move:
                    lines.append(f"{names[value]} rather than {usual} from a share of {share:.2f} on")
        else:
            lines = [f"{labels.class_name(code)}: {add:+.2f} on its log probability" for code, add in enumerate(moves)]
        if self.years_cuts:
            lines.append("age group by predicted years: 30-59 from {:.1f}, >=60 from {:.1f}".format(*self.years_cuts))
        return lines + [f"{name} is indeterminate below {least:.3f}" for name, least in self.abstain.items() if least]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any, where: object = "decision") -> Decision:
        """Read what `to_dict` wrote; RunError naming `where` for anything else, down to an unknown key."""
        try:
            if unknown := set(value) - {field.name for field in fields(cls)}:
                raise DataError(f"{min(unknown)!r} is not known")
            cuts = value["years_cuts"]
            return cls(
                temperature={name: float(x) for name, x in value["temperature"].items()},
                offsets=tuple(float(offset) for offset in value["offsets"]),
                years_cuts=None if cuts is None else (float(cuts[0]), float(cuts[1])),
                abstain={name: float(x) for name, x in value["abstain"].items()},
            )
        except (DataError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RunError(f"{where}: is not what `threefold decide` writes ({error})") from None


def fit(
    predictions: Predictions,
    *,
    rule: str = "auto",
    coverage: float | None = None,
    risk: float | None = None,
    tempered: Sequence[str] = tuple(labels.ATTRIBUTES),
    seed: int = 0,
) -> Decision:
    """The Decision that is best on these photos: a fit, not a score (see `cross_fit`).

    rule: of RULES. `none` fits temperatures only, `age`, `offsets` and `classes` what BLOCKS names, `years` the two
    borders of the predicted years; `auto` takes the one of these that scores best in a cross-fit of its own (seed: of
    its lots), the first of equals. coverage: the share of the photos for which each attribute is said; risk: the
    largest share of what is said that may be wrong (where no share is small enough, only what is certain is said); at
    most one of them.
    tempered: the attributes that get a temperature.
    Raises RecipeError for an unknown rule and numbers outside, DataError where a rule has nothing to be fitted on.
    """
    if rule not in RULES:
        raise RecipeError(f"rule: {rule!r} is not known ({one_of(RULES, rule)})")
    wrong = (coverage is not None and not 0 < coverage <= 1) or (risk is not None and not 0 <= risk < 1)
    if wrong or None not in (coverage, risk):
        limits = "expected one of them, above 0 up to 1, or 0 up to below 1"
        raise RecipeError(f"coverage {coverage}, risk {risk}: {limits}")
    labelled = predictions.take(predictions.label >= 0)
    if rule == "auto":
        rule = _choose(labelled, seed) if len(labelled) else "none"
    if rule != "none" and not len(labelled):
        raise DataError(f"rule {rule}: no photo knows mask, gender and age group, so there is no macro F1 to fit it on")
    if rule == "years" and not np.isfinite(labelled.years).any():
        raise DataError("rule years: the model says no age in years (known: none, age, offsets)")
    marginals = predictions.marginals().items()
    temperature = {
        name: fit_temperature(part, predictions.truth[:, column]) if name in tempered else 1.0
        for column, (name, part) in enumerate(marginals)
    }
    cuts = _fit_years(labelled) if rule == "years" else None
    decision = Decision(temperature, tuple(_fit_offsets(labelled, BLOCKS[rule]).tolist()), cuts)
    if coverage is None and risk is None:
        return decision
    decided = decision.apply(predictions.probabilities, predictions.years)
    right = labels.decode_all(decided.code) == predictions.truth
    least = {}
    for column, name in enumerate(labels.ATTRIBUTES):
        rows = slice(None) if risk is None else predictions.truth[:, column] >= 0
        least[name] = least_confidence(decided.confidences[rows, column], right[rows, column], coverage, risk)
    return replace(decision, abstain=least)


def cross_fit(predictions: Predictions, *, seed: int = 0, **options: Any) -> tuple[Decided, Decision]:
    """(what is said of each photo by a Decision fitted without its part of the people, the one fitted on everybody).

    The parts are `metrics.sides`; `auto` chooses its rule inside each part. options: those of `fit`, which also says
    what is raised.
    """
    return _held_out(predictions, seed, **options), fit(predictions, seed=seed, **options)


# Out-of-fold predictions are of one network each, but a run reads new photos with the mean of all its folds' networks.
# The mean is less sure than any of them (where they differ, it stands between) and more often right, so temperatures of
# single networks leave it too unsure, by up to 13 points of confidence (docs/evidence.md; Rahaman & Thiery 2021,
# "Uncertainty quantification and deep ensembles"; Wu & Gales 2021, "Should ensemble members be calibrated?"). Both
# calibrate on labels that no member has seen, which folds do not leave; here photos without labels are enough.
def for_mean(single: Decision, members: AnyFloats, mean: AnyFloats, *, coverage: float | None = None) -> Decision:
    """The decision for `mean` [N, 18] (what is read with) that does what `single` does for `members` [M, N, 18].

    Both as the networks give them, of N photos of people that no member has seen; no labels. Offsets are moved with
    the temperatures, so that they change the answer at the same calibrated share; borders in years stay. With
    `coverage` an attribute is indeterminate for the least sure of these photos; else the least confidences stay, as
    they are calibrated ones. Raises DataError for shapes that do not fit and for no photos.
    """
    if members.ndim != 3 or members.shape[1:] != mean.shape or mean.shape[1:] != (labels.CLASSES,) or not mean.size:
        raise DataError(f"members {members.shape}, mean {mean.shape}; expected [M, N, {labels.CLASSES}] and [N, ...]")
    # With their temperatures the single networks mean what they say. So labels drawn from what the mean says must find
    # them calibrated again, and its temperature is that for which they are. This assumes that they mean what they say
    # on these photos too, which may be easier or harder than those of the training but of no other kind.
    parts = [labels.marginals(member) for member in members]
    temperature = {}
    for name, part in labels.marginals(mean).items():
        calibrated = np.stack([temper(member[name], single.temperature[name]) for member in parts])
        temperature[name] = fit_mean_temperature(part, calibrated)
    ratio = {name: temperature[name] / single.temperature[name] for name in temperature}
    decision = replace(single, temperature=temperature, offsets=_moved(np.array(single.offsets), ratio))
    if coverage is None:
        return decision
    columns = zip(labels.ATTRIBUTES, decision.apply(mean).confidences.T, strict=True)
    unlabelled = np.ones(len(mean), bool)
    return replace(decision, abstain={n: least_confidence(sure, unlabelled, coverage, None) for n, sure in columns})


def as_certain(predictions: Predictions, code: Codes) -> Predictions:
    """The same photos with certainty for [N] `code`: what `metrics` and `compare` then measure is what was said."""
    return replace(predictions, probabilities=np.eye(labels.CLASSES, dtype=np.float32)[code])


def _held_out(predictions: Predictions, seed: int, **options: Any) -> Decided:
    part, rows, decided = sides(predictions, seed=seed), [], []
    for side in np.unique(part):
        held = predictions.take(part == side)
        decision = fit(predictions.take(part != side), seed=seed, **options)
        rows.append(np.flatnonzero(part == side))
        decided.append(decision.apply(held.probabilities, held.years))
    order = np.concatenate(rows).argsort()
    return Decided(*(np.concatenate([getattr(one, f.name) for one in decided])[order] for f in fields(Decided)))


def _choose(labelled: Predictions, seed: int) -> str:
    rules = [rule for rule in BLOCKS if rule != "years" or np.isfinite(labelled.years).any()]
    scores = [macro_f1(labelled.label, _held_out(labelled, seed, rule=rule).code) for rule in rules]
    return rules[int(np.argmax(scores))]


def _fit_offsets(labelled: Predictions, blocks: Sequence[tuple[str, int]]) -> AnyFloats:
    """[18]: coordinate ascent, one value of one attribute at a time."""
    scores, truth, offsets = _logs(labelled.probabilities), labelled.label, np.zeros(labels.CLASSES)
    values = dict.fromkeys(blocks, 0.0)
    for _ in range(ROUNDS):
        before = offsets.copy()
        for (name, value), now in list(values.items()):
            inside = _inside(name, value)
            offsets = offsets - now * inside
            one, other = (np.where(classes, scores + offsets, -np.inf) for classes in (~inside, inside))
            step = _step(truth, one.argmax(1), other.argmax(1), one.max(1) - other.max(1), GRID, PULL)
            values[name, value] = step
            offsets = offsets + step * inside
        if np.abs(offsets - before).max(initial=0) < 1e-9:
            break
    return offsets


def _inside(name: str, value: int) -> NDArray[np.bool_]:
    """[18] which classes have that value of an attribute, or are that `class`."""
    every = [*_PARTS.T, np.arange(labels.CLASSES)]
    return np.asarray(every[[*labels.ATTRIBUTES, "class"].index(name)] == value)


def _fit_years(labelled: Predictions) -> tuple[float, float]:
    """The two borders, one at a time; what says no years is left out."""
    aged = labelled.take(np.isfinite(labelled.years))
    years, truth = aged.years.astype(np.float64), aged.label
    young, middle, old = _best(_logs(aged.probabilities)).T
    first, second = map(float, labels.CUTS)
    for _ in range(ROUNDS):
        # a border that rises makes somebody younger from their own year on (not at it: at the border one is older)
        at = np.nextafter(years, np.inf)
        low, high = (np.where(years >= first, group, young) for group in (old, middle))
        second = _step(truth, low, high, at, YEARS[1])
        first = _step(truth, np.where(years >= second, old, middle), young, at, YEARS[0])
    return first, second


def _step(truth: Codes, low: Codes, high: Codes, at: AnyFloats, grid: AnyFloats, pull: float = 0.0) -> float:
    """The number of `grid` for which macro F1 is best where photos say `low` below their `at` and `high` from it on.

    Macro F1 is a jagged step function of such a number and its highest step is chance. It is smoothed, less `pull` per
    unit; then the middle of the stretch around the best that is at most NEAR worse.
    """
    score = _f1_along(truth, low, high, at, grid)
    reach = np.arange(-4 * SMOOTH, 4 * SMOOTH + 1)
    window = np.exp(-0.5 * (reach / SMOOTH) ** 2)
    smooth = np.convolve(np.pad(score, 4 * SMOOTH, mode="edge"), window / window.sum(), mode="valid")
    smooth -= pull * np.abs(grid)
    best = int(smooth.argmax())
    worse = np.flatnonzero(smooth < smooth[best] - NEAR)
    first, last = worse[worse < best].max(initial=-1) + 1, worse[worse > best].min(initial=len(grid))
    return float(grid[first:last].mean())


def _f1_along(truth: Codes, low: Codes, high: Codes, at: AnyFloats, grid: AnyFloats) -> AnyFloats:
    """[G] macro F1 at each number of the rising grid; see `_step`. All of them in one pass over the photos."""
    place = np.searchsorted(grid, at) * labels.CLASSES  # where it changes to `high`; behind the end: never
    size = (len(grid) + 1) * labels.CLASSES

    def along(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[G, 18] photos that say each class at each number, of those marked before and after their change."""
        gone, come = (place + low)[before], (place + high)[after]
        change = np.bincount(come, minlength=size) - np.bincount(gone, minlength=size)
        start = np.bincount(low[before], minlength=labels.CLASSES)
        return np.asarray(start + change.reshape(-1, labels.CLASSES).cumsum(0)[:-1])

    every = np.ones(len(truth), dtype=bool)
    right, answers = along(low == truth, high == truth), along(every, every)
    both = answers + np.bincount(truth, minlength=labels.CLASSES)
    return np.asarray((2 * right / np.maximum(both, 1)).mean(1))


def _logs(probabilities: AnyFloats) -> AnyFloats:
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny, dtype=np.float64))


def _best(scores: AnyFloats) -> Codes:
    """[N, 18] -> [N, 3] the best class of each age group."""
    return np.stack([np.where(_PARTS[:, 2] == group, scores, -np.inf).argmax(1) for group in range(3)], axis=1)


def _moved(offsets: AnyFloats, ratio: dict[str, float]) -> tuple[float, ...]:
    """[18] offsets of log probabilities that are `ratio` times as wide apart.

    What an attribute adds is multiplied by its own ratio, what only a class adds by the mean of all.
    """
    cube = offsets.reshape(tuple(labels.SIZES.values()))
    rest, moved = cube - cube.mean(), np.zeros_like(cube)
    for axis, name in enumerate(labels.ATTRIBUTES):
        others = tuple({0, 1, 2} - {axis})
        part = cube.mean(others, keepdims=True) - cube.mean()
        rest = rest - part
        moved = moved + part * ratio[name]
    moved = moved + rest * float(np.exp(np.mean(np.log(list(ratio.values())))))
    return tuple((moved - moved.ravel()[1]).round(9).ravel().tolist())
