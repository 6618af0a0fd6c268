"""`threefold watch`: an entrance, a recording or a folder of frames, looked at person by person.

Each frame: find faces, join them to tracks, read those that are due (`Opinion.due`: often until sure, then rarely), and
tell an event as soon as a track is sure. Reading every face in every frame would cost several times as much and say
no more, since the frames of a person are alike. What is kept is a row per person; pictures only with `save`.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, how_to_install
from threefold.read.annotate import annotate
from threefold.read.answers import check_attributes
from threefold.read.reader import Reader, detect_faces, load
from threefold.watch.events import STATES, Event, Sink, open_events
from threefold.watch.frames import Folder, Frame, Live, Paced, Say, Source, make_source, read_whole
from threefold.watch.live import State, View, make_view
from threefold.watch.record import Recording
from threefold.watch.tracks import Detection, Track, Tracker
from threefold.watch.votes import Opinion, Rules, Verdict
from threefold.watch.webhook import Webhook

if TYPE_CHECKING:
    from threefold.watch.monitor import Monitor

Find = Callable[[NDArray[np.uint8]], Sequence[Detection]]
Read = Callable[[NDArray[np.uint8], Sequence[Detection]], Sequence[Any]]
Box = tuple[float, float, float, float]
PORTRAIT = 1.25
"""Side of a portrait by the longer side of its face's box, as in `infer.reader`."""
LATELY = 5.0
"""Seconds over which frames per second are counted."""
LIVE_FPS = 15.0
"""Frames per second of a saved video of what is live."""


@dataclass(frozen=True)
class Watched:
    """How a watch went. source: its name; frames: processed; dropped: lost to keep up; broken: unreadable ones of a
    folder; seconds: on the source's clock; counts: people by first mask; changed: events of that kind; unsent: events
    that the webhook did not take.
    """

    source: str
    frames: int
    dropped: int
    broken: int
    seconds: float
    counts: dict[str, int]
    changed: int
    unsent: int

    @property
    def line(self) -> str:
        """All in one line."""
        people = sum(self.counts.values())
        told = [
            f"{self.source}: {self.frames:,} frames, {self.seconds:,.1f} s",
            f"{people:,} {'person' if people == 1 else 'people'} ("
            + ", ".join(f"{name} {count:,}" for name, count in self.counts.items()) + ")",
            f"{self.changed:,} changed" if self.changed else "",
            f"{self.dropped:,} frames dropped to keep up" if self.dropped else "",
            f"{self.broken:,} frames could not be read" if self.broken else "",
            f"{self.unsent:,} events not delivered" if self.unsent else "",
        ]  # fmt: skip
        return "; ".join(part for part in told if part)


class Watch:
    """What is known while watching: tracks, opinions, counts. `step` takes one frame; nothing here reads or waits.

    find: faces of an image; read: the Readings of detections in an image. tell: called with every Event.
    """

    def __init__(
        self, name: str, attributes: Sequence[str], find: Find, read: Read, tell: Callable[[Event], object],
        *, rules: Rules | None = None, max_gap: float = 1.0,
    ) -> None:  # fmt: skip
        self.name, self.attributes, self.find, self.read, self.tell = name, attributes, find, read, tell
        self.rules = rules or Rules()
        self.tracker = Tracker(max_gap)
        self.opinions: dict[int, Opinion] = {}
        self.counts: Counter[str] = Counter()
        self.changed = self.frames = self.readings = 0
        self.last: Frame | None = None

    def step(self, frame: Frame) -> list[tuple[Track, Opinion]]:
        """One frame -> the tracks that were seen in it, with what is thought of them now."""
        self.last = frame
        seen, ended = self.tracker.update(frame.time, self.find(frame.image))
        for track in ended:
            self._end(track, frame.clock)
        pairs = [(track, found, self._opinion(track)) for track, found in seen]
        due = [(found, opinion) for _, found, opinion in pairs if opinion.due(frame.time)]
        if due:
            self.readings += len(due)
            readings = self.read(frame.image, [found for found, _ in due])
            for (found, opinion), reading in zip(due, readings, strict=True):
                opinion.add(frame.time, reading, found.score)
        for track, _, opinion in pairs:
            verdict = opinion.settle(frame.time)
            if verdict:
                self._tell(track, verdict, frame.clock)
        self.frames += 1
        return [(track, opinion) for track, _, opinion in pairs]

    def close(self) -> None:
        """All tracks end where they are."""
        if self.last is not None:
            for track in self.tracker.close():
                self._end(track, self.last.clock)

    def _opinion(self, track: Track) -> Opinion:
        return self.opinions.setdefault(track.number, Opinion(self.attributes, self.rules))

    def _end(self, track: Track, clock: datetime) -> None:
        verdict = self.opinions.pop(track.number).end(track.seconds, track.frames)
        if verdict:
            self._tell(track, verdict, clock)

    def _tell(self, track: Track, verdict: Verdict, clock: datetime) -> None:
        if verdict.kind == "changed":
            self.changed += 1
        else:
            self.counts[verdict.mask] += 1
        self.tell(Event(clock, self.name, track.number, verdict, track.seconds, track.frames))


class Pulse:
    """How a watch keeps up, for the terminal and the monitor, which asks from another thread."""

    def __init__(self, eye: Watch, live: Live | None) -> None:
        self.eye, self.live = eye, live
        self.since = datetime.now().astimezone()
        self.running = True
        self._beats: deque[float] = deque(maxlen=1000)
        self._first: float | None = None
        self.seconds = 0.0

    @property
    def dropped(self) -> int:
        """Frames lost because they came too fast."""
        return self.live.newest.dropped if self.live else 0

    @property
    def fps(self) -> float:
        """Frames per second of the wall clock over the last LATELY seconds."""
        now = monotonic()
        beats = [beat for beat in list(self._beats) if now - beat <= LATELY]
        return (len(beats) - 1) / (beats[-1] - beats[0]) if len(beats) > 1 else 0.0

    def beat(self, frame: Frame, begin: float, faces: int) -> State:
        """A frame was dealt with that was taken up at `begin` (monotonic seconds)."""
        self._beats.append(monotonic())
        self._first = frame.time if self._first is None else self._first
        self.seconds = frame.time - self._first
        late = monotonic() - (frame.time if self.live else begin)
        counts = {name: self.eye.counts[name] for name in STATES}
        return State(self.eye.frames, self.dropped, self.fps, late * 1000, faces, counts)

    def told(self) -> dict[str, Any]:
        """The `state` of `/v1/events`."""
        return {
            "running": self.running,
            "fps": round(self.fps, 1),
            "dropped": self.dropped,
            "frames": self.eye.frames,
            "since": self.since.isoformat(timespec="seconds"),
        }


def watch(
    source: str | Path | int, *, model: Reader | Path | str | None = None,
    attributes: Iterable[str] = tuple(labels.ATTRIBUTES),
    events: Path | str | None = None, save: Path | str | None = None, webhook: str | None = None,
    monitor: str | int | None = None, realtime: bool = False, fps: float = 25.0, start: datetime | None = None,
    retries: int = 20, max_gap: float = 1.0, rules: Rules | None = None, quiet: bool = False,
    find: Find | None = None, opened: Source | None = None, stop: threading.Event | None = None,
) -> Watched:  # fmt: skip
    """Watch `source` (file, folder of frames at `fps`, address, camera index) until it ends or `stop` is set.

    model: as `load` takes it, or a Reader. attributes: must hold `mask`; of others nothing is computed into events.
    events: .csv or .sqlite to append to; save: video to make (keeps pictures of people); webhook: http(s) address;
    monitor: [HOST:]PORT. realtime: play a file as if it were live. start: when a recording began (default: now).
    retries: attempts to open a dead stream again, -1 for ever. max_gap: seconds unseen that end a track. find: faces of
    an image (default: the detector); opened: a Source of one's own instead of `source`, which is then its label only.

    Ctrl-C and SIGTERM end it cleanly where it runs in the main thread. Raises DataError (exit 2) for what cannot be
    used or never gave a frame; CheckFailed (exit 1) when a stream is gone for good, after everything was closed.
    """
    asked, stop = _asked(attributes), stop or threading.Event()
    with ExitStack() as stack:
        view = make_view(quiet)
        stack.callback(view.close)
        feed = _playable(opened or make_source(str(source), fps=fps, say=view.say), realtime, stop)
        live = Live(feed, stop, view.say, retries=retries) if feed.live else None
        reader = model if isinstance(model, Reader) else load(model)
        sink = open_events(None if events is None else Path(events), asked)
        stack.callback(sink.close)
        recording = Recording(Path(save), LIVE_FPS if live else None) if save else None
        post = stack.enter_context(closing(Webhook(webhook, view.say))) if webhook else None
        tell = _teller(asked, sink, view, post)
        eye = Watch(feed.name, asked, find or detect_faces, _asking(reader), tell, rules=rules, max_gap=max_gap)
        pulse = Pulse(eye, live)
        if monitor is not None:
            stack.callback(_monitor(str(monitor), sink, pulse, None if quiet else view.say).close)
        stack.enter_context(_signals(stop))
        frames = stack.enter_context(live) if live else stack.enter_context(_whole(feed, start, stop, view.say))
        stack.callback(eye.close)  # undone from the last: the video is finished, tracks end, and then all else
        if recording:
            stack.callback(recording.close)
            recording.fps = recording.fps or feed.fps
        _loop(eye, frames, pulse, view, recording)
    counts = {name: eye.counts[name] for name in STATES}
    played = feed.source if isinstance(feed, Paced) else feed
    broken = played.broken if isinstance(played, Folder) else 0
    unsent = post.failed if post else 0
    return Watched(feed.name, eye.frames, pulse.dropped, broken, pulse.seconds, counts, eye.changed, unsent)


def _loop(eye: Watch, frames: Iterable[Frame], pulse: Pulse, view: View, recording: Recording | None) -> None:
    try:
        for frame in frames:
            begin = monotonic()
            seen = eye.step(frame)
            if recording:
                recording.add(frame.time, annotate(frame.image, [shown(*pair, eye.attributes) for pair in seen]))
            view.state(pulse.beat(frame, begin, len(seen)))
    finally:
        pulse.running = False


def shown(track: Track, opinion: Opinion, attributes: Sequence[str]) -> dict[str, Any]:
    """A track as `infer.answers.answer` tells a face, for `annotate`: the vote so far; `face` is the track's number."""
    now = opinion.now()
    words: dict[str, Any] = {"mask": now.mask, "gender": now.gender, "age_group": now.age_group}
    said: dict[str, Any] = {"face": track.number, "box": list(track.box), "score": track.score, "quality": "ok"}
    said |= {name: words[name] for name in attributes}
    if "age_group" in attributes:
        said["age"] = None if now.age is None else round(now.age, 1)
    sure = {name: float(vote.posterior.max()) for name, vote in opinion.votes.items()}
    return said | {"confidence": now.confidence, "confidences": sure}


def _asked(attributes: Iterable[str]) -> tuple[str, ...]:
    asked = check_attributes(attributes)
    if "mask" not in asked:
        raise DataError(
            f"attributes {','.join(asked)}: a watch reads the mask at least (mask, or mask,gender,age_group)"
        )
    return asked


def _playable(source: Source, realtime: bool, stop: threading.Event) -> Source:
    return Paced(source, stop) if realtime and not source.live else source


def _asking(reader: Reader) -> Read:
    """A model that crops around faces is given the frame and a box; one of whole portraits is given a portrait."""
    cut = (lambda image, box: (image, box)) if reader.finds_faces else portrait
    return lambda image, found: reader.read([cut(image, detection.box) for detection in found])


def portrait(image: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], Box]:
    """The part of a frame around a face that is like a head-and-shoulders portrait, and the face's box in it."""
    left, top, right, bottom = box
    half = PORTRAIT * max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    rows, columns = (
        slice(max(0, round(y - half)), round(y + half) + 1),
        slice(max(0, round(x - half)), round(x + half) + 1),
    )
    return image[rows, columns], (left - columns.start, top - rows.start, right - columns.start, bottom - rows.start)


def _teller(asked: Sequence[str], sink: Sink, view: View, post: Webhook | None) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        sink.add(event)  # first of all: what is shown or sent has been kept
        row = event.row(asked)
        view.event(row)
        if post:
            post.add(row)

    return tell


def _monitor(address: str, sink: Sink, pulse: Pulse, note: Say | None) -> Monitor:
    try:
        from threefold.watch.monitor import Monitor  # the web framework is an extra, and not needed without a page
    except ImportError as error:
        raise DataError(f"monitor: needs a web server ({error}); {how_to_install('serve')}") from None

    def told(hours: int, recent: int) -> dict[str, Any]:
        return sink.summary(hours, recent) | {"source": pulse.eye.name, "state": pulse.told()}

    server = Monitor(address, told)
    if note:
        note(f"monitor: {server.url}")
    return server


@contextmanager
def _whole(source: Source, start: datetime | None, stop: threading.Event, say: Say) -> Iterator[Iterator[Frame]]:
    begin = (start or datetime.now()).astimezone()
    try:
        source.open()
        yield takewhile(lambda _: not stop.is_set(), read_whole(source, begin, say))
    finally:
        source.close()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for the end; a second one is what it always was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
