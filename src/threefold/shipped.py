"""`threefold recipes`: the recipes that come with the package, listed or copied to a folder of one's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefold.errors import RecipeError
from threefold.files import write_text
from threefold.recipe import find_recipe, load_recipe, shipped_recipes
from threefold.results import Result, table_lines


@dataclass(frozen=True)
class RecipesResult(Result):
    """hypotheses: what each recipe is for, by name. copied: where one was copied to."""

    hypotheses: dict[str, str]
    copied: Path | None = None

    def lines(self) -> list[str]:
        """Names and hypotheses, and how to use one."""
        if self.copied:
            return [f"recipe: {self.copied}"]
        how = "`threefold train NAME --data DATA` trains with one; `threefold recipes NAME --out FILE` copies it"
        return [*table_lines(("recipe", "hypothesis"), self.hypotheses.items()), how]

    def data(self) -> dict[str, Any]:
        """{"recipes": {name: hypothesis}, "copied": path or None}."""
        return {"recipes": self.hypotheses, "copied": self.copied}


def recipes(name: str = "", *, out: Path | str | None = None) -> RecipesResult:
    """List the recipes of the package, or those whose name begins with `name`; with `out` copy the one called `name`.

    Raises RecipeError for a name that is none, and where `out` is there already.
    """
    if out is not None:
        source, target = find_recipe(name), Path(out)
        if target.exists():
            raise RecipeError(f"{target}: is already there and nothing is overwritten; choose another --out")
        write_text(target, source.read_text(encoding="utf-8"))
        return RecipesResult({name: load_recipe(source).hypothesis}, target)
    chosen = {key: path for key, path in shipped_recipes().items() if key.startswith(name)}
    if not chosen:
        find_recipe(name)  # refuses it with the nearest name
    return RecipesResult({key: load_recipe(path).hypothesis for key, path in chosen.items()})
