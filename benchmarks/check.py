"""How fast `check` reads a set in the contest's layout, against one plain Pillow loop that does the same work.

    python benchmarks/check.py --photos 2000

Draws the photos into a temporary folder (384x512 JPEG, quality 90). Both sides read each file once, decode it whole,
hash the bytes and make the fingerprint; the search for copies is timed apart, on all fingerprints.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from threefold.data.check import scan_all
from threefold.data.duplicates import fingerprint, near_duplicates
from threefold.data.sources import read_faces

STEMS = ["mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal"]


def draw(root: Path, photos: int) -> None:
    for number in range(photos):
        person = number // 7
        folder = root / f"images/{person:06}_{'fe' * (person % 2)}male_Asian_{18 + person % 43}"
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        smooth = cv2.resize(
            rng.integers(0, 255, (32, 24, 3)).astype(np.uint8), (384, 512), interpolation=cv2.INTER_CUBIC
        )
        grain = rng.integers(-8, 9, smooth.shape)
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{STEMS[number % 7]}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])


def naive(paths: list[Path]) -> None:
    for path in paths:
        data = path.read_bytes()
        hashlib.blake2b(data).digest()
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        fingerprint(np.asarray(image))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2000)
    photos = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), photos)
        faces = read_faces(Path(folder))
        paths = [face.photo for face in faces]
        began = time.perf_counter()
        scans = scan_all(paths)
        middle = time.perf_counter()
        near_duplicates(np.array([result.fingerprint for result in scans], np.uint8), [face.person for face in faces])
        searched = time.perf_counter()
        naive(paths)
        ended = time.perf_counter()
    rate, plain = photos / (middle - began), photos / (ended - searched)
    print(f"check: {rate:,.0f} photos/s; plain Pillow loop: {plain:,.0f} photos/s; ratio {rate / plain:.1f}")
    print(f"search for copies among {photos:,}: {searched - middle:.1f} s")


if __name__ == "__main__":
    main()
