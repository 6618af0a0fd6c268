"""What every augmentation needs: which photos of a batch are drawn, and one-line refusals of values that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from threefold.errors import RecipeError

Augment = Callable[[Tensor], Tensor]


def typed(module: Any) -> Augment:
    """A kornia module as an augmentation; kornia carries no types."""
    return cast(Augment, module)


def sometimes(change: Augment, p: float) -> Augment:
    """`change` on the photos that a coin of chance `p` picks, each its own; the others are not even computed."""
    chance(p)

    def apply(images: Tensor) -> Tensor:
        rows = (torch.rand(len(images)) < p).nonzero().flatten().to(images.device)
        return images.index_copy(0, rows, change(images[rows]).clamp(0, 1)) if len(rows) else images

    return apply


def uniform(images: Tensor, *shape: int) -> Tensor:
    """[B, *shape] of -1..1, drawn on the CPU so that a seed means the same on every device."""
    return (torch.rand(len(images), *shape) * 2 - 1).to(images)


def chance(p: float) -> float:
    """`p` itself if it is a probability."""
    if not 0 <= p <= 1:
        raise RecipeError(f"train.augment: p is a chance and cannot be {p}; expected 0..1")
    return p


def within(option: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside low..high."""
    if not low <= value <= high:
        raise RecipeError(f"train.augment: {option} cannot be {value}; expected {low}..{high}")


def span(option: str, values: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """`values` itself if it is a range (smaller, larger) inside low..high."""
    if not low <= values[0] <= values[1] <= high:
        raise RecipeError(f"train.augment: {option} cannot be {values}; expected (low, high) within {low}..{high}")
    return values


def odd(option: str, value: int, high: int) -> int:
    """`value` itself if it is the size of a window with a centre."""
    if value % 2 == 0 or not 3 <= value <= high:
        raise RecipeError(f"train.augment: {option} cannot be {value}; expected an odd number of pixels, 3..{high}")
    return value
