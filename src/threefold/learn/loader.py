"""From the cache to batches: which photos, in which order, on which device. No worker processes.

The cache holds decoded, prepared uint8 photos, so a batch is one gather (microseconds a photo against milliseconds of
network); augmentation runs on whole batches. On an accelerator the whole set moves there once where it fits.

A photo may be there several times, as itself and as turned or mirrored copies (`copies.py`). Copies hold no pixels of
their own: they name the photo they are made of and are made whenever a batch asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from kornia.geometry.transform import rotate
from numpy.typing import NDArray
from torch import Tensor

from threefold.data.face import Face, ages, truth
from threefold.errors import LeakError
from threefold.learn.target import Target, make_target
from threefold.predictions import Predictions

Rows = NDArray[np.int64]


class Pose(NamedTuple):
    """How a copy differs from its photo: mirrored left to right first, then turned (degrees above 0: to the left)."""

    mirrored: bool
    degrees: float


@dataclass(frozen=True)
class Photos:
    """Photos of a run with all that is known about them; `rows` are those that this side of a fold holds.

    images: uint8 [N, H, W, 3] as `Prepare` made them, on the CPU (a memmap) or whole on the device. There are M >= N
    photos, the N themselves first and then their copies. ids, persons: [M]. truth: [M, 3] codes, ages: [M] years,
    target: masses of the M. rows: [n] indices into the M. base: [M] indices into the N, whose pixels a photo has.
    variant: [M] 0 for a photo itself, v for a copy that is seen in `poses[v - 1]`.
    """

    images: NDArray[np.uint8] | Tensor
    ids: NDArray[np.str_]
    persons: NDArray[np.str_]
    truth: NDArray[np.int8]
    ages: NDArray[np.float32]
    target: Target
    rows: Rows
    base: Rows
    variant: NDArray[np.int8]
    poses: tuple[Pose, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: Rows) -> Photos:
        """Another side of the same photos."""
        return replace(self, rows=rows)

    def batch(self, rows: Rows, device: torch.device) -> Tensor:
        """uint8 [B, H, W, 3] on the device; copies are turned bilinearly, their corners filled from the border."""
        base = self.base[rows]
        if isinstance(self.images, Tensor):
            images = self.images[torch.from_numpy(base).to(self.images.device)]
        else:
            images = torch.from_numpy(self.images[base])
        variant = self.variant[rows]
        copies = np.flatnonzero(variant)
        if len(copies):
            mirrored, degrees = np.array(self.poses, dtype=np.float32)[variant[copies] - 1].T
            at, mirror, angle = (torch.from_numpy(array).to(images.device) for array in (copies, mirrored > 0, degrees))
            pixels = images[at].permute(0, 3, 1, 2).float()
            pixels = torch.where(mirror[:, None, None, None], pixels.flip(-1), pixels)
            turned = rotate(pixels, angle, padding_mode="border").round().clamp(0, 255)
            images[at] = turned.to(torch.uint8).permute(0, 2, 3, 1)
        return images.to(device, non_blocking=True)

    def predictions(self, joint: NDArray[np.float32], years: NDArray[np.float32] | None, fold: int) -> Predictions:
        """A network's answers about this side, [n, 18] and [n], beside the truth. LeakError on copies: they train."""
        rows = self.rows
        if (copies := rows[self.variant[rows] > 0]).size:
            raise LeakError(
                f"{len(copies)} copies are among the photos to judge by, the first is {self.ids[copies[0]]}; "
                "copies belong to the training half alone"
            )
        return Predictions(
            photos=self.ids[rows],
            persons=self.persons[rows],
            probabilities=joint,
            truth=self.truth[rows],
            ages=self.ages[rows],
            years=np.full(len(rows), np.nan, dtype=np.float32) if years is None else years,
            fold=np.full(len(rows), fold, dtype=np.int16),
        )


def make_photos(images: NDArray[np.uint8], faces: Sequence[Face]) -> Photos:
    """All photos of a run, rows 0..N-1, from the cache and the records it was made of."""
    codes, years, count = truth(faces), ages(faces), len(faces)
    return Photos(
        images=images,
        ids=np.array([face.id for face in faces]),
        persons=np.array([face.person for face in faces]),
        truth=codes,
        ages=years,
        target=make_target(codes, years),
        rows=np.arange(count),
        base=np.arange(count),
        variant=np.zeros(count, dtype=np.int8),
    )


def to_device(photos: Photos, device: torch.device) -> Photos:
    """The pixels on an accelerator when they take less than half of its free memory; otherwise as they were."""
    images = photos.images
    if device.type != "cuda" or isinstance(images, Tensor) or images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return photos
    return replace(photos, images=torch.from_numpy(np.ascontiguousarray(images)).to(device))


def chunks(rows: Rows, batch: int) -> Iterator[Rows]:
    """`rows` in order, in ceil(n / batch) parts whose sizes differ by at most one.

    Nothing is dropped, and no last batch of one photo breaks a batch norm (unless a batch is one photo by wish).
    """
    yield from np.array_split(rows, max(1, -(-len(rows) // batch)))
