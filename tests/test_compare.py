"""The paired difference: a naive bootstrap says the same, equal runs differ by nothing, other photos are refused.

Student's t, Holm's correction and the persons it takes are compared with scipy and with their definitions.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from scipy import stats
from sklearn.metrics import f1_score

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import estimate, person_sums, resample
from threefold.evidence.compare import changes, compare_all, compare_predictions, headlines, holm
from threefold.evidence.metrics import COLUMNS, columns_of, person_counts
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
    found = compare_predictions(one, other, draws=2000).difference["all.macro_f1"]
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
    found = compare_predictions(one, worse(one, 0.01), draws=1000).difference["all.macro_f1"]
    alone = measure(one, draws=1000)["macro_f1"]
    assert found["high"] - found["low"] < 0.5 * (alone["high"] - alone["low"])


def test_equal_runs_differ_by_nothing_and_order_does_not_matter() -> None:
    one = simulate(60, 2)
    found = compare_predictions(one, one.take(np.arange(len(one))[::-1]), draws=200).difference
    assert found["all.macro_f1"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_other_photos_persons_or_labels_are_refused() -> None:
    one = simulate(30, 2)
    for few, many in ((one.take(np.arange(10)), one), (one, one.take(np.arange(10)))):
        with pytest.raises(
            DataError,
            match=r"runs/b: (has 200 photos that runs/a lacks|lacks 200 of the photos of runs/a), the first is 'train/",
        ):
            compare_predictions(few, many, names=("runs/a", "runs/b"))
    for field, word in (("persons", "person"), ("truth", "truth")):
        with pytest.raises(DataError, match=f"runs/b: {word} of 'train/000000_asian/0.jpg' is"):
            compare_predictions(
                one, replace(one, **{field: getattr(one, field)[::-1].copy()}), names=("runs/a", "runs/b")
            )
    nobody = replace(one, truth=np.full_like(one.truth, labels.UNKNOWN))
    with pytest.raises(DataError, match="no photo has a label"):
        compare_predictions(nobody, nobody)


def test_the_interval_is_students_t_with_satterthwaites_degrees_of_freedom() -> None:
    """value +- t * sd of paired draws; freedom from the fourth moment of what each person left out makes of it."""
    one = simulate(80, 2)
    other = worse(one, 0.15)
    found = compare_predictions(one, other, draws=500, seed=3)
    drawn = [resample(part.persons, person_counts(part), columns_of, 500, 3)[:, 1] for part in (one, other)]
    spread = float(np.std(drawn[0] - drawn[1]))
    persons = np.unique(one.persons)
    gaps = np.array([
        score(one, np.flatnonzero(one.persons != person)) - score(other, np.flatnonzero(one.persons != person))
        for person in persons
    ])  # fmt: skip
    kurtosis = stats.kurtosis(gaps, fisher=False)
    freedom = min(2 * len(gaps) / (kurtosis - 1), len(gaps) - 1)
    reach = stats.t.ppf(0.975, freedom) * spread
    value = found.headline["value"]
    assert found.headline["low"] == pytest.approx(value - reach, abs=0.01 * reach)
    assert found.headline["high"] == pytest.approx(value + reach, abs=0.01 * reach)
    assert found.p == pytest.approx(2 * stats.t.sf(value / spread, freedom), rel=0.05)
    assert found.headline == found.difference["all.macro_f1"] and found.judged == ("all.macro_f1",)
    assert found.verdict == "better" and compare_predictions(other, one, draws=500).verdict == "worse"


@pytest.mark.parametrize("persons", [3, 4, 6, 12, 400])
def test_degrees_of_freedom_are_of_those_who_carry_the_number(persons: int) -> None:
    """Of many persons two with opposite effects make about 4; all alike make as many as there are, less one."""

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., :1] / sums[..., 1:]

    ids = np.arange(persons).astype(str)
    two = np.zeros(persons)
    two[:2] = 1, -1
    for effects, freedom in ((two, 2 / (0.5 - 1 / persons)), (np.tile([1, -1], persons)[:persons], persons - 1)):
        sums = person_sums(ids, np.stack([effects, np.ones(persons)], axis=1))
        found = estimate(ids, sums, mean, 50)
        assert found.freedom[0] == pytest.approx(min(freedom, persons - 1))


def test_too_few_persons_tell_nothing_however_they_agree() -> None:
    one = simulate(7, 2)
    right = replace(one, probabilities=np.eye(18, dtype=np.float32)[one.label])
    wrong = replace(one, probabilities=np.roll(right.probabilities, 1, axis=1))
    for people in range(1, 8):
        rows = np.arange(7 * people)
        found = compare_predictions(right.take(rows), wrong.take(rows), draws=300)
        assert found.p >= 2 ** (1 - people) and (found.verdict == "better") == (people >= 6)
        assert (found.headline["low"] is None) == (people == 1)


def test_persons_needed_is_where_the_power_is() -> None:
    """Of n / P times the persons the spread falls by the root and freedom rises: 80 % of noncentral t is beyond."""
    one = simulate(150, 2)
    other = worse(one, 0.04)
    found = compare_predictions(one, other, draws=1000)
    counts = np.concatenate([person_counts(one), person_counts(other)], axis=1)

    def gap(sums: np.ndarray) -> np.ndarray:
        return columns_of(sums[..., :80])[..., 1:2] - columns_of(sums[..., 80:])[..., 1:2]

    alone = estimate(one.persons, counts, gap, 1000)
    times = found.persons_needed / found.persons
    errors = found.headline["value"] / alone.spread[0] * np.sqrt(times)
    freedom = alone.freedom[0] * times
    assert stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, errors) == pytest.approx(0.8, abs=0.01)
    assert found.persons_needed > found.persons * (2.8016 * alone.spread[0] / found.headline["value"]) ** 2  # normal
    same = compare_predictions(one, one, draws=100)
    assert (same.persons_needed, same.verdict, same.p) == (None, "can't tell", 1.0)


@pytest.mark.parametrize("people", [1, 2, 3, 5, 6, 9, 30, 80])
def test_where_nothing_can_be_told_more_persons_are_needed_than_there_are(people: int) -> None:
    """Also among many comparisons and of persons so few that one of them carries the difference."""
    rng = np.random.default_rng(people)
    one = simulate(people, 1, seed=people)
    right = replace(one, probabilities=np.eye(18, dtype=np.float32)[one.label])
    wrong = replace(one, probabilities=np.roll(right.probabilities, 1, axis=1))
    runs = [right, wrong, *(worse(right, share, int(rng.integers(99))) for share in rng.random(12) ** 2)]
    for found in (compare_all(runs, draws=200), [compare_predictions(*runs[:2], draws=200)]):
        for each in found:
            if people == 1:
                assert each.persons_needed is None and each.headline["low"] is None
            elif each.verdict == "can't tell" and each.headline["value"]:
                assert each.persons_needed > people
            ends = [end for number in each.difference.values() for end in number.values() if end is not None]
            assert people == 1 or (min(ends) >= -1 and max(ends) <= 1)  # nobody can be off by more (years are equal)


def test_one_labelled_person_among_many_tells_nothing() -> None:
    one = simulate(60, 2)
    right = replace(one, probabilities=np.eye(18, dtype=np.float32)[one.label])
    truth = np.where((one.persons == one.persons[0])[:, None], one.truth, np.int8(labels.UNKNOWN))
    runs = [replace(right, truth=truth), replace(right, truth=truth, probabilities=np.roll(right.probabilities, 1, 1))]
    assert compare_predictions(*runs, draws=300).verdict == "can't tell" and headlines(runs, draws=300)[0][1] == 1


def test_headlines_are_those_of_the_whole_comparison() -> None:
    for known in ((True, True, True), (True, False, True)):
        one = simulate(40, 2, known=known)
        runs = [one, worse(one, 0.2), worse(one, 0.05, 3)]
        whole = compare_all(runs, draws=300, seed=2)
        for (gap, p), each in zip(headlines(runs, draws=300, seed=2), whole, strict=True):
            assert gap == pytest.approx(each.headline, abs=1e-12) and p == pytest.approx(each.p, abs=1e-9)


def test_of_several_the_first_is_judged_and_verdicts_are_holms() -> None:
    one = simulate(80, 2)
    others = [worse(one, share, seed) for share, seed in ((0.3, 1), (0.08, 1), (0.06, 7), (0.04, 2))]
    found = compare_all([one, *others], draws=400)
    alone = [compare_predictions(one, other, draws=400) for other in others]
    for many, single in zip(found, alone, strict=True):
        assert many.difference == single.difference and many.p == pytest.approx(single.p)  # the same draws
        assert single.verdict == ("better" if single.headline["low"] > 0 else "can't tell")
    assert [each.p_holm for each in found] == pytest.approx(holm(np.array([each.p for each in alone])))
    assert all((each.verdict == "can't tell") == (each.p_holm > 0.05) for each in found)
    assert any(a.verdict != b.verdict for a, b in zip(found, alone, strict=True))  # the correction does something


def test_holm_is_his_step_down_test() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 9):
        p = rng.random(size) ** 3
        corrected = holm(p)
        for level in (0.01, 0.05, 0.2):
            rejected, left = set(), sorted(range(size), key=lambda i: p[i])
            while left and p[left[0]] <= level / len(left):
                rejected.add(left.pop(0))
            assert set(np.flatnonzero(corrected <= level)) == rejected


def test_partly_unknown_labels_are_judged_by_what_is_known() -> None:
    one = simulate(40, 2, known=(True, True, False))
    found = compare_predictions(one, worse(one, 0.5), draws=300)
    means = [np.mean([part[name]["value"] for name in found.judged]) for part in (found.one, found.other)]
    assert found.judged == ("mask.macro_f1", "gender.macro_f1") and found.verdict == "better"
    assert found.headline["value"] == pytest.approx(means[0] - means[1])
    assert set(found.difference) == set(COLUMNS) and found.difference["all.macro_f1"]["value"] is None
    classes, photos = changes(one, worse(one, 0.5))
    assert {row["code"] for row in classes} == {labels.UNKNOWN} and classes[0]["name"] == "worn male ?"
    assert photos and all(row["truth"].endswith("?") for row in photos)


def test_changes_are_those_of_a_loop_over_photos() -> None:
    one = simulate(40, 2)
    other = worse(one, 0.3)
    order = np.random.default_rng(1).permutation(len(one))
    classes, photos = changes(one, other.take(order))
    right = [part.predicted == part.label for part in (one, other)]
    for row in classes:
        of = one.label == row["code"]
        assert row["name"] == labels.class_name(row["code"]) and row["photos"] == of.sum()
        for side, part in (("gained", of & right[0] & ~right[1]), ("lost", of & right[1] & ~right[0])):
            assert row[f"{side}_photos"] == part.sum() and row[f"{side}_persons"] == len(set(one.persons[part]))
    assert {row["photo"] for row in photos} == set(one.photos[right[0] != right[1]])
    moved = [abs(row["moved"]) for row in photos]
    assert moved == sorted(moved, reverse=True) and {row["gained"] for row in photos} == {True, False}
    for row in photos:
        at = list(one.photos).index(row["photo"])
        truth = one.label[at]
        assert row["moved"] == pytest.approx(one.probabilities[at, truth] - other.probabilities[at, truth], abs=1e-6)
        assert row["gained"] == right[0][at] and row["truth"] == labels.class_name(truth)
        for side, part in (("one", one), ("other", other)):
            assert row[side]["answer"] == labels.class_name(part.predicted[at])
            assert row[side]["confidence"] == pytest.approx(part.probabilities[at].max())
