"""Mixes: two photos of a batch become one, and their targets with them in the same shares.

A mix is `(images float [B, 3, H, W], Target, generator) -> (images, Target)`. The generator is a CPU
`torch.Generator`, so that the same seed draws the same partners on every device.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefold.errors import RecipeError
from threefold.learn.target import Target, mix


class Mix(Protocol):
    """Contract of every row of MIXES."""

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        """Images [B, 3, H, W] and their Target, mixed alike."""


class NoMix:
    """Leave the batch as it is."""

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        """Identity."""
        return images, target


class MixUp:
    """share * photo + (1 - share) * partner, share ~ Beta(alpha, alpha) per photo.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. `p` is the chance per photo to be mixed at all.
    """

    def __init__(self, *, alpha: float = 0.2, p: float = 1.0) -> None:
        self.alpha, self.p = _positive(alpha, "alpha"), _chance(p)

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        """See `Mix`."""
        rng = _numpy(generator)
        share = _shares(rng, len(images), self.alpha, self.p)
        partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
        weight = torch.from_numpy(share).to(images)
        cube = weight[:, None, None, None]
        return cube * images + (1 - cube) * images[partner], mix(target, target.take(partner), weight)


class CutMix:
    """Paste a box of a partner into each photo; the target's shares are the exact shares of the pixels.

    Yun et al., "CutMix", 2019: the box has the photo's aspect and covers 1 - share of it before it is clipped at the
    border, share ~ Beta(beta, beta). `p` is the chance per photo.
    """

    def __init__(self, *, beta: float = 1.0, p: float = 1.0) -> None:
        self.beta, self.p = _positive(beta, "beta"), _chance(p)

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        """See `Mix`."""
        rng = _numpy(generator)
        count, _, height, width = images.shape
        partner = torch.from_numpy(rng.permutation(count)).to(images.device)
        side = np.sqrt(1 - _shares(rng, count, self.beta, self.p))
        inside = _span(rng, height, side)[:, :, None] & _span(rng, width, side)[:, None, :]
        pasted = torch.from_numpy(inside).to(images.device)
        share = torch.from_numpy(1 - inside.mean((1, 2), dtype=np.float32)).to(images)
        return torch.where(pasted[:, None], images[partner], images), mix(target, target.take(partner), share)


def _numpy(generator: torch.Generator) -> np.random.Generator:
    # torch has no Beta with a generator of its own; one draw from it seeds numpy's
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def _shares(rng: np.random.Generator, count: int, beta: float, p: float) -> NDArray[np.float32]:
    share = rng.beta(beta, beta, count)
    return np.where(rng.random(count) < p, share, 1.0).astype(np.float32)


def _span(rng: np.random.Generator, length: int, side: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[B, length]: pixels within side * length of a centre drawn for each photo, clipped at the border."""
    extent = np.floor(side * length).astype(np.int64)
    low = rng.integers(length, size=len(side)) - extent // 2
    at = np.arange(length)
    return np.asarray((at >= low[:, None]) & (at < (low + extent)[:, None]))


def _chance(p: float) -> float:
    if not 0 <= p <= 1:
        raise RecipeError(f"train.mix: p is a chance and cannot be {p}; expected 0..1")
    return p


def _positive(value: float, option: str) -> float:
    if not value > 0:
        raise RecipeError(f"train.mix: {option} cannot be {value}; expected a number above 0")
    return value


MIXES = {"none": NoMix, "cutmix": CutMix, "mixup": MixUp}
