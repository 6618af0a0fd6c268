"""How often the interval of K seeds (evidence/seeds.py) holds what a recipe scores on average, and one more training.

    python benchmarks/seeds.py            # a few seconds

Scores of K trainings are drawn from normal noise of three kinds: of the persons (shared by the seeds), of the seed, and
of what a seed makes of particular persons; SDs are of one training. The bootstrap over persons is stood in for by
variances with the noise of 200 degrees of freedom. The sum of variances and Satterthwaite's degrees of freedom are
written again here, all draws at once with scipy's t, and held against the package's own on a few of the draws.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import t

from threefold.evidence.bootstrap import Estimate
from threefold.evidence.seeds import Z, _Noise

CASES = ((1, 0, 0), (1, 0.4, 0), (1, 0, 0.4), (1, 1, 0), (0.3, 1, 0), (0.3, 0, 1), (0.3, 1, 1))
FREEDOM = 200


def coverage(seeds: int, person: float, seed: float, both: float, draws: int, rng: np.random.Generator) -> list[float]:
    """Shares of intervals that hold the recipe's mean score, and the score of one more training; both in per cent."""
    shared = rng.normal(0, person, (draws, 1))
    scores = shared + rng.normal(0, seed, (draws, seeds)) + rng.normal(0, both, (draws, seeds))
    persons = (person**2 + both**2 / seeds) * rng.chisquare(FREEDOM, draws) / FREEDOM
    mean, scatter = scores.mean(1), scores.var(1, ddof=1)
    shares = []
    for extra, truth in ((0, np.zeros(draws)), (1, rng.normal(0, seed, draws))):
        part = scatter * (1 / seeds + extra)
        freedom = (seeds - 1) * ((persons + part) / np.maximum(part, 1e-12)) ** 2
        reach = t.ppf(0.975, np.minimum(freedom, 1e6)) * np.sqrt(persons + part)
        for row in range(5):
            end = Z * np.sqrt(persons[row])
            one = np.full(1, mean[row])
            noise = _Noise(scores[row], Estimate(one, one - end, one + end, np.zeros(1 + seeds), np.ones(1)), True)
            if abs(noise.interval(extra)["high"] - mean[row] - reach[row]) > 1e-3 * reach[row]:
                raise SystemExit(f"the package says {noise.interval(extra)}, here it is {mean[row]} +- {reach[row]}")
        shares.append(100 * float((abs(mean - truth) <= reach).mean()))
    return shares


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--draws", type=int, default=20_000)
    draws = ask.parse_args().draws
    rng = np.random.default_rng(0)
    print(
        "seeds   ", "".join(f"{'{:g}:{:g}:{:g}'.format(*case):>14}" for case in CASES), "   (mean / one more training)"
    )
    for seeds in (2, 3, 5):
        rows = [coverage(seeds, *case, draws, rng) for case in CASES]
        print(f"{seeds:<8}", "".join(f"{mean:>7.1f} /{more:5.1f}" for mean, more in rows))


if __name__ == "__main__":
    main()
