"""What an operator sees of a watch in the terminal: counts, the last events and how it keeps up.

On a terminal a small table that stays in place; elsewhere one line per event on stdout, and now and then one about the
state on stderr, for a log. Quiet: faults only.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from threefold.watch.view import State, View

EVERY = 10.0
"""Seconds between two lines about the state."""
ROWS = 8
"""Events on the terminal's table."""
STYLES = {"worn": "green", "incorrect": "yellow", "none": "red", "indeterminate": "bright_black"}


def event_line(row: Mapping[str, Any]) -> str:
    """`10:32:07  #12  mask worn 0.97  female  30-59  (changed)`."""
    parts = [f"{row['time'][11:19]}  #{row['track']}  mask {row['mask']} {row['confidence']:.2f}"]
    parts += [str(row[name]) for name in ("gender", "age_group") if row.get(name) is not None]
    if row["kind"] == "changed":
        parts.append("(changed)")
    return "  ".join(parts)


def counts_line(state: State) -> str:
    """`worn 2, incorrect 0, none 1, indeterminate 0`."""
    return ", ".join(f"{name} {count:,}" for name, count in state.counts.items())


def speed_line(state: State) -> str:
    """`2 in view | 12.3 frames/s, 41 ms, no frame dropped`."""
    keeping = f"{state.dropped:,} frames dropped to keep up" if state.dropped else "no frame dropped"
    return f"{state.faces} in view | {state.fps:.1f} frames/s, {state.late:.0f} ms, {keeping}"


class Quiet(View):
    """Faults only, on stderr."""

    def fault(self, text: str) -> None:
        """See `View`."""
        print(text, file=sys.stderr, flush=True)


class Lines(Quiet):
    """For a log: events on stdout, the state on stderr every EVERY seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._last = clock, clock()

    def note(self, text: str) -> None:
        """See `View`."""
        print(text, file=sys.stderr, flush=True)

    def event(self, row: Mapping[str, Any]) -> None:
        """See `View`."""
        print(event_line(row), flush=True)

    def state(self, state: State) -> None:
        """See `View`."""
        if self._clock() - self._last >= EVERY:
            self._last = self._clock()
            self.note(f"{counts_line(state)} | {speed_line(state)}")


class Terminal(View):
    """A table that stays in place, drawn four times a second at most."""

    def __init__(self, console: Console) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=ROWS)
        self._state: State | None = None
        self._screen = Live(console=console, get_renderable=self.picture, refresh_per_second=4, transient=True)
        self._screen.start()

    def fault(self, text: str) -> None:
        """See `View`."""
        self._screen.console.print(Text(text, style="bold"))

    def note(self, text: str) -> None:
        """See `View`."""
        self.fault(text)

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
        below = speed_line(self._state) if self._state else "waiting for the first frame"
        return Group(top, *events, Text(f"{below}; Ctrl-C ends", style="dim"))


def make_view(quiet: bool) -> View:
    """The terminal's table, lines for a log, or quiet."""
    if quiet:
        return Quiet()
    console = Console(file=sys.stdout)
    return Terminal(console) if console.is_terminal else Lines()
