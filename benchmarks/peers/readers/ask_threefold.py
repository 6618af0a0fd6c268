"""threefold: `threefold.load(model)` on the whole photo with the face's box, as `predict` does; one thread.

The answer is the class it says, also where it would rather say "indeterminate": the other packages cannot abstain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jobs import answer_all, request

import threefold
from threefold import labels

model = request()["options"]["model"]
run = model is not None and Path(model).is_dir()  # a run computes with torch's threads, which the environment sets
reader = threefold.load(model, threads=None if run else 1)


def read(image: np.ndarray, box: list[int] | None) -> dict:
    reading = reader(image, None if box is None else tuple(map(float, box)))
    parts = dict(zip(labels.ATTRIBUTES, labels.decode(reading.code), strict=True))
    worn, _, bare = labels.marginals(reading.joint[None])["mask"][0].tolist()
    said = {name: labels.name(name, int(code)) for name, code in parts.items()}
    return {**said, "age": reading.age, "worn": worn / max(worn + bare, 1e-9)}


answer_all(read)
