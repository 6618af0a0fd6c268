"""`create_app`: the whole service as one ASGI app.

    POST /v1/read       photos -> faces with their readings        GET /healthz   the process answers
    GET  /v1/model      what is read, by what, up to which limits  GET /readyz    requests are taken
    GET  /, /static/*   the page                                   GET /metrics   Prometheus
                                                                   GET /openapi.json

Nothing is written to a disk and no photo, name or address is logged. Only what is in `attributes` is read out, counted
and documented.
"""

import asyncio
import contextlib
import importlib.metadata
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from threefold import labels
from threefold.read.reader import Reader, Which
from threefold.read.reading import reading_model
from threefold.serve import schema
from threefold.serve.body import read_body
from threefold.serve.door import Door
from threefold.serve.limits import Hold, RequestLimits
from threefold.serve.refusal import CODES, Refusal, busy, error_response
from threefold.serve.work import Service, while_connected

STATIC = Path(__file__).with_name("static")
# Enough threads for full batches. How much they decode at once is bounded by memory, not by their number.
WORKERS = 16


def create_app(
    reader: Reader,
    *,
    attributes: Iterable[str] = tuple(labels.ATTRIBUTES),
    key: str | None = None,
    limits: RequestLimits | None = None,
    monitor: APIRouter | None = None,
    cors: Sequence[str] = (),
    workers: int = WORKERS,
) -> FastAPI:
    """The service of `reader`; for micro-batching its backend is a `BatchingBackend`.

    attributes: what is read out; the others are nowhere. key: bearer key of /v1. limits: what requests may cost.
    monitor: more routes (`watch.monitor`). cors: origins whose pages may ask. workers: threads. When the model cannot
    answer at all the service stays unready, and `app.state.service.error` says why. Raises DataError for an unknown
    attribute.
    """
    service = Service(reader, tuple(attributes), limits or RequestLimits(), workers)
    service.events = monitor is not None
    app = FastAPI(
        title="threefold",
        version=importlib.metadata.version("threefold"),
        description=_description(service.attributes, key),
        # FastAPI's pages load their scripts from another host, which the security headers forbid
        docs_url=None,
        redoc_url=None,
        lifespan=partial(_lifespan, service),
    )
    app.state.service = service
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    # for the OpenAPI alone: the key itself is checked by Door, before anything else
    secured = [] if key is None else [Depends(HTTPBearer(scheme_name="key", auto_error=False))]
    app.include_router(_readings(service), dependencies=secured)
    app.include_router(_probes(service))
    if monitor is not None:
        app.include_router(monitor, dependencies=secured)
    app.add_api_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Door, service=service, key=key)
    if cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors),
            allow_methods=["GET", "POST"],
            max_age=600,
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return app


def _description(attributes: Sequence[str], key: str | None) -> str:
    words = ", ".join(attributes).replace("_", " ")
    secured = "/v1 asks for the header `Authorization: Bearer KEY`. " if key else ""
    return (
        f"Reads {words} from photos of faces. A reading is about one photo; it never says who somebody is, and it is "
        f"not valid for people under 18.\n\n{secured}Photos are kept in memory while they are read, and nowhere else. "
        "Every answer has an X-Request-ID: the one that was sent, where it has 1 to 128 letters, digits, dots, dashes "
        "or underscores."
    )


@contextlib.asynccontextmanager
async def _lifespan(service: Service, app: FastAPI) -> AsyncIterator[None]:
    """The model warms up beside the first requests; at the end, requests in work are finished."""
    service.start()
    warming = asyncio.create_task(service.warm())
    try:
        yield
    finally:
        service.load.draining = True
        await warming
        await asyncio.to_thread(service.close)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route for the OpenAPI, described by the table of codes."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        meanings = [f"{code}: {meaning}" for code, (usual, meaning) in CODES.items() if usual == status]
        responses[status] = {"model": schema.ErrorAnswer, "description": "; ".join(meanings)}
    return responses


def _readings(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["readings"])
    example = {"application/json": {"example": schema.read_example(service.attributes)}}
    success: dict[int | str, dict[str, Any]] = {
        200: {"model": schema.ReadAnswer[reading_model(service.attributes)], "content": example}  # type: ignore[misc]
    }

    @router.post(
        "/read",
        summary="Read photos",
        responses=success | _errors(401, 408, 413, 415, 422, 429, 500, 503),
        response_model=None,
        openapi_extra=schema.read_request(service.limits),
    )
    async def read(request: Request, faces: Which | None = None) -> Response:
        """Jpeg, png or webp, by content. `faces`: all, largest, or none for photos that are portraits already; without
        it what the model was trained on. A form or JSON body may have `faces` too, and then that one counts. The answer
        has the photos in their order, the faces of each by size. Of several photos those that cannot be read have an
        error in their place.

        curl -F photos=@a.jpg -F photos=@b.jpg -F faces=all http://127.0.0.1:8000/v1/read
        """
        service.load.check()
        with Hold(service.load) as hold:
            photos, body_faces = await read_body(request, service.limits, hold)
            which = faces if body_faces is None else body_faces
            start = time.perf_counter()
            answers = await while_connected(request, service.read(photos, which))
        milliseconds = round((time.perf_counter() - start) * 1000, 1)
        content = {"request_id": request.state.request_id, "model": service.model}
        return JSONResponse(content | {"milliseconds": milliseconds, "photos": answers})

    @router.get("/model", summary="The model", responses=_errors(401, 429))
    async def model() -> dict[str, Any]:
        """What is read, by which model, up to which limits."""
        return _model(service)

    return router


def _model(service: Service) -> dict[str, Any]:
    info: Mapping[str, Any] = service.reader.info
    # `data` tells what the model could read, so only where everything is served; and of an exported model alone, since
    # that of a run has paths of the machine that trained it
    with_data = "licence" in info and len(service.attributes) == len(labels.ATTRIBUTES)
    keys = ("created", "precision", "licence", *(["data"] if with_data else []))
    limits = service.limits
    return {
        **service.model,
        **{name: info[name] for name in keys if name in info},
        "attributes": list(service.attributes),
        "labels": {name: list(labels.NAMES[name]) for name in service.attributes},
        "faces": list(get_args(Which)),
        "events": service.events,
        "types": ["image/jpeg", "image/png", "image/webp"],
        "limits": {name: getattr(limits, name) for name in ("photo_bytes", "pixels", "photos")}
        | {"requests_per_second": limits.rate},
    }


def _probes(service: Service) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Alive", response_model=schema.Alive)
    async def healthz() -> dict[str, str]:
        """200 as long as the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", summary="Ready", response_model=schema.Ready, responses=_errors(503))
    async def readyz() -> dict[str, str]:
        """200 once the model has answered, and until the service is ending."""
        if not service.open:
            reason = "the service is ending" if service.ready else "the model has not answered yet"
            raise busy(str(service.error or reason), 5)
        return {"status": "ready"}

    exposition: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "exposition format"}
    }

    @router.get("/metrics", summary="Numbers", responses=exposition, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus. Open, as the probes are: it has numbers, never a photo, a name or an address."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _page() -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such address, wrong method) in the service's form."""
    assert isinstance(error, HTTPException)
    code, message = {
        404: ("not_found", "nothing is at this address"),
        405: ("method_not_allowed", f"{request.method} is not taken here"),
    }.get(error.status_code, ("invalid", f"{error.detail}"))
    refusal = Refusal(code, message, status=error.status_code, headers=error.headers)
    return error_response(refusal, request.state.request_id)


async def _validation_error(request: Request, error: Exception) -> Response:
    """What FastAPI finds wrong in a path or query, as one line without the value."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    where = ".".join(map(str, fault["loc"]))
    return error_response(Refusal("invalid", f"{where}: {fault['msg']}"), request.state.request_id)
