"""Backends: `uint8 [B, H, W, 3] -> ([B, 18] probabilities, [B] years or None)`, whatever computes them.

The torch backend is the one place where `infer` meets `learn`, and only when a run is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from threefold.data.prepare import Prepare
from threefold.errors import RunError
from threefold.labels import CLASSES
from threefold.runs import Run

if TYPE_CHECKING:
    from threefold.learn.net import Net

Answer = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class Backend(Protocol):
    """What a Reader asks: its preprocessing and the probabilities of prepared photos."""

    @property
    def prepare(self) -> Prepare:
        """The preprocessing the model was trained with."""

    def __call__(self, photos: NDArray[np.uint8]) -> Answer:
        """uint8 [B, H, W, 3] as `prepare` makes them -> probabilities [B, 18], years [B] or None."""


class TorchBackend:
    """The networks of a run: their probabilities averaged (and their years, where they have them)."""

    def __init__(self, nets: Sequence[Net], prepare: Prepare) -> None:
        self.nets, self._prepare = nets, prepare

    @property
    def prepare(self) -> Prepare:
        """See `Backend`. Networks of different folds differ in normalisation at most, which is inside them."""
        return self._prepare

    def __call__(self, photos: NDArray[np.uint8]) -> Answer:
        """See `Backend`."""
        import torch  # reading with an exported model must never need torch

        with torch.inference_mode():
            batch = torch.from_numpy(photos).to(self.nets[0].mean.device)
            joints, years = zip(*(net.read(batch) for net in self.nets), strict=True)
            joint = torch.stack(joints).mean(0).cpu().numpy()
            known = [year for year in years if year is not None]
            return joint, torch.stack(known).mean(0).cpu().numpy() if known else None


class FakeBackend:
    """Answers by the mean brightness of a photo: for tests of everything above a network."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self.prepare = prepare or Prepare()

    def __call__(self, photos: NDArray[np.uint8]) -> Answer:
        """The class is brightness / 256 * 18, with probability 0.83."""
        code = (photos.mean((1, 2, 3)) / 256 * CLASSES).astype(np.int64)
        joint = np.full((len(photos), CLASSES), 0.01, dtype=np.float32)
        joint[np.arange(len(photos)), code] = 0.83
        return joint, None


def open_run(path: Path) -> TorchBackend:
    """The backend of a complete run: its final network where it has one, else all its folds. Raises RunError."""
    try:
        from threefold.learn.net import load_net  # see the class
        from threefold.learn.plan import make_fabric, make_net
    except ImportError as error:
        raise RunError(f"{path}: reading with a run needs torch ({error}); `pip install threefold[train]`") from None
    run = Run.open(path)
    run.need_complete()
    recipe = run.recipe
    homes = sorted(run.path.glob("final/best.safetensors")) or sorted(run.path.glob("fold*/best.safetensors"))
    if not homes:
        raise RunError(f"{path}: holds no weights (final/ or fold*/best.safetensors)")
    device = make_fabric("auto", "32-true").device
    nets = []
    for file in homes:
        prepare = Prepare.from_dict(run.read(f"{file.parent.name}/prepare.json"))
        net = make_net(recipe, prepare, pretrained=False)
        load_net(net, file)
        nets.append(net.eval().to(device))
    return TorchBackend(nets, prepare)
