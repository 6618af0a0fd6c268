"""From a recipe to the things `fit` needs. Every component is bound and checked here, before any photo is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from threefold import spec
from threefold.data.face import Face
from threefold.errors import RecipeError
from threefold.learn.augment import Augment, make_augment
from threefold.learn.backbones import IMAGENET, Colour, trained_colours
from threefold.learn.classical import CLASSICAL, Classical
from threefold.learn.copies import COPIES
from threefold.learn.distil import KEY as DISTIL
from threefold.learn.distil import Teacher, make_teachers
from threefold.learn.freeze import FREEZES, Freeze
from threefold.learn.heads import HEADS, Head
from threefold.learn.init import INITS
from threefold.learn.loader import Photos, make_photos
from threefold.learn.losses import LOSSES, Loss
from threefold.learn.memory import keep_memory
from threefold.learn.mixing import MIXES, Mix, chain
from threefold.learn.optim import OPTIMS, SCHEDULES, Schedule
from threefold.learn.samplers import SAMPLERS, Sampler
from threefold.learn.tta import make_views
from threefold.photos.prepare import Prepare, dataset_statistics, parse_size
from threefold.recipe import Recipe

Losses = dict[str, list[tuple[float, Loss]]]
FITTING = {"steps": "bce", "conditional": "corn", "value": "l1"}
"""The loss of an output that is no softmax, where the recipe names none."""


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
class Keep:
    """Which weights a fold keeps: the mean over its `top` best epochs, or (`last`) those of the last epoch."""

    top: int = 1
    last: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise RecipeError(f"train.keep: top cannot be {self.top}; expected 1 or more epochs")


def _average(top: int = 3) -> Keep:
    """The mean of the weights of the `top` best epochs."""
    return Keep(top)


KEEPS: spec.Table = {"best": Keep, "last": lambda: Keep(last=True), "average": _average}


@dataclass(frozen=True)
class Plan:
    """Everything of a recipe that the loop needs, as objects."""

    epochs: int
    batch: int
    augment: Augment
    mix: Mix
    mix_off: int
    sampler: Callable[[Photos], Sampler]
    losses: Callable[[dict[str, Tensor], dict[str, str]], Losses]
    freeze: Freeze
    keep: Keep
    optim: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int, int], Schedule]
    stop: Patience
    ema: float
    clip: float
    teachers: list[tuple[float, Teacher]]
    fabric: Fabric
    seed: int


def make_plan(recipe: Recipe) -> Plan:
    """Bind every component of a recipe; raises RecipeError naming the key, the value and the nearest valid one."""
    train = recipe.train
    plan = Plan(
        epochs=train.epochs,
        batch=train.batch,
        augment=make_augment(train.augment),
        mix=chain(spec.build_chain(train.mix, MIXES, "train.mix")),
        mix_off=train.mix_off,
        sampler=lambda photos: spec.build_one(train.sampler, SAMPLERS, "train.sampler", photos),
        losses=lambda counts, kinds: make_losses(recipe, counts, kinds),
        freeze=spec.build_one(train.freeze, FREEZES, "train.freeze"),
        keep=spec.build_one(train.keep, KEEPS, "train.keep"),
        optim=lambda net: spec.build_one(recipe.optim, OPTIMS, "optim", net),
        schedule=lambda optimizer, epochs, updates: spec.build_one(
            recipe.schedule, SCHEDULES, "schedule", optimizer, epochs, updates
        ),
        stop=spec.build_one(train.early_stop, STOPS, "train.early_stop"),
        ema=train.ema,
        clip=train.clip,
        teachers=make_teachers(train.distil),
        fabric=make_fabric(train.device, train.precision),
        seed=recipe.seed,
    )
    _try_out(recipe, plan)
    return plan


def make_losses(recipe: Recipe, counts: dict[str, Tensor], kinds: dict[str, str]) -> Losses:
    """Losses by output name; counts: photos per class of the training half, for those that weight by them.

    What stands before a dot in an output's name is its recipe key (`age.male` is trained with `loss.age`). Raises
    RecipeError for a loss that does not fit what the output is (`kinds`) and for one that no output has a use for.
    """
    made: Losses = {}
    given = {key: text for key, text in recipe.loss.model_dump().items() if text and key != "default"}
    for name, count in counts.items():
        key, kind = name.partition(".")[0], kinds.get(name, "classes")
        text = given.get(key) or FITTING.get(kind) or recipe.loss.default
        where = f"loss.{key if key in given else 'default'}"
        made[name] = spec.build(text, LOSSES, where, count)
        if any(kind not in getattr(loss, "kinds", {"classes"}) for _, loss in made[name]):
            fit = ", ".join(key for key, loss in LOSSES.items() if kind in loss.kinds)
            raise RecipeError(
                f"{where}: {text} does not fit the output {name} of {recipe.model.head} (those do: {fit})"
            )
    unused = sorted(given.keys() - {name.partition(".")[0] for name in counts})
    if unused:
        raise RecipeError(f"loss.{unused[0]}: {recipe.model.head} has no such output; its outputs: {', '.join(counts)}")
    return made


def make_fabric(device: str, precision: str) -> Fabric:
    """Where and in which precision to compute: `auto` is a GPU with bf16 where there is one, else the CPU, 32 bits.

    Where it is the CPU, this process keeps the memory it frees (memory.py).
    """
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
    if device == "cpu":
        keep_memory()
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
    return Prepare(
        crop=keys.crop, size=size, interpolation=keys.interpolation, background=keys.background, mean=rule[0],
        std=rule[1],
    )  # fmt: skip


def _try_out(recipe: Recipe, plan: Plan) -> None:
    """Make on a toy what is otherwise made after the photos were read, so that a wrong option is told at once."""
    prepare = make_prepare(recipe, np.zeros((1, 1, 1, 3), dtype=np.uint8))
    head: Head = spec.build_one(recipe.model.head, {**HEADS, **CLASSICAL}, "model.head", 24)
    with torch.no_grad():
        raw = head.eval().outputs(torch.zeros(2, 24))
    plan.losses({name: torch.ones(part.shape[1]) for name, part in raw.items()}, head.kinds)
    if plan.teachers and isinstance(head, Classical):
        raise RecipeError(f"{DISTIL}: {recipe.model.head} is fitted to labels only; expected none")
    for _, teacher in plan.teachers:
        teacher.need_fit(raw, head.kinds, prepare)
    plan.schedule(plan.optim(nn.Linear(1, 1)), recipe.train.epochs, 100)
    plan.sampler(make_photos(np.zeros((1, 1, 1, 3), dtype=np.uint8), [Face(Path(), "", "")]))
    spec.build_one(recipe.data.copies, COPIES, "data.copies")
    spec.build_one(recipe.model.init, INITS, "model.init")
    make_views(recipe.tta)


def _auto(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return trained_colours(backbone)


def _imagenet(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return IMAGENET


def _half(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _given(backbone: str, images: NDArray[np.uint8] | None, *, mean: Colour, std: Colour) -> tuple[Colour, Colour]:
    """mean and std (red, green, blue) on the 0..1 scale, as given."""
    if min(std) <= 0 or max(*mean, *std) > 1:
        raise RecipeError(f"prepare.normalise: mean={mean}, std={std}; expected numbers in 0..1 (of 255), std above 0")
    return mean, std


def _dataset(backbone: str, images: NDArray[np.uint8] | None) -> tuple[Colour, Colour]:
    if images is None:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # stands in until the training half is known
    mean, (red, green, blue) = dataset_statistics(images)
    return mean, (max(red, 1e-3), max(green, 1e-3), max(blue, 1e-3))  # photos of one colour have no spread


NORMALISES: spec.Table = {"auto": _auto, "imagenet": _imagenet, "half": _half, "dataset": _dataset, "given": _given}
