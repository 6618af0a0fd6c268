"""Does a confidence of the mean of several networks mean what it says? A run's decision against eval people's answers.

    python benchmarks/calibration.py RUN EVAL ANSWERS.csv [--seed 0]

RUN is a run of two folds or more; EVAL and ANSWERS people it has never seen. Temperatures are fitted three ways: on
out-of-fold predictions, which are of single networks; then made to fit the mean by unlabelled photos of EVAL
(`decide --unlabelled`); and, as the best there can be, on the answers themselves, cross-fitted (`decide --on test`).
Prints, for each attribute: accuracy, mean confidence, calibration error and log loss on EVAL with an interval of the
difference to the first way (paired over persons).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

import threefold
from threefold import labels
from threefold.evidence.bootstrap import estimate, person_sums
from threefold.evidence.calibrate import LEAST, reliability
from threefold.evidence.decide import Decision, cross_fit
from threefold.predictions import Predictions
from threefold.runs import Run


def decisions(run: Path, photos: Path, seed: int) -> dict[str, Decision]:
    """Of single networks, and for their mean."""
    fitted = {}
    with tempfile.TemporaryDirectory() as home:
        for name, place in (("of single networks", None), ("for their mean", photos)):
            result = threefold.decide(run, rule="none", unlabelled=place, seed=seed, out=Path(home) / "decision.json")
            fitted[name] = Decision.from_dict(result.data()["decision"])
    return fitted


def losses(test: Predictions, joint: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[N] log loss, [N] confidence and [N] whether right, of one attribute."""
    part, truth = labels.marginals(joint)[list(labels.ATTRIBUTES)[column]], test.truth[:, column].astype(int)
    rows = np.arange(len(test))
    return -np.log(np.maximum(part[rows, truth], LEAST)), part.max(1), part.argmax(1) == truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("eval", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        threefold.predict([asked.eval], asked.run, answers=asked.answers, plain=True)
    test = Run(asked.run).predictions("test")
    test = test.take((test.truth != labels.UNKNOWN).all(1))
    ways = {"as the networks say": test.probabilities.astype(np.float64)}
    fitted = decisions(asked.run, asked.eval, asked.seed)
    ways |= {name: decision.calibrate(test.probabilities) for name, decision in fitted.items()}
    ways["on the answers"] = cross_fit(test, rule="none", seed=asked.seed)[0].probabilities
    print(f"{asked.run.name}: {len(test):,} photos of {len(set(test.persons.tolist()))} people it has never seen")
    for column, name in enumerate(labels.ATTRIBUTES):
        first = losses(test, ways["of single networks"], column)[0]
        for way, joint in ways.items():
            loss, sure, right = losses(test, joint, column)
            sums = person_sums(test.persons, np.stack([loss - first, np.ones(len(test))], axis=1))
            gap = estimate(test.persons, sums, lambda total: total[..., :1] / total[..., 1:], 2000, asked.seed)
            low, value, high = (float(np.ravel(x)[0]) for x in (gap.low, gap.value, gap.high))
            bins = reliability(sure, right)
            off = sum(b.photos * abs(b.accuracy - b.confidence) for b in bins) / len(right)
            print(
                f"  {name:9} {way:20} accuracy {right.mean():.3f}, confidence {sure.mean():.3f}, calibration error "
                f"{off:.3f}, log loss {loss.mean():.3f}, {value:+.3f} ({low:+.3f} to "
                f"{high:+.3f})"
            )


if __name__ == "__main__":
    main()
