"""What a decision is worth: the gain in macro F1, whether the confidence means what it says, the price of silence.

Everything is about what was said, by the plain networks (`plain`) and by the decision (`decided`). Hand over a
`decide.cross_fit`, never a decision applied to the photos it was fitted on. Intervals are 95 %, over persons, paired
where two numbers are compared.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.evidence.bootstrap import Floats, estimate, person_sums, ratio
from threefold.evidence.calibrate import LEAST, aurc, reliability, risk_coverage
from threefold.evidence.compare import compare_predictions
from threefold.evidence.decide import Decided, Decision, as_certain
from threefold.predictions import Predictions

COVERAGES = (1.0, 0.95, 0.9, 0.8)
"""Shares of the photos for which the risk is reported."""
CLAIMS = (
    *("ece.plain", "nll.plain", "ece.decided", "nll.decided", "said.share", "ece.difference", "nll.difference"),
    *(f"risk.{share:g}" for share in COVERAGES),
    "said.risk",
)
"""Names of the numbers with an interval, per task; differences are decided minus plain.

`ece`: expected calibration error, 0..1: |accuracy - confidence| of the bins of `calibrate.reliability`, weighed by
photos (Naeini et al. 2015); never exactly 0 for a finite number of photos, however well calibrated. `nll`: mean
negative log likelihood of the truth, in nats. `risk.0.9`: share that is wrong of the surest 90 % as decided.
`said.share`, `said.risk`: of the photos whose attribute is not indeterminate (class: none of the three), and the share
of them that is wrong."""
POINTS = 101
"""Most points of a risk-coverage curve that are kept."""


def review(predictions: Predictions, decided: Decided, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Numbers are {value, low, high}, null where nothing is known.

    macro_f1: plain, decided, difference, verdict (better, worse, can't tell) and persons_needed, as `compare` has them.
    class, mask, gender, age_group, each where its truth is known: photos, CLAIMS, and as decided `aurc`, `bins`
    (`calibrate.reliability`) and `curve`: [[coverage, risk], ...], the surest first.
    Raises DataError where no photo has a label.
    """
    plain = Decision().apply(predictions.probabilities)
    both = [as_certain(predictions, one.code) for one in (decided, plain)]
    comparison = compare_predictions(*both, draws=draws, seed=seed)
    result: dict[str, Any] = {
        "macro_f1": {
            "plain": comparison.other["all.macro_f1"],
            "decided": comparison.one["all.macro_f1"],
            "difference": comparison.headline,
            "verdict": comparison.verdict,
            "persons_needed": comparison.persons_needed,
        }
    }
    truths = {"class": predictions.label, **dict(zip(labels.ATTRIBUTES, predictions.truth.T.astype(int), strict=True))}
    for name, truth in truths.items():
        rows = np.flatnonzero(truth != labels.UNKNOWN)
        views = [tuple(part[rows] for part in _view(one, name)) for one in (plain, decided)]
        if len(rows):
            result[name] = _claims(predictions.persons[rows], truth[rows], *views, draws=draws, seed=seed)
    return result


def _view(decided: Decided, task: str) -> tuple[NDArray[Any], ...]:
    """[N] what was said, [N] how surely, [N, K] probabilities, [N] whether it is indeterminate."""
    if task == "class":
        return decided.code, decided.confidence, decided.probabilities, np.asarray(decided.indeterminate.any(1))
    column, marginal = list(labels.ATTRIBUTES).index(task), labels.marginals(decided.probabilities)[task]
    code = labels.decode_all(decided.code)[:, column].astype(np.int64)
    return code, decided.confidences[:, column], marginal, decided.indeterminate[:, column]


def _claims(
    persons: NDArray[Any], truth: NDArray[np.int64], plain: Any, decided: Any, *, draws: int, seed: int
) -> dict[str, Any]:
    """Of one task; each number is made of columns summed over persons, so that all have intervals by the same draws."""
    blocks: list[NDArray[Any]] = []
    for code, confidence, probabilities, _ in (plain, decided):
        bins = reliability(confidence, code == truth)
        inside = np.searchsorted([b.high for b in bins], confidence)[:, None] == np.arange(len(bins))
        loss = -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], LEAST))
        blocks += [inside * ((code == truth) - confidence)[:, None], loss[:, None]]
    code, confidence, _, silent = decided
    coverage, risk = risk_coverage(confidence, code == truth)
    ends = [-np.sort(-confidence)[np.searchsorted(coverage, share - 1e-9)] for share in COVERAGES]
    answered = np.concatenate([confidence[:, None] >= ends, ~silent[:, None]], axis=1)
    blocks += [answered, answered & (code != truth)[:, None], np.ones((len(truth), 1))]
    cut = np.cumsum([block.shape[1] for block in blocks])[:-1]

    def numbers(total: Floats) -> Floats:
        """[..., C] -> [..., 12], in the order of CLAIMS."""
        gap, loss, less, lower, answers, wrong, photos = np.split(total, cut, axis=-1)
        gaps = [np.abs(part).sum(-1, keepdims=True) for part in (gap, less)]
        rates = np.concatenate([gaps[0], loss, gaps[1], lower, answers[..., -1:]], axis=-1) / photos
        risks = ratio(wrong, answers)
        return np.concatenate([rates, rates[..., 2:4] - rates[..., :2], risks], axis=-1)

    result = estimate(persons, person_sums(persons, np.concatenate(blocks, axis=1)), numbers, draws, seed)
    points = np.unique(np.linspace(0, len(risk) - 1, POINTS).astype(int))
    curve = np.stack([coverage, risk], axis=1)[points].round(5).tolist()
    kinds = {"aurc": aurc(risk), "bins": [asdict(b) for b in bins], "curve": curve}
    return {"photos": len(truth), **result.named(CLAIMS), **kinds}
