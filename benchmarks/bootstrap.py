"""The bootstrap over persons: how fast, and does a 95 % interval hold the truth 95 % of the time?

    python benchmarks/bootstrap.py            # about a minute
    python benchmarks/bootstrap.py --repeats 1000

1. `measure` with 10,000 draws over the contest's 18,900 photos of 2,700 persons.
2. The macro F1 of the same draws the plain way (photos repeated per drawn person, scikit-learn's f1_score), and its
   ratio to ours: the draws must agree, or the benchmark stops.
3. Coverage: classifiers are simulated on people whose group, age error and gender error are drawn, their true macro F1
   is taken from 200,000 people, and intervals from few people are asked whether they hold it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from threefold import labels
from threefold.evidence.bootstrap import person_draws, resample
from threefold.evidence.metrics import COLUMNS, columns_of, macro_f1, measure, person_counts
from threefold.predictions import Predictions

GROUPS = np.array([549, 410, 83, 732, 817, 109]) / 2700  # contest.md 2.2: people per gender x age group
MASKS = np.array([0, 0, 0, 0, 0, 1, 2])


def simulate(people: int, skill: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[people * 7] truth and prediction; age and gender errors are mostly a person's, mask errors a photo's."""
    group = rng.choice(6, people, p=GROUPS)
    gender, age = group // 3, group % 3
    seen = np.array([-1.2, 0.2, 1.2])[age] * skill + rng.normal(size=people)
    seen = seen[:, None] + rng.normal(size=(people, 7)) * 0.5
    said_age = (seen > -0.5 * skill).astype(int) + (seen > 0.8 * skill)
    slip = rng.normal(size=(people, 1)) + rng.normal(size=(people, 7)) * 0.5
    said_gender = np.where(slip > 1.9, 1 - gender[:, None], gender[:, None])
    masks = np.broadcast_to(MASKS, (people, 7))
    said_mask = np.where(rng.random((people, 7)) < 0.04, rng.integers(0, 3, (people, 7)), masks)
    truth = masks * 6 + gender[:, None] * 3 + age[:, None]
    return truth.ravel(), (said_mask * 6 + said_gender * 3 + said_age).ravel()


def as_predictions(truth: NDArray[np.int64], said: NDArray[np.int64]) -> Predictions:
    count = len(truth)
    return Predictions(
        photos=np.arange(count).astype(str),
        persons=(np.arange(count) // 7).astype(str),
        probabilities=np.eye(labels.CLASSES, dtype=np.float32)[said],
        truth=labels.decode_all(truth),
        ages=np.full(count, np.nan, np.float32),
        years=np.full(count, np.nan, np.float32),
        fold=np.zeros(count, np.int16),
    )


def speed(naive_draws: int = 30) -> None:
    truth, said = simulate(2700, 2.0, np.random.default_rng(0))
    predictions = as_predictions(truth, said)
    begin = time.perf_counter()
    measure(predictions, draws=10_000)
    ours = time.perf_counter() - begin
    print(f"measure, 10,000 draws, {len(truth):,} photos of 2,700 persons: {ours:.2f} s")
    weights = np.concatenate(list(person_draws(predictions.persons, naive_draws, 0)))
    photos_of = [np.flatnonzero(predictions.persons == name) for name in np.unique(predictions.persons)]
    begin = time.perf_counter()
    loop = []
    for weight in weights.astype(int):
        rows = np.concatenate([np.tile(own, times) for own, times in zip(photos_of, weight, strict=True)])
        loop.append(f1_score(truth[rows], said[rows], labels=range(18), average="macro", zero_division=0))
    naive = (time.perf_counter() - begin) / naive_draws
    ours_same = resample(predictions.persons, person_counts(predictions), columns_of, naive_draws)
    if not np.allclose(loop, ours_same[:, COLUMNS.index("all.macro_f1")], atol=1e-12):
        raise SystemExit("the loop and the matrix product disagree")
    print(
        f"loop with scikit-learn: {naive * 1e3:.1f} ms a draw, macro F1 only; ours {ours / 10_000 * 1e3:.3f} ms a draw"
    )
    print(f"ratio {naive / (ours / 10_000):,.0f}")


def coverage(repeats: int) -> None:
    for skill in (1.0, 2.0, 4.0):
        goal = macro_f1(*simulate(200_000, skill, np.random.default_rng(99)))
        for people in (120, 400, 540):
            rng = np.random.default_rng(people)
            held, widths = 0, []
            for _ in range(repeats):
                found = measure(as_predictions(*simulate(people, skill, rng)), draws=1000)["macro_f1"]
                held += found["low"] <= goal <= found["high"]
                widths.append(found["high"] - found["low"])
            noise = 196 * np.sqrt(0.95 * 0.05 / repeats)
            print(
                f"true macro F1 {goal:.3f}, {people} people: {100 * held / repeats:.1f} % of {repeats} hold it "
                f"(+- {noise:.1f} if it were 95), mean width {np.mean(widths):.3f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    speed()
    coverage(arguments.repeats)
