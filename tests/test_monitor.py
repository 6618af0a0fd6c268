"""The monitor: `/v1/events` beside a running watch and over a file, and what it answers to nonsense."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the web framework is not installed (threefold[serve])")
from fastapi.testclient import TestClient
from test_events import event
from test_watch import Played, draw, find, reader, walk

from threefold.cli.live import Lines
from threefold.errors import DataError, ThreefoldError
from threefold.watch.events import Events
from threefold.watch.monitor import Monitor, monitor_app, monitor_router, parse_address
from threefold.watch.watch import watch


def fill(path: Path, count: int = 3, attributes: tuple[str, ...] = ("mask",)) -> None:
    store = Events(path, attributes)
    for index in range(count):
        store.add(event(track=index, attributes=attributes, begin=datetime.now().astimezone()))
    store.close()


def test_an_events_file_is_told_in_the_form_of_the_contract(tmp_path: Path) -> None:
    fill(tmp_path / "e.sqlite")
    client = TestClient(monitor_app(tmp_path / "e.sqlite"))
    answer = client.get("/v1/events?hours=2&recent=2")
    body = answer.json()
    assert answer.status_code == 200 and set(body) == {"source", "state", "hours", "total", "recent"}
    assert (body["source"], body["state"]) == ("cam", None)
    assert body["total"] == {"worn": 3, "incorrect": 0, "none": 0, "indeterminate": 0}
    assert sum(hour["worn"] for hour in body["hours"]) == 3 and len(body["recent"]) == 2
    assert set(body["recent"][0]) == {"time", "track", "kind", "mask", "confidence", "seconds", "frames"}
    assert answer.headers["cache-control"] == "no-store"


def test_the_page_and_its_files_need_nothing_from_elsewhere(tmp_path: Path) -> None:
    fill(tmp_path / "e.sqlite")
    client = TestClient(monitor_app(tmp_path / "e.sqlite"))
    page = client.get("/")
    assert page.url.path == "/monitor" and page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff" and "//" not in page.text.replace("<!--", "")
    for file, kind in (("monitor.js", "javascript"), ("app.css", "text/css"), ("icon.svg", "image/svg+xml")):
        assert f"/static/{file}" in page.text
        assert kind in client.get(f"/static/{file}").headers["content-type"]
    assert client.get("/static/../monitor.py").status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("hours=0", 422, "invalid"),
        ("recent=-1", 422, "invalid"),
        ("hours=x", 422, "invalid"),
        ("hours=99999", 422, "invalid"),
    ],
)
def test_numbers_out_of_range_are_said_in_the_service_s_form(
    tmp_path: Path, query: str, status: int, code: str
) -> None:
    fill(tmp_path / "e.sqlite")
    answer = TestClient(monitor_app(tmp_path / "e.sqlite")).get(f"/v1/events?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and query.partition("=")[0] in error["message"]


def test_a_file_that_is_not_there_yet_is_404_until_it_is(tmp_path: Path) -> None:
    client = TestClient(monitor_app(tmp_path / "e.sqlite"))
    answer = client.get("/v1/events")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
    fill(tmp_path / "e.sqlite")
    assert client.get("/v1/events").json()["total"]["worn"] == 3


def test_no_more_of_a_person_is_told_than_the_attributes() -> None:
    from fastapi import FastAPI

    person = {"mask": "worn", "gender": "male", "age_group": "30-59", "age": 41.2, "track": 3}
    for attributes, shown in (
        (["mask"], {"mask", "track"}), (["mask", "gender"], {"mask", "gender", "track"}), (["mask", "age_group"],
        {"mask", "age_group", "age", "track"}), (["mask", "gender", "age_group"], set(person)),
    ):  # fmt: skip
        app = FastAPI()
        app.include_router(monitor_router(lambda hours, recent: {"recent": [person]}, attributes))
        assert set(TestClient(app).get("/v1/events").json()["recent"][0]) == shown


def test_the_router_joins_another_application(tmp_path: Path) -> None:
    from fastapi import FastAPI

    app = FastAPI()
    app.include_router(monitor_router(lambda hours, recent: {"hours": hours, "recent": [{"n": recent}]}))
    client = TestClient(app)
    assert client.get("/v1/events").json() == {"hours": 24, "recent": [{"n": 50}]}
    assert (
        client.get("/monitor").text == client.get("/monitor").text and client.get("/static/app.css").status_code == 404
    )


def test_addresses() -> None:
    assert parse_address("8001") == ("127.0.0.1", 8001), "of this machine alone unless somebody says otherwise"
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80) and parse_address("[::1]:0") == ("::1", 0)
    for text in ("", "x", "8001:", ":8001", "host:99999", "a:b:1", "http://h:1"):
        with pytest.raises(DataError, match="expected PORT or HOST:PORT"):
            parse_address(text)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ThreefoldError, match="cannot be listened to") as caught:
            Monitor(f"{taken.getsockname()[1]}", lambda hours, recent: {})
    assert "\n" not in str(caught.value)


def ask(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


@pytest.mark.parametrize("name", [None, "e.sqlite"])
def test_a_running_watch_tells_its_live_state(
    tmp_path: Path, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked from inside, after the 30th of 40 frames: the watch is running and has told one person."""
    seen: list[dict[str, Any]] = []
    frames = 0

    def look(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
        nonlocal frames
        frames += 1
        if frames == 31:
            url = capsys.readouterr().err.split("monitor: ")[1].split()[0]
            seen.append({"url": url} | ask(url.replace("/monitor", "/v1/events")))
        return find(image)

    watch(Played(draw([walk(0, 40, 20, 1, "none")], 40)), model=reader(), find=look, monitor=0,
          events=tmp_path / name if name else None, view=Lines())  # fmt: skip
    (body,) = seen
    assert body["source"] == "door" and body["total"] == {"worn": 0, "incorrect": 0, "none": 1, "indeterminate": 0}
    assert body["state"].keys() == {"running", "fps", "dropped", "frames", "since"}
    assert body["state"]["running"] is True and body["state"]["frames"] == 30 and body["state"]["dropped"] == 0
    assert datetime.fromisoformat(body["state"]["since"]).tzinfo is not None
    assert [row["mask"] for row in body["recent"]] == ["none"] and body["recent"][0]["frames"] == 16
    assert not any(thread.name == "monitor" for thread in threading.enumerate())
    with pytest.raises(urllib.error.URLError):
        ask(body["url"])
