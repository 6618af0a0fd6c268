"""Which labels are probably wrong: confident learning on out-of-fold predictions, person by person where that can be.

Every photo was judged by a network that had not seen it, nor anybody else's photo of that person, so a label it
contradicts is one that the other people's labels contradict. Four kinds are looked for:

    gender  a person         what all photos of the person say together
    age     a person         years that cannot be; a person a little to the other side of a border is no suspect
    swap    a person         two photos whose mask labels explain each other better when exchanged
    mask    a photo          what is left: a mask worn otherwise than labelled

One scale for all: `score` is the log odds that the label is wrong. It is the log odds of the proposed value against the
label by the photos, plus those of an error of that kind before any photo is seen (`KNOWN`, what the contest's teams
found): without these, the few photos whose mask a network misreads with certainty would fill the list.

The class-wise part is Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021),
as cleanlab has it: a class counts as seen where its probability reaches the mean that its own photos get, so a class
the network is never sure of (the old) neither floods the list nor is missing from it; only what the confident joint
puts off its diagonal is a suspect. Probabilities are tempered first, since photos of a person are no independent
witnesses and a network is too sure. Temperatures and thresholds are fitted on the predictions they rank: a handful of
numbers of thousands of photos. The regression behind the ages has more, and is cross-fitted over persons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import ThreefoldError, how_to_install
from threefold.evidence.calibrate import LEAST, fit_temperature, temper
from threefold.predictions import Predictions

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

KNOWN = {"gender": 20 / 2700, "age": 10 / 2700, "swap": 3 / 2700, "mask": 2 / 18900}
"""How often each kind is in the contest's labels: of its people, mask of its photos (what two or more teams found)."""
KINDS = tuple(KNOWN)
SPREAD = 3.0
"""Years: how fast a year near a likely one becomes unlikely (a Laplace kernel). Twice as far begins an age suspect."""
BINS, PER_BIN, FOLDS = 6, 30, 5
"""Age bins of the regression (of equally many people), people each needs, and sides of its cross-fit."""
_YEARS = np.arange(121)
_NEAR = np.exp(-np.abs(np.subtract.outer(_YEARS, _YEARS)) / SPREAD)


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    kind: gender, age, swap or mask. photos: ids of the photos that carry the label. attribute: what a patch would name
    as field: mask, gender, age_group or age. label, proposed: values as `data.patches` writes them; of a swap,
    `incorrect,none` and `swap:incorrect,none`. score: log odds that the label is wrong, where errors are as frequent as
    in the contest. confidence: the same as a probability. agree: photos of the person, of all `of` there are, that by
    themselves favour the proposed value (of a swap and of a mask: of the photos concerned).
    """

    kind: str
    person: str
    photos: tuple[str, ...]
    attribute: str
    label: str
    proposed: str
    score: float
    agree: int
    of: int

    @property
    def confidence(self) -> float:
        """Probability 0..1 that the label is wrong."""
        return float(1 / (1 + np.exp(-self.score)))

    @property
    def unanimous(self) -> bool:
        """Whether every photo favours the proposed value."""
        return self.agree == self.of


def find(predictions: Predictions, *, seed: int = 0) -> list[Suspect]:
    """Suspects of all kinds, most suspicious first; of each person at most one gender, one age and one swap.

    predictions: out of fold. Labels that are unknown are nobody's suspects; photos without label still testify. seed:
    of the folds of the age regression. ThreefoldError where cleanlab is not installed.
    """
    try:
        import cleanlab.count  # noqa: F401
    except ImportError:
        raise ThreefoldError(f"suspects needs cleanlab; {how_to_install('train')}") from None
    if not len(predictions):
        return []
    names, who = np.unique(predictions.persons, return_inverse=True)
    evidence = {name: _together(part, who, len(names)) for name, part in predictions.marginals().items()}
    gendered = predictions.truth[:, 1] != labels.UNKNOWN
    found = _by_group(predictions, who, evidence["gender"], "gender", gendered)
    found += _ages(predictions, who, evidence["age_group"], seed)
    best: dict[tuple[str, str], Suspect] = {}
    for one in sorted(found, key=_order):
        best.setdefault((one.kind, one.person), one)
    return sorted([*best.values(), *_masks(predictions, who)], key=_order)


def _order(one: Suspect) -> tuple[float, str, str, tuple[str, ...]]:
    return -one.score, one.kind, one.person, one.photos


def _together(part: Floats, who: Integers, people: int) -> NDArray[np.float64]:
    """[N, K] of photos -> [P, K] of persons: mean log probabilities, since photos of a person say much the same."""
    logs = np.zeros((people, part.shape[1]))
    np.add.at(logs, who, np.log(np.maximum(part, LEAST, dtype=np.float64)))
    return temper(np.exp(logs / np.bincount(who, minlength=people)[:, None]), 1.0)


def _confident(probabilities: Floats, codes: Integers) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """Confident learning of [U, K] and the [U] labels: rows off the diagonal, their proposed codes and log odds.

    Fourth are the tempered [U, K]. The log odds are of probabilities as multiples of their class's threshold.
    """
    from cleanlab.count import compute_confident_joint, get_confident_thresholds

    honest = np.maximum(temper(probabilities, fit_temperature(probabilities, codes)), LEAST)
    if not len(codes):
        return np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), honest
    least = get_confident_thresholds(codes, honest)
    _, off = compute_confident_joint(
        codes, honest, thresholds=least, calibrate=False, return_indices_of_off_diagonals=True
    )
    rows = np.asarray(off, dtype=np.intp)
    ratio = np.log(honest[rows] / least)
    own = ratio[np.arange(len(rows)), codes[rows]].copy()
    ratio[np.arange(len(rows)), codes[rows]] = -np.inf
    return rows, ratio.argmax(1), ratio.max(1) - own, honest


def _prior(kind: str) -> float:
    return float(np.log(KNOWN[kind] / (1 - KNOWN[kind])))


def _units(who: Integers, values: NDArray[Any], known: NDArray[np.bool_]) -> tuple[Integers, NDArray[Any]]:
    """Every (person, label) there is; a person has two where its photos contradict each other."""
    pairs = np.unique(np.stack([who[known], values[known]]), axis=1)
    return pairs[0].astype(np.int64), pairs[1]


def _by_group(
    p: Predictions, who: Integers, evidence: Floats, attribute: str, known: NDArray[np.bool_]
) -> list[Suspect]:
    """People whose photos together say another gender or age group than photos of theirs (`known`, [N]) carry."""
    kind, codes = attribute.removesuffix("_group"), p.truth[:, list(labels.ATTRIBUTES).index(attribute)]
    people, own = _units(who, codes, known)
    said = p.marginals()[attribute].argmax(1)
    found = []
    for unit, code, odds in zip(*_confident(evidence[people], own)[:3], strict=True):
        rows = np.flatnonzero(who == people[unit])
        values = labels.name(attribute, int(own[unit])), labels.name(attribute, int(code))
        carry = rows[known[rows] & (codes[rows] == own[unit])]
        found.append(_suspect(p, kind, attribute, values, odds, carry, (said[rows] == code).tolist()))
    return found


def _suspect(
    p: Predictions, kind: str, attribute: str, values: tuple[str, str], odds: float, rows: Integers,
    votes: Sequence[bool],
) -> Suspect:  # fmt: skip
    photos, person = tuple(p.photos[rows].tolist()), str(p.persons[rows[0]])
    return Suspect(kind, person, photos, attribute, *values, float(odds + _prior(kind)), sum(votes), len(votes))


def _ages(p: Predictions, who: Integers, evidence: Floats, seed: int) -> list[Suspect]:
    """People whose years, or age group where only that is labelled, the photos together contradict.

    A label in years is judged by `year_odds`, never by its group: a 59-year-old taken for 60 is no error. Where too few
    have years for that, groups are judged as genders are.
    """
    grouped = p.truth[:, 2] != labels.UNKNOWN
    aged = np.isfinite(p.ages) & (p.ages >= 0) & (p.ages <= _YEARS[-1])
    people, years = _units(who, p.ages.astype(np.float64), aged)
    if len(people) < 2 * PER_BIN or len(np.unique(years)) < 2:
        return _by_group(p, who, evidence, "age_group", grouped)
    # what each photo says in years: the network's own, or what is usual in the groups it sees
    usual = [years[_groups(years) == group] for group in range(3)]
    typical = np.array([part.mean() if len(part) else np.nan for part in usual])
    typical = np.where(np.isnan(typical), years.mean(), typical)
    seen = np.where(np.isfinite(p.years), p.years, p.marginals()["age_group"] @ typical)
    mean = np.bincount(who, seen) / np.bincount(who)
    features = np.column_stack([mean, np.log(np.maximum(evidence, LEAST))])[people]
    odds, likely = year_odds(features, years, people, seed)
    found = _by_group(p, who, evidence, "age_group", grouped & ~aged)
    for unit in np.flatnonzero(np.abs(likely - years) > 2 * SPREAD):
        rows = np.flatnonzero(who == people[unit])
        nearer = np.abs(seen[rows] - likely[unit]) < np.abs(seen[rows] - years[unit])
        values = f"{years[unit]:g}", str(likely[unit])
        carry = rows[p.ages[rows] == years[unit]]
        found.append(_suspect(p, "age", "age", values, odds[unit], carry, nearer.tolist()))
    return found


def _groups(years: Floats) -> NDArray[np.int64]:
    return np.searchsorted(np.array(labels.CUTS), years, side="right")


def year_odds(features: Floats, years: Floats, groups: Integers, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """[U] log odds of the likeliest year against the labelled one, given [U, F] features; and [U] that year.

    A logistic regression tells the age bin, fitted on other people (`groups` [U] keeps a person on one side); the years
    within a bin are as its people are labelled, smoothed by SPREAD. So a model's own error is accounted for: years that
    people who look so often have are not suspicious, however far from what the model said.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = min(BINS, len(years) // PER_BIN)
    edges = np.quantile(years, np.arange(1, count) / count)
    bins = np.unique(np.searchsorted(edges, years, side="right"), return_inverse=True)[1]
    chance = np.full((len(years), bins.max() + 1), LEAST)
    for fit, held in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, bins, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if len(np.unique(bins[fit])) < 2:  # of one bin there is nothing to tell
            chance[held, bins[fit][0]] = 1
            continue
        model.fit(features[fit], bins[fit])
        chance[np.ix_(held, model[-1].classes_)] = model.predict_proba(features[held])
    whole = np.rint(years).astype(np.int64)
    of_bin = np.zeros((len(_YEARS), chance.shape[1]))
    np.add.at(of_bin, (whole, bins), 1)
    density = chance @ (_NEAR @ (of_bin / of_bin.sum(0))).T
    own = density[np.arange(len(years)), whole]
    return np.log(density.max(1) / own), density.argmax(1)


def _masks(p: Predictions, who: Integers) -> list[Suspect]:
    """Swaps, and photos whose mask is worn otherwise than labelled and that no swap explains."""
    codes = p.truth[:, 0].astype(np.int64)
    known = np.flatnonzero(codes != labels.UNKNOWN)
    rows, proposed, odds, honest = _confident(p.marginals()["mask"][known], codes[known])
    logs = np.zeros((len(p), 3))
    logs[known] = np.log(honest)
    found, explained = [], set()
    for pair, better in _exchanges(who, codes, logs, known[rows]):
        label = ",".join(labels.name("mask", int(code)) for code in codes[pair])
        values = label, f"swap:{label}"
        found.append(_suspect(p, "swap", "mask", values, better, pair, [True, True]))
        explained.update(pair.tolist())
    for row, code, each in zip(known[rows], proposed, odds, strict=True):
        if row not in explained:
            values = labels.name("mask", int(codes[row])), labels.name("mask", int(code))
            found.append(_suspect(p, "mask", "mask", values, each, np.array([row]), [True]))
    return found


def _exchanges(who: Integers, codes: Integers, logs: Floats, rows: Integers) -> list[tuple[Integers, float]]:
    """The best exchange of each person with a suspicious photo: its two photos and by how much their log odds gain.

    Two labels are exchanged that the person has once each, so that `swap:one,other` means these photos; each photo must
    prefer the other's label. (One of five worn masks, exchanged with the incorrect one, is two suspects of kind mask.)
    """
    found = []
    for person in np.unique(who[rows]):
        own = np.flatnonzero((who == person) & (codes != labels.UNKNOWN))
        once = [row for row in own if (codes[own] == codes[row]).sum() == 1]
        pairs = [np.array([a, b]) for a in once for b in once if codes[a] < codes[b]]
        gains = [(pair, logs[pair, codes[pair[::-1]]] - logs[pair, codes[pair]]) for pair in pairs]
        both = [(pair, float(gain.sum())) for pair, gain in gains if (gain > 0).all()]
        found += sorted(both, key=lambda item: -item[1])[:1]
    return found
