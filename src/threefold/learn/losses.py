"""Losses: `(raw [B, K], soft target [B, K], weight [B]) -> scalar`, the batch mean of weight times each photo's loss.

A photo with weight 0 (label unknown) changes neither value nor gradient, but it counts in the mean, so a photo weighs
the same in every batch. Every factory gets first the class counts [K] of the training half (floats: soft labels count
in parts), for those that weight by them. What a row can be used for is its `kinds`, one word per kind of output:

    classes    logits of a softmax; the target's rows sum to 1 where weight > 0; a row without `kinds` is for these
    steps      logits of P(y > k), k = 0 .. K - 1, for K + 1 ordered classes; targets 0 to 1, never rising along a row
    value      [B, 1] years
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from threefold.spec import need

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What every row of LOSSES makes: raw outputs [B, K], target [B, K], weight [B] -> scalar."""
Losses = dict[str, list[tuple[float, Loss]]]
ClassWeight = list[float] | Literal["inverse"] | None
LOG_NOUGHT = -4.0
"""What symmetric cross-entropy takes for log 0 (Wang et al., 2019, section 3.2)."""
GROUPS = {3: [1, 1, 1], 11: [5, 5, 1], 61: [30, 30, 1], 121: [30, 30, 61]}
"""Age bins of the groups <30, 30-59, >=60, by how many bins there are: a published system's 11, years 0-60, 0-120."""


class CrossEntropy:
    """-sum_c w_c t_c log softmax(raw)_c, with smoothed targets t' = (1 - s) t + s / K (Szegedy et al., 2016).

    weight: one number per class, or `inverse` (n / (K n_c), so that its mean over the training photos is 1).
    """

    def __init__(self, counts: Tensor, *, weight: ClassWeight = None, smoothing: float = 0.0) -> None:
        need(0 <= smoothing < 1, "loss: smoothing", smoothing, "0 <= smoothing < 1")
        self.weight, self.smoothing = class_weights(counts, weight), smoothing

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        soft = (1 - self.smoothing) * target + self.smoothing / target.shape[1]
        return _mean(-soft * raw.log_softmax(1) * self.weight.to(raw), weight)


class Focal:
    """-sum_c w_c t_c (1 - p_c)^gamma log p_c; Lin et al., "Focal Loss for Dense Object Detection", 2017, eq. 5.

    gamma 0 is cross-entropy. `weight` as in `ce` (their alpha).
    """

    def __init__(self, counts: Tensor, *, gamma: float = 2.0, weight: ClassWeight = None) -> None:
        need(gamma >= 0, "loss: gamma", gamma, "0 or more")
        self.weight, self.gamma = class_weights(counts, weight), gamma

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        log_p = raw.log_softmax(1)
        # the floor keeps the gradient of x^gamma finite at x = 0 for gamma < 1
        miss = (-torch.expm1(log_p)).clamp_min(1e-6) ** self.gamma
        return _mean(-target * miss * log_p * self.weight.to(raw), weight)


class ClassBalanced(Focal):
    """Focal loss (gamma 0: cross-entropy) weighted by 1 / effective number, (1 - beta) / (1 - beta^n_c).

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019. The weights of the classes that occur
    have mean 1 (sum K where all do); a class without a photo weighs 0. beta 0 weights nothing, beta near 1 by 1 / n_c.
    """

    def __init__(self, counts: Tensor, *, beta: float = 0.9999, gamma: float = 0.0) -> None:
        super().__init__(counts, gamma=gamma)
        need(0 <= beta < 1, "loss: beta", beta, "0 <= beta < 1")
        effective = 1 - beta ** counts.double()  # in float32 the difference has three digits left for rare classes
        share = torch.where(counts > 0, 1 / effective.clamp_min(1e-12), 0.0)
        self.weight = (share * (counts > 0).sum() / share.sum().clamp_min(1e-12)).float()


class SoftF1:
    """1 - macro F1 of the batch, with true and false positives counted in probabilities; times the mean weight.

    The contest baseline's F1Loss, for soft targets: f1_c = 2 p r / (p + r + eps), clamped to eps .. 1 - eps. A loss of
    the batch, not of its photos: the factor (mean weight) is what keeps it linear in the weights. It averages over all
    K classes, as the contest's metric does: a class that no photo of the batch has adds the constant 1 / K and no
    gradient, so the value compares only between batches of the same classes, while a class pulls with the same force
    in every batch that has it.
    """

    def __init__(self, counts: Tensor, *, eps: float = 1e-7) -> None:
        need(0 < eps < 0.1, "loss: eps", eps, "0 < eps < 0.1")
        self.eps = eps

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        predicted, true = raw.softmax(1) * weight[:, None], target * weight[:, None]
        hits = (predicted * target).sum(0)
        precision, recall = hits / (predicted.sum(0) + self.eps), hits / (true.sum(0) + self.eps)
        f1 = 2 * precision * recall / (precision + recall + self.eps)
        return (1 - f1.clamp(self.eps, 1 - self.eps).mean()) * weight.mean()


class Symmetric:
    """alpha CE(t, p) + beta CE(p, t) with log 0 = -4, which bounds what a wrong label can cost.

    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", 2019.
    """

    def __init__(self, counts: Tensor, *, alpha: float = 0.1, beta: float = 1.0) -> None:
        need(min(alpha, beta) >= 0 < alpha + beta, "loss: alpha, beta", (alpha, beta), "0 or more, one above 0")
        self.alpha, self.beta = alpha, beta

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        reverse = -raw.softmax(1) * target.log().clamp(LOG_NOUGHT, 0)
        return _mean(-self.alpha * target * raw.log_softmax(1) + self.beta * reverse, weight)


class Merged:
    """Cross-entropy over sums of consecutive bins: what is asked for are the groups, whatever the bin.

    groups: how many bins each group has (default: GROUPS of the number of bins). weight: one number per group, or
    `inverse`. merge: `probability` sums the softmax. `minmax` is a published system's rule: the raw outputs of a photo
    are scaled to 0 .. 1, summed by group, and the sums are the logits. (Its middle slice also held the last bin; here
    every bin is in one group.) As everywhere in this file the mean is not divided by the batch's class weights, which
    torch's weighted mean, and so that system, does.
    """

    def __init__(
        self,
        counts: Tensor,
        *,
        groups: list[int] | None = None,
        weight: ClassWeight = None,
        merge: Literal["probability", "minmax"] = "probability",
    ) -> None:
        self.groups = groups or GROUPS.get(len(counts), [])
        fits = sum(self.groups) == len(counts) and min(self.groups) > 0
        need(fits, "loss: groups", groups, f"numbers of bins with the sum {len(counts)}")
        self.weight, self.merge = class_weights(self._sums(counts[None])[0], weight), merge

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        if self.merge == "minmax":
            low, high = raw.amin(1, keepdim=True), raw.amax(1, keepdim=True)
            log_p = self._sums((raw - low) / (high - low + (high == low))).log_softmax(1)
        else:
            log_p = torch.stack([part.logsumexp(1) for part in torch.split(raw.log_softmax(1), self.groups, 1)], 1)
        return _mean(-self._sums(target) * log_p * self.weight.to(raw), weight)

    def _sums(self, bins: Tensor) -> Tensor:
        return torch.stack([part.sum(1) for part in torch.split(bins, self.groups, 1)], 1)


class _Optionless:
    """Base of losses that need neither counts nor options."""

    def __init__(self, counts: Tensor) -> None:
        pass


class Divergence(_Optionless):
    """KL(t || p) = sum_c t_c log(t_c / p_c): cross-entropy less the target's own entropy, 0 at best.

    For label distributions: Gao et al., "Deep Label Distribution Learning with Label Ambiguity", 2017. Same gradient
    as `ce`.
    """

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        return _mean(torch.xlogy(target, target) - target * raw.log_softmax(1), weight)


class Binary:
    """Mean over the steps of w_k times binary cross-entropy; Cao et al., CORAL, 2020, eq. 4 (w: their importance)."""

    kinds = frozenset({"steps"})

    def __init__(self, counts: Tensor, *, weight: list[float] | None = None) -> None:
        self.weight = class_weights(counts, weight)

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        terms = nn.functional.binary_cross_entropy_with_logits(raw, target, reduction="none")
        return _mean(terms * self.weight.to(raw) / raw.shape[1], weight)


class Absolute(_Optionless):
    """|predicted years - true years|."""

    kinds = frozenset({"value"})

    def __call__(self, raw: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """See `Loss`."""
        return _mean((raw - target).abs(), weight)


def class_weights(counts: Tensor, weight: ClassWeight) -> Tensor:
    """[K] weights: given, `inverse` to the counts (a class without a photo weighs 0), or ones."""
    if weight is None:
        return torch.ones(len(counts))
    if weight == "inverse":
        return torch.where(counts > 0, counts.sum() / (len(counts) * counts.clamp_min(1e-9)), 0.0)
    fits = len(weight) == len(counts) and min(weight) >= 0 and sum(weight) < float("inf")
    need(fits, "loss: weight", weight, f"{len(counts)} numbers of 0 or more, or inverse")
    return torch.tensor(weight, dtype=torch.float32)


def _mean(terms: Tensor, weight: Tensor) -> Tensor:
    return (terms.sum(1) * weight).mean()


LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "focal": Focal,
    "class_balanced": ClassBalanced,
    "f1": SoftF1,
    "sce": Symmetric,
    "merged_ce": Merged,
    "kl": Divergence,
    "bce": Binary,
    "l1": Absolute,
}
