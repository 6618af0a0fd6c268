"""Prepare: crops and resizes against naive definitions, values checked, the same bytes whoever calls it."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from threefold.errors import DataError, RecipeError
from threefold.photos import prepare as room
from threefold.photos.prepare import CROPS, RESIZES, Prepare, dataset_statistics, parse_size


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def average(rows: NDArray[np.float64], old: int, new: int, row: int) -> NDArray[np.float64]:
    start, end = row * old / new, (row + 1) * old / new
    weight = np.clip(np.minimum(np.arange(old) + 1, end) - np.maximum(np.arange(old), start), 0, None)
    return np.tensordot(weight / weight.sum(), rows, 1)


@pytest.mark.parametrize(("down", "across"), [(1, 1), (2, 2), (4, 4), (3, 5), (1, 4), (4, 1)])
def test_area_is_the_average_of_boxes(down: int, across: int) -> None:
    image = noise(16 * down, 12 * across)
    exact = image.reshape(16, down, 12, across, 3).mean(axis=(1, 3))
    assert np.abs(Prepare(size=(16, 12))(image) - exact).max() <= 0.5 + 1e-4


def test_area_of_parts_of_pixels() -> None:
    image = noise(50, 30)
    rows = np.stack([average(image.astype(float), 50, 16, row) for row in range(16)])
    exact = np.stack([average(rows.swapaxes(0, 1), 30, 12, column) for column in range(12)]).swapaxes(0, 1)
    assert np.abs(Prepare(size=(16, 12))(image) - exact).max() <= 0.51


@pytest.mark.parametrize("shape", [(16, 12), (8, 200), (200, 8)])
def test_area_is_linear_where_it_grows(shape: tuple[int, int]) -> None:
    """OpenCV's own INTER_AREA gives steps here, and skips pixels of the axis that shrinks."""
    image = noise(*shape)
    small = np.asarray(image, dtype=float)
    for axis, (old, new) in enumerate(zip(shape, (64, 48), strict=True)):
        if new < old:
            small = np.moveaxis(small, axis, 0)
            small = np.stack([average(small, old, new, row) for row in range(new)])
            small = np.moveaxis(small, 0, axis)
    for axis, new in enumerate((64, 48)):
        old = small.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.minimum(np.floor(at).astype(int), max(old - 2, 0))
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        small = np.take(small, low, axis) * (1 - part) + np.take(small, np.minimum(low + 1, old - 1), axis) * part
    assert np.abs(Prepare(size=(64, 48))(image) - small).max() <= 1.5


def test_bilinear_is_smoothed_like_torchvision() -> None:
    stripes = np.zeros((512, 384, 3), np.uint8)
    stripes[::2] = 255
    assert np.ptp(Prepare(interpolation="bilinear")(stripes)) < 30  # without smoothing: black or white
    image = noise(64, 48)
    expected = Image.fromarray(image).resize((96, 128), Image.Resampling.BILINEAR)
    assert np.array_equal(Prepare(interpolation="bilinear")(image), np.asarray(expected))


def test_none_squeezes_and_an_equal_size_is_untouched() -> None:
    image = noise(128, 96)
    out = Prepare()(image)
    assert np.array_equal(out, image) and out.flags.c_contiguous
    assert Prepare(size=(64, 64))(image).shape == (64, 64, 3)


def test_centre() -> None:
    image = noise(20, 30)
    assert np.array_equal(Prepare(crop="centre(8, 10)", size=(8, 10))(image), image[6:14, 10:20])
    assert np.array_equal(Prepare(crop="centre(h=99, w=10)", size=(20, 10))(image), image[:, 10:20])


def test_face_without_margin_left_is_a_plain_cut() -> None:
    image = noise(200, 200)
    out = Prepare(crop="face(margin=1)", size=(40, 40))(image, (80, 90, 120, 120))
    assert np.array_equal(out, image[85:125, 80:120])  # 40 x 40 around (100, 105)
    tall = Prepare(crop="face(margin=1.5)", size=(80, 60))(image, (80, 90, 120, 120))
    assert np.array_equal(tall, image[65:145, 70:130])  # 60 wide, 80 high: the square is inside


@example(10, 59.5, 1, 1, 0.5, True)  # one pixel, and Python rounds its place to the row below the photo
@settings(deadline=None)
@given(st.floats(-15, 45), st.floats(-15, 60), st.floats(3, 40), st.floats(3, 40), st.floats(0.5, 3), st.booleans())
def test_face_repeats_the_edge(left: float, top: float, width: float, height: float, margin: float, tall: bool) -> None:
    image = noise(60, 45)
    box = (left, top, left + width, top + height)
    seen = [min(left + width, 45) - max(left, 0), min(top + height, 60) - max(top, 0)]
    crop = room.FaceBox(margin)
    size = (64, 48) if tall else (48, 64)
    assume(abs(seen[0] * seen[1] - width * height / 2) > 1e-9)  # a half is a half only to rounding
    if min(seen) <= 0 or seen[0] * seen[1] < width * height / 2:
        with pytest.raises(DataError, match="does not lie on the photo, 45x60"):
            crop(image, box, size)
        return
    part = crop(image, box, size)
    side = margin * max(width, height)
    assert (
        abs(part.shape[0] - side * (4 / 3 if tall else 1)) <= 0.5
        and abs(part.shape[1] - side * (1 if tall else 4 / 3)) <= 0.5
    )
    y0, x0 = round((box[1] + box[3] - part.shape[0]) / 2), round((box[0] + box[2] - part.shape[1]) / 2)
    rows = np.clip(np.arange(y0, y0 + part.shape[0]), 0, 59)
    columns = np.clip(np.arange(x0, x0 + part.shape[1]), 0, 44)
    assert np.array_equal(part, image[np.ix_(rows, columns)])


@pytest.mark.parametrize("shape", [(200, 100), (100, 200), (400, 300), (3, 900)])
def test_a_photo_without_a_face_gives_its_largest_centred_part(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(*shape)
    monkeypatch.setattr(room.detect, "largest", lambda photo: None)
    part = room.FaceBox()(image, None, (128, 96))
    height, width = part.shape[:2]
    assert height == shape[0] or width == shape[1]
    assert abs(height - width * 4 / 3) <= 4 / 3
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    assert np.array_equal(part, image[top : top + height, left : left + width])


def test_a_photo_without_a_box_is_cropped_around_the_face_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    image, box, seen = noise(90, 70), (20.0, 30.0, 50.0, 60.0), []
    monkeypatch.setattr(room.detect, "largest", lambda photo: (seen.append(photo), box)[1])
    ready = Prepare(crop="face(1.2)", size=(24, 24))
    assert ready.finds_faces and np.array_equal(ready(image), ready(image, box))
    assert len(seen) == 1 and seen[0] is image, "looked for once, in the whole photo, and not where a box is given"
    Prepare(size=(24, 24))(image), Prepare(crop="centre(20,20)", size=(24, 24))(image)
    assert len(seen) == 1 and not Prepare().finds_faces


def test_the_background_is_painted_in_the_crop_before_it_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def painter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(image.shape)
        return 255 - image

    monkeypatch.setitem(room.background.BACKGROUNDS, "segment", lambda: painter)
    image = noise(60, 50)
    for crop, size in (("none", (30, 25)), ("centre(40,20)", (20, 10))):
        out = Prepare(crop=crop, size=size, background="segment")(image)
        assert np.array_equal(out, Prepare(crop=crop, size=size)(255 - image))
    assert seen == [(60, 50, 3), (40, 20, 3)]


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 20), (30, 10, 20, 20), (float("nan"), 0, 5, 5), (500, 0, 520, 20), (0, 0, 1e9, 1e9)]
)
def test_a_box_off_the_photo(box: Any) -> None:
    with pytest.raises(DataError, match="face box"):
        Prepare(crop="face")(noise(50, 40), box)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crop": "center(3,4)"}, r"prepare\.crop: 'center' is not known .*nearest: centre"),
        ({"crop": "centre(0,4)"}, r"prepare\.crop: centre\(0, 4\)"),
        ({"crop": "centre(4)"}, r"prepare\.crop: centre\(h, w\)"),
        ({"crop": "face(margin=9)"}, r"prepare\.crop: face\(margin=9\) must be from 0\.5 to 3"),
        ({"crop": "face(margin=wide)"}, r"prepare\.crop: face\(margin=\.\.\.\) cannot be 'wide'"),
        ({"crop": "none|face"}, r"prepare\.crop: expected one component"),
        ({"size": "128"}, None),
        ({"size": "128x"}, r"prepare\.size: expected height x width like 128x96, each 8 to 4096, not '128x'"),
        ({"size": "axb"}, r"prepare\.size"),
        ({"size": [128, 96, 3]}, r"prepare\.size"),
        ({"size": 4}, r"prepare\.size"),
        ({"size": (128.0, 96)}, r"prepare\.size"),
        ({"size": None}, r"prepare\.size"),
        ({"size": True}, r"prepare\.size"),
        ({"interpolation": "bilinaer"}, r"prepare\.interpolation: .*nearest: bilinear"),
        ({"std": (0.2, 0, 0.2)}, r"prepare\.normalise: std"),
        ({"mean": (0.2, 0.3)}, r"prepare\.normalise: mean"),
        ({"mean": (0.2, 0.3, float("nan"))}, r"prepare\.normalise: mean"),
        ({"mean": 124}, r"prepare\.normalise: mean"),
        ({"interpolation": ["area"]}, r"prepare\.interpolation"),
        ({"background": "segmant"}, r"prepare\.background: 'segmant' is not known .*nearest: segment"),
        ({"background": "segment(fill=red)"}, r"prepare\.background: segment\(fill=\.\.\.\) cannot be 'red'.*'grey'"),
        (
            {"background": "segment(threshold=1)"},
            r"prepare\.background: segment\(threshold=1\) must be between 0 and 1",
        ),
        ({"background": None}, r"prepare\.background"),
        ({"colour": 1}, r"prepare\.colour is not known"),
    ],
)
def test_values_are_checked(values: dict[str, Any], words: str | None) -> None:
    if words is None:
        Prepare.from_dict(values)
    else:
        with pytest.raises(RecipeError, match=words):
            Prepare.from_dict(values)


def test_parse_size() -> None:
    for value in ("128x96", "128X96", " 128 x 96 ", [128, 96], (128, 96)):
        assert parse_size(value) == (128, 96)
    assert parse_size(128) == parse_size("128") == parse_size([128]) == (128, 128)


def test_stored_and_read_back() -> None:
    one = Prepare(crop="face(margin=1.4)", size=(224, 224), interpolation="bilinear", mean=(0.5, 0.4, 0.3))
    again = Prepare.from_dict(json.loads(json.dumps(one.to_dict())))
    image = noise(90, 70)
    box = (20.0, 30.0, 50.0, 60.0)
    for same in (again, pickle.loads(pickle.dumps(one))):
        assert same == one and same.geometry == one.geometry and same(image, box).tobytes() == one(image, box).tobytes()


def test_geometry_is_what_the_bytes_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Prepare()
    assert base.geometry == Prepare(mean=(0.1, 0.2, 0.3), std=(1, 1, 1)).geometry
    assert Prepare(crop="face( margin = 1.5 )").geometry == Prepare(crop="face(margin=1.5)").geometry
    assert base.geometry == Prepare(background="keep()").geometry
    old = {"crop": "none", "size": [128, 96], "interpolation": "area", "mean": [0.5] * 3, "std": [0.5] * 3}
    assert Prepare.from_dict(old) == base, "written before there was a background"
    others = [
        *(Prepare(background=text) for text in ("segment", "segment(white)", "segment(threshold=0.4)")),
        Prepare(crop="face"),
        Prepare(crop="face(1.5)"),
        Prepare(size=(96, 128)),
        Prepare(interpolation="bilinear"),
    ]
    assert len({p.geometry for p in [base, *others]}) == 8
    before = base.geometry
    for prepare, part in ((Prepare(crop="face"), room.detect), (Prepare(background="segment"), room.background)):
        seen = prepare.geometry
        monkeypatch.setattr(part, "IDENTITY", part.IDENTITY + "x")
        assert prepare.geometry != seen and base.geometry == before, "only what is used counts"
    monkeypatch.setattr(room, "VERSION", room.VERSION + 1)
    assert base.geometry != before


@pytest.mark.parametrize("crop", ["none", "centre(900,700)", "face(1.2)"])
@pytest.mark.parametrize("interpolation", RESIZES)
def test_same_bytes_for_any_number_of_threads(crop: str, interpolation: str) -> None:
    assert crop.split("(", maxsplit=1)[0] in CROPS
    image = noise(1200, 900)
    ready = Prepare(crop=crop, size=(600, 500), interpolation=interpolation)
    box = (100.0, 100.0, 800.0, 900.0)
    before = cv2.getNumThreads()
    try:
        results = set()
        for threads in (1, 2, 7):
            cv2.setNumThreads(threads)
            results.add(ready(image, box).tobytes())
        with ThreadPoolExecutor(4) as pool:
            results |= set(pool.map(lambda _: ready(image, box).tobytes(), range(4)))
    finally:
        cv2.setNumThreads(before)
    assert len(results) == 1


def test_dataset_statistics() -> None:
    images = np.random.default_rng(0).normal([140, 120, 60], [60, 20, 5], (37, 9, 7, 3)).clip(0, 255).astype(np.uint8)
    mean, std = dataset_statistics(images, chunk=5)
    flat = images.reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, flat.std(0), rtol=1e-12)
    Prepare(mean=mean, std=std)
    with pytest.raises(DataError, match=r"\[N, H, W, 3\]"):
        dataset_statistics(images[:0])


def test_caches_made_before_there_was_a_background_are_still_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "VERSION", 1)
    call = "(Call(name='none', args=(), options=(), weight=1.0),)"
    assert Prepare().geometry == room.digest("1", call, "(128, 96)", "area")
