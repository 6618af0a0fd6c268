"""Several models, one answer: votes, their weights, which models belong together, and what the vote really scores.

Members are out-of-fold predictions of the same photos. Each was made by a network that had not seen the person, so a
vote with weights nobody fitted is as honest as its members, also where the runs dealt the people into different folds.

Weights and choices that look at the truth are another matter: among ten models and thirty draws one always finds
something that fits these people. `cross_fit` therefore fits on the other folds' people and votes on those held out, and
only that is a score. What it cannot remove: the other people's predictions came from networks that trained on the
held-out ones, as in every stacking of cross-validated models (van der Laan et al. 2007, Super Learner); a handful of
weights cannot carry much of that. How the vote is counted is said here once, for files and for readers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, RecipeError, one_of
from threefold.evidence import crossfit
from threefold.evidence.metrics import confusion, macro_f1
from threefold.predictions import Predictions, product

Floats = NDArray[np.float64]
Joints = NDArray[np.floating]

TIE = 1e-3
"""What the mean probability counts beside whole votes: it breaks ties, and sums of weights nearer than this are one."""
ROUNDS = 30
"""Draws of `fit_weights`: a weight is a multiple of 1/30 at the finest."""


def shares(weights: Sequence[float] | Floats | None, count: int) -> Floats:
    """[count] weights divided by their sum, equal ones where None; RecipeError unless one each, none negative."""
    given = np.asarray(np.ones(count) if weights is None else weights, dtype=np.float64)
    if given.shape != (count,) or not (given >= 0).all() or not 0 < given.sum() < np.inf:
        raise RecipeError(f"weights: {given.tolist()} for {count} models; expected one each, 0 or more, not all 0")
    return np.asarray(given / given.sum(), dtype=np.float64)


def combine(joints: Joints, weights: Sequence[float] | Floats | None, rule: str) -> NDArray[np.float32]:
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
    """[M, N, 18] -> [M, N, 18]: what each member puts into the sum; RecipeError for an unknown vote."""
    if vote not in VOTES:
        raise RecipeError(f"vote: {vote!r} is not known ({one_of(VOTES, vote)})")
    return VOTES[vote](joints)


def mean_years(years: NDArray[np.floating], weights: Sequence[float] | Floats | None) -> NDArray[np.float32]:
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
    named = names or [f"member {number}" for number in range(1, len(parts) + 1)]
    first, found = parts[0], []
    for name, part in zip(named, parts, strict=True):
        here, there = set(part.photos.tolist()), set(first.photos.tolist())
        for what, odd in ((f"lacks {{}} of the photos of {named[0]}", there - here),
                          (f"has {{}} photos that {named[0]} lacks", here - there)):  # fmt: skip
            if odd:
                raise DataError(f"{name}: {what.format(f'{len(odd):,}')}, the first is {min(odd)!r}")
        same = part.align(first.photos.tolist())
        for what, mine, theirs in (("person", same.persons, first.persons), ("truth", same.truth, first.truth)):
            wrong = np.flatnonzero((mine != theirs).reshape(len(mine), -1).any(1))
            if len(wrong):
                row = wrong[0]
                one, two = (_said(side[row]) for side in (mine, theirs))
                raise DataError(
                    f"{name}: {what} of {str(first.photos[row])!r} is {one!r}, in {named[0]} it is {two!r}; "
                    f"so differ {len(wrong):,} photos"
                )
        found.append(same)
    return found


def _said(value: Any) -> str:
    """A person's id as it is, three codes as the words of their labels."""
    if np.ndim(value) == 0:
        return str(value)
    return " ".join(labels.name(name, int(code)) or "?" for name, code in zip(labels.ATTRIBUTES, value, strict=True))


def join_votes(
    parts: Sequence[Predictions], weights: Sequence[float] | Floats | None, rule: str = "soft"
) -> Predictions:
    """What the members say together (see `combine`, `mean_years`, `aligned`); rows and folds as in the first."""
    same = aligned(parts)
    joint = combine(np.stack([part.probabilities for part in same]), weights, rule)
    return replace(same[0], probabilities=joint, years=mean_years(np.stack([part.years for part in same]), weights))


def fit_weights(
    parts: Sequence[Predictions], rule: str = "soft", *, members: int | None = None, weigh: bool = True
) -> Floats:
    """[M] weights, 0 or more, sum 1, that make macro F1 of the vote largest on these photos: a fit, not a score.

    `members`: how many may take part, chosen by `choose_members`, the others get 0. Then, with `weigh`, greedy ensemble
    selection with replacement (Caruana et al. 2004, ICML, section 2): from an empty bag the member is added, again and
    again, with which the bag scores best, of equals the one drawn least; weights are the shares of the best of the
    ROUNDS bags, the largest of equals: what makes no difference here is kept even, as it will elsewhere.
    Where no photo knows all three labels, the mean macro F1 of the attributes that are known. DataError: nothing is.
    """
    same = aligned(parts)
    cast = ballots(np.stack([part.probabilities for part in same]), rule)
    return _fit(cast, same[0].truth, members, weigh)


def choose_members(parts: Sequence[Predictions], count: int, rule: str = "soft") -> list[int]:
    """Numbers of the `count` members whose equal vote is best, sorted: forward selection.

    The first is the best alone; each next one is the one with which those chosen so far score best, and of equals the
    one that contradicts them most often. A strong member that errs where the others do adds nothing and stays outside,
    which is what a ranking by score gets wrong.
    """
    return np.flatnonzero(fit_weights(parts, rule, members=count, weigh=False)).tolist()


def cross_fit(
    parts: Sequence[Predictions], rule: str = "soft", *, members: int | None = None, weigh: bool = True,
    k: int = 5, seed: int = 0,
) -> tuple[Predictions, Floats]:  # fmt: skip
    """(what `fit_weights` really scores, the weights fitted on everybody, [M]).

    Each part of the people is voted on with members and weights chosen without them: the parts are the folds of the
    first member where it has several (they keep people who share a photo together), else `k` lots of persons by `seed`.
    """
    same = aligned(parts)
    joints, years = np.stack([part.probabilities for part in same]), np.stack([part.years for part in same])
    cast, truth, sides = ballots(joints, rule), same[0].truth, crossfit.sides(same[0], k, seed)
    mixed, mean = np.empty_like(joints[0], dtype=np.float32), np.empty(len(truth), dtype=np.float32)
    for side in np.unique(sides):
        held = sides == side
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
    said, label = [part.predicted for part in same], same[0].label
    rows: list[dict[str, Any]] = []
    for one, other in combinations(range(len(same)), 2):
        table = confusion(said[one], said[other], labels.CLASSES) / len(label)
        agree, chance = float(table.trace()), float(table.sum(0) @ table.sum(1))
        wrong = np.stack([said[one] != label, said[other] != label])[:, label >= 0]
        mixed = wrong.any(1).all() and not wrong.all(1).any()
        rows.append({
            "one": names[one], "other": names[other], "disagreement": 1 - agree,
            "kappa": (agree - chance) / (1 - chance) if chance < 1 else None,
            "error_correlation": float(np.corrcoef(wrong)[0, 1]) if mixed else None,
        })  # fmt: skip
    return rows


def _fit(cast: Joints, truth: NDArray[np.int8], members: int | None, weigh: bool) -> Floats:
    """[M] weights of the ballots [M, N, 18]; see `fit_weights`."""
    chosen = _choose(cast, truth, members) if members else list(range(len(cast)))
    counts, total = np.zeros(len(cast)), np.zeros(cast.shape[1:])
    best, found = -1.0, np.isin(np.arange(len(cast)), chosen).astype(np.float64)
    for _ in range(ROUNDS if weigh else 0):
        score, _, pick = max((_score(truth, total + cast[m]), -counts[m], -m) for m in chosen)
        total += cast[-pick]
        counts[-pick] += 1
        if score >= best:
            best, found = score, counts.copy()
    return shares(found, len(cast))


def _choose(cast: Joints, truth: NDArray[np.int8], count: int) -> list[int]:
    said = cast.argmax(2)
    chosen: list[int] = []

    def worth(member: int) -> tuple[float, float, int]:
        apart = float((said[member] != said[chosen]).mean()) if chosen else 0.0
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
    found = [macro_f1(true, part.argmax(1), part.shape[1]) for true, part in parts if (true >= 0).any()]
    if not found:
        raise DataError("ensemble: weights cannot be fitted, no photo has a label")
    return float(np.mean(found))


def _probabilities(joints: Joints) -> Joints:
    return joints


def _votes(joints: Joints) -> Joints:
    """One vote on the most probable class (the first of equals); the probabilities themselves weigh TIE."""
    return np.asarray((np.eye(labels.CLASSES)[joints.argmax(2)] + TIE * joints) / (1 + TIE))


VOTES: dict[str, Callable[[Joints], Joints]] = {"soft": _probabilities, "hard": _votes}
"""How a member votes: [M, N, 18] probabilities -> what is summed, by weight."""
