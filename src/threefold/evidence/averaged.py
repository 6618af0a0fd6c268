"""A decision of single networks, made to fit what several of them say together.

Out-of-fold predictions are of one network each, but a run reads new photos with the mean of all its folds' networks.
The mean is less sure than any of them (where they differ, it stands between) and more often right, so temperatures of
single networks leave it too unsure, by up to 13 points of confidence (docs/evidence.md). Its own temperature needs no
labels, only photos of people whom no network has seen. Temperatures of the single networks
are known; with them each says what it means. So labels drawn from what the mean says must find the single networks
calibrated again: the temperature of the mean is that for which they are (`fit_mean_temperature`). What is assumed is
that the networks mean what they say on these photos too, as they do out of fold: the photos may be easier or harder
than the training's, but must be of its kind. That ensembles of calibrated networks are too unsure is known (Rahaman &
Thiery 2021, "Uncertainty quantification and deep ensembles"; Wu & Gales 2021, "Should ensemble members be
calibrated?"); both calibrate on labels that no member has seen, which folds do not leave.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.calibrate import fit_mean_temperature, temper
from threefold.evidence.decide import Decision, least_confidence

Floats = NDArray[np.floating]


def for_mean(single: Decision, members: Floats, mean: Floats, *, coverage: float | None = None) -> Decision:
    """The decision for `mean` [N, 18] (what is read with) that does what `single` does for `members` [M, N, 18].

    Both as the networks give them, of N photos of people that no member has seen; no labels. Offsets are moved with
    the temperatures, so that they change the answer at the same calibrated share; borders in years stay. With
    `coverage` an attribute is indeterminate for the least sure of these photos; else the least confidences stay, as
    they are calibrated ones. Raises DataError for shapes that do not fit and for no photos.
    """
    if members.ndim != 3 or members.shape[1:] != mean.shape or mean.shape[1:] != (labels.CLASSES,) or not mean.size:
        raise DataError(f"members {members.shape}, mean {mean.shape}; expected [M, N, {labels.CLASSES}] and [N, ...]")
    each = [labels.marginals(member) for member in members]
    temperature = {
        name: fit_mean_temperature(part, np.stack([temper(member[name], single.temperature[name]) for member in each]))
        for name, part in labels.marginals(mean).items()
    }
    ratio = {name: temperature[name] / single.temperature[name] for name in temperature}
    found = replace(single, temperature=temperature, offsets=_moved(np.array(single.offsets), ratio))
    if coverage is None:
        return found
    sure = found.apply(mean).confidences
    least = {name: least_confidence(sure[:, c], np.ones(len(sure), bool), coverage, None)
             for c, name in enumerate(labels.ATTRIBUTES)}  # fmt: skip
    return replace(found, abstain=least)


def _moved(offsets: Floats, ratio: dict[str, float]) -> tuple[float, ...]:
    """[18] offsets of log probabilities that are `ratio` times as wide apart: what an attribute adds by its own ratio,
    what only a class adds by the mean of all."""
    cube = offsets.reshape(tuple(labels.SIZES.values()))
    rest, moved = cube - cube.mean(), np.zeros_like(cube)
    for axis, name in enumerate(labels.ATTRIBUTES):
        other = tuple({0, 1, 2} - {axis})
        own = cube.mean(other, keepdims=True) - cube.mean()
        rest = rest - own
        moved = moved + own * ratio[name]
    moved = moved + rest * float(np.exp(np.mean(np.log(list(ratio.values())))))
    return tuple((moved - moved.ravel()[1]).round(9).ravel().tolist())
