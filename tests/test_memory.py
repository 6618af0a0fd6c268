"""Memory kept between batches: the system clears no pages anew, and nothing else changes."""

import ctypes
import subprocess
import sys

import pytest

from threefold.learn.memory import keep_memory
from threefold.learn.plan import make_fabric

CODE = """
import resource, sys
if sys.argv[1] == "kept":
    from threefold.learn.memory import keep_memory
    assert keep_memory() and keep_memory()
for _ in range(3):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
"""


def _glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.mark.skipif(not _glibc(), reason="only glibc can be told to keep memory")
def test_a_block_that_was_freed_is_used_again_without_new_pages() -> None:
    plain, keeping = (
        int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("plain", "kept")
    )
    assert keeping < 100 < plain  # 64 MiB are 16,384 pages, and numpy's would be larger ones


def test_a_c_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_memory.__wrapped__() is False


def test_the_cpu_alone_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("threefold.learn.plan.keep_memory", lambda: asked.append(1))
    make_fabric("cpu", "32-true")
    assert asked == [1]
