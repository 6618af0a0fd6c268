"""`threefold shake RUN...`: the leaderboard in advance, and which run to hand in on the last evening.

The numbers are those of `evidence.shake`; here runs are opened, the scores that a team saw in public are read, and the
results are put in a table a question, in the order in which a team asks them, with the answer in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from threefold.errors import RecipeError
from threefold.evidence.ensemble import aligned
from threefold.evidence.shake import choose, draw_contests, gaps, informed, pairs, strategies, surprise
from threefold.pages.answer_page import Answer, Table
from threefold.pages.html import Translate
from threefold.runs import open_runs

RARE = 0.001
"""Chance of public scores below which `shake` asks whether they are those of these runs."""
_RULES = {
    "public": "the winner in public",
    "oof": "the best out of fold",
    "mean": "the best mean of both scores",
    "pooled": "both, weighed by their people",
    "two finals": "the two best of these, better one counts",
}
_GAPS = {
    "run": "run",
    "public": "public:.4f",
    "private": "private:.4f",
    "SD of the gap": "gap_sd:.4f",
    "|gap| 50 %": "gap_50:.4f",
    "90 %": "gap_90:.4f",
    "95 %": "gap_95:.4f",
}
"""Column of a table -> key and format of what a row holds there."""
_RANKS = {
    "beforehand": "run",
    "best in private": "best:.0%",
    "once best in public": "best_if_public:.0%",
    "beats {run}": "wins:.0%",
    "though behind in public": "wins_after_loss:.0%",
}
_STRATEGIES = {
    "handed in": "rule",
    "private, expected": "private:.4f",
    "short of the best": "regret:.4f",
    "is the best": "best:.0%",
    "public - private": "gap:+.4f",
}
_PUBLIC = {
    "run": "run",
    "public score": "given:.4f",
    "private, expected": "expected:.4f",
    "95 %: from": "low:.4f",
    "to": "high:.4f",
    "best in private": "best:.0%",
}
SENTENCES = {
    "about": "{draws} contests of {public} public and {private} private people, drawn from {oof}; macro F1",
    "gaps": "how far public and private lie apart",
    "ranks": "who is best in private",
    "strategies": "what to go by",
    "informed": "knowing the public scores, which may all lie off validation together",
    "alone": "public and private lie up to {gap} apart by chance, nine times of ten",
    "alike": "pick {runs}, which score alike whoever is drawn",
    "sure": "pick {runs}: it beats {next} in private with {chance}",
    "sure, alike": "pick {runs}, which score alike whoever is drawn: it beats {next} in private with {chance}",
    "unsure": "can't tell; {runs} is expected highest: it beats {next} in private with {chance}",
    "unsure, alike": "can't tell; {runs}, which score alike whoever is drawn, is expected highest: it beats {next} in "
    "private with {chance}",
    "lost": "to go by the public score alone instead of both scores: {lost} expected in private",
    "two": "if two finals count: {two}, {score}",
    "odd": "such public scores come from these runs less than once in {times} contests: are they in the order of the "
    "runs, and was it their answers that were handed in?",
}
"""Every sentence that is put together here."""


@dataclass(frozen=True)
class ShakeResult(Answer):
    """What public and private scores of runs will do; `document` is the data."""

    sentences = SENTENCES
    document: dict[str, Any]

    def data(self) -> dict[str, Any]:
        """`runs`, `pairs` of runs, `strategies` of choosing among them, and the `choice`."""
        return self.document

    def rows(self) -> list[Sequence[object]]:
        """A run in a row: its scores (macro F1, 0..1), its gaps, and its chances to be the best."""
        runs = self.document["runs"]
        return [list(runs[0]), *(list(run.values()) for run in runs)]

    def parts(self, translate: Translate) -> dict[str, Any]:
        """A table a question, in the order in which a team asks them; about the run to hand in."""
        people = {key: f"{count:,}" for key, count in self.document["persons"].items()}
        about = self.sentence(translate, "about", draws=f"{self.document['draws']:,}", **people)
        warnings = []
        if self.document["given"] and self.document["surprise"] < RARE:
            warnings.append(self.sentence(translate, "odd", times=f"{1 / RARE:,.0f}"))
        parts = {"about": about, "tables": self._tables(translate), "warnings": warnings}
        return parts | {"verb": "shake", "name": self.document["choice"]["pick"], "answer": self._answer(translate)}

    def _tables(self, translate: Translate) -> list[Table]:
        choice, runs = self.document["choice"], self.document["runs"]
        tables = [self._table(translate, "gaps", _GAPS, runs)]
        if len(runs) > 1:
            against = {row["one"]: row for row in self.document["pairs"] if row["other"] == choice["pick"]}
            ranks = [row | against.get(row["run"], {}) for row in runs]
            rules = [row | {"rule": translate(_RULES[name])} for name, row in self.document["strategies"].items()]
            tables.append(self._table(translate, "ranks", _RANKS, ranks))
            tables.append(self._table(translate, "strategies", _STRATEGIES, rules))
        if self.document["given"]:
            columns = {"run": [row["run"] for row in runs], "given": self.document["given"]}
            columns |= {key: choice[key] for key in ("expected", "low", "high", "best")}
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            tables.append(self._table(translate, "informed", _PUBLIC, rows))
        return tables

    def _table(self, translate: Translate, key: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> Table:
        """`columns` of the rows, under the title `key`; a dash where a cell is None or missing."""
        names = [translate(name).format(run=Path(self.document["choice"]["pick"]).name) for name in columns]
        places = [column.partition(":") for column in columns.values()]
        cells = [["-" if row.get(k) is None else format(row[k], form) for k, _, form in places] for row in rows]
        return self.sentence(translate, key), names, cells

    def _answer(self, translate: Translate) -> list[str]:
        choice, rules = self.document["choice"], self.document["strategies"]
        if not rules:
            return [self.sentence(translate, "alone", gap=f"{self.document['runs'][0]['gap_90']:.3f}")]
        runs = f" {translate('or')} ".join([choice["pick"], *choice["same"]])
        if choice["next"] is None:
            return [self.sentence(translate, "alike", runs=runs)]
        key = ("sure" if choice["sure"] else "unsure") + (", alike" if choice["same"] else "")
        lost = rules["public"]["private"] - rules["pooled"]["private"]
        two = f" {translate('and')} ".join(choice["two"])
        return [
            self.sentence(translate, key, runs=runs, next=choice["next"], chance=f"{choice['chance']:.0%}"),
            self.sentence(translate, "lost", lost=f"{lost:+.4f}"),
            self.sentence(translate, "two", two=two, score=f"{choice['two_private']:.4f}"),
        ]


def shake(
    runs: Sequence[Path | str],
    *,
    on: str = "oof",
    persons: int | None = None,
    share: float = 0.5,
    public: Sequence[float] | str | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> ShakeResult:
    """What public and private scores of complete runs will do; nothing is written.

    on: `oof`, or `test` for what `predict --answers` kept. persons: how many people the contest's test has (default: as
    many as ours; the mask contest: 1800). share: of them public. public: scores that the runs got there, in order (or
    their text, `0.712,-,0.705`, a dash for a run that was not handed in); the choice then rests on both.
    Raises RunError for a run that is missing, incomplete or given twice, DataError for runs on other photos and for
    too few people, RecipeError for public scores that cannot be.
    """
    names = [str(run) for run in runs]
    scores = None if public is None else _scores(public)
    parts = aligned([run.predictions(on) for run in open_runs([Path(run) for run in runs], least=1)], names)
    contests = draw_contests(parts, persons=persons, share=share, draws=draws, seed=seed)
    choice = choose(contests.private if scores is None else informed(contests, scores, seed))
    choice |= {key: None if choice[key] is None else names[choice[key]] for key in ("pick", "next")}
    choice |= {key: choice[key] and [names[run] for run in choice[key]] for key in ("same", "two")}
    document = {
        "on": on,
        "persons": dict(zip(("public", "private", "oof"), contests.persons, strict=True)),
        "draws": draws,
        "seed": seed,
        "runs": [{"run": name, **row} for name, row in zip(names, gaps(contests), strict=True)],
        "pairs": [row | {key: names[row[key]] for key in ("one", "other")} for row in pairs(contests)],
        "strategies": strategies(contests) if len(names) > 1 else {},
        "given": None if scores is None else [None if isnan(score) else score for score in scores],
        "surprise": None if scores is None else surprise(contests, scores, seed),
        "choice": choice,
    }
    return ShakeResult(document)


def _scores(public: Sequence[float] | str) -> list[float]:
    if not isinstance(public, str):
        return list(public)
    try:
        return [float("nan") if text.strip() == "-" else float(text) for text in public.split(",")]
    except ValueError:
        raise RecipeError(f"public: {public!r} cannot be read; expected numbers like 0.712,-,0.705") from None
