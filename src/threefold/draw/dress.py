"""`threefold dress SOURCE OUT`: bare portraits -> the same portraits bare, with worn and with badly worn masks.

What `synth` is for the contest's layout, this is for any portraits with gender and age: framing, size and light stay
those of the photo, the table is a plain labels.csv, and a person keeps the name it has in the source. A set of mixed
sources needs it: where bare faces come from one source and masked ones from another, a network learns the source.
"""

from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from threefold import labels
from threefold.assets import asset_path
from threefold.data.face import Face
from threefold.data.sources import read_faces
from threefold.draw.drawn_set import DrawnSet, need_number
from threefold.draw.landmarks import fit_geometry
from threefold.draw.masks import Wear, random_design
from threefold.draw.overlay import draw_mask, wrong_ways
from threefold.errors import DataError, PhotoError
from threefold.files import digest, new_folder, write_csv
from threefold.labels import Mask
from threefold.parallel import processes
from threefold.photos.decode import decode
from threefold.photos.detect import by_size, detect, landmarks
from threefold.progress import bar

WRONG: dict[Wear, float] = {"nose_out": 0.6, "mouth_out": 0.12, "chin": 0.28}
"""How masks are worn wrongly, and how often: a nose that is out is what cameras see most (masks_real: 129 photos)."""
QUALITY = (70, 96)
"""JPEG quality that photos are written with, from and to below."""

Row = tuple[str, str, str, str, str]


def dress(
    source: str, out: str | Path, *, worn: int = 1, incorrect: int = 1, seed: int = 0, workers: int | None = None
) -> DrawnSet:
    """Write every bare portrait of `source`, and it with `worn` and `incorrect` drawn masks, to OUT.

    source: as `read_faces` takes it; photos that show a mask, or that cannot be read, are left out, those in which no
    face is found stay bare. OUT/labels.csv: file, person, gender, age, mask. The same seed gives the same bytes for
    any number of `workers` (processes; all cores by default). Raises DataError for a folder that is not empty, a
    source without a bare portrait, or counts below 0; AssetError without the detector or the mesh.
    """
    need_number("worn", worn, 0)
    need_number("incorrect", incorrect, 0)
    faces = [face for face in read_faces(source) if face.mask in (None, Mask.NONE)]
    if not faces:
        raise DataError(f"{source}: no portrait without a mask to draw on")
    for name in ("yunet", "mesh"):
        asset_path(name, get=True)  # once, before there are processes that would each wait for it
    with new_folder(Path(out)) as building:
        (building / "images").mkdir()
        draw = partial(_dress, folder=building, worn=worn, incorrect=incorrect, seed=seed)
        portraits: list[list[Row]] = []
        with bar("drawing masks", "portraits") as advance:
            for rows in processes(draw, list(enumerate(faces)), least=8, workers=workers, chunk=8):
                portraits.append(rows)
                advance(len(portraits), len(faces))
        table = [row for rows in portraits for row in rows]
        write_csv(building / "labels.csv", [("file", "person", "gender", "age", "mask"), *table])
    remarks = {"left out: unreadable": sum(not rows for rows in portraits)}
    if worn + incorrect:
        remarks["stay bare: no face was found in them"] = sum(len(rows) == 1 for rows in portraits)
    people = {"all": len({person for _, person, *_ in table})}
    return DrawnSet(Path(out), people, len(table), {remark: count for remark, count in remarks.items() if count})


def _dress(item: tuple[int, Face], *, folder: Path, worn: int, incorrect: int, seed: int) -> list[Row]:
    """Write the photos of one portrait, given its number; their rows, none where the portrait cannot be read."""
    number, face = item
    try:
        photo = decode(face.photo)
    except PhotoError:
        return []
    rng = np.random.default_rng([seed, int(digest(face.id, size=8), 16)])
    gender = "" if face.gender is None else labels.name("gender", int(face.gender))
    age = "" if face.age is None else f"{face.age:g}"
    rows: list[Row] = []

    def write(photo: NDArray[np.uint8], kind: str, mask: Mask) -> None:
        file = f"images/{number:06d}-{kind}.jpg"
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(photo), int(rng.integers(*QUALITY)), colorsubsampling="420")
        (folder / file).write_bytes(data)
        rows.append((file, face.person, gender, age, labels.name("mask", int(mask))))

    largest = by_size(detect(photo))[:1]
    points = landmarks(photo, largest[0]) if largest else None
    try:
        geometry = None if points is None else fit_geometry(points)
    except DataError:  # a face of a few pixels
        geometry = None
    # Bare photos are written anew as well, so that no trace of a second JPEG tells them from drawn ones.
    write(photo, "none", Mask.NONE)
    if geometry is None:
        return rows
    for place in range(worn):
        write(draw_mask(photo, geometry, random_design(rng), "worn"), f"worn{place}", Mask.WORN)
    ways = wrong_ways(geometry, photo.shape[0])
    odds = np.array([WRONG[way] for way in ways])
    for place in range(worn, worn + incorrect):
        wear = ways[int(rng.choice(len(ways), p=odds / odds.sum()))]
        write(draw_mask(photo, geometry, random_design(rng), wear), f"{wear}{place}", Mask.INCORRECT)
    return rows
