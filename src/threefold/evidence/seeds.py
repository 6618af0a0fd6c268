"""Seed noise and person noise apart: what K trainings of one recipe that differ in their seed alone can claim.

Two things move a score. Other people would have been measured: the bootstrap over persons covers that, and only that.
And another seed would have trained another network: no draw of people shows it, and most "improvements" by a trick are
of its size. Here K runs of one recipe on the same photos and folds are scored, and the variance of the persons (of the
mean score, every seed with the same draws) and that of the seeds (of the K scores on these very photos, divided by
K - 1) are added: seed / K for what the recipe scores on average, seed * (1 + 1/K) for what one more training will
score. What is not here: other training people (the networks are given) and other folds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2, sqrt

import numpy as np

from threefold.errors import DataError
from threefold.evidence.bootstrap import LEVEL, NORMAL, Estimate, Floats, estimate, t_beyond, t_quantile
from threefold.evidence.compare import POWER, Verdict, verdict
from threefold.evidence.ensemble import aligned
from threefold.evidence.metrics import judged_tasks, macro_counts, macro_mean
from threefold.predictions import Predictions

Z = NORMAL.inv_cdf((1 + LEVEL) / 2)
_MOST = 1_000_000_000
"""People or seeds beyond which nobody goes."""
Interval = dict[str, float]
"""{value, low, high}: a number and the ends of its 95 % interval."""


@dataclass(frozen=True)
class Spread:
    """K runs of one recipe. metric: what `scores` [K] are, in words; seed_sd is None for one seed.

    The mean score with three intervals. persons: other people, these networks. recipe: other people and other seeds, of
    what the recipe scores on average. training: what one more training of it will score, on other people.
    """

    metric: str
    scores: list[float]
    person_sd: float
    seed_sd: float | None
    persons: Interval
    recipe: Interval
    training: Interval


@dataclass(frozen=True)
class SeedDifference:
    """K runs of one recipe minus K of another, seed by seed. headline: mean of `differences` [K], both noises in it.

    p: two-sided; verdict: of the first recipe. seed_share: part of the variance of the mean difference that is seeds,
    0..1, what a seed makes of particular people not counted. persons_needed at this many seeds, seeds_needed with these
    persons: about how many tell a difference of this size apart from 0 with a chance of POWER, also where it is one of
    `among` comparisons; None where the difference is 0 or this alone would never do. By the same t, whose degrees of
    freedom grow with them. Of one seed, what it cannot say is None.
    """

    metric: str
    differences: list[float]
    headline: Interval
    p: float
    verdict: Verdict
    person_sd: float
    seed_sd: float | None
    seed_share: float | None
    persons_needed: int | None
    seeds_needed: int | None


def spread(parts: Sequence[Predictions], *, draws: int = 2000, seed: int = 0) -> Spread:
    """Separate the noise of K >= 1 runs of one recipe; DataError unless they are about the same photos and labels."""
    metric, noise = _noise([parts], draws, seed)
    ends = (noise.persons, noise.interval(), noise.interval(extra=1))
    inside = [{key: min(max(end, 0.0), 1.0) for key, end in interval.items()} for interval in ends]  # a score is 0..1
    return Spread(metric, noise.scores.tolist(), noise.person_sd, noise.seed_sd, *inside)


def seed_difference(
    ones: Sequence[Predictions], others: Sequence[Predictions], *, among: int = 1, draws: int = 10_000, seed: int = 0
) -> SeedDifference:
    """`ones` minus `others`, run k of one against run k of the other (the same training seed), on the same persons.

    among: of how many comparisons made at once this is one, for what it would take; p is of this one alone. Raises
    DataError unless there are as many runs on both sides, all about the same photos, persons and labels.
    """
    if len(ones) != len(others):
        raise DataError(f"seeds: {len(ones)} runs against {len(others)}; expected one run of each seed on both sides")
    metric, noise = _noise([ones, others], draws, seed)
    people, seeds, count = len(np.unique(ones[0].persons)), noise.seed_sd, len(ones)
    # the variance of the seeds is that of a seed alone (pure) and of what it makes of particular people (mixed)
    mixed = noise.interaction
    pure = max(0.0, (seeds or 0.0) ** 2 - mixed)
    persons, freedom = noise.person_sd**2, noise.freedom
    shared = max(0.0, persons - mixed / count)  # of the persons, whatever the seed is

    def of_people(number: int) -> tuple[float, float]:
        fewer = people / number
        df = min(freedom / fewer, number - 1)
        return _joined(persons * fewer, df, (pure + mixed * fewer) / count if seeds is not None else 0.0, count - 1)

    def of_seeds(number: int) -> tuple[float, float]:
        return _joined(shared + mixed / number, freedom, (pure + mixed) / number, number - 1)

    chance = (1 - LEVEL) / among
    least = 1 + ceil(-log2(chance))  # fewer persons may all agree by chance, see compare.py
    return SeedDifference(
        metric=metric,
        differences=noise.scores.tolist(),
        headline=noise.interval(),
        p=noise.p,
        verdict=verdict(noise.mean, noise.p),
        person_sd=noise.person_sd,
        seed_sd=seeds,
        seed_share=pure / count / (persons + pure / count) if seeds is not None and persons + pure else None,
        persons_needed=_enough(noise.mean, of_people, chance, least),
        seeds_needed=_enough(noise.mean, of_seeds, chance, 2) if seeds is not None else None,
    )


class _Noise:
    """K scores, one per seed [K], and the bootstrap over persons: of their mean, then of each one's distance to it.

    skewed: the person part keeps the skewness of its BCa ends (a score); else it is a t interval (a difference).
    interaction: variance that a seed's number has from who was drawn, beyond what all seeds share.
    """

    def __init__(self, scores: Floats, estimate: Estimate, skewed: bool) -> None:
        self.scores, self.skewed = scores, skewed
        columns = (estimate.value, estimate.low, estimate.high, estimate.spread, estimate.freedom)
        self.mean, low, high, self.person_sd, self.freedom = (float(column[0]) for column in columns)
        if not skewed:
            reach = t_quantile(LEVEL, self.freedom) * self.person_sd
            low, high = self.mean - reach, self.mean + reach
        self.persons: Interval = {"value": self.mean, "low": low, "high": high}
        self.seed_sd = float(scores.std(ddof=1)) if len(scores) > 1 else None
        self.interaction = float((estimate.spread[1:] ** 2).sum() / max(len(scores) - 1, 1))

    @property
    def p(self) -> float:
        """Two-sided, of a mean of 0: at most 5 % just where the interval leaves 0 out."""
        error, df = self._error("low" if self.mean > 0 else "high", 0)
        return t_beyond(abs(self.mean) / error, df) if error and self.mean else float(not self.mean)

    def interval(self, extra: int = 0) -> Interval:
        """With both noises; extra 1: of one more training, not of the mean over trainings."""
        if self.seed_sd is None:
            return self.persons
        low, high = (error * t_quantile(LEVEL, df) for error, df in (self._error(s, extra) for s in ("low", "high")))
        return {"value": self.mean, "low": self.mean - low, "high": self.mean + high}

    def _error(self, side: str, extra: int) -> tuple[float, float]:
        """Standard error towards one side, and its degrees of freedom."""
        # With K of 2 to 5 the seed variance is hardly known, so the normal quantile is replaced by Student's t: of
        # K - 1 degrees for the seeds; for the persons of as many as compare.py gives the spread of a difference, and of
        # infinitely many for that of a score, whose ends are BCa: each side's distance counts as 1.96 SDs. What two
        # networks of one recipe make of particular people is in both variances, so the sum errs on the safe side.
        # Coverage: docs/evidence.md and `benchmarks/seeds.py`.
        persons, freedom = self.person_sd**2, self.freedom
        if self.skewed:
            persons, freedom = (self.persons[side] - self.mean) ** 2 / Z**2, inf
        seeds = (self.seed_sd or 0.0) ** 2 * (1 / len(self.scores) + extra)
        variance, df = _joined(persons, freedom, seeds, len(self.scores) - 1)
        return sqrt(variance), df


def _noise(sides: Sequence[Sequence[Predictions]], draws: int, seed: int) -> tuple[str, _Noise]:
    """Name of the score; the K scores of one side, or of one side minus the other.

    What is scored is as in compare.py: macro F1 over the 18 classes; where no photo knows all three labels, the mean of
    the known attributes' macro F1.
    """
    if not sides[0]:
        raise DataError("seeds: there is no run to measure")
    parts = aligned([part for side in sides for part in side])
    names = judged_tasks(parts[0])
    if not names:
        raise DataError("seeds: no photo has a label, so there is nothing to score")
    counts = np.stack([macro_counts(part, names) for part in parts], axis=1)  # [persons, runs, counts]

    def scores(sums: Floats) -> Floats:
        """[..., runs * counts] -> [..., K]."""
        runs = macro_mean(sums.reshape(*sums.shape[:-1], *counts.shape[1:]), names)[..., 0]
        return runs[..., : len(sides[0])] - runs[..., len(sides[0]) :] if len(sides) > 1 else runs

    def numbers(sums: Floats) -> Floats:
        parts = scores(sums)
        mean = parts.mean(-1, keepdims=True)
        return np.concatenate([mean, parts - mean], axis=-1)

    flat = counts.reshape(len(counts), -1)
    metric = "macro F1" if names == ("all",) else f"mean macro F1 of {', '.join(names)}"
    noise = estimate(parts[0].persons, flat, numbers, draws, seed)
    return metric, _Noise(scores(flat.sum(0)), noise, len(sides) == 1)


def _joined(persons: float, df: float, seeds: float, few: int) -> tuple[float, float]:
    """Variance of persons and seeds together, its degrees of freedom (Satterthwaite 1946, Welch 1947), 1 at least."""
    uncertain = (persons**2 / max(df, 1.0) if persons else 0.0) + seeds**2 / max(few, 1)
    return persons + seeds, max((persons + seeds) ** 2 / uncertain, 1.0) if uncertain else inf


def _enough(value: float, at: Callable[[int], tuple[float, float]], chance: float, least: int) -> int | None:
    """How many, of whom `at` tells variance and freedom, tell `value` apart from 0 at the level `chance`, mostly.

    None where the value is 0, or where more than _MOST would not do.
    """

    def tells(number: int) -> bool:
        variance, df = at(number)
        return bool(value**2 >= variance * (t_quantile(1 - chance, df) + t_quantile(2 * POWER - 1, df)) ** 2)

    low, high = least - 1, least
    while value and high <= _MOST and not tells(high):
        low, high = high, 2 * high
    if not value or high > _MOST:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle, high)
    return high
