"""How many frames a second `watch` deals with on a 720p video of people who walk by, and what the parts of it take.

    python benchmarks/watch.py                                     # the bundled reader, drawn faces
    python benchmarks/watch.py --model model.onnx --faces FOLDER   # the photos below it, each a person
    python benchmarks/watch.py --reader-ms 8                       # no model: one that takes so long per face

Against it the plain way: read every face in every frame, one row per face and frame. Both go over the same video in
turns, so that what else the machine does meets both; medians over the rounds are shown. Ratios within one run are what
can be compared between machines. No picture is kept: the video is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.draw.sample import sample
from threefold.photos.prepare import Prepare
from threefold.read.annotate import annotate
from threefold.read.inputs import find_photos
from threefold.read.reader import Reader, detect_faces, load, read_image
from threefold.read.videos import Video
from threefold.watch.record import Recording

module = import_module("threefold.watch.watch")  # `import threefold.watch.watch` would look into the verb
ROWS, COLUMNS, FPS = 720, 1280, 25
HEIGHT = 240
"""Pixels of a pasted portrait."""
Image = NDArray[np.uint8]
Spent = dict[str, float]


class Standin:
    """A backend that takes a set time per face and says 'mask worn' rather surely."""

    prepares = (Prepare(size=(128, 128), crop="face(1.6)"),)

    def __init__(self, milliseconds: float) -> None:
        self.seconds = milliseconds / 1000

    def __call__(self, photos: tuple[Image, ...]) -> tuple[NDArray[np.float32], None]:
        end = time.perf_counter() + self.seconds * len(photos[0])
        while time.perf_counter() < end:
            pass
        joint = np.full((len(photos[0]), 18), 0.01, np.float32)
        joint[:, 0] = 0.83
        return joint, None


def film(path: Path, faces: list[Image], people: int, seconds: float) -> int:
    """People in `people` rows of the picture walk through it, one after the other; returns how many they are."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 160, (9, 16, 3), dtype=np.uint8), (COLUMNS, ROWS))
    recording, frames = Recording(path, FPS), round(seconds * FPS)
    stay = 6 * FPS
    starts = [(first, lane) for lane in range(people) for first in range(-lane * FPS, frames, stay + FPS)]
    for index in range(frames):
        picture = ground.copy()
        for number, (first, lane) in enumerate(starts):
            if first <= index < first + stay and first >= 0:
                face = faces[number % len(faces)]
                left = round((COLUMNS - face.shape[1]) * (index - first) / stay)
                top = round((ROWS - HEIGHT) * (lane + 0.5) / people)
                picture[top : top + HEIGHT, left : left + face.shape[1]] = face
        recording.add(index / FPS, picture)
    recording.close()
    return sum(first >= 0 for first, _ in starts)


def portraits(folder: Path, count: int) -> list[Image]:
    """Photos in which the detector finds one face, at one height."""
    portraits = []
    for _, path in find_photos([folder]):
        image = read_image(path)
        scaled = cv2.resize(image, (round(image.shape[1] * HEIGHT / image.shape[0]), HEIGHT))
        if len(detect_faces(scaled)) == 1:
            portraits.append(np.asarray(scaled, dtype=np.uint8))
        if len(portraits) == count:
            return portraits
    raise SystemExit(f"{folder}: the detector finds a single face in {len(portraits)} photos only, {count} are needed")


@contextmanager
def timed(spent: Spent, name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - begin


def clocked(work: Callable[..., Any], spent: Spent, name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        with timed(spent, name):
            return work(*args)

    return run


class Counted:
    """A backend that counts and clocks; everything else is the backend's own."""

    def __init__(self, backend: Any, spent: Spent) -> None:
        self.backend, self.spent, self.prepares, self.faces = backend, spent, backend.prepares, 0

    def __call__(self, photos: tuple[Image, ...]) -> Any:
        self.faces += len(photos[0])
        with timed(self.spent, "network"):
            return self.backend(photos)


def ours(path: Path, backend: Any, folder: Path, save: bool) -> tuple[Spent, int, int]:
    """(seconds by part, readings, rows) of `watch`."""
    spent: Spent = defaultdict(float)
    counted = Counted(backend, spent)
    module.annotate = clocked(annotate, spent, "drawing")
    out = {"save": folder / "out.mp4"} if save else {}
    for file in folder.glob("out.*"):
        file.unlink()
    with timed(spent, "all"):
        done = module.watch(
            path, model=Reader(counted), find=clocked(detect_faces, spent, "detector"),
            events=folder / "out.sqlite", **out,
        )  # fmt: skip
    return spent, counted.faces, sum(done.counts.values()) + done.changed


def naive(path: Path, backend: Any, folder: Path, save: bool) -> tuple[Spent, int, int]:
    """The same of reading every face in every frame."""
    spent: Spent = defaultdict(float)
    counted = Counted(backend, spent)
    reader, source = Reader(counted), Video(str(path), path.name, live=False)
    for file in folder.glob("naive.*"):
        file.unlink()
    recording = Recording(folder / "naive.mp4", FPS) if save else None
    rows = 0
    with timed(spent, "all"), (folder / "naive.csv").open("w") as table:
        source.open()
        while (frame := source.read()) is not None:
            image, seconds = frame
            with timed(spent, "detector"):
                faces = detect_faces(image)
            readings = reader.read([(image, face.box) for face in faces]) if faces else []
            for face, reading in zip(faces, readings, strict=True):
                table.write(f"{seconds},{face.box},{reading.mask},{reading.confidence}\n")
            rows += len(readings)
            if recording:
                with timed(spent, "drawing"):
                    drawn = annotate(image, readings)
                recording.add(seconds or 0, drawn)
        source.close()
        if recording:
            recording.close()
    return spent, counted.faces, rows


def decoding(path: Path) -> float:
    source, begin = Video(str(path), path.name, live=False), time.perf_counter()
    source.open()
    while source.read() is not None:
        pass
    source.close()
    return time.perf_counter() - begin


def table(frames: int, rounds: dict[str, list[tuple[Spent, int, int]]], decode: list[float]) -> None:
    print(f"{'ms per frame (median of rounds)':<34}{'all':>8}{'detector':>10}{'network':>9}{'drawing':>9}"
          f"{'frames/s':>10}{'x naive':>9}{'readings':>10}{'rows':>7}")  # fmt: skip
    plain = {save: [spent["all"] for spent, _, _ in rounds[f"naive{save}"]] for save in ("", ", saved")}
    for name, done in rounds.items():
        parts = [np.median([spent[part] for spent, _, _ in done]) / frames * 1e3
                 for part in ("all", "detector", "network", "drawing")]  # fmt: skip
        base = plain[", saved" if name.endswith("saved") else ""]
        ratio = np.median(np.array(base) / np.array([spent["all"] for spent, _, _ in done]))
        numbers = "".join(f"{value:{width}.2f}" for value, width in zip(parts, (8, 10, 9, 9), strict=True))
        print(f"{name:<34}{numbers}{1e3 / parts[0]:10.1f}{ratio:9.2f}{done[0][1]:10,}{done[0][2]:7,}")
    print(f"{'decoding alone':<34}{np.median(decode) / frames * 1e3:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--reader-ms", type=float, help="no model: one that takes so many milliseconds per face")
    parser.add_argument("--faces", type=Path, help="folder of portraits (default: drawn ones)")
    parser.add_argument("--people", type=int, default=3, help="walking at the same time")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.faces is None:
            sample(folder / "drawn", people=12, seed=0)
        backend = Standin(options.reader_ms) if options.reader_ms is not None else load(options.model).backend
        faces = portraits(options.faces or folder / "drawn", 8)
        people = film(folder / "in.mp4", faces, options.people, options.seconds)
        rounds: dict[str, list[tuple[Spent, int, int]]] = defaultdict(list)
        decode = []
        for _ in range(options.rounds):
            decode.append(decoding(folder / "in.mp4"))
            for name, work in (("naive", naive), ("watch", ours)):
                for save in ("", ", saved"):
                    rounds[f"{name}{save}"].append(work(folder / "in.mp4", backend, folder, bool(save)))
        frames = round(options.seconds * FPS)
        print(f"{frames} frames of {COLUMNS}x{ROWS}, {people} people, {options.people} at a time")
        table(frames, rounds, decode)


if __name__ == "__main__":
    main()
