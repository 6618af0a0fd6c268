"""Pseudo labels: which photos are taken, what never is, and that the user's folder stays as it was."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from fake_backend import FakeBackend
from fake_run import simulate, write_run
from helpers import TINY, contest, square
from PIL import Image

from threefold import labels, progress
from threefold.data.sources import read_faces
from threefold.errors import DataError, RecipeError, RunError
from threefold.photos.prepare import Prepare
from threefold.read.reader import Reader
from threefold.runs import run_folders
from threefold.train import pseudo as module
from threefold.train import single
from threefold.train.pseudo import pseudo

TEXTS = dict(text.split("=", 1) for text in TINY)


class Sure(FakeBackend):
    """The class by brightness as the fake one; the redder a photo, the surer."""

    def __call__(self, photos):
        joint = super().__call__(photos)[0]
        red = photos[0][..., 0].mean((1, 2)) / 255
        code = joint.argmax(1)
        joint[:] = ((1 - red) / 17)[:, None]
        joint[np.arange(len(code)), code] = red
        return joint, None


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A teacher, its labelled photos, and a folder of unlabelled ones: 9 of two classes, one of them no photo."""
    contest(tmp_path / "data", people=4, eval_people=0)
    write_run(tmp_path / "teacher", simulate(12, 2), recipe={**TEXTS, "data.source": str(tmp_path / "data")})
    (tmp_path / "new/sub").mkdir(parents=True)
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 12, (80, 64, 3))
        for name, blue in ((f"{n}.png", 0), (f"sub/{n}.png", 200)):
            photo = (noise + np.array([230 + n, 30, blue])).clip(0, 255).astype(np.uint8)
            Image.fromarray(photo).save(tmp_path / "new" / name)
    (tmp_path / "new/x.jpg").write_text("no photo")
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "load", lambda path, **_: Reader(Sure(Prepare(size=(32, 24)))))
    monkeypatch.setattr(single, "train_run", lambda recipe, out, resume: (recipe, {"out": out, "resume": resume}))
    return tmp_path


def listed(home, name="out.pseudo"):
    with (home / name / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def confidences(home):
    reader = Reader(Sure(Prepare(size=(32, 24))))
    paths = sorted((home / "new").rglob("*.png"))
    return {f"photos/{path.relative_to(home / 'new').as_posix()}": reader(path) for path in paths}


def test_the_sure_photos_are_a_source_that_train_can_read(home):
    before = files(home / "new")
    truth = confidences(home)
    least = sorted(reading.confidence for reading in truth.values())[3]
    recipe, options = pseudo(home / "teacher", home / "new", out=home / "out", confidence=least, overrides=["seed=7"])
    assert recipe.seed == 7 and recipe.model.backbone == "test_efficientnet" and options["out"] == home / "out"
    assert recipe.baseline == "../teacher" and "is sure of" in recipe.hypothesis
    faces = {face.person: face for face in read_faces(recipe.data.extra)}
    assert set(faces) == {name for name, reading in truth.items() if reading.confidence >= least} and len(faces) == 6
    for name, face in faces.items():
        assert face.label == truth[name].code and face.photo.is_file() and face.age is None
    assert files(home / "new") == before, "nothing is written into the folder of photos"
    note = json.loads((home / "out.pseudo/pseudo.json").read_text())
    assert (note["read"], note["unreadable"], note["copies"], note["used"]) == (8, 1, 0, 6)
    assert [folder.name for folder in run_folders(home)] == ["teacher"]


def test_the_limit_is_per_class_and_takes_the_surest(home):
    truth = confidences(home)
    assert {reading.code for reading in truth.values()} == {6, 11}
    pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.5, limit=2)
    files = {row["file"] for row in listed(home)}
    for code in (6, 11):
        ranked = sorted((n for n in truth if truth[n].code == code), key=lambda n: -truth[n].confidence)
        assert {name for name in files if truth[name].code == code} == set(ranked[:2])


def test_a_copy_of_a_labelled_photo_is_left_out(home, monkeypatch):
    """Brighter, resized, mirrored, under another name: its person may validate."""
    messages = []
    monkeypatch.setattr(progress, "say", messages.append)
    photo = square(1, 0, 1, 0, 0)
    photo.resize((96, 120)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "new/copy.png")
    pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.01)
    assert "photos/copy.png" not in {row["file"] for row in listed(home)}
    assert len(listed(home)) == 8
    labelled, honesty = messages[-2:]
    assert labelled.startswith("8 of 10 photos are labelled")
    assert labelled.endswith("1 copies of labelled photos, 1 that cannot be read")
    assert "errs on the high side" in honesty


def test_a_second_round_replaces_the_first_and_keeps_what_the_user_gave(home):
    (home / "more/worn").mkdir(parents=True)
    square(9, 0, 0, 0, 0).save(home / "more/worn/a.png")
    mine = f"data.extra=folders:{home / 'more'}"
    first, _ = pseudo(home / "teacher", home / "new", out=home / "one", confidence=0.5, overrides=[mine])
    write_run(home / "student", simulate(12, 2), recipe=first.flat())
    second, _ = pseudo(home / "student", home / "new", out=home / "two", confidence=0.5)
    assert second.data.extra == f"folders:{home / 'more'},csv:{home / 'two.pseudo'}"


def test_resume_goes_on_with_the_labels_as_they_were(home, monkeypatch):
    first, _ = pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.5)
    monkeypatch.setattr(module, "load", lambda path, **_: pytest.fail("reads again"))
    again, options = pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.5, resume=True)
    assert again == first and options["resume"]
    with pytest.raises(RunError, match=r"--resume with confidence 0.6, but the labels were made with 0.5"):
        pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.6, resume=True)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"confidence": 0.999}, DataError, r"no photo reaches confidence 0.999, the surest has 0.9"),
        ({"confidence": 0}, RecipeError, "expected above 0 up to 1"),
        ({"confidence": 95}, RecipeError, "expected above 0 up to 1"),
        ({"limit": 0}, RecipeError, "and 1 or more"),
        ({"inputs": "gone"}, DataError, "gone: no such folder"),
        ({"inputs": "new/0.png"}, DataError, "expected a folder of photos"),
        ({"run": "data"}, RunError, "not a run directory"),
        ({"out": "teacher"}, RunError, "already there"),
        ({"overrides": ["train.epoch=3"]}, RecipeError, r"nearest: train\.epochs"),
        ({"overrides": ["optim=adamx"]}, RecipeError, "optim"),
    ],
)
def test_what_cannot_be_leaves_nothing_behind(home, options, error, match):
    places = {"run": "teacher", "inputs": "new", "out": "out"}
    run, inputs, out = (home / options.get(key, name) for key, name in places.items())
    more = {key: value for key, value in options.items() if key not in places}
    with pytest.raises(error, match=match):
        pseudo(run, inputs, out=out, **more)
    assert not list(home.glob("*.pseudo")) and not (home / "out").exists()


def test_the_labels_are_the_names_that_a_csv_source_knows(home):
    pseudo(home / "teacher", home / "new", out=home / "out", confidence=0.5)
    for row in listed(home):
        code = confidences(home)[row["file"]].code
        assert tuple(labels.parse(name, row[name]) for name in labels.ATTRIBUTES) == labels.decode(code)
