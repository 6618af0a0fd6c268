"""The decision rule against naive loops; what it fits is found again, and scored on people it was not fitted on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_run import simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from test_calibrate import ece, nll

from threefold import labels
from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence import decide
from threefold.evidence.calibrate import reliability, temper
from threefold.evidence.decide import BLOCKS, Decision, as_certain, cross_fit, fit
from threefold.evidence.metrics import sides
from threefold.evidence.review import review
from threefold.predictions import Predictions, product

DECISION = Decision(
    {"mask": 0.7, "gender": 2.0, "age_group": 1.4},
    tuple(np.linspace(-1, 1, 18).tolist()),
    (31.5, 57.25),
    {"mask": 0.5, "gender": 0.0, "age_group": 0.7},
)


def macro(truth: np.ndarray, code: np.ndarray) -> float:
    return float(f1_score(truth, code, labels=range(18), average="macro", zero_division=0))


def biased(people: int = 300, folds: int = 3, seed: int = 0) -> Predictions:
    """Ages with room between the groups, everybody seeming six years younger than they are."""
    one, rng = simulate(people, folds, seed), np.random.default_rng(seed)
    ages = np.repeat(rng.choice([*range(20, 29), *range(35, 53), *range(64, 70)], people), 7)
    guess = ages - 6 + np.repeat(rng.normal(0, 3, people), 7)
    age = np.exp(np.stack([30 - guess, 12 - abs(guess - 45), guess - 60], axis=1) / 4)
    truth = one.truth.copy()
    truth[:, 2] = [labels.age_group(year) for year in ages]
    joint = product({**one.marginals(), "age_group": age / age.sum(1, keepdims=True)})
    return replace(one, probabilities=joint, truth=truth, ages=ages.astype(np.float32), years=guess.astype(np.float32))


@pytest.fixture(scope="module")
def shifted() -> Predictions:
    return biased()


def test_made_without_arguments_it_changes_nothing(shifted: Predictions) -> None:
    decided = Decision().apply(shifted.probabilities, shifted.years)
    assert decided.probabilities is shifted.probabilities and (decided.code == shifted.predicted).all()
    assert np.allclose(decided.confidence, shifted.probabilities.max(1)) and not decided.indeterminate.any()
    assert Decision().words() == []


def test_temperatures_temper_each_marginal_of_independent_attributes() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.dirichlet(np.ones(size) * 0.3, 50) for name, size in labels.SIZES.items()}
    parts["mask"][0] = [1, 0, 0]
    found = labels.marginals(DECISION.calibrate(product(parts)))
    for name, part in parts.items():
        np.testing.assert_allclose(found[name], temper(part, DECISION.temperature[name]), atol=2e-5)


def test_calibrated_marginals_are_the_tempered_ones_of_a_mean_of_networks_too() -> None:
    """A mean of joints has attributes that hang together: calibrating the age must not turn a gender."""
    rng = np.random.default_rng(0)
    nets = [product({name: rng.dirichlet(np.ones(size), 300) for name, size in labels.SIZES.items()}) for _ in range(3)]
    mean = np.mean(nets, axis=0)
    decision = Decision({"mask": 0.7, "gender": 1.6, "age_group": 3.0})
    before, after = labels.marginals(mean), labels.marginals(decision.calibrate(mean))
    for name, part in after.items():
        assert np.allclose(part, temper(before[name], decision.temperature[name]), atol=1e-4)
        assert (part.argmax(1) == before[name].argmax(1)).all()


def test_what_is_said_is_the_naive_rule(shifted: Predictions) -> None:
    part = shifted.take(np.arange(0, 700, 7))
    years = part.years.copy()
    years[::4] = np.nan
    decided = DECISION.apply(part.probabilities, years)
    for row, (joint, age) in enumerate(zip(part.probabilities.astype(float), years, strict=True)):
        scores = {code: np.log(joint[code]) + DECISION.offsets[code] for code in range(18)}
        if not np.isnan(age):
            group = 0 if age < 31.5 else 1 if age < 57.25 else 2
            scores = {code: score for code, score in scores.items() if code % 3 == group}
        code = max(scores, key=scores.__getitem__)
        assert decided.code[row] == code
        assert decided.confidence[row] == pytest.approx(decided.probabilities[row, code])
        cube = decided.probabilities[row].reshape(3, 2, 3)
        mask, gender, group = labels.decode(code)
        sure = [cube[mask].sum(), cube[:, gender].sum(), cube[:, :, group].sum()]
        assert decided.confidences[row] == pytest.approx(sure)
        assert decided.indeterminate[row].tolist() == [sure[0] < 0.5, False, sure[2] < 0.7]


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_score_along_a_grid_is_the_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, low, high = rng.integers(0, 18, (3, 60))
    at, grid = rng.integers(-5, 6, 60) / 2.0, np.arange(-4, 5) / 2.0
    at[0] = np.inf
    found = decide._f1_along(truth, low, high, at, grid)
    assert found == pytest.approx([macro(truth, np.where(at <= x, high, low)) for x in grid])


def test_the_middle_of_the_best_stretch_is_taken() -> None:
    """Two thirds of class 1 come to light at 0; at 2 as much of class 0 is lost: anything between is as good."""
    truth = np.array([0] * 30 + [1] * 30)
    low = np.zeros(60, dtype=int)
    at = np.array([2.0] * 20 + [9.0] * 10 + [0.0] * 20 + [9.0] * 10)
    found = decide._step(truth, low, np.ones(60, dtype=int), at, decide.GRID)
    assert found == pytest.approx(1.0, abs=0.1)
    assert decide._step(truth, low, low, at, decide.GRID, 0.002) == pytest.approx(0, abs=0.03), "without gain stay at 0"


@pytest.mark.parametrize("rule", ["age", "offsets", "years"])
def test_a_bias_is_found_and_undone_on_other_people(shifted: Predictions, rule: str) -> None:
    decision = fit(shifted, rule=rule)
    new = biased(seed=1)
    plain, ruled = macro(new.label, new.predicted), macro(new.label, decision.answer(new.probabilities, new.years))
    assert ruled > plain + 0.02
    if rule == "years":
        assert decision.years_cuts == pytest.approx((25.5, 52), abs=2.5)
    else:
        offsets = np.array(decision.offsets).reshape(3, 2, 3)
        moved = offsets[0, 0, 2] - offsets[0, 0, 1]
        # years 52 are the border that is right, log odds -13/4 there the network's
        assert moved == pytest.approx(3.25, abs=0.8)
        share = 1 / (1 + np.exp(moved / decision.temperature["age_group"]))
        assert f">=60 rather than 30-59 from a share of {share:.2f} on" in decision.words()
        assert (len({name for name, _ in BLOCKS[rule]}) == 1) == (np.ptp(offsets[:, :, 1]) == 0)


def test_a_cross_fit_is_of_people_it_was_not_fitted_on(shifted: Predictions) -> None:
    decided, decision = cross_fit(shifted, rule="age", coverage=0.9)
    assert decision == fit(shifted, rule="age", coverage=0.9)
    for fold in range(3):
        held = shifted.fold == fold
        part = fit(shifted.take(~held), rule="age", coverage=0.9).apply(shifted.probabilities[held])
        assert (decided.code[held] == part.code).all() and (decided.indeterminate[held] == part.indeterminate).all()
        np.testing.assert_array_equal(decided.probabilities[held], part.probabilities)
    noise = replace(shifted, probabilities=np.random.default_rng(0).dirichlet(np.ones(18), len(shifted)).astype("f4"))
    plain = macro(noise.label, noise.predicted)
    fitted = macro(noise.label, fit(noise, rule="offsets").answer(noise.probabilities))
    honest = macro(noise.label, cross_fit(noise, rule="offsets")[0].code)
    assert fitted > plain and honest < fitted


def test_auto_takes_the_rule_that_cross_fits_best(shifted: Predictions) -> None:
    scores = {rule: macro(shifted.label, cross_fit(shifted, rule=rule)[0].code) for rule in BLOCKS}
    assert (
        fit(shifted) == fit(shifted, rule=max(scores, key=scores.__getitem__)) and max(scores.values()) > scores["none"]
    )
    sure = np.full((len(shifted), 18), 0.01, np.float32)
    sure[np.arange(len(sure)), shifted.label] = 0.83
    right = replace(shifted, probabilities=sure, years=np.full(len(sure), np.nan, np.float32))
    assert fit(right) == fit(right, rule="none"), "nothing is better than all right; of equals the plainest"


def test_parts_are_the_folds_or_lots_of_whole_persons(shifted: Predictions) -> None:
    assert (sides(shifted) == shifted.fold).all()
    single = replace(shifted, fold=np.zeros_like(shifted.fold))
    lots = sides(single, 4, seed=3)
    assert sorted(set(lots.tolist())) == [0, 1, 2, 3] and (lots != sides(single, 4, seed=4)).any()
    assert all(len(set(lots[single.persons == person].tolist())) == 1 for person in np.unique(single.persons)[:50])
    with pytest.raises(DataError, match="there is 1 here; expected 2 or more"):
        sides(single.take(np.arange(7)))


def test_an_attribute_can_be_left_without_temperature(shifted: Predictions) -> None:
    every, some = fit(shifted, rule="none"), fit(shifted, rule="none", tempered=("mask", "age_group"))
    assert some.temperature == {**every.temperature, "gender": 1.0} and every.temperature["gender"] != 1
    decided, decision = cross_fit(shifted, rule="none", tempered=())
    assert decision == Decision() and np.array_equal(decided.probabilities, shifted.probabilities)


def test_silence_keeps_to_its_target(shifted: Predictions) -> None:
    decision = fit(shifted, rule="none", coverage=0.8)
    silent = decision.apply(shifted.probabilities).indeterminate
    assert (1 - silent.mean(0)) == pytest.approx([0.8] * 3, abs=0.002) and len(decision.words()) == 3
    decision = fit(shifted, rule="none", risk=0.05)
    decided = decision.apply(shifted.probabilities)
    right = labels.decode_all(decided.code) == shifted.truth
    for column in range(3):
        spoken = ~decided.indeterminate[:, column]
        assert (~right[spoken, column]).mean() <= 0.05
    assert decided.indeterminate[:, 2].any()
    hopeless = replace(shifted, truth=((shifted.truth + 1) % [3, 2, 3]).astype(np.int8))
    assert fit(hopeless, rule="none", risk=0.0).abstain["gender"] > 0.99


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "old58"}, RecipeError, "rule: 'old58' is not known .*none, offsets"),
        ({"coverage": 0.0}, RecipeError, "coverage 0.0, risk None: expected"),
        ({"risk": 1.0}, RecipeError, "coverage None, risk 1.0: expected"),
        ({"coverage": 0.9, "risk": 0.1}, RecipeError, "expected one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    shifted: Predictions, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(shifted, **options)


def test_labels_may_be_partly_unknown() -> None:
    one = simulate(60, 2, known=(True, False, True))
    decided, decision = cross_fit(one, risk=0.1)
    assert set(decision.offsets) == {0.0} and decision.years_cuts is None and (decided.code == one.predicted).all()
    assert decision.temperature["gender"] == 1 != decision.temperature["mask"] and decision.abstain["gender"] == 0
    found = review(one, decided, draws=50)
    assert set(found) == {"macro_f1", "mask", "age_group"} and found["macro_f1"]["plain"]["value"] is None
    with pytest.raises(DataError, match="rule age: no photo knows mask, gender and age group"):
        fit(one, rule="age")
    with pytest.raises(DataError, match="rule years: the model says no age"):
        fit(replace(simulate(20, 2), years=np.full(140, np.nan, np.float32)), rule="years")


def test_it_comes_back_from_json() -> None:
    assert Decision.from_dict(json.loads(json.dumps(DECISION.to_dict()))) == DECISION
    assert Decision.from_dict(json.loads(json.dumps(Decision().to_dict()))) == Decision()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": {"mask": 1, "gender": 0, "age_group": 1}}, "a temperature is not above 0"),
        ({"temperature": {"mask": 1}}, "temperature is of mask; expected mask, gender, age_group"),
        ({"temperature": None}, "NoneType"),
        ({"abstain": {"mask": 0, "gender": 0, "age_group": 1.5}}, "least confidence"),
        ({"offsets": [0.0] * 17}, "17 offsets"),
        ({"offsets": ["x"] * 18}, "could not convert"),
        ({"offsets": [float("inf")] * 18}, "not finite"),
        ({"years_cuts": [60, 30]}, "expected two rising years"),
        ({"years_cuts": [60]}, "index"),
        ({"offset": 1}, "'offset' is not known"),
    ],
)
def test_a_broken_file_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=rf"run/decision\.json: is not what `threefold decide` writes .*{message}"):
        Decision.from_dict({**DECISION.to_dict(), **change}, "run/decision.json")
    for value in (None, [], {}):
        with pytest.raises(RunError, match=r"run/decision\.json"):
            Decision.from_dict(value, "run/decision.json")


def test_the_review_measures_what_was_said(shifted: Predictions) -> None:
    decided, _ = cross_fit(shifted, rule="age", risk=0.02)
    found = review(shifted, decided, draws=200)
    plain, ruled = macro(shifted.label, shifted.predicted), macro(shifted.label, decided.code)
    assert found["macro_f1"]["plain"]["value"] == pytest.approx(plain)
    assert found["macro_f1"]["difference"]["value"] == pytest.approx(ruled - plain)
    assert found["macro_f1"]["verdict"] == "better" and found["macro_f1"]["difference"]["low"] > 0
    assert macro(shifted.label, as_certain(shifted, decided.code).predicted) == pytest.approx(ruled)
    age, truth = found["age_group"], shifted.truth[:, 2].astype(int)
    before, after = (labels.marginals(joint)["age_group"] for joint in (shifted.probabilities, decided.probabilities))
    wrong = decided.code % 3 != truth
    assert age["nll.plain"]["value"] == pytest.approx(nll(before, truth))
    assert age["nll.difference"]["value"] == pytest.approx(nll(after, truth) - nll(before, truth), abs=1e-6)
    bins = reliability(decided.confidences[:, 2], ~wrong)
    assert age["ece.decided"]["value"] == pytest.approx(ece(bins)) and [b["photos"] for b in age["bins"]] == [
        b.photos for b in bins
    ]
    surest = np.argsort(-decided.confidences[:, 2])[: int(np.ceil(0.9 * len(shifted)))]
    assert age["risk.0.9"]["value"] == pytest.approx(wrong[surest].mean(), abs=1e-3)
    assert age["risk.1"]["value"] == pytest.approx(wrong.mean()) == pytest.approx(age["curve"][-1][1], abs=1e-5)
    spoken = ~decided.indeterminate[:, 2]
    assert age["said.share"]["value"] == pytest.approx(spoken.mean()) and 0 < spoken.mean() < 1
    assert age["said.risk"]["value"] == pytest.approx(wrong[spoken].mean())
    every = ~decided.indeterminate.any(1)
    assert found["class"]["said.risk"]["value"] == pytest.approx((decided.code != shifted.label)[every].mean())
    for name, number in age.items():
        if isinstance(number, dict) and "ece" not in name:
            assert number["low"] <= number["value"] <= number["high"], name
    assert len(age["curve"]) == 101 and json.dumps(found, allow_nan=False)
