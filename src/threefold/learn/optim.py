"""Optimisers and schedules, all timm's: rows here only give them the names and units recipes use.

A schedule counts updates, not epochs, so that warm-up is smooth; `warmup` is a share of the whole training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.step_lr import StepLRScheduler
from torch import nn
from torch.optim import Optimizer

from threefold.errors import RecipeError


class Schedule(Protocol):
    """What the loop calls before update number `num_updates`."""

    def step_update(self, num_updates: int) -> object:
        """Set the learning rates."""


def adam(net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.0, amsgrad: bool = False) -> Optimizer:
    """Kingma & Ba, 2015; amsgrad: Reddi et al., 2018."""
    return _timm(net, "adam", lr, weight_decay, amsgrad=amsgrad)


def adamw(net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.05) -> Optimizer:
    """Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019."""
    return _timm(net, "adamw", lr, weight_decay)


def adamp(net: nn.Module, *, lr: float = 1e-3, weight_decay: float = 0.01) -> Optimizer:
    """Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers", 2021."""
    return _timm(net, "adamp", lr, weight_decay)


def sgd(
    net: nn.Module, *, lr: float = 1e-2, weight_decay: float = 5e-4, momentum: float = 0.9, nesterov: bool = True
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    kind = "nesterov" if nesterov and momentum > 0 else "momentum"
    return _timm(net, kind, lr, weight_decay, momentum=momentum)


def constant(optimizer: Optimizer, epochs: int, updates: int, *, warmup: float = 0.0) -> Scheduler:
    """The same rate throughout, after the warm-up."""
    return step(optimizer, epochs, updates, every=epochs + 1, gamma=1.0, warmup=warmup)


def step(
    optimizer: Optimizer, epochs: int, updates: int, *, every: float = 20, gamma: float = 0.5, warmup: float = 0.0
) -> Scheduler:
    """Times `gamma` after every `every` epochs."""
    if every <= 0:
        raise RecipeError(f"schedule: every cannot be {every}; expected epochs above 0")
    return StepLRScheduler(
        optimizer,
        decay_t=max(1, round(every * updates)),
        decay_rate=gamma,
        t_in_epochs=False,
        **_warm(epochs * updates, warmup),
    )


def cosine(optimizer: Optimizer, epochs: int, updates: int, *, warmup: float = 0.0, floor: float = 0.0) -> Scheduler:
    """Half a cosine down to `floor` (share of the rate); Loshchilov & Hutter, "SGDR", 2017, without restarts."""
    return cosine_restarts(optimizer, epochs, updates, cycles=1, warmup=warmup, floor=floor)


def cosine_restarts(
    optimizer: Optimizer, epochs: int, updates: int, *, cycles: int = 3, warmup: float = 0.0, decay: float = 1.0,
    floor: float = 0.0,
) -> Scheduler:  # fmt: skip
    """`cycles` equal half cosines, each starting at the rate times `decay` of the last; SGDR, 2017."""
    if cycles < 1:
        raise RecipeError(f"schedule: cycles cannot be {cycles}; expected 1 or more")
    total = epochs * updates
    rate = max(group["lr"] for group in optimizer.param_groups)
    warm = _warm(total, warmup)
    return CosineLRScheduler(
        optimizer, t_initial=max(1, -(-(total - warm["warmup_t"]) // cycles)), lr_min=floor * rate, cycle_limit=cycles,
        cycle_decay=decay, t_in_epochs=False, warmup_prefix=True, **warm,
    )  # fmt: skip


def _timm(net: nn.Module, name: str, lr: float, weight_decay: float, **options: Any) -> Optimizer:
    # biases and norms are not decayed: timm's own default, and what every published system's library did or should have
    if lr <= 0 or weight_decay < 0:
        raise RecipeError(
            f"optim: lr={lr}, weight_decay={weight_decay}; expected lr above 0, weight_decay of 0 or more"
        )
    return create_optimizer_v2(net, opt=name, lr=lr, weight_decay=weight_decay, **options)


def _warm(total: int, warmup: float) -> dict[str, Any]:
    if not 0 <= warmup < 1:
        raise RecipeError(f"schedule: warmup cannot be {warmup}; expected a share of the training, 0 <= warmup < 1")
    return {"warmup_t": round(warmup * total), "warmup_lr_init": 0.0}


OPTIMS: dict[str, Callable[..., Optimizer]] = {"adam": adam, "adamw": adamw, "adamp": adamp, "sgd": sgd}
SCHEDULES: dict[str, Callable[..., Scheduler]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}
