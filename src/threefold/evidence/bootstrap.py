"""Intervals from a bootstrap over persons, for any statistic of summed counts, all draws at once.

Everything measured here is a function of sums over persons, so a draw is one row of multinomial weights and all draws
are one matrix product: no resampled copy of the photos is ever made. What the counts mean is said in metrics.py;
whether two models differ is asked in compare.py, on the same draws, with Student's t (`t_quantile`), since from few
persons a spread is hardly known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, pi
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AnyFloats = NDArray[np.floating]
"""Of any precision: networks answer in float32."""
Statistic = Callable[[Floats], Floats]
"""[..., C] summed counts -> [..., S] numbers; NaN where a number means nothing."""

Number = dict[str, float | None]
"""value and the ends of its 95 % interval, low and high; None where nothing is known."""

LEVEL = 0.95
NORMAL = NormalDist()
_MANY = 1e6
"""Degrees of freedom from which on t is normal to five digits."""
CHUNK = 1 << 21
"""Numbers drawn at a time: 16 MB of int64 and as much of weights, whatever the number of draws."""


# The seven photos of a person are right and wrong together, so photos are not independent and an interval from
# resampling them is far too narrow. Persons are drawn instead (cluster bootstrap; Davison & Hinkley 1997, section 3.8),
# and from all of them: drawn within (gender, age group) the intervals cover 85 to 94 %, since the sizes of the rare
# groups are chance as well.
def person_draws(persons: NDArray[Any], draws: int, seed: int = 0) -> Iterator[Floats]:
    """Yield [chunk, P] weights, `draws` rows in all: how often each of P persons was drawn; rows sum to P.

    persons: [N], one per photo; columns are in the order of `np.unique(persons)`. The same persons, draws and seed
    give the same weights, whatever was predicted: two models compared on them are compared on the same people.
    """
    count = len(np.unique(persons))
    if not count:
        return
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        yield times(rng.integers(0, count, (rows, count)), count).astype(np.float64)


def times(drawn: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """[D, n] numbers below `count` -> [D, count] how often each is in its row."""
    places = drawn + np.arange(0, len(drawn) * count, count)[:, None]
    return np.bincount(places.ravel(), minlength=len(drawn) * count).reshape(-1, count)


def person_sums(persons: NDArray[Any], columns: NDArray[Any]) -> Floats:
    """[N] persons, [N, C] per photo -> [P, C] summed per person, in the order of `np.unique(persons)`."""
    names, rows = np.unique(persons, return_inverse=True)
    sums = [np.bincount(rows, column, minlength=len(names)) for column in columns.T]
    return np.stack(sums, axis=1).astype(np.float64)  # of no photos, bincount makes integers


def resample(persons: NDArray[Any], sums: Floats, statistic: Statistic, draws: int, seed: int = 0) -> Floats:
    """[draws, S]: `statistic` of every draw of persons; `sums` as from `person_sums`."""
    rows = [statistic(weights @ sums) for weights in person_draws(persons, draws, seed)]
    return np.concatenate(rows) if rows else np.zeros((0, len(statistic(sums.sum(0)))))


@dataclass(frozen=True)
class Estimate:
    """S numbers, each with the ends of its interval; NaN where a number means nothing. All [S].

    spread: standard deviation of the draws. freedom: how many degrees of freedom that has, from how evenly the persons
    carry the number (Satterthwaite 1946, Biometrics 2: the chi-square that varies as the sum of squares does); persons
    minus 1 at most, 2 where it hangs on one of many. `compare` needs both, the intervals here do not use them.
    """

    value: Floats
    low: Floats
    high: Floats
    spread: Floats
    freedom: Floats

    def number(self, place: int) -> Number:
        """One of the numbers, as files and pages have it; None for what is not finite."""
        parts = {key: float(getattr(self, key)[place]) for key in ("value", "low", "high")}
        return {key: x if isfinite(x) else None for key, x in parts.items()}

    def named(self, names: Sequence[str]) -> dict[str, Number]:
        """All S numbers by their names [S]."""
        return {name: self.number(place) for place, name in enumerate(names)}


def places(number: Number, least: int = 3) -> int:
    """Decimal places, `least` to 6, at which no part of a Number that is not 0 reads as 0.

    An interval that leaves 0 out must be seen to: 0.0004 to 0.02 is not "+0.000 to +0.020".
    """
    parts = [abs(part) for part in number.values() if part]
    return next((count for count in range(least, 6) if all(round(part, count) for part in parts)), 6)


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole of sums that are broadcast together; NaN where the whole is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def estimate(persons: NDArray[Any], sums: Floats, statistic: Statistic, draws: int, seed: int = 0) -> Estimate:
    """`statistic` of all persons with its 95 % BCa interval; a draw that gives NaN is left out of that number's."""
    return summarise(sums, statistic, resample(persons, sums, statistic, draws, seed))


def summarise(sums: Floats, statistic: Statistic, drawn: Floats) -> Estimate:
    """`estimate` for a caller who has the draws already, [draws, S] as from `resample`, and needs them as well."""
    total = sums.sum(0)
    value = statistic(total)
    left_out = statistic(total - sums)
    ends = [_ends(v, drawn[:, s], left_out[:, s]) for s, v in enumerate(value.tolist())]
    return Estimate(value, *np.array(ends, dtype=np.float64).reshape(-1, 4).T)


def _ends(value: float, drawn: Floats, left_out: Floats) -> tuple[float, ...]:
    """Low and high end (BCa, Efron 1987, section 4), spread and freedom from draws [D] and what is left of each [P].

    BCa moves the percentiles by the bias of the draws and by the skewness over persons. Macro F1 needs it: a class of a
    few people is missing from many draws and counts 0 there (docs/evidence.md has the coverage).
    """
    drawn, left_out = drawn[np.isfinite(drawn)], left_out[np.isfinite(left_out)]
    if not np.isfinite(value) or not len(drawn):
        return (float("nan"),) * 4
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    # bounded: at most 2.9, so that `shifted` cannot blow up
    bias = NORMAL.inv_cdf(min(max(float(below), 0.002), 0.998))
    gap = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    squares = float((gap**2).sum())
    skew = float((gap**3).sum()) / (6 * squares**1.5) if squares > 1e-20 else 0.0  # never beyond 1/6
    uneven = float((gap**4).sum()) / squares**2 if squares > 1e-20 else 0.0  # 1 / persons .. 1
    freedom = min(2 / max(uneven - 1 / len(gap), 1e-9), len(gap) - 1)
    levels = []
    for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        shifted = bias + NORMAL.inv_cdf(level)
        levels.append(NORMAL.cdf(bias + shifted / (1 - skew * shifted)))
    low, high = np.quantile(drawn, levels)
    return float(low), float(high), float(drawn.std()), freedom


def t_quantile(level: float, df: float) -> float:
    """How far from 0 Student's t of `df` degrees of freedom stays with probability `level`; NaN for fewer than 1."""
    if not df >= 1:
        return float("nan")
    angle, inside = _student(min(df, _MANY))
    return float(np.sqrt(min(df, _MANY)) * np.tan(np.interp(level, inside, angle)))


def t_beyond(distance: float, df: float) -> float:
    """Probability, 0..1, that Student's t lies farther from 0 than `distance`."""
    angle, inside = _student(min(df, _MANY))
    return float(1 - np.interp(np.arctan(distance / np.sqrt(min(df, _MANY))), angle, inside))


# From the density in the angle a = arctan(t / sqrt(df)), cos(a)**(df - 1), which is smooth and bounded; within 1e-4 of
# the exact values, relatively, and without scipy.
@lru_cache(maxsize=64)
def _student(df: float) -> tuple[Floats, Floats]:
    """Angles a in 0..pi/2 and P(|t| < sqrt(df) tan a)."""
    angle = pi / 2 * np.linspace(0, 1, 20_001) ** 2  # dense at 0, where all of it is when df is large
    density = np.cos(angle) ** (df - 1)
    inside = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) * np.diff(angle))])
    return angle, inside / inside[-1]
