"""The way of a patch back into training: what spreadsheets make of the file, and what the verb says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import simulate, write_run

from threefold import labels, progress
from threefold.data.face import Face
from threefold.data.options import Patched, apply_patches
from threefold.data.tables import read_rows
from threefold.errors import DataError, RecipeError
from threefold.pages.suspects_page import suspects

FACES = [
    Face(Path("x"), name, f"images/{name}/{mask}.jpg", code, 0, 24.0, 0)
    for name in ("kim", "이영희")
    for code, mask in enumerate(labels.NAMES["mask"])
]
Patch = Callable[[bytes], tuple[list[Face], Patched]]


@pytest.fixture
def patch(tmp_path: Path) -> Patch:
    def apply(content: bytes) -> tuple[list[Face], Patched]:
        (tmp_path / "patches.csv").write_bytes(content)
        return apply_patches(FACES, tmp_path / "patches.csv")

    return apply


ROWS = "person,photo,field,value,decision,note\n이영희,,gender,female,change,school\nkim,none.jpg,mask,worn,change,\n"


@pytest.mark.parametrize(
    "content",
    [ROWS, "\ufeff" + ROWS, ROWS.replace("\n", "\r\n"), ROWS.replace(",", ";"), "\ufeff" + ROWS.replace(",", "\t"),
     ROWS.replace("kim,", '"kim",')],
    ids=["plain", "BOM", "CRLF", "semicolons", "tabs", "quotes"],
)  # fmt: skip
def test_what_spreadsheets_save_means_the_same(patch, content):
    faces, done = patch(content.encode())
    assert (done.rows, done.unmatched, done.photos) == (2, 0, 4)
    assert [face.gender for face in faces] == [0, 0, 0, 1, 1, 1] and [face.mask for face in faces[:3]] == [0, 1, 0]


def test_a_comma_in_the_header_decides_and_semicolons_are_text_then(tmp_path):
    (tmp_path / "a.csv").write_text('file,note\n"a;b.jpg",x;y\n')
    columns, (row,) = read_rows(tmp_path / "a.csv", ("file",))
    assert columns == ["file", "note"] and row.cells == {"file": "a;b.jpg", "note": "x;y"}
    (tmp_path / "a.csv").write_text("file;note\na.jpg;x;y\n")
    with pytest.raises(DataError, match=r"line 2: 3 cells for 2 columns \(';' unquoted\?\)"):
        read_rows(tmp_path / "a.csv", ("file",))


def test_a_swap_in_a_file_of_semicolons_needs_no_quotes(patch):
    faces, done = patch(b"person;field;value\r\nkim;mask;swap:incorrect,none\r\n")
    assert done.photos == 2 and [face.mask for face in faces[:3]] == [0, 2, 1]


def test_what_was_looked_at_and_left_alone_changes_nothing(patch):
    """The page's second file may be given by mistake: of a swap that was kept, the value is no label."""
    kept = 'kim,,mask,"incorrect,none",keep,\nkim,,age,47,Unsure,\n'
    faces, done = patch((ROWS + kept).encode())
    assert (done.rows, done.photos) == (2, 4) and {face.age for face in faces} == {24.0}


@pytest.mark.parametrize(
    ("header", "meant"), [("person,phto", "photo"), ("person,photos", "photo"), ("persn,photo", "person")]
)
def test_a_misspelt_column_is_no_row_about_everything(patch, header, meant):
    """Without its photo the row would call all of the person's photos bare."""
    with pytest.raises(DataError, match=f"column .* in its first line is not known; did you mean '{meant}'"):
        patch(f"{header},field,value\nkim,none.jpg,mask,none\n".encode())


def test_other_columns_are_left_alone(patch):
    assert patch(b"photo,reason,agreement,field,value\nkim/none.jpg,x,3,mask,worn\n")[1].photos == 1


def test_a_korean_spreadsheet_s_own_letters_are_refused_with_the_way_out(patch):
    with pytest.raises(DataError, match=r"not a CSV file in UTF-8 .*; a spreadsheet saves one as `CSV UTF-8`"):
        patch(ROWS.encode("cp949"))


def test_a_photo_named_twice(patch):
    row = "kim,none.jpg,mask,{}\n"
    head = "person,photo,field,value\n"
    assert patch((head + row.format("worn") * 2).encode())[1].photos == 1
    with pytest.raises(DataError, match=r"lines 2 and 3: two values of mask for images/kim/none\.jpg"):
        patch((head + row.format("worn") + row.format("incorrect")).encode())


def test_a_list_without_photos_needs_no_list_of_photos(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_shown", True)
    run = write_run(tmp_path / "run", simulate(40, 2), draws=20).path
    page = suspects(run, out=tmp_path / "gone", top=5).page()
    assert "none of its photos is where it says" in capsys.readouterr().err
    assert "None of the photos is where the run read it" in page and "Names of people and photos are inside" in page
    (run / "photos.csv").unlink()
    with pytest.raises(DataError, match=r"photos\.csv: cannot be read"):
        suspects(run, out=tmp_path / "not").page()
    assert "Names of people" in suspects(run, out=tmp_path / "bare", top=5, photos=False).page()
    assert (tmp_path / "bare/suspects.csv").read_bytes() == (tmp_path / "gone/suspects.csv").read_bytes()
    assert capsys.readouterr().err == ""


def test_a_file_is_no_folder_to_write_into(tmp_path):
    run = write_run(tmp_path / "run", simulate(20, 2), draws=20).path
    with pytest.raises(RecipeError, match=r"out: .*oof\.npz is a file; expected a folder"):
        suspects(run, out=run / "oof.npz")
