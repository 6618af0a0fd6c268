"""Optimisers, all timm's, in the names and units recipes use; schedules as shares of each group's own rate.

A schedule counts updates, not epochs, so that warm-up is smooth; `warmup` is a share of the whole training. timm's base
class sets the rates (and honours `lr_scale`); the shapes are closed forms here, because timm's own give all groups one
absolute floor, put steps one update early and no longer keep a plateau.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Protocol

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from threefold.errors import RecipeError
from threefold.learn.freeze import networks, stages_of

Betas = tuple[float, float]


class Schedule(Protocol):
    """What the loop calls before update number `num_updates`, and after each validated epoch."""

    def step_update(self, num_updates: int) -> object:
        """Set the learning rates."""

    def step_metric(self, epoch: int, metric: float) -> object:
        """What `epoch` was worth (macro F1; higher is better); told again for all earlier epochs after a resume."""


def adam(
    net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.0, betas: Betas = (0.9, 0.999), amsgrad: bool = False,
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Kingma & Ba, 2015; amsgrad: Reddi et al., 2018."""
    return _timm(net, "adam", lr, weight_decay, head_lr, layer_decay, betas=betas, amsgrad=amsgrad)


def adamw(
    net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.05, betas: Betas = (0.9, 0.999),
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019."""
    return _timm(net, "adamw", lr, weight_decay, head_lr, layer_decay, betas=betas)


def adamp(
    net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.01, betas: Betas = (0.9, 0.999),
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers", 2021."""
    return _timm(net, "adamp", lr, weight_decay, head_lr, layer_decay, betas=betas)


def radam(
    net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.0, betas: Betas = (0.9, 0.999),
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020."""
    return _timm(net, "radam", lr, weight_decay, head_lr, layer_decay, betas=betas)


def lion(
    net: nn.Module, *, lr: float = 1e-4, weight_decay: float = 0.5, betas: Betas = (0.9, 0.99),
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023: AdamW's rate / 10, decay x 10."""
    return _timm(net, "lion", lr, weight_decay, head_lr, layer_decay, betas=betas)


def madgrad(
    net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.9,
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Defazio & Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Method", 2022."""
    return _timm(net, "madgrad", lr, weight_decay, head_lr, layer_decay, momentum=momentum)


def sgd(
    net: nn.Module, *, lr: float = 1e-2, weight_decay: float = 5e-4, momentum: float = 0.9, nesterov: bool = True,
    head_lr: float | None = None, layer_decay: float | None = None,
) -> Optimizer:  # fmt: skip
    """Stochastic gradient descent with momentum."""
    kind = "nesterov" if nesterov and momentum > 0 else "momentum"
    return _timm(net, kind, lr, weight_decay, head_lr, layer_decay, momentum=momentum)


def _timm(
    net: nn.Module, name: str, lr: float, weight_decay: float, head_lr: float | None, layer_decay: float | None,
    **options: Any,
) -> Optimizer:  # fmt: skip
    _need(lr > 0, "optim", "lr", lr, "above 0")
    _need(weight_decay >= 0, "optim", "weight_decay", weight_decay, "0 or more")
    _need(head_lr is None or head_lr > 0, "optim", "head_lr", head_lr, "above 0")
    _need(layer_decay is None or 0 < layer_decay <= 1, "optim", "layer_decay", layer_decay, "0 < layer_decay <= 1")
    for key in {"betas", "momentum"} & set(options):
        values = options[key] if key == "betas" else (options[key],)
        _need(all(0 <= value < 1 for value in values), "optim", key, options[key], "0 or more and below 1")
    return create_optimizer_v2(_groups(net, lr, weight_decay, head_lr or lr, layer_decay or 1.0), opt=name, **options)


def _groups(net: nn.Module, lr: float, weight_decay: float, head_lr: float, layer_decay: float) -> list[dict[str, Any]]:
    """Every parameter of `net`, frozen or not (a frozen one may be trained later), by rate, scale and decay.

    Biases and norms are not decayed: timm's own default, and what every published system's library did or should have.
    With `layer_decay` the rate of a block of the backbone is scaled by `layer_decay` to the power of its distance from
    the head (Clark et al., "ELECTRA", 2020; BEiT); `lr_scale` is timm's word that its schedules honour.
    """
    blocks = [stages_of(network, coarse=False) for network in networks(getattr(net, "backbone", nn.Identity()))]
    below = {parameter: depth for own in blocks for depth, part in enumerate(own[::-1], 1) for parameter in part}
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        decay = 0.0 if parameter.ndim <= 1 or name.endswith(".bias") else weight_decay
        rate = head_lr if name.startswith("head.") else lr
        groups.setdefault((decay, rate, layer_decay ** below.get(parameter, 0)), []).append(parameter)
    return [{"params": groups[key], "weight_decay": key[0], "lr": key[1], "lr_scale": key[2]} for key in sorted(groups)]


class Curve(Scheduler):
    """Each group's own rate times `share(updates since the warm-up)`; before that `warm` updates up from nothing."""

    def __init__(self, optimizer: Optimizer, share: Callable[[int], float], warm: int = 0) -> None:
        super().__init__(optimizer, "lr", t_in_epochs=False)
        self.share, self.warm = share, warm

    def _get_lr(self, t: int) -> list[float]:
        share = t / self.warm if t < self.warm else self.share(t - self.warm)
        return [rate * share for rate in self.base_values]

    def step_metric(self, epoch: int, metric: float) -> None:
        """Curves but `plateau` do not look at it."""


class Plateau(Curve):
    """A curve that depends on nothing but the metrics told, so telling them again brings it back after a resume."""

    def __init__(self, optimizer: Optimizer, warm: int, patience: int, factor: float, floor: float) -> None:
        super().__init__(optimizer, lambda update: self.level, warm)
        self.patience, self.factor, self.floor = patience, factor, floor
        self.metrics: dict[int, float] = {}
        self.level = 1.0

    def step_metric(self, epoch: int, metric: float) -> None:
        """See `Schedule`; telling an epoch twice is as telling it once."""
        self.metrics[epoch] = metric
        best, waited, cuts = -math.inf, 0, 0
        for _, value in sorted(self.metrics.items()):
            best, waited = (value, 0) if value > best else (best, waited + 1)
            if waited > self.patience:
                cuts, waited = cuts + 1, 0
        self.level = max(self.factor**cuts, self.floor)


def constant(optimizer: Optimizer, epochs: int, updates: int, *, warmup: float = 0.0) -> Curve:
    """The same rate throughout, after the warm-up."""
    return Curve(optimizer, lambda update: 1.0, _warm(epochs * updates, warmup))


def step(
    optimizer: Optimizer, epochs: int, updates: int, *, every: float = 20, gamma: float = 0.5, warmup: float = 0.0
) -> Curve:
    """Times `gamma` after every `every` epochs, counted from the end of the warm-up."""
    _need(every > 0, "schedule", "every", every, "epochs above 0")
    _need(gamma >= 0, "schedule", "gamma", gamma, "0 or more")
    length = max(1, round(every * updates))
    return Curve(optimizer, lambda update: gamma ** (update // length), _warm(epochs * updates, warmup))


def multistep(
    optimizer: Optimizer, epochs: int, updates: int, *, at: list[float] | None = None, gamma: float = 0.1,
    warmup: float = 0.0,
) -> Curve:  # fmt: skip
    """Times `gamma` when `at` epochs are done, those of the warm-up included; default: 1/2 and 3/4 of all."""
    marks = [epochs / 2, epochs * 3 / 4] if at is None else at
    _need(bool(marks) and min(marks) > 0, "schedule", "at", at, "epochs above 0, such as [5,8]")
    _need(gamma >= 0, "schedule", "gamma", gamma, "0 or more")
    warm, bounds = _warm(epochs * updates, warmup), sorted(round(mark * updates) for mark in marks)
    return Curve(optimizer, lambda update: gamma ** bisect_right(bounds, update + warm), warm)


def cosine(optimizer: Optimizer, epochs: int, updates: int, *, warmup: float = 0.0, floor: float = 0.0) -> Curve:
    """Half a cosine down to `floor` (share of the rate); Loshchilov & Hutter, "SGDR", 2017, without restarts."""
    return cosine_restarts(optimizer, epochs, updates, cycles=1, warmup=warmup, floor=floor)


def cosine_restarts(
    optimizer: Optimizer, epochs: int, updates: int, *, cycles: int = 3, warmup: float = 0.0, decay: float = 1.0,
    floor: float = 0.0,
) -> Curve:  # fmt: skip
    """`cycles` equal half cosines, each starting at the rate times `decay` of the last; SGDR, 2017."""
    _need(cycles >= 1, "schedule", "cycles", cycles, "1 or more")
    _need(0 < decay <= 1, "schedule", "decay", decay, "0 < decay <= 1")
    _need(0 <= floor <= 1, "schedule", "floor", floor, "a share of the rate, 0 to 1")
    warm = _warm(epochs * updates, warmup)
    length = max(1, -(-(epochs * updates - warm) // cycles))

    def share(update: int) -> float:
        cycle, within = divmod(update, length)
        return _half_cosine(decay**cycle, floor, within / length) if cycle < cycles else floor

    return Curve(optimizer, share, warm)


def onecycle(
    optimizer: Optimizer, epochs: int, updates: int, *, peak: float = 0.3, div: float = 25.0, final_div: float = 1e4
) -> Curve:
    """Up from rate / div to the rate at the share `peak` of the training, down to rate / (div final_div).

    Smith & Topin, "Super-Convergence", 2018, in half cosines as torch's OneCycleLR. Momentum stays as it is (torch's
    cycles it unless told not to). It has its own warm-up.
    """
    _need(0 <= peak <= 1, "schedule", "peak", peak, "a share of the training, 0 to 1")
    _need(min(div, final_div) >= 1, "schedule", "div, final_div", (div, final_div), "1 or more")
    last = epochs * updates - 1
    top = max(0.0, peak * (last + 1) - 1)

    def share(update: int) -> float:
        if update < top:
            return _half_cosine(1 / div, 1.0, update / top)
        return _half_cosine(1.0, 1 / (div * final_div), min(1.0, (update - top) / max(last - top, 1e-9)))

    return Curve(optimizer, share)


def plateau(
    optimizer: Optimizer, epochs: int, updates: int, *, patience: int = 3, factor: float = 0.1, floor: float = 0.0,
    warmup: float = 0.0,
) -> Curve:  # fmt: skip
    """Times `factor` after more than `patience` epochs without a better metric, down to `floor` (share of the rate).

    As torch's ReduceLROnPlateau with threshold 0.
    """
    _need(patience >= 0, "schedule", "patience", patience, "epochs of 0 or more")
    _need(0 <= factor < 1, "schedule", "factor", factor, "0 <= factor < 1")
    _need(0 <= floor <= 1, "schedule", "floor", floor, "a share of the rate, 0 to 1")
    return Plateau(optimizer, _warm(epochs * updates, warmup), patience, factor, floor)


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _warm(total: int, warmup: float) -> int:
    _need(0 <= warmup < 1, "schedule", "warmup", warmup, "a share of the training, 0 <= warmup < 1")
    return round(warmup * total)


def _need(fine: bool, key: str, option: str, value: object, expected: str) -> None:
    if not fine:
        raise RecipeError(f"{key}: {option} cannot be {value}; expected {expected}")


OPTIMS: dict[str, Callable[..., Optimizer]] = {
    "adam": adam, "adamw": adamw, "adamp": adamp, "radam": radam, "lion": lion, "madgrad": madgrad, "sgd": sgd,
}  # fmt: skip
SCHEDULES: dict[str, Callable[..., Curve]] = {
    "constant": constant, "step": step, "multistep": multistep, "cosine": cosine, "cosine_restarts": cosine_restarts,
    "onecycle": onecycle, "plateau": plateau,
}  # fmt: skip
