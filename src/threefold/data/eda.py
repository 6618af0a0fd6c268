"""What a set of labelled photos looks like: counts of people, years, light, faces, mean pictures. Plain numbers.

`measure` looks at every photo once, on all cores; `describe` counts. What is wrong with the files and labels is in
check.py, whose result is part of the answer. A photo that cannot be read has NaN and stops nothing. Counts are of
persons as well as photos wherever both make sense: the contest's seven photos of a person are one person's age and
gender.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.assets import asset_path
from threefold.data.check import CheckResult
from threefold.data.face import Face, truth
from threefold.errors import AssetError, PhotoError
from threefold.parallel import processes
from threefold.photos import decode as photo
from threefold.photos.detect import largest
from threefold.photos.networks import scaled
from threefold.progress import bar

NUMBERS = ("brightness", "contrast", "sharpness", "colourfulness")
"""Of a photo whose longer side is LONGER: mean and standard deviation of grey, 0..255; variance of its Laplacian
(Pech-Pacheco et al. 2000, ICPR), small where it is blurred; colourfulness (Hasler & Süsstrunk 2003, SPIE 5007)."""
LONGER = 256
THUMB, PICTURE = (24, 18), (64, 48)
"""Rows and columns of the two small pictures: of every photo, and of every set of labels as a mean."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FACES = 400
"""Photos, drawn by lot, in which a face is looked for: 10 to 16 ms a photo on one core, five times the rest."""
VALUES = {name: [*enumerate(values), (labels.UNKNOWN, "unknown")] for name, values in labels.NAMES.items()}
"""Codes and values of each attribute, the unknown one last."""
Count = dict[str, int]
Look = tuple[photo.PhotoInfo, NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]
"""Of one photo: header, the four NUMBERS, [24, 18, 3] and [64, 48, 3] uint8, and the box of its largest face as shares
of the sides (left, top, right, bottom), NaN where none was found or looked for."""


@dataclass(frozen=True)
class Looks:
    """Of N photos, rows as the faces. read: [N] bool. infos: headers, None where unread. numbers: [N, 4] and boxes:
    [N, 4] as in `Look`, NaN where not known. thumbs: [N, 24, 18, 3] uint8, 0 where unread. looked: [N] bool, whether a
    face was looked for. pictures: (`all`, class) and (attribute, code) -> mean [64, 48, 3] uint8 of the photos that
    have it; UNKNOWN is one of the codes."""

    read: NDArray[np.bool_]
    infos: list[photo.PhotoInfo | None]
    numbers: NDArray[np.float32]
    thumbs: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    looked: NDArray[np.bool_]
    pictures: dict[tuple[str, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Eda:
    """What there is, as plain numbers. A Count is {photos, persons}.

    classes: 18 names -> Count. attributes: name -> value (`unknown` included) -> Count; groups: the six of gender and
    age group alike. years: year of age -> gender -> persons. photos_per_person: number of photos -> persons; odd: the
    persons (at most 2 in 10) whose number is not the usual one. sources: name -> Count with `values`: attribute ->
    value -> photos. looks: number -> attribute -> value -> its QUANTILES over photos; `aspect` is width / height.
    faces: None where the detector's file is not on this machine, else photos looked at and found, in all and by mask
    value, and QUANTILES of a box's `height` and of how far its centre is `off` the photo's, as shares of the sides.
    """

    check: CheckResult
    total: Count
    classes: dict[str, Count]
    attributes: dict[str, dict[str, Count]]
    groups: dict[str, Count]
    years: dict[int, dict[str, int]]
    photos_per_person: dict[int, int]
    odd: dict[str, int]
    sources: dict[str, dict[str, Any]]
    looks: dict[str, dict[str, dict[str, list[float]]]]
    faces: dict[str, Any] | None


def look(item: tuple[Path, bool]) -> Look | None:
    """A photo and whether to look for a face in it -> what it looks like; None when it cannot be read."""
    path, detecting = item
    try:
        data = photo.read(path)
        info, image = photo.probe(data, str(path)), photo.decode_bytes(data, str(path))
    except PhotoError:
        return None  # check has the reason
    scale = LONGER / max(image.shape[:2])
    small = scaled(image, *(max(3, round(side * scale)) for side in image.shape[:2]))
    grey, colours = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), small.astype(np.float32)
    red, green, blue = cv2.split(colours)
    opponents = (red - green, (red + green) / 2 - blue)
    planes = (grey, cv2.Laplacian(grey, cv2.CV_32F), *opponents)
    means, sds = (np.ravel(part) for part in zip(*map(cv2.meanStdDev, planes), strict=True))  # a third of numpy's time
    colourful = np.hypot(*sds[2:]) + 0.3 * np.hypot(*means[2:])
    numbers = np.array([means[0], sds[0], sds[1] ** 2, colourful], dtype=np.float32)
    box = largest(image) if detecting else None
    sides = np.tile(image.shape[1::-1], 2)
    share = np.full(4, np.nan) if box is None else np.array(box) / sides
    return info, numbers, scaled(small, *THUMB), scaled(small, *PICTURE), share.astype(np.float32)


def measure(faces: Sequence[Face], *, seed: int = 0) -> Looks:
    """Look at every photo; in FACES of them, by lot, for a face too where the detector is on this machine."""
    count = len(faces)
    try:
        asset_path("yunet")
        looked = np.random.default_rng(seed).permutation(count) < FACES
    except AssetError:
        looked = np.zeros(count, dtype=bool)
    infos: list[photo.PhotoInfo | None] = [None] * count
    numbers, boxes = (np.full((count, 4), np.nan, dtype=np.float32) for _ in range(2))
    thumbs = np.zeros((count, *THUMB, 3), dtype=np.uint8)
    sums: dict[tuple[str, int], tuple[NDArray[np.float64], int]] = {}
    items = [(face.photo, bool(detecting)) for face, detecting in zip(faces, looked, strict=True)]
    with bar("looking") as report:
        for row, seen in enumerate(processes(look, items, least=400, chunk=32)):
            if seen:
                infos[row], numbers[row], thumbs[row], picture, boxes[row] = seen
                face = faces[row]
                for key in zip(("all", *labels.ATTRIBUTES), (face.label, *face.parts), strict=True):
                    total, photos = sums.get(key, (np.zeros(1), 0))
                    sums[key] = total + picture, photos + 1
            report(row + 1, count)
    read = np.array([info is not None for info in infos], dtype=bool)
    pictures = {key: (total / photos).astype(np.uint8) for key, (total, photos) in sums.items()}
    return Looks(read, infos, numbers, thumbs, boxes, looked & read, pictures)


def describe(faces: Sequence[Face], report: CheckResult, looks: Looks) -> Eda:
    """Count what `measure` and `check` saw."""
    codes, persons = truth(faces), np.array([face.person for face in faces])
    classes, sources = labels.encode_all(codes), np.array([face.source for face in faces])
    values = [
        (attribute, name, codes[:, column] == code)
        for column, attribute in enumerate(VALUES)
        for code, name in VALUES[attribute]
    ]

    def count(rows: NDArray[np.bool_]) -> Count:
        return {"photos": int(rows.sum()), "persons": len(np.unique(persons[rows]))}

    def in_source(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return count(rows) | {"values": _nested((*names, int((rows & with_it).sum())) for *names, with_it in values)}

    aged = {(face.person, int(face.age), face.parts[1]) for face in faces if face.age is not None}
    years = Counter((year, labels.name("gender", gender) or "unknown") for _, year, gender in aged)
    photos_of = Counter(persons.tolist())
    per_person = Counter(photos_of.values())
    usual, commonest = per_person.most_common(1)[0]
    odd = {person: n for person, n in photos_of.items() if n != usual}
    aspects = np.array([[info.width / info.height] if info else [np.nan] for info in looks.infos])
    measured = dict(zip((*NUMBERS, "aspect"), np.concatenate([looks.numbers, aspects], axis=1).T, strict=True))
    return Eda(
        check=report,
        total=count(np.ones(len(faces), dtype=bool)),
        classes={labels.class_name(code): count(classes == code) for code in range(labels.CLASSES)},
        attributes=_nested((attribute, name, count(rows)) for attribute, name, rows in values),
        groups={
            labels.class_name(code).removeprefix("worn "): count((codes[:, 1:] == divmod(code, 3)).all(axis=1))
            for code in range(6)
        },
        years=_nested((*key, people) for key, people in sorted(years.items())),
        photos_per_person=dict(sorted(per_person.items())),
        odd=odd if commonest >= 0.8 * len(photos_of) else {},
        sources={source: in_source(sources == source) for source in dict.fromkeys(sources.tolist())},
        looks={
            number: _nested((*names, _quantiles(column[rows])) for *names, rows in values if (rows & looks.read).any())
            for number, column in measured.items()
        },
        faces=_faces(looks, codes[:, 0]) if looks.looked.any() else None,
    )


def _faces(looks: Looks, masks: NDArray[np.int8]) -> dict[str, Any]:
    """How often a face was detected, in all and by mask value, and where it lies."""
    detected = looks.looked & np.isfinite(looks.boxes[:, 0])
    left, top, right, bottom = looks.boxes[detected].T

    def count(rows: NDArray[np.bool_] | bool = True) -> Count:
        return {"photos": int((looks.looked & rows).sum()), "found": int((detected & rows).sum())}

    return {
        **count(),
        "by_mask": {name: count(masks == code) for code, name in VALUES["mask"]},
        "height": _quantiles(bottom - top),
        "off": _quantiles(np.maximum(abs(left + right - 1), abs(top + bottom - 1)) / 2),
    }


def _nested(triples: Iterable[tuple[Any, ...]]) -> dict[Any, dict[Any, Any]]:
    """(outer, inner, value) -> {outer: {inner: value}}."""
    outer: dict[Any, dict[Any, Any]] = {}
    for key, inner, value in triples:
        outer.setdefault(key, {})[inner] = value
    return outer


def _quantiles(values: NDArray[np.floating]) -> list[float]:
    finite = values[np.isfinite(values)]
    return np.quantile(finite, QUANTILES).round(3).tolist() if len(finite) else []
