"""Parts of a report about predictions: confusions, mistakes, groups of people, confidence, photos that disagree.

Numbers come from `evidence`, with their intervals; here they are put beside pictures, as plain values for the template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
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
from threefold.pages.figures import Say
from threefold.predictions import Predictions
from threefold.read.backends import oof_digest
from threefold.runs import Run

DRAWS = 2000
WORST = 8
"""Mistakes shown of each attribute."""
SHOWN = 12
"""People in the gallery of photos that disagree."""
BORDERS = tuple((cut, range(cut - 5, cut + 5)) for cut in labels.CUTS)
CLASS_NAMES = {"all": tuple(labels.class_name(code) for code in range(labels.CLASSES)), **labels.NAMES}


def confusions(oof: Predictions) -> list[dict[str, Any]]:
    """Of each task with known photos: the table as cells (photos, people, share of the row, style), and of each class
    recall and precision, None where the class does not occur or was never said."""
    found = []
    people = np.unique(oof.persons, return_inverse=True)[1].astype(np.int64)
    for task, truth, predicted in tasks(oof):
        k = TASKS[task]
        cell = (truth * k + predicted)[truth >= 0]
        if not len(cell):
            continue
        once = np.unique(people[truth >= 0] * k * k + cell) % (k * k)
        photos, persons = (np.bincount(each, minlength=k * k).reshape(k, k) for each in (cell, once))
        share = photos / np.maximum(photos.sum(axis=1, keepdims=True), 1)
        cells = [
            [(int(photos[i, j]), int(persons[i, j]), part, figures.shade(part, i == j)) for j, part in enumerate(row)]
            for i, row in enumerate(share.tolist())
        ]
        right, occur, said = photos.diagonal().tolist(), photos.sum(1).tolist(), photos.sum(0).tolist()
        recall, precision = ([r / n if n else None for r, n in zip(right, of, strict=True)] for of in (occur, said))
        names = CLASS_NAMES[task]
        found.append({"task": task, "names": names, "cells": cells, "recall": recall, "precision": precision})
    return found


def mistakes(oof: Predictions) -> list[dict[str, Any]]:
    """The most frequent confusions of two classes, with how many people they are about."""
    label, predicted = oof.label, oof.predicted
    wrong = np.flatnonzero((label >= 0) & (label != predicted))
    pairs = Counter(zip(label[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    found = []
    for (truth, said), count in pairs.most_common(8):
        people = len(np.unique(oof.persons[(label == truth) & (predicted == said)]))
        names = [parts_of(labels.decode(code)) for code in (truth, said)]
        found.append({"pair": list(zip(*names, strict=True)), "count": count, "people": people})
    return found


def parts_of(codes: Any) -> list[str]:
    """Three codes -> their names; `unknown` where nobody said."""
    return [labels.name(name, int(code)) or "unknown" for name, code in zip(labels.ATTRIBUTES, codes, strict=True)]


def age_errors(oof: Predictions, say: Say) -> str | None:
    """The figure of errors by true age, None where no age in years is known."""
    truth = oof.truth[:, list(labels.ATTRIBUTES).index("age_group")]
    rows = np.isfinite(oof.ages) & (truth >= 0)
    wrong = oof.marginals()["age_group"].argmax(1) != truth
    return figures.age_errors(oof.ages[rows], wrong[rows], say) if rows.any() else None


def worst(oof: Predictions, paths: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """attribute -> the WORST photos of which the most probable class says it wrong, surest first, one per person.

    By attribute, since the mistakes of one (age, mostly) would hide those of the others. `wrong` counts a person's
    photos that are wrong in this attribute.
    """
    said = labels.decode_all(oof.predicted)
    clash = (oof.truth != said) & (oof.truth != labels.UNKNOWN)
    per_person = Counter(oof.persons.tolist())
    cut: Callable[[str], str | None] = cache(lambda photo: figures.thumbnail(paths.get(photo)))
    found = {}
    for column, (name, marginal) in enumerate(oof.marginals().items()):
        sure = marginal[np.arange(len(oof)), said[:, column]]
        wrong = Counter(oof.persons[clash[:, column]].tolist())
        found[name] = [
            {
                "photo": str(oof.photos[row]), "person": str(oof.persons[row]), "fold": int(oof.fold[row]),
                "picture": cut(str(oof.photos[row])), "confidence": float(sure[row]),
                "age": None if np.isnan(oof.ages[row]) else round(float(oof.ages[row])),
                "years": None if np.isnan(oof.years[row]) else round(float(oof.years[row])),
                "parts": list(zip(parts_of(oof.truth[row]), parts_of(said[row]), clash[row].tolist(), strict=True)),
                "wrong": wrong[str(oof.persons[row])], "of": per_person[str(oof.persons[row])],
            }
            for row in _one_each(oof, clash[:, column], sure)[:WORST]
        ]  # fmt: skip
    return found


def surest_wrong(oof: Predictions) -> list[int]:
    """Rows whose most probable class contradicts what is known of them, surest first, one per person."""
    said = labels.decode_all(oof.predicted)
    wrong = ((oof.truth != said) & (oof.truth != labels.UNKNOWN)).any(axis=1)
    return _one_each(oof, wrong, oof.probabilities.max(1))


def _one_each(oof: Predictions, chosen: NDArray[np.bool_], sure: NDArray[np.floating]) -> list[int]:
    """Chosen rows by how sure they are, of each person the surest."""
    first: dict[str, int] = {}
    for row in sorted(np.flatnonzero(chosen).tolist(), key=lambda row: -sure[row]):
        first.setdefault(str(oof.persons[row]), row)
    return list(first.values())


def fairness(oof: Predictions) -> dict[str, Any] | None:
    """`evidence.people.by_group`, None where no photo knows gender and age group."""
    found = by_group(oof, draws=DRAWS)
    return {**found, "groups": GROUPS, "least": LEAST} if any(row["photos"] for row in found["rows"]) else None


def borders(oof: Predictions, say: Say) -> list[dict[str, Any]]:
    """Per border of the age groups that people stand around: cut, rows (`years_around`) and their figure."""
    found = [(cut, years_around(oof, years, draws=DRAWS)) for cut, years in BORDERS]
    return [{"cut": cut, "rows": rows, "figure": figures.age_border(rows, cut, say)} for cut, rows in found if rows]


def confidence(oof: Predictions, say: Say) -> dict[str, Any]:
    """How far the networks' own confidence can be trusted: reliability of each task, and the curve of all."""
    told = review(oof, Decision().apply(oof.probabilities), draws=DRAWS)
    names = {"class": "all", **{name: name for name in labels.ATTRIBUTES}}
    found = []
    for task, name in names.items():
        if task in told:
            bins = told[task]["bins"]
            weight = [each["photos"] for each in bins]
            sure, right = (
                float(np.average([b[key] for b in bins], weights=weight)) for key in ("confidence", "accuracy")
            )
            found.append(
                {**told[task], "task": name, "sure": sure, "right": right, "figure": figures.reliability(bins, say)}
            )
    curves = [(say(figures.TITLES[row["task"]]), row["curve"]) for row in found]
    return {"tasks": found, "figure": figures.risk_coverage(curves, say)}


def decision(run: Run, plain: Mapping[str, Any], say: Say) -> dict[str, Any] | None:
    """What `threefold decide` saved with the run, and its risk-coverage curve beside the out-of-fold one; None where it
    has not decided. `stale`: the rule was fitted on other predictions than those of the run."""
    if not (run.path / FILE).exists():
        return None
    told = run.read(FILE)
    missing = [key for key in ("decision", "review", "digest", "tried", "parts", "rule", "kept") if key not in told]
    if missing:
        raise RunError(f"{run.path / FILE}: lacks {missing[0]!r}; `threefold decide {run.path}` writes it again")
    Decision.from_dict(told["decision"], run.path / FILE)
    keys = {row["task"]: "class" if row["task"] == "all" else row["task"] for row in plain["tasks"]}
    rows = [{"task": task, **told["review"][key]} for task, key in keys.items() if key in told["review"]]
    if not rows:
        raise RunError(f"{run.path / FILE}: is of none of the labels of this run; `threefold decide {run.path}` again")
    own = next(row for row in plain["tasks"] if row["task"] == rows[0]["task"])
    lines = [(say("as the networks say it"), own["curve"])] * (told.get("on") != "test")  # those are other people
    lines.append((say("as decided"), rows[0]["curve"]))
    return {
        "on": "oof",
        "networks": 0,
        "unlabelled": 0,
        "single": None,  # of a decision made before there were these
        **told,
        "rows": rows,
        "figure": figures.risk_coverage(lines, say),
        "stale": told["digest"] != oof_digest(run),
    }


def disagreements(oof: Predictions, paths: Mapping[str, Path] | None) -> dict[str, Any]:
    """People whose photos got two genders or age groups, what a vote of their photos would score, and a gallery.

    people: those with the surest answers against their own majority; without `paths` nobody is shown.
    """
    found, vote = disagreement(oof, draws=DRAWS)
    gallery = []
    if paths is not None:
        said, agreed = labels.decode_all(oof.predicted), labels.decode_all(majority(oof))
        sure = np.stack([part[np.arange(len(oof)), said[:, c]] for c, part in enumerate(oof.marginals().values())], 1)
        against = said != agreed
        order = np.argsort(-(sure * against).max(1), kind="stable")
        order = order[against[order].any(1)]
        for person in list(dict.fromkeys(oof.persons[order].tolist()))[:SHOWN]:
            rows = np.flatnonzero(oof.persons == person)
            rows = rows[np.argsort(~against[rows].any(1), kind="stable")] if len(rows) > SHOWN else rows
            photos = []
            for row in rows[:SHOWN].tolist():
                answers = zip(parts_of(said[row]), against[row].tolist(), sure[row].tolist(), strict=True)
                picture = figures.thumbnail(paths.get(str(oof.photos[row])), 112)
                photos.append({"photo": str(oof.photos[row]), "picture": picture, "answers": list(answers)[1:]})
            known = [name for name in parts_of(oof.truth[rows[0]])[1:] if name != "unknown"]
            gallery.append({"person": person, "truth": known, "photos": photos, "more": max(0, len(rows) - SHOWN)})
    return {**found, "vote": vote, "gallery": gallery}
