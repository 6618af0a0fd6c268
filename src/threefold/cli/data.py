"""What is done with photos before training."""

from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Match, Out, Photos, Seed, verb


@verb("threefold.draw.sample")
def sample(
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half; eval/ gets two thirds as many")] = 120,
    seed: Seed = 0,
) -> None:
    """Draw a practice set of people in the contest's layout: OUT/train and OUT/eval, with the answers beside eval."""


@verb("threefold.draw.synth")
def synth(
    source: Annotated[str, typer.Argument(help="portraits with landmarks, as csv:PATH")],
    out: Out,
    people: Annotated[int, typer.Option(help="people of the training half")] = 2700,
    match: Annotated[Match, typer.Option(help="contest: its gender x age histogram; none: any people")] = "contest",
    eval_people: Annotated[int | None, typer.Option(min=0, help="people of the eval half (default: 2/3)")] = None,
    seed: Seed = 0,
) -> None:
    """Draw masks on real portraits: five worn, one incorrect, one none per person, in the contest's layout."""


@verb("threefold.draw.dress")
def dress(
    source: Annotated[str, typer.Argument(help="portraits of bare faces, as layout:path")],
    out: Out,
    worn: Annotated[int, typer.Option(min=0, help="photos with a worn mask per portrait")] = 1,
    incorrect: Annotated[int, typer.Option(min=0, help="photos with a badly worn mask per portrait")] = 1,
    seed: Seed = 0,
) -> None:
    """Draw worn and badly worn masks on any portraits, framing and light as they are; bare ones are kept beside."""


@verb("threefold.data.check", table=True)
def check(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
) -> None:
    """What is in a set of photos and what is wrong with it; exit code 1 when a result would be corrupted."""


@verb("threefold.pages.eda_page", needs=["sklearn"], page=lambda _: Path("eda.html"))
def eda(
    data: Annotated[str, typer.Argument(help="layout:path[,layout:path...] or a path whose layout is recognised")],
    photos: Photos = True,
    seed: Seed = 0,
) -> None:
    """One page about a set of photos before training: people, borders, shortcuts, outliers, the size of chance."""
