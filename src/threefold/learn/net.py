"""The network: normalisation, a backbone, a head. uint8 photos as `Prepare` makes them in, one joint out."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from threefold import spec
from threefold.errors import RecipeError, RunError
from threefold.learn.ages import Outputs
from threefold.learn.backbones import load_head, make_body
from threefold.learn.classical import CLASSICAL
from threefold.learn.heads import HEADS, Head
from threefold.learn.init import INITS, Init
from threefold.learn.tta import View, make_views, unchanged
from threefold.photos.prepare import Colour, Prepare
from threefold.recipe import Recipe
from threefold.runs import Run


class Net(nn.Module):
    """Backbone and head with the normalisation inside, so that no caller can forget or repeat it.

    mean, std: per RGB channel in 0..1 units. views: what `read` looks at (test-time augmentation).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, head: Head, mean: Colour, std: Colour, views: tuple[View, ...] = (unchanged,)
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
        images, joints, years = to_float(photos), [], []
        for view in self.views:
            outputs = {name: raw.float() for name, raw in self(view(images)).items()}
            joints.append(self.head.joint(outputs))
            years.append(self.head.years(outputs))
        numbers = [part for part in years if part is not None]
        return torch.stack(joints).mean(0), torch.stack(numbers).mean(0) if numbers else None


def to_float(photos: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in 0..1."""
    return photos.permute(0, 3, 1, 2).float() / 255


def bind_net(
    backbone: str, head: str, *, pretrained: str = "none", init: str = "default", tta: str = "none"
) -> Callable[[Prepare], Net]:
    """Check head, initial values and views of a network; the callable makes it, untrained, for photos so prepared.

    The backbone comes with its `pretrained` weights; where these are of a network of ours with this very head, the head
    is filled as well and training goes on from there. Initial values come from torch's global generator; `init` fills
    the head, and the backbone where nothing is pretrained. Both raise RecipeError or AssetError naming the key.
    """
    make_head = spec.bind_one(head, {**HEADS, **CLASSICAL}, "model.head", 1)
    fill: Init = spec.build_one(init, INITS, "model.init")
    views = make_views(tta)

    def make(prepare: Prepare) -> Net:
        body = make_body(backbone, prepare.size, pretrained)
        try:
            with torch.no_grad():
                features = body.eval()(torch.zeros(1, 3, *prepare.size))
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = prepare.size
            reason = str(error).splitlines()[0]
            raise RecipeError(f"prepare.size: {backbone} cannot read {height}x{width} ({reason})") from None
        body.train()
        top: Head = make_head(int(features.shape[1]))
        for module in (top, body) if pretrained == "none" else (top,):
            fill(module)
        load_head(top, pretrained)
        return Net(body, top, prepare.mean, prepare.std, views)

    return make


def make_net(recipe: Recipe, prepare: Prepare, *, pretrained: bool) -> Net:
    """The untrained network of a recipe; without `pretrained` no weights are loaded (those of a run will be)."""
    model, weights = recipe.model, recipe.model.pretrained if pretrained else "none"
    return bind_net(model.backbone, model.head, pretrained=weights, init=model.init, tta=recipe.tta)(prepare)


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
    matches = [sorted(run.path.glob(f"{place}/{part}best.safetensors")) for place in places]
    files = next(filter(None, matches), [])
    if not files:
        raise RunError(f"{run.path}: holds no weights ({'/ or '.join(places)}/{part}best.safetensors)")
    nets = []
    for file in files:
        prepare = Prepare.from_dict(run.read(str(file.with_name("prepare.json").relative_to(run.path))))
        net = make_net(recipe, prepare, pretrained=False)
        load_net(net, file)
        nets.append(net.eval())
    return nets, prepare
