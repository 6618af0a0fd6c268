"""Targets are masses: known labels weigh one, unknown ones nothing, and mixing is one weighted sum."""

import numpy as np
import torch

from threefold import labels
from threefold.learn.target import YEARS, make_target, mix

PARTS = np.array([[0, 1, 2], [2, -1, 0], [-1, -1, -1], [1, 0, 2]], dtype=np.int8)
AGES = np.array([63.4, np.nan, np.nan, 200.0], dtype=np.float32)


def test_known_labels_are_one_hot_and_unknown_ones_weigh_nothing() -> None:
    target = make_target(PARTS, AGES)
    assert target.joint.sum(1).tolist() == [1, 0, 0, 1]
    assert target.joint[0].argmax() == 0 * 6 + 1 * 3 + 2
    assert target.mask.sum(1).tolist() == [1, 1, 0, 1]
    assert target.gender.sum(1).tolist() == [1, 0, 0, 1]
    assert target.age_group.sum(1).tolist() == [1, 1, 0, 1]
    assert target.age_group.argmax(1).tolist() == [2, 0, 0, 2]
    assert target.years.shape == (4, YEARS)
    assert target.years[0].argmax() == 63
    assert target.years[3].argmax() == YEARS - 1, "years beyond the scale are clipped, not lost"
    assert target.years[1].sum() == 0
    assert target.yearless.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], "a group no year has said"


def test_mix_is_the_weighted_sum_of_every_field() -> None:
    target = make_target(PARTS, AGES)
    other = target.take(torch.tensor([3, 0, 1, 2]))
    share = torch.tensor([1.0, 0.25, 0.5, 0.0])
    mixed = mix(target, other, share)
    for name in ("joint", "mask", "gender", "groups", "ages", "age_group", "years", "yearless"):
        for row in range(4):
            naive = share[row] * getattr(target, name)[row] + (1 - share[row]) * getattr(other, name)[row]
            assert torch.equal(getattr(mixed, name)[row], naive)


def test_take_keeps_the_order_asked_for() -> None:
    target = make_target(PARTS, AGES)
    assert torch.equal(target.take(np.array([2, 0])).mask, target.mask[[2, 0]])
    assert len(target.take(np.array([2, 0]))) == 2


def test_cuts_move_the_group_where_the_year_is_known_and_nowhere_else() -> None:
    """A photo of 58 trains as old, one that is called 30-59 stays so, and neither year nor yearless mass moves."""
    parts = np.array([[0, 1, 1], [0, 1, 1], [0, -1, 0], [2, 0, 2]], dtype=np.int8)
    ages = np.array([58, np.nan, 30, 57], dtype=np.float32)
    scored, moved = make_target(parts, ages), make_target(parts, ages, cuts=(31, 58))
    assert scored.age_group.argmax(1).tolist() == [1, 1, 1, 1], "the year decides, not the given group"
    assert moved.age_group.argmax(1).tolist() == [2, 1, 0, 1]
    assert moved.joint.argmax(1).tolist() == [5, 4, 0, 13] and moved.joint.sum(1).tolist() == [1, 1, 0, 1]
    assert torch.equal(moved.ages, scored.ages)


def test_of_gender_keeps_the_ages_of_one_gender() -> None:
    rng = np.random.default_rng(0)
    parts = np.stack([rng.integers(-1, size, 200) for size in (3, 2, 3)], axis=1).astype(np.int8)
    ages = np.where(rng.random(200) < 0.5, np.nan, rng.integers(0, 120, 200)).astype(np.float32)
    target = make_target(parts, ages)
    for code in (0, 1, labels.UNKNOWN):
        alone, own = target.of_gender(code), torch.from_numpy(parts[:, 1] == code)
        for name in ("age_group", "years", "yearless"):
            whole = getattr(target, name)
            assert whole[own].sum() > 0
            assert torch.equal(getattr(alone, name), whole * own[:, None])
        assert torch.equal(alone.mask, target.mask) and torch.equal(alone.gender, target.gender)


def test_of_gender_commutes_with_mixing() -> None:
    target = make_target(PARTS, AGES)
    other, share = target.take(torch.tensor([3, 2, 1, 0])), torch.tensor([0.5, 0.25, 0.75, 0.0])
    of_mix, of_each = mix(target, other, share).of_gender(1), mix(target.of_gender(1), other.of_gender(1), share)
    assert torch.equal(of_mix.ages, of_each.ages) and torch.equal(of_mix.groups, of_each.groups)
    assert of_mix.years[3].sum() == 1, "of the first photo, a woman"
