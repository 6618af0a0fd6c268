"""Faces that the reader finds: which, how often they are looked for, the bytes the network sees, and their quality."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import Recorder, frame_faces, photo_with
from fake_backend import FakeBackend
from numpy.typing import NDArray
from PIL import Image

from threefold.assets import asset_path
from threefold.draw.camera import draw_photo
from threefold.draw.people import draw_person
from threefold.errors import AssetError, DataError, PhotoError, RunError
from threefold.labels import Mask
from threefold.photos import detect
from threefold.photos.detect import Detection
from threefold.photos.prepare import Prepare
from threefold.photos.quality import Limits, quality, sharpness
from threefold.read import reader as room
from threefold.read.backends import Backend, JoinedBackend
from threefold.read.reader import Reader, by_size, detect_faces, load, read_image
from threefold.read.reading import make_reading

FACE = Prepare(size=(32, 24), crop="face(1.4)")
WHOLE = Prepare(size=(16, 16))
THREE = photo_with((10, 10, 50, 60), (100, 20, 180, 110), (60, 130, 90, 165))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A detector that finds red frames; one number per time it is asked."""
    asked: list[int] = []

    def detected(image: NDArray[np.uint8], far: bool = False) -> list[Detection]:
        asked.append(threading.get_ident())
        return frame_faces(image)

    monkeypatch.setattr(detect, "detect", detected)
    return asked


def test_faces_are_looked_for_once_and_seen_as_prepare_sees_them(looks: list[int]) -> None:
    """Three models, two of them around faces: the boxes are those that each Prepare would have found itself."""
    members: list[Backend] = [Recorder(FACE), Recorder(Prepare(size=(20, 20), crop="face(2)")), Recorder(WHOLE)]
    reading = Reader(JoinedBackend(members))(THREE)
    assert len(looks) == 1 and reading.box == detect.largest(THREE) and reading.score == 0.7
    for member in members:
        assert isinstance(member, Recorder)
        assert member.seen[0][0].tobytes() == member.prepares[0](THREE).tobytes(), "to the byte"


def test_all_the_largest_or_none(looks: list[int]) -> None:
    backend = Recorder(FACE)
    reader = Reader(backend)
    boxes = [reading.box for reading in reader.faces(THREE)]
    assert boxes == [face.box for face in by_size(detect_faces(THREE))] and len(boxes) == 3
    assert boxes[0] == detect.largest(THREE) and boxes == [reading.box for reading in reader.faces(THREE, "all")]
    assert [reading.box for reading in reader.faces(THREE, "largest")] == boxes[:1]
    looks.clear()
    (portrait,) = reader.faces(THREE, "none")
    assert portrait.box is None and portrait.score is None and portrait.quality == "ok" and not looks
    middle = np.full((90, 200, 3), 60, np.uint8)
    (whole,) = reader.faces(middle, "none")
    empty = FACE(middle)
    assert backend.seen[-1][0].tobytes() == empty.tobytes(), "as training takes a photo in which no face is found"
    assert reader.faces(middle) == [] and reader(middle).box is None
    looks.clear()
    assert reader.faces(middle, "largest")[0].code == whole.code and len(looks) == 1
    with pytest.raises(DataError, match=r"faces: 'lagest' is not known .*nearest: largest"):
        reader.faces(THREE, "lagest")


def test_a_model_of_whole_photos_reads_them_whole_unless_faces_are_asked_for(looks: list[int]) -> None:
    backend = Recorder(WHOLE)
    reader = Reader(backend)
    assert reader(THREE).box is None and not looks
    assert backend.seen[-1][0].tobytes() == WHOLE(THREE).tobytes()
    faces = reader.faces(THREE, "all")
    around = Prepare(size=(16, 16), crop="face(1.25)")
    assert [crop.tobytes() for crop in backend.seen[-1]] == [around(THREE, face.box).tobytes() for face in faces]
    reader(THREE, faces[1].box)
    assert backend.seen[-1][0].tobytes() == around(THREE, faces[1].box).tobytes(), "a box is a face that is asked for"
    assert (reader.default_faces, Reader(Recorder(FACE)).default_faces) == ("none", "largest")


def test_the_faces_of_many_photos_come_in_order(looks: list[int], tmp_path: Path) -> None:
    Image.fromarray(THREE).save(tmp_path / "three.png")
    (tmp_path / "broken.png").write_text("no photo")
    empty = np.zeros((30, 30, 3), np.uint8)
    photos = [tmp_path / "three.png", empty, tmp_path / "broken.png", photo_with((5, 5, 60, 60)), THREE] * 3
    backend = Recorder(FACE)
    answers = list(Reader(backend, batch=2).stream_faces(photos, "all"))
    kinds = [answer if isinstance(answer, PhotoError) else len(answer) for answer in answers]
    assert [kind for kind in kinds if isinstance(kind, int)] == [3, 0, 1, 3] * 3
    assert all("broken.png" in str(answers[i]) for i in (2, 7, 12))
    assert max(map(len, backend.seen)) == 2, "however many faces a photo has, the backend is given a batch"
    alone = Reader(FakeBackend(FACE)).faces(THREE)
    assert isinstance(answers[4], list)
    assert [(r.code, r.box) for r in answers[4]] == [(r.code, r.box) for r in alone]
    whole = list(Reader(backend).stream_faces([THREE, empty], None))
    assert isinstance(whole[0], list) and [r.box for r in whole[0]] == [alone[0].box]


def test_photos_are_not_taken_far_ahead() -> None:
    taken = []

    def endless() -> Iterator[NDArray[np.uint8]]:
        for i in range(10**9):
            taken.append(i)
            yield np.full((20, 20, 3), i % 250, np.uint8)

    stream = Reader(FakeBackend(WHOLE), batch=4).stream_faces(endless(), "none")
    for count in range(1, 40):
        next(stream)
        assert len(taken) <= count + 8
    stream.close()  # type: ignore[attr-defined]


def test_threads_that_share_a_reader_read_what_each_reads_alone(looks: list[int]) -> None:
    rng = np.random.default_rng(0)
    photos = [photo_with((5, 5, 45, 50), (60 + i, 20, 100 + i, 90), shade=int(rng.integers(250))) for i in range(24)]
    reader = Reader(JoinedBackend([FakeBackend(FACE), FakeBackend(WHOLE)]), batch=3)
    alone = [[(r.code, r.box, r.joint.tobytes()) for r in reader.faces(photo)] for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        single = pool.map(reader.faces, photos)
        streams = [pool.submit(lambda: list(reader.stream_faces(photos))) for _ in range(3)]
        for answers in [single, *(task.result() for task in streams)]:
            got = [[(r.code, r.box, r.joint.tobytes()) for r in faces] for faces in answers]  # type: ignore[union-attr]
            assert got == alone
    assert len(set(looks)) > 1, "several threads did look"


def test_small_and_blurred_faces_are_indeterminate_not_guessed(looks: list[int]) -> None:
    photo = photo_with((10, 10, 33, 60), (60, 10, 160, 120))
    large, small = Reader(FakeBackend(FACE)).faces(photo)
    assert (large.quality, small.quality) == ("ok", "small") and small.indeterminate == ("mask", "gender", "age_group")
    assert large.mask != "indeterminate" and small.joint.sum() == pytest.approx(1) and 0 <= small.code < 18
    patient = Reader(FakeBackend(FACE), limits=Limits(min_face=0, min_sharpness=0))
    assert [r.quality for r in patient.faces(photo)] == ["ok", "ok"] and not patient.faces(photo)[1].indeterminate
    blurred = cv2.GaussianBlur(photo, (0, 0), 8)
    box = (60.0, 10.0, 160.0, 120.0)
    assert quality(np.asarray(blurred, np.uint8), box, Limits()) == "blurred"
    assert Reader(FakeBackend(FACE))(np.asarray(blurred, np.uint8), box).indeterminate == (
        "mask",
        "gender",
        "age_group",
    )
    assert make_reading(np.full(18, 1 / 18, np.float32), None, quality="blurred").mask == "indeterminate"


def test_sharpness_does_not_depend_on_size_light_or_contrast() -> None:
    face = photo_with((0, 0, 128, 128), size=(128, 128))
    box = (0.0, 0.0, 128.0, 128.0)
    sharp = sharpness(face, box)
    twice = np.asarray(cv2.resize(face, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert sharpness(twice, (0.0, 0.0, 256.0, 256.0)) == pytest.approx(sharp, rel=0.1)
    assert sharpness((face // 3 + 20).astype(np.uint8), box) == pytest.approx(sharp, rel=0.1)
    falling = [sharpness(np.asarray(cv2.GaussianBlur(face, (0, 0), s), np.uint8), box) for s in (1, 2, 4, 8, 16)]
    assert sharp > falling[0] and falling == sorted(falling, reverse=True)
    assert sharpness(np.full((50, 50, 3), 9, np.uint8), (0, 0, 50, 50)) == 0
    assert sharpness(face, (-50, 0, -10, 40)) == 0 and sharpness(face, (5, 5, 5.4, 90)) == 0


def test_limits_are_checked() -> None:
    assert Limits.from_dict(None) == Limits() and Limits.from_dict({"min_face": 40}) == Limits(min_face=40)
    for values, message in (({"min_fase": 3}, "nearest: min_face"), ({"min_face": -1}, "0 or more"), ([], "expected {"),
                         ({"min_sharpness": "x"}, "0 or more")):  # fmt: skip
        with pytest.raises(RunError, match=message):
            Limits.from_dict(values, "model.onnx")


def test_photos_are_read_from_bytes_and_files(tmp_path: Path) -> None:
    Image.fromarray(THREE).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(read_image(data, "x"), THREE) and np.array_equal(read_image(tmp_path / "a.png"), THREE)
    with pytest.raises(PhotoError, match=r"^up\.png: .* pixels are too many"):
        read_image(data, "up.png", 100)
    with pytest.raises(PhotoError, match=r"^up\.png: .* pixels are too many"):
        read_image(tmp_path / "a.png", "up.png", 100)


def test_what_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "BUNDLED", tmp_path / "none.onnx")
    with pytest.raises(RunError, match=r"no bundled reader.*--model"):
        load()
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(RunError, match=r"nearest: model\.onnx"):
        load(tmp_path / "modle.onnx")
    with pytest.raises(RunError, match=r"model\.onnx"):
        load(tmp_path / "model.onnx")
    with pytest.raises(RunError, match="no such run"):
        load(tmp_path / "gone")
    with pytest.raises(RunError, match="threads are of an exported model"):
        load(tmp_path, threads=2)


def found_here() -> bool:
    try:
        return asset_path("yunet").is_file()
    except AssetError:
        return False


@pytest.mark.skipif(not found_here(), reason="the detector is not here: `threefold assets yunet`")
@pytest.mark.parametrize("mask", list(Mask))
def test_with_the_real_detector_the_bytes_are_those_of_prepare(mask: Mask) -> None:
    image, _ = draw_photo(draw_person(0, int(mask)), mask, np.random.default_rng(0), (256, 192))
    backend = Recorder(FACE)
    reading = Reader(backend)(image)
    assert reading.box == detect.largest(image) and backend.seen[0][0].tobytes() == FACE(image).tobytes()
    assert reading.box is None or (reading.score or 0) >= detect.SCORE
