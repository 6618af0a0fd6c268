"""Tables of readings as CSV, JSON lines or Parquet, for a million photos as for one, and the spool a killed run left.

While photos are read, what was read is kept in a spool beside the table (`.NAME.partial`): one line of JSON per photo,
`{"file", "faces": [answer...]}` or `{"file", "error"}`. When all are read the table is written from it in one go, whole
or not at all, and the spool is deleted. So every format is resumable, in memory of one batch, and a table that was
interrupted is byte for byte the one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any

from threefold import labels
from threefold.errors import DataError, how_to_install, one_of
from threefold.files import atomic_write
from threefold.read.reader import INDETERMINATE

Line = dict[str, Any]
"""What was read of one photo or frame; see above."""
FORMAT = 1
"""Of the spool; its first line is {"format", and what a run that goes on with it must have in common with it}."""
ROWS = 16_384
"""Rows of a Parquet row group, all of its memory: with every column some 150 MB, pyarrow included, for any table."""
_BOX = ("left", "top", "right", "bottom")
_DECIMALS: dict[str, int] = {"age": 1, **dict.fromkeys(_BOX, 1)}
_WORDS = ("file", "quality", *labels.ATTRIBUTES)
_WHOLE = {"face": "int32", "class": "int8"}


def columns(attributes: Sequence[str], *, boxes: bool = False, probabilities: bool = False) -> tuple[str, ...]:
    """Columns of a table: file, face, class, mask, gender, age_group, age, confidence; with `boxes` left, top, right,
    bottom (pixels), score, quality; with `probabilities` p00..p17.

    Of fewer than all attributes: no class, no age without age_group, and `mask_worn` and the like for p00..p17.
    """
    whole = len(attributes) == len(labels.ATTRIBUTES)
    names = ["file", "face", *["class"] * whole, *attributes, *["age"] * ("age_group" in attributes), "confidence"]
    names += [*_BOX, "score", "quality"] * boxes
    if probabilities:
        parts = [f"{name}_{word}" for name in attributes for word in labels.NAMES[name]]
        names += [f"p{code:02d}" for code in range(labels.CLASSES)] if whole else parts
    return tuple(names)


def rows(line: Line, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """{column: value or None} of each face of a Line; none of a photo that could not be read."""
    for answer in line.get("faces", ()):
        given = {"file": line["file"], **answer, **dict(zip(_BOX, answer["box"] or [None] * 4, strict=True))}
        shares = answer.get("probabilities", {})
        given |= {f"p{code:02d}": share for code, share in enumerate(shares.get("classes", ()))}
        given |= {f"{name}_{word}": share for name in labels.ATTRIBUTES for word, share in shares.get(name, {}).items()}
        yield {name: given[name] for name in names}


def csv_row(row: dict[str, Any]) -> str:
    """One row as a line of CSV: years and pixels to a tenth, shares to four decimals, nothing for None."""
    text = io.StringIO(newline="")
    cells = ["" if value is None else f"{value:.{_DECIMALS.get(name, 4)}f}" if isinstance(value, float) else value
             for name, value in row.items()]  # fmt: skip
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def header(names: Sequence[str]) -> str:
    """The first line of a CSV."""
    return ",".join(names) + "\n"


def check_format(out: Path) -> None:
    """Raise DataError, before anything is read, for a table that could not be written: an unknown extension, a folder,
    Parquet without pyarrow."""
    suffix = out.suffix.lower()
    if suffix not in WRITERS:
        raise DataError(f"{out}: a table cannot be written as {suffix or 'a file without extension'!r} "
                        f"({one_of(WRITERS, suffix)})")  # fmt: skip
    if out.is_dir():
        raise DataError(f"{out}: is a folder; expected a file to write")
    if suffix == ".parquet":
        _arrow()


def write_table(out: Path, lines: Iterable[Line], names: Sequence[str]) -> None:
    """Write the faces of `lines` with columns `names` in the format of the extension, whole or not at all."""
    writer = WRITERS[out.suffix.lower()]
    atomic_write(out, lambda file: writer(file, lines, names))


class Spool:
    """What was read so far, on disk; made by `spool`. count: lines that an earlier run added."""

    def __init__(self, path: Path, file: IO[bytes], start: int, end: int, count: int) -> None:
        self.path, self.count = path, count
        self._file, self._start, self._end = file, start, end

    def add(self, line: Line) -> None:
        """Append a Line; `flush` or the end of the run brings it to the disk."""
        self._file.write(_json(line))

    def flush(self) -> None:
        """Hand what was added to the operating system, which keeps it when this process is killed."""
        self._file.flush()

    def earlier(self) -> Iterator[str]:
        """The names of what an earlier run added, in its order."""
        for line in self._read(self._end):
            yield str(line["file"])

    def lines(self) -> Iterator[Line]:
        """Everything that was added, in order."""
        self.flush()
        return self._read(None)

    def _read(self, end: int | None) -> Iterator[Line]:
        with self.path.open("rb") as file:
            file.seek(self._start)
            while (end is None or file.tell() < end) and (text := file.readline()):
                yield _parse(self.path, text)


@contextlib.contextmanager
def spool(out: Path, about: dict[str, Any], *, resume: bool = False) -> Iterator[Spool]:
    """The spool of a table, deleted at the end unless an error or a kill ends it.

    With `resume` it goes on with one that is there; a half-written last line is dropped. Raises DataError when another
    process is writing it, when an earlier run left one and `resume` is not given, and when that was `about` something
    else (another model, other options).
    """
    path = out.with_name(f".{out.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out}: is being written by another process") from None
        start, end, count = _whole(file)
        if count and not resume:
            raise DataError(
                f"{out}: an earlier run read {count:,} photos for it; --resume goes on, or delete {path} to start anew"
            )
        if count:
            _same(out, path, about)
        else:
            end = start = file.seek(0)
        file.truncate(end)
        if not count:
            start = end = file.write(_json({"format": FORMAT, **about}))
            file.flush()
        yield Spool(path, file, start, end, count)
    path.unlink()


def _whole(file: IO[bytes]) -> tuple[int, int, int]:
    """Where the first line ends, where the last whole one does, and how many there are between."""
    file.seek(0)
    start = end = len(first) if (first := file.readline()).endswith(b"\n") else 0
    count = 0
    for text in file:
        if text.endswith(b"\n"):
            end, count = end + len(text), count + 1
    return start, end, count


def _same(out: Path, path: Path, about: dict[str, Any]) -> None:
    with path.open("rb") as file:
        stored = _parse(path, file.readline())
    for key, value in {"format": FORMAT, **json.loads(json.dumps(about))}.items():
        if stored.get(key) != value:
            raise DataError(f"{out}: --resume with {key} {value!r}, but it was started with {stored.get(key)!r}")


def _parse(path: Path, text: bytes) -> Line:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise DataError(f"{path}: is damaged; delete it to start anew") from None


def _json(line: Line) -> bytes:
    return (json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _csv(file: IO[bytes], lines: Iterable[Line], names: Sequence[str]) -> None:
    file.write(header(names).encode())
    for line in lines:
        file.writelines(csv_row(row).encode() for row in rows(line, names))


def _jsonl(file: IO[bytes], lines: Iterable[Line], names: Sequence[str]) -> None:
    """One object per face, as `infer.answers` makes it, less what no column was asked for."""
    left_out = {name for name in ("box", "score", "quality") if "quality" not in names}
    for line in lines:
        for answer in line.get("faces", ()):
            kept = {key: value for key, value in answer.items() if key not in left_out}
            file.write(_json({"file": line["file"], **kept}))


def _parquet(file: IO[bytes], lines: Iterable[Line], names: Sequence[str]) -> None:
    arrow, parquet = _arrow()
    kinds = [(name, "string" if name in _WORDS else _WHOLE.get(name, "float64")) for name in names]
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in kinds])
    every = (row for line in lines for row in rows(line, names))
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(every, ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"a .parquet table needs pyarrow ({how_to_install('parquet')}); or write .csv") from None


WRITERS: dict[str, Callable[[IO[bytes], Iterable[Line], Sequence[str]], None]] = {
    ".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet,
}  # fmt: skip


class Tally:
    """What is counted of lines as they pass: photos that were read, and faces.

    indeterminate: of how many faces each attribute is not said. broken: a message per photo.
    """

    def __init__(self) -> None:
        self.photos, self.faces, self.broken = 0, 0, list[str]()
        self.indeterminate = dict.fromkeys(labels.ATTRIBUTES, 0)

    def count(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The same lines, counted."""
        for line in lines:
            if "error" in line:
                self.broken.append(line["error"])
            else:
                self.photos += 1
                self.faces += len(line["faces"])
                for answer in line["faces"]:
                    for name in labels.ATTRIBUTES:
                        self.indeterminate[name] += answer.get(name) == INDETERMINATE
            yield line
