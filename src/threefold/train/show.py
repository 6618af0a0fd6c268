"""`threefold show RECIPE --data DATA`: one picture of what the network really sees, and what it is taught about it.

By how much every step changes a pixel on average (0..1) stands in the picture and in the result, so that an
augmentation that does nothing, in training a fault nobody notices, reads 0.000 and is warned of. `sheet.py` draws it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threefold.files import need_writable
from threefold.recipe import Recipe
from threefold.results import Result
from threefold.train.request import complete_recipe, need_photos

if TYPE_CHECKING:
    from threefold.train.sheet import Change


@dataclass(frozen=True)
class ShowResult(Result):
    """A contact sheet, the PNG at `path`, and what the recipe's steps change."""

    path: Path
    changes: list[Change]

    def lines(self) -> list[str]:
        """Where the picture is, then a line a step."""
        return [f"contact sheet: {self.path}", *(change.line() for change in self.changes)]

    def data(self) -> dict[str, Any]:
        """{"path", "changes": [{key, step, size}]}."""
        return {"path": self.path, "changes": [asdict(change) for change in self.changes]}


def show(
    recipe: Path | str | Recipe,
    *,
    data: str = "",
    out: Path | str = "show.png",
    top: int = 8,
    seed: int = 0,
    overrides: Iterable[str] = (),
) -> ShowResult:
    """Write the contact sheet of `top` photos, chosen evenly over the classes, as a PNG.

    `seed` chooses the photos. Of separate networks, the first (mask) is shown. Raises RecipeError, DataError.
    """
    path, whole = Path(out), complete_recipe(recipe, data, overrides)
    need_writable(path)
    need_photos(whole)
    # late: importing torch takes seconds
    from threefold.train.sheet import write_sheet

    return ShowResult(path, write_sheet(whole, path, top, seed))
