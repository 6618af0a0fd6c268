"""Parts of a report about predictions: confusions, mistakes, groups of people, confidence, photos that disagree.

Numbers come from `evidence`, with their intervals; here they are put beside pictures, as plain values for the template.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import RunError
from threefold.evidence.decide import FILE, Decision
from threefold.evidence.groups import GROUPS, LEAST, by_group, disagreement, majority, years_around
from threefold.evidence.metrics import TASKS, tasks
from threefold.evidence.review import review
from threefold.pages import figures
from threefold.pages.html import Translate
from threefold.predictions import Predictions
from threefold.read.backends import oof_digest
from threefold.runs import Run

DRAWS = 2000
WORST = 8
"""Mistakes shown of each attribute."""
SHOWN = 12
"""People in the gallery of photos that disagree."""
CLASS_NAMES = {"all": tuple(labels.class_name(code) for code in range(labels.CLASSES)), **labels.NAMES}


def confusions(oof: Predictions) -> list[dict[str, Any]]:
    """Of each task with labelled photos: the table as cells (photos, people, share of the row, style), and of each
    class recall and precision, None where the class does not occur or was never predicted."""
    tables = []
    people = np.unique(oof.persons, return_inverse=True)[1].astype(np.int64)
    for task, truth, predicted in tasks(oof):
        k = TASKS[task]
        cell = (truth * k + predicted)[truth >= 0]
        if not len(cell):
            continue
        once = np.unique(people[truth >= 0] * k * k + cell) % (k * k)
        photos, persons = (np.bincount(part, minlength=k * k).reshape(k, k) for part in (cell, once))
        share = photos / np.maximum(photos.sum(axis=1, keepdims=True), 1)
        cells = [
            [(int(photos[i, j]), int(persons[i, j]), part, figures.shade(part, i == j)) for j, part in enumerate(row)]
            for i, row in enumerate(share.tolist())
        ]
        right = photos.diagonal().tolist()
        recall, precision = (
            [r / n if n else None for r, n in zip(right, photos.sum(axis).tolist(), strict=True)] for axis in (1, 0)
        )
        table = {"task": task, "names": CLASS_NAMES[task], "cells": cells, "recall": recall, "precision": precision}
        tables.append(table)
    return tables


def mistakes(oof: Predictions) -> list[dict[str, Any]]:
    """The most frequent confusions of two classes, with how many people they are about."""
    label, predicted = oof.label, oof.predicted
    wrong = np.flatnonzero((label >= 0) & (label != predicted))
    pairs = Counter(zip(label[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    rows = []
    for pair, count in pairs.most_common(8):
        people = len(np.unique(oof.persons[(label == pair[0]) & (predicted == pair[1])]))
        names = [parts_of(labels.decode(code)) for code in pair]
        rows.append({"pair": list(zip(*names, strict=True)), "count": count, "people": people})
    return rows


def parts_of(codes: Any) -> list[str]:
    """Three codes -> their names; `unknown` where there is no label."""
    return [labels.name(name, int(code)) or "unknown" for name, code in zip(labels.ATTRIBUTES, codes, strict=True)]


def age_errors(oof: Predictions, translate: Translate) -> str | None:
    """The figure of errors by true age, None where no photo has an age in years."""
    truth = oof.truth[:, list(labels.ATTRIBUTES).index("age_group")]
    rows = np.isfinite(oof.ages) & (truth >= 0)
    wrong = oof.marginals()["age_group"].argmax(1) != truth
    return figures.age_errors(oof.ages[rows], wrong[rows], translate) if rows.any() else None


def worst(oof: Predictions, paths: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """attribute -> the WORST photos whose most probable class has it wrong, surest first, one per person.

    By attribute, since the mistakes of one (age, mostly) would hide those of the others. `wrong` counts a person's
    photos that are wrong in this attribute.
    """
    predicted, sure, wrong = _answers(oof)

    def shown(row: int, column: int) -> dict[str, Any]:
        photo, person = str(oof.photos[row]), str(oof.persons[row])
        age, years = (None if np.isnan(value[row]) else round(float(value[row])) for value in (oof.ages, oof.years))
        names = parts_of(oof.truth[row]), parts_of(predicted[row]), wrong[row].tolist()
        of_person = oof.persons == person
        return {
            "photo": photo,
            "person": person,
            "fold": int(oof.fold[row]),
            "picture": figures.thumbnail(paths.get(photo)),
            "confidence": float(sure[row, column]),
            "age": age,
            "years": years,
            "parts": list(zip(*names, strict=True)),
            "wrong": int(wrong[of_person, column].sum()),
            "of": int(of_person.sum()),
        }

    rows = [_surest(oof, wrong[:, column], sure[:, column])[:WORST] for column in range(3)]
    return {name: [shown(row, column) for row in rows[column]] for column, name in enumerate(labels.ATTRIBUTES)}


def surest_wrong(oof: Predictions) -> list[int]:
    """Rows whose most probable class contradicts a label, surest first, one per person."""
    return _surest(oof, np.asarray(_answers(oof)[2].any(axis=1)), oof.probabilities.max(1))


def _answers(oof: Predictions) -> tuple[NDArray[np.int8], NDArray[np.floating], NDArray[np.bool_]]:
    """[N, 3] codes of the most probable class, how probable each is alone, and which of them contradict a label."""
    predicted = labels.decode_all(oof.predicted)
    sure = [part[np.arange(len(oof)), codes] for part, codes in zip(oof.marginals().values(), predicted.T, strict=True)]
    return predicted, np.stack(sure, axis=1), (oof.truth != predicted) & (oof.truth != labels.UNKNOWN)


def _surest(oof: Predictions, chosen: NDArray[np.bool_], sure: NDArray[np.floating]) -> list[int]:
    """Chosen rows by how sure they are, of each person the surest."""
    rows = sorted(np.flatnonzero(chosen).tolist(), key=lambda row: -sure[row])
    return figures.one_per_person(oof.persons.tolist(), rows)


def fairness(oof: Predictions) -> dict[str, Any] | None:
    """`evidence.groups.by_group`, None where no photo has gender and age group."""
    result = by_group(oof, draws=DRAWS)
    return {**result, "groups": GROUPS, "least": LEAST} if any(row["photos"] for row in result["rows"]) else None


def borders(oof: Predictions, translate: Translate) -> list[dict[str, Any]]:
    """Per border of the age groups that people stand around: cut, rows (`years_around`) and their figure."""
    borders = []
    for cut in labels.CUTS:
        if rows := years_around(oof, range(cut - 5, cut + 5), draws=DRAWS):
            borders.append({"cut": cut, "rows": rows, "figure": figures.age_border(rows, cut, translate)})
    return borders


def confidence(oof: Predictions, translate: Translate) -> dict[str, Any]:
    """How far the networks' own confidence can be trusted: reliability of each task, and the curve of all."""
    reviewed = review(oof, Decision().apply(oof.probabilities), draws=DRAWS)
    rows = []
    for task in [task for task in ("class", *labels.ATTRIBUTES) if task in reviewed]:
        bins = reviewed[task]["bins"]
        weight = [part["photos"] for part in bins]
        sure, right = (np.average([part[key] for part in bins], weights=weight) for key in ("confidence", "accuracy"))
        more = {"task": "all" if task == "class" else task, "sure": float(sure), "right": float(right)}
        rows.append({**reviewed[task], **more, "figure": figures.reliability(bins, translate)})
    curves = [(translate(figures.TITLES[row["task"]]), row["curve"]) for row in rows]
    return {"tasks": rows, "figure": figures.risk_coverage(curves, translate)}


def decision(run: Run, plain: Mapping[str, Any], translate: Translate) -> dict[str, Any] | None:
    """What `threefold decide` saved with the run, and its risk-coverage curve beside the out-of-fold one; None where it
    has not decided. `stale`: the rule was fitted on other predictions than those of the run.

    plain: what `confidence` says of the same run.
    """
    if not (run.path / FILE).exists():
        return None
    saved = run.read(FILE)
    missing = [key for key in ("decision", "review", "digest", "tried", "parts", "rule", "kept") if key not in saved]
    if missing:
        raise RunError(f"{run.path / FILE}: lacks {missing[0]!r}; `threefold decide {run.path}` writes it again")
    Decision.from_dict(saved["decision"], run.path / FILE)
    plain_rows = {"class" if row["task"] == "all" else row["task"]: row for row in plain["tasks"]}
    rows = [{"task": row["task"], **saved["review"][key]} for key, row in plain_rows.items() if key in saved["review"]]
    if not rows:
        raise RunError(f"{run.path / FILE}: is of none of the labels of this run; `threefold decide {run.path}` again")
    lines = [(translate("as decided"), rows[0]["curve"])]
    if saved.get("on") != "test":  # those are other people
        curve = next(row["curve"] for row in plain["tasks"] if row["task"] == rows[0]["task"])
        lines.insert(0, (translate("as the networks say it"), curve))
    older = {"on": "oof", "networks": 0, "unlabelled": 0, "single": None}  # of a decision made before there were these
    figure = figures.risk_coverage(lines, translate)
    return older | saved | {"rows": rows, "figure": figure, "stale": saved["digest"] != oof_digest(run)}


def disagreements(oof: Predictions, paths: Mapping[str, Path] | None) -> dict[str, Any]:
    """People whose photos got two genders or age groups, what a vote of their photos would score, and a gallery.

    people: those with the surest answers against their own majority; without `paths` nobody is shown.
    """
    numbers, vote = disagreement(oof, draws=DRAWS)
    gallery = []
    if paths is not None:
        predicted, sure, _ = _answers(oof)
        against = predicted != labels.decode_all(majority(oof))
        order = np.argsort(-(sure * against).max(1), kind="stable")
        order = order[against[order].any(1)]
        for person in list(dict.fromkeys(oof.persons[order].tolist()))[:SHOWN]:
            rows = np.flatnonzero(oof.persons == person)
            rows = rows[np.argsort(~against[rows].any(1), kind="stable")] if len(rows) > SHOWN else rows
            photos = []
            for row in rows[:SHOWN].tolist():
                answers = zip(parts_of(predicted[row]), against[row].tolist(), sure[row].tolist(), strict=True)
                picture = figures.thumbnail(paths.get(str(oof.photos[row])), 112)
                photos.append({"photo": str(oof.photos[row]), "picture": picture, "answers": list(answers)[1:]})
            truth = [name for name in parts_of(oof.truth[rows[0]])[1:] if name != "unknown"]
            gallery.append({"person": person, "truth": truth, "photos": photos, "more": max(0, len(rows) - SHOWN)})
    return {**numbers, "vote": vote, "gallery": gallery}
