"""The vectorised bootstrap against a loop that really resamples the photos, and against known intervals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from fake_run import simulate
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, f1_score

from threefold.evidence import bootstrap
from threefold.evidence.bootstrap import Estimate, estimate, person_draws, person_sums, places, resample
from threefold.evidence.metrics import COLUMNS, columns_of, measure, person_counts


def mean(sums):
    """[..., (sum, count)] -> [..., 1], NaN where there is nothing."""
    with np.errstate(invalid="ignore"):
        return sums[..., :1] / sums[..., 1:]


def test_every_draw_is_what_resampling_the_photos_gives():
    """The same draws, done the slow way: photos repeated per drawn person, scored by scikit-learn."""
    oof = simulate(14, 2, seed=5)
    table = resample(oof.persons, person_counts(oof), columns_of, 60, seed=9)
    names = np.unique(oof.persons)
    weights = np.concatenate(list(person_draws(oof.persons, 60, 9)))
    label, said, gender = oof.label, oof.predicted, oof.marginals()["gender"].argmax(1)
    for weight, found in zip(weights, table, strict=True):
        ours = dict(zip(COLUMNS, found, strict=True))
        rows = np.concatenate(
            [np.tile(np.flatnonzero(oof.persons == n), int(w)) for n, w in zip(names, weight, strict=True)]
        )
        assert ours["all.accuracy"] == pytest.approx(accuracy_score(label[rows], said[rows]), abs=1e-12)
        macro = f1_score(label[rows], said[rows], labels=range(18), average="macro", zero_division=0)
        assert ours["all.macro_f1"] == pytest.approx(macro, abs=1e-12)
        truth = oof.truth[rows, 1]
        macro = f1_score(truth, gender[rows], labels=range(2), average="macro", zero_division=0)
        assert ours["gender.macro_f1"] == pytest.approx(macro, abs=1e-12)
        assert ours["age_error"] == pytest.approx(np.abs(oof.years - oof.ages)[rows].mean(dtype=np.float64), rel=1e-5)


def test_draws_are_of_persons_and_the_same_for_every_model():
    persons = np.repeat(np.array(["b", "a", "c"]), [3, 1, 7])
    once = np.concatenate(list(person_draws(persons, 500, 1)))
    again = np.concatenate(list(person_draws(persons[::-1], 500, 1)))
    assert once.shape == (500, 3)
    assert (once.sum(axis=1) == 3).all()
    assert (once == again).all()
    assert once.mean(axis=0) == pytest.approx(np.ones(3), abs=0.1)
    assert once.var(axis=0) == pytest.approx(np.full(3, 2 / 3), abs=0.15)  # multinomial: P * 1/P * (1 - 1/P)


def test_pieces_do_not_change_the_draws(monkeypatch):
    persons = np.arange(11).astype(str)
    whole = np.concatenate(list(person_draws(persons, 37, 2)))
    monkeypatch.setattr(bootstrap, "CHUNK", 50)
    pieces = list(person_draws(persons, 37, 2))
    assert len(pieces) == 10
    assert (np.concatenate(pieces) == whole).all()


def test_person_sums_by_hand():
    sums = person_sums(np.array(["b", "a", "b"]), np.array([[1, 10], [2, 20], [4, 40]]))
    assert sums.tolist() == [[2, 20], [5, 50]]


def test_interval_is_scipys_bca():
    """One photo per person and a skewed mean: SciPy's own BCa on its own draws agrees within the noise of drawing."""
    values = np.random.default_rng(0).lognormal(sigma=1, size=60)
    persons = np.arange(60).astype(str)
    found = estimate(persons, person_sums(persons, np.stack([values, np.ones(60)], axis=1)), mean, 20_000)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.value[0] == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert found.low[0] == pytest.approx(theirs.low, abs=0.03 * width)
    assert found.high[0] == pytest.approx(theirs.high, abs=0.03 * width)


def test_copies_of_a_persons_photos_do_not_narrow_the_interval():
    """Resampling photos would make it sqrt(7) narrower; persons are what was sampled."""
    rng = np.random.default_rng(3)
    right = rng.random(200) < 0.8
    one = np.stack([right, np.ones(200)], axis=1)
    names = np.arange(200).astype(str)
    single = estimate(names, person_sums(names, one), mean, 1000)
    seven = estimate(names.repeat(7), person_sums(names.repeat(7), one.repeat(7, axis=0)), mean, 1000)
    assert seven.low == pytest.approx(single.low)
    assert seven.high == pytest.approx(single.high)
    assert single.high[0] - single.low[0] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 200), rel=0.15)


def test_what_cannot_vary_has_no_width():
    names = np.arange(5).astype(str)
    found = estimate(names, np.ones((5, 2)), mean, 100)
    assert (found.low[0], found.value[0], found.high[0]) == (1.0, 1.0, 1.0)
    alone = estimate(np.array(["x"]), np.array([[1.0, 2.0]]), mean, 100)
    assert (alone.low[0], alone.high[0]) == (0.5, 0.5)


def test_numbers_that_mean_nothing_have_no_interval():
    names = np.arange(4).astype(str)
    found = estimate(names, np.zeros((4, 2)), mean, 50)
    assert isinstance(found, Estimate)
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()
    assert resample(np.array([], dtype=str), np.zeros((0, 2)), mean, 50).shape == (0, 1)


def test_most_intervals_hold_the_truth():
    """Coverage over simulated people: 95 % nominal; benchmarks/bootstrap.py does it with many more repetitions."""
    rng = np.random.default_rng(7)
    names = np.arange(80).astype(str)
    held = 0
    for _ in range(300):
        skill = rng.beta(4, 2, 80)  # people differ; mean 2/3
        sums = np.stack([rng.binomial(7, skill), np.full(80, 7)], axis=1).astype(np.float64)
        found = estimate(names, sums, mean, 400)
        held += bool(found.low[0] <= 2 / 3 <= found.high[0])
    assert 0.92 <= held / 300 <= 0.98


@pytest.mark.slow
def test_ten_thousand_draws_of_the_contest_take_seconds():
    oof = simulate(2700, 5)
    begin = time.perf_counter()
    found = measure(oof, draws=10_000)
    assert found["photos"] == 18_900
    assert time.perf_counter() - begin < 3 * 4  # 0.5 s alone on one core; room for a busy machine


@pytest.mark.parametrize(
    ("ends", "least", "digits"),
    [
        ((0.012, 0.0004, 0.02), 3, 4),
        ((0.012, -0.00004, 0.02), 3, 5),
        ((0.012, 0.0006, 0.02), 3, 3),
        ((0.0, 0.0, 0.0), 3, 3),
        ((0.5, None, None), 3, 3),
        ((0.012, 0.0004, 0.02), 4, 4),
        ((1e-9, -0.1, 0.1), 3, 6),
    ],
)
def test_an_end_that_is_not_0_never_reads_as_0(ends, least, digits) -> None:
    assert places(dict(zip(("value", "low", "high"), ends, strict=True)), least) == digits
