"""The table of `predict`: formats, columns, broken photos, videos, copies with boxes, and what a killed run leaves."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_faces import frame_faces, photo_with
from fake_backend import FakeBackend
from helpers import contest
from numpy.typing import NDArray
from PIL import Image
from test_inputs import video

from threefold import labels
from threefold.errors import DataError
from threefold.files import lock
from threefold.photos import detect
from threefold.photos.prepare import Prepare
from threefold.read import lines as lines_module
from threefold.read import predict as predict_module
from threefold.read.backends import Answer
from threefold.read.lines import Spool, spool
from threefold.read.output import Table
from threefold.read.predict import Predicted, predict
from threefold.read.reader import Reader

PLAIN = "file,face,class,mask,gender,age_group,age,confidence"


class Aged(FakeBackend):
    """Years by brightness as well; counts what it was asked."""

    asked = 0

    def __call__(self, photos: tuple[NDArray[np.uint8], ...]) -> Answer:
        Aged.asked += len(photos[0])
        return super().__call__(photos)[0], photos[0].mean((1, 2, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model file that opens as a fake around faces, and the detector of red frames."""
    monkeypatch.setattr(detect, "detect", lambda image, far=False: frame_faces(image))
    backend = Aged(Prepare(size=(16, 16), crop="face(1.4)"))
    monkeypatch.setattr(predict_module, "load", lambda model, decision: Reader(backend, batch=4))
    Aged.asked = 0
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two faces, none, one small one, and five of one face each; a broken one is not among them."""
    root = tmp_path / "in"
    (root / "b").mkdir(parents=True)
    for name, photo in {
        "a.png": photo_with((10, 10, 60, 70), (100, 20, 180, 110)), "b/none.png": photo_with(),
        "b/small.png": photo_with((10, 10, 30, 40)),
        **{f"c{i}.png": photo_with((30, 30, 80 + i, 90 + i), shade=40 * i) for i in range(5)},
    }.items():  # fmt: skip
        Image.fromarray(photo).save(root / name)
    return root


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def first_line(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text().splitlines()[0]))


def test_the_default_table_has_the_largest_face_of_each_photo(folder: Path, model: Path, tmp_path: Path) -> None:
    done = predict([folder], model, out=tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == PLAIN
    rows = table(tmp_path / "t.csv")
    assert [row["file"] for row in rows] == [  # folder by folder
        "a.png", "c0.png", "c1.png", "c2.png", "c3.png", "c4.png", "b/none.png", "b/small.png"]  # fmt: skip
    assert rows[-1]["mask"] == "indeterminate" and rows[-1]["age"] == "" and rows[-1]["class"]
    assert (done.photos, done.faces, done.done, done.score) == (8, 8, 8, None) and done.seconds > 0
    assert done.indeterminate == dict.fromkeys(labels.ATTRIBUTES, 1)
    assert list(done.readings) == [row["file"] for row in rows]
    assert [f"{r.confidence:.4f}" for r in done.readings.values()] == [row["confidence"] for row in rows]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [], "nothing is left beside it"


def test_all_faces_with_boxes_and_probabilities_in_three_formats(folder: Path, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    wanted: dict[str, Any] = {"faces": "all", "boxes": True, "probabilities": True}
    done = [predict([folder], model, out=tmp_path / f"t{end}", **wanted) for end in (".csv", ".jsonl", ".parquet")]
    assert {(d.photos, d.faces) for d in done} == {(8, 8)}, "two in one photo, none in another"
    rows = table(tmp_path / "t.csv")
    more = [",left,top,right,bottom,score,quality", *(f"p{code:02d}" for code in range(18))]
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == PLAIN + ",".join(more)
    first, second = rows[:2]
    assert [first[name] for name in ("file", "face", "left", "right", "quality")] == [
        "a.png",
        "0",
        "100.0",
        "180.0",
        "ok",
    ]
    assert (second["file"], second["face"], second["right"], second["score"]) == ("a.png", "1", "60.0", "0.9000")
    assert first[f"p{int(first['class']):02d}"] == first["confidence"] == "0.8300"
    objects = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [(s["file"], str(s["face"]), s["mask"]) for s in objects] == [
        (r["file"], r["face"], r["mask"]) for r in rows
    ]
    assert objects[0]["box"] == [100.0, 20.0, 180.0, 110.0] and len(objects[0]["probabilities"]["classes"]) == 18
    parquet_rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    for row, cells in zip(parquet_rows, rows, strict=True):
        assert list(row) == list(cells)
        for name, value in row.items():
            text = "" if value is None else str(value) if not isinstance(value, float) else cells[name]
            assert text == cells[name] and (not isinstance(value, float) or abs(value - float(text)) < 1e-9)
    predict([folder], model, out=tmp_path / "short.jsonl")
    assert not {"box", "score", "quality", "probabilities"} & set(first_line(tmp_path / "short.jsonl"))


def test_an_entrance_is_told_of_masks_alone(folder: Path, model: Path, tmp_path: Path) -> None:
    predict([folder], model, out=tmp_path / "t.csv", attributes=["mask"], probabilities=True)
    text = (tmp_path / "t.csv").read_text()
    assert text.startswith("file,face,mask,confidence,mask_worn,mask_incorrect,mask_none\n")
    assert "male" not in text and "30-59" not in text
    assert Table(("mask", "age_group")).columns == ("file", "face", "mask", "age_group", "age", "confidence")


def test_what_is_written_as_it_is_read_is_the_same_table(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    done = predict([folder], model, write=written.append)
    assert done.out is None and len(done.readings) == 8
    predict([folder], model, out=tmp_path / "t.csv")
    assert "".join(written) == (tmp_path / "t.csv").read_text() and len(written) == 9, "photo by photo"
    assert capsys.readouterr() == ("", ""), "a library call prints nothing"


def test_a_table_holds_no_more_readings_than_it_says(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_module, "KEPT", 7)
    assert predict([folder], model, write=len).readings == {}
    assert len(predict([folder], model).readings) == 8, "nothing else would have them"
    monkeypatch.setattr(predict_module, "KEPT", 8)
    assert len(predict([folder], model, write=len).readings) == 8


def test_broken_photos_are_listed_at_the_end_and_stop_nothing(folder: Path, model: Path, tmp_path: Path) -> None:
    (folder / "b.png").write_text("no photo")
    done = predict([folder], model, out=tmp_path / "t.csv")
    assert done.failure == "1 of 9 photos could not be read, the others were"
    (message,) = done.broken
    assert "b.png: not an image" in message and f"! {message}" in done.lines()
    assert len(table(tmp_path / "t.csv")) == 8 and json.loads(done.json())["broken"] == [message]


class Killed(BaseException):
    """What a kill is to the code: nothing it could catch."""


def killed(monkeypatch: pytest.MonkeyPatch, after: int, *args: Any, **kwargs: Any) -> None:
    """Run predict and kill it after so many photos."""
    whole = lines_module.read_lines

    def dying(*a: Any, **k: Any) -> Iterator[Any]:
        for i, line in enumerate(whole(*a, **k)):
            if i == after:
                raise Killed
            yield line

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(predict_module, "read_lines", dying)
        predict(*args, **kwargs)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("after", [1, 5, 8])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, after: int
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    (folder / "b.png").write_text("no photo")
    wanted: dict[str, Any] = {"faces": "all", "boxes": True, "probabilities": True}
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"t{suffix}"
    broken = predict([folder], model, out=whole, **wanted).broken
    killed(monkeypatch, after, [folder], model, out=out, **wanted)
    partial = tmp_path / f".t{suffix}.partial"
    assert not out.exists() and len(partial.read_bytes().splitlines()) == after + 1
    with partial.open("ab") as file:
        file.write(b'{"file": "c9')  # it died while it wrote
    Aged.asked = 0
    again = predict([folder], model, out=out, resume=True, **wanted)
    assert out.read_bytes() == whole.read_bytes() and not partial.exists()
    assert len(broken) == 1 and again.broken == broken, "also what was broken before the kill is listed"
    assert Aged.asked < 8, "what was read is not read again"


def test_a_run_killed_while_it_writes_the_table_has_only_that_to_do(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Table, "write", dying)
        predict([folder], model, out=tmp_path / "t.csv")
    Aged.asked = 0
    done = predict([folder], model, out=tmp_path / "t.csv", resume=True)
    assert (done.photos, done.done, Aged.asked) == (8, 0, 0) and len(table(tmp_path / "t.csv")) == 8


def test_resume_of_something_else_is_refused_in_a_line(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.csv"
    killed(monkeypatch, 3, [folder], model, out=out)
    spooled = (tmp_path / ".t.csv.partial").read_bytes()

    def refused(message: str, **more: Any) -> None:
        with pytest.raises(DataError, match=message) as caught:
            predict([folder], model, out=out, **{"resume": True, **more})
        assert "\n" not in str(caught.value) and (tmp_path / ".t.csv.partial").read_bytes() == spooled

    refused(r"t\.csv: an earlier run read 3 photos .*--resume goes on, or delete .*partial", resume=False)
    refused("--resume with faces 'all', but it was started with None", faces="all")
    refused("--resume with probabilities True", probabilities=True)
    refused("--resume with attributes", attributes=["mask"])
    refused("--resume with every 2.0", every=2.0)
    model.write_bytes(b"two")
    refused("--resume with model")
    model.write_bytes(b"one")
    (folder / "c0.png").rename(folder / "c00.png")
    refused(r"the photos are others than before \(there was 'c0.png', there is 'c00.png'\)")
    (folder / "c00.png").rename(folder / "c0.png")
    with lock(tmp_path / ".t.csv.partial.lock"):
        refused("is being written by another process")
    done = predict([folder], model, out=out, resume=True, boxes=True)
    assert done.photos == 8 and done.done == 5 and done.readings == {}, "boxes are kept whether asked for or not"
    assert "left" in table(out)[0] and predict([folder], model, out=out, resume=True).done == 8


def test_a_damaged_spool_is_refused(tmp_path: Path) -> None:
    about = {"model": "m", "attributes": ["mask"], "probabilities": False}
    (tmp_path / ".t.csv.partial").write_bytes(json.dumps({"format": 1, **about}).encode() + b"\n\x00\x00\n")

    def opened() -> Iterator[Spool]:
        with spool(tmp_path / "t.csv", about, resume=True) as stored:
            yield stored

    with pytest.raises(DataError, match="is damaged; delete it"):
        list(next(opened()).earlier())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "t.xlsx"}, r"cannot be written as '.xlsx' \(known: .csv, .jsonl, .parquet"),
        ({"out": "t"}, "a file without extension"),
        ({"faces": "every"}, "'every' is not known"),
        ({"attributes": ["msk"]}, "nearest: mask"),
        ({"resume": True}, "name it with --out"),
        ({"annotate": "in/copies"}, "annotated copies need a folder of their own"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match=message):
        predict([folder], model, **options)
    assert Aged.asked == 0


def test_parquet_without_pyarrow_is_a_line(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow \(from a checkout `pip install '.\[parquet\]'`"):
        predict([folder], model, out="t.parquet")


def test_copies_show_boxes_and_keep_their_places(folder: Path, model: Path, tmp_path: Path) -> None:
    Image.fromarray(photo_with((30, 30, 90, 99))).save(folder / "b" / "x.webp")
    done = predict([folder], model, out=tmp_path / "t.csv", annotate=tmp_path / "copies", faces="all")
    copies = sorted(path.relative_to(tmp_path / "copies").as_posix() for path in (tmp_path / "copies").rglob("*.*"))
    assert done.photos == len(copies) == 9 and {"a.png", "b/none.png", "b/x.webp.jpg"} <= set(copies)
    before, after = (np.asarray(Image.open(root / "a.png")) for root in (folder, tmp_path / "copies"))
    assert before.shape == after.shape and (before != after).any() and (after[50, 140] == before[50, 140]).all()
    empty = np.asarray(Image.open(tmp_path / "copies/b/none.png"))
    assert np.array_equal(empty, np.asarray(Image.open(folder / "b/none.png"))), "no face, nothing drawn"
    with pytest.raises(DataError, match="would be overwritten"):
        predict([folder / "a.png"], model, out=tmp_path / "u.csv", annotate=folder)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_video_is_read_frame_by_frame_and_resumed(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    clip, photo = video(tmp_path / "clip.avi"), folder / "c0.png"
    predict([photo, clip, photo], model, out=tmp_path / "whole.csv", annotate=tmp_path / "copies")
    names = [row["file"] for row in table(tmp_path / "whole.csv")]
    assert names == [str(photo), *(f"{clip}#t={t}.000" for t in range(3)), str(photo)]
    assert sum(path.parent.name == "clip.avi" for path in (tmp_path / "copies").rglob("*.jpg")) == 3
    out = tmp_path / "t.csv"
    killed(monkeypatch, after, [photo, clip, photo], model, out=out)
    predict([photo, clip, photo], model, out=out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    predict([clip], model, out=out, every=0.5)
    assert len(table(out)) == 6


def test_a_damaged_video_is_told_once_and_its_frames_are_kept(folder: Path, model: Path, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.avi")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (message,) = predict([clip, folder], model, out=tmp_path / "t.csv", every=0).broken
    assert "clip.avi: cut off or damaged" in message and "\n" not in message
    assert table(tmp_path / "t.csv")[0]["file"].endswith("clip.avi#t=0.000")
    assert table(tmp_path / "t.csv")[-1]["file"] == "b/small.png"


def test_a_submission_and_a_score_take_no_options_of_tables(model: Path, tmp_path: Path) -> None:
    data = contest(tmp_path / "data", people=0, eval_people=2) / "eval"
    options: list[dict[str, Any]] = [{"faces": "all"}, {"boxes": True}, {"probabilities": True}, {"resume": True},
                                     {"attributes": ["mask"]}, {"annotate": tmp_path / "c"}]  # fmt: skip
    for option in options:
        with pytest.raises(DataError, match="does not go with a submission"):
            predict([data], model, out=tmp_path / "s.csv", **option)
    with pytest.raises(DataError, match=r"a submission is a \.csv"):
        predict([data], model, out=tmp_path / "s.jsonl")
    done: Predicted = predict([data], model, out=tmp_path / "s.csv", answers=data / "answers.csv")
    assert (tmp_path / "s.csv").read_text().startswith("ImageID,ans\n") and len(done.readings) == done.photos == 14
    assert done.score and done.score["photos"] == 14
    with pytest.raises(DataError, match=r"--resume does not go with --answers"):
        predict([data / "images"], model, out=tmp_path / "s.csv", answers=data / "answers.csv", resume=True)
    scored = predict([data / "images"], model, out=tmp_path / "s.jsonl", answers=data / "answers.csv")
    assert scored.score and scored.score["macro_f1"] == done.score["macro_f1"]
    assert first_line(tmp_path / "s.jsonl")["class"] in range(18)
