"""Scores against scikit-learn and against sums done by hand; partly unknown labels; what metrics.json holds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.metrics import accuracy, confusion, f1_per_class, macro_f1, measure, score
from threefold.labels import UNKNOWN

ATTRIBUTES = ("mask", "gender", "age_group")
pairs = st.integers(1, 18).flatmap(
    lambda top: st.lists(st.tuples(st.integers(-1, top - 1), st.integers(0, top - 1)), min_size=1, max_size=60)
)


@given(pairs)
def test_scores_are_scikit_learns(rows):
    truth, said = np.array(rows).T
    known = truth >= 0
    if not known.any():
        assert macro_f1(truth, said) == 0.0
        assert np.isnan(accuracy(truth, said))
        return
    t, s = truth[known], said[known]
    each = f1_score(t, s, labels=range(18), average=None, zero_division=0)
    assert f1_per_class(truth, said) == pytest.approx(each, abs=1e-12)
    assert macro_f1(truth, said) == pytest.approx(
        f1_score(t, s, labels=range(18), average="macro", zero_division=0), abs=1e-12
    )
    assert accuracy(truth, said) == pytest.approx(accuracy_score(t, s))
    assert (confusion(truth, said, 18) == confusion_matrix(t, s, labels=range(18))).all()


def test_absent_classes_count_zero():
    truth = np.array([0, 0, 1, 1])
    assert macro_f1(truth, truth) == pytest.approx(2 / 18)
    assert macro_f1(truth, truth, classes=2) == 1.0


@pytest.mark.parametrize(
    ("truth", "said", "words"),
    [
        ([0, 18], [0, 0], r"truth 18 is not one of 0\.\.17"),
        ([0, 1], [0, -1], r"prediction -1 is not one of 0\.\.17"),
        ([-2, 1], [0, 1], r"truth -2 is not one of 0\.\.17"),
        ([0, 1], [0], r"shape \(2,\), predictions \(1,\)"),
    ],
)
def test_labels_that_cannot_be_scored_are_named(truth, said, words):
    with pytest.raises(DataError, match=words):
        macro_f1(np.array(truth), np.array(said))


def test_measure_is_scikit_learns_numbers():
    oof = simulate(40, 4)
    found = measure(oof, draws=50)
    label, said = oof.label, oof.predicted
    assert (found["photos"], found["persons"], found["classes_present"]) == (280, 40, len(set(label.tolist())))
    assert found["macro_f1"]["value"] == pytest.approx(
        f1_score(label, said, labels=range(18), average="macro", zero_division=0)
    )
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(label, said))
    for column, name in enumerate(ATTRIBUTES):
        truth, marginal = oof.truth[:, column], oof.marginals()[name].argmax(1)
        classes = range(labels.SIZES[name])
        expected = f1_score(truth, marginal, labels=classes, average="macro", zero_division=0)
        assert found[name]["macro_f1"]["value"] == pytest.approx(expected)
        assert found[name]["accuracy"]["value"] == pytest.approx(accuracy_score(truth, marginal))
    assert found["age_error"]["value"] == pytest.approx(np.abs(oof.years - oof.ages).mean(), rel=1e-5)
    for row in found["per_class"]:
        rows = label == row["class"]
        assert row["photos"] == rows.sum()
        assert row["persons"] == len(set(oof.persons[rows].tolist()))
        assert row["name"] == labels.class_name(row["class"])
        expected_f1 = f1_per_class(label, said)[row["class"]] if rows.any() else None
        assert row["f1"]["value"] == (pytest.approx(expected_f1) if rows.any() else None)
    for number in (found["macro_f1"], found["accuracy"], found["gender"]["accuracy"], found["age_error"]):
        assert number["low"] <= number["value"] <= number["high"]


def test_the_attribute_is_the_largest_marginal_not_the_largest_class():
    oof = simulate(1, 1)
    row = np.zeros(18, np.float32)
    row[labels.encode(0, 0, 2)] = 0.4  # the largest class says old, the marginal says young
    row[[labels.encode(0, 0, 0), labels.encode(0, 1, 0)]] = 0.3
    oof = replace(oof, probabilities=np.tile(row, (len(oof), 1)), truth=np.tile(np.int8([0, 1, 0]), (len(oof), 1)))
    found = measure(oof, draws=2)
    assert found["accuracy"]["value"] == 0.0
    assert (found["age_group"]["accuracy"]["value"], found["mask"]["accuracy"]["value"]) == (1.0, 1.0)


def test_each_part_is_of_the_photos_that_know_it():
    oof = simulate(30, 3)
    half = np.arange(len(oof)) < 100
    truth = oof.truth.copy()
    truth[half, 0] = UNKNOWN
    mixed = replace(oof, truth=truth)
    found = measure(mixed, draws=20)
    assert found["known"] == {"all": 110, "mask": 110, "gender": 210, "age_group": 210}
    whole, rest = measure(oof, draws=20), measure(oof.take(~half), draws=20)
    assert found["gender"] == whole["gender"]
    assert found["macro_f1"]["value"] == rest["macro_f1"]["value"]
    assert found["mask"]["macro_f1"]["value"] == rest["mask"]["macro_f1"]["value"]
    assert score(mixed) == score(oof.take(~half))


def test_without_fully_known_photos_the_score_is_the_mean_of_what_is_known():
    oof = simulate(30, 3, known=(True, True, False))
    found = measure(oof, draws=20)
    nothing = {"value": None, "low": None, "high": None}
    assert found["macro_f1"] == found["accuracy"] == found["age_group"]["macro_f1"] == nothing
    assert found["age_error"] == nothing
    assert score(oof) == pytest.approx((found["mask"]["macro_f1"]["value"] + found["gender"]["macro_f1"]["value"]) / 2)
    assert np.isnan(score(simulate(5, 2, known=(False, False, False))))
    json.dumps(found, allow_nan=False)


def test_same_seed_same_numbers():
    oof = simulate(25, 5)
    assert measure(oof, draws=100, seed=3) == measure(oof, draws=100, seed=3)
    assert measure(oof, draws=100, seed=3)["macro_f1"] != measure(oof, draws=100, seed=4)["macro_f1"]


def test_nothing_predicted_is_nulls_not_a_crash():
    empty = simulate(2, 1).take(np.zeros(0, dtype=np.int64))
    found = measure(empty, draws=10)
    assert (found["photos"], found["persons"], found["macro_f1"]["value"]) == (0, 0, None)
    json.dumps(found, allow_nan=False)
