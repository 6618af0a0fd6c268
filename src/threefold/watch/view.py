"""Where a watch is shown while it runs: nowhere, unless somebody hands a View in, as the command line does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


class View:
    """A view that shows nothing; others override what they show."""

    def fault(self, text: str) -> None:
        """One line about something that went wrong, or is well again."""

    def note(self, text: str) -> None:
        """One line about something that is as it should be."""

    def event(self, row: Mapping[str, Any]) -> None:
        """A row of the events."""

    def state(self, state: State) -> None:
        """After every frame."""

    def close(self) -> None:
        """It is over."""
