"""Initial values of layers that no published weights fill: `factory(**options) -> (module) -> None`, in place.

Weights of every linear layer and convolution in the module are drawn from torch's global generator and their biases
are set to 0; norms, embeddings and other parameters keep what their layers gave them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from threefold.errors import RecipeError

Init = Callable[[nn.Module], None]


def default() -> Init:
    """What the layers drew when they were made: torch's and timm's own choice."""
    return lambda module: None


def normal(*, std: float = 0.01) -> Init:
    """Linear layers N(0, std^2), convolutions as in `xavier`; what a published system of the contest gave its head."""
    if std <= 0:
        raise RecipeError(f"model.init: std cannot be {std}; expected above 0")
    return _fill(partial(nn.init.normal_, std=std), nn.init.xavier_uniform_)


def xavier() -> Init:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)); Glorot & Bengio, 2010."""
    return _fill(nn.init.xavier_uniform_, nn.init.xavier_uniform_)


def kaiming() -> Init:
    """N(0, 2 / fan_in): keeps the variance through ReLUs; He et al., "Delving Deep into Rectifiers", 2015."""
    draw = partial(nn.init.kaiming_normal_, nonlinearity="relu")
    return _fill(draw, draw)


def orthogonal() -> Init:
    """Orthonormal rows or columns, whichever are fewer; Saxe et al., 2014."""
    return _fill(nn.init.orthogonal_, nn.init.orthogonal_)


def _fill(linear: Callable[[Tensor], object], convolution: Callable[[Tensor], object]) -> Init:
    def fill(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.Linear | _ConvNd):
                (linear if isinstance(layer, nn.Linear) else convolution)(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    return fill


INITS: dict[str, Callable[..., Init]] = {
    "default": default,
    "normal": normal,
    "xavier": xavier,
    "kaiming": kaiming,
    "orthogonal": orthogonal,
}
