"""What a watched entrance keeps: one row per person, and counts by hour. No photo, no box, no feature of a face.

CSV: a row is one write, fsynced, so that a kill loses nothing that was told; a last line that was torn (power cut) is
cut off when the file is opened again. Beside `events.csv` stands `events.hours.csv`. Several watches may write one.
SQLite: WAL, so that others read while it is written; the table `events` and the view `hours`.
A person is counted once, in the hour of the first statement; `changed` rows (a mask taken off in view) do not count.
Hours are those of the clock where the watch ran.
"""

from __future__ import annotations

import csv
import fcntl
import os
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol

from threefold import labels
from threefold.errors import DataError, one_of
from threefold.files import csv_text, write_csv
from threefold.read.reading import INDETERMINATE, Reading

STATES = (*labels.NAMES["mask"], INDETERMINATE)
"""What is counted per hour."""
_COLUMNS = ("time", "source", "track", "kind", "mask", "gender", "age_group", "age", "confidence", "seconds", "frames")
_ASKED = {"gender": "gender", "age_group": "age_group", "age": "age_group"}
_TAIL = 256
"""Bytes that a row has at most in the mean, for reading the last rows of a long file; more are read where needed."""
KEPT = 500
"""Rows that a watch without a file remembers for its monitor."""


@dataclass(frozen=True)
class Event:
    """What is told of one person: a reading, of which `face` is the number of the track, and when and where it was.

    time: aware; source: without passwords; kind: `event` (the first sure mask), `changed` (another one later),
    `indeterminate`; seconds, frames: in view so far.
    """

    time: datetime
    source: str
    kind: str
    reading: Reading
    seconds: float
    frames: int

    def row(self) -> dict[str, Any]:
        """Column -> value, JSON-ready: of the reading what was asked for, without its box."""
        values = self.reading.data() | {
            "time": self.time.isoformat(timespec="milliseconds"), "source": self.source, "track": self.reading.face,
            "kind": self.kind, "seconds": round(self.seconds, 2), "frames": self.frames,
        }  # fmt: skip
        return {name: values[name] for name in columns(self.reading.attributes)}


class Sink(Protocol):
    """Where events go."""

    def add(self, event: Event) -> None:
        """Keep it, durably; raises DataError where that fails."""

    def summary(self, hours: int, recent: int) -> dict[str, Any]:
        """See `summary`; may be called by another thread."""

    def close(self) -> None:
        """Nothing comes any more."""


def columns(attributes: Iterable[str]) -> tuple[str, ...]:
    """Columns of the events of a watch that reads `attributes`."""
    asked = set(attributes)
    return tuple(name for name in _COLUMNS if _ASKED.get(name, "mask") in asked | {"mask"})


def open_events(path: Path | str | None, attributes: Sequence[str]) -> Sink:
    """The sink for a file by its suffix; None: memory. Raises DataError for another suffix or another kind of file."""
    if path is None:
        return MemoryEvents(attributes)
    path = Path(path)
    if not path.parent.is_dir():
        raise DataError(f"{path}: its folder does not exist")
    return _kind(path)[0](path, attributes)


def summary(path: Path, hours: int = 24, recent: int = 50, now: datetime | None = None) -> dict[str, Any]:
    """What `/v1/events` answers: {"source", "state": None, "hours": [{"hour", worn, incorrect, none, indeterminate}],
    "total": the same four, "recent": rows, the newest first}.

    hours: so many hours of the clock up to and with that of `now`; those without anybody are left out. Reads a file
    that is being written; the time it takes does not grow with the file. Raises DataError where it is missing or
    another.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such events file")
    return _told(*_kind(path)[1](path, _since(hours, now), recent))


class MemoryEvents:
    """Events of this watch alone: counts of all hours, and the last KEPT rows."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self.attributes = attributes
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rows: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """See `Sink`."""
        row = event.row()
        with self._lock:
            self._rows.append(row)
            _count(self._counts, row)

    def summary(self, hours: int, recent: int) -> dict[str, Any]:
        """See `Sink`."""
        with self._lock:
            since = _since(hours, None)
            counts = {key: count for key, count in self._counts.items() if key[0] >= since}
            return _told(counts, list(self._rows)[::-1][: max(0, recent)])

    def close(self) -> None:
        """See `Sink`."""


class CsvEvents:
    """Appends rows to a CSV file and keeps the counts beside it; see the module."""

    def __init__(self, path: Path, attributes: Sequence[str]) -> None:
        self.path, self.attributes = path, attributes
        self._header = csv_text([columns(attributes)]).encode()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._read = 0
        with ExitStack() as stack:
            try:
                self._file: IO[bytes] = stack.enter_context(path.open("a+b", buffering=0))
                with _held(self._file):
                    self._repair()
                    self._catch_up()
            except OSError as error:
                raise _unwritable(path, error) from None
            stack.pop_all()  # nothing went wrong: it stays open

    def add(self, event: Event) -> None:
        """See `Sink`."""
        row = event.row()
        line = csv_text([["" if value is None else value for value in row.values()]]).encode()
        try:
            if not self._is_there():  # moved away by a rotation of logs
                self._file.close()
                self._file, self._read = self.path.open("a+b", buffering=0), 0
            with _held(self._file):
                self._repair()
                written = self._file.write(line)
                if written != len(line):
                    raise OSError(f"{written} of {len(line)} bytes were written")
                os.fsync(self._file.fileno())
                self._catch_up()
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def summary(self, hours: int, recent: int) -> dict[str, Any]:
        """See `Sink`."""
        return summary(self.path, hours, recent)

    def close(self) -> None:
        """See `Sink`."""
        self._file.close()

    def _is_there(self) -> bool:
        return self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))

    def _repair(self) -> None:
        """Cut off what a power cut left of a line; write the header of a new file; refuse a file of another kind."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        begin = self._file.read(len(self._header))
        if size < len(self._header) and self._header.startswith(begin):
            self._file.truncate(0)
            self._file.write(self._header)
            return
        if begin != self._header:
            known = ",".join(columns(self.attributes))
            raise DataError(f"{self.path}: holds other columns than this watch writes ({known}); choose another file")
        end = _last_newline(self._file, size)
        if end < size:
            self._file.truncate(end)

    def _catch_up(self) -> None:
        """Count rows that were added since, by whomever, and write the hours anew if there were any."""
        size = self._file.seek(0, os.SEEK_END)
        hours = hours_path(self.path)
        if size == self._read and hours.exists():
            return
        if not len(self._header) <= self._read <= size:  # the file is new, or another than it was
            self._counts.clear()
            self._read = len(self._header)
        self._file.seek(self._read)
        for row in _rows(self._file.read(size - self._read), columns(self.attributes)):
            _count(self._counts, row)
        self._read = size
        write_csv(
            hours, [("hour", *STATES), *([row[name] for name in ("hour", *STATES)] for row in _table(self._counts))]
        )


class SqliteEvents:
    """Inserts rows into an SQLite file; see the module. Used by one thread; `summary` opens the file for itself."""

    def __init__(self, path: Path, attributes: Sequence[str]) -> None:
        self.path, self.attributes = path, attributes
        try:
            self._base = sqlite3.connect(path, timeout=10, isolation_level=None)
        except sqlite3.Error as error:
            raise _unwritable(path, error) from None
        with ExitStack() as stack:
            stack.callback(self._base.close)
            self._begin(columns(attributes))
            stack.pop_all()  # nothing went wrong: it stays open

    def _begin(self, names: tuple[str, ...]) -> None:
        try:
            there = [row[1] for row in self._base.execute("PRAGMA table_info(events)")]
            taken = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if taken and tuple(there) != names:
                raise DataError(
                    f"{self.path}: holds other columns than this watch writes ({','.join(names)}); choose another file"
                )
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")  # in WAL, NORMAL may lose the last rows in a power cut
            if not taken:
                self._base.executescript(_schema(names))
        except sqlite3.Error as error:
            raise _unwritable(self.path, error) from None

    def add(self, event: Event) -> None:
        """See `Sink`."""
        row = event.row()
        marks = ",".join("?" * len(row))
        try:
            self._base.execute(f"INSERT INTO events ({','.join(row)}) VALUES ({marks})", tuple(row.values()))
        except sqlite3.Error as error:
            raise _unwritable(self.path, error) from None

    def summary(self, hours: int, recent: int) -> dict[str, Any]:
        """See `Sink`."""
        return summary(self.path, hours, recent)

    def close(self) -> None:
        """See `Sink`."""
        self._base.close()


def _schema(names: Sequence[str]) -> str:
    kinds = {"track": "INTEGER", "frames": "INTEGER", "age": "REAL", "confidence": "REAL", "seconds": "REAL"}
    fields = ", ".join(f"{name} {kinds.get(name, 'TEXT')}{'' if name in _ASKED else ' NOT NULL'}" for name in names)
    sums = ", ".join(f"sum(mask = '{name}') AS \"{name}\"" for name in STATES)
    return f"""
        BEGIN;
        CREATE TABLE IF NOT EXISTS events ({fields});
        CREATE INDEX IF NOT EXISTS events_time ON events (time);
        CREATE VIEW IF NOT EXISTS hours AS SELECT substr(time, 1, 13) || ':00' AS hour, {sums}
            FROM events WHERE kind != 'changed' GROUP BY 1;
        COMMIT;
    """


def _sqlite_summary(path: Path, since: str, recent: int) -> tuple[Mapping[tuple[str, str], int], list[dict[str, Any]]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as base:
            base.row_factory = sqlite3.Row
            # by the index over time: the view alone would add up every hour there ever was
            asked = (
                "SELECT substr(time, 1, 13) || ':00', mask, count(*) FROM events"
                " WHERE time >= ? AND kind != 'changed' GROUP BY 1, 2"
            )
            counts = {(hour, mask): count for hour, mask, count in base.execute(asked, (since[:13],))}
            newest = base.execute("SELECT * FROM events ORDER BY rowid DESC LIMIT ?", (recent,))
            return counts, [dict(row) for row in newest]
    except sqlite3.Error as error:
        raise DataError(f"{path}: is no events file ({error})") from None


def hours_path(path: Path) -> Path:
    """`events.hours.csv` of `events.csv`."""
    return path.with_name(f"{path.stem}.hours{path.suffix}")


def _csv_summary(path: Path, since: str, recent: int) -> tuple[Mapping[tuple[str, str], int], list[dict[str, Any]]]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        header = tuple(file.readline().decode("utf-8", "replace").rstrip("\n").split(","))
        if not set(columns(["mask"])) <= set(header):
            raise DataError(f"{path}: is no events file (it has no columns {','.join(columns(['mask']))})")
        begin = file.tell()
        block = _TAIL * (recent + 1)
        while True:
            start = max(begin, size - block)
            file.seek(start)
            data = file.read(size - start)
            if start == begin or data.count(b"\n") > recent:
                break
            block *= 4
        data = data[: data.rfind(b"\n") + 1]
        rows = list(_rows(data if start == begin else data[data.index(b"\n") + 1 :], header))
        hours = hours_path(path)
        counts: Counter[tuple[str, str]] = Counter()
        if hours.exists() and hours.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            lines = hours.read_text(encoding="utf-8").splitlines()
            counts.update({(row["hour"], name): int(row[name]) for row in csv.DictReader(lines) for name in STATES})
        else:  # killed between the row and its count: rare, and then the whole file is read
            file.seek(begin)
            for row in _rows(file.read(size - begin), header):
                _count(counts, row)
    newest = [_typed(row) for row in rows[::-1][:recent]]
    return {key: count for key, count in counts.items() if key[0] >= since}, newest


def _kind(path: Path) -> tuple[Callable[[Path, Sequence[str]], Sink], Callable[..., Any]]:
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: unknown kind of events file ({one_of(KINDS, path.suffix.lower())})")
    return kind


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {
        "track": int, "age": float, "confidence": float, "seconds": float, "frames": int,
    }  # fmt: skip
    return {name: None if value == "" else kinds.get(name, str)(value) for name, value in row.items()}


def _rows(data: bytes, header: Sequence[str]) -> Iterable[dict[str, str]]:
    """Whole rows of our own; lines that somebody else wrote into the file are passed over."""
    for row in csv.reader(data.decode("utf-8", "replace").splitlines()):
        if len(row) == len(header) and row[header.index("mask")] in STATES:
            yield dict(zip(header, row, strict=True))


def _count(counts: Counter[tuple[str, str]], row: Mapping[str, Any]) -> None:
    if row["kind"] != "changed":
        counts[f"{row['time'][:13]}:00", row["mask"]] += 1


def _table(counts: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    hours = sorted({hour for hour, _ in counts})
    return [{"hour": hour, **{name: counts.get((hour, name), 0) for name in STATES}} for hour in hours]


def _told(counts: Mapping[tuple[str, str], int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    hours = _table(counts)
    return {
        "source": rows[0]["source"] if rows else "",
        "state": None,
        "hours": hours,
        "total": {name: sum(hour[name] for hour in hours) for name in STATES},
        "recent": [{name: value for name, value in row.items() if name != "source"} for row in rows],
    }


def _since(hours: int, now: datetime | None) -> str:
    now = now or datetime.now().astimezone()
    return (now - timedelta(hours=max(1, hours) - 1)).strftime("%Y-%m-%dT%H:00")


def _last_newline(file: IO[bytes], size: int) -> int:
    """Where the last whole line of a file ends; a row is never longer than the block that is looked at."""
    start = max(0, size - 65536)
    file.seek(start)
    return start + file.read(size - start).rfind(b"\n") + 1


@contextmanager
def _held(file: IO[bytes]) -> Any:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _unwritable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: events cannot be written ({getattr(error, 'strerror', None) or error})")


_SQLITE = (SqliteEvents, _sqlite_summary)
KINDS: dict[str, tuple[Callable[[Path, Sequence[str]], Sink], Callable[..., Any]]] = {
    ".csv": (CsvEvents, _csv_summary), ".sqlite": _SQLITE, ".sqlite3": _SQLITE, ".db": _SQLITE,
}  # fmt: skip
"""Suffix of an events file -> what writes it and what sums it up."""
