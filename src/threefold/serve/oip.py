"""The Open Inference Protocol, version 2 (KServe's "V2 dataplane"): the model itself, for those who crop by themselves.

Prepared crops in, probabilities as the network gives them out: no detector, no decision, no calibration; what
`threefold export` describes. Tensors as JSON, flat or nested, or with the binary extension (a JSON header, then raw
little-endian bytes; its length in `Inference-Header-Content-Length`): a crop of 128 x 128 is 49 kB instead of 180.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, Response

from threefold import labels
from threefold.errors import one_of
from threefold.read.onnx import PROBABILITIES, YEARS, input_names
from threefold.serve.batching import Overloaded
from threefold.serve.body import first_fault, whole
from threefold.serve.limits import Hold
from threefold.serve.refusal import Refusal, busy
from threefold.serve.work import Service, while_there

HEADER = "inference-header-content-length"
JSON_SHARE, JSON_MEMORY = 4, 12
"""JSON bodies may be this part of a binary one, since their numbers take this many times their text."""
Name = Annotated[str, Path(description="name of the model, as GET /v1/model has it", max_length=255)]


class Tensor(BaseModel):
    """An input: UINT8 [B, H, W, 3]."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(examples=["photos"])
    shape: list[Annotated[int, Field(ge=0)]] = Field(max_length=8, examples=[[1, 128, 128, 3]])
    datatype: str = Field(examples=["UINT8"])
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = Field(None, description="numbers 0..255, flat or nested; not with binary_data_size")


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(examples=["probabilities"])
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """Prepared crops."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = Field(None, max_length=255)
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[Tensor] = Field(min_length=1, max_length=16)
    outputs: list[Wanted] | None = Field(None, max_length=16)


class TensorSpec(BaseModel):
    """Name, type and shape of an input or output; -1 is the batch."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(BaseModel):
    """The server."""

    name: str = Field(examples=["threefold"])
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """The model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class OutputTensor(BaseModel):
    """An output; `data` is flat."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[float] | None = None


class InferAnswer(BaseModel):
    """What the model says, in the order of the crops."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class State(BaseModel):
    """live or ready."""

    model_config = ConfigDict(extra="forbid")
    live: bool | None = None
    ready: bool | None = None
    name: str | None = None


@dataclass(frozen=True)
class Asked:
    """A checked request: one batch per input, the outputs wanted, and which of them as raw bytes."""

    id: str | None
    photos: tuple[NDArray[np.uint8], ...]
    outputs: tuple[str, ...]
    binary: frozenset[str]


def bad(message: str, code: str = "invalid") -> Refusal:
    """A refusal with the protocol's 400."""
    return Refusal(code, message, status=400)


class Protocol:
    """What the model of a service takes and gives, in the protocol's words."""

    def __init__(self, service: Service) -> None:
        self.service = service
        prepares = service.reader.backend.prepares
        sizes = [list(prepare.size) for prepare in prepares]
        self.inputs = {name: [-1, *size, 3] for name, size in zip(input_names(len(sizes)), sizes, strict=True)}

    async def outputs(self) -> dict[str, list[int]]:
        """Name -> shape. Of a service that does not serve everything: one per attribute that it serves."""
        attributes = self.service.attributes
        whole_class = len(attributes) == len(labels.ATTRIBUTES)
        served = (
            {PROBABILITIES: [-1, labels.CLASSES]}
            if whole_class
            else {name: [-1, labels.SIZES[name]] for name in attributes}
        )
        return served | ({YEARS: [-1]} if "age_group" in attributes and await self.service.years() else {})

    def check_name(self, name: str) -> None:
        """Raise the 404 of another model's name."""
        known = self.service.model["name"]
        if name != known:
            raise Refusal("not_found", f"model {name[:255]!r} is not known ({one_of([known], name)})")

    async def metadata(self) -> dict[str, Any]:
        """`ModelMetadata`."""
        told = self.service.model
        outputs = await self.outputs()
        return {
            "name": told["name"], "versions": [told["version"]], "platform": "threefold",
            "inputs": [{"name": n, "datatype": "UINT8", "shape": s} for n, s in self.inputs.items()],
            "outputs": [{"name": n, "datatype": "FP32", "shape": s} for n, s in outputs.items()],
        }  # fmt: skip

    def answer(self, asked: Asked) -> dict[str, NDArray[np.float32]]:
        """The outputs that were asked for, in their order. In a thread."""
        try:
            joint, years = self.service.reader.backend(asked.photos)
        except Overloaded as error:
            raise busy(str(error)) from None
        margins = labels.marginals(joint)
        found = {PROBABILITIES: joint, **margins, **({} if years is None else {YEARS: years})}
        return {name: np.ascontiguousarray(found[name], dtype="<f4") for name in asked.outputs}

    def parse(self, body: bytes, header: int | None, outputs: dict[str, list[int]]) -> Asked:
        """Bytes of a body -> Asked; raises Refusal. In a thread."""
        end = len(body) if header is None else header
        if end > len(body):
            raise bad(f"{HEADER}: {end}, but the body has {len(body)} bytes")
        if end > self.service.limits.tensor_bytes // JSON_SHARE:
            raise Refusal("too_large", "body: too much JSON; send tensors with the binary extension")
        try:
            request = InferRequest.model_validate_json(body[:end])
        except ValidationError as error:
            raise bad(first_fault(error)) from None
        wanted, binary = self._wanted(request, outputs)
        given = {tensor.name: tensor for tensor in request.inputs}
        for name in given:
            if name not in self.inputs:
                raise bad(f"input {name[:255]!r} is not known ({one_of(self.inputs, name)})")
        raw = memoryview(body)[end:]
        arrays: dict[str, NDArray[np.uint8]] = {}
        for tensor in request.inputs:
            if tensor.name in arrays:
                raise bad(f"inputs.{tensor.name}: given twice")
            arrays[tensor.name], raw = self._tensor(tensor, raw)
        if len(raw):
            raise bad(f"body: {len(raw):,} bytes more than its inputs have")
        if missing := [name for name in self.inputs if name not in arrays]:
            raise bad(f"inputs.{missing[0]}: is missing")
        photos = tuple(arrays[name] for name in self.inputs)
        if len({len(batch) for batch in photos}) != 1:
            raise bad("inputs: differ in their number of crops")
        return Asked(request.id, photos, wanted, binary)

    def _wanted(self, request: InferRequest, outputs: dict[str, list[int]]) -> tuple[tuple[str, ...], frozenset[str]]:
        everything = request.parameters.get("binary_data_output", False)
        asked = request.outputs or [Wanted(name=name) for name in outputs]
        for output in asked:
            if output.name not in outputs:
                raise bad(f"output {output.name[:255]!r} is not known ({one_of(outputs, output.name)})")
        binary = {output.name for output in asked if output.parameters.get("binary_data", everything) is True}
        return tuple(dict.fromkeys(output.name for output in asked)), frozenset(binary)

    def _tensor(self, tensor: Tensor, raw: memoryview) -> tuple[NDArray[np.uint8], memoryview]:
        """One input as an array, and the raw bytes that are left for the next one."""
        where, expected = f"inputs.{tensor.name}", self.inputs[tensor.name]
        if tensor.datatype != "UINT8":
            raise bad(f"{where}: datatype {tensor.datatype[:32]!r}; expected UINT8")
        if tensor.shape[1:] != expected[1:] or not tensor.shape[0]:
            raise bad(
                f"{where}: shape {tensor.shape}; expected {['B', *expected[1:]]} with B from 1 on".replace("'", "")
            )
        if tensor.shape[0] > self.service.limits.crops:
            raise Refusal("too_many", f"{where}: {tensor.shape[0]} crops; at most {self.service.limits.crops}")
        count = math.prod(tensor.shape)
        size = tensor.parameters.get("binary_data_size")
        if (size is None) == (tensor.data is None):
            raise bad(f"{where}: expected either data or parameters.binary_data_size")
        if size is not None:
            if size != count or len(raw) < count:
                raise bad(f"{where}: {min(len(raw), count):,} bytes, said {size}; its shape has {count:,}")
            return np.frombuffer(raw[:count], dtype=np.uint8).reshape(tensor.shape), raw[count:]
        try:
            values = np.asarray(tensor.data)
        except ValueError:
            raise bad(f"{where}: its nested lists differ in length") from None
        if values.size != count or (values.ndim > 1 and list(values.shape) != tensor.shape):
            raise bad(
                f"{where}: {values.size:,} values in shape {list(values.shape)}; expected {count:,} of {tensor.shape}"
            )
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
            raise bad(f"{where}: expected whole numbers from 0 to 255")
        return values.astype(np.uint8).reshape(tensor.shape), raw

    def response(self, asked: Asked, found: dict[str, NDArray[np.float32]]) -> Response:
        """JSON, or JSON followed by the raw bytes of the outputs that were asked for like that."""
        outputs = []
        for name, values in found.items():
            told: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
            if name in asked.binary:
                told["parameters"] = {"binary_data_size": values.nbytes}
            else:
                told["data"] = [float(value) for value in values.ravel()]
            outputs.append(told)
        model = self.service.model
        said: dict[str, Any] = {"model_name": model["name"], "model_version": model["version"], "outputs": outputs}
        if asked.id is not None:
            said["id"] = asked.id
        if not asked.binary:
            return JSONResponse(said)
        head = json.dumps(said, separators=(",", ":")).encode()
        body = head + b"".join(values.tobytes() for name, values in found.items() if name in asked.binary)
        return Response(body, media_type="application/octet-stream", headers={HEADER: f"{len(head)}"})


async def infer(service: Service, protocol: Protocol, name: str, request: Request) -> Response:
    """POST /v2/models/{name}/infer."""
    protocol.check_name(name)
    service.load.check()
    header = request.headers.get(HEADER)
    if header is not None and not header.isdecimal():
        raise bad(f"{HEADER}: {header[:32]!r}; expected a number of bytes")
    limit = service.limits.tensor_bytes // (1 if header is not None else JSON_SHARE)
    with Hold(service.load) as hold:
        body = await whole(request, limit, service.limits.patience, hold)
        memory = len(body) * (JSON_MEMORY if header is None else 2)

        async def work() -> Response:
            with service.load.admit(1):
                outputs = await protocol.outputs()
                asked = await service.run(
                    memory, protocol.parse, body, None if header is None else int(header), outputs
                )
                found = await service.run(memory, protocol.answer, asked)
                service.ready = True
                return protocol.response(asked, found)

        return await while_there(request, work())


def oip_router(service: Service, errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The routes of /v2. errors: what OpenAPI says of them."""
    router, protocol = APIRouter(prefix="/v2", tags=["Open Inference Protocol"]), Protocol(service)

    @router.get("", response_model=ServerMetadata, responses=errors, summary="The server")
    async def server() -> dict[str, Any]:
        extensions = ["binary_tensor_data"]
        return {"name": "threefold", "version": service.model["version"], "extensions": extensions}

    @router.get(
        "/health/live", response_model=State, response_model_exclude_none=True, responses=errors, summary="Alive"
    )
    async def live() -> dict[str, Any]:
        return {"live": True}

    @router.get("/health/ready", response_model=State, response_model_exclude_none=True, responses=errors,
                summary="Ready")  # fmt: skip
    async def ready() -> dict[str, Any]:
        if not service.open:
            raise busy(service.fault or "the service is ending")
        return {"ready": True}

    @router.get("/models/{name}", response_model=ModelMetadata, responses=errors, summary="The model")
    async def model(name: Name) -> dict[str, Any]:
        protocol.check_name(name)
        return await protocol.metadata()

    @router.get("/models/{name}/ready", response_model=State, response_model_exclude_none=True, responses=errors,
                summary="The model is ready")  # fmt: skip
    async def model_ready(name: Name) -> dict[str, Any]:
        protocol.check_name(name)
        return {"name": name, **await ready()}

    @router.post("/models/{name}/infer", response_model=InferAnswer, responses=errors, summary="Read prepared crops",
                 openapi_extra=_request_schema(protocol))  # fmt: skip
    async def run_infer(name: Name, request: Request) -> Response:
        return await infer(service, protocol, name, request)

    return router


def _request_schema(protocol: Protocol) -> dict[str, Any]:
    name, shape = next(iter(protocol.inputs.items()))
    example = {"id": "1", "inputs": [{"name": name, "shape": [1, *shape[1:]], "datatype": "UINT8", "data": [128, 127]}]}
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    said = {"schema": schema, "example": example}
    raw = {"schema": {"type": "string", "format": "binary"}}
    content = {"application/json": said, "application/octet-stream": raw}
    return {"requestBody": {"required": True, "content": content}}
