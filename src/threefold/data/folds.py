"""Who validates where: persons dealt into folds so that no person is on both sides and every fold looks like the whole.

A split is one int8 per photo: fold f validates the photos where it equals f and trains on all others; -1 always trains.
What is dealt are units: a person, or persons joined because they share a photo (`duplicates.person_groups`). The result
depends on names, labels and the seed, never on the order of the photos.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import spec
from threefold.data.face import Face
from threefold.data.tables import existing, read_rows
from threefold.errors import DataError, LeakError, RecipeError, one_of
from threefold.files import write_csv

MAX_FOLDS = 100
Parts = tuple[int, int, int]
Groups = Sequence[int] | NDArray[np.int64]


@dataclass(frozen=True)
class _Unit:
    """Photos that stay together. who: (gender, age group) of its persons; what: counts of (mask, gender, age group)."""

    name: str
    rows: tuple[int, ...]
    who: tuple[tuple[int, int], ...]
    what: tuple[tuple[Parts, int], ...]


def deal_folds(faces: Sequence[Face], k: int, *, seed: int, groups: Groups | None = None) -> NDArray[np.int8]:
    """[N] fold 0..k-1 of each photo; a person, and all persons of a group, in one fold.

    groups: [N] number of each photo's group, or None. Units are dealt one round after the other: within (gender, age
    group) the number of units per fold differs by at most 1, and so it does within equal sets of photos (the contest's
    seven). What that leaves open goes to the fold that is poorest in the unit's classes, then in photos, then by lot.
    Raises DataError for k < 2 or more folds than units.
    """
    units = _units(faces, groups)
    most = min(len(units), MAX_FOLDS)
    if not 2 <= k <= most:
        raise DataError(f"folds: {k} folds cannot be dealt; expected 2..{most} for {len(units)} persons")
    rng = np.random.default_rng(seed)
    photos_of = Counter(face.parts for face in faces)
    total = np.array([photos_of[parts] for parts in sorted(photos_of)], dtype=np.float64)
    kinds = {parts: n for n, parts in enumerate(sorted(photos_of))}
    dealt: dict[object, NDArray[np.int64]] = {}
    load, photos = np.zeros((k, len(kinds))), np.zeros(k)
    folds = np.full(len(faces), -1, dtype=np.int8)
    for unit in _ordered(units, rng):
        by_who = dealt.setdefault(unit.who, np.zeros(k, dtype=np.int64))
        by_what = dealt.setdefault((unit.who, unit.what), np.zeros(k, dtype=np.int64))
        row = np.zeros(len(kinds))
        row[[kinds[parts] for parts, _ in unit.what]] = [count for _, count in unit.what]
        rich = np.round(load @ (row / total), 9)
        fold = int(np.lexsort((rng.random(k), photos, rich, by_what, by_who))[0])
        by_who[fold] += 1
        by_what[fold] += 1
        load[fold] += row
        photos[fold] += len(unit.rows)
        folds[list(unit.rows)] = fold
    return folds


def holdout(faces: Sequence[Face], share: float, *, seed: int, groups: Groups | None = None) -> NDArray[np.int8]:
    """[N] 0 for the `share` of persons that validates, -1 for those who train; drawn evenly from every kind of person.

    Systematic sampling: each (gender, age group), and each equal set of photos in it, gives its share rounded up or
    down. At least one unit is on each side. Raises DataError for a share outside 0..1 or fewer than two units.
    """
    units = _units(faces, groups)
    if not 0 < share < 1:
        raise DataError(f"folds: holdout({share}) cannot be; expected a share between 0 and 1")
    if len(units) < 2:
        raise DataError(f"folds: holdout needs at least 2 persons, there are {len(units)}")
    rng = np.random.default_rng(seed)
    ordered = _ordered(units, rng)
    count = min(max(round(share * len(units)), 1), len(units) - 1)
    chosen = np.minimum((np.arange(count) + rng.random()) * len(units) / count, len(units) - 1).astype(np.int64)
    folds = everyone(faces)
    for place in chosen:
        folds[list(ordered[place].rows)] = 0
    return folds


def everyone(faces: Sequence[Face]) -> NDArray[np.int8]:
    """[N] -1: all photos train, none validates."""
    return np.full(len(faces), -1, dtype=np.int8)


def make_split(text: str, faces: Sequence[Face], *, seed: int, groups: Groups | None = None) -> NDArray[np.int8]:
    """The split a recipe's `data.folds` names: `5`, `holdout(0.2)`, `all`, or the path of a split.csv.

    Raises RecipeError for any other text, and what the function named raises.
    """
    key, text = "data.folds", str(text).strip()
    if text.removeprefix("-").isdecimal():
        return deal_folds(faces, int(text), seed=seed, groups=groups)
    if text.lower().endswith(".csv"):
        return read_split(Path(text), faces, groups)

    def held_out(share: float) -> NDArray[np.int8]:
        return holdout(faces, share, seed=seed, groups=groups)

    table: spec.Table = {"holdout": held_out, "all": lambda: everyone(faces)}
    name = spec.parse(text, key)[0].name
    if name not in table:
        nearest = one_of([*table, "split.csv"], name)
        raise RecipeError(f"{key}: {text!r} is no split; expected a number of folds or one of these ({nearest})")
    folds: NDArray[np.int8] = spec.build_one(text, table, key)
    return folds


def write_split(path: Path, faces: Sequence[Face], folds: NDArray[np.int8]) -> None:
    """Write `photo,person,fold` rows, sorted by photo, atomically."""
    rows = sorted((face.id, face.person, int(fold)) for face, fold in zip(faces, folds, strict=True))
    write_csv(path, [("photo", "person", "fold"), *rows])


def read_split(path: Path, faces: Sequence[Face], groups: Groups | None = None) -> NDArray[np.int8]:
    """[N] folds from a split.csv (columns photo, fold and perhaps person), in the order of `faces`.

    Raises DataError for photos that are missing, unknown, listed twice or of another person, folds that are no numbers
    or leave a gap; LeakError for a person or group in two folds.
    """
    columns, rows = read_rows(existing(path), ("photo", "fold"))
    persons = {face.id: face.person for face in faces}
    split: dict[str, int] = {}
    for row in rows:
        photo, text = row.get("photo"), row.get("fold")
        if photo not in persons:
            raise DataError(f"{row.where('photo')}: {photo!r} is not in the data ({_nearest(photo, persons)})")
        if photo in split:
            raise DataError(f"{row.where('photo')}: {photo!r} is listed twice")
        if "person" in columns and row.get("person") != persons[photo]:
            raise DataError(f"{row.where('person')}: {row.get('person')!r}, but {photo} shows {persons[photo]!r}")
        if not text.removeprefix("-").isdecimal() or not -1 <= int(text) < MAX_FOLDS:
            expected = f"expected -1 (always trains) or 0..{MAX_FOLDS - 1}"
            raise DataError(f"{row.where('fold')}: {text!r} is no fold; {expected}")
        split[photo] = int(text)
    if missing := [face.id for face in faces if face.id not in split]:
        raise DataError(f"{path}: {len(missing)} photos of the data are missing, first {missing[0]!r}")
    folds = np.array([split[face.id] for face in faces], dtype=np.int8)
    if gaps := sorted(set(range(int(folds.max(initial=-1)) + 1)) - set(folds.tolist())):
        raise DataError(f"{path}: fold {gaps[0]} has no photo, but fold {folds.max()} has")
    assert_disjoint(faces, folds, groups)
    return folds


def assert_disjoint(faces: Sequence[Face], folds: NDArray[np.int8], groups: Groups | None = None) -> None:
    """Raises LeakError naming the person, or the two persons of a group, with photos in two folds, and the folds."""
    for keys in ([face.person for face in faces], () if groups is None else groups):
        first: dict[object, int] = {}
        for row, key in enumerate(keys):
            other = first.setdefault(key, row)
            if folds[row] != folds[other]:
                persons = f"person {faces[row].person!r}"
                if faces[other].person != faces[row].person:
                    persons = f"{faces[other].person!r} and {faces[row].person!r}, who share a photo,"
                where = f"fold {folds[other]} ({faces[other].id}) and fold {folds[row]} ({faces[row].id})"
                raise LeakError(f"split: {persons} would be on both sides: {where}")


def _units(faces: Sequence[Face], groups: Groups | None) -> list[_Unit]:
    """Units sorted by name: groups of photos, whose persons are whole."""
    members: dict[object, list[int]] = {}
    keys: Sequence[object] = [face.person for face in faces]
    if groups is not None:
        if len(groups) != len(faces):
            raise DataError(f"folds: {len(groups)} groups for {len(faces)} photos")
        numbers = [int(group) for group in groups]
        if len(set(zip(keys, numbers, strict=True))) > len(set(keys)):
            rule = "groups must hold whole persons (duplicates.person_groups)"
            raise DataError(f"folds: a person is in two groups; {rule}")
        keys = numbers
    for row, key in enumerate(keys):
        members.setdefault(key, []).append(row)
    units = []
    for rows in members.values():
        first = {faces[row].person: faces[row].parts[1:] for row in sorted(rows, key=lambda row: faces[row].id)[::-1]}
        what = tuple(sorted(Counter(faces[row].parts for row in rows).items()))
        units.append(_Unit(min(first), tuple(rows), tuple(sorted(first.values())), what))
    return sorted(units, key=lambda unit: unit.name)


def _ordered(units: Sequence[_Unit], rng: np.random.Generator) -> list[_Unit]:
    """By kind of person, then large units before small (they are the hardest to place), then by lot."""
    shuffled = [units[place] for place in rng.permutation(len(units))]
    return sorted(shuffled, key=lambda unit: (unit.who, -len(unit.rows), unit.what))


def _nearest(photo: str, ids: Iterable[str]) -> str:
    """Where the photo of that file name is, else what names look like."""
    same = sorted(name for name in ids if name.rsplit("/", 1)[-1] == photo.rsplit("/", 1)[-1])
    return f"nearest: {same[0]}" if same else f"it has names like {min(ids, default='none')}"
