"""The leaderboard in advance: how far public and private scores will lie apart, and which of several runs to hand in.

A contest shows the score on one half of its people (public) and decides on the other (private). What is known before is
what each run said about P labelled people. One draw here is one contest that agrees with them. What is not known here:
whether the contest's photos differ from ours in kind, to the advantage of one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, RecipeError
from threefold.evidence.bootstrap import CHUNK, Floats, ratio, times
from threefold.evidence.ensemble import aligned
from threefold.evidence.metrics import macro_counts, macro_mean
from threefold.predictions import Predictions

EVEN = 0.6
"""Chance to beat the next best, below which `choose` says "can't tell": two of five times the other would have won."""
LEVEL = 0.1
"""SD of what a whole leaderboard may lie off validation, macro F1: reports of 0.05 to 0.15 are common."""
SPREAD = 0.005
"""Least SD of what the runs of one team are worth, macro F1: that of published ablations of one system. The runs' own
scatter beyond chance, where it is larger, is used instead."""
ROUNDING = 0.0005
"""SD of a public score as it is typed: two to four decimals, and no worse where two runs are all but the same."""


@dataclass(frozen=True)
class Contests:
    """R runs in D contests. public, private, oof: [D, R] macro F1, 0..1; persons: of these three, in that order.

    `oof` is of a validation set of as many people as we have, drawn for the strategies that choose by it.
    """

    persons: tuple[int, int, int]
    public: Floats
    private: Floats
    oof: Floats


# A population is drawn from our people (P of them with replacement), since they are a sample themselves; then from that
# population the people of the public half, those of the private half, and, for strategies that go by validation, P
# people of a validation set, independently, so that a strategy never sees whom it is judged on. Halves of independent
# people have the variance of each, s^2/n + s^2/m, and independent draws from one population give just that; that a
# person may stand on both sides makes no correlation once the population is given. Dealing our persons to the sides
# first adds the chance of the dealing a second time, cutting our P persons in two gives the gap of a test of P persons,
# whatever the test's size is (docs/evidence.md has the spreads). Without the population our score would be the truth: a
# run that leads by luck would be as good as certain, and a public score could teach nothing.
def draw_contests(
    runs: Sequence[Predictions], *, persons: int | None = None, share: float = 0.5, draws: int = 10_000, seed: int = 0
) -> Contests:
    """Draw `draws` contests of `persons` test persons (default: as many as the runs have), `share` of them public.

    runs: one or more, on the same photos. Raises DataError when they are not (see `aligned`), when there is one person
    only, a half without people, or no photo that knows all three labels. Draws in which no such photo is are left out.
    """
    same = aligned(runs)
    names = np.unique(same[0].persons)
    count, size = len(names), len(names) if persons is None else persons
    sizes = (round(size * share), size - round(size * share), count)
    if count < 2:
        raise DataError(f"shake: predictions of {count} person ({', '.join(names)}); expected 2 or more")
    if min(sizes) < 1:
        halves = f"{sizes[0]} and {sizes[1]}; expected 1 or more in each half"
        raise DataError(f"shake: {size} persons, share {share:g} public: {halves}")
    # whole numbers, thus exact
    sums = np.concatenate([macro_counts(run, ["all"]) for run in same], axis=1).astype(np.float32)
    rng, step = np.random.default_rng(seed), max(1, CHUNK // max(size, count))
    parts = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        population = rng.integers(0, count, (rows, count), dtype=np.int32)
        places = [rng.integers(0, count, (rows, number)) for number in sizes]
        people = [population, *(np.take_along_axis(population, place, 1) for place in places)]
        weights = [times(part, count).astype(np.float32) for part in people]
        drawn = np.stack([(weight @ sums).reshape(rows, len(same), -1) for weight in weights])
        parts.append(macro_mean(drawn, ["all"])[..., 0])
    scores = np.concatenate(parts, axis=1)
    scores = scores[:, np.isfinite(scores).all((0, 2))]
    if scores.shape[1] < 2:
        few = f"{scores.shape[1]} of {draws} draws have a photo that knows mask, gender and age group on every side"
        raise DataError(f"shake: {few}; expected 2 or more")
    return Contests(sizes, *(scores[1:] + _moves(scores[0], rng)))


def gaps(contests: Contests) -> list[dict[str, float | None]]:
    """A row a run: expected `public` and `private` score, and how far they lie apart.

    `gap_sd` of public - private; |public - private| that 50, 90, 95 % stay below; `best`: chance to be the best in
    private, `best_if_public` after winning in public (None: never).
    """
    gap = contests.public - contests.private
    public, private = _best(contests.public), _best(contests.private)
    columns = {"public": contests.public.mean(0), "private": contests.private.mean(0), "gap_sd": gap.std(0)}
    columns |= {f"gap_{q}": np.quantile(abs(gap), q / 100, axis=0) for q in (50, 90, 95)}
    columns |= {"best": private.mean(0), "best_if_public": ratio((public * private).sum(0), public.sum(0))}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [{key: x if np.isfinite(x) else None for key, x in zip(columns, row, strict=True)} for row in rows]


def pairs(contests: Contests) -> list[dict[str, Any]]:
    """Every two runs, numbered: chance that `one` beats `other` in private, and the same though `other` won in public.

    `wins_after_loss` is None where that never happened. A draw with equal scores counts half.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(range(contests.public.shape[1]), 2):
        win, lost = _beats(contests.private, one, other), _beats(contests.public, other, one)
        for a, b, chance, before in ((one, other, win, lost), (other, one, 1 - win, 1 - lost)):
            after = float(chance @ before / before.sum()) if before.any() else None
            rows.append({"one": a, "other": b, "wins": float(chance.mean()), "wins_after_loss": after})
    return rows


def strategies(contests: Contests) -> dict[str, dict[str, float]]:
    """How to choose among the runs, and what it leads to.

    Mean `private` score of what is handed in, `regret` (how far the best private score lies above), `best` (chance that
    it is the best), `gap` (public - private of it). `public`: the winner of the public half; `oof`: of validation;
    `mean`: of the mean of both scores; `pooled`: of both weighed by their people; `two finals`: the two best `pooled`,
    of which the better one in private counts.
    """
    (shown, _, ours), public, private = contests.persons, contests.public, contests.private
    pooled = ours / (ours + shown) * contests.oof + shown / (ours + shown) * public
    rules = {"public": public, "oof": contests.oof, "mean": (contests.oof + public) / 2, "pooled": pooled}
    picks = {name: score.argmax(1)[:, None] for name, score in rules.items()}
    picks["two finals"] = pooled.argsort(1)[:, -2:]
    top, rows, results = private.max(1), np.arange(len(pooled)), {}
    for name, pick in picks.items():
        final = pick[rows, np.take_along_axis(private, pick, 1).argmax(1)]
        score = private[rows, final]
        values = {"private": score, "regret": top - score, "best": top == score, "gap": public[rows, final] - score}
        results[name] = {key: float(value.mean()) for key, value in values.items()}
    return results


def choose(private: Floats) -> dict[str, Any]:
    """Which run to hand in, from [D, R] private scores as likely as each other: `Contests.private` or `informed`.

    `pick` has the highest expected score, `same` are the runs that score as it does in every draw, `next` is the second
    highest of the others (None: there is none), `chance` that of pick against next; `sure` is False, can't tell, below
    EVEN. `two`: the two finals whose better one is expected highest, and `two_private` what that is. `expected`, `low`,
    `high` (95 % interval) and `best` (chance to be the best): per run.
    """
    mean, count = private.mean(0), private.shape[1]
    order = np.argsort(-mean, kind="stable").tolist()
    low, high = np.quantile(private, [0.025, 0.975], axis=0).tolist()
    same = [run for run in order[1:] if np.allclose(private[:, run], private[:, order[0]], rtol=0, atol=1e-9)]
    choice = {"pick": order[0], "same": same, "expected": mean.tolist(), "low": low, "high": high}
    choice |= {"best": _best(private).mean(0).tolist(), "next": None, "chance": None, "sure": True, "two": None}
    if rivals := [run for run in order[1:] if run not in same]:
        chance = float(_beats(private, order[0], rivals[0]).mean())
        choice |= {"next": rivals[0], "chance": chance, "sure": chance >= EVEN}
    if count > 1:
        two = {pair: float(private[:, pair].max(1).mean()) for pair in combinations(range(count), 2)}
        choice |= {"two": max(two, key=two.__getitem__), "two_private": max(two.values())}
    return choice


def informed(contests: Contests, public: Sequence[float], seed: int = 0) -> Floats:
    """[D, R] private scores as likely as each other once the public scores are known; NaN for a run without one.

    Normal approximation: every draw is moved by the regression of private on public scores, which leaves it a draw
    from the conditional distribution (Matheron's rule; Wilson et al. 2021, JMLR 22, section 2.3). All runs
    together may lie off validation by LEVEL, so scores are believed relative to each other. RecipeError: scores that
    are not one per run, 0..1, one known at least.
    """
    shown, off, cov, scores = _shown(contests, public, seed)
    runs = contests.private.shape[1]
    both = np.cov(contests.private, contests.public[:, shown], rowvar=False) + LEVEL**2
    gain = np.linalg.solve(cov, both[runs:, :runs])
    return np.asarray(contests.private + off + (scores[0] - scores[1:]) @ gain)


def surprise(contests: Contests, public: Sequence[float], seed: int = 0) -> float:
    """Chance, 0..1, of public scores at least as far from what these runs can be expected to get as the given ones.

    Far: the Mahalanobis distance, in which all runs together may lie off validation by LEVEL. Next to nothing means
    that scores were mixed up, or that what was handed in is not what the run says. Raises what `informed` raises.
    """
    shown, _, cov, scores = _shown(contests, public, seed)
    apart = scores - contests.public[:, shown].mean(0)
    far = np.einsum("dk,kd->d", apart, np.linalg.solve(cov, apart.T))
    return float((far >= far[0]).mean())


def _shown(contests: Contests, public: Sequence[float], seed: int) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Public scores that a team sees, NaN for a run without one; RecipeError where they cannot be.

    Of which runs [R] they are; how far each draw lies off validation [D, 1]; of the K that are known the [K, K]
    covariance, and [1 + D, K]: the scores themselves, then the draws of them.
    """
    scores = np.asarray(public, dtype=np.float64)
    count, runs = contests.public.shape[1], ~np.isnan(scores)
    if scores.shape != (count,) or not runs.any() or not ((scores[runs] >= 0) & (scores[runs] <= 1)).all():
        form = "expected one macro F1 each, 0..1, as 0.712,0.705"
        raise RecipeError(f"public: {scores.tolist()} for {count} runs; {form}")
    rng = np.random.default_rng(seed)
    off = rng.normal(0, LEVEL, (len(contests.public), 1))
    seen = contests.public[:, runs]
    cov = np.atleast_2d(np.cov(seen, rowvar=False)) + LEVEL**2 + ROUNDING**2 * np.eye(seen.shape[1])
    return runs, off, cov, np.concatenate([scores[None, runs], seen + off + rng.normal(0, ROUNDING, seen.shape)])


def _moves(worth: Floats, rng: np.random.Generator) -> Floats:
    """[D, R] what to add to every score of a draw whose population gives the runs the scores `worth` [D, R].

    A lead is partly luck, the more so the more alike the runs are. What the runs are worth is therefore drawn towards
    their mean by as much as their scores scatter through chance (empirical Bayes; Efron & Morris 1975, JASA 70). The
    draws scatter about our scores as these do about the truth: they are the posterior of a flat prior. Here runs are a
    sample of runs whose worth has a variance about their unknown mean, taken from our scores less what chance
    explains of it; each draw is moved by the regression on that (as in `informed`). Runs that are apart by more than
    chance stay where they are. What is added is of the population, thus the same in public, private and validation.
    """
    runs = worth.shape[1]
    if runs == 1:
        return np.zeros_like(worth)
    centre = np.eye(runs) - 1 / runs
    cov = np.cov(worth, rowvar=False)
    chance = centre @ cov @ centre
    spread = max(worth.mean(0).var(ddof=1) - chance.trace() / (runs - 1), SPREAD**2)
    prior = rng.normal(0, np.sqrt(spread), worth.shape)
    gain = np.linalg.pinv(chance + spread * centre, hermitian=True) @ centre @ cov
    return np.asarray((prior - worth) @ centre @ gain)


def _beats(scores: Floats, one: int, other: int) -> Floats:
    """[D] 1 where `one` scored higher, 0.5 where both scored alike, else 0."""
    return np.asarray((np.sign(scores[:, one] - scores[:, other]) + 1) / 2)


def _best(scores: Floats) -> Floats:
    """[D, R] 1 for the best run of a draw, shared where several are."""
    top = scores == scores.max(1, keepdims=True)
    return np.asarray(top / top.sum(1, keepdims=True))
