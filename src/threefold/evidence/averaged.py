"""A decision of single networks, made to fit what several of them say together.

Out-of-fold predictions are of one network each, but a run reads new photos with the mean of all its folds' networks.
The mean is less sure than any of them (where they differ, it stands between) and more often right, so temperatures of
single networks leave it too unsure, by up to 13 points of confidence (docs/evidence.md; Rahaman & Thiery 2021,
"Uncertainty quantification and deep ensembles"; Wu & Gales 2021, "Should ensemble members be calibrated?"). Both
calibrate on labels that no member has seen, which folds do not leave; here photos without labels are enough.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import AnyFloats
from threefold.evidence.calibrate import fit_mean_temperature, temper
from threefold.evidence.decide import Decision, least_confidence


def for_mean(single: Decision, members: AnyFloats, mean: AnyFloats, *, coverage: float | None = None) -> Decision:
    """The decision for `mean` [N, 18] (what is read with) that does what `single` does for `members` [M, N, 18].

    Both as the networks give them, of N photos of people that no member has seen; no labels. Offsets are moved with
    the temperatures, so that they change the answer at the same calibrated share; borders in years stay. With
    `coverage` an attribute is indeterminate for the least sure of these photos; else the least confidences stay, as
    they are calibrated ones. Raises DataError for shapes that do not fit and for no photos.
    """
    if members.ndim != 3 or members.shape[1:] != mean.shape or mean.shape[1:] != (labels.CLASSES,) or not mean.size:
        raise DataError(f"members {members.shape}, mean {mean.shape}; expected [M, N, {labels.CLASSES}] and [N, ...]")
    # With their temperatures the single networks mean what they say. So labels drawn from what the mean says must find
    # them calibrated again, and its temperature is that for which they are. This assumes that they mean what they say
    # on these photos too, which may be easier or harder than those of the training but of no other kind.
    parts = [labels.marginals(member) for member in members]
    temperature = {}
    for name, part in labels.marginals(mean).items():
        calibrated = np.stack([temper(member[name], single.temperature[name]) for member in parts])
        temperature[name] = fit_mean_temperature(part, calibrated)
    ratio = {name: temperature[name] / single.temperature[name] for name in temperature}
    decision = replace(single, temperature=temperature, offsets=_moved(np.array(single.offsets), ratio))
    if coverage is None:
        return decision
    columns = zip(labels.ATTRIBUTES, decision.apply(mean).confidences.T, strict=True)
    unlabelled = np.ones(len(mean), bool)
    return replace(decision, abstain={n: least_confidence(sure, unlabelled, coverage, None) for n, sure in columns})


def _moved(offsets: AnyFloats, ratio: dict[str, float]) -> tuple[float, ...]:
    """[18] offsets of log probabilities that are `ratio` times as wide apart.

    What an attribute adds is multiplied by its own ratio, what only a class adds by the mean of all.
    """
    cube = offsets.reshape(tuple(labels.SIZES.values()))
    rest, moved = cube - cube.mean(), np.zeros_like(cube)
    for axis, name in enumerate(labels.ATTRIBUTES):
        others = tuple({0, 1, 2} - {axis})
        part = cube.mean(others, keepdims=True) - cube.mean()
        rest = rest - part
        moved = moved + part * ratio[name]
    moved = moved + rest * float(np.exp(np.mean(np.log(list(ratio.values())))))
    return tuple((moved - moved.ravel()[1]).round(9).ravel().tolist())
