"""`Service`: photos that were sent -> answers, in a few threads, so that the event loop always answers.

A photo's header is read, it waits for its share of memory, is decoded and read. There are more threads than cores,
since a thread whose faces wait for their batch needs no core.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request

from threefold.errors import DataError, PhotoError, ThreefoldError
from threefold.photos.decode import TooManyPixels, header
from threefold.read.reader import Reader, Which, read_image
from threefold.read.reading import check_attributes
from threefold.serve.batching import BatchingBackend, Overloaded
from threefold.serve.body import Upload
from threefold.serve.counters import Metrics
from threefold.serve.limits import Budget, Load, RequestLimits
from threefold.serve.refusal import Refusal, busy

LOG = logging.getLogger("threefold.serve")
T = TypeVar("T")
PIXEL_BYTES = 12
"""Memory of a pixel while a photo is decoded: RGB, and RGBA over white for a moment, with the detector's copy."""


class Service:
    """A Reader, its limits and what it has in work. Used by one event loop; photos are read in other threads."""

    def __init__(self, reader: Reader, attributes: Sequence[str], limits: RequestLimits, workers: int) -> None:
        self.events = False  # whether /v1/events and the page /monitor are there
        self.reader, self.limits = reader, limits
        self.attributes = check_attributes(attributes)
        self.load, self.metrics = Load(limits), Metrics(self.attributes)
        self.budget = Budget(limits.decoded_bytes)
        self.workers = workers
        self.start()
        self.ready = False  # whether the model has answered
        self.error: ThreefoldError | None = None  # what keeps it from answering
        backend = reader.backend
        self.batching = backend if isinstance(backend, BatchingBackend) else None
        if self.batching:
            self.batching.observers.append(self.metrics.batches.observe)
        self.metrics.queue.set_function(lambda: self.load.photos)
        self.metrics.held.set_function(lambda: self.load.bytes)
        self.metrics.ready.set_function(lambda: self.open)

    @property
    def open(self) -> bool:
        """Whether requests are to be sent here: the model has answered, and the service is not ending."""
        return self.ready and not self.load.draining

    @property
    def model(self) -> dict[str, str]:
        """{name, version} of what answers."""
        version = self.reader.info.get("version") or importlib.metadata.version("threefold")
        return {"name": str(self.reader.info.get("name") or "reader"), "version": str(version)}

    async def read(self, photos: Sequence[Upload], which: Which | None) -> list[dict[str, Any]]:
        """The answer about each photo, or the error in its place; raises Refusal when none of them can be read.

        which: see `Reader.faces`; None: the model's own default.
        """
        with self.load.admit(len(photos)):
            results = await asyncio.gather(*(self._photo(photo, which) for photo in photos), return_exceptions=True)
        answers, refusals = [], []
        for photo, result in zip(photos, results, strict=True):
            if isinstance(result, Refusal):
                self.metrics.photos.labels(result.code).inc()
                answers.append({"name": photo.name, "error": result.body()})
                refusals.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                self.metrics.count_faces(result["faces"])
                answers.append(result)
        for refusal in refusals:
            if refusal.code == "overloaded" or len(refusals) == len(photos):
                raise refusal
        self.ready = True
        return answers

    async def warm(self) -> None:
        """Let the model and the face detector answer once; `error` is what keeps them from it."""
        grey = np.full((64, 64, 3), 128, dtype=np.uint8)
        try:
            await self._run(0, self.reader.faces, grey, "none")  # the model
            await self._run(0, self.reader.faces, grey, "all")  # the detector; it finds no face
            self.ready = True
        except ThreefoldError as error:
            self.error = error
            LOG.error("not ready: %s", error)
        except Exception as error:  # whatever it is, the service is not ready and says why
            self.error = ThreefoldError(" ".join(f"{error}".split()) or type(error).__name__)
            LOG.exception("not ready: %s", self.error)

    def start(self) -> None:
        """Take requests, also after a `close`."""
        self.load.draining = False
        self.threads = ThreadPoolExecutor(self.workers, thread_name_prefix="reading")

    def close(self) -> None:
        """Take no more requests and end the threads; what is in work is finished."""
        self.load.draining = True
        self.threads.shutdown()

    async def _run(self, memory: int, work: Callable[..., T], *args: Any) -> T:
        """`work(*args)` in a thread, once `memory` bytes are free. They are given back when it has ended, even where
        the client has gone meanwhile."""
        loop = asyncio.get_running_loop()
        amount = await self.budget.take(memory)
        try:
            task = self.threads.submit(work, *args)
        except RuntimeError:  # the threads have ended
            self.budget.give(amount)
            raise busy("the service is ending; ask another one", 5) from None

        def give_back(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed needs no memory back
                loop.call_soon_threadsafe(self.budget.give, amount)

        task.add_done_callback(give_back)
        return await asyncio.wrap_future(task)

    async def _photo(self, photo: Upload, which: Which | None) -> dict[str, Any]:
        # in a thread, since a header that is made to be long takes seconds; not one of ours, which may all be busy
        pixels = await asyncio.to_thread(count_pixels, photo, self.limits.pixels)
        return await self._run(pixels * PIXEL_BYTES, self._read, photo, which)

    def _read(self, photo: Upload, which: Which | None) -> dict[str, Any]:
        try:
            with self.batching.expected() if self.batching else contextlib.nullcontext():
                image = read_image(photo.data, photo.name, self.limits.pixels)
                readings = self.reader.faces(image, which)
        except Overloaded as error:
            raise busy(str(error)) from None
        except (PhotoError, DataError) as error:
            raise Refusal("unreadable", str(error)) from None
        faces = [reading.only(self.attributes).data() for reading in readings]
        return {"name": photo.name, "width": image.shape[1], "height": image.shape[0], "faces": faces}


def count_pixels(photo: Upload, limit: int) -> int:
    """Pixels of a photo by its header; nothing is decoded.

    Raises Refusal: unsupported_type where it begins neither as a JPEG, nor as a PNG, nor as a WebP; unreadable where it
    is empty or its header is cut off or damaged; too_large where it has more than `limit` pixels.
    """
    data = photo.data
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if data and not (webp or data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))):
        raise Refusal("unsupported_type", f"{photo.name}: expected jpeg, png or webp, by content")
    try:
        _, width, height = header(data, photo.name)
    except PhotoError as error:
        raise Refusal("too_large" if isinstance(error, TooManyPixels) else "unreadable", str(error)) from None
    if width * height > limit:
        raise Refusal("too_large", f"{photo.name}: {width} x {height} pixels; at most {limit / 1e6:g} megapixels")
    return width * height


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`work`, cancelled when the client leaves: under load, impatient clients ask again, and their first answer would
    be computed for nobody.

    For a request whose body was read. Raises ConnectionError when the client has left.
    """

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ConnectionError("the client has left")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
