"""The three attributes, their 18-class code both ways, and the arithmetic between them.

`class = mask * 6 + gender * 3 + age_group`. Everything here is numpy or plain Python and knows nothing of files,
recipes or networks. `UNKNOWN` (-1) stands for a label nobody gave; it is never a class.
"""

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, one_of

UNKNOWN = -1
CLASSES = 18


class Mask(IntEnum):
    """How a mask is worn."""

    WORN = 0
    INCORRECT = 1
    NONE = 2


class Gender(IntEnum):
    """The two values the contest labels."""

    MALE = 0
    FEMALE = 1


class AgeGroup(IntEnum):
    """Under 30, 30 to 59, 60 and over."""

    YOUNG = 0
    MIDDLE = 1
    OLD = 2


ATTRIBUTES: dict[str, type[IntEnum]] = {"mask": Mask, "gender": Gender, "age_group": AgeGroup}
SIZES: dict[str, int] = {name: len(kind) for name, kind in ATTRIBUTES.items()}
NAMES: dict[str, tuple[str, ...]] = {
    "mask": ("worn", "incorrect", "none"),
    "gender": ("male", "female"),
    "age_group": ("<30", "30-59", ">=60"),
}
CUTS = (30, 60)
"""First year of the middle and of the old group; the groups that are scored."""

_WORDS = {
    "mask": (
        "worn, wear, mask, correct, 0",
        "incorrect, incorrect_mask, 1",
        "none, normal, not worn, not_worn, no_mask, 2",
    ),
    "gender": ("male, m, man, 0", "female, f, woman, 1"),
    "age_group": ("<30, young, 0", "30-59, 30_59, middle, 1", ">=60, 60+, old, 2"),
}
"""What people write for each code, in the order of the codes."""
_ALIASES = {
    attribute: {word: code for code, text in enumerate(words) for word in text.split(", ")}
    for attribute, words in _WORDS.items()
}


def parse(attribute: str, text: str) -> int:
    """Code of a label as people write it (`worn`, `Female`, `>=60`, `normal`, ...); '' and `unknown` are UNKNOWN.

    Raises DataError naming the value, what is known and the nearest.
    """
    key = text.strip().lower()
    if key in ("", "unknown", "?", "-1", "nan"):
        return UNKNOWN
    aliases = _ALIASES[attribute]
    if key not in aliases:
        raise DataError(f"{attribute} {text!r} is not known ({one_of(aliases, key)})")
    return aliases[key]


def name(attribute: str, code: int) -> str:
    """Printed name of a code; '' for UNKNOWN."""
    return "" if code == UNKNOWN else NAMES[attribute][code]


def age_group(age: float, cuts: tuple[int, int] = CUTS) -> int:
    """Group of an age in years: 0 below `cuts[0]`, 2 from `cuts[1]` on; UNKNOWN for NaN."""
    return UNKNOWN if math.isnan(age) else int(age >= cuts[0]) + int(age >= cuts[1])


def encode(mask: int, gender: int, group: int) -> int:
    """Class 0..17, or UNKNOWN when any part is unknown."""
    return UNKNOWN if min(mask, gender, group) < 0 else mask * 6 + gender * 3 + group


def decode(code: int) -> tuple[Mask, Gender, AgeGroup]:
    """Inverse of `encode` for 0..17; raises DataError outside."""
    if not 0 <= code < CLASSES:
        raise DataError(f"class {code} is not one of 0..{CLASSES - 1}")
    return Mask(code // 6), Gender(code // 3 % 2), AgeGroup(code % 3)


def encode_all(parts: NDArray[np.integer]) -> NDArray[np.int64]:
    """[N, 3] codes (mask, gender, age group; UNKNOWN allowed) -> [N] classes, UNKNOWN where a part is."""
    codes = parts.astype(np.int64) @ np.array([6, 3, 1])
    return np.where((parts < 0).any(axis=1), UNKNOWN, codes)


def decode_all(codes: NDArray[np.integer]) -> NDArray[np.int8]:
    """[N] classes -> [N, 3] codes; UNKNOWN gives three UNKNOWNs."""
    parts = np.stack([codes // 6, codes // 3 % 2, codes % 3], axis=1)
    return np.where(codes[:, None] < 0, UNKNOWN, parts).astype(np.int8)


def class_name(code: int) -> str:
    """`worn male <30`."""
    mask, gender, group = decode(code)
    return f"{name('mask', mask)} {name('gender', gender)} {name('age_group', group)}"


def marginals(joint: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    """[N, 18] probabilities -> {"mask": [N, 3], "gender": [N, 2], "age_group": [N, 3]}."""
    cube = joint.reshape(-1, 3, 2, 3)
    return {"mask": cube.sum(axis=(2, 3)), "gender": cube.sum(axis=(1, 3)), "age_group": cube.sum(axis=(1, 2))}
