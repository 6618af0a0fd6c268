"""What is frozen gets no gradient, keeps its statistics and is what the row says, for backbones of every build."""

import pytest
import timm
import torch
from helpers import every
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.backbones import BACKBONES, Concatenated, Split, make_body
from threefold.learn.freeze import FREEZES, Freeze, networks, stages_of
from threefold.spec import build_one

TIMM = {
    "test_efficientnet": ["conv_stem bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4 conv_head bn2"],
    "resnet18": ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"],
    "vgg11": [*(f"features.{n}" for n in (0, 3, 6, 8, 11, 13, 16, 18)), "pre_logits"],
    "convnext_atto": ["stem", "stages.0", "stages.1", "stages.2", "stages.3 head.norm"],
    "test_vit": ["cls_token pos_embed patch_embed", *(f"blocks.{n}" for n in range(5)), "blocks.5 norm"],
    "swin_tiny_patch4_window7_224": ["patch_embed", "layers.0", "layers.1", "layers.2", "layers.3 norm"],
    "caformer_s18": ["stem", "stages.0", "stages.1", "stages.2", "stages.3 head.norm"],
}


def freeze(text: str) -> Freeze:
    row: Freeze = build_one(text, FREEZES, "train.freeze")
    return row


def toy(body: nn.Module | None = None) -> nn.Module:
    """Stem, two stages (the second with a norm and dropout), head."""
    second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    stages = [nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), second, nn.Flatten()]
    return nn.ModuleDict({"backbone": body or nn.Sequential(*stages), "head": nn.Linear(4, 2)})


def trained(net: nn.Module, text: str, epoch: int) -> list[str]:
    """Names of the parameters with a gradient in an epoch, as the loop calls it."""
    net.train()
    freeze(text).at(net, epoch)
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", TIMM)
def test_stages_are_those_of_the_paper_of_the_network(name: str) -> None:
    with torch.device("meta"):
        body = timm.create_model(name, num_classes=0)
    names = {id(parameter): name for name, parameter in body.named_parameters()}
    stages = stages_of(body)
    assert sorted(names[id(p)] for stage in stages for p in stage) == sorted(names.values())
    for stage, expected in zip(stages, TIMM[name], strict=True):
        prefixes = tuple(expected.split())
        wrong = [names[id(p)] for p in stage if not names[id(p)].startswith(prefixes)]
        assert not wrong and {p for p in prefixes if any(names[id(q)].startswith(p) for q in stage)} == set(prefixes)


def test_stages_of_any_module_are_its_children_and_norms_belong_to_the_one_before() -> None:
    body = toy()["backbone"]
    assert [[tuple(p.shape)[:2] for p in stage] for stage in stages_of(body)] == [
        [(4, 3), (4,), (4,), (4,)], [(4, 4), (4,)], [(4, 4), (4,), (4,), (4,)],
    ]  # fmt: skip


@pytest.mark.parametrize("backbone", ["resnet18+test_efficientnet", "split(resnet18)", *BACKBONES])
def test_every_backbone_of_ours_has_stages(backbone: str) -> None:
    body = make_body(backbone, (32, 32), "none")
    parameters = [id(p) for network in networks(body) for stage in stages_of(network) for p in stage]
    assert sorted(parameters) == sorted(id(p) for p in body.parameters())
    assert all(len(stages_of(network)) >= 3 for network in networks(body))


@pytest.mark.parametrize("text", every(FREEZES))
def test_the_head_is_always_trained(text: str) -> None:
    for epoch in (0, 1, 9):
        assert {"head.weight", "head.bias"} <= set(trained(toy(), text, epoch))


def test_none_trains_everything() -> None:
    net = toy()
    assert trained(net, "none", 0) == [name for name, _ in net.named_parameters()]
    assert all(module.training for module in net.modules())


def test_backbone_trains_the_head_alone_until_then_everything() -> None:
    net = toy()
    assert trained(net, "backbone", 99) == ["head.weight", "head.bias"]
    assert not any(module.training for module in net["backbone"].modules()) and net["head"].training
    assert trained(net, "backbone(until=2)", 1) == ["head.weight", "head.bias"]
    assert trained(net, "backbone(until=2)", 2) == [name for name, _ in net.named_parameters()]
    assert all(module.training for module in net.modules())


def test_stages_keep_stem_and_first_ones() -> None:
    net = toy(timm.create_model("resnet18", num_classes=0))
    free = trained(net, "stages(2)", 5)
    assert {name.split(".")[1] for name in free if name.startswith("backbone")} == {"layer3", "layer4"}
    body = net["backbone"]
    assert [body.get_submodule(name).training for name in ("bn1", "layer1.0.bn1", "layer2", "layer3.0.bn1")] == [
        False, False, False, True,
    ]  # fmt: skip
    assert not any(n.startswith(("backbone.conv1", "backbone.bn1")) for n in trained(net, "stages(0, until=1)", 0))
    assert len(trained(net, "stages(0, until=1)", 1)) == len(list(net.parameters()))


def test_gradual_goes_from_the_last_stage_backwards() -> None:
    net = toy()
    counts = [len(trained(net, "gradual(every=2)", epoch)) for epoch in range(8)]
    assert counts == [2, 2, 6, 6, 8, 8, 12, 12]
    assert "backbone.4.0.weight" in trained(net, "gradual", 1) and "backbone.0.weight" not in trained(net, "gradual", 2)


def test_each_of_several_networks_by_itself() -> None:
    deep = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    net = toy(Concatenated([deep, nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))]))
    weights = [name for name in trained(net, "gradual", 1) if name.endswith("weight")]
    assert weights == ["backbone.members.0.2.weight", "backbone.members.1.1.weight", "head.weight"]
    assert len(networks(Split(timm.create_model("resnet18", num_classes=0), "resnet18"))) == 1


def test_what_is_frozen_does_not_move() -> None:
    """Weights, statistics and dropout of a frozen stage, in an update like the loop's."""
    net = toy()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net.train()
    freeze("gradual").at(net, 1)
    for _ in range(2):
        optimizer.zero_grad()
        net["head"](net["backbone"](torch.randn(8, 3, 1, 1))).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(("backbone.4", "head")) for name in moved)
    assert {"backbone.4.0.weight", "backbone.4.1.running_mean", "head.weight"} <= moved


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backbone(until=0)", "until cannot be 0; expected 1 or more"),
        ("stages(-1)", "n cannot be -1; expected 0 or more"),
        ("stages(1, until=0)", "until cannot be 0"),
        ("stages(3)", r"stages\(n=3\); the backbone has 2 stages after its stem"),
        ("stages", "missing a required argument: 'n'"),
        ("gradual(every=0)", "every cannot be 0"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        trained(toy(), text, 0)
