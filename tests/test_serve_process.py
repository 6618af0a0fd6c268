"""`serve` as a process of its own, over real sockets: start, answers under SIGTERM, exit codes, the disk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from fake_backend import FakeBackend
from helpers import environment
from serving import LONG, drawn, form, noise

from threefold.errors import RecipeError, ThreefoldError
from threefold.read.reader import Reader
from threefold.serve import server as run
from threefold.serve.batching import BatchingBackend

PROGRAM = """
import sys, time
from threefold.errors import AssetError, ThreefoldError
from fake_backend import FakeBackend
from threefold.read.reader import Reader
from threefold import progress
from threefold.serve import server as run

class Slow(FakeBackend):
    def __call__(self, photos):
        if MODE == "broken":
            raise AssetError("yunet: is not on this machine")
        if (photos[0] == 77).all():  # a photo of that grey takes a while
            print("reading", flush=True)
            time.sleep(1.5)
        return super().__call__(photos)

MODE = sys.argv[1]
run.load = lambda model, threads: Reader(Slow())
progress.show()
run.log_to_stderr()
try:
    result = run.serve(port=int(sys.argv[2]), **eval(sys.argv[3]))
    print(*result.lines())
except ThreefoldError as error:
    print(f"threefold: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code)
except KeyboardInterrupt:
    raise SystemExit(130)
assert "torch" not in sys.modules
"""


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def begin(mode="well", port=0, **options):
            empty = tmp_path / "tmp"
            empty.mkdir(exist_ok=True)
            path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, mode, str(port), repr(options)],
                    env=environment(tmp_path, TMPDIR=str(empty), PYTHONPATH=path),
                    cwd=empty,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            stack.callback(process.kill)
            return process

        yield begin


def address(process):
    line = process.stderr.readline()
    match = re.match(r"threefold serve: (http://\S+) ", line)
    assert match, line + process.stderr.read()
    return match[1]


def until_ready(client):
    end = time.monotonic() + LONG
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_sigterm_finishes_what_is_in_work_and_ends_well(start, tmp_path):
    process = start(key="secret-key")
    with httpx.Client(base_url=address(process), timeout=LONG) as client:
        until_ready(client)
        assert client.get("/v1/model").status_code == 401
        key = {"authorization": "Bearer secret-key"}
        large = client.post("/v1/read", files={"photos": noise(900)}, data={"faces": "none"}, headers=key)
        assert large.status_code == 200 and large.json()["photos"][0]["width"] == 900
        answers = []

        def ask():
            slow = httpx.post(
                f"{client.base_url}/v1/read",
                files={"photos": drawn(value=77)},
                data={"faces": "none"},
                headers=key,
                timeout=LONG,
            )
            answers.append(slow)

        asking = threading.Thread(target=ask)
        asking.start()
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        asking.join(LONG)
        assert answers[0].status_code == 200 and answers[0].json()["photos"][0]["faces"][0]["class"] == 5
        assert process.wait(LONG) == 0
        requests = re.search(r": (\d+) requests answered$", process.stdout.read().strip())
        assert requests and int(requests[1]) >= 4
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{client.base_url}/healthz")
    log = process.stderr.read()
    assert "Traceback" not in log and "127.0.0.1" not in log and re.search(r"INFO POST /v1/read 200 [\d.]+ ms \w+", log)
    assert list((tmp_path / "tmp").iterdir()) == []  # it ran here, and TMPDIR was here too


def test_an_upload_beyond_its_limit_sees_its_answer_and_the_line_goes_on(start):
    process = start()
    url = address(process)
    with httpx.Client(base_url=url, timeout=LONG) as client:
        until_ready(client)
        body, headers = form(bytes(30 << 20))
        assert client.post("/v1/read", content=body, headers=headers).json()["error"]["code"] == "too_large"

        def endless():  # chunked, without a length
            yield body[:200]
            for _ in range(400):
                yield bytes(65536)

        answer = client.post("/v1/read", content=endless(), headers=headers)
        assert answer.status_code == 413 and answer.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LONG) as line:  # a length that is a lie ends at the length
        line.sendall(
            b"POST /v1/read HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]xx"
        )
        assert b"HTTP/1.1 422" in line.recv(65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(LONG) == 130


def test_a_port_in_use_is_one_line(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(port=port)
        out, log = process.communicate(timeout=LONG)
    assert process.returncode == 2 and out == ""
    assert log == f"threefold: 127.0.0.1:{port}: cannot be listened to (Address already in use)\n"


def test_a_model_that_cannot_answer_ends_the_service(start):
    process = start("broken")
    assert process.wait(LONG) == 2
    assert process.stderr.read().splitlines()[-1] == "threefold: yunet: is not on this machine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "short"}, "key: expected 8 or more letters"),
        ({"key": "with spaces in it"}, "key: expected 8 or more"),
        ({"port": 70000}, "port: 70000; expected 0 to 65535"),
        ({"host": "no.such.host.invalid"}, "host 'no.such.host.invalid': "),
        ({"attributes": ["masks"]}, "nearest: mask"),
        ({"rate": 0}, "rate: 0; expected more than 0"),
        ({"queue": 0}, "queue: 0; expected 1 or more"),
        ({"cors": ["example.org"]}, "cors: 'example.org'; expected an origin"),
        ({"batch": 0}, "batch: 0; expected 1 or more"),
        ({"wait_ms": -1}, "wait_ms: -1; expected 0 or more"),
        ({"model": "nowhere.onnx"}, "nowhere.onnx: no such file"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(monkeypatch, options, message):
    if "model" not in options:
        monkeypatch.setattr(run, "load", lambda model, threads: Reader(FakeBackend()))
    with pytest.raises(ThreefoldError) as caught:
        run.serve(**{"port": 0} | options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_key_may_come_from_the_environment(monkeypatch):
    monkeypatch.delenv(run.KEY, raising=False)
    assert run.bearer_key(None) is None
    monkeypatch.setenv(run.KEY, "from-environment")
    assert run.bearer_key(None) == "from-environment" and run.bearer_key("from-option") == "from-option"
    monkeypatch.setenv(run.KEY, "")  # set and empty is a mistake, not an open service
    with pytest.raises(RecipeError) as caught:
        run.bearer_key(None)
    assert "environment" not in str(caught.value)


def test_batching_leaves_the_reader_it_was_given_alone():
    reader = Reader(FakeBackend(), info={"name": "x"})
    assert run.with_batching(reader, batch=1, wait_ms=2, queue=9) is reader
    batched = run.with_batching(reader, batch=8, wait_ms=2, queue=9)
    assert isinstance(batched.backend, BatchingBackend) and not isinstance(reader.backend, BatchingBackend)
    assert batched.info == reader.info and batched.backend.max_batch == 8 and batched.backend.queue == 9
    batched.backend.close()


def test_an_address_of_the_other_kind():
    if not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
        pytest.skip("no IPv6 on this machine")
    with run.bind("::1", 0) as taken:
        assert taken.family == socket.AF_INET6
