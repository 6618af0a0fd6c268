"""A Reading as plain values, ready for JSON: what `predict --out x.jsonl`, the HTTP service and its page hand out.

One shape for all of them, so that a program written against one reads the others. Attributes that were not asked for
are left out entirely, the probabilities of the 18 classes among them: at an entrance that asks for masks alone nothing
else is computed into an answer, and nothing can be recovered from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from threefold import labels
from threefold.errors import DataError, one_of
from threefold.photos.quality import OK
from threefold.read.reader import Reading

DIGITS, BOX_DIGITS, YEAR_DIGITS = 4, 1, 1
"""Decimals of shares, of pixels and of years: more would be noise, and longer than the rest of the answer."""


def answer(
    reading: Reading, *, face: int, attributes: Iterable[str] = tuple(labels.ATTRIBUTES), probabilities: bool = True
) -> dict[str, Any]:
    """A Reading as a dict of numbers, words, lists and None; `face` is its number in the photo, the largest is 0.

    Keys: face, box ([left, top, right, bottom] pixels or None: the whole photo), score (the detector's, or None),
    quality (`ok`, `small`, `blurred`), class (0..17, said even where a part is indeterminate), the attributes in words,
    age (years; None where the model has none or the face cannot be read), confidence (of the class), confidences (of
    each attribute), and with `probabilities` the shares of every value: {mask: {worn: ...}, ..., classes: [18]}.
    `attributes` leaves the others out; without all three there is no class, no age without age_group, no classes, and
    the confidence is that of the parts that are there: of one its own, of two their joint probability. Raises DataError
    naming an unknown attribute.
    """
    asked = check_attributes(attributes)
    joint = np.asarray(reading.probabilities, dtype=np.float64)
    whole = len(asked) == len(labels.ATTRIBUTES)
    said: dict[str, Any] = {
        "face": face,
        "box": None if reading.box is None else [round(float(side), BOX_DIGITS) for side in reading.box],
        "score": None if reading.score is None else _share(reading.score),
        "quality": reading.quality,
    }
    if whole:
        said["class"] = reading.code
    said.update({name: getattr(reading, name) for name in asked})
    if "age_group" in asked:
        unread = reading.age is None or reading.quality != OK
        said["age"] = None if unread else round(float(reading.age or 0), YEAR_DIGITS)
    sure = {name: _share(reading.confidences[name]) for name in asked}
    said["confidence"] = _share(reading.confidence) if whole else _confidence(joint, reading.code, asked, sure)
    said["confidences"] = sure
    if probabilities:
        said["probabilities"] = shares(joint, asked)
    return said


def shares(joint: Any, attributes: Iterable[str] = tuple(labels.ATTRIBUTES)) -> dict[str, Any]:
    """[18] probabilities -> {attribute: {word: share}} in the order of labels.NAMES, and of all three classes: [18]."""
    asked = check_attributes(attributes)
    cube = np.asarray(joint, dtype=np.float64).reshape(*labels.SIZES.values())
    told: dict[str, Any] = {}
    for axis, name in enumerate(labels.ATTRIBUTES):
        if name in asked:
            margin = cube.sum(axis=tuple(other for other in range(cube.ndim) if other != axis))
            told[name] = dict(zip(labels.NAMES[name], map(_share, margin.tolist()), strict=True))
    if len(asked) == len(labels.ATTRIBUTES):
        told["classes"] = [_share(value) for value in cube.ravel().tolist()]
    return told


def check_attributes(attributes: Iterable[str]) -> tuple[str, ...]:
    """The attributes in the order of labels.ATTRIBUTES, each once; raises DataError for an unknown one or none."""
    asked = set(attributes)
    for name in sorted(asked - set(labels.ATTRIBUTES)):
        raise DataError(f"attribute {name!r} is not known ({one_of(labels.ATTRIBUTES, name)})")
    if not asked:
        raise DataError(f"no attribute was asked for ({one_of(labels.ATTRIBUTES, '')})")
    return tuple(name for name in labels.ATTRIBUTES if name in asked)


def _confidence(joint: Any, code: int, asked: tuple[str, ...], sure: dict[str, float]) -> float:
    """Of one attribute its own confidence; of two the joint probability of the two parts that `code` says."""
    if len(asked) == 1:
        return sure[asked[0]]
    cube = np.asarray(joint).reshape(*labels.SIZES.values())
    parts = dict(zip(labels.ATTRIBUTES, map(int, labels.decode(code)), strict=True))
    place = tuple(parts[name] if name in asked else slice(None) for name in labels.ATTRIBUTES)
    return _share(float(cube[place].sum()))


def _share(value: float) -> float:
    return round(float(value), DIGITS)
