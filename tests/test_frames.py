"""Where frames come from: files whole and on time, streams that die and come back, cameras that are too fast."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Picture

from threefold.errors import CheckFailed, DataError
from threefold.read.videos import SUFFIXES, Video
from threefold.watch.frames import (
    Folder,
    Frame,
    Image,
    Live,
    Newest,
    Paced,
    Source,
    make_source,
    read_whole,
    safe_address,
)
from threefold.watch.record import Recording

BEGIN = datetime(2026, 11, 26, 10, tzinfo=UTC)
GREY = np.zeros((4, 4, 3), np.uint8)


def grey(level: int, size: tuple[int, int] = (48, 64)) -> Image:
    return np.full((*size, 3), level, np.uint8)


def film(path: Path, levels: list[int], fps: float = 25) -> Path:
    recording = Recording(path, fps)
    for index, level in enumerate(levels):
        recording.add(index / fps, grey(level))
    assert recording.close()
    return path


class Script:
    """A live source that follows a script: each opening gives so many frames, None: cannot be opened."""

    name, live, patient, fps = "cam", True, True, 25.0

    def __init__(self, *openings: int | None, tick: Callable[[], object] = lambda: None, over: bool = False) -> None:
        self.openings, self.tick, self.over = list(openings), tick, over
        self.left = self.closed = 0

    def open(self) -> None:
        frames = self.openings.pop(0) if self.openings else None
        if frames is None:
            raise DataError("cam: cannot be opened as a stream")
        self.left = frames

    def read(self) -> tuple[Image, float | None] | None:
        self.tick()
        self.left -= 1
        return (GREY, None) if self.left >= 0 else None

    def ended(self) -> bool:
        return self.over

    def close(self) -> None:
        self.closed += 1


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def pump(source: Source, retries: int, clock: Clock) -> tuple[Exception | None, list[str], Newest]:
    """Run a live source to its end in this thread: what it ended with, what was faults, the last frames."""
    faults: list[str] = []
    live = Live(source, threading.Event(), faults.append, retries=retries, clock=clock, wait=clock.pass_by)
    return live.pump(), faults, live.newest


def test_a_video_is_read_whole_with_its_own_times_and_upright_colours(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", list(range(0, 250, 5)), fps=12.5)
    source = make_source(str(path), fps=99, fault=print)
    assert (source.live, source.name) == (False, str(path))
    source.open()
    frames = list(read_whole(source, BEGIN, pytest.fail))
    source.close()
    assert len(frames) == 50 and source.fps == pytest.approx(12.5)
    assert [frame.time for frame in frames] == pytest.approx([index / 12.5 for index in range(50)], abs=1e-3)
    assert frames[-1].clock - BEGIN == timedelta(seconds=frames[-1].time)
    assert [frame.image.mean() for frame in frames] == pytest.approx(list(range(0, 250, 5)), abs=4)
    red = Recording(tmp_path / "red.mp4", 25)
    red.add(0, np.full((48, 64, 3), (220, 20, 20), np.uint8))
    red.close()
    source = Video(str(tmp_path / "red.mp4"), "red", live=False)
    source.open()
    taken = source.read()
    source.close()
    assert taken and taken[0].mean((0, 1)) == pytest.approx([220, 20, 20], abs=12), "RGB, not BGR"


def test_times_never_fall_whatever_a_container_says() -> None:
    times: list[float | None] = [0.0, 0.5, 0.2, 0.0, None]

    class Odd(Script):
        def read(self) -> tuple[Image, float | None] | None:
            return (GREY, times.pop(0)) if times else None

    faults: list[str] = []
    frames = list(read_whole(Odd(), BEGIN, faults.append))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.5, 0.54, 0.58, 0.62])
    assert faults == ["cam: breaks off after 5 frames (cut off or damaged)"]


def test_a_folder_is_read_in_natural_order_and_broken_photos_are_faults(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11, 100):
        Picture.fromarray(grey(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "frame10.png").write_bytes(b"no photo")
    faults: list[str] = []
    source = make_source(str(tmp_path), fps=4, fault=faults.append)
    assert isinstance(source, Folder)
    source.open()
    frames = list(read_whole(source, BEGIN, faults.append))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 9, 11, 100]
    assert [frame.time for frame in frames] == [0, 0.25, 0.5, 1.0, 1.25], "the one left out leaves its time"
    assert source.broken == 1 and len(faults) == 1 and "frame10.png" in faults[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos here"):
        make_source(str(tmp_path / "empty"), fps=4, fault=print).open()


@pytest.mark.parametrize("text", ["none.mp4", "ftp://host/x", "file:///etc/passwd", "01234"])
def test_what_cannot_be_watched_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"cannot be watched|no such file") as caught:
        make_source(text, fps=25, fault=print)
    assert "\n" not in str(caught.value)


def test_files_and_cameras_that_do_not_open_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    stream = "rtsp://me:secret@127.0.0.1:9/live?token=x"
    program = (
        "import sys; from threefold.watch.frames import make_source as m; m(sys.argv[1], fps=25, fault=print).open()"
    )
    suffixes = ", ".join(SUFFIXES)
    for text, message in (
        (
            f"{tmp_path}/a.mp4",
            f"{tmp_path}/a.mp4: not a video that can be read, or cut off or damaged ({suffixes} are read)",
        ),
        ("99", "camera 99: cannot be opened as a camera"),
        (stream, "rtsp://127.0.0.1:9/live: cannot be opened as a stream"),
    ):
        with pytest.raises(DataError) as caught:
            make_source(text, fps=25, fault=print).open()
        assert str(caught.value) == message, "no user, no password, no token"
    done = subprocess.run([sys.executable, "-c", program, stream], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback") and "secret" not in done.stderr, (
        "OpenCV and FFmpeg print nothing of their own"
    )


def test_names_hold_no_password() -> None:
    assert safe_address("rtsp://me:se@cret@host:554/a?key=1#f") == "rtsp://host:554/a"
    assert safe_address("http://[::1") == "address"
    assert make_source("RTSP://u:p@h/a", fps=1, fault=print).name == "rtsp://h/a"
    assert make_source("0", fps=1, fault=print).name == "camera 0"


def test_only_the_newest_frame_waits_and_lost_ones_are_counted() -> None:
    place = Newest()
    frames = [Frame(GREY, float(index), BEGIN) for index in range(7)]
    for frame in frames[:5]:
        place.put(frame)
    assert place.take(0) is frames[4] and place.take(0) is None
    assert (place.put_count, place.dropped) == (5, 4)
    place.put(frames[5])
    assert place.take(0) is frames[5]
    place.put(frames[6])
    place.finish(CheckFailed("gone"))
    assert place.take(0) is frames[6], "the last frame is seen before the end is told"
    with pytest.raises(CheckFailed, match="gone"):
        place.take(0)
    assert place.dropped == 4


def test_a_slow_reader_sees_the_newest_frame_each_time() -> None:
    """A camera of 10 frames a second, and a reader that takes 0.35 s for each: nobody sleeps, the clock is set."""
    clock, taken = Clock(), []
    live = Live(Script(), threading.Event(), print, clock=clock)
    shown = iter(range(1000))
    next_frame = clock()
    while len(taken) < 10:
        while next_frame <= clock() + 1e-9:
            live.newest.put(Frame(GREY, next_frame, BEGIN))
            next(shown)
            next_frame += 0.1
        frame = live.newest.take(0)
        assert frame is not None and clock() - frame.time < 0.1, "never older than one frame"
        taken.append(frame.time)
        clock.pass_by(0.35)
    assert live.newest.put_count == live.newest.dropped + len(taken) == next(shown)
    assert live.newest.dropped > 20


def test_a_stream_that_dies_is_opened_again_ever_more_patiently_and_faults_once() -> None:
    clock = Clock()
    source = Script(3, *[None] * 9, 70, 0, tick=lambda: clock.pass_by(0.1))
    clock.waits = []
    error, faults, newest = pump(source, 10, clock)
    waits = [wait for wait in clock.waits if wait != 0.1]
    assert waits[:10] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert faults[:2] == ["cam: gives no more frames; trying again", "cam: is back after 152 s"]
    assert newest.put_count == 73 and source.closed == 21
    assert waits[10:] == waits[:10], "a new outage begins with little patience"
    assert faults[2:] == ["cam: gives no more frames; trying again"] and isinstance(error, CheckFailed)


def test_a_stream_that_flaps_is_one_outage() -> None:
    clock = Clock()
    error, faults, _ = pump(Script(*[1] * 6, tick=lambda: clock.pass_by(0.1)), 5, clock)
    assert faults == ["cam: gives no more frames; trying again"]
    assert isinstance(error, CheckFailed) and str(error) == "cam: gives no more frames (tried again 5 times)"


def test_a_source_that_never_gave_a_frame_is_bad_input_and_a_camera_is_not_waited_for() -> None:
    error, _, _ = pump(Script(None, None, None), 2, Clock())
    assert type(error) is DataError and str(error) == "cam: cannot be opened as a stream (tried again 2 times)"
    clock, camera = Clock(), Script(None, None)
    camera.patient = False
    error, faults, _ = pump(camera, 20, clock)
    assert (str(error), faults, clock.waits) == ("cam: cannot be opened as a stream", [], [])


def test_what_is_over_is_not_opened_again() -> None:
    error, faults, newest = pump(Script(5, over=True), 20, Clock())
    assert (error, faults, newest.put_count) == (None, [], 5)


def test_faults_in_the_thread_reach_whoever_waits() -> None:
    class Broken(Script):
        def read(self) -> tuple[Image, float | None] | None:
            raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError), Live(Broken(1), threading.Event(), print) as live:
        list(live)


def test_a_live_source_is_read_by_a_thread_until_stopped() -> None:
    gate, stop = threading.Semaphore(0), threading.Event()
    with Live(Script(1000, tick=gate.acquire), stop, pytest.fail) as live:
        frames = iter(live)
        for _ in range(3):
            gate.release()
            assert next(frames).image is GREY
        assert live.newest.dropped == 0
        stop.set()
        gate.release()
        assert list(frames) == []
    assert not live._thread.is_alive()


def test_realtime_plays_a_file_at_its_own_speed_and_ends(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [10, 20, 30, 40], fps=10)
    clock = Clock()
    stop = threading.Event()
    stop.wait = clock.pass_by  # type: ignore[method-assign, assignment]
    source = Paced(make_source(str(path), fps=1, fault=print), stop, clock)
    live = Live(source, stop, pytest.fail, clock=clock)
    assert live.pump() is None
    assert clock.waits == pytest.approx([0, 0.1, 0.1, 0.1], abs=1e-6) and live.newest.put_count == 4
    assert source.fps == pytest.approx(10)


def test_a_recording_keeps_time_and_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    recording = Recording(path, 10)
    for time, level in ((5.0, 10), (5.01, 200), (5.1, 60), (5.5, 110), (60.0, 160)):
        recording.add(time, grey(level, (49, 65)) if level == 110 else grey(level))
        assert not path.exists()
    recording.close()
    assert recording.close() is False
    video = cv2.VideoCapture(str(path))
    levels = [round(float(image.mean())) for good, image in iter(video.read, (False, None)) if good]
    video.release()
    # 5.01 came too early for a frame of its own; 5.5 stands for 5.2 to 5.5; an outage of a minute is 2 s long
    assert levels == pytest.approx([10, 60, *[110] * 4, *[160] * 20], abs=6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]
    for wrong, message in ((path, "already there"), (tmp_path / "a.txt", "unknown kind of video"),
                           (tmp_path / "no" / "a.mp4", "its folder does not exist")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            Recording(wrong, 25)
    assert Recording(tmp_path / "never.mp4", 25).close() is False and not (tmp_path / "never.mp4").exists()
