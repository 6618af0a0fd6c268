"""What a search brought: the table of its trials, search.json, best.yaml and the page; `search.py` is the search."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from threefold.errors import RunError
from threefold.evidence.ensemble import lead
from threefold.files import write_json
from threefold.predictions import Predictions
from threefold.recipe import Recipe, make_recipe, write_recipe
from threefold.results import Result, table_lines

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
class SearchResult(Result):
    """A search as it stands.

    trials: rows of search.json, in order; best: the row of the highest score. importances: see `_importances`. luck:
    {"seen": lead of the best trial over the mean, "kept": lead on other people than those it was chosen by}, or None.
    """

    path: Path
    trials: list[Row]
    best: Row
    importances: dict[str, float]
    luck: dict[str, float] | None
    seed: int

    def lines(self) -> list[str]:
        """The trials as a table, best first, then the best one and how much of its lead is luck."""
        keys = list(self.best["values"])
        rows: list[Sequence[object]] = []
        for row in ordered(self.trials):
            values = [row["values"].get(key) for key in keys]
            seconds = f"{row['seconds'] or 0:,.0f}"
            rows.append((row["run"], with_interval(row), row["state"], row["folds"], seconds, *values))
        return [
            *table_lines(("trial", "macro F1", "state", "folds", "seconds", *keys), rows),
            f"best: {self.path / self.best['run']}, macro F1 {with_interval(self.best)}",
            caution(self),
            f"recipe: {self.path / 'best.yaml'}",
        ]

    def data(self) -> Row:
        """What search.json holds."""
        shared = {"importances": self.importances, "luck": self.luck, "seed": self.seed}
        return {"best": self.best["trial"], "trials": self.trials, **shared}

    def rows(self) -> list[Sequence[object]]:
        """One row a trial, in order: what search.json says of it, values by recipe key."""
        columns = [key for key in self.best if key != "values"]
        keys = list(self.best["values"])
        rows = [[row[key] for key in columns] + [row["values"].get(key) for key in keys] for row in self.trials]
        return [columns + keys, *rows]

    def page(self, lang: str = "en") -> str:
        """The best values, the history, what mattered, and all trials."""
        from threefold.pages.html import render

        return render(
            "search",
            lang,
            name=self.path.resolve().name,
            result=self,
            caution=caution,
            rows=ordered(self.trials),
            least=LEAST,
            history=_history(self.trials),
            width=_WIDTH,
            height=_HEIGHT,
            shown=with_interval,
        )


def summarise(study: optuna.Study, out: Path, base: Recipe, values: Values, seed: int) -> SearchResult:
    """What the study holds, written as search.json and best.yaml (of the recipe `base`).

    RunError when no trial was finished, with what stopped the last one.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [_row(trial, values) for trial in trials]
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        reasons = [f": {row['error']}" for row in rows if row["error"]]
        raise RunError(f"{out}: not one of {len(rows)} trials was finished{reasons[-1] if reasons else ''}")
    best = max(complete, key=lambda row: row["score"])
    importances = _importances(study, seed) if len(complete) >= LEAST else {}
    result = SearchResult(out, rows, best, importances, _luck(out, complete, seed), seed)
    write_recipe(make_recipe(base.flat() | best["values"]), out / "best.yaml")
    write_json(out / "search.json", result.data())
    return result


def caution(result: SearchResult, translate: Callable[[str], str] = str) -> str:
    """What must be said of the best of many; `translate` puts it into a language."""
    count = sum(row["state"] == "complete" for row in result.trials)
    text = translate(CAUTION[0]).format(count=count)
    if not result.luck:
        return f"{text} {translate(CAUTION[1])}"
    seen, lasting = result.luck["seen"], max(0.0, result.luck["kept"])
    return f"{text} {translate(CAUTION[2]).format(seen=seen, kept=lasting, luck=max(0.0, seen - lasting))}"


def with_interval(row: Row) -> str:
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
    by_fold = list(trial.intermediate_values.values())
    chosen: Row = {}
    with contextlib.suppress(KeyError):  # stopped before all of its values were drawn
        chosen = values(trial.params)
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    scores = (trial.values or []) if trial.state == TrialState.COMPLETE else by_fold[-1:]
    return {
        "trial": trial.number,
        "run": f"trial{trial.number:04d}",
        "state": state,
        "score": scores[0] if scores else None,
        "low": ends.get("low"),
        "high": ends.get("high"),
        "folds": len(by_fold),
        "seconds": trial.user_attrs.get("seconds"),
        "values": chosen,
        "error": trial.user_attrs.get("error", ""),
    }


def _importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """Share of each parameter in the variance of the score (fANOVA, Hutter et al. 2014), largest first.

    {} where they are unknown, as when all scores are the same.
    """
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ImportError, ValueError, RuntimeError):
        return {}
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


def _luck(out: Path, complete: list[Row], seed: int) -> dict[str, float] | None:
    """See `evidence.ensemble.lead`; None for fewer than two runs here, or without photos that know all three labels."""
    files = [out / row["run"] / "oof.npz" for row in complete]
    # those of other machines are not here
    runs = [Predictions.load(file) for file in files if file.exists()]
    if len(runs) < 2:
        return None
    seen, lasting = lead(runs, seed=seed)
    return {"seen": seen, "kept": lasting} if math.isfinite(seen + lasting) else None


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
