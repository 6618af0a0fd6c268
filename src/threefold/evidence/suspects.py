"""Which labels are probably wrong: confident learning on out-of-fold predictions, person by person where that can be.

Every photo was judged by a network that had not seen it, nor anybody else's photo of that person, so a label it
contradicts is one that the other people's labels contradict. Four kinds are looked for:

    gender  a person         what all photos of the person say together
    age     a person         years that cannot be; a person a little to the other side of a border is no suspect
    swap    a person         two photos whose mask labels explain each other better when exchanged
    mask    a photo          what is left: a mask worn otherwise than labelled
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import ThreefoldError, how_to_install
from threefold.evidence.bootstrap import AnyFloats, person_sums
from threefold.evidence.calibrate import LEAST, fit_temperature, temper
from threefold.predictions import Predictions

Integers = NDArray[np.integer]

FREQUENCY = {"gender": 20 / 2700, "age": 10 / 2700, "swap": 3 / 2700, "mask": 2 / 18900}
"""How often each kind is in the contest's labels: of its people, mask of its photos (what two or more teams found)."""
KINDS = tuple(FREQUENCY)
SPREAD = 3.0
"""Years: how fast a year near a likely one becomes unlikely (a Laplace kernel). Twice as far begins an age suspect."""
BINS, PER_BIN, FOLDS = 6, 30, 5
"""Age bins of the regression (of equally many people), people each needs, and sides of its cross-fit."""
_YEARS = np.arange(121)
_NEAR = np.exp(-np.abs(np.subtract.outer(_YEARS, _YEARS)) / SPREAD)
_LEAST_THRESHOLD, _TOLERANCE = 2e-6, 1e-6


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


def find_suspects(predictions: Predictions, *, seed: int = 0) -> list[Suspect]:
    """Suspects of all kinds, most suspicious first; of each person at most one gender, one age and one swap.

    predictions: out of fold. Labels that are unknown are nobody's suspects; photos without label still testify. seed:
    of the folds of the age regression. ThreefoldError where that is needed and scikit-learn is not installed.
    """
    if not len(predictions):
        return []
    who = np.unique(predictions.persons, return_inverse=True)[1]
    evidence = {}
    for name, part in predictions.marginals().items():
        # mean log probabilities, since photos of a person say much the same
        logs = person_sums(predictions.persons, np.log(np.maximum(part, LEAST, dtype=np.float64)))
        evidence[name] = temper(np.exp(logs / np.bincount(who)[:, None]), 1.0)
    labelled = predictions.truth[:, 1] != labels.UNKNOWN
    suspects = _by_group(predictions, who, evidence["gender"], "gender", labelled)
    suspects += _ages(predictions, who, evidence["age_group"], seed)
    best: dict[tuple[str, str], Suspect] = {}
    for suspect in sorted(suspects, key=_order):
        best.setdefault((suspect.kind, suspect.person), suspect)
    return sorted([*best.values(), *_masks(predictions, who)], key=_order)


def _order(suspect: Suspect) -> tuple[float, str, str, tuple[str, ...]]:
    return -suspect.score, suspect.kind, suspect.person, suspect.photos


def off_diagonal(probabilities: AnyFloats, codes: Integers) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(rows that the confident joint of [U, K] probabilities and [U] labels puts off its diagonal, [K] thresholds).

    Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021), equations 1 and 2,
    with the tolerances of cleanlab. A class counts as seen where its probability reaches the mean that its own rows
    get, so a class the network is never sure of (the old) neither floods the list nor is missing from it; of several
    that are reached the most probable counts. A class that nobody has is never reached.
    """
    thresholds = np.full(probabilities.shape[1], 2.0)
    for code in np.unique(codes).tolist():
        thresholds[code] = max(float(probabilities[:, code][codes == code].mean()), _LEAST_THRESHOLD)
    reached = probabilities >= thresholds - _TOLERANCE
    seen = np.where(reached.sum(1) > 1, probabilities.argmax(1), reached.argmax(1))
    return np.flatnonzero(reached.any(1) & (seen != codes)), thresholds


def _confident(probabilities: AnyFloats, codes: Integers) -> tuple[Integers, Integers, AnyFloats, AnyFloats]:
    """Confident learning of [U, K] and the [U] labels: rows off the diagonal, their proposed codes and log odds.

    Fourth are the tempered [U, K]. The log odds are of probabilities as multiples of their class's threshold.
    """
    # Tempered first, since photos of a person are no independent witnesses and a network is too sure. Temperatures and
    # thresholds are fitted on the predictions they rank: a handful of numbers of thousands of photos.
    honest = np.maximum(temper(probabilities, fit_temperature(probabilities, codes)), LEAST)
    rows, thresholds = off_diagonal(honest, codes)
    ratio = np.log(honest[rows] / thresholds)
    places = np.arange(len(rows)), codes[rows]
    labelled = ratio[places].copy()
    ratio[places] = -np.inf
    return rows, ratio.argmax(1), ratio.max(1) - labelled, honest


def _units(who: Integers, values: NDArray[Any], labelled: NDArray[np.bool_]) -> tuple[Integers, NDArray[Any]]:
    """Every (person, label) there is; a person has two where its photos contradict each other."""
    pairs = np.unique(np.stack([who[labelled], values[labelled]]), axis=1)
    return pairs[0].astype(np.int64), pairs[1]


def _by_group(
    p: Predictions, who: Integers, evidence: AnyFloats, attribute: str, labelled: NDArray[np.bool_]
) -> list[Suspect]:
    """People whose photos together say another gender or age group than photos of theirs (`labelled`, [N]) carry."""
    kind, codes = attribute.removesuffix("_group"), p.truth[:, list(labels.ATTRIBUTES).index(attribute)]
    people, unit_codes = _units(who, codes, labelled)
    answers = p.marginals()[attribute].argmax(1)
    suspects = []
    for unit, code, odds in zip(*_confident(evidence[people], unit_codes)[:3], strict=True):
        rows = np.flatnonzero(who == people[unit])
        values = labels.name(attribute, int(unit_codes[unit])), labels.name(attribute, int(code))
        carry = rows[labelled[rows] & (codes[rows] == unit_codes[unit])]
        suspects.append(_suspect(p, kind, attribute, values, odds, carry, (answers[rows] == code).tolist()))
    return suspects


def _suspect(
    p: Predictions, kind: str, attribute: str, values: tuple[str, str], odds: float, rows: Integers, votes: list[bool]
) -> Suspect:
    """values: label and proposed; odds: log odds of the proposed value by the photos; rows: photos with the label."""
    # One scale for all kinds: the odds by the photos times those of an error of that kind before any photo is seen.
    # Without these, the few photos whose mask a network misreads with certainty would fill the list.
    prior = np.log(FREQUENCY[kind] / (1 - FREQUENCY[kind]))
    photos, person = tuple(p.photos[rows].tolist()), str(p.persons[rows[0]])
    return Suspect(kind, person, photos, attribute, *values, float(odds + float(prior)), sum(votes), len(votes))


def _ages(p: Predictions, who: Integers, evidence: AnyFloats, seed: int) -> list[Suspect]:
    """People whose years, or age group where only that is labelled, the photos together contradict.

    A label in years is judged by `year_odds`, never by its group: a 59-year-old taken for 60 is no error. Where too few
    have years for that, groups are judged as genders are.
    """
    grouped = p.truth[:, 2] != labels.UNKNOWN
    aged = np.isfinite(p.ages) & (p.ages >= 0) & (p.ages <= _YEARS[-1])
    people, years = _units(who, p.ages.astype(np.float64), aged)
    if len(people) < 2 * PER_BIN or len(np.unique(years)) < 2:
        return _by_group(p, who, evidence, "age_group", grouped)
    # what each photo says in years: the network's answer, or what is usual in the groups it sees
    groups = np.searchsorted(np.array(labels.CUTS), years, side="right")
    typical = [years[groups == group].mean() if (groups == group).any() else years.mean() for group in range(3)]
    seen = np.where(np.isfinite(p.years), p.years, p.marginals()["age_group"] @ np.array(typical))
    mean = np.bincount(who, seen) / np.bincount(who)
    features = np.column_stack([mean, np.log(np.maximum(evidence, LEAST))])[people]
    odds, likely = year_odds(features, years, people, seed)
    suspects = _by_group(p, who, evidence, "age_group", grouped & ~aged)
    for unit in np.flatnonzero(np.abs(likely - years) > 2 * SPREAD):
        rows = np.flatnonzero(who == people[unit])
        nearer = np.abs(seen[rows] - likely[unit]) < np.abs(seen[rows] - years[unit])
        values = f"{years[unit]:g}", str(likely[unit])
        carry = rows[p.ages[rows] == years[unit]]
        suspects.append(_suspect(p, "age", "age", values, odds[unit], carry, nearer.tolist()))
    return suspects


def year_odds(features: AnyFloats, years: AnyFloats, groups: Integers, seed: int) -> tuple[AnyFloats, Integers]:
    """[U] log odds of the likeliest year against the labelled one, by [U, F] features; and [U] that year.

    A logistic regression tells the age bin, fitted on other people (`groups` [U] keeps a person on one side); the years
    within a bin are as its people are labelled, smoothed by SPREAD. So a model's own error is accounted for: years that
    people who look so often have are not suspicious, however far from what the model said.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ThreefoldError(f"suspects needs scikit-learn to judge ages; {how_to_install('train')}") from None

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
    return np.log(density.max(1) / density[np.arange(len(years)), whole]), density.argmax(1)


def _masks(p: Predictions, who: Integers) -> list[Suspect]:
    """Swaps, and photos whose mask is worn otherwise than labelled and that no swap explains."""
    codes = p.truth[:, 0].astype(np.int64)
    labelled = np.flatnonzero(codes != labels.UNKNOWN)
    rows, proposed, odds, honest = _confident(p.marginals()["mask"][labelled], codes[labelled])
    rows = labelled[rows]
    logs = np.zeros((len(p), 3))
    logs[labelled] = np.log(honest)
    suspects, explained = [], set()
    for pair, gain in _exchanges(who, codes, logs, rows):
        label = ",".join(labels.name("mask", int(code)) for code in codes[pair])
        suspects.append(_suspect(p, "swap", "mask", (label, f"swap:{label}"), gain, pair, [True, True]))
        explained.update(pair.tolist())
    for row, code, gain in zip(rows.tolist(), proposed.tolist(), odds.tolist(), strict=True):
        if row not in explained:
            values = labels.name("mask", int(codes[row])), labels.name("mask", code)
            suspects.append(_suspect(p, "mask", "mask", values, gain, np.array([row]), [True]))
    return suspects


def _exchanges(who: Integers, codes: Integers, logs: AnyFloats, rows: Integers) -> list[tuple[Integers, float]]:
    """The best exchange of each person with a suspicious photo: its two photos and by how much their log odds gain.

    Two labels are exchanged that the person has once each, so that `swap:one,other` means these photos; each photo must
    prefer the other's label. (One of five worn masks, exchanged with the incorrect one, is two suspects of kind mask.)
    """
    exchanges = []
    for person in np.unique(who[rows]):
        photos = np.flatnonzero((who == person) & (codes != labels.UNKNOWN))
        once = [row for row in photos if (codes[photos] == codes[row]).sum() == 1]
        pairs = [np.array([a, b]) for a in once for b in once if codes[a] < codes[b]]
        gains = [(pair, logs[pair, codes[pair[::-1]]] - logs[pair, codes[pair]]) for pair in pairs]
        both = [(pair, float(gain.sum())) for pair, gain in gains if (gain > 0).all()]
        exchanges += sorted(both, key=lambda item: -item[1])[:1]
    return exchanges
