"""`BatchingBackend`: concurrent calls become one batch; each caller gets its own rows and no more.

Networks read 16 photos in less time than 16 times one, and requests come one photo at a time. So while the network
reads a batch, what arrives is collected, and is the next batch. Nobody waits for nobody: a call is run at once when
nothing else is on its way, and what is on its way is known, not guessed, by `expected` (below). The schedule is that of
Crankshaw et al., "Clipper: a low-latency online prediction serving system" (NSDI 2017), with its delay only where a
companion has been announced.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from threefold.errors import RecipeError, ThreefoldError
from threefold.read.backends import Answer, Backend, Batch

if TYPE_CHECKING:
    from threefold.photos.prepare import Prepare


class Overloaded(ThreefoldError):
    """The queue is full, or the backend is closed."""


@dataclass(eq=False)
class _Call:
    photos: tuple[Batch, ...]
    arrived: float
    future: Future[Answer] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return len(self.photos[0])


class BatchingBackend:
    """A Backend over another one, for many threads: same answers, larger batches.

    max_batch: rows of one call of the backend at most; larger calls are split. wait_ms: for how long the oldest waiting
    call waits at most for calls that were announced by `expected` and are still on their way. queue: rows that may
    wait; a call beyond it raises Overloaded (one that comes to an empty queue is taken whatever its size). What a batch
    raises is found out call by call, so that it reaches only the caller it belongs to.

    `observers` are called with the rows of each batch, in the thread that runs it. Answers are those of the backend
    alone up to what it makes of a row in other company: nothing for most, the last bit of a float for some.
    Raises RecipeError for a max_batch or queue below 1 or a negative wait.
    """

    def __init__(self, backend: Backend, *, max_batch: int = 32, wait_ms: float = 2, queue: int = 256) -> None:
        for name, value, least in (("batch", max_batch, 1), ("wait_ms", wait_ms, 0), ("queue", queue, 1)):
            if not value >= least:
                raise RecipeError(f"{name}: {value}; expected {least} or more")
        self.backend, self.max_batch, self.wait, self.queue = backend, max_batch, wait_ms / 1000, queue
        self.observers: list[Callable[[int], None]] = []
        self._calls: deque[_Call] = deque()
        self._rows = self._expected = 0
        self._closed = False
        self._changed = threading.Condition()
        self._mine = threading.local()
        self._thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    @property
    def prepares(self) -> tuple[Prepare, ...]:
        """See `Backend`."""
        return self.backend.prepares

    @property
    def waiting(self) -> int:
        """Rows in the queue now."""
        return self._rows

    def __call__(self, photos: tuple[Batch, ...]) -> Answer:
        """See `Backend`. Raises Overloaded, and what the backend raises about these photos."""
        if not len(photos[0]):
            return self.backend(photos)
        call = _Call(photos, time.monotonic())
        with self._changed:
            self._arrived()
            if self._closed:
                raise Overloaded("the service is ending")
            if self._rows and self._rows + call.rows > self.queue:
                raise Overloaded(f"{self._rows} faces are waiting already")
            self._calls.append(call)
            self._rows += call.rows
            self._changed.notify_all()
        return call.future.result()

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """Announce that this thread will call soon, once: others may wait for it, up to `wait_ms`."""
        with self._changed:
            self._expected += 1
            self._mine.announced = True
        try:
            yield
        finally:
            with self._changed:  # where it did not call: nobody is to wait for it any longer
                self._arrived()
                self._changed.notify_all()

    def close(self) -> None:
        """Answer what is waiting, take nothing more, end the thread; twice is once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _arrived(self) -> None:
        if getattr(self._mine, "announced", False):
            self._mine.announced = False
            self._expected -= 1

    def _work(self) -> None:
        while calls := self._next():
            self._run(calls)

    def _next(self) -> list[_Call]:
        """The calls of the next batch, in order of arrival; none when closed and all are answered."""
        with self._changed:
            while not self._calls:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._calls[0].arrived + self.wait
            while self._expected and self._rows < self.max_batch and not self._closed:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            taken = [self._calls.popleft()]
            rows = taken[0].rows
            while self._calls and rows + self._calls[0].rows <= self.max_batch:
                rows += self._calls[0].rows
                taken.append(self._calls.popleft())
            self._rows -= rows
            return taken

    def _run(self, calls: list[_Call]) -> None:
        try:
            columns = zip(*(call.photos for call in calls), strict=True)
            joint, years = self._answer(tuple(np.concatenate(column) for column in columns))
        except Exception as error:  # whatever it is belongs to a caller
            if len(calls) == 1:
                calls[0].future.set_exception(error)
            else:
                for call in calls:
                    self._run([call])
            return
        start = 0
        for call in calls:
            part = slice(start, start := start + call.rows)
            call.future.set_result((joint[part].copy(), None if years is None else years[part].copy()))

    def _answer(self, photos: tuple[Batch, ...]) -> Answer:
        """One call of the backend for every `max_batch` rows."""
        joints, ages = [], []
        for start in range(0, len(photos[0]), self.max_batch):
            part = tuple(batch[start : start + self.max_batch] for batch in photos)
            joint, years = self.backend(part)
            joints.append(joint)
            ages.append(years)
            for observer in self.observers:
                observer(len(part[0]))
        known = [years for years in ages if years is not None]
        return np.concatenate(joints), np.concatenate(known) if known else None
