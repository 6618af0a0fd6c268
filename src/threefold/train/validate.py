"""`threefold validate RECIPE`: is it right? Names first, without torch; then every component is built on a toy."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threefold.recipe import PARTS, Recipe, differences, load_recipe
from threefold.results import Result
from threefold.train.request import check_recipe


@dataclass(frozen=True)
class Validated(Result):
    """A recipe without a fault. built: whether its components were made as well, which takes torch."""

    name: str
    recipe: Recipe
    built: bool

    def lines(self) -> list[str]:
        """That it is valid, and what it sets."""
        settings = [f"  {key}: {value}" for key, _, value in differences(Recipe(), self.recipe)]
        unbuilt = "! torch is not installed: names and options were checked, whether the parts fit each other was not"
        return [f"{self.name}: valid; it differs from the defaults in", *settings, *([] if self.built else [unbuilt])]

    def data(self) -> dict[str, Any]:
        """{"recipe": every key, "built": ...}."""
        return {"recipe": self.recipe.flat(), "built": self.built}


def validate(recipe: Path | str, overrides: Sequence[str] = ()) -> Validated:
    """Check a recipe (file or name) with `key=value` overrides; no photo is read and nothing is trained.

    Raises RecipeError naming key, value, what was expected and the nearest name; RunError for a teacher's run that is
    not here.
    """
    loaded = load_recipe(recipe, overrides)
    check_recipe(loaded)
    built = find_spec("torch") is not None
    if built:
        from threefold.learn.plan import make_plan

        for part in [loaded.part(name) for name in PARTS] if loaded.parts else [loaded]:
            make_plan(part)
    return Validated(str(recipe), loaded, built)
