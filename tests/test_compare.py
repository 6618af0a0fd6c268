"""The paired difference: a naive bootstrap says the same, equal runs differ by nothing, other photos are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from sklearn.metrics import f1_score

from threefold.errors import DataError
from threefold.evidence.compare import difference
from threefold.predictions import Predictions


def worse(one: Predictions, share: float, seed: int = 5) -> Predictions:
    """The same photos with `share` of the persons answered at random."""
    rng = np.random.default_rng(seed)
    hit = np.isin(one.persons, [p for p in np.unique(one.persons) if rng.random() < share])
    random = rng.dirichlet(np.ones(18), len(one)).astype(np.float32)
    return replace(one, probabilities=np.where(hit[:, None], random, one.probabilities))


def score(part: Predictions, rows: np.ndarray) -> float:
    said, truth = part.predicted[rows], part.label[rows]
    return float(f1_score(truth, said, labels=range(18), average="macro", zero_division=0))


def test_it_is_the_difference_with_the_spread_of_a_naive_bootstrap() -> None:
    one = simulate(200, 2)
    other = worse(one, 0.2)
    found = difference(one, other, draws=2000)["all.macro_f1"]
    rows = np.arange(len(one))
    assert found["value"] == pytest.approx(score(one, rows) - score(other, rows), abs=1e-9)
    rng = np.random.default_rng(1)
    by_person = {person: np.flatnonzero(one.persons == person) for person in np.unique(one.persons)}
    names = list(by_person)
    drawn = []
    for _ in range(300):
        picked = np.concatenate([by_person[names[i]] for i in rng.integers(0, len(names), len(names))])
        drawn.append(score(one, picked) - score(other, picked))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.02) and found["high"] == pytest.approx(high, abs=0.02)
    assert found["low"] > 0


def test_pairing_beats_two_intervals_apart() -> None:
    """The difference of nearly equal runs is known far better than either score."""
    from threefold.evidence.metrics import measure

    one = simulate(200, 2)
    found = difference(one, worse(one, 0.01), draws=1000)["all.macro_f1"]
    alone = measure(one, draws=1000)["macro_f1"]
    assert found["high"] - found["low"] < 0.5 * (alone["high"] - alone["low"])


def test_equal_runs_differ_by_nothing_and_order_does_not_matter() -> None:
    one = simulate(60, 2)
    found = difference(one, one.take(np.arange(len(one))[::-1]), draws=200)
    assert found["all.macro_f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_other_photos_persons_or_labels_are_refused() -> None:
    one = simulate(30, 2)
    with pytest.raises(DataError, match="missing"):
        difference(one, one.take(np.arange(10)))
    for field in ("persons", "truth"):
        with pytest.raises(DataError, match="same photos, persons and labels"):
            difference(one, replace(one, **{field: getattr(one, field)[::-1].copy()}))
    with pytest.raises(DataError, match="same photos"):
        difference(one.take(np.arange(10)), one)
