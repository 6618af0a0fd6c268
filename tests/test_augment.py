"""The contract of augmentations for every row: shape, range, one draw per photo, repeatable, and no-ops are no-ops."""

import pytest
import torch

from threefold.errors import RecipeError
from threefold.learn.augment import AUGMENTS, make_augment

SPECS = [*AUGMENTS, "erase(p=1.0, fill=black)", "noise(0.1, p=1.0)", "colour_jitter(hue=0.1)", "flip|rotate(5)|noise"]


@pytest.fixture(params=SPECS)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def photos(count: int = 16) -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.rand(count, 3, 6, 5)
    return torch.nn.functional.interpolate(small, (24, 18), mode="bilinear").clamp(0, 1)


def test_shape_type_and_range_are_kept(text: str) -> None:
    images = photos()
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


def test_every_photo_has_its_own_draw(text: str) -> None:
    """Sixteen equal photos must not all come out equal (one draw per batch is what torchvision's v2 does)."""
    if text in ("none", "centre_crop"):
        return
    same = photos(1).expand(16, -1, -1, -1).contiguous()
    out = make_augment(text)(same)
    assert len({tuple(image.flatten().tolist()) for image in out}) > 1


@pytest.mark.parametrize("name", sorted(set(AUGMENTS) - {"none"}))
def test_chance_nought_changes_nothing(name: str) -> None:
    images = photos()
    assert torch.allclose(make_augment(f"{name}(p=0)")(images), images, atol=1e-6)


def test_flip_mirrors() -> None:
    images = photos()
    assert torch.equal(make_augment("flip(p=1.0)")(images), images.flip(3))


def test_centre_crop_enlarges_the_middle() -> None:
    images = torch.zeros(1, 3, 24, 18)
    images[:, :, 6:18, 4:14] = 1
    assert make_augment("centre_crop(0.5)")(images).mean() > 0.95


def test_random_crop_keeps_the_promised_area() -> None:
    """On a horizontal ramp the range of values that is left shows the side of the crop."""
    ramp = torch.linspace(0, 1, 200)[None, None, None, :].expand(64, 3, 200, 200).contiguous()
    out = make_augment("random_crop(0.64)")(ramp)
    side = out.amax((1, 2, 3)) - out.amin((1, 2, 3))
    assert side.min() >= 0.79 and side.max() <= 1.0 and side.std() > 0.01


def test_rotation_fills_from_the_border_not_with_black() -> None:
    assert make_augment("rotate(30)")(torch.ones(4, 3, 24, 18)).min() > 0.99


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flip(p=2)", "p is a chance and cannot be 2"),
        ("centre_crop(0)", "ratio cannot be 0"),
        ("random_crop(1.5)", "ratio cannot be 1.5"),
        ("noise(-1)", "std cannot be -1"),
        ("flop", r"'flop' is not known \(.*nearest: flip\)"),
        ("flip|rotat(3)", "nearest: rotate"),
        ("rotate(degres=3)", "nearest: degrees"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make_augment(text)
