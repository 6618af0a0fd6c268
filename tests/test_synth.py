"""Masks on drawn faces: they cover what they must, follow the head and its light; and the folders made of them."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from threefold.data.face import Face
from threefold.data.sources import eval_photos, read_answers, read_faces
from threefold.draw import synth as stage
from threefold.draw.landmarks import JAW, FaceGeometry, fit_geometry
from threefold.draw.masks import SHAPES, WEARS, MaskDesign, Wear, random_design
from threefold.draw.overlay import draw_mask
from threefold.draw.synth import choose, synth
from threefold.errors import DataError
from threefold.labels import Mask
from threefold.photos.decode import decode

AAF = Path(__file__).resolve().parents[2] / "shared/data/aaf"
INNER = np.delete(np.arange(68), [*range(17), 60, 64])
NOSE, NOSTRILS, MOUTH, CHIN = [30], [32, 33, 34], [48, 51, 54, 57, 62, 66], [8]


def points68(
    eye_distance: float = 60.0, middle: tuple[float, float] = (100, 80), yaw: float = 0.0
) -> NDArray[np.float64]:
    """A frontal face turned by `yaw` degrees; depth only matters when turned. Written without the package's model."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 17)
    jaw = [(1.15 * np.sin(a), 0.1 + 1.72 * np.cos(a), -1.0 + 1.15 * np.cos(a)) for a in turn]
    brows = [
        (s * x, -0.32, 0.1)
        for s, xs in ((-1, (0.85, 0.7, 0.5, 0.35, 0.2)), (1, (0.2, 0.35, 0.5, 0.7, 0.85)))
        for x in xs
    ]
    nose = [(0, y, z) for y, z in ((0, 0.17), (0.19, 0.28), (0.38, 0.4), (0.58, 0.52))]
    nose += [(x, 0.72 + 0.04 * (x == 0), 0.38 - abs(x)) for x in (-0.21, -0.11, 0, 0.11, 0.21)]
    eye = [(-0.2, 0, -0.05), (-0.07, -0.06, 0), (0.07, -0.06, 0), (0.2, 0, 0.0), (0.07, 0.06, 0), (-0.07, 0.06, 0)]
    eyes = [(x - 0.5, y, z) for x, y, z in eye] + [
        (0.5 - x, y, z) for x, y, z in (eye[3], *eye[2:0:-1], eye[0], *eye[:3:-1])
    ]
    angles = np.arange(12) * np.pi / 6
    mouth = [(-0.41 * np.cos(a), 1.08 - 0.14 * np.sin(a), 0.36 - 0.18 * np.cos(a) ** 2) for a in angles]
    mouth += [(-0.3 * np.cos(a), 1.08 - 0.04 * np.sin(a), 0.3) for a in np.arange(8) * np.pi / 4]
    place = np.array([*jaw, *brows, *nose, *eyes, *mouth])
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    return np.column_stack([c * place[:, 0] + s * place[:, 2], place[:, 1]]) * eye_distance + middle


def face_photo(points: NDArray[np.float64], size: tuple[int, int] = (240, 200), skin: float = 1.0) -> NDArray[np.uint8]:
    """Skin within the jaw line and the forehead, grey around it, a little grain."""
    photo = np.full((*size, 3), 120.0)
    top = points[[16, 0]] + [[0, -60], [0, -60]]
    hull = cv2.convexHull(np.vstack([points[:17], top]).astype(np.float32)).astype(np.int32)
    cv2.fillPoly(photo, [hull], (205, 160, 135))
    cv2.fillPoly(photo, [points[48:60].astype(np.int32)], (170, 90, 90))
    for eye in (points[36:42], points[42:48]):
        cv2.fillPoly(photo, [eye.astype(np.int32)], (40, 30, 30))
    grain = np.random.default_rng(0).normal(0, 2, photo.shape)
    return np.clip(photo * skin + grain, 0, 255).astype(np.uint8)


def covered(photo: NDArray[np.uint8], points: NDArray[np.float64], design: MaskDesign, wear: Wear) -> NDArray[np.bool_]:
    """[H, W]: where the photo with a mask differs clearly from the photo without."""
    drawn = draw_mask(photo, fit_geometry(points), design, wear)
    return np.abs(drawn.astype(int) - photo).max(axis=2) > 25


def at(area: NDArray[np.bool_], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    x, y = points.round().astype(int).T
    return area[y, x]


@pytest.mark.parametrize("shape", SHAPES)
def test_each_way_of_wearing_covers_what_it_says(shape: str) -> None:
    points, design = points68(), MaskDesign(shape, "navy", seed=3)
    photo = face_photo(points)
    for landmarks in (points, points[INNER]):
        shown = {wear: covered(photo, landmarks, design, wear) for wear in WEARS}
        chin = points[CHIN] - [0, 6]
        assert all(at(shown["worn"], points[[*NOSE, *NOSTRILS, *MOUTH]])) and at(shown["worn"], chin)
        assert all(at(shown["nose_out"], points[MOUTH])) and at(shown["nose_out"], chin)
        assert not any(at(shown["nose_out"], points[[*NOSE, *NOSTRILS]]))
        assert at(shown["mouth_out"], chin) and not any(at(shown["mouth_out"], points[[*NOSE, *MOUTH]]))
        assert shown["chin"].any() and not any(at(shown["chin"], points[[*NOSE, *MOUTH]]))
        heights = [np.nonzero(area.sum(axis=1) > 20)[0].min() for area in shown.values()]
        assert heights == sorted(heights)
        assert not any(at(area, points[36:48]).any() for area in shown.values())


def test_same_arguments_same_pixels_and_the_photo_stays() -> None:
    points, design = points68(), MaskDesign("cloth", "red", "print", seed=5)
    photo = face_photo(points)
    before = photo.copy()
    one, two = (draw_mask(photo, fit_geometry(points), design, "worn") for _ in range(2))
    assert np.array_equal(one, two) and np.array_equal(photo, before)
    other = draw_mask(photo, fit_geometry(points), MaskDesign("cloth", "red", "print", seed=6), "worn")
    assert not np.array_equal(one, other)


def test_mask_turns_with_the_head() -> None:
    points, design = points68(), MaskDesign("surgical", "navy", seed=1)
    photo = face_photo(points)
    spin = cv2.getRotationMatrix2D((100.0, 120.0), -20, 1)
    turned_points = points @ spin[:, :2].T + spin[:, 2]
    turned = cv2.warpAffine(photo, spin, (200, 240), borderValue=(120, 120, 120))
    assert pose(fit_geometry(turned_points))[2] == pytest.approx(pose(fit_geometry(points))[2] + 20, abs=0.5)
    expected = cv2.warpAffine(covered(photo, points, design, "worn").astype(np.uint8), spin, (200, 240)) > 0
    actual = covered(turned, turned_points, design, "worn")
    assert (expected & actual).sum() / (expected | actual).sum() > 0.93


def pose(geometry: FaceGeometry) -> tuple[float, float, float]:
    """Yaw (to the image's right), pitch (down) and roll (clockwise) in degrees, read off the camera."""
    across = geometry.eyes[1] - geometry.eyes[0]
    across = across / np.hypot(*across)
    away = np.array([across, [-across[1], across[0]]]) @ geometry.camera[:, 2]
    yaw, pitch = np.degrees(np.arcsin(np.clip(away / geometry.scale, -1, 1)))
    return float(yaw), float(pitch), float(np.degrees(np.arctan2(across[1], across[0])))


def test_geometry_of_49_and_68_points_agrees_and_yaw_narrows_the_far_side() -> None:
    for yaw in (-25.0, 0.0, 25.0):
        points = points68(yaw=yaw)
        whole, part = fit_geometry(points), fit_geometry(points[INNER])
        turn, nod, roll = pose(part)
        assert turn == pytest.approx(yaw, abs=7) and turn == pose(whole)[0]
        jaw, jaw_of_49 = whole.project(JAW), part.project(JAW)
        assert np.abs(jaw - points[:17]).max() < 0.04 * 60
        assert part.scale == pytest.approx(60, rel=0.08) and abs(roll) < 1 and abs(nod) < 6
        assert np.abs(part.eyes - [points[36:42].mean(axis=0), points[42:48].mean(axis=0)]).max() < 1e-3
        assert np.hypot(*(jaw_of_49[8] - jaw[8])) < 0.12 * 60
        area = covered(face_photo(points), points, MaskDesign("surgical", "navy"), "worn")
        columns = np.nonzero(area[int(points[33, 1])])[0]
        left, right = points[33, 0] - columns.min(), columns.max() - points[33, 0]
        assert (
            abs(np.log(right / left)) < 0.15 if yaw == 0 else (right < 0.75 * left if yaw > 0 else left < 0.75 * right)
        )


def test_mask_takes_the_light_and_the_colour_of_the_photo() -> None:
    points, design = points68(), MaskDesign("boat", "white", seed=2)
    geometry = fit_geometry(points)
    spot = (slice(150, 160), slice(95, 105))
    shown = [
        draw_mask(face_photo(points, skin=skin), geometry, design, "worn")[spot].mean() for skin in (0.35, 0.6, 1.0)
    ]
    assert shown[0] < 0.75 * shown[1] and shown[1] < 0.85 * shown[2] and shown[2] > 190
    photo = face_photo(points)
    ramp = (photo * np.linspace(0.5, 1.1, 200)[None, :, None]).clip(0, 255).astype(np.uint8)
    lit = draw_mask(ramp, geometry, design, "worn")
    assert lit[150, 60:70].mean() < 0.8 * lit[150, 130:140].mean()
    grey = np.repeat(photo.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    drawn = draw_mask(grey, geometry, MaskDesign("surgical", "sky"), "worn").astype(int)
    assert np.ptp(drawn, axis=2).max() <= 2


def test_small_large_cut_off_and_absent_faces() -> None:
    design = MaskDesign("surgical", "navy", seed=1)
    for scale in (0.1, 0.3, 4.0):
        points = points68(60 * scale, (100 * scale, 80 * scale))
        photo = cv2.resize(face_photo(points68()), None, fx=scale, fy=scale)
        area = covered(photo, points, design, "worn")
        assert area.shape == photo.shape[:2] and all(at(area, points[[*NOSE, *MOUTH]]))
    for middle in ((5, 80), (100, 230), (-20, -90), (1000, 1000)):
        photo = face_photo(points68())
        drawn = draw_mask(photo, fit_geometry(points68(middle=middle)), design, "worn")
        assert drawn.shape == photo.shape and np.array_equal(drawn, photo) == (middle == (1000, 1000))


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.zeros((5, 2)), np.full((49, 2), np.nan)])
def test_points_that_are_no_face_are_refused(points: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="landmarks"):
        fit_geometry(points)


def test_photos_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        draw_mask(np.zeros((9, 9, 3)), fit_geometry(points68()), MaskDesign("cup", "white"), "worn")  # type: ignore[arg-type]


def test_designs_vary() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_design(rng) for _ in range(400)]
    assert {design.shape for design in drawn} == set(SHAPES) and len({design.key for design in drawn}) > 60
    assert len({design.seed for design in drawn}) > 390 and Counter(d.pattern for d in drawn)["plain"] > 200


def person(number: int, gender: int, age: float) -> stage._Person:
    face = Face(Path(f"{number}.jpg"), f"p{number:05d}", f"{number}.jpg", Mask.NONE, gender, age)
    return stage._Person(face, np.zeros((49, 2), np.float32), gender, int(min(age, 60)), "Unknown")


@cache
def pool(count: int, ages: range = range(18, 65)) -> list[stage._Person]:
    wanted = [(gender, age) for gender in (0, 1) for age in ages for _ in range(count)]
    return [person(number, *who) for number, who in enumerate(wanted)]


@pytest.mark.parametrize(("people", "held"), [(2700, 0), (2700, 1800), (90, 60), (37, 11)])
def test_contest_histogram_is_matched_to_rounding(people: int, held: int) -> None:
    train, rest = choose(pool(700), people, held, "contest", 3)
    assert len(train) == people and len(rest) == held
    assert not {p.face.person for p in train} & {p.face.person for p in rest}
    for chosen in (train, rest):
        cells = Counter((p.face.gender, (p.age >= 30) + (p.age >= 60)) for p in chosen)
        for key, share in stage._GROUPS.items():
            assert abs(cells[key] - len(chosen) * share / 2700) < 1
        years = Counter(p.age for p in chosen)
        for age, share in stage._AGES.items():
            assert abs(years[age] - len(chosen) * share / 2700) <= 3  # rounded once per gender, then dealt
    assert sum(stage._AGES.values()) == sum(stage._GROUPS.values()) == 2700


def test_short_years_take_the_nearest_and_short_groups_are_told() -> None:
    missing_58 = [p for p in pool(400) if p.age != 58]
    years = Counter(p.age for p in choose(missing_58, 2700, 0, "contest", 0)[0])
    assert years[58] == 0 and years[57] + years[59] == pytest.approx(106 + 85 + 159, abs=3)
    few_old = [p for p in pool(400) if p.age < 60 or p.face.gender == 0 or int(p.face.person[1:]) % 20 == 0]
    with pytest.raises(DataError, match=r"109 female >=60 people are needed for 2700 in train .* has 100 with"):
        choose(few_old, 2700, 0, "contest", 0)
    train, rest = choose(pool(30), 1000, None, "contest", 0)
    assert len(train) == 1000 and 0 < len(rest) < 667
    assert [p.face.person for p in choose(pool(30), 50, 9, "none", 1)[0]] != [
        p.face.person for p in choose(pool(30), 50, 9, "none", 2)[0]
    ]


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 drawn people in the csv layout with 49 points each; one more without points, one who wears a mask."""
    root = tmp_path_factory.mktemp("portraits")
    (root / "images").mkdir()
    rows, names, places = [], [], []
    for k in range(18):
        points = points68(44, (86 + k % 5, 80), yaw=3.0 * (k % 7 - 3))
        photo = face_photo(points, (192, 170), skin=0.6 + 0.03 * k)
        patch = np.random.default_rng(k).integers(0, 120, (12, 10, 3)).astype(np.uint8)  # nobody's copy
        photo = cv2.addWeighted(photo, 0.7, cv2.resize(patch, (170, 192), interpolation=cv2.INTER_CUBIC), 0.6, 0)
        cv2.imwrite(str(root / f"images/{k}.jpg"), photo[..., ::-1])
        rows.append(
            (f"images/{k}.jpg", f"who{k}", ("male", "female")[k % 2], 18 + 2 * k, "worn" if k == 17 else "none")
        )
        if k != 16:
            names.append(f"images/{k}.jpg")
            places.append(points[INNER])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "person", "gender", "age", "mask"), *rows])
    np.savez(root / "landmarks49.npz", files=np.array(names), xy=np.array(places, np.float32))
    return root


def test_layout_tables_and_same_bytes_for_any_workers(portraits: Path, tmp_path: Path) -> None:
    options = {"people": 8, "match": "none", "seed": 4, "size": (128, 96)}
    result = synth(f"csv:{portraits}", tmp_path / "a", workers=1, **options)  # type: ignore[arg-type]
    out = result.out
    synth(f"csv:{portraits}", tmp_path / "b", workers=2, **options)  # type: ignore[arg-type]
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert all((out / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert result.lines()[0] == f"{out}: 8 people in train, 5 people in eval, 91 photos"
    assert result.remarks == {"left out: no landmarks or labels": 1}
    faces = read_faces(f"contest:{out}")
    assert len(faces) == 56 and {decode(face.photo).shape for face in faces} == {(128, 96, 3)}
    assert all(
        list(Counter(f.mask for f in faces if f.person == p).values()) == [1, 5, 1] for p in {f.person for f in faces}
    )
    original = {face.person: face for face in read_faces(f"csv:{portraits}")}
    with (out / "train/sources.csv").open() as file:
        for row in csv.DictReader(file):
            person = next(face for face in faces if face.person.startswith(row["id"]))
            assert (person.age, person.gender) == (original[row["person"]].age, original[row["person"]].gender)
    answers, photos = read_answers(out / "eval/answers.csv"), eval_photos(out)
    assert photos and [name for name, _ in photos] == list(answers.ids) and len(photos) == 35
    assert all(len(Path(name).stem) == 40 for name in answers.ids)
    assert sorted(Counter(answers.label // 6).items()) == [(0, 25), (1, 5), (2, 5)]


def test_a_person_never_gets_the_same_mask_twice(
    portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[tuple[str, str, str], Wear]] = []

    def spy(image: NDArray[np.uint8], geometry: object, design: MaskDesign, wear: Wear) -> NDArray[np.uint8]:
        drawn.append((design.key, wear))
        return image

    monkeypatch.setattr(stage, "draw_mask", spy)
    synth(str(portraits), tmp_path / "out", people=16, match="none", seed=0, size=(64, 48), eval_people=0, workers=1)
    for k in range(0, len(drawn), 6):
        assert len({key for key, _ in drawn[k : k + 6]}) == 6
        assert [wear == "worn" for _, wear in drawn[k : k + 6]] == [True] * 5 + [False]
    assert len(drawn) == 96 and len({wear for _, wear in drawn}) == 4


def test_practice_set_with_68_points_is_a_source(portraits: Path, tmp_path: Path) -> None:
    home = tmp_path / "practice/train/images/000001_female_Asian_33"
    home.mkdir(parents=True)
    points = points68(44, (86, 80))
    for stem in ("normal", "mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask"):
        cv2.imwrite(str(home / f"{stem}.jpg"), face_photo(points, (192, 170))[..., ::-1])
    np.savez(tmp_path / "practice/train/landmarks68.npz", xy=points[None], files=[f"images/{home.name}/normal.jpg"])
    for root in ("practice", "practice/train"):
        out = synth(
            f"contest:{tmp_path / root}", tmp_path / f"{root}-out", people=1, match="none", seed=0, size=(64, 48)
        ).out
        assert not (out / "eval").exists()  # nobody is left
        assert (out / "train/train.csv").read_text().splitlines()[1] == "000001,female,Asian,33,000001_female_Asian_33"


def test_bad_input_is_told_and_leaves_nothing(portraits: Path, tmp_path: Path) -> None:
    def run(source: Path, out: str = "out", people: int = 2) -> None:
        synth(
            f"csv:{source}",
            tmp_path / out,
            people=people,
            match="none",
            seed=0,
            size=(64, 48),
            eval_people=0,
            workers=1,
        )

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(DataError, match="not an empty folder"):
        run(portraits, "taken")
    with pytest.raises(DataError, match="people 0: expected 1 or more"):
        run(portraits, people=0)
    with pytest.raises(DataError, match="nearest: contest"):
        synth(str(portraits), tmp_path / "out", people=2, match="contets", seed=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"17 people are needed for 17 in train .* the source has 16"):
        run(portraits, people=17)
    bare = tmp_path / "bare"
    (bare / "images").mkdir(parents=True)
    (bare / "labels.csv").write_bytes((portraits / "labels.csv").read_bytes())
    for photo in (portraits / "images").iterdir():
        (bare / "images" / photo.name).write_bytes(photo.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"no landmarks; looked for landmarks49.npz, landmarks68.npz"):
        run(bare)
    (bare / "landmarks49.npz").write_bytes((portraits / "landmarks49.npz").read_bytes())
    with pytest.raises(DataError, match="none of the 16 portraits with landmarks can be read"):
        run(bare)
    (bare / "landmarks49.npz").write_bytes(b"no npz")
    with pytest.raises(DataError, match=r"landmarks49\.npz"):
        run(bare)
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "bare"}


@pytest.mark.skipif(not AAF.is_dir(), reason="needs ../shared/data/aaf")
def test_real_faces_are_covered_as_said() -> None:
    with np.load(AAF / "landmarks49.npz") as table:
        chosen = np.random.default_rng(0).choice(len(table["files"]), 30, replace=False)
        faces = list(zip(table["files"][chosen].tolist(), table["xy"][chosen].astype(float), strict=True))
    wrong = 0
    for name, points in faces:
        photo = np.full((*decode(AAF / name).shape[:2], 3), 150, np.uint8)  # one grey, so that every change shows
        whole = np.zeros((68, 2))
        whole[INNER] = points
        for wear, inside, outside in (
            ("worn", [*NOSE, 33, 48, 51, 54, 57], [39, 42]),
            ("nose_out", [48, 51, 54, 57], NOSE),
        ):
            area = covered(photo, points, MaskDesign("surgical", "black"), wear)  # type: ignore[arg-type]
            wrong += not at(area, whole[inside]).all() or bool(at(area, whole[outside]).any())
    assert wrong <= 1


def test_a_portrait_under_two_names_is_one_person(portraits: Path, tmp_path: Path) -> None:
    """Real sets hold some people twice; a twin with one in train and the other in eval would leak."""
    root = tmp_path / "source"
    shutil.copytree(portraits, root)
    picture = cv2.imread(str(root / "images/3.jpg"))
    cv2.imwrite(
        str(root / "images/again.jpg"), cv2.convertScaleAbs(picture, alpha=0.95, beta=4), [cv2.IMWRITE_JPEG_QUALITY, 70]
    )
    (root / "images/4.jpg").write_bytes((root / "images/4.jpg").read_bytes()[:500])
    with (root / "labels.csv").open("a") as table:
        table.write("images/again.jpg,somebody else,male,24,none\n")
    with np.load(root / "landmarks49.npz") as marks:
        names, places = marks["files"], marks["xy"]
    np.savez(root / "landmarks49.npz", files=[*names, "images/again.jpg"], xy=[*places, places[3]])
    result = synth(f"csv:{root}", tmp_path / "out", people=9, match="none", seed=0, size=(64, 48), workers=1)
    assert result.people == {"train": 9, "eval": 6}
    assert result.remarks["left out: the portrait cannot be read or is another person's as well"] == 2
    used = [
        row
        for half in ("train", "eval")
        for row in (tmp_path / "out" / half / "sources.csv").read_text().splitlines()[1:]
    ]
    assert len(used) == 15 and sum("images/3.jpg" in row or "again.jpg" in row for row in used) == 1
