"""What a recipe may change about labels before training: corrections, age cuts, years left out; and counts of people.

Corrections (`data.patches`) change what is true, in training and validation alike, because a wrong label is wrong on
both sides. Cuts and left-out years (`data.train_cuts`, `data.drop_ages`) shape training alone: the groups that are
scored stay 30 and 60, and nobody is taken out of a validation half. A published system that left the hard years out of
both halves scored itself on an easier set.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.face import Face
from threefold.data.tables import AGES, Row, existing, read_rows
from threefold.errors import DataError, RecipeError, one_of

FIELDS = (*labels.ATTRIBUTES, "age")
_CONTEST_PERSON = re.compile(r"\d+(-\d+)?_(male|female)_", re.IGNORECASE)
_SWAP = "swap:"
LEFT_ALONE = frozenset({"keep", "unsure"})
"""What the page of suspects writes as `decision` of a label that stays as it is."""


@dataclass(frozen=True)
class Patched:
    """What `apply_patches` did: rows of the file, rows that fit no photo, photos whose labels are others now; and where
    the first row that fits none stands, with its name ("" where all fit some)."""

    rows: int
    unmatched: int
    photos: int
    first: str = ""


def apply_patches(faces: Sequence[Face], path: Path) -> tuple[list[Face], Patched]:
    """The faces with the corrections of a CSV: columns `person` and/or `photo`, `field`, `value`.

    Other columns are ignored, but for rows whose `decision` is keep or unsure, which change nothing.

    person: its name, the contest's id (`000020`, where one person has it) or a pattern (`001009_*_Asian_40`); all its
    photos change. photo: id, end of the id's path, either without suffix; with both, a photo of that person.
    field: mask, gender, age_group or age. value: a label, years, `unknown`, or for mask `swap:incorrect,none`.
    A new age brings its age group; a new age group that the year contradicts makes the year unknown.
    Rows that fit nobody are counted: a list for the contest is longer than any part of it. Raises DataError naming
    file, line and column for a value that cannot be, a name that fits two, two rows that disagree, and a file of
    which no row fits.
    """
    columns, rows = read_rows(existing(path), ("field", "value"))
    rows = [row for row in rows if row.get("decision").lower() not in LEFT_ALONE]
    _need_columns(path, columns)
    people: dict[str, list[int]] = defaultdict(list)
    for n, face in enumerate(faces):
        people[face.person].append(n)
    changes: dict[int, dict[str, Any]] = defaultdict(dict)
    lines: dict[tuple[int, str], int] = {}
    missed: list[Row] = []
    for row in rows:
        change_of = _change(row)
        photos = _photos(row, faces, people)
        if not photos:
            missed.append(row)
        for n in photos:
            for field, value in change_of(faces[n]).items():
                line = lines.setdefault((n, field), row.line)
                if changes[n].setdefault(field, value) != value:
                    raise DataError(f"{path}, lines {line} and {row.line}: two values of {field} for {faces[n].id}")
    name = (missed[0].get("person") or missed[0].get("photo")) if missed else ""
    if rows and len(missed) == len(rows):
        near = get_close_matches(name, people, n=1, cutoff=0) or ["none"]
        raise DataError(f"{path}: none of its {len(rows)} rows fits these photos; {name!r}: nearest person {near[0]!r}")
    patched = list(faces)
    for n, change in changes.items():
        age, group = faces[n].age, change.get("age_group")
        if "age_group" in change and "age" not in change and age is not None and labels.age_group(age) != group:
            change["age"] = None
        patched[n] = replace(faces[n], **change)
    changed = sum(old != new for old, new in zip(faces, patched, strict=True))
    return patched, Patched(len(rows), len(missed), changed, f"line {missed[0].line}: {name}" if missed else "")


def _need_columns(path: Path, columns: Sequence[str]) -> None:
    """DataError without person and photo, and for one misspelt: without its `phto`, a row would be of all photos."""
    if not {"person", "photo"} & set(columns):
        raise DataError(f"{path}: there is no column 'person' or 'photo' in its first line ({one_of(columns, '')})")
    for name in {"person", "photo"} - set(columns):
        for near in get_close_matches(name, columns, n=1, cutoff=0.7):
            raise DataError(f"{path}: column {near!r} in its first line is not known; did you mean {name!r}?")


def _change(row: Row) -> Callable[[Face], dict[str, Any]]:
    """face -> {field: new value} of one row; the row's field and value are checked here, whatever it is about."""
    field, text = row.get("field"), row.get("value")
    if field not in FIELDS:
        raise DataError(f"{row.where('field')}: {field!r} is no field ({one_of(FIELDS, field)})")
    if field == "mask" and text.startswith(_SWAP):
        first, comma, second = text.removeprefix(_SWAP).partition(",")
        a, b = _code(row, field, first), _code(row, field, second)
        if not comma or a is None or b is None or a == b:
            raise DataError(f"{row.where('value')}: {text!r}; expected two labels, as in swap:incorrect,none")
        swapped: dict[int | None, int] = {a: b, b: a}
        return lambda face: {field: swapped.get(face.mask, face.mask)}
    if field != "age":
        code = _code(row, field, text)
        return lambda face: {field: code}
    if text.lower() == "unknown":
        return lambda face: {"age": None, "age_group": None}
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", text, re.ASCII) or not AGES[0] <= float(text) <= AGES[1]:
        raise DataError(f"{row.where('value')}: age {text!r} cannot be; expected years {AGES[0]}..{AGES[1]} or unknown")
    return lambda face: {"age": float(text), "age_group": labels.age_group(float(text))}


def _code(row: Row, field: str, text: str) -> int | None:
    try:
        if not text:
            raise DataError(f"{field} has no value; expected a label, or `unknown` written out")
        code = labels.parse(field, text)
    except DataError as error:
        raise DataError(f"{row.where('value')}: {error}") from None
    return None if code == labels.UNKNOWN else code


def _photos(row: Row, faces: Sequence[Face], people: dict[str, list[int]]) -> Sequence[int]:
    """Places of the photos a row is about; none where it fits nobody."""
    person, photo = row.get("person"), row.get("photo")
    if not person + photo:
        raise DataError(f"{row.where('person')}: neither person nor photo is named")
    names = _one(row, "person", person, _persons(person, people)) if person else list(people)
    places = [n for name in names for n in people[name]]
    if not photo:
        return places
    ends = {n: f"/{faces[n].id}" for n in places}
    stem = f"/{photo}"
    fit = [n for n, end in ends.items() if end.endswith(stem) or end.rpartition(".")[0].endswith(stem)]
    _one(row, "photo", photo, [faces[n].id for n in fit])
    return fit


def _persons(text: str, people: Iterable[str]) -> list[str]:
    """The person of that name (before joined sources: its last part), else those the id or pattern fits."""
    tails = {name: name.rpartition("/")[2] for name in people}
    return [name for name, tail in tails.items() if text in (name, tail)] or [
        name
        for name, tail in tails.items()
        if fnmatchcase(tail, text) or (_CONTEST_PERSON.match(tail) and tail.startswith(f"{text}_"))
    ]


def _one(row: Row, column: str, text: str, names: list[str]) -> list[str]:
    if len(names) > 1:
        raise DataError(f"{row.where(column)}: {text!r} may be {names[0]} or {names[1]}; give the whole name")
    return names


def parse_cuts(text: str) -> tuple[int, int]:
    """`data.train_cuts`: `30,58` -> (30, 58), the first year of the middle and of the old group; raises RecipeError."""
    match = re.fullmatch(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*", text, re.ASCII)
    low, high = (int(year) for year in match.groups()) if match else (0, 0)
    if not AGES[0] < low < high <= AGES[1]:
        expected = "expected the first year of the middle and the old group, as in 30,58"
        raise RecipeError(f"data.train_cuts: {text!r}; {expected}")
    return low, high


def parse_ages(text: str) -> frozenset[int]:
    """`data.drop_ages`: `57-59,27-29` or single years -> the years; '' -> none. Raises RecipeError."""
    years: set[int] = set()
    for piece in text.split(",") if text.strip() else ():
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", piece, re.ASCII)
        low = int(match[1]) if match else -1
        high = int(match[2] or low) if match else -1
        if not AGES[0] <= low <= high <= AGES[1]:
            raise RecipeError(f"data.drop_ages: {piece.strip()!r} in {text!r}; expected years, as in 57-59,27-29")
        years.update(range(low, high + 1))
    return frozenset(years)


def dropped(faces: Sequence[Face], years: frozenset[int]) -> NDArray[np.bool_]:
    """[N] photos whose year is known and in `years`: left out of every training half, kept where they validate."""
    return np.array([face.age is not None and int(face.age) in years for face in faces], dtype=np.bool_)


def statistics(faces: Sequence[Face]) -> dict[str, dict[str, int]]:
    """How many *people* there are: per value of each attribute, per gender and age group, per year of age.

    A person counts once for each value its photos show (a contest person for every way a mask is worn). Photos are
    counted by `check.CheckResult`.
    """
    tables = (*labels.ATTRIBUTES, "gender and age_group", "age")
    people: dict[str, set[tuple[str, str]]] = {name: set() for name in tables}
    for face in faces:
        names = [labels.name(name, part) for name, part in zip(labels.ATTRIBUTES, face.parts, strict=True)]
        for attribute, name in zip(labels.ATTRIBUTES, names, strict=True):
            people[attribute].add((face.person, name or "unknown"))
        if None not in (face.gender, face.age_group):
            people["gender and age_group"].add((face.person, f"{names[1]} {names[2]}"))
        if face.age is not None:
            people["age"].add((face.person, f"{int(face.age)}"))
    counts = {table: Counter(value for _, value in pairs) for table, pairs in people.items()}
    return {table: dict(sorted(count.items(), key=lambda item: item[0].zfill(3))) for table, count in counts.items()}
