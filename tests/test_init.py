"""Initial values have the distribution their names promise, and touch weights and biases alone."""

import math

import pytest
import torch
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.init import INITS
from threefold.spec import build_one


def made(text: str) -> nn.Sequential:
    """A linear layer of 300 x 200, a convolution with fan in 9 * 40 and fan out 9 * 80, a norm; filled."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(40, 80, 3), nn.BatchNorm2d(80), nn.Linear(3, 3, bias=False))
    nn.init.constant_(module[2].weight, 7)
    build_one(text, INITS, "model.init")(module)
    return module.requires_grad_(False)


@pytest.mark.parametrize("text", INITS)
def test_norms_stay_and_biases_are_nought(text: str) -> None:
    module = made(text)
    assert (module[2].weight == 7).all()
    assert (text == "default") == bool(module[0].bias.any()) == bool(module[1].bias.any())


def test_default_leaves_everything() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(300, 200)
    assert torch.equal(made("default")[0].weight, expected.weight)
    assert not torch.equal(made("xavier")[0].weight, expected.weight)


@pytest.mark.parametrize(
    ("text", "linear", "convolution"),
    [
        ("normal", 0.01, math.sqrt(2 / (360 + 720))),
        ("normal(std=0.5)", 0.5, math.sqrt(2 / (360 + 720))),
        ("xavier", math.sqrt(2 / (300 + 200)), math.sqrt(2 / (360 + 720))),
        ("kaiming", math.sqrt(2 / 300), math.sqrt(2 / 360)),
    ],
)
def test_spread_is_the_papers(text: str, linear: float, convolution: float) -> None:
    module = made(text)
    assert float(module[0].weight.std()) == pytest.approx(linear, rel=0.02)
    assert float(module[1].weight.std()) == pytest.approx(convolution, rel=0.02)
    assert abs(float(module[0].weight.mean())) < 0.02 * linear


def test_xavier_is_uniform_and_normal_is_not() -> None:
    for text, flat in (("xavier", True), ("normal", False)):
        weight = made(text)[0].weight
        assert (float(weight.abs().max() / weight.std()) < math.sqrt(3) * 1.02) == flat


def test_orthogonal_has_orthonormal_rows() -> None:
    module = made("orthogonal")
    for weight in (module[0].weight, module[1].weight.flatten(1)):
        assert torch.allclose(weight @ weight.T, torch.eye(len(weight)), atol=1e-5)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match="std cannot be 0"):
        made("normal(std=0)")
