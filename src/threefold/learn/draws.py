"""What every augmentation needs: which photos of a batch are drawn, and one-line refusals of values that cannot be."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from threefold.spec import need

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
    need(0 <= p <= 1, "train.augment: p is a chance and", p, "0..1")
    return p


def within(option: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside low..high."""
    need(low <= value <= high, f"train.augment: {option}", value, f"{low}..{high}")


def span(option: str, values: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """`values` itself if it is a range (smaller, larger) inside low..high."""
    inside = low <= values[0] <= values[1] <= high
    need(inside, f"train.augment: {option}", values, f"(low, high) within {low}..{high}")
    return values


def odd(option: str, value: int, high: int) -> int:
    """`value` itself if it is the size of a window with a centre."""
    fits = value % 2 == 1 and 3 <= value <= high
    need(fits, f"train.augment: {option}", value, f"an odd number of pixels, 3..{high}")
    return value
