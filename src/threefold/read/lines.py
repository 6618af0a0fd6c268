"""Photos, folders and videos in, one Line per photo or frame out, in order: what `predict` writes tables from.

What an earlier run left in the spool is skipped; photos that cannot be read are Lines as well, so that they are listed
at the end of the run that ends, whichever met them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, PhotoError
from threefold.files import atomic_write, printable
from threefold.read.annotate import annotate
from threefold.read.answers import answer
from threefold.read.inputs import Input, walk
from threefold.read.output import Line
from threefold.read.reader import Reader, Reading, read_image
from threefold.read.videos import frame_name, frames

Said = tuple[Line, list[Reading]]
Draw = Callable[[str, Path | NDArray[np.uint8], list[dict[str, Any]]], None]
"""Called with a photo's place among the copies, the photo and its answers."""
JPEG, QUALITY = (".jpg", ".jpeg"), 92
"""What stays a JPEG when a copy is drawn on, and how well it is kept. A PNG stays one; all else becomes JPEG."""


def read_lines(
    reader: Reader, inputs: Sequence[Path], which: str | None, *, earlier: Iterable[str] = (), every: float = 1.0,
    attributes: Sequence[str], probabilities: bool, draw: Draw | None = None,
) -> Iterator[Said]:  # fmt: skip
    """(Line, readings) of every photo and frame below `inputs` but those that `earlier` names, from their beginning.

    which: as of `Reader.faces`. every: seconds between two frames of a video. draw: called before a Line is given out.
    Raises DataError where the photos are not those of `earlier`.
    """

    def said(name: str, found: list[Reading] | PhotoError, place: str, photo: Path | NDArray[np.uint8]) -> Said:
        if isinstance(found, PhotoError):
            return {"file": name, "error": printable(str(found))}, []
        faces = [answer(r, face=i, attributes=attributes, probabilities=probabilities) for i, r in enumerate(found)]
        if draw:
            draw(place, photo, faces)
        return {"file": name, "faces": faces}, found

    for video, group in groupby(_rest(walk(inputs), iter(earlier)), key=lambda item: item.video):
        if not video:
            for item, found in _photos(reader, group, which):
                yield said(item.name, found, item.place, item.path)
            continue
        for item in group:
            try:
                # one at a time, however fast: a batch of frames of a large video would fill the memory
                for seconds, frame in frames(item.path, every, skip=item.skip):
                    place = f"{item.place}/{seconds:.3f}.jpg"
                    yield said(frame_name(item.name, seconds), reader.faces(frame, which), place, frame)
            except PhotoError as error:
                yield said(item.name, error, "", item.path)


def drawing(folder: Path, inputs: Sequence[Path]) -> Draw:
    """A Draw that writes a copy of each photo with boxes and words below `folder`, each whole or not at all.

    Raises DataError when `folder` lies in one that is read, or is a file: copies would be read as photos.
    """
    for path in inputs:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{folder}: lies in {path}, which is read; annotated copies need a folder of their own")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a folder for annotated copies")

    def draw(place: str, photo: Path | NDArray[np.uint8], faces: list[dict[str, Any]]) -> None:
        target = folder / place
        suffix = target.suffix.lower()
        if suffix not in (*JPEG, ".png"):
            target, suffix = target.with_name(f"{target.name}.jpg"), ".jpg"
        if isinstance(photo, Path) and target.exists() and target.samefile(photo):
            raise DataError(f"{photo}: would be overwritten by its annotated copy; choose another folder than {folder}")
        image = read_image(photo) if isinstance(photo, Path) else photo  # read again: kept, a batch would fill memory
        pixels = np.ascontiguousarray(annotate(image, faces)[:, :, ::-1])
        form, options = (".png", []) if suffix == ".png" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        data = cv2.imencode(form, pixels, options)[1].tobytes()
        atomic_write(target, lambda file: file.write(data))

    return draw


def _photos(
    reader: Reader, items: Iterator[Input], which: str | None
) -> Iterator[tuple[Input, list[Reading] | PhotoError]]:
    waiting: deque[Input] = deque()  # the reader takes photos ahead of what it gives

    def paths() -> Iterator[Path]:
        for item in items:
            waiting.append(item)
            yield item.path

    for found in reader.stream_faces(paths(), which):
        yield waiting.popleft(), found


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
