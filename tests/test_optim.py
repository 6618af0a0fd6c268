"""Optimisers lower a bowl; schedules have the shape their names promise."""

import inspect
import math
from itertools import pairwise

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.backbones import Concatenated
from threefold.learn.net import Net, bind_net
from threefold.learn.optim import OPTIMS, SCHEDULES, Schedule
from threefold.photos.prepare import Prepare
from threefold.spec import build_one

EPOCHS, UPDATES = 10, 20


def make_optimizer(text: str, net: nn.Module | None = None) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = build_one(text, OPTIMS, "optim")(net or nn.Linear(3, 2))
    return optimizer


def make_schedule(text: str, optimizer: torch.optim.Optimizer) -> Schedule:
    schedule: Schedule = build_one(text, SCHEDULES, "schedule", optimizer, EPOCHS, UPDATES)
    return schedule


def small_net(backbone: str) -> Net:
    return bind_net(backbone, "multi")(Prepare(size=(32, 32)))


def rates(text: str, lr: float = 0.1) -> list[float]:
    """The learning rate of every update of a training."""
    optimizer = make_optimizer(f"sgd(lr={lr})")
    schedule = make_schedule(text, optimizer)
    curve = []
    for update in range(EPOCHS * UPDATES):
        schedule.step_update(update)
        schedule.step_metric(update // UPDATES, update / UPDATES)  # ever better
        curve.append(optimizer.param_groups[0]["lr"])
    return curve


@pytest.mark.parametrize(
    "text", [*(f"{name}(lr=0.01)" for name in OPTIMS), "adam(amsgrad=True)", "sgd(nesterov=False, momentum=0)"]
)
def test_every_optimiser_goes_downhill(text: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    optimizer = make_optimizer(text, net)
    inputs = torch.randn(64, 3)
    wanted = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])
    losses = []
    for _ in range(300):
        loss = ((net(inputs) - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("text", OPTIMS)
def test_biases_are_not_decayed(text: str) -> None:
    groups = make_optimizer(f"{text}(weight_decay=0.1)").param_groups
    assert sorted((group["weight_decay"], sum(p.ndim for p in group["params"])) for group in groups) == [
        (0.0, 1),
        (0.1, 2),
    ]


def test_options_arrive() -> None:
    assert all(group["betas"] == (0.8, 0.99) for group in make_optimizer("adamp(betas=[0.8,0.99])").param_groups)
    kinds = {type(make_optimizer(name)).__name__ for name in OPTIMS}
    assert {"Adam", "AdamW", "AdamP", "Lion", "SGD"} <= kinds


def scales(groups: list[dict], net: nn.Module) -> dict[str, tuple[float, float]]:
    """Parameter name -> (scale of its rate, decay)."""
    scaled = {id(p): (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    return {name: scaled[id(parameter)] for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("backbone", ["resnet18", "test_efficientnet", "test_vit"])
def test_layer_decay_is_timms_of_the_whole_model(backbone: str) -> None:
    net = small_net(backbone)
    scaled = scales(make_optimizer("adamw(layer_decay=0.7, weight_decay=0.1)", net).param_groups, net)
    options = {"img_size": 32} if "vit" in backbone else {}
    whole = timm.create_model(backbone, num_classes=18, **options)
    theirs = scales(param_groups_layer_decay(whole, weight_decay=0.1, layer_decay=0.7), whole)
    body = {f"backbone.{name}": pair for name, pair in theirs.items() if f"backbone.{name}" in scaled}
    assert len(body) == len(theirs) - 2  # all but their classifier's weight and bias
    for name, (scale, decay) in scaled.items():
        expected = body.get(name, (1.0, 0.1 if name.endswith("weight") else 0.0))
        assert (scale, decay) == pytest.approx(expected), name
    assert {scaled[name][0] for name in scaled if name.startswith("head.")} == {1.0}


def test_layer_decay_counts_each_of_several_networks_and_any_module() -> None:
    one, two = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)), nn.Sequential(nn.Conv2d(3, 2, 1))
    net = nn.ModuleDict({"backbone": Concatenated([one, two]), "head": nn.Linear(4, 2)})
    scaled = scales(make_optimizer("sgd(layer_decay=0.5)", net).param_groups, net)
    assert {name: scale for name, (scale, _) in scaled.items() if name.endswith("weight")} == {
        "backbone.members.0.0.weight": 0.25, "backbone.members.0.2.weight": 0.5,
        "backbone.members.1.0.weight": 0.5, "head.weight": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("text", SCHEDULES)
def test_every_schedule_keeps_the_proportions_of_the_groups(text: str) -> None:
    net = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)), "head": nn.Linear(2, 2)})
    optimizer = make_optimizer("sgd(lr=0.1, head_lr=0.4, layer_decay=0.5, weight_decay=0)", net)
    schedule = make_schedule(text, optimizer)
    for update in range(0, EPOCHS * UPDATES, 7):
        schedule.step_update(update)
        by = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        first, second, head = (by[id(module.weight)] for module in (*net["backbone"], net["head"]))
        assert (first, second) == pytest.approx((head / 16, head / 8))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_a_frozen_parameter_is_in_the_optimiser_and_stays() -> None:
    net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    net["backbone"].requires_grad_(False)
    before = net["backbone"].weight.clone()
    optimizer = make_optimizer("adamw(lr=0.1, weight_decay=0.1)", net)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    net["head"](net["backbone"](torch.ones(1, 2))).sum().backward()
    optimizer.step()
    assert torch.equal(net["backbone"].weight, before)
    net["backbone"].requires_grad_(True)
    net["head"](net["backbone"](torch.ones(1, 2))).sum().backward()
    optimizer.step()
    assert not torch.equal(net["backbone"].weight, before)


WARM = [name for name, row in SCHEDULES.items() if "warmup" in inspect.signature(row).parameters]


@pytest.mark.parametrize("text", WARM)
def test_warm_up_climbs_from_nothing_to_the_rate_and_ends_on_time(text: str) -> None:
    curve = rates(f"{text}(warmup=0.1)")
    warm = EPOCHS * UPDATES // 10
    assert curve[0] == 0
    assert all(a < b for a, b in pairwise(curve[:warm]))
    assert curve[warm] == pytest.approx(0.1)
    assert max(curve) == pytest.approx(0.1)


def test_a_cosine_whose_floor_is_the_rate_is_constant() -> None:
    assert set(rates("cosine(floor=1)")) == {0.1}


def test_cosine_is_half_a_cosine_to_its_floor() -> None:
    curve, total = rates("cosine(floor=0.1)"), EPOCHS * UPDATES
    naive = [0.01 + 0.09 * (1 + math.cos(math.pi * update / total)) / 2 for update in range(total)]
    assert curve == pytest.approx(naive)


def test_step_halves_every_few_epochs() -> None:
    curve = rates("step(every=4, gamma=0.5)")
    assert [curve[epoch * UPDATES] for epoch in range(EPOCHS)] == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 2)


METRICS = [0.1, 0.3, 0.2, 0.3, 0.25, 0.2, 0.1, 0.1, 0.4, 0.4, 0.3, 0.2]


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs_and_comes_back_by_being_told_again(patience: int) -> None:
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, "max", 0.5, patience, threshold=0, min_lr=0.02, eps=0
    )
    optimizer = make_optimizer("sgd(lr=0.1)")
    schedule = make_schedule(text := f"plateau(patience={patience}, factor=0.5, floor=0.2)", optimizer)
    for epoch, metric in enumerate(METRICS):
        reference.step(metric)
        schedule.step_metric(epoch, metric)
        resumed = make_optimizer("sgd(lr=0.1)")
        again = make_schedule(text, resumed)
        for earlier in (*range(epoch + 1), epoch):
            again.step_metric(earlier, METRICS[earlier])
        for one in (schedule, again):
            one.step_update((epoch + 1) * UPDATES)
        expected = theirs.param_groups[0]["lr"]
        assert [m.param_groups[0]["lr"] for m in (optimizer, resumed)] == pytest.approx([expected] * 2)
    assert optimizer.param_groups[0]["lr"] < 0.1


def steps(reference: torch.optim.lr_scheduler.LRScheduler, theirs: torch.optim.Optimizer) -> list[float]:
    """The learning rate of every update by one of torch's schedules."""
    curve = []
    for _ in range(EPOCHS * UPDATES):
        curve.append(theirs.param_groups[0]["lr"])
        theirs.step()
        if len(curve) < EPOCHS * UPDATES:
            reference.step()
    return curve


def test_restarts_start_again_lower_each_time() -> None:
    curve = rates("cosine_restarts(cycles=4, decay=0.5)")
    cycle = EPOCHS * UPDATES // 4
    assert [curve[k * cycle] for k in range(4)] == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    assert all(curve[(k + 1) * cycle - 1] < 0.01 * curve[k * cycle] + 1e-3 for k in range(4))


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        ("optim", "adamw(lr=0)", "lr cannot be 0"),
        ("optim", "adamw(weight_decay=-1)", "weight_decay cannot be -1"),
        ("optim", "adamw(head_lr=0)", "head_lr cannot be 0"),
        ("optim", "adamw(layer_decay=1.5)", "layer_decay cannot be 1.5"),
        ("optim", "adamp(betas=[0.9,1])", "betas cannot be"),
        ("optim", "sgd(momentum=-1)", "momentum cannot be -1"),
        ("optim", "adamw(learning_rate=1)", "no option 'learning_rate'"),
        ("optim", "adamm", "nearest: adam"),
        ("schedule", "cosine(warmup=1)", "warmup cannot be 1"),
        ("schedule", "cosine_restarts(cycles=0)", "cycles cannot be 0"),
        ("schedule", "step(every=0)", "every cannot be 0"),
        ("schedule", "cosine(floor=2)", "floor cannot be 2"),
        ("schedule", "plateau(patience=-1)", "patience cannot be -1"),
        ("schedule", "plateau(factor=1)", "factor cannot be 1"),
        ("schedule", "cosin", "nearest: cosine"),
    ],
)
def test_values_that_cannot_be_are_refused(table: str, text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make_optimizer(text) if table == "optim" else rates(text)
