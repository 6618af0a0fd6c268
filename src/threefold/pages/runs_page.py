"""`threefold runs [DIR]`: the experiment log, every run below a folder as a table, CSV, JSON or a page.

What a row holds, and what may be compared with what, is said in `runlog.py`; here rows are chosen, put in order and
shown. A column is a field of `runlog.Row` (`macro_f1`), the title it has in the table (`run`, `time`, `date`), or a
recipe key (`train.mix`).
"""

from __future__ import annotations

import json as json_text
import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from threefold.errors import RecipeError, one_of
from threefold.evidence.bootstrap import places
from threefold.files import csv_text, write_text
from threefold.pages.runlog import WHY, Number, Row, explain, runs_table
from threefold.progress import plain_console
from threefold.recipe import KEYS, PART_KEYS, PARTS

_SHORT = 48  # letters of a hypothesis, and of what changed
_STATES = {"complete": "green", "running": "cyan", "stopped": "yellow", "pruned": "bright_black"}
_VERDICTS = {"better": "green", "worse": "red", "can't tell": "", "": ""}
_NUMBERS = ("macro_f1", "accuracy", "mask", "gender", "age_group", "difference")
_COUNTS = ("people", "photos", "seed", "seconds")
_FIELDS = tuple(field.name for field in fields(Row) if field.name not in ("recipe", "why"))
_TITLES = {"run": "name", "time": "seconds", "date": "created", "data": "data_group", "code": "code_group"}
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"([\w.]+(?: \w+)?)\s*(!=|>=|<=|=|>|<)\s*(.*)", re.DOTALL)


class Condition(NamedTuple):
    """What a row must be. column: empty for a text that its name or hypothesis must hold."""

    column: str
    sign: str
    wanted: str


def print_runs(
    root: Path, console: Console | None = None, *, sort: str = "", filters: Iterable[str] = (),
    csv: Path | str | None = None, html: Path | str | None = None, json: bool = False, verdicts: bool = True,
    lang: str = "en",
) -> None:  # fmt: skip
    """Print the log as a table, and write it where `csv` and `html` say; `json` and csv "-" print that instead.

    sort: a column, behind `-` the largest first; empty: `-macro_f1`. filters: see `condition`; a row meets them all.
    verdicts: False leaves out those that take a bootstrap. lang: of the page (en, ko). A terminal gets colours, and
    fewer columns where it is narrow; elsewhere text is plain and as wide as it needs. Raises RunError when `root` is no
    folder, RecipeError for a column, number or language there is not, before any verdict is worked out.
    """
    console, root = console or Console(), Path(root)
    asked = [condition(text) for text in filters]
    column, falling = _column(sort.removeprefix("-") or "macro_f1", "--sort"), sort.startswith("-") or not sort
    if html:
        from threefold.pages.html import translator  # jinja2 comes with [train]; the table needs none

        translator(lang)
    if json and str(csv) == "-":
        raise RecipeError("--json and --csv - both print the log; give --csv a file")
    if csv and html and Path(csv).resolve() == Path(html).resolve():
        raise RecipeError(f"--csv and --html are both {html}; expected two files")
    rows = [row for row in runs_table(root, verdicts=verdicts) if all(meets(row, each) for each in asked)]
    rows = ordered(rows, column, falling)
    said = Console(stderr=True) if json or str(csv) == "-" else console
    for path, text in ((csv, _csv), (html, lambda rows: _page(rows, root, Path(str(html)), column, falling, lang))):
        if path is not None and str(path) != "-":
            write_text(Path(path), text(rows))
            said.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if json:
        found = json_text.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False)
        console.file.write(found + "\n")
    elif str(csv) == "-":
        console.file.write(_csv(rows))
    else:
        _print_table(rows, f"no runs in {root}" + " meet the filters" * bool(asked), console)


def condition(text: str) -> Condition:
    """A filter as it is typed: `column=value`, `!=`, `>`, `>=`, `<`, `<=`, or words that name or hypothesis must hold.

    Values are compared as numbers where both are, else as text without regard to case; `train.mix=cutmix` also meets
    `cutmix(p=0.5)`, and `changed=train.mix` a run in which that key changed; `column=` one without a value. RecipeError
    for a column there is not and for a number that is none.
    """
    found = _CONDITION.fullmatch(text.strip())
    if not found:
        return Condition("", "", text.strip().lower())
    name, sign, wanted = found.groups()
    column = _column(name, f"--filter {text!r}")
    if column in (*_NUMBERS, *_COUNTS) and (wanted or sign in _SIGNS) and _number(wanted) is None:
        raise RecipeError(f"--filter {text!r}: {name} is a number, {wanted!r} is none; expected as in {name}{sign}0.5")
    return Condition(column, sign, wanted.lower())


def meets(row: Row, asked: Condition) -> bool:
    """Whether a row is as asked; one without the value is neither above nor below anything."""
    if not asked.column:
        return asked.wanted in f"{row.name}\n{row.hypothesis}".lower()
    found = _value(row, asked.column)
    left, right = _number(found), _number(asked.wanted)
    both = left is not None and right is not None
    if asked.sign in _SIGNS:
        return found not in (None, "") and _SIGNS[asked.sign](
            *((left, right) if both else (str(found).lower(), asked.wanted))
        )
    texts = row.changed if asked.column == "changed" else ("" if found is None else str(found),)
    names = {part.lower().strip() for text in texts for part in (text, text.partition("(")[0], text.partition(": ")[0])}
    return (left == right if both else asked.wanted in (names or {""})) is (asked.sign == "=")


def ordered(rows: list[Row], column: str, falling: bool) -> list[Row]:
    """By a column, numbers before texts; rows without the value stay behind in either direction, in their order."""

    def place(row: Row) -> tuple[bool, float, str]:
        value = _value(row, column)
        number = float(value) if isinstance(value, int | float) else None
        return number is None, number or 0.0, str(value).lower()

    known = [row for row in rows if _value(row, column) not in (None, "")]
    return sorted(known, key=place, reverse=falling) + [row for row in rows if _value(row, column) in (None, "")]


def _column(text: str, where: str) -> str:
    name = text.strip().lower().replace(" ", "_")
    name = _TITLES.get(name, name)
    if name not in _FIELDS and name not in (*KEYS, *(f"parts.{part}.{key}" for part in PARTS for key in PART_KEYS)):
        raise RecipeError(
            f"{where}: there is no column {text.strip()!r} ({one_of(sorted({*_FIELDS, *_TITLES, *KEYS}), name)})"
        )
    return name


def _value(row: Row, column: str) -> Any:
    """What orders and filters go by: of a score its value, of what changed the text of all."""
    found = getattr(row, column) if column in _FIELDS else row.recipe.get(column)
    if isinstance(found, dict):
        return found["value"]
    return "; ".join(found) if isinstance(found, tuple) else found


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _plain(row: Row) -> dict[str, Any]:
    return asdict(row) | {"changed": list(row.changed), "why": explain(row)}


def _csv(rows: Iterable[Row]) -> str:
    """One line a run; a score is three columns, its value and the ends of the interval; the recipe is left out."""
    spread = [(name, end) for name in _FIELDS for end in (("value", "low", "high") if name in _NUMBERS else ("value",))]
    lines = [[f"{name}_{end}".removesuffix("_value") for name, end in spread] + ["why"]]
    for row in rows:
        number = {name: getattr(row, name) or {} for name in _NUMBERS}
        cells = [number[name].get(end, "") if name in number else _value(row, name) for name, end in spread]
        lines.append([*cells, explain(row)])
    return csv_text(lines)


def _page(rows: list[Row], root: Path, file: Path, column: str, falling: bool, lang: str) -> str:
    """The log as a page at `file`, with links to the reports of the runs that have one.

    It sorts and filters by every column that has two values: fields of a row, and keys of the recipes.
    """
    reports = [(row.name, root / row.name / "report.html") for row in rows]
    home = file.parent.resolve()
    links = {name: quote(os.path.relpath(path.resolve(), home)) for name, path in reports if path.exists()}
    from threefold.pages.html import render

    gaps = [abs(end) for row in rows if row.difference for end in row.difference.values()]
    values = {name: [_value(row, name) for row in rows] for name in dict.fromkeys((*_FIELDS, *KEYS, column))}
    return render(
        "runs", lang, rows=rows, name=root.resolve().name, links=links, column=column, falling=falling, explain=explain,
        values={name: cells for name, cells in values.items() if len(set(map(str, cells))) > 1}, places=places,
        reach=max(gaps, default=1) or 1, letters={
            name: sorted({getattr(row, name) for row in rows}, key=lambda one: (one == "-", len(one.rstrip("+?")), one))
            for name in ("data_group", "folds_group", "code_group")
        },
    )  # fmt: skip


def _print_table(rows: list[Row], nothing: str, console: Console) -> None:
    """No score is ever cut: a narrow terminal gets fewer columns, the last of `_COLUMNS` first, and is told which."""
    console = plain_console(console, width=5000)
    if not rows:
        console.print(nothing, markup=False)
        return
    cells = [_cells(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    left = console.width
    out: list[str] = []
    for title, (justify, shrinks) in _COLUMNS.items():
        need = max(cell_len(title), *(cell_len(str(row[title])) for row in cells))
        least = min(need, shrinks or need)
        if title not in ("run", "macro F1") and least + 2 > left:
            out.append(title)
            continue
        left -= least + 2
        table.add_column(title, justify=justify, min_width=least, no_wrap=not shrinks, overflow="fold")
    for row in cells:
        table.add_row(*(cell for title, cell in row.items() if title not in out))
    console.print(table)
    if out:
        console.print(f"left out, the terminal is too narrow: {', '.join(out)}", style="dim", highlight=False)
    for what, letters in (("group", 1), ("code_group", 2)):
        if len({getattr(row, what).rstrip("+?") for row in rows} - {"-"}) > 1:
            console.print(_NOT_COMPARABLE[letters - 1], style="yellow", highlight=False)
    if (judged := sum(bool(row.difference) for row in rows)) > 1:
        console.print(f"{judged} {_CHANCE}", style="dim", highlight=False)


_CHANCE = "verdicts, each of its own pair: one in twenty comes out better or worse by chance."
_NOT_COMPARABLE = (
    "Different letters for data or folds: other photos or other folds. Do not compare those scores.",
    "Different letters for code: other code, as far as the runs know. A difference may be the code's.",
)
_COLUMNS: dict[str, tuple[Any, int]] = {
    "run": ("left", 16), "macro F1": ("left", 0), "verdict": ("left", 0), "data/folds/code": ("left", 0),
    "state": ("left", 0), "hypothesis": ("left", 22), "difference": ("left", 0), "changed": ("left", 22),
    "baseline": ("left", 16), "time": ("right", 0), "date": ("left", 0), "accuracy": ("right", 0), "mask": ("right", 0),
    "gender": ("right", 0), "age group": ("right", 0), "folds": ("right", 0), "people": ("right", 0),
    "photos": ("right", 0), "seed": ("right", 0), "kind": ("left", 0), "commit": ("left", 0), "why": ("left", 22),
}  # fmt: skip
"""Title: alignment and the least width it may be wrapped to (0: never wrapped)."""


def _cells(row: Row) -> dict[str, Text]:
    cells = {
        "run": row.name,
        "macro F1": _range(row.macro_f1),
        "verdict": row.verdict + ", other code" * (row.why[0] == WHY["code"] and bool(row.verdict)) or "-",
        "data/folds/code": f"{row.data_group}/{row.folds_group}/{row.code_group}",
        "state": row.state,
        "hypothesis": _cut(row.hypothesis),
        "difference": _range(row.difference, "+"),
        "changed": _cut("; ".join(row.changed)),
        "baseline": row.against or row.baseline,
        "time": "-" if row.seconds is None else f"{row.seconds / 60:,.1f} min",
        "date": row.created[:10],
        **{name.replace("_", " "): _range(getattr(row, name)).partition(" ")[0]
           for name in ("accuracy", "mask", "gender", "age_group")},
        "folds": row.folds,
        "people": f"{row.people:,}",
        "photos": f"{row.photos:,}",
        "seed": "-" if row.seed is None else str(row.seed),
        "kind": row.kind,
        "commit": row.commit or "-",
        "why": explain(row),
    }  # fmt: skip
    styles = {"state": _STATES.get(row.state, "red"), "verdict": _VERDICTS.get(row.verdict, "yellow")}
    return {title: Text(text, style=styles.get(title, "")) for title, text in cells.items()}


def _range(number: Number | None, sign: str = "") -> str:
    if not number:
        return "-"
    digits = places({**number}, 4) if sign else 4
    value, low, high = (f"{number[end]:{sign}.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1].rstrip() + "…"
