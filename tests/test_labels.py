"""The 18-class code of the contest against its own formula, names as people write them, marginals against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from threefold import labels
from threefold.data import face
from threefold.data.face import Face
from threefold.errors import DataError
from threefold.labels import CLASSES, NAMES, SIZES, UNKNOWN, AgeGroup, Gender, Mask

PARTS = [(m, g, a) for m in range(3) for g in range(2) for a in range(3)]


def test_the_code_is_the_contests():
    assert [labels.encode(m, g, a) for m, g, a in PARTS] == list(range(18))
    for code in range(18):  # evaluation of the contest: (c//6)%3, (c//3)%2, c%3
        assert labels.decode(code) == (code // 6 % 3, code // 3 % 2, code % 3)
    assert labels.encode(Mask.NONE, Gender.FEMALE, AgeGroup.OLD) == CLASSES - 1 == 17
    mask, gender, group = labels.decode(7)
    assert (mask, gender, group) == (Mask.INCORRECT, Gender.MALE, AgeGroup.MIDDLE)
    assert (type(mask), type(gender), type(group)) == (Mask, Gender, AgeGroup)


def test_arrays_say_what_scalars_say():
    codes = np.arange(18)
    parts = labels.decode_all(codes)
    assert parts.dtype == np.int8
    assert [tuple(row) for row in parts.tolist()] == PARTS
    assert labels.encode_all(parts).tolist() == codes.tolist()
    assert labels.encode_all(np.zeros((0, 3), np.int8)).shape == (0,)
    assert labels.decode_all(np.zeros(0, np.int64)).shape == (0, 3)


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 2)), min_size=1))
def test_a_class_is_unknown_when_a_part_is(rows):
    expected = [labels.encode(*row) for row in rows]
    assert labels.encode_all(np.array(rows, np.int8)).tolist() == expected
    assert [code == UNKNOWN for code in expected] == [min(row) < 0 for row in rows]
    for code, parts in zip(expected, labels.decode_all(np.array(expected)).tolist(), strict=True):
        assert tuple(parts) == ((UNKNOWN,) * 3 if code == UNKNOWN else labels.decode(code))


@pytest.mark.parametrize("code", [-1, 18, 100])
def test_a_class_outside_is_refused(code):
    with pytest.raises(DataError, match=rf"class {code} is not one of 0\.\.17"):
        labels.decode(code)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (
            "mask",
            {"worn": 0, "Wear": 0, "mask": 0, "incorrect_mask": 1, "INCORRECT": 1, "none": 2, "normal": 2, "2": 2},
        ),
        ("gender", {"male": 0, "M": 0, " Female ": 1, "f": 1, "woman": 1, "0": 0, "1": 1}),
        ("age_group", {"<30": 0, "young": 0, "30-59": 1, "middle": 1, ">=60": 2, "60+": 2, "old": 2}),
    ],
)
def test_labels_are_read_as_people_write_them(attribute, words):
    assert {text: labels.parse(attribute, text) for text in words} == words
    assert [labels.parse(attribute, name) for name in NAMES[attribute]] == list(range(SIZES[attribute]))
    assert {labels.parse(attribute, text) for text in ("", "  ", "unknown", "?", "-1", "NaN")} == {UNKNOWN}


def test_an_unknown_label_names_the_nearest():
    with pytest.raises(DataError, match=r"^gender 'Femal' is not known \(known: .*female.*; nearest: female\)$"):
        labels.parse("gender", "Femal")
    with pytest.raises(DataError, match=r"nearest: incorrect_mask\)$"):
        labels.parse("mask", "incorect_mask")
    with pytest.raises(DataError, match=r"known: [^;]*\)$"):  # nothing near: nothing guessed
        labels.parse("age_group", "xyzzy")
    with pytest.raises(DataError):  # a code of another attribute is no code of this one
        labels.parse("gender", "2")


def test_names():
    assert labels.class_name(0) == "worn male <30"
    assert labels.class_name(17) == "none female >=60"
    assert len({labels.class_name(code) for code in range(18)}) == 18
    assert labels.name("mask", UNKNOWN) == ""
    assert labels.name("age_group", AgeGroup.MIDDLE) == "30-59"


@pytest.mark.parametrize(
    ("years", "group"), [(0, 0), (29, 0), (29.5, 0), (30, 1), (59, 1), (59.9, 1), (60, 2), (np.float32(60), 2), (99, 2)]
)
def test_age_groups(years, group):
    assert labels.age_group(years) == group


def test_other_cuts_and_an_age_nobody_knows():
    assert [labels.age_group(years, (29, 58)) for years in (28, 29, 57, 58)] == [0, 1, 1, 2]
    assert labels.age_group(float("nan")) == UNKNOWN


@given(arrays.arrays(np.float64, st.tuples(st.integers(0, 4), st.just(18)), elements=st.floats(0, 1)))
def test_marginals_are_sums_over_the_classes(joint):
    naive = {name: np.zeros((len(joint), size)) for name, size in SIZES.items()}
    for row in range(len(joint)):
        for code in range(18):
            for name, part in zip(SIZES, labels.decode(code), strict=True):
                naive[name][row, part] += joint[row, code]
    found = labels.marginals(joint)
    assert list(found) == list(SIZES)
    for name, expected in naive.items():
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, atol=1e-12)


def test_faces_become_arrays(tmp_path):
    known = Face(tmp_path / "a.jpg", "p1", "a.jpg", mask=1, gender=0, age=30.5, age_group=1)
    partly = Face(tmp_path / "b.jpg", "p2", "b.jpg", gender=1)
    assert (known.label, partly.label) == (7, UNKNOWN)
    assert partly.parts == (UNKNOWN, 1, UNKNOWN)
    truth, years = face.truth([known, partly]), face.ages([known, partly])
    assert (truth.dtype, years.dtype) == (np.int8, np.float32)
    assert truth.tolist() == [[1, 0, 1], [-1, 1, -1]]
    assert years[0] == np.float32(30.5)
    assert np.isnan(years[1])
    assert face.truth([]).shape == (0, 3)
    assert face.ages([]).shape == (0,)
