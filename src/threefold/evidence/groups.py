"""What one number hides about people.

Groups that fare worse, persons whose photos contradict each other, the border years, and how much the folds differ by
chance alone. All of it is counts summed over persons, so every number has the interval of `bootstrap.py`. Groups are of
different people, so two groups are not compared in pairs of persons as two runs are (`compare.py`); but a draw of
persons gives the numbers of all groups at once, and their difference has its interval from the same draws.
"""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.evidence.bootstrap import LEVEL, Floats, Number, estimate, person_sums, ratio, resample, summarise
from threefold.evidence.compare import Comparison, compare_predictions
from threefold.evidence.decide import as_certain
from threefold.evidence.metrics import COLUMNS, columns_of, judged_tasks, macro_counts, macro_mean, person_counts, tasks
from threefold.predictions import Predictions

GROUPS = tuple((gender, group) for gender in range(2) for group in range(3))
"""(gender, age group) of the six groups of people."""
CLAIMS = ("f1", "mask", "gender", "age_group", "all")
"""What `by_group` says of a group. `f1`: the mean F1 of its three classes, so that its mean over the groups is macro F1
itself; `mask`: macro F1 of the three masks among its people; `gender`, `age_group` and `all` three: accuracies."""
LEAST = 20
"""People a group must have to be called unfairly treated."""
FEW = 6
"""Fewer people than this have no interval: the whole range of n people misses the median of all with a chance of
2 ** (1 - n), which is more than 5 % below 6, and what is drawn from them cannot reach beyond their range."""
_WITHIN = [COLUMNS.index(name) for name in ("mask.macro_f1", "gender.accuracy", "age_group.accuracy", "all.accuracy")]
_F1 = COLUMNS.index("f1.0")


def by_group(oof: Predictions, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """{rows, gaps}: CLAIMS within each gender x age group, and the pair of groups furthest apart in each claim.

    rows: gender, group, people, photos and numbers, a Number per claim (None values where nobody is known). gaps, by
    claim but `f1`: `better` and `worse` (indices of GROUPS), `difference`, a Number above 0, and `unfair`: its
    interval, that of all pairs at once, leaves 0 out. Groups of fewer than LEAST people have no part: of a few, all are
    right by chance. `f1` is not judged: it is lower in a smaller group that is treated alike, since the mistakes about
    all others fall into its classes.
    """
    group = np.where((oof.truth[:, 1:] >= 0).all(1), oof.truth[:, 1] * 3 + oof.truth[:, 2], labels.UNKNOWN)
    inside = group[:, None] == np.arange(len(GROUPS))
    parts = [replace(oof, truth=np.where(rows[:, None], oof.truth, np.int8(labels.UNKNOWN))) for rows in inside.T]
    counts = np.concatenate([person_counts(part) for part in (oof, *parts)], axis=1)
    people = [len(np.unique(oof.persons[rows])) for rows in inside.T]

    def numbers(sums: Floats) -> Floats:
        """[..., 7 * 80] -> [..., 5 * 6]: by claim the six groups."""
        whole, *groups = (columns_of(part) for part in np.split(sums, len(GROUPS) + 1, axis=-1))
        f1 = np.nan_to_num(whole[..., _F1:]).reshape(*sums.shape[:-1], 3, len(GROUPS)).mean(-2)
        within = np.stack([part[..., _WITHIN] for part in groups], axis=-1)
        f1 = np.where(np.isnan(within[..., 3, :]), np.nan, f1)
        return np.concatenate([f1[..., None, :], within], axis=-2).reshape(*sums.shape[:-1], -1)

    drawn = resample(oof.persons, counts, numbers, draws, seed)
    result, drawn = summarise(counts, numbers, drawn), drawn.reshape(draws, len(CLAIMS), -1)
    rows = []
    for g, (gender, age) in enumerate(GROUPS):
        claims = {claim: result.number(c * len(GROUPS) + g) | _ends(people[g]) for c, claim in enumerate(CLAIMS)}
        row = {"gender": gender, "group": age, "people": people[g], "photos": int(inside[:, g].sum())}
        rows.append(row | {"numbers": claims})
    gaps = {}
    for c, (claim, value) in enumerate(zip(CLAIMS, result.value.reshape(len(CLAIMS), -1), strict=True)):
        if claim != "f1" and (gap := _gap(value, drawn[:, c], np.array(people))):
            gaps[claim] = gap
    return {"rows": rows, "gaps": gaps}


def _gap(value: Floats, drawn: Floats, people: NDArray[np.integer]) -> dict[str, Any] | None:
    """The groups that are furthest apart in one claim: [6] values, [D, 6] draws and [6] people; None for no pair."""
    large = np.flatnonzero((people >= LEAST) & np.isfinite(value))
    pairs = np.array(list(combinations(large.tolist(), 2))).reshape(-1, 2)
    if not len(pairs):
        return None
    apart, draws = (part[..., pairs[:, 0]] - part[..., pairs[:, 1]] for part in (value, drawn))
    spread = np.nanstd(draws, axis=0)
    # The furthest of 15 pairs are far apart by chance already: their interval reaches as many spreads to each side as
    # the most distant pair of a draw is from its value in 95 % of the draws (Westfall & Young 1993). A group's number
    # is never taken as known better than to half a person. With that, groups that are treated alike are called apart in
    # 3 to 4 % of sets of 700 people (`benchmarks/groups.py`).
    most = np.nanquantile((np.abs(draws - apart) / np.maximum(spread, 1e-12)).max(axis=1), LEVEL)
    reach = most * np.sqrt(spread**2 + (0.25 / people[pairs] ** 2).sum(axis=1))
    pair = int(np.abs(apart).argmax())
    size, half = abs(float(apart[pair])), float(reach[pair])
    better, worse = pairs[pair].tolist() if apart[pair] >= 0 else pairs[pair, ::-1].tolist()
    difference = {"value": size, "low": size - half, "high": size + half}
    return {"better": better, "worse": worse, "difference": difference, "unfair": size > half}


def majority(oof: Predictions) -> NDArray[np.int64]:
    """[N] the class said when gender and age group are what most photos of the person say, the mask the photo's own.

    Of equally many votes, the larger mean probability wins.
    """
    parts = labels.decode_all(oof.predicted).astype(np.int64)
    for column, name in enumerate(labels.ATTRIBUTES):
        if name != "mask":
            _, rows, photos = np.unique(oof.persons, return_inverse=True, return_counts=True)
            votes = person_sums(oof.persons, np.eye(labels.SIZES[name])[parts[:, column]])
            mean = person_sums(oof.persons, oof.marginals()[name]) / photos[:, None]  # less than a whole vote
            parts[:, column] = (votes + mean).argmax(1)[rows]
    return labels.encode_all(parts)


def disagreement(oof: Predictions, *, draws: int = 2000, seed: int = 0) -> tuple[dict[str, Any], Comparison]:
    """(how many people were given two genders or two age groups, `majority` against the answers of single photos).

    Of the `people` with several photos: `gender`, `age_group` and `either`, each a Number (the share of them) with
    `count`. Says nothing about who is right; needs no truth. The Comparison is of what is said, so of hard answers.
    Raises DataError where no photo has a label.
    """
    parts = labels.decode_all(oof.predicted)
    photos = person_sums(oof.persons, np.ones((len(oof), 1)))
    votes = [person_sums(oof.persons, np.eye(3)[parts[:, column]]) for column in (1, 2)]
    gender, age = ((part > 0).sum(1) > 1 for part in votes)
    counts = np.stack([gender, age, gender | age, photos[:, 0] > 1], axis=1).astype(np.float64)
    shares = estimate(oof.persons, counts, lambda sums: ratio(sums[..., :3], sums[..., 3:]), draws, seed)
    result: dict[str, Any] = {"people": int(counts[:, 3].sum())}
    for place, name in enumerate(("gender", "age_group", "either")):
        result[name] = {**shares.number(place), "count": int(counts[:, place].sum())}
    both = [as_certain(oof, code) for code in (majority(oof), oof.predicted)]
    return result, compare_predictions(*both, draws=draws, seed=seed)


def years_around(oof: Predictions, years: range, *, draws: int = 2000, seed: int = 0) -> list[dict[str, Any]]:
    """A row for every true year of `years` that occurs, rising.

    year, photos, people; `said` [3]: share of the photos put into each age group; `wrong` (share, a Number) and `bias`
    (predicted less true years, a Number, None where there are no years). Fewer than FEW people have no interval: its
    ends are None.
    """
    year = np.where(np.isfinite(oof.ages), np.floor(oof.ages), -1).astype(np.int64)
    shown = [one for one in years if (year == one).any()]
    if not shown:
        return []
    inside = year[:, None] == np.array(shown, dtype=np.int64)
    _, truth, group = list(tasks(oof))[-1]
    error = (oof.years - oof.ages).astype(np.float64)
    columns = [np.ones(len(oof)), group != truth, np.isfinite(error), np.nan_to_num(error)]
    sums = np.concatenate([person_sums(oof.persons, inside * part[:, None]) for part in columns], axis=1)

    def numbers(total: Floats) -> Floats:
        photos, wrong, aged, errors = np.split(total, 4, axis=-1)
        return np.concatenate([ratio(wrong, photos), ratio(errors, aged)], axis=-1)

    result = estimate(oof.persons, sums, numbers, draws, seed)
    rows = []
    for place, (one, photos) in enumerate(zip(shown, inside.T, strict=True)):
        people = len(np.unique(oof.persons[photos]))
        shares = (np.bincount(group[photos], minlength=3) / photos.sum()).tolist()
        row = {"year": one, "photos": int(photos.sum()), "people": people, "said": shares}
        wrong, bias = (result.number(column) | _ends(people) for column in (place, len(shown) + place))
        rows.append(row | {"wrong": wrong, "bias": bias})
    return rows


def _ends(people: int) -> Number:
    """What replaces the ends of a number that is about so many people."""
    return {"low": None, "high": None} if people < FEW else {}


def by_fold(oof: Predictions) -> dict[int, dict[str, Any]]:
    """fold -> photos, people, and macro F1 of mask, gender and age_group (None where no photo knows it)."""
    first = np.unique(oof.persons, return_index=True)[1]
    counts, fold = person_counts(oof), oof.fold[first]
    rows = {}
    for number in np.unique(oof.fold).tolist():
        row: dict[str, Any] = {"photos": int((oof.fold == number).sum()), "people": int((fold == number).sum())}
        scores = dict(zip(COLUMNS, columns_of(counts[fold == number].sum(0)).tolist(), strict=True))
        macro = {name: scores[f"{name}.macro_f1"] for name in labels.ATTRIBUTES}
        rows[number] = row | {name: None if np.isnan(score) else score for name, score in macro.items()}
    return rows


def fold_chance(oof: Predictions, *, draws: int = 500, seed: int = 0) -> dict[str, float] | None:
    """How far apart folds of these people score by chance: standard deviations of the folds' macro F1, dealt again.

    The same answers are dealt `draws` times into folds of the same sizes, persons within their gender and age group as
    `data/folds.py` does. seen: as they were dealt; chance: the median; low, high: the middle 95 %. `share` of the deals
    are at least as far apart as `seen`: small where a fold's network, not its people, is odd. Macro F1 is of the
    attributes (mean) where no photo knows all three. None for fewer than two folds.
    """
    names, first = np.unique(oof.persons, return_index=True)
    fold, kind = oof.fold[first], oof.truth[first, 1] * 8 + oof.truth[first, 2]
    if len(np.unique(fold)) < 2:
        return None
    judged, folds = judged_tasks(oof), np.unique(fold)
    counts = macro_counts(oof, judged)

    def spread(dealt: NDArray[np.integer]) -> float:
        inside = (folds[:, None] == dealt).astype(np.float64)
        return float(np.std(macro_mean(inside @ counts, judged), ddof=1))

    rng, order = np.random.default_rng(seed), np.argsort(kind, kind="stable")
    spreads = np.empty(draws)
    for draw in range(draws):
        dealt = np.empty_like(fold)
        dealt[np.lexsort((rng.random(len(names)), kind))] = fold[order]
        spreads[draw] = spread(dealt)
    seen, (low, middle, high) = spread(fold), np.quantile(spreads, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]).tolist()
    return {"seen": seen, "chance": middle, "low": low, "high": high, "share": float(np.mean(spreads >= seen))}
