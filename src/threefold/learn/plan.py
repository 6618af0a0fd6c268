"""From a recipe to the things `fit` needs. Every component is bound and checked here, before any photo is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from threefold import spec
from threefold.data.prepare import Prepare, dataset_statistics, parse_size
from threefold.errors import RecipeError
from threefold.labels import CLASSES, SIZES
from threefold.learn.augment import Augment, make_augment
from threefold.learn.heads import HEADS
from threefold.learn.loader import SAMPLERS, Photos, Sampler
from threefold.learn.losses import LOSSES, Loss
from threefold.learn.mixing import MIXES, Mix
from threefold.learn.net import IMAGENET, Colour, Net, build_net, full_name, trained_colours
from threefold.learn.optim import OPTIMS, SCHEDULES, Schedule
from threefold.recipe import Recipe

Losses = dict[str, list[tuple[float, Loss]]]
OUTPUTS = {"joint": CLASSES, "mask": SIZES["mask"], "gender": SIZES["gender"], "age": SIZES["age_group"]}


@dataclass(frozen=True)
class Patience:
    """Stop after `epochs` epochs without a better value of `on` (macro_f1 of the validation fold, or its loss)."""

    epochs: float = float("inf")
    on: Literal["macro_f1", "loss"] = "macro_f1"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RecipeError(f"train.early_stop: patience cannot be {self.epochs}; expected epochs of 1 or more")


def never() -> Patience:
    """No early stopping."""
    return Patience()


STOPS: spec.Table = {"none": never, "patience": Patience}


@dataclass(frozen=True)
class Plan:
    """Everything of a recipe that the loop needs, as objects."""

    epochs: int
    batch: int
    augment: Augment
    mix: Mix
    sampler: Callable[[Photos], Sampler]
    losses: Callable[[dict[str, Tensor]], Losses]
    optim: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int, int], Schedule]
    stop: Patience
    ema: float
    clip: float
    fabric: Fabric
    seed: int


def make_plan(recipe: Recipe) -> Plan:
    """Bind every component of a recipe; raises RecipeError naming the key, the value and the nearest valid one."""
    train = recipe.train
    plan = Plan(
        epochs=train.epochs,
        batch=train.batch,
        augment=make_augment(train.augment),
        mix=spec.build_one(train.mix, MIXES, "train.mix"),
        sampler=lambda photos: spec.build_one(train.sampler, SAMPLERS, "train.sampler", photos),
        losses=lambda counts: make_losses(recipe, counts),
        optim=lambda net: spec.build_one(recipe.optim, OPTIMS, "optim", net),
        schedule=lambda optimizer, epochs, updates: spec.build_one(
            recipe.schedule, SCHEDULES, "schedule", optimizer, epochs, updates
        ),
        stop=spec.build_one(train.early_stop, STOPS, "train.early_stop"),
        ema=train.ema,
        clip=train.clip,
        fabric=make_fabric(train.device, train.precision),
        seed=recipe.seed,
    )
    _try_out(recipe, plan)
    return plan


def make_losses(recipe: Recipe, counts: dict[str, Tensor]) -> Losses:
    """Losses by output name; counts: photos per class of the training half, for those that weight by them."""
    made: Losses = {}
    for name, count in counts.items():
        own = getattr(recipe.loss, name, "")
        made[name] = spec.build(own or recipe.loss.default, LOSSES, f"loss.{name if own else 'default'}", count)
    return made


def make_fabric(device: str, precision: str) -> Fabric:
    """Where and in which precision to compute: `auto` is a GPU with bf16 where there is one, else the CPU, 32 bits."""
    known = {"auto", "cpu", "cuda", "mps"}
    if device not in known:
        raise RecipeError(f"train.device: {device!r} is not one of {', '.join(sorted(known))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("train.device: cuda is asked for and this machine has no CUDA device; expected auto or cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("train.device: mps is asked for and this machine has none; expected auto or cpu")
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "cpu"
        )  # mps only on request: several timm ops are missing there
    choices: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
        "auto": "bf16-mixed" if device == "cuda" else "32-true",
        "32-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed",
    }  # fmt: skip
    if precision not in choices or (device == "cpu" and precision == "16-mixed"):
        raise RecipeError(f"train.precision: {precision!r} is not one of {', '.join(choices)} (16-mixed not on a CPU)")
    return Fabric(accelerator=device, devices=1, precision=choices[precision])


def make_prepare(recipe: Recipe, images: NDArray[np.uint8] | None = None) -> Prepare:
    """The preprocessing of a recipe. `images` [n, H, W, 3]: the training half, for `prepare.normalise: dataset`."""
    keys = recipe.prepare
    rule = spec.build_one(keys.normalise, NORMALISES, "prepare.normalise", recipe.model.backbone, images)
    size = parse_size(keys.size)
    return Prepare(crop=keys.crop, size=size, interpolation=keys.interpolation, mean=rule[0], std=rule[1])


def make_net(recipe: Recipe, prepare: Prepare, *, pretrained: bool) -> Net:
    """The untrained network of a recipe; without `pretrained` no weights are loaded (those of a run will be)."""
    weights = recipe.model.pretrained if pretrained else "none"
    return build_net(
        recipe.model.backbone, recipe.model.head, prepare.size, prepare.mean, prepare.std, pretrained=weights
    )


def _try_out(recipe: Recipe, plan: Plan) -> None:
    """Make on a toy what is otherwise made after the photos were read, so that a wrong option is told at once."""
    full_name(recipe.model.backbone)
    make_prepare(recipe, np.zeros((1, 1, 1, 3), dtype=np.uint8))
    spec.build_one(recipe.model.head, HEADS, "model.head", 8)
    plan.losses({name: torch.ones(size) for name, size in OUTPUTS.items()})
    plan.schedule(plan.optim(nn.Linear(1, 1)), recipe.train.epochs, 100)
    spec.bind_one(recipe.train.sampler, SAMPLERS, "train.sampler", None)


def _auto(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return trained_colours(backbone)


def _imagenet(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return IMAGENET


def _half(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _given(backbone: str, images: NDArray[np.uint8] | None, *, mean: Colour, std: Colour) -> tuple[Colour, Colour]:
    if min(std) <= 0 or max(*mean, *std) > 1:
        raise RecipeError(f"prepare.normalise: mean={mean}, std={std}; expected numbers in 0..1 (of 255), std above 0")
    return mean, std


def _dataset(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    if images is None:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # stands in until the training half is known
    mean, (red, green, blue) = dataset_statistics(images)
    return mean, (max(red, 1e-3), max(green, 1e-3), max(blue, 1e-3))  # photos of one colour have no spread


NORMALISES: spec.Table = {"auto": _auto, "imagenet": _imagenet, "half": _half, "dataset": _dataset, "given": _given}
