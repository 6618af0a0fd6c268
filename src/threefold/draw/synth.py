"""`threefold synth SOURCE OUT`: real portraits -> the contest's layout, train/ and eval/ with its answers beside it.

A person gets seven photos of one portrait: five worn masks, one incorrect, none. All seven go through one camera
(framing, exposure, colour, grain and JPEG from one distribution), so only the face tells how the mask is worn. Who is
taken is decided before anything is drawn (`choose`), and a person's photos depend on the seed and that person alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from threefold import labels
from threefold.data.check import scan_all
from threefold.data.duplicates import SIDE, near_duplicates, person_groups
from threefold.data.face import Face
from threefold.data.layouts import CONTEST_MASKS, write_eval_tables, write_train_table
from threefold.data.sources import read_faces, split_sources
from threefold.draw.drawn_set import DrawnSet, need_number
from threefold.draw.landmarks import Array, FaceGeometry, fit_geometry
from threefold.draw.masks import MaskDesign, random_design
from threefold.draw.overlay import Image, draw_mask, wrong_ways
from threefold.errors import DataError, one_of
from threefold.files import digest, new_folder, write_csv
from threefold.labels import Mask
from threefold.parallel import processes
from threefold.photos.decode import decode
from threefold.progress import bar

Match = Literal["contest", "none"]
Size = tuple[int, int]

_GROUPS = {(0, 0): 549, (0, 1): 410, (0, 2): 83, (1, 0): 732, (1, 1): 817, (1, 2): 109}
"""People of the contest by (gender, age group)."""
_AGES = dict(zip(range(18, 61), (
    192, 407, 267, 41, 58, 72, 62, 82, 44, 15, 25, 16, 17, 3, 7, 5, 13, 19, 8, 3, 14, 6, 20, 7, 13, 18, 13, 27, 14, 10,
    39, 31, 80, 63, 78, 64, 82, 100, 123, 106, 159, 85, 192), strict=True))  # fmt: skip
"""People of the contest by age; it knows nothing below 18 and calls everybody over 60 sixty."""
_OLDEST = 64
_PLACES = ("landmarks49.npz", "landmarks68.npz", "train/landmarks49.npz", "train/landmarks68.npz")


@dataclass(frozen=True, slots=True)
class _Person:
    """A portrait to draw on; age as it will be written."""

    face: Face
    points: NDArray[np.float32]
    gender: int
    age: int
    race: str


_Files = tuple[_Person, dict[str, Path]]
"""A person, and where its seven photos go by the contest's stem."""


def synth(
    source: str,
    out: str | Path,
    *,
    people: int,
    match: Match,
    seed: int,
    size: tuple[int, int] = (512, 384),
    eval_people: int | None = None,
    workers: int | None = None,
) -> DrawnSet:
    """Write `people` persons to out/train and `eval_people` others to out/eval.

    source: as `read_faces` takes it; photos with landmarks (landmarks49.npz or landmarks68.npz in the source's folder:
    `files` [N], `xy` [N, K, 2]) that show no mask, one per person. match: "contest" draws people to its gender x age
    histogram (18 to 64, written as at most 60), "none" at random from all. eval_people: 2/3 of `people` by default, or
    as many as are left; their ages are spread as in train. size: (height, width). The same seed gives the same bytes
    for any number of `workers` (processes; all cores by default). Raises DataError for a folder that is not empty, no
    landmarks, or too few people.
    """
    need_number("people", people, 1)
    need_number("eval people", eval_people or 0, 0)
    need_number("height and width", min(size), 16)
    if match not in get_args(Match):
        raise DataError(f"match {match!r} is not known ({one_of(get_args(Match), match)})")
    pool, skipped = _candidates(source, match)
    unique = _once(pool)
    train, held = choose(unique, people, eval_people, match, seed)
    with new_folder(Path(out)) as building:
        files = _train_files(train, building / "train")
        files += _eval_files(held, building / "eval", seed) if held else []
        draw = partial(_draw, seed=seed, size=size)
        with bar("drawing masks", "people") as advance:
            for done, _ in enumerate(processes(draw, files, least=4, workers=workers), 1):
                advance(done, len(files))
    remarks = {
        "left out: no landmarks or labels": skipped,
        "left out: the portrait cannot be read or is another person's as well": len(pool) - len(unique),
    }
    if eval_people is None:
        remarks["fewer in eval than two thirds of train: no more people are left"] = round(people * 2 / 3) - len(held)
    counts = {"train": people, "eval": len(held)}
    photos = len(CONTEST_MASKS) * len(files)
    return DrawnSet(Path(out), counts, photos, {remark: count for remark, count in remarks.items() if count})


def _candidates(source: str, match: Match) -> tuple[list[_Person], int]:
    """One photo per person that has landmarks, gender and age and shows no mask; and how many persons have not."""
    roots = [root if root.is_dir() else root.parent for _, root in split_sources(source)]
    files = [root / place for root in roots for place in _PLACES if (root / place).is_file()]
    if not files:
        where, places = (", ".join(map(str, paths)) for paths in (roots, _PLACES))
        raise DataError(f"{where}: no landmarks; looked for {places}, which hold `files` [N] and `xy` [N, K, 2]")
    points = {photo: xy for file in files for photo, xy in _landmarks(file).items()}
    people: dict[str, _Person] = {}
    persons = set()
    for face in read_faces(source):
        wrong_age = match == "contest" and face.age is not None and not min(_AGES) <= face.age < _OLDEST + 1
        if wrong_age or face.mask not in (None, Mask.NONE):
            continue
        persons.add(face.person)
        xy = points.get(face.photo.resolve())
        if xy is not None and face.gender is not None and face.age is not None and face.person not in people:
            age = min(int(face.age), max(_AGES)) if match == "contest" else int(face.age)
            parts = face.photo.parent.name.split("_")  # only the contest's folders have the race in their names
            race = parts[-2] if face.photo.stem in CONTEST_MASKS and len(parts) >= 4 else "Unknown"
            people[face.person] = _Person(face, xy, face.gender, age, race)
    return [people[name] for name in sorted(people)], len(persons) - len(people)


def _once(pool: Sequence[_Person]) -> list[_Person]:
    """The people whose portrait can be read, one of each who share a picture: else train and eval could share it."""
    scans = scan_all([person.face.photo for person in pool])
    readable = [row for row, scan in enumerate(scans) if scan.fingerprint is not None]
    if scans and not readable:
        raise DataError(f"none of the {len(pool)} portraits with landmarks can be read: {scans[0].reason}")
    prints = np.array([scans[row].fingerprint for row in readable], np.uint8).reshape(-1, SIDE, SIDE)
    names = [pool[row].face.person for row in readable]
    groups = person_groups(names, near_duplicates(prints, names))
    return [pool[readable[place]] for place in np.sort(np.unique(groups, return_index=True)[1])]


def _landmarks(file: Path) -> dict[Path, NDArray[np.float32]]:
    """Photo -> its points, of the photos whose points are numbers."""
    try:
        with np.load(file) as table:
            names, places = table["files"], table["xy"].astype(np.float32)
        points = {(file.parent / str(name)).resolve(): xy for name, xy in zip(names, places, strict=True)}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"{file}: cannot be read as `files` [N] and `xy` [N, K, 2] ({error})") from error
    return {photo: xy for photo, xy in points.items() if np.isfinite(xy).all()}


def choose(
    pool: Sequence[_Person], people: int, eval_people: int | None, match: Match, seed: int
) -> tuple[list[_Person], list[_Person]]:
    """Persons of train and of eval, disjoint, in random order. See `synth`; raises DataError when short.

    Train and eval are drawn together and then dealt by age, so that both have the same years where years are short.
    """
    rng = np.random.default_rng([seed, 0])
    cells: dict[tuple[int, int], list[_Person]] = defaultdict(list)
    for k in rng.permutation(len(pool)):
        cells[(pool[k].gender, labels.age_group(pool[k].age)) if match == "contest" else (0, 0)].append(pool[k])
    shares = _GROUPS if match == "contest" else {(0, 0): 1}
    wanted = round(people * 2 / 3) if eval_people is None else eval_people
    takes, gives = _quota(shares, people), _quota(shares, wanted)
    while wanted and eval_people is None and any(takes[key] + gives[key] > len(cells[key]) for key in shares):
        wanted -= 1
        gives = _quota(shares, wanted)
    train: list[_Person] = []
    held: list[_Person] = []
    for key, taken in takes.items():
        need = taken + gives[key]
        if len(cells[key]) < need:
            who = f"{labels.name('gender', key[0])} {labels.name('age_group', key[1])} " if match == "contest" else ""
            raise DataError(
                f"{need} {who}people are needed for {people} in train and {wanted} in eval, the source has "
                f"{len(cells[key])} with landmarks"
            )
        drawn = _nearest(cells[key], need) if match == "contest" else cells[key][:need]
        drawn.sort(key=lambda person: person.age)
        turn = int(rng.integers(need)) if need else 0
        for k, person in enumerate(drawn):
            goes = (k + turn + 1) * gives[key] // need - (k + turn) * gives[key] // need
            (held if goes else train).append(person)
    return [train[k] for k in rng.permutation(len(train))], [held[k] for k in rng.permutation(len(held))]


def _quota(shares: dict[Any, int], total: int) -> dict[Any, int]:
    """`total` dealt by shares, equal to rounding: the largest remainders get what rounding down leaves."""
    exact = {key: total * share / sum(shares.values()) for key, share in shares.items()}
    dealt = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda k: dealt[k] - exact[k])[: total - sum(dealt.values())]:
        dealt[key] += 1
    return dealt


def _nearest(cell: Sequence[_Person], count: int) -> list[_Person]:
    """`count` persons of one age group whose ages follow the contest's; a year that is short takes from the nearest."""
    years: dict[int, list[_Person]] = defaultdict(list)
    for person in cell:
        years[person.age].append(person)
    group = labels.age_group(cell[0].age) if cell else 0
    open_ = _quota({age: n for age, n in _AGES.items() if labels.age_group(age) == group}, count)
    drawn: list[_Person] = []
    for distance in range(len(_AGES)):
        for age in open_:
            for near in (age - distance, age + distance):
                some = min(open_[age], len(years[near]))
                drawn += [years[near].pop() for _ in range(some)]
                open_[age] -= some
    return drawn


def _train_files(people: Sequence[_Person], folder: Path) -> list[_Files]:
    """Make the folders and tables of train; where every photo goes."""
    files, rows, sources = [], [], []
    for number, person in enumerate(people, 1):
        gender = labels.name("gender", person.gender)
        name = f"{number:06d}_{gender}_{person.race}_{person.age}"
        rows.append((f"{number:06d}", gender, person.race, person.age, name))
        sources.append((f"{number:06d}", person.face.person, person.face.id))
        home = folder / "images" / name
        home.mkdir(parents=True)
        files.append((person, {stem: home / f"{stem}.jpg" for stem in CONTEST_MASKS}))
    write_train_table(folder, rows)
    write_csv(folder / "sources.csv", [("id", "person", "photo"), *sources])
    return files


def _eval_files(people: Sequence[_Person], folder: Path, seed: int) -> list[_Files]:
    """Make the tables of eval; where every photo goes: a digest, so that the order of names mixes persons and masks."""
    (folder / "images").mkdir(parents=True)
    files, rows, sources = [], [], []
    for number, person in enumerate(people, 1):
        names = {stem: f"{digest(str(seed), person.face.person, stem, size=20)}.jpg" for stem in CONTEST_MASKS}
        for stem, name in names.items():
            code = labels.encode(int(CONTEST_MASKS[stem]), person.gender, labels.age_group(person.age))
            rows.append((name, code, f"{number:06d}", person.age))
        sources.append((f"{number:06d}", person.face.person, person.face.id))
        files.append((person, {stem: folder / "images" / name for stem, name in names.items()}))
    write_eval_tables(folder, rows)
    write_csv(folder / "sources.csv", [("person", "source_person", "photo"), *sources])
    return files


def _draw(files: _Files, *, seed: int, size: tuple[int, int]) -> None:
    """Draw and write one person's photos."""
    person, paths = files
    rng = np.random.default_rng([seed, int(digest(person.face.person, size=8), 16)])
    photo, points = _shrink(decode(person.face.photo), person.points, size)
    geometry = fit_geometry(points)
    designs: dict[tuple[str, str, str], MaskDesign] = {}
    while len(designs) < 6:  # a person never wears the same mask twice
        design = random_design(rng)
        designs.setdefault(design.key, design)
    middle, zoom = _frame(photo, geometry, size, rng)
    kinds = wrong_ways(geometry, middle[1] + 0.45 * size[0] / zoom)
    wrong = kinds[int(rng.integers(len(kinds)))]
    for stem, file in paths.items():
        mask, shown = CONTEST_MASKS[stem], photo
        if mask != Mask.NONE:
            _, design = designs.popitem()
            shown = draw_mask(photo, geometry, design, "worn" if mask == Mask.WORN else wrong)
        file.write_bytes(_photograph(shown, middle, zoom, size, rng))


def _shrink(photo: Image, points: NDArray[np.float32], size: tuple[int, int]) -> tuple[Image, NDArray[np.float32]]:
    """A photo much larger than what is written is made smaller first: masks are drawn at the photo's resolution."""
    cover = max(size[0] / photo.shape[0], size[1] / photo.shape[1])
    if cover > 0.8:
        return photo, points
    width, height = (max(1, round(side * cover * 1.25)) for side in photo.shape[1::-1])
    ratio = np.array([width / photo.shape[1], height / photo.shape[0]], np.float32)
    return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8), points * ratio


def _frame(photo: Image, geometry: FaceGeometry, size: Size, rng: np.random.Generator) -> tuple[Array, float]:
    """The point of the portrait that goes to the picture's middle, and its enlargement.

    The portrait covers the picture, eyes at 42 % of the height where its borders allow that, no face too small.
    """
    height, width = size
    least = max(height / photo.shape[0], width / photo.shape[1], 0.16 * width / geometry.scale)
    zoom = least * rng.uniform(1.0, 1.06)
    half = np.array([width, height]) / (2 * zoom)
    low, high = half, np.array(photo.shape[1::-1]) - half
    eyes = geometry.eyes.mean(axis=0) + np.array([0, 0.08 * height / zoom])
    return np.clip(eyes, np.minimum(low, high), np.maximum(low, high)), float(zoom)


def _photograph(shown: Image, middle: Array, zoom: float, size: Size, rng: np.random.Generator) -> bytes:
    """One exposure as JPEG: moved a little; light, colour, blur and grain by lot, the same way for every photo.

    A drawn mask first goes through a JPEG at the portrait's size, so that it has the portrait's blocks and ringing.
    """
    height, width = size
    shown = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(shown), int(rng.integers(88, 98))))
    turn, zoom = np.radians(rng.uniform(-2.5, 2.5)), zoom * rng.uniform(1.0, 1.07)
    linear = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    goal = np.array([width, height]) * (0.5 + rng.uniform(-0.02, 0.02, 2))
    move = np.column_stack([linear, goal - linear @ middle])
    photo = cv2.warpAffine(shown, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    tone = np.arange(256) / 255
    gamma, gain = rng.uniform(0.9, 1.1), rng.uniform(0.92, 1.07)
    curves = [255 * gain * white * tone**gamma for white in rng.uniform(0.975, 1.025, 3)]
    photo = cv2.LUT(photo, np.clip(np.column_stack(curves)[None], 0, 255).astype(np.uint8))
    soft = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.2, 0.8))
    grain = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0.5, 2.5))
    noisy = cv2.add(soft, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    return bytes(simplejpeg.encode_jpeg(noisy, int(rng.integers(85, 96)), colorsubsampling="420"))
