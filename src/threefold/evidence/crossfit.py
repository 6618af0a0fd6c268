"""Which people are held out together when something is fitted on out-of-fold predictions and scored honestly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError
from threefold.predictions import Predictions


def sides(predictions: Predictions, k: int = 5, seed: int = 0) -> NDArray[np.integer]:
    """[N] number of the part of the people each photo is held out with; a person is in one part.

    The folds of the run where it has several (they keep people who share a photo together), else `k` lots of persons by
    `seed`. Raises DataError where there are fewer than two persons.
    """
    if len(np.unique(predictions.fold)) > 1:
        return predictions.fold
    names, rows = np.unique(predictions.persons, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"a cross-fit holds persons out and there is {len(names)} here; expected 2 or more")
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[rows] % k)
