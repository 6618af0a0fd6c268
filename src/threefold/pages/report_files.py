"""The files of a run as a report reads them, each value checked: one that something else wrote is an error in one line.

metrics.json, stamp.json and eval.json, log.jsonl, and photos.csv joined with split.csv.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.tables import Row, read_rows
from threefold.errors import DataError, RunError
from threefold.runs import Run

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
    stray = [row.get("photo") for row in rows if row.get("photo") not in fold]
    if stray:
        raise RunError(f"{run.path / 'split.csv'}: does not know {stray[0]!r}, which photos.csv lists")
    return Photos(
        {row.get("photo"): Path(row.get("path")) for row in rows},
        np.array([row.get("person") for row in rows], dtype=np.str_),
        np.array(truth, dtype=np.int8).reshape(-1, 3),
        np.array([fold[row.get("photo")] for row in rows], dtype=np.int64),
    )


def _rows(path: Path, required: tuple[str, ...]) -> list[Row]:
    try:
        columns, rows = read_rows(path, required)
    except DataError as error:
        raise RunError(str(error)) from None
    for row in rows:
        if len(row.cells) < len(columns):
            raise RunError(f"{path}, line {row.line}: {len(row.cells)} cells for {len(columns)} columns (cut off?)")
    return rows


def _cell(row: Row, column: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(row.get(column))
    except (DataError, ValueError) as error:
        raise RunError(f"{row.where(column)}: cannot be read ({error})") from None
