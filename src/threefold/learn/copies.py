"""Copies: photos that the training half of a fold holds again, turned and mirrored, as if they lay on the disk.

Old people are few, and published systems wrote more photos of them to the disk before anything was split, so that
copies of one photo trained and validated. Here a copy is an entry that names its photo (see `Photos`): it costs no
memory, goes to training exactly when its photo does (`expand`), and `Photos.predictions` refuses it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from threefold.labels import AgeGroup
from threefold.learn.loader import Photos, Pose, Rows
from threefold.spec import build_one, need

Copies = Callable[[Photos], Photos]


def none() -> Copies:
    """Every photo once."""
    return lambda photos: photos


def old(*, times: Literal[2, 5] = 2, degrees: float = 30.0) -> Copies:
    """Copies of every photo of a person of the old group by the truth, in addition to the photo.

    times=2: turned to the left and to the right by `degrees` (0..180). times=5: those, mirrored, and mirrored and then
    turned either way.
    """
    need(0 < degrees <= 180, "data.copies: degrees", degrees, "a number above 0, at most 180")
    poses = [Pose(False, degrees), Pose(False, -degrees)]
    if times == 5:
        poses += [Pose(True, angle) for angle in (0.0, degrees, -degrees)]
    return lambda photos: _add_copies(photos, photos.truth[:, 2] == AgeGroup.OLD, poses)


def with_copies(photos: Photos, text: str) -> Photos:
    """The same photos and behind them the copies that `data.copies` asks for; `rows` gains those of its photos.

    Rows of the photos themselves stay what they were. Copies of ID are ID#1, ID#2, ... Raises RecipeError.
    """
    copies: Copies = build_one(text, COPIES, "data.copies")
    return copies(photos)


def expand(photos: Photos, rows: Rows) -> Rows:
    """`rows` and those of all copies of the same photos, ascending, each once: the training half of a fold."""
    return np.flatnonzero(np.isin(photos.base, photos.base[rows]))


def _add_copies(photos: Photos, selected: NDArray[np.bool_], poses: Sequence[Pose]) -> Photos:
    rows = np.flatnonzero(selected & (photos.variant == 0))
    numbers = np.tile(np.arange(1, len(poses) + 1), len(rows))
    sources = np.repeat(rows, len(poses))
    copy_ids = [f"{name}#{number}" for name, number in zip(photos.ids[sources], numbers, strict=True)]
    entries = np.concatenate([np.arange(len(photos.ids)), sources])
    more = replace(
        photos,
        ids=np.array([*photos.ids, *copy_ids]),
        persons=photos.persons[entries],
        truth=photos.truth[entries],
        ages=photos.ages[entries],
        target=photos.target.take(entries),
        base=photos.base[entries],
        variant=np.concatenate([photos.variant, numbers]).astype(np.int8),
        poses=tuple(poses),
    )
    return more.at(expand(more, photos.rows))


COPIES = {"none": none, "old": old}
"""name -> factory(**options) -> (photos) -> the same photos and their copies."""
