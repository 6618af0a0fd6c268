"""A watch from frames to rows: drawn people walk by, and what is told, kept, sent and shown of them is looked at.

A person is a square of one grey; FakeBackend reads the mask from its brightness. `find` sees squares above the
background, so nothing here needs the detector's model.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_backend import FakeBackend
from helpers import environment
from test_events import Inbox

from threefold import labels
from threefold.cli.live import Lines
from threefold.errors import DataError
from threefold.photos.prepare import Prepare
from threefold.photos.quality import Limits
from threefold.read.reader import Reader
from threefold.watch import frames as frames_module
from threefold.watch.events import event_rows, summary
from threefold.watch.frames import Image
from threefold.watch.record import Recording
from threefold.watch.tracks import Detection
from threefold.watch.votes import Rules
from threefold.watch.watch import Watched, watch

ROWS, COLUMNS, SIDE, FPS = 120, 320, 40, 25
START = datetime(2026, 11, 26, 10, tzinfo=UTC)
LEVEL = {"worn": 60, "incorrect": 130, "none": 215}
"""Grey of a person whose brightness / 256 * 18 is a class with that mask."""
Person = tuple[int, int, Callable[[int], int], Callable[[int], str]]
"""First frame, last frame, left side by frame, mask by frame."""


def draw(people: Sequence[Person], frames: int) -> list[Image]:
    pictures = []
    for index in range(frames):
        picture = np.full((ROWS, COLUMNS, 3), 8, np.uint8)
        for first, last, left, mask in people:
            if first <= index < last:
                x = left(index)
                picture[40 : 40 + SIDE, max(0, x) : max(0, x + SIDE)] = LEVEL[mask(index)]
        pictures.append(picture)
    return pictures


def find(image: Image) -> list[Detection]:
    """Every bright square that is whole enough."""
    bright = (image[:, :, 0] > 30).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
    boxes = [tuple(map(float, (x, y, x + w, y + h))) for x, y, w, h, area in stats[1:count] if area > 800]
    return [Detection(box, 0.9, ((0.0, 0.0),) * 5) for box in boxes]  # type: ignore[arg-type]


def reader(crop: str = "face(1)") -> Reader:
    return Reader(FakeBackend(Prepare(size=(16, 16), crop=crop)), limits=Limits(min_face=20, min_sharpness=0))


class Played:
    """A source of drawn frames. openings: how many of them each opening gives before it breaks off."""

    name, patient, fps = "door", True, float(FPS)

    def __init__(self, pictures: Sequence[Image], *, live: bool = False, openings: Sequence[int] = ()) -> None:
        self.pictures, self.live, self.openings = list(pictures), live, list(openings)
        self.shown = self.left = 0

    def open(self) -> None:
        if self.live and not self.openings:
            raise DataError("door: cannot be opened as a stream")
        self.left = self.openings.pop(0) if self.openings else len(self.pictures)

    def read(self) -> tuple[Image, float | None] | None:
        if not self.left or self.shown >= len(self.pictures):
            return None
        self.left, self.shown = self.left - 1, self.shown + 1
        return self.pictures[self.shown - 1], (self.shown - 1) / FPS

    def ended(self) -> bool:
        return not self.live

    def close(self) -> None:
        """Nothing is held."""


def play(people: Sequence[Person], frames: int, **options: Any) -> Watched:
    source = options.pop("source", None) or Played(draw(people, frames))
    chosen: dict[str, Any] = {"model": reader(), "find": find, "start": START} | options
    return watch(source, **chosen)


def walk(first: int, last: int, begin: int, step: float, mask: str) -> Person:
    return first, last, lambda index: round(begin + step * (index - first)), lambda _: mask


def rows(path: Path) -> list[dict[str, Any]]:
    names, *values = event_rows(path)
    return [dict(zip(names, row, strict=True)) for row in values]


def test_one_event_per_person_not_per_frame(tmp_path: Path) -> None:
    """Two side by side and one who comes later; a fourth passes too quickly to be told."""
    people = [walk(0, 60, 20, 1, "worn"), walk(0, 60, 120, 1, "none"), walk(80, 140, 260, -2, "incorrect"),
              walk(150, 160, 20, 0, "worn")]  # fmt: skip
    done = play(people, 200, events=tmp_path / "e.sqlite")
    events = rows(tmp_path / "e.sqlite")
    assert [(row["track"], row["kind"], row["mask"]) for row in events] == [
        (1, "event", "worn"), (2, "event", "none"), (3, "event", "incorrect")
    ]  # fmt: skip
    assert [row["time"] for row in events] == [
        "2026-11-26T10:00:00.600+00:00", "2026-11-26T10:00:00.600+00:00", "2026-11-26T10:00:03.800+00:00"
    ], "as soon as it is sure, by the video's clock"  # fmt: skip
    assert {(row["seconds"], row["frames"], row["source"]) for row in events} == {(0.6, 16, "door")}
    assert (done.frames, done.seconds, done.dropped, done.changed) == (200, 199 / FPS, 0, 0)
    assert done.counts == {"worn": 1, "incorrect": 1, "none": 1, "indeterminate": 0}
    assert done.lines() == ["door: 200 frames, 8.0 s; 3 people (worn 1, incorrect 1, none 1, indeterminate 0)"]
    answer = summary(tmp_path / "e.sqlite", 24, 50, START)
    assert answer["hours"] == [{"hour": "2026-11-26T10:00", **done.counts}]


def test_people_who_cross_are_two_events(tmp_path: Path) -> None:
    """One walks in front of the other: for some frames there is one box of both, which is no face."""
    people = [walk(0, 100, 10, 2, "none"), walk(0, 100, 250, -2, "worn")]
    done = play(people, 110, events=tmp_path / "e.sqlite", find=lambda image: [
        face for face in find(image) if face.box[2] - face.box[0] < SIDE * 1.3])  # fmt: skip
    assert [(row["track"], row["mask"]) for row in rows(tmp_path / "e.sqlite")] == [(1, "none"), (2, "worn")]
    assert sum(done.counts.values()) == 2 and done.changed == 0


def test_a_mask_taken_off_in_view_is_a_change_of_the_same_person(tmp_path: Path) -> None:
    person: Person = (0, 150, lambda _: 100, lambda index: "worn" if index < 60 else "none")
    done = play([person], 150, events=tmp_path / "e.sqlite")
    events = summary(tmp_path / "e.sqlite", 24, 50, START)
    assert [(row["kind"], row["mask"], row["track"]) for row in events["recent"]] == [
        ("changed", "none", 1), ("event", "worn", 1)
    ]  # fmt: skip
    assert events["total"] == done.counts == {"worn": 1, "incorrect": 0, "none": 0, "indeterminate": 0}
    assert done.changed == 1 and "1 changed" in str(done)


def test_who_cannot_be_read_is_indeterminate_once_and_only_if_there_long_enough(tmp_path: Path) -> None:
    small = Reader(FakeBackend(Prepare(size=(16, 16), crop="face(1)")), limits=Limits(min_face=50, min_sharpness=0))
    done = play(
        [walk(0, 50, 20, 1, "worn"), walk(60, 80, 20, 1, "worn")], 90, model=small, events=tmp_path / "e.sqlite"
    )
    (row,) = rows(tmp_path / "e.sqlite")
    assert (row["kind"], row["mask"], row["gender"], row["confidence"]) == ("indeterminate",) * 3 + (0.3333,)
    assert done.counts["indeterminate"] == 1 and row["seconds"] == 1.96


def test_entrance_mode_never_names_gender_or_age(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inbox = Inbox(200)
    play(
        [walk(0, 60, 20, 1, "worn")],
        70,
        attributes=["mask"],
        events=tmp_path / "e.sqlite",
        webhook=inbox.address,
        view=Lines(),
    )
    inbox.close()
    (row,), (body,) = rows(tmp_path / "e.sqlite"), inbox.bodies
    assert (
        list(row)
        == ["time", "source", "track", "kind", "mask", "confidence", "seconds", "frames"]
        == list(json.loads(body))
    )
    out = capsys.readouterr().out
    assert out.startswith("10:00:00  #1  mask worn 0.9") and "male" not in out and "<30" not in out
    with pytest.raises(DataError, match="a watch reads the mask at least"):
        play([], 1, attributes=["gender"])
    with pytest.raises(DataError, match="nearest: mask"):
        play([], 1, attributes=["masks"])


def test_all_attributes_are_told_in_words(tmp_path: Path) -> None:
    play([walk(0, 60, 20, 1, "worn")], 70, events=tmp_path / "e.sqlite")
    (row,) = rows(tmp_path / "e.sqlite")
    mask, gender, group = labels.decode(int(LEVEL["worn"] / 256 * 18))
    assert (row["mask"], row["gender"], row["age_group"], row["age"]) == (
        labels.name("mask", mask), labels.name("gender", gender), labels.name("age_group", group), None
    )  # fmt: skip


def test_faces_are_read_now_and_then_and_in_one_call_per_frame(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(FakeBackend):
        def __call__(self, photos: tuple[Any, ...]) -> Any:
            asked.append(len(photos[0]))
            return super().__call__(photos)

    counting = Reader(Counting(Prepare(size=(16, 16), crop="face(1)")), limits=Limits(20, 0))
    play([walk(0, 125, 20, 0, "worn"), walk(0, 125, 120, 0, "none")], 125, model=counting)
    assert set(asked) == {2} and len(asked) == 6 + 4, "until sure six times, then once a second: not 125 times"


def test_a_saved_video_shows_boxes_and_words_and_is_only_there_when_asked(tmp_path: Path) -> None:
    play([walk(0, 60, 20, 1, "none")], 60, save=tmp_path / "out.mp4")
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    pictures = [image for good, image in iter(video.read, (False, None)) if good]
    assert len(pictures) == 60 and video.get(cv2.CAP_PROP_FPS) == FPS
    video.release()
    early, late = pictures[2].astype(int), pictures[50].astype(int)
    assert (late[:, :, 2] - late[:, :, 0] > 60).sum() > 200, "red: no mask"
    assert (early[:, :, 2] - early[:, :, 0] > 60).sum() < 50, "grey until it is sure"
    with pytest.raises(DataError, match="already there"):
        play([], 1, save=tmp_path / "out.mp4")
    play([walk(0, 60, 20, 1, "none")], 60, events=tmp_path / "e.sqlite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.sqlite", "out.mp4"]


def test_a_stream_that_dies_goes_on_and_one_that_is_gone_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It breaks off three times while somebody stands there; then it does not come back."""
    monkeypatch.setattr(frames_module, "BACK_OFF", (0.0, 0.0))
    ready = threading.Semaphore(1)

    class Stepped(Played):
        """Gives its next frame when the last one was dealt with, each 40 ms on its clock."""

        def read(self) -> tuple[Image, float | None] | None:
            assert ready.acquire(timeout=30)
            taken = super().read()
            if taken is None:
                ready.release()
            return taken

    def look(image: Image) -> list[Detection]:
        ready.release()
        return find(image)

    source = Stepped(draw([walk(0, 60, 20, 1, "worn")], 60), live=True, openings=[20, 0, 20, 20])
    rules = Rules(seconds=0, quick=0)  # on the wall clock these frames are a moment
    done = play([], 0, source=source, find=look, retries=4, rules=rules, max_gap=60, events=tmp_path / "e.sqlite",
                view=Lines())  # fmt: skip
    assert done.failure == "door: cannot be opened as a stream (tried again 4 times)" and done.frames == 60
    assert [row["mask"] for row in rows(tmp_path / "e.sqlite")] == ["worn"], "flushed before it ended"
    assert capsys.readouterr().err.count("trying again") == 1


def test_a_slow_watch_of_a_fast_camera_drops_frames_and_says_so() -> None:
    """The camera gives 30 frames while the first is looked at, and the rest while the second is."""
    counts = [30, 30]
    turns = threading.Semaphore(1)
    stop = threading.Event()

    class Fast(Played):
        def read(self) -> tuple[Image, float | None] | None:
            turns.acquire(timeout=30)
            return super().read()

    source = Fast(draw([], 61), live=True, openings=[1000])

    def slow(image: Image) -> list[Detection]:
        for _ in range(counts.pop(0) if counts else 0):
            before = source.shown
            turns.release()
            while source.shown == before and source.shown < 61:
                time.sleep(0)
        if not counts:
            stop.set()
            turns.release()
        return []

    done = play([], 0, source=source, find=slow, stop=stop)
    assert done.frames == 2 and done.dropped >= 57
    assert f"{done.dropped:,} frames dropped to keep up" in str(done)


def test_what_fails_midway_closes_everything(tmp_path: Path) -> None:
    def fail(image: Image) -> list[Detection]:
        if image.max() > 250:
            raise DataError("model: broken")
        return find(image)

    pictures = [*draw([walk(0, 40, 20, 1, "worn")], 40), np.full((ROWS, COLUMNS, 3), 255, np.uint8)]
    with pytest.raises(DataError, match="model: broken"):
        play([], 0, source=Played(pictures), find=fail, events=tmp_path / "e.sqlite", save=tmp_path / "o.mp4")
    assert len(rows(tmp_path / "e.sqlite")) == 1 and (tmp_path / "o.mp4").stat().st_size > 1000


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_watch import find, reader
from threefold.watch.watch import watch
from threefold.cli.live import Lines
print(watch(sys.argv[2], model=reader(), find=find, realtime=True, save="out.mp4", events="e.sqlite", view=Lines()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_watch_finishes_its_video_and_its_rows(tmp_path: Path, number: signal.Signals) -> None:
    """A real process plays 20 seconds of video at its own speed; it is told to end once the first event is there."""
    recording = Recording(tmp_path / "in.mp4", FPS)
    for index, picture in enumerate(draw([walk(0, 500, 20, 0.3, "none")], 500)):
        recording.add(index / FPS, picture)
    recording.close()
    place = str(Path(__file__).parent)
    command = [sys.executable, "-c", PROGRAM, place, "in.mp4"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), **pipes)
    try:
        assert process.stdout
        first = process.stdout.readline()
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "mask none" in first and process.returncode == 0, err
    assert "1 person (worn 0, incorrect 0, none 1, indeterminate 0)" in out and "Traceback" not in err
    files = [path.name for path in tmp_path.iterdir() if not path.is_dir()]
    assert sorted(files) == ["e.sqlite", "in.mp4", "out.mp4"]
    assert len(rows(tmp_path / "e.sqlite")) == 1
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    count = sum(1 for good, _ in iter(video.read, (False, None)) if good)
    video.release()
    assert 5 < count < 490, "whole up to the moment it was told to end"


def test_watching_never_imports_torch_nor_the_web_framework(tmp_path: Path) -> None:
    program = (
        "import sys, threefold.watch.watch; print({'torch', 'fastapi', 'uvicorn', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "set()\n"
