"""One recipe trained under several seeds, each an ordinary run, and which part of its score is luck of the seed.

`seed` counts up from the recipe's; data.seed and with it the folds stay, so that nothing but chance differs. All runs
read the same prepared photos from the cache. `train --seeds` and `ablate` share it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threefold import progress
from threefold.evidence.seeds import Spread, spread
from threefold.files import write_json
from threefold.recipe import Recipe, make_recipe
from threefold.results import Result
from threefold.runs import Run
from threefold.train.single import members, train_run

NOTE = "seeds.json"


@dataclass(frozen=True)
class SeedsResult(Result):
    """Trainings of one recipe in the folder `path`, and the noise of seeds and of persons in their scores."""

    path: Path
    runs: list[Run]
    spread: Spread

    def lines(self) -> list[str]:
        """Each seed's score and the two noises; the mean with its three intervals; where the runs are."""
        spread = self.spread
        scores = ", ".join(f"{score:.3f}" for score in spread.scores)
        noise = "unknown" if spread.seed_sd is None else f"SD {spread.seed_sd:.3f}"
        intervals = (spread.persons, spread.recipe, spread.training)
        persons, recipe, training = (f"{number['low']:.3f} to {number['high']:.3f}" for number in intervals)
        return [
            f"seeds: {scores}; seed noise {noise}, person noise SD {spread.person_sd:.3f}.",
            f"mean {spread.metric} {spread.persons['value']:.3f}; 95 % interval for other people {persons}, for other "
            f"people and seeds {recipe}, of one more training {training}.",
            f"runs: {self.path}",
        ]

    def data(self) -> dict[str, Any]:
        """What seeds.json holds, and the path of the folder."""
        return {"path": self.path, "seeds": [run.recipe.seed for run in self.runs], **asdict(self.spread)}


def train_seeds(recipe: Recipe, out: Path, seeds: int, resume: bool) -> SeedsResult:
    """Train a checked recipe under `seeds` seeds into OUT/seed0, OUT/seed1, ...; write seeds.json last."""
    members(recipe)
    runs = repeat(recipe, out, seeds, resume)
    result = SeedsResult(out, runs, spread([run.predictions() for run in runs]))
    write_json(out / NOTE, {key: value for key, value in result.data().items() if key != "path"})
    return result


def repeat(recipe: Recipe, out: Path, seeds: int, resume: bool, baseline: str = "") -> list[Run]:
    """Train into OUT/seed0, OUT/seed1, ..., a single training into OUT itself. Raises what training raises.

    Finished runs are returned as they are when `resume`d. baseline: folder, seen from `out`, whose run of the same seed
    is each run's baseline; empty: the recipe's own.
    """
    runs = []
    for number in range(seeds):
        home = out / f"seed{number}" if seeds > 1 else out
        changes: dict[str, Any] = {"seed": recipe.seed + number}
        if baseline:
            changes["baseline"] = f"../{baseline}/{home.name}" if seeds > 1 else baseline
        if seeds > 1:
            progress.say(f"{out}: seed {changes['seed']}, {number + 1} of {seeds}")
        runs.append(train_run(make_recipe(recipe.flat() | changes), home, resume))
    return runs
