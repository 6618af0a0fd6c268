"""Confidence against accuracy: naive loops, scipy's optimiser and scikit-learn say the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve

from threefold.errors import DataError
from threefold.evidence.calibrate import Bin, aurc, fit_temperature, reliability, risk_coverage, temper

ANSWERS = st.lists(st.tuples(st.integers(0, 20).map(lambda x: x / 20), st.booleans()), min_size=1, max_size=40)


def drawn(n: int = 4000, k: int = 3, sharp: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels drawn from them; `sharp` overstates the probabilities by that temperature."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.ones(k), n)
    truth = (rng.random(n)[:, None] > honest.cumsum(1)).sum(1)
    return temper(honest, 1 / sharp), truth


def ece(bins: list[Bin]) -> float:
    """Expected calibration error: the gaps of the bins, weighed by their photos."""
    return float(np.average([abs(b.accuracy - b.confidence) for b in bins], weights=[b.photos for b in bins]))


def nll(joint: np.ndarray, truth: np.ndarray) -> float:
    """Mean negative log likelihood of the truth."""
    return float(np.mean([-np.log(row[code]) for row, code in zip(joint, truth, strict=True)]))


def test_bins_are_those_of_scikit_learn() -> None:
    joint, truth = drawn()
    confidence, right = joint.max(1), joint.argmax(1) == truth
    bins = reliability(confidence, right, 8)
    accuracy, mean = calibration_curve(right, confidence, n_bins=8, strategy="quantile")
    assert [b.accuracy for b in bins] == pytest.approx(accuracy, abs=0.005)  # its quantiles are interpolated
    assert [b.confidence for b in bins] == pytest.approx(mean, abs=0.005)
    assert {b.photos for b in bins} <= {499, 500, 501} and sum(b.photos for b in bins) == 4000
    assert ece(bins) < 0.03


@given(ANSWERS, st.integers(1, 12))
def test_ties_share_a_bin_and_nothing_is_lost(answers: list[tuple[float, bool]], count: int) -> None:
    confidence, right = (np.array(x) for x in zip(*answers, strict=True))
    bins = reliability(confidence, right, count)
    assert 1 <= len(bins) <= count and sum(b.photos for b in bins) == len(answers)
    assert all(one.high < other.low for one, other in pairwise(bins))
    for b in bins:
        inside = (confidence >= b.low) & (confidence <= b.high)
        assert b.photos == inside.sum() and b.accuracy == pytest.approx(right[inside].mean())
    shuffled = np.random.default_rng(0).permutation(len(answers))
    assert reliability(confidence[shuffled], right[shuffled], count) == [
        Bin(b.low, b.high, b.photos, pytest.approx(b.confidence), b.accuracy) for b in bins
    ]


@given(ANSWERS)
def test_risk_coverage_is_the_naive_loop(answers: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(x) for x in zip(*answers, strict=True))
    coverage, risk = risk_coverage(confidence, right)
    for row, threshold in enumerate(sorted(confidence, reverse=True)):
        answered = confidence >= threshold
        assert coverage[row] == pytest.approx(answered.mean())
        assert risk[row] == pytest.approx((~right[answered]).mean())
    assert coverage[-1] == 1 and risk[-1] == pytest.approx((~right).mean())


def test_a_better_ranking_has_the_smaller_area() -> None:
    joint, truth = drawn()
    right = joint.argmax(1) == truth
    by_confidence, at_random, oracle = (
        aurc(risk_coverage(score, right)[1])
        for score in (joint.max(1), np.random.default_rng(1).random(len(truth)), right.astype(float))
    )
    assert oracle < by_confidence < 0.8 * at_random
    assert at_random == pytest.approx((~right).mean(), abs=0.02)
    assert len(risk_coverage(np.array([]), np.array([], dtype=bool))[1]) == 0 and np.isnan(aurc(np.array([])))


@pytest.mark.parametrize("sharp", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_again_and_is_scipys(sharp: float) -> None:
    joint, truth = drawn(sharp=sharp)
    found = fit_temperature(joint, truth)
    assert found == pytest.approx(sharp, rel=0.06)
    best = minimize_scalar(lambda t: nll(temper(joint, np.exp(t)), truth), bounds=(-3, 3), method="bounded",
                           options={"xatol": 1e-8})  # fmt: skip
    assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    assert nll(temper(joint, found), truth) <= nll(joint, truth)


def test_unknown_truth_is_left_out() -> None:
    joint, truth = drawn(200)
    half = np.where(np.arange(200) % 2, truth, -1)
    assert fit_temperature(joint, half) == pytest.approx(fit_temperature(joint[1::2], truth[1::2]))
    assert fit_temperature(joint, np.full(200, -1)) == 1


def test_certain_answers_stay_finite() -> None:
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert fit_temperature(sure, np.array([0, 1, 2, 0])) == pytest.approx(0.05)
    assert fit_temperature(sure, np.array([1, 2, 0, 1])) == pytest.approx(20)
    tempered = temper(sure, 2.0)
    assert (
        np.isfinite(tempered).all() and np.allclose(tempered.sum(1), 1) and (tempered.argmax(1) == [0, 1, 2, 0]).all()
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\), right \(3,\)"):
        risk_coverage(np.array([0.1, 0.2]), np.array([True, False, True]))
    with pytest.raises(DataError, match="bins: 0; expected 1 or more"):
        reliability(np.array([0.1]), np.array([True]), 0)
