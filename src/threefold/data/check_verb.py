"""`threefold check`: the report of `data.check` as text or JSON, and the exit code that says whether to go on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from itertools import groupby
from json import dumps
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from threefold.data.check import Report, check
from threefold.errors import CheckFailed
from threefold.progress import bar

LISTED = 10
"""Problems of one kind that the text shows; JSON has all."""


def check_data(data: str, *, json: bool = False) -> Report:
    """Check a source text, print what was found on stdout (progress goes to stderr), and return it.

    Raises CheckFailed, after printing, when an error was found, and DataError when there is nothing to check.
    """
    with bar("checking") as progress:
        report = check(data, progress)
    if json:
        print(dumps({"ok": report.ok, **asdict(report)}, indent=2, ensure_ascii=False))
    else:
        _print(report)
    errors = sum(problem.severity == "error" for problem in report.problems)
    if errors:
        raise CheckFailed(f"{data}: {errors} error{'s' if errors > 1 else ''} would corrupt a result")
    return report


def _print(report: Report) -> None:
    tty = sys.stdout.isatty()
    console = Console(width=None if tty else 120, highlight=False, markup=False, emoji=False)
    ages = f", ages {report.ages[0]:g} to {report.ages[1]:g}" if report.ages else ""
    console.print(f"{report.photos:,} photos of {report.persons:,} persons{ages}; checked in {report.seconds:g} s")
    console.print(f"people: {_line(report.people['gender and age_group'])}", soft_wrap=True)
    for title, counts in (("sources", report.sources), ("sizes", report.sizes), ("formats", report.formats)):
        console.print(f"{title}: {_line(counts)}", soft_wrap=True)
    console.print(f"read as RGB, upright, though: {_line(report.odd)}", soft_wrap=True)
    console.print(f"copies: {_line(report.copies)}", soft_wrap=True)
    console.print(_attributes(report), _classes(report), sep="")
    for (severity, kind), group in groupby(report.problems, key=lambda problem: (problem.severity, problem.kind)):
        found = list(group)
        console.print(f"{severity}: {kind} ({len(found):,})", style="red" if severity == "error" else "yellow")
        for problem in found[:LISTED]:
            console.print(f"  {problem}", soft_wrap=True)
        if len(found) > LISTED:
            console.print(f"  ... and {len(found) - LISTED:,} more (--json lists all)")
    console.print("nothing that would corrupt a result" if report.ok else "this would corrupt a result")


def _line(counts: Mapping[str, int], most: int = 6) -> str:
    """`384x512 18,900, 200x200 12, 3 others`."""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    rest = [f"{len(counts) - most} others"] if len(counts) > most else []
    return ", ".join(shown + rest) or "none"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _attributes(report: Report) -> Table:
    table = _table("photos labelled", "", "", "", "unknown")
    for name, values in report.attributes.items():
        cells: list[Any] = [f"{value} {count:,}" for value, count in values.items() if value != "unknown"]
        table.add_row(name, *cells, *[""] * (3 - len(cells)), f"{values['unknown']:,}")
    return table


def _classes(report: Report) -> Table:
    """The 18 classes as three rows of masks by six columns of gender and age group."""
    counts = list(report.classes.items())
    table = _table("class", *(name.split(" ", 1)[1] for name, _ in counts[:6]))
    for first in range(0, len(counts), 6):
        row = counts[first : first + 6]
        table.add_row(row[0][0].split(" ", 1)[0], *(f"{count:,}" for _, count in row))
    return table
