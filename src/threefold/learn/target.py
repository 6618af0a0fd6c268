"""`Target`: what a batch of photos should be answered with, as masses that mix linearly.

Every field is a soft vector *times how much of it is known*: a row sums to 1 where the label is known, to 0 where
nobody said, and to something between after photos of both kinds were mixed. So MixUp and CutMix are one weighted sum,
an unknown label weighs nothing in any loss, and a head can turn the masses into whatever it is trained on by a linear
map. Years are a distribution over 0..120, not a number: bins, one-hot years, ordinal steps, label distributions and the
mean of a regression are then all linear in it (the mean of two ages is not the mean of their one-hot codes).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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
    """Masses for B photos: joint [B, 18], mask [B, 3], gender [B, 2], age_group [B, 3], years [B, 121]; float32.

    Rows sum to how much is known (0..1). `joint` is known only where all three attributes are.
    """

    joint: Tensor
    mask: Tensor
    gender: Tensor
    age_group: Tensor
    years: Tensor

    def __len__(self) -> int:
        return len(self.joint)

    def take(self, rows: Tensor | NDArray[np.integer]) -> Target:
        """Rows of the target, in that order."""
        index = torch.as_tensor(rows, device=self.joint.device)
        return Target(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device) -> Target:
        """The same on another device."""
        return Target(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


class Known(NamedTuple):
    """What one output of a head is trained on: value [B, K] as a mass, and its known share [B] in 0..1."""

    value: Tensor
    known: Tensor


def make_target(parts: NDArray[np.int8], ages: NDArray[np.float32]) -> Target:
    """[N, 3] codes (UNKNOWN allowed) and [N] years (NaN = unknown; rounded, clipped to 0..120) -> Target."""
    years = np.where(np.isnan(ages), labels.UNKNOWN, np.clip(np.round(np.nan_to_num(ages)), 0, YEARS - 1))
    columns: tuple[tuple[NDArray[Any], int], ...] = (
        (labels.encode_all(parts), labels.CLASSES),
        *((parts[:, i], size) for i, size in enumerate(labels.SIZES.values())),
        (years, YEARS),
    )
    return Target(*(_one_hot(codes.astype(np.int64), size) for codes, size in columns))


def mix(one: Target, other: Target, share: Tensor) -> Target:
    """`share * one + (1 - share) * other`, per photo; share [B] in 0..1."""
    weight = share[:, None]
    return Target(
        *(weight * getattr(one, field.name) + (1 - weight) * getattr(other, field.name) for field in fields(Target))
    )


def _one_hot(codes: NDArray[np.int64], size: int) -> Tensor:
    mass = torch.zeros(len(codes), size)
    rows = np.flatnonzero(codes >= 0)
    mass[torch.from_numpy(rows), torch.from_numpy(codes[rows])] = 1
    return mass
