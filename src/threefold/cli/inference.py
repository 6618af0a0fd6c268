"""What reads photos."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Attributes, Faces, Model, Options, Seed, verb


def _print_rows(options: Options, how: Options) -> None:
    """Without a file the table is printed as it is read."""
    options["write"] = None if how["json"] or options["out"] else sys.stdout.write


@verb("threefold.read.predict", adapt=_print_rows)
def predict(
    inputs: Annotated[list[Path], typer.Argument(help="photos, folders, videos, or the contest's eval folder")],
    model: Model = None,
    out: Annotated[
        Path | None, typer.Option(help=".csv, .jsonl or .parquet (default: stdout, or RUN/submission.csv)")
    ] = None,
    answers: Annotated[Path | None, typer.Option(help="CSV with ImageID,ans[,person,age] to score against")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="leave the model's decision aside")] = False,
    faces: Annotated[Faces | None, typer.Option(help="of each photo; none: it is a portrait already")] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="columns left,top,right,bottom,score,quality")] = False,
    annotate: Annotated[Path | None, typer.Option(help="folder for copies with boxes and words")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="columns p00..p17")] = False,
    attributes: Attributes = "mask,gender,age_group",
    every: Annotated[float, typer.Option(min=0, help="seconds between two frames of a video; 0: all")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a table that was not finished")] = False,
) -> None:
    """Read photos and videos: a table of readings, or a submission for the contest's eval folder."""


@verb("threefold.export.export", needs=["torch", "onnx", "onnxscript"])
def export(
    run: Annotated[Path, typer.Argument(help="complete run directory")],
    out: Annotated[Path | None, typer.Option(help="file to write (default RUN/export/model.onnx)")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="compute in int8; what it costs is measured")] = False,
    half: Annotated[bool, typer.Option("--half", help="store weights as float16: half the size, same speed")] = False,
    fold: Annotated[int | None, typer.Option(help="only the network of this fold (a service wants one)")] = None,
    name: Annotated[str, typer.Option(help="what the model is called (default: the run's name)")] = "",
    data: Annotated[str, typer.Option(help="what it was trained on, written into the file")] = "",
    licence: Annotated[str, typer.Option(help="terms of use, written into the file")] = "",
    timm: Annotated[bool, typer.Option("--timm/--no-timm", help="model.safetensors and config.json beside it")] = True,
    sample: Annotated[int, typer.Option(help="photos of the run, at most, that a loss is measured on")] = 1000,
    seed: Seed = 0,
) -> None:
    """Write a run as one ONNX file that needs no torch; compare it with torch; measure what smaller weights cost."""
