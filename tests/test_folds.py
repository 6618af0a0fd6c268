"""Folds: nobody on two sides, every class dealt evenly, and the same split whatever order the photos come in."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from threefold import labels
from threefold.data.face import Face, truth
from threefold.data.folds import assert_disjoint, deal_folds, everyone, holdout, make_split, read_split, write_split
from threefold.errors import DataError, LeakError, RecipeError

SEVEN = (0, 0, 0, 0, 0, 1, 2)
Kind = tuple[tuple[int | None, ...], int | None, int | None]
"""Masks of a person's photos, gender, age group."""


def person(name: str, masks: tuple[int | None, ...], gender: int | None, group: int | None) -> list[Face]:
    return [Face(Path("x"), name, f"{name}/{n}", m, gender, None, group) for n, m in enumerate(masks)]


def contest(people: int = 2700) -> list[Face]:
    """The contest's gender x age group counts (contest.md 2.2), seven photos each."""
    counts = {(0, 0): 549, (0, 1): 410, (0, 2): 83, (1, 0): 732, (1, 1): 817, (1, 2): 109}
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    chosen = kinds[:: len(kinds) // people]
    return [face for n, (g, a) in enumerate(chosen) for face in person(f"p{n:04}", SEVEN, g, a)]


def spread(faces: list[Face], folds: NDArray[np.int8], k: int) -> float:
    """The largest distance of a fold's share of a class from 1/k."""
    codes = labels.encode_all(truth(faces))
    shares = [np.bincount(folds[codes == code], minlength=k) / (codes == code).sum() for code in np.unique(codes)]
    return float(np.abs(np.array(shares) - 1 / k).max())


people = st.lists(
    st.tuples(
        st.sampled_from([(2,), (0, 0, 1), (1, 2), (0, None, 2, 2, 2)]),
        st.sampled_from([0, 1, None]),
        st.sampled_from([0, 1, 2, None]),
    ),
    min_size=6,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(people, st.integers(2, 5), st.integers(0, 9), st.randoms(use_true_random=False))
def test_any_people(kinds: list[Kind], k: int, seed: int, random: Random) -> None:
    faces = [face for n, kind in enumerate(kinds) for face in person(f"p{n}", *kind)]
    folds = deal_folds(faces, k, seed=seed)
    assert folds.dtype == np.int8 and set(folds) == set(range(k))
    home = {face.person: fold for face, fold in zip(faces, folds, strict=True)}
    assert all(home[face.person] == fold for face, fold in zip(faces, folds, strict=True))
    by_kind: dict[object, list[int]] = defaultdict(list)
    for n, (masks, gender, group) in enumerate(kinds):
        by_kind[gender, group].append(int(home[f"p{n}"]))
        by_kind[gender, group, tuple(sorted(masks, key=str))].append(int(home[f"p{n}"]))
    for dealt in by_kind.values():
        assert np.ptp(np.bincount(dealt, minlength=k)) <= 1
    order = list(range(len(faces)))
    random.shuffle(order)
    assert deal_folds([faces[n] for n in order], k, seed=seed).tolist() == folds[order].tolist()


@pytest.mark.parametrize("seed", range(12))
def test_equal_sets_of_photos_are_dealt_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sets = [tuple(rng.integers(0, 3, rng.integers(1, 7)).tolist()) for _ in range(4)]
    kinds = [(int(rng.integers(2)), sets[rng.integers(4)]) for _ in range(30)]
    faces = [face for n, (gender, masks) in enumerate(kinds) for face in person(f"p{n}", masks, gender, 1)]
    home = {face.person: int(fold) for face, fold in zip(faces, deal_folds(faces, 4, seed=seed), strict=True)}
    for kind in {(gender, tuple(sorted(masks))) for gender, masks in kinds}:
        dealt = [home[f"p{n}"] for n, (gender, masks) in enumerate(kinds) if (gender, tuple(sorted(masks))) == kind]
        assert np.ptp(np.bincount(dealt, minlength=4)) <= 1


@pytest.mark.parametrize("k", [2, 5, 7])
def test_contest_classes_differ_by_one_person(k: int) -> None:
    faces = contest()
    folds = deal_folds(faces, k, seed=3)
    codes = labels.encode_all(truth(faces))
    for code in range(18):
        assert np.ptp(np.bincount(folds[codes == code], minlength=k)) <= (5 if code < 6 else 1)
    assert np.ptp(np.bincount(folds, minlength=k)) <= 7


def test_not_worse_than_scikit_learn() -> None:
    faces = contest()
    codes, names = labels.encode_all(truth(faces)), [face.person for face in faces]
    for seed in range(3):
        theirs = np.zeros(len(faces), np.int8)
        split = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for fold, (_, rows) in enumerate(split.split(codes, codes, names)):
            theirs[rows] = fold
        ours = spread(faces, deal_folds(faces, 5, seed=seed), 5)
        assert ours <= spread(faces, theirs, 5)
        assert ours < 0.01


def test_partly_labelled_sets_of_uneven_persons_balance() -> None:
    rng = np.random.default_rng(0)
    faces = [face for n in range(300) for face in person(f"a{n}", (2,), int(rng.integers(2)), int(rng.integers(3)))]
    for n in range(150):
        masks = tuple(int(m) for m in rng.choice(3, int(rng.geometric(0.4)), p=[0.62, 0.07, 0.31]))
        faces += person(f"m{n}", masks, None, None)
    folds = deal_folds(faces, 5, seed=0)
    masks_known = np.array([face.parts[0] if face.gender is None else -1 for face in faces])
    for mask in range(3):
        counts = np.bincount(folds[masks_known == mask], minlength=5)
        assert np.ptp(counts) <= 3, (mask, counts)


def test_seed_decides() -> None:
    faces = contest(300)
    splits = [deal_folds(faces, 5, seed=seed).tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_groups_stay_together_and_balance() -> None:
    faces = contest(300)
    numbers = [int(face.person[1:]) // 3 * 3 if int(face.person[1:]) < 90 else int(face.person[1:]) for face in faces]
    folds = deal_folds(faces, 5, seed=0, groups=numbers)
    assert_disjoint(faces, folds, numbers)
    assert spread(faces, folds, 5) < 0.15
    with pytest.raises(LeakError, match=r"'p0000' and 'p000\d', who share a photo, would be on both sides: fold \d"):
        assert_disjoint(faces, deal_folds(faces, 5, seed=0), numbers)
    with pytest.raises(DataError, match="a person is in two groups"):
        deal_folds(faces, 5, seed=0, groups=range(len(faces)))


@pytest.mark.parametrize("k", [-1, 0, 1, 4, 500])
def test_impossible_numbers_of_folds(k: int) -> None:
    faces = [face for n in range(3) for face in person(f"p{n}", SEVEN, 0, 0)]
    with pytest.raises(DataError, match=rf"{k} folds cannot be dealt; expected 2..3 for 3 persons"):
        deal_folds(faces, k, seed=0)


@settings(max_examples=40, deadline=None)
@given(people, st.floats(0.01, 0.99), st.integers(0, 9))
def test_holdout_takes_the_share_of_every_kind(kinds: list[Kind], share: float, seed: int) -> None:
    faces = [face for n, kind in enumerate(kinds) for face in person(f"p{n}", *kind)]
    folds = holdout(faces, share, seed=seed)
    assert_disjoint(faces, folds)
    out = {face.person for face, fold in zip(faces, folds, strict=True) if fold == 0}
    assert len(out) == min(max(round(share * len(kinds)), 1), len(kinds) - 1)
    share = len(out) / len(kinds)
    for kind in {(gender, group) for _, gender, group in kinds}:
        members = {f"p{n}" for n, (_, gender, group) in enumerate(kinds) if (gender, group) == kind}
        assert abs(len(members & out) - share * len(members)) < 1.0001
    assert holdout(faces[::-1], share, seed=seed).tolist() == holdout(faces, share, seed=seed)[::-1].tolist()


def test_make_split(tmp_path: Path) -> None:
    faces = contest(100)
    five = make_split("5", faces, seed=1)
    assert five.tolist() == deal_folds(faces, 5, seed=1).tolist()
    assert make_split("holdout(0.2)", faces, seed=1).tolist() == holdout(faces, 0.2, seed=1).tolist()
    assert make_split("all", faces, seed=1).tolist() == everyone(faces).tolist() == [-1] * len(faces)
    write_split(tmp_path / "split.csv", faces, five)
    assert make_split(str(tmp_path / "split.csv"), faces[::-1], seed=9).tolist() == five[::-1].tolist()
    assert (tmp_path / "split.csv").read_text().splitlines()[0] == "photo,person,fold"
    for text, kind, words in [
        ("holdot(0.2)", RecipeError, "nearest: holdout"),
        ("holdout(x=1)", RecipeError, "no option 'x'"),
        ("holdout(1.5)", DataError, "between 0 and 1"),
        ("1", DataError, "1 folds cannot be dealt"),
        ("none.csv", DataError, "no such folder or file"),
    ]:
        with pytest.raises(kind, match=words):
            make_split(text, faces, seed=0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("p0/0,p0,", "p0/9,p0,", r"line 2, column photo: 'p0/9' is not in the data"),
        ("p0/0,p0,0\n", "", r"1 photos of the data are missing, first 'p0/0'"),
        ("p0/0,p0,0\n", "p0/0,p0,0\np0/0,p0,0\n", r"line 3, column photo: 'p0/0' is listed twice"),
        ("p0/0,p0,0", "p0/0,p1,0", r"line 2, column person: 'p1', but p0/0 shows 'p0'"),
        ("p0/0,p0,0", "p0/0,p0,x", r"line 2, column fold: 'x' is no fold"),
        ("p0/0,p0,0", "p0/0,p0,-2", r"line 2, column fold: '-2' is no fold"),
    ],
)
def test_split_files_are_checked(tmp_path: Path, old: str, new: str, words: str) -> None:
    faces = [face for n in range(4) for face in person(f"p{n}", (0, 1), 0, 0)]
    path = tmp_path / "split.csv"
    write_split(path, faces, np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int8))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        read_split(path, faces)


def test_leaks_and_gaps_in_split_files(tmp_path: Path) -> None:
    faces = [face for n in range(2) for face in person(f"p{n}", (0, 1), 0, 0)]
    path = tmp_path / "split.csv"
    write_split(path, faces, np.array([0, -1, 1, 1], np.int8))
    with pytest.raises(LeakError, match=r"person 'p0' would be on both sides: fold 0 \(p0/0\) and fold -1 \(p0/1\)"):
        read_split(path, faces)
    write_split(path, faces, np.array([0, 0, 1, 1], np.int8))
    with pytest.raises(LeakError, match="who share a photo"):
        read_split(path, faces, [5, 5, 5, 5])
    write_split(path, faces, np.array([0, 0, 2, 2], np.int8))
    with pytest.raises(DataError, match="fold 1 has no photo, but fold 2 has"):
        read_split(path, faces)
