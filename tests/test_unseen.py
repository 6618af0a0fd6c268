"""Photos that are scored must be of people the run never saw; and what is kept of a score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_backend import FakeBackend
from fake_run import simulate, write_run
from helpers import contest

from threefold.errors import DataError, LeakError
from threefold.files import write_csv, write_text
from threefold.pages.decide_page import decide
from threefold.photos.prepare import Prepare
from threefold.read import reader
from threefold.read.predict import Predicted, predict
from threefold.runs import Run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two people to train with (14 photos), twelve to be scored, of a brightness each so that no two are alike."""
    return contest(tmp_path / "data", people=2, eval_people=12)


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose photos.csv lists the training photos, and whose network is a fake."""
    monkeypatch.setattr(reader, "open_run", lambda path: FakeBackend(Prepare(size=(16, 12))))
    fake_run = write_run(tmp_path / "run", simulate(20, 2))
    files = sorted((data / "train").rglob("*.jpg"))
    rows = [(f"train/{file.parent.name}/{file.name}", str(file), file.parent.name) for file in files]
    write_csv(fake_run.path / "photos.csv", [("photo", "path", "person"), *rows])
    return fake_run


def score(run: Run, data: Path, **options: object) -> Predicted:
    return predict([data / "eval"], run.path, answers=data / "eval/answers.csv", **options)  # type: ignore[arg-type]


def answers_of(files: list[Path], path: Path, person: str) -> Path:
    write_csv(path, [("ImageID", "ans", "person"), *((file.name, "0", person) for file in files)])
    return path


def some(data: Path, count: int) -> tuple[Path, list[Path]]:
    """A folder of a few of the eval photos, and those."""
    few = data / "few"
    few.mkdir()
    for photo in sorted((data / "eval/images").glob("*.jpg"))[:count]:
        shutil.copy(photo, few)
    return few, sorted(few.iterdir())


def test_people_it_never_saw_are_scored_without_a_word(run: Run, data: Path) -> None:
    done = score(run, data)
    assert done.score and done.warnings == ()


def test_a_photo_it_was_made_from_is_refused_whatever_its_name(run: Run, data: Path, tmp_path: Path) -> None:
    one = sorted((data / "train").rglob("*.jpg"))[3]
    again = tmp_path / "in/another name.jpg"
    again.parent.mkdir()
    shutil.copy(one, again)
    listed = answers_of([again], tmp_path / "answers.csv", "somebody")
    with pytest.raises(LeakError, match=rf"another name\.jpg is train/{one.parent.name}/{one.name} of .*photos\.csv"):
        predict([again.parent], run.path, answers=listed, out=tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists() and not (run.path / "eval.json").exists()
    assert predict([again.parent], run.path, out=tmp_path / "t.csv").photos == 1, "reading it is nobody's harm"


def test_extra_photos_and_names_that_both_sides_have_are_told(run: Run, data: Path, tmp_path: Path) -> None:
    few, photos = some(data, 2)
    listed = run.path / "photos.csv"
    write_text(listed, listed.read_text() + f"extra/a.jpg,{photos[0]},extra/a\nb.jpg,{tmp_path / 'gone.jpg'},same\n")
    answers = answers_of(photos, tmp_path / "answers.csv", "same")
    done = predict([few], run.path, answers=answers, out=tmp_path / "t.csv")
    assert len(done.warnings) == 2
    assert "1 of the 2 photos trained too (data.extra)" in done.warnings[0]
    assert "1 of the people" in done.warnings[1] and "('same')" in done.warnings[1]


def test_every_score_of_a_run_is_kept_and_not_lost_to_a_prediction_without_answers(run: Run, data: Path) -> None:
    predict([data / "eval"], run.path)
    assert not (run.path / "eval.json").exists() and (run.path / "test.npz").exists()
    few, photos = some(data, 5)
    answers = answers_of(photos, data / "five.csv", "one")
    predict([few], run.path, answers=answers, out=data / "t.csv")
    assert run.predictions("test").photos.tolist() == [photo.name for photo in photos]
    predict([data / "eval"], run.path)
    scored = run.predictions("test")
    assert len(scored) == 5 and (scored.label == 0).all(), "the scored ones are still there"
    score(run, data)
    assert len(run.predictions("test")) == 84


def test_decide_on_scored_photos_is_for_the_mean_of_the_networks(run: Run, data: Path) -> None:
    score(run, data)
    test = run.predictions("test")
    result = decide(run.path, on="test", rule="none").data()
    assert result["review"] == json.loads((run.path / "decision.json").read_text())["review"]
    assert (result["on"], result["photos"], result["persons"]) == ("test", len(test), 12)
    assert result["decision"]["temperature"] != decide(run.path, rule="none").data()["decision"]["temperature"]
    assert "12 people, scored eval photos" in str(decide(run.path, on="test", rule="none"))
    done = score(run, data)
    assert done.warnings and "decide --on test" in done.warnings[0]
    assert np.allclose(run.predictions("test").probabilities, test.probabilities), "kept as the networks gave them"
    assert score(run, data, plain=True).warnings == ()


def test_photos_that_are_nobodys_count_as_people_and_it_is_said(run: Run, data: Path) -> None:
    listed = data / "eval/answers.csv"
    write_text(listed, "\n".join(",".join(line.split(",")[:2]) for line in listed.read_text().splitlines()) + "\n")
    score(run, data)
    assert "! every photo counts as a person of its own" in str(decide(run.path, on="test", rule="none"))


def test_answers_that_are_not_of_these_photos_name_one_and_the_nearest(run: Run, data: Path, tmp_path: Path) -> None:
    few, photos = some(data, 2)
    one = answers_of(photos[:1], tmp_path / "one.csv", "a")
    with pytest.raises(
        DataError, match=rf"no answer for 1 photos, as '{photos[1].name}'; the nearest .*{photos[0].name}"
    ):
        predict([few], run.path, answers=one)
    more = answers_of([*photos, Path("x")], tmp_path / "more.csv", "a")
    with pytest.raises(DataError, match=r"1 of its ImageIDs are no photo here, as 'x'$"):
        predict([few], run.path, answers=more)


def test_photos_of_a_door_may_know_their_masks_only(run: Run, data: Path, tmp_path: Path) -> None:
    few, photos = some(data, 12)
    masks = ["worn", "none", "incorrect"] * 4
    rows = [(photo.name, f"p{row // 2}", masks[row]) for row, photo in enumerate(photos)]
    write_csv(tmp_path / "door.csv", [("file", "person", "mask"), *rows])
    done = predict([few], run.path, answers=tmp_path / "door.csv")
    assert done.score and done.score["mask"]["accuracy"]["value"] is not None
    assert done.score["age_group"]["accuracy"]["value"] is None and done.score["macro_f1"]["value"] is None
    test = run.predictions("test")
    assert set(test.truth[:, 0].tolist()) == {0, 1, 2} and set(test.truth[:, 1:].ravel().tolist()) == {-1}
    result = decide(run.path, on="test").data()
    assert result["decision"]["temperature"]["gender"] == 1 != result["decision"]["temperature"]["mask"]
