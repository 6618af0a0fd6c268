"""What a classifier scored: confusion, F1, accuracy, per class and per attribute, each with its interval.

Macro F1 is the contest's: the mean of the F1 of all 18 classes, where a class that neither occurs nor is predicted
counts 0 (scikit-learn: `f1_score(labels=range(18), average="macro", zero_division=0)`). A data set without any photo of
some class therefore cannot reach 1; `classes_present` says how many classes it could have scored on, and
`macro_f1 * 18 / classes_present` is the mean over those.

Labels may be partly unknown. The 18-class numbers are of the photos that know all three attributes; an attribute's
numbers are of the photos that know that attribute, and its prediction is the largest of its marginal probabilities
(which need not be the attribute of the most probable class).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import Floats, Number, estimate, person_sums, ratio
from threefold.predictions import Predictions

Labels = NDArray[np.integer]
TASKS: dict[str, int] = {"all": labels.CLASSES, **labels.SIZES}
"""What is scored and its number of classes: the 18 classes (`all`) and each attribute."""
COLUMNS: tuple[str, ...] = (
    *(f"{task}.{number}" for task in TASKS for number in ("accuracy", "macro_f1")),
    "age_error",
    *(f"f1.{code}" for code in range(labels.CLASSES)),
)
"""Names of the numbers that `columns_of` computes, in order."""


def confusion(truth: Labels, predicted: Labels, k: int) -> NDArray[np.int64]:
    """[k, k] photos, row = truth, column = predicted. Photos of UNKNOWN truth are skipped.

    Raises DataError for lengths that differ and for a class outside 0..k-1.
    """
    true, said = _known(truth, predicted, k)
    return np.bincount(true * k + said, minlength=k * k).reshape(k, k)


def f1_per_class(truth: Labels, predicted: Labels, classes: int = labels.CLASSES) -> Floats:
    """[classes] F1 = 2 TP / (predicted + true); 0 where a class neither occurs nor is predicted."""
    table = confusion(truth, predicted, classes)
    return _f1(np.stack([table.diagonal(), table.sum(0), table.sum(1)]).astype(np.float64))


def macro_f1(truth: Labels, predicted: Labels, classes: int = labels.CLASSES) -> float:
    """Mean F1 over all `classes`, absent ones counting 0, as the contest scores; 0..1. UNKNOWN truth is skipped.

    The same as scikit-learn's `f1_score(truth, predicted, labels=range(classes), average="macro", zero_division=0)`.
    """
    return float(f1_per_class(truth, predicted, classes).mean())


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Share of the photos of known truth that are right, 0..1; NaN when there is none."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    known = truth != labels.UNKNOWN
    return float((truth == predicted)[known].mean()) if known.any() else float("nan")


def tasks(predictions: Predictions) -> Iterator[tuple[str, Labels, Labels]]:
    """(name, [N] truth, [N] predicted) of the 18 classes (`all`), then of mask, gender and age_group."""
    yield "all", predictions.label, predictions.predicted
    for column, (name, marginal) in enumerate(predictions.marginals().items()):
        yield name, predictions.truth[:, column].astype(np.int64), marginal.argmax(1)


def score(predictions: Predictions, told: Sequence[str] = tuple(labels.ATTRIBUTES)) -> float:
    """The one number that early stopping and the best checkpoint go by, 0..1; NaN when nothing is known.

    Macro F1 over the 18 classes where photos know all three attributes. Otherwise (a mask set joined with an age set,
    or a network that has been `told` of some attributes only) the mean of the macro F1 of those attributes that are
    known, which is not comparable with the former.
    """
    found = {name: macro_f1(truth, said, TASKS[name]) for name, truth, said in tasks(predictions) if (truth >= 0).any()}
    if "all" in found and len(told) == len(labels.ATTRIBUTES):
        return found["all"]
    parts = [found[name] for name in told if name in found]
    return float(np.mean(parts)) if parts else float("nan")


def measure(predictions: Predictions, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Everything metrics.json holds about predictions; every number is {value, low, high}, null where nothing is known.

    `low` and `high` are the ends of the 95 % interval of a bootstrap over persons (bootstrap.py), `draws` of them.
    `known` counts the photos that each part is of. `age_error` is the mean absolute error of the predicted years.
    """
    found = estimate(predictions.persons, person_counts(predictions), columns_of, draws, seed)
    numbers = found.named(COLUMNS)
    label = predictions.label
    return {
        "photos": len(predictions),
        "persons": len(np.unique(predictions.persons)),
        "macro_f1": numbers["all.macro_f1"],
        "accuracy": numbers["all.accuracy"],
        **{name: {key: numbers[f"{name}.{key}"] for key in ("accuracy", "macro_f1")} for name in labels.ATTRIBUTES},
        "known": {name: int((truth >= 0).sum()) for name, truth, _ in tasks(predictions)},
        "classes_present": len(np.unique(label[label >= 0])),
        "per_class": [_class_row(code, predictions, numbers[f"f1.{code}"]) for code in range(labels.CLASSES)],
        "age_error": numbers["age_error"],
        "draws": draws,
    }


def person_counts(predictions: Predictions) -> Floats:
    """[P, 80] what each person adds to every score: per task true positives, predicted and true of each class, then
    the summed age error and its photos. Rows in the order of `np.unique(persons)`, for `bootstrap.resample`.
    """
    gap = np.abs(predictions.years - predictions.ages).astype(np.float64)
    years = np.stack([np.nan_to_num(gap), np.isfinite(gap)], axis=1)
    return np.concatenate([macro_counts(predictions, TASKS), person_sums(predictions.persons, years)], axis=1)


def macro_counts(predictions: Predictions, names: Collection[str]) -> Floats:
    """[P, 3 * the classes of the tasks `names`] what `macro_mean` of them needs: a part of `person_counts`."""
    columns = [_counts(truth, said, TASKS[name]) for name, truth, said in tasks(predictions) if name in names]
    return np.concatenate([person_sums(predictions.persons, part) for part in columns], axis=1)


def macro_mean(counts: Floats, names: Iterable[str]) -> Floats:
    """[..., C] summed `macro_counts` of the same tasks -> [..., 1] mean of their macro F1; NaN where one is unknown.

    names: in the order of TASKS.
    """
    found: list[Floats] = []
    start = 0
    for name in names:
        table = counts[..., start : start + 3 * TASKS[name]].reshape(*counts.shape[:-1], 3, TASKS[name])
        start += 3 * TASKS[name]
        found.append(_macro(table))
    return np.asarray(np.stack(found, axis=-1).mean(-1, keepdims=True), dtype=np.float64)


def columns_of(counts: Floats) -> Floats:
    """[..., 80] summed `person_counts` -> [..., 27] the numbers named in COLUMNS; NaN where nothing is known."""
    found: list[Floats] = []
    rates: list[Floats] = []
    start = 0
    for k in TASKS.values():
        table = counts[..., start : start + 3 * k].reshape(*counts.shape[:-1], 3, k)
        start += 3 * k
        found += [ratio(table[..., 0, :].sum(-1), table[..., 2, :].sum(-1)), _macro(table)]
        rates.append(np.where(table[..., 2, :] > 0, _f1(table), np.nan))
    found.append(ratio(counts[..., start], counts[..., start + 1]))
    return np.concatenate([np.stack(found, axis=-1), rates[0]], axis=-1)


def _known(truth: Labels, predicted: Labels, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    true, said = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != said.shape or true.ndim != 1:
        raise DataError(f"truth has shape {true.shape}, predictions {said.shape}; expected two equal lists")
    kept = true != labels.UNKNOWN
    true, said = true[kept], said[kept]
    for what, codes in (("truth", true), ("prediction", said)):
        if len(codes) and not 0 <= codes.min() <= codes.max() < k:
            bad = codes[(codes < 0) | (codes >= k)][0]
            raise DataError(f"{what} {bad} is not one of 0..{k - 1}")
    return true, said


def _f1(counts: Floats) -> Floats:
    """[..., 3, k] true positives, predicted, true -> [..., k]."""
    both = counts[..., 1, :] + counts[..., 2, :]
    return np.divide(2 * counts[..., 0, :], both, out=np.zeros_like(both), where=both > 0)


def _macro(counts: Floats) -> Floats:
    """[..., 3, k] -> [...] the mean of `_f1`; NaN where no photo has a label."""
    return np.where(counts[..., 2, :].sum(-1) > 0, _f1(counts).mean(-1), np.nan)


def _counts(truth: Labels, predicted: Labels, k: int) -> NDArray[np.bool_]:
    """[N, 3 k]: per photo one-hot of true positive, predicted, true; nothing where the truth is UNKNOWN."""
    classes = np.arange(k)
    true = truth[:, None] == classes
    said = (predicted[:, None] == classes) & (truth[:, None] >= 0)
    return np.concatenate([true & said, said, true], axis=1)


def _class_row(code: int, predictions: Predictions, f1: Number) -> dict[str, Any]:
    rows = predictions.label == code
    return {
        "class": code,
        "name": labels.class_name(code),
        "photos": int(rows.sum()),
        "persons": len(np.unique(predictions.persons[rows])),
        "f1": f1,
    }
