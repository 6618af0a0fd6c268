"""The Open Inference Protocol at /v2, and the whole OpenAPI against what the service does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import schemathesis
from fake_backend import FakeBackend
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving import app_of, ask
from starlette.testclient import TestClient

from threefold import labels
from threefold.serve.batching import BatchingBackend

SIZE = FakeBackend().prepares[0].size
INFER = "/v2/models/reader/infer"


class Aged:
    """A fake model of two preprocessings that has ages."""

    def __init__(self):
        self.fake = FakeBackend()
        self.prepares = self.fake.prepares * 2

    def __call__(self, photos):
        joint, _ = self.fake(photos)
        return joint, photos[1].mean((1, 2, 3), dtype=np.float32)


def crops(*values):
    return np.stack([np.full((*SIZE, 3), value, dtype=np.uint8) for value in values])


def tensor(batch, name="photos", nested=False):
    data = batch.tolist() if nested else batch.ravel().tolist()
    return {"name": name, "shape": list(batch.shape), "datatype": "UINT8", "data": data}


def infer(app, body, **options):
    return ask(app, json.dumps(body).encode(), path=INFER, **options)


def numbers(output):
    return np.array(output["data"], dtype=np.float32).reshape(output["shape"])


def test_metadata():
    client = TestClient(app_of(Aged(), info={"name": "two", "version": "3"}))
    assert client.get("/v2").json() == {"name": "threefold", "version": "3", "extensions": ["binary_tensor_data"]}
    assert client.get("/v2/health/live").json() == {"live": True}
    sides = [-1, *SIZE, 3]
    assert client.get("/v2/models/two").json() == {
        "name": "two", "versions": ["3"], "platform": "threefold",
        "inputs": [{"name": f"photos{n}", "datatype": "UINT8", "shape": sides} for n in range(2)],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 18]},
            {"name": "years", "datatype": "FP32", "shape": [-1]},
        ],
    }  # fmt: skip
    wrong = client.get("/v2/models/tow/ready")
    assert wrong.status_code == 404 and wrong.json()["error"] == "model 'tow' is not known (known: two; nearest: two)"


@pytest.mark.parametrize("nested", [False, True])
def test_crops_in_probabilities_out(nested):
    batch = crops(10, 130, 250)
    answer = infer(app_of(BatchingBackend(FakeBackend())), {"id": "7", "inputs": [tensor(batch, nested=nested)]})
    said = answer.json
    assert (said["model_name"], said["id"]) == ("reader", "7") and len(said["outputs"]) == 1
    assert said["outputs"][0]["name"] == "probabilities" and said["outputs"][0]["datatype"] == "FP32"
    assert np.array_equal(numbers(said["outputs"][0]), FakeBackend()((batch,))[0])


def test_two_inputs_chosen_outputs_and_years():
    first, second = crops(10, 130), crops(30, 60)
    inputs = [tensor(second, "photos1"), tensor(first, "photos0")]  # in any order
    outputs = infer(app_of(Aged()), {"inputs": inputs}).json["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities", "years"]
    assert np.array_equal(numbers(outputs[0]), FakeBackend()((first,))[0]) and outputs[1]["data"] == [30, 60]
    asked = infer(app_of(Aged()), {"inputs": inputs, "outputs": [{"name": "years"}]})
    assert [output["name"] for output in asked.json["outputs"]] == ["years"] and "id" not in asked.json


@pytest.mark.parametrize("attributes", [("mask",), ("mask", "gender"), ("age_group", "mask")])
def test_only_what_is_served_comes_out(attributes):
    app, batch = app_of(Aged(), attributes=attributes), crops(10, 130)
    said = infer(app, {"inputs": [tensor(batch, "photos0"), tensor(batch, "photos1")]}).json
    names = [name for name in labels.ATTRIBUTES if name in attributes] + ["years"] * ("age_group" in attributes)
    assert [output["name"] for output in said["outputs"]] == names
    margins = labels.marginals(FakeBackend()((batch,))[0])
    for output in said["outputs"][: len(attributes)]:
        assert np.allclose(numbers(output), margins[output["name"]]) and output["shape"] == [
            2,
            labels.SIZES[output["name"]],
        ]
    hidden = infer(app, {"inputs": [tensor(batch, "photos0")], "outputs": [{"name": "probabilities"}]})
    assert hidden.status == 400 and hidden.json["error"].startswith("output 'probabilities' is not known (known: ")


def binary(batch, wanted=None, size=None, **parameters):
    said = {"name": "photos", "shape": list(batch.shape), "datatype": "UINT8",
            "parameters": {"binary_data_size": batch.nbytes if size is None else size}}  # fmt: skip
    head = json.dumps({"inputs": [said], "parameters": parameters, **({"outputs": wanted} if wanted else {})}).encode()
    return head + batch.tobytes(), {"inference-header-content-length": f"{len(head)}"}


def test_the_binary_extension_both_ways():
    app, batch = app_of(), crops(10, 130, 250)
    body, headers = binary(batch)
    plain = ask(app, body, path=INFER, headers=headers).json
    expected = FakeBackend()((batch,))[0]
    assert np.array_equal(numbers(plain["outputs"][0]), expected)
    for options in (
        {"binary_data_output": True},
        {"wanted": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ):
        body, headers = binary(batch, **options)
        answer = ask(app, body, path=INFER, headers=headers)
        end = int(answer.headers["inference-header-content-length"])
        assert answer.headers["content-type"] == "application/octet-stream"
        output = json.loads(answer.body[:end])["outputs"][0]
        assert output["parameters"] == {"binary_data_size": expected.nbytes} and "data" not in output
        assert answer.body[end:] == expected.astype("<f4").tobytes()


def spoilt(**changes):
    return {"inputs": [tensor(crops(10)) | changes]}


SHAPE = f"inputs.photos: shape [1, 8, 6, 3]; expected [B, {SIZE[0]}, {SIZE[1]}, 3] with B from 1 on"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "inputs: Field required"),
        ({"inputs": []}, 400, "inputs: List should have at least 1 item"),
        (spoilt(shape=[1, 8, 6, 3]), 400, SHAPE),
        (spoilt(shape=[0, *SIZE, 3]), 400, "inputs.photos: shape [0, "),
        (spoilt(shape=[]), 400, "inputs.photos: shape []; expected"),
        (spoilt(shape=[-1, *SIZE, 3]), 400, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        (spoilt(shape=[300, *SIZE, 3]), 413, "inputs.photos: 300 crops; at most 256"),
        (spoilt(datatype="FP32"), 400, "inputs.photos: datatype 'FP32'; expected UINT8"),
        (spoilt(data=[1, 2, 3]), 400, "inputs.photos: 3 values in shape [3]; expected 36,864 of"),
        (spoilt(data=[[1, 2], [3]]), 400, "inputs.photos: its nested lists differ in length"),
        (spoilt(data=[0.5] * 36864), 400, "inputs.photos: expected whole numbers from 0 to 255"),
        (spoilt(data=[256] * 36864), 400, "inputs.photos: expected whole numbers from 0 to 255"),
        (spoilt(data=[10**30] * 36864), 400, "inputs.photos: expected whole numbers from 0 to 255"),
        (spoilt(data=["a"] * 36864), 400, "inputs.photos: expected whole numbers from 0 to 255"),
        (spoilt(data=None), 400, "inputs.photos: expected either data or parameters.binary_data_size"),
        (spoilt(parameters={"binary_data_size": 5}), 400, "inputs.photos: expected either data or"),
        (spoilt(name="photo"), 400, "input 'photo' is not known (known: photos; nearest: photos)"),
        ({"inputs": [tensor(crops(1)), tensor(crops(1))]}, 400, "inputs.photos: given twice"),
        (spoilt() | {"outputs": [{"name": "logits"}]}, 400, "output 'logits' is not known (known: probabilities; n"),
        (spoilt() | {"shape": 1}, 400, "shape: Extra inputs are not permitted"),
    ],
)
def test_errors_are_the_protocols(body, status, message):
    answer = infer(app_of(), body, headers={"x-request-id": "id-1"})
    assert answer.status == status and answer.json["error"].startswith(message), answer.json
    assert answer.json["request_id"] == "id-1" and answer.json["code"] in ("invalid", "too_many")


def test_errors_of_raw_bodies():
    app, batch = app_of(), crops(10)
    body, headers = binary(batch)
    for spoiled, words in (
        (body[:-1], "36,863 bytes, said 36864; its shape has 36,864"),
        (body + b"x", "body: 1 bytes more than its inputs have"),
        (binary(batch, size=7)[0], "said 7"),
        (binary(batch, size="7")[0], "said 7"),
    ):
        head = spoiled.index(b"\x0a" * 50)
        answer = ask(app, spoiled, path=INFER, headers={"inference-header-content-length": f"{head}"})
        assert answer.status == 400 and words in answer.json["error"]
    assert ask(app, body, path=INFER, headers={"inference-header-content-length": "x"}).status == 400
    assert ask(app, body, path=INFER, headers={"inference-header-content-length": "99999999"}).status == 400
    assert ask(app, b"[[[", path=INFER).json["error"].startswith("body: Invalid JSON")
    small = app_of(limits={"tensor_bytes": 40_000})
    assert ask(small, body, path=INFER, headers=headers).status == 200
    assert infer(small, {"inputs": [tensor(batch)]}).status == 413  # JSON may be a quarter of it
    pretended = ask(small, json.dumps({"inputs": [tensor(batch)]}).encode()[:39_000], path=INFER,
                    headers={"inference-header-content-length": "39000"})  # fmt: skip
    assert pretended.status == 413 and "binary extension" in pretended.json["error"]


def test_two_inputs_must_go_together():
    app = app_of(Aged())
    one, three = tensor(crops(1), "photos0"), tensor(crops(1, 2, 3), "photos1")
    assert infer(app, {"inputs": [one]}).json["error"] == "inputs.photos1: is missing"
    assert infer(app, {"inputs": [one, three]}).json["error"] == "inputs: differ in their number of crops"


def test_the_protocol_is_closed_by_the_key_in_its_own_words():
    app = app_of(key="secret-key")
    answer = infer(app, {"inputs": [tensor(crops(10))]})
    assert answer.status == 401 and answer.json["error"] == "expected the header `Authorization: Bearer KEY`"
    assert infer(app, {"inputs": [tensor(crops(10))]}, headers={"authorization": "Bearer secret-key"}).status == 200


SERVICE = app_of(Aged())
SERVICE.state.service.ready = True
OPENAPI = schemathesis.openapi.from_asgi("/openapi.json", SERVICE)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
          negative_data_rejection, unsupported_method]  # fmt: skip


@OPENAPI.parametrize()
@settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
def test_the_service_does_what_its_openapi_says(case):
    response = case.call()
    refused = response.status_code == 413  # a refusal as well, which `negative_data_rejection` does not know
    case.validate_response(
        response, checks=[check for check in CHECKS if not (refused and check is negative_data_rejection)]
    )


def test_the_openapi_has_every_route():
    paths = set(OPENAPI.raw_schema["paths"])
    assert paths == {
        "/v1/read", "/v1/model", "/healthz", "/readyz", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready",
        "/v2/models/{name}", "/v2/models/{name}/ready", "/v2/models/{name}/infer",
    }  # fmt: skip
