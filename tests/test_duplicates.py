"""Copies are found whatever was done to them, look-alikes are not, and persons who share a photo become one group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from threefold.data.duplicates import SIDE, count_within, fingerprint, near_duplicates, person_groups, same_picture

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
Image = NDArray[np.uint8]


def scene(seed: int, height: int = 128, width: int = 96) -> Image:
    """A drawn head before a wall: all have the composition of a portrait, each its own face, clothes and background."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(rng.integers(150, 235, (6, 5, 3)).astype(np.uint8), (96, 128), interpolation=cv2.INTER_CUBIC)
    picture = wall.copy()
    at = lambda x, y: (int(x + rng.normal(0, 3)), int(y + rng.normal(0, 3)))  # noqa: E731 - three lines of drawing
    cv2.ellipse(picture, at(48, 128), (40, 30), 0, 0, 360, rng.integers(20, 200, 3).tolist(), -1)
    cv2.ellipse(picture, at(48, 58), (30, 38), 0, 0, 360, rng.integers(20, 90, 3).tolist(), -1)
    cv2.ellipse(picture, at(48, 66), (23, 30), 0, 0, 360, (205, 170, 150), -1)
    for _ in range(14):
        place = (int(rng.uniform(28, 68)), int(rng.uniform(45, 92)))
        size = (int(rng.uniform(2, 8)), int(rng.uniform(1, 4)))
        cv2.ellipse(picture, place, size, rng.uniform(-30, 30), 0, 360, rng.integers(30, 220, 3).tolist(), -1)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def cropped(image: Image, share: float) -> Image:
    height, width = image.shape[:2]
    return image[int(height * share) :, : width - int(width * share)].copy()


COPIES: dict[str, Callable[[Image], Image]] = {
    "same": lambda image: image,
    "jpeg 60": lambda image: jpeg(image, 60),
    "half size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "prepared": lambda image: cv2.resize(image, (96, 128), interpolation=cv2.INTER_AREA),
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=1.1, beta=10),
    "darker": lambda image: cv2.convertScaleAbs(image, alpha=0.85, beta=-5),
    "mirrored": lambda image: image[:, ::-1].copy(),
    "crop 2 %": lambda image: cropped(image, 0.02),
    "crop 3 %, jpeg, smaller": lambda image: jpeg(cv2.resize(cropped(image, 0.03), (180, 240)), 60),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_and_nothing_else(how: str) -> None:
    images = [scene(seed, 512, 384) for seed in range(25)]
    prints = np.stack([fingerprint(image) for image in [*images, *map(COPIES[how], images)]])
    assert prints.shape == (50, SIDE, SIDE) and prints.dtype == np.uint8
    pairs = near_duplicates(prints, [f"p{n}" for n in range(50)]).tolist()
    assert all(j == i + 25 for i, j in pairs)
    assert len(pairs) >= (24 if "3 %" in how else 25)  # about the limit: 99.6 % of real photos


def test_only_across_persons_and_counted_within() -> None:
    images = [scene(seed) for seed in range(6)]
    prints = np.stack([fingerprint(image) for image in [*images, jpeg(images[0], 70), images[1], images[1]]])
    persons = ["a", "b", "c", "d", "e", "f", "a", "x", "b"]
    assert near_duplicates(prints, persons).tolist() == [[1, 7], [7, 8]]
    assert count_within(prints, persons) == 2


def test_flat_and_no_pictures() -> None:
    flat = np.stack([np.full((SIDE, SIDE), value, np.uint8) for value in (0, 0, 255, 128)])
    flat[2:, :, 24:] -= 1  # a wall with a shadow too faint to see is still flat
    assert near_duplicates(flat, ["a", "b", "c", "d"]).shape == (0, 2)
    assert near_duplicates(flat[:0], []).shape == (0, 2)
    assert person_groups([], np.empty((0, 2), np.int64)).tolist() == []


def test_what_cannot_be_aligned_is_not_the_same() -> None:
    picture = fingerprint(scene(1))
    assert same_picture(picture, picture)
    assert not same_picture(picture, 255 - picture)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [scene(seed) for seed in range(30)]
    prints = np.stack([fingerprint(image) for image in images + images[::-1]])
    persons = [f"p{n}" for n in range(60)]
    whole = near_duplicates(prints, persons).tolist()
    assert whole == [[n, 59 - n] for n in range(30)]
    monkeypatch.setattr("threefold.data.duplicates.BLOCK", 60 * 7)
    assert near_duplicates(prints, persons).tolist() == whole


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.data())
def test_groups_are_the_connected_components(people: list[int], data: st.DataObject) -> None:
    places = st.integers(0, len(people) - 1)
    pairs = data.draw(st.lists(st.tuples(places, places), max_size=12))
    groups = person_groups([f"p{n}" for n in people], np.array(pairs, np.int64).reshape(-1, 2))
    reached = {(a, b) for a in range(len(people)) for b in range(len(people)) if people[a] == people[b]}
    reached |= {pair for a, b in pairs for pair in ((a, b), (b, a))}
    for middle in range(len(people)):
        into = [a for a in range(len(people)) if (a, middle) in reached]
        out = [b for b in range(len(people)) if (middle, b) in reached]
        reached |= {(a, b) for a in into for b in out}
    assert {(a, b) for a in range(len(people)) for b in range(len(people)) if groups[a] == groups[b]} == reached


def test_studio_portraits_of_different_people_are_not_copies() -> None:
    """100 people before one wall, in one shirt, faces aligned: the hardest case there is."""
    folder = SHARED / "portraits_cc/images"
    if not folder.is_dir():
        pytest.skip("no shared data here")
    images = [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))[::2]]
    prints = np.stack([fingerprint(image) for image in images])
    assert len(near_duplicates(prints, [str(n) for n in range(len(prints))])) == 0
    again = np.stack([fingerprint(jpeg(cropped(image, 0.02), 60)) for image in images[:40]])
    both = np.concatenate([prints, again])
    pairs = near_duplicates(both, [str(n) for n in range(len(both))]).tolist()
    assert pairs == [[n, n + len(prints)] for n in range(40)]
