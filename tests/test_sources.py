"""Every layout, drawn small: what is read from it, under which names, and what is refused in which words."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threefold.data.layouts import SIGNS, SOURCES
from threefold.data.sources import eval_photos, read_answers, read_faces, recognise, split_sources
from threefold.data.tables import Problem
from threefold.errors import DataError

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
SEVEN = ["mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal"]


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, format="PNG")
    return path


def contest(root: Path, people: list[str], suffix: str = ".jpg", table: bool = True) -> Path:
    for person in people:
        for stem in SEVEN:
            draw(root / "train/images" / person / f"{stem}{suffix}")
    if table:
        rows = [f"{p.split('_')[0]},{p.split('_')[1]},Asian,{p.split('_')[3]},{p}" for p in people]
        (root / "train/train.csv").write_text("\n".join(["id,gender,race,age,path", *rows]))
    return root


def labelled(root: Path, text: str, *files: str) -> Path:
    for file in files:
        draw(root / file)
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_bytes(text.encode())
    return root


def problems_of(text: str | Path) -> list[Problem]:
    problems: list[Problem] = []
    read_faces(text, problems.append)
    return problems


@pytest.mark.parametrize("layout", SOURCES)
def test_every_layout_says_what_it_is_known_by_and_refuses_an_empty_folder(layout: str, tmp_path: Path) -> None:
    fits, sign = SIGNS[layout]
    assert sign and SOURCES[layout].__doc__ and not fits(tmp_path)
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        read_faces(f"{layout}:{tmp_path}")


def test_contest_reads_every_suffix_and_keys_people_by_folder(tmp_path: Path) -> None:
    people = ["003397_female_Asian_19", "003397_female_Asian_20", "001498_male_Asian_60", "001498-1_female_Asian_59"]
    contest(tmp_path, people[:2], ".JPG")
    contest(tmp_path, people, ".png")
    for path in (tmp_path / "train/images" / people[0]).glob("*.JPG"):
        path.unlink()
    draw(tmp_path / f"train/images/{people[2]}/._mask1.jpg")
    draw(tmp_path / "train/images/._junk/mask1.jpg")
    for person in people[1:2]:
        for path in (tmp_path / "train/images" / person).glob("*.png"):
            path.unlink()
    faces = read_faces(tmp_path)
    assert Counter(face.person for face in faces) == dict.fromkeys(people, 7)
    assert Counter(face.label for face in faces if face.person == people[2]) == {2: 5, 8: 1, 14: 1}
    assert {(face.gender, face.age, face.age_group) for face in faces if face.person == people[3]} == {(1, 59.0, 1)}
    assert [face.id for face in faces] == sorted(face.id for face in faces)
    assert [(f.id, f.label) for f in read_faces(tmp_path / "train")] == [(f.id, f.label) for f in faces]


def test_contest_without_a_table_believes_folder_names(tmp_path: Path) -> None:
    contest(tmp_path, ["000001_female_Asian_45"], table=False)
    draw(tmp_path / "train/images/000002_male_Asian_20_copy/normal.jpg")
    assert {face.label for face in read_faces(tmp_path)} == {4, 10, 16}
    assert [(p.severity, p.kind) for p in problems_of(tmp_path)] == [("warning", "folders without row")]


def test_contest_rows_and_folders_that_do_not_meet(tmp_path: Path) -> None:
    contest(tmp_path, ["000001_female_Asian_45", "000002_male_Asian_20"])
    table = tmp_path / "train/train.csv"
    good = table.read_text()
    table.write_text(good + "\n000003,male,Asian,33,000003_male_Asian_33")
    with pytest.raises(
        DataError, match=r"train.csv, line 4, column path: there is no folder images/000003_male_Asian_33"
    ):
        read_faces(tmp_path)
    assert len(problems_of(tmp_path)) == 1
    table.write_text(good.replace("male,Asian,20,", "female,Asian,20,"))
    with pytest.raises(DataError, match=r"line 3, column gender: 'female' contradicts the folder's name 000002_male"):
        read_faces(tmp_path)
    table.write_text(good.replace("female,Asian,45,", "F,Asian,45.0,").replace("male,Asian,20,", ",Asian,20,"))
    assert {(face.gender, face.age) for face in read_faces(tmp_path)} == {(1, 45.0), (None, 20.0)}
    table.write_text("\n".join(good.splitlines()[:2]))
    assert {face.person for face in read_faces(tmp_path)} == {"000001_female_Asian_45"}
    draw(tmp_path / "train/images/000001_female_Asian_45/mask6.jpg")
    assert Counter(p.kind for p in problems_of(tmp_path)) == {"folders without row": 1, "photos of unknown name": 1}


def test_csv_forgives_form(tmp_path: Path) -> None:
    text = (
        "\ufeffFile,Person_ID,gender,AGE,mask,note,left,top,right,bottom\r\n"
        '"a, b.jpg",ann,Female,,worn,"x,\n y",1,2,3,4\r\n'
        "\r\nsub\\c.png,ann,,60,not worn,,,,,\r\nd.jpg,,m,29.5,unknown\r\n"
    )
    first, second, third = read_faces(labelled(tmp_path, text, "a, b.jpg", "sub/c.png", "d.jpg"))
    assert (first.id, first.person, first.parts, first.box) == ("a, b.jpg", "ann", (0, 1, -1), (1, 2, 3, 4))
    assert (second.id, second.person, second.parts, second.age_group) == ("d.jpg", "d.jpg", (-1, 0, 0), 0)
    assert (third.id, third.parts, third.age, third.box) == ("sub/c.png", (2, -1, 2), 60.0, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,mask\na.jpg,worn", r"labels.csv: there is no column 'file' in its first line \(known: mask, name"),
        ("file,gender\na.jpg,femal", r"line 2, column gender: gender 'femal' is not known .*nearest: female"),
        ("file,mask\na.jpg,wron", r"line 2, column mask: .*nearest: worn"),
        ("file,age\na.jpg,old", r"line 2, column age: age 'old' cannot be; expected years 0..120"),
        ("file,age\na.jpg,121", r"line 2, column age: age '121' cannot be"),
        ("file,age\na.jpg,-1", r"line 2, column age: age '-1' cannot be"),
        ("file,age\na.jpg,inf", r"line 2, column age: age 'inf' cannot be"),
        ("file,age,age_group\na.jpg,30,<30", r"line 2, column age_group: '<30' contradicts age 30; expected '30-59'"),
        ("file\nb.jpg", r"line 2, column file: there is no photo 'b.jpg'"),
        ("file\n../a.jpg", r"line 2, column file: '../a.jpg' is no path below"),
        ("file\n/etc/a.jpg", r"is no path below"),
        ("file\nC:\\a.jpg", r"is no path below"),
        ("file\na.jpg\n./a.jpg", r"line 3, column file: 'a.jpg' is in line 2 too"),
        ("file,left,top,right,bottom\na.jpg,5,0,3,4", r"face box '5,0,3,4' cannot be"),
        ("file,left,top,right,bottom\na.jpg,5,0,,4", r"face box '5,0,,4' cannot be"),
        ("file,mask\na.jpg,worn,x", r"line 2: 3 cells for 2 columns"),
        ("file,mask,mask\na.jpg,worn,none", r"column 'mask' occurs twice"),
        ('file\n"a.jpg', r"not a CSV file in UTF-8"),
        ("", r"there is no column 'file'"),
        ("file", r"no labelled photos found \(read as csv\)"),
    ],
)
def test_csv_is_strict_in_content(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_faces(labelled(tmp_path, text, "a.jpg"))
    assert "\n" not in str(error.value)


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    labelled(tmp_path, "file", "a.jpg")
    (tmp_path / "labels.csv").write_bytes("file,person\na.jpg,김".encode("cp949"))
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_faces(tmp_path)


def test_utkface_names(tmp_path: Path) -> None:
    for name in (
        "61_1_20170109142408075.jpg",
        "24_0_1_2017 .jpg.chip.jpg",
        "116_1_4_20170112.JPG",
        "9_1_0_1.png",
        "x.txt",
    ):
        draw(tmp_path / name)
    faces = read_faces(tmp_path)
    assert [(face.age, face.gender, face.mask, face.age_group) for face in faces] == [
        (116.0, 1, None, 2), (24.0, 0, None, 0), (9.0, 1, None, 0)]  # fmt: skip
    assert len({face.person for face in faces}) == 3
    assert [p.kind for p in problems_of(tmp_path)] == ["photos of unknown name"]


def test_folders_by_class_by_label_and_nested(tmp_path: Path) -> None:
    for name in ("17/a.png", "Worn_Male_30-59/b.png", "worn/Female/ann__1.png", "none/ann__2.png", "unknown/c.png"):
        draw(tmp_path / name)
    labels_of = {face.id: (face.person, *face.parts) for face in read_faces(tmp_path)}
    assert labels_of == {
        "17/a.png": ("17/a.png", 2, 1, 2),
        "Worn_Male_30-59/b.png": ("Worn_Male_30-59/b.png", 0, 0, 1),
        "none/ann__2.png": ("ann", 2, -1, -1),
        "unknown/c.png": ("unknown/c.png", -1, -1, -1),
        "worn/Female/ann__1.png": ("ann", 0, 1, -1),
    }
    draw(tmp_path / "male/17/e.png")
    with pytest.raises(DataError, match=r"male/17/e.png: folder '17' contradicts a folder above"):
        read_faces(tmp_path)
    draw(tmp_path / "femal/d.png")
    with pytest.raises(DataError, match=r"folder 'femal' is no class or label .*nearest: female"):
        read_faces(tmp_path)
    assert Counter(p.kind for p in problems_of(tmp_path)) == {"unknown labels": 1, "contradictory labels": 1}


def test_joined_sources_have_unique_names_and_commas_stay_in_paths(tmp_path: Path) -> None:
    one = labelled(tmp_path / "x/set, one", "file,person\na.jpg,p", "a.jpg")
    two = labelled(tmp_path / "y/set, one", "file,person\na.jpg,p", "a.jpg")
    faces = read_faces(f"csv:{one},{two}")
    assert [(face.id, face.person, face.source) for face in faces] == [
        ("set, one-2/a.jpg", "set, one-2/p", "set, one-2"), ("set, one/a.jpg", "set, one/p", "set, one")]  # fmt: skip
    assert split_sources(f"csv:{one / 'labels.csv'}") == [("csv", one / "labels.csv")]
    assert read_faces(one)[0].id == "a.jpg"


def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(DataError, match=r"faecs: no such folder or file; nearest: .*faces"):
        read_faces(tmp_path / "faecs")
    with pytest.raises(DataError, match=r"looked for train.csv .*labels.csv .*utkface.*folders"):
        recognise(tmp_path / "faces")
    with pytest.raises(DataError, match=r"'utkfac' in .* is no layout .*nearest: utkface"):
        read_faces(f"utkfac:{tmp_path}")
    with pytest.raises(DataError, match="an empty source"):
        read_faces(f"folders:{tmp_path},")
    with pytest.raises(DataError, match="no labelled photos"):
        read_faces(f"folders:{tmp_path}")
    with pytest.raises(DataError, match=r"no train.csv and no images"):
        read_faces(f"contest:{tmp_path}")
    with pytest.raises(DataError, match="no such folder or file"):
        read_faces("x" * 300)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere/a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/worn").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/none").symlink_to(tmp_path / "elsewhere")
    assert [face.id for face in read_faces(tmp_path / "set")] == ["worn/a.png"]


def test_names_do_not_depend_on_unicode_form(tmp_path: Path) -> None:
    labelled(tmp_path, "file,person\n\u1112\u1161\u11ab.jpg,\u1112\u1161\u11ab", "\u1112\u1161\u11ab.jpg")
    (face,) = read_faces(tmp_path)
    assert (face.id, face.person) == ("한.jpg", "한")
    assert face.photo.is_file()


def test_eval_photos_keep_the_order_of_info_csv(tmp_path: Path) -> None:
    assert eval_photos(tmp_path) is None
    for name in ("b.jpg", "a.jpg"):
        draw(tmp_path / "eval/images" / name)
    info = tmp_path / "eval/info.csv"
    info.write_text("ImageID,ans\nb.jpg,0\na.jpg,0\n")
    expected = [("b.jpg", tmp_path / "eval/images/b.jpg"), ("a.jpg", tmp_path / "eval/images/a.jpg")]
    assert eval_photos(tmp_path) == eval_photos(tmp_path / "eval") == expected
    info.write_text("ImageID,ans\nb.jpg,0\nc.jpg,0\nd.jpg,0\n")
    with pytest.raises(DataError, match=r"2 of 3 photos of info.csv are missing, first c.jpg"):
        eval_photos(tmp_path)
    info.write_text("ImageID,ans\nb.jpg,0\nb.jpg,0\n")
    with pytest.raises(DataError, match=r"ImageID 'b.jpg' occurs twice"):
        eval_photos(tmp_path)
    info.write_text("ImageID,ans\n../info.csv,0\n")
    with pytest.raises(DataError, match="is no path below"):
        eval_photos(tmp_path)


def test_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("ImageID,ans,person,age\nb.jpg,17,p,61\na.jpg,0,,\n")
    answers = read_answers(path)
    assert (answers.ids, answers.label.tolist(), answers.persons) == (("b.jpg", "a.jpg"), [17, 0], ("p", "a.jpg"))
    np.testing.assert_array_equal(answers.ages, np.array([61, np.nan], np.float32))
    path.write_text("ImageID,ans\na.jpg,3")
    assert read_answers(path).persons is None and read_answers(path).ages is None
    for bad in ("18", "-1", "3.0", "", "x", "٣"):
        path.write_text(f"ImageID,ans\na.jpg,3\nb.jpg,{bad}")
        with pytest.raises(DataError, match=r"line 3, column ans: .* is no class; expected 0..17"):
            read_answers(path)


def test_answers_may_be_a_table_of_labels_that_knows_only_some(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file;person;mask;age\nb/1.jpg;p;not worn;61\na.jpg;;;\nc.jpg;q;worn;\n")
    answers = read_answers(path)
    assert answers.ids == ("b/1.jpg", "a.jpg", "c.jpg") and answers.persons == ("p", "a.jpg", "q")
    assert answers.truth.tolist() == [[2, -1, 2], [-1, -1, -1], [0, -1, -1]] and answers.label.tolist() == [-1] * 3
    np.testing.assert_array_equal(answers.ages, np.array([61, np.nan, np.nan], np.float32))
    for text, message in (
        ("file,mask\na.jpg,worm", r"line 2, column mask: .*worn"), ("file,person\na.jpg,p", "no column of labels"),
        ("file,age,age_group\na.jpg,61,<30", "contradicts age 61"), ("file,mask\na,worn\na,none", "'a' occurs twice"),
        ("name,mask\na.jpg,worn", "no column 'imageid'"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_answers(path)


@pytest.mark.parametrize(("name", "rows"), [("aaf", 9321), ("masks_real", 1848), ("portraits_cc", 300)])
def test_real_tables(name: str, rows: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip("no shared data here")
    faces = read_faces(f"csv:{SHARED / name}")
    with (SHARED / name / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        table = {row["file"]: row for row in csv.DictReader(file)}
    assert len(faces) == rows == len(table)
    masks = {"none": 2, "not worn": 2, "worn": 0, "incorrect": 1}
    for face in faces:
        row = table[face.id]
        assert face.mask == masks[row["mask"]]
        assert face.gender == {"": None, "male": 0, "female": 1}[row["gender"]]
        assert face.age == (float(row["age"]) if row["age"] else None)
        assert face.person == row.get("person", row.get("person_id"))


def test_real_utkface() -> None:
    if not (SHARED / "utkface").is_dir():
        pytest.skip("no shared data here")
    counts = Counter((face.gender, face.age_group) for face in read_faces(SHARED / "utkface"))
    assert [counts[gender, group] for gender in (0, 1) for group in (0, 1, 2)] == [2723, 4501, 1254, 3761, 2774, 915]


def test_names_that_are_no_utf8_are_escaped_in_ids(tmp_path: Path) -> None:
    """Archives made with a Korean code page unpack to such names on Linux."""
    for raw in (b"worn", b"none"):
        (tmp_path / raw.decode()).mkdir()
    file = os.fsencode(tmp_path / "worn") + b"/\xb0\xa1.jpg"
    Path(os.fsdecode(file)).write_bytes(b"photo")
    (face,) = read_faces(f"folders:{tmp_path}")
    assert face.id == "worn/\\udcb0\\udca1.jpg" and face.photo.read_bytes() == b"photo"
    assert face.id.encode() and face.person.encode()
