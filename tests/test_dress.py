"""`dress`: bare, worn and badly worn photos of any portraits. Real portraits where they are; drawn people else."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from threefold.assets import asset_path
from threefold.data.sources import read_faces
from threefold.draw.dress import dress
from threefold.errors import AssetError, DataError
from threefold.photos.decode import decode

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """Six portraits with labels, one without a face, one cut off, one that wears a mask already."""
    try:
        asset_path("mesh"), asset_path("yunet")
    except AssetError as error:
        pytest.skip(str(error))
    if not (SHARED / "aaf").is_dir():
        pytest.skip("../shared/data is not here")
    root = tmp_path_factory.mktemp("portraits")
    (root / "images").mkdir()
    faces = read_faces(f"csv:{SHARED / 'aaf'}")[:: 9321 // 6][:6]
    rows = []
    for n, face in enumerate(faces):
        (root / f"images/{n}.jpg").write_bytes(face.photo.read_bytes())
        rows.append((f"images/{n}.jpg", f"p{n}", ("male", "female")[face.gender], f"{face.age:g}", "none"))
    cv2.imwrite(str(root / "images/wall.jpg"), np.full((120, 120, 3), 90, np.uint8))
    (root / "images/cut.jpg").write_bytes(faces[0].photo.read_bytes()[:900])
    rows += [("images/wall.jpg", "w", "male", "", "none"), ("images/cut.jpg", "c", "male", "44", "none")]
    (root / "images/masked.jpg").write_bytes(faces[1].photo.read_bytes())
    rows += [("images/masked.jpg", "m", "male", "33", "worn")]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "person", "gender", "age", "mask"), *rows])
    return root


def test_every_portrait_is_there_bare_worn_and_badly_worn(portraits, tmp_path):
    result = dress(f"csv:{portraits}", tmp_path / "out", worn=2, incorrect=1, seed=3)
    out = result.out
    assert result.lines() == [
        f"{out}: 7 people in all, 25 photos",
        "1 left out: unreadable",
        "1 stay bare: no face was found in them",
    ]
    faces = read_faces(f"csv:{out}")
    masks = {}
    for face in faces:
        masks.setdefault(face.person, []).append(int(face.mask))
    assert {person: sorted(codes) for person, codes in masks.items()} == {
        **{f"p{n}": [0, 0, 1, 2] for n in range(6)}, "w": [2]
    }  # fmt: skip
    source = {face.person: face for face in read_faces(f"csv:{portraits}")}
    for face in faces:
        if face.person in source:
            assert (face.gender, face.age) == (source[face.person].gender, source[face.person].age)


def test_a_mask_changes_the_lower_half_of_a_face_and_keeps_size_and_framing(portraits, tmp_path):
    out = dress(f"csv:{portraits}", tmp_path / "out", worn=1, incorrect=0).out
    photos = {face.mask: decode(face.photo) for face in read_faces(f"csv:{out}") if face.person == "p0"}
    bare, worn = (photos[code].astype(int) for code in (2, 0))
    assert bare.shape == worn.shape == decode(portraits / "images/0.jpg").shape
    changed = abs(bare - worn).sum(2) > 60
    rows = np.flatnonzero(changed.any(1))
    assert 0.05 < changed.mean() < 0.5 and rows.min() > 0.25 * len(bare)


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(portraits, tmp_path):
    def files(name, **options):
        out = dress(f"csv:{portraits}", tmp_path / name, **options).out
        return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    one = files("a", seed=1, workers=1)
    assert one == files("b", seed=1, workers=2)
    assert one != files("c", seed=2, workers=1)


def test_what_cannot_be_dressed_is_said(portraits, tmp_path):
    with pytest.raises(DataError, match="0 or more"):
        dress(f"csv:{portraits}", tmp_path / "out", worn=-1)
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        dress(f"csv:{portraits}", full)
    assert (full / "x").read_text() == "mine"
    only = tmp_path / "masked"
    only.mkdir()
    (only / "labels.csv").write_text("file,person,mask\n../0.jpg,p,worn\n")
    with pytest.raises(DataError):
        dress(f"csv:{only}", tmp_path / "out")
