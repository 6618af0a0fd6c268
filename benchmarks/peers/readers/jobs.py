"""What every Python script here shares: crops in, one JSON line per crop out. numpy alone, whatever the environment.

    python ask_something.py REQUEST.json ANSWERS.jsonl

The request: {"pixels": file, "options": {...}, "jobs": [{"file", "offset", "height", "width", "box"}]}; a job's crop is
height * width * 3 bytes RGB at its offset of `pixels`, and `box` (left, top, right, bottom, or null) the face in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np

Reader = Callable[[np.ndarray, "list[int] | None"], dict]
WARM_UP = 3  # the first calls load weights and choose kernels


def request() -> dict:
    """The request that the command line names."""
    return json.loads(Path(sys.argv[1]).read_text())


def answer_all(read: Reader) -> None:
    """Call `read(crop [H, W, 3] uint8 RGB, box)` for every job and write what it returns, with the milliseconds.

    The milliseconds are the processor's, all threads: with one thread the same as a clock's where nothing else runs,
    and still true where something does. What raises is written as {"file", "error"} and does not stop the rest.
    """
    asked = request()
    pixels = np.memmap(asked["pixels"], np.uint8, "r")

    def crop(job: dict) -> np.ndarray:
        shape = (job["height"], job["width"], 3)
        return np.array(pixels[job["offset"] : job["offset"] + int(np.prod(shape))]).reshape(shape)

    for job in asked["jobs"][:WARM_UP]:
        _try(read, crop(job), job["box"])
    with Path(sys.argv[2]).open("w") as out:
        for job in asked["jobs"]:
            image = crop(job)
            begin = process_time()
            found = _try(read, image, job["box"])
            spent = (process_time() - begin) * 1000
            print(json.dumps({"file": job["file"], "milliseconds": spent, **found}), file=out, flush=True)


def _try(read: Reader, image: np.ndarray, box: list[int] | None) -> dict:
    try:
        return read(image, box)
    except Exception as error:  # whatever a package raises is its answer
        return {"error": f"{type(error).__name__}: {error}"}
