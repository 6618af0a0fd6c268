"""The contract of heads, for every row of the table; then what each promises of its own."""

import numpy as np
import pytest
import torch

from threefold.errors import RecipeError
from threefold.learn.heads import HEADS, Flat18, Head
from threefold.learn.loop import total_loss
from threefold.learn.losses import CrossEntropy
from threefold.learn.target import make_target, mix
from threefold.spec import build_one

SPECS = [*HEADS, "multi(hidden=[16, 8], dropout=0.5)", "flat18(hidden=[16], dropout=0.1)"]
FEATURES = 12


def head(text: str) -> Head:
    torch.manual_seed(0)
    made = build_one(text, HEADS, "model.head", FEATURES)
    assert isinstance(made, Head)
    return made


def target(count: int = 64):
    rng = np.random.default_rng(0)
    parts = np.stack([rng.integers(-1, size, count) for size in (3, 2, 3)], axis=1).astype(np.int8)
    ages = np.where(rng.random(count) < 0.5, np.nan, rng.integers(16, 90, count)).astype(np.float32)
    return make_target(parts, ages)


@pytest.fixture(params=SPECS)
def each(request: pytest.FixtureRequest) -> Head:
    return head(request.param)


def test_joint_is_a_distribution(each: Head) -> None:
    joint = each.joint(each.outputs(torch.randn(7, FEATURES) * 20))
    assert joint.shape == (7, 18)
    assert torch.isfinite(joint).all() and (joint >= 0).all()
    assert torch.allclose(joint.sum(1), torch.ones(7), atol=1e-5)


def test_years_are_years_or_none(each: Head) -> None:
    years = each.years(each.outputs(torch.randn(7, FEATURES)))
    assert years is None or (years.shape == (7,) and (years >= 0).all() and (years <= 120).all())


def test_targets_have_the_outputs_names_and_shapes(each: Head) -> None:
    outputs, targets = each.outputs(torch.randn(64, FEATURES)), each.targets(target())
    assert outputs.keys() == targets.keys()
    for name, raw in outputs.items():
        assert targets[name].value.shape == raw.shape
        assert targets[name].known.shape == (64,)
        assert ((targets[name].known >= 0) & (targets[name].known <= 1)).all()


def test_targets_commute_with_mixing(each: Head) -> None:
    one, share = target(), torch.rand(64)
    other = one.take(torch.randperm(64))
    of_mix = each.targets(mix(one, other, share))
    left, right = each.targets(one), each.targets(other)
    for name, known in of_mix.items():
        weight = share[:, None]
        assert torch.allclose(known.value, weight * left[name].value + (1 - weight) * right[name].value, atol=1e-6)
        assert torch.allclose(known.known, share * left[name].known + (1 - share) * right[name].known, atol=1e-6)


def losses(outputs: dict[str, torch.Tensor]):
    return {name: [(1.0, CrossEntropy(torch.ones(raw.shape[1])))] for name, raw in outputs.items()}


def test_a_photo_without_labels_moves_nothing(each: Head) -> None:
    each.eval()
    features = torch.randn(2, FEATURES, requires_grad=True)
    outputs = each.outputs(features)
    nobody = make_target(np.full((2, 3), -1, dtype=np.int8), np.full(2, np.nan, dtype=np.float32))
    total_loss(losses(outputs), outputs, each.targets(nobody)).backward()
    assert features.grad is not None and (features.grad == 0).all()


@pytest.mark.parametrize("column", range(3))
def test_an_attribute_known_alone_is_learned(each: Head, column: int) -> None:
    """Training on one attribute must drive its marginal to the truth, whatever the head's shape."""
    parts = np.full((48, 3), -1, dtype=np.int8)
    parts[:, column] = np.arange(48) % 2
    goal = each.targets(make_target(parts, np.full(48, np.nan, dtype=np.float32)))
    features = torch.nn.functional.one_hot(torch.arange(48) % 2, FEATURES).float() * 3
    optimizer = torch.optim.Adam(each.parameters(), lr=0.05)
    for _ in range(60):
        outputs = each.outputs(features)
        loss = total_loss(losses(outputs), outputs, goal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    each.eval()
    cube = each.joint(each.outputs(features)).view(-1, 3, 2, 3)
    marginal = cube.sum(dim=[axis for axis in (1, 2, 3) if axis != column + 1])
    assert (marginal.argmax(1) == torch.arange(48) % 2).all()


def test_every_parameter_gets_a_gradient(each: Head) -> None:
    rng = np.random.default_rng(1)
    parts = np.stack([rng.integers(0, size, 64) for size in (3, 2, 3)], axis=1).astype(np.int8)
    outputs = each.outputs(torch.randn(64, FEATURES))
    full = make_target(parts, rng.integers(16, 90, 64).astype(np.float32))
    total_loss(losses(outputs), outputs, each.targets(full)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in each.parameters())


def test_flat18_marginal_logits_are_the_marginals_of_its_joint() -> None:
    made = head("flat18")
    outputs = made.outputs(torch.randn(5, FEATURES))
    cube = made.joint(outputs).view(-1, 3, 2, 3)
    assert torch.allclose(outputs["mask"].softmax(1), cube.sum((2, 3)), atol=1e-6)
    assert torch.allclose(outputs["gender"].softmax(1), cube.sum((1, 3)), atol=1e-6)
    assert torch.allclose(outputs["age"].softmax(1), cube.sum((1, 2)), atol=1e-6)


def test_flat18_trains_the_joint_alone_where_all_is_known() -> None:
    made = Flat18(FEATURES)
    full = made.targets(make_target(np.array([[1, 1, 1]], dtype=np.int8), np.array([40], dtype=np.float32)))
    assert {name: float(part.known.sum()) for name, part in full.items()} == {
        "joint": 1,
        "mask": 0,
        "gender": 0,
        "age": 0,
    }


def test_multi_joint_is_the_product_of_its_parts() -> None:
    made = head("multi")
    outputs = made.outputs(torch.randn(3, FEATURES))
    joint = made.joint(outputs)
    for code in range(18):
        parts = (("mask", code // 6), ("gender", code // 3 % 2), ("age", code % 3))
        naive = torch.stack([outputs[name].softmax(1)[:, part] for name, part in parts]).prod(0)
        assert torch.allclose(joint[:, code], naive, atol=1e-6)


@pytest.mark.parametrize("text", ["multi(dropout=1.0)", "multi(hidden=[0])", "flat18(dropout=-0.1)"])
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.head: hidden="):
        head(text)
