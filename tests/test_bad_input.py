"""What a stranger does wrong, on the real command line: one line that names it, exit code 2, nothing half-written."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import COMMAND, TINY, contest, environment, refused, square, threefold
from PIL import Image

from threefold.cli import main
from threefold.errors import DataError
from threefold.train.train import train

BASE = Path(__file__).resolve().parents[1] / "recipes" / "base.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("wrong")
    contest(home / "data")
    threefold("train", BASE, "--data", "data", "--out", "run", *TINY, "train.epochs=1", "data.folds=2", cwd=home)
    return home


def files(folder: Path) -> set[str]:
    """All files below a folder but the cache."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "recipes/base.yml", "--data", "data"), "no such recipe"),
        (("train", BASE.parent / "bas.yaml", "--data", "data"), "nearest: base.yaml"),
        (("train", BASE, "--data", "dat", "--out", "x"), "nearest: data"),
        (("train", BASE, "--data", "data", "train.epoch=3"), "unknown key 'train.epoch'"),
        (("train", BASE, "--data", "data", "train.epochs=many"), "train.epochs cannot be 'many'"),
        (("train", BASE, "--data", "data", "model.head=mult"), "nearest: multi"),
        (("train", BASE, "--data", "data", "loss.age=ce(smoothin=0.1)"), "nearest: smoothing"),
        (("train", BASE, "--data", "data", "train.mix=cutmx"), "nearest: cutmix"),
        (("train", BASE, "--data", "data", "optim=adamw(lr=fast)"), "adamw(lr=...) cannot be 'fast'"),
        (("train", BASE, "--data", "data", "schedule=cosine(warmup=2)"), "warmup cannot be 2"),
        (("train", BASE, "--data", "data", "prepare.size=big"), "expected height x width like 128x96"),
        (("train", BASE, "--data", "data", "prepare.crop=center(3,3)"), "nearest: centre"),
        (("train", BASE, "--data", "data", "prepare.normalise=imagenett"), "nearest: imagenet"),
        (("train", BASE, "--data", "data", "model.backbone=resnet1888"), "timm has no 'resnet1888'"),
        (("train", BASE, "--data", "data", "--out", "x", "data.folds=1", *TINY), "folds"),
        (("train", BASE, "--data", "data", "--out", "x", "data.folds=40", *TINY), "folds"),
        (("train", BASE, "--data", "data", "--out", "x", "data.folds=holdot(0.2)", *TINY), "holdot"),
        (("train", BASE, "--data", "data", "--out", "x", *TINY, "model.pretrained=registry"), "no registry package"),
        (("train", BASE, "--data", "data", "train.device=gpu"), "train.device: 'gpu' is not one of"),
        (("train", BASE, "--data", "data", "--out", "x", *TINY, "prepare.crop=face(9)"), "must be from 0.5 to 3"),
        (("train", BASE, "--data", "data", "prepare.background=blur"), "known: keep, segment"),
        (("train", BASE, "--data", "data", "data.train_cuts=60,30"), "data.train_cuts: '60,30'"),
        (("train", BASE, "--data", "data", "data.drop_ages=57-"), "data.drop_ages"),
        (("train", BASE, "--data", "data", "--out", "x", *TINY, "data.patches=no.csv"), "no.csv"),
        (("train", BASE, "--data", "data", "track=wandbb"), "nearest: wandb"),
        (("train", BASE, "--data", "data", "parts.face.optim=sgd"), "known: age, gender, mask"),
        (("train", BASE, "--data", "data", "loss.age=l1"), "does not fit the output age"),
        (("ensemble", "runs/a", "runs/b", "--out", "e"), "no such run"),
        (("pseudo", "runs/a", "data", "--out", "e"), "no such run"),
        (("search", BASE, "space.yaml", "--data", "data"), "space.yaml"),
        (("show", BASE, "--data", "nowhere"), "nowhere"),
        (("assets", "yunett"), "yunett"),
        (("train", BASE, "--out", "x"), "give --data"),
        (("train", BASE, "--data", "cvs:data"), "csv"),
        (("predict", "data/eval", "--model", "rnu"), "nearest: run"),
        (("predict", "data/evil", "--model", "run"), "nearest: data/eval"),
        (("predict", "--model", "run"), "inputs"),
        (("predict", "data/eval", "--model", "data"), "not a run directory"),
        (("predict", "data/eval", "--model", "run", "--answers", "data/train/train.csv"), "no column 'imageid'"),
        (("report", "rnu"), "no such run"),
        (("runs", "nowhere"), "no such folder of runs"),
        (("check", "dta"), "nearest: data"),
        (("sample", "data"), "already there"),
        (("sample", "fresh", "--people", "2"), "people 2: expected 6"),
        (("synth", "contest:data", "fresh", "--people", "3"), "no landmarks"),
        (("chekc", "data"), "Did you mean 'check'"),
        (("check", "data", "--jsn"), "--jsn"),
    ],
)
def test_one_line_that_names_it(
    home: Path,
    words: tuple[object, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command's own `main`, here in this process: starting Python and torch anew would take most of the time."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("THREEFOLD_CACHE", str(home / "cache"))
    monkeypatch.setattr("sys.argv", ["threefold", *map(str, words)])
    before = files(home)
    with pytest.raises(SystemExit) as end:
        main()
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert (end.value.code, output.out) == (2, ""), output
    assert lines[-1].startswith("threefold: ") and message in lines[-1]
    assert all("Error" not in line and not line.startswith("threefold: ") for line in lines[:-1])
    assert files(home) == before, "nothing was written"


def test_the_same_as_a_process_of_its_own(home: Path) -> None:
    assert "nearest: data" in refused("check", "dta", cwd=home)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of photos as they come: most odd but readable, five that are not."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = square(1, 0, 1, 1, 0, (128, 96))
    photo.save(folder / "good.jpg")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    photo.save(folder / "animated.gif", save_all=True, append_images=[photo.rotate(90)])
    photo.save(folder / "png_inside.jpg", format="PNG")
    data = (folder / "good.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("this is no photo")
    (folder / "empty.jpg").write_bytes(b"")
    header = bytearray((folder / "grey.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # a PNG that says it has 3.6 gigapixels
    (folder / "huge.png").write_bytes(bytes(header))
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


def test_odd_photos_are_read_and_broken_ones_listed_at_the_end(home: Path, broken: Path) -> None:
    done = threefold("predict", broken, "--model", "run", cwd=home, check=1)
    rows = {row["file"] for row in csv.DictReader(done.stdout.splitlines())}
    assert rows == {"good.jpg", "grey.png", "cmyk.jpg", "rotated.jpg", "animated.gif", "png_inside.jpg"}
    for name in ("truncated.jpg", "text.jpg", "empty.jpg", "huge.png"):
        assert name in done.stderr
    only = threefold("predict", broken / "text.jpg", "--model", "run", cwd=home, check=1)
    assert "text.jpg" in only.stderr and "not" in only.stderr


def test_training_refuses_broken_photos_and_check_lists_them(home: Path, tmp_path: Path) -> None:
    data = contest(tmp_path / "data", people=6, eval_people=0)
    victims = sorted((data / "train/images").rglob("mask1.jpg"))[:2]
    victims[0].write_bytes(victims[0].read_bytes()[:300])
    victims[1].write_text("hello")
    message = refused("train", BASE, "--data", data, "--out", "run", *TINY, cwd=tmp_path)
    assert "2" in message and "mask1.jpg" in message and "check" in message
    assert not (tmp_path / "run").exists()
    listed = threefold("check", data, "--json", cwd=tmp_path, check=1)
    assert all(str(victim) in listed.stdout for victim in victims)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,person,gender\na.jpg,p,mal\n", "nearest: male"),
        ("file,person,age\na.jpg,p,old\n", "line 2"),
        ("file,person,age\na.jpg,p,150\n", "age"),
        ("person,gender\np,male\n", "no column 'file'"),
        ("file,person,mask\nmissing.jpg,p,worn\n", "missing.jpg"),
        ("file,person,mask\na.jpg,p,wron\n", "nearest: worn"),
        ("", "file"),
        ("file|person|gender\na.jpg|p|male\n", "no column 'file'"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, table: str, message: str) -> None:
    square(1, 0, 0, 0, 0).save(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError) as caught:
        train(BASE, data=f"csv:{tmp_path}", out=tmp_path / "run", overrides=TINY)
    line = str(caught.value)
    assert message in line and ("labels.csv" in line or "missing.jpg" in line) and "\n" not in line
    assert not (tmp_path / "run").exists()


def test_a_submission_is_whole_or_not_written(home: Path, tmp_path: Path) -> None:
    data = contest(tmp_path / "data", people=0, eval_people=2)
    photo = next((data / "eval/images").glob("*.jpg"))
    photo.write_bytes(photo.read_bytes()[:200])
    assert photo.name in refused("predict", data / "eval", "--model", home / "run", "--out", "s.csv", cwd=tmp_path)
    photo.unlink()
    assert photo.name in refused("predict", data / "eval", "--model", home / "run", "--out", "s.csv", cwd=tmp_path)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_line_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    """A real disk of 128 kB: the run, the practice set and the cache each fail on it in words."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        message = refused("sample", disk / "set", "--people", "6", cwd=tmp_path)
        assert "No space left" in message and str(disk / "set") in message
        assert not list(disk.iterdir())
        train = ("train", BASE, "--data", home / "data", *TINY, "train.epochs=1", "data.folds=2")
        message = refused(*train, "--out", disk / "run", cwd=tmp_path)
        assert "No space left" in message
        (disk / "cache").mkdir()
        done = threefold(*train, "--out", "run2", cwd=tmp_path, check=2, THREEFOLD_CACHE=str(disk / "cache"))
        assert "disk is full" in done.stderr or "free" in done.stderr
        assert not (tmp_path / "run2").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_closed_pipe_is_no_fault(home: Path) -> None:
    command = " ".join([*COMMAND, "check", "data", "--json"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 1"],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{\n" and "Traceback" not in done.stderr


def test_without_torch_training_says_what_to_install(home: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['threefold', 'predict', 'data/eval', '--model', 'run'];"
        "from threefold.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install '.[train]'" in done.stderr and "Traceback" not in done.stderr
