"""`threefold train`: labelled photos in; folds, networks, out-of-fold predictions and an honest score out.

One training is `single.py`, several under as many seeds are `repeat.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from threefold.recipe import Recipe
from threefold.runs import Run
from threefold.train.request import complete_recipe, finished_run, need_folder, need_photos, need_scored

if TYPE_CHECKING:
    from threefold.train.repeat import SeedsResult


def train(
    recipe: Path | str | Recipe,
    *,
    data: str = "",
    out: Path | str,
    overrides: Iterable[str] = (),
    resume: bool = False,
    seeds: int = 1,
    on_fold: Callable[[int, float], None] | None = None,
) -> Run | SeedsResult:
    """Train every fold of a recipe (a file, a name or an object) on `data` and write the run directory `out`.

    `overrides` are `key=value` strings. With `seeds` above 1 that many trainings, under the recipe's seed and those
    after it, go into OUT/seed0, OUT/seed1, ..., and the result is a SeedsResult. `resume` goes on with an unfinished
    run of the same recipe and data, to the bit-identical end on the same machine; a finished one is returned as it is,
    and a larger `seeds` adds to what is there. `on_fold`, of one training alone, is called after each fold with how
    many are done and the macro F1 over them; what it raises stops the run. Raises RecipeError, DataError or RunError
    before anything is written, TrainingError on a loss that is not finite.
    """
    home, whole = Path(out), complete_recipe(recipe, data, overrides)
    if seeds == 1:
        if run := finished_run(home, whole, resume):
            return run
    else:
        need_scored(whole, seeds)
        need_folder(home, "seed0", resume)
    need_photos(whole)
    # late: importing torch takes seconds
    from threefold.train.repeat import train_seeds
    from threefold.train.single import train_run

    if seeds == 1:
        return train_run(whole, home, resume, on_fold)
    return train_seeds(whole, home, seeds, resume)
