"""Frames of a video file at set times, by OpenCV. A frame is named as a media fragment: `name.mp4#t=12.345`.

Frames are decoded one after another and never sought: where seeking lands depends on the container, and a frame is to
have one name. Those between two that are wanted are decoded but not converted, which is most of the cost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, PhotoError

# OpenCV reads this once, when it first meets a video; its decoder writes to stderr what is told here in one line
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""What is taken for a video."""
_LOGGING = threading.Lock()
"""OpenCV's level of logging is one for all threads."""
SLACK = 0.5
"""Seconds, beside a twentieth, that a video may end before its header says: those of the sound and of the last frame
are counted by some writers."""


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
    capture = _open(path, every)
    try:
        seconds, due, wanted, index = 0.0, 0.0, 0, 0
        while capture.grab():
            seconds = _time(capture, seconds, index)
            index += 1
            if seconds + 1e-6 < due:
                continue
            due = every * (int(seconds / every + 1e-6) + 1) if every else 0.0
            wanted += 1
            if wanted > skip:
                good, frame = capture.retrieve()
                if not good:
                    raise PhotoError(f"{path}: cut off or damaged at {seconds:.3f} s")
                yield seconds, np.ascontiguousarray(frame[:, :, ::-1])
        if not index:
            raise PhotoError(f"{path}: holds no frame that can be read")
        length = _length(capture)
        if seconds + SLACK < 0.95 * length:
            raise PhotoError(f"{path}: cut off or damaged: ends at {seconds:.1f} of {length:.1f} s")
    finally:
        capture.release()


def count_frames(path: Path, every: float = 1.0) -> int:
    """About how many frames `frames` gives, by the header, for a progress bar; at least 1. Raises as it does."""
    capture = _open(path, every)
    length, total = _length(capture), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(1, total if every == 0 else min(total, int(length / every) + 1))


def _open(path: Path, every: float) -> cv2.VideoCapture:
    if not 0 <= every < float("inf"):
        raise DataError(f"every: {every!r} seconds; expected 0 (every frame) or more")
    if not path.is_file():
        raise PhotoError(f"{path}: no such file")
    with _LOGGING:
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        finally:
            cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise PhotoError(
            f"{path}: not a video that can be read, or cut off or damaged ({', '.join(SUFFIXES)} are read)"
        )
    return capture


def _time(capture: cv2.VideoCapture, last: float, index: int) -> float:
    """Seconds of the frame that was grabbed; by the frame rate where the file's own time does not go on."""
    seconds = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
    return seconds if index == 0 or seconds > last else last + 1 / _rate(capture)


def _length(capture: cv2.VideoCapture) -> float:
    """Seconds by the header; 0 where it does not say."""
    return max(0.0, float(capture.get(cv2.CAP_PROP_FRAME_COUNT)) / _rate(capture))


def _rate(capture: cv2.VideoCapture) -> float:
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if rate > 0 else 25.0
