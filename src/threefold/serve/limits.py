"""What a request may cost, and how much of it the service holds at once.

Three things can run out: photos in work are counted (`Load.admit`), bytes of bodies are counted as they arrive
(`Hold`), memory of photos being decoded is waited for (`Budget`). All of these are used by the event loop's thread
alone and need no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from threefold.errors import RecipeError
from threefold.serve.refusal import Refusal, busy

MIB = 1 << 20


@dataclass(frozen=True)
class RequestLimits:
    """What one request may hold, and all of them together.

    photo_bytes: of one photo's file. pixels: width x height of one photo. photos: of one request. queue: photos in work
    or waiting, over all requests. held_bytes: bodies in memory, over all requests. decoded_bytes: memory of photos
    being decoded at once. rate: requests per second of one client, None for any number. patience: seconds that a body
    may stand still. Raises RecipeError naming a limit below 1 (rate, patience: at 0 or below).
    """

    photo_bytes: int = 10 * MIB
    pixels: int = 40_000_000
    photos: int = 16
    queue: int = 256
    held_bytes: int = 512 * MIB
    decoded_bytes: int = 1024 * MIB
    rate: float | None = None
    patience: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            fraction = name in ("rate", "patience")
            if value is not None and not (value > 0 if fraction else value >= 1):
                raise RecipeError(f"{name}: {value}; expected {'more than 0' if fraction else '1 or more'}")

    @property
    def form_bytes(self) -> int:
        """Of a multipart body: the photos, and 16 KiB around each for its headers and the boundary."""
        return self.photos * (self.photo_bytes + (1 << 14)) + (1 << 14)

    @property
    def json_bytes(self) -> int:
        """Of a JSON body: base64 is a third longer, or 37 % with the line breaks that some programs write."""
        return self.photos * (self.photo_bytes * 11 // 8 + (1 << 12)) + (1 << 12)


class RateLimit:
    """A token bucket for each client: `rate` requests a second on average, and up to twice as many at once.

    A client is an IPv4 address or an IPv6 /64, which is what one household or host is given. The `CLIENTS` that asked
    last are remembered, so that a flood of addresses costs no memory.
    """

    CLIENTS = 10_000

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, max(1.0, 2 * rate), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Seconds until `client` may ask again; 0 when it may now, and then this request is counted."""
        with contextlib.suppress(ValueError):  # not an address: a unix socket, or a test
            if ipaddress.ip_address(client).version == 6:
                client = str(ipaddress.ip_network((client, 64), strict=False))
        now = self.clock()
        tokens, last = self._buckets.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - last) * self.rate)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - allowed, now)
        while len(self._buckets) > self.CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self.rate


class Load:
    """What the service holds now: `photos` in work or waiting, `bytes` of bodies; and whether it is `draining`."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.photos = self.bytes = 0
        self.draining = False

    def check(self, photos: int = 1) -> None:
        """Raise the 503 of a service that cannot work on `photos` more. A request that comes while there is no other
        one is taken whatever its size."""
        if self.draining:
            raise busy("the service is ending; ask another one", 5)
        if self.photos and self.photos + photos > self.limits.queue:
            raise busy(f"{self.photos} photos are waiting already; ask again")

    @contextlib.contextmanager
    def admit(self, photos: int) -> Iterator[None]:
        """Count `photos` while they are worked on; raises as `check`."""
        self.check(photos)
        self.photos += photos
        try:
            yield
        finally:
            self.photos -= photos


class Hold:
    """The bytes of one request's body, counted in a Load from their arrival to the answer."""

    def __init__(self, load: Load) -> None:
        self.load, self.bytes = load, 0

    def add(self, count: int) -> None:
        """Raise the 503 when all bodies together are beyond their limit."""
        if self.load.bytes + count > self.load.limits.held_bytes:
            raise busy("too many large requests at once; ask again")
        self.load.bytes += count
        self.bytes += count

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.load.bytes -= self.bytes


class Budget:
    """So many bytes, taken and given back in the order of asking, so that small photos never pass a large one.

    Of one event loop. An amount beyond the total waits until it is alone.
    """

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._turn, self._given_back = asyncio.Lock(), asyncio.Event()

    async def take(self, amount: int) -> int:
        """Wait for `amount`; returns how much was taken, to be given back."""
        amount = min(amount, self.total)
        async with self._turn:
            while self.free < amount:
                self._given_back.clear()
                await self._given_back.wait()
            self.free -= amount
        return amount

    def give(self, amount: int) -> None:
        """Give back what `take` returned."""
        self.free += amount
        self._given_back.set()


def too_large(what: str, limit: int) -> Refusal:
    """The 413 of something with more bytes than `limit`."""
    size = f"{limit / MIB:g} MiB" if limit >= MIB else f"{limit:,} bytes"
    return Refusal("too_large", f"{what}: more than {size}")
