"""Views at test time: what they look at, and that every prediction of a network with views is their mean."""

from __future__ import annotations

import pytest
import torch
from helpers import every

from threefold.errors import RecipeError
from threefold.learn.net import bind_net, to_float
from threefold.learn.tta import VIEWS, make_views
from threefold.photos.prepare import Prepare


@pytest.mark.parametrize("text", every(VIEWS))
def test_views_keep_shape_and_range_and_the_first_is_the_photo(text: str) -> None:
    images = torch.rand(3, 3, 24, 18)
    seen = [view(images) for view in make_views(text)]
    assert all(view.shape == images.shape and view.min() >= 0 and view.max() <= 1 for view in seen)
    assert torch.equal(seen[0], images)
    assert len({view.sum(1).numpy().tobytes() for view in seen}) == len(seen), "no view is there twice"


def test_a_chain_gives_every_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, "darker", lambda: [lambda x: x, lambda x: x / 2, lambda x: x / 4])
    assert [len(make_views(text)) for text in ("none", "flip", "darker", "flip|darker")] == [1, 2, 3, 6]
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(make_views("flip|darker")[5](images), images.flip(3) / 4)


@pytest.mark.parametrize("head", ["multi", "multi(age=dldl)"])
def test_a_network_answers_with_the_mean_of_its_views(head: str) -> None:
    torch.manual_seed(0)
    net = bind_net("test_efficientnet", head, tta="flip")(Prepare(size=(32, 24))).eval()
    photos = torch.randint(0, 256, (4, 32, 24, 3), dtype=torch.uint8)
    joint, years = net.read(photos)
    both = [net(to_float(images)) for images in (photos, photos.flip(2))]
    assert torch.allclose(joint, sum(net.head.joint(outputs) for outputs in both) / 2, atol=1e-6)
    assert (years is None) == (head == "multi")
    if years is not None:
        assert torch.allclose(years, sum(net.head.years(outputs) for outputs in both) / 2, atol=1e-4)
    assert torch.allclose(joint, net.read(photos.flip(2))[0], atol=1e-6), "mirrored photos are read alike"


@pytest.mark.parametrize("text", ["flip(1)", "flip+flip", "0.5*flip", "flop"])
def test_values_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="tta"):
        make_views(text)
