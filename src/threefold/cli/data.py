"""What is done with photos before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Csv, Json, Lang, Match, Out, Photos, Seed, app, need, tell
from threefold.files import need_writable, write_text


@app.command()
def sample(
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half; eval/ gets two thirds as many")] = 120,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw a practice set of people in the contest's layout: OUT/train and OUT/eval, with the answers beside eval."""
    from threefold.draw.sample import sample as run

    tell(run(out, people=people, seed=seed), json=json)


@app.command()
def synth(
    source: Annotated[str, typer.Argument(help="portraits with landmarks, as csv:PATH")],
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half")] = 2700,
    match: Annotated[Match, typer.Option(help="contest: its gender x age histogram; none: any people")] = "contest",
    eval_people: Annotated[int | None, typer.Option(min=0, help="people of the eval half (default: 2/3)")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw masks on real portraits: five worn, one incorrect, one none per person, in the contest's layout."""
    from threefold.draw.synth import synth as run

    tell(run(source, out, people=people, match=match, seed=seed, eval_people=eval_people), json=json)


@app.command()
def dress(
    source: Annotated[str, typer.Argument(help="portraits of bare faces, as layout:path")],
    out: Out,
    worn: Annotated[int, typer.Option(min=0, help="photos with a worn mask per portrait")] = 1,
    incorrect: Annotated[int, typer.Option(min=0, help="photos with a badly worn mask per portrait")] = 1,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Draw worn and badly worn masks on any portraits, framing and light as they are; bare ones are kept beside."""
    from threefold.draw.dress import dress as run

    tell(run(source, out, worn=worn, incorrect=incorrect, seed=seed), json=json)


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
    json: Json = False,
    csv: Csv = None,
) -> None:
    """What is in a set of photos and what is wrong with it; exit code 1 when a result would be corrupted."""
    from threefold.data.check import check as run

    tell(run(data), json=json, csv=csv)


@app.command()
def eda(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
    photos: Photos = True,
    html: Annotated[Path, typer.Option(help="HTML file to write")] = Path("eda.html"),
    json: Json = False,
    lang: Lang = "en",
    seed: Seed = 0,
) -> None:
    """One page about a set of photos before training: people, borders, shortcuts, outliers, the size of chance."""
    need("sklearn", "train")
    from threefold.pages.eda_page import eda as work

    need_writable(html)
    result = work(data, photos=photos, seed=seed)
    write_text(html, result.page(lang))
    tell(result, json=json)
    typer.echo(f"page: {html}", err=json)
