"""The contract of mixes for every row: images and targets are mixed in the same, exact shares."""

import numpy as np
import pytest
import torch

from threefold.errors import RecipeError
from threefold.learn.mixing import MIXES, Mix
from threefold.learn.target import make_target
from threefold.spec import build_one

SPECS = [*MIXES, "cutmix(beta=0.3, p=0.5)", "mixup(alpha=1.0, p=0.5)"]
COUNT = 12


def made(text: str) -> Mix:
    mix: Mix = build_one(text, MIXES, "train.mix")
    return mix


@pytest.fixture(params=SPECS)
def each(request: pytest.FixtureRequest) -> Mix:
    return made(request.param)


def batch():
    """Photo i is all i, so that what is in a mixed photo can be read off its pixels."""
    images = torch.arange(COUNT).float()[:, None, None, None].expand(COUNT, 3, 20, 16).clone()
    parts = np.stack([np.arange(COUNT) % 3, np.arange(COUNT) % 2, np.arange(COUNT) % 3], axis=1).astype(np.int8)
    return images, make_target(parts, np.arange(COUNT, dtype=np.float32))  # year = photo number


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_target_holds_exactly_the_shares_of_the_pixels(each: Mix) -> None:
    images, target = batch()
    mixed, wanted = each(images, target, generator())
    assert mixed.shape == images.shape and mixed.dtype == images.dtype
    for row in range(COUNT):
        # the mean pixel is the share-weighted mean of photo numbers, and so is the mean year of the target
        year = float((wanted.years[row] * torch.arange(121)).sum())
        assert float(mixed[row].mean()) == pytest.approx(year, abs=1e-4)
        assert float(wanted.years[row].sum()) == pytest.approx(1, abs=1e-6)
        assert float(wanted.joint[row].sum()) == pytest.approx(1, abs=1e-6)


def test_same_seed_same_mix_and_another_seed_another(each: Mix) -> None:
    images, target = batch()
    one, other = each(images, target, generator(3)), each(images, target, generator(3))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1].joint, other[1].joint)
    if each.__class__ is not MIXES["none"]:
        assert not torch.equal(one[0], each(images, target, generator(4))[0])


def test_the_given_batch_is_left_alone(each: Mix) -> None:
    images, target = batch()
    before, joint = images.clone(), target.joint.clone()
    each(images, target, generator())
    assert torch.equal(images, before) and torch.equal(target.joint, joint)


def test_a_batch_of_one_survives(each: Mix) -> None:
    images, target = batch()
    mixed, wanted = each(images[:1], target.take(torch.tensor([0])), generator())
    assert torch.allclose(mixed, images[:1]) and torch.allclose(wanted.joint, target.joint[:1])


@pytest.mark.parametrize("text", ["cutmix(p=0)", "mixup(p=0)"])
def test_chance_nought_changes_nothing(text: str) -> None:
    images, target = batch()
    mixed, wanted = made(text)(images, target, generator())
    assert torch.equal(mixed, images) and torch.equal(wanted.joint, target.joint)


def test_cutmix_pastes_one_box() -> None:
    images, target = batch()
    mixed, _ = made("cutmix")(images, target, generator(1))
    boxes = 0
    for row in range(COUNT):
        foreign = mixed[row, 0] != row
        if not foreign.any():
            continue
        boxes += 1
        rows, columns = foreign.any(1).nonzero().flatten(), foreign.any(0).nonzero().flatten()
        inside = foreign[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.all(), "what is pasted is a full rectangle"
        assert len(mixed[row, 0][foreign].unique()) == 1, "of one partner"
    assert boxes > COUNT // 2


@pytest.mark.parametrize("text", ["cutmix(p=1.5)", "mixup(p=-0.1)", "mixup(alpha=0)", "cutmix(beta=-1)"])
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.mix"):
        made(text)
