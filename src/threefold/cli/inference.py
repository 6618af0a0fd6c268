"""What reads photos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Attributes, Faces, Json, Model, Seed, app, attribute_names, need, tell


@app.command()
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
    json: Json = False,
) -> None:
    """Read photos and videos: a table of readings, or a submission for the contest's eval folder."""
    from threefold.read.predict import predict as run

    write = None if json or out else sys.stdout.write
    result = run(
        inputs,
        model,
        out=out,
        answers=answers,
        plain=plain,
        faces=faces,
        boxes=boxes,
        annotate=annotate,
        probabilities=probabilities,
        attributes=attribute_names(attributes),
        every=every,
        resume=resume,
        write=write,
    )
    tell(result, json=json, err=result.out is None)  # what is read from stdout is the table


@app.command()
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
    json: Json = False,
) -> None:
    """Write a run as one ONNX file that needs no torch; compare it with torch; measure what smaller weights cost."""
    for module in ("torch", "onnx", "onnxscript"):
        need(module, "train")
    from threefold.runs import Run

    Run.open(run).need_complete()  # before torch is imported, which takes seconds
    from threefold.export.export import export as work

    result = work(
        run,
        out,
        int8=int8,
        half=half,
        fold=fold,
        name=name,
        data=data,
        licence=licence,
        timm=timm,
        sample=sample,
        seed=seed,
    )
    tell(result, json=json)
