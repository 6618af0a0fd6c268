"""`Target`: what a batch of photos should be answered with, as masses that mix linearly.

Every field is a soft vector *times how much of it is known*: a row sums to 1 where the label is known, to 0 where it
is not, and to something between after photos of both kinds were mixed. So MixUp and CutMix are one weighted sum, an
unknown label weighs nothing in any loss, and a head turns the masses into what it is trained on by a linear map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefold import labels

YEARS = 121
"""Number of years a target can name: 0..120."""


@dataclass(frozen=True)
class Target:
    """Masses for B photos: joint [B, 18], mask [B, 3], gender [B, 2], groups [B, 3 * 3], ages [B, 3 * 124]; float32.

    Rows sum to how much is known (0..1). `joint` is known only where all three attributes are. groups: (gender, age
    group); ages: (gender, year 0..120 or else the age group of a photo that knows no year); the gender of both is
    male, female or unknown.
    """

    # Years are a distribution, not a number: bins, one-hot years, ordinal steps, label distributions and the mean of a
    # regression are then all linear in it (the mean of two ages is not the mean of their one-hot codes).
    # Ages lie apart by gender, and photos with a year apart from those that know only the group, because age outputs
    # conditioned on the gender and outputs finer than the groups are trained on those parts; differences of masses
    # would not be linear once `cuts` are not the scored ones.

    joint: Tensor
    mask: Tensor
    gender: Tensor
    groups: Tensor
    ages: Tensor

    def __len__(self) -> int:
        return len(self.joint)

    @property
    def age_group(self) -> Tensor:
        """Mass of each age group, [B, 3]; by the `cuts` of `make_target` where the year is known."""
        return _blocks(self.groups).sum(1)

    @property
    def years(self) -> Tensor:
        """Mass of each year, [B, 121]."""
        return _blocks(self.ages).sum(1)[:, :YEARS]

    @property
    def yearless(self) -> Tensor:
        """Mass of each age group of photos that know no year, [B, 3]."""
        return _blocks(self.ages).sum(1)[:, YEARS:]

    def of_gender(self, code: int) -> Target:
        """The same with what is known of the age of that gender alone; UNKNOWN: of photos without a gender."""
        block = (torch.arange(3, device=self.ages.device) == code % 3)[:, None]  # UNKNOWN, -1, is the last block
        groups, ages = ((_blocks(mass) * block).flatten(1) for mass in (self.groups, self.ages))
        return replace(self, groups=groups, ages=ages)

    def take(self, rows: Tensor | NDArray[np.integer]) -> Target:
        """Rows of the target, in that order."""
        index = torch.as_tensor(rows, device=self.joint.device)
        return Target(*(mass[index] for mass in vars(self).values()))

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        return Target(*(mass.to(device, non_blocking=True) for mass in vars(self).values()))


class SoftTarget(NamedTuple):
    """What one output of a head is trained on: value [B, K] as a mass; weight [B], how much of it is known, 0..1."""

    value: Tensor
    weight: Tensor

    @classmethod
    def of(cls, mass: Tensor) -> SoftTarget:
        """A mass [B, K] is known as far as it sums to 1."""
        return cls(mass, mass.sum(1))


def make_target(parts: NDArray[np.int8], ages: NDArray[np.float32], cuts: tuple[int, int] = labels.CUTS) -> Target:
    """[N, 3] codes (UNKNOWN allowed) and [N] years (NaN = unknown; rounded, clipped to 0..120) -> Target.

    cuts: first year of the middle and of the old group *in training*. Where the year is known, it decides the group
    (`age_group` and `joint`) by these cuts; elsewhere the given group stands. Years themselves do not move.
    """
    dated = ~np.isnan(ages)
    group = np.where(dated, np.digitize(ages, cuts), parts[:, 2]).astype(np.int64)
    years = np.clip(np.round(np.nan_to_num(ages)), 0, YEARS - 1)
    state = np.where(dated, years, np.where(group < 0, labels.UNKNOWN, YEARS + group))
    gender = parts[:, 1].astype(np.int64) % 3  # UNKNOWN, -1, becomes the third block
    columns: tuple[tuple[NDArray[Any], int], ...] = (
        (labels.encode_all(np.column_stack([parts[:, :2], group])), labels.CLASSES),
        (parts[:, 0], labels.SIZES["mask"]),
        (parts[:, 1], labels.SIZES["gender"]),
        (np.where(group < 0, labels.UNKNOWN, gender * 3 + group), 9),
        (np.where(state < 0, labels.UNKNOWN, gender * (YEARS + 3) + state), 3 * (YEARS + 3)),
    )
    return Target(*(_one_hot(codes.astype(np.int64), size) for codes, size in columns))


def mix(one: Target, other: Target, share: Tensor) -> Target:
    """`share * one + (1 - share) * other`, per photo; share [B] in 0..1."""
    weight = share[:, None]
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return Target(*(weight * mass + (1 - weight) * another for mass, another in pairs))


def _blocks(mass: Tensor) -> Tensor:
    """[B, 3 * K] -> [B, 3, K]: male, female, gender unknown."""
    return mass.view(len(mass), 3, mass.shape[1] // 3)


def _one_hot(codes: NDArray[np.int64], size: int) -> Tensor:
    mass = torch.zeros(len(codes), size)
    rows = np.flatnonzero(codes >= 0)
    mass[torch.from_numpy(rows), torch.from_numpy(codes[rows])] = 1
    return mass
