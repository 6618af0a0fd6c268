"""What a recipe may name, readable without torch: every component with its options; and the recipes of the package.

`components.json` is generated from the tables, signatures and docstrings (tools/reference.py); a test says when it is
stale. From it come `threefold list` and `threefold describe`, docs/components.md, and the first look at a recipe: a
misspelt name is refused before five seconds of importing torch. Types and shapes are checked later, by `make_plan`.
"""

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from threefold import spec
from threefold.errors import RecipeError, one_of
from threefold.files import write_text
from threefold.recipe import PARTS, Recipe, find_recipe, load_recipe, shipped_recipes
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

    usage: str
    description: str
    options: tuple[Option, ...]
    open: bool


@dataclass(frozen=True)
class Table:
    """A kind of component. key: the recipe key that names it. closed: no other name than these is known."""

    key: str
    description: str
    closed: bool
    components: dict[str, Component]


@cache
def tables() -> dict[str, Table]:
    """Every table by its name (`losses`, `heads`, ...), as they were when the file was generated."""
    return TypeAdapter(dict[str, Table]).validate_json(FILE.read_bytes())


def check_names(recipe: Recipe) -> None:
    """Refuse a component or an option that no table knows, without importing any of them.

    A dotted name is somebody's own component, which only training imports. Raises RecipeError naming key and nearest.
    """
    values = recipe.flat()
    for key in {table.key for table in tables().values() if table.closed}:
        # a head may be a classical one: all tables of a key count
        rows = {name: row for table in tables().values() if table.key == key for name, row in table.components.items()}
        for name in [name for name in values if name.startswith("loss.")] if key == "loss.NAME" else [key]:
            if values[name]:
                _check_value(str(values[name]), name, rows)
    for part in PARTS if recipe.parts else ():
        check_names(recipe.part(part))


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
    """All tables by name, or (whole) what one holds."""

    tables: dict[str, Table]
    whole: bool = False

    def lines(self) -> list[str]:
        """One line a table, or one a component."""
        if not self.whole:
            overview = [(name, row.key, len(row.components), row.description) for name, row in self.tables.items()]
            lines = table_lines(("table", "recipe key", "rows", "what it is"), overview)
            return [*lines, "`threefold list TABLE` lists one"]
        ((name, table),) = self.tables.items()
        rows = [(row.usage, row.description.split("\n")[0]) for row in table.components.values()]
        return [f"{name}: {table.description} ({table.key})", *table_lines(("component", "what"), rows)[1:]]

    def data(self) -> dict[str, Any]:
        """{table: {key, description, closed, components: {name: {usage, description, options, open}}}}."""
        return {name: asdict(table) for name, table in self.tables.items()}


def list_components(table: str = "") -> ComponentsResult:
    """All tables of components, or what one holds; RecipeError for a table that is none."""
    if table and table not in tables():
        raise RecipeError(f"table {table!r} is not known ({one_of(tables(), table)})")
    return ComponentsResult({table: tables()[table]}, whole=True) if table else ComponentsResult(tables())


@dataclass(frozen=True)
class Description(ComponentsResult):
    """A component in full, by the name of each table that has one of its name."""

    name: str = ""

    def lines(self) -> list[str]:
        """Usage, docstring and options, table by table."""
        lines: list[str] = []
        for table in self.tables.values():
            component = table.components[self.name]
            lines += [f"{table.key}: {component.usage}", "", *component.description.split("\n")]
            rows = [(option.name, option.type, option.default or "must be set") for option in component.options]
            lines += [*table_lines(("option", "type", "default"), rows), ""]
        return lines[:-1]


def describe(name: str) -> Description:
    """One component in full; RecipeError with the nearest name where no table has it."""
    holding = {
        key: replace(table, components={name: table.components[name]})
        for key, table in tables().items()
        if name in table.components
    }
    if not holding:
        names = {component for table in tables().values() for component in table.components}
        raise RecipeError(f"component {name!r} is not known ({one_of(names, name)})")
    return Description(holding, name=name)


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
