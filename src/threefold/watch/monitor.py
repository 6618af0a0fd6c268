"""The page `/monitor` and the numbers behind it, `/v1/events`: beside a running watch, or of an events file.

The page itself is files of `static`; it holds no data and asks `/v1/events` again and again. There is no key: by
default only the machine itself can ask, and a host that is opened to a network is opened to all of it.
"""

import re
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles

from threefold import labels
from threefold.errors import DataError
from threefold.serve.binding import bind
from threefold.serve.door import HEADERS
from threefold.serve.refusal import Refusal, error_response
from threefold.watch.events import RECENT, summary

STATIC = Path(__file__).parents[1] / "serve" / "static"
HOURS = 24 * 31
"""Hours that may be asked for at once, at most."""
Answer = Callable[[int, int], dict[str, Any]]
"""(hours, recent) -> the answer of `/v1/events`."""


def monitor_router(source: Path | Answer, attributes: Collection[str] = tuple(labels.ATTRIBUTES)) -> APIRouter:
    """GET /monitor and GET /v1/events?hours=24&recent=50 of an events file, or of what a running watch says.

    attributes: what is shown of a person, whatever the file holds: a service that leaves gender and age out leaves them
    out here as well. Answers 404 (`not_found`) while an events file is not there, by raising Refusal; 422 for numbers
    out of range.
    """
    router = APIRouter(tags=["monitor"])

    @router.get("/monitor", response_class=HTMLResponse, include_in_schema=False)
    def page() -> Response:
        return HTMLResponse((STATIC / "monitor.html").read_text(encoding="utf-8"))

    @router.get("/v1/events", summary="Counts by hour and the last events of a watched entrance")
    def events(
        hours: Annotated[int, Query(ge=1, le=HOURS, description="hours up to now")] = 24,
        recent: Annotated[int, Query(ge=0, le=RECENT, description="events, the newest first")] = 50,
    ) -> dict[str, Any]:
        try:
            answer = summary(source, hours, recent) if isinstance(source, Path) else source(hours, recent)
        except DataError as error:
            raise Refusal("not_found", str(error)) from None
        hidden = {*labels.ATTRIBUTES, *({"age"} if "age_group" not in attributes else ())} - set(attributes)
        rows = [{key: value for key, value in row.items() if key not in hidden} for row in answer["recent"]]
        return {**answer, "recent": rows}

    return router


def monitor_app(source: Path | Answer) -> FastAPI:
    """The page, its files and its numbers as an application of their own; `/` leads to the page."""
    app = FastAPI(title="threefold watch", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(monitor_router(source))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def start() -> Response:
        return RedirectResponse("/monitor")

    @app.exception_handler(Refusal)
    def refuse(request: Request, error: Refusal) -> Response:
        return error_response(error, "")

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        message = f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}"
        return error_response(Refusal("invalid", message), "")

    @app.middleware("http")
    async def headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = await call(request)
        answer.headers.update(HEADERS | {"Cache-Control": "no-store"})
        return answer

    return app


def parse_address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT` -> (host, port); without a host only this machine can ask. Raises DataError."""
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]/\s]+):)?(\d{1,5})", text.strip())
    if not match or int(match[2]) > 65535:
        raise DataError(f"monitor {text!r}: expected PORT or HOST:PORT, as 8001 or 0.0.0.0:8001")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


class Monitor:
    """The application served from a thread. url: where. Raises ThreefoldError for an address that cannot be had."""

    def __init__(self, address: str, source: Path | Answer) -> None:
        host, port = parse_address(address)
        self._socket = bind(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/monitor"
        config = uvicorn.Config(
            monitor_app(source),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()
