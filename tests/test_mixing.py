"""The contract of mixes for every row: images and targets are mixed in the same, exact shares."""

from itertools import product

import numpy as np
import pytest
import torch
from helpers import every

from threefold.errors import RecipeError
from threefold.learn.mixing import MIXES, Mix, chain
from threefold.learn.target import Target, make_target, mix
from threefold.spec import build

HOW = [
    f"per_batch={batch}, same_class={same}, p={p}" for batch, same, p in product((False, True), (False, True), (0.5, 1))
]
KINDS = ["cutmix(beta=0.3", "cutmix(half=vertical", "cutmix(half=vertical, low=0.2, high=0.9", "mixup(alpha=1.0"]
SPECS = [
    *every(MIXES), *(f"{kind}, {how})" for kind in KINDS for how in HOW), "mixup_old(alpha=0.3, p=1, share=0)",
    "mixup_old(p=1, share=0.8)", "mixup|cutmix", "cutmix(p=0.5)|mixup", "mixup_old(p=1)|cutmix(half=vertical)",
]  # fmt: skip
COUNT = 12  # 0 and 1, 2 and 3, ... are of the same class; the last four are old
CUTS = (4, 8)


def make_mix(text: str) -> Mix:
    mixes: list[Mix] = [mixing for _, mixing in build(text, MIXES, "train.mix")]
    return mixes[0] if len(mixes) == 1 else chain(mixes)


@pytest.fixture(params=SPECS)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mixing(text: str) -> Mix:
    return make_mix(text)


def batch():
    """Photo i is all i, so that what is in a mixed photo can be read off its pixels."""
    images = torch.arange(COUNT).float()[:, None, None, None].expand(COUNT, 3, 20, 16).clone()
    pair = np.arange(COUNT) // 2
    parts = np.stack([pair % 3, pair % 2, pair // 2], axis=1).astype(np.int8)
    return images, make_target(parts, np.arange(COUNT, dtype=np.float32), CUTS)  # year = photo number


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_target_holds_exactly_the_shares_of_the_pixels(mixing: Mix) -> None:
    images, target = batch()
    mixed, wanted = mixing(images, target, generator())
    assert mixed.shape == images.shape and mixed.dtype == images.dtype
    for row in range(COUNT):
        # the mean pixel is the share-weighted mean of photo numbers, and so is the mean year of the target
        year = float((wanted.years[row] * torch.arange(121)).sum())
        assert float(mixed[row].mean()) == pytest.approx(year, abs=1e-4)
        assert float(wanted.years[row].sum()) == pytest.approx(1, abs=1e-6)
        assert float(wanted.joint[row].sum()) == pytest.approx(1, abs=1e-6)


def test_same_seed_same_mix_and_another_seed_another(mixing: Mix, text: str) -> None:
    images, target = batch()
    one, other = mixing(images, target, generator(3)), mixing(images, target, generator(3))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1].joint, other[1].joint)
    differ = [not torch.equal(one[0], mixing(images, target, generator(seed))[0]) for seed in range(4, 16)]
    assert any(differ) == (text != "none")


def test_the_given_batch_is_left_alone(mixing: Mix) -> None:
    images, target = batch()
    before, joint = images.clone(), target.joint.clone()
    mixing(images, target, generator())
    assert torch.equal(images, before) and torch.equal(target.joint, joint)


def test_a_batch_of_one_survives(mixing: Mix) -> None:
    images, target = batch()
    mixed, wanted = mixing(images[:1], target.take(torch.tensor([0])), generator())
    assert torch.allclose(mixed, images[:1]) and torch.allclose(wanted.joint, target.joint[:1])


@pytest.mark.parametrize(
    "text",
    ["cutmix(p=0)", "mixup(p=0)", "cutmix(half=vertical, p=0)", "mixup_old(p=0)", "mixup_old(p=1, share=1)",
     "cutmix(p=0, per_batch=True)"],
)  # fmt: skip
def test_chance_nought_changes_nothing(text: str) -> None:
    images, target = batch()
    mixed, wanted = make_mix(text)(images, target, generator())
    assert torch.equal(mixed, images) and torch.equal(wanted.joint, target.joint)


def test_cutmix_pastes_one_box() -> None:
    images, target = batch()
    mixed, _ = make_mix("cutmix")(images, target, generator(1))
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


def number(images: torch.Tensor) -> Target:
    """All of one class, photo i of year i."""
    return make_target(np.zeros((len(images), 3), dtype=np.int8), np.arange(len(images), dtype=np.float32))


def test_vertical_cutmix_swaps_one_side_at_a_cut_between_low_and_high() -> None:
    images = torch.arange(200).float()[:, None, None, None].expand(200, 3, 2, 100).clone()
    mixed, _ = make_mix("cutmix(half=vertical, low=0.46, high=0.54)")(images, number(images), generator())
    cuts, sides = [], []
    for row in range(200):
        foreign = mixed[row, 0] != row
        if not foreign.any():
            continue  # its own partner
        assert torch.equal(foreign[0], foreign[1]), "over the whole height"
        border = (foreign[0, 1:] != foreign[0, :-1]).nonzero().flatten() + 1
        assert len(border) == 1, "one cut"
        cuts.append(int(border))
        sides.append(bool(foreign[0, -1]))
    assert (min(cuts), max(cuts)) == (46, 54) and len(set(cuts)) == 9
    assert 0.4 < np.mean(sides) < 0.6, "left and right in turn"


def test_vertical_cutmix_is_a_half_by_default() -> None:
    images, target = batch()
    mixed, wanted = make_mix("cutmix(half=vertical)")(images, target, generator())
    foreign = (mixed[:, 0, 0] != torch.arange(COUNT)[:, None]).sum(1)
    assert set(foreign.tolist()) <= {0, 8} and (foreign == 8).sum() > COUNT // 2
    assert sorted(wanted.years[0][wanted.years[0] > 0].tolist()) == [0.5, 0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_per_batch_mixes_all_photos_or_none(kind: str) -> None:
    images, target = batch()
    drawn = make_mix(f"{kind}, p=0.3, per_batch=True, same_class=True)")  # same class: nobody is their own partner
    touched = [
        int(((drawn(images, target, generator(s))[0] - images).flatten(1).abs() > 0).any(1).sum()) for s in range(300)
    ]
    least = COUNT if "half" in kind or "mixup" in kind else 1  # a box may be clipped away at the border
    assert all(count == 0 or count >= least for count in touched)
    assert np.mean([count > 0 for count in touched]) == pytest.approx(0.3, abs=0.09)


@pytest.mark.parametrize("kind", KINDS)
def test_same_class_mixes_within_the_known_classes_alone(kind: str) -> None:
    parts = np.array([[0, 0, 0]] * 4 + [[1, 0, 1]] * 4 + [[2, 1, 2]] + [[-1, 0, 2]] * 3, dtype=np.int8)
    images, _ = batch()
    target = make_target(parts, np.arange(COUNT, dtype=np.float32), CUTS)
    partners: set[tuple[int, int]] = set()
    for seed in range(40):
        mixed, wanted = make_mix(f"{kind}, same_class=True)")(images, target, generator(seed))
        for name in ("joint", "mask", "gender", "age_group"):
            assert torch.allclose(getattr(wanted, name), getattr(target, name)), "labels are those of the class"
        assert torch.allclose(mixed[8:], images[8:]), "alone in its class, or of unknown class"
        partners |= {(int(row), int(year)) for row, year in (wanted.years > 1e-6).nonzero() if row != year}
    groups = [range(4), range(4, 8)]
    assert partners == {(i, j) for group in groups for i in group for j in group if i != j}


def test_mixup_old_changes_old_photos_alone_and_by_no_more_than_it_may() -> None:
    images, target = batch()
    shares, partners = [], set()
    others, old = np.arange(8), np.arange(8, COUNT)
    for seed in range(150):
        mixed, wanted = make_mix("mixup_old(alpha=1, p=0.75, share=0.4)")(images, target, generator(seed))
        assert torch.equal(mixed[others], images[others]) and torch.equal(wanted.joint[others], target.joint[others])
        shares += wanted.years[old, old].tolist()
        always = make_mix("mixup_old(p=1)")(images, target, generator(seed))[1]
        assert (always.years[old, old] < 1).all(), "nobody is their own partner"
        partners |= {(int(old[row]), int(year)) for row, year in wanted.years[old].nonzero() if old[row] != year}
    untouched = np.array(shares) == 1
    assert untouched.mean() == pytest.approx(0.25, abs=0.08), "chance p"
    assert min(shares) >= 0.4 and np.mean(np.array(shares)[~untouched]) == pytest.approx(0.7, abs=0.05)
    assert partners == {(i, j) for i in old for j in range(COUNT) if i != j}, "any other photo of the batch"


def test_mixup_old_asks_for_a_mass_above_a_half() -> None:
    images, target = batch()
    young = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 10, 11])
    target = mix(target, target.take(young), torch.tensor([1.0] * 8 + [0.5, 0.6, 1, 1]))
    mixed, _ = make_mix("mixup_old(p=1)")(images, target, generator())
    assert torch.equal(mixed[8], images[8]) and not torch.equal(mixed[9], images[9])


def test_a_chain_is_one_mix_after_the_other() -> None:
    images, target = batch()
    draws = generator(7)
    first = make_mix("mixup")(images, target, draws)
    wanted = make_mix("cutmix")(*first, draws)
    got = make_mix("mixup|cutmix")(images, target, generator(7))
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1].years, wanted[1].years)
    assert chain([])(images, target, generator())[0] is images


@pytest.mark.parametrize(
    "text",
    ["cutmix(p=1.5)", "mixup(p=-0.1)", "mixup(alpha=0)", "cutmix(beta=-1)", "cutmix(half=vertical, low=0.6, high=0.4)",
     "cutmix(half=vertical, high=1.1)", "cutmix(half=horizontal)", "cutmix(low=0.4)", "cutmix(half=vertical, beta=2)",
     "mixup_old(share=1.5)", "mixup_old(alpha=0)", "cutmix(half=vertical, low=-0.1)", "mixup(same_class=7)"],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.mix") as caught:
        make_mix(text)
    assert "\n" not in str(caught.value)
