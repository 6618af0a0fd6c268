"""`threefold watch`: an entrance, a recording or a folder of frames, looked at person by person.

Each frame: find faces, join them to tracks, read those that are due (`Opinion.due`: often until sure, then rarely), and
tell an event as soon as a track is sure. Reading every face in every frame would cost several times as much and say
no more, since the frames of a person are alike. What is kept is a row per person; pictures only with `save`.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import CheckFailed, DataError, how_to_install
from threefold.read.annotate import annotate
from threefold.read.reader import Reader, detect_faces, load
from threefold.read.reading import Reading, check_attributes
from threefold.results import Result
from threefold.watch.events import STATES, Event, Events, event_rows
from threefold.watch.frames import Folder, Frame, Live, OnFault, Paced, Source, make_source, read_whole
from threefold.watch.record import Recording
from threefold.watch.tracks import Detection, Track, Tracker
from threefold.watch.view import State, View
from threefold.watch.votes import Opinion, Rules
from threefold.watch.webhook import Webhook

if TYPE_CHECKING:
    from threefold.watch.monitor import Monitor

Frames = AbstractContextManager[Iterable[Frame]]
Find = Callable[[NDArray[np.uint8]], Sequence[Detection]]
LATELY = 5.0
"""Seconds over which frames per second are counted."""
LIVE_FPS = 15.0
"""Frames per second of a saved video of what is live."""


@dataclass(frozen=True)
class Watched(Result):
    """How a watch went. source: its name; frames: processed; dropped: lost to keep up; broken: unreadable ones of a
    folder; seconds: on the source's clock; counts: people by first mask; changed: events of that kind; unsent: events
    that the webhook did not take; events: the file that keeps them; gone: why a stream was lost for good, or ''.
    """

    source: str
    frames: int
    dropped: int
    broken: int
    seconds: float
    counts: dict[str, int]
    changed: int
    unsent: int
    events: Path | None
    gone: str = ""

    @property
    def failure(self) -> str:
        """See `Result`: a stream that is gone."""
        return self.gone

    @property
    def aside(self) -> bool:
        """Stdout has the people, or a table of them."""
        return True

    def lines(self) -> list[str]:
        """See `Result`: all in one line."""
        people = sum(self.counts.values())
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        parts = [
            f"{self.source}: {self.frames:,} frames, {self.seconds:,.1f} s",
            f"{people:,} {'person' if people == 1 else 'people'} ({counts})",
        ]
        more = {
            "changed": self.changed,
            "frames dropped to keep up": self.dropped,
            "frames could not be read": self.broken,
            "events not delivered": self.unsent,
        }
        return ["; ".join([*parts, *(f"{count:,} {words}" for words, count in more.items() if count)])]

    def rows(self) -> list[Sequence[object]] | None:
        """See `Result`: all events of the file; None without one."""
        return event_rows(self.events) if self.events else None


class Watch:
    """What is known while watching: tracks, opinions, counts. `step` takes one frame; nothing here waits.

    find: faces of an image. keep: called with every Event.
    """

    def __init__(
        self,
        name: str,
        attributes: Sequence[str],
        find: Find,
        reader: Reader,
        keep: Callable[[Event], object],
        *,
        rules: Rules | None = None,
        max_gap: float = 1.0,
    ) -> None:
        self.name, self.find, self.reader, self.keep = name, find, reader, keep
        self.tracker, self.clock = Tracker(max_gap), datetime.min
        self.opinions: dict[int, Opinion] = defaultdict(partial(Opinion, attributes, rules or Rules()))
        self.counts: Counter[str] = Counter()
        self.changed = self.frames = self.readings = 0

    def step(self, frame: Frame) -> list[Reading]:
        """One frame -> what is thought now of the faces that were seen in it."""
        self.clock = frame.clock
        seen, ended = self.tracker.update(frame.time, self.find(frame.image))
        for track in ended:
            self._end(track)
        faces = [(track, detection, self.opinions[track.number]) for track, detection in seen]
        due = [(detection, opinion) for _, detection, opinion in faces if opinion.due(frame.time)]
        self.readings += len(due)
        readings = self.reader.read((frame.image, detection.box) for detection, _ in due) if due else []
        for (detection, opinion), reading in zip(due, readings, strict=True):
            opinion.add(frame.time, reading, detection.score)
        for track, _, opinion in faces:
            if kind := opinion.settle(frame.time):
                self._announce(kind, track, opinion)
        self.frames += 1
        return [opinion.reading(track) for track, _, opinion in faces]

    def close(self) -> None:
        """All tracks end where they are."""
        for track in self.tracker.close():
            self._end(track)

    def _end(self, track: Track) -> None:
        opinion = self.opinions.pop(track.number)
        if kind := opinion.end(track.seconds, track.frames):
            self._announce(kind, track, opinion)

    def _announce(self, kind: str, track: Track, opinion: Opinion) -> None:
        reading = opinion.reading(track)
        if kind == "changed":
            self.changed += 1
        else:
            self.counts[reading.mask] += 1
        self.keep(Event(self.clock, self.name, kind, reading, track.seconds, track.frames))


class Pulse:
    """How a watch keeps up, for the terminal and the monitor, which asks from another thread."""

    def __init__(self, eye: Watch, feed: Source, live: Live | None) -> None:
        self.eye, self.feed, self.live = eye, feed, live
        self.since, self.running, self.seconds = datetime.now().astimezone(), True, 0.0
        self._beats: deque[float] = deque(maxlen=1000)
        self._first: float | None = None

    @property
    def dropped(self) -> int:
        """Frames lost because they came too fast."""
        return self.live.newest.dropped if self.live else 0

    @property
    def counts(self) -> dict[str, int]:
        """People by mask, those of whom there is none as well."""
        return {name: self.eye.counts[name] for name in STATES}

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
        return State(self.eye.frames, self.dropped, self.fps, late * 1000, faces, self.counts)

    def result(self, events: Path | None, unsent: int, gone: str) -> Watched:
        """What `watch` returns."""
        source = self.feed.source if isinstance(self.feed, Paced) else self.feed
        broken, changed = source.broken if isinstance(source, Folder) else 0, self.eye.changed
        frames = (self.eye.frames, self.dropped, broken)
        return Watched(self.feed.name, *frames, self.seconds, self.counts, changed, unsent, events, gone)

    def data(self) -> dict[str, Any]:
        """The `state` of `/v1/events`."""
        return {
            "running": self.running,
            "fps": round(self.fps, 1),
            "dropped": self.dropped,
            "frames": self.eye.frames,
            "since": self.since.isoformat(timespec="seconds"),
        }


def watch(
    source: str | Path | int | Source,
    *,
    model: Reader | Path | str | None = None,
    attributes: Iterable[str] = tuple(labels.ATTRIBUTES),
    events: Path | str | None = None,
    save: Path | str | None = None,
    webhook: str | None = None,
    monitor: str | int | None = None,
    realtime: bool = False,
    fps: float = 25.0,
    start: datetime | None = None,
    retries: int = 20,
    max_gap: float = 1.0,
    rules: Rules | None = None,
    view: View | None = None,
    find: Find = detect_faces,
    stop: threading.Event | None = None,
) -> Watched:
    """Watch `source` (file, folder of frames at `fps`, address, camera index, a Source) until it ends or `stop` is set.

    model: as `load` takes it, or a Reader. attributes: must hold `mask`; of others nothing is computed into events.
    events: SQLite file to append to; save: video to make (keeps pictures of people); webhook: http(s) address;
    monitor: [HOST:]PORT. realtime: play a file as if it were live. start: when a recording began (default: now).
    retries: attempts to open a dead stream again, -1 for ever. max_gap: seconds unseen that end a track. view: where it
    is shown meanwhile (default: nowhere). find: faces of an image. Ctrl-C and SIGTERM end it cleanly where it runs in
    the main thread. A stream that is gone for good is the result's `failure`. Raises DataError for what cannot be used
    or never gave a frame.
    """
    names, stop, view = _names(attributes), stop or threading.Event(), view or View()
    with closing(view), ExitStack() as stack:
        feed = _feed(source, fps, realtime, stop, view)
        live = Live(feed, stop, view.fault, retries=retries) if feed.live else None
        reader = model if isinstance(model, Reader) else load(model)
        store = stack.enter_context(closing(Events(Path(events) if events else None, names)))
        recording = Recording(Path(save)) if save else None
        post = stack.enter_context(closing(Webhook(webhook, view.fault))) if webhook else None
        eye = Watch(feed.name, names, find, reader, _keeper(store, view, post), rules=rules, max_gap=max_gap)
        pulse = Pulse(eye, feed, live)
        if monitor is not None:
            stack.enter_context(closing(_monitor(str(monitor), store, pulse, view)))
        frames = live or _whole(feed, start, stop, view.fault)
        gone = _loop(frames, pulse, view, recording, stop)
    return pulse.result(store.path, post.failed if post else 0, gone)


def _names(attributes: Iterable[str]) -> tuple[str, ...]:
    names = check_attributes(attributes)
    if "mask" not in names:
        raise DataError(
            f"attributes {','.join(names)}: a watch reads the mask at least (mask, or mask,gender,age_group)"
        )
    return names


def _feed(source: str | Path | int | Source, fps: float, realtime: bool, stop: threading.Event, view: View) -> Source:
    feed = make_source(str(source), fps=fps, fault=view.fault) if isinstance(source, str | Path | int) else source
    return Paced(feed, stop) if realtime and not feed.live else feed


def _loop(frames: Frames, pulse: Pulse, view: View, recording: Recording | None, stop: threading.Event) -> str:
    """Take frames until the end; why a stream is gone for good, else ''."""
    with ExitStack() as stack:
        stack.enter_context(_signals(stop))
        opened = stack.enter_context(frames)
        stack.callback(pulse.eye.close)  # undone from the last: the video is finished, tracks end, the source is let go
        if recording:
            stack.callback(recording.close)
            recording.fps = LIVE_FPS if pulse.live else pulse.feed.fps
        try:
            for frame in opened:
                begin = monotonic()
                readings = pulse.eye.step(frame)
                if recording:
                    recording.add(frame.time, annotate(frame.image, readings))
                view.state(pulse.beat(frame, begin, len(readings)))
        except CheckFailed as error:
            return str(error)
        finally:
            pulse.running = False
    return ""


def _keeper(store: Events, view: View, post: Webhook | None) -> Callable[[Event], None]:
    def keep(event: Event) -> None:
        store.add(event)  # first of all: what is shown or sent has been kept
        row = event.row()
        view.event(row)
        if post:
            post.add(row)

    return keep


def _monitor(address: str, store: Events, pulse: Pulse, view: View) -> Monitor:
    try:
        from threefold.watch.monitor import Monitor  # the web framework is an extra, and not needed without a page
    except ImportError as error:
        raise DataError(f"monitor: needs a web server ({error}); {how_to_install('serve')}") from None

    def summary(hours: int, recent: int) -> dict[str, Any]:
        return store.summary(hours, recent) | {"source": pulse.eye.name, "state": pulse.data()}

    server = Monitor(address, summary)
    view.note(f"monitor: {server.url}")
    return server


@contextmanager
def _whole(source: Source, start: datetime | None, stop: threading.Event, fault: OnFault) -> Iterator[Iterator[Frame]]:
    begin = (start or datetime.now()).astimezone()
    try:
        source.open()
        yield takewhile(lambda _: not stop.is_set(), read_whole(source, begin, fault))
    finally:
        source.close()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for the end; a second one is what it always was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
