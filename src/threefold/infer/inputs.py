"""What people point at, as photo files: files and folders, in a stable order, an operating system's junk left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threefold.data.tables import existing, photos_below
from threefold.errors import DataError
from threefold.files import printable


def find_photos(inputs: Sequence[Path]) -> list[tuple[str, Path]]:
    """(name, file) of every photo: a file under its own name as given, those of a folder by their path below it.

    A file that is named is taken whatever its extension: its content decides. Raises DataError naming what is missing
    (with the nearest neighbour), or when there is no photo at all.
    """
    found: list[tuple[str, Path]] = []
    for path in map(existing, inputs):
        if path.is_dir():
            found += [(printable(file.relative_to(path).as_posix()), file) for file in photos_below(path)]
        else:
            found.append((printable(str(path)), path))
    if not found:
        raise DataError(f"{', '.join(map(str, inputs))}: no photos here")
    return found
