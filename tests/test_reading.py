"""The reading of a face: its JSON, what is left out where it was not asked for, its row, and its schema."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from threefold import labels
from threefold.errors import DataError, RunError
from threefold.evidence.decide import Decision
from threefold.read.reading import Reading, check_attributes, make_reading, reading_model, shares

JOINT = np.full(18, 0.2 / 17, dtype=np.float32)
JOINT[7] = 0.8


def reading(age: float | None = 41.23, quality: str = "ok") -> Reading:
    return make_reading(JOINT, age, (1.04, 2.0, 30.27, 40.0), score=0.93456, quality=quality, face=2)


def test_the_json_has_every_key_of_the_contract() -> None:
    data = reading().data()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert list(data) == ["face", "box", "score", "quality", "class", "mask", "gender", "age_group", "age",
                          "confidence", "confidences", "probabilities"]  # fmt: skip
    assert (data["face"], data["box"], data["score"], data["quality"]) == (2, [1.0, 2.0, 30.3, 40.0], 0.9346, "ok")
    words = (data["class"], data["mask"], data["gender"], data["age_group"], data["age"])
    assert words == (7, "incorrect", "male", "30-59", 41.2)
    assert data["confidence"] == 0.8 and list(data["confidences"]) == list(labels.ATTRIBUTES)
    probabilities = data["probabilities"]
    assert {name: tuple(probabilities[name]) for name in labels.ATTRIBUTES} == labels.NAMES
    assert probabilities["mask"]["incorrect"] == data["confidences"]["mask"]
    assert data["confidences"]["mask"] == pytest.approx(0.8 + 5 * 0.2 / 17, abs=1e-4)
    assert len(probabilities["classes"]) == 18 and sum(probabilities["classes"]) == pytest.approx(1, abs=1e-3)
    assert "probabilities" not in reading().data(probabilities=False)
    bare = make_reading(JOINT, None).data()
    assert bare["face"] == 0 and bare["box"] is None and bare["score"] is None and bare["age"] is None


def test_python_has_the_exact_numbers_and_says_them_briefly() -> None:
    one = reading()
    assert (one.code, one.box, one.score, one.age) == (7, (1.04, 2.0, 30.27, 40.0), 0.93456, 41.23)
    assert one.joint.tobytes() == one.raw.tobytes() == JOINT.tobytes() and one.raw_age == 41.23
    assert one == reading() and one != reading(quality="small") and pickle.loads(pickle.dumps(one)) == one
    assert "Reading(face=2" in repr(one) and "probabilities" not in repr(one) and len(repr(one)) < 250
    with pytest.raises(ValidationError, match="frozen"):
        one.mask = "worn"


@pytest.mark.parametrize("attributes", [tuple(labels.ATTRIBUTES), ("mask",), ("mask", "age_group")])
@pytest.mark.parametrize("probabilities", [True, False])
def test_a_line_of_json_is_read_back_as_the_same_reading(attributes: tuple[str, ...], probabilities: bool) -> None:
    data = reading().only(attributes).data(probabilities=probabilities)
    again = reading_model(attributes, probabilities=probabilities)(**json.loads(json.dumps(data)))
    assert again.data() == data and again.raw.shape == (0,) and again.raw_age is None
    for changed in ({"mask": "wron"}, {"more": 1}, {"quality": "fine"}, {"confidence": 1.2}):
        with pytest.raises(ValidationError):
            reading_model(attributes, probabilities=probabilities)(**data | changed)


def test_what_was_not_asked_for_is_not_there() -> None:
    one = reading().only(["mask"])
    data = one.data()
    assert not {"class", "gender", "age_group", "age"} & set(data)
    assert list(data["probabilities"]) == ["mask"] and list(data["confidences"]) == ["mask"]
    assert data["confidence"] == data["confidences"]["mask"]
    everything = json.dumps(data) + repr(one) + json.dumps(one.row()) + json.dumps(type(one).model_json_schema())
    assert not any(word in everything for word in ("male", "30-59", "41.2", "Age", "p07"))
    assert one.raw.shape == (0,) and one.raw_age is None
    with pytest.raises(AttributeError):
        _ = one.gender
    two = reading().only(["gender", "mask"])
    assert list(two.confidences) == ["mask", "gender"] and "age" not in two.data()
    assert two.confidence == pytest.approx(0.8 + 2 * 0.2 / 17, abs=1e-4), "the joint of the two"


def test_the_row_of_a_table_has_the_same_numbers_in_one_level() -> None:
    row = reading().row()
    assert [row[name] for name in ("face", "left", "right", "class", "age", "p07")] == [2, 1.0, 30.3, 7, 41.2, 0.8]
    assert make_reading(JOINT, None).row()["left"] is None
    assert reading().only(["mask"]).row()["mask_incorrect"] == reading().data()["confidences"]["mask"]


def test_the_age_of_a_face_that_cannot_be_read_is_not_said() -> None:
    one = reading(quality="blurred")
    assert {one.mask, one.gender, one.age_group} == {"indeterminate"} and one.age is None and one.raw_age == 41.23
    assert one.code == 7 and one.quality == "blurred" and one.data()["probabilities"]["classes"][7] == 0.8
    unsure = Decision(abstain={"mask": 0.0, "gender": 1.0, "age_group": 0.0})
    one = make_reading(JOINT, 41.23, None, unsure)
    assert (one.mask, one.gender, one.age) == ("incorrect", "indeterminate", 41.23)
    assert one.indeterminate == ("gender",)


def test_the_schema_describes_what_is_written() -> None:
    for attributes in (tuple(labels.ATTRIBUTES), ("mask",), ("gender", "age_group")):
        model = reading_model(attributes)
        schema = model.model_json_schema(mode="serialization")
        data = reading().only(attributes).data()
        assert list(schema["properties"]) == schema["required"] == list(data) and not schema["additionalProperties"]
        (example,) = schema["examples"]
        assert model(**example).data() == example and set(example) == set(data)


def test_an_unknown_attribute_and_a_broken_model_are_named() -> None:
    with pytest.raises(DataError, match=r"'masks' is not known .*nearest: mask"):
        reading().only(("masks",))
    with pytest.raises(RunError, match="is no number"):
        make_reading(np.full(18, np.nan, np.float32), None)
    with pytest.raises(DataError, match="no attribute"):
        check_attributes(())
    assert check_attributes(["age_group", "mask", "mask"]) == ("mask", "age_group")
    assert list(shares(JOINT, ["gender"])) == ["gender"]
