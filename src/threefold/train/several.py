"""`threefold train RECIPE --seeds K`: the same recipe K times, and which part of its score is luck of the seed.

OUT/seed0, OUT/seed1, ... are ordinary runs; OUT/seeds.json, written last, holds what evidence/seeds.py makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from threefold.evidence.seeds import Spread, spread
from threefold.files import write_json
from threefold.recipe import Recipe
from threefold.runs import Run
from threefold.train.gather import members, named_recipe
from threefold.train.repeat import need_folder, need_scored, repeat

NOTE = "seeds.json"


@dataclass(frozen=True)
class Seeds:
    """K trainings of one recipe in the folder `path`, and what they say; `words` are for people."""

    path: Path
    runs: list[Run]
    spread: Spread

    @property
    def words(self) -> str:
        """Two sentences: each seed's score and the two noises; the mean with its intervals."""
        found = self.spread
        scores = ", ".join(f"{score:.3f}" for score in found.scores)
        ends = {name: f"{n['low']:.3f} to {n['high']:.3f}" for name, n in asdict(found).items() if isinstance(n, dict)}
        noise = "unknown" if found.seed_sd is None else f"SD {found.seed_sd:.3f}"
        return (
            f"seeds: {scores}; seed noise {noise}, person noise SD {found.person_sd:.3f}.\n"
            f"mean {found.metric} {found.persons['value']:.3f}; 95 % interval for other people {ends['persons']}, for "
            f"other people and seeds {ends['recipe']}, of one more training {ends['training']}."
        )


def train_seeds(
    recipe: Path | str | Recipe, *, data: str = "", out: Path | str, seeds: int, overrides: Iterable[str] = (),
    resume: bool = False,
) -> Seeds:  # fmt: skip
    """Train a recipe under `seeds` >= 2 seeds, the recipe's own and those after it, into OUT/seed0, OUT/seed1, ...

    `resume` goes on where it stopped; a larger `seeds` adds to what is there. Raises RecipeError, DataError or RunError
    before anything is trained, TrainingError on a loss that is not finite.
    """
    out, chosen = Path(out), named_recipe(recipe, data, overrides)
    need_scored(chosen, seeds, least=2)
    need_folder(out, "seed0", resume)
    members(chosen)
    runs = repeat(chosen, out, seeds, resume)
    found = Seeds(out, runs, spread([run.predictions() for run in runs]))
    write_json(out / NOTE, {"seeds": [run.recipe.seed for run in runs], **asdict(found.spread)})
    return found
