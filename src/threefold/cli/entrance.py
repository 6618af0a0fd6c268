"""What runs at an entrance: the HTTP service and the watch."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from threefold.cli.common import Attributes, Model, Options, end, verb


def _show_events(options: Options, how: Options) -> None:
    """Requests are logged, and the events of a watch are a page of the service."""
    from threefold.serve.server import log_to_stderr
    from threefold.watch.monitor import monitor_router

    log_to_stderr()
    events = options.pop("events")
    options["monitor"] = None if events is None else monitor_router(events, options["attributes"])


def _show_people(options: Options, how: Options) -> None:
    """People are told as they come, unless stdout is for something else."""
    from threefold.cli.live import make_view
    from threefold.read.reader import detect_faces

    if how["csv"] and not options["events"]:
        end("--csv writes the events of a file; name it with --events", 2)
    how["quiet"] = options.pop("quiet")
    options["view"] = make_view(how["quiet"] or how["json"] or str(how["csv"]) == "-")
    options["find"] = partial(detect_faces, far=options.pop("far"))


SOURCE = "video, folder of frames, rtsp:// or http:// address, camera index"


@verb(
    "threefold.serve.server",
    needs=["fastapi", "uvicorn", "prometheus_client", "python_multipart"],
    extra="serve",
    adapt=_show_events,
)
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0 is every one")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port; 0 is any free one")] = 8000,
    attributes: Attributes = "mask,gender,age_group",
    key: Annotated[str | None, typer.Option(help="bearer key of /v1 (better: $THREEFOLD_KEY)")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="cores of one call of the model")] = None,
    batch: Annotated[int, typer.Option(min=1, help="faces in one call of the model at most; 1: no batching")] = 32,
    wait_ms: Annotated[float, typer.Option(min=0, help="how long a face waits at most for one on its way")] = 2,
    queue: Annotated[int, typer.Option(min=1, help="photos in work or waiting; more are answered with 503")] = 256,
    rate: Annotated[float | None, typer.Option(help="requests a second of one client (default: any)")] = None,
    cors: Annotated[list[str] | None, typer.Option(help="origin whose pages may ask; may be repeated")] = None,
    events: Annotated[Path | None, typer.Option(help="events file of `threefold watch`, shown at /monitor")] = None,
) -> None:
    """Answer photos over HTTP, with a page at /; until SIGTERM or ctrl-c."""


@verb("threefold.watch.watch", table=True, adapt=_show_people)
def watch(
    source: Annotated[str, typer.Argument(envvar="THREEFOLD_SOURCE", help=SOURCE)],
    model: Model = None,
    attributes: Attributes = "mask,gender,age_group",
    events: Annotated[Path | None, typer.Option(help=".sqlite file to append a row per person to")] = None,
    save: Annotated[Path | None, typer.Option(help="video to make, boxes drawn; it keeps pictures of people")] = None,
    webhook: Annotated[str | None, typer.Option(help="http(s) address that gets each event as JSON")] = None,
    monitor: Annotated[str | None, typer.Option(help="[HOST:]PORT of the page /monitor")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="play a file as if live: late frames drop")] = False,
    fps: Annotated[float, typer.Option(min=0.1, max=240, help="frames a second of a folder")] = 25.0,
    start: Annotated[datetime | None, typer.Option(help="when a recording began (default: now)")] = None,
    retries: Annotated[int, typer.Option(min=-1, help="attempts to open a dead stream again; -1: for ever")] = 20,
    max_gap: Annotated[float, typer.Option(min=0, help="seconds a face may be unseen before its track ends")] = 1.0,
    far: Annotated[bool, typer.Option("--far", help="find faces far away too; looking takes 6 times as long")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="faults only")] = False,
) -> None:
    """Watch an entrance or a recording: one event per person, told as soon as its mask is sure; ctrl-c ends it."""
