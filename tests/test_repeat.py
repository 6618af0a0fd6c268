"""Seed noise and person noise: both against naive computations, what their sum covers, and K trainings as runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_run import simulate
from helpers import TINY, contest
from sklearn.metrics import f1_score

from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.bootstrap import LEVEL, t_beyond, t_quantile
from threefold.evidence.compare import compare_predictions, verdict
from threefold.evidence.metrics import macro_f1
from threefold.evidence.seeds import seed_difference, spread
from threefold.predictions import Predictions
from threefold.train.train import train


def score(part: Predictions, rows: np.ndarray) -> float:
    return float(f1_score(part.label[rows], part.predicted[rows], labels=range(18), average="macro", zero_division=0))


def retrained(one: Predictions, seed: int, size: float = 0.6) -> Predictions:
    """Another training: every person's answers pushed by noise of the seed and person."""
    rng = np.random.default_rng(seed)
    persons, rows = np.unique(one.persons, return_inverse=True)
    pushed = np.log(one.probabilities + 1e-6) + rng.normal(0, size, (len(persons), 18))[rows]
    soft = np.exp(pushed - pushed.max(1, keepdims=True)).astype(np.float32)
    return replace(one, probabilities=soft / soft.sum(1, keepdims=True))


def rights(share: np.ndarray, people: int) -> list[Predictions]:
    """Runs of two photos per person, of three classes; [K, people] chance that a run has a person's photos right."""
    rng = np.random.default_rng(int(share.sum() * 1e6) % 2**32)
    persons = np.array([f"p{number:04d}" for number in range(people)])
    label = np.arange(people) % 3
    truth = np.stack([label, 0 * label, 0 * label], axis=1).astype(np.int8)
    answers = np.where(rng.random(share.shape) < share, label, (label + 1) % 3)
    nan = np.full(people, np.nan, dtype=np.float32)
    return [
        Predictions(
            persons, persons, np.eye(18, dtype=np.float32)[row * 6], truth, nan, nan, np.zeros(people, np.int16)
        )
        for row in answers
    ]


@pytest.mark.parametrize("df", [1, 1.7, 2, 4.2, 30, 1e5])
def test_student_is_scipys(df: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(LEVEL, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-4)
    for distance in (0, 0.3, 2, 9):
        assert t_beyond(distance, df) == pytest.approx(2 * stats.t.sf(distance, df), abs=1e-5)


def test_without_bound_student_is_normal() -> None:
    assert t_quantile(LEVEL, float("inf")) == pytest.approx(1.959964, abs=1e-4)


def test_a_spread_is_what_a_naive_bootstrap_says() -> None:
    base = simulate(120, 2)
    parts = [retrained(base, seed) for seed in range(3)]
    result = spread(parts)
    rows = np.arange(len(base))
    scores = [score(part, rows) for part in parts]
    assert result.scores == pytest.approx(scores) and result.metric == "macro F1"
    assert result.seed_sd == pytest.approx(np.sqrt(sum((s - np.mean(scores)) ** 2 for s in scores) / 2))
    assert result.persons["value"] == result.recipe["value"] == pytest.approx(np.mean(scores))
    rng, by_person = np.random.default_rng(1), [np.flatnonzero(base.persons == p) for p in np.unique(base.persons)]
    drawn = []
    for _ in range(200):
        picked = np.concatenate([by_person[i] for i in rng.integers(0, len(by_person), len(by_person))])
        drawn.append(np.mean([macro_f1(part.label[picked], part.predicted[picked]) for part in parts]))
    assert result.person_sd == pytest.approx(np.std(drawn), rel=0.2)


def test_intervals_add_the_variances_on_each_side_by_students_t() -> None:
    stats = pytest.importorskip("scipy.stats")
    parts = [retrained(simulate(80, 2), seed) for seed in range(4)]
    result = spread(parts)
    mean, var = result.recipe["value"], np.var(result.scores, ddof=1)
    for name, share in (("recipe", 1 / 4), ("training", 1 + 1 / 4)):
        for end in ("low", "high"):
            person = ((result.persons[end] - mean) / stats.norm.ppf(0.975)) ** 2
            total = person + var * share
            df = total**2 / ((var * share) ** 2 / 3)
            far = stats.t.ppf(0.975, df) * np.sqrt(total)
            assert abs(getattr(result, name)[end] - mean) == pytest.approx(far, rel=1e-4)
    assert result.training["low"] < result.recipe["low"] < result.persons["low"]


def test_one_seed_is_the_comparison_of_two_runs() -> None:
    one = simulate(100, 2)
    other = retrained(one, 3, 1.0)
    difference, pair = seed_difference([one], [other], draws=1000), compare_predictions(one, other, draws=1000)
    assert difference.headline == pytest.approx(pair.headline) and difference.p == pytest.approx(pair.p)
    assert difference.verdict == pair.verdict
    assert difference.persons_needed == pytest.approx(pair.persons_needed, rel=0.01)
    many = seed_difference([one], [other], among=4, draws=1000)
    assert many.p == difference.p and many.persons_needed > 1.2 * difference.persons_needed
    assert difference.seed_sd is None and difference.seed_share is None and difference.seeds_needed is None
    alone = spread([one])
    assert alone.persons == alone.recipe == alone.training and alone.seed_sd is None


def test_differences_are_paired_by_seed_and_turn_round() -> None:
    base = simulate(100, 2)
    ones, others = ([retrained(base, seed + start, 0.5 + start / 10) for seed in range(3)] for start in (0, 10))
    result, turned = (seed_difference(*sides, draws=1000) for sides in ((ones, others), (others, ones)))
    rows = np.arange(len(base))
    assert result.differences == pytest.approx(
        [score(a, rows) - score(b, rows) for a, b in zip(ones, others, strict=True)]
    )
    assert result.headline["value"] == pytest.approx(np.mean(result.differences))
    assert result.verdict == "better" and turned.verdict == "worse" and result.headline["low"] > 0
    assert turned.headline["value"] == pytest.approx(-result.headline["value"])
    assert turned.p == pytest.approx(result.p, abs=0.02) and result.p < 0.05


def test_p_says_what_the_interval_does_and_how_many_it_takes() -> None:
    base = simulate(60, 2)
    for shift in range(6):
        ones = [retrained(base, seed, 0.8) for seed in range(3)]
        others = [retrained(base, seed + 50, 0.8 + shift / 8) for seed in range(3)]
        result = seed_difference(ones, others, draws=500)
        inside = result.headline["low"] <= 0 <= result.headline["high"]
        assert inside == (result.p > 0.05) == (result.verdict == "can't tell")
        assert result.seed_share is not None and 0 <= result.seed_share < 1


def test_where_seeds_are_the_noise_people_do_not_help() -> None:
    gains = np.concatenate([[-0.1, 0.1, 0.28], np.zeros(3)])[:, None]  # a change that helps in one seed and not another
    runs = rights(0.7 + gains + np.zeros((6, 300)), 300)
    apart = seed_difference(runs[:3], runs[3:], draws=500)
    assert apart.seed_share > 0.8 and apart.persons_needed is None and apart.seeds_needed > 20
    assert apart.verdict == "can't tell"
    one, other = rights(np.array([[0.72], [0.7]]) + np.zeros((2, 300)), 300)
    alike = seed_difference([one] * 3, [other] * 3, draws=500)  # no seed noise at all: a question of people only
    assert alike.seed_share == 0 and alike.seeds_needed is None
    assert alike.persons_needed == pytest.approx(compare_predictions(one, other, draws=500).persons_needed, rel=0.01)
    assert verdict(0.1, 0.04) == "better" and verdict(-0.1, 0.04) == "worse" and verdict(0.1, 0.06) == "can't tell"


@pytest.mark.parametrize(("seeds", "noise"), [(3, 0.0), (5, 0.1)])
def test_the_interval_covers_what_the_recipe_scores_on_everybody(seeds: int, noise: float) -> None:
    """100 sets of 90 people; chance of a person to be right is shared over seeds, and each seed shifts all of them."""
    rng, people, hits, persons_only, one_more = np.random.default_rng(0), 90, 0, 0, 0
    everybody = np.clip(rng.normal(0.7, 0.2, 3000), 0.25, 0.9)
    shifted = lambda who, shift: np.clip(who + shift, 0, 1)  # noqa: E731
    levels = rng.normal(0, noise, 200)
    truth = np.mean([shifted(everybody, s).mean() for s in levels]) / 6  # three of 18 classes, errors evenly spread
    for _ in range(100):
        chances = shifted(everybody[rng.integers(0, 3000, people)], rng.normal(0, noise, (seeds, 1)))
        result = spread(rights(chances + rng.random() * 1e-9, people), draws=200)
        another = shifted(everybody, rng.normal(0, noise)).mean() / 6
        hits += result.recipe["low"] <= truth <= result.recipe["high"]
        persons_only += result.persons["low"] <= truth <= result.persons["high"]
        one_more += result.training["low"] <= another <= result.training["high"]
    assert 0.9 <= hits / 100 <= 1.0 and 0.9 <= one_more / 100 <= 1.0
    if noise >= 0.1:
        assert persons_only / 100 < 0.88  # what an interval for other people alone leaves out


def test_partly_unknown_labels_are_scored_by_what_is_known() -> None:
    parts = [retrained(simulate(40, 2, known=(True, True, False)), seed) for seed in range(2)]
    result = spread(parts)
    assert result.metric == "mean macro F1 of mask, gender" and np.isfinite(result.recipe["low"])
    assert result.scores[0] == pytest.approx(np.mean([
        f1_score(parts[0].truth[:, column], marginal.argmax(1), average="macro")
        for column, marginal in list(enumerate(parts[0].marginals().values()))[:2]
    ]))  # fmt: skip
    with pytest.raises(DataError, match="no photo has a label"):
        spread([simulate(10, 2, known=(False, False, False))] * 2)


def test_what_does_not_belong_together_is_refused() -> None:
    one = simulate(20, 2)
    with pytest.raises(DataError, match="2 runs against 1"):
        seed_difference([one, one], [one])
    with pytest.raises(DataError, match="lacks 120 of the photos"):
        spread([one, one.take(np.arange(20))])
    with pytest.raises(DataError, match="no run"):
        spread([])


def test_seeds_are_ordinary_runs_and_resume_where_they_stopped(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    contest(tmp_path / "data", people=12, eval_people=0)
    (tmp_path / "r.yaml").write_text("train.epochs: 1\nseed: 5\n")
    texts = [*TINY, "data.folds=2"]
    options = {"data": str(tmp_path / "data/train"), "out": tmp_path / "out", "overrides": texts}
    result = train(tmp_path / "r.yaml", seeds=2, **options)
    assert [run.path for run in result.runs] == [tmp_path / "out/seed0", tmp_path / "out/seed1"]
    assert [run.recipe.seed for run in result.runs] == [5, 6] and {run.recipe.data.seed for run in result.runs} == {0}
    assert len({run.stamp["folds_digest"] for run in result.runs}) == 1
    assert len({run.predictions().probabilities.tobytes() for run in result.runs}) == 2
    stored = json.loads((tmp_path / "out/seeds.json").read_text())
    assert stored["seeds"] == [5, 6] and stored["scores"] == [run.metrics["macro_f1"]["value"] for run in result.runs]
    noises = f"seed noise SD {result.spread.seed_sd:.3f}, person noise SD {result.spread.person_sd:.3f}"
    assert noises in str(result) and result.lines()[-1] == f"runs: {tmp_path / 'out'}"
    assert json.loads(result.json()) == {"path": str(tmp_path / "out"), **stored}
    with pytest.raises(RunError, match="--resume goes on"):
        train(tmp_path / "r.yaml", seeds=2, **options)
    before = (tmp_path / "out/seed1/metrics.json").read_bytes()
    more = train(tmp_path / "r.yaml", seeds=3, resume=True, **options)
    assert len(more.spread.scores) == 3 and more.spread.scores[:2] == result.spread.scores
    assert (tmp_path / "out/seed1/metrics.json").read_bytes() == before
    options["overrides"] = [*texts, "train.epochs=2"]
    with pytest.raises(RunError, match=r"--resume with train\.epochs=2"):
        train(tmp_path / "r.yaml", seeds=3, resume=True, **options)


@pytest.mark.parametrize(
    ("seeds", "text", "message"),
    [
        (0, "seed=0", "seeds: 0 is too few"),
        (2, "data.folds=all", "holds nobody back"),
        (2, "train.mix=mixupp", "mixup"),
    ],
)
def test_what_cannot_be_separated_is_told_first(tmp_path, seeds: int, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text("")
    with pytest.raises(RecipeError, match=message):
        train(tmp_path / "r.yaml", seeds=seeds, data="nowhere", out=tmp_path / "out", overrides=[*TINY, text])
    assert not (tmp_path / "out").exists()
