"""Targets are masses: known labels weigh one, unknown ones nothing, and mixing is one weighted sum."""

import numpy as np
import torch

from threefold.learn.target import YEARS, make_target, mix

PARTS = np.array([[0, 1, 2], [2, -1, 0], [-1, -1, -1], [1, 0, -1]], dtype=np.int8)
AGES = np.array([63.4, np.nan, np.nan, 200.0], dtype=np.float32)


def test_known_labels_are_one_hot_and_unknown_ones_weigh_nothing() -> None:
    target = make_target(PARTS, AGES)
    assert target.joint.sum(1).tolist() == [1, 0, 0, 0]
    assert target.joint[0].argmax() == 0 * 6 + 1 * 3 + 2
    assert target.mask.sum(1).tolist() == [1, 1, 0, 1]
    assert target.gender.sum(1).tolist() == [1, 0, 0, 1]
    assert target.age_group.sum(1).tolist() == [1, 1, 0, 0]
    assert target.years.shape == (4, YEARS)
    assert target.years[0].argmax() == 63
    assert target.years[3].argmax() == YEARS - 1, "years beyond the scale are clipped, not lost"
    assert target.years[1].sum() == 0


def test_mix_is_the_weighted_sum_of_every_field() -> None:
    target = make_target(PARTS, AGES)
    other = target.take(torch.tensor([3, 0, 1, 2]))
    share = torch.tensor([1.0, 0.25, 0.5, 0.0])
    mixed = mix(target, other, share)
    for name in ("joint", "mask", "gender", "age_group", "years"):
        for row in range(4):
            naive = share[row] * getattr(target, name)[row] + (1 - share[row]) * getattr(other, name)[row]
            assert torch.equal(getattr(mixed, name)[row], naive)


def test_take_keeps_the_order_asked_for() -> None:
    target = make_target(PARTS, AGES)
    assert torch.equal(target.take(np.array([2, 0])).mask, target.mask[[2, 0]])
    assert len(target.take(np.array([2, 0]))) == 2
