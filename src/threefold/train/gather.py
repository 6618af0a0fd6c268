"""From a recipe to the photos it trains on: read, corrected, prepared, dealt, with their training targets.

Photos of `data.extra` stand behind those that are dealt: they train in every fold and validate in none, and an extra
photo that copies one of a person who validates is a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import progress
from threefold.data.duplicates import fingerprint, near_duplicates, person_groups
from threefold.data.face import Face
from threefold.data.folds import make_split
from threefold.data.options import apply_patches, dropped, parse_ages, parse_cuts
from threefold.data.sources import read_faces
from threefold.errors import LeakError
from threefold.files import digest
from threefold.learn.copies import expand, with_copies
from threefold.learn.loader import Photos, make_photos
from threefold.learn.plan import Plan, make_plan, make_prepare
from threefold.learn.target import make_target
from threefold.photos.cache import open_cache
from threefold.recipe import PARTS, Recipe


@dataclass(frozen=True)
class Member:
    """One network of a run: of all three attributes (`part` is "") or of one (`separate` systems)."""

    part: str
    recipe: Recipe
    plan: Plan


def members(recipe: Recipe) -> list[Member]:
    """The networks a recipe trains in each fold, everything of them checked (weights too); raises RecipeError."""
    parts = {part: recipe.part(part) for part in PARTS} if recipe.parts else {"": recipe}
    nets = [Member(part, part_recipe, make_plan(part_recipe)) for part, part_recipe in parts.items()]
    parse_cuts(recipe.data.train_cuts)
    parse_ages(recipe.data.drop_ages)
    # weights that cannot be had and stages that a network has not are refused before any photo is read
    for member in nets:
        member.plan.freeze.at(member.plan.make_net(member.plan.prepare), 0)
    return nets


def labelled_digest(faces: Sequence[Face], contents: Sequence[str]) -> str:
    """What a run's stamp says its photos and labels were; contents: of `content_digests`, in the same order."""
    return digest(*(f"{f.id}|{f.person}|{f.parts}|{f.age}" for f in faces), *contents)


def read_all(recipe: Recipe) -> tuple[list[Face], int]:
    """Faces of a recipe with its patches applied, and how many of them are dealt; those behind are `data.extra`."""
    faces = read_faces(recipe.data.source)
    if recipe.data.patches:
        faces, done = apply_patches(faces, Path(recipe.data.patches))
        first = f" (the first is {done.first})" if done.first else ""
        about = f"{done.unmatched} of {done.rows} rows are about others{first}"
        progress.say(f"data.patches: {done.photos} photos relabelled; {about}")
    extra = read_faces(recipe.data.extra) if recipe.data.extra else []
    return faces + [replace(f, id=f"extra/{f.id}", person=f"extra/{f.person}") for f in extra], len(faces)


def prepared(recipe: Recipe, faces: Sequence[Face]) -> Photos:
    """All photos as one network sees them, with the targets and the copies that training shows it."""
    with progress.bar("preparing photos") as report:
        images = open_cache(faces, make_prepare(recipe), progress=report)
    photos = make_photos(images, faces)
    target = make_target(photos.truth, photos.ages, parse_cuts(recipe.data.train_cuts))
    return with_copies(replace(photos, target=target), recipe.data.copies)


def deal(
    recipe: Recipe, faces: Sequence[Face], dealt: int, images: NDArray[np.uint8]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """[N] fold of each photo (-1: always training) and [N] group numbers; LeakError for a copy among the extra ones."""
    groups = find_groups(images, [face.person for face in faces])
    split = np.full(len(faces), -1, dtype=np.int8)
    split[:dealt] = make_split(recipe.data.folds, faces[:dealt], seed=recipe.data.seed, groups=groups[:dealt])
    judged = {int(group): row for row, group in enumerate(groups[:dealt]) if split[row] >= 0}
    for row in range(dealt, len(faces)):
        if int(groups[row]) in judged:
            other = faces[judged[int(groups[row])]]
            raise LeakError(
                f"data.extra: {faces[row].id} is a copy of a photo of {other.person!r}, who validates in fold "
                f"{split[judged[int(groups[row])]]}; leave it out"
            )
    return split, groups


def find_groups(images: NDArray[np.uint8], persons: Sequence[str]) -> NDArray[np.int64]:
    """[N] group numbers: people who share a near duplicate have the same, and so stay in one fold."""
    prints = np.stack([fingerprint(image) for image in images])
    return person_groups(persons, near_duplicates(prints, persons))


def sides(
    recipe: Recipe, photos: Photos, faces: Sequence[Face], split: NDArray[np.int8], fold: int | None
) -> tuple[Photos, Photos | None]:
    """(training, validation) side of a fold; fold None: everybody trains. `data.drop_ages` leaves validation be."""
    usable = ~dropped(faces, parse_ages(recipe.data.drop_ages))
    if fold is None:
        return photos.at(expand(photos, np.flatnonzero(usable))), None
    train = photos.at(expand(photos, np.flatnonzero((split != fold) & usable)))
    return train, photos.at(np.flatnonzero(split == fold))
