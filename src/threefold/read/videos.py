"""Videos by OpenCV: a file, a stream, a camera. The one place that says what time a frame has and what cut off means.

Frames are decoded one after another and never sought: where seeking lands depends on the container, and a frame is to
have one name. Those between two that are wanted are decoded but not converted, which is most of the cost.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, PhotoError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""What is taken for a video."""
USUAL_FPS, MOST_FPS = 25.0, 240.0
"""Frames per second where a source does not say, or says more than the second: a stream's clock, not its frames."""
WHOLE, SLACK = 0.95, 0.5
"""A video is whole that lasts this share of what its header says, and so many seconds less: those of the sound and of
the last frame are counted by some writers."""
DEAD = 10_000
"""Milliseconds without a frame after which a stream is dead, for OpenCV."""


class Video:
    """A video file, a stream's address or a camera (its index).

    name: in messages and tables; it holds no password. live: frames that are not fetched in time are lost. patient: it
    may be missing at first, as a network camera that starts slower than the computer. fps: nominal. length: seconds by
    the header, 0 where it does not say. count: frames by the header. seconds: the time of the last frame.
    """

    def __init__(self, address: str | int, name: str, *, live: bool = False) -> None:
        self.address, self.name, self.live, self.fps = address, name, live, USUAL_FPS
        self.patient = live and not isinstance(address, int)
        self.length, self.count, self.seconds = 0.0, 0, -1.0
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Begin, or begin again. Raises PhotoError in one line."""
        self.close()
        hush()
        if isinstance(self.address, int):
            capture, kind = cv2.VideoCapture(self.address), "cannot be opened as a camera"
        elif self.live:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, DEAD, cv2.CAP_PROP_READ_TIMEOUT_MSEC, DEAD]
            capture, kind = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, limits), "cannot be opened as a stream"
        else:
            capture = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG)
            kind = f"not a video that can be read, or cut off or damaged ({', '.join(SUFFIXES)} are read)"
        if not capture.isOpened():
            raise PhotoError(f"{self.name}: {kind}")
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate <= MOST_FPS else USUAL_FPS
        self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.length = self.count / rate if rate > 0 else 0.0
        self.seconds, self._capture = -1.0, capture

    def grab(self) -> float | None:
        """Go on to the next frame: its seconds, which always rise; None where there is none."""
        if self._capture is None or not self._capture.grab():
            return None
        self.seconds = rising(float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000, self.seconds, self.fps)
        return self.seconds

    def image(self) -> NDArray[np.uint8]:
        """The frame that was grabbed, uint8 RGB [H, W, 3], upright. Raises PhotoError where it is damaged."""
        good, frame = self._capture.retrieve() if self._capture else (False, None)
        if not good or frame is None:
            raise PhotoError(f"{self.name}: cut off or damaged at {max(0.0, self.seconds):.3f} s")
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        """The next frame and its seconds; None where there is none that can be read."""
        seconds = self.grab()
        try:
            return None if seconds is None else (self.image(), seconds)
        except PhotoError:
            return None

    def ended(self) -> bool:
        """After the last frame: was that the end of it all (True), or did it break off?"""
        return not (self.live and not self.count) and self.seconds + SLACK >= WHOLE * self.length

    def close(self) -> None:
        """Let go; may be called twice."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def rising(seconds: float | None, last: float, fps: float) -> float:
    """The time of a frame after one at `last` (-1: the first): what the source says, else a frame later."""
    return max(0.0, last + 1 / fps if seconds is None or seconds <= last else seconds)


def hush() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: their lines name addresses with their passwords.

    FFmpeg asks once, before the first video of a process: so this is called before every one.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def is_video(path: Path) -> bool:
    """True for a name with a video's suffix, in capitals or not."""
    return path.suffix.lower() in SUFFIXES


def frame_name(name: str, seconds: float) -> str:
    """`entrance.mp4#t=12.345`: a media fragment (W3C Media Fragments URI 1.0), seconds to the millisecond."""
    return f"{name}#t={seconds:.3f}"


def frames(path: Path, every: float = 1.0, *, skip: int = 0) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(seconds, upright RGB [H, W, 3] uint8) of every frame (`every` 0), or of the first one in each `every` seconds.

    `skip` leaves out that many of these at the beginning. One frame is held at a time. Raises DataError for a negative
    `every`, and PhotoError in one line for a file that is missing, no video, without frames, or that ends well before
    its header says: this after the frames that could be read.
    """
    with closing(_open(path, every)) as video:
        due, wanted = 0.0, 0
        while (seconds := video.grab()) is not None:
            if seconds + 1e-6 < due:
                continue
            due = every * (int(seconds / every + 1e-6) + 1) if every else 0.0
            wanted += 1
            if wanted > skip:
                yield seconds, video.image()
        if video.seconds < 0:
            raise PhotoError(f"{path}: holds no frame that can be read")
        if not video.ended():
            raise PhotoError(f"{path}: cut off or damaged: ends at {video.seconds:.1f} of {video.length:.1f} s")


def count_frames(path: Path, every: float = 1.0) -> int:
    """About how many frames `frames` gives, by the header, for a progress bar; at least 1. Raises as it does."""
    with closing(_open(path, every)) as video:
        return max(1, video.count if every == 0 else min(video.count, int(video.length / every) + 1))


def _open(path: Path, every: float) -> Video:
    if not 0 <= every < float("inf"):
        raise DataError(f"every: {every!r} seconds; expected 0 (every frame) or more")
    if not path.is_file():
        raise PhotoError(f"{path}: no such file")
    video = Video(str(path), str(path))
    video.open()
    return video
