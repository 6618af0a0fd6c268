"""The contract of losses for every row, and each against an independent definition."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from threefold.errors import RecipeError
from threefold.learn.losses import LOSSES, Focal, Loss
from threefold.spec import build_one

COUNTS = torch.tensor([60.0, 30.0, 10.0])
SPECS = [*LOSSES, "ce(weight=inverse)", "ce(weight=[1,2,3], smoothing=0.1)", "focal(gamma=0.5, weight=inverse)"]


def loss(text: str, counts: torch.Tensor = COUNTS) -> Loss:
    made: Loss = build_one(text, LOSSES, "loss.default", counts)
    return made


def soft(count: int = 16, classes: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(count, classes).softmax(1)


@pytest.fixture(params=SPECS)
def each(request: pytest.FixtureRequest) -> Loss:
    return loss(request.param)


def test_scalar_finite_and_never_negative(each: Loss) -> None:
    for scale in (0.0, 1.0, 60.0):
        raw = (torch.randn(16, 3) * scale).requires_grad_()
        value = each(raw, soft(), torch.ones(16))
        value.backward()
        assert value.shape == () and value >= 0 and torch.isfinite(value)
        assert raw.grad is not None and torch.isfinite(raw.grad).all()


def test_weight_nought_is_as_if_the_photo_were_not_looked_at(each: Loss) -> None:
    raw = torch.randn(4, 3, requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 1.0, 0.0])
    target = soft(4)
    value = each(raw, target, weight)
    value.backward()
    assert raw.grad is not None and (raw.grad[[1, 3]] == 0).all() and (raw.grad[[0, 2]] != 0).any()
    changed = each(raw.detach() + torch.tensor([[0.0], [5.0], [0.0], [9.0]]) * torch.randn(4, 3), target, weight)
    assert torch.allclose(changed, value)


def test_weight_scales_linearly(each: Loss) -> None:
    raw, target = torch.randn(4, 3), soft(4)
    assert torch.allclose(each(raw, target, torch.full((4,), 0.25)), each(raw, target, torch.ones(4)) / 4)


def test_right_and_sure_costs_less_than_wrong_and_sure(each: Loss) -> None:
    target = torch.eye(3)
    assert each(8 * target, target, torch.ones(3)) < each(8 * target.roll(1, 1), target, torch.ones(3))


def test_cross_entropy_is_torchs() -> None:
    raw, codes = torch.randn(16, 3), torch.arange(16) % 3
    hard = F.one_hot(codes, 3).float()
    ones = torch.ones(16)
    assert torch.allclose(loss("ce")(raw, hard, ones), F.cross_entropy(raw, codes))
    assert torch.allclose(loss("ce")(raw, soft(), ones), F.cross_entropy(raw, soft()))
    smooth = loss("ce(smoothing=0.2)")(raw, hard, ones)
    assert torch.allclose(smooth, F.cross_entropy(raw, codes, label_smoothing=0.2))
    weighted = loss("ce(weight=[1,2,3])")(raw, soft(), ones)
    assert torch.allclose(weighted, F.cross_entropy(raw, soft(), weight=torch.tensor([1.0, 2.0, 3.0])))


def test_smoothing_really_smooths() -> None:
    """The contest baseline's label smoothing had a default of 0 and did nothing."""
    sure = torch.eye(3) * 30
    assert loss("ce(smoothing=0.1)")(sure, torch.eye(3), torch.ones(3)) > 1.0
    assert loss("ce")(sure, torch.eye(3), torch.ones(3)) < 1e-6


def test_inverse_weights_average_one_over_the_training_photos() -> None:
    made = loss("ce(weight=inverse)")
    weights = made.weight  # type: ignore[attr-defined]
    assert torch.allclose(weights, 100 / (3 * COUNTS))
    assert math.isclose(float((weights * COUNTS).sum() / COUNTS.sum()), 1.0, rel_tol=1e-6)
    assert loss("ce(weight=inverse)", torch.tensor([5.0, 0.0])).weight.tolist() == [0.5, 0.0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula(gamma: float) -> None:
    raw, codes = torch.randn(16, 3, dtype=torch.float64), torch.arange(16) % 3
    found = Focal(COUNTS, gamma=gamma)(raw, F.one_hot(codes, 3).double(), torch.ones(16, dtype=torch.float64))
    naive = 0.0
    for row, code in enumerate(codes):
        p = math.exp(raw[row, code]) / sum(math.exp(value) for value in raw[row])
        naive += -((1 - p) ** gamma) * math.log(p) / 16
    assert math.isclose(float(found), naive, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ce(smoothing=1.0)", "smoothing cannot be 1.0"),
        ("ce(weight=[1,2])", "expected 3 numbers"),
        ("ce(weight=[1,2,-3])", "expected 3 numbers"),
        ("ce(weight=invers)", r"ce\(weight=\.\.\.\) cannot be 'invers'"),
        ("focal(gamma=-1)", "gamma cannot be -1"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        loss(text)
