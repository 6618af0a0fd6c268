"""`create_app`: the whole service as one ASGI app.

    POST /v1/read       photos -> faces with their readings        GET /healthz   the process answers
    GET  /v1/model      what is read, by what, up to which limits  GET /readyz    requests are taken
    /v2/...             the Open Inference Protocol                GET /metrics   Prometheus
    GET  /, /static/*   the page                                   GET /docs, /openapi.json

Nothing is written to a disk and no photo, name or address is logged. Only what is in `attributes` is read out, counted
and documented.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from threefold import labels
from threefold.errors import ThreefoldError, one_of
from threefold.read.reader import Reader
from threefold.serve import counters as metrics
from threefold.serve import schema
from threefold.serve.body import read_body
from threefold.serve.docs import CSS, docs_page
from threefold.serve.door import CLOSED, Door
from threefold.serve.limits import MIB, Hold, RequestLimits
from threefold.serve.oip import oip_router
from threefold.serve.refusal import CODES, Refusal, busy, error_response, is_below
from threefold.serve.work import Service, while_there

LOG = logging.getLogger("threefold.serve")
STATIC = Path(__file__).with_name("static")
WORKERS = 16
"""Threads that read photos: enough for full batches; how much they decode at once is bounded by memory."""
TOLD = ("created", "precision", "licence")
"""What else a model says of itself in GET /v1/model. `data` as well, of an exported model (a run has paths of the
machine there) and when everything is served, since it tells what the model could read."""


def create_app(
    reader: Reader,
    *,
    attributes: Iterable[str] = tuple(labels.ATTRIBUTES),
    key: str | None = None,
    limits: RequestLimits | None = None,
    monitor: APIRouter | None = None,
    cors: Sequence[str] = (),
    workers: int = WORKERS,
    on_fault: Callable[[ThreefoldError], None] | None = None,
) -> FastAPI:
    """The service of `reader`; for micro-batching its backend is a `BatchingBackend`.

    attributes: what is read out; the others are nowhere. key: bearer key of /v1 and /v2. limits: what requests may
    cost. monitor: more routes (`serve.monitor`). cors: origins whose pages may ask. workers: threads. on_fault: told
    when the model cannot answer at all; the service then stays unready. Raises DataError for an unknown attribute.
    """
    service = Service(reader, tuple(attributes), limits or RequestLimits(), workers)
    app = FastAPI(
        title="threefold",
        version=importlib.metadata.version("threefold"),
        description=_description(service.attributes, key),
        docs_url=None,
        redoc_url=None,
        lifespan=partial(_lifespan, service, on_fault),
    )
    app.state.service = service
    service.events = monitor is not None
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    _add_read(app, service)
    _add_probes(app, service)
    app.include_router(oip_router(service, _errors(schema.ProtocolError, 400, 401, 404, 408, 413, 429, 503)))
    if monitor is not None:
        app.include_router(monitor)
    _add_pages(app)
    app.add_middleware(Door, service=service, key=key)
    if cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors), allow_methods=["GET", "POST"], max_age=600,
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "Inference-Header-Content-Length"],
            expose_headers=["X-Request-ID", "Retry-After", "Inference-Header-Content-Length"],
        )  # fmt: skip
    _with_security(app, key)
    return app


def _description(attributes: Sequence[str], key: str | None) -> str:
    words = ", ".join(name.replace("_", " ") for name in attributes)
    asked = "/v1 and /v2 ask for the header `Authorization: Bearer KEY`. " if key else ""
    return (
        f"Reads {words} from photos of faces. A reading is about one photo; it never says who somebody is, and it is "
        f"not valid for people under 18.\n\n{asked}Photos are kept in memory while they are read, and nowhere else. "
        "Every answer has an X-Request-ID: the one that was sent, where it has 1 to 128 letters, digits, dots, dashes "
        "or underscores."
    )


@contextlib.asynccontextmanager
async def _lifespan(
    service: Service, on_fault: Callable[[ThreefoldError], None] | None, app: FastAPI
) -> AsyncIterator[None]:
    """The model answers once beside the first requests; at the end what is in work is finished."""
    service.start()
    warming = asyncio.create_task(_warm(service, on_fault))
    try:
        yield
    finally:
        service.load.draining = True
        await warming
        await asyncio.to_thread(service.close)


async def _warm(service: Service, on_fault: Callable[[ThreefoldError], None] | None) -> None:
    try:
        await service.warm()
    except Exception as error:  # whatever it is, the service is not ready and says why
        service.fault = " ".join(f"{error}".split()) or type(error).__name__
        LOG.error("not ready: %s", service.fault, exc_info=not isinstance(error, ThreefoldError))
        if on_fault is not None:
            on_fault(error if isinstance(error, ThreefoldError) else ThreefoldError(service.fault))


def _errors(model: type, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's words for the errors of a route, from the table of codes."""
    said: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        meant = [f"{code}: {words}" for code, (usual, words) in CODES.items() if usual == status]
        said[status] = {"model": model, "description": "; ".join(meant) or "invalid: not of the documented form"}
    return said


def _add_read(app: FastAPI, service: Service) -> None:
    answer = schema.read_model(service.attributes)
    ok = {"model": answer, "content": {"application/json": {"example": schema.read_example(service.attributes)}}}
    errors = _errors(schema.ErrorAnswer, 401, 408, 413, 415, 422, 429, 500, 503)

    @app.post("/v1/read", summary="Read photos", tags=["readings"], responses={200: ok, **errors},
              response_model=None, openapi_extra=_read_request(service.limits))  # fmt: skip
    async def read(request: Request, faces: schema.Which | None = None) -> Response:
        """Jpeg, png or webp, by content. `faces`: all (the default), largest, or none for photos that are portraits
        already. A form or JSON body may say `faces` too, and then it counts. The answer has the photos in their order,
        the faces of each by size. Of several photos those that cannot be read have an error in their place.

        curl -F photos=@a.jpg -F photos=@b.jpg -F faces=all http://127.0.0.1:8000/v1/read
        """
        service.load.check()
        with Hold(service.load) as hold:
            photos, said = await read_body(request, service.limits, hold)
            which = (faces or "all") if said is None else said
            if which not in schema.WHICH:
                raise Refusal("invalid", f"faces: {which[:64]!r} is not known ({one_of(schema.WHICH, which[:64])})")
            began = time.perf_counter()
            told = await while_there(request, service.read(photos, which))
        return JSONResponse({
            "request_id": request.state.request_id, "model": service.model,
            "milliseconds": round((time.perf_counter() - began) * 1000, 1), "photos": told,
        })  # fmt: skip

    @app.get("/v1/model", summary="The model", tags=["readings"], responses=_errors(schema.ErrorAnswer, 401, 429))
    async def model() -> dict[str, Any]:
        """What is read, by which model, up to which limits."""
        return _model(service)


def _model(service: Service) -> dict[str, Any]:
    info: Mapping[str, Any] = service.reader.info
    told = [*TOLD, "data"] if "licence" in info and len(service.attributes) == len(labels.ATTRIBUTES) else TOLD
    limits = service.limits
    return {
        **service.model,
        **{name: info[name] for name in told if name in info},
        "attributes": list(service.attributes),
        "labels": {name: list(labels.NAMES[name]) for name in service.attributes},
        "faces": list(schema.WHICH),
        "events": service.events,
        "types": ["image/jpeg", "image/png", "image/webp"],
        "limits": {
            "photo_bytes": limits.photo_bytes, "pixels": limits.pixels, "photos": limits.photos,
            "requests_per_second": limits.rate,
        },
    }  # fmt: skip


def _read_request(limits: RequestLimits) -> dict[str, Any]:
    """OpenAPI of the two forms of POST /v1/read: FastAPI does not see them, since they are read as they arrive."""
    most = f"up to {limits.photos}, each up to {limits.photo_bytes / MIB:g} MiB"
    form = {
        "type": "object", "required": ["photos"], "additionalProperties": False,
        "properties": {
            "photos": {
                "type": "array", "minItems": 1, "maxItems": limits.photos, "description": f"jpeg, png or webp; {most}",
                "items": {"type": "string", "format": "binary"},
            },
            "faces": {"type": "string", "enum": list(schema.WHICH)},
        },
    }  # fmt: skip
    body = schema.ReadRequest.model_json_schema()
    definitions = body.pop("$defs")
    body["properties"]["photos"] |= {"items": definitions["PhotoIn"], "maxItems": limits.photos}
    sent = {"photos": [{"name": "a.jpg", "data": "/9j/4AAQSkZJRg..."}], "faces": "all"}
    content = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": body, "example": sent},
    }
    return {"requestBody": {"required": True, "content": content}}


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Alive", tags=["operation"], response_model=schema.Alive)
    async def healthz() -> dict[str, str]:
        """200 as long as the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", summary="Ready", tags=["operation"], response_model=schema.Ready,
             responses=_errors(schema.ErrorAnswer, 503))  # fmt: skip
    async def readyz() -> dict[str, str]:
        """200 once the model has answered, and until the service is ending."""
        if not service.open:
            raise busy(service.fault or "the service is ending", 5)
        return {"status": "ready"}

    numbers: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "exposition format"}
    }

    @app.get("/metrics", summary="Numbers", tags=["operation"], responses=numbers, response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """For Prometheus. Open, as the probes are: it has numbers, never a photo, a name or an address."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    @app.api_route("/docs/style.css", methods=["GET", "HEAD"], include_in_schema=False)
    async def style() -> Response:
        return FileResponse(CSS, media_type="text/css")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such address, wrong method) in the service's form."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "invalid")
    words = {"not_found": "nothing is at this address", "method_not_allowed": f"{request.method} is not taken here"}
    refusal = Refusal(code, words.get(code, f"{error.detail}"), status=error.status_code, headers=error.headers)
    return error_response(refusal, request.url.path, request.state.request_id)


async def _invalid(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong in a path or query, as one line without the value."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    status = 400 if is_below(request.url.path, "/v2") else None
    refusal = Refusal("invalid", f"{where}: {fault['msg']}", status=status)
    return error_response(refusal, request.url.path, request.state.request_id)


def _with_security(app: FastAPI, key: str | None) -> None:
    """Say in the OpenAPI which routes ask for the key."""
    if key is None:
        return
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        said = plain()
        said.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in said["paths"].items():
            if any(is_below(path, root) for root in CLOSED):
                for route in methods.values():
                    route["security"] = [{"key": []}]
        return said

    app.openapi = openapi  # type: ignore[method-assign]
