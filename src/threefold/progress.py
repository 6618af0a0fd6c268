"""Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere. Results go to stdout."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET = 10.0
"""Seconds between two plain lines, at least: a log should say that work goes on, not how often."""

_shown = False

Advance = Callable[[int, int], None]
"""Called with how many of how many are done."""


def show() -> None:
    """From now on progress and notes are shown on stderr. The command line asks for it; library calls are silent."""
    global _shown  # noqa: PLW0603
    _shown = True


def say(text: str) -> None:
    """One line for people, on stderr, where progress is shown."""
    if _shown:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar(title: str, unit: str = "photos") -> Iterator[Advance]:
    """`with bar("decoding") as report: report(done, total)`. Work that never reports prints nothing."""
    console = Console(stderr=True)
    begin = last = perf_counter()
    if not (console.is_terminal and _shown):
        shown = -1

        def line(done: int, total: int) -> None:
            nonlocal shown, last
            tenth = done * 10 // max(total, 1)
            if tenth > shown and perf_counter() - last >= QUIET:
                shown, last = tenth, perf_counter()
                say(f"{title}: {done:,} of {total:,} {unit}, {perf_counter() - begin:.0f} s")

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, visible=False, rate="")

        def report(done: int, total: int) -> None:
            rate = f"{done / max(perf_counter() - begin, 1e-9):,.0f} {unit}/s"
            progress.update(task, completed=done, total=total, visible=True, rate=rate)

        yield report
