"""Throughput and latency of `threefold serve` under load, with micro-batching and without, from other processes.

    python benchmarks/serving.py                                  # the bundled reader, drawn photos
    python benchmarks/serving.py --model model.onnx --photos FOLDER --faces all

Two servers, alike but for `batch`, are asked in turns over loopback, so that what else the machine does meets both;
medians over the rounds are shown. Each request is one photo, sent again as soon as the answer is there, over so many
connections that stay open. Clients take part of the same cores: ratios within one run are what can be compared, and
on a machine that has other work as well, only the time of all cores that the server spends on a photo.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SERVER = """
import sys
from threefold.progress import show
from threefold.serve.server import log_to_stderr, serve
model, batch, wait, threads = sys.argv[1:]
show()
log_to_stderr()
serve(model or None, port=0, batch=int(batch), wait_ms=float(wait), threads=int(threads) or None)
"""
BOUNDARY = "threefoldbenchmark"
Numbers = NDArray[np.float64]
Sent = tuple[list[float], int]
"""Milliseconds of each answer with status 200, and how many had another one."""


def body_of(photo: Path, faces: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photos"; filename="{photo.name}"\r\n\r\n'
    rest = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="faces"\r\n\r\n{faces}\r\n--{BOUNDARY}--\r\n'
    return head.encode() + photo.read_bytes() + rest.encode()


def client(port: int, bodies: list[bytes], connections: int, seconds: float, first: int) -> Sent:
    """One process: `connections` threads that ask until the time is over."""
    spent: list[float] = []
    refused: list[int] = []
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        while (begin := time.perf_counter()) < end:
            line.request("POST", "/v1/read", bodies[number % len(bodies)], headers)
            answer = line.getresponse()
            answer.read()
            if answer.status == 200:
                spent.append((time.perf_counter() - begin) * 1000)
            else:
                refused.append(answer.status)
            number += 7  # another photo each time, and others than the neighbours'
        line.close()

    threads = [threading.Thread(target=ask, args=(first + n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return spent, len(refused)


def load(port: int, bodies: list[bytes], connections: int, seconds: float) -> Sent:
    """All connections, over up to four processes."""
    count = min(4, connections)
    shares = [connections // count + (n < connections % count) for n in range(count)]
    jobs = [(port, bodies, share, seconds, 1000 * n) for n, share in enumerate(shares)]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        parts = pool.starmap(client, jobs)
    return [value for spent, _ in parts for value in spent], sum(refused for _, refused in parts)


@contextlib.contextmanager
def server(model: str, batch: int, wait: float, threads: int) -> Iterator[int]:
    """A server of its own process, warm; yields its port."""
    command = [sys.executable, "-c", SERVER, model, f"{batch}", f"{wait}", f"{threads}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            yield _ready(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _ready(process: subprocess.Popen[bytes], log: object) -> int:
    for _ in range(600):
        log.seek(0)  # type: ignore[attr-defined]
        text = log.read()  # type: ignore[attr-defined]
        match = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        with contextlib.suppress(OSError):
            if match and urllib.request.urlopen(f"http://127.0.0.1:{match[1]}/readyz").status == 200:
                return int(match[1])
        if process.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.1)
    raise SystemExit("the server is not ready after a minute")


def numbers(port: int) -> Numbers:
    """Faces in batches, batches, and seconds of all cores, so far."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    names = ("threefold_batch_faces_sum", "threefold_batch_faces_count", "process_cpu_seconds_total")
    return np.array([float(re.search(rf"^{name} (\S+)", text, re.M)[1]) for name in names])  # type: ignore[index]


def photos_of(options: argparse.Namespace, scratch: Path) -> list[Path]:
    folder = options.photos
    if folder is None:
        from threefold.draw.sample import sample

        folder = sample(scratch / "sample", people=12).out / "train"
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not photos:
        raise SystemExit(f"{folder}: no photos here")
    return photos[:: max(1, len(photos) // options.count)][: options.count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="exported model or run; default: the bundled reader")
    parser.add_argument("--photos", type=Path, help="folder; default: drawn people")
    parser.add_argument("--count", type=int, default=64, help="different photos")
    parser.add_argument("--faces", default="all", choices=["all", "largest", "none"])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--wait-ms", type=float, default=2)
    parser.add_argument("--threads", type=int, default=0, help="cores of one call of the model; default: all")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        photos = photos_of(options, scratch)
        bodies = [body_of(photo, options.faces) for photo in photos]
        ports = {
            name: stack.enter_context(server(options.model, batch, options.wait_ms, options.threads))
            for name, batch in (("off", 1), ("on", options.batch))
        }
        size = sum(map(len, bodies)) / len(bodies) / 1000
        print(f"{len(photos)} photos of {size:.0f} kB, faces={options.faces}, {options.rounds} x {options.seconds:g} s")
        print(f"{'':>11}  {'photos/s':>21}  {'p50 ms':>21}  {'p99 ms':>21}  {'cores ms/photo':>21}  {'faces in':>8}")
        print("connections" + f"  {'off':>6} {'on':>7} {'ratio':>6}" * 4 + f"  {'a batch':>8}")
        for port in ports.values():
            load(port, bodies, 2, 1)
        for connections in options.connections:
            show(connections, ports, bodies, options)


def show(connections: int, ports: dict[str, int], bodies: list[bytes], options: argparse.Namespace) -> None:
    """One line of the table."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in ports}
    first = numbers(ports["on"])
    bad = 0
    for turn in range(options.rounds):
        for name in sorted(ports, reverse=bool(turn % 2)):
            before = numbers(ports[name])
            spent, refused = load(ports[name], bodies, connections, options.seconds)
            bad += refused
            if not spent:
                raise SystemExit(f"no answer with status 200, {refused} others")
            # from the first request to the last answer: starting the processes is not the server's time
            busy = max(options.seconds, sum(spent) / 1000 / connections)
            cores = (numbers(ports[name]) - before)[2] * 1000 / len(spent)
            rows[name].append((len(spent) / busy, *np.percentile(spent, [50, 99]), cores))
    off, on = (np.median(rows[name], axis=0) for name in ("off", "on"))
    faces, calls, _ = numbers(ports["on"]) - first
    cells = "".join(f"  {a:>6.1f} {b:>7.1f} {b / a:>5.2f}x" for a, b in zip(off, on, strict=True))
    print(f"{connections:>11}{cells}  {faces / max(1, calls):>8.1f}" + (f"  {bad} refused" if bad else ""), flush=True)


if __name__ == "__main__":
    main()
