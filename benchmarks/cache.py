"""How long the first epoch waits: the photo cache against a plain Pillow loop over the same photos, in one run.

    python benchmarks/cache.py --photos 1000            # drawn at 384x512
    python benchmarks/cache.py --data FOLDER            # the .jpg files below it

Ratios within one run are what can be compared between machines; the seconds cannot.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from threefold.data.face import Face
from threefold.photos import cache
from threefold.photos.cache import open_cache
from threefold.photos.prepare import Prepare


def draw(folder: Path, count: int) -> None:
    """Smooth colours under fine noise: about 60 kB each at quality 90, as a camera's photo of that size has."""
    rng = np.random.default_rng(0)
    for number in range(count):
        smooth = cv2.resize(rng.integers(0, 256, (16, 12, 3), dtype=np.uint8), (384, 512)).astype(np.int16)
        photo = (smooth + rng.integers(-12, 12, smooth.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f"{number}.jpg", quality=90)


def naive(faces: list[Face], prepare: Prepare) -> None:
    for face in faces:
        with Image.open(face.photo) as image:
            size = prepare.size[::-1]
            np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall clock, and of all cores; the second hardly depends on what else the machine does."""
    wall, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cores


def one_round(faces: list[Face], prepare: Prepare, root: Path) -> dict[str, tuple[float, float]]:
    return {
        "Pillow loop": timed(lambda: naive(faces, prepare)),
        "first open, 1 thread": timed(lambda: open_cache(faces, prepare, root=root / "one", workers=1)),
        "first open": timed(lambda: open_cache(faces, prepare, root=root / "all")),
        "second open": timed(lambda: open_cache(faces, prepare, root=root / "all")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument(
        "--rounds", type=int, default=10, help="the photos are split; medians over the rounds are shown"
    )
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    prepare = Prepare()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch) / "photos"
        if not options.data:
            folder.mkdir()
            draw(folder, options.photos)
        faces = [Face(path, path.stem, path.name) for path in sorted(folder.rglob("*.jpg"))[: options.photos]]
        time.sleep(cache.RACY_NS / 1e9 + 0.1)  # files this young are not believed to be unchanged
        one_round(faces[:: options.rounds], prepare, Path(scratch) / "warm up")
        parts = [faces[number :: options.rounds] for number in range(options.rounds)]
        rounds = [one_round(part, prepare, Path(scratch) / f"{number}") for number, part in enumerate(parts)]
    print(f"{len(faces)} photos{'':<10}  wall ms/photo      x   cores ms/photo      x")
    for name in rounds[0]:
        spent = np.array([times[name] for times in rounds]) / len(parts[0]) * 1e3
        ratio = np.array([times["Pillow loop"] for times in rounds]) / np.array([times[name] for times in rounds])
        (wall, cores), (wall_x, cores_x) = np.median(spent, axis=0), np.median(ratio, axis=0)
        print(f"{name:<22}{wall:13.3f}{wall_x:7.1f}{cores:17.3f}{cores_x:7.1f}")


if __name__ == "__main__":
    main()
