"""`Door`: what every request passes, as plain ASGI: its id, the key, the rate, security headers, errors, log, metrics.

The log has method, route, status and milliseconds: no address, no query, no name. A refusal that is said while the
body still arrives is sent at once, and the rest of the body is read and dropped for a while: a connection that is
closed with bytes on the way is reset, and the client would never see why (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threefold.serve.limits import MIB, RateLimit
from threefold.serve.refusal import Refusal, error_response, is_below
from threefold.serve.work import Service

LOG = logging.getLogger("threefold.serve")
ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every answer: the page may load and talk to its own origin alone, and nobody may frame it."""
CLOSED = ("/v1", "/v2")
"""What the bearer key is asked for: all that reads photos or tells of readings. The page, probes, metrics are open."""
QUIET = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
LINGER_BYTES, LINGER_SECONDS = 256 * MIB, 10.0
GONE = 499
"""Status in log and metrics of a client that left before its answer."""


@dataclass
class _Visit:
    """One request on its way."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    began: float
    status: int = 0
    read: bool = False
    ended: bool = False

    async def take(self) -> Message:
        """`receive`, remembering whether the body has ended."""
        message = await self.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.read = True
        return message

    async def put(self, message: Message) -> None:
        """`send`, with the headers of the house; the end of an early answer waits for what the client still sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            for name, value in HEADERS.items():
                headers[name] = value
            if any(is_below(self.scope["path"], root) for root in CLOSED):
                headers["Cache-Control"] = "no-store"
            if self.sending():
                headers["Connection"] = "close"
        elif not message.get("more_body", False):
            if self.sending():
                await self.send({**message, "more_body": True})
                await self.linger()
                message = {**message, "body": b""}
            self.ended = True
        await self.send(message)

    def sending(self) -> bool:
        """Whether the client is still sending a body that nobody has read to its end."""
        headers = Headers(scope=self.scope)
        announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        return announced and not self.read and "expect" not in headers

    async def linger(self) -> None:
        """Read and drop what still arrives, for a while."""
        dropped = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.read and dropped < LINGER_BYTES:
                    dropped += len((await self.take()).get("body", b""))
        except TimeoutError:
            return


class Door:
    """The outermost ASGI layer. key: what `Authorization: Bearer` must say below CLOSED; None: nothing."""

    def __init__(
        self, app: ASGIApp, service: Service, key: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app, self.service, self.clock = app, service, clock
        self.key = None if key is None else b"Bearer " + key.encode()
        rate = service.limits.rate
        self.rate = None if rate is None else RateLimit(rate, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI; lifespan passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        visit = _Visit(scope, receive, send, given if ID.fullmatch(given) else uuid.uuid4().hex, self.clock())
        scope.setdefault("state", {})["request_id"] = visit.id
        try:
            await self._pass(visit)
        except (ClientDisconnect, ConnectionError):
            visit.status = GONE
        finally:
            self._note(visit)

    async def _pass(self, visit: _Visit) -> None:
        try:
            self._check(visit.scope)
            await self.app(visit.scope, visit.take, visit.put)
        except Refusal as refusal:
            await self._refuse(visit, refusal)
        except (ClientDisconnect, ConnectionError):
            raise
        except Exception:
            LOG.exception("request %s failed", visit.id)
            if visit.status:  # its answer is on the way: it cannot be taken back, only cut off
                raise
            await self._refuse(visit, Refusal("internal", "a fault of the service; its log has more"))

    async def _refuse(self, visit: _Visit, refusal: Refusal) -> None:
        await error_response(refusal, visit.scope["path"], visit.id)(visit.scope, visit.take, visit.put)

    def _check(self, scope: Scope) -> None:
        if not any(is_below(scope["path"], root) for root in CLOSED):
            return
        if self.key is not None:
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self.key):
                headers = {"WWW-Authenticate": 'Bearer realm="threefold"'}
                raise Refusal("unauthorised", "expected the header `Authorization: Bearer KEY`", headers=headers)
        if self.rate is not None and scope["path"] not in QUIET:
            client = (scope.get("client") or ("", 0))[0]
            if wait := self.rate.wait(client):
                headers = {"Retry-After": f"{max(1, round(wait + 0.5))}"}
                raise Refusal("rate_limited", f"more than {self.rate.rate:g} requests a second", headers=headers)

    def _note(self, visit: _Visit) -> None:
        seconds = self.clock() - visit.began
        route = _route(visit.scope)
        status = visit.status or GONE
        self.service.metrics.latency.labels(route, f"{status}").observe(seconds)
        level = logging.DEBUG if visit.scope["path"] in QUIET else logging.INFO
        LOG.log(level, "%s %s %d %.1f ms %s", visit.scope["method"], route, status, seconds * 1000, visit.id)


def _route(scope: Scope) -> str:
    """The route as it is written in the program: what a client puts into an address reaches no log and no metric.

    A request that was refused before it was led to its route is told by its path, where that is one without parameters.
    """
    taken = getattr(scope.get("route"), "path", None)
    if taken:
        return str(taken)
    written = {getattr(route, "path", "") for route in getattr(scope.get("app"), "routes", ())}
    return scope["path"] if scope["path"] in written else "other"
