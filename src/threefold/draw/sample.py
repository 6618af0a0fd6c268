"""`threefold sample`: a practice set of drawn people in the contest's layout, for tests and the demo.

OUT/train/train.csv                               id,gender,race,age,path
OUT/train/images/{id}_{gender}_Drawn_{age}/       mask1..mask5, incorrect_mask, normal (.jpg)
OUT/train/landmarks68.npz                         files [N] (the `normal` photos), xy [N, 68, 2] pixels
OUT/eval/info.csv, images/{40 hex}.jpg            ImageID,ans with ans 0, in shuffled order
OUT/eval/answers.csv                              ImageID,ans,person,age: what the contest keeps to itself
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threefold.data.layouts import CONTEST_MASKS, write_eval_tables, write_train_table
from threefold.draw.camera import RACE, Drawn, Job, draw_files
from threefold.draw.drawn_set import DrawnSet, need_number
from threefold.files import atomic_write, new_folder
from threefold.labels import NAMES, decode
from threefold.parallel import processes
from threefold.progress import bar

_MOST = 100_000
_EVAL_FROM = 500_000  # people of the eval set are numbered from here, so neither set depends on the other's size


def sample(
    out: str | Path,
    *,
    people: int = 120,
    seed: int = 0,
    size: tuple[int, int] = (512, 384),
    eval_people: int | None = None,
    workers: int | None = None,
) -> DrawnSet:
    """Draw `people` (6..100,000) for training and `eval_people` others (default two thirds as many; 0: no eval set).

    size: (height, width), 32..2048 pixels each. workers: processes, default one per core. The same arguments give the
    same bytes, whatever `workers` is, and a person does not depend on how many there are. OUT appears whole or not at
    all. Raises DataError when OUT holds anything already or cannot be written, or a number is out of range.
    """
    others = people * 2 // 3 if eval_people is None else eval_people
    need_number("people", people, 6, _MOST)  # fewer cannot hold every gender and age group
    need_number("eval people", others, 0, _MOST)
    need_number("seed", seed, 0)
    need_number("height", size[0], 32, 2048)
    need_number("width", size[1], 32, 2048)
    need_number("workers", 1 if workers is None else workers, 1)
    with new_folder(Path(out)) as build:
        folders = {"train": build / "train/images", "eval": build / "eval/images"}
        jobs = [Job(folders["train"], seed, index, size, False) for index in range(people)]
        jobs += [Job(folders["eval"], seed, _EVAL_FROM + index, size, True) for index in range(others)]
        for folder in {job.folder for job in jobs}:
            folder.mkdir(parents=True)
        photos: list[Drawn] = []
        with bar("drawing people") as advance:
            for drawn in processes(draw_files, jobs, least=12, workers=workers, chunk=2):
                photos += drawn
                advance(len(photos), len(CONTEST_MASKS) * len(jobs))
        _write_train(build / "train", photos[: len(CONTEST_MASKS) * people])
        if others:
            answers = [(p.path, p.label, p.person, p.age) for p in photos[len(CONTEST_MASKS) * people :]]
            write_eval_tables(build / "eval", answers)
    return DrawnSet(Path(out), {"train": people, "eval": others}, len(photos), {})


def _write_train(train: Path, photos: Sequence[Drawn]) -> None:
    normal = sorted((photo for photo in photos if photo.path.endswith("/normal.jpg")), key=lambda photo: photo.path)
    write_train_table(
        train, [(p.person, NAMES["gender"][decode(p.label)[1]], RACE, p.age, str(Path(p.path).parent)) for p in normal]
    )
    files = np.array([f"images/{photo.path}" for photo in normal])
    xy = np.stack([photo.points for photo in normal])
    atomic_write(train / "landmarks68.npz", lambda file: np.savez(file, files=files, xy=xy))
