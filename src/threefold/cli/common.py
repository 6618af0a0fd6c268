"""What the verbs share: the app, the types of their arguments, how a result and an end are said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

app = typer.Typer(
    help="Train, prove and run classifiers that read mask wearing, gender and age group from one photo of a face.",
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

Match = Literal["contest", "none"]
Faces = Literal["all", "largest", "none"]
Model = Annotated[Path | None, typer.Option(help="exported model or run directory (default: the bundled reader)")]
Attributes = Annotated[str, typer.Option(help="what is read; `mask` alone: entrance mode, gender and age left out")]
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


def need(module: str, extra: str) -> None:
    """End with one line where a package of an extra is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        end(f"this verb needs {module}; `pip install threefold[{extra}]` brings it", 2)


def end(text: str, code: int) -> NoReturn:
    """Say why on stderr and exit."""
    print(f"threefold: {text}", file=sys.stderr)
    raise SystemExit(code)
