"""Whether a confidence means what it says, and what it is worth for knowing when to be silent.

A classifier that says 0.9 should be right nine times in ten. Networks are not, most often too sure (Guo et al. 2017,
"On calibration of modern neural networks"), and one number, the temperature, cures most of it without changing which
class is the most probable. All functions are of bare arrays; `decide.py` cross-fits the temperature, so that what is
reported is of people it was not fitted on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError
from threefold.evidence.bootstrap import AnyFloats
from threefold.labels import UNKNOWN

LEAST = 1e-12
"""Probabilities below are taken as this: float32 softmax gives zeros, and one photo must not cost infinitely much."""
TEMPERATURES = (0.05, 20.0)
"""Ends of what `fit_temperature` may answer; a classifier that is always right would like 0."""


@dataclass(frozen=True)
class Bin:
    """Some photos of like confidence. low, high: their least and largest; confidence: mean; accuracy: share right."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float


def reliability(confidence: AnyFloats, right: NDArray[np.bool_], bins: int = 10) -> list[Bin]:
    """[N] confidences 0..1, [N] whether right -> at most `bins` bins by rising confidence, empty ones left out.

    Bins hold equally many photos (Nguyen & O'Connor 2015). Photos of equal confidence share a bin, so that the order of
    rows means nothing. Raises DataError for lists that differ in length or `bins` below 1.
    """
    confidence, right = _paired(confidence, right)
    if bins < 1:
        raise DataError(f"bins: {bins}; expected 1 or more")
    if not len(confidence):
        return []
    # Not equally wide stretches of 0..1: most photos are sure, so the last would hold nearly all and the others noise;
    # equal counts also give the error estimate less bias (Roelofs et al. 2022).
    edges = np.quantile(confidence, np.arange(1, bins) / bins, method="lower")
    place = np.searchsorted(edges, confidence, side="right")
    rows = [(confidence[place == b], right[place == b]) for b in np.unique(place)]
    return [Bin(float(c.min()), float(c.max()), len(c), float(c.mean()), float(r.mean())) for c, r in rows]


def risk_coverage(confidence: AnyFloats, right: NDArray[np.bool_]) -> tuple[AnyFloats, AnyFloats]:
    """([N] coverage, [N] risk), surest first: answering the share `coverage` of the photos, the share `risk` is wrong.

    El-Yaniv & Wiener 2010. Photos of equal confidence are answered together: each has coverage and risk of them all.
    """
    confidence, right = _paired(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    # how many photos are at least as sure as each: the end of its ties
    upto = np.searchsorted(-confidence[order], -confidence[order], side="right")
    wrong = np.concatenate([[0], np.cumsum(~right[order])])
    return upto / max(len(order), 1), wrong[upto] / upto


def least_confidence(
    confidence: AnyFloats, right: NDArray[np.bool_], coverage: float | None, risk: float | None
) -> float:
    """The least confidence with which the share `coverage` is said, or at most the share `risk` of it is wrong.

    1 where no share is that small. [N] confidences, [N] whether right (of no matter for a coverage).
    """
    if not len(confidence):
        return 0.0
    shares, risks = risk_coverage(confidence, right)
    good = np.flatnonzero(risks <= risk)[-1:] if risk is not None else np.flatnonzero(shares >= (coverage or 1))[:1]
    return min(float(-np.sort(-confidence)[good[0]]), 1.0) if len(good) else 1.0


def aurc(risk: AnyFloats) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages (Geifman et al. 2019); NaN of no photos."""
    return float(risk.mean()) if len(risk) else float("nan")


def temper(probabilities: AnyFloats, temperature: float) -> NDArray[np.float64]:
    """[N, K] -> [N, K] probabilities to the power 1 / temperature, rows summing to 1; above 1 is less sure."""
    scaled = np.log(np.maximum(probabilities, LEAST, dtype=np.float64)) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def fit_temperature(probabilities: AnyFloats, truth: NDArray[np.integer]) -> float:
    """The temperature with which [N, K] probabilities have the least mean negative log likelihood of [N] codes.

    Guo et al. 2017, section 4.2. Every photo of known truth counts alike; 1 where there is none.
    """
    labelled = np.flatnonzero(truth != UNKNOWN)
    if not len(labelled):
        return 1.0
    logs = np.log(np.maximum(probabilities[labelled], LEAST, dtype=np.float64))
    wanted = float(logs[np.arange(len(labelled)), truth[labelled]].mean())
    # The loss is convex in 1 / T; its derivative is the mean log p under the tempered distribution less that of the
    # truth. While that is above 0 the answers are still surer than right: the root lies at a larger temperature.
    return _bisect(lambda t: float((temper(probabilities[labelled], t) * logs).sum(1).mean()) > wanted)


def fit_mean_temperature(mean: AnyFloats, members: AnyFloats) -> float:
    """The temperature of `mean` [N, K], of uncalibrated networks, for which labels drawn from it find the calibrated
    `members` [M, N, K] calibrated: their mean log loss under those labels is what they expect it to be, their entropy.

    No labels are needed; see `decide.for_mean`. 1 for no photos, an end of TEMPERATURES where there is no root.
    """
    if not len(mean):
        return 1.0
    loss = -np.log(np.maximum(members, LEAST, dtype=np.float64)).mean(0)
    wanted = -float((members * np.log(np.maximum(members, LEAST, dtype=np.float64))).sum(-1).mean())
    # a sharper mean charges its members less
    return _bisect(lambda t: float((temper(mean, t) * loss).sum(1).mean()) < wanted)


def _bisect(too_low: Callable[[float], bool]) -> float:
    """The one of TEMPERATURES from which on `too_low` no longer holds, on a logarithmic scale."""
    low, high = np.log(TEMPERATURES)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(float(np.exp(middle))) else (low, middle)
    return float(np.exp((low + high) / 2))


def _paired(confidence: AnyFloats, right: NDArray[np.bool_]) -> tuple[AnyFloats, NDArray[np.bool_]]:
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise DataError(f"confidence has shape {confidence.shape}, right {right.shape}; expected two equal lists")
    return confidence, right
