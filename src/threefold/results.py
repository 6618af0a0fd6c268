"""`Result`: what every verb returns. A value that knows its lines for the terminal, its data for JSON and its page.

Nothing here prints and no verb does: `cli/` alone shows a result, so that `--json`, `--csv`, `--html` and `--lang` mean
the same in every verb, and a library call is silent. A verb subclasses Result, as a rule as a frozen dataclass.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from threefold.files import csv_text


class Result:
    """What a verb did and what came of it."""

    @property
    def failure(self) -> str:
        """Why the answer is no although the work was done, in one line; empty where it is not. Exit code 1."""
        return ""

    @property
    def aside(self) -> bool:
        """Whether its lines belong on stderr, since stdout has something else (a table that was written as it grew)."""
        return False

    def lines(self) -> list[str]:
        """What a person reads, the headline first. A line that begins with `! ` warns."""
        return []

    def data(self) -> dict[str, Any]:
        """Everything as plain values, for JSON: the fields of a dataclass."""
        return asdict(self) if is_dataclass(self) else {}

    def page(self, lang: str = "en") -> str | None:
        """One self-contained HTML page in `lang` (`en` or `ko`); None for a verb without one."""
        return None

    def rows(self) -> list[Sequence[object]] | None:
        """The table of the result, its header first, for CSV; None for a verb without one."""
        return None

    def json(self) -> str:
        """`data()` as indented JSON, ending in a newline. A number that is none (NaN, infinity) is null."""
        return dumps(plain(self.data()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def csv(self) -> str:
        """`rows()` as CSV; empty for a verb without a table."""
        return csv_text(self.rows() or [])

    def __str__(self) -> str:
        return "\n".join(self.lines())


def plain(value: Any) -> Any:
    """The same value of dicts, lists, strings, numbers, booleans and None alone, as JSON has them.

    Arrays and tuples become lists, paths strings; NaN and infinity become None, since JSON has no word for them.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: bool = False) -> list[str]:
    """A table as aligned lines, two spaces between columns; no lines at all without rows.

    right: all columns but the first are flush right, as numbers are read. A cell that is None is empty.
    """
    cells = [list(columns), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    if len(cells) == 1:
        return []
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padding = [" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)]
        flush = [right and place > 0 for place in range(len(row))]
        padded = [pad + cell if last else cell + pad for cell, pad, last in zip(row, padding, flush, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal: Korean letters take two, combining marks none."""
    from rich.cells import cell_len  # 30 ms that only a table costs

    return cell_len(text)
