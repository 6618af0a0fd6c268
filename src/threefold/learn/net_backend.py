"""The networks of a run as something that reads: prepared photos in, numpy out. What `read` opens a run with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from threefold.learn.net import Net, nets_of
from threefold.learn.plan import make_fabric
from threefold.photos.prepare import Prepare
from threefold.recipe import Recipe
from threefold.runs import Run


class NetBackend:
    """Networks of one Prepare: their probabilities averaged, and their years where they have them."""

    def __init__(self, nets: Sequence[Net], prepare: Prepare) -> None:
        # one preprocessing: networks of different folds differ in normalisation at most, which is inside them
        self.nets, self.prepares = nets, (prepare,)

    @classmethod
    def of_run(cls, run: Run, recipe: Recipe, fold: int | None = None, part: str = "") -> NetBackend:
        """The trained networks of a run, on its device; arguments and errors as of `net.nets_of`."""
        nets, prepare = nets_of(run, recipe, fold, part)
        device = make_fabric("auto", "32-true").device
        return cls([net.to(device) for net in nets], prepare)

    def __call__(self, photos: tuple[NDArray[np.uint8], ...]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """uint8 [B, H, W, 3] of B photos, the only item -> probabilities [B, 18], years [B] or None."""
        with torch.inference_mode():
            batch = torch.from_numpy(photos[0]).to(self.nets[0].mean.device)
            joints, years = zip(*(net.read(batch) for net in self.nets), strict=True)
            joint = torch.stack(joints).mean(0).cpu().numpy()
            numbers = [year for year in years if year is not None]
            return joint, torch.stack(numbers).mean(0).cpu().numpy() if numbers else None
