"""Drawn photos, apps of a fake backend, and ASGI by hand: what the tests of the service share."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import zlib

import numpy as np
from fake_backend import FakeBackend
from PIL import Image

from threefold.read.reader import Reader
from threefold.serve.app import create_app
from threefold.serve.limits import RequestLimits

LONG = 60.0
"""Seconds that no test waits for: who waits that long hangs."""

LEFT = "left"


def drawn(kind: str = "JPEG", value: int = 100, size: tuple[int, int] = (80, 60), **options: object) -> bytes:
    """A grey photo of width x height."""
    out = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(out, kind, **options)
    return out.getvalue()


def noise(side: int) -> bytes:
    """A PNG that cannot be compressed: 3 bytes a pixel."""
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG", compress_level=0)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A whole PNG of one colour: 1 bit a pixel, a thousandth of that as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def app_of(backend=None, info=None, limits=None, **options):
    """An app of a fake model; limits as keywords."""
    reader = Reader(backend or FakeBackend(), info=info or {})
    return create_app(reader, limits=RequestLimits(**(limits or {})), **options)


class Gate:
    """A fake backend that holds every call until it is let through."""

    def __init__(self) -> None:
        self.fake = FakeBackend()
        self.prepares = self.fake.prepares
        self.inside, self.through = threading.Semaphore(0), threading.Event()

    def __call__(self, photos):
        self.inside.release()
        assert self.through.wait(LONG)
        return self.fake(photos)


def form(*photos: bytes, faces: str | None = None, field: str = "photos", boundary: str = "xyz") -> tuple[bytes, dict]:
    """(body, headers) of a multipart request."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{n}.jpg"\r\n\r\n'.encode() + photo
        for n, photo in enumerate(photos)
    ]
    if faces is not None:
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="faces"\r\n\r\n{faces}'.encode())
    body = b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()])
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


class Answer:
    """What an app sent: status, headers, body; and how many messages of the request it had taken by then."""

    def __init__(self) -> None:
        self.status, self.headers, self.body, self.taken_at_start, self.taken, self.ended = 0, {}, b"", 0, 0, False

    @property
    def json(self):
        return json.loads(self.body)


async def call(app, chunks, *, path="/v1/read", method="POST", headers=None, client="127.0.0.1") -> Answer:
    """Call the ASGI app by hand with the body in `chunks` (any iterable).

    None in it: the client goes in the middle of its body; LEFT: after it.
    """
    answer, source = Answer(), iter(chunks)
    over = asyncio.Event()
    ahead = next(source, b"")

    async def receive():
        nonlocal ahead
        if ahead == "over":
            await over.wait()
            return {"type": "http.disconnect"}
        answer.taken += 1
        await asyncio.sleep(0)
        if ahead in (None, LEFT):
            return {"type": "http.disconnect"}
        now, ahead = ahead, next(source, "over")
        return {"type": "http.request", "body": now, "more_body": ahead not in ("over", LEFT)}

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status, answer.taken_at_start = message["status"], answer.taken
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.ended = not message.get("more_body", False)
            if answer.ended:
                over.set()

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    route, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": raw,
        "client": (client, 1),
        "server": ("test", 80),
    }
    async with asyncio.timeout(LONG):
        await app(scope, receive, send)
    return answer


def ask(app, body=b"", **options) -> Answer:
    """`call` with the body in one piece, in a loop of its own."""
    return asyncio.run(call(app, [body], **options))


def post(app, *photos, **options) -> Answer:
    """POST /v1/read of photos as a form."""
    faces = options.pop("faces", "none")
    body, headers = form(*photos, faces=faces)
    return ask(app, body, headers=headers | options.pop("headers", {}), **options)
