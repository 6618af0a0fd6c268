"""One recipe trained under several seeds, each an ordinary run: what `train --seeds` and `ablate` share.

`seed` counts up from the recipe's; data.seed and with it the folds stay, so that nothing but chance differs. All runs
read the same prepared photos from the cache.
"""

from __future__ import annotations

from pathlib import Path

from threefold import progress
from threefold.errors import RecipeError, RunError
from threefold.recipe import Recipe, make_recipe
from threefold.runs import Run
from threefold.train.train import train


def need_scored(recipe: Recipe, seeds: int, least: int = 1) -> None:
    """RecipeError unless there are `least` seeds, and folds that hold somebody back to score by."""
    if seeds < least:
        raise RecipeError(f"seeds: {seeds} is too few; expected {least} or more")
    if recipe.data.folds == "all":
        raise RecipeError("data.folds: 'all' holds nobody back, so nothing can be compared; expected folds, as in 5")


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
        has = "one training" if one else "trainings under several seeds"
        raise RunError(
            f"{home}: holds {has}, which --resume with --seeds {seeds} cannot go on with; choose another --out"
        )


def homes(out: Path, seeds: int) -> list[Path]:
    """Where the runs of `seeds` trainings lie: OUT/seed0, OUT/seed1, ...; of one training OUT itself."""
    return [out / f"seed{number}" for number in range(seeds)] if seeds > 1 else [out]


def repeat(recipe: Recipe, out: Path, seeds: int, resume: bool, baseline: str = "") -> list[Run]:
    """Train into `homes`; finished runs are returned as they are when `resume`d. Raises what `train` raises.

    baseline: folder, seen from `out`, whose run of the same seed is each run's baseline; empty: the recipe's own.
    """
    runs = []
    for number, home in enumerate(homes(out, seeds)):
        own: dict[str, object] = {"seed": recipe.seed + number}
        if baseline:
            own["baseline"] = f"../{baseline}/{home.name}" if seeds > 1 else baseline
        if seeds > 1:
            progress.say(f"{out}: seed {own['seed']}, {number + 1} of {seeds}")
        runs.append(train(make_recipe(recipe.flat() | own), out=home, resume=resume))
    return runs
