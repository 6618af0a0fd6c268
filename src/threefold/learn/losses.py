"""Losses: `(raw [B, K], soft target [B, K], weight [B]) -> scalar`, the batch mean of weight times each photo's loss.

The target's rows sum to 1 where weight > 0. A photo with weight 0 (label unknown) changes neither value nor gradient,
but it counts in the mean, so a photo weighs the same in every batch. Every factory gets first the class counts [K] of
the training half (floats: soft labels count in parts), for those that weight by them.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from threefold.errors import RecipeError


class Loss(Protocol):
    """Contract of every row of LOSSES."""

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Logits [B, K], soft target [B, K], weight [B] -> scalar."""


ClassWeight = list[float] | Literal["inverse"] | None


class CrossEntropy:
    """-sum_c w_c t_c log softmax(raw)_c, with smoothed targets t' = (1 - s) t + s / K (Szegedy et al., 2016).

    weight: one number per class, or `inverse` (n / (K n_c), so that its mean over the training photos is 1).
    """

    def __init__(self, counts: Tensor, *, weight: ClassWeight = None, smoothing: float = 0.0) -> None:
        if not 0 <= smoothing < 1:
            raise RecipeError(f"loss: smoothing cannot be {smoothing}; expected 0 <= smoothing < 1")
        self.weight, self.smoothing = class_weights(counts, weight), smoothing

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        soft = (1 - self.smoothing) * target + self.smoothing / target.shape[1]
        return _mean(-soft * raw.log_softmax(1), self.weight, weight)


class Focal:
    """-sum_c w_c t_c (1 - p_c)^gamma log p_c; Lin et al., "Focal Loss for Dense Object Detection", 2017, eq. 5.

    gamma 0 is cross-entropy. `weight` as in `ce` (their alpha).
    """

    def __init__(self, counts: Tensor, *, gamma: float = 2.0, weight: ClassWeight = None) -> None:
        if gamma < 0:
            raise RecipeError(f"loss: gamma cannot be {gamma}; expected 0 or more")
        self.weight, self.gamma = class_weights(counts, weight), gamma

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        log_p = raw.log_softmax(1)
        # the floor keeps the gradient of x^gamma finite at x = 0 for gamma < 1
        miss = (-torch.expm1(log_p)).clamp_min(1e-6) ** self.gamma
        return _mean(-target * miss * log_p, self.weight, weight)


def class_weights(counts: Tensor, weight: ClassWeight) -> Tensor:
    """[K] weights: given, `inverse` to the counts (a class nobody has weighs 0), or ones."""
    if weight is None:
        return torch.ones(len(counts))
    if weight == "inverse":
        share = counts.sum() / (len(counts) * counts.clamp_min(1e-9))
        return torch.where(counts > 0, share, torch.zeros_like(share))
    if len(weight) != len(counts) or min(weight) < 0:
        raise RecipeError(f"loss: weight cannot be {weight}; expected {len(counts)} numbers of 0 or more, or inverse")
    return torch.tensor(weight, dtype=torch.float32)


def _mean(terms: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    return ((terms * classes.to(terms)).sum(1) * weight).mean()


LOSSES = {"ce": CrossEntropy, "focal": Focal}
