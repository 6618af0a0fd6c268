"""Optimisers, all timm's, in the names and units recipes use; schedules as shares of each group's own rate.

A schedule counts updates, not epochs, so that warm-up is smooth; `warmup` is a share of the whole training. timm's base
class sets the rates (and honours `lr_scale`); the shapes are closed forms here, because timm's own give all groups one
absolute floor, put steps one update early and no longer keep a plateau.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from threefold.learn.freeze import networks, stages_of
from threefold.spec import need

Betas = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Contract of every row of OPTIMS: made from options, called with a network. timm has it under the class's name.

    lr, head_lr: rate of the backbone and of the head (None: the same). layer_decay: the rate of a block of the backbone
    is scaled by it to the power of the block's distance from the head (Clark et al., "ELECTRA", 2020; BEiT).
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    head_lr: float | None = None
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        need(self.lr > 0, "optim: lr", self.lr, "above 0")
        need(self.weight_decay >= 0, "optim: weight_decay", self.weight_decay, "0 or more")
        need(self.head_lr is None or self.head_lr > 0, "optim: head_lr", self.head_lr, "above 0")
        decay = self.layer_decay
        need(decay is None or 0 < decay <= 1, "optim: layer_decay", decay, "0 < layer_decay <= 1")
        betas, momentum = self.options().get("betas", ()), self.options().get("momentum", 0.0)
        need(all(0 <= beta < 1 for beta in betas), "optim: betas", betas, "0 or more and below 1")
        need(0 <= momentum < 1, "optim: momentum", momentum, "0 or more and below 1")

    def __call__(self, net: nn.Module) -> Optimizer:
        """An optimiser of every parameter, frozen or not (a frozen one may be trained later), by rate and decay.

        Biases and norms are not decayed: timm's own default, and what every published system's library did or should
        have done.
        """
        blocks = [stages_of(network, coarse=False) for network in networks(getattr(net, "backbone", nn.Identity()))]
        depths = {weight: depth for stack in blocks for depth, part in enumerate(stack[::-1], 1) for weight in part}
        groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
        for name, parameter in net.named_parameters():
            decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else self.weight_decay
            rate = self.head_lr or self.lr if name.startswith("head.") else self.lr
            scale = (self.layer_decay or 1.0) ** depths.get(parameter, 0)
            groups.setdefault((decay, rate, scale), []).append(parameter)
        names = ("weight_decay", "lr", "lr_scale")  # timm's schedules honour the last
        rows = [{"params": groups[key], **dict(zip(names, key, strict=True))} for key in sorted(groups)]
        return create_optimizer_v2(rows, opt=type(self).__name__.lower(), **self.options())

    def options(self) -> dict[str, Any]:
        """What the optimiser has beside rates and decay."""
        shared = {field.name for field in fields(Optim)}
        return {name: value for name, value in vars(self).items() if name not in shared}


@dataclass(frozen=True, kw_only=True)
class Adam(Optim):
    """Kingma & Ba, 2015; amsgrad: Reddi et al., 2018."""

    betas: Betas = (0.9, 0.999)
    amsgrad: bool = False


@dataclass(frozen=True, kw_only=True)
class AdamW(Optim):
    """Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019."""

    weight_decay: float = 0.05
    betas: Betas = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class AdamP(Optim):
    """Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers", 2021."""

    weight_decay: float = 0.01
    betas: Betas = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Lion(Optim):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023: AdamW's rate / 10, decay x 10."""

    lr: float = 1e-4
    weight_decay: float = 0.5
    betas: Betas = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Sgd(Optim):
    """Stochastic gradient descent with momentum."""

    lr: float = 1e-2
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True

    def options(self) -> dict[str, Any]:
        """Nesterov's is a kind of momentum."""
        return {"momentum": self.momentum, "nesterov": self.nesterov and self.momentum > 0}


class Schedule(Scheduler):
    """What every row of SCHEDULES makes; the loop calls `step_update` before each update.

    A group's rate is its own times `share(updates since the warm-up)`; before that `warm` updates up from nothing.
    """

    def __init__(self, optimizer: Optimizer, share: Callable[[int], float], warm: int = 0) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.share, self.warm = share, warm

    def _get_lr(self, t: int) -> list[float]:
        share = t / self.warm if t < self.warm else self.share(t - self.warm)
        return [rate * share for rate in self.base_values]

    def step_metric(self, epoch: int, metric: float) -> None:
        """The macro F1 of an epoch (or minus a loss; higher is better); after a resume those before it come again."""


class Plateau(Schedule):
    """A schedule that depends on the metrics alone: the same metrics once more, after a resume, bring it back."""

    def __init__(self, optimizer: Optimizer, warm: int, patience: int, factor: float, floor: float) -> None:
        super().__init__(optimizer, lambda update: self.level, warm)
        self.patience, self.factor, self.floor = patience, factor, floor
        self.metrics: dict[int, float] = {}
        self.level = 1.0

    def step_metric(self, epoch: int, metric: float) -> None:
        """See `Schedule`; an epoch twice is as once."""
        self.metrics[epoch] = metric
        best, waited, cuts = -math.inf, 0, 0
        for _, value in sorted(self.metrics.items()):
            best, waited = (value, 0) if value > best else (best, waited + 1)
            if waited > self.patience:
                cuts, waited = cuts + 1, 0
        self.level = max(self.factor**cuts, self.floor)


def step(
    optimizer: Optimizer, epochs: int, updates: int, *, every: float = 20, gamma: float = 0.5, warmup: float = 0.0
) -> Schedule:
    """Times `gamma` after every `every` epochs, counted from the end of the warm-up."""
    need(every > 0, "schedule: every", every, "epochs above 0")
    need(gamma >= 0, "schedule: gamma", gamma, "0 or more")
    length = max(1, round(every * updates))
    return Schedule(optimizer, lambda update: gamma ** (update // length), _warm(epochs * updates, warmup))


def cosine(optimizer: Optimizer, epochs: int, updates: int, *, warmup: float = 0.0, floor: float = 0.0) -> Schedule:
    """Half a cosine down to `floor` (share of the rate); Loshchilov & Hutter, "SGDR", 2017, without restarts."""
    return cosine_restarts(optimizer, epochs, updates, cycles=1, warmup=warmup, floor=floor)


def cosine_restarts(
    optimizer: Optimizer,
    epochs: int,
    updates: int,
    *,
    cycles: int = 3,
    warmup: float = 0.0,
    decay: float = 1.0,
    floor: float = 0.0,
) -> Schedule:
    """`cycles` equal half cosines, each starting at the rate times `decay` of the last; SGDR, 2017."""
    need(cycles >= 1, "schedule: cycles", cycles, "1 or more")
    need(0 < decay <= 1, "schedule: decay", decay, "0 < decay <= 1")
    need(0 <= floor <= 1, "schedule: floor", floor, "a share of the rate, 0 to 1")
    warm = _warm(epochs * updates, warmup)
    length = max(1, -(-(epochs * updates - warm) // cycles))

    def share(update: int) -> float:
        cycle, within = divmod(update, length)
        if cycle >= cycles:
            return floor
        return floor + (decay**cycle - floor) * (1 + math.cos(math.pi * within / length)) / 2

    return Schedule(optimizer, share, warm)


def plateau(
    optimizer: Optimizer,
    epochs: int,
    updates: int,
    *,
    patience: int = 3,
    factor: float = 0.1,
    floor: float = 0.0,
    warmup: float = 0.0,
) -> Schedule:
    """Times `factor` after more than `patience` epochs without a better metric, down to `floor` (share of the rate).

    As torch's ReduceLROnPlateau with threshold 0.
    """
    need(patience >= 0, "schedule: patience", patience, "epochs of 0 or more")
    need(0 <= factor < 1, "schedule: factor", factor, "0 <= factor < 1")
    need(0 <= floor <= 1, "schedule: floor", floor, "a share of the rate, 0 to 1")
    return Plateau(optimizer, _warm(epochs * updates, warmup), patience, factor, floor)


def _warm(total: int, warmup: float) -> int:
    need(0 <= warmup < 1, "schedule: warmup", warmup, "a share of the training, 0 <= warmup < 1")
    return round(warmup * total)


OPTIMS = {optim.__name__.lower(): optim for optim in (Adam, AdamW, AdamP, Lion, Sgd)}
SCHEDULES = {schedule.__name__: schedule for schedule in (step, cosine, cosine_restarts, plateau)}
