"""Bodies of requests, read into memory as they arrive and never beyond their limits.

Frameworks write uploads above a megabyte to temporary files, and look at sizes when everything has arrived. Here a
photo never touches a disk, and the first byte too many ends the request.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from threefold.errors import one_of
from threefold.serve.limits import Hold, RequestLimits, too_large
from threefold.serve.refusal import Refusal
from threefold.serve.schema import WHICH, ReadRequest

FIELDS = ("photos", "faces")
MARKS = 10_000
"""Brackets and commas of a JSON body with photos, at most: 16 photos need 64, and what is all brackets takes thirty
times its length when it is parsed."""
NAME = 255
"""Letters of a photo's name that are kept."""


@dataclass
class Upload:
    """One photo as it was sent: its name, its bytes."""

    name: str
    data: bytes | bytearray


async def chunks(request: Request, limit: int, patience: float, hold: Hold) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises Refusal: too_large at the header or byte too much, too_slow, overloaded."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large("body", limit)
    arrived = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal("too_slow", f"no byte of the body arrived for {patience:g} seconds") from None
        arrived += len(chunk)
        if arrived > limit:
            raise too_large("body", limit)
        hold.add(len(chunk))
        yield chunk


async def whole(request: Request, limit: int, patience: float, hold: Hold) -> bytes:
    """All of the body; raises as `chunks` does."""
    body = bytearray()
    async for chunk in chunks(request, limit, patience, hold):
        body += chunk
    return bytes(body)


async def read_body(request: Request, limits: RequestLimits, hold: Hold) -> tuple[list[Upload], str | None]:
    """(photos, which faces or None where it is not said) of a multipart or JSON body.

    Raises Refusal: unsupported_type, too_large, too_many, invalid, too_slow, overloaded.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        form = _Form(limits, options.get(b"boundary", b""))
        async for chunk in chunks(request, limits.form_bytes, limits.patience, hold):
            form.write(chunk)
        return form.end()
    if kind == b"application/json":
        body = await whole(request, limits.json_bytes, limits.patience, hold)
        return await asyncio.to_thread(parse_json, body, limits)
    said = kind.decode("latin-1") or "nothing"
    raise Refusal("unsupported_type", f"Content-Type: {said}; expected multipart/form-data or application/json")


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    file: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Form:
    """A multipart body (RFC 7578), part by part into memory."""

    def __init__(self, limits: RequestLimits, boundary: bytes) -> None:
        if not boundary:
            raise Refusal("invalid", "Content-Type: multipart/form-data needs a boundary")
        self.limits, self.faces, self.ended = limits, None, False  # type: tuple[RequestLimits, str | None, bool]
        self.photos: list[Upload] = []
        self.part = _Part()
        self.key, self.value = b"", b""
        try:
            self.parser = MultipartParser(boundary, {
                "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._value,
                "on_header_end": self._header, "on_headers_finished": self._named, "on_part_data": self._data,
                "on_part_end": self._end, "on_end": self._done,
            })  # fmt: skip
        except FormParserError:
            raise Refusal("invalid", "Content-Type: its boundary cannot be used") from None

    def write(self, chunk: bytes) -> None:
        """Raises Refusal at the byte that is wrong or too much."""
        try:
            self.parser.write(chunk)
        except FormParserError:
            raise Refusal("invalid", "body: not well-formed multipart/form-data") from None

    def end(self) -> tuple[list[Upload], str | None]:
        """What was read; raises Refusal when the closing boundary or the photos are missing."""
        if not self.ended:
            raise Refusal("invalid", "body: multipart/form-data is cut off; its closing boundary is missing")
        if not self.photos:
            raise Refusal("invalid", "no photo: expected files in the field `photos`")
        return self.photos, self.faces

    def _begin(self) -> None:
        self.part = _Part()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self.key += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _header(self) -> None:
        self.part.headers[self.key.lower()] = self.value
        self.key, self.value = b"", b""

    def _named(self) -> None:
        options = parse_options_header(self.part.headers.get(b"content-disposition"))[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in FIELDS:
            raise Refusal("invalid", f"form field {name[:NAME]!r} is not known ({one_of(FIELDS, name)})")
        if name == "photos" and len(self.photos) == self.limits.photos:
            raise Refusal("too_many", f"more than {self.limits.photos} photos in one request")
        number = len(self.photos) + 1
        self.part.name = name
        self.part.file = options.get(b"filename", b"").decode("utf-8", "replace")[:NAME] or f"photo {number}"

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self.part
        if part.name == "photos" and len(part.data) + end - start > self.limits.photo_bytes:
            raise too_large(part.file, self.limits.photo_bytes)
        if part.name == "faces" and len(part.data) + end - start > NAME:
            raise Refusal("invalid", f"faces: expected one of {', '.join(WHICH)}")
        part.data += data[start:end]

    def _end(self) -> None:
        if self.part.name == "photos":
            self.photos.append(Upload(self.part.file, self.part.data))
        elif self.faces is not None:
            raise Refusal("invalid", "faces: given twice")
        else:
            self.faces = self.part.data.decode("utf-8", "replace")

    def _done(self) -> None:
        self.ended = True


def parse_json(body: bytes, limits: RequestLimits) -> tuple[list[Upload], str | None]:
    """(photos, which faces) of a `schema.ReadRequest`. Raises Refusal: too_large, too_many, invalid."""
    if sum(map(body.count, (b"[", b"{", b","))) > MARKS:
        raise Refusal("invalid", f"body: JSON with more than {MARKS:,} brackets and commas is no list of photos")
    try:
        asked = ReadRequest.model_validate_json(body)
    except ValidationError as error:
        raise Refusal("invalid", first_fault(error)) from None
    if len(asked.photos) > limits.photos:
        raise Refusal("too_many", f"more than {limits.photos} photos in one request")
    photos = []
    for number, photo in enumerate(asked.photos):
        name, text = photo.name or f"photo {number + 1}", photo.data
        if not text.isascii():
            raise Refusal("invalid", f"photos.{number}.data: not base64 (RFC 4648)")
        if len(text) > limits.photo_bytes * 11 // 8 + 4:
            raise too_large(name, limits.photo_bytes)
        try:
            data = base64.b64decode("".join(text.split()) if "\n" in text else text, validate=True)
        except binascii.Error:
            raise Refusal("invalid", f"photos.{number}.data: not base64 (RFC 4648)") from None
        if len(data) > limits.photo_bytes:
            raise too_large(name, limits.photo_bytes)
        photos.append(Upload(name, data))
    return photos, asked.faces


def first_fault(error: ValidationError) -> str:
    """`photos.0.data: Field required (and 2 more)`: the value itself is not said again, it may be a photo."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    where = ".".join(str(part) for part in faults[0]["loc"]) or "body"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {faults[0]['msg']}{more}"
