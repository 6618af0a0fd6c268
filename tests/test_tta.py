"""Views at test time: what they look at, and that every prediction of a network with views is their mean."""

from __future__ import annotations

import pytest
import torch

from threefold.errors import RecipeError
from threefold.learn.net import build_net, to_float
from threefold.learn.tta import VIEWS, make_views

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("text", [*VIEWS, "crops(0.5)", "flip|crops"])
def test_views_keep_shape_and_range_and_the_first_is_the_photo(text: str) -> None:
    images = torch.rand(3, 3, 24, 18)
    views = make_views(text) or (lambda x: x,)
    seen = [view(images) for view in views]
    assert all(view.shape == images.shape and view.min() >= 0 and view.max() <= 1 for view in seen)
    assert torch.equal(seen[0], images)
    assert len({view.sum(1).numpy().tobytes() for view in seen}) == len(seen), "no view is there twice"


@pytest.mark.parametrize(("text", "count"), [("none", 0), ("flip", 2), ("crops", 6), ("flip|crops(0.8)", 12)])
def test_a_chain_gives_every_combination(text: str, count: int) -> None:
    assert len(make_views(text)) == count


def test_crops_show_the_corners() -> None:
    images = torch.zeros(1, 1, 20, 20)
    images[..., :10, :10] = 1
    shares = [float(view(images).mean()) for view in make_views("crops(0.5)")]
    assert shares[0] == pytest.approx(0.25)
    assert shares[1] == pytest.approx(1.0) and shares[2:5] == pytest.approx([0.0] * 3) and 0 < shares[5] < 1


@pytest.mark.parametrize("head", ["multi", "multi(age=dldl)"])
def test_a_network_answers_with_the_mean_of_its_views(head: str) -> None:
    torch.manual_seed(0)
    net = build_net("test_efficientnet", head, (32, 24), *HALF, tta="flip").eval()
    photos = torch.randint(0, 256, (4, 32, 24, 3), dtype=torch.uint8)
    joint, years = net.read(photos)
    each = [net._answer(images) for images in (to_float(photos), to_float(photos.flip(2)))]
    assert torch.allclose(joint, (each[0][0] + each[1][0]) / 2, atol=1e-6)
    assert (years is None) == (head == "multi")
    if years is not None:
        assert each[0][1] is not None and each[1][1] is not None
        assert torch.allclose(years, (each[0][1] + each[1][1]) / 2, atol=1e-4)
    assert torch.allclose(joint, net.read(photos.flip(2))[0], atol=1e-6), "mirrored photos are read alike"


@pytest.mark.parametrize("text", ["crops(0)", "crops(1)", "flip+crops", "0.5*flip", "flop"])
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="tta"):
        make_views(text)
