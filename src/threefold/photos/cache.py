"""The prepared photos of a run as one read-only array on disk: decoded once, by all cores, for every later run.

A cache file is named by what its bytes depend on: the content of every photo (not its date), the boxes, the order, the
geometry of `Prepare` and the versions of the decoding libraries. So a changed photo gives another file, and a folder
that was moved, copied or touched does not. An index beside the caches remembers the digest of each file by its size,
times and inode, so that naming a file does not take reading every photo again.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol, TypeVar

import cv2
import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from platformdirs import user_cache_path

from threefold.errors import DataError, PhotoError
from threefold.files import atomic_write, digest, lock, write_text
from threefold.parallel import cores
from threefold.photos import decode
from threefold.photos.decode import Box
from threefold.photos.prepare import Prepare
from threefold.progress import Advance

Output = TypeVar("Output")


class Framed(Protocol):
    """What is prepared: a photo and the box of the face in it, where one is known (`data.face.Face` is one)."""

    @property
    def photo(self) -> Path:
        """The file."""

    @property
    def box(self) -> Box | None:
        """The face's box; None: `Prepare` looks for it itself where it needs one."""


RACY_NS = 2_000_000_000
"""A file changed less than this before it was hashed is hashed again next time, as git does: two edits within one tick
of the clock look the same, and the coarsest clock (FAT) ticks so."""


def default_root() -> Path:
    """$THREEFOLD_CACHE, else threefold's folder among the user's caches: ~/.cache/threefold on Linux."""
    chosen = os.environ.get("THREEFOLD_CACHE")
    return Path(chosen or user_cache_path("threefold", appauthor=False)).expanduser()


def open_cache(
    faces: Sequence[Framed],
    prepare: Prepare,
    *,
    root: Path | None = None,
    workers: int | None = None,
    progress: Advance | None = None,
) -> NDArray[np.uint8]:
    """[N, H, W, 3] uint8, memory-mapped and read-only, rows in the order of `faces`; built first where there is none.

    `workers`: threads, all cores of this process by default. `progress(done, N)` is called while building, from this
    thread. Two processes that want the same photos build them once: the second waits. Raises DataError when there are
    no photos, when some cannot be read (how many, and the first three with the reason), when one changes meanwhile, and
    when the cache folder cannot be written or is too small; then nothing is left behind.
    """
    if not faces:
        raise DataError("there are no photos to prepare")
    root, threads = root or default_root(), workers or cores()
    shape = (len(faces), *prepare.size, 3)
    try:
        root.mkdir(parents=True, exist_ok=True)
        digests = _digests([face.photo for face in faces], root / "index", threads)
        path = root / f"{_key(digests, faces, prepare)}.npy"
        if (photos := _load(path, shape)) is None:
            with lock(root / "locks" / path.name[:2]):  # 256 locks, so that they need no cleaning up
                if (photos := _load(path, shape)) is None:
                    _build(path, faces, digests, prepare, threads, progress)
                    photos = _load(path, shape)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(root).free
            reason = f"the disk is full, {_needed(shape) / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free"
        raise DataError(f"cache folder {root}: {reason}; THREEFOLD_CACHE names another") from None
    if photos is None:
        raise DataError(f"{path}: the cache that was just written cannot be read back; is the disk failing?")
    return photos


def content_digests(photos: Sequence[Path]) -> list[str]:
    """Digest of the bytes of every photo, in order, as a run's stamp holds it; "" for a photo that cannot be read."""
    return _digests(photos, default_root() / "index", cores())


def _load(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The finished cache; None when it is not there, or damaged."""
    try:
        photos: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return photos if photos.shape == shape and photos.dtype == np.uint8 else None


def _key(digests: Sequence[str], faces: Sequence[Framed], prepare: Prepare) -> str:
    boxes = [None if face.box is None else [float(side) for side in face.box] for face in faces]
    versions = f"cv2 {cv2.__version__} pillow {PIL.__version__} simplejpeg {simplejpeg.__version__}"
    return digest(prepare.geometry, versions, json.dumps([list(digests), boxes]))


def _build(
    path: Path, faces: Sequence[Framed], digests: list[str], prepare: Prepare, threads: int, progress: Advance | None
) -> None:
    """Decode every photo into `path`, and remove what killed builders left: the caller holds the lock of this name."""
    for leftover in path.parent.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if leftover.name.startswith(f".{path.name}.") or time.time() - leftover.stat().st_mtime > 86_400:
                leftover.unlink()
    shape = (len(faces), *prepare.size, 3)
    if shutil.disk_usage(path.parent).free < _needed(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    broken: list[str] = []

    def prepared(row: int) -> bytes | PhotoError:
        face = faces[row]
        try:
            data = decode.read(face.photo)
            if _hash(data) != digests[row]:
                raise PhotoError(f"{face.photo}: was changed while it was read; run again")
            return prepare(decode.decode_bytes(data, str(face.photo)), face.box).tobytes()
        except PhotoError as error:
            return error
        except DataError as error:
            return PhotoError(f"{face.photo}: {error}")

    def write(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for row, pixels in enumerate(_in_order(prepared, len(faces), threads)):
            if isinstance(pixels, PhotoError):
                broken.append(str(pixels))
            else:
                file.write(pixels)
            if progress:
                progress(row + 1, len(faces))
        if broken:
            counts, first = f"{len(broken)} of {len(faces)} photos", "; ".join(broken[:3])
            raise DataError(f"{counts} cannot be used: {first} (`threefold check` lists them)")

    atomic_write(path, write)


def _in_order(work: Callable[[int], Output], count: int, threads: int) -> Iterator[Output]:
    """`work(0), work(1), ...` by several threads, a bounded number ahead: a slow disk must not fill the memory."""
    # Threads, not processes: every decoder, hash and resize here releases the interpreter (for all but some 50 of the
    # 1,400 microseconds of a 384x512 JPEG), and threads need no `if __name__ == "__main__"` in a user's script and
    # leave no orphans. OpenCV's own pool is left as it is: it splits only results above 64k pixels, serves one caller
    # at a time, and gives the same bytes for any number of threads.
    pool = ThreadPoolExecutor(threads)
    ahead: deque[Future[Output]] = deque()
    try:
        for item in range(count):
            ahead.append(pool.submit(work, item))
            if len(ahead) > 8 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _digests(photos: Sequence[Path], folder: Path, threads: int) -> list[str]:
    """Digest of the content of every photo, from the index where that can be trusted; "" for one that cannot be read.

    There is one index per topmost common folder, so that parts of a data set share it.
    """
    paths = [str(path.absolute()) for path in photos]
    top = os.path.commonpath({path.rpartition("/")[0] or "/" for path in paths})
    index = folder / f"{digest(os.fsencode(top))}.json"
    stored = _read_index(index)
    stamps = {path: _stamp(path) for path in paths}
    unknown = [path for path, (stamp, _) in stamps.items() if path not in stored or stored[path][0] != stamp]

    def hashed(item: int) -> tuple[str, int]:
        started = time.time_ns()
        try:
            return _hash(decode.read(Path(unknown[item]))), started
        except PhotoError:
            return "", started

    contents = {path: content for path, (_, content) in stored.items()}
    fresh: dict[str, tuple[str, str]] = {}
    for path, (content, started) in zip(unknown, _in_order(hashed, len(unknown), threads), strict=True):
        contents[path] = content
        stamp, changed = stamps[path]
        if content and started - changed > RACY_NS:
            fresh[path] = (stamp, content)
    if fresh:
        with contextlib.suppress(OSError), lock(folder.parent / "locks" / "index"):  # only costs time when it fails
            write_text(index, json.dumps({**_read_index(index), **fresh}))
    return [contents[path] for path in paths]


def _read_index(index: Path) -> dict[str, tuple[str, str]]:
    try:
        entries = json.loads(index.read_bytes())
        return {str(path): (str(stamp), str(content)) for path, (stamp, content) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged: everything is hashed again
        return {}


def _stamp(path: str) -> tuple[str, int]:
    """What cannot all stay the same when a file is changed, and when that was, in ns."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return "", 0
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)  # ctime sees a forged mtime too
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}", changed


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _needed(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) + 4096  # and the header
