"""Frames from wherever they come: a video file, a folder of frames, a stream's address, a camera.

Files and folders are read whole, each frame at the time that the video itself says. What is live is read by a thread
that keeps only the newest frame: whoever looks at an entrance wants to know what is there now, so a slow reader loses
frames, which are counted, and never falls behind. A stream that dies is opened again, ever more patiently.
Names of sources never hold the user and password of an address.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from threefold.errors import CheckFailed, DataError, PhotoError, one_of
from threefold.files import printable
from threefold.read.inputs import find_photos
from threefold.read.reader import read_image
from threefold.read.videos import Video, rising

Image = NDArray[np.uint8]
OnFault = Callable[[str], object]
"""Takes one line about something that went wrong, or is well again."""
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "srt")
BACK_OFF = (0.5, 30.0)
"""Seconds before the first attempt to open a stream again, doubled each time up to the second."""
STEADY = 5.0
"""Seconds that a stream has to flow before it counts as back: one that dies after a frame is one outage, not many."""
LINGER = 3.0
"""Seconds that the end waits for a read that hangs."""
MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class Frame:
    """image: uint8 RGB [H, W, 3]; time: seconds on the source's clock, never falling; clock: when it was taken."""

    image: Image
    time: float
    clock: datetime


class Source(Protocol):
    """What gives frames. name: for people; live: frames that are not fetched in time are lost; patient: it may be
    missing at first, as a network camera that starts slower than the computer; fps: nominal.
    """

    name: str
    live: bool
    patient: bool
    fps: float

    def open(self) -> None:
        """Begin, or begin again. Raises DataError in one line."""

    def read(self) -> tuple[Image, float | None] | None:
        """The next frame (uint8 RGB [H, W, 3]) and its seconds from the beginning, where known; None: no more."""

    def ended(self) -> bool:
        """After None: was that the end of it all (True), or did it break off?"""
        return True

    def close(self) -> None:
        """Let go; may be called twice."""


class Folder(Source):
    """The photos of a folder in their natural order (frame9 before frame10), `fps` a second. See `Source`."""

    live = patient = False

    def __init__(self, path: Path, fps: float, fault: OnFault) -> None:
        self.path, self.name, self.fps, self.fault = path, printable(str(path)), fps, fault
        self.broken = 0
        self._photos: Iterator[tuple[int, tuple[str, Path]]] = iter(())

    def open(self) -> None:
        """See `Source`."""
        self._photos = enumerate(sorted(find_photos([self.path]), key=lambda photo: _natural(photo[0])))

    def read(self) -> tuple[Image, float | None] | None:
        """See `Source`. A photo that cannot be read is reported and passed over; the others keep their times."""
        for number, (_, file) in self._photos:
            try:
                return read_image(file, str(file), MAX_PIXELS), number / self.fps
            except PhotoError as error:
                self.broken += 1
                self.fault(f"left out: {error}")
        return None

    def close(self) -> None:
        """See `Source`."""
        self._photos = iter(())


class Paced(Source):
    """A file or folder played at its own speed, as if it were live (`--realtime`). See `Source`.

    It has always ended: a file that breaks off cannot be opened at that place again.
    """

    live, patient = True, False

    def __init__(self, source: Source, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self.source, self.name, self.fps = source, source.name, source.fps
        self._stop, self._clock, self._begin, self._last = stop, clock, 0.0, -1.0

    def open(self) -> None:
        """See `Source`."""
        self.source.open()
        self.fps, self._begin, self._last = self.source.fps, self._clock(), -1.0

    def read(self) -> tuple[Image, float | None] | None:
        """See `Source`; returns when the frame is due."""
        taken = self.source.read()
        if taken is not None:
            self._last = rising(taken[1], self._last, self.fps)
            self._stop.wait(max(0.0, self._begin + self._last - self._clock()))
        return taken

    def close(self) -> None:
        """See `Source`."""
        self.source.close()


def make_source(text: str, *, fps: float, fault: OnFault) -> Source:
    """`0` a camera, `rtsp://...` a stream, a folder of frames (`fps` of them a second), else a video file.

    Nothing is opened yet. Raises DataError for what is not there or a scheme that is not read.
    """
    if re.fullmatch(r"\d{1,3}", text):
        return Video(int(text), f"camera {int(text)}", live=True)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme:
        if scheme[1].lower() not in SCHEMES:
            raise DataError(f"{safe_address(text)}: cannot be watched ({one_of(SCHEMES, scheme[1].lower())})")
        return Video(text, safe_address(text), live=True)
    path = Path(text)
    if path.is_dir():
        return Folder(path, fps, fault)
    if not path.is_file():
        raise DataError(f"{printable(text)}: no such file, folder, camera index or address")
    return Video(str(path), printable(text), live=False)


def safe_address(text: str) -> str:
    """An address without user, password and query, on one line: what may be printed and kept."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "address"
    return printable("".join(c for c in f"{parts.scheme}://{host}{parts.path}" if c.isprintable()))


def read_whole(source: Source, begin: datetime, fault: OnFault) -> Iterator[Frame]:
    """Every frame of an opened source that is not live; `begin` is when its first one was taken."""
    last, count = -1.0, 0
    while (taken := source.read()) is not None:
        image, seconds = taken
        last, count = rising(seconds, last, source.fps), count + 1
        yield Frame(image, last, begin + timedelta(seconds=last))
    if not source.ended():
        fault(f"{source.name}: breaks off after {count:,} frames (cut off or damaged)")


class Newest:
    """A place for one frame: a newer one takes the place of one that nobody fetched. For two threads."""

    def __init__(self) -> None:
        self.put_count = self.dropped = 0
        self._frame: Frame | None = None
        self._ending: Exception | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Leave a frame."""
        with self._changed:
            self.put_count += 1
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify_all()

    def finish(self, error: Exception | None = None) -> None:
        """There will be no more; `error` is raised to whoever asks after the last one."""
        with self._changed:
            self._ending = error or EOFError()
            self._changed.notify_all()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame, or None after `timeout` seconds without one. Raises EOFError, or the error, at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._ending is not None, timeout)
            frame, self._frame = self._frame, None
            if frame is None and self._ending:
                raise self._ending
            return frame


class Live(AbstractContextManager["Live"]):
    """A live source read by a thread of its own; iterate for the newest frames.

    retries: attempts to open it again in one outage, -1 for ever. clock, wait: for tests; `wait(seconds)` is True
    when it is to stop. Iterating ends when `stop` is set or a played file is over; it raises DataError when there never
    was a frame, CheckFailed when a stream is gone for good.
    """

    def __init__(
        self,
        source: Source,
        stop: threading.Event,
        fault: OnFault,
        *,
        retries: int = 20,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.source, self.stop, self.fault, self.retries = source, stop, fault, retries
        self.newest = Newest()
        self._clock = clock
        self._wait = wait or stop.wait
        self._thread = threading.Thread(target=self._guarded, name="frames", daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(timeout=LINGER)

    def __iter__(self) -> Iterator[Frame]:
        while not self.stop.is_set():
            try:
                frame = self.newest.take(0.2)
            except EOFError:
                return
            if frame is not None:
                yield frame

    def _guarded(self) -> None:
        try:
            self.newest.finish(self.pump())
        except Exception as error:  # nobody would see it in a thread
            self.newest.finish(error)

    def pump(self) -> Exception | None:
        """Read until the end; the error that it ends with, None where all is well. Runs in the thread."""
        lost_at: float | None = None
        failures = 0
        while not self.stop.is_set():
            with closing(self.source):
                try:
                    self.source.open()
                    reason = f"{self.source.name}: gives no more frames"
                    if self._flow(lost_at):
                        failures, lost_at = 0, None
                    if self.source.ended() or self.stop.is_set():
                        return None
                except DataError as error:
                    reason = str(error)
            failures += 1
            hopeless = not self.source.patient and not self.newest.put_count
            if hopeless or 0 <= self.retries < failures:
                after = f" (tried again {failures - 1:,} times)" if failures > 1 else ""
                return (CheckFailed if self.newest.put_count else DataError)(f"{reason}{after}")
            if failures == 1:
                self.fault(f"{reason}; trying again")
            lost_at = self._clock() if lost_at is None else lost_at
            if self._wait(min(BACK_OFF[1], BACK_OFF[0] * 2 ** min(failures - 1, 10))):
                return None
        return None

    def _flow(self, lost_at: float | None) -> bool:
        """Frames until there are none: has it flowed long enough to end an outage, of since `lost_at`?"""
        begin = self._clock()
        back = False
        while not self.stop.is_set() and (taken := self.source.read()) is not None:
            now = self._clock()
            if not back and now - begin >= STEADY:
                back = True
                if lost_at is not None:
                    self.fault(f"{self.source.name}: is back after {begin - lost_at:.0f} s")
            self.newest.put(Frame(taken[0], now, datetime.now().astimezone()))
        return back


def _natural(name: str) -> list[Any]:
    """Text and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name))]
