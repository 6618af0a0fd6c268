"""The network: normalisation, a backbone, a head. uint8 photos as `Prepare` makes them in, one joint out."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from threefold import spec
from threefold.errors import RecipeError, RunError
from threefold.learn.ages import Outputs
from threefold.learn.backbones import Colour, load_head, make_body
from threefold.learn.classical import CLASSICAL
from threefold.learn.heads import HEADS, Head
from threefold.learn.init import INITS
from threefold.learn.tta import View, make_views
from threefold.photos.prepare import Prepare
from threefold.recipe import Recipe
from threefold.runs import Run


class Net(nn.Module):
    """Backbone and head with the normalisation inside, so that no caller can forget or repeat it.

    mean, std: per RGB channel in 0..1 units. views: what `read` looks at (test-time augmentation).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, head: Head, mean: Colour, std: Colour, views: tuple[View, ...] = ()
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.views = backbone, head, views
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        # channels last: half as fast again in training on a CPU (benchmarks/training.py)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Outputs:
        """Float [B, 3, H, W] in 0..1 -> raw outputs of the head."""
        return self.head.outputs(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in 0..1 -> the backbone's features [B, F]."""
        normal = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(normal)
        return features

    def read(self, photos: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B, H, W, 3] -> joint [B, 18] and years [B] or None, mean over the views: what prediction runs."""
        images = to_float(photos)
        joints, years = zip(*(self._answer(view(images)) for view in self.views or (_whole,)), strict=True)
        joint, known = torch.stack(joints).mean(0), [year for year in years if year is not None]
        return joint, torch.stack(known).mean(0) if known else None

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        outputs = {name: raw.float() for name, raw in self(images).items()}
        return self.head.joint(outputs), self.head.years(outputs)


def to_float(photos: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in 0..1."""
    return photos.permute(0, 3, 1, 2).float() / 255


def _whole(images: Tensor) -> Tensor:
    return images


def build_net(
    backbone: str, head: str, size: tuple[int, int], mean: Colour, std: Colour, *, pretrained: str = "none",
    init: str = "default", tta: str = "none",
) -> Net:  # fmt: skip
    """An untrained head on a backbone with `pretrained` weights; size is (H, W) of the photos.

    Where these are a network of ours with this very head, the head is filled as well and training goes on from there.

    Initial values come from torch's global generator; `init` fills the head, and the backbone where nothing is
    pretrained. Raises RecipeError or AssetError naming the key.
    """
    body = make_body(backbone, size, pretrained)
    made = spec.build_one(head, {**HEADS, **CLASSICAL}, "model.head", _width(body, size, backbone))
    fill = spec.build_one(init, INITS, "model.init")
    for module in (made, body) if pretrained == "none" else (made,):
        fill(module)
    load_head(made, pretrained)
    return Net(body, made, mean, std, make_views(tta))


def make_net(recipe: Recipe, prepare: Prepare, *, pretrained: bool) -> Net:
    """The untrained network of a recipe; without `pretrained` no weights are loaded (those of a run will be)."""
    weights = recipe.model.pretrained if pretrained else "none"
    return build_net(
        recipe.model.backbone, recipe.model.head, prepare.size, prepare.mean, prepare.std, pretrained=weights,
        init=recipe.model.init, tta=recipe.tta,
    )  # fmt: skip


def load_net(net: Net, path: Path) -> None:
    """Fill a whole net from a checkpoint of ours (.safetensors), strictly; raises RunError."""
    try:
        net.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path}: not weights of this recipe's network ({str(error).splitlines()[0]})") from None


def nets_of(run: Run, recipe: Recipe, fold: int | None = None, part: str = "") -> tuple[list[Net], Prepare]:
    """The trained networks of a run, ready to answer, and how they see photos.

    fold: that fold's alone; None: the last one, of all people, where there is one, else those of all folds. part:
    `mask/` etc. of separate networks, whose recipe is then given. Raises RunError where there are none.
    """
    places = ["final", "fold*"] if fold is None else [f"fold{fold}"]
    found = [sorted(run.path.glob(f"{place}/{part}best.safetensors")) for place in places]
    files = next(filter(None, found), [])
    if not files:
        raise RunError(f"{run.path}: holds no weights ({'/ or '.join(places)}/{part}best.safetensors)")
    nets = []
    for file in files:
        prepare = Prepare.from_dict(run.read(str(file.with_name("prepare.json").relative_to(run.path))))
        net = make_net(recipe, prepare, pretrained=False)
        load_net(net, file)
        nets.append(net.eval())
    return nets, prepare


def _width(body: nn.Module, size: tuple[int, int], backbone: str) -> int:
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RecipeError(
            f"prepare.size: {backbone} cannot read {size[0]}x{size[1]} ({str(error).splitlines()[0]})"
        ) from None
    finally:
        body.train()
    return int(features.shape[1])
