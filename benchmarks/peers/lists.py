"""Lists of labelled photos, the face in each, and crops of them on disk for other processes to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.catalogue import Peer
from threefold import labels
from threefold.data.face import Face
from threefold.data.sources import read_faces
from threefold.data.tables import existing, read_age, read_label, read_rows, refuse
from threefold.errors import DataError
from threefold.photos.decode import Box, decode
from threefold.photos.detect import largest
from threefold.progress import bar

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """N labelled photos of one list. boxes: the largest face of each, None where none was found.

    detector: milliseconds the detector took per photo (the processor's, all threads), median; NaN where every box
    came with the list.
    """

    name: str
    faces: list[Face]
    boxes: list[Box | None]
    detector: float

    def __len__(self) -> int:
        return len(self.faces)


def named_lists(photos: str | None, sets: Sequence[str]) -> dict[str, str]:
    """Name -> source text of `--photos SOURCE` and of each `--sets NAME=SOURCE`; raises DataError."""
    lists: dict[str, str] = {"photos": photos} if photos else {}
    for text in sets:
        name, equals, source = text.partition("=")
        if not equals or not name or not source:
            raise DataError(f"--sets: {text!r} is not NAME=SOURCE, like aaf-bare=csv:lists/aaf.csv")
        if name in lists:
            raise DataError(f"--sets: {name!r} is there twice")
        lists[name] = source
    if not lists:
        raise DataError("no photos: give --photos SOURCE or --sets NAME=SOURCE ...")
    return lists


def pick(faces: list[Face], limit: int | None, seed: int = 0) -> list[Face]:
    """`limit` of the faces drawn without replacement (all where None), in their order: the same for the same list."""
    if limit is None or limit >= len(faces):
        return faces
    kept = np.sort(np.random.default_rng(seed).permutation(len(faces))[:limit])
    return [faces[place] for place in kept]


def read_list(path: Path) -> list[Face]:
    """The photos of a table in the csv layout whose files may lie anywhere (absolute, or below the table's folder):
    a benchmark is of one machine. Raises DataError as `read_faces` does."""
    columns, rows = read_rows(existing(path), ("file",))
    persons = "person" if "person" in columns else "person_id"
    faces = []
    for row in rows:
        file, age = row.get("file"), read_age(row, refuse)
        photo = path.parent / file
        if not file or not photo.is_file():
            raise DataError(f"{row.where('file')}: there is no photo {file!r}")
        mask, gender, group = (read_label(row, attribute, refuse) for attribute in labels.ATTRIBUTES)
        group = group if age is None else labels.age_group(age)
        faces.append(Face(photo, row.get(persons) or file, file, mask, gender, age, group))
    return faces


def read_sample(name: str, source: str, limit: int | None = None) -> Sample:
    """The photos of a source that have a label, and their faces; a box of the list's own is taken as it is. A source is
    threefold's own (`csv:PATH`, `utkface:PATH`, ...) or `list:FILE.csv`, see `read_list`.

    Raises DataError (and PhotoError for a photo that cannot be read: a benchmark leaves none out silently).
    """
    kind, _, path = source.partition(":")
    listed = read_list(Path(path)) if kind == "list" else read_faces(source)
    faces = pick([face for face in listed if max(face.parts) >= 0], limit)
    if not faces:
        raise DataError(f"{name}: none of its photos has a label")
    boxes, spent = [], []
    with bar(f"{name}: faces") as report:
        for done, face in enumerate(faces, 1):
            if face.box is None:
                image = decode(face.photo)
                begin = process_time()
                boxes.append(largest(image))
                spent.append((process_time() - begin) * 1000)
            else:
                boxes.append(face.box)
            report(done, len(faces))
    return Sample(name, faces, boxes, float(np.median(spent)) if spent else float("nan"))


def asked_of(peer: Peer, sample: Sample) -> list[int]:
    """Rows of the photos that know something the peer reads: the others cost its time and score nothing."""
    columns = [place for place, name in enumerate(("mask", "gender", "age_group")) if name in peer.reads]
    return [row for row, face in enumerate(sample.faces) if any(face.parts[column] >= 0 for column in columns)]


def cut(image: Pixels, box: Box | None, scale: float, square: bool, context: float = 1.0) -> tuple[Pixels, list[int]]:
    """The crop a peer wants of [H, W, 3], and its box (left, top, right, bottom) in the pixels handed over.

    The box (the whole photo where None) becomes square by its longer side if `square`, then `scale` times as large
    about its centre; `context` times as much is cut out. A square that reaches beyond the photo is black there, as the
    packages that want squares do it; anything else ends at the photo's edge.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    sides = np.array([right - left, bottom - top])
    half = (np.full(2, sides.max()) if square else sides) * scale / 2
    centre = np.array([left + right, top + bottom]) / 2
    inner = _whole(centre - half, centre + half)
    outer = _whole(centre - half * context, centre + half * context)
    limits = np.array([width, height, width, height])
    if not square:
        inner, outer = np.clip(inner, 0, limits), np.clip(outer, 0, limits)
    seen = np.clip(outer, 0, limits)
    part = image[seen[1] : seen[3], seen[0] : seen[2]]
    before, after = seen[:2] - outer[:2], outer[2:] - seen[2:]
    part = np.pad(part, ((before[1], after[1]), (before[0], after[0]), (0, 0)))
    return np.ascontiguousarray(part), [int(x) for x in inner - np.tile(outer[:2], 2)]


def _whole(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.int64]:
    first = np.round(low).astype(np.int64)
    return np.concatenate([first, np.maximum(np.round(high).astype(np.int64), first + 1)])


def write_request(peer: Peer, sample: Sample, rows: Sequence[int], folder: Path, options: dict[str, Any]) -> str:
    """Write request.json and pixels.bin of those rows into `folder`; returns a digest of all that was written.

    A peer whose `scale` is None is handed whole photos with the box found, null where none was.
    """
    jobs, hasher, offset = [], hashlib.blake2b(digest_size=16), 0
    with (folder / "pixels.bin").open("wb") as out:
        for row in rows:
            face, box = sample.faces[row], sample.boxes[row]
            image = decode(face.photo)
            place = None if box is None else [round(side) for side in box]
            if peer.scale is not None:
                image, place = cut(image, box, peer.scale, peer.square, peer.context)
            data = image.tobytes()
            hasher.update(data)
            out.write(data)
            jobs.append(
                {"file": face.id, "offset": offset, "height": image.shape[0], "width": image.shape[1], "box": place}
            )
            offset += len(data)
    text = json.dumps({"pixels": str(folder / "pixels.bin"), "options": options, "jobs": jobs})
    (folder / "request.json").write_text(text)
    hasher.update(json.dumps([jobs, options]).encode())
    return hasher.hexdigest()
