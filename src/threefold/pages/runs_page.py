"""`threefold runs [DIR]`: the experiment log, every run below a folder as a table, CSV, JSON or a page.

What a row holds, and what may be compared with what, is said in `runlog.py`; here rows are chosen, put in order and
shown. A column is a field of `runlog.RunRow` (`macro_f1`), the title it has in the table (`run`, `time`, `date`), or a
recipe key (`train.mix`).
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from threefold.errors import RecipeError, one_of
from threefold.evidence.bootstrap import places
from threefold.pages.html import render
from threefold.pages.runlog import ENDS, WHY, Number, RunRow, runs_table
from threefold.recipe import KEYS, PART_KEYS, PARTS
from threefold.results import Result, display_width, table_lines

_SHORT = 48  # letters of a hypothesis, and of what changed
_NUMBERS = ("macro_f1", "accuracy", "mask", "gender", "age_group", "difference")
_COUNTS = ("people", "photos", "seed", "seconds")
_FIELDS = tuple(field.name for field in fields(RunRow) if field.name not in ("recipe", "why"))
_TITLES = {"run": "name", "time": "seconds", "date": "created", "data": "data_group", "code": "code_group"}
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {">=": ge, "<=": le, ">": gt, "<": lt}
_CONDITION = re.compile(r"([\w.]+(?: \w+)?)\s*(!=|>=|<=|=|>|<)\s*(.*)", re.DOTALL)
_APART = {
    "group": "! Different letters for data or folds: other photos or other folds. Do not compare those scores.",
    "code_group": "! Different letters for code: other code, as far as the runs know. A difference may be the code's.",
}


@dataclass(frozen=True)
class RunsResult(Result):
    """The log of a folder. log: its rows, filtered and in order by `column`, the largest first where `falling`.

    page_folder: where its page will lie, from which the page links to the reports of the runs.
    """

    folder: Path
    log: tuple[RunRow, ...]
    column: str
    falling: bool
    filtered: bool
    page_folder: Path = Path()

    def lines(self) -> list[str]:
        """The log as a table of as many columns as the terminal has room for, and what must not be read from it.

        No score is ever cut: a narrow terminal gets fewer columns and is told which are left out.
        """
        if not self.log:
            return [f"no runs in {self.folder}{' meet the filters' if self.filtered else ''}"]
        table = [_cells(row) for row in self.log]
        # what is not a terminal gets all of them
        room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
        shown: list[str] = []
        for title in table[0]:
            width = max(display_width(text) for text in (title, *(cells[title] for cells in table))) + 2
            if title in ("run", "macro F1") or width <= room:
                shown.append(title)
                room -= width
        lines = table_lines(shown, [[cells[title] for title in shown] for cells in table])
        if hidden := [title for title in table[0] if title not in shown]:
            lines.append(f"left out, the terminal is too narrow: {', '.join(hidden)}")
        for column, warning in _APART.items():
            if len({getattr(row, column).rstrip("+?") for row in self.log} - {"-"}) > 1:
                lines.append(warning)
        judged = sum(bool(row.difference) for row in self.log)
        if judged > 1:
            lines.append(f"{judged} verdicts, each of its own pair: one in twenty comes out better or worse by chance.")
        return lines

    def data(self) -> dict[str, Any]:
        """folder and runs: the fields of `RunRow` of each, `recipe` with every key, `why` in words."""
        return {"folder": self.folder, "runs": [asdict(row) | {"why": row.why.words()} for row in self.log]}

    def rows(self) -> list[Sequence[object]]:
        """One row a run; a score is three columns, its value and the ends of the interval; the recipe is left out."""
        columns = [(name, end) for name in _FIELDS for end in (ENDS if name in _NUMBERS else ENDS[:1])]
        header = [name if end == "value" else f"{name}_{end}" for name, end in columns]
        table = [[*(_value(row, name, end) for name, end in columns), row.why.words()] for row in self.log]
        return [[*header, "why"], *table]

    def page(self, lang: str = "en") -> str:
        """The log as a page that sorts and filters by every column with two values: fields and keys of the recipes."""
        links = {}
        for row in self.log:
            report = self.folder / row.name / "report.html"
            if report.exists():
                links[row.name] = quote(os.path.relpath(report.resolve(), self.page_folder.resolve()))
        values = {name: [_value(row, name) for row in self.log] for name in (*_FIELDS, *KEYS, self.column)}
        letters = {}
        for name in ("data_group", "folds_group", "code_group"):
            different = {getattr(row, name) for row in self.log}
            letters[name] = sorted(different, key=lambda letter: (letter == "-", len(letter.rstrip("+?")), letter))
        ends = [abs(end) for row in self.log if row.difference for end in row.difference.values()]
        return render(
            "runs",
            lang,
            rows=self.log,
            name=self.folder.resolve().name,
            links=links,
            column=self.column,
            falling=self.falling,
            values={name: cells for name, cells in values.items() if len(set(map(str, cells))) > 1},
            places=places,
            reach=max(ends, default=0) or 1,
            letters=letters,
        )


class Condition(NamedTuple):
    """What a row must be. column: empty for a text that its name or hypothesis must hold."""

    column: str
    sign: str
    wanted: str


def runs(
    folder: Path | str,
    *,
    sort: str = "",
    filters: Iterable[str] = (),
    verdicts: bool = True,
    page_folder: Path = Path(),
) -> RunsResult:
    """The experiment log of a folder.

    sort: a column, behind `-` the largest first; empty: `-macro_f1`. filters: see `condition`; a row meets them all.
    verdicts: False leaves out those that take a bootstrap. page_folder: where the page will lie, for its links. Raises
    RunError when `folder` is none, RecipeError for a column or number there is not, before any verdict is worked out.
    """
    conditions = [condition(text) for text in filters]
    column, falling = _column(sort.removeprefix("-") or "macro_f1", "--sort"), sort.startswith("-") or not sort
    log = [row for row in runs_table(Path(folder), verdicts=verdicts) if all(meets(row, one) for one in conditions)]
    log = ordered(log, column, falling)
    return RunsResult(Path(folder), tuple(log), column, falling, bool(conditions), page_folder)


def condition(text: str) -> Condition:
    """A filter as it is typed: `column=value`, `!=`, `>`, `>=`, `<`, `<=`, or words that name or hypothesis must hold.

    Values are compared as numbers where both are, else as text without regard to case; `train.mix=cutmix` also meets
    `cutmix(p=0.5)`, and `changed=train.mix` a run in which that key changed; `column=` one without a value. RecipeError
    for a column there is not and for a number that is none.
    """
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        return Condition("", "", text.strip().lower())
    name, sign, wanted = match.groups()
    column = _column(name, f"--filter {text!r}")
    if column in (*_NUMBERS, *_COUNTS) and (wanted or sign in _SIGNS) and _number(wanted) is None:
        raise RecipeError(f"--filter {text!r}: {name} is a number, {wanted!r} is none; expected as in {name}{sign}0.5")
    return Condition(column, sign, wanted.lower())


def meets(row: RunRow, asked: Condition) -> bool:
    """Whether a row is as asked; one without the value is neither above nor below anything."""
    if not asked.column:
        return asked.wanted in f"{row.name}\n{row.hypothesis}".lower()
    value = _value(row, asked.column)
    left, right = _number(value), _number(asked.wanted)
    numbers = left is not None and right is not None
    if asked.sign in _SIGNS:
        pair = (left, right) if numbers else (str(value).lower(), asked.wanted)
        return value not in (None, "") and _SIGNS[asked.sign](*pair)
    if numbers:
        return (left == right) is (asked.sign == "=")
    texts = row.changed if asked.column == "changed" else ("" if value is None else str(value),)
    names = {part.lower().strip() for text in texts for part in (text, text.partition("(")[0], text.partition(": ")[0])}
    return (asked.wanted in (names or {""})) is (asked.sign == "=")


def ordered(rows: Sequence[RunRow], column: str, falling: bool) -> list[RunRow]:
    """By a column, numbers before texts; rows without the value stay behind in either direction, in their order."""

    def place(row: RunRow) -> tuple[bool, float, str]:
        value = _value(row, column)
        number = float(value) if isinstance(value, int | float) else None
        return number is None, number or 0.0, "" if value is None else str(value).lower()

    rows = sorted(rows, key=place, reverse=falling)
    return sorted(rows, key=lambda row: _value(row, column) in (None, ""))


def _column(text: str, where: str) -> str:
    name = text.strip().lower().replace(" ", "_")
    name = _TITLES.get(name, name)
    if name not in _FIELDS and name not in (*KEYS, *(f"parts.{part}.{key}" for part in PARTS for key in PART_KEYS)):
        columns = sorted({*_FIELDS, *_TITLES, *KEYS})
        raise RecipeError(f"{where}: there is no column {text.strip()!r} ({one_of(columns, name)})")
    return name


def _value(row: RunRow, column: str, end: str = "value") -> Any:
    """What orders and filters go by: of a score its value or an end, of what changed the text of all."""
    value = getattr(row, column) if column in _FIELDS else row.recipe.get(column)
    if isinstance(value, dict):
        return value[end]
    return "; ".join(value) if isinstance(value, tuple) else value


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _cells(row: RunRow) -> dict[str, str]:
    """Title of a column of the terminal's table -> its text; the last are the first to be left out."""
    other_code = row.verdict and row.why.message == WHY["code"]
    return {
        "run": row.name,
        "macro F1": _range(row.macro_f1),
        "difference": _range(row.difference, "+"),
        "verdict": f"{row.verdict}, other code" if other_code else row.verdict or "-",
        "data/folds/code": f"{row.data_group}/{row.folds_group}/{row.code_group}",
        "state": row.state,
        "hypothesis": _cut(row.hypothesis),
        "changed": _cut("; ".join(row.changed)),
        "baseline": row.against or row.baseline,
        "time": "-" if row.seconds is None else f"{row.seconds / 60:,.1f} min",
        "date": row.created[:10],
        "people": f"{row.people:,}",
        "photos": f"{row.photos:,}",
        "why": row.why.words(),
    }


def _range(number: Number | None, sign: str = "") -> str:
    if not number:
        return "-"
    digits = places({**number}, 4) if sign else 4
    value, low, high = (f"{part:{sign}.{digits}f}" for part in number.values())
    return f"{value} [{low}, {high}]"


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1].rstrip() + "…"
