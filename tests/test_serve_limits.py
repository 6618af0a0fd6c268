"""What a request may cost: bytes, pixels, photos, rate, queue, memory, time; and that no disk is touched."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving import LEFT, Gate, app_of, ask, bomb, call, drawn, form, noise, post

from threefold.errors import RecipeError
from threefold.serve import door, work
from threefold.serve.body import Upload
from threefold.serve.limits import MIB, Budget, RateLimit, RequestLimits
from threefold.serve.refusal import Refusal
from threefold.serve.work import count_pixels

JSON = {"content-type": "application/json"}


def as_json(*photos):
    listed = [{"data": base64.b64encode(photo).decode()} for photo in photos]
    return json.dumps({"photos": listed, "faces": "none"}).encode()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused_at_the_byte_that_is_too_much(monkeypatch, chunked):
    monkeypatch.setattr(door, "LINGER_BYTES", 3 * 65536)
    app = app_of(limits={"photo_bytes": 1 << 20})
    body, headers = form(bytes(8 << 20))
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    # a length that is a lie changes nothing: what arrives is counted
    answer = asyncio.run(call(app, pieces, headers=headers | ({} if chunked else {"content-length": "100"})))
    assert answer.status == 413 and answer.json["error"] == {"code": "too_large", "message": "0.jpg: more than 1 MiB"}
    assert 15 <= answer.taken_at_start <= 18 and answer.ended
    if chunked:
        assert answer.headers.get("connection") is None
    else:  # the client is still sending: some of it is dropped, so that it sees the answer, then the line is closed
        assert (
            answer.headers["connection"] == "close"
            and answer.taken_at_start < answer.taken <= answer.taken_at_start + 4
        )
    assert app.state.service.load.bytes == 0


def test_a_body_of_other_forms_is_counted_as_it_arrives(monkeypatch):
    monkeypatch.setattr(door, "LINGER_BYTES", 1)
    app = app_of(limits={"photo_bytes": 10_000, "photos": 2})
    limits = app.state.service.limits
    for headers, most in ((JSON, limits.json_bytes), (form()[1], limits.form_bytes)):
        pieces = [b"\r\n" * 2000] * 50  # what a form may begin with as well
        answer = asyncio.run(call(app, pieces, headers=headers))
        assert answer.status == 413 and "body: more than " in answer.body.decode()
        assert answer.taken_at_start == most // 4000 + 1


def test_a_declared_length_is_refused_before_a_byte_is_read(monkeypatch):
    app = app_of()
    for headers in (form(drawn())[1], JSON):
        answer = asyncio.run(call(app, [b"x"] * 10, headers=headers | {"content-length": f"{300 * MIB}"}))
        assert answer.status == 413 and answer.taken_at_start == 0 and answer.json["error"]["code"] == "too_large"
    # one that waits for our word before it sends is not waited for
    expect = {"content-length": f"{300 * MIB}", "expect": "100-continue"}
    assert asyncio.run(call(app, [b"x"] * 10, headers=JSON | expect)).taken == 0


def test_a_body_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(door, "LINGER_BYTES", 10 * 65536)

    def endless():
        while True:
            yield bytes(65536)

    headers = {"content-type": "multipart/form-data; boundary=x", "transfer-encoding": "chunked"}
    answer = asyncio.run(call(app_of(), endless(), headers=headers))
    assert answer.status == 422 and answer.ended and answer.taken < 20


def test_limits_of_json_are_those_of_forms():
    app = app_of(limits={"photo_bytes": 2000, "photos": 2})
    big, small = drawn() + bytes(2000), drawn(size=(8, 8))
    for photos, code in (((small, big), "too_large"), ((small, small, small), "too_many"), ((small, small), None)):
        for answer in (post(app, *photos), ask(app, as_json(*photos), headers=JSON)):
            assert answer.status == (413 if code else 200)
            if code:
                assert answer.json["error"]["code"] == code
    brim = small + bytes(2000 - len(small))
    assert post(app, brim).status == 200 == ask(app, as_json(brim), headers=JSON).status
    assert post(app, brim + b"\0").status == 413 == ask(app, as_json(brim + b"\0"), headers=JSON).status


def test_a_bomb_is_not_decoded(monkeypatch):
    packed = bomb(50_000, 2_000)
    assert len(packed) < 20_000
    decoded = []
    monkeypatch.setattr(work, "read_image", lambda *args: decoded.append(args) or np.zeros((9, 9, 3), dtype=np.uint8))
    answer = post(app_of(), packed)
    assert answer.status == 413 and answer.json["error"]["message"] == (
        "0.jpg: 50000 x 2000 pixels; at most 40 megapixels"
    )
    assert decoded == []
    good = post(app_of(limits={"pixels": 4800}), drawn(), drawn(size=(80, 61)))
    assert len(decoded) == 1
    assert [photo.get("error", {}).get("code") for photo in good.json["photos"]] == [None, "too_large"]


def test_a_second_header_does_not_get_a_bomb_decoded():
    packed = bytearray(bomb(4000, 4000))
    second = bomb(8, 8)[8:33]  # an IHDR of its own before the real one
    answer = post(app_of(limits={"pixels": 10_000}), bytes(packed[:8]) + second + bytes(packed[8:]))
    assert answer.status == 413 and answer.json["error"]["code"] == "too_large"
    beyond = post(app_of(), bomb(20_000, 20_000)[:1000])  # and what Pillow itself refuses is too large as well
    assert beyond.status == 413 and "400,000,000 pixels" in beyond.json["error"]["message"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": Image.Exif()}, {"progressive": True}])
def test_sizes_are_those_of_pillow(kind, options):
    for size in ((1, 1), (17, 300), (1023, 2)):
        assert count_pixels(Upload("a", drawn(kind, size=size, **options)), MIB) == size[0] * size[1]


@settings(max_examples=300)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    cut=st.integers(0, 700),
    place=st.integers(0, 60),
    value=st.integers(0, 255),
)
@example(kind="JPEG", cut=700, place=2, value=0)
def test_broken_headers_are_refused_in_one_line(kind, cut, place, value):
    data = bytearray(drawn(kind)[:cut])
    if place < len(data):
        data[place] = value
    try:
        pixels = count_pixels(Upload("a", bytes(data)), 10_000)
    except Refusal as refusal:
        assert refusal.code in ("unreadable", "unsupported_type", "too_large") and "\n" not in refusal.message
    else:
        assert 0 < pixels <= 10_000


@pytest.mark.parametrize("filling", [b"\xff\xd0" * (5 * MIB), b"\xff" * (10 * MIB), b"\xff\xe0\0\2" * (2 * MIB)])
def test_a_header_without_end_costs_little(filling):
    with pytest.raises(Refusal, match="cut off or damaged in its header"):
        count_pixels(Upload("a", b"\xff\xd8\xff" + filling), MIB)


@settings(max_examples=150)
@given(
    body=st.binary(max_size=300) | st.text(max_size=60).map(str.encode),
    kind=st.sampled_from(
        ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "image/jpeg", "", "\x00", ";;="]
    ),
    query=st.sampled_from(["", "?faces=all", "?faces=%00", "?x=1"]),
)
def test_no_body_is_a_fault_of_the_service(body, kind, query):
    answer = ask(APP, body, headers={"content-type": kind}, path=f"/v1/read{query}")
    assert answer.status in (413, 415, 422)
    assert set(answer.json) == {"error", "request_id"} and answer.json["error"]["message"]


@settings(max_examples=100)
@given(data=st.data())
def test_no_damaged_form_is_a_fault_of_the_service(data):
    body, headers = form(drawn(size=(8, 8)), drawn("PNG", size=(8, 8)), faces="none")
    body = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    pieces = [bytes(body[start : start + 37]) for start in range(0, len(body), 37)]
    assert asyncio.run(call(APP, pieces, headers=headers)).status in (200, 413, 415, 422)


APP = app_of()


def test_one_client_may_ask_so_often():
    app = app_of(limits={"rate": 0.5})
    answers = [post(app, drawn(), client="192.0.2.1") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json["error"]["code"] == "rate_limited" and answers[1].headers["retry-after"] in ("2", "3")
    assert post(app, drawn(), client="192.0.2.2").status == 200
    for path in ("/healthz", "/metrics", "/"):  # probes and the page are not counted
        assert ask(app, path=path, method="GET", client="192.0.2.1").status != 429


def test_the_bucket_fills_with_time_and_forgets():
    now = [0.0]
    rate = RateLimit(2, clock=lambda: now[0])
    assert [rate.wait("10.0.0.1") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    now[0] = 0.5
    assert [rate.wait("10.0.0.1") for _ in range(2)] == [0, 0.5]
    assert [rate.wait(f"2001:db8::{n:x}") for n in range(5)][4] == 0.5  # one /64 is one client
    assert rate.wait("2001:db8:0:1::1") == 0 == rate.wait("unix")
    for n in range(20_000):
        rate.wait(f"10.1.{n // 256}.{n % 256}")
    assert len(rate._buckets) == rate.CLIENTS


def test_a_full_queue_is_a_503_at_once_and_empties_again():
    gate = Gate()
    app = app_of(gate, limits={"queue": 4})
    body, headers = form(*[drawn()] * 3, faces="none")

    async def crowd():
        first = asyncio.create_task(call(app, [body], headers=headers))
        await asyncio.to_thread(gate.inside.acquire, timeout=20)
        second = await call(app, [body], headers=headers)
        assert second.status == 503 and second.headers["retry-after"] == "1"
        assert second.json["error"]["code"] == "overloaded"
        one = asyncio.create_task(call(app, [form(drawn(), faces="none")[0]], headers=headers))
        while app.state.service.load.photos < 4:
            await asyncio.sleep(0.001)
        early = await call(app, [b"x"] * 50, headers=headers | {"content-length": "5000", "expect": "100-continue"})
        assert early.status == 503 and early.taken == 0  # not even a body is read
        gate.through.set()
        assert [answer.status for answer in await asyncio.gather(first, one)] == [200, 200]
        assert (await call(app, [form(*[drawn()] * 9, faces="none")[0]], headers=headers)).status == 200

    asyncio.run(crowd())
    assert app.state.service.load.photos == 0 == app.state.service.load.bytes


def test_bodies_of_all_requests_together_are_bounded():
    app = app_of(limits={"held_bytes": 200_000})
    body, headers = form(bytes(150_000))

    async def two():
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow(scope, receive, send):
            async def waiting():
                message = await receive()
                if begun.is_set():
                    await go.wait()
                begun.set()
                return message

            await app(scope, waiting, send)

        first = asyncio.create_task(call(slow, [body[:100_000], body[100_000:]], headers=headers))
        await begun.wait()
        while not app.state.service.load.bytes:
            await asyncio.sleep(0.001)
        second = await call(app, [body], headers=headers)
        assert second.status == 503 and second.json["error"]["message"].startswith("too many large requests")
        go.set()
        assert (await first).status == 415

    asyncio.run(two())
    assert app.state.service.load.bytes == 0


def test_a_body_that_stands_still_and_a_client_that_goes():
    app = app_of(limits={"patience": 0.05})
    body, headers = form(drawn(), faces="none")

    async def stuck(scope, receive, send):
        taken = []

        async def waiting():
            if taken:
                await asyncio.sleep(3600)
            taken.append(1)
            return await receive()

        await app(scope, waiting, send)

    async def short():
        return await call(stuck, [body[:50], body[50:]], headers=headers)

    answer = asyncio.run(short())
    assert answer.status == 408 and answer.json["error"]["code"] == "too_slow"
    gone = asyncio.run(call(app, [body[:50], None], headers=headers))
    assert gone.status == 0 and app.state.service.load.bytes == 0
    assert 'status="499"' in app.state.service.metrics.text().decode()


def test_photos_of_a_client_that_has_gone_are_not_read():
    gate = Gate()
    app = app_of(gate, workers=1)
    body, headers = form(*[drawn()] * 8, faces="none")

    async def impatient():
        task = asyncio.create_task(call(app, [body, LEFT], headers=headers))
        answer = await task
        assert answer.status == 0 and app.state.service.load.photos == 0
        assert app.state.service.budget.free < app.state.service.budget.total  # one is being read, and has its memory
        gate.through.set()
        await asyncio.to_thread(app.state.service.close)
        await asyncio.sleep(0.01)

    asyncio.run(impatient())
    assert sum(iter(lambda: gate.inside.acquire(blocking=False), False)) <= 1
    assert app.state.service.budget.free == app.state.service.budget.total


def test_memory_for_decoding_is_waited_for_in_order():
    async def use():
        budget, order = Budget(10), []

        async def job(name, amount):
            taken = await budget.take(amount)
            order.append(name)
            await asyncio.sleep(0)
            budget.give(taken)

        first = await budget.take(6)
        large = asyncio.create_task(job("large", 100))  # more than there is: alone
        small = asyncio.create_task(job("small", 1))
        left = asyncio.create_task(job("left", 1))
        await asyncio.sleep(0)
        assert order == [] and budget.free == 4  # the small one does not pass the large one
        left.cancel()
        budget.give(first)
        await asyncio.gather(large, small, left, return_exceptions=True)
        assert order == ["large", "small"] and budget.free == 10
        held = await budget.take(10)
        giving_up = asyncio.create_task(job("never", 10))
        after = asyncio.create_task(job("after", 3))
        await asyncio.sleep(0)
        budget.give(held)  # granted, and given up in the same moment
        giving_up.cancel()
        await asyncio.gather(giving_up, after, return_exceptions=True)
        assert order[2:] == ["after"] and budget.free == 10

    asyncio.run(use())


WRITES = []


def test_nothing_is_written_to_a_disk(monkeypatch, tmp_path):
    watching = [True]

    def hook(event, args):
        if watching and event in (
            "open",
            "os.mkdir",
            "os.rename",
            "tempfile.mkstemp",
            "tempfile.mkdtemp",
            "shutil.copyfile",
        ):
            mode, flags = (str(args[1] or ""), args[2]) if event == "open" else ("w", 0)
            if set(mode) & set("wax+") or (isinstance(flags, int) and flags & 0b11):
                WRITES.append((event, str(args[0])))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    app, large = app_of(), noise(900)
    assert len(large) > 2 * MIB  # above what frameworks keep in memory
    body, headers = form(large, large, faces="none")
    post(app, drawn())
    sys.addaudithook(hook)  # for good, so it is told when to stop
    try:
        forms = asyncio.run(call(app, [body[:MIB], body[MIB:]], headers=headers))
        listed = ask(app, as_json(large), headers=JSON)
        io.open(tmp_path / "seen", "w").close()  # noqa: UP020 - the hook does see what is written
    finally:
        watching.clear()
    assert forms.status == 200 == listed.status and len(forms.json["photos"]) == 2
    assert [str(path) for _, path in WRITES] == [str(tmp_path / "seen")]
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


@pytest.mark.parametrize(("name", "value"), [("photos", 0), ("rate", 0.0), ("queue", -1), ("patience", float("nan"))])
def test_limits_that_cannot_be_used(name, value):
    with pytest.raises(RecipeError, match=f"{name}: {value}; expected"):
        RequestLimits(**{name: value})
