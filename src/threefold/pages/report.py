"""`threefold report RUN`: one self-contained HTML page about a complete run.

The page is made from files of the run directory alone, so it can be made again anywhere; each of their values is
checked, and one that something else wrote is an error in one line. Only thumbnails need the photos, and where they are
gone the page says so. No number is computed here that is not a count:
scores and intervals come from metrics.json, the others from `evidence` by way of report_parts.py. Only "where it looks"
(report_looks.py) asks the networks, and only where they are here.
"""

import contextlib
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
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
from threefold.pages import figures
from threefold.pages import report_parts as parts
from threefold.pages.html import Translate, render, translator
from threefold.predictions import Predictions
from threefold.recipe import Recipe, differences
from threefold.results import Result
from threefold.runs import Run, score_line

_STAMPED = ("created", "device", "version", "command", "data", "data_digest", "folds_digest")
_SCORED = ("macro_f1", "accuracy", *labels.ATTRIBUTES, "known", "age_error")
_NEEDED: dict[str, dict[str, Any]] = {
    "stamp.json": dict.fromkeys(_STAMPED, str) | {"seed": int, "packages": dict},
    "metrics.json": {"photos": int, "seconds": int | float, "folds": list},
    "scores": dict.fromkeys(_SCORED, dict) | {"persons": int, "draws": int, "classes_present": int, "per_class": list},
    "eval.json": {"macro_f1": dict, "accuracy": dict, "persons": int},
}
"""What the page takes from each file, and of which type; `scores`: from metrics.json of a run that judged photos."""
_KINDS = {str: "text", list: "a list", dict: "an object"}
_LOGGED = ("epoch", "train_loss", "valid_loss", "macro_f1", *labels.ATTRIBUTES, "lr", "photos_per_second")


@dataclass(frozen=True)
class Photos:
    """photos.csv joined with split.csv: files by id, persons [N], truth [N, 3], fold [N] (-1: always training)."""

    paths: dict[str, Path]
    persons: NDArray[np.str_]
    truth: NDArray[np.int8]
    fold: NDArray[np.int64]

    def count(self, rows: NDArray[np.bool_]) -> dict[str, int]:
        """How many photos and people the rows are."""
        return {"photos": int(rows.sum()), "people": len(np.unique(self.persons[rows]))}


@dataclass(frozen=True)
class ReportResult(Result):
    """A report of a run. oof: None where it held nobody back. paths: files of its photos by id. numbers: what its page
    shows that is no picture; the rest is made with the page."""

    run: Run
    oof: Predictions | None
    log: list[dict[str, Any]]
    paths: dict[str, Path]
    numbers: dict[str, Any]
    looks: bool
    photos: bool

    def lines(self) -> list[str]:
        """The score, and what makes it wrong or other than it seems."""
        metrics = self.run.metrics
        lines = [f"{self.run.name}: {score_line(metrics)}"]
        if shared := self.numbers["folds"]["shared"]:
            lines.append(f"! people on more than one side of the split: {shared}; the scores are too high")
        if 0 < (present := metrics.get("classes_present", 0)) < labels.CLASSES:
            lines.append(f"! only {present} of the 18 classes occur in these photos; the others count 0")
        if missing := self.numbers["changes"]["missing"]:
            lines.append(f"! the baseline cannot be read from here: {missing}")
        return lines

    def data(self) -> dict[str, Any]:
        """The numbers of the page: scores, counts, folds, groups of people, mistakes, the baseline, cost; warnings."""
        comparison = self.numbers["changes"]["comparison"]
        changes = self.numbers["changes"] | {"comparison": comparison and vars(comparison)}
        warnings = [line.removeprefix("! ") for line in self.lines() if line.startswith("! ")]
        return self.numbers | {"changes": changes, "warnings": warnings}

    def page(self, lang: str = "en") -> str:
        """The whole page. RunError where a file of the run is broken, RecipeError for an unknown language."""
        translate = translator(lang)
        logs: dict[str, list[dict[str, Any]]] = {}
        for line in self.log:
            inside = isinstance(line["fold"], int) and line["fold"] >= 0
            name = translate("fold {n}").format(n=line["fold"]) if inside else translate("final fit")
            logs.setdefault(f"{name}, {line['part']}" if line.get("part") else name, []).append(line)
        with _as_written(self.run):
            curves = [(name, figures.curves(lines, translate)) for name, lines in logs.items()]
            context = self.numbers | (self._judged(self.oof, translate) if self.oof else {})
            return render("report", lang, **context, curves=curves, titles=figures.TITLES, names=labels.NAMES, few=FEW)

    def _judged(self, oof: Predictions, translate: Translate) -> dict[str, Any]:
        """The parts about out-of-fold predictions."""
        looks = None
        if self.looks:
            from threefold.pages.report_looks import looks as look  # imports torch

            looks = look(self.run, oof, self.paths, pictures=self.photos)
        confidence = parts.confidence(oof, translate)
        return {
            "confusions": parts.confusions(oof),
            "age_errors": parts.age_errors(oof, translate),
            "worst": parts.worst(oof, self.paths) if self.photos else None,
            "borders": parts.borders(oof, translate),
            "confidence": confidence,
            "decision": parts.decision(self.run, confidence, translate),
            "disagreements": parts.disagreements(oof, self.paths if self.photos else None),
            "looks": looks,
        }


def report(run: Path | str, *, looks: bool = True, photos: bool = True) -> ReportResult:
    """The report of a complete run: scores, data, folds, groups of people, the baseline, and its page.

    looks: the page asks the networks where they look, which takes most of the time; a run without weights or photos is
    reported on without. photos: the page has pictures and ids of people (the worst mistakes, photos that disagree,
    where the networks look); False leaves them out, so that it can be handed to people who may not see the photos.
    Raises RunError when the run is not complete or one of its files is broken.
    """
    opened = Run.open(Path(run))
    opened.need_complete()
    with _as_written(opened):
        table, log = read_photos(opened), read_log(opened)
        metrics = read_object(opened, "metrics.json")
        oof = Predictions.load(opened.path / "oof.npz") if metrics["photos"] else None
        if stray := [photo for photo in oof.photos.tolist() if photo not in table.paths] if oof else []:
            raise RunError(f"{opened.path / 'photos.csv'}: does not list {stray[0]!r}, which oof.npz judges")
        evaluated = read_object(opened, "eval.json") if (opened.path / "eval.json").exists() else None
        speeds = [line["photos_per_second"] for line in log if line.get("photos_per_second")]
        speed = statistics.median(speeds) if speeds else None
        numbers = {
            "name": opened.name,
            "recipe": opened.recipe.flat(),
            "stamp": read_object(opened, "stamp.json"),
            "changes": _changes(opened, oof),
            "scores": {"oof": metrics if oof else None, "eval": evaluated},
            "ensemble": metrics.get("ensemble"),
            "data": _counts(table),
            "folds": _folds(table, metrics, oof),
            "mistakes": parts.mistakes(oof) if oof else [],
            "fairness": parts.fairness(oof) if oof else None,
            "cost": {"seconds": metrics["seconds"], "speed": speed, "epochs": len(log)},
        }
    return ReportResult(opened, oof, log, table.paths, numbers, looks, photos)


@contextlib.contextmanager
def _as_written(run: Run) -> Iterator[None]:
    """RunError for a table that cannot be read, and for what is wrong deeper in a file of the run than is checked."""
    try:
        yield
    except DataError as error:
        raise RunError(str(error)) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run.path}: a file is not as `threefold train` writes it ({error})") from error


def read_object(run: Run, name: str) -> dict[str, Any]:
    """A JSON file of the run that holds what `_NEEDED` says; RunError names the file and what is wrong with it."""
    values = run.read(name)
    needed = _NEEDED[name] | (_NEEDED["scores"] if name == "metrics.json" and values.get("photos") else {})
    for key, kind in needed.items():
        if key not in values:
            raise RunError(f"{run.path / name}: lacks what the report needs ({key!r})")
        if not isinstance(values[key], kind):
            expected = _KINDS.get(kind, "a number")
            raise RunError(f"{run.path / name}: {key} is {str(values[key])[:60]!r}; expected {expected}")
    return values


def read_log(run: Run) -> list[dict[str, Any]]:
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


def read_photos(run: Run) -> Photos:
    """RunError names the file, line and column of what cannot be read."""
    rows = _rows(run.path / "photos.csv", ("photo", "path", "person", *labels.ATTRIBUTES))
    split = _rows(run.path / "split.csv", ("photo", "person", "fold"))
    fold = {row.get("photo"): _cell(row, "fold", int) for row in split}
    truth = [[_cell(row, name, partial(labels.parse, name)) for name in labels.ATTRIBUTES] for row in rows]
    paths = {row.get("photo"): Path(row.get("path")) for row in rows}
    if stray := [photo for photo in paths if photo not in fold]:
        raise RunError(f"{run.path / 'split.csv'}: does not know {stray[0]!r}, which photos.csv lists")
    persons = np.array([row.get("person") for row in rows], dtype=np.str_)
    folds = np.array([fold[row.get("photo")] for row in rows], dtype=np.int64)
    return Photos(paths, persons, np.array(truth, dtype=np.int8).reshape(-1, 3), folds)


def _rows(path: Path, required: tuple[str, ...]) -> list[Row]:
    columns, rows = read_rows(path, required)
    for row in rows:
        if len(row.cells) < len(columns):
            raise RunError(f"{path}, line {row.line}: {len(row.cells)} cells for {len(columns)} columns (cut off?)")
    return rows


def _cell(row: Row, column: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(row.get(column))
    except (DataError, ValueError) as error:
        raise DataError(f"{row.where(column)}: cannot be read ({error})") from None


def _counts(photos: Photos) -> dict[str, Any]:
    """Photos and people per class, indexed by its code, and per value of each attribute with what is unknown."""
    label = labels.encode_all(photos.truth)
    attributes = []
    for column, (name, values) in enumerate(labels.NAMES.items()):
        codes = [*enumerate(values), (labels.UNKNOWN, "unknown")]
        counts = [(value, photos.count(photos.truth[:, column] == code)) for code, value in codes]
        attributes.append((figures.TITLES[name], [row for row in counts if row[1]["photos"] or row[0] != "unknown"]))
    return {
        "total": photos.count(np.ones(len(label), dtype=bool)),
        "full": photos.count(label >= 0),
        "classes": [photos.count(label == code) for code in range(labels.CLASSES)],
        "masks": [photos.count((label >= 0) & (label // 6 == mask)) for mask in range(3)],
        "groups": [photos.count((label >= 0) & (label % 6 == group)) for group in range(6)],
        "attributes": attributes,
    }


def _folds(photos: Photos, metrics: dict[str, Any], oof: Predictions | None) -> dict[str, Any]:
    """Share of every class in every fold, people on more than one side, and what each fold scored."""
    numbers = [int(fold) for fold in np.unique(photos.fold) if fold >= 0]
    rows = _class_shares(photos, numbers)
    scored = [fold for fold in metrics["folds"] if fold["macro_f1"] is not None]
    values, attributes = [fold["macro_f1"] for fold in scored], by_fold(oof) if oof else {}
    sides = Counter(person for person, _ in set(zip(photos.persons.tolist(), photos.fold.tolist(), strict=True)))
    return {
        "numbers": numbers,
        "sizes": [photos.count(photos.fold == fold) for fold in numbers],
        "training": photos.count(photos.fold < 0),
        "shared": sum(count > 1 for count in sides.values()),
        "rows": rows,
        "spread": max((row["spread"] for row in rows), default=0.0),
        "scored": [fold | attributes.get(fold["fold"], {}) for fold in scored],
        "chance": fold_chance(oof) if oof else None,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _class_shares(photos: Photos, folds: list[int]) -> list[dict[str, Any]]:
    """Of every class, or where no photo has all labels of every value: counts and share in each fold, their spread."""
    truths: dict[str, NDArray[np.integer]] = {"all": labels.encode_all(photos.truth)}
    if not (truths["all"] >= 0).any():
        truths = {name: photos.truth[:, column] for column, name in enumerate(labels.ATTRIBUTES)}
    rows: list[dict[str, Any]] = []
    for task, truth in truths.items():
        labelled = [max(1, int(((truth >= 0) & (photos.fold == fold)).sum())) for fold in folds]
        for code, name in enumerate(parts.CLASS_NAMES[task]):
            cells = [photos.count((truth == code) & (photos.fold == fold)) for fold in folds]
            shares = [cell["photos"] / of for cell, of in zip(cells, labelled, strict=True)]
            spread = max(shares) - min(shares) if shares else 0.0
            rows.append({"name": name, "cells": list(zip(cells, shares, strict=True)), "spread": spread})
    return rows


def _changes(run: Run, oof: Predictions | None) -> dict[str, Any]:
    """What differs from the baseline the recipe names, and whether it is better on the same people where that is a
    complete run; what differs from the defaults where it names none or it is not here."""
    recipe, other = run.recipe, Recipe()
    changes: dict[str, Any] = dict.fromkeys(("name", "score", "missing", "comparison", "apart"))
    if recipe.baseline:
        try:
            other, base = run.baseline()
            changes["name"] = recipe.baseline
            if base and base.state == "complete":
                changes["score"] = base.metrics
                if oof and base.metrics.get("photos"):
                    names = ("this run", "the baseline")
                    changes["comparison"] = compare(oof, base.predictions(), draws=parts.DRAWS, names=names)
        except DataError as error:
            changes["apart"] = str(error)
        except ThreefoldError as error:
            changes["missing"] = str(error)
    # the first two say what a run is for and change nothing in it
    rows = [row for row in differences(recipe, other) if row[0] not in ("hypothesis", "baseline")]
    # a recipe file leaves the data to --data
    changes["rows"] = [row for row in rows if row[0] != "data.source" or row[2]]
    return changes
