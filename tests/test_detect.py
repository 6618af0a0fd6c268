"""Faces found in drawn and (where they are here) real photos, and what Prepare and the cache do with them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import SHARED
from numpy.typing import NDArray
from PIL import Image

from threefold.assets import asset_path
from threefold.data.face import Face
from threefold.draw.camera import draw_photo
from threefold.draw.people import draw_person
from threefold.errors import AssetError, DataError
from threefold.labels import Mask
from threefold.photos import decode as photo
from threefold.photos import detect
from threefold.photos.cache import open_cache
from threefold.photos.networks import Spares, scaled
from threefold.photos.prepare import Prepare


def have(name: str) -> bool:
    try:
        return asset_path(name).is_file()
    except AssetError:
        return False


needs_model = pytest.mark.skipif(not have("yunet"), reason="the detector is not here: `threefold assets yunet`")
needs_photos = pytest.mark.skipif(not (SHARED / "aaf").is_dir(), reason="the real photos are not here")
NOTHING = np.full((120, 90, 3), 200, np.uint8)


@cache
def drawn(index: int, mask: Mask = Mask.NONE) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A drawn person [256, 192, 3] and the 68 landmarks [68, 2] in pixels."""
    return draw_photo(draw_person(0, index), mask, np.random.default_rng(index), (256, 192))


def landmarks(count: int) -> list[tuple[Path, NDArray[np.float64]]]:
    """Real portraits, each with its 49 landmarks [49, 2] in pixels, not of this detector."""
    with np.load(SHARED / "aaf" / "landmarks49.npz") as stored:
        names, places = stored["files"], stored["xy"]
    rows = range(0, len(names), len(names) // count)
    return [(next((SHARED / "aaf").rglob(Path(str(names[r])).name)), places[r].astype(float)) for r in rows][:count]


@needs_model
@needs_photos
def test_faces_lie_where_the_landmarks_are() -> None:
    hits = 0
    for path, places in landmarks(12):
        image = photo.decode(path)
        box = detect.largest(image)
        assert box is not None
        left, top, right, bottom = box
        assert 0 <= left < right <= image.shape[1] and 0 <= top < bottom <= image.shape[0]
        inside = (places >= (left - 3, top - 3)) & (places <= (right + 3, bottom + 3))
        face = next(face for face in detect.detect(image) if face.box == box)
        apart = float(np.linalg.norm(places[19:25].mean(0) - places[25:31].mean(0)))
        expected = [places[19:25].mean(0), places[25:31].mean(0), places[14:19].mean(0)]
        off = np.linalg.norm(np.array(face.points[:3]) - expected, axis=1)
        hits += bool(inside.all(axis=1).mean() > 0.9 and off[:2].max() < 0.15 * apart and off[2] < 0.4 * apart)
    assert hits >= 11


@needs_model
@pytest.mark.parametrize("mask", list(Mask))
def test_drawn_faces_are_found(mask: Mask) -> None:
    hits = 0
    for index in range(5):
        image, places = drawn(index, mask)
        box = detect.largest(image)
        inside = box is not None and (places >= np.array(box[:2]) - 8).all(1) & (places <= np.array(box[2:]) + 8).all(1)
        hits += bool(np.mean(inside) > 0.9)
    assert hits >= 4


@needs_model
@pytest.mark.parametrize("factor", [0.5, 3, 8])
def test_boxes_are_in_the_photo_s_own_pixels(factor: float) -> None:
    image = drawn(0)[0]
    other = scaled(image, round(image.shape[0] * factor), round(image.shape[1] * factor))
    one, two = detect.largest(image), detect.largest(other)
    assert one is not None and two is not None
    assert np.abs(np.array(two) / factor - one).max() < 0.08 * (one[2] - one[0])


@needs_model
def test_the_largest_of_two() -> None:
    image = drawn(0)[0]
    small = scaled(image, image.shape[0] // 2, image.shape[1] // 2)
    both = np.full((image.shape[0], image.shape[1] * 2, 3), 128, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, image.shape[1] :] = image
    faces = detect.detect(both)
    assert len(faces) == 2 and faces[0].score >= faces[1].score >= detect.SCORE
    box = detect.largest(both)
    assert box is not None and box[0] > image.shape[1] and box in [face.box for face in faces]


@needs_model
def test_cache_and_prediction_see_the_same_face(tmp_path: Path) -> None:
    """Training's way (the cache) and prediction's (decode, Prepare) for photos with, without and given a face."""
    images = [*(drawn(i)[0] for i in range(5)), NOTHING]
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    faces = [Face(path, f"p{i}", str(i)) for i, path in enumerate(paths)]
    faces.append(Face(paths[0], "p0", "given", box=(20.0, 20.0, 90.0, 100.0)))
    ready = Prepare(crop="face(1.4)", size=(32, 24))
    expected = [ready(photo.decode(face.photo), face.box).tobytes() for face in faces]
    for workers in (1, 4):
        cached = open_cache(faces, ready, root=tmp_path / str(workers), workers=workers)
        assert [row.tobytes() for row in cached] == expected
    assert expected[0] != expected[-1] and (cached[5] == 200).all()
    whole = Prepare(size=(32, 24), crop="centre(999,144)")(photo.decode(paths[0])).tobytes()
    assert expected[0] != whole


@needs_model
def test_same_boxes_for_any_number_of_threads() -> None:
    images = [drawn(i)[0] for i in range(6)]
    before = cv2.getNumThreads()
    try:
        seen = set()
        for threads in (1, 2, 7):
            cv2.setNumThreads(threads)
            with ThreadPoolExecutor(4) as pool:
                seen.add(repr(list(pool.map(detect.detect, images))))
    finally:
        cv2.setNumThreads(before)
    assert len(seen) == 1


@needs_model
@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (9, 400), (120, 90)])
def test_photos_of_any_shape_without_a_face(shape: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert detect.detect(image) == [] and detect.largest(image) is None
    assert detect._make() is not None and capfd.readouterr() == ("", ""), "OpenCV's own warnings are not the user's"
    assert Prepare(crop="face", size=(16, 12))(image).shape == (16, 12, 3)


class Scripted:
    """Stands for the network: answers with rows made beforehand, in the pixels of the scaled photo."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows, self.looks = rows, []

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 (OpenCV's name)
        self.looks.append(size[::-1])

    def detect(self, image: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32] | None]:
        assert image.shape == (*self.looks[-1], 3) and (image == (0, 0, 9)).all(), "it wants BGR"
        return 1, np.array(self.rows, np.float32) if self.rows else None


@pytest.fixture
def network_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    def answer(*rows: tuple[float, float, float, float, float]) -> Scripted:
        network = Scripted([[*row[:4], *range(10), row[4]] for row in rows])
        monkeypatch.setattr(detect, "_DETECTORS", Spares(lambda: network))
        return network

    return answer


def red(*shape: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array([9, 0, 0], np.uint8), (*shape, 3)).copy()


def test_boxes_are_scaled_back_and_end_at_the_photo(network_with: Callable[..., Scripted]) -> None:
    network = network_with((10, 20, 30, 40, 0.7), (-8, 300, 50, 90, 0.9), (700, 0, 5, 5, 0.8))
    image = red(1280, 640)
    faces = detect.detect(image)
    assert network.looks == [(320, 160)]
    assert [(face.box, round(face.score, 3)) for face in faces] == [
        ((0, 1200, 168, 1280), 0.9),
        ((40, 80, 160, 240), 0.7),
    ]
    assert faces[0].points == ((0, 4), (8, 12), (16, 20), (24, 28), (32, 36))
    assert detect.largest(image) == (40, 80, 160, 240)


@pytest.mark.parametrize(
    ("shape", "looks"),
    [
        ((100, 50), [(320, 160)]),
        ((320, 2), [(320, 2)]),
        ((400, 500), [(256, 320), (400, 500)]),
        ((64, 6400), [(3, 320), (6, 640)]),
    ],
)
def test_the_sizes_that_are_looked_at(
    shape: tuple[int, int], looks: list[tuple[int, int]], network_with: Callable[..., Scripted]
) -> None:
    network = network_with()
    assert detect.detect(red(*shape)) == [] and network.looks == looks


@needs_model
def test_a_face_far_away_is_found_by_the_second_look() -> None:
    image = drawn(0)[0]
    small = scaled(image, 80, round(80 * image.shape[1] / image.shape[0]))
    far = np.full((1000, 1400, 3), 128, np.uint8)
    far[500 : 500 + small.shape[0], 900 : 900 + small.shape[1]] = small
    assert detect._look(far, 320 / 1400) == []
    box = detect.largest(far)
    assert box is not None and 900 < box[0] < box[2] < 975 and 500 < box[1] < box[3] < 585


def test_without_a_model_nothing_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, get: bool) -> Path:
        raise AssetError(f"{name}: is not on this machine {get}")

    monkeypatch.setattr(detect, "asset_path", missing)
    monkeypatch.setattr(detect, "_DETECTORS", Spares(detect._make))
    Image.fromarray(NOTHING).save(tmp_path / "a.png")
    ready, root = Prepare(crop="face", size=(16, 12)), tmp_path / "cache"
    with pytest.raises(AssetError, match=r"^yunet: is not on this machine True$"):
        open_cache([Face(tmp_path / "a.png", "p", "a")], ready, root=root)
    assert not list(root.glob("*.npy")) and not list(root.glob(".*tmp"))
    boxed = open_cache([Face(tmp_path / "a.png", "p", "a", box=(20, 20, 60, 70))], ready, root=root)
    assert (boxed == 200).all(), "photos with a box need no detector"


def test_a_spare_is_never_used_by_two_and_a_broken_one_not_again() -> None:
    counts: list[list[int]] = []
    spares = Spares(lambda: counts.append([]) or counts[-1])  # type: ignore[func-returns-value]
    spares.use(lambda one: spares.use(lambda other: one is not other or pytest.fail("shared")))
    spares.use(lambda one: None)
    assert len(counts) == 2

    def fails(network: list[int]) -> None:
        network.append(1)
        raise DataError("no")

    with pytest.raises(DataError):
        spares.use(fails)
    spares.use(lambda one: spares.use(lambda other: None))
    assert len(counts) == 3 and sum(map(len, counts)) == 1


@needs_model
def test_faces_far_away_beside_a_near_one_are_found_when_asked_for() -> None:
    """A crowd: one head 400 pixels high and three of about 30 in a picture of 1280."""
    picture = np.full((720, 1280, 3), 180, np.uint8)
    picture[200:712, 20:404] = cv2.resize(drawn(0)[0], (384, 512))
    for index, left in ((1, 566), (2, 806), (3, 1046)):
        picture[100:164, left : left + 48] = cv2.resize(drawn(index)[0], (48, 64), interpolation=cv2.INTER_AREA)
    near, all_of_them = detect.detect(picture), detect.detect(picture, far=True)
    assert len(near) == 1 and len(all_of_them) == 4 and near[0] in all_of_them
    middles = sorted((face.box[0] + face.box[2]) / 2 for face in all_of_them)
    assert np.allclose(middles[1:], [590, 830, 1070], atol=15)
    assert [face.score for face in all_of_them] == sorted((face.score for face in all_of_them), reverse=True)


@needs_model
def test_a_face_is_not_found_twice_by_looking_twice() -> None:
    for index in range(6):
        large = cv2.resize(drawn(index)[0], (750, 1000))
        assert detect.detect(large, far=True) == detect.detect(large)
