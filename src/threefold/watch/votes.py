"""Many readings of one face as one statement: votes that are tempered, and silent until they are sure.

Each reading is a distribution. Were the frames of a person independent, their product would be the posterior; they are
not: a beard that is taken for a mask is taken for one in every frame. Readings of one track are treated as a cluster
sample with intraclass correlation r, whose n members are worth n / (1 + (n - 1) r) independent ones (Kish, "Survey
sampling", 1965, the design effect), at most 1 / r however long somebody stands there. So the vote is the weighted mean
of log-probabilities times that number: r = 1 is their geometric mean, r = 0 their product. A reading weighs its
detection's score times how far its surest value is above chance, so that a blurred "perhaps" neither adds nor
dilutes; one that is not good enough to be read (`quality`) weighs nothing. Each reading keeps a share LAPSE
for all values alike: no single frame, however sure of itself, can veto the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.photos.quality import OK
from threefold.read.reading import INDETERMINATE, Reading, reading_model
from threefold.watch.tracks import Track

LAPSE = 0.02
"""Chance that a reading says nothing about its face (a hand, the back of a head): spread over all values."""


@dataclass(frozen=True)
class Rules:
    """When a track has been read enough.

    threshold: the vote's probability from which an attribute is said. frames, seconds: at least so many readings, over
    so long. patience: seconds that a sure mask waits for gender and age group, where they are asked for. least: seconds
    in view below which a track that was never sure is no event. correlation: r of the module, between 0 and 1; 0.3 lets
    a crowd of readings count as three independent ones. quick, slow, rare: seconds between two readings of a track:
    until it is sure, after `many` readings that did not make it sure, and afterwards.
    """

    threshold: float = 0.9
    frames: int = 3
    seconds: float = 0.5
    patience: float = 1.0
    least: float = 1.0
    correlation: float = 0.3
    quick: float = 0.1
    slow: float = 0.5
    rare: float = 1.0
    many: int = 30


class Vote:
    """The pooled opinion on one attribute of `size` values; see the module. `count` readings from `first` to `last`."""

    def __init__(self, size: int, correlation: float) -> None:
        self.correlation = correlation
        self.weight, self.logs = 0.0, np.zeros(size)
        self.count, self.first, self.last = 0, 0.0, 0.0

    def add(self, time: float, probabilities: NDArray[np.floating], trust: float) -> None:
        """One reading: [size] probabilities at `time` seconds; trust 0..1 (the detector's score)."""
        size = len(self.logs)
        shares = np.asarray(probabilities, dtype=np.float64)
        weight = trust * max(0.0, (float(shares.max()) - 1 / size) / (1 - 1 / size))
        self.logs += weight * np.log((1 - LAPSE) * shares + LAPSE / size)
        self.weight += weight
        self.first = self.first if self.count else time
        self.count, self.last = self.count + 1, time

    @property
    def posterior(self) -> NDArray[np.float64]:
        """[size] probabilities; all alike before the first reading."""
        logs = self.logs / (1 + max(0.0, self.weight - 1) * self.correlation)
        shares = np.exp(logs - logs.max())
        return np.asarray(shares / shares.sum())

    def sure(self, rules: Rules) -> bool:
        """True when enough readings over enough time agree surely enough."""
        long = self.last - self.first >= rules.seconds - 1e-9
        return self.count >= rules.frames and long and float(self.posterior.max()) >= rules.threshold


class Opinion:
    """What is thought of one track: gathers readings, and says something once it is sure, and when that changes.

    attributes: a subset of `labels.ATTRIBUTES` with `mask` in it; of the others nothing is kept. mask: the one that was
    announced last; None before.
    """

    def __init__(self, attributes: Sequence[str], rules: Rules) -> None:
        self.rules = rules
        self.votes = {name: Vote(labels.SIZES[name], rules.correlation) for name in attributes}
        self.mask: str | None = None
        self._model = reading_model(attributes, probabilities=False, classes=False)
        self._doubt: Vote | None = None
        self._read, self._readings = -math.inf, 0
        self._sure_since: float | None = None
        self._years, self._years_weight = 0.0, 0.0

    def due(self, time: float) -> bool:
        """Should the face be read now? Often until it is sure or when it seems to have changed, else now and then."""
        rules = self.rules
        pause = rules.quick
        if self._doubt is None and self.mask is not None:
            pause = rules.rare
        elif self._doubt is None and self._readings >= rules.many:
            pause = rules.slow
        return time - self._read >= pause - 1e-9

    def add(self, time: float, reading: Reading, trust: float) -> None:
        """A reading at `time` (seconds) of a detection with the score `trust`; one that is not `ok` only counts as
        looked at.
        """
        self._read = time
        self._readings += 1
        if reading.quality != OK:
            return
        shares = labels.marginals(reading.joint[None])
        for name, vote in self.votes.items():
            if name != "mask":
                vote.add(time, shares[name][0], trust)
        if reading.age is not None and "age_group" in self.votes:
            self._years, self._years_weight = self._years + trust * reading.age, self._years_weight + trust
        mask = shares["mask"][0]
        if self.mask is None or labels.NAMES["mask"][int(mask.argmax())] == self.mask:
            self.votes["mask"].add(time, mask, trust)
            self._doubt = None
        else:  # readings that contradict the announced mask gather in another vote, which one that agrees dissolves
            self._doubt = self._doubt or Vote(labels.SIZES["mask"], self.rules.correlation)
            self._doubt.add(time, mask, trust)

    def settle(self, time: float) -> str | None:
        """What is to be announced now: `event`, the first sure mask, or `changed`, a new one; None most of the time."""
        if self.mask is not None:
            if self._doubt is None or not self._doubt.sure(self.rules):
                return None
            self.votes["mask"], self._doubt = self._doubt, None
            return self._announce("changed")
        if not self.votes["mask"].sure(self.rules):
            self._sure_since = None
            return None
        self._sure_since = time if self._sure_since is None else self._sure_since
        waited = time - self._sure_since >= self.rules.patience - 1e-9
        return self._announce("event") if waited or all(vote.sure(self.rules) for vote in self.votes.values()) else None

    def end(self, seconds: float, frames: int) -> str | None:
        """The track is over after `seconds` in view and `frames` seen: what is left to tell (`event`, or
        `indeterminate`), if anything."""
        if self.mask is not None:
            return None
        if self.votes["mask"].sure(self.rules):
            return self._announce("event")
        enough = seconds >= self.rules.least and frames >= self.rules.frames
        return "indeterminate" if enough else None

    def reading(self, track: Track) -> Reading:
        """The vote so far as a reading of the face where it was seen last; `face` is the track's number.

        An attribute that is not sure is INDETERMINATE, the mask until it was announced. age: the mean of the years that
        were read, None where there are none. confidence: the vote's probability of the mask, or of its likeliest where
        it is indeterminate.
        """
        words = {}
        for name, vote in self.votes.items():
            sure = vote.sure(self.rules) or (name == "mask" and self.mask is not None)
            words[name] = labels.NAMES[name][int(vote.posterior.argmax())] if sure else INDETERMINATE
        confidences = {name: min(1.0, float(vote.posterior.max())) for name, vote in self.votes.items()}
        values: dict[str, Any] = {**words, "confidence": confidences["mask"], "confidences": confidences}
        if "age_group" in words:
            values["age"] = self._years / self._years_weight if self._years_weight else None
        return self._model(face=track.number, box=track.box, score=track.score, quality=OK, **values)

    def _announce(self, kind: str) -> str:
        self.mask = labels.NAMES["mask"][int(self.votes["mask"].posterior.argmax())]
        return kind
