"""`threefold sample`: a practice set of drawn people in the contest's layout, for tests and the demo.

    OUT/train/train.csv                               id,gender,race,age,path
    OUT/train/images/{id}_{gender}_Drawn_{age}/       mask1..mask5, incorrect_mask, normal (.jpg)
    OUT/train/landmarks68.npz                         files [N] (the `normal` photos), xy [N, 68, 2] pixels
    OUT/eval/info.csv, images/{40 hex}.jpg            ImageID,ans with ans 0, in shuffled order
    OUT/eval/answers.csv                              ImageID,ans,person,age: what the contest keeps to itself

The drawing itself is in `data.sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from threefold.data.layouts import CONTEST_MASKS, write_eval_tables, write_train_table
from threefold.draw.camera import RACE, Drawn, Job, draw_files
from threefold.errors import DataError
from threefold.files import atomic_write, new_folder
from threefold.labels import NAMES, decode
from threefold.parallel import processes
from threefold.progress import Advance, bar

_MOST = 100_000
_EVAL_FROM = 500_000  # people of the eval set are numbered from here, so neither set depends on the other's size


def sample(
    out: Path, *, people: int = 120, seed: int = 0, size: tuple[int, int] = (512, 384), eval_people: int | None = None,
    workers: int | None = None, progress: Advance | None = None,
) -> Path:  # fmt: skip
    """Draw `people` (6..100,000) for training and `eval_people` others (default two thirds as many; 0: no eval set).

    size: (height, width), 32..2048 pixels each. workers: processes, default one per core. The same arguments give the
    same bytes, whatever `workers` is, and a person does not depend on how many there are. OUT appears whole or not at
    all. `progress(done, photos)` is called from this process; without one a bar or lines on stderr tell. Returns OUT;
    raises DataError when OUT holds anything already or cannot be written, or a number is out of range.
    """
    others = people * 2 // 3 if eval_people is None else eval_people
    _check(people, others, seed, size, workers)
    with new_folder(out) as build:
        folders = {"train": build / "train/images", "eval": build / "eval/images"}
        jobs = [Job(folders["train"], seed, index, size, False) for index in range(people)]
        jobs += [Job(folders["eval"], seed, _EVAL_FROM + index, size, True) for index in range(others)]
        for folder in {job.folder for job in jobs}:
            folder.mkdir(parents=True)
        photos: list[Drawn] = []
        with bar("drawing people") if progress is None else nullcontext(progress) as report:
            for drawn in processes(draw_files, jobs, least=12, workers=workers, chunk=2):
                photos += drawn
                report(len(photos), len(CONTEST_MASKS) * len(jobs))
        _write_train(build / "train", photos[: len(CONTEST_MASKS) * people])
        if others:
            answers = [(p.path, p.label, p.person, p.age) for p in photos[len(CONTEST_MASKS) * people :]]
            write_eval_tables(build / "eval", answers)
    return out


def _check(people: int, others: int, seed: int, size: tuple[int, int], workers: int | None) -> None:
    if not 6 <= people <= _MOST:
        raise DataError(f"people {people}: expected 6 to {_MOST:,}; fewer cannot hold every gender and age group")
    if not 0 <= others <= _MOST:
        raise DataError(f"eval people {others}: expected 0 to {_MOST:,}")
    if seed < 0:
        raise DataError(f"seed {seed}: expected a whole number from 0 on")
    if workers is not None and workers < 1:
        raise DataError(f"workers {workers}: expected 1 or more")
    if not all(32 <= side <= 2048 for side in size):
        raise DataError(f"size {size[0]}x{size[1]}: expected a height and a width of 32 to 2048 pixels")


def _write_train(train: Path, photos: Sequence[Drawn]) -> None:
    normal = sorted((photo for photo in photos if photo.path.endswith("/normal.jpg")), key=lambda photo: photo.path)
    write_train_table(
        train, [(p.person, NAMES["gender"][decode(p.label)[1]], RACE, p.age, str(Path(p.path).parent)) for p in normal]
    )
    files = np.array([f"images/{photo.path}" for photo in normal])
    xy = np.stack([photo.points for photo in normal])
    atomic_write(train / "landmarks68.npz", lambda file: np.savez(file, files=files, xy=xy))
