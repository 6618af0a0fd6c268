"""Bent photos: where each pixel came from is read off a picture of its own coordinates and held against the formula."""

import cv2
import numpy as np
import pytest
import torch

from threefold.errors import RecipeError
from threefold.learn.augment import make_augment

H, W = 41, 25


def places(count: int = 16) -> torch.Tensor:
    """[count, 3, H, W]: red says the column (0..1 from the first to the last), green the row."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, H), torch.linspace(0, 1, W), indexing="ij")
    return torch.stack([columns, rows, torch.zeros(H, W)]).expand(count, -1, -1, -1).contiguous()


def came_from(text: str, count: int = 16) -> torch.Tensor:
    """[count, 2, H, W]: source column and row of every pixel, 0..1."""
    torch.manual_seed(7)
    return make_augment(text)(places(count))[:, :2]


@pytest.mark.parametrize(
    "text",
    [
        "grid_distortion(limit=0, p=1.0)",
        "optical_distortion(0, p=1.0)",
        "elastic(0, p=1.0)",
        "perspective(0, p=1.0)",
        "shift_scale_rotate(shift=0, scale=0, degrees=0, p=1.0)",
        "random_crop(1)",
    ],
)
def test_no_bend_is_no_change(text: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 24, 18)
    assert torch.allclose(make_augment(text)(images), images, atol=1e-4)


def test_grid_distortion_stretches_whole_rows_and_columns() -> None:
    out = came_from("grid_distortion(4, limit=0.5, p=1.0)")
    assert out[:, 0].std(1).max() < 1e-6 and out[:, 1].std(2).max() < 1e-6  # columns stay upright, rows level
    for line, cell in ((out[:, 0, 0], 6), (out[:, 1, :, 0], 10)):
        assert torch.allclose(line[:, [0, -1]], torch.tensor([0.0, 1.0]).expand(16, 2), atol=1e-5)
        widths = line[:, ::cell].diff(dim=1)
        assert torch.allclose(line.diff(dim=1), widths.repeat_interleave(cell, 1) / cell, atol=1e-5)  # even in a cell
        assert (widths.amax(1) / widths.amin(1)).max() <= 3 + 1e-3  # 1.5 / 0.5
        assert widths.std() > 0.03


def test_optical_distortion_is_browns_and_keeps_the_centre() -> None:
    out = came_from("optical_distortion(0.2, p=1.0)") * 2 - 1
    place = places(1)[0, :2] * 2 - 1
    assert out[:, :, H // 2, W // 2].abs().max() < 1e-5
    pixels = place * torch.tensor([W, H])[:, None, None]
    radius = pixels.square().sum(0) / (W**2 + H**2)
    k = []
    for source in out:
        inside = (source.abs() < 0.99) & (place.abs() > 0.2)  # what comes from outside is clamped
        bend = ((source / place - 1) / radius)[inside]
        assert bend.std() < 1e-3
        k.append(float(bend.mean()))
    assert min(k) < -0.05 and max(k) > 0.05 and max(np.abs(k)) <= 0.2


def test_elastic_pulls_each_point_by_the_promised_step_and_smoothly() -> None:
    moved = came_from("elastic(0.05, cells=3, p=1.0)", 400) - places(1)[:, :2]
    knot = moved[:, :, H // 2, W // 2]  # the middle one of 3 x 3, where bicubic interpolation is exact
    assert torch.allclose(knot.std(0), torch.tensor([0.05, 0.05]), rtol=0.12) and knot.mean(0).abs().max() < 0.01
    assert abs(float(torch.corrcoef(knot.T)[0, 1])) < 0.15
    inner = moved[:, :, 8:-8, 6:-6]
    assert inner.diff(dim=3).abs().max() < 0.05 and inner.diff(dim=2).abs().max() < 0.05  # twice the mean slope


def test_perspective_is_a_homography_of_a_part_inside() -> None:
    out = came_from("perspective(0.2, p=1.0)").double()
    unit = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    flat = places(1)[0, :2].flatten(1).T.numpy()
    inward = []
    for source in out:
        corners = source[:, [0, 0, -1, -1], [0, -1, -1, 0]].T.numpy().astype(np.float32)
        inward.append(np.abs(corners - unit))
        expected = cv2.perspectiveTransform(flat[None], cv2.getPerspectiveTransform(unit, corners))[0]
        assert np.allclose(source.flatten(1).T.numpy(), expected, atol=1e-4)
    assert np.max(inward) <= 0.2 + 1e-5 and np.max(inward) > 0.15 and 0.08 < np.mean(inward) < 0.12


def test_shift_scale_rotate_is_a_similarity_within_its_limits() -> None:
    """In pixels, from three points near the middle, where nothing comes from outside."""
    out = came_from("shift_scale_rotate(shift=0.1, scale=0.2, degrees=30, p=1.0)", 64)
    pixels = out * torch.tensor([W - 1, H - 1])[:, None, None]
    middle, right, below = pixels[:, :, 20, 12], pixels[:, :, 20, 14], pixels[:, :, 22, 12]
    across, down = (right - middle) / 2, (below - middle) / 2
    assert (across * down).sum(1).abs().max() < 1e-3
    assert torch.allclose(across.norm(dim=1), down.norm(dim=1), atol=1e-3)
    size, angle = 1 / across.norm(dim=1), torch.rad2deg(torch.atan2(across[:, 1], across[:, 0]))
    assert 0.79 < size.min() < 0.87 and 1.13 < size.max() < 1.21
    assert -30.1 < angle.min() < -22 and 22 < angle.max() < 30.1
    shift = (middle - torch.tensor([12.0, 20.0])) * size[:, None]
    turned = shift.norm(dim=1)
    assert 1.5 < turned.max() <= 0.1 * np.hypot(W, H) + 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grid_distortion(0)", r"steps cannot be 0; expected 1\.\.50"),
        ("grid_distortion(limit=1)", r"limit cannot be 1.*expected 0\.\.0\.9"),
        ("optical_distortion(0.4)", r"limit cannot be 0\.4; expected 0\.\.0\.3"),
        ("elastic(-0.1)", r"std cannot be -0\.1"),
        ("elastic(cells=1)", r"cells cannot be 1; expected 2\.\.32"),
        ("perspective(0.5)", r"scale cannot be 0\.5; expected 0\.\.0\.45"),
        ("perspective(p=-1)", "p is a chance and cannot be -1"),
    ],
)
def test_values_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match="^train.augment: .*" + words):
        make_augment(text)
