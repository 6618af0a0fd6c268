"""Faces over frames: which detection continues which track. Geometry alone, and no more than a scene's.

A track is one face while it stays in view. Nobody is recognised: who leaves and comes back is a new track, and two
tracks are told apart by where they are, never by how they look. That is a limit on purpose.

Assignment as in SORT (Bewley et al., "Simple online and realtime tracking", 2016): motion at constant velocity and
one exact matching per frame, and as in ByteTrack (Zhang et al., 2022) in two stages, the sure detections first, so
that a weak box cannot take the track of a strong one. Unlike there, a weak detection may continue a track that was lost
and may begin one: masked faces score low in every frame, and they are those an entrance asks about.
The overlap is DIoU (Zheng et al., "Distance-IoU loss", 2020), which still ranks boxes that do not touch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from threefold.photos.decode import Box
from threefold.photos.detect import Detection

__all__ = ["Detection", "Track", "Tracker", "assign", "overlaps"]
STRONG = 0.75
"""Detector's score from which a detection is matched first."""
STEADY = (0.6, 0.25)
"""Gains of place and velocity once a track has been seen five times: near Benedict and Bordner's (1962) compromise."""
FADE = 1.0
"""Seconds in which the velocity of a face that is not seen dies away: people stop, and a track must not fly off."""
REACH, PACE, FAR = 1.0, 6.0, 2.0
"""Face sizes that a face may be off its predicted place: at least, per second between frames, and at most.

Walking past at 1.4 m/s is some 9 face widths a second, of which the prediction takes most; more reach joins neighbours.
"""
BURST = 0.02
"""Least seconds between two frames, as far as velocities go: a network hands over several at once, and a step that took
40 ms would look like one of a millisecond."""
FASTEST = 9.0
"""Face sizes per second that are believed."""
GROWTH = 2.0
"""Ratio of sizes above which two boxes are two faces."""

Floats = NDArray[np.float64]


@dataclass
class Track:
    """A face while it is in view. number: 1, 2, ... in order of appearance; box and score: where it was seen last.

    first, last: seconds of the source's clock; frames: in how many it was seen. place, speed: [4] centre x, y (pixels)
    and log width, log height, and their change per second.
    """

    number: int
    box: Box
    score: float
    first: float
    last: float
    frames: int
    place: Floats
    speed: Floats

    @property
    def seconds(self) -> float:
        """From its first frame to its last, in seconds."""
        return self.last - self.first

    def at(self, time: float) -> Floats:
        """[4] place predicted for `time` >= last."""
        return self.place + self.speed * FADE * -math.expm1(-(time - self.last) / FADE)

    def see(self, time: float, detection: Detection) -> None:
        """Move to a detection: an alpha-beta filter (the steady Kalman filter of constant velocity).

        Its gains begin as those of a least-squares line through all that was seen, so that the velocity of somebody who
        walks in is known after two frames.
        """
        self.frames += 1
        n, gap = self.frames, time - self.last
        place, speed = max(STEADY[0], 2 * (2 * n - 1) / (n * (n + 1))), max(STEADY[1], 6 / (n * (n + 1)))
        expected = self.at(time)
        miss = _place(detection.box) - expected
        self.place = expected + place * miss
        self.speed = self.speed * math.exp(-gap / FADE) + speed / max(gap, BURST) * miss
        most = FASTEST * np.array([1, 1, 0.1, 0.1]) * np.array([*np.exp(self.place[2:]), 1, 1])
        self.speed = np.clip(self.speed, -most, most)
        self.box, self.score, self.last = detection.box, detection.score, time


class Tracker:
    """Joins detections of consecutive frames. max_gap: seconds that a face may be unseen before its track ends."""

    def __init__(self, max_gap: float = 1.0) -> None:
        self.max_gap = max_gap
        self.tracks: list[Track] = []
        self._count = 0
        self._time = -math.inf

    def update(self, time: float, faces: Sequence[Detection]) -> tuple[list[tuple[Track, Detection]], list[Track]]:
        """Detections of the frame at `time` (seconds, never falling) -> (track, its detection) in order of tracks, and
        the tracks that ended: unseen for longer than `max_gap`. Raises ValueError when time falls.
        """
        if time < self._time:
            raise ValueError(f"time {time} is before {self._time}")
        ended = [track for track in self.tracks if time - track.last > self.max_gap]
        free = [track for track in self.tracks if time - track.last <= self.max_gap]
        self.tracks = list(free)
        reach = min(FAR, max(REACH, PACE * (time - self._time))) if self._time > -math.inf else REACH
        before, self._time = self._time, time
        seen: list[tuple[Track, Detection]] = []
        for strong in (True, False):
            stage = [face for face in faces if (face.score >= STRONG) == strong]
            left = list(stage)
            for row, column in _match(free, stage, time, before, reach):
                free[row].see(time, stage[column])
                seen.append((free[row], stage[column]))
                left.remove(stage[column])
            free = [track for track in free if track.last < time]
            seen += [(self._begin(time, detection), detection) for detection in left]
        return sorted(seen, key=lambda pair: pair[0].number), ended

    def close(self) -> list[Track]:
        """All tracks end; returns them."""
        ended, self.tracks = self.tracks, []
        return ended

    def _begin(self, time: float, detection: Detection) -> Track:
        self._count += 1
        track = Track(self._count, detection.box, detection.score, time, time, 1, _place(detection.box), np.zeros(4))
        self.tracks.append(track)
        return track


def overlaps(a: Floats, b: Floats) -> Floats:
    """DIoU of [N, 4] and [M, 4] boxes (left, top, right, bottom) -> [N, M], from -1 (apart) to 1 (the same)."""
    left, right = a[:, None], b[None]
    inner = np.clip(np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2]), 0, None)
    outer = np.maximum(left[..., 2:], right[..., 2:]) - np.minimum(left[..., :2], right[..., :2])
    shared = inner.prod(-1)
    union = (left[..., 2:] - left[..., :2]).prod(-1) + (right[..., 2:] - right[..., :2]).prod(-1) - shared
    centres = (left[..., :2] + left[..., 2:] - right[..., :2] - right[..., 2:]) / 2
    iou = shared / np.maximum(union, 1e-9)
    return np.asarray(iou - (centres**2).sum(-1) / np.maximum((outer**2).sum(-1), 1e-9))


def assign(cost: Floats, limit: float) -> list[tuple[int, int]]:
    """[N, M] costs -> (row, column) pairs of least total cost, where leaving a row unmatched costs `limit`.

    Exact: the Hungarian method by shortest augmenting paths with potentials (Kuhn 1955; Jonker and Volgenant 1987),
    O(N^2 M); 20 faces take about a millisecond. Pairs that cost `limit` or more are not made.
    """
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T, limit))
    rows, columns = cost.shape
    cost = np.minimum(cost, limit)
    rises, falls = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, dtype=np.int64)  # row (from 1) of each column (from 1); 0 is nobody
    for row in range(1, rows + 1):
        owner[0], here = row, 0
        least, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, dtype=np.int64)
        done = np.zeros(columns + 1, dtype=bool)
        while owner[here]:
            done[here] = True
            slack = cost[owner[here] - 1] - rises[owner[here]] - falls[1:]
            better = ~done[1:] & (slack < least[1:])
            least[1:][better], before[1:][better] = slack[better], here
            reached = int(np.where(done, np.inf, least)[1:].argmin()) + 1
            step = least[reached]
            rises[owner[done]] += step
            falls[done] -= step
            least[~done] -= step
            here = reached
        while here:
            owner[here] = owner[before[here]]
            here = before[here]
    pairs = [(int(owner[column]) - 1, column - 1) for column in range(1, columns + 1) if owner[column]]
    return sorted(pair for pair in pairs if cost[pair] < limit)


def _match(
    tracks: Sequence[Track], faces: Sequence[Detection], time: float, before: float, reach: float
) -> list[tuple[int, int]]:
    """By the predicted places, and of tracks that were seen in the frame `before` by those where they were seen, too:
    a velocity from frames that arrived unevenly is wrong, and where somebody was a moment ago is not.
    """
    if not tracks or not faces:
        return []
    seen = np.stack([_place(face.box) for face in faces])
    cost = _cost(np.stack([track.at(time) for track in tracks]), seen, reach)
    stood = np.stack([_place(track.box) for track in tracks])
    late = np.array([track.last < before for track in tracks])
    cost = np.minimum(cost, np.where(late[:, None], np.inf, _cost(stood, seen, reach)))
    return assign(cost, limit=2.0)  # 1 - DIoU is below 2: whoever is within reach is matched, as well as can be


def _cost(places: Floats, seen: Floats, reach: float) -> Floats:
    """[N, 4] and [M, 4] places -> [N, M]: 1 - DIoU, infinite where two are too far apart or too different in size."""
    cost = 1 - overlaps(_boxes(places), _boxes(seen))
    size = np.exp((places[:, None, 2:] + seen[None, :, 2:]).mean(-1) / 2)  # geometric mean of both boxes' sides
    away = np.linalg.norm(places[:, None, :2] - seen[None, :, :2], axis=-1) / size
    grown = np.abs(places[:, None, 2:] - seen[None, :, 2:]).mean(-1)
    cost[(away > reach) | (grown > math.log(GROWTH))] = np.inf
    return cost


def _place(box: Box) -> Floats:
    left, top, right, bottom = box
    return np.array([(left + right) / 2, (top + bottom) / 2, math.log(right - left), math.log(bottom - top)])


def _boxes(places: Floats) -> Floats:
    half = np.exp(places[:, 2:]) / 2
    return np.concatenate([places[:, :2] - half, places[:, :2] + half], axis=1)
