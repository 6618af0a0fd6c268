"""How often groups of people that are treated alike are called unfairly treated by `evidence.groups.by_group`.

    OMP_NUM_THREADS=1 python benchmarks/groups.py            # about 40 seconds of one core

700 people in six groups of unequal size (3 to 30 %), seven photos each; mask, gender and age group are wrong in 4, 12
and 28 % of the photos of every group, and the photos of a person err together. Whatever is called unfair is chance.
"""

from __future__ import annotations

import argparse
from statistics import NormalDist

import numpy as np

from threefold import labels
from threefold.evidence.groups import by_group
from threefold.predictions import Predictions

SIZES = np.array([142, 106, 22, 190, 212, 28])
WRONG = (0.04, 0.12, 0.28)


def simulate(people: int, rng: np.random.Generator) -> Predictions:
    """Predictions of a classifier that is equally good for everybody and certain of all it says."""
    group = np.repeat(rng.choice(6, people, p=SIZES / SIZES.sum()), 7)
    rows = np.repeat(np.arange(people), 7)
    truth = np.stack([np.tile([0, 0, 0, 0, 0, 1, 2], people), group // 3, group % 3], axis=1)
    answers = truth.copy()
    for column, (size, share) in enumerate(zip(labels.SIZES.values(), WRONG, strict=True)):
        ease = 0.8 * rng.normal(size=people)[rows] + 0.6 * rng.normal(size=len(rows))
        other = (truth[:, column] + rng.integers(1, size, len(rows))) % size
        answers[:, column] = np.where(ease < NormalDist().inv_cdf(share), other, truth[:, column])
    nothing = np.full(len(rows), np.nan, np.float32)
    return Predictions(
        np.array([str(row) for row in range(len(rows))]), np.array([f"p{row:04d}" for row in rows]),
        np.eye(labels.CLASSES, dtype=np.float32)[labels.encode_all(answers)], truth.astype(np.int8), nothing, nothing,
        np.zeros(len(rows), np.int16),
    )  # fmt: skip


def main(runs: int) -> None:
    """Print the share of simulated sets in which each claim is called unfair."""
    unfair: dict[str, int] = {}
    for seed in range(runs):
        for claim, gap in by_group(simulate(700, np.random.default_rng(seed)), draws=1000)["gaps"].items():
            unfair[claim] = unfair.get(claim, 0) + gap["unfair"]
    for claim, count in unfair.items():
        print(f"{claim:10} {100 * count / runs:.1f} % of {runs}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    main(parser.parse_args().runs)
