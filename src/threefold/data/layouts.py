"""The layouts labelled photos come in: one generator per layout, all of the form `layout(root, note) -> faces`.

A generator yields what is there and calls `note` with what is wrong; the default note raises the first error, `check`
collects all. Ids and persons are local here (paths below the root); `sources.read_faces` makes them unique over joined
sources. Photos are not opened.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from threefold import labels
from threefold.data import tables
from threefold.data.face import Face
from threefold.data.tables import Note, Problem, Row, children, is_photo, read_age, read_label, read_rows, refuse
from threefold.errors import DataError, one_of
from threefold.files import write_csv
from threefold.photos.decode import Box

CONTEST_MASKS = {
    **dict.fromkeys(("mask1", "mask2", "mask3", "mask4", "mask5"), labels.Mask.WORN),
    "incorrect_mask": labels.Mask.INCORRECT,
    "normal": labels.Mask.NONE,
}
"""Stem of a contest photo -> how the mask is worn."""
_PERSON_FOLDER = re.compile(r"(?P<id>.+)_(?P<gender>male|female)_(?P<race>[^_]*)_(?P<age>\d{1,3})", re.IGNORECASE)
_UTKFACE = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d+")


def contest(root: Path, note: Note = refuse) -> Iterator[Face]:
    """The contest's layout: `train.csv` and `images/{id}_{gender}_{race}_{age}/{mask1..5,incorrect_mask,normal}.*`.

    `root` is the folder that holds `train/`, or `train/` itself. A person is a folder: ids are not unique. With a
    `train.csv` its rows are the truth and say who takes part; without one the folder names are. Age 60 means >= 60.
    Errors: a row without its folder or photos, a row that contradicts the name of its folder.
    """
    train = contest_folder(root)
    if train is None:
        raise DataError(f"{root}: no train.csv and no images/ID_GENDER_RACE_AGE in it or in its train/")
    folders = {entry.name: entry for entry in children(train / "images") if entry.is_dir()}
    if (train / "train.csv").is_file():
        rows: dict[str, Row] = {}
        reason = "train.csv has no row for it"
        for row in read_rows(train / "train.csv", ("gender", "age", "path"))[1]:
            name = row.get("path")
            if name in rows:
                text = f"{name!r} is in line {rows[name].line} too"
                note(Problem("error", "rows that repeat", row.where("path"), text))
            rows[name] = row
    else:
        named = {name: _folder_cells(name) for name in folders}
        rows = {name: Row(folders[name], 0, cells) for name, cells in named.items() if cells}
        reason = "not named ID_GENDER_RACE_AGE"
    for name, row in sorted(rows.items()):
        if name not in folders:
            note(Problem("error", "rows without photos", row.where("path"), f"there is no folder images/{name}"))
    for name, folder in folders.items():
        if name in rows:
            yield from _contest_person(folder, rows[name], note)
        else:
            note(Problem("warning", "folders without row", str(folder), f"left out: {reason}"))


def write_train_table(folder: Path, people: Iterable[tuple[str, str, str, int, str]]) -> None:
    """train.csv of a set that is made here; people: (id, gender, race, age, folder below images/)."""
    write_csv(folder / "train.csv", [("id", "gender", "race", "age", "path"), *people])


def write_eval_tables(folder: Path, answers: Iterable[tuple[str, int, str, int]]) -> None:
    """info.csv and answers.csv of a set that is made here; answers: (ImageID, class, person, age).

    Sorted by ImageID: those are digests, so this is a shuffle, and one that more people leave alone.
    """
    rows = sorted(answers)
    write_csv(folder / "info.csv", [("ImageID", "ans"), *((row[0], 0) for row in rows)])
    write_csv(folder / "answers.csv", [("ImageID", "ans", "person", "age"), *rows])


def contest_folder(root: Path) -> Path | None:
    """`root` or its `train/`: the one with a train.csv, or with a folder of the contest's form below images/."""
    for folder in (root / "train", root):
        named = (_PERSON_FOLDER.fullmatch(entry.name) for entry in children(folder / "images"))
        if (folder / "train.csv").is_file() or any(named):
            return folder
    return None


def _folder_cells(name: str) -> dict[str, str]:
    """What a contest folder's name holds, {} for another name."""
    match = _PERSON_FOLDER.fullmatch(name)
    return match.groupdict() if match else {}


def _contest_person(folder: Path, row: Row, note: Note) -> Iterator[Face]:
    gender, age = read_label(row, "gender", note), read_age(row, note)
    group = None if age is None else labels.age_group(age)
    if cells := _folder_cells(folder.name):
        named = {"gender": labels.parse("gender", cells["gender"]), "age": int(cells["age"])}
        for column, value in (("gender", gender), ("age", age)):
            if value not in (None, named[column]):
                text = f"{row.get(column)!r} contradicts the folder's name {folder.name}"
                note(Problem("error", "contradictory labels", row.where(column), text))
    photos = [photo for photo in children(folder) if is_photo(photo)]
    if not photos:
        note(Problem("error", "rows without photos", str(folder), "holds no photo"))
    for photo in photos:
        mask = CONTEST_MASKS.get(photo.stem.lower())
        if mask is None:
            text = f"left out: {photo.stem!r} is no photo of the contest ({one_of(CONTEST_MASKS, photo.stem)})"
            note(Problem("warning", "photos of unknown name", str(photo), text))
            continue
        yield Face(photo, folder.name, f"images/{folder.name}/{photo.name}", int(mask), gender, age, group)


def table(root: Path, note: Note = refuse) -> Iterator[Face]:
    """A `labels.csv` (or the .csv file that `root` is): `file` and any of person, gender, age, age_group, mask.

    `person_id` stands for `person`; without one every file is a person. Empty means unknown. `file` is a path
    below the table's folder: absolute paths and `..` are refused, as ids would differ from machine to machine. A face
    box is given by all of left, top, right, bottom (pixels). Errors: a value that is no label, `age` and `age_group`
    that disagree, a file that is missing or listed twice.
    """
    path = tables.existing(root / "labels.csv") if root.is_dir() else root
    columns, rows = read_rows(path, ("file",))
    persons = "person" if "person" in columns else "person_id"
    seen: dict[str, int] = {}
    for row in rows:
        text, where = row.get("file"), row.where("file")
        file = os.path.normpath(text.replace("\\", "/")) if text else "."
        if Path(file).is_absolute() or file.split("/")[0] in ("..", ".") or re.match("[A-Za-z]:", file):
            note(Problem("error", "rows without photos", where, f"{text!r} is no path below {path.parent}"))
        elif not (path.parent / file).is_file():
            note(Problem("error", "rows without photos", where, f"there is no photo {text!r}"))
        elif file in seen:
            note(Problem("error", "rows that repeat", where, f"{file!r} is in line {seen[file]} too"))
        else:
            seen[file] = row.line
            mask, gender = (read_label(row, attribute, note) for attribute in ("mask", "gender"))
            person, (age, group) = row.get(persons) or file, age_and_group(row, note)
            yield Face(path.parent / file, person, file, mask, gender, age, group, box=_box(row, note))


def age_and_group(row: Row, note: Note) -> tuple[float | None, int | None]:
    """Years and age group of a row's `age` and `age_group`; None where unknown. Notes an error where they disagree."""
    age, group = read_age(row, note), read_label(row, "age_group", note)
    implied = group if age is None else labels.age_group(age)
    if group is not None and implied != group:
        expected = labels.name("age_group", implied or 0)
        text = f"{row.get('age_group')!r} contradicts age {row.get('age')}; expected {expected!r} or nothing"
        note(Problem("error", "contradictory labels", row.where("age_group"), text))
    return age, implied


def _box(row: Row, note: Note) -> Box | None:
    texts = [row.get(side) for side in ("left", "top", "right", "bottom")]
    if not any(texts):
        return None
    with contextlib.suppress(ValueError):
        left, top, right, bottom = (float(text) for text in texts)
        if 0 <= left < right < float("inf") and 0 <= top < bottom < float("inf"):
            return left, top, right, bottom
    text = f"face box {','.join(texts)!r} cannot be; expected left < right and top < bottom in pixels"
    note(Problem("error", "unknown labels", row.where("left"), text))
    return None


def utkface(root: Path, note: Note = refuse) -> Iterator[Face]:
    """UTKFace: files `AGE_GENDER_RACE_DATE.jpg` (also `.jpg.chip.jpg`), 0 male, 1 female; every photo is a person.

    Masks are unknown: nobody labelled them. The published set holds a few names that lack a field; which one is missing
    cannot be known, so these are left out with a warning.
    """
    for photo in tables.photos_below(root):
        file = photo.relative_to(root).as_posix()
        match = _UTKFACE.match(photo.name)
        if match is None or not tables.AGES[0] <= int(match["age"]) <= tables.AGES[1]:
            text = "left out: not named AGE_GENDER_RACE_DATE"
            note(Problem("warning", "photos of unknown name", str(photo), text))
            continue
        age = float(match["age"])
        yield Face(photo, file, file, None, int(match["gender"]), age, labels.age_group(age))


def folders(root: Path, note: Note = refuse) -> Iterator[Face]:
    """A folder per class (`0` .. `17`, `worn_male_young`) or per label, nested in any way (`worn/female/...`).

    Every photo is a person, but for files named `PERSON__anything.jpg`: two underscores name a person over all
    folders. Errors: a folder name that is no label, folders that contradict each other.
    """
    meanings: dict[str, dict[str, int]] = {}
    for photo in tables.photos_below(root):
        file = photo.relative_to(root)
        if len(file.parts) == 1:
            note(Problem("warning", "photos without label", str(photo), "left out: it is in no folder of a class"))
            continue
        codes: dict[str, int] = {}
        for part in file.parts[:-1]:
            if part not in meanings:
                meaning = folder_labels(part)
                if meaning is None:
                    words = [label for names in labels.NAMES.values() for label in names] + ["0 .. 17"]
                    text = f"folder {part!r} is no class or label ({one_of(words, part)})"
                    note(Problem("error", "unknown labels", str(root), text))
                meanings[part] = meaning or {}
            for attribute, code in meanings[part].items():
                if codes.setdefault(attribute, code) != code:
                    text = f"folder {part!r} contradicts a folder above it"
                    note(Problem("error", "contradictory labels", str(photo), text))
        name, marked, _ = photo.name.partition("__")
        person = name if marked and name else file.as_posix()
        mask, gender, group = (codes.get(attribute) for attribute in labels.ATTRIBUTES)
        yield Face(photo, person, file.as_posix(), mask, gender, None, group)


def folder_labels(name: str) -> dict[str, int] | None:
    """What a folder's name means, attribute -> code ({} for `unknown`); None for a name that is no label."""
    key = name.lower().replace(" ", "_")
    if key in _CLASS_FOLDERS:
        return dict(zip(labels.ATTRIBUTES, labels.decode(_CLASS_FOLDERS[key]), strict=True))
    for attribute in () if key.isdigit() else labels.ATTRIBUTES:
        with contextlib.suppress(DataError):
            code = labels.parse(attribute, key)
            return {} if code == labels.UNKNOWN else {attribute: code}
    return None


_CLASS_FOLDERS = {str(code): code for code in range(labels.CLASSES)}
for _names in (labels.NAMES["age_group"], ("young", "middle", "old")):
    _words = itertools.product(labels.NAMES["mask"], labels.NAMES["gender"], _names)
    _CLASS_FOLDERS |= {"_".join(words): code for code, words in enumerate(_words)}


SOURCES: dict[str, Callable[[Path, Note], Iterator[Face]]] = {
    "contest": contest,
    "csv": table,
    "utkface": utkface,
    "folders": folders,
}
SIGNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "contest": (contest_folder, "train.csv or images/ID_GENDER_RACE_AGE"),
    "csv": (
        lambda root: (root / "labels.csv").is_file() or (root.is_file() and root.suffix.lower() == ".csv"),
        "labels.csv",
    ),
    "utkface": (
        lambda root: any(is_photo(entry) and _UTKFACE.match(entry.name) for entry in children(root)),
        "AGE_GENDER_RACE_DATE.jpg",
    ),
    "folders": (
        lambda root: any(entry.is_dir() and folder_labels(entry.name) for entry in children(root)),
        "folders named after classes or labels",
    ),
}
"""What a layout is recognised by when a source does not name one, tried in this order: a test, and its words."""
