"""What trains networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Data, Lang, Overrides, Resume, Seed, Vote, app, need, tell


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="recipe file")],
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/run"),
    resume: Resume = False,
    seeds: Annotated[int, typer.Option(min=1, help="so many trainings, into OUT/seed0, OUT/seed1, ...")] = 1,
) -> None:
    """Train every fold of a recipe; write networks, out-of-fold predictions and the score."""
    need("torch", "train")
    if seeds > 1:
        from threefold.train.several import train_seeds

        several = train_seeds(recipe, data=data, out=out, seeds=seeds, overrides=overrides or [], resume=resume)
        typer.echo(f"{several.words}\nruns: {several.path}")
        return
    from threefold.train.train import train as run

    tell(run(recipe, data=data, out=out, overrides=overrides or [], resume=resume))


@app.command()
def show(
    recipe: Annotated[Path, typer.Argument(help="recipe file")],
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="PNG to write")] = Path("show.png"),
    photos: Annotated[int, typer.Option(min=1, help="photos to show")] = 8,
    seed: Seed = 0,
) -> None:
    """A contact sheet of what the network really sees: prepared, augmented, mixed, with the targets in words."""
    need("torch", "train")
    from threefold.train.show import show as run

    typer.echo(f"contact sheet: {run(recipe, data=data, out=out, photos=photos, seed=seed, overrides=overrides or [])}")


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos")],
    out: Annotated[Path, typer.Option(help="run directory to make")],
    weights: Annotated[str, typer.Option(help="0.2,0.4,0.4 or fit (empty: all alike)")] = "",
    vote: Annotated[Vote, typer.Option(help="soft: mean of probabilities; hard: votes")] = "soft",
    members: Annotated[int | None, typer.Option(min=2, help="choose this many of the runs, for diversity")] = None,
    seed: Seed = 0,
) -> None:
    """Join runs by their out-of-fold predictions into a run of its own that predicts and is reported on."""
    from threefold.train.join import ensemble as run

    tell(run(runs, out=out, weights=weights or None, vote=vote, members=members, seed=seed))


@app.command()
def pseudo(
    run: Annotated[Path, typer.Argument(help="complete run whose networks label")],
    photos: Annotated[Path, typer.Argument(help="folder of photos without labels")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/pseudo"),
    confidence: Annotated[float, typer.Option(min=0, max=1, help="least probability of a label that is taken")] = 0.95,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many photos of each class, surest first")] = None,
    resume: Resume = False,
) -> None:
    """Train a run's recipe again with confidently labelled photos in the training half of every fold."""
    need("torch", "train")
    from threefold.train.pseudo import pseudo as work

    tell(work(run, photos, out=out, confidence=confidence, limit=limit, resume=resume, overrides=overrides or []))


@app.command()
def search(
    recipe: Annotated[Path, typer.Argument(help="recipe file")],
    space: Annotated[Path, typer.Argument(help="YAML: recipe keys and what to try")],
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the trials' runs")] = Path("runs/search"),
    trials: Annotated[int, typer.Option(min=1, help="trials in all; more go on with the same study")] = 20,
    storage: Annotated[str, typer.Option(help="database URL for several machines (default: OUT/study.db)")] = "",
    seed: Seed = 0,
    lang: Lang = "en",
) -> None:
    """Search recipe values with Optuna: TPE, pruning by fold, every trial an ordinary run."""
    need("torch", "train")
    from threefold.train.search import search as run

    words = overrides or []
    run(recipe, space, data=data, out=out, trials=trials, storage=storage, seed=seed, overrides=words, lang=lang)


@app.command()
def ablate(
    recipe: Annotated[Path, typer.Argument(help="recipe file")],
    changes: Annotated[list[str], typer.Argument(help="key=value, each a change of its own")],
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the runs, one per change")] = Path("runs/ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each, under so many seeds")] = 1,
    base: Annotated[list[str] | None, typer.Option("--set", help="key=value for all, the baseline included")] = None,
    resume: Resume = False,
    lang: Lang = "en",
) -> None:
    """Train a recipe and single changes to it on the same folds; one table of differences with verdicts."""
    need("torch", "train")
    from threefold.train.ablate import ablate as run

    run(recipe, changes, data=data, out=out, seeds=seeds, base=base or [], resume=resume, lang=lang)
