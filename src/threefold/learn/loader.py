"""From the cache to batches: which photos, in which order, on which device. No worker processes.

The cache holds decoded, prepared uint8 photos, so a batch is one gather (microseconds a photo against milliseconds of
network); augmentation runs on whole batches. On an accelerator the whole set moves there once where it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from threefold.data.face import Face, ages, truth
from threefold.learn.target import Target, make_target
from threefold.predictions import Predictions

Rows = NDArray[np.int64]
Sampler = Callable[[np.random.Generator], Rows]


@dataclass(frozen=True)
class Photos:
    """Photos of a run with all that is known about them; `rows` says which of them this side of a fold holds.

    images: uint8 [N, H, W, 3] as `Prepare` made them, on the CPU (a memmap) or whole on the device. ids, persons: [N].
    truth: [N, 3] codes, ages: [N] years, target: masses of the N. rows: [n] indices into the N.
    """

    images: NDArray[np.uint8] | Tensor
    ids: NDArray[np.str_]
    persons: NDArray[np.str_]
    truth: NDArray[np.int8]
    ages: NDArray[np.float32]
    target: Target
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: Rows) -> Photos:
        """Another side of the same photos."""
        return replace(self, rows=rows)

    def batch(self, rows: Rows, device: torch.device) -> Tensor:
        """uint8 [B, H, W, 3] on the device."""
        if isinstance(self.images, Tensor):
            return self.images[torch.from_numpy(rows).to(self.images.device)]
        return torch.from_numpy(self.images[rows]).to(device, non_blocking=True)

    def predictions(self, joint: NDArray[np.float32], years: NDArray[np.float32] | None, fold: int) -> Predictions:
        """What a network said about this side, [n, 18] and [n], beside the truth."""
        count = len(self.rows)
        unknown = np.full(count, np.nan, dtype=np.float32)
        return Predictions(
            photos=self.ids[self.rows], persons=self.persons[self.rows], probabilities=joint,
            truth=self.truth[self.rows], ages=self.ages[self.rows], years=unknown if years is None else years,
            fold=np.full(count, fold, dtype=np.int16),
        )  # fmt: skip


def make_photos(images: NDArray[np.uint8], faces: Sequence[Face]) -> Photos:
    """All photos of a run, rows 0..N-1, from the cache and the records it was made of."""
    parts, years = truth(faces), ages(faces)
    return Photos(
        images=images, ids=np.array([face.id for face in faces]), persons=np.array([face.person for face in faces]),
        truth=parts, ages=years, target=make_target(parts, years), rows=np.arange(len(faces)),
    )  # fmt: skip


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


def shuffle(photos: Photos) -> Sampler:
    """Every photo once an epoch, in random order."""
    return lambda rng: rng.permutation(photos.rows)


SAMPLERS = {"shuffle": shuffle}
"""name -> factory(photos of the training half, **options) -> (rng) -> rows of one epoch."""
