import csv
import hashlib
import re
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from threefold import labels
from threefold.data.layouts import CONTEST_MASKS
from threefold.draw import sample as stage
from threefold.draw.camera import draw_photo
from threefold.draw.people import AGES, TRAITS, draw_person
from threefold.draw.sample import draw_files, person_id, sample
from threefold.errors import DataError
from threefold.labels import Mask

SIZE = (64, 48)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("drawn") / "set", people=24, size=SIZE).out


def test_train_is_in_the_contests_layout(drawn: Path) -> None:
    rows = table(drawn / "train/train.csv")
    assert list(rows[0]) == ["id", "gender", "race", "age", "path"]
    assert len(rows) == len({row["id"] for row in rows}) == 24
    assert {path.name for path in (drawn / "train/images").iterdir()} == {row["path"] for row in rows}
    for row in rows:
        assert row["path"] == f"{row['id']}_{row['gender']}_Drawn_{row['age']}"
        files = sorted(path.name for path in (drawn / "train/images" / row["path"]).iterdir())
        assert files == sorted(f"{stem}.jpg" for stem in CONTEST_MASKS)
    photo = simplejpeg.decode_jpeg(next((drawn / "train/images").glob("*/normal.jpg")).read_bytes())
    assert photo.shape == (*SIZE, 3)


def test_eval_hides_what_answers_tell(drawn: Path) -> None:
    info, answers = table(drawn / "eval/info.csv"), table(drawn / "eval/answers.csv")
    assert [row["ImageID"] for row in info] == [row["ImageID"] for row in answers]
    assert {path.name for path in (drawn / "eval/images").iterdir()} == {row["ImageID"] for row in info}
    assert all(row["ans"] == "0" and re.fullmatch(r"[0-9a-f]{40}\.jpg", row["ImageID"]) for row in info)
    people: dict[str, list[tuple[int, int, int]]] = {}
    for row in answers:
        mask, gender, group = labels.decode(int(row["ans"]))
        assert group == labels.age_group(int(row["age"]))
        people.setdefault(row["person"], []).append((mask, gender, int(row["age"])))
    assert len(people) == 16
    assert not people.keys() & {row["id"] for row in table(drawn / "train/train.csv")}
    for photos in people.values():
        assert sorted(mask for mask, _, _ in photos) == [0] * 5 + [1, 2]
        assert len({photo[1:] for photo in photos}) == 1
    neighbours = [a["person"] == b["person"] for a, b in pairwise(answers)]
    assert np.mean(neighbours) < 0.2


@pytest.mark.parametrize("first", [0, stage._EVAL_FROM])
def test_labels_are_dealt(first: int) -> None:
    people = [draw_person(3, first + index) for index in range(200)]
    ages = np.array([person.age for person in people])
    group, gender = np.array([person.group for person in people]), np.array([person.gender for person in people])
    assert gender.mean() == 0.5
    assert (ages.min() >= AGES[0], ages.max() <= AGES[1]) == (True, True)
    np.testing.assert_allclose(np.bincount(group) / 200, [0.35, 0.4, 0.25])
    for count in (6, 16, 24):
        assert len({(person.gender, person.group) for person in people[:count]}) == 6
    assert len({person.gender for person in people[::2]}) == 2  # the order within a pair tells nothing
    assert len({person_id(3, first + index) for index in range(5000)}) == 5000


def test_same_bytes_whatever_the_workers(drawn: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"people": 6, "eval_people": 2, "size": SIZE}
    result = sample(tmp_path / "a", workers=1, **small)
    assert result.lines() == [f"{tmp_path / 'a'}: 6 people in train, 2 people in eval, 56 photos"]
    assert result.data() == {"out": tmp_path / "a", "people": {"train": 6, "eval": 2}, "photos": 56, "remarks": {}}
    one, two = result.out, sample(str(tmp_path / "b"), workers=2, **small).out
    assert contents(one) == contents(two)
    whole = contents(drawn)  # the first people of 24 are the people of 6
    photos = {name: digest for name, digest in contents(one).items() if name.endswith(".jpg")}
    assert photos.items() <= whole.items()
    other = contents(sample(tmp_path / "c", workers=1, seed=1, **small).out)
    assert not set(other.values()) & set(photos.values())


def test_landmarks_lie_on_the_face(drawn: Path) -> None:
    with np.load(drawn / "train/landmarks68.npz") as data:
        files, points = data["files"], data["xy"]
    assert points.shape == (24, 68, 2)
    assert points.dtype == np.float32
    assert sorted(files) == sorted(f"images/{row['path']}/normal.jpg" for row in table(drawn / "train/train.csv"))
    assert (points > 0).all()
    assert (points < SIZE[::-1]).all()
    left, right, mouth = (points[:, part].mean(1) for part in (slice(36, 42), slice(42, 48), slice(48, 68)))
    nose = points[:, 33]
    assert (left[:, 0] < right[:, 0]).all()
    assert (np.maximum(left, right)[:, 1] < nose[:, 1]).all()
    assert (nose[:, 1] < mouth[:, 1]).all()
    assert (mouth[:, 1] < points[:, 8, 1]).all()


def test_landmarks_find_the_pixels() -> None:
    """The pupil between the points of an eye is darker than the cheek below it, in most people."""
    darker = []
    for index in range(20):
        photo, points = draw_photo(draw_person(0, index), Mask.NONE, np.random.default_rng(index), (256, 192))
        grey = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(float)
        (x, y), (u, v) = points[36:42].mean(0).round().astype(int), points[[1, 31, 29]].mean(0).round().astype(int)
        darker.append(grey[y - 2 : y + 3, x - 2 : x + 3].min() < grey[v - 2 : v + 3, u - 2 : u + 3].mean() - 15)
    assert np.mean(darker) > 0.8


def test_traits_overlap_and_age_is_continuous() -> None:
    people = [draw_person(0, index) for index in range(600)]
    gender, ages = np.array([person.gender for person in people]), np.array([person.age for person in people])
    for name in TRAITS:
        value = np.array([person[name] for person in people])
        cuts = np.quantile(value, np.linspace(0.02, 0.98, 40))
        split = max(max(np.mean((value > cut) == gender), np.mean((value > cut) != gender)) for cut in cuts)
        assert split < 0.93, name
        near = value[np.abs(ages - 30) <= 2], ages[np.abs(ages - 30) <= 2] >= 30
        assert abs(near[0][near[1]].mean() - near[0][~near[1]].mean()) < 1.2 * near[0].std(), name


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = sample(tmp_path / "set", people=6, eval_people=0, size=(32, 32), seed=4).out
    before = contents(out)
    assert not (out / "eval").exists()
    with pytest.raises(DataError, match=r"set: is already there and not an empty folder"):
        sample(out, people=6, size=(32, 32))
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": 5}, "people 5: expected 6 to 100,000"),
        ({"eval_people": -1}, "eval people -1: expected 0 to"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
        ({"size": (512, 5000)}, "width 5,000: expected 32 to 2,048"),
        ({"workers": 0}, "workers 0: expected 1 or more"),
    ],
)
def test_absurd_numbers_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        sample(tmp_path / "set", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("x")
    with pytest.raises(DataError, match="is already there and not an empty folder"):
        sample(tmp_path / "set")
    with pytest.raises(DataError, match=r"below.*cannot be written"):
        sample(tmp_path / "set/below")


def test_nothing_is_left_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "bar", lambda title: nullcontext(stop))
    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            sample(tmp_path / "set", people=6, size=(32, 32), seed=9, workers=workers)
        assert not list(tmp_path.iterdir())


def accuracy(pixels: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Balanced accuracy of a linear probe on people it has not seen; seven photos each, in order."""
    flat, person = pixels.reshape(len(pixels), -1), np.arange(len(pixels)) // len(CONTEST_MASKS)
    probe = RidgeClassifier(alpha=100, class_weight="balanced")
    guess = cross_val_predict(probe, flat - flat.mean(0), truth, groups=person, cv=GroupKFold(4))
    return float(balanced_accuracy_score(truth, guess))


def test_faces_tell_the_labels_and_the_background_does_not(tmp_path: Path) -> None:
    files = [file for index in range(90) for file in draw_files(index, out=tmp_path, seed=0, size=SIZE)]
    data = [(tmp_path / "train" / file.path).read_bytes() for file in files]
    photos = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in data]).astype(np.float32) / 255
    truth = np.array([labels.decode(file.label) for file in files])
    small = np.stack([cv2.resize(photo, (24, 32), interpolation=cv2.INTER_AREA) for photo in photos])
    frame = np.concatenate(
        [photos[:, [0, 1, -2, -1]].reshape(630, -1), photos[:, :, [0, 1, -2, -1]].reshape(630, -1)], 1
    )
    for part, (name, size) in enumerate(labels.SIZES.items()):
        assert accuracy(small, truth[:, part]) > 1 / size + 0.17, name
        assert accuracy(frame, truth[:, part]) < 1 / size + 0.06, name
        assert abs(np.corrcoef([len(jpeg) for jpeg in data], truth[:, part])[0, 1]) < 0.2, name
