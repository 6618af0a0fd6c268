"""All cores for work that is the same for many items: results in order, nothing left running after an error."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, least: int, workers: int | None = None, chunk: int = 4
) -> Iterator[Result]:
    """`map(work, items)` by as many processes as there are cores (or `workers`), for work that holds the interpreter.

    `least`: items that are worth starting one process for (it takes about a second); with fewer than twice that many,
    the work is done here. Processes are spawned: a fork of one that runs threads (torch, OpenCV) can hang.
    """
    count = min(cores(), len(items) // least) if workers is None else min(workers, len(items))
    if count < 2:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _single)
    try:
        yield from pool.map(work, items, chunksize=chunk)
    finally:
        pool.shutdown(cancel_futures=True)


def _single() -> None:
    import cv2

    cv2.setNumThreads(1)  # one process per core already
