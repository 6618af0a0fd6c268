"""Backbones beyond a plain timm name: joined, split in three, and the contest's own small networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from threefold.errors import AssetError, RecipeError
from threefold.learn.backbones import BACKBONES, Split, make_body, parts_of, trained_colours

SIZE = (64, 48)


def body(text: str, pretrained: str = "none") -> nn.Module:
    torch.manual_seed(0)
    return make_body(text, SIZE, pretrained).eval()


@pytest.mark.parametrize("name", [*BACKBONES, "test_resnet+test_efficientnet", "split(test_efficientnet)"])
def test_photos_in_features_out(name: str) -> None:
    net, images = body(name), torch.rand(2, 3, *SIZE)
    features = net(images)
    assert features.ndim == 2 and len(features) == 2 and torch.isfinite(features).all()
    assert torch.allclose(features[:1], net(images[:1]), atol=1e-5)


def test_joined_features_are_those_of_the_members() -> None:
    images = torch.rand(2, 3, *SIZE)
    net = body("test_resnet+test_efficientnet+multilabel_cnn")
    parts = [member(images) for member in net.members]  # type: ignore[union-attr, operator]
    assert torch.equal(net(images), torch.cat(parts, 1)) and len(parts) == 3


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_fresh_branches_answer_alike_and_share_their_trunk(name: str) -> None:
    """Three copies of one last stage say three times what the whole network says, from one pass through the trunk."""
    images = torch.rand(2, 3, *SIZE)
    plain, split = body(name), body(f"split({name})")
    alone, features = plain(images), split(images)
    assert torch.allclose(features, alone.repeat(1, 3), atol=1e-5)
    grown = sum(p.numel() for p in split.parameters()) / sum(p.numel() for p in plain.parameters())
    assert 1 < grown < 3


def test_branches_learn_apart() -> None:
    """A loss on one third of the features moves one branch and the trunk, and leaves the other branches alone."""
    split = body("split(test_resnet)").train()
    assert isinstance(split, Split)
    features = split(torch.rand(2, 3, *SIZE))
    features.chunk(3, dim=1)[1].sum().backward()
    moved = {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in split.named_parameters()}
    assert not any(hit for name, hit in moved.items() if ".branches.0." in name or ".branches.2." in name)
    assert any(hit for name, hit in moved.items() if ".branches.1." in name)
    assert any(hit for name, hit in moved.items() if ".branches." not in name)


def test_batch_norms_of_a_branch_see_that_branch_alone() -> None:
    split = body("split(test_efficientnet)").train()
    split(torch.rand(4, 3, *SIZE))
    fans = [m for m in split.modules() if type(m).__name__ == "_Fan"]
    assert len(fans) > 1, "the last stage and what comes after it"
    means = [[b for n, b in branch.named_buffers() if n.endswith("running_mean")] for branch in fans[-1].branches]
    assert means[0] and all(torch.allclose(a, b) for a, b in zip(means[0], means[1], strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnet18+resnet17", "nearest: resnet"),
        ("split(resnet18+resnet34)", "expected one to four names joined"),
        ("a_cnn", "timm has no 'a_cnn'"),
        ("multilabel_cn", "nearest: multilabel_cnn"),
        ("split(test_vit)x", "timm has no"),
        ("split(multilabel_cnn)", "has no last stage"),
    ],
)
def test_names_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        body(text)


def test_weights_are_named_for_all_or_each() -> None:
    with pytest.raises(RecipeError, match="names 3 weights for 2 backbones"):
        body("test_resnet+test_vit", "none+none+none")
    with pytest.raises(AssetError, match="there are no published weights of multilabel_cnn"):
        body("multilabel_cnn", "registry")
    assert parts_of("efficientnet_lite0+resnet18") == ["tf_efficientnet_lite0", "resnet18"]
    assert trained_colours("efficientnet_lite0+resnet18")[0] == (0.5, 0.5, 0.5)
