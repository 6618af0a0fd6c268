"""A video of what was watched, boxes drawn in: made only where somebody asked, since it keeps pictures of people."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, one_of
from threefold.read.videos import USUAL_FPS, hush

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
LONGEST_REPEAT = 2.0
"""Seconds that a picture is held when no frames came; a longer outage is cut out."""


class Recording:
    """Frames into a video file in real time: one that came late is shown longer, of two at once the first is left out.

    The file appears under its name when it is closed, whole; until then it stands beside it, hidden. Raises DataError
    for a suffix that is not known, a file that is there already, or a place that cannot be written. fps: frames per
    second of the file; may be set until the first frame.
    """

    def __init__(self, path: Path, fps: float = USUAL_FPS) -> None:
        if path.suffix.lower() not in CODECS:
            raise DataError(f"{path}: unknown kind of video ({one_of(CODECS, path.suffix.lower())})")
        if path.exists():
            raise DataError(f"{path}: is already there; nothing is overwritten, choose another")
        if not path.parent.is_dir():
            raise DataError(f"{path}: its folder does not exist")
        self.path, self.fps = path, fps
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size, self._begin, self._written = (0, 0), 0.0, 0

    def add(self, time: float, image: NDArray[np.uint8]) -> None:
        """A frame, uint8 RGB [H, W, 3], at `time` seconds of a clock that never falls. All get the first one's size."""
        if self._writer is None:
            height, width = (side - side % 2 or 2 for side in image.shape[:2])  # codecs want even sides
            self._size, self._begin = (width, height), time
            hush()
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._part), codec, self.fps, self._size)
            if not self._writer.isOpened():
                raise DataError(f"{self.path}: a video cannot be written here")
        due = round((time - self._begin) * self.fps) + 1 - self._written
        most = max(1, int(LONGEST_REPEAT * self.fps))
        if due > most:  # from here on the file's clock is behind the source's by what was cut out
            self._begin += (due - most) / self.fps
            due = most
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if image.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        for _ in range(due):
            self._writer.write(picture)
        self._written += max(0, due)

    def close(self) -> bool:
        """Finish the file; False where there was no frame, and so there is no file."""
        if self._writer is None:
            return False
        self._writer.release()
        self._writer = None
        self._part.replace(self.path)
        return True
