"""What can be claimed about runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Csv, Draws, Html, Json, Lang, On, Photos, Rule, Seed, app, need, tell
from threefold.files import need_writable, write_text


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="complete runs on the same photos; the first is judged")],
    on: On = "oof",
    json: Json = False,
    html: Html = None,
    csv: Annotated[Path | None, typer.Option(help="CSV of all photos that changed sides; - prints it")] = None,
    top: Annotated[int, typer.Option(min=0, help="photos that changed sides to list; 0 names none")] = 20,
    photos: Photos = True,
    draws: Draws = 10_000,
    seed: Seed = 0,
    lang: Lang = "en",
) -> None:
    """Is the first run better than each of the others? A difference is FIRST minus other, with its 95 % interval."""
    if html:
        need("jinja2", "train")
    from threefold.pages.compare_page import compare as run

    result = run(runs, on=on, draws=draws, seed=seed, top=top, photos=photos)
    tell(result, json=json, csv=csv, html=html, lang=lang)


@app.command()
def suspects(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    out: Annotated[Path | None, typer.Option(help="folder for suspects.csv and its page (default: the run)")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many labels to list")] = 200,
    photos: Photos = True,
    json: Json = False,
    csv: Csv = None,
    html: Annotated[Path | None, typer.Option(help="HTML file for the page (default: suspects.html in --out)")] = None,
    lang: Lang = "en",
) -> None:
    """Labels that are probably wrong: a table and a page to look them through, which saves a patch for `train`."""
    need("jinja2", "train")
    from threefold.pages.suspects_page import suspects as find

    result = find(run, out=out, top=top, photos=photos)
    tell(result, json=json, csv=csv, html=html or result.folder / "suspects.html", lang=lang)


@app.command()
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
    json: Json = False,
    html: Html = None,
    seed: Seed = 0,
    lang: Lang = "en",
) -> None:
    """Fit temperatures, decision rule and abstention on predictions of unseen people; say what they gain; save them."""
    if html:
        need("jinja2", "train")
    from threefold.pages.decide_page import decide as work

    result = work(run, on=on, rule=rule, coverage=coverage, risk=risk, unlabelled=unlabelled, seed=seed, out=out)
    tell(result, json=json, html=html, lang=lang)


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
    csv: Csv = None,
    html: Html = None,
    lang: Lang = "en",
) -> None:
    """The leaderboard in advance: gaps of public and private, who wins in private, and which run to hand in."""
    if html:
        need("jinja2", "train")
    from threefold.pages.shake_page import shake as run

    result = run(runs, on=on, persons=persons, share=share, public=public or None, draws=draws, seed=seed)
    tell(result, json=json, csv=csv, html=html, lang=lang)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="run directory")],
    looks: Annotated[bool, typer.Option(help="ask the networks where they look (takes most of the time)")] = True,
    photos: Photos = True,
    html: Annotated[Path | None, typer.Option(help="HTML file to write (default RUN/report.html)")] = None,
    json: Json = False,
    lang: Lang = "en",
) -> None:
    """One self-contained HTML page about a run."""
    need("matplotlib", "train")
    from threefold.pages.report import report as work

    html = html or run / "report.html"
    need_writable(html)
    result = work(run, looks=looks, photos=photos)
    write_text(html, result.page(lang))
    tell(result, json=json)
    typer.echo(f"report: {html}", err=json)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="folder of runs")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="column or recipe key; -COLUMN: largest first (default -macro_f1)")] = "",
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="train.mix=cutmix, macro_f1>0.5, state!=failed, or words")
    ] = None,
    verdicts: Annotated[bool, typer.Option(help="judge each run against its baseline (0.2 s a run)")] = True,
    csv: Csv = None,
    html: Html = None,
    json: Json = False,
    lang: Lang = "en",
) -> None:
    """The experiment log: hypothesis, what changed, score, verdict against the baseline, and what may be compared."""
    if html:
        need("jinja2", "train")
    from threefold.pages.runs_page import runs as work

    result = work(folder, sort=sort, filters=filters or [], verdicts=verdicts)
    if html:
        result = replace(result, page_folder=html.parent)
    tell(result, json=json, csv=csv, html=html, lang=lang)
