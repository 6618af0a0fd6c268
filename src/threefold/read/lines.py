"""What was read of photos and frames, one Line each, in order: read, and kept beside a table until it is whole.

While photos are read, what was read is kept in a spool beside the table (`.NAME.partial`): one line of JSON per photo,
`{"file", "faces": [reading...]}` or `{"file", "error"}`. When all are read the table is written from it in one go,
whole or not at all, and the spool is deleted. So every format is resumable, in memory of one batch, and a table that
was interrupted is byte for byte the one that was not.
"""

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, PhotoError
from threefold.files import lock, printable
from threefold.read.annotate import Draw
from threefold.read.inputs import Input, walk
from threefold.read.reader import Faces, Reader
from threefold.read.reading import Reading, reading_model
from threefold.read.videos import frame_name, frames

FORMAT = 1
"""Of the spool; its first line is {"format", and what a run that goes on with it must have in common with it}."""


@dataclass(frozen=True)
class Line:
    """What was read of one photo or frame, `file`: its faces, the largest first, or why it could not be read."""

    file: str
    faces: Sequence[Reading] = ()
    error: str = ""


def json_line(values: dict[str, Any]) -> bytes:
    """Compact JSON in one line."""
    return (json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def read_lines(
    reader: Reader,
    inputs: Sequence[Path],
    which: str | None,
    attributes: Sequence[str],
    *,
    earlier: Iterable[str] = (),
    every: float = 1.0,
    draw: Draw | None = None,
) -> Iterator[Line]:
    """The Line of every photo and frame below `inputs` but those that `earlier` names, from their beginning.

    which: as of `Reader.faces`. every: seconds between two frames of a video. draw: called before a Line is given out.
    Raises DataError where the photos are not those of `earlier`.
    """

    def line(name: str, readings: Faces, place: str, photo: Path | NDArray[np.uint8]) -> Line:
        if isinstance(readings, PhotoError):
            return Line(name, error=printable(str(readings)))
        faces = [reading.only(attributes) for reading in readings]
        if draw:
            draw(place, photo, faces)
        return Line(name, faces)

    for video, group in groupby(_rest(walk(inputs), iter(earlier)), key=lambda item: item.video):
        if not video:
            for item, readings in _photos(reader, group, which):
                yield line(item.name, readings, item.place, item.path)
            continue
        for item in group:
            try:
                # one at a time, however fast: a batch of frames of a large video would fill the memory
                for seconds, frame in frames(item.path, every, skip=item.skip):
                    place = f"{item.place}/{seconds:.3f}.jpg"
                    yield line(frame_name(item.name, seconds), reader.faces(frame, which), place, frame)
            except PhotoError as error:
                yield line(item.name, error, "", item.path)


def _photos(reader: Reader, items: Iterator[Input], which: str | None) -> Iterator[tuple[Input, Faces]]:
    waiting: deque[Input] = deque()  # the reader takes photos ahead of what it gives

    def paths() -> Iterator[Path]:
        for item in items:
            waiting.append(item)
            yield item.path

    for readings in reader.stream_faces(paths(), which):
        yield waiting.popleft(), readings


def _rest(items: Iterator[Input], earlier: Iterator[str]) -> Iterator[Input]:
    """The items that come after `earlier`; of a video the frames that do."""
    name = next(earlier, None)
    for item in items:
        if name is None:
            yield item
        elif item.video:
            count, ended = 0, False
            while name is not None and (name == item.name or name.startswith(frame_name(item.name, 0)[:-5])):
                count, ended = count + 1, name == item.name  # an error is of the whole video, and its last line
                name = next(earlier, None)
            if name is None and not ended:
                yield replace(item, skip=count)
        elif name == item.name:
            name = next(earlier, None)
        else:
            raise _other(name, item.name)
    if name is not None:
        raise _other(name, "nothing")


def _other(before: str, now: str) -> DataError:
    return DataError(
        f"--resume: the photos are others than before (there was {before!r}, there is {now!r}); start anew without it"
    )


class Spool:
    """What was read so far, on disk; made by `spool`. count: lines that an earlier run added."""

    def __init__(self, path: Path, file: IO[bytes], about: dict[str, Any], start: int, end: int, count: int) -> None:
        self.path, self.count = path, count
        self._file, self._start, self._end = file, start, end
        self._probabilities = bool(about["probabilities"])
        self._model = reading_model(about["attributes"], probabilities=self._probabilities)

    def add(self, line: Line) -> None:
        """Append a Line; `flush` or the end of the run brings it to the disk."""
        faces = [face.data(probabilities=self._probabilities) for face in line.faces]
        self._file.write(json_line({"file": line.file} | ({"error": line.error} if line.error else {"faces": faces})))

    def flush(self) -> None:
        """Hand what was added to the operating system, which keeps it when this process is killed."""
        self._file.flush()

    def earlier(self) -> Iterator[str]:
        """The names of what an earlier run added, in its order."""
        return (str(values["file"]) for values in self._read(self._end))

    def lines(self) -> Iterator[Line]:
        """Everything that was added, in order."""
        self.flush()
        for values in self._read(None):
            faces = [self._model(**face) for face in values.get("faces", ())]
            yield Line(values["file"], faces, values.get("error", ""))

    def _read(self, end: int | None) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            file.seek(self._start)
            while (end is None or file.tell() < end) and (text := file.readline()):
                yield _parse(self.path, text)


@contextlib.contextmanager
def spool(out: Path, about: dict[str, Any], *, resume: bool = False) -> Iterator[Spool]:
    """The spool of a table, deleted at the end unless an error or a kill ends it.

    about: what a run that goes on with it must have in common with it, `attributes` and `probabilities` among it. With
    `resume` it goes on with one that is there; a half-written last line is dropped. Raises DataError when another
    process is writing it, when an earlier run left one and `resume` is not given, and when that was `about` something
    else (another model, other options).
    """
    path = out.with_name(f".{out.name}.partial")
    holder = path.with_name(f"{path.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(holder, wait=0))
        except TimeoutError:
            raise DataError(f"{out}: is being written by another process") from None
        file = stack.enter_context(path.open("a+b"))
        start, end, count = _whole(file)
        if count and not resume:
            raise DataError(
                f"{out}: an earlier run read {count:,} photos for it; --resume goes on, or delete {path} to start anew"
            )
        if count:
            file.seek(0)
            stored = _parse(path, file.readline())
            for key, value in {"format": FORMAT, **json.loads(json.dumps(about))}.items():
                if stored.get(key) != value:
                    raise DataError(
                        f"{out}: --resume with {key} {value!r}, but it was started with {stored.get(key)!r}"
                    )
            file.truncate(end)
        else:
            file.truncate(0)
            start = end = file.write(json_line({"format": FORMAT, **about}))
            file.flush()
        yield Spool(path, file, about, start, end, count)
    path.unlink()
    holder.unlink(missing_ok=True)


def _whole(file: IO[bytes]) -> tuple[int, int, int]:
    """Where the first line ends, where the last whole one does, and how many there are between."""
    file.seek(0)
    first = file.readline()
    start = end = len(first) if first.endswith(b"\n") else 0
    count = 0
    for text in file:
        if text.endswith(b"\n"):
            end, count = end + len(text), count + 1
    return start, end, count


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise DataError(f"{path}: is damaged; delete it to start anew") from None
