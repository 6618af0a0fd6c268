"""Views of a photo whose answers are averaged (test-time augmentation), inside `Net.read`.

They are part of the network, not of the reader, so that validation, prediction and the exported model look at the same
views and a recipe's out-of-fold score is that of what will be run. Each view costs one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from threefold import spec
from threefold.errors import RecipeError

View = Callable[[Tensor], Tensor]
"""Float [B, 3, H, W] -> the same shape."""


def none() -> list[View]:
    """The photo as it is."""
    return [_same]


def flip() -> list[View]:
    """The photo and its mirror image."""
    return [_same, _flip]


def crops(ratio: float = 0.9) -> list[View]:
    """The whole photo, its four corners and its middle, each `ratio` of height and width, scaled to the size."""
    if not 0 < ratio < 1:
        raise RecipeError(f"tta: crops(ratio={ratio}) cannot be; expected 0 < ratio < 1")
    places = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]
    return [_same, *(partial(_crop, ratio=ratio, top=top, left=left) for top, left in places)]


def make_views(text: str) -> tuple[View, ...]:
    """Views of a recipe's `tta`; a chain gives every combination (`flip|crops` looks twelve times)."""
    views: list[View] = [_same]
    for more in spec.build_chain(text, VIEWS, "tta"):
        views = [partial(_both, first=first, then=then) for first in views for then in more]
    return tuple(views) if len(views) > 1 else ()


def _same(images: Tensor) -> Tensor:
    return images


def _flip(images: Tensor) -> Tensor:
    return images.flip(3)


def _both(images: Tensor, first: View, then: View) -> Tensor:
    return then(first(images))


def _crop(images: Tensor, ratio: float, top: float, left: float) -> Tensor:
    size = images.shape[-2:]
    height, width = (max(1, round(side * ratio)) for side in size)
    row, column = round((size[0] - height) * top), round((size[1] - width) * left)
    part = images[..., row : row + height, column : column + width]
    return F.interpolate(part, size, mode="bilinear", align_corners=False)


VIEWS = {"none": none, "flip": flip, "crops": crops}
