"""Several models, one answer: votes, their weights, which models belong together, and what the vote really scores.

Members are out-of-fold predictions of the same photos. Each was made by a network that had not seen the person, so a
vote with weights nobody fitted is as honest as its members, also where the runs dealt the people into different folds.
Weights and choices that look at the truth are fitted and scored by `cross_fit` only. How the vote is
counted stands here once, for files and for readers alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, RecipeError, one_of
from threefold.evidence.bootstrap import Floats, person_draws
from threefold.evidence.metrics import confusion, macro_counts, macro_f1, macro_mean, sides
from threefold.predictions import Predictions, product

Joints = NDArray[np.floating]
Weights = Sequence[float] | Floats | None
"""One for each member; None: all alike."""

VOTES = ("soft", "hard")
"""How members vote, see `ballots`."""
TIE = 1e-3
"""What the mean probability counts beside whole votes: it breaks ties, and sums of weights nearer than this are one."""
ROUNDS = 30
"""Draws of a fit: a weight is a multiple of 1/30 at the finest."""


def shares(weights: Weights, count: int) -> Floats:
    """[count] weights divided by their sum, equal ones where None; RecipeError unless one each, none negative."""
    numbers = np.asarray(np.ones(count) if weights is None else weights, dtype=np.float64)
    if numbers.shape != (count,) or not (numbers >= 0).all() or not 0 < numbers.sum() < np.inf:
        raise RecipeError(f"weights: {numbers.tolist()} for {count} models; expected one each, 0 or more, not all 0")
    return np.asarray(numbers / numbers.sum(), dtype=np.float64)


def combine(joints: Joints, weights: Weights, rule: str) -> NDArray[np.float32]:
    """[M, N, 18] probabilities of M members -> [N, 18].

    rule: `soft` is the weighted mean; `hard` the share of votes, each member's weight on its most probable class, ties
    broken by the weighted mean; `marginals` the product of the first member's mask, the second's gender and the third's
    age group (members that know one attribute each; weights mean nothing). RecipeError: see `shares`, `ballots`.
    """
    if rule == "marginals":
        return product({name: labels.marginals(j)[name] for name, j in zip(labels.ATTRIBUTES, joints, strict=True)})
    mixed = np.tensordot(shares(weights, len(joints)), ballots(joints, rule), axes=1)
    return np.asarray(mixed / mixed.sum(1, keepdims=True), dtype=np.float32)


def ballots(joints: Joints, vote: str) -> Joints:
    """[M, N, 18] -> [M, N, 18]: what each member puts into the sum; RecipeError for an unknown vote.

    `soft`: its probabilities; `hard`: one vote on the most probable class (the first of equals), the probabilities
    themselves weighing TIE.
    """
    if vote not in VOTES:
        raise RecipeError(f"vote: {vote!r} is not known ({one_of(VOTES, vote)})")
    if vote == "soft":
        return joints
    return np.asarray((np.eye(labels.CLASSES)[joints.argmax(2)] + TIE * joints) / (1 + TIE))


def mean_years(years: NDArray[np.floating], weights: Weights) -> NDArray[np.float32]:
    """[M, N] years, NaN where a member has none -> [N] weighted mean of those that have them, NaN where nobody has."""
    share = np.isfinite(years) * shares(weights, len(years))[:, None]
    total = share.sum(0)
    mean = np.divide((share * np.nan_to_num(years)).sum(0), total, out=np.full_like(total, np.nan), where=total > 0)
    return np.asarray(mean, dtype=np.float32)


def aligned(parts: Sequence[Predictions], names: Sequence[str] = ()) -> list[Predictions]:
    """The members with rows as in the first. Folds may differ.

    Raises DataError naming the member (`names`, else its number), and the first photo that only one of the two has, or
    whose person or truth they do not agree on.
    """
    names = names or [f"member {number}" for number in range(1, len(parts) + 1)]
    first, photos = parts[0], set(parts[0].photos.tolist())
    rows = []
    for name, part in zip(names, parts, strict=True):
        here = set(part.photos.tolist())
        if missing := photos - here:
            what = f"lacks {len(missing):,} of the photos of {names[0]}"
            raise DataError(f"{name}: {what}, the first is {min(missing)!r}")
        if extra := here - photos:
            raise DataError(f"{name}: has {len(extra):,} photos that {names[0]} lacks, the first is {min(extra)!r}")
        same = part.align(first.photos.tolist())
        for what, field, words in (("person", "persons", str), ("truth", "truth", label_words)):
            mine, theirs = getattr(same, field), getattr(first, field)
            wrong = np.flatnonzero((mine != theirs).reshape(len(mine), -1).any(1))
            if len(wrong):
                row = wrong[0]
                other = f"in {names[0]} it is {words(theirs[row])!r}; so differ {len(wrong):,} photos"
                raise DataError(f"{name}: {what} of {str(first.photos[row])!r} is {words(mine[row])!r}, {other}")
        rows.append(same)
    return rows


def label_words(codes: NDArray[np.integer]) -> str:
    """Three codes as the words of their labels, `?` for one that is unknown: `worn male ?`."""
    return " ".join(labels.name(name, int(code)) or "?" for name, code in zip(labels.ATTRIBUTES, codes, strict=True))


def join_votes(parts: Sequence[Predictions], weights: Weights, rule: str = "soft") -> Predictions:
    """What the members say together (see `combine`, `mean_years`, `aligned`); rows and folds as in the first."""
    same = aligned(parts)
    joint = combine(np.stack([part.probabilities for part in same]), weights, rule)
    return replace(same[0], probabilities=joint, years=mean_years(np.stack([part.years for part in same]), weights))


# Among ten models and thirty draws one always finds something that fits these people, so only a cross-fit is a score.
# What it cannot remove: the other people's predictions came from networks that trained on the held-out ones, as in
# every stacking of cross-validated models (van der Laan et al. 2007, Super Learner); a handful of weights cannot carry
# much of that.
def cross_fit(
    parts: Sequence[Predictions], rule: str = "soft", *, members: int | None = None, weigh: bool = True, seed: int = 0
) -> tuple[Predictions, Floats]:
    """(what fitted weights really score, the weights fitted on everybody: [M], 0 or more, sum 1).

    Weights make macro F1 of the vote largest; where no photo knows all three labels, the mean macro F1 of the
    attributes that are known. Each part of the people (`metrics.sides` of the first member) is voted on with members
    and weights chosen without them.
    `members`: how many may take part, the others get 0. They are chosen by forward selection: the first is the best
    alone; each next one is the one with which those chosen so far score best, and of equals the one that contradicts
    them most often. Then, with `weigh`, greedy ensemble selection with replacement (Caruana et al. 2004, ICML, section
    2): from an empty bag the member is added, again and again, with which the bag scores best, of equals the one drawn
    least; weights are the shares of the best of the ROUNDS bags, the largest of equals. DataError: no label is known.
    """
    same = aligned(parts)
    joints, years = np.stack([part.probabilities for part in same]), np.stack([part.years for part in same])
    cast, truth, part = ballots(joints, rule), same[0].truth, sides(same[0], seed=seed)
    mixed, mean = np.empty_like(joints[0], dtype=np.float32), np.empty(len(truth), dtype=np.float32)
    for side in np.unique(part):
        held = part == side
        weights = _fit(cast[:, ~held], truth[~held], members, weigh)
        mixed[held], mean[held] = combine(joints[:, held], weights, rule), mean_years(years[:, held], weights)
    return replace(same[0], probabilities=mixed, years=mean), _fit(cast, truth, members, weigh)


def disagreement(parts: Sequence[Predictions], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of every two members: how differently they answer, over the 18 classes.

    `disagreement`: share of photos with different answers. `kappa`: Cohen's (1960), agreement beyond chance; 1 for
    the same answers. `error_correlation`: of being wrong (phi), over photos of known class; 0 is what a vote wants, 1
    makes it useless (Kuncheva & Whitaker 2003, Machine Learning 51). None where it means nothing.
    """
    same = aligned(parts, names)
    answers, label = [part.predicted for part in same], same[0].label
    rows: list[dict[str, Any]] = []
    for one, other in combinations(range(len(same)), 2):
        table = confusion(answers[one], answers[other], labels.CLASSES) / len(label)
        agree, chance = float(table.trace()), float(table.sum(0) @ table.sum(1))
        wrong = np.stack([answers[one] != label, answers[other] != label])[:, label >= 0]
        mixed = wrong.any(1).all() and not wrong.all(1).any()
        row = {"one": names[one], "other": names[other], "disagreement": 1 - agree}
        row["kappa"] = (agree - chance) / (1 - chance) if chance < 1 else None
        row["error_correlation"] = float(np.corrcoef(wrong)[0, 1]) if mixed else None
        rows.append(row)
    return rows


def lead(runs: Sequence[Predictions], *, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """Lead in macro F1 of the best run over the mean of all runs: on everybody, and on people it was not chosen by.

    The highest of N scores is too high even when all N runs are equally good. How much of the lead survives on people
    who had no part in the choice is asked of the bootstrap: choose the best run on the persons of a draw, look at it on
    the persons the draw left out (Tsamardinos, Greasidou & Borboudakis, "Bootstrapping the out-of-sample predictions
    for efficient and accurate cross-validation", 2018).

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


def _fit(cast: Joints, truth: NDArray[np.int8], members: int | None, weigh: bool) -> Floats:
    """[M] weights of the ballots [M, N, 18]; see `cross_fit`."""
    chosen = _choose(cast, truth, members) if members else list(range(len(cast)))
    counts, total = np.zeros(len(cast)), np.zeros(cast.shape[1:])
    best, weights = -1.0, np.isin(np.arange(len(cast)), chosen).astype(np.float64)
    for _ in range(ROUNDS if weigh else 0):
        score, _, pick = max((_score(truth, total + cast[m]), -counts[m], -m) for m in chosen)
        total += cast[-pick]
        counts[-pick] += 1
        # the largest bag of equals: what makes no difference here stays even, as it will elsewhere
        if score >= best:
            best, weights = score, counts.copy()
    return shares(weights, len(cast))


def _choose(cast: Joints, truth: NDArray[np.int8], count: int) -> list[int]:
    """Forward selection; a ranking by score would take a strong member that errs where the others do."""
    answers = cast.argmax(2)
    chosen: list[int] = []

    def worth(member: int) -> tuple[float, float, int]:
        apart = float((answers[member] != answers[chosen]).mean()) if chosen else 0.0
        return _score(truth, cast[[*chosen, member]].sum(0)), apart, -member

    while len(chosen) < count:
        chosen.append(max(set(range(len(cast))) - set(chosen), key=worth))
    return chosen


def _score(truth: NDArray[np.int8], joint: Joints) -> float:
    """`metrics.score` of bare arrays; the rows of `joint` need no sum."""
    label = labels.encode_all(truth)
    if (label >= 0).any():
        return macro_f1(label, joint.argmax(1))
    parts = zip(truth.T.astype(np.int64), labels.marginals(joint).values(), strict=True)
    scores = [macro_f1(true, part.argmax(1), part.shape[1]) for true, part in parts if (true >= 0).any()]
    if not scores:
        raise DataError("ensemble: weights cannot be fitted, no photo has a label")
    return float(np.mean(scores))
