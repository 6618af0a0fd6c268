"""What a watch keeps: rows that survive a kill, counts by hour, and who else may read or write them."""

from __future__ import annotations

import csv
import os
import shutil
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest

from threefold.cli.live import Lines, Terminal, event_line
from threefold.errors import DataError
from threefold.read.reading import reading_model
from threefold.watch.events import KEPT, Event, MemoryEvents, columns, hours_path, open_events, summary
from threefold.watch.view import State
from threefold.watch.webhook import Webhook, check_address, post

ALL = ("mask", "gender", "age_group")
SEOUL = timezone(timedelta(hours=9))
TEN = datetime(2026, 11, 26, 10, 5, 3, 250_000, tzinfo=SEOUL)
NOW = TEN.replace(hour=13)
FILES = ["events.csv", "events.sqlite"]


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


@pytest.mark.parametrize("name", FILES)
def test_a_day_is_told_in_the_form_of_the_contract(tmp_path: Path, name: str) -> None:
    sink = open_events(tmp_path / name, ALL)
    for told in DAY:
        sink.add(told)
    answer = summary(tmp_path / name, 24, 50, NOW)
    assert (answer["source"], answer["state"], answer["hours"]) == ("cam", None, HOURS)
    assert answer["total"] == four(1, 1, 1, 1), "a change of the same person is not another person"
    assert [row["track"] for row in answer["recent"]] == [4, 3, 1, 2, 1], "the newest first"
    assert answer["recent"][-1] == {
        "time": "2026-11-26T10:05:03.250+09:00", "track": 1, "kind": "event", "mask": "worn", "gender": "female",
        "age_group": "30-59", "age": 41.3, "confidence": 0.9346, "seconds": 3.21, "frames": 24,
    }  # fmt: skip
    assert summary(tmp_path / name, 2, 2, NOW)["hours"] == HOURS[2:]
    assert (
        len(summary(tmp_path / name, 24, 2, NOW)["recent"]) == 2 and summary(tmp_path / name, 1, 0, NOW)["recent"] == []
    )
    sink.close()
    assert summary(tmp_path / name, 24, 50, NOW) == answer, "and after it is closed"


@pytest.mark.parametrize("name", FILES)
def test_entrance_mode_has_no_column_for_anything_else(tmp_path: Path, name: str) -> None:
    sink = open_events(tmp_path / name, ("mask",))
    sink.add(event(attributes=("mask",)))
    sink.close()
    assert columns(("mask",)) == ("time", "source", "track", "kind", "mask", "confidence", "seconds", "frames")
    assert set(summary(tmp_path / name, 24, 1, NOW)["recent"][0]) == set(columns(("mask",))) - {"source"}
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(word in data for word in (b"female", b"gender", b"age_group", b"30-59", b"41."))
    with pytest.raises(DataError, match=r"holds other columns .*choose another file"):
        open_events(tmp_path / name, ALL)
    again = open_events(tmp_path / name, ("mask",))
    again.add(event(track=9, attributes=("mask",)))
    again.close()
    assert [row["track"] for row in summary(tmp_path / name, 24, 5, NOW)["recent"]] == [9, 1]


@pytest.mark.parametrize("keep", [0, 1, 30])
def test_a_torn_last_line_is_repaired_on_opening(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "events.csv"
    sink = open_events(path, ALL)
    sink.add(DAY[0])
    sink.close()
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    path.write_bytes(whole + line[:keep])
    assert summary(path, 24, 50, NOW)["total"] == four(worn=1), "a reader passes over half a line"
    sink = open_events(path, ALL)
    sink.add(DAY[1])
    sink.close()
    assert path.read_bytes().startswith(whole) and path.read_bytes().count(b"\n") == 3
    assert [row["mask"] for row in csv.DictReader(path.read_text().splitlines())] == ["worn", "none"]
    assert summary(path, 24, 50, NOW)["total"] == four(worn=1, none=1)


def test_a_torn_header_is_written_anew_and_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(b"time,sour")
    sink = open_events(path, ("mask",))
    sink.close()
    assert path.read_text() == ",".join(columns(("mask",))) + "\n"
    for text in ("hello", "a,b\n1,2\n", "time,source\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"events\.csv: holds other columns"):
            open_events(path, ("mask",))
        assert path.read_text() == text
        with pytest.raises(DataError, match="no events file"):
            summary(path, now=NOW)
    base = sqlite3.connect(tmp_path / "other.db")
    base.execute("CREATE TABLE mine (x)")
    base.close()
    with pytest.raises(DataError, match="holds other columns"):
        open_events(tmp_path / "other.db", ("mask",))
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(DataError, match=r"text\.sqlite: events cannot be written \(file is not a database\)"):
        open_events(tmp_path / "text.sqlite", ("mask",))
    with pytest.raises(DataError, match=r"text\.sqlite: is no events file"):
        summary(tmp_path / "text.sqlite")


def test_what_cannot_be_a_file_of_events_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.xlsx: unknown kind of events file .*\.csv"):
        open_events(tmp_path / "e.xlsx", ALL)
    with pytest.raises(DataError, match="its folder does not exist"):
        open_events(tmp_path / "no" / "e.csv", ALL)
    with pytest.raises(DataError, match="no such events file"):
        summary(tmp_path / "e.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: events cannot be written \(Is a directory\)"):
        open_events(tmp_path / "folder.csv", ALL)


def test_counts_stand_beside_the_csv_and_are_made_anew_when_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    sink = open_events(path, ALL)
    for told in DAY:
        sink.add(told)
    sink.close()
    text = hours_path(path).read_text()
    assert text.splitlines()[:2] == ["hour,worn,incorrect,none,indeterminate", "2026-11-26T10:00,1,0,1,0"]
    old = hours_path(path).stat().st_mtime - 100
    hours_path(path).write_text("hour,worn,incorrect,none,indeterminate\n")
    os.utime(hours_path(path), (old, old))
    assert summary(path, 24, 0, NOW)["hours"] == HOURS, "killed between row and count: the rows are the truth"
    hours_path(path).unlink()
    assert summary(path, 24, 0, NOW)["hours"] == HOURS
    open_events(path, ALL).close()
    assert hours_path(path).read_text() == text


def test_two_watches_write_one_csv_and_a_rotation_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    one, two = open_events(path, ALL), open_events(path, ALL)
    for index in range(6):
        (one, two)[index % 2].add(event(track=index))
    assert summary(path, 24, 9, NOW)["total"] == four(worn=6)
    assert [row["track"] for row in summary(path, 24, 9, NOW)["recent"]] == [5, 4, 3, 2, 1, 0]
    shutil.move(path, tmp_path / "events.1.csv")
    one.add(event("none"))
    two.add(event("none"))
    assert hours_path(path).read_text().endswith("T10:00,0,0,2,0\n") and summary(path, 24, 9, NOW)["total"] == four(
        none=2
    )
    assert summary(tmp_path / "events.1.csv", 24, 9, NOW)["total"] == four(worn=6)
    one.close()
    two.close()


def test_the_last_rows_of_a_long_file_are_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    open_events(path, ALL).close()
    header, row = (
        path.read_text(),
        ",".join(["{time}", "s" * 300, "{track}", "event", "worn", "", "", "", "0.9", "1", "3"]),
    )
    rows = [row.format(time=(TEN + timedelta(seconds=i)).isoformat(), track=i) for i in range(500)]
    path.write_text(header + "\n".join(rows) + "\n")
    answer = summary(path, 24, 100, NOW)
    assert [row["track"] for row in answer["recent"]] == list(range(499, 399, -1)) and answer["total"] == four(worn=500)
    assert answer["recent"][0]["gender"] is None and len(answer["source"]) == 300


def test_sqlite_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    sink = open_events(path, ALL)
    reader = sqlite3.connect(path)
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
    for told in DAY:
        sink.add(told)  # a reader in the middle of its transaction holds nobody up
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,), "and sees what there was when it began"
    reader.execute("COMMIT")
    view = reader.execute("SELECT hour, worn, incorrect, none, indeterminate FROM hours").fetchall()
    assert view == [tuple(hour.values()) for hour in HOURS]
    second = open_events(path, ALL)
    second.add(event(track=7))
    assert summary(path, 24, 1, NOW)["recent"][0]["track"] == 7
    for open_file in (sink, second, reader):
        open_file.close()


def test_without_a_file_the_last_events_and_all_counts_are_remembered() -> None:
    memory = MemoryEvents(("mask",))
    now = datetime.now(UTC).astimezone()
    for index in range(KEPT + 20):
        memory.add(event("none", track=index, attributes=("mask",), begin=now))
    memory.add(event(minutes=-30 * 60, attributes=("mask",), begin=now))
    answer = memory.summary(24, 1000)
    assert answer["total"] == four(none=KEPT + 20) and len(answer["recent"]) == KEPT
    assert memory.summary(48, 1)["total"] == four(worn=1, none=KEPT + 20)


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
