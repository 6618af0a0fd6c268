"""One process per package: a request goes in, answers come out as arrays. Answers are kept, so that another model of
ours is compared without asking the packages again."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.catalogue import PEERS, READERS, THREEFOLD
from benchmarks.peers.install import command
from benchmarks.peers.lists import Sample, asked_of, write_request
from threefold import labels
from threefold.errors import ThreefoldError
from threefold.files import digest, write_text
from threefold.labels import UNKNOWN
from threefold.progress import bar

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Answers:
    """What one peer said of N photos. said: [N, 3] codes (mask, gender, age group). two_way: [N] worn (0) or none (2),
    whichever is the likelier of these two. All UNKNOWN where it was not asked, does not read that, or failed.

    milliseconds: [N], NaN where it was not asked or failed. errors: what it raised, one line each.
    """

    said: NDArray[np.int64]
    two_way: NDArray[np.int64]
    milliseconds: NDArray[np.float64]
    errors: tuple[str, ...] = ()


def ask(name: str, sample: Sample, root: Path, kept: Path, model: str | None, scale: float | None = None) -> Answers:
    """Answers of the peer `name` on a sample; `root` holds the environments, `kept` the answers of earlier runs.

    model: what threefold loads; its answers are never kept, since its code changes as well. scale: instead of the
    catalogue's. Raises ThreefoldError when the peer's process fails.
    """
    peer = PEERS[name] if scale is None else replace(PEERS[name], scale=scale)
    rows = asked_of(peer, sample)
    if not rows:
        return collect(sample, [], [])
    options: dict[str, Any] = dict(peer.options) | ({"model": model} if name == THREEFOLD else {})
    with TemporaryDirectory(prefix="threefold-peers-") as place:
        folder = Path(place)
        asked = write_request(peer, sample, rows, folder, options)
        script = READERS / peer.script
        key = digest(asked, peer.package, script.read_text(), (READERS / f"jobs{script.suffix}").read_text())
        file = kept / f"{name.replace(' ', '-')}-{key}.jsonl"
        if name == THREEFOLD or not file.is_file():
            words = [*command(peer, root), str(script), str(folder / "request.json"), str(folder / "answers.jsonl")]
            words += [] if peer.environment is None else [str(root / peer.environment)]
            _run(words, f"{sample.name}: {name}", folder / "answers.jsonl", len(rows))
            text = (folder / "answers.jsonl").read_text()
            if name == THREEFOLD:
                return collect(sample, rows, map(json.loads, text.splitlines()))
            write_text(file, text)
    return collect(sample, rows, map(json.loads, file.read_text().splitlines()))


def collect(sample: Sample, rows: list[int], lines: Iterable[dict[str, Any]]) -> Answers:
    """Answers of the JSON lines that a peer wrote about `rows`, in order; raises ThreefoldError when some are missing.

    A line holds file, milliseconds and what the peer reads: gender, age (years) or age_group, mask, `worn` (the chance
    of worn where it is that or none); or error.
    """
    count, found = len(sample), list(lines)
    if [line["file"] for line in found] != [sample.faces[row].id for row in rows]:
        raise ThreefoldError(f"{sample.name}: {len(found)} answers to {len(rows)} photos, or in another order")
    said = np.full((count, 3), UNKNOWN, dtype=np.int64)
    two_way, spent = np.full(count, UNKNOWN, dtype=np.int64), np.full(count, np.nan)
    errors = []
    for row, line in zip(rows, found, strict=True):
        if "error" in line:
            errors.append(f"{line['file']}: {line['error']}")
            continue
        spent[row] = line["milliseconds"]
        said[row] = _codes(line)
        if "worn" in line:
            two_way[row] = labels.Mask.WORN if line["worn"] > 0.5 else labels.Mask.NONE
    return Answers(said, two_way, spent, tuple(errors))


def _codes(line: dict[str, Any]) -> tuple[int, int, int]:
    mask, gender = (labels.parse(name, line.get(name) or "") for name in ("mask", "gender"))
    if line.get("age_group"):
        return mask, gender, labels.parse("age_group", line["age_group"])
    age = line.get("age")
    return mask, gender, UNKNOWN if age is None else labels.age_group(age)


def _run(words: list[str], title: str, answers: Path, total: int) -> None:
    """Run a peer's script to its end, its lines counted for the progress bar."""
    environment = os.environ | dict.fromkeys(THREADS, "1")
    with TemporaryDirectory() as place, bar(title) as report:
        log = Path(place) / "stderr"
        with log.open("wb") as errors, subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=environment
        ) as process:  # fmt: skip
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    if answers.is_file():
                        report(answers.read_bytes().count(b"\n"), total)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
            raise ThreefoldError(f"{title}: ended with {process.returncode} ({lines[-1].strip()})")
