"""The forms of requests and answers, for OpenAPI, its examples, and for checking what comes in.

Answers are built by `infer.answers` and sent as they are; the models here describe them, and tests compare the two.
What a service does not say stands in none of them: with `--attributes mask` its OpenAPI has no word of gender or age.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from threefold import labels
from threefold.read.reader import INDETERMINATE
from threefold.serve.limits import MIB, RequestLimits

WHICH = ("all", "largest", "none")
Which = Literal["all", "largest", "none"]
QUALITIES = ("ok", "small", "blurred")
_SMALL = "/9j/4AAQSkZJRg...base64 of the whole file"


class Form(BaseModel):
    """Unknown keys are refused: a misspelt one would be an option that does nothing."""

    model_config = ConfigDict(extra="forbid")


class PhotoIn(Form):
    """A photo in JSON."""

    name: str = Field("", max_length=255, description="how the answer calls it", examples=["a.jpg"])
    data: str = Field(description="the file (jpeg, png, webp) as base64, RFC 4648", examples=[_SMALL])


class ReadRequest(Form):
    """Photos to read, as JSON."""

    photos: list[PhotoIn] = Field(min_length=1, description="1 to 16 photos")
    faces: Which | None = Field(
        None, description="every face, the largest, or the whole photo as one portrait; null: the model's own way"
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


def attribute_examples(attributes: Sequence[str]) -> dict[str, Any]:
    """One answer about one face, as `infer.answers.answer` gives it for these attributes."""
    said = {"mask": "incorrect", "gender": "male", "age_group": "30-59"}
    sure = {"mask": 0.91, "gender": 0.97, "age_group": 0.92}
    rest = {
        "mask": {"worn": 0.06, "incorrect": 0.91, "none": 0.03},
        "gender": {"male": 0.97, "female": 0.03},
        "age_group": {"<30": 0.05, "30-59": 0.92, ">=60": 0.03},
    }
    whole = len(attributes) == len(labels.ATTRIBUTES)
    face: dict[str, Any] = {"face": 0, "box": [412.0, 188.5, 560.0, 371.0], "score": 0.93, "quality": "ok"}
    if whole:
        face["class"] = 7
    face |= {name: said[name] for name in attributes}
    if "age_group" in attributes:
        face["age"] = 41.2
    confidence = 1.0
    for name in attributes:
        confidence *= sure[name]
    face["confidence"] = round(confidence, 4)
    face["confidences"] = {name: sure[name] for name in attributes}
    face["probabilities"] = {name: rest[name] for name in attributes}
    if whole:
        cube = [m * g * a for m in rest["mask"].values() for g in rest["gender"].values()
                for a in rest["age_group"].values()]  # fmt: skip
        face["probabilities"]["classes"] = [round(share, 4) for share in cube]
    return face


def face_model(attributes: Sequence[str]) -> type[BaseModel]:
    """The model of one face's answer when these attributes are served."""
    share = (float, Field(ge=0, le=1))
    sure: dict[str, Any] = dict.fromkeys(attributes, share)
    words = {name: (Literal[(*labels.NAMES[name], INDETERMINATE)], ...) for name in attributes}
    shares: dict[str, Any] = {name: (_shares(name), ...) for name in attributes}
    whole = len(attributes) == len(labels.ATTRIBUTES)
    if whole:
        count = labels.CLASSES
        shares["classes"] = (list[float], Field(min_length=count, max_length=count))
    parts: dict[str, Any] = {
        "face": (int, Field(ge=0, description="number in the photo; 0 is the largest")),
        "box": (list[float] | None, Field(description="left, top, right, bottom in pixels; null: the whole photo")),
        "score": (float | None, Field(ge=0, le=1, description="the face detector's; null without one")),
        "quality": (Literal[QUALITIES], Field(description="not ok: indeterminate, since it could only be guessed")),
        **({"code": (int, Field(alias="class", ge=0, lt=labels.CLASSES))} if whole else {}),
        **words,
        **(
            {"age": (float | None, Field(description="years, where the model has them"))}
            if "age_group" in words
            else {}
        ),
        "confidence": share,
        "confidences": (create_model("Confidences", __base__=Form, **sure), ...),
        "probabilities": (create_model("Probabilities", __base__=Form, **shares), ...),
    }
    config = ConfigDict(extra="forbid", json_schema_extra={"examples": [attribute_examples(attributes)]})
    model: type[BaseModel] = create_model("FaceAnswer", __config__=config, **parts)
    return model


def _shares(attribute: str) -> type[BaseModel]:
    """{word: 0..1} over the values of one attribute."""
    values: dict[str, Any] = {
        f"value{n}": (float, Field(ge=0, le=1, alias=word)) for n, word in enumerate(labels.NAMES[attribute])
    }
    return create_model(f"Shares{attribute.title().replace('_', '')}", __base__=Form, **values)


def read_model(attributes: Sequence[str]) -> type[BaseModel]:
    """The model of the answer to POST /v1/read."""
    face = face_model(attributes)
    side = (int, Field(ge=1, description="pixels, as it is shown"))
    read: dict[str, Any] = {"name": (str, ...), "width": side, "height": side, "faces": (list[face], ...)}  # type: ignore[valid-type]
    good = create_model("PhotoAnswer", __base__=Form, **read)
    bad = create_model("PhotoRefused", __base__=Form, name=(str, ...), error=(Fault, ...))
    model: type[BaseModel] = create_model(
        "ReadAnswer", __base__=Form, request_id=(str, ...), model=(ModelName, ...),
        milliseconds=(float, Field(ge=0, description="from the last byte of the body to the answer")),
        photos=(list[good | bad], ...),
    )  # fmt: skip
    return model


def read_example(attributes: Sequence[str]) -> dict[str, Any]:
    """An answer to two photos, of which one could not be read."""
    return {
        "request_id": "0d9c9c0e5c0f4d0e9d4a6f0c8e9b7a61", "model": {"name": "reader", "version": "0.1.0"},
        "milliseconds": 31.4,
        "photos": [
            {"name": "a.jpg", "width": 1280, "height": 960, "faces": [attribute_examples(attributes)]},
            {"name": "b.jpg", "error": {"code": "unreadable", "message": "b.jpg: cut off or damaged"}},
        ],
    }  # fmt: skip


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
