"""What all layouts stand on: CSV rows that carry their line, folder listings without junk, and `Problem`.

Reading is forgiving in form (BOM, CRLF, quotes, capital letters, backslashes, extra columns) and strict in content.
"""

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Literal

from threefold import labels
from threefold.errors import DataError, one_of
from threefold.photos.decode import EXTENSIONS

PHOTO_SUFFIXES = frozenset(suffix for suffixes in EXTENSIONS.values() for suffix in suffixes)
AGES = (0, 120)
"""Years that can be an age; others are errors."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data. An `error` would corrupt a result, a `warning` is worth knowing.

    `kind` groups problems of one sort (`rows without photos`); `where` names file, line and column.
    """

    severity: Literal["error", "warning"]
    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


Note = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """The default `Note`: an error is raised as DataError at once, a warning is left to `check`."""
    if problem.severity == "error":
        raise DataError(str(problem))


@dataclass(frozen=True)
class Row:
    """One line of a table: lower-case column name -> stripped text. `line` counts from 1, the header's."""

    path: Path
    line: int
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """Text of a cell, '' where column or cell is missing."""
        return self.cells.get(column, "")

    def where(self, column: str) -> str:
        """`labels.csv, line 3, column age`."""
        return f"{self.path}, line {self.line}, column {column}"


def read_rows(path: Path, required: Iterable[str]) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV file with a header; blank lines are skipped.

    Cells are parted by commas, or by semicolons or tabs where the first line has these and no comma (what spreadsheets
    save where the comma is the decimal sign).
    Raises DataError when the file is not there, is no UTF-8 or no CSV, lacks a required column, names a column twice or
    has a line with more cells than columns (an unquoted comma would shift every label after it).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            delimiter = next((sign for sign in ",;\t" if sign in head), ",")
            reader = csv.reader(chain([head], file), strict=True, delimiter=delimiter)
            columns = [name.strip().lower() for name in next(reader, [])]
            table = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        hint = "; a spreadsheet saves one as `CSV UTF-8`" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}){hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    need_columns(path, columns, required)
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        raise DataError(f"{path}: column {max(named, key=named.count)!r} occurs twice in its first line")
    for line, cells in table:
        if len(cells) > len(columns):
            counts = f"{len(cells)} cells for {len(columns)} columns"
            raise DataError(f"{path}, line {line}: {counts} ({delimiter!r} unquoted?)")
    return columns, [Row(path, line, dict(zip(columns, map(str.strip, cells), strict=False))) for line, cells in table]


def need_columns(path: Path, columns: Sequence[str], required: Iterable[str]) -> None:
    """DataError naming the first required column that a table lacks, and the nearest it has."""
    for name in required:
        if name not in columns:
            raise DataError(f"{path}: there is no column {name!r} in its first line ({one_of(columns, name)})")


def read_label(row: Row, attribute: str, note: Note) -> int | None:
    """Code of the cell in column `attribute`; None where it is unknown or (noted as an error) not a label."""
    try:
        code = labels.parse(attribute, row.get(attribute))
    except DataError as error:
        note(Problem("error", "unknown labels", row.where(attribute), str(error)))
        return None
    return None if code == labels.UNKNOWN else code


def read_age(row: Row, note: Note) -> float | None:
    """Years in column `age`; None where they are unknown or (noted as an error) not a number in 0..120."""
    text = row.get("age")
    if text.lower() in ("", "unknown", "?", "nan"):
        return None
    with contextlib.suppress(ValueError):
        years = float(text)
        if AGES[0] <= years <= AGES[1]:
            return years
    expected = f"expected years {AGES[0]}..{AGES[1]} or nothing"
    note(Problem("error", "unknown labels", row.where("age"), f"age {text!r} cannot be; {expected}"))
    return None


def visible(name: str) -> bool:
    """False for what an operating system leaves behind: `.DS_Store`, `._mask1.jpg`, `__MACOSX`."""
    return not name.startswith(".") and name != "__MACOSX"


def is_photo(path: Path) -> bool:
    """True for a visible file name with a photo's suffix, in capitals or not."""
    return visible(path.name) and path.suffix.lower() in PHOTO_SUFFIXES


def children(folder: Path) -> list[Path]:
    """Visible entries of a folder sorted by name; [] where there is no folder."""
    try:
        return sorted(entry for entry in folder.iterdir() if visible(entry.name)) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def photos_below(root: Path) -> Iterator[Path]:
    """Every photo below `root`, sorted folder by folder. Links to folders are followed, but not upwards."""
    for base, folders, names in os.walk(root, followlinks=True):
        here = Path(base).resolve()
        upwards = [name for name in folders if here.is_relative_to((here / name).resolve())]
        folders[:] = sorted(name for name in folders if visible(name) and name not in upwards)
        yield from (path for name in sorted(names) if is_photo(path := Path(base) / name))


def there(path: Path) -> bool:
    """`path.exists()`, but False instead of OSError for what cannot be a path (a name too long)."""
    try:
        return path.exists()
    except OSError:
        return False


def existing(path: Path) -> Path:
    """`path` if it is there; else DataError with the nearest name beside it."""
    if there(path):
        return path
    near = get_close_matches(path.name, [entry.name for entry in children(path.parent)], n=1, cutoff=0.4)
    raise DataError(f"{path}: no such folder or file" + (f"; nearest: {path.with_name(near[0])}" if near else ""))
