"""The reader above any backend: order, broken photos, and the same bytes that training saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import Recorder
from fake_backend import FakeBackend
from helpers import contest, square
from PIL import Image

from threefold import labels
from threefold.data.sources import read_faces
from threefold.errors import DataError, PhotoError
from threefold.evidence.decide import Decision
from threefold.photos.cache import open_cache
from threefold.photos.prepare import Prepare
from threefold.read.inputs import find_photos
from threefold.read.reader import Reader
from threefold.read.reading import Reading, make_reading


@pytest.mark.parametrize(
    "prepare",
    [
        Prepare(size=(32, 24)),
        Prepare(size=(24, 24), crop="centre(30,20)"),
        Prepare(size=(16, 12), crop="face(1.4)", interpolation="bilinear"),
    ],
)
def test_the_network_sees_the_same_bytes_in_training_and_in_prediction(tmp_path: Path, prepare: Prepare) -> None:
    """The most expensive fault of the field was a test photo prepared unlike the training photos."""
    contest(tmp_path / "data", people=4, eval_people=0)
    faces = [replace(face, box=(4.0, 6.0, 26.0, 33.0)) for face in read_faces(tmp_path / "data")]
    turned = Image.Exif()
    turned[0x0112] = 8
    Image.open(faces[0].photo).save(faces[0].photo, exif=turned)  # one photo stands on its side
    cached = open_cache(faces, prepare, root=tmp_path / "cache")
    backend = Recorder(prepare)
    Reader(backend, batch=5).read([(face.photo, face.box if prepare.finds_faces else None) for face in faces])
    seen = np.concatenate(backend.seen)
    assert seen.dtype == cached.dtype == np.uint8 and seen.tobytes() == cached.tobytes()
    again = Recorder(prepare)
    Reader(again)(np.asarray(Image.open(faces[5].photo).convert("RGB")), faces[5].box if prepare.finds_faces else None)
    assert np.abs(again.seen[0].astype(int) - cached[5].astype(int)).max() <= 2, "a camera's pixels take the same way"


def test_a_face_box_that_is_given_is_used_and_told(tmp_path: Path) -> None:
    square(1, 0, 0, 0, 0).save(tmp_path / "a.png")
    reader = Reader(FakeBackend(Prepare(size=(16, 12), crop="face(1.4)")))
    assert reader(tmp_path / "a.png", (4, 6, 26, 33)).box == (4, 6, 26, 33)
    with pytest.raises(PhotoError, match=r"a\.png: face box .* does not lie on the photo"):
        reader(tmp_path / "a.png", (400, 6, 426, 33))


def test_readings_come_in_order_and_broken_photos_in_their_place(tmp_path: Path) -> None:
    files = []
    for i in range(23):
        files.append(tmp_path / f"{i}.png")
        Image.new("RGB", (20, 20), (i * 11,) * 3).save(files[-1])
    files[7].write_text("no photo")
    answers = list(Reader(FakeBackend(Prepare(size=(8, 8))), batch=4).stream(files))
    for i, answer in enumerate(answers):
        if i == 7:
            assert isinstance(answer, PhotoError) and "7.png" in str(answer)
        else:
            assert isinstance(answer, Reading) and answer.code == int(i * 11 / 256 * 18)
    with pytest.raises(PhotoError, match=r"7\.png"):
        Reader(FakeBackend()).read(files)
    assert Reader(FakeBackend())(str(files[3])).code == answers[3].code  # type: ignore[union-attr]


def test_all_photos_broken_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no photo")
    assert [type(a) for a in Reader(FakeBackend()).stream([tmp_path / "x.jpg"] * 3)] == [PhotoError] * 3


def test_a_reading_names_the_most_probable_class() -> None:
    for code in range(18):
        probabilities = np.full(18, 0.01, dtype=np.float32)
        probabilities[code] = 0.83
        reading = make_reading(probabilities, 44.0)
        mask, gender, group = labels.decode(code)
        assert (reading.mask, reading.gender, reading.age_group) == (
            labels.NAMES["mask"][mask], labels.NAMES["gender"][gender], labels.NAMES["age_group"][group]
        )  # fmt: skip
        assert reading.code == code and reading.confidence == pytest.approx(0.83) and reading.age == 44.0


def test_a_decision_calibrates_and_prefers_and_is_silent() -> None:
    """Two classes at 0.5 and 0.4: tempered by 2 they stand as their roots; the rule says the second."""
    probabilities = np.full(18, 0.1 / 16, dtype=np.float32)
    probabilities[[1, 2]] = 0.5, 0.4
    prefer = tuple(float(code % 3 == 2) for code in range(18))
    tempered = Decision({"mask": 1.0, "gender": 1.0, "age_group": 2.0}, prefer, None,
                        {"mask": 0.5, "gender": 0.95, "age_group": 0.0})  # fmt: skip
    reading = make_reading(probabilities, None, None, tempered)
    assert (reading.code, reading.mask, reading.gender, reading.age_group) == (2, "worn", "indeterminate", ">=60")
    assert reading.indeterminate == ("gender",) and reading.raw.tobytes() == probabilities.tobytes()
    assert reading.joint.dtype == np.float32 and reading.joint.sum() == pytest.approx(1)
    ages = np.sqrt(probabilities.reshape(3, 2, 3).sum((0, 1)))
    assert reading.confidences["age_group"] == pytest.approx(ages[2] / ages.sum(), abs=1e-5)
    others = [labels.marginals(joint[None].astype(float)) for joint in (reading.joint, probabilities)]
    for name in ("mask", "gender"):  # are not tempered, so they stay
        assert np.allclose(*(joint[name] for joint in others), atol=1e-5)
    assert reading.confidence == pytest.approx(reading.joint[2])
    by_years = Decision(years_cuts=(30, 57))
    assert [make_reading(probabilities, age, None, by_years).code % 3 for age in (29.9, 57.0, None)] == [0, 2, 1]
    photo = np.zeros((20, 20, 3), np.uint8)
    plain, ruled = Reader(FakeBackend()), Reader(FakeBackend(), decision=Decision(offsets=(0.0,) * 17 + (9.0,)))
    assert (plain(photo).code, ruled(photo).code) == (0, 17)


def test_photos_are_found_in_a_stable_order_without_junk(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.JPG", "a.png", "b/._2.jpg", ".hidden/x.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        square(1, 0, 0, 0, 0).save(tmp_path / name, format="JPEG")
    assert [name for name, _ in find_photos([tmp_path])] == ["a.png", "b/10.JPG", "b/2.jpg"]
    assert [name for name, _ in find_photos([tmp_path / "notes.txt"])] == [str(tmp_path / "notes.txt")]
    with pytest.raises(DataError, match=r"nearest: .*a\.png"):
        find_photos([tmp_path / "a.pgn"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos here"):
        find_photos([tmp_path / "empty"])
