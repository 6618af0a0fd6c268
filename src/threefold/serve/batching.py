"""`BatchingBackend`: concurrent calls become one batch; each caller gets its own rows and no more.

Networks read 16 photos in less time than 16 times one, and requests come one photo at a time. So what arrives while the
network reads a batch is collected, and is the next batch. A call that comes when nothing else is on its way runs at
once; only for calls that were announced (`expected`) does it wait, for a short time.
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

    max_batch: rows of one call of the backend at most; larger calls are split. wait_ms: how long the oldest waiting
    call waits at most for calls that were announced by `expected` and are still on their way. queue: rows that may
    wait; a call beyond it raises Overloaded (one that comes to an empty queue is taken whatever its size). When a batch
    raises, its calls are run one by one, so that the error reaches only the caller whose photos cause it.

    `observers` are called with the rows of each batch, in the thread that runs it. Answers are those of the backend
    alone, up to what other rows in the batch change: nothing for most, the last bit of a float for some.
    Raises RecipeError for a max_batch or queue below 1 or a negative wait.

    The schedule is that of Crankshaw et al., "Clipper: a low-latency online prediction serving system" (NSDI 2017),
    with its delay only where another call has been announced.
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
        self._local = threading.local()
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
            self._expect_no_longer()
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
        """Announce that this thread will call soon, once: other calls may wait for it, up to `wait_ms`."""
        with self._changed:
            self._expected += 1
            self._local.announced = True
        try:
            yield
        finally:
            with self._changed:  # the call may never have come
                self._expect_no_longer()
                self._changed.notify_all()

    def close(self) -> None:
        """Answer what is waiting, take nothing more, end the thread; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _expect_no_longer(self) -> None:
        if getattr(self._local, "announced", False):
            self._local.announced = False
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
            batch = [self._calls.popleft()]
            rows = batch[0].rows
            while self._calls and rows + self._calls[0].rows <= self.max_batch:
                rows += self._calls[0].rows
                batch.append(self._calls.popleft())
            self._rows -= rows
            return batch

    def _run(self, calls: list[_Call]) -> None:
        try:
            columns = zip(*(call.photos for call in calls), strict=True)
            joint, years = self._answer(tuple(np.concatenate(column) for column in columns))
        except Exception as error:  # whatever it is, it belongs to one of the callers
            if len(calls) == 1:
                calls[0].future.set_exception(error)
            else:
                for call in calls:
                    self._run([call])
            return
        start = 0
        for call in calls:
            rows = slice(start, start + call.rows)
            call.future.set_result((joint[rows].copy(), None if years is None else years[rows].copy()))
            start += call.rows

    def _answer(self, photos: tuple[Batch, ...]) -> Answer:
        """One call of the backend for every `max_batch` rows."""
        answers = []
        for start in range(0, len(photos[0]), self.max_batch):
            part = tuple(batch[start : start + self.max_batch] for batch in photos)
            answers.append(self.backend(part))
            for observer in self.observers:
                observer(len(part[0]))
        years = [ages for _, ages in answers if ages is not None]
        return np.concatenate([joint for joint, _ in answers]), np.concatenate(years) if years else None
