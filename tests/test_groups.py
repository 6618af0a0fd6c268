"""What is said about people, against scikit-learn and plain loops."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from sklearn.metrics import accuracy_score, f1_score

from threefold import labels
from threefold.evidence.compare import compare_predictions
from threefold.evidence.decide import as_certain
from threefold.evidence.groups import FEW, GROUPS, LEAST, by_group, disagreement, fold_chance, majority, years_around
from threefold.evidence.metrics import macro_f1
from threefold.predictions import Predictions


@pytest.fixture(scope="module")
def oof():
    return simulate(150, 5)


def answers(truth: np.ndarray, told: np.ndarray, persons: np.ndarray, fold: np.ndarray | None = None) -> Predictions:
    """Predictions of a classifier that says `told` [N, 3] and is certain."""
    count = len(truth)
    return Predictions(
        np.array([f"{n}.jpg" for n in range(count)]),
        persons,
        np.eye(labels.CLASSES, dtype=np.float32)[labels.encode_all(told)],
        truth.astype(np.int8),
        np.full(count, np.nan, np.float32),
        np.full(count, np.nan, np.float32),
        np.zeros(count, np.int16) if fold is None else fold,
    )


def crowd(people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """([N, 3] truth, [N] persons): seven photos each, the six groups in turn."""
    rows = np.repeat(np.arange(people), 7)
    truth = np.stack([np.tile([0, 0, 0, 0, 0, 1, 2], people), rows % 2, rows // 2 % 3], axis=1)
    return truth, np.array([f"p{row:04d}" for row in rows])


def test_numbers_within_a_group_are_those_of_its_photos(oof):
    found = by_group(oof, draws=50)["rows"]
    parts = {name: part.argmax(1) for name, part in oof.marginals().items()}
    each = f1_score(oof.label, oof.predicted, labels=range(18), average=None, zero_division=0)
    for row, (gender, group) in zip(found, GROUPS, strict=True):
        rows = (oof.truth[:, 1] == gender) & (oof.truth[:, 2] == group)
        assert (row["gender"], row["group"]) == (gender, group)
        assert row["photos"] == rows.sum() and row["people"] == len(set(oof.persons[rows].tolist()))
        truth, numbers = oof.truth[rows], {name: n["value"] for name, n in row["numbers"].items()}
        expected = {
            "f1": np.mean([each[mask * 6 + gender * 3 + group] for mask in range(3)]),
            "mask": f1_score(truth[:, 0], parts["mask"][rows], average="macro"),
            "gender": accuracy_score(truth[:, 1], parts["gender"][rows]),
            "age_group": accuracy_score(truth[:, 2], parts["age_group"][rows]),
            "all": accuracy_score(oof.label[rows], oof.predicted[rows]),
        }
        assert numbers == pytest.approx(expected)
        assert all(n["low"] <= n["value"] + 1e-9 and n["value"] <= n["high"] + 1e-9 for n in row["numbers"].values())
    mean = np.mean([row["numbers"]["f1"]["value"] for row in found])
    assert mean == pytest.approx(macro_f1(oof.label, oof.predicted))


def test_an_interval_of_a_group_is_of_its_people():
    """As wide as the binomial one of 25 people whose photos are right or wrong together, not of 175 photos."""
    truth, persons = crowd(150)
    told = truth.copy()
    wrong = (np.arange(len(truth)) // 7) % 5 == 0
    told[wrong, 1] = 1 - told[wrong, 1]
    for row in by_group(answers(truth, told, persons), draws=2000)["rows"]:
        number = row["numbers"]["gender"]
        assert number["value"] == pytest.approx(0.8)
        assert number["high"] - number["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 25), rel=0.25)


def test_a_group_that_is_treated_worse_is_told_and_equal_ones_are_not():
    truth, persons = crowd(240)
    rng = np.random.default_rng(0)
    told = truth.copy()
    wrong = np.repeat(rng.random(240) < 0.15, 7)
    told[wrong, 1] = 1 - told[wrong, 1]
    equal = by_group(answers(truth, told, persons), draws=500)["gaps"]
    assert set(equal) == {"mask", "gender", "age_group", "all"}
    assert not any(gap["unfair"] for gap in equal.values())
    old_women = np.flatnonzero((truth[:, 1] == 1) & (truth[:, 2] == 2) & (rng.random(240) < 0.6).repeat(7))
    told[old_women, 1] = 0
    gap = by_group(answers(truth, told, persons), draws=500)["gaps"]["gender"]
    assert gap["unfair"] and GROUPS[gap["worse"]] == (1, 2) and gap["difference"]["low"] > 0


def test_groups_of_a_few_people_are_shown_but_not_judged():
    truth, persons = crowd(6 * LEAST)
    few = (truth[:, 1] == 0) & (truth[:, 2] == 0)
    keep = ~few | np.isin(persons, np.unique(persons[few])[: LEAST - 1])
    told = truth.copy()
    told[few, 1] = 1  # all of them wrong
    found = by_group(answers(truth[keep], told[keep], persons[keep]), draws=200)
    assert found["rows"][0]["people"] == LEAST - 1 and found["rows"][0]["numbers"]["gender"]["value"] == 0
    assert 0 not in {gap[side] for gap in found["gaps"].values() for side in ("better", "worse")}
    assert not found["gaps"]["gender"]["unfair"]


def test_unknown_labels_are_left_out():
    blind = by_group(simulate(60, 3, known=(False, True, True)), draws=50)
    assert {row["numbers"]["mask"]["value"] for row in blind["rows"]} == {None}
    assert set(blind["gaps"]) <= {"gender", "age_group"} and any(row["photos"] for row in blind["rows"])
    ageless = by_group(simulate(60, 3, known=(True, True, False)), draws=50)
    assert not any(row["photos"] for row in ageless["rows"]) and not ageless["gaps"]


def test_majority_is_what_most_photos_of_a_person_say(oof):
    parts, probability = labels.decode_all(oof.predicted), oof.marginals()
    for row, code in enumerate(majority(oof)):
        own = np.flatnonzero(oof.persons == oof.persons[row])
        assert labels.decode(int(code))[0] == parts[row, 0]  # the mask is the photo's own
        for column, name in ((1, "gender"), (2, "age_group")):
            votes = Counter(parts[own, column].tolist())
            most = [value for value, count in votes.items() if count == max(votes.values())]
            best = max(most, key=lambda value, own=own, name=name: probability[name][own, value].mean())
            assert labels.decode(int(code))[column] == best


def test_a_tied_vote_goes_to_the_more_probable_and_never_a_minority():
    truth = np.zeros((7, 3), dtype=int)
    tied = answers(truth, truth, np.array(["a", "a", "b", "b", "b", "b", "b"]))
    joint = np.full((7, 18), 1e-4, dtype=np.float32)
    sure = [(0, 0.6), (3, 0.9), (0, 0.51), (0, 0.51), (0, 0.51), (3, 0.99), (3, 0.99)]
    for row, (code, part) in enumerate(sure):
        joint[row, code], joint[row, 3 - code] = part, 1 - part - 16e-4
    assert majority(replace(tied, probabilities=joint)).tolist() == [3, 3, 0, 0, 0, 0, 0]


def test_disagreement_counts_people_and_compares_what_is_said(oof):
    found, vote = disagreement(oof, draws=300)
    parts, kinds = labels.decode_all(oof.predicted), defaultdict(lambda: (set(), set()))
    for person, (_, gender, group) in zip(oof.persons.tolist(), parts.tolist(), strict=True):
        kinds[person][0].add(gender)
        kinds[person][1].add(group)
    genders, ages = ({p for p, kind in kinds.items() if len(kind[which]) > 1} for which in (0, 1))
    counts = {"gender": len(genders), "age_group": len(ages), "either": len(genders | ages)}
    assert {name: found[name]["count"] for name in counts} == counts and found["people"] == 150
    for name, count in counts.items():
        assert found[name]["value"] == pytest.approx(count / 150)
        half = 1.96 * np.sqrt(count / 150 * (1 - count / 150) / 150)
        assert found[name]["high"] - found[name]["low"] == pytest.approx(2 * half, rel=0.25)
    change = macro_f1(oof.label, majority(oof)) - macro_f1(oof.label, oof.predicted)
    assert vote.headline["value"] == pytest.approx(change)
    again = compare_predictions(as_certain(oof, majority(oof)), as_certain(oof, oof.predicted), draws=300)
    assert vote.headline == again.headline


def test_people_with_one_photo_cannot_disagree(oof):
    single = oof.take(np.unique(oof.persons, return_index=True)[1])
    found, vote = disagreement(single, draws=50)
    assert found["people"] == 0 and found["either"] == {"value": None, "low": None, "high": None, "count": 0}
    assert vote.headline["value"] == 0


def test_years_around_a_border_are_counted_year_by_year(oof):
    found = years_around(oof, range(55, 65), draws=100)
    assert [row["year"] for row in found] == [55, 58, 60]
    group = oof.marginals()["age_group"].argmax(1)
    for row in found:
        rows = oof.ages == row["year"]
        assert row["photos"] == rows.sum() and row["people"] == len(set(oof.persons[rows].tolist()))
        assert row["said"] == pytest.approx([np.mean(group[rows] == code) for code in range(3)])
        assert row["wrong"]["value"] == pytest.approx(np.mean(group[rows] != oof.truth[rows, 2]))
        assert row["bias"]["value"] == pytest.approx(float(np.mean(oof.years[rows] - oof.ages[rows])), abs=1e-4)
    assert years_around(oof, range(5, 9)) == []
    one = oof.take((oof.ages != 60) | (oof.persons == oof.persons[oof.ages == 60][0]))
    assert [row["people"] for row in years_around(one, range(60, 61), draws=50)] == [1]
    for people in (1, FEW - 1, FEW):
        some = one.take(np.isin(one.persons, np.unique(one.persons[one.ages == 55])[:people]))
        (row,) = years_around(some, range(55, 56), draws=50)
        assert row["people"] == people and (row["bias"]["low"] is None) == (people < FEW)
        assert row["bias"]["value"] is not None and (row["wrong"]["high"] is None) == (people < FEW)
    yearless = years_around(replace(oof, years=np.full_like(oof.years, np.nan)), range(55, 65), draws=50)
    assert {row["bias"]["value"] for row in yearless} == {None} and len(yearless) == 3


def test_the_spread_of_folds_is_beside_that_of_chance():
    oof = simulate(300, 5, seed=1)
    found = fold_chance(oof, draws=200)
    scores = [macro_f1(oof.label[oof.fold == k], oof.predicted[oof.fold == k]) for k in range(5)]
    assert found["seen"] == pytest.approx(np.std(scores, ddof=1))
    assert found["low"] < found["chance"] < found["high"] and found["share"] > 0.02
    rng = np.random.default_rng(0)
    lots = []
    for _ in range(200):  # whole people, whatever their group: close, since the groups are large
        lot = dict(zip(np.unique(oof.persons).tolist(), rng.permutation(np.arange(300) % 5).tolist(), strict=True))
        fold = np.array([lot[person] for person in oof.persons.tolist()])
        lots.append(np.std([macro_f1(oof.label[fold == k], oof.predicted[fold == k]) for k in range(5)], ddof=1))
    assert found["chance"] == pytest.approx(np.median(lots), rel=0.25)


def test_a_fold_with_a_bad_network_is_odd_and_one_fold_has_no_spread():
    oof = simulate(300, 5, seed=1)
    code = np.where((oof.fold == 2) & (np.arange(len(oof)) % 3 > 0), (oof.predicted + 3) % 18, oof.predicted)
    assert fold_chance(as_certain(oof, code), draws=200)["share"] < 0.02
    assert fold_chance(replace(oof, fold=np.zeros_like(oof.fold)), draws=10) is None
    partly = fold_chance(simulate(60, 3, known=(True, False, False)), draws=50)
    assert partly["seen"] >= 0 and 0 <= partly["share"] <= 1
