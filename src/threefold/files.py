"""Files and folders that are whole or not there: atomic writes, locks between processes, small digests."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from filelock import FileLock, Timeout

from threefold.errors import DataError


def need_writable(path: Path) -> None:
    """Raise DataError where a file could not be written: a folder, below a file, or where nothing may be written.

    Makes nothing, so that it can be asked before long work.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected the name of a file to write, such as {path / 'file'}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{path}: cannot be written; expected {folder} to be a folder that may be written into")


def atomic_write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary file beside `path`, fsync, rename. On any error nothing is left behind.

    The rename is what makes a kill at any moment harmless: a reader sees the old file or the new one, never half.
    """
    need_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Build a folder that appears at `path` whole or not at all: yields a hidden sibling, renamed at the end.

    Raises DataError when `path` is a file or holds anything already, or when it cannot be written (a full disk).
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: is already there and not an empty folder; nothing is overwritten, choose another")
    building = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir()
        yield building
        building.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Atomic `Path.write_text`, UTF-8."""
    atomic_write(path, lambda file: file.write(text.encode()))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows (the header first) as CSV, lines ending in a newline alone."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Atomic CSV in UTF-8, the header first."""
    write_text(path, csv_text(rows))


def write_json(path: Path, value: Any) -> None:
    """Atomic, indented, keys in the order given, ending in a newline. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def lock(path: Path, *, wait: float = -1) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if need be) over processes; it ends with the process that holds it.

    wait: seconds to wait for another holder, -1 for ever. Raises TimeoutError when that was not enough.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=wait):
        yield


def is_locked(path: Path) -> bool:
    """True while another process holds `lock(path)`; False as well where that cannot be asked (a file of others)."""
    if not path.exists():
        return False
    try:
        # not at once: somebody else who asks at this moment holds it for an instant
        with FileLock(path, timeout=0.1, poll_interval=0.01):
            return False
    except OSError as error:
        return isinstance(error, Timeout)


def printable(name: str) -> str:
    """A file name as it can be written into UTF-8 tables: bytes that are none (old Korean archives) are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def digest(*parts: str | bytes, size: int = 16) -> str:
    """Hex BLAKE2b over the parts, each framed by its length so that ("ab", "c") and ("a", "bc") differ."""
    hasher = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()
