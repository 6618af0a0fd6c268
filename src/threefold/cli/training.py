"""What trains networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Csv, Data, Html, Json, Lang, Overrides, Resume, Seed, Vote, app, need, tell

RecipeName = Annotated[str, typer.Argument(help="recipe file, or the name of one that comes with the package")]


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/run"),
    resume: Resume = False,
    seeds: Annotated[int, typer.Option(min=1, help="so many trainings, into OUT/seed0, OUT/seed1, ...")] = 1,
    json: Json = False,
) -> None:
    """Train every fold of a recipe; write networks, out-of-fold predictions and the score."""
    need("torch", "train")
    from threefold.train.train import train as run

    tell(run(recipe, data=data, out=out, overrides=overrides or [], resume=resume, seeds=seeds), json=json)


@app.command()
def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="PNG to write")] = Path("show.png"),
    top: Annotated[int, typer.Option(min=1, help="photos to show")] = 8,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """A contact sheet of what the network really sees: prepared, augmented, mixed, with the targets in words."""
    need("torch", "train")
    from threefold.train.show import show as run

    tell(run(recipe, data=data, out=out, top=top, seed=seed, overrides=overrides or []), json=json)


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos")],
    out: Annotated[Path, typer.Option(help="run directory to make")],
    weights: Annotated[str, typer.Option(help="0.2,0.4,0.4 or fit (empty: all alike)")] = "",
    vote: Annotated[Vote, typer.Option(help="soft: mean of probabilities; hard: votes")] = "soft",
    members: Annotated[int | None, typer.Option(min=2, help="choose this many of the runs, for diversity")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Join runs by their out-of-fold predictions into one run that predicts and is reported on like any other."""
    from threefold.train.join import ensemble as run

    tell(run(runs, out=out, weights=weights or None, vote=vote, members=members, seed=seed), json=json)


@app.command()
def pseudo(
    run: Annotated[Path, typer.Argument(help="complete run whose networks label")],
    inputs: Annotated[Path, typer.Argument(help="folder of photos without labels")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="run directory to make")] = Path("runs/pseudo"),
    confidence: Annotated[float, typer.Option(min=0, max=1, help="least probability of a label that is taken")] = 0.95,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many photos of each class, surest first")] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a run's recipe again with confidently labelled photos in the training half of every fold."""
    need("torch", "train")
    from threefold.train.pseudo import pseudo as work

    texts = overrides or []
    result = work(run, inputs, out=out, confidence=confidence, limit=limit, resume=resume, overrides=texts)
    tell(result, json=json)


@app.command()
def search(
    recipe: RecipeName,
    space: Annotated[Path, typer.Argument(help="YAML: recipe keys and what to try")],
    overrides: Overrides = None,
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the trials' runs")] = Path("runs/search"),
    trials: Annotated[int, typer.Option(min=1, help="trials in all; more go on with the same study")] = 20,
    storage: Annotated[str, typer.Option(help="database URL for several machines (default: OUT/study.db)")] = "",
    seed: Seed = 0,
    json: Json = False,
    csv: Csv = None,
    html: Html = None,
    lang: Lang = "en",
) -> None:
    """Search recipe values with Optuna; every trial is an ordinary run. The page is OUT/search.html."""
    need("torch", "train")
    from threefold.train.search import search as run

    texts = overrides or []
    result = run(recipe, space, data=data, out=out, trials=trials, storage=storage, seed=seed, overrides=texts)
    tell(result, json=json, csv=csv, html=html or out / "search.html", lang=lang)


@app.command()
def ablate(
    recipe: RecipeName,
    changes: Annotated[list[str], typer.Argument(help="key=value, one change each")],
    data: Data = "",
    out: Annotated[Path, typer.Option(help="folder of the runs, one per change")] = Path("runs/ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each, under so many seeds")] = 1,
    base: Annotated[list[str] | None, typer.Option("--set", help="key=value for all, the baseline included")] = None,
    resume: Resume = False,
    json: Json = False,
    csv: Csv = None,
    html: Html = None,
    lang: Lang = "en",
) -> None:
    """Train a recipe and single changes to it on the same folds; differences and verdicts. Page: OUT/ablation.html."""
    need("torch", "train")
    from threefold.train.ablate import ablate as run

    result = run(recipe, changes, data=data, out=out, seeds=seeds, base=base or [], resume=resume)
    tell(result, json=json, csv=csv, html=html or out / "ablation.html", lang=lang)
