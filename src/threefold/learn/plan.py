"""From a recipe to the things training needs: every component is checked here, before any photo is read.

`Plan` keeps what a recipe's strings gave, as objects where they are made once, and bound to their options where each
fold makes its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from threefold import spec
from threefold.data.face import Face
from threefold.errors import RecipeError, one_of
from threefold.learn.augment import Augment, make_augment
from threefold.learn.backbones import IMAGENET, trained_colours
from threefold.learn.classical import CLASSICAL, Classical
from threefold.learn.copies import COPIES
from threefold.learn.distil import Teacher, make_teachers
from threefold.learn.freeze import FREEZES, Freeze
from threefold.learn.heads import HEADS, Head
from threefold.learn.loader import Photos, make_photos
from threefold.learn.losses import LOSSES, Loss, Losses
from threefold.learn.memory import keep_memory
from threefold.learn.mixing import MIXES, Mix, chain
from threefold.learn.net import Net, bind_net
from threefold.learn.optim import OPTIMS, SCHEDULES, Schedule
from threefold.learn.samplers import SAMPLERS, Sampler
from threefold.photos.prepare import Colour, Prepare, dataset_statistics, parse_size
from threefold.recipe import Recipe
from threefold.spec import need

Images = NDArray[np.uint8] | None
Colours = tuple[Colour, Colour]
BoundLosses = dict[str, list[tuple[float, Callable[[Tensor], Loss]]]]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: dict[str, Precision | None] = {"auto": None} | {name: name for name in get_args(Precision)}
FITTING = {"steps": "bce", "value": "l1"}
"""The loss of an output that is no softmax, where the recipe names none."""


@dataclass(frozen=True)
class Patience:
    """Stop after `epochs` epochs without a better value of `on` (macro_f1 of the validation fold, or its loss)."""

    epochs: float = float("inf")
    on: Literal["macro_f1", "loss"] = "macro_f1"

    def __post_init__(self) -> None:
        need(self.epochs >= 1, "train.early_stop: patience", self.epochs, "epochs of 1 or more")


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
        need(self.top >= 1, "train.keep: top", self.top, "1 or more epochs")


def best() -> Keep:
    """The weights of the epoch with the highest macro F1."""
    return Keep()


def last() -> Keep:
    """The weights of the last epoch."""
    return Keep(last=True)


def average(top: int = 3) -> Keep:
    """The mean of the weights of the `top` best epochs."""
    return Keep(top)


KEEPS: spec.Table = {"best": best, "last": last, "average": average}


@dataclass(frozen=True)
class Plan:
    """Everything of a recipe that training needs, checked once; what every fold makes anew is bound to its options.

    prepare: as of photos of no fold (see `make_prepare`). make_net: an untrained network for a Prepare. sampler:
    the order of the photos of a training half. losses: by output, made from class counts. optim: an optimiser for a
    network. schedule: learning rates for (optimiser, epochs, updates of an epoch).
    """

    recipe: Recipe
    epochs: int
    prepare: Prepare
    make_net: Callable[[Prepare], Net]
    augment: Augment
    mix: Mix
    sampler: Callable[[Photos], Sampler]
    losses: BoundLosses
    freeze: Freeze
    keep: Keep
    optim: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int, int], Schedule]
    stop: Patience
    teachers: list[tuple[float, Teacher]]
    fabric: Fabric

    def make_losses(self, counts: dict[str, Tensor]) -> Losses:
        """The losses of a training half; counts: photos per class of each output, for those that weight by them."""
        return {name: [(weight, make(counts[name])) for weight, make in self.losses[name]] for name in counts}


def make_plan(recipe: Recipe) -> Plan:
    """Check every component of a recipe; raises RecipeError naming the key, the value and the nearest valid one."""
    train, model = recipe.train, recipe.model
    head: Head = spec.build_one(model.head, {**HEADS, **CLASSICAL}, "model.head", 24)  # features enough for any split
    with torch.no_grad():
        raw = head.eval().outputs(torch.zeros(2, 24))
    prepare, teachers = make_prepare(recipe), make_teachers(train.distil)
    if teachers and isinstance(head, Classical):
        raise RecipeError(f"train.distil: {model.head} is fitted to labels only; expected none")
    for _, teacher in teachers:
        teacher.need_fit(raw, head.kinds, prepare)
    plan = Plan(
        recipe=recipe,
        epochs=train.epochs,
        prepare=prepare,
        make_net=bind_net(model.backbone, model.head, pretrained=model.pretrained, init=model.init, tta=recipe.tta),
        augment=make_augment(train.augment),
        mix=chain(spec.build_chain(train.mix, MIXES, "train.mix")),
        sampler=spec.bind_one(train.sampler, SAMPLERS, "train.sampler", 1),
        losses=bind_losses(recipe, {name: part.shape[1] for name, part in raw.items()}, head.kinds),
        freeze=spec.build_one(train.freeze, FREEZES, "train.freeze"),
        keep=spec.build_one(train.keep, KEEPS, "train.keep"),
        optim=spec.build_one(recipe.optim, OPTIMS, "optim"),
        schedule=spec.bind_one(recipe.schedule, SCHEDULES, "schedule", 3),
        stop=spec.build_one(train.early_stop, STOPS, "train.early_stop"),
        teachers=teachers,
        fabric=make_fabric(train.device, train.precision),
    )
    # made on a toy: what a fold makes only after the photos were read may refuse an option as well
    plan.schedule(plan.optim(nn.Linear(1, 1)), train.epochs, 100)
    plan.sampler(make_photos(np.zeros((1, 1, 1, 3), dtype=np.uint8), [Face(Path(), "", "")]))
    spec.build_one(recipe.data.copies, COPIES, "data.copies")
    return plan


def bind_losses(recipe: Recipe, sizes: dict[str, int], kinds: dict[str, str]) -> BoundLosses:
    """Losses by output name, to be made from class counts; sizes: raw numbers of each output.

    What stands before a dot in an output's name is its recipe key (`age.male` is trained with `loss.age`). Raises
    RecipeError for a loss that does not fit what the output is (`kinds`) and for one that no output has a use for.
    """
    bound: BoundLosses = {}
    head = recipe.model.head
    texts = {key: text for key, text in recipe.loss.model_dump().items() if text and key != "default"}
    for name, size in sizes.items():
        key, kind = name.partition(".")[0], kinds.get(name, "classes")
        text = texts.get(key) or FITTING.get(kind) or recipe.loss.default
        where = f"loss.{key if key in texts else 'default'}"
        bound[name] = spec.bind(text, LOSSES, where, 1)
        losses = [make(torch.ones(size)) for _, make in bound[name]]
        if any(kind not in getattr(loss, "kinds", {"classes"}) for loss in losses):
            fit = ", ".join(key for key, loss in LOSSES.items() if kind in getattr(loss, "kinds", {"classes"}))
            raise RecipeError(f"{where}: {text} does not fit the output {name} of {head} (those do: {fit})")
    outputs = {name.partition(".")[0] for name in sizes}
    for key in sorted(texts.keys() - outputs):
        raise RecipeError(f"loss.{key}: {head} has no such output ({one_of(outputs, key)})")
    return bound


def make_fabric(device: str, precision: str) -> Fabric:
    """Where and in which precision to compute: `auto` is a GPU with bf16 where there is one, else the CPU, 32 bits.

    Where it is the CPU, this process keeps the memory it frees (memory.py).
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    devices = {"auto": True, "cpu": True, "cuda": cuda, "mps": mps}
    if device not in devices:
        raise RecipeError(f"train.device: {device!r} is not one of {', '.join(devices)}")
    if not devices[device]:
        missing = f"this machine has no {device.upper()} device"
        raise RecipeError(f"train.device: {device} is asked for and {missing}; expected auto or cpu")
    if device == "auto":  # mps only on request: several timm ops are missing there
        device = "cuda" if cuda else "cpu"
    if device == "cpu":
        keep_memory()
    if precision not in PRECISIONS or (device == "cpu" and precision == "16-mixed"):
        names = ", ".join(PRECISIONS)
        raise RecipeError(f"train.precision: {precision!r} is not one of {names} (16-mixed not on a CPU)")
    automatic: Precision = "bf16-mixed" if device == "cuda" else "32-true"
    return Fabric(accelerator=device, devices=1, precision=PRECISIONS[precision] or automatic)


def make_prepare(recipe: Recipe, images: Images = None) -> Prepare:
    """The preprocessing of a recipe. images [n, H, W, 3]: a training half, for `prepare.normalise: dataset`."""
    keys = recipe.prepare
    mean, std = spec.build_one(keys.normalise, NORMALISES, "prepare.normalise", recipe.model.backbone, images)
    return Prepare(keys.crop, parse_size(keys.size), keys.interpolation, mean, std, keys.background)


def auto(backbone: str, images: Images) -> Colours:
    """As the backbone's published weights were trained."""
    return trained_colours(backbone)


def imagenet(backbone: str, images: Images) -> Colours:
    """ImageNet's mean and std."""
    return IMAGENET


def half(backbone: str, images: Images) -> Colours:
    """From -1 to 1: mean and std 0.5."""
    return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def constants(backbone: str, images: Images, *, mean: Colour, std: Colour) -> Colours:
    """mean and std (red, green, blue) on the 0..1 scale, as given."""
    if min(std) <= 0 or max(*mean, *std) > 1:
        raise RecipeError(f"prepare.normalise: mean={mean}, std={std}; expected numbers in 0..1 (of 255), std above 0")
    return mean, std


def dataset(backbone: str, images: Images) -> Colours:
    """Mean and std of the training half of each fold."""
    if images is None:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # stands in until the training half is known
    mean, (red, green, blue) = dataset_statistics(images)
    return mean, (max(red, 1e-3), max(green, 1e-3), max(blue, 1e-3))  # photos of one colour have no spread


NORMALISES: spec.Table = {"auto": auto, "imagenet": imagenet, "half": half, "dataset": dataset, "given": constants}
