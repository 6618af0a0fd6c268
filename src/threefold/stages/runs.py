"""`threefold runs [DIR]`: every run below a folder as one table, best first, and which of them may be compared.

Two scores can be set side by side only where the same people were dealt into the same folds. Runs are therefore
lettered by (data digest, folds digest): the letter says who is comparable with whom. Whether one *is* better than
another is not said here: intervals of two runs on the same people overlap long before the difference is noise.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from threefold.errors import ThreefoldError
from threefold.recipe import Recipe
from threefold.runs import Run, list_runs

_SHORT = 48  # letters of a hypothesis
_STATES = {"complete": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Row:
    """One line of the table. group: the letter of its data and folds; macro_f1, accuracy: {value, low, high}."""

    name: str
    state: str
    group: str
    hypothesis: str
    baseline: str
    macro_f1: dict[str, float] | None
    accuracy: dict[str, float] | None
    folds: str
    people: int
    photos: int
    seconds: float | None
    created: str


def runs_table(root: Path) -> list[Row]:
    """Rows of every run below `root`, best macro F1 first, then those without a score by name.

    A run whose files are damaged is listed with the state `damaged` rather than hiding the others. Raises RunError
    when `root` is no folder.
    """
    found = list_runs(root)
    stamps = [run.stamp for run in found]
    digests = [(str(stamp.get("data_digest")), str(stamp.get("folds_digest"))) for stamp in stamps]
    letters = {pair: _letter(number) for number, pair in enumerate(dict.fromkeys(digests))}
    rows = [
        _row(run, stamp, letters[pair], _name(run.path, root))
        for run, stamp, pair in zip(found, stamps, digests, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.macro_f1["value"] if row.macro_f1 else 1, row.name))


def print_runs(root: Path, console: Console | None = None) -> None:
    """Print the table: coloured on a terminal, elsewhere plain and as wide as it needs. No score is ever cut.

    A narrow terminal gets fewer columns, the last of `_COLUMNS` first, and a line that names those left out.
    """
    rows = runs_table(root)
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=1000, no_color=True, highlight=False)
    if not rows:
        console.print(f"no runs in {root}", markup=False)
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
    if len({row.group for row in rows}) > 1:
        console.print(_NOT_COMPARABLE, style="yellow", highlight=False)


_NOT_COMPARABLE = "Different letters under data: other photos or other folds. Do not compare those scores."
_COLUMNS: dict[str, tuple[Any, int]] = {
    "run": ("left", 16), "macro F1": ("left", 0), "state": ("left", 0), "data": ("left", 0), "accuracy": ("right", 0),
    "hypothesis": ("left", 22), "folds": ("right", 0), "people": ("right", 0), "photos": ("right", 0),
    "time": ("right", 0), "date": ("left", 0), "baseline": ("left", 16),
}  # fmt: skip
"""Title: alignment and the least width it may be wrapped to (0: never wrapped)."""


def _cells(row: Row) -> dict[str, Text]:
    score, text = row.macro_f1, row.hypothesis
    cells = {
        "run": row.name,
        "macro F1": f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]" if score else "-",
        "state": row.state,
        "data": row.group,
        "accuracy": f"{row.accuracy['value']:.4f}" if row.accuracy else "-",
        "hypothesis": text if len(text) <= _SHORT else text[: _SHORT - 1].rstrip() + "…",
        "folds": row.folds,
        "people": f"{row.people:,}",
        "photos": f"{row.photos:,}",
        "time": "-" if row.seconds is None else f"{row.seconds / 60:,.1f} min",
        "date": row.created[:10],
        "baseline": row.baseline,
    }
    return {key: Text(value, style=_STATES.get(value, "red") if key == "state" else "") for key, value in cells.items()}


def _row(run: Run, stamp: dict[str, Any], group: str, name: str) -> Row:
    state = run.state
    metrics: dict[str, Any] = {}
    recipe = Recipe()
    try:
        recipe = run.recipe
        metrics = run.metrics if state == "complete" else {}
    except ThreefoldError:
        state = "damaged"
    return Row(
        name=name,
        state=state,
        group=group,
        hypothesis=" ".join(recipe.hypothesis.split()),
        baseline=recipe.baseline,
        macro_f1=_known(metrics.get("macro_f1")),
        accuracy=_known(metrics.get("accuracy")),
        folds=recipe.data.folds,
        people=int(stamp.get("persons") or 0),
        photos=int(stamp.get("photos") or 0),
        seconds=metrics.get("seconds"),
        created=str(stamp.get("created", "")),
    )


def _known(number: dict[str, float] | None) -> dict[str, float] | None:
    return number if number and number.get("value") is not None else None


def _name(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        return path.relative_to(root).as_posix() if path != root else path.resolve().name
    return str(path)


def _letter(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
