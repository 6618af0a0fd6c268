"""What a watch keeps: rows that survive a kill, counts by hour, and who else may read or write them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from threefold.cli.live import Lines, Terminal, event_line
from threefold.errors import DataError
from threefold.files import csv_text
from threefold.read.reading import reading_model
from threefold.watch import events as events_module
from threefold.watch.events import RECENT, Event, Events, columns, event_rows, summary
from threefold.watch.view import State
from threefold.watch.webhook import Webhook, check_address, post

ALL = ("mask", "gender", "age_group")
SEOUL = timezone(timedelta(hours=9))
TEN = datetime(2026, 11, 26, 10, 5, 3, 250_000, tzinfo=SEOUL)
NOW = TEN.replace(hour=13)


def event(
    mask: str = "worn",
    kind: str = "event",
    minutes: float = 0,
    track: int = 1,
    attributes: tuple[str, ...] = ALL,
    begin: datetime = TEN,
) -> Event:
    sure = 0.93456 if mask != "indeterminate" else 0.5
    values = {"face": track, "box": (1, 2, 30, 40), "score": 0.9, "quality": "ok", "mask": mask, "gender": "female",
              "age_group": "30-59", "age": 41.26, "confidence": sure,
              "confidences": dict.fromkeys(attributes, sure)}  # fmt: skip
    model = reading_model(attributes, probabilities=False, classes=False)
    reading = model(**{name: values[name] for name in model.model_fields})
    return Event(begin + timedelta(minutes=minutes), "cam", kind, reading, 3.214, 24)


def four(worn: int = 0, incorrect: int = 0, none: int = 0, indeterminate: int = 0) -> dict[str, int]:
    return {"worn": worn, "incorrect": incorrect, "none": none, "indeterminate": indeterminate}


DAY = [event(), event("none", minutes=10, track=2), event("none", "changed", minutes=20),
       event("incorrect", minutes=70, track=3),
       event("indeterminate", "indeterminate", minutes=130, track=4)]  # fmt: skip
HOURS = [
    {"hour": "2026-11-26T10:00", **four(worn=1, none=1)},
    {"hour": "2026-11-26T11:00", **four(incorrect=1)},
    {"hour": "2026-11-26T12:00", **four(indeterminate=1)},
]


def stored(path: Path, *events: Event, attributes: tuple[str, ...] = ALL) -> None:
    with closing(Events(path, attributes)) as store:
        for one in events:
            store.add(one)


def test_a_day_is_told_in_the_form_of_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    store = Events(path, ALL)
    for one in DAY:
        store.add(one)
    answer = summary(path, 24, 50, NOW)
    assert (answer["source"], answer["state"], answer["hours"]) == ("cam", None, HOURS)
    assert answer["total"] == four(1, 1, 1, 1), "a change of the same person is not another person"
    assert [row["track"] for row in answer["recent"]] == [4, 3, 1, 2, 1], "the newest first"
    assert answer["recent"][-1] == {
        "time": "2026-11-26T10:05:03.250+09:00", "track": 1, "kind": "event", "mask": "worn", "gender": "female",
        "age_group": "30-59", "age": 41.3, "confidence": 0.9346, "seconds": 3.21, "frames": 24,
    }  # fmt: skip
    assert summary(path, 2, 2, NOW)["hours"] == HOURS[2:]
    assert len(summary(path, 24, 2, NOW)["recent"]) == 2 and summary(path, 1, 0, NOW)["recent"] == []
    store.close()
    assert summary(path, 24, 50, NOW) == answer, "and after it is closed"


def test_the_table_of_a_file_is_its_events_the_oldest_first(tmp_path: Path) -> None:
    stored(tmp_path / "e.sqlite", *DAY)
    table = event_rows(tmp_path / "e.sqlite")
    assert tuple(table[0]) == columns(ALL) and [row[2] for row in table[1:]] == [1, 2, 1, 3, 4]
    assert csv_text(table).splitlines()[1] == (
        "2026-11-26T10:05:03.250+09:00,cam,1,event,worn,female,30-59,41.3,0.9346,3.21,24"
    )


def test_entrance_mode_has_no_column_for_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "e.sqlite"
    stored(path, event(attributes=("mask",)), attributes=("mask",))
    assert columns(("mask",)) == ("time", "source", "track", "kind", "mask", "confidence", "seconds", "frames")
    assert set(summary(path, 24, 1, NOW)["recent"][0]) == set(columns(("mask",))) - {"source"}
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(word in data for word in (b"female", b"gender", b"age_group", b"30-59", b"41."))
    with pytest.raises(DataError, match=r"holds other columns .*choose another file"):
        Events(path, ALL)
    stored(path, event(track=9, attributes=("mask",)), attributes=("mask",))
    assert [row["track"] for row in summary(path, 24, 5, NOW)["recent"]] == [9, 1]


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "other.db")
    base.execute("CREATE TABLE mine (x)")
    base.close()
    with pytest.raises(DataError, match="holds other columns"):
        Events(tmp_path / "other.db", ("mask",))
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(DataError, match=r"text\.sqlite: events cannot be written \(file is not a database\)"):
        Events(tmp_path / "text.sqlite", ("mask",))
    with pytest.raises(DataError, match=r"text\.sqlite: is no events file"):
        summary(tmp_path / "text.sqlite")
    assert (tmp_path / "text.sqlite").read_text() == "no database" * 100


def test_what_cannot_be_a_file_of_events_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.csv: events are kept in SQLite \(known: \.db, .*--csv writes a table"):
        Events(tmp_path / "e.csv", ALL)
    (tmp_path / "e.csv").write_text("time,source\n")
    with pytest.raises(DataError, match=r"e\.csv: events are kept in SQLite"):
        summary(tmp_path / "e.csv")
    with pytest.raises(DataError, match="its folder does not exist"):
        Events(tmp_path / "no" / "e.db", ALL)
    with pytest.raises(DataError, match="no such events file"):
        summary(tmp_path / "e.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(DataError, match=r"folder\.db: events cannot be written \(unable to open database file\)"):
        Events(tmp_path / "folder.db", ALL)


def test_a_file_of_an_earlier_version_is_read_and_appended_to(tmp_path: Path) -> None:
    """Made by the schema as it was before Part 5."""
    path = tmp_path / "old.sqlite"
    base = sqlite3.connect(path)
    base.executescript(OLD_SCHEMA)
    values = (TEN.isoformat(), "cam", 3, "event", "none", 0.95, 3.2, 24)
    base.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?,?)", values)
    base.commit()
    base.close()
    stored(path, event(track=4, attributes=("mask",)), attributes=("mask",))
    answer = summary(path, 24, 9, NOW)
    assert answer["total"] == four(worn=1, none=1) and [row["track"] for row in answer["recent"]] == [4, 3]


OLD_SCHEMA = """
CREATE TABLE events (time TEXT NOT NULL, source TEXT NOT NULL, track INTEGER NOT NULL, kind TEXT NOT NULL,
    mask TEXT NOT NULL, confidence REAL NOT NULL, seconds REAL NOT NULL, frames INTEGER NOT NULL);
CREATE INDEX events_time ON events (time);
CREATE VIEW hours AS SELECT substr(time, 1, 13) || ':00' AS hour, sum(mask = 'worn') AS "worn"
    FROM events WHERE kind != 'changed' GROUP BY 1;
"""


def test_sqlite_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    store = Events(path, ALL)
    reader = sqlite3.connect(path)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
    for one in DAY:
        store.add(one)  # a reader in the middle of its transaction holds nobody up
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,), "and sees what there was when it began"
    reader.execute("COMMIT")
    view = reader.execute("SELECT hour, worn, incorrect, none, indeterminate FROM hours").fetchall()
    assert view == [tuple(hour.values()) for hour in HOURS]
    second = Events(path, ALL)
    second.add(event(track=7))
    assert summary(path, 24, 1, NOW)["recent"][0]["track"] == 7, "several watches may write one file"
    for open_file in (store, second, reader):
        open_file.close()


def test_without_a_file_the_newest_events_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "REMEMBERED", 600)
    now = datetime.now(UTC).astimezone()
    with closing(Events(None, ("mask",))) as store:
        store.add(event(minutes=-30 * 60, attributes=("mask",), begin=now))
        for index in range(RECENT + 20):
            store.add(event("none", track=index, attributes=("mask",), begin=now))
        answers: list[Any] = [None]
        other = Thread(target=lambda: answers.append(store.summary(24, 1000)))  # as the monitor asks
        other.start()
        other.join()
        assert answers[1]["total"] == four(none=RECENT + 20) and len(answers[1]["recent"]) == RECENT + 21
        assert store.summary(48, 1)["total"] == four(worn=1, none=RECENT + 20)
        for index in range(200):
            store.add(event("none", track=index, attributes=("mask",), begin=now))
        assert store.summary(48, 0)["total"] == four(none=600)


class Inbox:
    """A local server that answers POSTs with the given codes in turn, the last one again and again."""

    def __init__(self, *codes: int) -> None:
        inbox, self.bodies, left = self, [], list(codes)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook?key=secret"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_webhook_posts_json_again_after_a_fault_and_gives_up_on_a_refusal() -> None:
    faults: list[str] = []
    for codes, sent, failed, tries in (
        ((200,), 2, 0, 2),
        ((503, 204), 2, 0, 3),
        ((400, 200), 1, 1, 2),
        ((302,), 0, 2, 2),
    ):
        inbox = Inbox(*codes)
        hook = Webhook(inbox.address, faults.append, wait=lambda _: False)
        for track in (1, 2):
            hook.add({"mask": "worn", "track": track})
        hook.close()
        inbox.close()
        assert (hook.sent, hook.failed, len(inbox.bodies)) == (sent, failed, tries), codes
        assert '{"mask": "worn", "track": 1}' in inbox.bodies
    assert (
        len(faults) == 3 and "HTTP 400" in faults[0] and faults[1].endswith("works again") and "HTTP 302" in faults[2]
    )
    assert not any("secret" in line for line in faults), "a key in the address is not printed"
    with pytest.raises(OSError, match="refused"):
        post("http://127.0.0.1:9/", b"{}")


def test_webhook_that_hangs_never_holds_up_the_watch() -> None:
    faults: list[str] = []
    go, began = Flag(), Flag()

    def send(address: str, body: bytes) -> None:
        began.set()
        go.wait(30)

    hook = Webhook("https://example.org/x", faults.append, size=3, send=send)
    hook.add({"track": 0})
    assert began.wait(30)
    for track in range(1, 10):
        hook.add({"track": track})
    assert hook.failed == 6 and faults == ["webhook https://example.org/x: not delivered (more events than it takes)"]
    hook.close(timeout=0.01)
    assert hook.failed == 9, "what still waits at the end is told as well"
    go.set()


def test_webhook_addresses() -> None:
    for address in ("ftp://a/b", "example.org", "http://", "file:///etc/passwd", "http://a:x/"):
        with pytest.raises(DataError, match="expected an address like"):
            check_address(address)
    with pytest.raises(DataError, match="https://host/: user and password") as caught:
        check_address("https://me:secret@host/")
    assert "secret" not in str(caught.value)


def test_the_terminal_and_the_log_show_events_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console  # only here

    row = event("none", "changed").row()
    assert event_line(row) == "10:05:03  #1  mask none 0.93  female  30-59  (changed)"
    assert event_line(event(attributes=("mask",)).row()) == "10:05:03  #1  mask worn 0.93"
    state = State(10, 3, 12.34, 41.2, 2, four(worn=2, none=1))
    clock = iter([0.0, 1.0, 11.0, 11.0, 12.0])
    lines = Lines(lambda: next(clock))
    lines.event(row)
    lines.state(state)
    lines.state(state)
    lines.state(state)
    out, err = capsys.readouterr()
    assert out == event_line(row) + "\n" and err.count("\n") == 1
    assert err == (
        "worn 2, incorrect 0, none 1, indeterminate 0 | 2 in view | 12.3 frames/s, 41 ms, 3 frames dropped to keep up\n"
    )
    console = Console(width=100, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    view = Terminal(console)
    view.event(row)
    view.state(state)
    view.fault("camera 0: is back")
    view.close()
    console.print(view.picture())
    text = console.export_text()
    console.file.close()
    assert "camera 0: is back" in text and event_line(row) in text and "none 1" in text and "12.3 frames/s" in text


def test_rows_hold_what_was_asked_and_no_more() -> None:
    row: Mapping[str, Any] = event(attributes=("mask", "gender")).row()
    assert list(row) == [
        "time", "source", "track", "kind", "mask", "gender", "confidence", "seconds", "frames"
    ], "and no box"  # fmt: skip
