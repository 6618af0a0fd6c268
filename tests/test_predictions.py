"""Predictions: the same bytes back from a file, no pickle, nothing crooked let in."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from threefold import labels
from threefold.errors import DataError, RunError
from threefold.predictions import FORMAT, Predictions, join

NAMES = [field.name for field in fields(Predictions)]


def make(count=6, seed=0, prefix="p"):
    rng = np.random.default_rng(seed)
    return Predictions(
        photos=np.array([f"{prefix}{row}/사진.jpg" for row in range(count)], dtype=np.str_),
        persons=np.array([f"{prefix}{row // 2}" for row in range(count)], dtype=np.str_),
        probabilities=rng.dirichlet(np.ones(18), count).astype(np.float32).reshape(count, 18),
        truth=labels.decode_all(rng.integers(-1, 18, count)),
        ages=np.where(rng.random(count) < 0.5, np.nan, rng.integers(18, 61, count)).astype(np.float32),
        years=rng.normal(40, 9, count).astype(np.float32),
        fold=rng.integers(-1, 5, count).astype(np.int16),
    )


def same(one, other):
    for name in NAMES:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_saved_is_loaded(tmp_path, count):
    one = make(count)
    one.save(tmp_path / "new" / "oof.npz")
    same(Predictions.load(tmp_path / "new" / "oof.npz"), one)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["oof.npz"]
    with np.load(tmp_path / "new" / "oof.npz", allow_pickle=False) as data:  # numpy would refuse a pickle here
        assert sorted(data.files) == sorted([*NAMES, "format"])


def test_what_it_says():
    one = make(30)
    assert len(one) == 30
    assert one.label.tolist() == [labels.encode(*row) for row in one.truth.tolist()]
    assert one.predicted.tolist() == [max(range(18), key=row.__getitem__) for row in one.probabilities.tolist()]
    np.testing.assert_allclose(one.marginals()["gender"].sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_refused_by_name(name):
    one = make()
    cut = {"photos": one.photos.reshape(2, 3), "probabilities": one.probabilities[:, :17]}.get(
        name, getattr(one, name)[:5]
    )
    with pytest.raises(DataError, match=rf"^predictions: {name} has shape .*, expected \(6,"):
        replace(one, **{name: cut})


def broken(one):
    """Field, value and what is said about it."""
    tilted, negative, empty = one.probabilities.copy(), one.probabilities.copy(), one.probabilities.copy()
    tilted[3] *= 0.9
    negative[2, :2] += np.array([-1.5, 1.5], np.float32)
    empty[1, 4] = np.nan
    photos, truth, low = one.photos.copy(), one.truth.copy(), one.truth.copy()
    photos[4], truth[0, 1], low[5, 2] = photos[1], 2, -2
    sums = "a row of probabilities is negative somewhere or does not sum to 1"
    return [
        ("probabilities", tilted, sums), ("probabilities", negative, sums), ("probabilities", empty, sums),
        ("photos", photos, "photo id 'p1/사진.jpg' occurs twice"),
        ("photos", one.photos.astype(object), "photos and persons must be strings"),
        ("persons", np.arange(6), "photos and persons must be strings"),
        ("truth", truth, "truth holds a code that is no label"), ("truth", low, "truth holds a code that is no label"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(8))
def test_crooked_values_are_refused(case):
    one = make()
    name, value, message = broken(one)[case]
    with pytest.raises(DataError, match=f"^predictions: {message}$"):
        replace(one, **{name: value})


def save_raw(path, **arrays):
    np.savez_compressed(
        path, **{**{name: getattr(make(), name) for name in NAMES}, "format": np.array(FORMAT), **arrays}
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"format": np.array(99)}, "predictions of format 99, this version reads 1"),
        ({"format": np.array("x")}, "not a predictions file"),
        ({"format": np.array([1, 1])}, "not a predictions file"),
        (
            {"photos": np.array("one")},
            r"not a predictions file \(predictions: photos has shape \(\), expected \(1,\)\)",
        ),
        ({"probabilities": np.full((6, 18), 0.5)}, "not a predictions file .*does not sum to 1"),
        ({"truth": np.full((6, 3), "male")}, "not a predictions file"),
        ({"persons": np.array([{}] * 6, dtype=object)}, "not a predictions file .*pickle"),
    ],
)
def test_a_foreign_archive_is_one_line(tmp_path, arrays, message):
    path = tmp_path / "oof.npz"
    save_raw(path, **arrays)
    with pytest.raises(RunError, match=message) as caught:
        Predictions.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_field_or_format_is_one_line(tmp_path):
    path = tmp_path / "oof.npz"
    np.savez(path, format=np.array(FORMAT), photos=np.array(["a"]))
    with pytest.raises(RunError, match=r"not a predictions file .*persons"):
        Predictions.load(path)
    np.savez(path, photos=np.array(["a"]))
    with pytest.raises(RunError, match="predictions of format None, this version reads 1"):
        Predictions.load(path)


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def test_other_files_are_one_line(tmp_path):
    whole = tmp_path / "whole.npz"
    make().save(whole)
    data = whole.read_bytes()
    flipped = bytearray(data)
    for place in range(len(data) // 4, len(data) // 2, 7):
        flipped[place] ^= 0xFF
    array = tmp_path / "array.npy"
    np.save(array, np.zeros(3))
    others = [b"", b"photo,class\na.jpg,3\n", data[: len(data) // 2], data[:-30], bytes(flipped), array.read_bytes(),
              pickle.dumps(Trap())]  # fmt: skip
    for content in others:
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        with pytest.raises(RunError, match=rf"^{path}: not a predictions file \("):
            Predictions.load(path)
    with pytest.raises(RunError, match=r"nowhere\.npz: no predictions here$"):
        Predictions.load(tmp_path / "nowhere.npz")
    with pytest.raises(RunError, match="not a predictions file"):
        Predictions.load(tmp_path)


def test_rows_are_taken_and_aligned():
    one = make()
    order = [4, 0, 5]
    same(one.take(np.array(order)), one.align([str(one.photos[row]) for row in order]))
    assert one.take(one.fold >= 0).photos.tolist() == one.photos[one.fold >= 0].tolist()
    assert len(one.align([])) == 0
    with pytest.raises(DataError, match=r"^predictions: 2 photos are missing, the first is 'x'$"):
        one.align(["x", str(one.photos[0]), "y"])


def test_joined_folds_are_the_whole():
    one = make()
    same(join([one.take(np.array([0, 1])), one.take(np.array([2, 3, 4, 5]))]), one)
    longer = make(2, prefix="a much longer name ")
    assert join([one, longer]).photos.tolist() == [*one.photos, *longer.photos]
    with pytest.raises(DataError, match="occurs twice"):
        join([one, one])
