"""Whether one classifier scored better than another: the difference on the same people, with its interval.

Two runs on the same folds are right and wrong about the same people, so the difference is far less uncertain than
either score. Every draw of persons gives both scores and their difference (a paired cluster bootstrap, `bootstrap.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from threefold.errors import DataError
from threefold.evidence.bootstrap import estimate
from threefold.evidence.metrics import COLUMNS, columns_of, person_counts
from threefold.predictions import Predictions


def difference(one: Predictions, other: Predictions, *, draws: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """`one` minus `other` for every number of `metrics.COLUMNS`: {value, low, high}, null where nothing is known.

    low and high are the ends of the 95 % interval. Raises DataError unless both are about the same photos, persons and
    truth.
    """
    count, other = len(other), other.align(one.photos.tolist())
    if count != len(one) or (other.persons != one.persons).any() or (other.truth != one.truth).any():
        raise DataError("compare: the two predictions are not about the same photos, persons and labels")
    counts = np.concatenate([person_counts(one), person_counts(other)], axis=1)
    half = counts.shape[1] // 2
    found = estimate(
        one.persons, counts, lambda sums: columns_of(sums[..., :half]) - columns_of(sums[..., half:]), draws, seed
    )
    rows = zip(COLUMNS, found.value.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return {
        name: {key: x if np.isfinite(x) else None for key, x in zip(("value", "low", "high"), numbers, strict=True)}
        for name, *numbers in rows
    }
