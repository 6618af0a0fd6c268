"""What trains networks."""

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Data, Overrides, Resume, Seed, Vote, verb

RecipeName = Annotated[str, typer.Argument(help="recipe file, or the name of one that comes with the package")]


@verb("threefold.train.train", needs=["torch"])
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/run"),
    resume: Resume = False,
    seeds: Annotated[int, typer.Option(min=1, help="so many trainings, into OUT/seed0, OUT/seed1, ...")] = 1,
) -> None:
    """Train every fold of a recipe; write networks, out-of-fold predictions and the score."""


@verb("threefold.train.show", needs=["torch"])
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="PNG to write")] = Path("show.png"),
    top: Annotated[int, typer.Option(min=1, help="photos to show")] = 8,
    seed: Seed = 0,
) -> None:
    """A contact sheet of what the network really sees: prepared, augmented, mixed, with the targets in words."""


@verb("threefold.train.join")
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos")],
    out: Annotated[Path, typer.Option(help="run directory to make")],
    weights: Annotated[str | None, typer.Option(help="0.2,0.4,0.4 or fit (default: all alike)")] = None,
    vote: Annotated[Vote, typer.Option(help="soft: mean of probabilities; hard: votes")] = "soft",
    members: Annotated[int | None, typer.Option(min=2, help="choose this many of the runs, for diversity")] = None,
    seed: Seed = 0,
) -> None:
    """Join runs by their out-of-fold predictions into one run that predicts and is reported on like any other."""


@verb("threefold.train.pseudo", needs=["torch"])
def pseudo(
    run: Annotated[Path, typer.Argument(help="complete run whose networks label")],
    inputs: Annotated[Path, typer.Argument(help="folder of photos without labels")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/pseudo"),
    confidence: Annotated[float, typer.Option(min=0, max=1, help="least probability of a label that is taken")] = 0.95,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many photos of each class, surest first")] = None,
    resume: Resume = False,
) -> None:
    """Train a run's recipe again with confidently labelled photos in the training half of every fold."""


@verb("threefold.train.search", needs=["torch"], table=True, page=lambda options: options["out"] / "search.html")
def search(
    recipe: RecipeName,
    space: Annotated[Path, typer.Argument(help="YAML: recipe keys and what to try")],
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the trials' runs")] = Path("runs/search"),
    trials: Annotated[int, typer.Option(min=1, help="trials in all; more go on with the same study")] = 20,
    storage: Annotated[str, typer.Option(help="database URL for several machines (default: OUT/study.db)")] = "",
    seed: Seed = 0,
) -> None:
    """Search recipe values with Optuna; every trial is an ordinary run. The page is OUT/search.html."""


@verb("threefold.train.ablate", needs=["torch"], table=True, page=lambda options: options["out"] / "ablation.html")
def ablate(
    recipe: RecipeName,
    changes: Annotated[list[str], typer.Argument(help="key=value, one change each")],
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the runs, one per change")] = Path("runs/ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each, under so many seeds")] = 1,
    base: Annotated[list[str] | None, typer.Option("--set", help="key=value for all, the baseline included")] = None,
    resume: Resume = False,
) -> None:
    """Train a recipe and single changes to it on the same folds; differences and verdicts. Page: OUT/ablation.html."""
