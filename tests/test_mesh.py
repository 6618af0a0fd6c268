"""Landmarks from the face mesh, against landmarks that came with photos; skipped where model or photos are absent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from threefold.assets import asset_path
from threefold.errors import AssetError
from threefold.photos.decode import decode
from threefold.photos.detect import Detection, detect, landmarks

AAF = Path(__file__).resolve().parents[2] / "shared" / "data" / "aaf"


@pytest.fixture(scope="module")
def models() -> None:
    try:
        asset_path("mesh"), asset_path("yunet")
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def portraits(models):
    """12 photos, the largest face of each and 49 landmarks that came with them."""
    if not AAF.is_dir():
        pytest.skip("../shared/data is not here")
    with np.load(AAF / "landmarks49.npz") as table:
        names, places = table["files"], table["xy"]
    photos = []
    for row in range(0, len(names), len(names) // 12):
        photo = decode(AAF / str(names[row]))
        faces = detect(photo)
        if faces:
            photos.append((photo, faces[0], places[row]))
    return photos


def test_points_lie_where_those_that_came_with_the_photos_do(portraits):
    """Mean distance of eyes, nose and mouth under a fifth of the eye distance on every photo, a tenth on most."""
    far = []
    for photo, face, expected in portraits:
        points = landmarks(photo, face)
        assert points is not None and points.shape == (68, 2)
        inner = np.delete(points, [*range(17), 60, 64], axis=0)
        eyes = np.linalg.norm(expected[19:25].mean(0) - expected[25:31].mean(0))
        far.append(float(np.linalg.norm(inner[10:] - expected[10:], axis=1).mean() / eyes))
    assert len(far) > 8 and max(far) < 0.2 and np.median(far) < 0.1


def test_a_turned_photo_has_turned_points(portraits):
    photo, face, _ = portraits[0]
    points = landmarks(photo, face)
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1)
    there = cv2.warpAffine(photo, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    again = landmarks(there, detect(there)[0])
    expected = points @ turn[:, :2].T + turn[:, 2]
    assert np.linalg.norm(again - expected, axis=1).mean() < 0.12 * np.linalg.norm(points[36] - points[45])


def test_where_there_is_no_face_there_are_no_points(models):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    points = ((60.0, 60.0), (140.0, 60.0), (100.0, 100.0), (70.0, 150.0), (130.0, 150.0))
    for shift in (0, 40):
        moved = tuple((x, y + shift * (i < 2)) for i, (x, y) in enumerate(points))
        assert landmarks(noise, Detection((40, 40, 160, 180), 0.9, moved)) is None


def test_threads_get_what_one_caller_gets(portraits):
    alone = [landmarks(photo, face) for photo, face, _ in portraits[:4]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda row: landmarks(*portraits[row][:2]), [0, 1, 2, 3] * 2))
    for row, points in enumerate(together):
        assert np.array_equal(points, alone[row % 4])
