"""How much of the lead of the best of many runs is luck: it was chosen because it scored best on these very people.

The highest of N scores is too high even when all N runs are equally good. How much of the lead survives on people who
had no part in the choice is asked of the bootstrap: choose the best run on the persons of a draw, look at it on the
persons the draw left out (Tsamardinos, Greasidou & Borboudakis, "Bootstrapping the out-of-sample predictions for
efficient and accurate cross-validation", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from threefold.errors import DataError
from threefold.evidence.bootstrap import person_draws
from threefold.evidence.metrics import macro_counts, macro_mean
from threefold.predictions import Predictions


def lead(runs: Sequence[Predictions], *, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """Lead in macro F1 of the best run over the mean of all runs: on everybody, and on people it was not chosen by.

    runs: two or more, on the same photos; else DataError. NaN where no photo knows all three labels.
    """
    persons = runs[0].persons if runs else np.array([])
    if len(runs) < 2 or any(not np.array_equal(np.sort(run.photos), np.sort(runs[0].photos)) for run in runs):
        raise DataError("a lead is of two or more runs on the same photos")
    sums = [macro_counts(run, ["all"]) for run in runs]
    # leads are compared, not scores, because macro F1 depends on how many people it is taken over
    whole = np.array([macro_mean(part.sum(0), ["all"])[0] for part in sums])
    leads = []
    for weights in person_draws(persons, draws, seed):
        inside, outside = (
            np.stack([macro_mean(drawn @ part, ["all"])[:, 0] for part in sums])
            for drawn in (weights, (weights == 0).astype(np.float64))
        )
        rows = np.flatnonzero(np.isfinite(inside + outside).all(0))
        leads.append(outside[inside[:, rows].argmax(0), rows] - outside[:, rows].mean(0))
    # a draw holds 63 % of the persons, so the estimate errs on the safe side
    lasting = np.concatenate(leads)
    return float(whole.max() - whole.mean()), float(lasting.mean()) if len(lasting) else float("nan")
