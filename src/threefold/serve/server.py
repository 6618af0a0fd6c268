"""`threefold serve`: take the port, load the model, answer requests until SIGTERM, finish those in work."""

import contextlib
import copy
import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import cv2
import uvicorn
from fastapi import APIRouter, FastAPI

from threefold import labels
from threefold.errors import RecipeError
from threefold.parallel import cores
from threefold.progress import say
from threefold.read.reader import Reader, load
from threefold.read.reading import check_attributes
from threefold.results import Result
from threefold.serve.app import create_app
from threefold.serve.batching import BatchingBackend
from threefold.serve.binding import bind, url_of
from threefold.serve.limits import RequestLimits
from threefold.serve.work import Service

KEY = "THREEFOLD_KEY"
"""Environment variable of the bearer key: arguments can be seen by every user of the machine."""
DRAIN_SECONDS = 30
"""For how long requests in work are waited for after SIGTERM."""
KEY_LENGTH = 8
"""Letters of a key at least."""


@dataclass(frozen=True)
class ServeResult(Result):
    """A service that has ended. url: where it was; requests: how many were answered, with refusals and probes."""

    url: str
    requests: int

    def lines(self) -> list[str]:
        """See Result."""
        return [f"{self.url}: {self.requests:,} requests answered"]


def serve(
    model: Path | str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    attributes: Iterable[str] = tuple(labels.ATTRIBUTES),
    key: str | None = None,
    threads: int | None = None,
    batch: int = 32,
    wait_ms: float = 2,
    queue: int = 256,
    rate: float | None = None,
    cors: Sequence[str] = (),
    monitor: APIRouter | None = None,
) -> ServeResult:
    """Answer requests at host:port until SIGTERM or ctrl-c.

    model: exported model or run, the bundled reader by default. attributes: what is read out. key: the bearer key,
    $THREEFOLD_KEY by default. threads: cores of the model, all by default. batch: faces in one call of the model at
    most; 1 turns batching off. wait_ms: see `BatchingBackend`. queue: photos in work or waiting. rate: requests per
    second of one client. cors: origins whose pages may ask. monitor: the routes of /monitor over an events file
    (`watch.monitor.monitor_router`). port 0 is any free one. The requests are logged by the logger `threefold.serve`
    (`log_to_stderr`). Raises ThreefoldError in one line: a port in use, no such model, ...; KeyboardInterrupt after
    ctrl-c, when requests in work are finished.
    """
    key = bearer_key(key)
    limits = RequestLimits(queue=queue, rate=rate)
    attributes = check_attributes(attributes)
    for origin in cors:
        if origin != "*" and not origin.startswith(("http://", "https://")):
            raise RecipeError(f"cors: {origin!r}; expected an origin like https://example.org, or *")
    # The address is taken before the model is loaded, so that a port in use is an error at once; clients that connect
    # meanwhile wait for a second or two instead of being refused.
    with bind(host, port) as listening, contextlib.ExitStack() as at_end:
        reader = with_batching(load(model, threads=threads), batch=batch, wait_ms=wait_ms, queue=queue)
        if isinstance(reader.backend, BatchingBackend):
            at_end.callback(reader.backend.close)
        cv2.setNumThreads(1)  # photos are read side by side; more threads inside of OpenCV only cost
        app = create_app(reader, attributes=attributes, key=key, limits=limits, monitor=monitor, cors=cors)
        server = Server(app)
        name, url = " ".join(server.service.model.values()), url_of(listening)
        say(f"threefold serve: {url} ({name}, {', '.join(attributes)}, {cores()} cores)")
        server.run(sockets=[listening])
    if server.service.error:
        raise server.service.error
    if server.interrupted:
        raise KeyboardInterrupt
    return ServeResult(url, server.server_state.total_requests)


def bearer_key(key: str | None) -> str | None:
    """`key`, else $THREEFOLD_KEY, else None. Raises RecipeError for one that is empty, short or not of visible ASCII,
    without repeating it."""
    key = os.environ.get(KEY) if key is None else key
    if key is not None and not (len(key) >= KEY_LENGTH and key.isascii() and key.isprintable() and " " not in key):
        raise RecipeError(f"key: expected {KEY_LENGTH} or more letters, digits and signs, without spaces")
    return key


def with_batching(reader: Reader, *, batch: int, wait_ms: float, queue: int) -> Reader:
    """A copy of `reader` that reads concurrent requests together; the same one where a batch is one face."""
    if batch == 1:
        return reader
    batched = copy.copy(reader)
    batched.backend = BatchingBackend(reader.backend, max_batch=batch, wait_ms=wait_ms, queue=queue)
    return batched


def log_to_stderr() -> None:
    """A line per request, and warnings of the HTTP server, on stderr: for programs that are a service and no more."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("threefold.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class Server(uvicorn.Server):
    """uvicorn, whose SIGTERM ends in exit code 0 and ends readiness at once; it ends too when no model answers."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN_SECONDS,
            timeout_keep_alive=20,
            h11_max_incomplete_event_size=1 << 16,
        )
        super().__init__(config)
        self.service: Service = app.state.service
        self.interrupted = False

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        return await super().on_tick(counter) or self.service.error is not None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; a second ctrl-c ends at once. Signals are not raised again afterwards."""
        self.service.load.draining = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.interrupted |= sig == signal.SIGINT
        self.should_exit = True
