"""What can be claimed about runs."""

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Draws, On, Options, Photos, Rule, Seed, verb


def _place_page(options: Options, how: Options) -> None:
    """The page of the log links to the reports of its runs from where it lies."""
    if how["html"]:
        options["page_folder"] = how["html"].parent


@verb("threefold.pages.compare_page", table=True, page=True)
def compare(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos; the first is judged")],
    on: On = "oof",
    top: Annotated[int, typer.Option(min=0, help="photos that changed sides to list; 0 names none")] = 20,
    photos: Photos = True,
    draws: Draws = 10_000,
    seed: Seed = 0,
) -> None:
    """Is the first run better than each of the others? A difference is FIRST minus other, with its 95 % interval."""


@verb(
    "threefold.pages.suspects_page",
    table=True,
    page=lambda options: (options["out"] or options["run"]) / "suspects.html",
)
def suspects(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    out: Annotated[Path | None, typer.Option(help="folder for suspects.csv and its page (default: the run)")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many labels to list")] = 200,
    photos: Photos = True,
) -> None:
    """Labels that are probably wrong: a table and a page to look them through, which saves a patch for `train`."""


@verb("threefold.pages.decide_page", page=True)
def decide(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    on: On = "oof",
    rule: Annotated[Rule, typer.Option(help="auto keeps one only if it is better; a named rule is kept")] = "auto",
    coverage: Annotated[float | None, typer.Option(help="share of photos each attribute is said for")] = None,
    risk: Annotated[float | None, typer.Option(help="largest share of what is said that may be wrong")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="photos of unseen people, to fit the mean of the folds' networks")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write (default RUN/decision.json)")] = None,
    seed: Seed = 0,
) -> None:
    """Fit temperatures, decision rule and abstention on predictions of unseen people; say what they gain; save them."""


@verb("threefold.pages.shake_page", table=True, page=True)
def shake(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos")],
    on: On = "oof",
    persons: Annotated[int | None, typer.Option(min=2, help="people of the test (default ours; contest: 1800)")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="part of them that is public")] = 0.5,
    public: Annotated[str | None, typer.Option(help="public scores of the runs, in order: 0.712,-,0.705")] = None,
    draws: Draws = 10_000,
    seed: Seed = 0,
) -> None:
    """The leaderboard in advance: gaps of public and private, who wins in private, and which run to hand in."""


@verb("threefold.pages.report", needs=["matplotlib"], page=lambda options: options["run"] / "report.html")
def report(
    run: Annotated[Path, typer.Argument(help="run directory")],
    looks: Annotated[bool, typer.Option(help="ask the networks where they look (takes most of the time)")] = True,
    photos: Photos = True,
) -> None:
    """One self-contained HTML page about a run."""


@verb("threefold.pages.runs_page", table=True, page=True, adapt=_place_page)
def runs(
    folder: Annotated[Path, typer.Argument(help="folder of runs")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="column or recipe key; -COLUMN: largest first (default -macro_f1)")] = "",
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="train.mix=cutmix, macro_f1>0.5, state!=failed, or words")
    ] = None,
    verdicts: Annotated[bool, typer.Option(help="judge each run against its baseline (0.2 s a run)")] = True,
) -> None:
    """The experiment log: hypothesis, what changed, score, verdict against the baseline, and what may be compared."""
