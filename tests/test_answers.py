"""Readings as plain values: the shape everybody reads, and what is left out where it was not asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from threefold import labels
from threefold.errors import DataError
from threefold.evidence.decide import Decision
from threefold.read.answers import answer, check_attributes, shares
from threefold.read.reader import Reading, make_reading


def reading(code: int = 7, age: float | None = 41.23, quality: str = "ok") -> Reading:
    joint = np.full(18, 0.2 / 17, dtype=np.float32)
    joint[code] = 0.8
    return make_reading(joint, age, (1.04, 2.0, 30.27, 40.0), score=0.93456, quality=quality)


def test_an_answer_is_json_with_every_key_of_the_contract() -> None:
    said = answer(reading(), face=2)
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert list(said) == ["face", "box", "score", "quality", "class", "mask", "gender", "age_group", "age",
                          "confidence", "confidences", "probabilities"]  # fmt: skip
    assert (said["face"], said["box"], said["score"], said["quality"]) == (2, [1.0, 2.0, 30.3, 40.0], 0.9346, "ok")
    words = (said["class"], said["mask"], said["gender"], said["age_group"], said["age"])
    assert words == (7, "incorrect", "male", "30-59", 41.2)
    assert said["confidence"] == 0.8 and list(said["confidences"]) == list(labels.ATTRIBUTES)
    told = said["probabilities"]
    assert {name: tuple(told[name]) for name in labels.ATTRIBUTES} == labels.NAMES
    assert told["mask"]["incorrect"] == said["confidences"]["mask"] == pytest.approx(0.8 + 5 * 0.2 / 17, abs=1e-4)
    assert len(told["classes"]) == 18 and sum(told["classes"]) == pytest.approx(1, abs=1e-3)
    assert "probabilities" not in answer(reading(), face=0, probabilities=False)
    bare = answer(make_reading(reading().raw, None), face=0)
    assert bare["box"] is None and bare["score"] is None and bare["age"] is None


def test_what_was_not_asked_for_is_not_there() -> None:
    said = answer(reading(), face=0, attributes=("mask",))
    assert not {"class", "gender", "age_group", "age"} & set(said)
    assert list(said["probabilities"]) == ["mask"] and list(said["confidences"]) == ["mask"]
    assert said["confidence"] == said["confidences"]["mask"]
    assert not any(word in json.dumps(said) for word in ("male", "30-59", "41.2"))
    two = answer(reading(), face=0, attributes=["gender", "mask"])
    assert list(two["confidences"]) == ["mask", "gender"] and "age" not in two
    assert two["confidence"] == pytest.approx(0.8 + 2 * 0.2 / 17, abs=1e-4), "the joint of the two"


def test_the_age_of_a_face_that_cannot_be_read_is_not_said() -> None:
    said = answer(reading(quality="blurred"), face=0)
    assert {said[name] for name in labels.ATTRIBUTES} == {"indeterminate"} and said["age"] is None
    assert said["class"] == 7 and said["quality"] == "blurred" and said["probabilities"]["classes"][7] == 0.8
    unsure = Decision(abstain={"mask": 0.0, "gender": 1.0, "age_group": 0.0})
    said = answer(make_reading(reading().raw, 41.23, None, unsure), face=0)
    assert (said["mask"], said["gender"], said["age"]) == ("incorrect", "indeterminate", 41.2)


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(DataError, match=r"'masks' is not known .*nearest: mask"):
        answer(reading(), face=0, attributes=("masks",))
    with pytest.raises(DataError, match="no attribute"):
        check_attributes(())
    assert check_attributes(["age_group", "mask", "mask"]) == ("mask", "age_group")
    assert list(shares(reading().probabilities, ["gender"])) == ["gender"]
