"""One path from photo to network: the same question has the same bytes at every door, for both kinds of models.

Questions: the face in this box, the whole photo, and nothing said, which is the model's to answer. Doors: the cache
that trains, `predict`, a Reader, the service, `watch` and an exported file. Each is given a photo and the arrays that
it hands to its network are kept.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_faces import Recorder, frame_faces, photo_with
from numpy.typing import NDArray
from PIL import Image
from test_onnx import build, info

from threefold.photos import detect
from threefold.photos.cache import open_cache
from threefold.photos.decode import Box
from threefold.photos.prepare import PORTRAIT, FaceBox, Prepare
from threefold.read.onnx import OnnxBackend
from threefold.read.predict import predict
from threefold.read.reader import Reader
from threefold.watch.frames import Frame
from threefold.watch.watch import Watch

BOX: Box = (100.0, 20.0, 180.0, 110.0)
PHOTO = photo_with((10, 10, 50, 60), (100, 20, 180, 110))
FACE = Prepare(size=(24, 18), crop="face(1.4)")
WHOLE = Prepare(size=(16, 20), crop="none")
CENTRE = Prepare(size=(16, 16), crop="centre(100,80)", interpolation="bilinear")
MODELS = [pytest.param(FACE, id="face"), pytest.param(WHOLE, id="whole"), pytest.param(CENTRE, id="centre")]


@dataclass(frozen=True)
class Framed:
    photo: Path
    box: Box | None = None


@pytest.fixture(autouse=True)
def frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "detect", lambda image, far=False: frame_faces(image))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def cached(prepare: Prepare, photo: Path, box: Box | None) -> bytes:
    return open_cache([Framed(photo, box)], prepare, root=photo.parent / "cache")[0].tobytes()


def read(prepare: Prepare, photo: Path, which: str | None) -> bytes:
    backend = Recorder(prepare)
    Reader(backend).faces(photo, which)
    return backend.seen[-1][0].tobytes()


def predicted(monkeypatch: pytest.MonkeyPatch, prepare: Prepare, photo: Path, which: str | None) -> bytes:
    backend = Recorder(prepare)
    with monkeypatch.context() as patched:
        patched.setattr("threefold.read.predict.load", lambda model, decision: Reader(backend))
        predict([photo], faces=which)
    return backend.seen[-1][0].tobytes()


def served(prepare: Prepare, photo: Path, which: str | None) -> bytes:
    """Through the service and its batching, from the bytes that are sent."""
    pytest.importorskip("fastapi", reason="the web framework is not installed (threefold[serve])")
    from threefold.serve.batching import BatchingBackend
    from threefold.serve.body import Upload
    from threefold.serve.limits import RequestLimits
    from threefold.serve.work import Service

    recorder = Recorder(prepare)
    batching = BatchingBackend(recorder)
    service = Service(Reader(batching), ["mask"], RequestLimits(), 2)
    try:
        upload: Any = Upload("photo.png", photo.read_bytes())
        asyncio.run(service.read([upload], which))
    finally:
        service.close()
        batching.close()
    return recorder.seen[-1][0].tobytes()


def watched(prepare: Prepare, box: Box) -> bytes:
    backend = Recorder(prepare)
    faces = [face for face in frame_faces(PHOTO) if face.box == box]
    watch = Watch("door", ["mask"], lambda image: faces, Reader(backend), lambda event: None)
    watch.step(Frame(PHOTO, 0.0, datetime(2026, 12, 1, tzinfo=UTC)))
    return backend.seen[-1][0].tobytes()


def exported(monkeypatch: pytest.MonkeyPatch, prepare: Prepare, photo: Path, box: Box | None) -> bytes:
    """What the graph of an exported file is given."""
    backend = OnnxBackend(build(info((prepare,)), (prepare,)))
    run, inputs = backend._session.run, []
    session = type("Session", (), {"run": lambda _, names, feed: inputs.append(feed["photos"]) or run(names, feed)})
    monkeypatch.setattr(backend, "_session", session())
    Reader(backend)(photo, box)
    array: NDArray[np.uint8] = inputs[-1][0]
    return array.tobytes()


@pytest.mark.parametrize("prepare", MODELS)
def test_the_face_in_a_box_is_the_same_at_every_door(
    monkeypatch: pytest.MonkeyPatch, photo: Path, prepare: Prepare
) -> None:
    face = prepare.face(PHOTO, BOX).tobytes()
    assert face == read(prepare, photo, "largest") == predicted(monkeypatch, prepare, photo, "largest")
    assert face == served(prepare, photo, "largest") == watched(prepare, BOX)
    assert face == exported(monkeypatch, prepare, photo, BOX)
    if prepare.finds_faces:
        assert face == cached(prepare, photo, BOX) == cached(prepare, photo, None), "the largest is that in the box"
    else:
        around = Prepare(size=prepare.size, crop="face(1.25)", interpolation=prepare.interpolation)
        assert FaceBox(1.25) == PORTRAIT and face == around(PHOTO, BOX).tobytes()


@pytest.mark.parametrize("prepare", MODELS)
def test_the_whole_photo_is_the_same_at_every_door(
    monkeypatch: pytest.MonkeyPatch, photo: Path, prepare: Prepare
) -> None:
    whole = prepare.whole(PHOTO).tobytes()
    assert whole == read(prepare, photo, "none") == predicted(monkeypatch, prepare, photo, "none")
    assert whole == served(prepare, photo, "none")
    if not prepare.finds_faces:
        assert whole == cached(prepare, photo, None) == cached(prepare, photo, BOX), "training has no use for a box"
        assert whole == exported(monkeypatch, prepare, photo, None)


@pytest.mark.parametrize("prepare", MODELS)
def test_when_nothing_is_said_every_door_reads_what_the_model_was_trained_on(
    monkeypatch: pytest.MonkeyPatch, photo: Path, prepare: Prepare
) -> None:
    trained = cached(prepare, photo, None)
    assert trained == read(prepare, photo, None) == predicted(monkeypatch, prepare, photo, None)
    assert trained == served(prepare, photo, None) == exported(monkeypatch, prepare, photo, None)
    assert trained == read(prepare, photo, Reader(Recorder(prepare)).default_faces)


def test_a_photo_without_a_face_is_read_as_training_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(photo_with(shade=70)).save(data, "PNG")
    (tmp_path / "empty.png").write_bytes(data.getvalue())
    trained = cached(FACE, tmp_path / "empty.png", None)
    for which in (None, "largest", "none"):
        assert trained == read(FACE, tmp_path / "empty.png", which) == served(FACE, tmp_path / "empty.png", which)
        assert trained == predicted(monkeypatch, FACE, tmp_path / "empty.png", which)
