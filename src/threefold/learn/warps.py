"""Augmentations that bend a photo: lens, grid, rubber sheet, viewpoint.

Each is a field of the places that pixels come from, drawn per photo, and one `grid_sample` for the batch. Places run
from -1 to 1 between the centres of the outermost pixels, so a field that bends nothing gives the photo back. What comes
from outside is filled from the border: kornia's own perspective, elastic and fisheye fill with black, which a network
learns in place of the face, and its elastic takes five times as long.
"""

import torch
from kornia.geometry.transform import get_perspective_transform, warp_perspective
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from threefold.learn.draws import Augment, sometimes, uniform, within


def grid_distortion(steps: int = 5, *, limit: float = 0.3, p: float = 0.5) -> Augment:
    """Cut into `steps` x `steps` cells (1..50) and stretch or squeeze each row and column of them; the border stays.

    limit: widths and heights are times 1 +- `limit` (0..0.9), then scaled to fill the photo.
    """
    within("steps", steps, 1, 50)
    within("limit", limit, 0, 0.9)

    def change(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        edges = F.pad((1 + limit * uniform(images, 2, steps)).cumsum(2), (1, 0))
        edges = 2 * edges / edges[:, :, -1:] - 1  # of the cells a pixel comes from
        across = F.interpolate(edges[:, :1], width, mode="linear", align_corners=True).expand(-1, height, -1)
        down = F.interpolate(edges[:, 1:], height, mode="linear", align_corners=True).expand(-1, width, -1)
        return _fetch(images, torch.stack([across, down.transpose(1, 2)], 3))

    return sometimes(change, p)


def optical_distortion(limit: float = 0.2, *, p: float = 0.5) -> Augment:
    """A lens's barrel or pincushion: what is at distance r from the centre comes from r (1 + k r^2).

    r is 1 at the corners; k is drawn from +-`limit` (0..0.3: beyond 1/3 the picture folds). Brown, 1966, first term.
    """
    within("limit", limit, 0, 0.3)

    def change(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        places = _places(images)
        size = torch.tensor([width, height], device=images.device)
        radius = (places * size).square().sum(3, keepdim=True) / size.square().sum()
        return _fetch(images, places * (1 + limit * uniform(images, 1, 1, 1) * radius))

    return sometimes(change, p)


def elastic(std: float = 0.02, *, cells: int = 4, p: float = 0.5) -> Augment:
    """Pull a rubber sheet at `cells` x `cells` points (2..32) by Gaussian steps, smooth between them.

    std: standard deviation of a step as a share of the side (0..0.2). Ronneberger et al., "U-Net", 2015: 3 x 3 points,
    10 of 512 pixels, bicubic. More cells need smaller steps, or the sheet folds.
    """
    within("std", std, 0, 0.2)
    within("cells", cells, 2, 32)

    def change(images: Tensor) -> Tensor:
        pull = 2 * std * torch.randn(len(images), 2, cells, cells).to(images)
        field = F.interpolate(pull, images.shape[2:], mode="bicubic", align_corners=True)
        return _fetch(images, _places(images) + field.permute(0, 2, 3, 1))

    return sometimes(change, p)


def perspective(scale: float = 0.1, *, p: float = 0.5) -> Augment:
    """Seen from elsewhere: a four-cornered part, each corner up to `scale` of the sides (0..0.45) inside, fills it."""
    within("scale", scale, 0, 0.45)

    def change(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        unit = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]).to(images)
        size = torch.tensor([width - 1.0, height - 1]).to(images)
        inward = (1 - 2 * unit) * scale * uniform(images, 4, 2).abs()
        matrix = get_perspective_transform((unit + inward) * size, (unit * size).expand(len(images), -1, -1))
        warped: Tensor = warp_perspective(images, matrix, (height, width), padding_mode="border", align_corners=True)
        return warped

    return sometimes(change, p)


def _places(images: Tensor) -> Tensor:
    """[B, H, W, 2]: x and y of every pixel."""
    stay = torch.eye(2, 3).expand(len(images), -1, -1).to(images)
    return F.affine_grid(stay, list(images.shape), align_corners=True)


def _fetch(images: Tensor, places: Tensor) -> Tensor:
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=True)


WARPS = (perspective, grid_distortion, optical_distortion, elastic)
