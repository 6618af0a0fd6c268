"""`threefold report RUN`: one self-contained HTML page about a complete run.

The page is made from files of the run directory alone (metrics.json, oof.npz, photos.csv, split.csv, log.jsonl,
recipe.yaml, stamp.json; eval.json and decision.json where they exist), so it can be made again anywhere; only
thumbnails need the photos, and where they are gone the page says so. Everything that came from a file is escaped by the
template.

No number is computed here that is not a count: scores and intervals come from metrics.json, the others from `evidence`
by way of report_parts.py. Only "where it looks" (report_looks.py) asks the networks, and only where they are here.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.tables import Row, read_rows
from threefold.errors import DataError, RunError, ThreefoldError
from threefold.evidence.compare import compare_predictions as compare
from threefold.evidence.groups import FEW, by_fold, fold_chance
from threefold.evidence.metrics import TASKS
from threefold.files import need_writable, write_text
from threefold.pages import figures
from threefold.pages import report_parts as parts
from threefold.pages.figures import TITLES, Say
from threefold.pages.html import render, translator
from threefold.pages.report_looks import looks as look
from threefold.predictions import Predictions
from threefold.recipe import Recipe, differences
from threefold.runs import Run

_NOT_TRIED = ("hypothesis", "baseline")  # keys that say what a run is for and change nothing in it
_NEEDED: dict[str, dict[str, Any]] = {
    "stamp.json": {
        **dict.fromkeys(("created", "device", "version", "command", "data", "data_digest", "folds_digest"), str),
        "seed": int, "packages": dict,
    },
    "metrics.json": {"photos": int, "seconds": int | float, "folds": list},
    "scores": {
        **dict.fromkeys(("macro_f1", "accuracy", *labels.ATTRIBUTES, "known", "age_error"), dict),
        "persons": int, "draws": int, "classes_present": int, "per_class": list,
    },
    "eval.json": {"macro_f1": dict, "accuracy": dict, "persons": int},
}  # fmt: skip
"""What the page takes from each file, and of which type; `scores`: from metrics.json of a run that judged photos."""
_KINDS = {str: "text", list: "a list", dict: "an object"}
_LOGGED = ("epoch", "train_loss", "valid_loss", "macro_f1", *labels.ATTRIBUTES, "lr", "photos_per_second")


def report(
    run: Path | str, *, photos: bool = True, out: Path | str | None = None, lang: str = "en", looks: bool = True
) -> Path:
    """Write the report of a complete run and return where: `out`, or report.html in the run.

    photos: with pictures and ids of people (the worst mistakes, photos that disagree, where the networks look); False
    leaves them out, so that the page can be handed to people who may not see the photos. looks: ask the networks where
    they look, which takes most of the time; a run without weights or photos is reported on without. lang: of the page.
    Raises RunError when the run is not complete, one of its files is broken or the page cannot be written, RecipeError
    for an unknown language.
    """
    run = Path(run)
    opened, say = Run.open(run), translator(lang)
    opened.need_complete()
    target = Path(out) if out else run / "report.html"
    need_writable(target)
    try:
        page = render("report", lang, **_context(opened, photos, looks, say))
    except (KeyError, TypeError, AttributeError) as error:  # deeper in a file than `_checked` looks
        raise RunError(f"{run}: a file is not as `threefold train` writes it ({error})") from error
    write_text(target, page)
    return target


def _checked(run: Run, name: str) -> dict[str, Any]:
    """A JSON file of the run that holds what `_NEEDED` says; RunError names the file and the value."""
    values = run.read(name)
    needed = _NEEDED[name] | (_NEEDED["scores"] if name == "metrics.json" and values.get("photos") else {})
    for key, kind in needed.items():
        if key not in values:
            raise RunError(f"{run.path / name}: lacks what the report needs ({key!r})")
        if not isinstance(values[key], kind):
            expected = _KINDS.get(kind, "a number")
            raise RunError(f"{run.path / name}: {key} is {str(values[key])[:60]!r}; expected {expected}")
    return values


def _log(run: Run) -> list[dict[str, Any]]:
    """Lines of log.jsonl, each an epoch of a fold; RunError names the first that is not."""
    log = run.log
    for number, line in enumerate(log, start=1):
        where = f"{run.path / 'log.jsonl'}, line {number}"
        if not isinstance(line, dict) or not {"fold", "epoch"} <= line.keys():
            raise RunError(f"{where}: expected an epoch of a fold (keys fold and epoch), found {str(line)[:60]}")
        for key in _LOGGED:
            if not isinstance(line.get(key), int | float | None):
                raise RunError(f"{where}: {key} is {str(line[key])[:60]!r}; expected a number")
    return log


@dataclass(frozen=True)
class _Photos:
    """photos.csv joined with split.csv: ids, paths and persons [N], truth [N, 3], fold [N] (-1: always training)."""

    ids: list[str]
    paths: list[Path]
    persons: NDArray[np.str_]
    truth: NDArray[np.int8]
    fold: NDArray[np.int64]


def _context(run: Run, photos: bool, looks: bool, say: Say) -> dict[str, Any]:
    table = _photos(run)
    metrics, stamp, log = _checked(run, "metrics.json"), _checked(run, "stamp.json"), _log(run)
    oof = Predictions.load(run.path / "oof.npz") if metrics["photos"] else None
    paths = dict(zip(table.ids, table.paths, strict=True))
    stray = [photo for photo in oof.photos.tolist() if photo not in paths] if oof else []
    if stray:
        raise RunError(f"{run.path / 'photos.csv'}: does not list {stray[0]!r}, which oof.npz judges")
    logs: dict[str, list[dict[str, Any]]] = {}
    for line in log:
        logs.setdefault(_fold_name(line, say), []).append(line)
    return {
        "name": run.name,
        "recipe": run.recipe.flat(),
        "changes": _changes(run, oof),
        "stamp": stamp,
        "cost": _cost(log, metrics),
        "scores": _scores(run, metrics),
        "ensemble": metrics.get("ensemble"),
        "titles": TITLES,
        "few": FEW,
        "data": _data(table),
        "folds": _folds(table, metrics, oof),
        "curves": [(name, figures.curves(lines, say)) for name, lines in logs.items()],
        "groups": [(gender, group) for gender in range(2) for group in range(3)],
        "names": labels.NAMES,
        **(_judged(run, oof, paths, photos, looks, say) if oof else _NOBODY),
    }


_NOBODY: dict[str, Any] = {
    "confusions": [], "mistakes": [], "age_errors": None, "worst": None, "fairness": None, "borders": [],
    "confidence": None, "decision": None, "disagreements": None, "looks": None,
}  # fmt: skip


def _judged(
    run: Run, oof: Predictions, paths: dict[str, Path], photos: bool, looks: bool, say: Say
) -> dict[str, Any]:  # fmt: skip
    """What is said of the out-of-fold predictions: the keys of `_NOBODY`, which a run that held nobody back has."""
    confidence = parts.confidence(oof, say)
    return {
        "confusions": parts.confusions(oof),
        "mistakes": parts.mistakes(oof),
        "age_errors": parts.age_errors(oof, say),
        "worst": parts.worst(oof, paths) if photos else None,
        "fairness": parts.fairness(oof),
        "borders": parts.borders(oof, say),
        "confidence": confidence,
        "decision": parts.decision(run, confidence, say),
        "disagreements": parts.disagreements(oof, paths if photos else None),
        "looks": look(run, oof, paths, pictures=photos) if looks else None,
    }


def _fold_name(line: dict[str, Any], say: Say) -> str:
    inside = isinstance(line["fold"], int) and line["fold"] >= 0
    name = say("fold {n}").format(n=line["fold"]) if inside else say("final fit")
    return f"{name}, {line['part']}" if line.get("part") else name


def _rows(path: Path, needed: tuple[str, ...]) -> list[Row]:
    try:
        columns, rows = read_rows(path, needed)
    except DataError as error:
        raise RunError(str(error)) from None
    for row in rows:
        if len(row.cells) < len(columns):
            raise RunError(f"{path}, line {row.line}: {len(row.cells)} cells for {len(columns)} columns (cut off?)")
    return rows


def _read(row: Row, column: str, meaning: Callable[[str], int]) -> int:
    try:
        return meaning(row.get(column))
    except (DataError, ValueError) as error:
        raise RunError(f"{row.where(column)}: cannot be read ({error})") from None


def _photos(run: Run) -> _Photos:
    rows = _rows(run.path / "photos.csv", ("photo", "path", "person", *labels.ATTRIBUTES))
    split = _rows(run.path / "split.csv", ("photo", "person", "fold"))
    fold = {row.get("photo"): _read(row, "fold", int) for row in split}
    truth = [[_read(row, name, partial(labels.parse, name)) for name in labels.ATTRIBUTES] for row in rows]
    stray = [row.get("photo") for row in rows if row.get("photo") not in fold]
    if stray:
        raise RunError(f"{run.path / 'split.csv'}: does not know {stray[0]!r}, which photos.csv lists")
    return _Photos(
        [row.get("photo") for row in rows],
        [Path(row.get("path")) for row in rows],
        np.array([row.get("person") for row in rows], dtype=np.str_),
        np.array(truth, dtype=np.int8).reshape(-1, 3),
        np.array([fold[row.get("photo")] for row in rows], dtype=np.int64),
    )


def _scores(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    """Out-of-fold scores and, where `predict --answers` left them, those on people outside training."""
    evaluated = _checked(run, "eval.json") if (run.path / "eval.json").exists() else None
    return {"oof": metrics if metrics["photos"] else None, "eval": evaluated}


def _people(table: _Photos, rows: NDArray[np.bool_]) -> dict[str, int]:
    return {"photos": int(rows.sum()), "people": len(np.unique(table.persons[rows]))}


def _data(table: _Photos) -> dict[str, Any]:
    """Counts per class, indexed by its code, and per value of each attribute with what is unknown."""
    label = labels.encode_all(table.truth)
    attributes = []
    for column, (name, values) in enumerate(labels.NAMES.items()):
        codes = [*enumerate(values), (labels.UNKNOWN, "unknown")]
        counted = [(value, _people(table, table.truth[:, column] == code)) for code, value in codes]
        attributes.append((TITLES[name], [row for row in counted if row[1]["photos"] or row[0] != "unknown"]))
    return {
        "total": _people(table, np.ones(len(label), dtype=bool)),
        "full": _people(table, label >= 0),
        "classes": [_people(table, label == code) for code in range(labels.CLASSES)],
        "masks": [_people(table, (label >= 0) & (label // 6 == mask)) for mask in range(3)],
        "groups": [_people(table, (label >= 0) & (label % 6 == group)) for group in range(6)],
        "attributes": attributes,
    }


def _folds(table: _Photos, metrics: dict[str, Any], oof: Predictions | None) -> dict[str, Any]:
    """Share of every class in every fold, people on more than one side, and what each fold scored."""
    numbers = [int(fold) for fold in np.unique(table.fold) if fold >= 0]
    sides = {(person, fold) for person, fold in zip(table.persons.tolist(), table.fold.tolist(), strict=True)}
    shared = [person for person, count in Counter(person for person, _ in sides).items() if count > 1]
    truths: dict[str, NDArray[np.integer]] = {"all": labels.encode_all(table.truth)}
    if not (truths["all"] >= 0).any():
        truths = {name: table.truth[:, column] for column, name in enumerate(labels.ATTRIBUTES)}
    rows: list[dict[str, Any]] = []
    for task, truth in truths.items():
        known = [max(1, int(((truth >= 0) & (table.fold == fold)).sum())) for fold in numbers]
        for code in range(TASKS[task]):
            cells = [_people(table, (truth == code) & (table.fold == fold)) for fold in numbers]
            shares = [cell["photos"] / of for cell, of in zip(cells, known, strict=True)]
            spread = max(shares) - min(shares) if shares else 0.0
            name = parts.CLASS_NAMES[task][code]
            rows.append({"name": name, "cells": list(zip(cells, shares, strict=True)), "spread": spread})
    scored = [fold for fold in metrics["folds"] if fold["macro_f1"] is not None]
    values, own = [fold["macro_f1"] for fold in scored], by_fold(oof) if oof else {}
    return {
        "numbers": numbers,
        "sizes": [_people(table, table.fold == fold) for fold in numbers],
        "training": _people(table, table.fold < 0),
        "shared": len(shared),
        "rows": rows,
        "spread": max((row["spread"] for row in rows), default=0.0),
        "scored": [fold | own.get(fold["fold"], {}) for fold in scored],
        "chance": fold_chance(oof) if oof else None,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _changes(run: Run, oof: Predictions | None) -> dict[str, Any]:
    """What differs from the baseline the recipe names, and whether it is better on the same people where that is a
    complete run; what differs from the defaults where it names none or it is not here."""
    recipe = run.recipe
    found: dict[str, Any] = {"name": None, "score": None, "missing": None, "comparison": None, "apart": None}
    other = Recipe()
    if recipe.baseline:
        try:
            other, base = run.baseline()
            found["name"] = recipe.baseline
            if base and base.state == "complete":
                found["score"] = base.metrics
                found |= _compared(oof, base)
        except ThreefoldError as error:
            found["missing"] = str(error)
    rows = [row for row in differences(recipe, other) if row[0] not in _NOT_TRIED]
    rows = [row for row in rows if row[0] != "data.source" or row[2]]  # a recipe file leaves the data to --data
    return {**found, "rows": rows}


def _compared(oof: Predictions | None, base: Run) -> dict[str, Any]:
    if oof is None or not base.metrics.get("photos"):
        return {}
    try:
        return {"comparison": compare(oof, base.predictions(), draws=parts.DRAWS, names=("this run", "the baseline"))}
    except DataError as error:
        return {"apart": str(error)}


def _cost(log: list[dict[str, Any]], metrics: dict[str, Any]) -> dict[str, Any]:
    speeds = [line["photos_per_second"] for line in log if line.get("photos_per_second")]
    return {
        "seconds": metrics["seconds"],
        "speed": statistics.median(speeds) if speeds else None,
        "epochs": len(log),
    }
