"""What is asked of a training verb, checked before torch is imported: recipe, component names, paths of photos, OUT.

Importing torch, timm and kornia takes seconds. Every verb of this room begins with these checks, so that a typo costs a
moment; types, shapes and weights are checked afterwards by `single.members`, still before any photo is read.
"""

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from threefold import progress
from threefold.components import check_names
from threefold.data.options import parse_ages, parse_cuts
from threefold.data.sources import split_sources
from threefold.data.tables import existing
from threefold.errors import RecipeError, RunError
from threefold.recipe import Recipe, differences, load_recipe, make_recipe
from threefold.runs import Run


def origin(commit: str) -> dict[str, str]:
    """What a stamp says of where a run comes from: version, commit, time and command line."""
    return {
        "version": importlib.metadata.version("threefold"),
        "commit": commit,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["threefold", *sys.argv[1:]]),
    }


def open_recipe(recipe: Path | str | Recipe, overrides: Iterable[str]) -> Recipe:
    """A recipe (a file, the name of one that comes with the package, or an object) with `key=value` overrides."""
    return make_recipe(recipe.flat(), overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)


def complete_recipe(recipe: Path | str | Recipe, data: str, overrides: Iterable[str]) -> Recipe:
    """The same with `data`, where it is not empty, as its photos; RecipeError for an unknown name, or no photos."""
    result = open_recipe(recipe, overrides)
    if data:
        result = make_recipe(result.flat() | {"data.source": data})
    check_recipe(result)
    if not result.data.source:
        raise RecipeError("data.source: no photos are named; give --data PATH (or layout:PATH,...) or data.source=...")
    return result


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe whose components, options or years cannot be; no torch, no file. Raises RecipeError."""
    check_names(recipe)
    parse_cuts(recipe.data.train_cuts)
    parse_ages(recipe.data.drop_ages)


def need_files(recipe: Recipe) -> None:
    """Raise DataError where a key of `data` names photos or a table that are not there; no photo is read."""
    for source in (recipe.data.source, recipe.data.extra):
        if source:
            split_sources(source)
    tables = [recipe.data.patches] if recipe.data.patches else []
    if recipe.data.folds.strip().lower().endswith(".csv"):
        tables.append(recipe.data.folds.strip())
    for table in tables:
        existing(Path(table))


def need_scored(recipe: Recipe, seeds: int) -> None:
    """RecipeError unless there is a training, and folds that hold somebody back to score by."""
    if seeds < 1:
        raise RecipeError(f"seeds: {seeds} is too few; expected 1 or more")
    if recipe.data.folds == "all":
        raise RecipeError("data.folds: 'all' holds nobody back, so nothing can be compared; expected folds, as in 5")


def finished_run(out: Path, recipe: Recipe, resume: bool) -> Run | None:
    """The run at `out` if it is to be resumed and is complete; None where there is work to do.

    RunError where `out` is not free, or holds a run of another recipe.
    """
    if not (resume and out.exists()):
        Run.need_free(out)
        return None
    run = Run.open(out)
    for key, stored, asked in differences(run.recipe, recipe):
        raise RunError(f"{out}: --resume with {key}={asked!r}, but the run was started with {stored!r}")
    if run.state != "complete":
        return None
    progress.say(f"{out}: is complete already")
    return run


def need_folder(out: Path, first: str, resume: bool) -> None:
    """RunError unless the folder `out` is free or, to resume, was begun: with `first` in it."""
    if (out / "stamp.json").exists():
        raise RunError(f"{out}: is a run itself; expected a new folder for several runs; choose another --out")
    if not (out / first).is_dir():
        Run.need_free(out)
    elif not resume:
        raise RunError(f"{out}: is already there and nothing is overwritten; choose another --out; --resume goes on")


def need_same(home: Path, seeds: int) -> None:
    """RunError where `home` holds one training and `seeds` asks for several, or the other way round."""
    one, several = (home / "stamp.json").exists(), (home / "seed0").is_dir()
    if (one and seeds > 1) or (several and seeds == 1):
        content = "one training" if one else "trainings under several seeds"
        reason = f"holds {content}, which --resume with --seeds {seeds} cannot go on with"
        raise RunError(f"{home}: {reason}; choose another --out")
