"""What reads photos."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Attributes, Faces, Model, Seed, app, need, score_line


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="photos, folders, videos, or the contest's eval folder")],
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
    from threefold.stages.predict import predict as run

    done = run(photos, model, out=out, answers=answers, plain=plain, faces=faces, boxes=boxes, annotate=annotate,
               probabilities=probabilities, attributes=_names(attributes), every=every, resume=resume)  # fmt: skip
    silent = ", ".join(f"{name} {count:,}" for name, count in done.indeterminate.items() if count)
    speed = f", {done.done / done.seconds:,.0f} photos/s" if done.done and done.seconds else ""
    for line in (
        score_line(done.score) if done.score else "",
        *(f"! {warning}" for warning in done.warnings),
        f"indeterminate: {silent} of {done.faces:,} faces" if silent else "",
        f"read: {done.photos:,} photos, {done.faces:,} faces{speed}",
        f"written: {done.out}" if done.out else "",
    ):
        if line:
            typer.echo(line, err=done.out is None)


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
    photos: Annotated[int, typer.Option(help="the run's photos that a loss is measured on, at most")] = 1000,
    seed: Seed = 0,
) -> None:
    """Write a run as one ONNX file that needs no torch; compare it with torch; measure what smaller weights cost."""
    for module in ("torch", "onnx", "onnxscript"):
        need(module, "train")
    from threefold.stages.export import export as work

    made = work(run, out, int8=int8, half=half, fold=fold, name=name, data=data, licence=licence, timm=timm,
                photos=photos, seed=seed)  # fmt: skip
    for line in made.lines():
        typer.echo(line)


@app.command()
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 is every one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port; 0 is any free one")] = 8000,
    attributes: Attributes = "mask,gender,age_group",
    key: Annotated[str | None, typer.Option(help="bearer key of /v1 and /v2 (better: $THREEFOLD_KEY)")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="cores of one call of the model")] = None,
    batch: Annotated[int, typer.Option(min=1, help="faces in one call of the model at most; 1: no batching")] = 32,
    wait_ms: Annotated[float, typer.Option(min=0, help="how long a face waits at most for one on its way")] = 2,
    queue: Annotated[int, typer.Option(min=1, help="photos in work or waiting; more are answered with 503")] = 256,
    rate: Annotated[float | None, typer.Option(help="requests a second of one client (default: any)")] = None,
    cors: Annotated[list[str] | None, typer.Option(help="origin whose pages may ask; may be repeated")] = None,
    events: Annotated[Path | None, typer.Option(help="events file of `threefold watch`, shown at /monitor")] = None,
) -> None:
    """Answer photos over HTTP, with a page at /; until SIGTERM or ctrl-c."""
    for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        need(module, "serve")
    from threefold.serve.run import serve as run

    run(model, host=host, port=port, attributes=_names(attributes), key=key, threads=threads, batch=batch,
        wait_ms=wait_ms, queue=queue, rate=rate, cors=cors or [], events=events)  # fmt: skip


@app.command()
def watch(
    source: Annotated[
        str,
        typer.Argument(
            envvar="THREEFOLD_SOURCE", help="video, folder of frames, rtsp:// or http:// address, camera index"
        ),
    ],
    model: Model = None,
    attributes: Attributes = "mask,gender,age_group",
    events: Annotated[Path | None, typer.Option(help=".csv or .sqlite to append a row per person to")] = None,
    save: Annotated[Path | None, typer.Option(help="video to make, boxes drawn; it keeps pictures of people")] = None,
    webhook: Annotated[str | None, typer.Option(help="http(s) address that gets each event as JSON")] = None,
    monitor: Annotated[str | None, typer.Option(help="[HOST:]PORT of the page /monitor")] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="play a file as if it were live: late frames drop")
    ] = False,
    fps: Annotated[float, typer.Option(min=0.1, max=240, help="frames a second of a folder")] = 25.0,
    start: Annotated[datetime | None, typer.Option(help="when a recording began (default: now)")] = None,
    retries: Annotated[int, typer.Option(min=-1, help="attempts to open a dead stream again; -1: for ever")] = 20,
    max_gap: Annotated[float, typer.Option(min=0, help="seconds a face may be unseen before its track ends")] = 1.0,
    far: Annotated[
        bool, typer.Option("--far", help="find faces far away beside near ones; looking takes 6 times as long")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="faults only")] = False,
) -> None:
    """Watch an entrance or a recording: one event per person, told as soon as its mask is sure; ctrl-c ends it."""
    from threefold.infer.reader import detect_faces
    from threefold.serve.watch import watch as run

    find = partial(detect_faces, far=True) if far else None
    done = run(source, model=model, attributes=_names(attributes), events=events, save=save, webhook=webhook,
               monitor=monitor, realtime=realtime, fps=fps, start=start, retries=retries, max_gap=max_gap,
               quiet=quiet, find=find)  # fmt: skip
    if not quiet:
        typer.echo(done.line, err=True)


def _names(attributes: str) -> list[str]:
    return [name.strip() for name in attributes.split(",")]
