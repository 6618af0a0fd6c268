"""Augmentations: `float [B, 3, H, W] in 0..1 -> the same`, drawn anew for every photo of the batch.

They see training batches only; validation and prediction go through `Prepare` alone, so none of them can leak there or
be overwritten by it. They draw from torch's global generator, which the loop seeds at every epoch. Geometry that every
photo should get (a crop, a size) belongs in `prepare.*`, not here: a crop in training alone cost a published team 0.10
macro F1. kornia does the work, with one draw per photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import kornia.augmentation as K  # noqa: N812  # the name its own documentation uses
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from threefold import spec
from threefold.errors import RecipeError

Augment = Callable[[Tensor], Tensor]


def none() -> Augment:
    """Leave the batch as it is."""
    return lambda images: images


def flip(*, p: float = 0.5) -> Augment:
    """Mirror left to right."""
    return _typed(K.RandomHorizontalFlip(p=_chance(p)))


def rotate(degrees: float = 10.0, *, p: float = 1.0) -> Augment:
    """Turn by up to +-degrees about the centre; corners are filled from the border, not with black."""
    return _typed(K.RandomAffine(degrees=(-degrees, degrees), p=_chance(p), padding_mode="border"))


def centre_crop(ratio: float = 0.8, *, p: float = 1.0) -> Augment:
    """Cut out the middle `ratio` of height and width and scale it back to the size. Prefer `prepare.crop`."""
    _chance(p)
    if not 0 < ratio <= 1:
        raise RecipeError(f"train.augment: ratio cannot be {ratio}; expected 0 < ratio <= 1")

    def crop(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        inner = K.CenterCrop((max(1, round(height * ratio)), max(1, round(width * ratio))))(images)
        scaled = F.interpolate(inner, (height, width), mode="bilinear", antialias=True)
        return torch.where(_drawn(images, p), scaled, images)

    return crop


def random_crop(ratio: float = 0.9, *, p: float = 1.0) -> Augment:
    """Cut out `ratio` of the area to all of it, aspect kept, somewhere, and scale it back to the size."""
    _chance(p)
    if not 0 < ratio <= 1:
        raise RecipeError(f"train.augment: ratio cannot be {ratio}; expected 0 < ratio <= 1")

    def crop(images: Tensor) -> Tensor:
        count = len(images)
        side = torch.sqrt(ratio + (1 - ratio) * torch.rand(count)) * torch.where(
            _drawn(images, p).flatten().cpu(), 1, 0
        )
        side = torch.where(side == 0, 1.0, side)
        shift = (torch.rand(count, 2) * 2 - 1) * (1 - side)[:, None]
        theta = torch.zeros(count, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = side
        theta[:, :, 2] = shift
        grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    return crop


def colour_jitter(
    *, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2, hue: float = 0.0, p: float = 1.0
) -> Augment:
    """Brightness, contrast, saturation (factors 1 +- value) and hue (+- value of the circle), in random order."""
    return _typed(K.ColorJitter(brightness, contrast, saturation, hue, p=_chance(p)))


def noise(std: float = 0.05, *, p: float = 0.5) -> Augment:
    """Gaussian noise on the 0..1 scale, clipped to it (the contest baseline's std of 1 hides the photo)."""
    _chance(p)
    if std < 0:
        raise RecipeError(f"train.augment: std cannot be {std}; expected 0 or more")

    def add(images: Tensor) -> Tensor:
        noisy = (images + std * torch.randn(images.shape).to(images)).clamp(0, 1)
        return torch.where(_drawn(images, p), noisy, images)

    return add


def erase(
    *, p: float = 0.5, scale: tuple[float, float] = (0.02, 0.2), ratio: tuple[float, float] = (0.5, 2.0),
    fill: Literal["grey", "black"] = "grey",
) -> Augment:  # fmt: skip
    """Paint a box of `scale` (shares of the area) and `ratio` (height / width) in one colour (Zhong et al., 2017)."""
    return _typed(K.RandomErasing(scale=scale, ratio=ratio, value=0.5 if fill == "grey" else 0.0, p=_chance(p)))


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
    return chain([step for _, step in spec.build(text, AUGMENTS, "train.augment")])


def _typed(module: Any) -> Augment:
    return cast(Augment, module)  # kornia carries no types


def _drawn(images: Tensor, p: float) -> Tensor:
    """[B, 1, 1, 1] bool: which photos of the batch are changed."""
    return (torch.rand(len(images)) < p)[:, None, None, None].to(images.device)


def _chance(p: float) -> float:
    if not 0 <= p <= 1:
        raise RecipeError(f"train.augment: p is a chance and cannot be {p}; expected 0..1")
    return p


AUGMENTS = {
    "none": none,
    "flip": flip,
    "rotate": rotate,
    "centre_crop": centre_crop,
    "random_crop": random_crop,
    "colour_jitter": colour_jitter,
    "noise": noise,
    "erase": erase,
}
