"""The forms of requests and answers, for OpenAPI, its examples, and for checking what comes in.

What a service does not say stands in none of them: with `--attributes mask` its OpenAPI has no word of gender or age.
"""

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from threefold.read.reader import Which
from threefold.read.reading import Reading, reading_model
from threefold.serve.limits import MIB, RequestLimits

ReadingT = TypeVar("ReadingT", bound=Reading)


class Form(BaseModel):
    """Unknown keys are refused: a misspelt one would be an option that does nothing."""

    model_config = ConfigDict(extra="forbid")


class PhotoIn(Form):
    """A photo in JSON."""

    name: str = Field("", max_length=255, description="how the answer calls it", examples=["a.jpg"])
    data: str = Field(description="the file (jpeg, png, webp) as base64, RFC 4648", examples=["/9j/4AAQSkZJRg..."])


class ReadRequest(Form):
    """Photos to read, as JSON."""

    photos: list[PhotoIn] = Field(min_length=1, description="1 to 16 photos")
    faces: Which | None = Field(
        None,
        description="every face, the largest, or the whole photo as one portrait; null: what the model was trained on",
    )


class Fault(Form):
    """What is wrong: a code for programs, a line for people."""

    code: str = Field(examples=["too_large"])
    message: str = Field(examples=["a.jpg: more than 10 MiB"])


class ErrorAnswer(Form):
    """Every error."""

    error: Fault
    request_id: str = Field(examples=["0d9c9c0e5c0f4d0e9d4a6f0c8e9b7a61"])


class ModelName(Form):
    """Which model answered."""

    name: str = Field(examples=["reader"])
    version: str = Field(examples=["0.1.0"])


class Alive(Form):
    """The process answers."""

    status: Literal["ok"]


class Ready(Form):
    """Whether requests are to be sent here."""

    status: Literal["ready"]


class PhotoAnswer(Form, Generic[ReadingT]):
    """A photo that was read."""

    name: str
    width: int = Field(ge=1, description="pixels, as it is shown")
    height: int = Field(ge=1, description="pixels, as it is shown")
    faces: list[ReadingT]


class PhotoRefused(Form):
    """A photo that was not read, among others that were."""

    name: str
    error: Fault


class ReadAnswer(Form, Generic[ReadingT]):
    """The answer to POST /v1/read."""

    request_id: str
    model: ModelName
    milliseconds: float = Field(ge=0, description="from the last byte of the body to the answer")
    photos: list[PhotoAnswer[ReadingT] | PhotoRefused]


def read_example(attributes: Sequence[str]) -> dict[str, Any]:
    """An answer to two photos, of which one could not be read."""
    model = reading_model(attributes)
    face = model(**model.model_json_schema()["examples"][0]).data()  # the schema's keys are sorted, a reading's are not
    return {
        "request_id": "0d9c9c0e5c0f4d0e9d4a6f0c8e9b7a61",
        "model": {"name": "reader", "version": "0.1.0"},
        "milliseconds": 31.4,
        "photos": [
            {"name": "a.jpg", "width": 1280, "height": 960, "faces": [face]},
            {"name": "b.jpg", "error": {"code": "unreadable", "message": "b.jpg: cut off or damaged"}},
        ],
    }


def read_request(limits: RequestLimits) -> dict[str, Any]:
    """OpenAPI of the two bodies of POST /v1/read: FastAPI does not see them, since they are read as they arrive."""
    body = ReadRequest.model_json_schema()
    photo = body.pop("$defs")["PhotoIn"]
    photos = body["properties"]["photos"] | {
        "maxItems": limits.photos,
        "description": f"jpeg, png or webp; up to {limits.photos}, each up to {limits.photo_bytes / MIB:g} MiB",
    }

    def with_items(items: dict[str, Any]) -> dict[str, Any]:
        return body | {"properties": body["properties"] | {"photos": photos | {"items": items}}}

    example = {"photos": [{"name": "a.jpg", "data": "/9j/4AAQSkZJRg..."}], "faces": "all"}
    content = {
        "multipart/form-data": {"schema": with_items({"type": "string", "format": "binary"})},
        "application/json": {"schema": with_items(photo), "example": example},
    }
    return {"requestBody": {"required": True, "content": content}}
