"""Backbones, their weights, and the words of every refusal."""

from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

from threefold.assets import asset_path
from threefold.errors import AssetError, RecipeError, RunError
from threefold.learn.backbones import full_name, rename_lite, trained_colours
from threefold.learn.net import bind_net, load_net, to_float
from threefold.photos.prepare import Prepare

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TINY = "test_efficientnet"


def tiny(backbone: str = TINY, head: str = "multi", **options: str):
    torch.manual_seed(0)
    return bind_net(backbone, head, **options)(Prepare(size=(32, 32)))


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_any_timm_backbone_reads_uint8_photos(backbone: str) -> None:
    net = tiny(backbone).eval()
    joint, years = net.read(torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8))
    assert joint.shape == (3, 18) and years is None
    assert torch.allclose(joint.sum(1), torch.ones(3), atol=1e-5)


def test_normalisation_is_inside_and_exact() -> None:
    prepare = Prepare(size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    net = bind_net(TINY, "multi")(prepare).eval()
    seen = []
    net.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    photos = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    net.read(photos)
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), strict=True)):
        naive = (photos[..., channel].float() / 255 - mean) / std
        assert torch.allclose(seen[0][:, channel], naive, atol=1e-6)
    assert torch.equal(to_float(photos)[:, 1], photos[..., 1] / 255)


def test_registry_weights_give_the_packages_own_answers() -> None:
    """The 1000 ImageNet logits of timm's network with renamed weights = those of the network the weights came with."""
    weights = torch.load(asset_path("tf_efficientnet_lite0"), weights_only=True)
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights)
    ours = timm.create_model("tf_efficientnet_lite0").eval()
    ours.load_state_dict(rename_lite(weights), strict=True)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-4)


def test_short_name_and_registry_load_the_same_backbone() -> None:
    net = bind_net("efficientnet_lite0", "flat18", pretrained="registry")(Prepare(size=(64, 48)))
    weights = rename_lite(torch.load(asset_path("tf_efficientnet_lite0"), weights_only=True))
    loaded = net.backbone.state_dict()
    assert all(
        torch.equal(loaded[name], tensor) for name, tensor in weights.items() if not name.startswith("classifier")
    )
    assert full_name("efficientnet_lite0") == "tf_efficientnet_lite0"
    assert trained_colours("efficientnet_lite0") == HALF
    assert trained_colours("resnet18")[0] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_weights_is_read(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model(TINY, num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    net = tiny(pretrained=str(path))
    assert torch.equal(net.backbone.conv_stem.weight, source.conv_stem.weight)


def test_a_checkpoint_of_ours_can_start_another_run(tmp_path: Path) -> None:
    first = tiny()
    torch.nn.init.constant_(first.backbone.conv_stem.weight, 0.25)
    save_file({k: v.contiguous() for k, v in first.state_dict().items()}, tmp_path / "best.safetensors")
    again = tiny(pretrained=str(tmp_path / "best.safetensors"))
    assert (again.backbone.conv_stem.weight == 0.25).all()


@pytest.mark.parametrize(
    ("pretrained", "words"),
    [
        ("registry", r"test_efficientnet: no registry package carries its weights.*tf_efficientnet_lite0"),
        ("no/such.pt", r"no/such\.pt is neither a file nor one of registry, hub, none"),
        ("regestry", r"regestry is neither a file nor one of registry"),
    ],
)
def test_weights_that_cannot_be_had_are_one_line(pretrained: str, words: str) -> None:
    with pytest.raises(AssetError, match=words) as caught:
        tiny(pretrained=pretrained)
    assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(AssetError, match=r"hub has no weights of test_efficientnet.*without a hub: registry") as caught:
        tiny(pretrained="hub")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken zip"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_broken_files_of_weights_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"is not a file of weights") as caught:
        tiny(pretrained=str(path))
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(AssetError, match=r"does not fit test_efficientnet: \d+ tensors, the first"):
        tiny(pretrained=str(tmp_path / "other.safetensors"))
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "best.safetensors")
    with pytest.raises(RunError, match="not weights of this recipe's network"):
        load_net(tiny(), tmp_path / "best.safetensors")


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"timm has no 'efficientnet_b44' \(nearest: .*efficientnet_b4"):
        full_name("efficientnet_b44")


def test_a_network_of_ours_fills_the_head_of_the_same_form_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    torch.manual_seed(1)
    first = bind_net(TINY, "multi")(Prepare(size=(32, 32)))
    save_file({name: value.contiguous() for name, value in first.state_dict().items()}, path)
    again = tiny(pretrained=str(path))
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in again.state_dict().items())
    other = tiny(head="multi(age=dldl)", pretrained=str(path))
    assert torch.equal(other.backbone.conv_stem.weight, first.backbone.conv_stem.weight)
    mask = "mask.classifier.1.weight"
    assert mask in first.head.state_dict(), "a part that would fit"
    assert not torch.equal(other.head.state_dict()[mask], first.head.state_dict()[mask]), "half a head is nobody's"
