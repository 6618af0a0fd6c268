"""What a recipe may name: every component with its options, readable without torch.

`components.json` is generated from the tables, signatures and docstrings (`train/catalogue.py`); a test says when it is
stale. From it come `threefold list` and `threefold describe`, docs/components.md, and the first look at a recipe: a
misspelt name is refused before five seconds of importing torch. Types and shapes are checked later, by `make_plan`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from threefold import spec
from threefold.errors import RecipeError, one_of
from threefold.recipe import PARTS, Recipe
from threefold.results import Result, table_lines

FILE = Path(__file__).with_name("components.json")


@dataclass(frozen=True)
class Option:
    """An option of a component: its type as Python writes it, and its default; None where it must be set."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Component:
    """A row of a table. usage: `focal(gamma=2.0)`. description: its docstring. open: takes options of any name."""

    name: str
    usage: str
    description: str
    options: tuple[Option, ...]
    open: bool


@dataclass(frozen=True)
class Table:
    """A kind of component. key: the recipe key that names it. closed: no other name than these is known."""

    name: str
    key: str
    description: str
    closed: bool
    components: dict[str, Component]


@cache
def tables() -> dict[str, Table]:
    """Every table by its name (`losses`, `heads`, ...), as they were when the file was generated."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Table(
            name,
            table["key"],
            table["description"],
            table["closed"],
            {
                row["name"]: Component(**row | {"options": tuple(Option(**option) for option in row["options"])})
                for row in table["components"]
            },
        )
        for name, table in stored.items()
    }


def check_names(recipe: Recipe) -> None:
    """Refuse a component or an option that no table knows, without importing any of them.

    A dotted name is somebody's own component, which only training imports. Raises RecipeError naming key and nearest.
    """
    values = recipe.flat()
    for table in tables().values():
        keys = [key for key in values if key == table.key or (table.key == "loss.NAME" and key.startswith("loss."))]
        for key in keys if table.closed else ():
            if values[key]:
                _check_value(str(values[key]), key, _known(key))
    if recipe.parts:
        for part in PARTS:
            check_names(recipe.part(part))


def _known(key: str) -> dict[str, Component]:
    """The components that a key takes: those of all its tables (a head may be a classical one)."""
    name = "loss.NAME" if key.startswith("loss.") else key
    return {row.name: row for table in tables().values() if table.key == name for row in table.components.values()}


def _check_value(value: str, key: str, components: dict[str, Component]) -> None:
    for call in spec.parse(value, key):
        if "." in call.name:
            continue
        if call.name not in components:
            raise RecipeError(f"{key}: {call.name!r} is not known ({one_of(components, call.name)})")
        component = components[call.name]
        names = [option.name for option in component.options]
        for option, _ in call.options:
            if option not in names and not component.open:
                raise RecipeError(f"{key}: {call.name} has no option {option!r} ({one_of(names, option)})")


@dataclass(frozen=True)
class ComponentsResult(Result):
    """Tables, or the components of one."""

    tables: tuple[Table, ...]
    whole: bool = False

    def lines(self) -> list[str]:
        """One line a table, or one a component."""
        if not self.whole:
            overview = [(table.name, table.key, len(table.components), table.description) for table in self.tables]
            lines = table_lines(("table", "recipe key", "rows", "what it is"), overview)
            return [*lines, "`threefold list TABLE` lists one"]
        lines = []
        for table in self.tables:
            rows = [(row.usage, row.description.split("\n")[0]) for row in table.components.values()]
            lines += [f"{table.name}: {table.description} ({table.key})", *table_lines(("component", "what"), rows)[1:]]
        return lines

    def data(self) -> dict[str, Any]:
        """{table: {key, description, components: {name: {usage, description, options}}}}."""
        return {table.name: _plain(table, list(table.components)) for table in self.tables}


def list_components(table: str = "") -> ComponentsResult:
    """All tables of components, or what one holds; RecipeError for a table that is none."""
    known = tables()
    if not table:
        return ComponentsResult(tuple(known.values()))
    if table not in known:
        raise RecipeError(f"table {table!r} is not known ({one_of(known, table)})")
    return ComponentsResult((known[table],), whole=True)


@dataclass(frozen=True)
class Description(Result):
    """A component in full, in every table that has one of its name."""

    name: str
    tables: tuple[Table, ...]

    def lines(self) -> list[str]:
        """Usage, docstring and options, table by table."""
        lines: list[str] = []
        for table in self.tables:
            component = table.components[self.name]
            lines += [*([""] if lines else []), f"{table.key}: {component.usage}", ""]
            lines += component.description.split("\n")
            rows = [(option.name, option.type, option.default or "must be set") for option in component.options]
            lines += table_lines(("option", "type", "default"), rows)
        return lines

    def data(self) -> dict[str, Any]:
        """{table: {key, description, components: {name: ...}}} of the tables that hold it."""
        return {table.name: _plain(table, [self.name]) for table in self.tables}


def describe(name: str) -> Description:
    """One component in full; RecipeError with the nearest name where no table has it."""
    holding = tuple(table for table in tables().values() if name in table.components)
    if not holding:
        names = {component for table in tables().values() for component in table.components}
        raise RecipeError(f"component {name!r} is not known ({one_of(names, name)})")
    return Description(name, holding)


def _plain(table: Table, names: list[str]) -> dict[str, Any]:
    rows = {}
    for name in names:
        component = table.components[name]
        options = [vars(option) for option in component.options]
        rows[name] = {"usage": component.usage, "description": component.description, "options": options}
    return {"key": table.key, "description": table.description, "components": rows}
