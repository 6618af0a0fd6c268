"""`threefold search`: spaces, trials that are runs, pruning, going on after a kill, and what the best is worth.

Training is a stand-in that writes a run of simulated predictions whose quality follows from the values it was given.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optuna
import pytest
from fake_run import simulate, write_run

from threefold.errors import DataError, RecipeError, RunError, TrainingError
from threefold.evidence.bootstrap import person_draws
from threefold.evidence.ensemble import lead
from threefold.evidence.metrics import macro_f1
from threefold.recipe import load_recipe, make_recipe
from threefold.runs import Run
from threefold.train import search as module
from threefold.train import single
from threefold.train.search import read_space, search

BASE = {"model.backbone": "test_efficientnet", "model.pretrained": "none", "prepare.size": "32x24"}
SPACE = """
train.mix: [none, mixup(alpha=0.2)]
train.epochs: {low: 2, high: 8, step: 2}
train.ema: {low: 0.9, high: 0.999}
optim: {choose: "adamw(lr={lr}, weight_decay={decay})", lr: {low: 1e-4, high: 1e-2, log: true}, decay: [0.0, 0.05]}
"""
SMALL = "train.mix: [none, mixup]\ntrain.ema: {low: 0.0, high: 0.99}\n"


def photos(tmp_path):
    """A source that is there; nobody reads it."""
    (tmp_path / "photos").mkdir(exist_ok=True)
    return f"csv:{tmp_path / 'photos'}"


def written(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


class Trainer:
    """Stands in for `train_run`: 3 folds, a score that grows with train.ema; records what it trained."""

    def __init__(self, kill_in=None, fail=()):
        self.trained, self.kill_in, self.fail = [], kill_in, fail

    def __call__(self, recipe, out, resume, on_fold):
        self.trained.append((out.name, recipe))
        number = int(out.name.removeprefix("trial"))
        assert resume
        if number in self.fail:
            raise TrainingError("fold 0, step 3: the loss is nan")
        if out.exists() and Run.open(out).state == "complete":
            return Run.open(out)
        oof = better(simulate(24, 3, seed=1), recipe.train.ema)
        run = Run.open(out) if out.exists() else write_run(out, oof, complete=False, recipe=recipe.flat())
        for fold in range(1, 4):
            if self.kill_in == (number, fold):
                raise KeyboardInterrupt
            on_fold(fold, recipe.train.ema * 0.9 + fold / 1000)
        metrics = {"macro_f1": {"value": 0.5, "low": 0.4, "high": 0.6}, "seconds": 1.0}
        (run.path / "metrics.json").write_text(json.dumps(metrics))
        return run


def better(oof, share):
    """The same predictions with the first `share` of the photos put right."""
    right = np.eye(18, dtype=np.float32)[oof.label]
    rows = np.arange(len(oof)) < share * len(oof)
    return replace(oof, probabilities=np.where(rows[:, None], right, oof.probabilities))


@pytest.fixture
def trainer(monkeypatch):
    stand_in = Trainer()
    monkeypatch.setattr(single, "train_run", stand_in)
    return stand_in


def run_search(tmp_path, trials, **more):
    space = more.pop("space", None) or written(tmp_path, SMALL)
    return search(make_recipe(BASE), space, data=photos(tmp_path), out=tmp_path / "search", trials=trials, **more)


def test_values_are_recipe_values_of_what_was_chosen(tmp_path):
    space = read_space(written(tmp_path, SPACE), make_recipe(BASE))
    chosen = {"train.mix": "none", "train.epochs": 4, "train.ema": 0.98765432, "optim.lr": 0.00123456, "optim.decay": 0}
    values = space.values(chosen)
    assert values == {"train.mix": "none", "train.epochs": 4, "train.ema": 0.9877,
                      "optim": "adamw(lr=0.001235, weight_decay=0)"}  # fmt: skip
    assert make_recipe(BASE | values).optim == values["optim"]
    corners = [space.values(corner) for corner in space.corners()]
    assert {c["train.mix"] for c in corners} == {"none", "mixup(alpha=0.2)"}
    assert {c["train.epochs"] for c in corners} == {2, 8} and {c["train.ema"] for c in corners} == {0.9, 0.999}
    assert {c["optim"] for c in corners} == {
        f"adamw(lr={lr}, weight_decay={decay})" for lr in (0.0001, 0.01) for decay in (0.0, 0.05)
    }
    assert len(corners) == 2 + 2 + 2 + 4


def test_several_texts_share_their_numbers(tmp_path):
    text = 'optim: {choose: ["adamw(lr={lr})", "sgd(lr={lr})"], lr: {low: 1e-4, high: 1e-2, log: true}}'
    space = read_space(written(tmp_path, text), make_recipe(BASE))
    assert space.values({"optim": "sgd(lr={lr})", "optim.lr": 0.5}) == {"optim": "sgd(lr=0.5)"}
    assert len(list(space.corners())) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.mx: [none]", "unknown key 'train.mx'"),
        ("train.mix: [none, mixupp]", "train.mix: 'mixupp' is not known"),
        ("train.epochs: {low: 0, high: 5}", "train.epochs cannot be 0"),
        ("train.ema: {low: 0.5, high: 0.99999}", "train.ema cannot be 1.0"),
        ("train.epochs: {lo: 1, high: 5}", "train.epochs: {'lo': 1, 'high': 5} is neither a list"),
        ("train.epochs: {low: 5, high: 1}", "is neither a list"),
        ("train.epochs: {low: 1, high: 4, step: 2}", "is neither a list"),
        ("train.epochs: 5", "is neither a list"),
        ("prepare.size: [[128, 96]]", "is neither a list"),
        ('optim: {choose: "adamw(lr={lr})"}', "{lr} must be both in the text to choose and among the values"),
        ('optim: {choose: "adamw(lr=1)", lr: [1]}', "{lr} must be both"),
        ("optim: ['adamw(lr={lr})']", "{lr} must be both"),
        ('optim: {choose: "adamw(lrr={lr})", lr: [0.1]}', "adamw has no option 'lrr'"),
        ("data.folds: [3, 5]", "data.folds cannot be searched"),
        ("seed: [0, 1]", "seed cannot be searched"),
        ("", "expected lines like"),
        ("a: [", "cannot be read as a search space"),
    ],
)
def test_a_wrong_space_is_one_line_and_nothing_is_begun(tmp_path, trainer, text, message):
    with pytest.raises(RecipeError) as caught:
        run_search(tmp_path, 2, space=written(tmp_path, text))
    assert message in str(caught.value) and "space.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert not trainer.trained and not (tmp_path / "search").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search of ten trials: what was trained, what came of it, and where."""
    home, trainer = tmp_path_factory.mktemp("whole"), Trainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single, "train_run", trainer)
        result = run_search(home, 10)
    return trainer.trained, result, home / "search"


def test_every_trial_is_a_run_and_the_best_is_a_recipe(whole):
    trained, result, home = whole
    assert [name for name, _ in trained] == [f"trial{n:04d}" for n in range(10)]
    assert all(recipe.data.source.endswith("photos") for _, recipe in trained)
    complete = {row["run"]: row for row in result.trials if row["state"] == "complete"}
    best = max(complete.values(), key=lambda row: row["score"])
    assert result.best == best and (best["low"], best["high"], best["folds"]) == (0.4, 0.6, 3)
    oof = better(simulate(24, 3, seed=1), best["values"]["train.ema"])
    assert best["score"] == pytest.approx(macro_f1(oof.label, oof.predicted))
    recipe = load_recipe(home / "best.yaml")
    assert recipe == make_recipe(BASE | best["values"]) and recipe.data.source == ""
    stored = json.loads((home / "search.json").read_text())
    assert stored == json.loads(result.json())
    assert stored["best"] == best["trial"] and stored["trials"] == result.trials
    assert result.importances["train.ema"] > result.importances["train.mix"] >= 0
    assert sum(result.importances.values()) == pytest.approx(1)
    page = result.page()
    assert page.count("<circle") == 10 and not re.search(r"(src|href)=|<script", page)
    for text in (page, str(result)):
        assert "is luck, which the interval does not cover" in text
        assert f"{best['score']:.4f} [0.4000, 0.6000]" in text
    lines = [line for line in result.lines() if line.startswith("trial0")]
    assert len(lines) == 10 and lines[0].startswith(best["run"])
    table = list(csv.DictReader(io.StringIO(result.csv())))
    assert [float(row["train.ema"]) for row in table] == [row["values"]["train.ema"] for row in result.trials]
    assert [row["state"] for row in table] == [row["state"] for row in result.trials]


def test_what_is_below_the_median_is_pruned_by_fold_after_five_trials(whole):
    _, result, home = whole
    finished = [row["values"]["train.ema"] for row in result.trials[:5]]
    assert len(finished) == 5 and all(row["state"] == "complete" for row in result.trials[:5])
    for row in result.trials[5:]:
        below = row["values"]["train.ema"] < np.median(finished)
        assert (row["state"], row["folds"]) == (("pruned", 1) if below else ("complete", 3))
        assert (Run.open(home / row["run"]).state == "complete") == (not below)
        finished += [] if below else [row["values"]["train.ema"]]
    assert len(finished) < 10


def test_a_search_in_two_parts_is_the_search_in_one(tmp_path, trainer, whole):
    run_search(tmp_path, 2)
    parts = [row["values"] for row in run_search(tmp_path, 4).trials]
    assert parts == [row["values"] for row in whole[1].trials[:4]]
    assert len({values["train.ema"] for values in parts}) == 4
    space, data = tmp_path / "space.yaml", photos(tmp_path)
    other = search(make_recipe(BASE), space, data=data, out=tmp_path / "x", trials=1, seed=1)
    assert other.trials[0]["values"] != parts[0]


def test_a_killed_trial_is_finished_under_its_number(tmp_path, monkeypatch):
    trainer = Trainer(kill_in=(1, 2))
    monkeypatch.setattr(single, "train_run", trainer)
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 3)
    before = trainer.trained[1][1]
    trainer.kill_in = None
    result = run_search(tmp_path, 3)
    assert [name for name, _ in trainer.trained] == ["trial0000", "trial0001", "trial0001", "trial0002"]
    assert trainer.trained[2][1] == before
    assert [row["state"] for row in result.trials] == ["complete"] * 3


def test_a_trial_that_another_process_trains_is_left_to_it(tmp_path, monkeypatch):
    trainer = Trainer(kill_in=(0, 1))
    monkeypatch.setattr(single, "train_run", trainer)
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 2)
    code = (
        "import sys\nfrom filelock import FileLock\nwith FileLock(sys.argv[1]):\n    print('held', flush=True)"
        "\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "search/.trial0000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    trainer.kill_in = None
    result = run_search(tmp_path, 2)
    assert [row["state"] for row in result.trials] == ["running", "complete"]
    holder.communicate()
    assert [row["state"] for row in run_search(tmp_path, 2).trials] == ["complete", "complete"]


def test_with_a_server_another_machine_s_trial_is_not_taken_up(tmp_path, monkeypatch):
    trainer = Trainer(kill_in=(0, 1))
    monkeypatch.setattr(single, "train_run", trainer)
    storage = f"sqlite:///{tmp_path / 'server.db'}"
    monkeypatch.setattr(module.socket, "gethostname", lambda: "one")
    with pytest.raises(KeyboardInterrupt):
        run_search(tmp_path, 2, storage=storage)
    trainer.kill_in = None
    monkeypatch.setattr(module.socket, "gethostname", lambda: "other")
    assert [row["state"] for row in run_search(tmp_path, 2, storage=storage).trials] == ["running", "complete"]
    monkeypatch.setattr(module.socket, "gethostname", lambda: "one")
    assert [row["state"] for row in run_search(tmp_path, 2, storage=storage).trials] == ["complete", "complete"]


def test_a_trial_that_cannot_be_trained_is_told_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(single, "train_run", Trainer(fail=(0, 2)))
    result = run_search(tmp_path, 3)
    assert [row["state"] for row in result.trials] == ["failed", "complete", "failed"]
    assert result.trials[0]["error"] == "fold 0, step 3: the loss is nan"
    assert result.luck is None and "how much cannot be told" in result.page()
    assert "It takes 4 finished trials" in result.page()
    monkeypatch.setattr(single, "train_run", Trainer(fail=range(9)))
    with pytest.raises(RunError, match="not one of 2 trials was finished: fold 0, step 3"):
        search(make_recipe(BASE), written(tmp_path, SMALL), data=photos(tmp_path), out=tmp_path / "none", trials=2)


def test_another_recipe_or_space_is_another_search(tmp_path, trainer):
    run_search(tmp_path, 1)
    with pytest.raises(RunError, match=r"recipe has train.batch: 32, not 16; choose another --out"):
        run_search(tmp_path, 2, overrides=["train.batch=16"])
    with pytest.raises(RunError, match=r"space has train.mix: \['none', 'mixup'\], not \['none'\]"):
        run_search(tmp_path, 2, space=written(tmp_path, SMALL.replace(", mixup", "")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("")
    with pytest.raises(RunError, match="is no search"):
        search(make_recipe(BASE), written(tmp_path, SMALL), data=photos(tmp_path), out=tmp_path / "full", trials=1)
    with pytest.raises(RecipeError, match="--storage: cannot be used"):
        search(
            make_recipe(BASE),
            written(tmp_path, SMALL),
            data=photos(tmp_path),
            out=tmp_path / "s",
            trials=1,
            storage="nowhere",
        )


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"overrides": ["data.folds=all"]}, RecipeError, "holds nobody back"),
        ({"data": ""}, RecipeError, "no photos are named"),
        ({"data": "nowhere"}, DataError, "nowhere: no such folder"),
    ],
)
def test_without_photos_or_people_to_score_by_there_is_no_search(tmp_path, more, error, message):
    options = {"data": "x", **more, "out": tmp_path / "s", "trials": 1}
    with pytest.raises(error, match=message):
        search(make_recipe(BASE), written(tmp_path, SMALL), **options)
    assert not (tmp_path / "s").exists()


def test_lead_is_that_of_a_naive_loop():
    runs = [simulate(20, 3, seed=1), better(simulate(20, 3, seed=1), 0.3), better(simulate(20, 3, seed=1), 0.1)]
    names = np.unique(runs[0].persons)
    scores = [macro_f1(run.label, run.predicted) for run in runs]
    lasting = []
    for weights in np.concatenate(list(person_draws(runs[0].persons, 40, 3))):
        drawn = np.concatenate(
            [np.repeat(np.flatnonzero(runs[0].persons == n), int(w)) for n, w in zip(names, weights, strict=True)]
        )
        left = np.flatnonzero(np.isin(runs[0].persons, names[weights == 0]))
        inside, outside = ([macro_f1(r.label[rows], r.predicted[rows]) for r in runs] for rows in (drawn, left))
        lasting.append(outside[int(np.argmax(inside))] - np.mean(outside))
    assert lead(runs, draws=40, seed=3) == pytest.approx((max(scores) - np.mean(scores), np.mean(lasting)))


def test_the_lead_of_equal_classifiers_does_not_last_and_that_of_a_better_one_does():
    """Classifiers that are wrong at random on the same people, over a dozen such sets: the lead is gone on average."""
    truth = simulate(100, 3, seed=1)
    right = np.eye(18, dtype=np.float32)[truth.label]

    def noisy(rng, share):
        wrong = np.eye(18, dtype=np.float32)[rng.integers(0, 18, len(truth))]
        rows = rng.random(len(truth)) < share
        return replace(truth, probabilities=np.where(rows[:, None], wrong, right))

    sets = [[noisy(rng, 0.4) for _ in range(8)] for rng in map(np.random.default_rng, range(12))]
    seen, lasting = np.mean([lead(runs, draws=60) for runs in sets], axis=0)
    assert seen > 0.02 and abs(lasting) < 0.008
    seen, lasting = lead([*sets[0], noisy(np.random.default_rng(99), 0.2)], draws=60)
    assert seen > 0.1 and lasting == pytest.approx(seen, abs=0.03)


def test_optuna_is_not_asked_to_prune_what_is_unknown(tmp_path):
    study = optuna.create_study()
    (tmp_path / "split.csv").write_text("photo,person,fold\na,a,0\nb,b,1\nc,c,-1\n")
    trial = study.ask()
    module._judge(trial, tmp_path, 1, math.nan)
    module._judge(trial, tmp_path, 2, 0.1)  # the last fold: there is nothing left to save


def test_leads_are_of_runs_on_the_same_photos():
    with pytest.raises(DataError, match="two or more runs on the same photos"):
        lead([simulate(10, 2), simulate(11, 2)])
    assert np.isnan(lead([simulate(10, 2, known=(True, True, False))] * 2)).all()
