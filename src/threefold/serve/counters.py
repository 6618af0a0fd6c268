"""What the service counts, for Prometheus: one registry per app, so that two apps in a process stay apart.

Numbers of photos, faces and readings, never a photo, a name or an address. What is not served is not counted.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from threefold import labels
from threefold.read.reading import INDETERMINATE

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FACES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one app. attributes: what is served, and so what is counted."""

    def __init__(self, attributes: Sequence[str]) -> None:
        self.registry = registry = CollectorRegistry()
        self.attributes = tuple(attributes)
        about = "From a request's headers to the end of its answer."
        routes = ["route", "status"]
        self.latency = Histogram("threefold_request_seconds", about, routes, buckets=SECONDS, registry=registry)
        about = "Faces that the model read in one call."
        self.batches = Histogram("threefold_batch_faces", about, buckets=FACES, registry=registry)
        self.photos = Counter("threefold_photos", "Photos by what became of them.", ["outcome"], registry=registry)
        self.faces = Counter("threefold_faces", "Faces by their quality.", ["quality"], registry=registry)
        about = "Readings of faces, by attribute and value."
        self.readings = Counter("threefold_readings", about, ["attribute", "value"], registry=registry)
        self.queue = Gauge("threefold_queue_photos", "Photos in work or waiting.", registry=registry)
        self.held = Gauge("threefold_held_bytes", "Bytes of requests in memory.", registry=registry)
        self.ready = Gauge("threefold_ready", "1 when requests are taken.", registry=registry)
        if os.path.exists("/proc/self/stat"):  # noqa: PTH110 - elsewhere the collector has nothing to say
            ProcessCollector(registry=registry)
        for name in attributes:  # a series that is there from the start can be alerted on
            for value in (*labels.NAMES[name], INDETERMINATE):
                self.readings.labels(name, value)

    def count_faces(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """One photo that was read, and its faces."""
        self.photos.labels("read").inc()
        for face in answers:
            self.faces.labels(face["quality"]).inc()
            for name in self.attributes:
                self.readings.labels(name, face[name]).inc()

    def text(self) -> bytes:
        """Everything, in the exposition format."""
        return generate_latest(self.registry)
