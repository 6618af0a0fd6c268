"""Events as JSON to an address, from a thread of their own: an address that hangs never holds up the entrance.

In order, and a second time only where the answer to the first was lost: what cannot be delivered after some attempts,
or does not fit into the queue, is lost for the address, counted and said. The events file is the record.
"""

import contextlib
import http.client
import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from threefold.errors import DataError
from threefold.watch.frames import OnFault, safe_address

TIMEOUT = 5.0
"""Seconds for one attempt."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further attempt."""
QUEUE = 256
"""Events that may wait."""
LINGER = 10.0
"""Seconds that `close` waits for the queue to empty."""
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class _Stay(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would become a GET elsewhere: that is no delivery."""

    def redirect_request(self, *_: Any) -> None:
        """Never."""


class Webhook:
    """POSTs rows to `address`. sent, failed: how many so far; fault: called when it begins to fail, and works again.

    send: for tests, instead of `post`; it raises OSError (again worth trying) or DataError (not).
    Raises DataError for an address that is neither http nor https.
    """

    def __init__(
        self,
        address: str,
        fault: OnFault,
        *,
        size: int = QUEUE,
        send: Callable[[str, bytes], object] | None = None,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        check_address(address)
        self.address, self.fault = address, fault
        self.sent = self.failed = 0
        self._send = send or post
        self._queue: queue.Queue[bytes | None] = queue.Queue(size)
        self._hurry = threading.Event()
        self._wait = wait or self._hurry.wait
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def add(self, row: Mapping[str, Any]) -> None:
        """Queue a row; returns at once."""
        try:
            self._queue.put_nowait(json.dumps(row, ensure_ascii=False).encode())
        except queue.Full:
            self._fail("more events than it takes")

    def close(self, timeout: float = LINGER) -> None:
        """Deliver what waits, each with one attempt, for `timeout` seconds at most; the rest counts as failed."""
        self._hurry.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout)
        while self._thread.is_alive() or not self._queue.empty():
            try:
                self.failed += self._queue.get_nowait() is not None
            except queue.Empty:
                break

    def _work(self) -> None:
        while not (self._hurry.is_set() and self._queue.empty()) and (body := self._queue.get()) is not None:
            if error := self._deliver(body):
                self._fail(error)
                continue
            self.sent += 1
            if self._failing:
                self._failing = False
                self.fault(f"webhook {safe_address(self.address)}: works again")

    def _deliver(self, body: bytes) -> str:
        """'' or why it could not be delivered."""
        reason = ""
        for pause in (0.0, *PAUSES):
            if pause and self._wait(pause):
                return reason
            try:
                self._send(self.address, body)
                return ""
            except DataError as error:
                return str(error)
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        return reason

    def _fail(self, reason: str) -> None:
        self.failed += 1
        if not self._failing:
            self._failing = True
            self.fault(f"webhook {safe_address(self.address)}: not delivered ({' '.join(reason.split())[:160]})")


def check_address(address: str) -> None:
    """Raises DataError in one line for what is no http or https address with a host."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise DataError(f"webhook {safe_address(address)}: expected an address like https://host/path")
    if parts.username or parts.password:
        raise DataError(f"webhook {safe_address(address)}: user and password in an address are not sent")


def post(address: str, body: bytes, timeout: float = TIMEOUT) -> None:
    """POST a JSON body; any 2xx is a delivery. Raises OSError (try again) or DataError (it was refused)."""
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "threefold"}
    request = urllib.request.Request(address, body, headers, method="POST")
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        raise (OSError if error.code in _AGAIN else DataError)(f"HTTP {error.code}") from None
