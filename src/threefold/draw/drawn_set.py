"""What `sample`, `synth` and `dress` share: the Result, and how numbers out of range are refused."""

from dataclasses import dataclass
from pathlib import Path

from threefold.errors import DataError
from threefold.results import Result


@dataclass(frozen=True)
class DrawnSet(Result):
    """A folder of drawn photos.

    out: where it is. people: half of the set (`train`, `eval`; `all` where there are no halves) -> people in it.
    remarks: what happened to some portraits or people -> how many.
    """

    out: Path
    people: dict[str, int]
    photos: int
    remarks: dict[str, int]

    def lines(self) -> list[str]:
        """Where, and how many of what."""
        people = ", ".join(f"{count:,} people in {half}" for half, count in self.people.items())
        return [
            f"{self.out}: {people}, {self.photos:,} photos",
            *(f"{count:,} {remark}" for remark, count in self.remarks.items()),
        ]


def need_number(name: str, number: int, least: int, most: int | None = None) -> None:
    """Raise DataError for a number under `least` or over `most`."""
    if number < least or (most is not None and number > most):
        limits = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
        raise DataError(f"{name} {number:,}: expected {limits}")
