"""Read every face in the photos of a folder and count what was read; broken photos are listed, not fatal.

python examples/read_folder.py FOLDER [MODEL]

MODEL is a run directory or an exported .onnx file; without it, the reader that comes with threefold is used.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import threefold


def main(folder: str, model: str | None = None) -> None:
    """Print how often each mask status was read, and how sure the model was of it on average."""
    reader = threefold.load(model)
    masks: Counter[str] = Counter()
    sure = 0.0
    for faces in reader.stream_faces((path for _, path in threefold.find_photos([Path(folder)])), "all"):
        if isinstance(faces, threefold.PhotoError):
            print(faces, file=sys.stderr)
            continue
        masks.update(reading.mask for reading in faces)
        sure += sum(reading.confidences["mask"] for reading in faces)
    print(", ".join(f"{name} {count}" for name, count in masks.most_common()) or "no faces")
    print(f"mean confidence {sure / max(masks.total(), 1):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
