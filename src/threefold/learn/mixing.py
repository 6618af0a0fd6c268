"""Mixes: two photos of a batch become one, and their targets with them in the same shares.

A mix is `(images float [B, 3, H, W], Target, generator) -> (images, Target)`. The generator is a CPU
`torch.Generator`, so that the same seed draws the same partners on every device.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefold.errors import RecipeError
from threefold.labels import UNKNOWN, AgeGroup
from threefold.learn.target import Target, mix
from threefold.spec import need

Mixed = tuple[Tensor, Target]
Mix = Callable[[Tensor, Target, torch.Generator], Mixed]
"""Contract of every row of MIXES: images [B, 3, H, W] and their Target, mixed alike."""


def none() -> Mix:
    """Leave the batch as it is."""
    return lambda images, target, generator: (images, target)


class MixUp:
    """share * photo + (1 - share) * partner, share ~ Beta(alpha, alpha) per photo.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. `p` is the chance per photo to be mixed at all, or
    with `per_batch` that of the whole batch. `same_class`: partners of the same known class only (see `_partners`).
    """

    def __init__(
        self, *, alpha: float = 0.2, p: float = 1.0, per_batch: bool = False, same_class: bool = False
    ) -> None:
        need(alpha > 0, "train.mix: alpha", alpha, "a number above 0")
        need(0 <= p <= 1, "train.mix: p", p, "0..1")
        self.alpha, self.p, self.per_batch, self.same_class = alpha, p, per_batch, same_class

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> Mixed:
        """See `Mix`."""
        rng = _numpy(generator)
        share = _shares(rng, len(images), self.alpha, self.p, self.per_batch)
        return _blend(images, target, _partners(rng, target, self.same_class), share)


class MixUpOld:
    """MixUp for photos of old people alone; every other photo stays as it is.

    Each photo whose target is old (a mass above 0.5) is mixed with chance `p` with another photo of the batch, drawn
    from all of them, and keeps share + (1 - share) * Beta(alpha, alpha) of itself: `share` is the least it keeps. The
    rare group thus meets every background and face without a copy of it leaving the training half of its fold.
    """

    def __init__(self, *, alpha: float = 1.0, p: float = 0.5, share: float = 0.5) -> None:
        need(alpha > 0, "train.mix: alpha", alpha, "a number above 0")
        need(0 <= p <= 1, "train.mix: p", p, "0..1")
        need(0 <= share <= 1, "train.mix: share", share, "0..1")
        self.alpha, self.p, self.share = alpha, p, share

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> Mixed:
        """See `Mix`."""
        rng = _numpy(generator)
        count = len(images)
        share = self.share + (1 - self.share) * _shares(rng, count, self.alpha, self.p, per_batch=False)
        old = target.age_group[:, AgeGroup.OLD].cpu().numpy() > 0.5
        other = (np.arange(count) + rng.integers(1, max(count, 2), count)) % count
        return _blend(images, target, other, np.where(old, share, 1.0))


class CutMix:
    """Paste a part of a partner into each photo; the target's shares are the exact shares of the pixels.

    Yun et al., "CutMix", 2019: a box of the photo's aspect that covers 1 - share of it before it is clipped at the
    border, share ~ Beta(beta, beta). With `half=vertical` everything to the left or to the right (drawn) of a vertical
    cut, which lies at `low`..`high` of the width (drawn evenly), so that each half face stays whole. `p` is the chance
    per photo, or with `per_batch` that of the whole batch. `same_class`: partners of the same known class only.
    """

    def __init__(
        self,
        *,
        half: Literal["none", "vertical"] = "none",
        beta: float = 1.0,
        low: float = 0.5,
        high: float = 0.5,
        p: float = 1.0,
        per_batch: bool = False,
        same_class: bool = False,
    ) -> None:
        if not 0 <= low <= high <= 1:
            raise RecipeError(f"train.mix: low={low}, high={high}; expected 0 <= low <= high <= 1, shares of the width")
        unused = f"low={low}, high={high}" if (low, high) != (0.5, 0.5) else ""
        if half == "vertical":
            unused = f"beta={beta}" if beta != 1 else ""
        if unused:
            expected = "expected beta for a box or low, high for half=vertical"
            raise RecipeError(f"train.mix: cutmix(half={half}) has no use for {unused}; {expected}")
        need(beta > 0, "train.mix: beta", beta, "a number above 0")
        need(0 <= p <= 1, "train.mix: p", p, "0..1")
        self.half, self.low, self.high = half, low, high
        self.beta, self.p, self.per_batch, self.same_class = beta, p, per_batch, same_class

    def __call__(self, images: Tensor, target: Target, generator: torch.Generator) -> Mixed:
        """See `Mix`."""
        rng = _numpy(generator)
        count, _, height, width = images.shape
        partner = _partners(rng, target, self.same_class)
        share = _shares(rng, count, self.beta, self.p, self.per_batch)
        if self.half == "vertical":
            cut = np.rint(rng.uniform(self.low, self.high, count) * width)[:, None]
            right = rng.random((count, 1)) < 0.5
            inside = (((np.arange(width) >= cut) == right) & (share < 1)[:, None])[:, None, :]
        else:
            side = np.sqrt(1 - share)
            inside = _span(rng, height, side)[:, :, None] & _span(rng, width, side)[:, None, :]
        pasted = torch.from_numpy(inside).to(images.device)
        other = torch.from_numpy(partner).to(images.device)
        left = torch.from_numpy(1 - inside.mean((1, 2), dtype=np.float32)).to(images)
        return torch.where(pasted[:, None], images[other], images), mix(target, target.take(other), left)


def chain(mixes: Sequence[Mix]) -> Mix:
    """One mix after the other, each with its own draws: partners of the second may be mixed photos of the first.

    Shares stay exact unless a box is cut out of photos that were pasted before: which of their parts it holds depends
    on where it lies, and the target then holds the share of the whole.
    """

    def apply(images: Tensor, target: Target, generator: torch.Generator) -> Mixed:
        for step in mixes:
            images, target = step(images, target, generator)
        return images, target

    return apply


def _blend(images: Tensor, target: Target, partner: NDArray[np.int64], share: NDArray[np.floating]) -> Mixed:
    other, weight = torch.from_numpy(partner).to(images.device), torch.from_numpy(share).to(images)
    cube = weight[:, None, None, None]
    return cube * images + (1 - cube) * images[other], mix(target, target.take(other), weight)


def _partners(rng: np.random.Generator, target: Target, same_class: bool) -> NDArray[np.int64]:
    """[B] a partner for each photo: a permutation, or the next one of its own class in random order.

    The class is the largest of the 18 joint masses. A photo without another of its class, or whose class is not known,
    is its own partner, that is, stays as it is.
    """
    if not same_class:
        return rng.permutation(len(target))
    partner = np.arange(len(target))
    joint = target.joint.cpu().numpy()
    codes = np.where(joint.sum(1) > 0.5, joint.argmax(1), UNKNOWN)
    for code in np.unique(codes[codes != UNKNOWN]):
        members = rng.permutation(np.flatnonzero(codes == code))
        partner[members] = np.roll(members, 1)
    return partner


def _numpy(generator: torch.Generator) -> np.random.Generator:
    # torch has no Beta with a generator of its own; one draw from it seeds numpy's
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def _shares(rng: np.random.Generator, count: int, beta: float, p: float, per_batch: bool) -> NDArray[np.float32]:
    """[B] what each photo keeps of itself: 1 where it is not mixed at all."""
    share = rng.beta(beta, beta, count)
    return np.where(rng.random(1 if per_batch else count) < p, share, 1.0).astype(np.float32)


def _span(rng: np.random.Generator, length: int, side: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[B, length]: pixels within side * length of a centre drawn for each photo, clipped at the border."""
    extent = np.floor(side * length).astype(np.int64)
    low = rng.integers(length, size=len(side)) - extent // 2
    at = np.arange(length)
    return np.asarray((at >= low[:, None]) & (at < (low + extent)[:, None]))


MIXES = {"none": none, "cutmix": CutMix, "mixup": MixUp, "mixup_old": MixUpOld}
