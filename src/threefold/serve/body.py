"""Bodies of requests, read into memory as they arrive and never beyond their limits.

Frameworks write uploads above a megabyte to temporary files, and look at sizes when everything has arrived. Here a
photo never touches a disk, and the first byte too many ends the request.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from threefold.errors import DataError, one_of
from threefold.read.reader import Which, check_which
from threefold.serve.limits import Hold, RequestLimits, too_large
from threefold.serve.refusal import Refusal
from threefold.serve.schema import ReadRequest

FIELDS = ("photos", "faces")
# A list of 16 photos needs 64 brackets and commas; JSON of nothing else takes thirty times its length when parsed.
MOST_BRACKETS = 10_000
NAME_LENGTH = 255
"""Letters of a photo's name that are used."""


@dataclass(frozen=True)
class Upload:
    """One photo as it was sent: its name, its bytes."""

    name: str
    data: bytes


async def read_body(request: Request, limits: RequestLimits, hold: Hold) -> tuple[list[Upload], Which | None]:
    """(photos, the value of `faces` or None) of a multipart or JSON body.

    Raises Refusal: unsupported_type, too_large, too_many, invalid, too_slow, overloaded.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        form = _Form(limits, options.get(b"boundary", b""))
        async for chunk in _chunks(request, limits.form_bytes, limits.patience, hold):
            form.write(chunk)
        return form.end()
    if kind == b"application/json":
        body = bytearray()
        async for chunk in _chunks(request, limits.json_bytes, limits.patience, hold):
            body += chunk
        return await asyncio.to_thread(_parse_json, body, limits)
    sent = kind.decode("latin-1") or "nothing"
    raise Refusal("unsupported_type", f"Content-Type: {sent}; expected multipart/form-data or application/json")


async def _chunks(request: Request, limit: int, patience: float, hold: Hold) -> AsyncIterator[bytes]:
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


class _Form:
    """A multipart body (RFC 7578), part by part into memory.

    python-multipart finds the parts; its own FormParser and Starlette's are not used, since they look at the size of a
    file only when all of it has arrived, and write it to a disk.
    """

    def __init__(self, limits: RequestLimits, boundary: bytes) -> None:
        if not boundary:
            raise Refusal("invalid", "Content-Type: multipart/form-data needs a boundary")
        self.limits = limits
        self.photos: list[Upload] = []
        self.faces: Which | None = None
        self.ended = False
        self.field = self.file_name = ""  # of the part that is read now
        self.data = bytearray()
        self.header_name = self.header_value = self.disposition = b""
        # the methods are named as the parser calls them
        callbacks: Any = {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}
        try:
            self.parser = MultipartParser(boundary, callbacks)
        except FormParserError:
            raise Refusal("invalid", "Content-Type: its boundary cannot be used") from None

    def write(self, chunk: bytes) -> None:
        """Raises Refusal at the byte that is wrong or too much."""
        try:
            self.parser.write(chunk)
        except FormParserError:
            raise Refusal("invalid", "body: not well-formed multipart/form-data") from None

    def end(self) -> tuple[list[Upload], Which | None]:
        """What was read; raises Refusal when the closing boundary or the photos are missing."""
        if not self.ended:
            raise Refusal("invalid", "body: multipart/form-data is cut off; its closing boundary is missing")
        if not self.photos:
            raise Refusal("invalid", "no photo: expected files in the field `photos`")
        return self.photos, self.faces

    def on_part_begin(self) -> None:
        self.data, self.disposition = bytearray(), b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def on_header_end(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            self.disposition = self.header_value
        self.header_name = self.header_value = b""

    def on_headers_finished(self) -> None:
        options = parse_options_header(self.disposition)[1]
        self.field = options.get(b"name", b"").decode("utf-8", "replace")
        if self.field not in FIELDS:
            field = self.field[:NAME_LENGTH]
            raise Refusal("invalid", f"form field {field!r} is not known ({one_of(FIELDS, field)})")
        if self.field == "photos" and len(self.photos) == self.limits.photos:
            raise Refusal("too_many", f"more than {self.limits.photos} photos in one request")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self.file_name = name[:NAME_LENGTH] or f"photo {len(self.photos) + 1}"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        size = len(self.data) + end - start
        if self.field == "photos" and size > self.limits.photo_bytes:
            raise too_large(self.file_name, self.limits.photo_bytes)
        if self.field == "faces" and size > NAME_LENGTH:
            raise Refusal("invalid", f"faces: expected one of {', '.join(get_args(Which))}")
        self.data += data[start:end]

    def on_part_end(self) -> None:
        if self.field == "photos":
            self.photos.append(Upload(self.file_name, bytes(self.data)))
        elif self.faces is not None:
            raise Refusal("invalid", "faces: given twice")
        else:
            try:
                self.faces = check_which(self.data.decode("utf-8", "replace"))
            except DataError as error:
                raise Refusal("invalid", str(error)) from None

    def on_end(self) -> None:
        self.ended = True


def _parse_json(body: bytearray, limits: RequestLimits) -> tuple[list[Upload], Which | None]:
    """(photos, the value of `faces`) of a `schema.ReadRequest`. Raises Refusal: too_large, too_many, invalid."""
    if sum(map(body.count, (b"[", b"{", b","))) > MOST_BRACKETS:
        message = f"body: JSON with more than {MOST_BRACKETS:,} brackets and commas is no list of photos"
        raise Refusal("invalid", message)
    try:
        request = ReadRequest.model_validate_json(body)
    except ValidationError as error:
        # `photos.0.data: Field required (and 2 more)`; the value is left out, since it may be a photo
        fault, *others = error.errors(include_url=False, include_input=False, include_context=False)
        where = ".".join(map(str, fault["loc"])) or "body"
        more = f" (and {len(others)} more)" if others else ""
        raise Refusal("invalid", f"{where}: {fault['msg']}{more}") from None
    if len(request.photos) > limits.photos:
        raise Refusal("too_many", f"more than {limits.photos} photos in one request")
    photos = []
    for number, photo in enumerate(request.photos):
        name = photo.name or f"photo {number + 1}"
        if len(photo.data) > limits.photo_bytes * 11 // 8 + 4:
            raise too_large(name, limits.photo_bytes)
        try:
            data = base64.b64decode("".join(photo.data.split()) if "\n" in photo.data else photo.data, validate=True)
        except ValueError:  # not ASCII, or not base64
            raise Refusal("invalid", f"photos.{number}.data: not base64 (RFC 4648)") from None
        if len(data) > limits.photo_bytes:
            raise too_large(name, limits.photo_bytes)
        photos.append(Upload(name, data))
    return photos, request.faces
