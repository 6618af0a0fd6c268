"""What a search found: the table of its trials, search.json, search.html and best.yaml; `search.py` is the search."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from threefold.errors import RunError
from threefold.evidence.selection import lead
from threefold.files import write_json, write_text
from threefold.pages.html import render
from threefold.predictions import Predictions
from threefold.progress import plain_console
from threefold.recipe import Recipe, make_recipe, write_recipe

LEAST = 4
"""Finished trials from which on the importance of parameters is estimated."""
Row = dict[str, Any]
Values = Callable[[Mapping[str, Any]], Row]
CAUTION = (
    "The best of {count} finished trials was chosen by this score, so the score is too high for it.",
    "By how much cannot be told from these runs.",
    "It leads the mean of the trials by {seen:.3f}; a best one chosen on some of the people leads by {kept:.3f} on the "
    "others, so about {luck:.3f} is luck, which the interval does not cover.",
)
_WIDTH, _HEIGHT = 720, 220  # of the history, in SVG units


@dataclass(frozen=True)
class Search:
    """A search as it stands. trials: rows of search.json, in order; best: the row of the highest score."""

    path: Path
    trials: list[Row]
    best: Row
    importances: dict[str, float]
    luck: dict[str, float] | None


def summarise(study: optuna.Study, out: Path, base: Recipe, values: Values, seed: int, lang: str) -> Search:
    """Print and write what the study holds; RunError when no trial was finished, with what stopped the last one."""
    trials = study.get_trials(deepcopy=False)
    rows = [_row(trial, values) for trial in trials]
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        reasons = [row["error"] for row in rows if row["error"]]
        raise RunError(
            f"{out}: not one of {len(rows)} trials was finished{': ' * bool(reasons)}{''.join(reasons[-1:])}"
        )
    best = max(complete, key=lambda row: row["score"])
    found = Search(out, rows, best, _importances(study, len(complete), seed), _luck(out, complete, seed))
    write_recipe(make_recipe(base.flat() | best["values"]), out / "best.yaml")
    write_json(out / "search.json", {"best": best["trial"], "trials": rows, "importances": found.importances,
                                     "luck": found.luck, "seed": seed})  # fmt: skip
    write_text(out / "search.html", _page(found, lang))
    print_search(found)
    return found


def print_search(found: Search, console: Console | None = None) -> None:
    """The trials as a table, best first, then the best one and how much of its lead is luck."""
    console = plain_console(console)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "macro F1", "state", "folds", "seconds", *found.best["values"]):
        table.add_column(title, overflow="fold")
    for row in ordered(found.trials):
        parts = [str(row["values"].get(key, "")) for key in found.best["values"]]
        table.add_row(row["run"], shown(row), row["state"], str(row["folds"]), f"{row['seconds'] or 0:,.0f}", *parts)
    console.print(table, markup=False)
    console.print(f"best: {found.path / found.best['run']}, macro F1 {shown(found.best)}", markup=False, soft_wrap=True)
    console.print(caution(found), markup=False, soft_wrap=True)
    for name in ("best.yaml", "search.html"):
        console.print(f"written: {found.path / name}", markup=False, soft_wrap=True)


def caution(found: Search, say: Callable[[str], str] = str) -> str:
    """What must be said of the best of many; `say` translates."""
    count = sum(row["state"] == "complete" for row in found.trials)
    text = say(CAUTION[0]).format(count=count)
    if not found.luck:
        return f"{text} {say(CAUTION[1])}"
    seen, kept = found.luck["seen"], max(0.0, found.luck["kept"])
    return f"{text} {say(CAUTION[2]).format(seen=seen, kept=kept, luck=max(0.0, seen - kept))}"


def shown(row: Row) -> str:
    """`0.7123 [0.6501, 0.7612]`; of a pruned trial the score where it was stopped, in brackets."""
    if row["score"] is None:
        return "-"
    if row["state"] != "complete":
        return f"({row['score']:.4f})"
    ends = f" [{row['low']:.4f}, {row['high']:.4f}]" if row["low"] is not None else ""
    return f"{row['score']:.4f}{ends}"


def ordered(rows: list[Row]) -> list[Row]:
    """Complete trials by score, then the others in order."""
    return sorted(rows, key=lambda row: (row["state"] != "complete", -(row["score"] or 0), row["trial"]))


def _row(trial: FrozenTrial, values: Values) -> Row:
    ends = trial.user_attrs.get("macro_f1") or {}
    known = trial.values[0] if trial.values else None
    told = list(trial.intermediate_values.values())
    chosen: Row = {}
    with contextlib.suppress(KeyError):  # stopped before all of its values were drawn
        chosen = values(trial.params)
    state = {"fail": "failed"}.get(trial.state.name.lower(), trial.state.name.lower())
    value = known if trial.state == TrialState.COMPLETE else (told[-1] if told else None)
    return {
        "trial": trial.number, "run": f"trial{trial.number:04d}", "state": state, "score": value,
        "low": ends.get("low"), "high": ends.get("high"), "folds": len(told),
        "seconds": trial.user_attrs.get("seconds"), "values": chosen, "error": trial.user_attrs.get("error", ""),
    }  # fmt: skip


def _importances(study: optuna.Study, complete: int, seed: int) -> dict[str, float]:
    """Share of each parameter in the variance of the score (fANOVA, Hutter et al. 2014), largest first; {} if unknown.

    Unknown with few trials, and where all scores are the same.
    """
    if complete < LEAST:
        return {}
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ImportError, ValueError, RuntimeError):
        return {}
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _luck(out: Path, complete: list[Row], seed: int) -> dict[str, float] | None:
    """See evidence/selection.py; None for fewer than two runs here, or without photos that know all three labels."""
    files = [out / row["run"] / "oof.npz" for row in complete]
    runs = [Predictions.load(file) for file in files if file.exists()]  # those of other machines are not here
    if len(runs) < 2:
        return None
    seen, kept = lead(runs, seed=seed)
    return {"seen": seen, "kept": kept} if math.isfinite(seen + kept) else None


def _page(found: Search, lang: str) -> str:
    return render(
        "search", lang, name=found.path.resolve().name, search=found, caution=caution, rows=ordered(found.trials),
        least=LEAST, history=_history(found.trials), width=_WIDTH, height=_HEIGHT, shown=shown,
    )  # fmt: skip


def _history(rows: list[Row]) -> Row:
    """Places of the trials' scores on the picture, and the line of the best so far."""
    scored = [row for row in rows if row["score"] is not None]
    low, high = (end(row["score"] for row in scored) for end in (min, max))
    points: list[Row] = []
    line: list[str] = []
    top = -math.inf
    for row in scored:
        x = 10 + (_WIDTH - 20) * row["trial"] / max(1, len(rows) - 1)
        y = _HEIGHT - 20 - (_HEIGHT - 40) * (row["score"] - low) / ((high - low) or 1)
        points.append({"x": round(x, 1), "y": round(y, 1), **row})
        if row["state"] == "complete":
            top = max(top, row["score"])
            best = _HEIGHT - 20 - (_HEIGHT - 40) * (top - low) / ((high - low) or 1)
            line += [f"{x:.1f},{last.split(',')[1]}" for last in line[-1:]] + [f"{x:.1f},{best:.1f}"]
    return {"points": points, "line": " ".join(line), "low": low, "high": high}
