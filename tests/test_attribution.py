"""Attribution against its definitions: occlusion as a plain loop, Grad-CAM in closed form where it has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from threefold import labels
from threefold.learn import attribution
from threefold.learn.attribution import grad_cam, occlusion
from threefold.learn.backbones import BACKBONES, CONTEST
from threefold.learn.net import bind_net
from threefold.photos.prepare import Prepare


def photos(count: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def read(batch: np.ndarray) -> np.ndarray:
    """Mask by the red at the top left, gender by the green at the bottom right, age by nothing."""
    red, green = batch[:, :10, :10, 0].mean((1, 2)) / 255, batch[:, 45:, 30:, 1].mean((1, 2)) / 255
    mask = np.stack([red, (1 - red) / 2, (1 - red) / 2], 1) * 0.98 + 0.02 / 3
    gender = np.stack([1 - green, green], 1) * 0.98 + 0.01
    return np.einsum("nm,ng,a->nmga", mask, gender, np.full(3, 1 / 3)).reshape(-1, 18)


def plain_occlusion(photo: np.ndarray, codes: tuple[int, ...], grid: tuple[int, int]) -> np.ndarray:
    """One patch of two by two cells at a time; a cell gets the mean over the patches that lie on it."""

    def logs(image):
        return [
            np.log(part[0, code])
            for part, code in zip(labels.marginals(read(image[None])).values(), codes, strict=True)
        ]

    high, wide = photo.shape[0] / grid[0], photo.shape[1] / grid[1]
    drops: dict[tuple[int, int], list[np.ndarray]] = {}
    for row in range(grid[0] - 1):
        for column in range(grid[1] - 1):
            covered = photo.copy()
            top, left = round(row * high), round(column * wide)
            covered[top : round((row + 2) * high), left : round((column + 2) * wide)] = photo.mean((0, 1)).round()
            drop = np.subtract(logs(photo), logs(covered))
            for cell in ((row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)):
                drops.setdefault(cell, []).append(drop)
    heat = np.zeros((3, *grid))
    for cell, each in drops.items():
        heat[:, cell[0], cell[1]] = np.mean(each, axis=0)
    return heat


@pytest.mark.parametrize("grid", [(8, 6), (3, 5)])
def test_occlusion_is_the_plain_loop(grid):
    photo = photos(1)[0]
    heat = occlusion(read, photo, np.array([0, 1, 2]), grid=grid)
    assert heat.shape == (3, *grid)
    np.testing.assert_allclose(heat, plain_occlusion(photo, (0, 1, 2), grid), atol=1e-6)


def test_occlusion_finds_what_an_answer_depends_on():
    photo = np.full((64, 48, 3), 20, dtype=np.uint8)
    photo[:10, :10, 0] = photo[45:, 30:, 1] = 250
    mask, gender, age = occlusion(read, photo, np.array([0, 1, 0]))
    assert np.unravel_index(mask.argmax(), mask.shape) == (0, 0) and mask[4:].max() == 0
    assert gender[5:, 3:].min() > 0 and gender[:4].max() == gender[:, :2].max() == 0
    assert not age.any()


def test_occlusion_reads_in_small_batches_of_large_photos(monkeypatch):
    photo, sizes = photos(1)[0], []

    def counted(batch):
        sizes.append(len(batch))
        return read(batch)

    whole = occlusion(counted, photo, np.array([0, 1, 2]))
    assert sizes == [1, 35]
    monkeypatch.setattr(attribution, "_BYTES", 4 * photo.nbytes + 1)
    sizes.clear()
    np.testing.assert_array_equal(occlusion(counted, photo, np.array([0, 1, 2])), whole)
    assert max(sizes) == 4 and sum(sizes) == 36


def small_cnn() -> nn.Module:
    """The contest's own baseline network: three convolutions and mean pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 7), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    monkeypatch.setitem(BACKBONES, "small_cnn", small_cnn)


def make(backbone: str, head: str = "multi", size: tuple[int, int] = (64, 48)):
    torch.manual_seed(0)
    return bind_net(backbone, head)(Prepare(size=size, mean=CONTEST[0], std=CONTEST[1])).eval()


BODIES = ["test_efficientnet", "test_convnext", "small_cnn", "multilabel_cnn", "split(test_efficientnet)",
          "test_efficientnet+small_cnn", "test_vit"]  # fmt: skip


@pytest.mark.parametrize("backbone", BODIES)
def test_the_maps_are_on_the_way_to_the_features(backbone):
    """The features computed beside the maps are those the network itself has."""
    net = make(backbone, "multi(split=True)" if backbone.startswith(("split", "multilabel")) else "multi")
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        maps, features = attribution._mapped(net.backbone, images)
        torch.testing.assert_close(features, net.backbone(images))
    assert all(one.ndim == 4 for one in maps) and bool(maps) == (backbone != "test_vit")


def linear(part: nn.Module) -> nn.Linear:
    return next(module for module in part.modules() if isinstance(module, nn.Linear))


def test_grad_cam_of_two_classes_after_mean_pooling_is_the_weights_times_the_map():
    """The log odds of two classes are the difference of their logits, so the gradient is that of the weights."""
    net, batch = make("small_cnn"), photos(3)
    codes = np.array([[0, 1, 0], [0, 0, 0], [0, 1, 0]])
    normal = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - net.mean) / net.std
    with torch.no_grad():
        last = net.backbone[:-2](normal)  # without pooling and flattening
        weight = linear(net.head.gender).weight
        toward = torch.stack([weight[code] - weight[1 - code] for code in codes[:, 1]])
        expected = torch.einsum("nc,nchw->nhw", toward, last).relu()
    heat = grad_cam(net, batch, codes)
    assert heat.shape[:2] == (3, 3) and heat.min() == 0
    np.testing.assert_allclose(heat[:, 1], expected.numpy(), rtol=1e-3, atol=1e-6)


def test_grad_cam_of_a_split_network_is_of_the_answers_own_branch():
    net, batch = make("multilabel_cnn", "multi(split=True)"), photos(2)
    normal = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - net.mean) / net.std
    with torch.no_grad():
        last = net.backbone[-1].members[1][:-2](net.backbone[:-1](normal))
        weight = linear(net.head.gender).weight
        expected = torch.einsum("c,nchw->nhw", weight[0] - weight[1], last).relu()
    heat = grad_cam(net, batch, np.zeros((2, 3), dtype=int))
    np.testing.assert_allclose(heat[:, 1], expected.numpy(), rtol=1e-3, atol=1e-6)


def test_grad_cam_adds_up_the_maps_of_joined_backbones_at_the_size_of_the_largest():
    net, batch = make("small_cnn+multilabel_cnn"), photos(2)
    normal = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - net.mean) / net.std
    with torch.no_grad():
        small, large = (attribution._mapped(body, normal)[0] for body in reversed(net.backbone.members))
        weight = linear(net.head.gender).weight
        parts = (weight[0] - weight[1]).split([one.shape[1] for one in (*large, *small)])
        cams = [torch.einsum("c,nchw->nhw", p, one)[:, None] for p, one in zip(parts, (*large, *small), strict=True)]
        size = large[0].shape[-2:]
        cams = [nn.functional.interpolate(cam, size, mode="bilinear", align_corners=False) for cam in cams]
    heat = grad_cam(net, batch, np.zeros((2, 3), dtype=int))
    assert len(cams) == 4
    np.testing.assert_allclose(heat[:, 1], sum(cams)[:, 0].relu().numpy(), rtol=1e-3, atol=1e-6)


def test_a_very_sure_answer_still_has_a_map():
    """The probability is 1 to float32 and its logarithm hardly moves; the odds still do."""
    net, batch = make("small_cnn"), photos(1)
    with torch.no_grad():
        linear(net.head.gender).bias += torch.tensor([40.0, 0.0])
    joint, _ = net.read(torch.from_numpy(batch))
    assert labels.marginals(joint.detach().numpy())["gender"][0, 0] > 1 - 1e-7
    certain = grad_cam(net, batch, np.zeros((1, 3), dtype=int))
    with torch.no_grad():
        linear(net.head.gender).bias -= torch.tensor([40.0, 0.0])
    np.testing.assert_allclose(certain[:, 1], grad_cam(net, batch, np.zeros((1, 3), dtype=int))[:, 1], rtol=1e-3)
    assert certain[:, 1].max() > 0


def test_without_places_there_is_no_grad_cam():
    codes = np.zeros((1, 3), dtype=int)
    assert grad_cam(make("test_vit"), photos(1), codes) is None
    assert grad_cam(make("test_efficientnet", size=(32, 24)), photos(1, (32, 24)), codes) is None  # one position


def test_channels_last_maps_of_a_transformer_with_places():
    torch.manual_seed(0)
    net = make("swin_tiny_patch4_window7_224", size=(64, 64))
    heat = grad_cam(net, photos(1, (64, 64)), np.zeros((1, 3), dtype=int))
    assert heat.shape == (1, 3, 2, 2) and heat.max() > 0


@pytest.mark.parametrize("head", ["one(age)", "one(age, age=bins11)", "flat18", "multi(age=dldl(sigma=3))", "logistic"])
def test_every_head_can_be_asked_and_knows_only_what_it_was_told(head):
    net = make("small_cnn", head)
    if head == "logistic":
        net.head.gender.fill(dual=torch.randn(128, 2), calibrate=torch.eye(2))
    heat = grad_cam(net, photos(2), np.zeros((2, 3), dtype=int))
    assert np.isfinite(heat).all() and heat.shape[:2] == (2, 3)
    if head.startswith("one"):
        assert not heat[:, :2].any()
