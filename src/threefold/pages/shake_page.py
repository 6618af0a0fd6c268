"""`threefold shake RUN...`: the leaderboard in advance, and which run to hand in on the last evening.

The numbers are those of `evidence.shake`; here runs are opened, the scores that a team saw in public are read, and what
was found is said: a table a question, in the order in which a team asks them, and the answer last.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from json import dumps
from math import isnan
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from threefold.errors import RecipeError
from threefold.evidence.ensemble import aligned
from threefold.evidence.shake import choose, gaps, informed, pairs, shake, strategies, surprise
from threefold.runs import open_runs

RARE = 0.001
"""Chance of public scores below which `shake` asks whether they are those of these runs."""
_RULES = {
    "public": "the winner in public", "oof": "the best out of fold", "mean": "the best mean of both scores",
    "pooled": "both, weighed by their people", "two finals": "the two best of these, better one counts",
}  # fmt: skip


def shake_runs(
    runs: Sequence[Path | str], *, on: str = "oof", persons: int | None = None, share: float = 0.5,
    public: Sequence[float] | str | None = None, draws: int = 10_000, seed: int = 0, json: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Print, and return, what public and private scores of complete runs will do; nothing is written.

    on: `oof`, or `test` for what `predict --answers` kept. persons: how many people the contest's test has (default: as
    many as ours; the mask contest: 1800). share: of them public. public: scores that the runs got there, in order (or
    their text, `0.712,-,0.705`, a dash for a run that was not handed in); the choice then rests on both.
    Raises RunError for a run that is missing, incomplete or given twice, DataError for runs on other photos and for
    too few people, RecipeError for public scores that cannot be.
    """
    names = [str(run) for run in runs]
    scores = None if public is None else _scores(public)
    parts = aligned([run.predictions(on) for run in open_runs([Path(run) for run in runs], least=1)], names)
    found = shake(parts, persons=persons, share=share, draws=draws, seed=seed)
    told: dict[str, Any] = {
        "on": on, "persons": dict(zip(("public", "private", "oof"), found.persons, strict=True)), "draws": draws,
        "seed": seed, "runs": [{"run": name, **row} for name, row in zip(names, gaps(found), strict=True)],
        "pairs": [row | {"one": names[row["one"]], "other": names[row["other"]]} for row in pairs(found)],
        "strategies": strategies(found) if len(names) > 1 else {},
        "given": None if scores is None else [None if isnan(score) else score for score in scores],
        "surprise": None if scores is None else surprise(found, scores, seed),
        "choice": _named(choose(found.private if scores is None else informed(found, scores, seed)), names),
    }  # fmt: skip
    if json:
        print(dumps(told, indent=2, ensure_ascii=False))
    else:
        _print(told)
    return told


def _scores(public: Sequence[float] | str) -> list[float]:
    if not isinstance(public, str):
        return list(public)
    try:
        return [float("nan") if text.strip() == "-" else float(text) for text in public.split(",")]
    except ValueError:
        raise RecipeError(f"public: {public!r} cannot be read; expected numbers like 0.712,-,0.705") from None


def _named(choice: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Run names for numbers."""
    named = {key: None if choice[key] is None else names[choice[key]] for key in ("pick", "next")}
    named["same"] = [names[run] for run in choice["same"]]
    return choice | named | {"two": choice["two"] and [names[run] for run in choice["two"]]}


def _print(told: dict[str, Any]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False, markup=False, emoji=False)
    people, choice, runs = told["persons"], told["choice"], told["runs"]
    halves = f"{people['public']:,} public and {people['private']:,} private people"
    console.print(f"{told['draws']:,} contests of {halves}, drawn from {people['oof']:,}; macro F1", soft_wrap=True)
    console.print(_table(_GAPS, runs))
    if len(runs) > 1:
        against = {row["one"]: row for row in told["pairs"] if row["other"] == choice["pick"]}
        beats = {f"beats {Path(choice['pick']).name}": "wins:.0%", "though behind in public": "wins_after_loss:.0%"}
        console.print(_table(_RANKS | beats, [row | against.get(row["run"], {}) for row in runs]))
        rules = [row | {"rule": _RULES[name]} for name, row in told["strategies"].items()]
        console.print(_table(_STRATEGIES, rules))
    if told["given"]:
        console.print("knowing the public scores, which may all lie off validation together:", soft_wrap=True)
        columns = ([row["run"] for row in runs], told["given"], *(choice[key] for key in _KNOWN))
        known = [dict(zip(("run", "given", *_KNOWN), row, strict=True)) for row in zip(*columns, strict=True)]
        console.print(_table(_GIVEN, known))
        if told["surprise"] < RARE:
            asked = "are they in the order of the runs, and was it their answers that were handed in?"
            words = f"such public scores come from these runs less than once in {1 / RARE:,.0f} contests: {asked}"
            console.print(words, style="yellow", soft_wrap=True)
    console.print(_answer(told), style="green" if choice["sure"] else "yellow", soft_wrap=True)


def _answer(told: dict[str, Any]) -> str:
    choice, rules = told["choice"], told["strategies"]
    if not rules:
        return f"public and private lie up to {told['runs'][0]['gap_90']:.3f} apart by chance, nine times of ten"
    either = " or ".join([choice["pick"], *choice["same"]])
    alike = ", which score alike whoever is drawn" if choice["same"] else ""
    stop = "," if alike else ""
    if choice["next"] is None:
        return f"pick {either}{alike}"
    head = f"pick {either}{alike}" if choice["sure"] else f"can't tell; {either}{alike}{stop} is expected highest"
    lost = rules["public"]["private"] - rules["pooled"]["private"]
    return (f"{head}: it beats {choice['next']} in private with {choice['chance']:.0%}"
            f"\nto go by the public score alone instead of both scores: {lost:+.4f} expected in private"
            f"\nif two finals count: {' and '.join(choice['two'])}, {choice['two_private']:.4f}")  # fmt: skip


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Table:
    """`columns`: title to `key:format` of what a row holds there; a dash where it is None or missing."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for place, title in enumerate(columns):
        table.add_column(title, justify="right" if place else "left", overflow="fold")
    for row in rows:
        cells = [(row.get(key), form) for key, _, form in (column.partition(":") for column in columns.values())]
        table.add_row(*("-" if value is None else format(value, form) for value, form in cells))
    return table


_KNOWN = ("expected", "low", "high", "best")
_GAPS = {
    "run": "run", "public": "public:.4f", "private": "private:.4f", "SD of the gap": "gap_sd:.4f",
    "|gap| 50 %": "gap_50:.4f", "90 %": "gap_90:.4f", "95 %": "gap_95:.4f",
}  # fmt: skip
_RANKS = {"beforehand": "run", "best in private": "best:.0%", "once best in public": "best_if_public:.0%"}
_STRATEGIES = {
    "handed in": "rule", "private, expected": "private:.4f", "short of the best": "regret:.4f",
    "is the best": "best:.0%", "public - private": "gap:+.4f",
}  # fmt: skip
_GIVEN = {
    "run": "run", "public score": "given:.4f", "private, expected": "expected:.4f", "95 %: from": "low:.4f",
    "to": "high:.4f", "best in private": "best:.0%",
}  # fmt: skip
