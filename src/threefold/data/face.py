"""`Face`: one photo of one person with its labels. The only record that the data room hands on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.labels import UNKNOWN
from threefold.photos.decode import Box


@dataclass(frozen=True, slots=True)
class Face:
    """One photo of one person.

    `id` names the photo the same way on every machine: source name plus path below the source's root, with
    forward slashes. `person` is unique over all joined sources (prefixed by the source where it must be).
    Labels are codes of `labels.py` or None. `age` is in years; `age_group` is what is scored and follows from `age`
    where only that is given.
    """

    photo: Path
    person: str
    id: str
    mask: int | None = None
    gender: int | None = None
    age: float | None = None
    age_group: int | None = None
    source: str = ""
    box: Box | None = None

    @property
    def parts(self) -> tuple[int, int, int]:
        """(mask, gender, age group) with UNKNOWN for None."""
        values = (self.mask, self.gender, self.age_group)
        mask, gender, group = (UNKNOWN if value is None else int(value) for value in values)
        return mask, gender, group

    @property
    def label(self) -> int:
        """Class 0..17, or UNKNOWN when a part is unknown."""
        return labels.encode(*self.parts)


def truth(faces: Sequence[Face]) -> NDArray[np.int8]:
    """[N, 3] int8 codes (mask, gender, age group), UNKNOWN where there is no label."""
    return np.array([face.parts for face in faces], dtype=np.int8).reshape(-1, 3)


def ages(faces: Sequence[Face]) -> NDArray[np.float32]:
    """[N] years, NaN where unknown."""
    return np.array([np.nan if face.age is None else face.age for face in faces], dtype=np.float32)
