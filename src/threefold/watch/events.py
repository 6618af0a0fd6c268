"""What a watched entrance keeps: one row per person in SQLite, counted by hour. No photo, no box, no feature of a face.

The table `events` and the view `hours`; in WAL, so that others read while it is written. Several watches may write one
file. A person is counted once, in the hour of the first statement; `changed` rows (a mask taken off in view) do not
count. Hours are those of the clock where the watch ran.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from threefold import labels
from threefold.errors import DataError, one_of
from threefold.read.reading import INDETERMINATE, Reading

STATES = (*labels.NAMES["mask"], INDETERMINATE)
"""What is counted per hour."""
SUFFIXES = (".sqlite", ".sqlite3", ".db")
"""Of files of events."""
RECENT = 500
"""Rows that a monitor may ask for."""
REMEMBERED = 100_000
"""Rows that a watch without a file keeps in memory, some 20 MB: the newest."""
_COLUMNS = ("time", "source", "track", "kind", "mask", "gender", "age_group", "age", "confidence", "seconds", "frames")
_ASKED = {"gender": "gender", "age_group": "age_group", "age": "age_group"}
"""The attribute that a column is there for, where it is not there in any case."""


@dataclass(frozen=True)
class Event:
    """What is kept of one person: a reading, of which `face` is the number of the track, and when and where it was.

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
            "time": self.time.isoformat(timespec="milliseconds"),
            "source": self.source,
            "track": self.reading.face,
            "kind": self.kind,
            "seconds": round(self.seconds, 2),
            "frames": self.frames,
        }
        return {name: values[name] for name in columns(self.reading.attributes)}


def columns(attributes: Iterable[str]) -> tuple[str, ...]:
    """Columns of the events of a watch that reads `attributes`."""
    asked = {"mask", *attributes}
    return tuple(name for name in _COLUMNS if _ASKED.get(name, "mask") in asked)


class Events:
    """The events of a file, or of this watch alone in memory (None). `add` by one thread, `summary` by any.

    Raises DataError for a file of another suffix, kind or other columns, and for one that cannot be written.
    """

    def __init__(self, path: Path | None, attributes: Sequence[str]) -> None:
        self.path, names = path, columns(attributes)
        if path is not None:
            _check_suffix(path)
            if not path.parent.is_dir():
                raise DataError(f"{path}: its folder does not exist")
        self._lock = threading.Lock()
        with _writing(path), ExitStack() as stack:
            self._base = sqlite3.connect(path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False)
            stack.callback(self._base.close)
            self._begin(names)
            stack.pop_all()

    def _begin(self, names: tuple[str, ...]) -> None:
        present = tuple(row[1] for row in self._base.execute("PRAGMA table_info(events)"))
        empty = not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and present != names:
            raise DataError(
                f"{self.path}: holds other columns than this watch writes ({','.join(names)}); choose another file"
            )
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=FULL")  # in WAL, NORMAL may lose the last rows in a power cut
        if empty:
            kinds = {"track": "INTEGER", "frames": "INTEGER", "age": "REAL", "confidence": "REAL", "seconds": "REAL"}
            fields = [f"{name} {kinds.get(name, 'TEXT')}{'' if name in _ASKED else ' NOT NULL'}" for name in names]
            sums = ", ".join(f"sum(mask = '{name}') AS \"{name}\"" for name in STATES)
            self._base.executescript(f"""
                BEGIN;
                CREATE TABLE IF NOT EXISTS events ({", ".join(fields)});
                CREATE INDEX IF NOT EXISTS events_time ON events (time);
                CREATE VIEW IF NOT EXISTS hours AS SELECT substr(time, 1, 13) || ':00' AS hour, {sums}
                    FROM events WHERE kind != 'changed' GROUP BY 1;
                COMMIT;
            """)

    def add(self, event: Event) -> None:
        """Keep it, durably; raises DataError where that fails."""
        row = event.row()
        marks = ",".join("?" * len(row))
        with self._lock, _writing(self.path):
            added = self._base.execute(f"INSERT INTO events ({','.join(row)}) VALUES ({marks})", tuple(row.values()))
            if self.path is None:
                self._base.execute("DELETE FROM events WHERE rowid <= ?", ((added.lastrowid or 0) - REMEMBERED,))

    def summary(self, hours: int, recent: int) -> dict[str, Any]:
        """See the function `summary`."""
        if self.path is not None:
            return summary(self.path, hours, recent)
        with self._lock:
            return _summary(self._base, hours, recent, None)

    def close(self) -> None:
        """Nothing comes any more."""
        self._base.close()


def summary(path: Path, hours: int = 24, recent: int = 50, now: datetime | None = None) -> dict[str, Any]:
    """What `/v1/events` answers: {"source", "state": None, "hours": [{"hour", worn, incorrect, none, indeterminate}],
    "total": the same four, "recent": rows, the newest first}.

    hours: so many hours of the clock up to and with that of `now`; those without anybody are left out. Reads a file
    that is being written; the time it takes does not grow with the file. Raises DataError where it is missing or
    another.
    """
    with _reading(path) as base:
        return _summary(base, hours, recent, now)


def event_rows(path: Path) -> list[Sequence[Any]]:
    """All events of a file as a table, the columns first, the oldest event next. Raises DataError as `summary` does."""
    with _reading(path) as base:
        rows = base.execute("SELECT * FROM events ORDER BY rowid")
        return [[column[0] for column in rows.description], *rows]


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: events are kept in SQLite ({one_of(SUFFIXES, path.suffix.lower())}); --csv writes a table of them"
        )


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise DataError(f"{path}: no such events file")
    _check_suffix(path)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as base:
            yield base
    except sqlite3.Error as error:
        raise DataError(f"{path}: is no events file ({error})") from None


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DataError(f"{path}: events cannot be written ({error})") from None


def _summary(base: sqlite3.Connection, hours: int, recent: int, now: datetime | None) -> dict[str, Any]:
    since = (now or datetime.now().astimezone()) - timedelta(hours=max(1, hours) - 1)
    # by the index over time: the view alone would add up every hour there ever was
    query = (
        "SELECT substr(time, 1, 13) || ':00', mask, count(*) FROM events"
        " WHERE time >= ? AND kind != 'changed' GROUP BY 1, 2"
    )
    hourly: dict[str, dict[str, Any]] = {}
    for hour, mask, count in base.execute(query, (since.strftime("%Y-%m-%dT%H"),)):
        hourly.setdefault(hour, {"hour": hour, **dict.fromkeys(STATES, 0)})[mask] = count
    table = [hourly[hour] for hour in sorted(hourly)]
    newest = base.execute("SELECT * FROM events ORDER BY rowid DESC LIMIT ?", (max(0, recent),))
    names = [column[0] for column in newest.description]
    rows = [dict(zip(names, row, strict=True)) for row in newest]
    return {
        "source": rows[0]["source"] if rows else "",
        "state": None,
        "hours": table,
        "total": {name: sum(hour[name] for hour in table) for name in STATES},
        "recent": [{name: value for name, value in row.items() if name != "source"} for row in rows],
    }
