"""`Service`: photos that were sent -> answers, in a few threads, so that the event loop always answers.

A photo is measured, waits for its share of memory, is decoded, read and told. More threads than cores, since a thread
whose faces wait for their batch needs no core; how much they decode at once is bounded by the memory that a photo's
size asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request

from threefold.errors import DataError, PhotoError
from threefold.read.reader import Reader, read_image
from threefold.read.reading import check_attributes
from threefold.serve.batching import BatchingBackend, Overloaded
from threefold.serve.body import Upload
from threefold.serve.counters import Metrics
from threefold.serve.headers import measure
from threefold.serve.limits import Budget, Load, RequestLimits
from threefold.serve.refusal import Refusal, busy

T = TypeVar("T")
PIXEL_BYTES = 12
"""Memory of a pixel while a photo is decoded: RGB, and RGBA over white for a moment, with the detector's copy."""


class Service:
    """A Reader, its limits and what it has in work. Used by one event loop; the reading is done in other threads."""

    def __init__(self, reader: Reader, attributes: Sequence[str], limits: RequestLimits, workers: int) -> None:
        self.events = False  # whether /v1/events and the page /monitor are there
        self.reader, self.limits = reader, limits
        self.attributes = check_attributes(attributes)
        self.load, self.metrics = Load(limits), Metrics(self.attributes)
        self.budget = Budget(limits.decoded_bytes)
        self.workers, self.threads = workers, _threads(workers)
        self.ready, self.fault = False, "the model has not answered yet"
        self.has_years: bool | None = None
        backend = reader.backend
        self.batching = backend if isinstance(backend, BatchingBackend) else None
        if self.batching:
            self.batching.observers.append(self.metrics.batches.observe)
        self.metrics.watch(lambda: self.load.photos, lambda: self.load.bytes, lambda: self.open)

    @property
    def open(self) -> bool:
        """Whether requests are to be sent here: the model has answered, and the service is not ending."""
        return self.ready and not self.load.draining

    @property
    def model(self) -> dict[str, str]:
        """{name, version} of what answers."""
        info = self.reader.info
        version = info.get("version") or importlib.metadata.version("threefold")
        return {"name": str(info.get("name") or "reader"), "version": str(version)}

    async def read(self, photos: Sequence[Upload], which: str) -> list[dict[str, Any]]:
        """The answer about each photo, or the error in its place; raises Refusal when none of them can be read."""
        with self.load.admit(len(photos)):
            found = await asyncio.gather(*(self._photo(photo, which) for photo in photos), return_exceptions=True)
        told: list[dict[str, Any]] = []
        refused = [item for item in found if isinstance(item, Refusal)]
        for photo, item in zip(photos, found, strict=True):
            if isinstance(item, Refusal):
                self.metrics.photos.labels(item.code).inc()
                told.append({"name": photo.name, "error": item.body()})
            elif isinstance(item, BaseException):
                raise item
            else:
                self.metrics.count_faces(item["faces"])
                told.append(item)
        for refusal in refused:
            if refusal.code == "overloaded" or len(refused) == len(photos):
                raise refusal
        self.ready = True
        return told

    async def run(self, memory: int, work: Callable[..., T], *args: Any) -> T:
        """`work(*args)` in a thread, once `memory` bytes are free. They are given back when it has ended, even where
        the one who asked has gone."""
        loop = asyncio.get_running_loop()
        taken = await self.budget.take(memory)
        try:
            task = self.threads.submit(work, *args)
        except RuntimeError:  # the threads are gone
            self.budget.give(taken)
            raise busy("the service is ending; ask another one", 5) from None

        def ended(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed needs no memory back
                loop.call_soon_threadsafe(self.budget.give, taken)

        task.add_done_callback(ended)
        return await asyncio.wrap_future(task)

    async def warm(self) -> None:
        """Let the model and the face detector answer once; raises what keeps them from it."""
        await self.run(0, self._warm)
        self.ready, self.fault = True, ""

    async def years(self) -> bool:
        """Whether the model tells ages in years: what it says of itself, else what it does."""
        if self.has_years is None:
            await self.run(0, self._warm_model)
        return bool(self.has_years)

    def start(self) -> None:
        """Take requests, after a `close` as well."""
        if self.load.draining:
            self.load.draining, self.threads = False, _threads(self.workers)

    def close(self) -> None:
        """Take no more requests and end the threads; what is in work is finished."""
        self.load.draining = True
        self.threads.shutdown()

    async def _photo(self, photo: Upload, which: str) -> dict[str, Any]:
        _, width, height = measure(photo.data, photo.name)
        if width * height > self.limits.pixels:
            limit = f"{self.limits.pixels / 1e6:g} megapixels"
            raise Refusal("too_large", f"{photo.name}: {width} x {height} pixels; at most {limit}")
        return await self.run(width * height * PIXEL_BYTES, self._read, photo, which)

    def _read(self, photo: Upload, which: str) -> dict[str, Any]:
        try:
            with self.batching.expected() if self.batching else contextlib.nullcontext():
                image = read_image(bytes(photo.data), photo.name, self.limits.pixels)
                readings = self.reader.faces(image, which)
        except Overloaded as error:
            raise busy(str(error)) from None
        except (PhotoError, DataError) as error:
            raise Refusal("unreadable", str(error)) from None
        height, width = image.shape[:2]
        faces = [reading.only(self.attributes).data() for reading in readings]
        return {"name": photo.name, "width": width, "height": height, "faces": faces}

    def _warm(self) -> None:
        self._warm_model()
        self.reader.faces(np.full((64, 64, 3), 128, dtype=np.uint8), "all")

    def _warm_model(self) -> None:
        backend = self.reader.backend
        grey = tuple(np.full((1, *prepare.size, 3), 128, dtype=np.uint8) for prepare in backend.prepares)
        self.has_years = backend(grey)[1] is not None


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="reading")


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`work`, given up when the client goes: under load the impatient ask again, and nobody waits for the first answer.

    Of a request whose body was read. Raises ConnectionError when the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionError("the client has gone")
        return task.result()
    finally:
        for unneeded in (task, gone):
            unneeded.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
