"""Views of a photo whose answers are averaged (test-time augmentation), inside `Net.read`.

They are part of the network, not of the reader, so that validation, prediction and the exported model look at the same
views and a recipe's out-of-fold score is that of what will be run. Each view costs one more forward pass.
"""

from collections.abc import Callable

from torch import Tensor

from threefold import spec

View = Callable[[Tensor], Tensor]
"""Float [B, 3, H, W] -> the same shape."""


def unchanged(images: Tensor) -> Tensor:
    """The photo as it is."""
    return images


def none() -> list[View]:
    """The photo as it is."""
    return [unchanged]


def flip() -> list[View]:
    """The photo and its mirror image."""
    return [unchanged, lambda images: images.flip(3)]


def make_views(text: str) -> tuple[View, ...]:
    """Views of a recipe's `tta`, the photo as it is among them; a chain gives every combination."""
    views: list[View] = [unchanged]
    for step in spec.build_chain(text, VIEWS, "tta"):
        views = [_both(first, second) for first in views for second in step]
    return tuple(views)


def _both(first: View, second: View) -> View:
    return lambda images: second(first(images))


VIEWS = {"none": none, "flip": flip}
