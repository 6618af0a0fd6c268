"""The contract of samplers for every row, and each against an independent definition of what it draws."""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import every

from threefold.data.face import Face
from threefold.errors import DataError, RecipeError
from threefold.labels import encode
from threefold.learn.loader import Photos, make_photos
from threefold.learn.samplers import SAMPLERS, Sampler
from threefold.learn.target import make_target
from threefold.spec import build_one

BY = ("joint", "mask", "gender", "age_group")
SPECS = [
    *every(SAMPLERS),
    *(f"{name}(by={by})" for name, row in SAMPLERS.items() if "by" in inspect.signature(row).parameters for by in BY),
    "weighted(power=0.5)",
    "weighted(power=1000)",
    "balanced(mode=up)",
    "balanced(mode=4)",
    "dynamic(max_ratio=2)",
    "dynamic(decay=0.1, start=3)",
]


def photos(parts: Any, persons: list[str] | None = None) -> Photos:
    """One photo per (mask, gender, age group); None is unknown. Three photos in front belong to the other side."""
    faces = [
        Face(Path(f"{i}.jpg"), persons[i - 3] if persons and i > 2 else f"p{i}", f"{i}.jpg", mask, gender, None, group)
        for i, (mask, gender, group) in enumerate([(0, 0, 0), (2, 1, 2), (1, 0, 1), *parts])
    ]
    whole = make_photos(np.zeros((len(faces), 1, 1, 3), dtype=np.uint8), faces)
    return whole.at(np.arange(3, len(faces)))


def skewed() -> Photos:
    """48 young men, 20 old women with a mask worn incorrectly, 5 without; 7 photos without an age group."""
    return photos([(0, 0, 0)] * 48 + [(1, 1, 2)] * 20 + [(2, 1, 2)] * 5 + [(0, 0, None)] * 7)


def make_sampler(text: str, side: Photos) -> Sampler:
    sampler: Sampler = build_one(text, SAMPLERS, "train.sampler", side)
    return sampler


def drawn(text: str, side: Photos, epoch: int = 0, seed: int = 0) -> np.ndarray:
    return make_sampler(text, side)(np.random.default_rng(seed), epoch)


def sizes(side: Photos, rows: np.ndarray) -> list[int]:
    """How many of the drawn are in each class of `skewed`, the unknown last."""
    counts = Counter(tuple(part) for part in side.truth[rows].tolist())
    return [counts[0, 0, 0], counts[1, 1, 2], counts[2, 1, 2], counts[0, 0, -1]]


@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize(
    "make", [skewed, lambda: photos([(0, 0, 0)]), lambda: photos([(None,) * 3] * 5), lambda: photos([(1, None, 2)] * 4)]
)
def test_every_epoch_is_drawn_from_the_side_and_from_the_generator(text: str, make: Callable[[], Photos]) -> None:
    side = make()
    sampler = make_sampler(text, side)
    for epoch in (0, 1, 50):
        rows = sampler(np.random.default_rng(epoch), epoch)
        assert rows.dtype == np.int64 and rows.ndim == 1 and len(rows)
        assert np.isin(rows, side.rows).all()
        assert np.array_equal(rows, sampler(np.random.default_rng(epoch), epoch))
    if len(side) > 50:
        assert not np.array_equal(sampler(np.random.default_rng(1), 0), sampler(np.random.default_rng(2), 0))


@pytest.mark.parametrize("text", SPECS)
def test_an_empty_side_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"train\.sampler: .*empty"):
        make_sampler(text, skewed().at(np.array([], dtype=np.int64)))


def test_shuffle_shows_every_photo_once_in_another_order() -> None:
    side = skewed()
    rows = drawn("shuffle", side)
    assert np.array_equal(np.sort(rows), side.rows) and not np.array_equal(rows, side.rows)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_weighted_is_torchs_weighted_random_sampler(power: float) -> None:
    side = skewed()
    counts = np.array([48, 20, 5])
    weights = np.repeat(1 / counts**power, counts)
    weights = np.append(weights, [weights.mean()] * 7)  # unknown: the mean weight
    torchs = torch.utils.data.WeightedRandomSampler(
        weights.tolist(), 80 * 400, generator=torch.Generator().manual_seed(0)
    )
    theirs = sizes(side, side.rows[list(torchs)])
    sampler, rng = make_sampler(f"weighted(power={power})", side), np.random.default_rng(0)
    epochs = [sampler(rng, epoch) for epoch in range(400)]
    assert {len(rows) for rows in epochs} == {80}
    ours = sizes(side, np.concatenate(epochs))
    assert np.allclose(np.array(ours) / 32000, np.array(theirs) / 32000, atol=0.012)
    assert np.allclose(
        np.array(ours) / 32000, [part.sum() / weights.sum() for part in np.split(weights, [48, 68, 73])], atol=0.01
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [  # the 7 unknown of 80 come as often as the 73 known on average
        ("balanced", [5, 5, 5, round(7 * 15 / 73)]),
        ("balanced(mode=up)", [48, 48, 48, round(7 * 144 / 73)]),
        ("balanced(mode=10)", [10, 10, 10, round(7 * 30 / 73)]),
        ("balanced(by=mask)", None),
    ],
)
def test_balanced_shows_every_class_equally_often(text: str, wanted: list[int] | None) -> None:
    side = skewed()
    rows = drawn(text, side)
    if wanted is None:  # everyone's mask is known: 55, 20 and 5
        assert np.bincount(side.truth[rows, 0]).tolist() == [5, 5, 5]
        return
    assert sizes(side, rows) == wanted
    for code, size in zip([0, 1, 2], [48, 20, 5], strict=True):
        own = rows[(side.truth[rows, 0] == code) & (side.truth[rows, 2] >= 0)]
        assert len(own) > size or len(np.unique(own)) == len(own), "no photo twice where there are enough"


@pytest.mark.parametrize(
    ("options", "decay", "start", "most"),
    [("", 0.9, 0, np.inf), ("decay=0.5", 0.5, 0, np.inf), ("start=4", 0.9, 4, np.inf), ("max_ratio=3.5", 0.9, 0, 3.5)],
)
def test_dynamic_is_catalysts_formula(options: str, decay: float, start: int, most: float) -> None:
    side = skewed()
    for epoch in range(12):
        exponent = decay ** (start + epoch)
        wanted = [int(min((size / 5) ** exponent, most) * 5 + 1e-9) for size in (48, 20, 5)]
        rows = drawn(f"dynamic({options})", side, epoch)
        assert sizes(side, rows) == [*wanted, round(7 * sum(wanted) / 73)]
        assert len(np.unique(rows)) == len(rows), "without replacement"
    assert sizes(side, drawn(f"dynamic({options})", side, 500))[:3] == [5, 5, 5], "equal in the end"


def test_dynamic_begins_with_every_photo_whatever_the_sizes() -> None:
    for few, many in [(7, 61), (11, 15), (11, 49), (3, 3)]:  # in floats 61 / 7 * 7 is less than 61
        side = photos([(0, 0, 0)] * many + [(1, 1, 1)] * few)
        assert np.array_equal(np.sort(drawn("dynamic", side)), side.rows)


def test_a_few_unknown_photos_do_not_shrink_an_epoch() -> None:
    side = photos([(0, 0, 0)] * 30 + [(1, 1, 2)] * 20 + [(0, None, None)])
    assert sizes(side, drawn("balanced", side)) == [20, 20, 0, 0]
    assert len(drawn("balanced", side)) == 41 and len(drawn("dynamic", side, 200)) == 41


def test_classes_are_those_of_the_training_targets() -> None:
    side = photos([(0, 0, 1)] * 40)
    ages = np.repeat(np.float32([20, 50, 59]), [3, 30, 10])
    side = replace(side, target=make_target(side.truth, ages, cuts=(30, 58)))  # whoever is 58 trains as old
    rows = drawn("balanced(by=age_group)", side)
    assert len(rows) == 20 and Counter(ages[rows].tolist()) == {50: 10, 59: 10}


@pytest.mark.parametrize(
    "text",
    ["weighted(power=-1)", "weighted(by=race)", "balanced(mode=0)", "balanced(mode=middle)", "dynamic(decay=1)",
     "dynamic(decay=0)", "dynamic(start=-1)", "dynamic(max_ratio=0.5)"],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.sampler") as caught:
        make_sampler(text, skewed())
    assert "\n" not in str(caught.value)


def test_joint_needs_all_three_labels() -> None:
    side = photos([(0, 1, 2)] * 4 + [(1, None, 0)] * 4)
    assert encode(0, 1, 2) == 5
    assert Counter(side.truth[drawn("balanced", side), 0].tolist()) == {0: 4, 1: 4}


def test_boost_makes_photos_of_a_source_and_label_more_frequent() -> None:
    """Chances are the class's weight times the factors of all names that fit."""
    photos = with_names(60)
    sampler = make_sampler("weighted(power=0, boost={'b/': 3, 'b/:incorrect': 2})", photos)
    drawn = np.bincount(np.concatenate([sampler(np.random.default_rng(e), e) for e in range(300)]), minlength=60)
    named = np.char.startswith(photos.ids, "b/")
    wanted = np.where(named, 3.0, 1.0) * np.where(named & (photos.truth[:, 0] == 1), 2.0, 1.0)
    expected = wanted / wanted.sum() * drawn.sum()
    assert (abs(drawn - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("boost", ["{'c/': 2}", "{'b/': -1}", "{'': 0}", "{'b/': 1e999}"])
def test_a_boost_that_cannot_be_is_refused(boost: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.sampler"):
        make_sampler(f"weighted(boost={boost})", with_names(12))


def with_names(count: int) -> Photos:
    """Half of the photos from source a, half from b, masks in turn."""
    faces = [Face(Path(), f"p{n}", f"{'ab'[n % 2]}/{n}.jpg", n % 3, n % 2, 20.0 + n, None) for n in range(count)]
    return make_photos(np.zeros((count, 1, 1, 3), dtype=np.uint8), faces)


def test_share_makes_an_epoch_shorter_or_longer() -> None:
    photos = with_names(12)
    for share, draws in ((0.5, 6), (2, 24), (0.001, 1)):
        assert len(make_sampler(f"weighted(power=0, share={share})", photos)(np.random.default_rng(0), 0)) == draws
    with pytest.raises(RecipeError, match=r"share cannot be 0\.0; expected a number above 0"):
        make_sampler("weighted(share=0)", photos)
