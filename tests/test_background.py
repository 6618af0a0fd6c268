"""Backgrounds: what is painted and what stays, on drawn people and, with the model, on real ones."""

from __future__ import annotations

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
from threefold.errors import AssetError
from threefold.labels import Mask
from threefold.photos import background as room
from threefold.photos import decode as photo
from threefold.photos import networks
from threefold.photos.background import BACKGROUNDS, FILLS, Segment
from threefold.photos.cache import open_cache
from threefold.photos.prepare import Prepare

Pixels = NDArray[np.uint8]


def have(name: str) -> bool:
    try:
        return asset_path(name).is_file()
    except AssetError:
        return False


needs_model = pytest.mark.skipif(not have("selfie"), reason="the segmentation is not here: `threefold assets selfie`")
needs_photos = pytest.mark.skipif(not (SHARED / "portraits_cc").is_dir(), reason="the real photos are not here")


@cache
def person(index: int = 0) -> Pixels:
    """A drawn head and shoulders [256, 192, 3]."""
    return draw_photo(draw_person(0, index), Mask.NONE, np.random.default_rng(index), (256, 192))[0]


def portraits(count: int) -> list[Pixels]:
    """Studio portraits before a light wall."""
    paths = sorted(p for p in (SHARED / "portraits_cc").rglob("*.jpg"))
    return [photo.decode(path) for path in paths[:: len(paths) // count][:count]]


@needs_model
@pytest.mark.parametrize("fill", FILLS)
def test_the_fill_and_every_shape(fill: str) -> None:
    paint = Segment(fill=fill)  # type: ignore[arg-type]  # a key of FILLS
    out = paint(person())
    assert (out[:20, :10] == FILLS[fill]).all()
    for shape in ((1, 1), (1, 700), (15, 15), (16, 16), (16, 128), (128, 16)):
        for image in (np.full((*shape, 3), 7, np.uint8), np.random.default_rng(1).integers(0, 256, (*shape, 3))):
            crop = image.astype(np.uint8)
            before = crop.copy()
            out = paint(crop)
            assert out.shape == crop.shape and out.dtype == np.uint8
            assert np.array_equal(crop, before), "the photo itself is not painted"


class Half:
    """Stands for the network: the left half is a person, three to one; at 0.8 nobody is seen, and the crop stays."""

    def setInput(self, blob: NDArray[np.float32]) -> None:  # noqa: N802 (OpenCV's name)
        assert blob.shape == (1, 3, 256, 256) and blob.dtype == np.float32
        self.mean = blob.mean(axis=(0, 2, 3))

    def forward(self) -> NDArray[np.float32]:
        assert np.allclose(self.mean, (200 / 255, 100 / 255, 0), atol=1e-6), "it wants RGB in 0..1"
        out = np.full((1, 1, 256, 256), 0.25, np.float32)
        out[..., :128] = 0.75
        return out


@pytest.mark.parametrize(("threshold", "left", "right"), [(0.5, 200, 0), (0.2, 200, 200), (0.8, 200, 200)])
def test_segment_paints_what_is_under_the_threshold(
    threshold: float, left: int, right: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room._SELFIE, "_spare", [Half()])
    image = np.broadcast_to(np.array([200, 100, 0], np.uint8), (512, 384, 3)).copy()
    out = Segment(fill="black", threshold=threshold)(image)
    assert (out[:, :190, 0] == left).all() and (out[:, -190:, 0] == right).all()
    edge = out[0, 190:194, 0].astype(int)
    assert (np.diff(edge) <= 0).all() and (left == right or 0 < edge[1] < 200), "the edge is smoothed"


@needs_model
@needs_photos
def test_segment_keeps_faces_and_paints_walls() -> None:
    for image in portraits(6):
        out = Segment(fill="black")(image)
        height, width = image.shape[:2]
        face = np.s_[int(0.4 * height) : int(0.6 * height), int(0.42 * width) : int(0.58 * width)]
        assert np.array_equal(out[face], image[face])
        assert (out[: height // 12, : width // 12] == 0).mean() > 0.9


@needs_model
def test_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    """OpenCV's threads, ours, and what either did before; through the cache and by Prepare alone."""
    images = [person(0), person(1), person(2)[:200], cv2.GaussianBlur(person(3), (0, 0), 4)[::2, ::2]]
    faces = []
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        faces.append(Face(tmp_path / f"{i}.png", f"p{i}", str(i)))
    ready = Prepare(size=(64, 48), background="segment")
    before = cv2.getNumThreads()
    expected = [ready(image).tobytes() for image in images]
    try:
        for threads in (1, 7):
            cv2.setNumThreads(threads)
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(lambda image: ready(image).tobytes(), images)) == expected
            cached = open_cache(faces, ready, root=tmp_path / str(threads), workers=threads)
            assert [row.tobytes() for row in cached] == expected
    finally:
        cv2.setNumThreads(before)
    assert expected[0] != Prepare(size=(64, 48))(images[0]).tobytes()


def test_without_the_model_segment_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, get: bool) -> Path:
        raise AssetError(f"{name}: is not on this machine {get}")

    monkeypatch.setattr(networks, "asset_path", missing)
    monkeypatch.setattr(room, "_SELFIE", networks.Tflite("selfie"))
    ready = Prepare(background="segment")
    with pytest.raises(AssetError, match=r"^selfie: is not on this machine True$"):
        ready(person())


def test_keep_is_the_photo_itself() -> None:
    image = person()
    assert np.array_equal(Prepare(size=(256, 192))(image), image) and BACKGROUNDS["keep"]()(image) is image
