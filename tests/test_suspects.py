"""Suspects: planted errors are found; scores and membership against the paper's formulas written out as loops."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, get_confident_thresholds
from fake_run import simulate, write_run
from helpers import threefold
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from threefold import labels
from threefold.data.face import Face
from threefold.data.options import apply_patches
from threefold.errors import RecipeError, RunError, ThreefoldError
from threefold.evidence.suspects import FREQUENCY, SPREAD, find_suspects, off_diagonal, year_odds
from threefold.pages.suspects_page import suspects
from threefold.predictions import Predictions


@pytest.fixture(scope="module")
def right() -> Predictions:
    return simulate(150, 3, seed=4)


@pytest.fixture(scope="module")
def planted(right) -> tuple[Predictions, dict[str, str]]:
    """Wrong labels of three people the classifier reads well: kind -> person."""
    truth, ages = right.truth.copy(), right.ages.copy()
    good = [name for name in np.unique(right.persons[right.ages == 19]) if best(right, name)]
    of = dict(zip(("gender", "age", "swap"), good, strict=False))
    rows = {kind: right.persons == name for kind, name in of.items()}
    truth[rows["gender"], 1] = 1 - truth[rows["gender"], 1]
    ages[rows["age"]], truth[rows["age"], 2] = 47, 1
    truth[rows["swap"], 0] = np.array([0, 2, 1])[truth[rows["swap"], 0]]
    return replace(right, truth=truth, ages=ages), of


def best(p: Predictions, person: str) -> bool:
    rows = p.persons == person
    return bool((labels.decode_all(p.predicted[rows]) == p.truth[rows]).all() and (p.years[rows] < 24).all())


def faces(p: Predictions) -> list[Face]:
    rows = zip(p.photos.tolist(), p.persons.tolist(), p.truth.tolist(), p.ages.tolist(), strict=True)
    return [Face(Path(photo), name, photo, *codes[:2], age, codes[2]) for photo, name, codes, age in rows]


def test_planted_errors_come_first_of_their_kind_with_the_right_value(right, planted):
    wrong, of = planted
    found = find_suspects(wrong)
    first = {kind: next(one for one in found if one.kind == kind) for kind in of}
    assert {kind: one.person for kind, one in first.items()} == of
    gender = right.truth[right.persons == of["gender"]][0, 1]
    assert (first["gender"].label, first["gender"].proposed) == tuple(
        labels.name("gender", c) for c in (1 - gender, gender)
    )
    assert first["age"].label == "47" and abs(float(first["age"].proposed) - 19) <= SPREAD
    assert (first["swap"].label, first["swap"].proposed) == ("incorrect,none", "swap:incorrect,none")
    assert [one.attribute for one in first.values()] == ["gender", "age", "mask"]
    assert all(one.agree == one.of for one in first.values()) and [one.of for one in first.values()] == [7, 7, 2]
    assert not {photo for one in found if one.kind == "mask" for photo in one.photos} & set(first["swap"].photos)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(one.confidence == pytest.approx(1 / (1 + np.exp(-one.score))) for one in found)


def by_the_paper(probabilities, given):
    """{row: (proposed, log odds)} of confident learning, as Northcutt et al. 2021 write it, in loops.

    Thresholds: mean self-confidence of a class (equation 2). Counted as the class, among those reaching their
    threshold, of the largest probability (equation 1); off the diagonal where that is not the label.
    """

    def loss(t):
        logs = np.log(np.maximum(probabilities, 1e-12)) / np.exp(t)
        return np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(logs, given, strict=True)])

    temperature = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    power = np.maximum(probabilities, 1e-12) ** (1 / temperature)
    q = power / power.sum(1, keepdims=True)
    least = [np.mean([row[k] for row, own in zip(q, given, strict=True) if own == k]) for k in range(q.shape[1])]
    found = {}
    for n, (row, own) in enumerate(zip(q, given, strict=True)):
        reached = [k for k in range(len(row)) if row[k] >= least[k]]
        if reached and max(reached, key=lambda k: row[k]) != own:
            other = max((k for k in range(len(row)) if k != own), key=lambda k: row[k] / least[k])
            found[n] = (other, np.log(row[other] / least[other] / (row[own] / least[own])))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_and_what_lies_off_the_diagonal_are_cleanlabs(seed):
    """Also where nobody has a class, a class has next to no probability, and numbers are close."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 6))
    chance = rng.dirichlet(np.full(classes, 0.4), 400).round(int(rng.integers(1, 8)))
    codes = rng.integers(0, classes - seed % 2, len(chance))
    chance[:, 0] *= 1e-9 if seed == 3 else 1
    rows, thresholds = off_diagonal(chance, codes)
    np.testing.assert_array_equal(thresholds, get_confident_thresholds(codes, chance))
    _, expected = compute_confident_joint(codes, chance, calibrate=False, return_indices_of_off_diagonals=True)
    assert rows.tolist() == list(expected) and len(rows) > 10


def test_genders_are_confident_learning_on_mean_log_probabilities(planted):
    truth, names = planted[0].truth.copy(), np.unique(planted[0].persons)
    several = np.isin(planted[0].persons, np.random.default_rng(0).choice(names, 12, replace=False))
    truth[several, 1] = 1 - truth[several, 1]
    wrong = replace(planted[0], truth=truth)
    part = wrong.marginals()["gender"]
    logs = np.array([np.mean([np.log(row) for row in part[wrong.persons == name]], axis=0) for name in names])
    given = [int(wrong.truth[wrong.persons == name][0, 1]) for name in names]
    prior = np.log(FREQUENCY["gender"] / (1 - FREQUENCY["gender"]))
    suspicious = by_the_paper(np.exp(logs) / np.exp(logs).sum(1, keepdims=True), given)
    wanted = {names[n]: (labels.name("gender", code), odds + prior) for n, (code, odds) in suspicious.items()}
    found = {one.person: (one.proposed, one.score) for one in find_suspects(wrong) if one.kind == "gender"}
    assert len(wanted) > 8 and found.keys() == wanted.keys()
    for name, (code, score) in wanted.items():
        assert found[name][0] == code and found[name][1] == pytest.approx(score, abs=1e-4)
    for one in (one for one in find_suspects(wrong) if one.kind == "gender"):
        votes = part[wrong.persons == one.person].argmax(1) == labels.parse("gender", one.proposed)
        assert (one.agree, one.of) == (votes.sum(), 7)


def test_masks_and_swaps_are_confident_learning_on_photos(planted):
    wrong, of = planted
    given = wrong.truth[:, 0].astype(int)
    suspicious = by_the_paper(wrong.marginals()["mask"].astype(float), given)
    found = [one for one in find_suspects(wrong) if one.attribute == "mask"]
    assert {photo for one in found for photo in one.photos} == set(wrong.photos[list(suspicious)].tolist())
    prior = np.log(FREQUENCY["mask"] / (1 - FREQUENCY["mask"]))
    for one in (one for one in found if one.kind == "mask"):
        code, odds = suspicious[int(np.flatnonzero(wrong.photos == one.photos[0])[0])]
        assert (one.proposed, one.score) == (labels.name("mask", code), pytest.approx(odds + prior, abs=1e-4))
    (swap,) = (one for one in found if one.kind == "swap")
    assert swap.person == of["swap"]  # thresholds of a and b cancel: both photos' odds, one from a to b, one back
    both = sum(suspicious[int(np.flatnonzero(wrong.photos == photo)[0])][1] for photo in swap.photos)
    assert swap.score == pytest.approx(both + np.log(FREQUENCY["swap"] / (1 - FREQUENCY["swap"])), abs=1e-4)


def test_one_photo_that_contradicts_its_label_is_no_swap(planted):
    """Of the exchanged pair, one photo is made to look a little more like its label than like the other's."""
    wrong, of = planted
    row = int(np.flatnonzero((wrong.persons == of["swap"]) & (wrong.truth[:, 0] == labels.Mask.NONE))[0])
    chance = wrong.probabilities.copy()
    mask = wrong.marginals()["mask"][row]
    chance[row] *= np.repeat(np.array([0.02, 0.45, 0.53]) / mask, 6)
    found = [one for one in find_suspects(replace(wrong, probabilities=chance)) if one.person == of["swap"]]
    other = wrong.photos[(wrong.persons == of["swap"]) & (wrong.truth[:, 0] == labels.Mask.INCORRECT)]
    assert [(one.kind, one.photos, one.proposed) for one in found] == [("mask", tuple(other), "none")]


def test_year_odds_are_those_of_a_regression_on_other_people_written_out():
    rng = np.random.default_rng(0)
    years = rng.integers(18, 61, 90).astype(float)
    features = np.stack([years + rng.normal(0, 4, 90), rng.normal(size=90)], axis=1)
    groups = np.arange(90) // 2
    odds, likely = year_odds(features, years, groups, seed=1)
    bins = np.array([sum(year >= edge for edge in np.quantile(years, [1 / 3, 2 / 3])) for year in years])
    for fit, held in GroupKFold(5, shuffle=True, random_state=1).split(features, groups=groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[fit], bins[fit])
        for n, chance in zip(held, model.predict_proba(features[held]), strict=True):
            near = {year: sum(part * np.mean(np.exp(-abs(years[bins == b] - year) / SPREAD))
                              for b, part in enumerate(chance)) for year in range(121)}  # fmt: skip
            assert likely[n] == max(near, key=near.__getitem__)
            assert odds[n] == pytest.approx(np.log(near[likely[n]] / near[years[n]]), abs=1e-9)


def test_the_border_of_the_old_is_no_error():
    """Everybody around 60 is read as 58: half of the old are in the wrong group, and nobody is suspicious."""
    p = simulate(400, 2, seed=1)
    keep = p.ages >= 55
    p = p.take(keep)
    assert ((p.marginals()["age_group"].argmax(1) != p.truth[:, 2]).mean()) > 0.1
    assert not [one for one in find_suspects(p) if one.kind == "age"]


def test_a_class_the_network_is_never_sure_of_does_not_flood_the_list():
    """The old get 0.4 at most: by the plain margin all are wrong, against their own class's threshold none is."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [100, 100, 30])
    chance = np.array([[0.9, 0.08, 0.02], [0.08, 0.8, 0.12], [0.02, 0.58, 0.4]])[group]
    chance = np.log(chance) + rng.normal(0, 0.05, chance.shape)
    joint = np.zeros((230, 3, 2, 3), np.float32)
    joint[:, 0, 0] = np.exp(chance) / np.exp(chance).sum(1, keepdims=True)
    names = np.array([f"p{n}" for n in range(230)])
    nothing = np.full(230, np.nan, np.float32)
    truth = np.stack([np.full(230, -1), np.full(230, -1), group], axis=1).astype(np.int8)
    p = Predictions(names, names, joint.reshape(230, 18), truth, nothing, nothing, np.zeros(230, np.int16))
    assert (p.marginals()["age_group"][group == 2].argmax(1) == 1).all()
    assert find_suspects(p) == []
    truth[0, 2] = 2  # somebody young labelled old is still found
    (one,) = find_suspects(replace(p, truth=truth))
    assert (one.kind, one.person, one.attribute, one.label, one.proposed) == ("age", "p0", "age_group", ">=60", "<30")


@pytest.mark.parametrize("known", [(False, True, True), (True, False, False), (False, False, False)])
def test_labels_nobody_gave_are_nobodys_suspects(planted, known):
    truth = np.where(known, planted[0].truth, -1).astype(np.int8)
    ages = planted[0].ages if known[2] else np.full(len(truth), np.nan, np.float32)
    attributes = [one.attribute for one in find_suspects(replace(planted[0], truth=truth, ages=ages))]
    assert set(attributes) == {name for name, ok in zip(("mask", "gender", "age"), known, strict=True) if ok}


def test_partly_unknown_labels_single_photos_and_missing_years(planted):
    wrong, of = planted
    rng = np.random.default_rng(0)
    truth = wrong.truth.copy()
    truth[rng.random(truth.shape) < 0.3] = -1
    ages = np.where(rng.random(len(wrong)) < 0.3, np.nan, wrong.ages).astype(np.float32)
    for one in find_suspects(replace(wrong, truth=truth, ages=ages)):
        column = {"mask": 0, "gender": 1, "age_group": 2}.get(one.attribute)
        rows = np.flatnonzero(np.isin(wrong.photos, one.photos))
        assert (truth[rows, column] >= 0).all() if column is not None else np.isfinite(ages[rows]).all()
    blind = find_suspects(
        replace(wrong, years=np.full(len(wrong), np.nan, np.float32))
    )  # groups alone tell of impossible ages
    assert of["age"] in [one.person for one in blind if one.kind == "age"][:3]
    alone = find_suspects(replace(wrong, persons=wrong.photos))
    assert {one.of for one in alone} == {1} and not [one for one in alone if one.kind == "swap"]
    assert find_suspects(wrong.take(np.zeros(0, int))) == []
    assert all(one.attribute == "age_group" for one in find_suspects(wrong.take(np.arange(70))) if one.kind == "age")


def test_the_order_of_photos_means_nothing(planted):
    wrong, _ = planted
    rows = np.random.default_rng(0).permutation(len(wrong))
    shuffled, plain = find_suspects(wrong.take(rows)), find_suspects(wrong)
    assert [(o.kind, o.person, o.proposed) for o in shuffled] == [(o.kind, o.person, o.proposed) for o in plain]
    assert np.allclose([o.score for o in shuffled], [o.score for o in plain])


def test_a_person_labelled_as_both_genders_is_one_suspect(right):
    person = right.persons[0]
    truth = right.truth.copy()
    truth[0, 1] = 1 - truth[0, 1]
    found = [one for one in find_suspects(replace(right, truth=truth)) if (one.kind, one.person) == ("gender", person)]
    assert [one.photos for one in found] == [(right.photos[0],)]


def test_the_table_is_a_patch_file_and_says_that_nobody_looked(tmp_path, planted, right):
    wrong, of = planted
    run = write_run(tmp_path / "run", wrong, draws=20).path
    result = suspects(run, out=tmp_path / "out", top=40)
    found, table = result.suspects, tmp_path / "out/suspects.csv"
    assert table.read_text() == result.csv() and [path.name for path in (tmp_path / "out").iterdir()] == [table.name]
    assert [row["person"] for row in json.loads(result.json())["suspects"]] == [one.person for one in found]
    assert not (run / "suspects.csv").exists()
    new, done = apply_patches(faces(wrong), table)
    assert (done.rows, done.unmatched) == (len(found), 0) and len(found) <= 40
    for kind, column in (("gender", 1), ("swap", 0), ("age", 2)):
        rows = np.flatnonzero(wrong.persons == of[kind])
        assert [new[n].parts[column] for n in rows] == right.truth[rows, column].tolist()
    assert all(line.endswith(",not looked at") for line in table.read_text().splitlines()[1:])
    assert result.lines()[1].startswith(f"NOBODY HAS LOOKED AT {table}")


def test_the_verb_writes_table_and_page_into_the_run(tmp_path, planted):
    run = write_run(tmp_path / "run", planted[0], draws=20).path
    done = threefold("suspects", run, "--top", 3, "--no-photos", cwd=tmp_path)
    result = suspects(run, top=3, photos=False)
    assert done.stdout == f"{result}\n" and f"written: {run / 'suspects.html'}" in done.stderr
    assert (run / "suspects.html").read_text("utf-8") == result.page()
    assert threefold("suspects", run, "--top", 3, "--no-photos", "--json", cwd=tmp_path).stdout == result.json()


def test_what_cannot_be_is_said_in_one_line(tmp_path, planted, monkeypatch):
    run = write_run(tmp_path / "run", planted[0], draws=20).path
    with pytest.raises(RecipeError, match="top: 0; expected 1 or more"):
        suspects(run, top=0)
    with pytest.raises(RunError, match="no such run"):
        suspects(tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(
        ThreefoldError, match=r"suspects needs scikit-learn .*; from a checkout `pip install '.\[train\]'`"
    ):
        suspects(run)
