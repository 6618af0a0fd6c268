"""Augmentations: `float [B, 3, H, W] in 0..1 -> the same`, drawn anew for every photo of the batch.

They see training batches only; validation and prediction go through `Prepare` alone. They draw from torch's global
generator, which the loop seeds at every epoch. Geometry that every photo should get (a crop, a size) belongs in
`prepare.*`, not here: a crop in training alone cost a published team 0.10 macro F1. kornia does most of the work, with
one draw per photo. A new one is a function here (in `filters` where it looks at the neighbourhood of a pixel, in
`warps` where it bends the photo), named in the tables at the end; `draws.sometimes` gives it its chance `p` per photo.
"""

from collections.abc import Sequence
from typing import Literal

import kornia.augmentation as K  # noqa: N812  # the name its own documentation uses
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from threefold import spec
from threefold.learn import filters, warps
from threefold.learn.draws import Augment, chance, sometimes, span, typed, within

__all__ = ["AUGMENTS", "Augment", "chain", "make_augment"]
GREY = [128, 128, 128]  # what the authors of the policies fill with


def none() -> Augment:
    """Leave the batch as it is."""
    return lambda images: images


def flip(*, p: float = 0.5) -> Augment:
    """Mirror left to right."""
    return typed(K.RandomHorizontalFlip(p=chance(p)))


def rotate(degrees: float = 10.0, *, p: float = 1.0) -> Augment:
    """Turn by up to +-degrees (0..180) about the centre; corners are filled from the border, not with black."""
    return shift_scale_rotate(shift=0, scale=0, degrees=degrees, p=p)


def shift_scale_rotate(*, shift: float = 0.06, scale: float = 0.1, degrees: float = 45.0, p: float = 0.5) -> Augment:
    """Move by +-shift of the sides (0..1), size times 1 +- scale (0..0.9), turn by +-degrees (0..180)."""
    within("shift", shift, 0, 1)
    within("scale", scale, 0, 0.9)
    within("degrees", degrees, 0, 180)
    moves = {"translate": (shift, shift) if shift else None, "scale": (1 - scale, 1 + scale) if scale else None}
    return typed(K.RandomAffine((-degrees, degrees), **moves, p=chance(p), padding_mode="border"))


def random_crop(ratio: float = 0.9, *, fixed: bool = False, p: float = 1.0) -> Augment:
    """Cut out `ratio` of the area to all of it, aspect kept, somewhere, and scale it back to the size.

    fixed: exactly `ratio`, as a resize to 260 and a random crop of 224 do with (224 / 260)^2 = 0.742.
    """
    chance(p)
    within("ratio", ratio, 0.0001, 1)

    def crop(images: Tensor) -> Tensor:
        count = len(images)
        area = ratio + (1 - ratio) * torch.rand(count) * (not fixed)
        side = torch.where(torch.rand(count) < p, torch.sqrt(area), 1.0)
        shift = (torch.rand(count, 2) * 2 - 1) * (1 - side)[:, None]
        theta = torch.cat([torch.eye(2) * side[:, None, None], shift[:, :, None]], 2)
        grid = nn.functional.affine_grid(theta.to(images), list(images.shape), align_corners=False)
        return nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    return crop


def colour_jitter(
    *, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.0, p: float = 1.0
) -> Augment:
    """Brightness, contrast, saturation (factors 1 +- value) and hue (+- value of the circle), in random order."""
    for option, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        within(option, value, 0, 10)
    within("hue", hue, 0, 0.5)
    return typed(K.ColorJitter(brightness, contrast, saturation, hue, p=chance(p)))


def brightness_contrast(*, brightness: float = 0.2, contrast: float = 0.2, p: float = 0.5) -> Augment:
    """Brightness and contrast about the mean grey (factors 1 +- value, 0..10), in random order; colours stay."""
    return colour_jitter(brightness=brightness, contrast=contrast, saturation=0, p=p)


def rgb_shift(limit: float = 0.08, *, p: float = 0.5) -> Augment:
    """Add to red, green and blue a number each of +-`limit` on the 0..1 scale (0..1), clipped to it."""
    within("limit", limit, 0, 1)
    return typed(K.RandomRGBShift(limit, limit, limit, p=chance(p)))


def channel_shuffle(*, p: float = 0.5) -> Augment:
    """Swap red, green and blue at random."""
    return typed(K.RandomChannelShuffle(p=chance(p)))


def greyscale(*, p: float = 0.1) -> Augment:
    """Take the colour away: three equal channels, 0.299 red + 0.587 green + 0.114 blue."""
    return typed(K.RandomGrayscale(p=chance(p)))


def noise(std: float = 0.05, *, p: float = 0.5) -> Augment:
    """Gaussian noise on the 0..1 scale, clipped to it (the contest baseline's std of 1 hides the photo)."""
    within("std", std, 0, 10)
    return sometimes(lambda images: images + std * torch.randn(images.shape).to(images), p)


def erase(
    *,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.2),
    ratio: tuple[float, float] = (0.5, 2.0),
    fill: Literal["grey", "black"] = "grey",
) -> Augment:
    """Paint a box of `scale` (shares of the area) and `ratio` (height / width) in one colour (Zhong et al., 2017)."""
    span("scale", scale, 0, 1)
    span("ratio", ratio, 0.01, 100)
    return typed(K.RandomErasing(scale=scale, ratio=ratio, value=0.5 if fill == "grey" else 0.0, p=chance(p)))


def coarse_dropout(
    holes: int = 8,
    *,
    p: float = 0.5,
    scale: tuple[float, float] = (0.002, 0.02),
    ratio: tuple[float, float] = (0.5, 2.0),
    fill: Literal["grey", "black"] = "grey",
) -> Augment:
    """Paint `holes` boxes (1..64), each like `erase`'s; they may overlap (DeVries & Taylor, 2017, with several)."""
    within("holes", holes, 1, 64)
    return sometimes(chain([erase(p=1, scale=scale, ratio=ratio, fill=fill)] * holes), p)


def randaugment(n: int = 2, m: int = 9, *, p: float = 1.0) -> Augment:
    """`n` (1..14) of 14 operations, drawn with replacement, at strength `m` of 0..30 (Cubuk et al., 2020)."""
    within("n", n, 1, 14)
    within("m", m, 0, 30)
    return _policy(v2.RandAugment(n, m, interpolation=v2.InterpolationMode.BILINEAR, fill=GREY), p)


def autoaugment(policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet", *, p: float = 1.0) -> Augment:
    """One of the 25 pairs of operations that were found best on `policy` (Cubuk et al., 2019)."""
    pairs = v2.AutoAugmentPolicy(policy)
    return _policy(v2.AutoAugment(pairs, interpolation=v2.InterpolationMode.BILINEAR, fill=GREY), p)


def chain(steps: Sequence[Augment]) -> Augment:
    """One after the other; no gradients are kept."""

    @torch.no_grad()
    def apply(images: Tensor) -> Tensor:
        for step in steps:
            images = step(images)
        return images

    return apply


def make_augment(text: str) -> Augment:
    """The chain a recipe names; raises RecipeError."""
    return chain(spec.build_chain(text, AUGMENTS, "train.augment"))


def _policy(policy: v2.Transform, p: float) -> Augment:
    """One draw per photo: torchvision, like kornia's policies, draws one operation for all it is given."""

    def apply(images: Tensor) -> Tensor:
        photos = images.mul(255).round().byte()  # the policies are defined on bytes
        return torch.stack([policy(photo) for photo in photos]).to(images) / 255

    return sometimes(apply, p)


PLACES = (none, flip, rotate, shift_scale_rotate, random_crop, *warps.WARPS)
COLOURS = (colour_jitter, brightness_contrast, rgb_shift, channel_shuffle, greyscale, *filters.FILTERS, noise)
AUGMENTS = {row.__name__: row for row in (*PLACES, *COLOURS, erase, coarse_dropout, randaugment, autoaugment)}
