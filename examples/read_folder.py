"""Read every photo of a folder with a trained run and count what was read; broken photos are listed, not fatal.

python examples/read_folder.py RUN FOLDER
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import threefold
from threefold.errors import PhotoError
from threefold.infer.inputs import find_photos


def main(run: str, folder: str) -> None:
    """Print how often each mask status was read, and how sure the model was on average."""
    reader = threefold.load(run)
    masks: Counter[str] = Counter()
    sure = 0.0
    for reading in reader.stream(path for _, path in find_photos([Path(folder)])):
        if isinstance(reading, PhotoError):
            print(reading, file=sys.stderr)
            continue
        masks[reading.mask] += 1
        sure += reading.confidence
    print(", ".join(f"{name} {count}" for name, count in masks.most_common()))
    print(f"mean confidence {sure / max(masks.total(), 1):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
