"""Where in a photo an answer comes from: occlusion of any classifier, Grad-CAM of one network.

Occlusion needs nothing but answers: it works on separate parts, votes and exported models, costs a forward pass per
place, and sees what the answer really depends on. Grad-CAM costs one pass forward and three back, and shows where the
last feature map holds what speaks for the answer; it needs a network that has such a map. They answer different
questions and a report shows both. Maps are small (a cell per place or position); whoever draws them scales them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefold import labels
from threefold.learn.backbones import Concatenated, Split
from threefold.learn.net import Net, to_float

Read = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""uint8 [B, H, W, 3] -> probabilities [B, 18]."""

PATCH = 2
"""Cells along a side of what is covered at a time; a cell's effect is the mean of all the patches over it."""
_BYTES, _LEAST, _DUST = 1 << 26, 1e-30, 1e-6


def occlusion(
    read: Read, photo: NDArray[np.uint8], codes: NDArray[np.integer], grid: tuple[int, int] = (8, 6)
) -> NDArray[np.float32]:
    """How much of each answer's log probability (nats) goes when a place is covered: [3, down, across], of one photo.

    Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.2.
    photo: uint8 [H, W, 3]; codes: [3], the mask, gender and age group whose probability is looked at. What is
    covered takes the photo's mean colour. Below 0 where covering makes the answer surer. grid: cells (down, across),
    nearly square on photos of faces. Patches are read in batches of at most 64 MB of pixels. What moves by less than a
    millionth counts as 0: answers are float32.
    """
    down, across = grid
    tops, lefts = (np.linspace(0, side, n + 1).round().astype(int) for side, n in zip(photo.shape, grid, strict=False))
    fill = photo.mean((0, 1)).round().astype(np.uint8)
    places = [(row, column) for row in range(down - PATCH + 1) for column in range(across - PATCH + 1)]
    total, times = np.zeros((3, down, across), dtype=np.float32), np.zeros(grid, dtype=np.float32)
    whole = _log_probabilities(read(photo[None]), codes)
    step = max(1, _BYTES // photo.nbytes)
    for start in range(0, len(places), step):
        part = places[start : start + step]
        covered = np.repeat(photo[None], len(part), axis=0)
        for image, (row, column) in zip(covered, part, strict=True):
            image[tops[row] : tops[row + PATCH], lefts[column] : lefts[column + PATCH]] = fill
        for drop, (row, column) in zip(whole - _log_probabilities(read(covered), codes), part, strict=True):
            total[:, row : row + PATCH, column : column + PATCH] += drop[:, None, None]
            times[row : row + PATCH, column : column + PATCH] += 1
    drops = total / times
    return np.where(np.abs(drops) < _DUST, np.float32(0), drops)


def grad_cam(net: Net, photos: NDArray[np.uint8], codes: NDArray[np.integer]) -> NDArray[np.float32] | None:
    """What speaks for each answer in the last feature map: [B, 3, h, w], 0 or more; None where there is no such map.

    Selvaraju et al., "Grad-CAM", 2017.
    photos: uint8 [B, H, W, 3] as prepared; codes: [B, 3]. The score whose gradient weighs the channels is the log
    odds of the answer (for a softmax that is its logit against the rest; other heads have no logit of a group). Joined
    backbones have a map each: their weighted sums are added, at the size of the largest. Of a backbone split in three,
    each answer uses its own branch. The photo is looked at as it is, without the views of test-time augmentation. A map
    of one position has no places and counts as none; transformers over tokens have none.
    """
    images = to_float(torch.from_numpy(np.ascontiguousarray(photos)).to(net.mean.device))
    answers = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(images.device)
    with torch.enable_grad():
        maps, features = _mapped(net.backbone, ((images - net.mean) / net.std).requires_grad_())
        if not maps:
            return None
        outputs = {name: raw.float() for name, raw in net.head.outputs(features).items()}
        cube = net.head.joint(outputs).reshape(-1, *labels.SIZES.values())
        scores = [_log_odds(cube, axis, answers[:, axis - 1]).sum() for axis in (1, 2, 3)]
    size = max((tuple(one.shape[-2:]) for one in maps), key=lambda side: side[0] * side[1])
    cams = torch.zeros(len(images), 3, *size, device=images.device)
    for place, score in enumerate(scores):
        if score.requires_grad:  # a head of one attribute has the others at a constant, whatever the photo
            gradients = torch.autograd.grad(score, maps, retain_graph=True, materialize_grads=True)
            for one, gradient in zip(maps, gradients, strict=True):
                # a channel weighs the sum of its gradient, not the mean, so that maps of two sizes add up in one unit
                cam = (one.detach() * gradient.sum((2, 3), keepdim=True)).sum(1)
                # branches of a split backbone lie one behind the other
                cam = cam.view(-1, len(images), 1, *cam.shape[1:]).sum(0)
                cams[:, place] += nn.functional.interpolate(cam, size, mode="bilinear", align_corners=False)[:, 0]
    return np.asarray(cams.relu().cpu().numpy(), dtype=np.float32)


def _log_probabilities(joint: NDArray[np.floating], codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """[B, 18] -> [B, 3] log probability of each attribute's code."""
    chosen = [part[:, code] for part, code in zip(labels.marginals(joint).values(), codes, strict=True)]
    return np.log(np.maximum(np.stack(chosen, 1), _LEAST, dtype=np.float64))


def _log_odds(cube: Tensor, axis: int, codes: Tensor) -> Tensor:
    """[B, 3, 2, 3] -> [B]; the rest is summed, not 1 - p, which is 0 long before the rest is."""
    marginal = cube.sum([other for other in (1, 2, 3) if other != axis])
    chosen = nn.functional.one_hot(codes, marginal.shape[1])
    return (marginal * chosen).sum(1).clamp_min(_LEAST).log() - (marginal * (1 - chosen)).sum(1).clamp_min(_LEAST).log()


def _mapped(body: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """(last feature maps [n B, C, h, w] in the graph of the features, features [B, F]) of a backbone."""
    if isinstance(body, Concatenated):
        parts = [_mapped(member, images) for member in body.members]
        return [one for maps, _ in parts for one in maps], torch.cat([features for _, features in parts], 1)
    if isinstance(body, Split):
        maps, features = _mapped(body.body, images)
        return maps, torch.cat(list(features.chunk(3)), 1)
    if isinstance(body, nn.Sequential):  # a small network of ours: the last layer's output that has places
        maps, last = [], images
        for layer in body:
            inner, last = _mapped(layer, last) if isinstance(layer, Concatenated) else ([], layer(last))
            maps = inner or ([last] if _has_places(last) else maps)
        return maps, last
    timm: Any = body  # every other backbone is one of timm's
    one = features = timm.forward_features(images)
    if getattr(timm, "output_fmt", "NCHW") == "NHWC" and features.ndim == 4:
        one = features.permute(0, 3, 1, 2)
        features = one.permute(0, 2, 3, 1)  # the way to the head leads over the map, so that it has a gradient
    return ([one] if _has_places(one) else []), timm.forward_head(features)


def _has_places(features: Tensor) -> bool:
    return features.ndim == 4 and features.shape[-1] * features.shape[-2] > 1
