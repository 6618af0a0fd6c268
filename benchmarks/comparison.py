"""Whether `compare` keeps its word: how fast, how often it claims what is not so, how often intervals hold the truth.

    OMP_NUM_THREADS=1 python benchmarks/comparison.py            # about 10 minutes of one core

1. `compare` with 10,000 draws over the contest's 18,900 photos of 2,700 persons, alignment and counts included, against
   the plain loop (photos repeated per drawn person, scikit-learn's f1_score of both runs): the draws must agree, or the
   benchmark stops.
2. Claims where the truth is equal: two noise realisations of the same skill on the same people. A share of the people
   is answered alike by both, so that the runs err together as two runs of one recipe do; a person's photos err
   together. Nobody is better, so every "better" and every "worse" is wrong.
3. Coverage: classifiers of different skill whose true difference is taken from 300,000 people; by the side on which the
   interval missed, and for the interval of one run beside that of the difference.
4. Power: `persons_needed` of a difference seen on 300,000 people, and how often so many tell it: 80 % is said.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from bootstrap import as_predictions, simulate
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from threefold.evidence.bootstrap import person_draws
from threefold.evidence.compare import compare_predictions, headlines
from threefold.evidence.metrics import columns_of, macro_f1, person_counts
from threefold.predictions import Predictions

POOL = 6  # so many people are drawn for each who is needed, since those of the right gender and age are picked
Pair = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def simulate_pair(people: int, skills: tuple[float, float], shared: float, rng: np.random.Generator) -> Pair:
    """[people * 7] truth and the predictions of two classifiers; `shared` of the people both answer as the first."""
    truth, one = simulate(people, skills[0], rng)
    pool, said = (codes.reshape(-1, 7) for codes in simulate(POOL * people, skills[1], rng))
    group, from_group = truth[::7] % 6, pool[:, 0] % 6
    other = np.empty((people, 7), dtype=np.int64)
    for number in np.unique(group):
        mine, theirs = np.flatnonzero(group == number), np.flatnonzero(from_group == number)
        other[mine] = said[rng.choice(theirs, len(mine), replace=False)]
    alike = rng.random(people) < shared
    other[alike] = one.reshape(-1, 7)[alike]
    return truth, one, other.ravel()


def speed(naive_draws: int = 20) -> None:
    truth, said, other = simulate_pair(2700, (2.0, 1.5), 0.5, np.random.default_rng(0))
    one, two = as_predictions(truth, said), as_predictions(truth, other)
    two = two.take(np.random.default_rng(1).permutation(len(two)))  # runs need not have their rows in one order
    begin = time.perf_counter()
    compare_predictions(one, two, draws=10_000)
    ours = time.perf_counter() - begin
    weights = np.concatenate(list(person_draws(one.persons, naive_draws, 0)))
    photos_of = [np.flatnonzero(one.persons == name) for name in np.unique(one.persons)]
    begin = time.perf_counter()
    loop = []
    for weight in weights.astype(int):
        rows = np.concatenate([np.tile(own, times) for own, times in zip(photos_of, weight, strict=True)])
        scores = [f1_score(truth[rows], codes[rows], labels=range(18), average="macro", zero_division=0)
                  for codes in (said, other)]  # fmt: skip
        loop.append(scores[0] - scores[1])
    naive = (time.perf_counter() - begin) / naive_draws
    counts = [person_counts(part) for part in (one, two.align(one.photos.tolist()))]
    same = [columns_of(weights @ part)[:, 1] for part in counts]
    if not np.allclose(loop, same[0] - same[1], atol=1e-12):
        raise SystemExit("the loop and the matrix product disagree")
    print(f"compare, 10,000 draws, {len(one):,} photos of 2,700 persons, every number of both runs: {ours:.2f} s")
    print(f"loop with scikit-learn: {naive * 1e3:.1f} ms a draw, macro F1 only; ratio {naive * 10_000 / ours:,.0f}")


def found(truth: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64], draws: int, seed: int):
    parts: list[Predictions] = [as_predictions(truth, said) for said in (one, other)]
    return compare_predictions(*parts, draws=draws, seed=seed)


def false_claims(repeats: int, draws: int) -> None:
    for people in (400, 540, 2700):
        for shared in (0.0, 0.8):
            rng = np.random.default_rng(people)
            verdicts = [
                found(*simulate_pair(people, (2.0, 2.0), shared, rng), draws, turn).verdict for turn in range(repeats)
            ]
            shares = ", ".join(f"{100 * verdicts.count(v) / repeats:.1f} % {v}" for v in ("better", "worse"))
            print(f"equal truth, {people} people, {shared:.0%} answered alike: {shares} of {repeats}", flush=True)


def coverage(repeats: int, draws: int) -> None:
    for skills, shared in (((2.0, 1.0), 0.8), ((4.0, 2.0), 0.5)):
        truth, one, other = simulate_pair(300_000, skills, shared, np.random.default_rng(99))
        goal = macro_f1(truth, one)
        gap = goal - macro_f1(truth, other)
        for people in (400, 540):
            rng = np.random.default_rng(people)
            below = above = alone = 0
            for turn in range(repeats):
                result = found(*simulate_pair(people, skills, shared, rng), draws, turn)
                below += result.headline["high"] < gap
                above += result.headline["low"] > gap
                alone += result.one["all.macro_f1"]["low"] <= goal <= result.one["all.macro_f1"]["high"]
            held = 100 * (1 - (below + above) / repeats)
            sides = f"{100 * below / repeats:.1f} % lie below, {100 * above / repeats:.1f} % above"
            about = f"true difference {gap:.4f}, {people} people, {shared:.0%} answered alike"
            print(f"{about}: {held:.1f} % of {repeats} hold it, {sides}; ", end="")
            print(f"{100 * alone / repeats:.1f} % hold the first run's {goal:.3f}", flush=True)


def power(repeats: int, draws: int) -> None:
    for skills, shared in (((4.0, 2.0), 0.5), ((2.0, 1.0), 0.8), ((2.0, 1.5), 0.8)):
        rng = np.random.default_rng(1)
        seen = found(*simulate_pair(300_000, skills, shared, rng), 400, 0)  # fewer show a difference 10 % off
        told, needed = 0, seen.persons_needed or 0
        for turn in range(repeats):
            truth, *said = simulate_pair(needed, skills, shared, rng)
            ((gap, p),) = headlines([as_predictions(truth, codes) for codes in said], draws=draws, seed=turn)
            told += p <= 0.05 and (gap["value"] or 0) > 0
        about = f"difference {seen.headline['value']:.4f}, {shared:.0%} answered alike"
        print(f"{about}: {needed} persons needed, which tell it {100 * told / repeats:.1f} % of {repeats}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    speed()
    false_claims(arguments.repeats, arguments.draws)
    coverage(arguments.repeats, arguments.draws)
    power(arguments.repeats, arguments.draws)
