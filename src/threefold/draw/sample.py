"""`threefold sample`: a practice set of drawn people in the contest's layout, for tests and the demo.

OUT/train/train.csv                               id,gender,race,age,path
OUT/train/images/{id}_{gender}_Drawn_{age}/       mask1..mask5, incorrect_mask, normal (.jpg)
OUT/train/landmarks68.npz                         files [N] (the `normal` photos), xy [N, 68, 2] pixels
OUT/eval/info.csv, images/{40 hex}.jpg            ImageID,ans with ans 0, in shuffled order
OUT/eval/answers.csv                              ImageID,ans,person,age: what the contest keeps to itself

Everything about one person and one photo depends on (seed, index, shot) alone, so a set of 20 people is the beginning
of the set of 2,000.
"""

from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from pathlib import Path

import numpy as np
import simplejpeg

from threefold.data.layouts import CONTEST_MASKS, write_eval_tables, write_train_table
from threefold.draw.camera import draw_photo
from threefold.draw.drawing import Floats
from threefold.draw.drawn_set import DrawnSet, need_number
from threefold.draw.people import draw_person
from threefold.files import atomic_write, new_folder
from threefold.labels import NAMES, decode, encode
from threefold.parallel import processes
from threefold.progress import bar

RACE = "Drawn"
_MOST = 100_000
_IDS = 999_983  # a prime: k -> 618,034 k modulo it is one-to-one, so ids look random and neighbours are no couple
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
        draw = partial(draw_files, out=build, seed=seed, size=size)
        indices = [*range(people), *range(_EVAL_FROM, _EVAL_FROM + others)]
        photos: list[Drawn] = []
        with bar("drawing people") as advance:
            for drawn in processes(draw, indices, least=12, workers=workers, chunk=2):
                photos += drawn
                advance(len(photos), len(CONTEST_MASKS) * len(indices))
        train, held = photos[: len(CONTEST_MASKS) * people], photos[len(CONTEST_MASKS) * people :]
        normal = sorted((photo for photo in train if photo.path.endswith("/normal.jpg")), key=lambda photo: photo.path)
        rows = [(p.person, NAMES["gender"][decode(p.label)[1]], RACE, p.age, Path(p.path).parent.name) for p in normal]
        write_train_table(build / "train", rows)
        files, xy = np.array([photo.path for photo in normal]), np.stack([photo.points for photo in normal])
        atomic_write(build / "train/landmarks68.npz", lambda file: np.savez(file, files=files, xy=xy))
        if held:
            answers = [(Path(photo.path).name, photo.label, photo.person, photo.age) for photo in held]
            write_eval_tables(build / "eval", answers)
    return DrawnSet(Path(out), {"train": people, "eval": others}, len(photos), {})


@dataclass(frozen=True)
class Drawn:
    """One written photo: its path below train/ or eval/, person, class 0..17, age and landmarks [68, 2] in pixels."""

    path: str
    person: str
    label: int
    age: int
    points: Floats


def person_id(seed: int, index: int) -> str:
    """Six digits, unique for index < 999,983, that give away neither order nor labels."""
    return f"{(index * 618_034 + seed * 7_919 + 104_729) % _IDS:06d}"


def draw_files(index: int, *, out: Path, seed: int, size: tuple[int, int]) -> list[Drawn]:
    """Draw the seven photos of a person, below train/images or, for an index of the eval set, eval/images.

    They are JPEG files of a random quality. size: (height, width). Train: `{id}_{gender}_{race}_{age}/{shot}.jpg`;
    eval: `{40 hex digits}.jpg`, as in the contest.
    """
    person, name = draw_person(seed, index), person_id(seed, index)
    held = index >= _EVAL_FROM
    home = "images" if held else f"images/{name}_{NAMES['gender'][person.gender]}_{RACE}_{person.age}"
    folder = out / ("eval" if held else "train")
    (folder / home).mkdir(parents=True, exist_ok=True)
    drawn = []
    for shot, (stem, mask) in enumerate(CONTEST_MASKS.items()):
        rng = np.random.default_rng([seed, 2, index, shot])
        photo, points = draw_photo(person, mask, rng, size)
        file = f"{home}/{sha1(f'{seed} {index} {shot}'.encode()).hexdigest() if held else stem}.jpg"
        quality = int(rng.integers(78, 96))
        (folder / file).write_bytes(simplejpeg.encode_jpeg(photo, quality=quality, colorsubsampling="420"))
        drawn.append(Drawn(file, name, encode(mask, person.gender, person.group), person.age, points))
    return drawn
