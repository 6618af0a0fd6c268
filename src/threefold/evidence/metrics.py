"""What a classifier scored: confusion, F1, accuracy, per class and per attribute, each with its interval.

Macro F1 is the contest's: the mean of the F1 of all 18 classes, where a class that neither occurs nor is predicted
counts 0. A data set without any photo of some class therefore cannot reach 1; `macro_f1 * 18 / classes_present` is the
mean over those that it has. Labels may be partly unknown: the 18-class numbers are of the photos that know all three
attributes, an attribute's of the photos that know that attribute, whose prediction is the largest of its marginal
probabilities (which need not be the attribute of the most probable class).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.bootstrap import Floats, estimate, person_sums, ratio
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
    true, answers = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if true.shape != answers.shape or true.ndim != 1:
        raise DataError(f"truth has shape {true.shape}, predictions {answers.shape}; expected two equal lists")
    labelled = true != labels.UNKNOWN
    true, answers = true[labelled], answers[labelled]
    for what, codes in (("truth", true), ("prediction", answers)):
        bad = codes[(codes < 0) | (codes >= k)]
        if len(bad):
            raise DataError(f"{what} {bad[0]} is not one of 0..{k - 1}")
    return np.bincount(true * k + answers, minlength=k * k).reshape(k, k)


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
    labelled = truth != labels.UNKNOWN
    return float((truth == predicted)[labelled].mean()) if labelled.any() else float("nan")


def tasks(predictions: Predictions) -> Iterator[tuple[str, Labels, Labels]]:
    """(name, [N] truth, [N] predicted) of the 18 classes (`all`), then of mask, gender and age_group."""
    yield "all", predictions.label, predictions.predicted
    for column, (name, marginal) in enumerate(predictions.marginals().items()):
        yield name, predictions.truth[:, column].astype(np.int64), marginal.argmax(1)


def judged_tasks(predictions: Predictions) -> tuple[str, ...]:
    """What the one number of runs is the mean macro F1 of, empty where no photo has a label.

    `all` (the 18 classes) where a photo knows all three attributes, else the attributes that are known.
    """
    if (predictions.label >= 0).any():
        return ("all",)
    return tuple(name for name, truth, _ in tasks(predictions) if (truth >= 0).any())


def score(predictions: Predictions, attributes: Sequence[str] = tuple(labels.ATTRIBUTES)) -> float:
    """The one number that early stopping and the best checkpoint go by, 0..1; NaN when nothing is known.

    Macro F1 over the 18 classes where photos know all three attributes. Otherwise (a mask set joined with an age set,
    or a network that learns some `attributes` only) the mean of the macro F1 of those attributes that are known, which
    is not comparable with the former.
    """
    names = judged_tasks(predictions) if len(attributes) == len(labels.ATTRIBUTES) else attributes
    parts = [part for part in tasks(predictions) if part[0] in names and (part[1] >= 0).any()]
    scores = [macro_f1(truth, answers, TASKS[name]) for name, truth, answers in parts]
    return float(np.mean(scores)) if scores else float("nan")


def sides(predictions: Predictions, k: int = 5, seed: int = 0) -> NDArray[np.integer]:
    """[N] number of the part of the people each photo is held out with; a person is in one part.

    The folds of the run where it has several (they keep people who share a photo together), else `k` lots of persons by
    `seed`. Raises DataError where there are fewer than two persons.
    """
    if len(np.unique(predictions.fold)) > 1:
        return predictions.fold
    names, rows = np.unique(predictions.persons, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"a cross-fit holds persons out and there is {len(names)} here; expected 2 or more")
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[rows] % k)


def measure(predictions: Predictions, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Everything metrics.json holds about predictions; every number is {value, low, high}, null where nothing is known.

    `low` and `high` are the ends of the 95 % interval of a bootstrap over persons (bootstrap.py), `draws` of them.
    `known` counts the photos that each part is of. `age_error` is the mean absolute error of the predicted years.
    """
    numbers = estimate(predictions.persons, person_counts(predictions), columns_of, draws, seed).named(COLUMNS)
    label, classes = predictions.label, []
    for code in range(labels.CLASSES):
        persons = predictions.persons[label == code]
        row = {"class": code, "name": labels.class_name(code), "photos": len(persons)}
        classes.append(row | {"persons": len(np.unique(persons)), "f1": numbers[f"f1.{code}"]})
    return {
        "photos": len(predictions),
        "persons": len(np.unique(predictions.persons)),
        "macro_f1": numbers["all.macro_f1"],
        "accuracy": numbers["all.accuracy"],
        **{name: {key: numbers[f"{name}.{key}"] for key in ("accuracy", "macro_f1")} for name in labels.ATTRIBUTES},
        "known": {name: int((truth >= 0).sum()) for name, truth, _ in tasks(predictions)},
        "classes_present": len(np.unique(label[label >= 0])),
        "per_class": classes,
        "age_error": numbers["age_error"],
        "draws": draws,
    }


def person_counts(predictions: Predictions) -> Floats:
    """[P, 80] what each person adds to every score, for `bootstrap.resample`; in the order of `np.unique(persons)`.

    Per task true positives, predicted and true of each class; then the summed age error and its photos.
    """
    gap = np.abs(predictions.years - predictions.ages).astype(np.float64)
    years = np.stack([np.nan_to_num(gap), np.isfinite(gap)], axis=1)
    return np.concatenate([macro_counts(predictions, TASKS), person_sums(predictions.persons, years)], axis=1)


def macro_counts(predictions: Predictions, names: Collection[str]) -> Floats:
    """[P, 3 * the classes of the tasks `names`] what `macro_mean` of them needs: a part of `person_counts`."""
    columns = []
    for name, truth, answers in tasks(predictions):
        if name in names:
            classes = np.arange(TASKS[name])
            true = truth[:, None] == classes
            predicted = (answers[:, None] == classes) & (truth[:, None] >= 0)
            columns += [true & predicted, predicted, true]
    return person_sums(predictions.persons, np.concatenate(columns, axis=1))


def macro_mean(counts: Floats, names: Iterable[str]) -> Floats:
    """[..., C] summed `macro_counts` of the same tasks -> [..., 1] mean of their macro F1; NaN where one is unknown.

    names: in the order of TASKS.
    """
    scores = np.stack([_macro(table) for table in _tables(counts, names)], axis=-1)
    return np.asarray(scores.mean(-1, keepdims=True), dtype=np.float64)


def columns_of(counts: Floats) -> Floats:
    """[..., 80] summed `person_counts` -> [..., 27] the numbers named in COLUMNS; NaN where nothing is known."""
    numbers: list[Floats] = []
    whole, *attributes = _tables(counts, TASKS)
    for table in (whole, *attributes):
        numbers += [ratio(table[..., 0, :].sum(-1), table[..., 2, :].sum(-1)), _macro(table)]
    numbers.append(ratio(counts[..., -2], counts[..., -1]))
    rates = np.where(whole[..., 2, :] > 0, _f1(whole), np.nan)
    return np.concatenate([np.stack(numbers, axis=-1), rates], axis=-1)


def _tables(counts: Floats, names: Iterable[str]) -> Iterator[Floats]:
    """[..., C] summed `macro_counts` of some tasks -> of each task [..., 3, k] true positives, predicted, true."""
    start = 0
    for name in names:
        k = TASKS[name]
        yield counts[..., start : start + 3 * k].reshape(*counts.shape[:-1], 3, k)
        start += 3 * k


def _f1(counts: Floats) -> Floats:
    """[..., 3, k] true positives, predicted, true -> [..., k]."""
    both = counts[..., 1, :] + counts[..., 2, :]
    return np.divide(2 * counts[..., 0, :], both, out=np.zeros_like(both), where=both > 0)


def _macro(counts: Floats) -> Floats:
    """[..., 3, k] -> [...] the mean of `_f1`; NaN where no photo has a label."""
    return np.where(counts[..., 2, :].sum(-1) > 0, _f1(counts).mean(-1), np.nan)
