"""Whole files or none, also under kill -9; a lock between real processes; digests that cannot be confused."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threefold.errors import DataError
from threefold.files import atomic_write, digest, lock, need_writable, write_csv, write_json, write_text


def start(code, *args):
    """A second Python process; its first line on stdout says that it is where the test wants it."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        return process, process.stdout.readline().strip()


def test_a_write_makes_folders_and_replaces_the_whole(tmp_path):
    path = tmp_path / "new" / "deep" / "file.bin"
    atomic_write(path, lambda file: file.write(b"a longer first text"))
    atomic_write(path, lambda file: file.write(b"short"))
    assert path.read_bytes() == b"short"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert path.stat().st_mode & 0o777 == 0o644  # a temporary file is born 0600


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(file):
        file.write(b"ne")
        raise error

    with pytest.raises(error):
        atomic_write(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_rename_that_fails_leaves_nothing_either(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda here, there: (_ for _ in ()).throw(OSError("no rename")))
    with pytest.raises(OSError, match="no rename"):
        write_text(tmp_path / "new.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_file_or_cannot_be_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match=r"taken: is a folder; expected the name of a file"):
        write_text(tmp_path / "taken", "text")
    write_text(tmp_path / "file", "text")
    for below in ("file/below", "file/further/below"):
        with pytest.raises(DataError, match=rf"{below}: cannot be written; expected .*/file to be a folder"):
            write_text(tmp_path / below, "text")
    need_writable(tmp_path / "new" / "folder" / "x.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken"]


def test_kill_in_the_middle_of_a_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old and whole")
    code = """if True:
        import sys, time
        from pathlib import Path
        from threefold.files import atomic_write
        def half(file):
            file.write(b"new but ha")
            file.flush()
            print("writing", flush=True)
            time.sleep(60)
        atomic_write(Path(sys.argv[1]), half)
    """
    process, said = start(code, path)
    assert said == "writing"
    process.kill()
    assert process.wait() == -9
    assert path.read_text() == "old and whole"
    write_text(path, "new")  # what the killed one left is in nobody's way
    assert path.read_text() == "new"


def test_a_lock_excludes_a_second_process_until_it_is_killed(tmp_path):
    path = tmp_path / "deep" / "x.lock"
    code = """if True:
        import sys, time
        from pathlib import Path
        from threefold.files import lock
        with lock(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(float(sys.argv[2]))
            Path(sys.argv[1] + ".done").touch()
    """
    first, said = start(code, path, 0.5)
    assert said == "held"
    with lock(path):
        assert path.with_name("x.lock.done").exists()  # we came in only after the other went out
    assert first.wait() == 0
    second, said = start(code, path, 60)
    assert said == "held"
    begin = time.monotonic()
    second.kill()
    with lock(path):  # the kernel gave it back
        assert time.monotonic() - begin < 30
    second.wait()


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ValueError), lock(tmp_path / "x"):
        raise ValueError
    with lock(tmp_path / "x"):
        pass


words = st.lists(st.text("a\0", max_size=2), max_size=3)


@given(words, words)
def test_different_parts_have_different_digests(one, other):
    assert (digest(*one) == digest(*other)) == (one == other)


def test_digest_is_framed_blake2b():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("한글") == digest("한글".encode())
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in (b"ab", b"", b"c"))
    assert digest("ab", b"", "c", size=7) == hashlib.blake2b(framed, digest_size=7).hexdigest()
    texts = [digest(part) for part in ("", "\0", "\0\0")]
    assert all(a != b for a, b in itertools.combinations(texts, 2))


def test_csv_is_read_back(tmp_path):
    rows = [["photo", "text"], ["a,b.jpg", 'say "x"'], ["c\nd", "한글"], ["", "1"]]
    write_csv(tmp_path / "x.csv", rows)
    assert (tmp_path / "x.csv").read_bytes().startswith(b'photo,text\n"a,b.jpg","say ""x"""\n')
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == rows


def test_json_keeps_order_and_refuses_nan(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": ["한글", None]})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "한글" in text
    assert list(json.loads(text).items()) == [("b", 1), ("a", ["한글", None])]
    with pytest.raises(ValueError):
        write_json(path, {"a": float("nan")})
    assert path.read_text(encoding="utf-8") == text
