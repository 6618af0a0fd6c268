"""Copies of old people's photos: what they look like, whose they are, and that none of them is ever judged by."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import every

from threefold.data.face import Face
from threefold.errors import LeakError, RecipeError
from threefold.learn.copies import COPIES, expand, with_copies
from threefold.learn.loader import Photos, make_photos, to_device

CPU = torch.device("cpu")
GROUPS = (0, 2, 1, 2, None, 2)


def photos() -> Photos:
    rng = np.random.default_rng(0)
    faces = [
        Face(Path(f"{i}.jpg"), f"p{i // 2}", f"{i}.jpg", i % 3, i % 2, 20.0 + i, group)
        for i, group in enumerate(GROUPS)
    ]
    coarse = rng.integers(0, 256, (len(faces), 6, 5, 3), dtype=np.uint8)
    smooth = [cv2.resize(image, (30, 40), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return make_photos(np.stack(smooth), faces)


def turned(image: np.ndarray, mirrored: bool, degrees: float) -> np.ndarray:
    """OpenCV's rotation: about the middle, positive to the left, the border goes on outside."""
    height, width = image.shape[:2]
    image = image[:, ::-1].copy() if mirrored else image
    about = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(image, about, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


POSES = {
    "old": [(False, 30), (False, -30)],
    "old(times=5, degrees=12)": [(False, 12), (False, -12), (True, 0), (True, 12), (True, -12)],
}


@pytest.mark.parametrize("text", every(COPIES))
def test_photos_stay_as_they_are_and_copies_stand_behind_them(text: str) -> None:
    plain, more = photos(), with_copies(photos(), text)
    count = len(plain.ids)
    assert more.ids[:count].tolist() == plain.ids.tolist() and len({*more.ids}) == len(more.ids)
    assert (more.variant[:count] == 0).all() and (more.variant[count:] > 0).all()
    assert (more.persons == plain.persons[more.base]).all() and (more.truth == plain.truth[more.base]).all()
    assert more.rows.tolist() == list(range(len(more.ids)))


@pytest.mark.parametrize("text", POSES)
@pytest.mark.parametrize("tensor", [False, True])
def test_copies_are_their_photos_turned_and_mirrored(text: str, tensor: bool) -> None:
    plain, poses = photos(), POSES[text]
    pixels = np.asarray(plain.images)
    more = with_copies(plain, text)
    assert more.images is plain.images, "no pixels are added"
    if tensor:
        more = replace(more, images=torch.from_numpy(pixels.copy()))
    mixed = np.random.default_rng(1).permutation(more.rows)
    batch = more.batch(mixed, CPU)
    assert batch.dtype == torch.uint8 and batch.shape == (len(mixed), 40, 30, 3)
    for image, row in zip(batch.numpy(), mixed, strict=True):
        base = more.base[row]
        if row < len(GROUPS):
            assert base == row and np.array_equal(image, pixels[row])
            continue
        number = int(more.ids[row].split("#")[1])
        wanted = turned(pixels[base], *poses[number - 1])
        assert np.abs(image.astype(int) - wanted.astype(int)).max() <= 6  # OpenCV rounds positions to 1/32 pixel
        assert np.abs(image.astype(int) - wanted.astype(int)).mean() < 0.6
        assert np.abs(image.astype(int) - pixels[base].astype(int)).mean() > 5
    assert torch.equal(batch, more.batch(mixed, CPU)), "nothing is drawn"
    assert np.array_equal(np.asarray(more.images), pixels), "photos are left alone"


def test_a_mirrored_copy_that_is_not_turned_is_exact() -> None:
    more = with_copies(photos(), "old(times=5)")
    row = more.ids.tolist().index("3.jpg#3")
    assert np.array_equal(more.batch(np.array([row]), CPU)[0].numpy(), np.asarray(more.images)[3, :, ::-1])


@pytest.mark.parametrize("times", [2, 5])
def test_old_photos_alone_have_copies_and_all_is_known_of_them(times: int) -> None:
    plain = photos()
    more = with_copies(plain, f"old(times={times})")
    assert len(more) == len(more.ids) == len(GROUPS) + 3 * times
    assert more.ids[len(GROUPS) :].tolist() == [f"{i}.jpg#{k + 1}" for i in (1, 3, 5) for k in range(times)]
    for row in range(len(more)):
        i = int(more.base[row])
        assert (more.variant[row] > 0) == (row >= len(GROUPS)) and more.ids[row].startswith(f"{i}.jpg")
        assert more.persons[row] == f"p{i // 2}" and more.ages[row] == 20 + i
        assert np.array_equal(more.truth[row], plain.truth[i])
        for name in ("joint", "mask", "gender", "age_group", "years"):
            assert torch.equal(getattr(more.target, name)[row], getattr(plain.target, name)[i])


def test_copies_train_exactly_when_their_photo_does() -> None:
    more = with_copies(photos(), "old(times=2)")
    split = np.array([0, 0, 1, 1, 2, 2])
    for fold in range(3):
        train = more.at(expand(more, np.flatnonzero(split != fold)))
        valid = more.at(np.flatnonzero(split == fold))
        assert not set(train.base[train.rows]) & set(valid.base[valid.rows])
        assert not set(train.persons[train.rows]) & set(valid.persons[valid.rows])
        assert len(train) == 4 + 2 * 2 and len(valid) == 2, "two old people with a photo each are trained on"
        joint = np.full((2, 18), 1 / 18, dtype=np.float32)
        assert valid.predictions(joint, None, fold).photos.tolist() == more.ids[valid.rows].tolist()
    assert np.array_equal(expand(more, more.rows), more.rows), "nothing twice"
    assert np.array_equal(expand(photos(), np.array([1, 4])), [1, 4]), "without copies the rows as they are"


def test_rows_gain_the_copies_of_their_photos() -> None:
    side = with_copies(photos().at(np.array([0, 1])), "old")
    assert side.ids[side.rows].tolist() == ["0.jpg", "1.jpg", "1.jpg#1", "1.jpg#2"]


def test_a_copy_among_the_photos_to_judge_by_is_a_leak() -> None:
    more = with_copies(photos(), "old")
    joint = np.full((2, 18), 1 / 18, dtype=np.float32)
    with pytest.raises(LeakError, match=r"3\.jpg#2"):
        more.at(np.array([0, more.ids.tolist().index("3.jpg#2")])).predictions(joint, None, 0)


def test_none_changes_nothing() -> None:
    plain = photos()
    assert with_copies(plain, "none") is plain
    assert torch.equal(plain.batch(np.array([4, 0]), CPU), torch.from_numpy(np.asarray(plain.images)[[4, 0]]))
    assert to_device(plain, CPU) is plain


def test_nobody_old_no_copies() -> None:
    young = photos()
    young.truth[:, 2] = 0
    assert with_copies(young, "old(times=5)").ids.tolist() == young.ids.tolist()


@pytest.mark.parametrize(
    "text", ["old(times=3)", "old(degrees=0)", "old(degrees=200)", "young", "old|old", "old(turns=2)", "0.5*old"]
)
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"data\.copies") as caught:
        with_copies(photos(), text)
    assert "\n" not in str(caught.value)
