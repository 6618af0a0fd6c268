"""`eda` in numbers: counts and measures against naive ones; planted shortcuts are found, none where there is none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import MASKS, contest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from threefold import labels
from threefold.data.check import check
from threefold.data.duplicates import person_groups
from threefold.data.eda import QUANTILES, Looks, describe, look, measure
from threefold.data.face import Face, truth
from threefold.data.sources import read_faces
from threefold.errors import AssetError
from threefold.pages import shortcuts as room
from threefold.pages.shortcuts import free, noise, shortcuts
from threefold.photos.decode import PhotoInfo

NONE = np.zeros((0, 2), dtype=np.int64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return contest(tmp_path_factory.mktemp("eda"), people=12, eval_people=0) / "train"


@pytest.fixture(autouse=True)
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise AssetError(f"{name}: is not on this machine")

    monkeypatch.setattr("threefold.data.eda.asset_path", missing)


def people(count: int = 60, seed: int = 0, photos: int = 7) -> list[Face]:
    """Seven photos each of `count` persons, genders and age groups in turn."""
    stems = list(MASKS.values())[:photos]
    years = (22.0, 44.0, 60.0)
    return [
        Face(Path(f"{i}/{n}.jpg"), f"p{i}", f"{i}/{n}.jpg", mask, i % 2, years[i // 2 % 3], i // 2 % 3, "a")
        for i in range(count) for n, mask in enumerate(stems)
    ]  # fmt: skip


def random_looks(faces: list[Face], seed: int = 0) -> Looks:
    """Photos that show nothing: the same kind of noise for all, a person's seven alike."""
    rng = np.random.default_rng(seed)
    of = np.unique([face.person for face in faces], return_inverse=True)[1]
    patterns = rng.normal(120, 30, (of.max() + 1, 24, 18, 3))[of]
    thumbs = np.clip(patterns + rng.normal(0, 10, patterns.shape), 0, 255).astype(np.uint8)
    numbers = (rng.normal(100, 20, (of.max() + 1, 4))[of] + rng.normal(0, 5, (len(of), 4))).astype(np.float32)
    here, nan = np.ones(len(of), dtype=bool), np.full((len(of), 4), np.nan, dtype=np.float32)
    infos: list[PhotoInfo | None] = [PhotoInfo("jpeg", 384, 512, "RGB", 1, 1)] * len(of)
    return Looks(here, infos, numbers, thumbs, nan, ~here, {})


def groups(faces: list[Face]) -> NDArray[np.int64]:
    return person_groups([face.person for face in faces], NONE)


def verdicts(faces: list[Face], looks: Looks) -> dict[tuple[str, str], str]:
    rows = shortcuts(faces, looks, groups(faces), draws=300)
    return {(one["attribute"], one["part"]): one["verdict"] for one in rows}


def test_counts_are_those_of_a_loop(tiny: Path) -> None:
    faces = read_faces(f"contest:{tiny}")
    counts = describe(faces, check(f"contest:{tiny}"), measure(faces))
    assert counts.total == {"photos": 84, "persons": 12} and counts.photos_per_person == {7: 12} and counts.odd == {}
    for code in range(18):
        rows = [face for face in faces if face.label == code]
        assert counts.classes[labels.class_name(code)] == {
            "photos": len(rows),
            "persons": len({f.person for f in rows}),
        }
    assert counts.attributes["mask"]["worn"] == {"photos": 60, "persons": 12}
    assert counts.attributes["mask"]["unknown"] == {"photos": 0, "persons": 0}
    assert counts.groups["female >=60"] == {"photos": 14, "persons": 2}
    assert counts.years == {22: {"male": 2, "female": 2}, 44: {"male": 2, "female": 2}, 60: {"male": 2, "female": 2}}
    assert counts.sources["train"]["values"]["age_group"] == {"<30": 28, "30-59": 28, ">=60": 28, "unknown": 0}
    assert counts.faces is None


def test_a_person_with_other_photos_is_told_and_unknown_labels_are_counted(tiny: Path) -> None:
    faces = [face for face in people(10) if not (face.person == "p3" and face.mask == 2)]
    faces += [Face(Path("x.jpg"), "p4", "x.jpg", source="b")]
    counts = describe(faces, check(f"contest:{tiny}"), random_looks(faces))
    assert counts.odd == {"p3": 6, "p4": 8} and counts.photos_per_person == {6: 1, 7: 8, 8: 1}
    assert counts.attributes["gender"]["unknown"] == {"photos": 1, "persons": 1}
    assert counts.sources["b"]["values"]["mask"] == {"worn": 0, "incorrect": 0, "none": 0, "unknown": 1}
    assert Counter(n for by in counts.years.values() for n in by.values()) == Counter([2, 2, 2, 2, 1, 1])


def test_what_is_measured_is_what_the_formulas_say(tmp_path: Path) -> None:
    """At 256 pixels nothing is resized, so numpy by hand gives the same; blur and darkness move what they should."""
    picture = np.random.default_rng(0).integers(0, 200, (256, 192, 3)).astype(np.uint8)
    picture[:, :96, 0] += 50
    files = {"sharp": picture, "blurred": cv2.GaussianBlur(picture, (0, 0), 3), "dark": picture // 3}
    for name, image in files.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[:, :, ::-1])
    seen = {name: look((tmp_path / f"{name}.png", False)) for name in files}
    assert all(seen.values())
    info, numbers, thumb, small, box = seen["sharp"] or ()
    grey = np.round(picture @ [0.299, 0.587, 0.114])
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * grey
    red, green, blue = picture.astype(float).transpose(2, 0, 1)
    rg, yb = red - green, (red + green) / 2 - blue
    colour = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert numbers == pytest.approx([grey.mean(), grey.std(), laplacian.var(), colour], rel=0.01)
    assert (info.width, info.height, info.format) == (192, 256, "png") and np.isnan(box).all()
    assert thumb.shape == (24, 18, 3) and small.shape == (64, 48, 3)
    assert small[0, 0] == pytest.approx(picture[:4, :4].mean((0, 1)), abs=1)
    assert seen["blurred"][1][2] < numbers[2] / 20 and seen["dark"][1][0] == pytest.approx(numbers[0] / 3, abs=1)


def test_quantiles_and_mean_pictures_are_over_the_photos_that_have_the_label(tiny: Path) -> None:
    faces = read_faces(f"contest:{tiny}")
    looks = measure(faces)
    counts = describe(faces, check(f"contest:{tiny}"), looks)
    female = truth(faces)[:, 1] == 1
    expected = np.quantile(looks.numbers[female, 0].astype(float), QUANTILES)
    assert counts.looks["brightness"]["gender"]["female"] == pytest.approx(expected, abs=1e-3)
    assert counts.looks["aspect"]["mask"]["none"] == [0.8] * 5 and "unknown" not in counts.looks["aspect"]["mask"]
    single = [look((face.photo, False)) for face in faces if face.label == 5]
    assert np.abs(looks.pictures["all", 5] - np.mean([one[3] for one in single if one], axis=0)).max() <= 1


def test_a_photo_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    root = contest(tmp_path, people=12, eval_people=0) / "train"
    bad = next(root.glob("images/*/normal.jpg"))
    bad.write_bytes(bad.read_bytes()[:400])
    faces = read_faces(f"contest:{root}")
    looks = measure(faces)
    assert [faces[row].photo for row in np.flatnonzero(~looks.read)] == [bad]
    counts = describe(faces, check(f"contest:{root}"), looks)
    assert counts.total["photos"] == 84 and [p.kind for p in counts.check.problems] == ["unreadable photos"]
    used = {one["attribute"]: one["photos"] for one in shortcuts(faces, looks, groups(faces), draws=50)}
    assert used["mask"] == 83


def test_faces_are_looked_for_where_the_detector_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threefold.data.eda.asset_path", Path)
    monkeypatch.setattr("threefold.data.eda.FACES", 40)
    boxes = iter([None, *[(8.0, 10.0, 24.0, 30.0)] * 39])
    monkeypatch.setattr("threefold.data.eda.largest", lambda image: next(boxes))
    faces = read_faces(f"contest:{tiny}")
    looks = measure(faces)
    assert looks.looked.sum() == 40 and np.isfinite(looks.boxes[:, 0]).sum() == 39
    result = describe(faces, check(f"contest:{tiny}"), looks).faces
    assert result and (result["photos"], result["found"]) == (40, 39)
    assert result["height"] == [0.5] * 5 and result["off"] == [0.0] * 5
    assert sum(c["photos"] for c in result["by_mask"].values()) == 40


def test_cells_that_faces_reach_into_are_not_background() -> None:
    looks = random_looks(people(40))
    assert free(looks).all()
    looks.boxes[:20] = (0.25, 0.25, 0.75, 0.75)  # grown by a tenth: 0.2 to 0.8
    expected = np.ones((24, 18), dtype=bool)
    expected[5:19, 4:14] = False  # centres of rows (r + 0.5) / 24 and columns (c + 0.5) / 18 inside
    assert (free(looks) == expected).all()
    looks.boxes[0] = (0.0, 0.0, 1.0, 1.0)  # one photo of twenty may
    assert (free(looks) == expected).all()
    looks.boxes[1] = (0.0, 0.0, 1.0, 1.0)
    assert not free(looks).any()


def test_nothing_is_found_where_there_is_nothing() -> None:
    answers = [verdicts(faces := people(48), random_looks(faces, seed)) for seed in range(2)]
    assert all(len(answer) == 9 for answer in answers)  # file does not vary and is not tried
    assert "clear" not in {verdict for answer in answers for verdict in answer.values()}
    assert sum(verdict == "slight" for answer in answers for verdict in answer.values()) <= 2


def test_planted_shortcuts_are_found_each_in_its_place() -> None:
    faces = people(60)
    codes = truth(faces)
    looks = random_looks(faces)
    looks.numbers[:, 0] += 60 * codes[:, 0]  # bright photos show no mask
    looks.thumbs[:, 20:, 5:12, 0] = np.where(
        codes[:, 1, None, None] == 1, 240, looks.thumbs[:, 20:, 5:12, 0]
    )  # red suit
    looks.thumbs[codes[:, 2] == 2, :3] //= 3  # the old stand before a dark wall
    for row in np.flatnonzero(codes[:, 2] == 0):
        looks.infos[row] = PhotoInfo("png", 384, 512, "RGB", 1, 1)  # and the young come as PNG
    answers = verdicts(faces, looks)
    planted = {
        ("mask", "light"),
        ("gender", "clothes"),
        ("gender", "border"),
        ("age_group", "border"),
        ("age_group", "file"),
    }
    assert {key for key, verdict in answers.items() if verdict == "clear"} == planted


def test_the_scores_are_scikit_learns_and_the_lot_is_what_shuffling_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = people(36)
    looks = random_looks(faces)
    looks.numbers[:, 0] += 8 * truth(faces)[:, 1]
    answers: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    guess = room._guess

    def spied(x: NDArray[np.float64], y: NDArray[np.int64], folds: NDArray[np.int8], seed: int) -> NDArray[np.int64]:
        persons = np.array([face.person for face in faces])
        assert all(len(set(persons[folds == a]) & set(persons[folds == b])) == 0 for a in range(5) for b in range(a))
        answers.append((y, guess(x, y, folds, seed)))
        return answers[-1][1]

    monkeypatch.setattr(room, "_guess", spied)
    rng = np.random.default_rng(0)
    for one, (y, answer) in zip(shortcuts(faces, looks, groups(faces), draws=200), answers, strict=True):
        assert one["f1"]["value"] == pytest.approx(f1_score(y, answer, average="macro"), abs=1e-4)
        lot = np.mean([f1_score(y, rng.permutation(answer), average="macro") for _ in range(40)])
        assert one["chance"] == pytest.approx(lot, abs=0.01)
        assert one["gain"]["value"] == pytest.approx(one["f1"]["value"] - one["chance"], abs=2e-4)
        assert one["gain"]["low"] <= one["gain"]["value"] <= one["gain"]["high"]


def test_persons_who_share_a_photo_do_not_help_each_other_and_rare_values_are_left_out() -> None:
    faces = people(36)
    joined = person_groups([face.person for face in faces], np.array([[0, 7 * 6], [7, 7 * 8]]))
    assert {one["attribute"] for one in shortcuts(faces, random_looks(faces), joined, draws=20)} == set(
        labels.ATTRIBUTES
    )
    few = [face for face in faces if face.age_group != 2 or face.person in ("p4", "p5")]
    rows = shortcuts(few, random_looks(few), groups(few), draws=20)
    assert {one["persons"] for one in rows if one["attribute"] == "age_group"} == {24}
    assert not shortcuts(faces[:21], random_looks(faces[:21]), groups(faces[:21]))  # three persons: nothing to try


def test_chance_shrinks_with_people_and_is_what_comparing_finds() -> None:
    small, large = noise(people(60)), noise(people(540))
    assert small and large and noise(people(9)) is None
    assert small["all"]["persons"] == 60 and small["fold"]["persons"] == 12 and large["classes"] == 18
    assert abs(large["macro_f1"] - 0.75) < 0.02
    assert large["fold"]["difference"] > 1.5 * large["all"]["difference"]
    # nine times the people: a third of the width
    assert large["all"]["difference"] == pytest.approx(small["all"]["difference"] / 3, rel=0.4)
    assert large["all"]["score"] == pytest.approx(small["all"]["score"] / 3, rel=0.4)
    unknown = [Face(face.photo, face.person, face.id, face.mask) for face in people(60)]
    assert noise(unknown) is None
