"""Blurs, sharpening and local contrast against independent definitions: OpenCV, Pillow, a plain median of windows."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch.nn import functional as F  # noqa: N812

from threefold.errors import RecipeError
from threefold.learn.augment import make_augment


def photos(count: int = 16, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Noise on whole byte values [count, 3, 24, 18]."""
    torch.manual_seed(0)
    return (low + (high - low) * torch.rand(count, 3, 24, 18)).mul(255).round() / 255


def places() -> torch.Tensor:
    """[1, 3, 40, 32]: red says the column, green the row, each / 64."""
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(32.0), indexing="ij")
    return torch.stack([columns, rows, torch.zeros(40, 32)])[None] / 64


def test_gaussian_blur_is_opencvs() -> None:
    images = photos(2)
    out = make_augment("gaussian_blur(sigma=(1.5, 1.5), p=1.0)")(images)
    for before, after in zip(images, out, strict=True):
        expected = cv2.GaussianBlur(before.permute(1, 2, 0).numpy(), (11, 11), 1.5, borderType=cv2.BORDER_REPLICATE)
        assert np.allclose(after.permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_gaussian_blur_draws_its_width_from_the_range() -> None:
    """The variance of a blurred point is sigma squared."""
    point = torch.zeros(64, 3, 33, 33)
    point[:, :, 16, 16] = 1
    out = make_augment("gaussian_blur(sigma=(1.0, 3.0), p=1.0)")(point)[:, 0]
    sigma = (out.sum(1) * (torch.arange(33.0) - 16) ** 2).sum(1).sqrt()
    assert 0.95 < sigma.min() < 1.3 and 2.6 < sigma.max() < 3.05


def test_median_blur_is_the_median_of_a_window() -> None:
    images = photos()
    out = make_augment("median_blur(5, p=1.0)")(images)
    wide = {}
    for size in (3, 5):
        windows = F.unfold(F.pad(images, [size // 2] * 4, mode="replicate"), size).view(16, 3, size * size, -1)
        wide[size] = windows.median(2).values.view_as(images)
    fits = [[torch.allclose(a, b, atol=1e-6) for a, b in zip(out, wide[size], strict=True)] for size in (3, 5)]
    assert all(a != b for a, b in zip(*fits, strict=True))  # each photo is one of the two
    assert any(fits[0]) and any(fits[1])


def test_motion_blur_keeps_the_light_and_smears_along_a_line() -> None:
    point = torch.zeros(32, 3, 21, 21)
    point[:, :, 10, 10] = 1
    out = make_augment("motion_blur(9, p=1.0)")(point)
    assert torch.allclose(out.sum((2, 3)), torch.ones(32, 3), atol=1e-5)
    angles = []
    for image in out[:, 0]:
        at = image.nonzero()
        spread = torch.cov(at.T.float(), aweights=image[at[:, 0], at[:, 1]], correction=0)
        values, axes = torch.linalg.eigh(spread)
        assert values[0] < 0.3 and values[1] > 2  # a pixel wide; a fading streak of 9 has a variance of 4.4 or more
        angles.append(float(torch.atan(axes[0, 1] / axes[1, 1])))
    assert np.std(angles) > 0.3


def test_glass_blur_moves_pixels_and_only_nearby() -> None:
    images = places().expand(4, -1, -1, -1)
    out = make_augment("glass_blur(sigma=0.01, delta=4, rounds=1, p=1.0)")(images)
    assert torch.allclose(out.flatten(2).sort().values, images.flatten(2).sort().values)  # none lost, none twice
    moved = ((out - images)[:, :2] * 64).round().abs()
    assert moved.amax((0, 2, 3)).tolist() == [3, 3] and (moved.sum(1) > 0).float().mean() > 0.7
    pairs = [(x * 64 * torch.tensor([1, 100, 0])[:, None, None]).sum(1).round().flatten(1) for x in (images, out)]
    assert torch.equal(*(pair.sort().values for pair in pairs))  # the three channels move together


def test_sharpen_is_pillows() -> None:
    image = photos(1, 0.4, 0.6)  # nothing clips
    out = make_augment("sharpen(2.0, p=1.0)")(image.expand(16, -1, -1, -1))
    photo = Image.fromarray((image[0] * 255).byte().permute(1, 2, 0).numpy())
    factors = []
    for after in out:
        change, full = after - image[0], torch.from_numpy(
            np.array(ImageEnhance.Sharpness(photo).enhance(2.0))).permute(2, 0, 1) / 255 - image[0]  # fmt: skip
        share = float((change * full).sum() / full.square().sum())
        assert 0 <= share <= 2.05 and (change - share * full).abs().max() < 3 / 255  # Pillow rounds
        factors.append(share)
    assert np.std(factors) > 0.3


@pytest.mark.parametrize("shape", [(24, 18), (64, 48), (128, 96)])
def test_clahe_raises_local_contrast_and_keeps_grey_grey(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    dull = 0.45 + 0.1 * torch.rand(8, 1, *shape).expand(-1, 3, -1, -1)
    out = make_augment("clahe(p=1.0)")(dull)
    contrast = [F.avg_pool2d(x**2, 6) - F.avg_pool2d(x, 6) ** 2 for x in (dull, out)]
    assert (contrast[1].mean((1, 2, 3)) > 1.5 * contrast[0].mean((1, 2, 3))).all()
    assert (out.amax(1) - out.amin(1)).max() < 3 / 255
    assert (out.mean((1, 2, 3)) - 0.5).abs().max() < 0.06  # neither pale nor dark


def test_a_higher_clip_limit_means_more_contrast() -> None:
    torch.manual_seed(0)
    dull = 0.45 + 0.1 * torch.rand(32, 3, 24, 18)
    weak, strong = (make_augment(f"clahe({limit}, p=1.0)")(dull).std() for limit in (1, 8))
    assert strong > 1.3 * weak


def test_clahe_of_a_large_photo_is_opencvs() -> None:
    photo = (np.random.default_rng(0).random((200, 160, 1)) * np.ones(3) * 60 + 90).astype(np.uint8)
    out = make_augment("clahe(1, tiles=2, p=1.0)")(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255)
    lab = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(1.0, (2, 2)).apply(lab[..., 0])
    expected = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    assert np.array_equal((out[0] * 255).round().byte().permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gaussian_blur(sigma=(2, 1))", r"sigma cannot be \(2\.0, 1\.0\); expected \(low, high\) within 0\.01\.\.20"),
        ("gaussian_blur(sigma=(0, 1))", "sigma cannot be"),
        ("median_blur(4)", r"size cannot be 4; expected an odd number of pixels, 3\.\.31"),
        ("motion_blur(1)", "size cannot be 1"),
        ("glass_blur(delta=0)", r"delta cannot be 0; expected 1\.\.32"),
        ("glass_blur(sigma=0)", "sigma cannot be 0"),
        ("glass_blur(rounds=0)", "rounds cannot be 0"),
        ("sharpen(-1)", r"amount cannot be -1.*expected 0\.\.10"),
        ("clahe(0.5)", r"limit cannot be 0\.5"),
        ("clahe(tiles=0)", "tiles cannot be 0"),
        ("clahe(p=1.5)", "p is a chance"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match="^train.augment: .*" + words):
        make_augment(text)
