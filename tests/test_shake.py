"""The leaderboard in advance: against a known population, loops with scikit-learn, and clear cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from sklearn.metrics import f1_score

from threefold import labels
from threefold.errors import DataError, RecipeError
from threefold.evidence.metrics import COLUMNS, columns_of, macro_f1, person_counts
from threefold.evidence.shake import (
    EVEN,
    LEVEL,
    Contests,
    choose,
    draw_contests,
    gaps,
    informed,
    pairs,
    strategies,
    surprise,
)

COLUMN = COLUMNS.index("all.macro_f1")


def spoiled(base, share, seed):
    """`base` with another class for a share of the persons, all seven photos alike."""
    rng = np.random.default_rng(seed)
    names, rows = np.unique(base.persons, return_inverse=True)
    bad = (rng.random(len(names)) < share)[rows]
    joint = base.probabilities.copy()
    joint[bad] = np.roll(joint[bad], 3, axis=1)
    return replace(base, probabilities=joint)


@pytest.fixture(scope="module")
def base():
    return simulate(300, 3, seed=1)


@pytest.fixture(scope="module")
def team(base):
    return [spoiled(base, share, seed) for seed, share in enumerate((0.02, 0.04, 0.3))]


def test_the_spread_of_the_gap_is_that_of_real_contests():
    """Contests of 400 + 200 people from 10,000 who are all known, against what sets of 500 of them foresee."""
    whole = simulate(10_000, 2, seed=4)
    sums, rng = person_counts(whole), np.random.default_rng(0)
    drawn = [[np.bincount(rng.integers(0, 10_000, n), minlength=10_000) for _ in range(1500)] for n in (400, 200)]
    halves = [columns_of(np.stack(weights) @ sums)[:, COLUMN] for weights in drawn]
    true = (halves[0] - halves[1]).std()
    spreads = []
    for part in range(10):
        ours = whole.take(np.arange(part * 3500, (part + 1) * 3500))
        spreads.append(gaps(draw_contests([ours], persons=600, share=2 / 3, draws=400, seed=part))[0]["gap_sd"])
    assert np.mean(spreads) == pytest.approx(true, rel=0.06)


def test_draws_are_scores_of_people_of_the_set(base):
    """Moments against a loop that copies photos and asks scikit-learn."""
    contests = draw_contests([base], persons=120, share=0.25, draws=3000)
    assert contests.persons == (30, 90, 300)
    rng, names = np.random.default_rng(9), np.unique(base.persons)
    photos = {name: np.flatnonzero(base.persons == name) for name in names}
    loop = []
    for _ in range(100):
        population = rng.choice(names, len(names))
        sides = [np.concatenate([photos[name] for name in rng.choice(population, size)]) for size in (30, 90)]
        loop.append([
            f1_score(base.label[rows], base.predicted[rows], labels=range(18), average="macro", zero_division=0)
            for rows in sides
        ])  # fmt: skip
    naive = np.array(loop)
    for drawn, scores in ((contests.public, naive[:, 0]), (contests.private, naive[:, 1])):
        assert drawn.mean() == pytest.approx(scores.mean(), abs=4 * scores.std() / np.sqrt(len(scores)))
        assert drawn.std() == pytest.approx(scores.std(), rel=0.25)
    row = gaps(contests)[0]
    gap = abs(contests.public - contests.private)[:, 0]
    assert row["gap_50"] < row["gap_90"] < row["gap_95"]
    assert (gap <= row["gap_90"]).mean() == pytest.approx(0.9, abs=0.001)
    assert row["gap_sd"] == pytest.approx((naive[:, 0] - naive[:, 1]).std(), rel=0.25)


def test_runs_that_are_each_others_mirror_are_even(base):
    """Every person twice, and the twin is answered as the other run answers the person: no run can be better."""
    other = spoiled(base, 0.2, 3)
    twin = {"photos": np.char.add(base.photos, "-twin"), "persons": np.char.add(base.persons, "-twin")}
    both = [
        replace(first, **{name: np.concatenate([getattr(first, name), value]) for name, value in (
            *((name, getattr(second, name)) for name in ("probabilities", "truth", "ages", "years", "fold")),
            *twin.items())})
        for first, second in ((base, other), (other, base))
    ]  # fmt: skip
    contests = draw_contests(both, draws=2000)
    first, second = pairs(contests)
    assert first["wins"] == pytest.approx(0.5, abs=0.04) and first["wins"] + second["wins"] == pytest.approx(1)
    assert not choose(contests.private)["sure"]
    assert abs(contests.private.mean(0) @ [1, -1]) < 1e-3


def test_identical_runs_share_everything(base):
    contests = draw_contests([base, base], draws=200)
    assert [row["wins"] for row in pairs(contests)] == [0.5, 0.5]
    assert [row["best"] for row in gaps(contests)] == [0.5, 0.5]
    assert {row["regret"] for row in strategies(contests).values()} == {0.0}
    choice = choose(contests.private)
    assert (choice["same"], choice["next"], choice["chance"], choice["sure"]) == ([1], None, None, True)
    np.testing.assert_allclose(informed(contests, [0.7, 0.7]) @ [1, -1], 0, atol=1e-9)
    assert choose(informed(contests, [0.7, 0.7]))["same"] == [1]


def test_a_copy_is_no_rival(base, team):
    """Beside a copy of itself the best run is as sure as without it, and the copy is no second final."""
    choice = choose(draw_contests([team[0], team[2], team[0]], draws=300).private)
    assert (choice["pick"], choice["same"], choice["next"], choice["two"]) == (0, [2], 1, (0, 1)) and choice[
        "chance"
    ] > 0.99


def test_public_scores_of_other_runs_are_a_surprise(team):
    contests = draw_contests(team, draws=2000)
    expected = [row["public"] for row in gaps(contests)]
    assert surprise(contests, expected) > 0.95
    assert surprise(contests, [score - 0.1 for score in expected]) > 0.05, "a leaderboard may lie off as a whole"
    assert surprise(contests, expected[::-1]) < 0.001
    rng = np.random.default_rng(3)
    real = contests.public[:200] + rng.normal(0, LEVEL, (200, 1))
    chances = np.array([surprise(contests, np.clip(row, 0, 1).tolist()) for row in real])
    assert (chances < 0.5).mean() == pytest.approx(0.5, abs=0.12) and (chances < 0.01).mean() < 0.05


def test_what_is_better_by_far_is_picked_and_stays_where_it_is(team):
    contests = draw_contests([team[2], team[0]], draws=500)
    choice = choose(contests.private)
    assert choice["pick"] == 1 and choice["sure"] and choice["chance"] > 0.99
    scores = [macro_f1(run.label, run.predicted) for run in (team[2], team[0])]
    assert np.diff(contests.private.mean(0))[0] == pytest.approx(scores[1] - scores[0], rel=0.1)
    assert pairs(contests)[0]["wins_after_loss"] is None or pairs(contests)[0]["wins_after_loss"] < 0.05


def test_a_lead_that_chance_explains_is_mostly_taken_back(base):
    runs = [spoiled(base, 0.05, seed) for seed in range(5)]
    seen = np.array([macro_f1(run.label, run.predicted) for run in runs])
    mean = draw_contests(runs, draws=2000).private.mean(0)
    assert (np.argsort(mean) == np.argsort(seen)).all()
    assert np.ptp(mean) < 0.5 * np.ptp(seen)


def test_pairs_and_ranks_are_counts(team):
    contests = draw_contests(team, draws=300, seed=2)
    for row in pairs(contests):
        one, other = row["one"], row["other"]
        wins = [float(a > b) if a != b else 0.5 for a, b in contests.private[:, [one, other]]]
        lost = [float(a < b) if a != b else 0.5 for a, b in contests.public[:, [one, other]]]
        assert row["wins"] == pytest.approx(np.mean(wins))
        if sum(lost):
            assert row["wins_after_loss"] == pytest.approx(np.average(wins, weights=lost))
    rows = gaps(contests)
    assert sum(row["best"] for row in rows) == pytest.approx(1)
    won = contests.public.argmax(1) == 0
    assert rows[0]["best_if_public"] == pytest.approx((contests.private.argmax(1) == 0)[won].mean(), abs=0.02)


def test_strategies_by_hand():
    """Two contests of three runs."""
    contests = Contests(
        persons=(1, 1, 3),
        public=np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.1]]),
        private=np.array([[0.4, 0.6, 0.7], [0.1, 0.3, 0.2]]),
        oof=np.array([[0.1, 0.3, 0.6], [0.5, 0.4, 0.3]]),
    )
    rules = strategies(contests)
    assert rules["public"] == pytest.approx({"private": 0.35, "regret": 0.15, "best": 0.5, "gap": 0.5})
    assert rules["oof"] == pytest.approx({"private": 0.4, "regret": 0.1, "best": 0.5, "gap": -0.25})
    assert rules["mean"] == pytest.approx({"private": 0.35, "regret": 0.15, "best": 0.5, "gap": 0.5})
    assert rules["pooled"]["private"] == pytest.approx((0.7 + 0.3) / 2)  # 0.475, by validation 3 : 1
    assert rules["two finals"]["private"] == pytest.approx((0.7 + 0.3) / 2)
    assert choose(contests.private)["two"] == (1, 2) and choose(contests.private)["two_private"] == pytest.approx(0.5)


def test_validation_of_a_draw_is_other_people_than_its_test(base, team):
    """The out-of-fold pick does not know the halves: given the population, its score tells nothing of them."""
    contests = draw_contests([base], draws=4000)
    residual = np.corrcoef(np.stack([contests.public[:, 0], contests.private[:, 0], contests.oof[:, 0]]))
    np.testing.assert_allclose(residual[0, 1], 1 / 3, atol=0.06)  # population 1/P of 1/P + 1/(P/2)
    np.testing.assert_allclose(residual[1, 2], 1 / np.sqrt(6), atol=0.06)  # of 1/P + 1/P and 1/P + 1/(P/2)
    table = strategies(draw_contests(team, draws=2000))
    assert table["two finals"]["private"] > table["pooled"]["private"]
    assert table["public"]["gap"] > table["oof"]["gap"] - 1e-3


def test_public_scores_move_the_choice_as_draws_that_agree_with_them(base):
    """Against the draws themselves: those whose public difference is the one that was seen."""
    runs = [spoiled(base, 0.08, seed) for seed in (0, 1)]
    contests = draw_contests(runs, draws=15_000)
    ahead, behind = contests.public @ [1, -1], contests.private @ [1, -1]
    for seen in (-0.02, 0.03):
        moved = informed(contests, [0.7 + seen, 0.7])
        near = abs(ahead - seen) < 0.004
        assert (moved @ [1, -1]).mean() == pytest.approx(behind[near].mean(), abs=0.0025)
        assert (moved @ [1, -1]).std() == pytest.approx(behind[near].std(), rel=0.08)
    assert abs(moved.mean() - 0.71) < abs(moved.mean() - contests.private.mean()), "the leaderboard's level is believed"
    alone = informed(contests, [0.74, np.nan])
    common = np.cov(contests.private[:, 0], contests.public[:, 0]) + LEVEL**2
    start = contests.private.mean(0)[0]
    assert alone.mean(0)[0] == pytest.approx(start + common[0, 1] / common[1, 1] * (0.74 - start), abs=0.002)
    assert alone[:, 0].var() == pytest.approx(common[0, 0] - common[0, 1] ** 2 / common[1, 1], rel=0.05)
    assert alone[:, 1].std() > alone[:, 0].std()


@pytest.mark.parametrize("public", [[0.7], [0.7, 71.2], [np.nan, np.nan], [0.7, -0.1], [np.inf, 0.7]])
def test_public_scores_that_cannot_be(base, public):
    contests = draw_contests([base, base], draws=20)
    with pytest.raises(RecipeError, match=r"public: \[.*\] for 2 runs; expected one macro F1 each, 0..1"):
        informed(contests, public)


def test_the_same_seed_gives_the_same_draws(team):
    one, same, other = (draw_contests(team, draws=50, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.private, same.private)
    assert (one.private != other.private).any()


def test_partly_known_labels_and_what_cannot_be_drawn(base):
    truth = base.truth.copy()
    truth[: len(base) // 2, 2] = labels.UNKNOWN
    contests = draw_contests([replace(base, truth=truth)], draws=50)
    assert np.isfinite(contests.private).all()
    with pytest.raises(DataError, match="0 of 10 draws have a photo that knows"):
        draw_contests([replace(base, truth=np.full_like(truth, labels.UNKNOWN))], draws=10)
    with pytest.raises(DataError, match=r"predictions of 1 person \(000000_asian\); expected 2 or more"):
        draw_contests([base.take(np.arange(7))])
    for persons, share in ((1, 0.5), (100, 0.001), (100, 1.0), (0, 0.5), (-5, 0.5)):
        with pytest.raises(DataError, match=rf"{persons} persons, share .*expected 1 or more"):
            draw_contests([base], persons=persons, share=share)
    with pytest.raises(DataError, match="member 2: lacks 7 of the photos of member 1"):
        draw_contests([base, base.take(np.arange(7, len(base)))])


def test_can_not_tell_is_below_the_line():
    rng = np.random.default_rng(0)
    near, far = (rng.normal([0.7, 0.7 + lead], 0.01, (5000, 2)) for lead in (0.002, 0.02))
    assert choose(near)["chance"] < EVEN and not choose(near)["sure"]
    assert choose(far)["chance"] > EVEN and choose(far)["sure"] and choose(far)["pick"] == 1
    assert choose(near[:, :1]) | {"expected": 0, "low": 0, "high": 0} == {
        "pick": 0, "next": None, "chance": None, "sure": True, "two": None, "best": [1.0], "same": [],
        "expected": 0, "low": 0, "high": 0}  # fmt: skip
