"""`Door`: what every request passes, as plain ASGI: its id, the key, the rate, security headers, errors, log, metrics.

The log has method, route, status and milliseconds: no address, no query, no name.
"""

import asyncio
import contextlib
import hmac
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from threefold.serve.limits import MIB, RateLimit
from threefold.serve.refusal import Refusal, error_response
from threefold.serve.work import LOG, Service

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
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
"""Sent with every answer: the page may load from and talk to its own origin alone, and nobody may frame it."""
QUIET = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds by machines: logged at level DEBUG."""
LINGER_BYTES, LINGER_SECONDS = 256 * MIB, 10.0
CLIENT_LEFT = 499
"""Status in log and metrics of a client that left before its answer."""


@dataclass
class _Visit:
    """One request on its way through the application."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    start: float
    needs_key: bool
    status: int = 0
    body_ended: bool = False

    async def receive_message(self) -> Message:
        """`receive`, remembering whether the body has ended."""
        message = await self.receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.body_ended = True
        return message

    async def send_message(self, message: Message) -> None:
        """`send`, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update({"X-Request-ID": self.id, **HEADERS})
            if self.needs_key:
                headers["Cache-Control"] = "no-store"
            if self.client_is_sending():
                headers["Connection"] = "close"
        elif not message.get("more_body", False) and self.client_is_sending():
            # An answer before the body has ended is sent at once, and the rest of the body is read and dropped for a
            # while: a connection that is closed with bytes on the way is reset, and the client would never see why
            # (RFC 9112, 9.6).
            await self.send({**message, "more_body": True})
            await self.drop_body()
            message = {**message, "body": b""}
        await self.send(message)

    def client_is_sending(self) -> bool:
        """Whether a body was announced that nobody has read to its end."""
        headers = Headers(scope=self.scope)
        announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        return announced and not self.body_ended and "expect" not in headers

    async def drop_body(self) -> None:
        """Read and drop what still arrives, for a while."""
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.body_ended and dropped < LINGER_BYTES:
                    dropped += len((await self.receive_message()).get("body", b""))


class Door:
    """The outermost ASGI layer. key: what `Authorization: Bearer` must have below /v1; None: nothing."""

    def __init__(self, app: ASGIApp, service: Service, key: str | None) -> None:
        self.app, self.service = app, service
        self.key = None if key is None else b"Bearer " + key.encode()
        self.rate = None if service.limits.rate is None else RateLimit(service.limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI; lifespan passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_id = REQUEST_ID.fullmatch(Headers(scope=scope).get("x-request-id", ""))
        request_id = sent_id[0] if sent_id else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        # all that reads photos or tells of readings needs the key; the page, probes and metrics are open
        needs_key = f"{scope['path']}/".startswith("/v1/")
        visit = _Visit(scope, receive, send, request_id, time.monotonic(), needs_key)
        try:
            await self._answer(visit)
        except (ClientDisconnect, ConnectionError):
            visit.status = CLIENT_LEFT
        finally:
            self._record(visit)

    async def _answer(self, visit: _Visit) -> None:
        try:
            if visit.needs_key:
                self._check(visit.scope)
            await self.app(visit.scope, visit.receive_message, visit.send_message)
            return
        except Refusal as error:
            refusal = error
        except (ClientDisconnect, ConnectionError):
            raise
        except Exception:
            LOG.exception("request %s failed", visit.id)
            if visit.status:  # its answer is on the way: it cannot be taken back, only cut off
                raise
            refusal = Refusal("internal", "a fault of the service; its log has more")
        await error_response(refusal, visit.id)(visit.scope, visit.receive_message, visit.send_message)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal: unauthorised, rate_limited."""
        authorization = Headers(scope=scope).get("authorization", "").encode("latin-1")
        if self.key is not None and not hmac.compare_digest(authorization, self.key):
            headers = {"WWW-Authenticate": 'Bearer realm="threefold"'}
            raise Refusal("unauthorised", "expected the header `Authorization: Bearer KEY`", headers=headers)
        if self.rate is not None and (wait := self.rate.wait((scope.get("client") or ("", 0))[0])):
            headers = {"Retry-After": f"{max(1, round(wait + 0.5))}"}
            raise Refusal("rate_limited", f"more than {self.rate.rate:g} requests a second", headers=headers)

    def _record(self, visit: _Visit) -> None:
        """One line of log, one observation."""
        seconds = time.monotonic() - visit.start
        scope, path = visit.scope, visit.scope["path"]
        # The route as it is written in the program: what a client puts into an address reaches no log and no metric.
        # A request that was refused before it came to its route is named by its path, where a route has exactly this.
        route = getattr(scope.get("route"), "path", None) or (
            path if path in scope["app"].openapi()["paths"] else "other"
        )
        status = visit.status or CLIENT_LEFT
        self.service.metrics.latency.labels(route, f"{status}").observe(seconds)
        level = logging.DEBUG if path in QUIET else logging.INFO
        LOG.log(level, "%s %s %d %.1f ms %s", scope["method"], route, status, seconds * 1000, visit.id)
