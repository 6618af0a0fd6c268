"""The cache: right rows, built once, rebuilt exactly when it must be, and never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from threefold.data.face import Face
from threefold.errors import DataError, PhotoError
from threefold.photos import cache
from threefold.photos import decode as photo
from threefold.photos.cache import default_root, open_cache
from threefold.photos.prepare import Prepare

SMALL = Prepare(size=(16, 12))


def draw(path: Path, seed: int) -> Path:
    """A BMP: every content has the same number of bytes."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 24, 3), dtype=np.uint8)).save(path, "BMP")
    return path


@pytest.fixture
def faces(tmp_path: Path) -> list[Face]:
    return [Face(draw(tmp_path / "photos" / f"{n}.jpg", n), f"p{n}", f"s/{n}.jpg") for n in range(30)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_file())


def expected(faces: list[Face], prepare: Prepare = SMALL) -> np.ndarray[Any, Any]:
    return np.stack([prepare(photo.decode(face.photo), face.box) for face in faces])


def test_rows_in_order_read_only_and_progress(faces: list[Face], root: Path) -> None:
    steps: list[tuple[int, int]] = []
    mixed = faces[::-1] + faces[:3]
    photos = open_cache(mixed, SMALL, root=root, workers=4, progress=lambda done, of: steps.append((done, of)))
    assert isinstance(photos, np.memmap) and photos.shape == (33, 16, 12, 3) and photos.dtype == np.uint8
    assert np.array_equal(photos, expected(mixed))
    assert steps == [(n, 33) for n in range(1, 34)]
    with pytest.raises(ValueError, match="read-only"):
        photos[0] = 0
    assert open_cache(faces, SMALL, root=root, workers=1).tobytes() == expected(faces).tobytes()


def test_the_name_is_the_content(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(some: list[Face], prepare: Prepare) -> int:
        assert np.array_equal(open_cache(some, prepare, root=root), expected(some, prepare))
        return len(files(root))

    boxed = [replace(faces[0], box=(2, 3, 12, 13)), *faces[1:]]
    face_crop = Prepare(crop="face", size=(16, 12))
    assert count(faces, SMALL) == 1
    assert count(faces, replace(SMALL, mean=(0.1, 0.1, 0.1))) == 1
    assert count(faces[::-1], SMALL) == 2
    assert count(faces[1:], SMALL) == 3
    assert count(faces, face_crop) == 4
    assert count(boxed, face_crop) == 5
    monkeypatch.setattr(cache.cv2, "__version__", "0.0")
    assert count(faces, SMALL) == 6


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(photo, name, fail)


def test_reused_without_decoding(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_cache(faces, SMALL, root=root)
    forbid(monkeypatch, "decode_bytes")
    assert np.array_equal(open_cache(faces, SMALL, root=root), first)
    moved = faces[0].photo.parent.rename(root.parent / "elsewhere")
    there = [replace(face, photo=moved / face.photo.name) for face in faces]
    for face in there:
        face.photo.touch()
    assert np.array_equal(open_cache(there, SMALL, root=root), first)


def test_reused_without_reading(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RACY_NS", -1)  # as if the photos had been left alone for long
    open_cache(faces, SMALL, root=root)
    forbid(monkeypatch, "read")
    open_cache(faces, SMALL, root=root)
    with pytest.raises(AssertionError, match="read was called"):  # another part of the folder: the index knows it
        open_cache(faces[4:9], SMALL, root=root)  # ... by content, and only building has to read
    monkeypatch.undo()
    monkeypatch.setattr(cache, "RACY_NS", -1)
    index = next((root / "index").glob("*.json"))
    before = index.read_text()
    open_cache(faces[4:9], SMALL, root=root)
    assert index.read_text() == before
    alone = Face(draw(faces[0].photo.with_name("new.jpg"), 50), "new", "s/new.jpg")
    open_cache([alone], SMALL, root=root)
    assert len(json.loads(index.read_text())) == 31  # and the others are still known
    alone.photo.unlink()
    for damaged in ("{", "[1]", '{"a": 3}', ""):
        index.write_text(damaged)
        assert np.array_equal(open_cache(faces, SMALL, root=root), expected(faces))
        assert index.read_text() == before


@pytest.mark.parametrize("racy_ns", [cache.RACY_NS, -1], ids=["young", "trusted"])
def test_an_edit_with_the_same_size_and_mtime(
    faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch, racy_ns: int
) -> None:
    monkeypatch.setattr(cache, "RACY_NS", racy_ns)
    before = open_cache(faces, SMALL, root=root).copy()
    stat = faces[7].photo.stat()
    draw(faces[7].photo, 99)
    os.utime(faces[7].photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert faces[7].photo.stat().st_size == stat.st_size
    after = open_cache(faces, SMALL, root=root)
    assert [row for row in range(30) if not np.array_equal(before[row], after[row])] == [7]
    assert np.array_equal(after, expected(faces)) and len(files(root)) == 2


@pytest.mark.parametrize(("age", "seen"), [(0.5, True), (60, False)], ids=["young", "old"])
def test_edits_within_one_tick_of_the_clock(
    faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch, age: float, seen: bool
) -> None:
    """With a clock that stands still, only the age of the file can tell; a file left alone for long is believed."""
    monkeypatch.setattr(cache, "_stamp", lambda path: ("1:1:1:1", time.time_ns() - int(age * 1e9)))
    before = open_cache(faces, SMALL, root=root)
    draw(faces[7].photo, 99)
    assert np.array_equal(before, open_cache(faces, SMALL, root=root)) != seen


def test_broken_photos_are_all_told_at_once(faces: list[Face], root: Path) -> None:
    faces[3].photo.write_bytes(b"")
    faces[5].photo.write_bytes(faces[5].photo.read_bytes()[:500])
    faces[8].photo.unlink()
    faces[9].photo.write_text("hello")
    with pytest.raises(DataError) as caught:
        open_cache(faces, SMALL, root=root)
    message = str(caught.value)
    assert message.startswith("4 of 30 photos cannot be used: ") and "\n" not in message
    for words in (
        "3.jpg: empty file",
        "5.jpg: cut off or damaged",
        "8.jpg: no such file",
        "`threefold check` lists them",
    ):
        assert words in message
    assert "9.jpg" not in message and files(root) == []
    with pytest.raises(DataError, match=r"1 of 1 photos cannot be used: .*0\.jpg: face box"):
        open_cache([replace(faces[0], box=(90, 90, 99, 99))], Prepare(crop="face"), root=root)
    with pytest.raises(DataError, match="no photos"):
        open_cache([], SMALL, root=root)


def test_a_photo_changed_while_it_is_read(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    original = photo.read

    def read(path: Path) -> bytes:
        reads.append(path)
        if path == faces[4].photo and reads.count(path) == 1:
            raise PhotoError("not there yet")
        return draw(path, 77).read_bytes() if path == faces[2].photo and reads.count(path) == 2 else original(path)

    monkeypatch.setattr(photo, "read", read)
    with pytest.raises(DataError, match=r"2 of 30 .*2\.jpg: was changed while it was read.*4\.jpg: was changed"):
        open_cache(faces, SMALL, root=root)
    assert np.array_equal(open_cache(faces, SMALL, root=root), expected(faces))


def test_disk_full_before(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 20_000))
    forbid(monkeypatch, "decode_bytes")
    words = rf"^cache folder {root}: the disk is full, 0\.0 MB needed, 0\.0 MB free; THREEFOLD_CACHE names another$"
    with pytest.raises(DataError, match=words):
        open_cache(faces, SMALL, root=root)
    assert files(root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_full_while_writing(faces: list[Face], root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    words = "Input/output error" if code == errno.EIO else "the disk is full"
    with pytest.raises(DataError, match=rf"^cache folder {root}: {words}"):
        open_cache(faces, SMALL, root=root)
    assert files(root) == []
    monkeypatch.undo()
    assert np.array_equal(open_cache(faces, SMALL, root=root), expected(faces))


def test_a_root_that_is_no_folder(faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.jpg: File exists; THREEFOLD_CACHE"):
        open_cache(faces, SMALL, root=faces[0].photo)


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "a"))
    assert default_root() == tmp_path / "a"
    monkeypatch.delenv("THREEFOLD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "threefold"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "threefold"


@pytest.mark.parametrize("damage", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_cache_is_built_again(faces: list[Face], root: Path, damage: bytes) -> None:
    open_cache(faces, SMALL, root=root)
    (name,) = files(root)
    (root / name).write_bytes(damage)
    assert np.array_equal(open_cache(faces, SMALL, root=root), expected(faces))


BUILDER = """
import sys, time
from pathlib import Path
from threefold.photos import cache
from threefold.data.face import Face
from threefold.photos.prepare import Prepare

folder, root, wait = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
faces = [Face(folder / f"{n}.jpg", f"p{n}", f"s/{n}.jpg") for n in range(30)]

def progress(done, of):
    print(done, flush=True)
    time.sleep(wait)

photos = cache.open_cache(faces, Prepare(size=(16, 12)), root=root, progress=progress)
print("sum", int(photos.sum()), flush=True)
"""


def start(faces: list[Face], root: Path, wait: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(faces[0].photo.parent), str(root), str(wait)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_build_once(faces: list[Face], root: Path) -> None:
    first = start(faces, root, 0.05)
    assert first.stdout is not None and first.stdout.readline() == "1\n"  # it is building now, for 1.5 s
    second = start(faces, root, 0)
    outputs = [process.communicate(timeout=60)[0].split("\n") for process in (first, second)]
    total = f"sum {int(expected(faces).sum())}"
    assert outputs[0] == [*map(str, range(2, 31)), total, ""]
    assert outputs[1] == [total, ""]  # never told of progress: it waited and reused
    assert len(files(root)) == 1


def test_a_killed_builder_leaves_nothing_that_counts(faces: list[Face], root: Path) -> None:
    builder = start(faces, root, 0.2)
    assert builder.stdout is not None
    for line in builder.stdout:
        if line == "5\n":
            break
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert builder.returncode == -signal.SIGKILL
    (left,) = files(root)
    assert left.endswith(".tmp")
    stale = root / ".other.npy.x.tmp"
    stale.touch()
    os.utime(stale, (0, 0))
    assert np.array_equal(open_cache(faces, SMALL, root=root), expected(faces))
    (name,) = files(root)
    assert name.endswith(".npy")
