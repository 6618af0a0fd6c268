"""The main job as a user does it, on the real command line: train, predict, report, runs; kill it, resume it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import COMMAND, SHARED, TINY, contest, environment, square, threefold

from threefold.predictions import Predictions
from threefold.runs import Run

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "recipes" / "base.yaml"
SHORT = (
    *TINY,
    "train.epochs=3",
    "data.folds=3",
    "train.ema=0.9",
    "train.mix=cutmix(p=0.5)",
    "train.augment=flip|erase",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a practice set and a finished run."""
    home = tmp_path_factory.mktemp("job")
    contest(home / "data")
    threefold("train", BASE, "--data", "data", "--out", "runs/whole", *SHORT, cwd=home)
    return home


def test_a_run_holds_what_it_promises(home: Path) -> None:
    run = Run.open(home / "runs/whole")
    assert run.state == "complete"
    metrics = run.metrics
    assert (metrics["photos"], metrics["persons"]) == (84, 12)
    for name in ("macro_f1", "accuracy"):
        assert 0 <= metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"] <= 1
    for name in ("mask", "gender", "age_group"):
        assert set(metrics[name]) == {"accuracy", "macro_f1"}
    oof = Predictions.load(run.path / "oof.npz")
    assert len(oof) == 84 and set(oof.fold.tolist()) == {0, 1, 2}
    sides = {person: set(oof.fold[oof.persons == person].tolist()) for person in oof.persons.tolist()}
    assert all(len(folds) == 1 for folds in sides.values()), "a person is never on both sides"
    assert [row["epoch"] for row in run.log] == [1, 2, 3] * 3
    assert all(list((run.path / f"fold{k}").glob("events.*")) for k in range(3))
    assert run.recipe.data.source == "data" and run.stamp["seed"] == 0


def test_predict_writes_the_submission_in_the_contests_order_and_scores_it(home: Path) -> None:
    done = threefold("predict", "data/eval", "--model", "runs/whole", "--answers", "data/eval/answers.csv", cwd=home)
    assert done.stdout.startswith("macro F1 0.") and "written: runs/whole/submission.csv" in done.stdout
    with (home / "data/eval/info.csv").open() as info, (home / "runs/whole/submission.csv").open() as ours:
        wanted, rows = list(csv.DictReader(info)), list(csv.DictReader(ours))
    assert [row["ImageID"] for row in rows] == [row["ImageID"] for row in wanted]
    assert list(rows[0]) == ["ImageID", "ans"] and all(0 <= int(row["ans"]) < 18 for row in rows)
    score = json.loads((home / "runs/whole/eval.json").read_text())
    assert score["persons"] == 6 and score["photos"] == 42


def test_predict_on_files_and_folders_is_a_table(home: Path) -> None:
    folder = sorted((home / "data/train/images").iterdir())[0]
    done = threefold("predict", folder.relative_to(home), folder / "normal.jpg", "--model", "runs/whole", cwd=home)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 8
    assert list(rows[0]) == ["file", "face", "class", "mask", "gender", "age_group", "age", "confidence"]
    assert rows[-1]["file"] == str(folder / "normal.jpg")
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    threefold("predict", folder, "--model", "runs/whole", "--out", "out.csv", cwd=home)
    assert len((home / "out.csv").read_text().splitlines()) == 8


def test_prediction_of_a_validation_photo_is_what_validation_saw(home: Path) -> None:
    """One preprocessing: the run's fold networks, asked through predict's way, give the out-of-fold numbers."""
    from threefold.read.backends import open_run
    from threefold.read.reader import Reader

    run = home / "runs/whole"
    backend = open_run(run)
    oof = Predictions.load(run / "oof.npz")
    for fold in range(3):
        reader = Reader(type(backend)([backend.nets[fold]], backend.prepares[0]))
        part = oof.take(oof.fold == fold)
        readings = reader.read([home / "data/train" / photo for photo in part.photos.tolist()])
        probabilities = np.stack([reading.joint for reading in readings])
        assert np.allclose(probabilities, part.probabilities, atol=1e-5)


def test_report_and_runs(home: Path) -> None:
    assert "written: runs/whole/report.html" in threefold("report", "runs/whole", cwd=home).stderr
    page = (home / "runs/whole/report.html").read_text()
    assert "<img" in page and "http://" not in page.replace("http://www.w3.org", "")
    threefold("report", "runs/whole", "--no-photos", "--html", "plain.html", cwd=home)
    assert len((home / "plain.html").read_text()) < len(page)
    table = threefold("runs", "runs", cwd=home, COLUMNS="200").stdout
    assert "whole" in table and "complete" in table


@pytest.mark.parametrize("moment", ["fold0/last.pt", "fold1/best.safetensors", "fold2/prepare.json"])
def test_killed_for_real_and_resumed_it_ends_bit_identical(home: Path, moment: str) -> None:
    out = f"runs/cut-{moment.replace('/', '-')}"
    command = ["train", str(BASE), "--data", "data", "--out", out, *SHORT]
    process = subprocess.Popen(
        [*COMMAND, *command], cwd=home, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while not (home / out / moment).exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Run.open(home / out).state == "stopped"
    assert "--resume" in threefold("train", *command[1:], cwd=home, check=2).stderr, "a run is never overwritten"
    threefold(*command, "--resume", cwd=home)
    names = [
        "oof.npz",
        *(f"fold{k}/{name}" for k in range(3) for name in ("best.safetensors", "valid.npz", "prepare.json")),
    ]
    for name in (*names, "split.csv", "photos.csv", "recipe.yaml"):
        assert (home / out / name).read_bytes() == (home / "runs/whole" / name).read_bytes(), name
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in Run.open(home / run).log]
        for run in (out, "runs/whole")
    ]
    assert timeless[0] == timeless[1]


def test_resume_refuses_another_recipe_and_other_data(home: Path) -> None:
    same = ("train", BASE, "--data", "data", "--out", "runs/whole", "--resume")
    assert "is complete already" in threefold(*same, *SHORT, cwd=home).stderr
    changed = threefold(*same, *SHORT, "optim=sgd(lr=0.1)", cwd=home, check=2).stderr
    assert "--resume with optim='sgd(lr=0.1)', but the run was started with" in changed


def test_typos_are_refused_before_torch_is_imported(home: Path) -> None:
    (home / "space.yaml").write_text("train.mix: [none, cutmx]\n")
    data = ["--data", "contest:data", "--out", "new"]
    commands = [
        ["train", "nope.yaml", *data],
        ["train", "base", "train.epohs=3", *data],
        ["train", "base", "train.mix=cutmx", *data],
        ["train", "base", "optim=adamw(lrr=1)", *data],
        ["train", "base", "--data", "csv:nowhere"],
        ["train", "base", "--data", "contest:data", "--out", "runs/whole"],
        ["train", "base", "--seeds", "2", "--data", "contest:data", "--out", "runs"],
        ["ablate", "base", "train.mix=cutmx", *data],
        ["ablate", "base", "data.extra=csv:nowhere", *data],
        ["search", "base", "space.yaml", *data],
        ["pseudo", "nowhere", "data/eval/images"],
        ["pseudo", "runs/whole", "data/eval/images", "train.mix=cutmx"],
        ["show", "base", "train.mix=cutmx", *data],
        ["show", "base", "--data", "csv:nowhere"],
        ["train", "base", "data.patches=nowhere.csv", *data],
        ["train", "base", "data.folds=nowhere.csv", *data],
        ["train", "base", "data.train_cuts=30", *data],
    ]
    code = f"""
import sys
from threefold.cli import main
for command in {commands!r}:
    sys.argv[1:] = command
    try:
        main()
    except SystemExit as stop:
        print(stop.code, sorted({{"torch", "timm", "kornia"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment(home), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["2 []"] * len(commands), done.stderr
    assert len(done.stderr.splitlines()) == len(commands) and not (home / "new").exists()


def test_holdout_and_all_people(home: Path) -> None:
    """A fifth held out, then one network on everybody; and everybody alone, without a score."""
    one = (*TINY, "train.epochs=1")
    threefold(
        "train",
        BASE,
        "--data",
        "data",
        "--out",
        "runs/half",
        *one,
        "data.folds=holdout(0.4)",
        "train.final=true",
        cwd=home,
    )
    metrics = Run.open(home / "runs/half").metrics
    assert 0 < metrics["persons"] < 12 and (home / "runs/half/final/best.safetensors").exists()
    done = threefold("train", BASE, "--data", "data", "--out", "runs/all", *one, "data.folds=all", cwd=home)
    assert "no validation" in done.stdout
    threefold("predict", "data/eval", "--model", "runs/all", cwd=home)
    threefold("report", "runs/all", cwd=home)
    assert "all" in threefold("runs", "runs", cwd=home).stdout


def test_a_given_split_is_used_and_a_leaking_one_refused(home: Path) -> None:
    split = home / "runs/whole/split.csv"
    threefold(
        "train", BASE, "--data", "data", "--out", "runs/given", *TINY, "train.epochs=1", f"data.folds={split}", cwd=home
    )
    assert (home / "runs/given/split.csv").read_bytes() == split.read_bytes()
    lines = split.read_text().splitlines()
    photo, person, fold = lines[1].split(",")
    lines[1] = f"{photo},{person},{(int(fold) + 1) % 3}"
    (home / "leak.csv").write_text("\n".join(lines) + "\n")
    leak = threefold(
        "train", BASE, "--data", "data", "--out", "runs/leak", *TINY, "data.folds=leak.csv", cwd=home, check=2
    )
    assert "both sides" in leak.stderr and person in leak.stderr and not (home / "runs/leak").exists()


@pytest.mark.skipif(not SHARED.exists(), reason="the development photos are not here")
def test_sets_that_know_different_things_train_together(home: Path, tmp_path: Path) -> None:
    """Ages from one set, masks from another (a few photos of each): every attribute is scored where it is known."""
    for name, count in (("aaf", 40), ("masks_real", 60)):
        lines = (SHARED / name / "labels.csv").read_text().splitlines()
        rows = lines[1 : 1 + count * 20 : 20]
        (tmp_path / name).mkdir()
        (tmp_path / name / "images").symlink_to(SHARED / name / "images")
        (tmp_path / name / "labels.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    threefold(
        "train",
        BASE,
        "--data",
        "csv:aaf,csv:masks_real",
        "--out",
        "run",
        *TINY,
        "train.epochs=1",
        "data.folds=2",
        cwd=tmp_path,
    )
    metrics = Run.open(tmp_path / "run").metrics
    assert metrics["known"] == {"all": 40, "mask": 100, "gender": 40, "age_group": 40}
    assert metrics["mask"]["accuracy"]["value"] is not None


def test_the_verbs_are_functions_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the README, with plain strings for paths."""
    import threefold as tf

    monkeypatch.setenv("THREEFOLD_CACHE", str(home / "cache"))
    short = [*TINY, "train.epochs=1", "data.folds=2"]
    run = tf.train(str(BASE), data=str(home / "data"), out=str(home / "runs/api"), overrides=short)
    assert run.state == "complete" and "<h1>api</h1>" in tf.report(str(run.path)).page()
    photo = next((home / "data/eval/images").glob("*.jpg"))
    reading = tf.load(str(run.path))(str(photo))
    assert reading.mask in ("worn", "incorrect", "none") and 0 < reading.confidence <= 1
    done = tf.predict([str(home / "data/eval")], str(run.path), answers=str(home / "data/eval/answers.csv"))
    assert done.score is not None and done.readings[photo.name].code == reading.code
    faces = tf.read_faces(home / "data")
    folds = tf.deal_folds(faces, 3, seed=1)
    assert len(faces) == len(folds) == 84
    oof = tf.Predictions.load(run.path / "oof.npz")
    assert tf.macro_f1(oof.label, oof.predicted) == pytest.approx(run.metrics["macro_f1"]["value"])


def test_face_boxes_of_the_source_are_used_and_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on face crops gives its out-of-fold numbers again when the boxes come along."""
    import threefold as tf

    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    rows = ["file,person,gender,age,mask,left,top,right,bottom"]
    for i in range(24):
        square(i, i % 3, i % 2, i // 2 % 3, 0, (80, 64)).save(tmp_path / f"{i}.jpg", quality=95)
        gender, age, mask = ("male", "female")[i % 2], (22, 44, 66)[i // 2 % 3], ("worn", "incorrect", "none")[i % 3]
        box = f"{5 + i % 4},{8 + i % 5},{45 + i % 6},{60 + i % 7}"
        rows.append(f"{i}.jpg,p{i},{gender},{age},{mask},{box}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    short = [*TINY, "train.epochs=1", "data.folds=2", "prepare.crop=face(1.2)"]
    run = tf.train(BASE, data=f"csv:{tmp_path}", out=tmp_path / "run", overrides=short)
    oof, faces = tf.Predictions.load(run.path / "oof.npz"), tf.read_faces(f"csv:{tmp_path}")
    reader = tf.load(run.path)
    fold0 = tf.Reader(type(reader.backend)([reader.backend.nets[0]], reader.backend.prepares[0]))
    part = oof.align([face.id for face in faces])
    for row, face in enumerate(faces):
        if part.fold[row] == 0:
            assert np.allclose(fold0(face.photo, face.box).joint, part.probabilities[row], atol=1e-5)
