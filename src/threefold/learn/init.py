"""Initial values of layers that no published weights fill: `factory(**options) -> (module) -> None`, in place.

Weights of every linear layer and convolution in the module are drawn from torch's global generator and their biases
are set to 0; norms, embeddings and other parameters keep what their layers gave them.
"""

from collections.abc import Callable

from torch import nn
from torch.nn.modules.conv import _ConvNd

from threefold.spec import need

Init = Callable[[nn.Module], None]


def default() -> Init:
    """What the layers drew when they were made: torch's and timm's own choice."""
    return lambda module: None


def normal(*, std: float = 0.01) -> Init:
    """Linear layers N(0, std^2), convolutions U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio, 2010).

    What a published system of the contest gave its head.
    """
    need(std > 0, "model.init: std", std, "above 0")

    def fill(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=std)
            elif isinstance(layer, _ConvNd):
                nn.init.xavier_uniform_(layer.weight)
            else:
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    return fill


INITS: dict[str, Callable[..., Init]] = {"default": default, "normal": normal}
