"""`check`: what is in labelled photos and what is wrong with them, before anything is trained on it.

Every photo is read once: header, full decode, digest and fingerprint, on all cores. An `error` would corrupt a result
(a photo that cannot be read, labels that contradict each other, rows without photos); the rest is a `warning`. Copies
across persons are a leak, yet a warning: training looks for them itself and keeps such persons in one fold.
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

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
from threefold.photos import decode
from threefold.photos.decode import PhotoInfo
from threefold.progress import Advance, bar
from threefold.results import Result, table_lines

LISTED = 10
"""Problems of one kind that the lines show; JSON and CSV have all."""


@dataclass(frozen=True)
class CheckResult(Result):
    """What is in a set of labelled photos and what is wrong with it. Counts are of photos, else it is written.

    text: the source text that was checked. people: persons, not photos, per value of each attribute, per gender and
    age group, per year (`options.statistics`). attributes: name -> value -> photos, `unknown` included. classes: 18
    names -> photos with that full label. odd: photos that are read correctly but are not plain upright RGB. copies:
    exact and near pairs within and across persons, and how many persons they join to others.
    """

    text: str
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

    @property
    def failure(self) -> str:
        """How many errors there are; empty where there is none."""
        errors = sum(problem.severity == "error" for problem in self.problems)
        return f"{self.text}: {errors} error{'s' if errors > 1 else ''} would corrupt a result" if errors else ""

    def lines(self) -> list[str]:
        """What there is and how much of it, then the problems, up to LISTED of a kind."""
        ages = f", ages {self.ages[0]:g} to {self.ages[1]:g}" if self.ages else ""
        lines = [
            f"{self.photos:,} photos of {self.persons:,} persons{ages}; checked in {self.seconds:g} s",
            f"people: {_listed(self.people['gender and age_group'])}",
            f"sources: {_listed(self.sources)}",
            f"sizes: {_listed(self.sizes)}",
            f"formats: {_listed(self.formats)}",
            f"read as RGB, upright, though: {_listed(self.odd)}",
            f"copies: {_listed(self.copies)}",
            "",
            *self._tables(),
        ]
        for (severity, kind), group in groupby(self.problems, key=lambda problem: (problem.severity, problem.kind)):
            problems = list(group)
            lines.append(f"! {severity}: {kind} ({len(problems):,})")
            lines += [f"  {problem}" for problem in problems[:LISTED]]
            if len(problems) > LISTED:
                lines.append(f"  ... and {len(problems) - LISTED:,} more (--json lists all)")
        return [*lines, "nothing that would corrupt a result" if self.ok else "this would corrupt a result"]

    def _tables(self) -> list[str]:
        """Photos by attribute and value, and the 18 classes as three rows of masks by six of gender and age group."""
        values = []
        for name, counts in self.attributes.items():
            cells = [f"{value} {count:,}" for value, count in counts.items() if value != "unknown"]
            values.append([name, *cells, *[""] * (3 - len(cells)), f"{counts['unknown']:,}"])
        classes: dict[str, list[str]] = defaultdict(list)
        for name, count in self.classes.items():
            classes[name.split(" ", 1)[0]].append(f"{count:,}")
        columns = [name.split(" ", 1)[1] for name in list(self.classes)[:6]]
        return [
            *table_lines(["photos labelled", "", "", "", "unknown"], values, right=True),
            "",
            *table_lines(["class", *columns], [[mask, *counts] for mask, counts in classes.items()], right=True),
            "",
        ]

    def data(self) -> dict[str, Any]:
        """Every number and every problem, and whether all is well (`ok`)."""
        values = asdict(self)
        return {"ok": self.ok, "data": values.pop("text"), **values}

    def rows(self) -> list[Sequence[object]]:
        """All problems."""
        table = [(problem.severity, problem.kind, problem.where, problem.text) for problem in self.problems]
        return [("severity", "kind", "where", "text"), *table]


@dataclass(frozen=True)
class Scan:
    """One photo as it was read: `info`, BLAKE2b of the bytes and fingerprint, or the reason it could not be."""

    info: PhotoInfo | None = None
    digest: bytes = b""
    fingerprint: NDArray[np.uint8] | None = None
    reason: str = ""


def scan(path: Path) -> Scan:
    """Read a photo once, decode it whole (what is cut off is noticed only so) and fingerprint it."""
    try:
        data = decode.read(path)
        info = decode.probe(data, str(path))
        pixels = decode.decode_bytes(data, str(path), min_side=2 * duplicates.SIDE)
    except PhotoError as error:
        return Scan(reason=str(error))
    return Scan(info, hashlib.blake2b(data, digest_size=16).digest(), duplicates.fingerprint(pixels))


def scan_all(paths: Sequence[Path], progress: Advance | None = None) -> list[Scan]:
    """`scan` in order, on all cores; `progress(done, N)` is called after each."""
    scans: list[Scan] = []
    # By processes: threads reach half their speed, since headers are read in Python.
    for result in processes(scan, paths, least=500, chunk=32):
        scans.append(result)
        if progress:
            progress(len(scans), len(paths))
    return scans


def _listed(counts: Mapping[str, int], most: int = 6) -> str:
    """`384x512 18,900, 200x200 12, 3 others`."""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    rest = [f"{len(counts) - most} others"] if len(counts) > most else []
    return ", ".join(shown + rest) or "none"


def check(data: str | Path, progress: Advance | None = None) -> CheckResult:
    """Read labels and photos of a source text (see `read_faces`); raises DataError when there is nothing to check.

    `progress(done, photos)` is called while photos are read; without one, the command line shows a bar.
    """
    began = time.monotonic()
    problems: list[Problem] = []
    try:
        faces = read_faces(data, problems.append)
    except DataError as error:
        raise DataError(f"{error}; {problems[0]}" if problems else str(error)) from None
    with nullcontext(progress) if progress else bar("checking") as advance:
        scans = scan_all([face.photo for face in faces], advance)
    codes, years = truth(faces), [face.age for face in faces if face.age is not None]
    counts = np.bincount(labels.encode_all(codes) + 1, minlength=labels.CLASSES + 1)[1:]
    classes = {labels.class_name(code): int(count) for code, count in enumerate(counts)}
    attributes = {}
    for (name, words), column in zip(labels.NAMES.items(), codes.T, strict=True):
        attributes[name] = {word: int((column == code).sum()) for code, word in enumerate(words)}
        attributes[name]["unknown"] = int((column == labels.UNKNOWN).sum())
    copies, copied = _copies(faces, scans)
    problems += [*_photos(faces, scans), *_labels(faces), *_incomplete(faces, data), *copied]
    problems += _empty(attributes, classes)
    infos = [result.info for result in scans if result.info]
    return CheckResult(
        text=str(data),
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


def _oddities(info: PhotoInfo) -> Iterator[str]:
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
        if fitting := decode.wrong_extension(face.photo, result.info):
            yield Problem("warning", "wrong extensions", face.id, f"is {result.info.format}, should end in {fitting}")
        width, height = result.info.width, result.info.height
        if face.box and (face.box[2] > width or face.box[3] > height):
            text = f"face box {face.box} in {width}x{height} pixels"
            yield Problem("warning", "boxes beyond the photo", face.id, text)


def _labels(faces: Sequence[Face]) -> Iterator[Problem]:
    """A person of two genders or two ages."""
    persons: dict[str, list[Face]] = defaultdict(list)
    for face in faces:
        persons[face.person].append(face)
    for person, photos in persons.items():
        if contradiction := _contradiction(photos, ("gender", "age", "age_group")):
            yield Problem("error", "contradictory labels", f"person {person}", contradiction)


def _contradiction(photos: Sequence[Face], fields: Iterable[str]) -> str:
    """`gender male (a.jpg) and female (b.jpg)`: the first field for which two photos have different values, or ''."""
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
    for person, counts in stems.items():
        if wrong := [f"{counts[stem]} x {stem}" for stem in CONTEST_MASKS if counts[stem] != 1]:
            yield Problem("warning", "persons without the seven photos", f"person {person}", ", ".join(wrong))


def _copies(faces: Sequence[Face], scans: Sequence[Scan]) -> tuple[dict[str, int], list[Problem]]:
    """Counts of copies, and as problems those across persons and the files whose copies have other labels."""
    rows = [row for row, result in enumerate(scans) if result.fingerprint is not None]
    persons = [face.person for face in faces]
    problems = []
    same: dict[bytes, list[int]] = defaultdict(list)
    for row in rows:
        same[scans[row].digest].append(row)
    for group in same.values():
        if contradiction := _contradiction([faces[row] for row in group], ("mask", "gender", "age", "age_group")):
            text = f"the same file has {contradiction}"
            problems.append(Problem("error", "one photo, two labels", faces[group[0]].id, text))
    chains = [pair for group in same.values() for pair in pairwise(group)]
    exact = {(i, j) for i, j in chains if persons[i] != persons[j]}
    prints = np.array([scans[row].fingerprint for row in rows], dtype=np.uint8)
    prints = prints.reshape(-1, duplicates.SIDE, duplicates.SIDE)
    readable = [persons[row] for row in rows]
    near = np.array(rows, dtype=np.int64)[duplicates.near_duplicates(prints, readable)]
    across = sorted(exact | {(int(i), int(j)) for i, j in near})
    for i, j in across:
        kind = "the same file as" if scans[i].digest == scans[j].digest else "the same picture as"
        text = f"{kind} {faces[j].id}; training keeps both persons in one fold"
        if contradiction := _contradiction([faces[i], faces[j]], labels.ATTRIBUTES):
            text += f", but {contradiction}"
        problems.append(Problem("warning", "copies across persons", faces[i].id, text))
    groups = duplicates.person_groups(persons, np.array(across, dtype=np.int64).reshape(-1, 2))
    counts = {
        "exact within a person": len(chains) - len(exact),
        "near within a person": duplicates.count_within(prints, readable),
        "across persons": len(across),
        "persons joined": len(set(persons)) - len(set(groups.tolist())),
    }
    return counts, problems


def _empty(attributes: dict[str, dict[str, int]], classes: dict[str, int]) -> Iterator[Problem]:
    """Values without a photo, and classes without one although there are photos of all their values."""
    for name, values in attributes.items():
        missing = [value for value, count in values.items() if count == 0 and value != "unknown"]
        text = "no photo is labelled " + (", ".join(missing) if len(missing) < len(values) - 1 else "at all")
        if missing:
            yield Problem("warning", "empty classes", name, text)
    for code, (name, photos) in enumerate(classes.items()):
        parts = zip(labels.ATTRIBUTES, labels.decode(code), strict=True)
        if photos == 0 and all(attributes[attribute][labels.name(attribute, part)] for attribute, part in parts):
            yield Problem("warning", "empty classes", f"class {name}", "has no photo; it counts 0 in macro F1")
