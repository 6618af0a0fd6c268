"""The service's contract: what is asked and answered, on every route, and what is never said."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re

import numpy as np
import pytest
from fake_backend import FakeBackend
from fastapi import APIRouter
from serving import Gate, app_of, ask, call, drawn, form, post
from starlette.testclient import TestClient

from threefold.errors import AssetError, DataError
from threefold.labels import ATTRIBUTES
from threefold.read.reader import Reader
from threefold.read.reading import reading_model
from threefold.serve import schema
from threefold.serve.app import create_app
from threefold.serve.batching import BatchingBackend

WEB = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def test_a_form_with_photos_of_every_type():
    photos = [drawn("JPEG", 100), drawn("PNG", 30), drawn("WEBP", 240, lossless=True)]
    answer = post(app_of(info={"name": "drawn", "version": "7"}), *photos).json
    assert re.fullmatch(r"[0-9a-f]{32}", answer["request_id"]) and answer["model"] == {"name": "drawn", "version": "7"}
    assert answer["milliseconds"] > 0
    assert [(p["name"], p["width"], p["height"]) for p in answer["photos"]] == [(f"{n}.jpg", 80, 60) for n in range(3)]
    assert [p["faces"][0]["class"] for p in answer["photos"]] == [100 * 18 // 256, 30 * 18 // 256, 240 * 18 // 256]
    schema.ReadAnswer[reading_model()].model_validate(answer)  # unknown keys are refused by it
    face = answer["photos"][0]["faces"][0]
    assert face["box"] is None and face["mask"] == "incorrect" and face["probabilities"]["mask"]["incorrect"] == 0.88


def test_json_reads_as_the_form_does():
    app = app_of()
    text = base64.encodebytes(drawn()).decode()  # with line breaks, as the `base64` command writes it
    body = json.dumps({"photos": [{"name": "a.jpg", "data": text}, {"data": text}], "faces": "none"}).encode()
    answer = ask(app, body, headers={"content-type": "application/json; charset=utf-8"}).json
    assert [photo["name"] for photo in answer["photos"]] == ["a.jpg", "photo 2"]
    assert answer["photos"][0]["faces"] == post(app, drawn()).json["photos"][0]["faces"]


def test_faces_comes_from_the_body_else_the_query_else_is_the_models_default(monkeypatch):
    asked = []
    monkeypatch.setattr(Reader, "faces", lambda self, photo, which=None: asked.append(which) or [])
    app, (body, headers) = app_of(), form(drawn())
    ask(app, body, headers=headers)
    ask(app, body, headers=headers, path="/v1/read?faces=largest")
    post(app, drawn(), faces="none", path="/v1/read?faces=largest")
    assert asked == [None, "largest", "none"]
    for answer in (post(app, drawn(), faces="larg"), ask(app, body, headers=headers, path="/v1/read?faces=larg")):
        assert answer.status == 422 and answer.json["error"]["code"] == "invalid"
    assert "nearest: largest" in post(app, drawn(), faces="larg").json["error"]["message"]


def test_one_photo_that_cannot_be_read_is_the_error_and_among_others_stands_in_its_place():
    app, cut = app_of(), drawn()[:-200]
    alone = post(app, cut)
    assert alone.status == 422 and alone.json["error"]["code"] == "unreadable"
    assert alone.json["error"]["message"].startswith("0.jpg: cut off or damaged")
    several = post(app, drawn(), cut, b"GIF89a" + bytes(50), b"")
    assert several.status == 200
    good, *bad = several.json["photos"]
    assert good["faces"] and [item["error"]["code"] for item in bad] == ["unreadable", "unsupported_type", "unreadable"]
    assert bad[0]["name"] == "1.jpg"
    assert post(app, b"GIF89a" + bytes(50)).status == 415
    text = app.state.service.metrics.text().decode()
    assert 'threefold_photos_total{outcome="unsupported_type"} 2.0' in text
    assert 'threefold_photos_total{outcome="read"} 1.0' in text


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{", {"content-type": "application/json"}, 422, "body: Invalid JSON: EOF"),
        (b"[]", {"content-type": "application/json"}, 422, "body: Input should be an object"),
        (b'{"photos":[]}', {"content-type": "application/json"}, 422, "photos: List should have at least 1"),
        (b'{"photos":[{"data":"%%%"}]}', {"content-type": "application/json"}, 422, "photos.0.data: not base64"),
        ('{"photos":[{"data":"äö"}]}'.encode(), {"content-type": "application/json"}, 422, "photos.0.data: not base64"),
        (b'{"photos":[{"data":"YWE=","x":1}]}', {"content-type": "application/json"}, 422, "photos.0.x: Extra"),
        (b'{"photos":[{"data":"YWE="}],"faces":"some"}', {"content-type": "application/json"}, 422, "faces: Input"),
        (b"[" * 20_000, {"content-type": "application/json"}, 422, "body: JSON with more than 10,000 brackets"),
        (b"x", {"content-type": "text/plain"}, 415, "Content-Type: text/plain; expected multipart/form-data or"),
        (b"x", {}, 415, "Content-Type: nothing; expected multipart/form-data or"),
        (b"x", {"content-type": "multipart/form-data"}, 422, "Content-Type: multipart/form-data needs a boundary"),
        (b"x", {"content-type": "multipart/form-data; boundary=" + "x" * 300}, 422, "Content-Type: its boundary"),
        (b"--no\r\n", {"content-type": "multipart/form-data; boundary=yes"}, 422, "body: not well-formed multipart"),
        (b"--yes--\r\n", {"content-type": "multipart/form-data; boundary=yes"}, 422, "no photo: expected files"),
        (form(drawn(), field="photo")[0], form()[1], 422, "form field 'photo' is not known (known: faces, photos; n"),
        (form(drawn())[0][:-20], form()[1], 422, "body: multipart/form-data is cut off"),
        (form(drawn(), faces="all" * 100)[0], form()[1], 422, "faces: expected one of all, largest, none"),
    ],
)
def test_bodies_that_are_not_of_the_form(body, headers, status, message):
    answer = ask(app_of(), body, headers=headers)
    assert answer.status == status and answer.json["error"]["message"].startswith(message), answer.json
    assert "\n" not in answer.json["error"]["message"]


def test_request_ids_are_echoed_when_well_formed():
    app = app_of()
    assert post(app, drawn(), headers={"x-request-id": "my.own-ID_1"}).json["request_id"] == "my.own-ID_1"
    for bad in ("", "a b", "x" * 129, "a\u00e9"[:1] + "\x7f", "<script>"):
        answer = ask(app, path="/healthz", method="GET", headers={"x-request-id": bad})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    answer = ask(app, path="/nope", method="GET", headers={"x-request-id": "abc"})
    assert answer.json == {"error": {"code": "not_found", "message": "nothing is at this address"}, "request_id": "abc"}


@pytest.mark.parametrize("path", ["/", "/static/api.js", "/v1/model", "/nope", "/metrics", "/v1/read"])
def test_every_answer_has_the_security_headers(path):
    headers = ask(app_of(), path=path, method="GET").headers
    assert {name: value for name, value in WEB.items() if not headers[name].startswith(value)} == {}
    assert ("cache-control" in headers) == (path in ("/", "/v1/model", "/v1/read"))
    assert "access-control-allow-origin" not in headers and "server" not in headers


def test_wrong_methods_and_addresses():
    answer = ask(app_of(), path="/v1/read", method="DELETE")
    assert (answer.status, answer.json["error"]["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert ask(app_of(), path="/static/../app.py", method="GET").status == 404
    assert ask(app_of(), path="/static/nope.js", method="GET").json["error"]["code"] == "not_found"


def test_the_key_closes_v1_alone():
    app = app_of(key="secret-key", monitor=_router())
    closed = ["/v1/model", "/v1/read", "/v1/events", "/v1/nope"]
    for path in closed:
        for headers in (
            {},
            {"authorization": "Bearer secret-kex"},
            {"authorization": "secret-key"},
            {"authorization": "Bearer secret-key2"},
            {"authorization": "Bearer \u00fc"},
        ):
            answer = ask(app, path=path, method="GET", headers=headers)
            assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer"), path
        assert ask(app, path=path, method="GET", headers={"authorization": "Bearer secret-key"}).status != 401
    for path in ("/", "/static/api.js", "/healthz", "/readyz", "/metrics", "/openapi.json", "/monitor", "/v1x"):
        assert ask(app, path=path, method="GET").status != 401, path
    assert ask(app, b"", path="/v1/read", headers={"content-length": "5"}).json["error"]["code"] == "unauthorised"
    numbers = ask(app, path="/metrics", method="GET").body.decode()
    assert 'threefold_request_seconds_count{route="/v1/read",status="401"} ' in numbers, (
        "refused, and yet where is known"
    )
    routes = TestClient(app).get("/openapi.json").json()["paths"]
    assert {path for path, methods in routes.items() for route in methods.values() if "security" in route} == {
        path for path in routes if path.startswith("/v1")
    }


def _router():
    router = APIRouter()
    router.get("/v1/events")(lambda: {"hours": []})
    router.get("/monitor", include_in_schema=False)(lambda: {"page": True})
    return router


def test_the_page_its_files_and_the_monitor():
    client = TestClient(app_of(monitor=_router()))
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8" and "<title" in page.text
    assert client.head("/").status_code == 200
    script = client.get("/static/api.js")
    assert script.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert client.get("/static/api.js", headers={"if-none-match": script.headers["etag"]}).status_code == 304
    assert client.get("/static/icon.svg").headers["content-type"].startswith("image/svg+xml")
    assert client.get("/v1/events").json() == {"hours": []} and client.get("/monitor").json() == {"page": True}
    assert TestClient(app_of()).get("/monitor").status_code == 404


def test_masks_alone_leave_no_word_of_gender_or_age():
    info = {"name": "reader", "version": "1", "licence": "research", "data": "faces by gender and age", "years": True}
    client = TestClient(app_of(attributes=("mask",), info=info))
    body, headers = form(drawn(), faces="none")
    read = client.post("/v1/read", content=body, headers=headers)
    assert read.json()["photos"][0]["faces"][0] == {
        "face": 0,
        "box": None,
        "score": None,
        "quality": "ok",
        "mask": "incorrect",
        "confidence": 0.88,
        "confidences": {"mask": 0.88},
        "probabilities": {"mask": {"worn": 0.06, "incorrect": 0.88, "none": 0.06}},
    }
    schema.ReadAnswer[reading_model(("mask",))].model_validate(read.json())
    texts = [read.text] + [client.get(path).text for path in ("/metrics", "/v1/model")]
    for text in (*texts, client.get("/openapi.json").text.replace("under 18", "")):
        assert not re.search(r"gender|male|\bage\b|age_group|years|30-59", text)
    assert client.get("/v1/model").json()["labels"] == {"mask": ["worn", "incorrect", "none"]}
    whole = TestClient(app_of(info=info)).get("/v1/model").json()
    assert whole["data"] == "faces by gender and age" and list(whole["labels"]) == list(ATTRIBUTES)
    with pytest.raises(DataError, match=r"'masks' is not known .*nearest: mask"):
        app_of(attributes=("masks",))


@pytest.mark.parametrize("attributes", [tuple(ATTRIBUTES), ("mask",), ("gender", "age_group")])
def test_examples_of_the_openapi_are_answers(attributes):
    answer = post(app_of(attributes=attributes), drawn()).json
    example = schema.read_example(attributes)
    schema.ReadAnswer[reading_model(attributes)].model_validate(example)
    assert list(example) == list(answer) and list(example["photos"][0]) == list(answer["photos"][0])
    one, other = example["photos"][0]["faces"][0], answer["photos"][0]["faces"][0]
    assert list(one) == list(other) and list(one["probabilities"]) == list(other["probabilities"])


def test_numbers_for_prometheus():
    backend = BatchingBackend(FakeBackend())
    app = app_of(backend)
    post(app, drawn(), drawn(value=30), headers={"x-request-id": "abc"})
    ask(app, path="/some/secret/a.jpg", method="GET")
    answer = ask(app, path="/metrics", method="GET")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        'threefold_readings_total{attribute="mask",value="incorrect"} 1.0',
        'threefold_readings_total{attribute="age_group",value="30-59"} 1.0',
        'threefold_readings_total{attribute="mask",value="indeterminate"} 0.0',
        'threefold_faces_total{quality="ok"} 2.0',
        "threefold_batch_faces_sum 2.0",
        "threefold_queue_photos 0.0",
        "threefold_held_bytes 0.0",
        "threefold_ready 1.0",
        'threefold_photos_total{outcome="read"} 2.0',
        'threefold_request_seconds_count{route="/v1/read",status="200"} 1.0',
        'threefold_request_seconds_count{route="other",status="404"} 1.0',
    ):
        assert line in text, line
    assert "secret" not in text
    assert b"threefold_faces_total{" not in ask(app_of(), path="/metrics", method="GET").body  # a registry of its own
    backend.close()


def test_ready_once_the_model_has_answered_and_until_the_end():
    gate = Gate()
    app = app_of(gate)
    with TestClient(app) as client:
        assert gate.inside.acquire(timeout=20)
        waiting = client.get("/readyz")
        assert waiting.status_code == 503 and waiting.json()["error"]["message"] == "the model has not answered yet"
        assert client.get("/healthz").status_code == 200
        gate.through.set()
        while client.get("/readyz").status_code != 200:
            pass
        app.state.service.load.draining = True
        assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
        answer = client.post("/v1/read", files=[("photos", ("a.jpg", drawn()))])
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"


def test_a_model_that_cannot_answer_is_told(caplog):
    def broken(photos):
        raise AssetError("yunet: is not on this machine")

    broken.prepares = FakeBackend().prepares
    app = create_app(Reader(broken))
    with TestClient(app) as client:
        while not app.state.service.error:
            client.get("/healthz")
        assert client.get("/readyz").json()["error"]["message"] == "yunet: is not on this machine"
    assert "not ready: yunet" in caplog.text and "Traceback" not in caplog.text


def test_an_unexpected_fault_is_a_500_that_tells_nothing(monkeypatch, caplog):
    def broken(self, photo, which=None):
        raise ZeroDivisionError("secret of the house")

    app = app_of()
    monkeypatch.setattr(Reader, "faces", broken)
    answer = post(app, drawn(), drawn(), headers={"x-request-id": "id-1"})
    assert answer.status == 500 and answer.json["error"]["code"] == "internal"
    assert b"secret" not in answer.body and "request id-1 failed" in caplog.text and "secret" in caplog.text
    assert answer.headers["x-frame-options"] == "DENY" and app.state.service.load.photos == 0


def test_the_log_has_no_names_addresses_or_queries(caplog):
    caplog.set_level(logging.DEBUG, "threefold")
    app = app_of()
    post(app, drawn(), headers={"x-request-id": "id-1"}, client="192.0.2.7", path="/v1/read?faces=none")
    post(app, b"broken", client="192.0.2.7")
    ask(app, path="/v1/Anna%0aevil\n", method="GET")
    lines = [record.getMessage() for record in caplog.records if record.name == "threefold.serve"]
    assert re.fullmatch(r"POST /v1/read 200 \d+\.\d ms id-1", lines[0]) and len(lines) == 3
    assert not re.search(r"0\.jpg|192\.0|faces=|Anna|evil", caplog.text)


def test_origins_may_ask_only_when_they_are_named():
    client = TestClient(app_of(cors=["https://a.example"], key="secret-key"))
    asked = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = client.options("/v1/read", headers=asked)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in client.get("/healthz", headers={"origin": "https://b.example"}).headers
    assert client.get("/v1/model", headers={"origin": "https://a.example"}).headers["access-control-allow-origin"]


def test_the_loop_answers_while_photos_are_read():
    gate = Gate()
    app = app_of(gate)
    body, headers = form(*[drawn()] * 5, faces="none")

    async def both():
        reading = [asyncio.create_task(call(app, [body], headers=headers)) for _ in range(4)]
        while not await asyncio.to_thread(gate.inside.acquire, timeout=0.01):
            assert (await call(app, [b""], path="/healthz", method="GET")).status == 200
        numbers = (await call(app, [b""], path="/metrics", method="GET")).body
        assert b"threefold_queue_photos 20.0" in numbers
        gate.through.set()
        return await asyncio.gather(*reading)

    answers = asyncio.run(both())
    assert [len(answer.json["photos"]) for answer in answers] == [5] * 4
    assert np.isclose(answers[0].json["photos"][0]["faces"][0]["confidence"], 0.83)
