"""Optimisers lower a bowl; schedules have the shape their names promise."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.optim import OPTIMS, SCHEDULES
from threefold.spec import build_one

EPOCHS, UPDATES = 10, 20


def optimizer(text: str, net: nn.Module | None = None) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = build_one(text, OPTIMS, "optim", net or nn.Linear(3, 2))
    return made


def rates(text: str, lr: float = 0.1) -> list[float]:
    """The learning rate of every update of a training."""
    made = optimizer(f"sgd(lr={lr})")
    schedule = build_one(text, SCHEDULES, "schedule", made, EPOCHS, UPDATES)
    found = []
    for update in range(EPOCHS * UPDATES):
        schedule.step_update(update)
        found.append(made.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("text", [*OPTIMS, "adam(amsgrad=True)", "sgd(nesterov=False, momentum=0)"])
def test_every_optimiser_goes_downhill(text: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    made = optimizer(text, net)
    inputs = torch.randn(64, 3)
    wanted = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])
    losses = []
    for _ in range(300):
        loss = ((net(inputs) - wanted) ** 2).mean()
        made.zero_grad()
        loss.backward()
        made.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("text", OPTIMS)
def test_biases_are_not_decayed(text: str) -> None:
    groups = optimizer(f"{text}(weight_decay=0.1)").param_groups
    assert sorted((group["weight_decay"], sum(p.ndim for p in group["params"])) for group in groups) == [
        (0.0, 1),
        (0.1, 2),
    ]


@pytest.mark.parametrize("text", SCHEDULES)
def test_warm_up_climbs_from_nothing_to_the_rate_and_ends_on_time(text: str) -> None:
    found = rates(f"{text}(warmup=0.1)")
    warm = EPOCHS * UPDATES // 10
    assert found[0] == 0
    assert all(a < b for a, b in pairwise(found[:warm]))
    assert found[warm] == pytest.approx(0.1)
    assert max(found) == pytest.approx(0.1)


def test_constant_is_constant() -> None:
    assert set(rates("constant")) == {0.1}


def test_cosine_is_half_a_cosine_to_its_floor() -> None:
    found, total = rates("cosine(floor=0.1)"), EPOCHS * UPDATES
    naive = [0.01 + 0.09 * (1 + math.cos(math.pi * update / total)) / 2 for update in range(total)]
    assert found == pytest.approx(naive)


def test_step_halves_every_few_epochs() -> None:
    found = rates("step(every=4, gamma=0.5)")
    assert [found[epoch * UPDATES] for epoch in range(EPOCHS)] == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 2)


def test_restarts_start_again_lower_each_time() -> None:
    found = rates("cosine_restarts(cycles=4, decay=0.5)")
    cycle = EPOCHS * UPDATES // 4
    assert [found[k * cycle] for k in range(4)] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert all(found[(k + 1) * cycle - 1] < 0.01 * found[k * cycle] + 1e-3 for k in range(4))


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("optim", "adamw(lr=0)", "lr=0"),
        ("optim", "adamw(learning_rate=1)", "no option 'learning_rate'"),
        ("optim", "adamm", "nearest: adam"),
        ("schedule", "cosine(warmup=1)", "warmup cannot be 1"),
        ("schedule", "cosine_restarts(cycles=0)", "cycles cannot be 0"),
        ("schedule", "step(every=0)", "every cannot be 0"),
        ("schedule", "cosin", "nearest: cosine"),
    ],
)
def test_values_that_cannot_be_are_refused(table: str, text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        optimizer(text) if table == "optim" else rates(text)
