"""`check`: what is in labelled photos and what is wrong with them, before anything is trained on it.

Every photo is read once: header, full decode, digest and fingerprint, on all cores. An `error` would corrupt a result
(a photo that cannot be read, labels that contradict each other, rows without photos); the rest is a `warning`. Copies
across persons are a leak, yet a warning: training finds them itself and keeps such persons in one fold.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data import duplicates
from threefold.data.face import Face, truth
from threefold.data.layouts import CONTEST_MASKS
from threefold.data.options import statistics
from threefold.data.sources import read_faces, source_names, split_sources
from threefold.data.tables import Problem
from threefold.errors import DataError, PhotoError
from threefold.parallel import processes
from threefold.photos import decode as photo
from threefold.progress import Advance


@dataclass(frozen=True)
class Report:
    """What `check` found. Counts are photos unless said otherwise.

    people: persons, not photos, per value of each attribute, per gender and age group, per year (`options.statistics`).
    attributes: name -> value -> photos, `unknown` included. classes: 18 names -> photos with that full label. odd:
    photos that are read correctly but are not plain upright RGB. copies: exact and near pairs within and across
    persons, and how many persons they join to others.
    """

    data: str
    photos: int
    persons: int
    people: dict[str, dict[str, int]]
    sources: dict[str, int]
    classes: dict[str, int]
    attributes: dict[str, dict[str, int]]
    ages: tuple[float, float] | None
    sizes: dict[str, int]
    formats: dict[str, int]
    odd: dict[str, int]
    copies: dict[str, int]
    seconds: float
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True when no problem is an error."""
        return all(problem.severity == "warning" for problem in self.problems)


@dataclass(frozen=True)
class Scan:
    """One photo as it was read: `info`, BLAKE2b of the bytes and fingerprint, or the reason it could not be."""

    info: photo.PhotoInfo | None = None
    digest: bytes = b""
    print: NDArray[np.uint8] | None = None
    reason: str = ""


def scan(path: Path) -> Scan:
    """Read a photo once, decode it whole (what is cut off is found only so) and fingerprint it."""
    try:
        data = photo.read(path)
        info = photo.probe(data, str(path))
        pixels = photo.decode_bytes(data, str(path), min_side=2 * duplicates.SIDE)
    except PhotoError as error:
        return Scan(reason=str(error))
    return Scan(info, hashlib.blake2b(data, digest_size=16).digest(), duplicates.fingerprint(pixels))


def scan_all(paths: Sequence[Path], progress: Advance | None = None) -> list[Scan]:
    """`scan` in order, by processes (threads reach half their speed: headers are read in Python)."""
    found: list[Scan] = []
    for result in processes(scan, paths, least=500, chunk=32):
        found.append(result)
        if progress:
            progress(len(found), len(paths))
    return found


def check(text: str | Path, progress: Advance | None = None) -> Report:
    """Read labels and photos of a source text (see `read_faces`) and report; raises DataError when there is no data."""
    began = time.monotonic()
    problems: list[Problem] = []
    try:
        faces = read_faces(text, problems.append)
    except DataError as error:
        raise DataError(f"{error}; {problems[0]}" if problems else str(error)) from None
    scans = scan_all([face.photo for face in faces], progress)
    problems += [*_photos(faces, scans), *_labels(faces), *_incomplete(faces, text)]
    copies = _copies(faces, scans, problems)
    codes, years = truth(faces), [face.age for face in faces if face.age is not None]
    counts = np.bincount(labels.encode_all(codes) + 1, minlength=labels.CLASSES + 1)[1:]
    attributes = {name: _values(name, codes[:, column]) for column, name in enumerate(labels.ATTRIBUTES)}
    classes = {labels.class_name(code): int(count) for code, count in enumerate(counts)}
    problems += _empty(attributes, classes)
    infos = [result.info for result in scans if result.info]
    return Report(
        data=str(text),
        photos=len(faces),
        persons=len({face.person for face in faces}),
        people=statistics(faces),
        sources=_counts(face.source for face in faces),
        classes=classes,
        attributes=attributes,
        ages=(min(years), max(years)) if years else None,
        sizes=_counts(f"{info.width}x{info.height}" for info in infos),
        formats=_counts(info.format for info in infos),
        odd=_counts(kind for info in infos for kind in _oddities(info)),
        copies=copies,
        seconds=round(time.monotonic() - began, 1),
        problems=tuple(sorted(problems, key=lambda problem: (problem.severity, problem.kind))),
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _values(attribute: str, codes: NDArray[np.int8]) -> dict[str, int]:
    names = (*labels.NAMES[attribute], "unknown")
    return {name: int((codes == code).sum()) for name, code in zip(names, [*range(len(names) - 1), -1], strict=True)}


def _oddities(info: photo.PhotoInfo) -> Iterator[str]:
    if info.mode in ("1", "L", "LA", "La") or info.mode.startswith("I"):
        yield "grey"
    if info.mode in ("CMYK", "YCCK"):
        yield "CMYK"
    if info.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        yield "transparent"
    if info.orientation != 1:
        yield "turned by EXIF"
    if info.frames > 1:
        yield "animated"


def _photos(faces: Sequence[Face], scans: Sequence[Scan]) -> Iterator[Problem]:
    """What is wrong with single files."""
    for face, result in zip(faces, scans, strict=True):
        if result.info is None:
            yield Problem("error", "unreadable photos", face.id, result.reason)
            continue
        right = photo.wrong_extension(face.photo, result.info)
        if right:
            yield Problem("warning", "wrong extensions", face.id, f"is {result.info.format}, should end in {right}")
        if face.box and (face.box[2] > result.info.width or face.box[3] > result.info.height):
            size = f"{result.info.width}x{result.info.height}"
            yield Problem("warning", "boxes beyond the photo", face.id, f"face box {face.box} in {size} pixels")


def _labels(faces: Sequence[Face]) -> Iterator[Problem]:
    """A person of two genders or two ages."""
    persons: dict[str, list[Face]] = defaultdict(list)
    for face in faces:
        persons[face.person].append(face)
    for person, photos in persons.items():
        said = _contradiction(photos, ("gender", "age", "age_group"))
        if said:
            yield Problem("error", "contradictory labels", f"person {person}", said)


def _contradiction(photos: Sequence[Face], fields: Iterable[str]) -> str:
    """`gender male (a.jpg) and female (b.jpg)`: the first field for which two photos know different values, or ''."""
    for field in fields:
        first: dict[str, str] = {}
        for face in photos:
            value = getattr(face, field)
            if value is not None:
                name = labels.name(field, value) if field in labels.ATTRIBUTES else f"{value:g}"
                first.setdefault(name, face.id)
        if len(first) > 1:
            return f"{field} " + " and ".join(f"{name} ({where})" for name, where in first.items())
    return ""


def _incomplete(faces: Sequence[Face], text: str | Path) -> Iterator[Problem]:
    """Persons of the contest's layout without just the seven photos."""
    sources = split_sources(text)
    contest = {name for name, (layout, _) in zip(source_names(sources), sources, strict=True) if layout == "contest"}
    stems: dict[str, Counter[str]] = defaultdict(Counter)
    for face in faces:
        if face.source in contest:
            stems[face.person][face.photo.stem.lower()] += 1
    for person, found in stems.items():
        wrong = [f"{found[stem]} x {stem}" for stem in CONTEST_MASKS if found[stem] != 1]
        if wrong:
            yield Problem("warning", "persons without the seven photos", f"person {person}", ", ".join(wrong))


def _copies(faces: Sequence[Face], scans: Sequence[Scan], problems: list[Problem]) -> dict[str, int]:
    """Count copies within persons, list those across persons; copies of the same bytes must have the same labels."""
    rows = [row for row, result in enumerate(scans) if result.print is not None]
    same: dict[bytes, list[int]] = defaultdict(list)
    for row in rows:
        same[scans[row].digest].append(row)
    chains = [(row, other) for group in same.values() for row, other in pairwise(group)]
    for group in same.values():
        said = _contradiction([faces[row] for row in group], ("mask", "gender", "age", "age_group"))
        if said:
            problems.append(Problem("error", "one photo, two labels", faces[group[0]].id, f"the same file has {said}"))
    prints = np.array([scans[row].print for row in rows], dtype=np.uint8).reshape(-1, duplicates.SIDE, duplicates.SIDE)
    persons = [face.person for face in faces]
    kept = [persons[row] for row in rows]
    exact = {(row, other) for row, other in chains if persons[row] != persons[other]}
    near = np.array(rows, dtype=np.int64)[duplicates.near_duplicates(prints, kept)]
    across = sorted(exact | {(int(i), int(j)) for i, j in near})
    for i, j in across:
        what = "the same file as" if scans[i].digest == scans[j].digest else "the same picture as"
        said = _contradiction([faces[i], faces[j]], labels.ATTRIBUTES)
        text = f"{what} {faces[j].id}; training keeps both persons in one fold" + (f", but {said}" if said else "")
        problems.append(Problem("warning", "copies across persons", faces[i].id, text))
    groups = duplicates.person_groups(persons, np.array(across, dtype=np.int64).reshape(-1, 2))
    return {
        "exact within a person": len(chains) - len(exact),
        "near within a person": duplicates.count_within(prints, kept),
        "across persons": len(across),
        "persons joined": len(set(persons)) - len(set(groups.tolist())),
    }


def _empty(attributes: dict[str, dict[str, int]], classes: dict[str, int]) -> Iterator[Problem]:
    """Values nobody shows, and classes empty although each of their values is shown."""
    for name, values in attributes.items():
        missing = [value for value, count in values.items() if count == 0 and value != "unknown"]
        text = "no photo is labelled " + (", ".join(missing) if len(missing) < len(values) - 1 else "at all")
        if missing:
            yield Problem("warning", "empty classes", name, text)
    shown = [
        labels.class_name(labels.encode(mask, gender, group))
        for mask in labels.Mask for gender in labels.Gender for group in labels.AgeGroup
        if all(attributes[attribute][labels.name(attribute, code)]
               for attribute, code in zip(labels.ATTRIBUTES, (mask, gender, group), strict=True))
    ]  # fmt: skip
    for name in shown:
        if classes[name] == 0:
            yield Problem("warning", "empty classes", f"class {name}", "has no photo; it counts 0 in macro F1")
