"""The contract of augmentations for every row: shape, range, one draw per photo, repeatable, and no-ops are no-ops."""

import inspect

import cv2
import pytest
import torch
from torchvision.transforms import v2

from threefold.errors import RecipeError
from threefold.learn.augment import AUGMENTS, make_augment

DRAWN = [name for name, row in AUGMENTS.items() if "p" in inspect.signature(row).parameters]
CERTAIN = [f"{name}(p=1.0)" for name in DRAWN]
SPECS = [*AUGMENTS, *CERTAIN, "erase(fill=black)", "colour_jitter(hue=0.1)", "flip|rotate(5)|noise|elastic"]


@pytest.fixture(params=SPECS)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def photos(count: int = 16) -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(count, 3, 6, 5)
    return torch.nn.functional.interpolate(small, (24, 18), mode="bilinear").clamp(0, 1)


@pytest.mark.parametrize("shape", [(16, 24, 18), (1, 24, 18), (3, 13, 40)])
def test_shape_type_and_range_are_kept(text: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    images = torch.rand(shape[0], 3, *shape[1:])
    out = make_augment(text)(images)
    assert out.shape == images.shape and out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1


def test_the_given_batch_is_left_alone(text: str) -> None:
    images = photos()
    before = images.clone()
    make_augment(text)(images)
    assert torch.equal(images, before)


def test_same_seed_same_pictures(text: str) -> None:
    augment, images = make_augment(text), photos()
    torch.manual_seed(5)
    first = augment(images)
    torch.manual_seed(5)
    assert torch.equal(first, augment(images))


def test_threads_do_not_matter(text: str) -> None:
    torch.manual_seed(2)
    augment, images, threads = make_augment(text), torch.rand(8, 3, 64, 48), torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(5)
            outs.append(augment(images))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outs)


@pytest.mark.parametrize("name", DRAWN)
def test_every_photo_has_its_own_draw(name: str) -> None:
    """Sixteen equal photos must not all come out equal (one draw per batch is what torchvision's v2 does)."""
    same = photos(1).expand(16, -1, -1, -1).contiguous()
    certain, coin = make_augment(f"{name}(p=1.0)"), make_augment(f"{name}(p=0.5)")
    draws = [certain(same), certain(same)]
    if torch.equal(*draws):  # a flip: a coin for each photo, then no further draw
        draws = [coin(same)]
    assert all(len({tuple(image.flatten().tolist()) for image in out}) > 1 for out in draws)


@pytest.mark.parametrize("name", DRAWN)
def test_chance_nought_changes_nothing(name: str) -> None:
    images = photos()
    assert torch.allclose(make_augment(f"{name}(p=0)")(images), images, atol=1e-6)


def test_flip_mirrors() -> None:
    images = photos()
    assert torch.equal(make_augment("flip(p=1.0)")(images), images.flip(3))


def test_random_crop_keeps_the_promised_area() -> None:
    """On a horizontal ramp the range of values that is left shows the side of the crop."""
    ramp = torch.linspace(0, 1, 200)[None, None, None, :].expand(64, 3, 200, 200).contiguous()
    out = make_augment("random_crop(0.64)")(ramp)
    side = out.amax((1, 2, 3)) - out.amin((1, 2, 3))
    assert side.min() >= 0.79 and side.max() <= 1.0 and side.std() > 0.01


def test_a_fixed_random_crop_has_that_area_exactly() -> None:
    ramp = torch.linspace(0, 1, 200)[None, None, None, :].expand(64, 3, 200, 200).contiguous()
    out = make_augment("random_crop(0.64, fixed=True)")(ramp)
    side = out.amax((1, 2, 3)) - out.amin((1, 2, 3))
    assert (side - 0.8).abs().max() < 0.01 and out.amin((1, 2, 3)).std() > 0.03


def test_rotation_fills_from_the_border_not_with_black() -> None:
    assert make_augment("rotate(30)")(torch.ones(4, 3, 24, 18)).min() > 0.99


def fit(seen: torch.Tensor, changed: torch.Tensor) -> tuple[float, float]:
    """made = slope * seen + shift, exactly."""
    basis = torch.stack([seen.flatten(), torch.ones(seen.numel())], 1)
    answer = torch.linalg.lstsq(basis, changed.flatten()).solution
    assert torch.allclose(basis @ answer, changed.flatten(), atol=1e-5)
    return float(answer[0]), float(answer[1])


def test_brightness_and_contrast_are_factors_and_leave_colours_alone() -> None:
    images = photos() * 0.2 + 0.4  # nothing clips
    light = make_augment("brightness_contrast(contrast=0, p=1.0)")(images)
    bright = [fit(a, b) for a, b in zip(images, light, strict=True)]
    assert all(0.8 <= slope <= 1.2 and abs(shift) < 1e-4 for slope, shift in bright)
    both = make_augment("brightness_contrast(brightness=0, contrast=0.5, p=1.0)")(images)
    slopes = [fit(a, b)[0] for a, b in zip(images, both, strict=True)]
    assert all(0.5 <= slope <= 1.5 for slope in slopes) and max(slopes) - min(slopes) > 0.3
    grey = v2.functional.rgb_to_grayscale
    assert torch.allclose(grey(both).mean((1, 2, 3)), grey(images).mean((1, 2, 3)), atol=1e-3)


def test_rgb_shift_adds_one_number_to_each_channel() -> None:
    images = photos() * 0.5 + 0.25
    change = (make_augment("rgb_shift(0.1, p=1.0)")(images) - images).flatten(2)
    assert change.std(2).max() < 1e-6 and change.abs().max() <= 0.1 + 1e-6
    assert len(set(change.mean(2).flatten().tolist())) == 48


def test_channel_shuffle_is_a_permutation() -> None:
    images = photos()
    orders = set()
    for before, after in zip(images, make_augment("channel_shuffle(p=1.0)")(images), strict=True):
        order = tuple(next(i for i in range(3) if torch.equal(before[i], channel)) for channel in after)
        assert sorted(order) == [0, 1, 2]
        orders.add(order)
    assert len(orders) >= 3


def test_greyscale_is_luma() -> None:
    images = photos()
    luma = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    assert torch.allclose(make_augment("greyscale(p=1.0)")(images), luma.expand(-1, 3, -1, -1), atol=1e-5)


def test_coarse_dropout_paints_boxes() -> None:
    white = torch.ones(16, 3, 60, 40)
    for image in make_augment("coarse_dropout(1, scale=(0.02, 0.05), fill=black, p=1.0)")(white):
        rows, columns = (image[0] == 0).nonzero(as_tuple=True)
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)  # all of its own frame
        assert 0.01 < len(rows) / 2400 < 0.06
    out = make_augment("coarse_dropout(6, scale=(0.01, 0.01), ratio=(1, 1), p=1.0)")(white)
    assert set(out.unique().tolist()) == {0.5, 1.0}
    counts = [cv2.connectedComponents((image[0] == 0.5).numpy().astype("uint8"))[0] - 1 for image in out]
    assert max(counts) <= 6 and min(counts) >= 2 and max(counts) > 3


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("randaugment(3, 20)", v2.RandAugment(3, 20, interpolation=v2.InterpolationMode.BILINEAR, fill=[128] * 3)),
        ("autoaugment", v2.AutoAugment(interpolation=v2.InterpolationMode.BILINEAR, fill=[128] * 3)),
    ],
)
def test_policies_are_torchvisions_photo_by_photo(text: str, policy: v2.Transform) -> None:
    whole = (photos(1) * 255).round().to(torch.uint8).expand(16, -1, -1, -1)
    torch.manual_seed(4)
    out = make_augment(text)(whole / 255)
    torch.manual_seed(4)
    torch.rand(16)  # the coins
    assert torch.allclose(out, torch.stack([policy(photo) for photo in whole]) / 255)
    assert len({tuple(image.flatten().tolist()) for image in out}) >= 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flip(p=2)", "p is a chance and cannot be 2"),
        ("random_crop(1.5)", "ratio cannot be 1.5"),
        ("noise(-1)", "std cannot be -1"),
        ("rotate(200)", r"degrees cannot be 200.*expected 0\.\.180"),
        ("shift_scale_rotate(scale=-1)", r"scale cannot be -1.*expected 0\.\.0\.9"),
        ("colour_jitter(hue=0.6)", r"hue cannot be 0\.6; expected 0\.\.0\.5"),
        ("brightness_contrast(contrast=-1)", "contrast cannot be -1"),
        ("rgb_shift(2)", "limit cannot be 2"),
        ("erase(scale=(0.5, 0.2))", r"scale cannot be \(0\.5, 0\.2\); expected \(low, high\) within 0\.\.1"),
        ("coarse_dropout(0)", r"holes cannot be 0; expected 1\.\.64"),
        ("coarse_dropout(ratio=(0, 1))", "ratio cannot be"),
        ("randaugment(n=0)", r"n cannot be 0; expected 1\.\.14"),
        ("randaugment(m=31)", r"m cannot be 31; expected 0\.\.30"),
        ("autoaugment(mnist)", r"autoaugment\(policy=\.\.\.\) cannot be 'mnist'"),
        ("flop", r"'flop' is not known \(.*nearest: flip\)"),
        ("flip|rotat(3)", "nearest: rotate"),
        ("rotate(degres=3)", "nearest: degrees"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match="^train.augment: .*" + words):
        make_augment(text)
