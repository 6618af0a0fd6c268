"""`threefold ablate`: refusals before training, runs that are comparable, resume, failures, and what is written."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_run import simulate, write_run
from helpers import TINY, contest

from threefold.errors import DataError, RecipeError, RunError, TrainingError
from threefold.evidence.compare import compare_all
from threefold.evidence.seeds import spread
from threefold.recipe import load_recipe, make_recipe
from threefold.runs import Run
from threefold.train import repeat
from threefold.train.ablate import ablate, needed, plan_changes

BASE = dict(text.split("=", 1) for text in TINY)
DATA = {"data": "contest:photos"}


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """Training that writes a run of simulated predictions: better by train.ema, other by seed, nan where asked."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    trained = []

    def train_run(recipe, out, resume):
        trained.append(out)
        if resume and out.exists():
            return Run.open(out)
        if recipe.train.batch == 4096:
            raise torch.OutOfMemoryError("CUDA out of memory.\nSee the manual")
        if recipe.train.clip:
            raise TrainingError("fold 0, step 3: the loss is nan [red]")
        oof = simulate(100, 3)
        rng = np.random.default_rng([recipe.seed, recipe.train.epochs])
        persons, rows = np.unique(oof.persons, return_inverse=True)
        right = rng.random(len(persons))[rows] < recipe.train.ema
        soft = np.where(right[:, None], np.eye(18)[oof.label], oof.probabilities).astype(np.float32)
        return write_run(out, replace(oof, probabilities=soft), recipe=recipe.flat())

    monkeypatch.setattr(repeat, "train_run", train_run)
    return trained


def test_all_changes_against_one_baseline(tmp_path, trainer):
    changes = ["train.ema=0.5", "train.epochs=3", "loss.age=ce+0.5*merged_ce(weight=[1.5,1.5,7])"]
    result = ablate(make_recipe(BASE), changes, out=tmp_path / "out", base=["train.ema=0.1"], **DATA)
    rows = result.trainings
    assert [row["change"] for row in rows][:2] == ["", "train.ema=0.5"] and len(rows) == 4
    gains = [row["difference"]["value"] for row in rows[1:]]
    assert gains == sorted(gains, reverse=True)
    names = [row["run"] for row in rows]
    assert len(set(names)) == 4 and all(re.fullmatch(r"[\w.=+-]{1,60}", name) for name in names)
    runs = {row["change"]: Run.open(tmp_path / "out" / row["run"]) for row in rows}
    for text in changes:
        run = runs[text]
        base_recipe, base_run = run.baseline()
        assert base_run and base_run.path.resolve() == (tmp_path / "out/baseline").resolve()
        changed = {key for key, value in run.recipe.flat().items() if base_recipe.flat()[key] != value}
        assert changed == {text.partition("=")[0], "hypothesis", "baseline"} and base_recipe.train.ema == 0.1
        assert run.recipe.hypothesis == f"{text} against the recipe given"
    for row in rows[1:]:  # one seed each: exactly what compare says of two runs, corrected for three
        changed, baseline = runs[row["change"]].predictions(), runs[""].predictions()
        single = compare_all([changed, baseline])[0]
        assert row["difference"] == single.headline and row["p"] == single.p and row["p_holm"] >= row["p"]
        assert row["score"] == spread([changed]).persons and row["seed_sd"] is None
    assert rows[1]["verdict"] == "better" and rows[1]["p_holm"] == pytest.approx(min(1, 3 * rows[1]["p"]))
    text = str(result)
    assert all(change in text for change in changes) and "seed noise is not in them" in text
    assert "Verdicts hold for 3 changes together (Holm)" in text


def test_what_is_written_is_what_is_returned(tmp_path, trainer):
    out = tmp_path / "out"
    result = ablate(make_recipe(BASE), ["train.ema=0.5", "train.epochs=3"], out=out, seeds=2, **DATA)
    rows = result.trainings
    stored = json.loads((out / "ablation.json").read_text())
    assert stored == json.loads(result.json())
    assert stored["rows"] == rows and (stored["seeds"], stored["changes"], stored["people"]) == (2, 2, 100)
    assert (out / "ablation.csv").read_text() == result.csv()
    table = list(csv.DictReader(io.StringIO(result.csv())))
    assert "scores" not in table[0] and "differences" not in table[0]
    for row, line in zip(rows, table, strict=True):
        assert (line["change"], float(line["score"]), float(line["score_low"])) == (
            row["change"], row["score"]["value"], row["score"]["low"],
        )  # fmt: skip
        if row["change"]:
            assert float(line["difference_high"]) == row["difference"]["high"] and line["verdict"] == row["verdict"]
    for number in range(2):  # a run of each seed, against the baseline's run of that seed
        run = Run.open(out / f"train.ema=0.5/seed{number}")
        assert run.recipe.seed == number
        assert run.baseline()[1].path.resolve() == (out / f"baseline/seed{number}").resolve()
    assert rows[0]["seed_sd"] is not None and len(rows[1]["differences"]) == 2
    page = result.page("ko")
    assert '<html lang="ko">' in page and "시드 잡음" in page and "train.ema=0.5" in page
    english = result.page()
    assert "Seed noise and person noise" in english and f"{rows[1]['difference']['value']:+.4f}" in english
    assert f"{rows[0]['score']['value']:.4f}" in english


def test_resume_trains_what_is_not_there_and_takes_more_changes(tmp_path, trainer):
    out = tmp_path / "out"
    first = ablate(make_recipe(BASE), ["train.ema=0.5"], out=out, **DATA).trainings
    with pytest.raises(RunError, match="--resume goes on"):
        ablate(make_recipe(BASE), ["train.ema=0.5"], out=out, **DATA)
    before = {path: path.read_bytes() for path in out.glob("*/*") if path.is_file()}
    more = ablate(make_recipe(BASE), ["train.ema=0.5", "train.epochs=3"], out=out, resume=True, **DATA).trainings
    assert {path: path.read_bytes() for path in before} == before
    same = {key: value for key, value in more[1].items() if key not in ("p_holm", "verdict")}
    assert same == {key: value for key, value in first[1].items() if key not in ("p_holm", "verdict")}
    (tmp_path / "else").mkdir()
    (tmp_path / "else/file").write_text("mine")
    for resume in (False, True):
        with pytest.raises(RunError, match="is already there"):
            ablate(make_recipe(BASE), ["train.ema=0.5"], out=tmp_path / "else", resume=resume, **DATA)


def test_a_change_that_breaks_is_listed_and_the_others_go_on(tmp_path, trainer):
    out = tmp_path / "out"
    result = ablate(make_recipe(BASE), ["train.clip=1", "train.ema=0.5"], out=out, **DATA)
    assert result.failure == "1 of 2 changes failed, train.clip=1: fold 0, step 3: the loss is nan [red]"
    stored = json.loads((out / "ablation.json").read_text())
    assert [row["state"] for row in stored["rows"]] == ["complete", "complete", "failed"]
    assert stored["changes"] == 1 and stored["rows"][2]["error"].endswith("nan [red]")
    assert "the loss is nan" in result.page() and "the loss is nan [red]" in str(result)


def test_a_change_that_needs_too_much_memory_is_one_too(tmp_path, trainer):
    result = ablate(make_recipe(BASE), ["train.batch=4096", "train.ema=0.5"], out=tmp_path / "out", **DATA)
    assert result.failure == "1 of 2 changes failed, train.batch=4096: CUDA out of memory."
    stored = json.loads((tmp_path / "out/ablation.json").read_text())
    assert stored["changes"] == 1 and stored["rows"][2]["error"] == "CUDA out of memory."


def test_one_training_and_several_are_not_mixed_in_a_folder(tmp_path, trainer):
    for first, then in ((1, 2), (2, 1)):
        out = tmp_path / f"out{first}"
        ablate(make_recipe(BASE), ["train.ema=0.5"], out=out, seeds=first, **DATA)
        before, count = sorted(out.rglob("*")), len(trainer)
        with pytest.raises(RunError, match=rf"baseline: holds .*--resume with --seeds {then} cannot go on"):
            ablate(make_recipe(BASE), ["train.ema=0.5"], out=out, seeds=then, resume=True, **DATA)
        assert sorted(out.rglob("*")) == before and len(trainer) == count


def test_a_run_is_no_folder_for_runs(tmp_path, trainer):
    run = write_run(tmp_path / "run", simulate(30, 2), draws=20)
    for resume in (False, True):
        with pytest.raises(RunError, match="run: is a run itself") as caught:
            ablate(make_recipe(BASE), ["train.ema=0.5"], out=run.path, resume=resume, **DATA)
        assert "--resume" not in str(caught.value)


def test_a_change_is_named_without_its_spaces_and_a_runs_recipe_with_the_run(tmp_path, trainer):
    run = write_run(tmp_path / "mine", simulate(30, 2), draws=20, recipe=BASE)
    rows = ablate(run.path / "recipe.yaml", [" train.ema = 0.5 "], out=tmp_path / "out", **DATA).trainings
    assert (rows[1]["change"], rows[1]["run"]) == ("train.ema=0.5", "train.ema=0.5")
    assert Run.open(tmp_path / "out/train.ema=0.5").recipe.hypothesis == "train.ema=0.5 against mine/recipe.yaml"


def test_what_breaks_the_baseline_stops_all(tmp_path, trainer):
    with pytest.raises(TrainingError):
        ablate(make_recipe({**BASE, "train.clip": 1.0}), ["train.ema=0.5"], out=tmp_path / "out", **DATA)
    assert len(trainer) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.ema=0.5", "train.mx=none"], "unknown key 'train.mx'.*nearest: train.mix"),
        (["train.ema=0.5", "train.mix=mixupp"], "'mixupp' is not known"),
        (["train.ema"], "expected key=value"),
        (["train.epochs=10"], "train.epochs=10: changes nothing"),
        (["model.head=multi"], "changes nothing, the recipe given has model.head=multi already"),
        (["train.ema=0.5", "train.ema= 0.50"], r"train\.ema= 0\.50: is the same change as train\.ema=0\.5"),
        (["data.folds=3"], "other people, folds or labels"),
        (["data.seed=1"], "--set changes it for all"),
        (["data.patches=x.csv"], "data.patches cannot be ablated"),
        ([" data.source =x"], "data.source cannot be ablated"),
        (["seed=1"], "a lucky seed is no finding"),
        (["hypothesis=x"], "changes nothing that is measured"),
        ([], "no change is named"),
    ],
)
def test_wrong_changes_are_told_before_anything_is_trained(tmp_path, trainer, changes, message):
    with pytest.raises(RecipeError, match=message):
        ablate(make_recipe(BASE), changes, out=tmp_path / "out", **DATA)
    assert not trainer and not (tmp_path / "out").exists()


def test_a_change_whose_photos_are_not_there_is_told_before_the_baseline_is_trained(tmp_path, trainer):
    with pytest.raises(DataError, match="nowhere"):
        ablate(make_recipe(BASE), ["train.ema=0.5", "data.extra=csv:nowhere"], out=tmp_path / "out", **DATA)
    assert not trainer and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: 0 is too few"),
        ({"base": ["data.folds=all"]}, "holds nobody back"),
        ({"data": ""}, "no photos are named"),
    ],
)
def test_wrong_options_too(tmp_path, trainer, options, message):
    with pytest.raises(RecipeError, match=message):
        ablate(make_recipe(BASE), ["train.ema=0.5"], out=tmp_path / "out", **{**DATA, **options})
    assert not trainer


def test_long_and_odd_changes_get_names_of_their_own():
    long = "train.augment=" + "|".join(f"rotate({degree})" for degree in range(1, 20))
    plan = plan_changes(
        make_recipe(BASE), [long, long + "|flip", "prepare.crop=centre(20, 20)", "train.mix=mixup"], "r"
    )
    names = [name for name, _ in plan.values()]
    assert len(set(names)) == 4 and names[3] == "train.mix=mixup" and all(len(name) <= 60 for name in names)
    assert re.fullmatch(r"prepare\.crop=centre-20-20-[0-9a-f]{8}", names[2])
    assert plan[long][1].train.augment == long.partition("=")[2]


def test_other_folds_are_a_warning(tmp_path, trainer):
    out = tmp_path / "out"
    ablate(make_recipe({**BASE, "train.ema": 0.3}), ["train.epochs=3"], out=out, **DATA)
    stamp = json.loads((out / "train.epochs=3/stamp.json").read_text())
    (out / "train.epochs=3/stamp.json").write_text(json.dumps({**stamp, "folds_digest": "other"}))
    result = ablate(make_recipe({**BASE, "train.ema": 0.3}), ["train.epochs=3"], out=out, resume=True, **DATA)
    rows = result.trainings
    assert rows[1]["other_folds"] and rows[0]["other_folds"] is False
    assert "! train.epochs=3: was dealt into other folds than the baseline" in result.lines()
    assert rows[1]["verdict"] == "can't tell" and f"{rows[1]['persons_needed']:,} people" == needed(rows[1])
    assert needed(rows[1]) in str(result) and "Holm" not in str(result)


def test_trained_for_real_on_the_same_folds(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    contest(tmp_path / "data", people=12, eval_people=0)
    (tmp_path / "r.yaml").write_text("train.epochs: 1\n")
    more = {"data": str(tmp_path / "data/train"), "out": tmp_path / "out", "base": [*TINY, "data.folds=2"]}
    rows = ablate(tmp_path / "r.yaml", ["train.mix=mixup(alpha=0.2)"], **more).trainings
    runs = [Run.open(tmp_path / "out" / row["run"]) for row in rows]
    assert len({(run.stamp["folds_digest"], run.stamp["data_digest"]) for run in runs}) == 1
    assert runs[1].recipe.hypothesis == "train.mix=mixup(alpha=0.2) against r.yaml" and runs[1].baseline()[1]
    assert (runs[0].predictions().probabilities != runs[1].predictions().probabilities).any()
    assert rows[0]["score"]["value"] == runs[0].metrics["macro_f1"]["value"] and rows[0]["seconds"] > 0
    assert load_recipe(runs[0].path / "recipe.yaml").train.epochs == 1
    assert ablate(tmp_path / "r.yaml", ["train.mix=mixup(alpha=0.2)"], resume=True, **more).trainings == rows
    with pytest.raises(RunError, match=r"--resume with train\.epochs=2"):
        ablate(
            tmp_path / "r.yaml", ["train.ema=0.5"], resume=True, **{**more, "base": [*more["base"], "train.epochs=2"]}
        )
