"""Micro-batching: who is answered with what, with whom, and when."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_backend import FakeBackend
from hypothesis import given
from hypothesis import strategies as st

from threefold.errors import RecipeError
from threefold.serve.batching import BatchingBackend, Overloaded

LONG = 60.0
"""Seconds that no test waits for: who waits that long hangs."""


class Gate:
    """A fake backend that holds every batch until it is let through; remembers the batches."""

    def __init__(self, years=True, opened=False):
        self.fake, self.years = FakeBackend(), years
        self.prepares, self.batches = self.fake.prepares, []
        self.entered, self.through = threading.Semaphore(0), threading.Semaphore(10**6 if opened else 0)

    def __call__(self, photos):
        self.batches.append(len(photos[0]))
        self.entered.release()
        assert self.through.acquire(timeout=LONG)
        if (photos[0] == 255).all((1, 2, 3)).any():
            raise ValueError("a white photo")
        joint, _ = self.fake(photos)
        return joint, photos[0].mean((1, 2, 3)).astype(np.float32) if self.years else None


def shades(*values):
    return (np.stack([np.full((8, 6, 3), value, dtype=np.uint8) for value in values]),)


@pytest.fixture
def batching():
    backends = []

    def make(backend, **options):
        backends.append(BatchingBackend(backend, **options))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()
        assert not backend._thread.is_alive()


def until(true):
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_comes_while_a_batch_is_read_is_the_next_batch(batching):
    gate = Gate()
    backend = batching(gate, wait_ms=0)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(backend, shades(10))
        gate.entered.acquire()
        others = [pool.submit(backend, shades(20 * n, 20 * n + 5)) for n in range(1, 6)]
        until(lambda: backend.waiting == 10)
        for _ in range(2):
            gate.through.release()
        answers = [task.result(LONG) for task in [first, *others]]
    assert gate.batches == [1, 10]
    assert [years.tolist() for _, years in answers] == [[10.0], *([20.0 * n, 20.0 * n + 5] for n in range(1, 6))]
    for (joint, _), (alone, _) in zip(
        answers[1:], [gate.fake(shades(20 * n, 20 * n + 5)) for n in range(1, 6)], strict=True
    ):
        assert np.array_equal(joint, alone)


def test_a_lone_call_waits_for_nobody(batching):
    gate = Gate(opened=True)
    backend = batching(gate, wait_ms=LONG * 1000)
    begin = time.monotonic()
    backend(shades(10))
    with backend.expected():  # its own announcement is not somebody else's
        backend(shades(10))
    with backend.expected():
        pass  # a photo without a face
    backend(shades(10))
    assert time.monotonic() - begin < LONG / 2 and gate.batches == [1, 1, 1]


def test_an_announced_call_is_waited_for(batching):
    gate = Gate(opened=True)
    backend = batching(gate, wait_ms=LONG * 1000)
    with ThreadPoolExecutor(1) as pool, backend.expected():
        early = pool.submit(backend, shades(10))
        until(lambda: backend.waiting == 1)
        assert not early.done() and gate.batches == []
        backend(shades(20))
        early.result(LONG)
    assert gate.batches == [2]


def test_an_announcement_that_is_taken_back_lets_the_others_go(batching):
    gate = Gate(opened=True)
    backend = batching(gate, wait_ms=LONG * 1000)
    with ThreadPoolExecutor(1) as pool:
        with backend.expected():
            early = pool.submit(backend, shades(10))
            until(lambda: backend.waiting == 1)
        begin = time.monotonic()
        early.result(LONG)
    assert time.monotonic() - begin < LONG / 2 and gate.batches == [1]


def test_the_wait_ends(batching):
    gate = Gate(opened=True)
    backend = batching(gate, wait_ms=20)
    with ThreadPoolExecutor(1) as pool, backend.expected():
        pool.submit(backend, shades(10)).result(LONG)  # the announced call never comes
        assert gate.batches == [1]


def test_large_calls_are_split_and_full_batches_do_not_wait(batching):
    gate, seen = Gate(opened=True), []
    backend = batching(gate, max_batch=4, wait_ms=LONG * 1000)
    backend.observers.append(seen.append)
    many = shades(*range(0, 110, 10))
    with backend.expected(), ThreadPoolExecutor(1) as pool:
        joint, years = pool.submit(backend, many).result(LONG)
    assert gate.batches == seen == [4, 4, 3]
    assert np.array_equal(joint, gate.fake(many)[0]) and years.tolist() == list(range(0, 110, 10))


def test_a_fault_reaches_only_its_caller(batching):
    gate = Gate(years=False)
    backend = batching(gate)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(backend, shades(10))
        gate.entered.acquire()
        good = [pool.submit(backend, shades(value)) for value in (20, 40)]
        until(lambda: backend.waiting == 2)
        white = pool.submit(backend, shades(255))
        odd = pool.submit(backend, (np.zeros((1, 9, 9, 3), dtype=np.uint8),))  # another size: cannot be stacked
        until(lambda: backend.waiting == 4)
        for _ in range(9):
            gate.through.release()
        with pytest.raises(ValueError, match="a white photo"):
            white.result(LONG)
        for task, value in zip([first, *good], (10, 20, 40), strict=True):
            joint, years = task.result(LONG)
            assert np.array_equal(joint, gate.fake(shades(value))[0]) and years is None
        assert odd.result(LONG)[0].shape == (1, 18)
    backend(shades(10))  # and the thread goes on


def test_a_full_queue_refuses_and_takes_again(batching):
    gate = Gate()
    backend = batching(gate, queue=3)
    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(backend, shades(10))]
        gate.entered.acquire()
        tasks.append(pool.submit(backend, shades(1, 2, 3, 4)))  # to an empty queue, whatever its size
        until(lambda: backend.waiting == 4)
        with pytest.raises(Overloaded, match="4 faces are waiting already"):
            backend(shades(10))
        for _ in range(9):
            gate.through.release()
        for task in tasks:
            task.result(LONG)
    assert backend.waiting == 0
    backend(shades(10))


def test_close_answers_what_waits_and_refuses_what_comes(batching):
    gate = Gate()
    backend = batching(gate, max_batch=2)
    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(backend, shades(10))]
        gate.entered.acquire()
        tasks += [pool.submit(backend, shades(value)) for value in range(20, 70, 10)]
        until(lambda: backend.waiting == 5)
        closing = pool.submit(backend.close)
        until(lambda: backend._closed)
        with pytest.raises(Overloaded, match="ending"):
            backend(shades(10))
        assert not closing.done()
        for _ in range(9):
            gate.through.release()
        closing.result(LONG)
        assert [task.result(LONG)[1].item() for task in tasks] == [10, 20, 30, 40, 50, 60]
    backend.close()


def test_no_photos_are_no_batch(batching):
    gate = Gate(opened=True)
    joint, _ = batching(gate)((np.empty((0, 8, 6, 3), dtype=np.uint8),))
    assert joint.shape == (0, 18)


def test_answers_are_the_callers_own(batching):
    backend = batching(FakeBackend())
    joint, _ = backend(shades(10, 20))
    joint[:] = 0
    assert backend(shades(10, 20))[0].max() == np.float32(0.83)


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    max_batch=st.integers(1, 9),
    wait=st.sampled_from([0, 1]),
)
def test_many_threads_get_what_they_would_get_alone(sizes, max_batch, wait):
    fake = FakeBackend()
    backend = BatchingBackend(fake, max_batch=max_batch, wait_ms=wait)
    calls = [shades(*[(17 * n + 40 * k) % 250 for k in range(size)]) for n, size in enumerate(sizes)]

    def call(photos):
        with backend.expected():
            return backend(photos)

    try:
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(call, calls))
    finally:
        backend.close()
    assert backend.waiting == 0 == backend._expected
    assert all(np.array_equal(joint, fake(photos)[0]) for (joint, _), photos in zip(answers, calls, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_batch": 0}, "batch: 0"), ({"queue": 0}, "queue: 0"), ({"wait_ms": -1}, "wait_ms: -1; expected 0 or more")],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(RecipeError, match=message):
        BatchingBackend(FakeBackend(), **options)
