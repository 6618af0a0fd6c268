"""`check`: each fault is planted in a small set and must be named; a clean set must pass."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from threefold.data.check import CheckResult, check, scan, scan_all
from threefold.errors import DataError

SEVEN = ["mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal"]


def noise(*seed: int) -> NDArray[np.uint8]:
    """A picture like no other: smooth random blobs, 96 x 72."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 9, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (72, 96), interpolation=cv2.INTER_CUBIC))


def save(path: Path, image: NDArray[np.uint8] | Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **options)  # type: ignore[arg-type] # options differ from format to format


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A clean set in the contest's layout: one person per gender and age group."""
    rows = ["id,gender,race,age,path"]
    for number, (gender, age) in enumerate((g, a) for g in ("male", "female") for a in (20, 40, 60)):
        name = f"{number:06}_{gender}_Asian_{age}"
        rows.append(f"{number:06},{gender},Asian,{age},{name}")
        for place, stem in enumerate(SEVEN):
            save(tmp_path / "train/images" / name / f"{stem}.jpg", noise(number, place), quality=95)
    (tmp_path / "train/train.csv").write_text("\n".join(rows))
    return tmp_path


def kinds(report: CheckResult) -> Counter[tuple[str, str]]:
    return Counter((problem.severity, problem.kind) for problem in report.problems)


def photo(data: Path, number: int, stem: str) -> Path:
    return next((data / "train/images").glob(f"{number:06}_*/{stem}.jpg"))


def test_a_clean_set_passes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(str(data))
    assert report.ok and report.failure == "" and report.problems == ()
    assert (report.photos, report.persons, report.ages) == (42, 6, (20.0, 60.0))
    assert report.people["gender"]["male"] + report.people["gender"]["female"] == 6
    assert sum(report.people["gender and age_group"].values()) == 6
    assert list(report.classes.values()) == [5] * 6 + [1] * 12
    assert report.attributes["mask"] == {"worn": 30, "incorrect": 6, "none": 6, "unknown": 0}
    assert (report.sizes, report.formats, report.odd) == ({"72x96": 42}, {"jpeg": 42}, {})
    assert set(report.copies.values()) == {0}
    text = str(report)
    assert "42 photos of 6 persons, ages 20 to 60" in text and "nothing that would corrupt a result" in text
    assert capsys.readouterr() == ("", "")


def test_unreadable_photos_fail(data: Path) -> None:
    cut, empty, text = (photo(data, number, "mask1") for number in (0, 1, 2))
    cut.write_bytes(cut.read_bytes()[:-200])
    empty.write_bytes(b"")
    text.write_text("not a photo")
    report = check(data)
    assert report.failure == f"{data}: 3 errors would corrupt a result"
    text = str(report)
    assert "! error: unreadable photos (3)" in text
    assert "images/000000_male_Asian_20/mask1.jpg" in text and "empty file" in text and "this would corrupt" in text


def test_odd_photos_are_read_and_counted(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photo(data, 0, "mask1"), Image.fromarray(noise(90)).convert("L"))
    save(photo(data, 0, "mask2"), Image.fromarray(noise(91)).convert("CMYK"))
    save(photo(data, 0, "mask3"), Image.fromarray(noise(92)), exif=exif)
    save(photo(data, 0, "mask4"), noise(93), format="PNG")
    report = check(data)
    assert report.ok and report.odd == {"grey": 1, "CMYK": 1, "turned by EXIF": 1}
    assert report.sizes == {"72x96": 41, "96x72": 1}
    (problem,) = report.problems
    assert (problem.kind, problem.text) == ("wrong extensions", "is png, should end in .png")


def test_a_person_without_the_seven_photos(data: Path) -> None:
    photo(data, 3, "mask2").unlink()
    save(photo(data, 3, "mask1").with_suffix(".png"), noise(77))
    (problem,) = check(data).problems
    assert (problem.severity, problem.kind) == ("warning", "persons without the seven photos")
    assert str(problem) == "person 000003_female_Asian_20: 2 x mask1, 0 x mask2"


def test_copies_across_persons_are_listed_and_pass(data: Path) -> None:
    exact, near = photo(data, 0, "mask1"), photo(data, 2, "normal")
    photo(data, 3, "incorrect_mask").write_bytes(near.read_bytes())  # other person, other labels
    photo(data, 0, "mask2").write_bytes(exact.read_bytes())
    save(photo(data, 1, "mask1"), Image.open(exact).resize((60, 80)), quality=60)
    report = check(data)
    assert report.copies == {
        "exact within a person": 1,
        "near within a person": 1,
        "across persons": 3,
        "persons joined": 2,
    }
    assert kinds(report) == {("error", "one photo, two labels"): 1, ("warning", "copies across persons"): 3}
    texts = [problem.text for problem in report.problems]
    assert texts[0].startswith("the same file has mask none (images/000002_male_Asian_60/normal.jpg) and incorrect (")
    assert (
        sum("the same picture as images/000001_male_Asian_40/mask1.jpg; training keeps" in text for text in texts) == 2
    )


def test_equal_blank_files_are_copies_too(data: Path) -> None:
    for number in (0, 1):
        save(photo(data, number, "mask1"), np.full((96, 72, 3), 200, np.uint8))
    error, warning = check(data).problems
    assert error.kind == "one photo, two labels"
    assert warning.text.startswith("the same file as images/000001_male_Asian_40/mask1.jpg")


def test_contradictions_and_rows_without_photos(tmp_path: Path) -> None:
    for name in "abcd":
        save(tmp_path / f"{name}.png", noise(ord(name)))
    (tmp_path / "labels.csv").write_text(
        "file,person,gender,age,age_group,mask\n"
        "a.png,ann,female,20,,worn\nb.png,ann,male,20,,worn\nc.png,bob,male,30,<30,none\nd.png,bob,male,70,,wrn\nx.png,bob,,,,\n"
    )
    report = check(tmp_path)
    texts = [str(problem) for problem in report.problems if problem.severity == "error"]
    assert kinds(report)["error", "contradictory labels"] == 3
    assert any(text == "person ann: gender female (a.png) and male (b.png)" for text in texts)
    assert any(text == "person bob: age 30 (c.png) and 70 (d.png)" for text in texts)
    assert any("line 4, column age_group: '<30' contradicts age 30" in text for text in texts)
    assert any("line 5, column mask: mask 'wrn'" in text for text in texts)
    assert any("line 6, column file: there is no photo 'x.png'" in text for text in texts)
    assert len(texts) == 5


def test_empty_classes_and_boxes(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.png", noise(ord(name)))
    (tmp_path / "labels.csv").write_text(
        "file,gender,age,mask,left,top,right,bottom\na.png,male,20,worn,0,0,73,9\nb.png,female,40,none,,,,\nc.png,,,none,,,,\n"
    )
    report = check(tmp_path)
    texts = [str(problem) for problem in report.problems]
    assert report.ok and report.attributes["age_group"] == {"<30": 1, "30-59": 1, ">=60": 0, "unknown": 1}
    assert texts[0] == "a.png: face box (0.0, 0.0, 73.0, 9.0) in 72x96 pixels"
    assert "mask: no photo is labelled incorrect" in texts and "age_group: no photo is labelled >=60" in texts
    assert "class worn female <30: has no photo; it counts 0 in macro F1" in texts
    assert len(texts) == 1 + 2 + 6


def test_json_and_the_table_hold_everything(data: Path) -> None:
    for number in range(6):
        photo(data, number, "mask1").write_bytes(b"x")
        photo(data, number, "mask2").write_bytes(b"y")
    report = check(data)
    assert "  ... and 2 more (--json lists all)" in report.lines() and "12 errors" in report.failure
    values = json.loads(report.json())
    assert values["ok"] is False and values["data"] == str(data) and values["photos"] == 42
    assert len(values["problems"]) == 12 and values["problems"][0]["severity"] == "error"
    assert values["classes"]["worn male <30"] == 5 and len(report.csv().splitlines()) == 13


def test_nothing_to_check_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file\nx.jpg\n")
    with pytest.raises(DataError, match=r"no labelled photos found .*there is no photo 'x.jpg'"):
        check(tmp_path)


def test_processes_give_the_same_as_one(data: Path) -> None:
    paths = sorted(data.rglob("*.jpg")) * 24
    done: list[int] = []
    scans = scan_all(paths, lambda count, total: done.append(count))
    assert done == list(range(1, len(paths) + 1)) and len(paths) > 1000
    for path, result in list(zip(paths, scans, strict=True))[::97]:
        alone = scan(path)
        assert (alone.digest, alone.info) == (result.digest, result.info)
        np.testing.assert_array_equal(alone.fingerprint, result.fingerprint)
