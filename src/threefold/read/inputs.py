"""What people point at, as photo files and videos, in a stable order, an operating system's junk left out.

A folder of a million photos is walked, not listed: memory holds the names of one folder at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from threefold.data.tables import existing, photos_below
from threefold.errors import DataError, PhotoError
from threefold.files import printable
from threefold.read.videos import count_frames, is_video


@dataclass(frozen=True, slots=True)
class Input:
    """A photo or a video. name: what tables call it. place: where a copy of it goes below a folder of copies, relative
    and without `..`. skip: of a video, how many of its frames are done already."""

    name: str
    path: Path
    place: str
    video: bool = False
    skip: int = 0


def find_photos(inputs: Sequence[Path]) -> list[tuple[str, Path]]:
    """(name, file) of every photo: a file under its own name as given, those of a folder by their path below it.

    A file that is named is taken whatever its extension: its content decides. Raises DataError naming what is missing
    (with the nearest neighbour), or when there is no photo at all.
    """
    photos = [(item.name, item.path) for item in walk(inputs)]
    if not photos:
        raise DataError(f"{', '.join(map(str, inputs))}: no photos here")
    return photos


def walk(inputs: Sequence[Path]) -> Iterator[Input]:
    """Every photo and video in the order of `find_photos`, one at a time; names and errors are its too.

    Videos are read where they are named, not looked for in folders: an hour of one is 3,600 photos. One that is named
    twice is refused with DataError, since its frames would be.
    """
    paths = [existing(path) for path in inputs]
    videos = [path.resolve() for path in paths if path.is_file() and is_video(path)]
    if twice := [path for path in videos if videos.count(path) > 1]:
        raise DataError(f"{twice[0]}: is named twice")
    return _walk(paths)  # what is wrong with the names is raised here, not at the first photo


def _walk(paths: Sequence[Path]) -> Iterator[Input]:
    several = len(paths) > 1  # then two photos may have the same name below theirs
    for path in paths:
        if not path.is_dir():
            yield Input(printable(str(path)), path, _inside(path) if several else path.name, is_video(path))
            continue
        for file in photos_below(path):
            below = file.relative_to(path).as_posix()
            yield Input(printable(below), file, _inside(file) if several else below)


def count(inputs: Sequence[Path], every: float = 1.0) -> int:
    """How many photos and (about, see `videos.count_frames`) frames there are; raises as `find_photos` does. A video
    that cannot be read counts as one: it is reported when its turn comes."""
    total = 0
    for item in walk(inputs):
        try:
            total += count_frames(item.path, every) if item.video else 1
        except PhotoError:
            total += 1
    if not total:
        raise DataError(f"{', '.join(map(str, inputs))}: no photos here")
    return total


def _inside(path: Path) -> str:
    """A path as one below a folder: no root, and `__` where it goes up."""
    parts = [part for part in path.parts if part != path.anchor]
    return "/".join("__" if part == ".." else part for part in parts)
