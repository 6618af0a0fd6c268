"""What an operator sees of a watch in the terminal: counts, the last events and how it keeps up.

On a terminal a small table that stays in place; elsewhere one line per event on stdout, and now and then one about the
state on stderr, for a log. Quiet: faults only.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from threefold.progress import say

EVERY = 10.0
"""Seconds between two lines about the state."""
ROWS = 8
"""Events on the terminal's table."""
STYLES = {"worn": "green", "incorrect": "yellow", "none": "red", "indeterminate": "bright_black"}


@dataclass(frozen=True)
class State:
    """How a watch is doing. frames: processed; dropped: lost because they came too fast; fps: processed per second of
    late; late: milliseconds from a frame's arrival until it was dealt with, the last one; faces: in view now; counts:
    people by mask.
    """

    frames: int
    dropped: int
    fps: float
    late: float
    faces: int
    counts: Mapping[str, int]

    @property
    def line(self) -> str:
        """All in one line."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        keeping = f"{self.dropped:,} frames dropped to keep up" if self.dropped else "no frame dropped"
        return f"{counts} | {self.faces} in view | {self.fps:.1f} frames/s, {self.late:.0f} ms, {keeping}"


class View(Protocol):
    """Where a watch is shown."""

    def say(self, text: str) -> None:
        """One line about something out of the ordinary."""

    def event(self, row: Mapping[str, Any]) -> None:
        """A row of the events."""

    def state(self, state: State) -> None:
        """After every frame."""

    def close(self) -> None:
        """It is over."""


def event_line(row: Mapping[str, Any]) -> str:
    """`10:32:07  #12  mask worn 0.97  female  30-59  (changed)`."""
    words = [str(row[name]) for name in ("gender", "age_group") if row.get(name) is not None]
    kind = ["(changed)"] if row["kind"] == "changed" else []
    head = f"{row['time'][11:19]}  #{row['track']}  mask {row['mask']} {row['confidence']:.2f}"
    return "  ".join([head, *words, *kind])


class Quiet:
    """Faults only."""

    def say(self, text: str) -> None:
        """See `View`."""
        say(text)

    def event(self, row: Mapping[str, Any]) -> None:
        """See `View`."""

    def state(self, state: State) -> None:
        """See `View`."""

    def close(self) -> None:
        """See `View`."""


class Lines(Quiet):
    """For a log: events on stdout, the state on stderr every EVERY seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._told = clock, clock()

    def event(self, row: Mapping[str, Any]) -> None:
        """See `View`."""
        print(event_line(row), flush=True)

    def state(self, state: State) -> None:
        """See `View`."""
        if self._clock() - self._told >= EVERY:
            self._told = self._clock()
            say(state.line)


class Terminal:
    """A table that stays in place, drawn four times a second at most."""

    def __init__(self, console: Console) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=ROWS)
        self._state: State | None = None
        self._screen = Screen(console=console, get_renderable=self.picture, refresh_per_second=4, transient=True)
        self._screen.start()

    def say(self, text: str) -> None:
        """See `View`."""
        self._screen.console.print(Text(text, style="bold"))

    def event(self, row: Mapping[str, Any]) -> None:
        """See `View`."""
        self._rows.appendleft(row)

    def state(self, state: State) -> None:
        """See `View`."""
        self._state = state

    def close(self) -> None:
        """See `View`."""
        self._screen.stop()

    def picture(self) -> Group:
        """Counts, events and state as they are now."""
        counts = self._state.counts if self._state else dict.fromkeys(STYLES, 0)
        top = Table.grid(padding=(0, 3))
        top.add_row(*(Text(f"{name} {count:,}", style=f"bold {STYLES[name]}") for name, count in counts.items()))
        events = [Text(event_line(row), style=STYLES[row["mask"]]) for row in self._rows]
        below = self._state.line.split(" | ", 1)[1] if self._state else "waiting for the first frame"
        return Group(top, *events, Text(f"{below}; Ctrl-C ends", style="dim"))


def make_view(quiet: bool) -> View:
    """The terminal's table, lines for a log, or quiet."""
    if quiet:
        return Quiet()
    console = Console(file=sys.stdout)
    return Terminal(console) if console.is_terminal else Lines()
