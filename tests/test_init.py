"""Initial values have the distribution their names promise, and touch weights and biases alone."""

import math

import pytest
import torch
from helpers import every
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.init import INITS
from threefold.spec import build_one


def filled(text: str) -> nn.Sequential:
    """A linear layer of 300 x 200, a convolution with fan in 9 * 40 and fan out 9 * 80, a norm; filled."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(40, 80, 3), nn.BatchNorm2d(80), nn.Linear(3, 3, bias=False))
    nn.init.constant_(module[2].weight, 7)
    build_one(text, INITS, "model.init")(module)
    return module.requires_grad_(False)


@pytest.mark.parametrize("text", every(INITS))
def test_norms_stay_and_biases_are_nought(text: str) -> None:
    module = filled(text)
    assert (module[2].weight == 7).all()
    assert (text == "default") == bool(module[0].bias.any()) == bool(module[1].bias.any())


def test_default_leaves_everything() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(300, 200)
    assert torch.equal(filled("default")[0].weight, expected.weight)
    assert not torch.equal(filled("normal")[0].weight, expected.weight)


@pytest.mark.parametrize(
    ("text", "linear", "convolution"),
    [("normal", 0.01, math.sqrt(2 / (360 + 720))), ("normal(std=0.5)", 0.5, math.sqrt(2 / (360 + 720)))],
)
def test_spread_is_the_papers(text: str, linear: float, convolution: float) -> None:
    module = filled(text)
    assert float(module[0].weight.std()) == pytest.approx(linear, rel=0.02)
    assert float(module[1].weight.std()) == pytest.approx(convolution, rel=0.02)
    assert abs(float(module[0].weight.mean())) < 0.02 * linear


def test_convolutions_are_uniform_and_linear_layers_are_not() -> None:
    for layer, flat in zip(filled("normal")[:2], (False, True), strict=True):
        assert (float(layer.weight.abs().max() / layer.weight.std()) < math.sqrt(3) * 1.02) == flat


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match="std cannot be 0"):
        filled("normal(std=0)")
