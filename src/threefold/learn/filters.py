"""Augmentations that look at the neighbourhood of a pixel: blurs, sharpening, local contrast.

Names follow albumentations, whose recipes the published systems used; defaults suit photos of 128x96. kornia does what
it does per photo and fast. OpenCV does the two it is slow at (ms a photo of 128x96 on one core, kornia against OpenCV
with both copies): the median of 7x7 pixels 50 against 1.3, CLAHE 4.1 against 0.6. Borders repeat the last pixel, so
none darkens.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import kornia.augmentation as K  # noqa: N812  # the name its own documentation uses
import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from numpy.typing import NDArray
from torch import Tensor

from threefold.learn.draws import Augment, chance, odd, sometimes, span, typed, within

Bytes = NDArray[np.uint8]


def gaussian_blur(*, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5) -> Augment:
    """Blur with a Gaussian whose standard deviation is drawn from `sigma` pixels (0.01..20)."""
    _, high = span("sigma", sigma, 0.01, 20)
    return typed(K.RandomGaussianBlur(_window(high), sigma, border_type="replicate", p=chance(p)))


def median_blur(size: int = 5, *, p: float = 0.5) -> Augment:
    """Every pixel becomes the median of a square around it, whose side is drawn from 3, 5, ... `size` pixels (..31)."""
    sizes = range(3, odd("size", size, 31) + 1, 2)
    return sometimes(_by_opencv(lambda photo: cv2.medianBlur(photo, sizes[int(torch.randint(len(sizes), ()))])), p)


def motion_blur(size: int = 7, *, p: float = 0.5) -> Augment:
    """Smear along a line of up to `size` pixels (odd, 3..31) at any angle, evenly or fading to one end.

    The window is the same for every photo; angle and fading, which shortens the line, are drawn.
    """
    odd("size", size, 31)
    return typed(K.RandomMotionBlur(size, 180.0, 1.0, border_type="replicate", resample="bilinear", p=chance(p)))


def glass_blur(*, sigma: float = 0.7, delta: int = 2, rounds: int = 2, p: float = 0.5) -> Augment:
    """As through frosted glass: blur, move every pixel less than `delta` away along its row and column, blur again.

    sigma: standard deviation of both blurs in pixels (0.01..20). delta: 1 (nothing moves)..32. rounds: 1..8 times the
    shuffling. Hendrycks & Dietterich, 2019, swap pixels one after the other; here a sort by place plus noise shuffles
    whole lines at once. Both only move pixels, so the histogram between the two blurs is that of the photo.
    """
    within("sigma", sigma, 0.01, 20)
    within("delta", delta, 1, 32)
    within("rounds", rounds, 1, 8)

    def change(images: Tensor) -> Tensor:
        images = _smooth(images, sigma)
        for dim in (3, 2) * rounds:
            noise = torch.rand(len(images), 1, *images.shape[2:]).to(images)
            place = torch.arange(images.shape[dim], device=images.device).view(-1, *[1] * (3 - dim))
            images = images.gather(dim, (place + delta * noise).argsort(dim).expand_as(images))
        return _smooth(images, sigma)

    return sometimes(change, p)


def sharpen(amount: float = 1.0, *, p: float = 0.5) -> Augment:
    """Away from its 3x3 smoothing by a share drawn from 0..`amount` (0..10; Pillow's Sharpness of 1..1 + amount)."""
    within("amount", amount, 0, 10)
    return typed(K.RandomSharpness((1.0, 1.0 + amount), p=chance(p)))


def clahe(limit: float = 4.0, *, tiles: int = 4, p: float = 0.5) -> Augment:
    """Equalise lightness in `tiles` x `tiles` parts (1..16), no grey level above clip limit times its even share.

    The clip limit is drawn from 1..`limit` (1..40). On L of Lab, so hues stay (Zuiderveld, 1994). OpenCV clips at whole
    counts: in tiles of few pixels every limit would be 1 and what is cut off would land on the dark levels, which turns
    the photo pale (8 x 8 tiles at 128x96 did). So small photos are counted with every pixel repeated.
    """
    within("limit", limit, 1, 40)
    within("tiles", tiles, 1, 16)

    def equalise(photo: Bytes) -> Bytes:
        lab = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB)
        times = math.ceil(math.sqrt(2048 * tiles**2 / lab[..., 0].size))
        clip = 1 + (limit - 1) * float(torch.rand(()))
        large = lab[..., 0].repeat(times, 0).repeat(times, 1)
        equal = cv2.createCLAHE(clip, (tiles, tiles)).apply(large)
        lab[..., 0] = equal[times // 2 :: times, times // 2 :: times]
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)

    return sometimes(_by_opencv(equalise), p)


def _by_opencv(change: Callable[[Bytes], Any]) -> Augment:
    """`change` on every photo as uint8 [H, W, 3]; nothing is lost, for photos come as bytes."""

    def apply(images: Tensor) -> Tensor:
        photos = images.mul(255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        changed = torch.from_numpy(np.stack([change(photo) for photo in photos]))
        return changed.permute(0, 3, 1, 2).contiguous().to(images) / 255

    return apply


def _smooth(images: Tensor, sigma: float) -> Tensor:
    blurred: Tensor = gaussian_blur2d(images, _window(sigma), (sigma, sigma), border_type="replicate")
    return blurred


def _window(sigma: float) -> tuple[int, int]:
    side = 2 * math.ceil(3 * sigma) + 1
    return side, side


FILTERS = (clahe, sharpen, gaussian_blur, median_blur, motion_blur, glass_blur)
