"""Tables of readings as CSV, JSON lines or Parquet, for a million photos as for one."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any

from threefold import labels
from threefold.errors import DataError, how_to_install, one_of
from threefold.files import atomic_write
from threefold.read.lines import Line, json_line
from threefold.read.reading import ALL, BOX_DIGITS, DIGITS, SIDES, YEAR_DIGITS

ROWS = 16_384
"""Rows of a Parquet row group, all of its memory: with every column some 150 MB, pyarrow included, for any table."""
_DIGITS: dict[str, int] = {"age": YEAR_DIGITS, **dict.fromkeys(SIDES, BOX_DIGITS)}
_KINDS = {"face": "int32", "class": "int8", **dict.fromkeys(("file", "quality", *ALL), "string")}
"""Arrow's type of a column; of all others it is float64."""


@dataclass(frozen=True)
class Table:
    """Which columns a table has: of these attributes, with or without boxes and probabilities."""

    attributes: tuple[str, ...] = ALL
    boxes: bool = False
    probabilities: bool = False

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """file, face, class, mask, gender, age_group, age, confidence; with `boxes` left, top, right, bottom (pixels),
        score, quality; with `probabilities` p00..p17.

        Of fewer than all attributes: no class, no age without age_group, and `mask_worn` and the like for p00..p17.
        """
        whole = len(self.attributes) == len(ALL)
        names = ["file", "face", "class", *self.attributes, "age", "confidence"]
        if not whole:
            names.remove("class")
        if "age_group" not in self.attributes:
            names.remove("age")
        if self.boxes:
            names += [*SIDES, "score", "quality"]
        if self.probabilities and whole:
            names += [f"p{code:02d}" for code in range(labels.CLASSES)]
        elif self.probabilities:
            names += [f"{name}_{word}" for name in self.attributes for word in labels.NAMES[name]]
        return tuple(names)

    @property
    def header(self) -> str:
        """The first line of a CSV."""
        return ",".join(self.columns) + "\n"

    def rows(self, line: Line) -> Iterator[dict[str, Any]]:
        """{column: value or None} of each face of a Line; none of a photo that could not be read."""
        for face in line.faces:
            row = {"file": line.file, **face.row()}
            yield {name: row[name] for name in self.columns}

    def csv(self, line: Line) -> str:
        """The faces of a Line as CSV: years and pixels to a tenth, shares to four decimals, nothing for None."""
        text = io.StringIO(newline="")
        cells = ([_cell(name, value) for name, value in row.items()] for row in self.rows(line))
        csv.writer(text, lineterminator="\n").writerows(cells)
        return text.getvalue()

    def write(self, out: Path, lines: Iterable[Line]) -> None:
        """Write the faces of `lines` in the format of the extension, whole or not at all."""
        writer = WRITERS[out.suffix.lower()]
        atomic_write(out, lambda file: writer(self, file, lines))


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.{_DIGITS.get(name, DIGITS)}f}"
    return "" if value is None else value


def check_format(out: Path) -> None:
    """Raise DataError, before anything is read, for a table that could not be written: an unknown extension, a folder,
    Parquet without pyarrow."""
    suffix = out.suffix.lower()
    if suffix not in WRITERS:
        kind = repr(suffix or "a file without extension")
        raise DataError(f"{out}: a table cannot be written as {kind} ({one_of(WRITERS, suffix)})")
    if out.is_dir():
        raise DataError(f"{out}: is a folder; expected a file to write")
    if suffix == ".parquet":
        _arrow()


def _csv(table: Table, file: IO[bytes], lines: Iterable[Line]) -> None:
    file.write(table.header.encode())
    file.writelines(table.csv(line).encode() for line in lines)


def _jsonl(table: Table, file: IO[bytes], lines: Iterable[Line]) -> None:
    """One object per face, less what no column was asked for."""
    left_out = set() if table.boxes else {"box", "score", "quality"}
    for line in lines:
        for face in line.faces:
            values = {"file": line.file, **face.data(probabilities=table.probabilities)}
            file.write(json_line({name: value for name, value in values.items() if name not in left_out}))


def _parquet(table: Table, file: IO[bytes], lines: Iterable[Line]) -> None:
    arrow, parquet = _arrow()
    schema = arrow.schema([(name, getattr(arrow, _KINDS.get(name, "float64"))()) for name in table.columns])
    rows = (row for line in lines for row in table.rows(line))
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"a .parquet table needs pyarrow ({how_to_install('parquet')}); or write .csv") from None


Writer = Callable[[Table, IO[bytes], Iterable[Line]], None]
WRITERS: dict[str, Writer] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
