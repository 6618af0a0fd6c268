"""`Reading`: what was read from one face. One model is the Python value, the JSON line, the answer over HTTP, the row
of a table, and what an event at an entrance says of a person.

Attributes that were not asked for are left out entirely, the probabilities of the classes among them: at an entrance
that asks for masks alone nothing else is computed into a reading, and nothing can be recovered from it. So there is one
class for each set of attributes, made by `reading_model`; OpenAPI describes answers by the same classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr, create_model, with_config
from typing_extensions import TypedDict

from threefold import labels
from threefold.errors import DataError, RunError, one_of
from threefold.evidence.decide import Decision
from threefold.photos.decode import Box
from threefold.photos.quality import OK

INDETERMINATE = "indeterminate"
DIGITS, BOX_DIGITS, YEAR_DIGITS = 4, 1, 1
"""Decimals of shares, of pixels and of years in JSON: more would be noise, and longer than the rest of a reading."""
SIDES = ("left", "top", "right", "bottom")
ALL = tuple(labels.ATTRIBUTES)
Share = Annotated[float, Field(ge=0, le=1)]


def _rounded(value: Any, digits: int) -> Any:
    """The same numbers, lists (tuples become lists) and dicts with numbers of so many decimals."""
    if isinstance(value, Mapping):
        return {key: _rounded(part, digits) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_rounded(part, digits) for part in value]
    return None if value is None else round(float(value), digits)


def _decimals(digits: int) -> PlainSerializer:
    """Exact in Python, rounded in JSON."""
    return PlainSerializer(lambda value: _rounded(value, digits))


def _add_example(schema: dict[str, Any], model: Any) -> None:
    joint = np.einsum("m,g,a->mga", [0.06, 0.91, 0.03], [0.97, 0.03], [0.05, 0.92, 0.03]).astype(np.float32).ravel()
    reading = make_reading(joint, 41.2, (412.0, 188.5, 560.0, 371.0), score=0.93)
    values = reading.only(model.attributes).data()
    schema["examples"] = [{name: values[name] for name in model.model_fields}]


class Reading(BaseModel):
    """What was read from one face; of a class that `reading_model` makes for the attributes that were asked for.

    face: its number in the photo, the largest is 0; of a watch the number of its track. box: the face in pixels of the
    photo, None where the whole photo was read. score: the detector's, 0.6 to 1, None where it was not asked. quality:
    `ok`, `small` or `blurred`; a photo that is read whole is not judged.

    Of all attributes it has `class`, 0..17, in Python `code`: the most probable one, or what the decision prefers;
    there always is one. Then `mask`, `gender`, `age_group`, as far as they were asked for: the parts of the class in
    the words of `labels.NAMES`, or INDETERMINATE where one is less sure than the decision asks, or where `quality` is
    not `ok`: then all of them. age: years, with the age group; None where the model has none or the face cannot be
    read. confidence: the chance that the class is right; of one attribute its own, of two that both are. confidences:
    of each attribute. probabilities: {attribute: {word: share}}, of all attributes also {"classes": [18]}, calibrated
    by the decision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_add_example)
    attributes: ClassVar[tuple[str, ...]] = ()

    face: int = Field(ge=0, description="number in the photo; 0 is the largest")
    box: Annotated[Box | None, _decimals(BOX_DIGITS)] = Field(
        description="left, top, right, bottom in pixels; null: the whole photo"
    )
    score: Annotated[Share | None, _decimals(DIGITS)] = Field(description="the face detector's; null without one")
    quality: Literal["ok", "small", "blurred"] = Field(description="where not ok, all is indeterminate: not guessed")
    _raw: tuple[float, ...] = PrivateAttr(())
    _raw_age: float | None = PrivateAttr(None)

    if TYPE_CHECKING:  # the fields of the classes that `reading_model` makes
        age: float | None
        confidence: float
        confidences: dict[str, float]
        probabilities: dict[str, Any]

        def __getattr__(self, name: str) -> Any: ...

    @property
    def code(self) -> int:
        """The class said, 0..17, also where a part of it is indeterminate."""
        return int(getattr(self, "class"))

    @property
    def joint(self) -> NDArray[np.float32]:
        """[18] probabilities of the classes, calibrated; KeyError of fewer attributes."""
        return np.array(self.probabilities["classes"], dtype=np.float32)

    @property
    def raw(self) -> NDArray[np.float32]:
        """[18] as the networks gave them, what oof.npz holds and runs are compared by; [0] where it was left out (by
        `only`, and in JSON)."""
        return np.array(self._raw, dtype=np.float32)

    @property
    def raw_age(self) -> float | None:
        """Years as the networks gave them, also of a face that cannot be read; None where `raw` is left out."""
        return self._raw_age

    @property
    def indeterminate(self) -> tuple[str, ...]:
        """The attributes that are not said: not sure enough, or of a face that cannot be read."""
        return tuple(name for name in self.attributes if getattr(self, name) == INDETERMINATE)

    def only(self, attributes: Iterable[str] = ALL) -> Reading:
        """The reading of these attributes alone, without a trace of the others. Of one that has them all.

        Raises DataError naming an unknown attribute.
        """
        names = check_attributes(attributes)
        if names == self.attributes:
            return self
        model = reading_model(names)
        values = {name: value for name, value in self if name in model.model_fields}
        values["confidences"] = {name: self.confidences[name] for name in names}
        if len(names) == 1:
            values["confidence"] = self.confidences[names[0]]
        else:  # the joint probability of the two parts that the class has
            cube = self.joint.astype(np.float64).reshape(*labels.SIZES.values())
            parts = dict(zip(ALL, map(int, labels.decode(self.code)), strict=True))
            both = cube[tuple(parts[name] if name in names else slice(None) for name in ALL)]
            values["confidence"] = _share(both.sum())
        return model(**values | {"probabilities": shares(self.joint, names)})

    def data(self, *, probabilities: bool = True) -> dict[str, Any]:
        """Plain values for JSON, rounded: face, box, score, quality, class, the attributes, age, confidence,
        confidences, probabilities, as far as they are there; without `probabilities` if so wished.

        `reading_model(attributes, probabilities=...)(**data)` reads them back.
        """
        return self.model_dump(exclude=None if probabilities else {"probabilities"})

    def row(self) -> dict[str, Any]:
        """The same values in one level, as tables have them: left, top, right and bottom of the box; p00 to p17 of the
        classes, or `mask_worn` and the like."""
        row = self.data()
        row |= dict(zip(SIDES, row.pop("box") or [None] * len(SIDES), strict=True))
        for name, values in row.pop("probabilities", {}).items():
            if name == "classes":
                row |= {f"p{code:02d}": share for code, share in enumerate(values)}
            else:
                row |= {f"{name}_{word}": share for word, share in values.items()}
        return row

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.data(probabilities=False).items()

    def __reduce__(self) -> Any:  # pickle cannot find a class that was made
        fields = type(self).model_fields
        options = (self.attributes, "probabilities" in fields, "class" in fields)
        return _unpickled, options, self.__getstate__()


def _unpickled(attributes: tuple[str, ...], probabilities: bool, classes: bool) -> Reading:
    model = reading_model(attributes, probabilities=probabilities, classes=classes)
    return model.__new__(model)


def reading_model(
    attributes: Iterable[str] = ALL, *, probabilities: bool = True, classes: bool = True
) -> type[Reading]:
    """The class of readings of these attributes: the fields of `Reading` that they have, in the order of the JSON.

    Of fewer than all attributes there is no `class`, without age_group no `age`. Without `probabilities` these are not
    there either; without `classes` (where attributes were voted on one by one) there is no `class` in any case.
    Its JSON schema holds an example. Raises DataError for an unknown attribute.
    """
    names = check_attributes(attributes)
    return _model(names, probabilities, classes and names == ALL)


@lru_cache(maxsize=64)
def _model(names: tuple[str, ...], probabilities: bool, whole: bool) -> type[Reading]:
    values: dict[str, Any] = {name: _dict(f"Shares_{name}", dict.fromkeys(labels.NAMES[name], Share)) for name in names}
    fields: dict[str, Any] = {}
    if whole:
        values["classes"] = Annotated[list[Share], Field(min_length=labels.CLASSES, max_length=labels.CLASSES)]
        fields["class"] = (int, Field(ge=0, lt=labels.CLASSES))
    fields |= {name: (Literal[(*labels.NAMES[name], INDETERMINATE)], ...) for name in names}
    if "age_group" in names:
        age = Annotated[float | None, _decimals(YEAR_DIGITS)]
        fields["age"] = (age, Field(description="years, where the model has them"))
    fields["confidence"] = (Annotated[Share, _decimals(DIGITS)], ...)
    confidences = _dict("Confidences", dict.fromkeys(names, Share))
    fields["confidences"] = (Annotated[confidences, _decimals(DIGITS)], ...)
    if probabilities:
        fields["probabilities"] = (Annotated[_dict("Probabilities", values), _decimals(DIGITS)], ...)
    model = create_model("Reading", __base__=Reading, __module__=__name__, **fields)
    model.attributes = names
    return model


def _dict(name: str, values: dict[str, Any]) -> Any:
    """The type of a dict with just these keys."""
    return with_config(ConfigDict(extra="forbid"))(TypedDict(name, values))  # type: ignore[operator]


def make_reading(
    probabilities: NDArray[np.float32],
    age: float | None,
    box: Box | None = None,
    decision: Decision | None = None,
    *,
    score: float | None = None,
    quality: str = OK,
    face: int = 0,
) -> Reading:
    """[18] probabilities as a network gives them -> the Reading that `decision` makes of them (None: their largest).

    Raises RunError for probabilities that are no numbers.
    """
    if not np.isfinite(probabilities).all():
        raise RunError("the model answered with something that is no number (NaN or infinity); is its file damaged?")
    decided = (decision or Decision()).apply(probabilities[None], np.array([np.nan if age is None else age]))
    code = int(decided.code[0])
    unsure = dict(zip(ALL, decided.indeterminate[0], strict=True))
    parts = dict(zip(ALL, labels.decode(code), strict=True))
    words = {name: INDETERMINATE if unsure[name] or quality != OK else labels.name(name, parts[name]) for name in ALL}
    joint = decided.probabilities[0].astype(np.float32)
    values: dict[str, Any] = {"class": code, **words, "age": age if quality == OK else None}
    values["confidence"] = _share(decided.confidence[0])
    values["confidences"] = dict(zip(ALL, map(_share, decided.confidences[0]), strict=True))
    values["probabilities"] = shares(joint)
    reading = reading_model()(face=face, box=box, score=score, quality=quality, **values)
    reading._raw, reading._raw_age = tuple(probabilities.tolist()), age
    return reading


def shares(joint: NDArray[np.float32], attributes: Iterable[str] = ALL) -> dict[str, Any]:
    """[18] probabilities -> {attribute: {word: share}} in the order of labels.NAMES, and of all attributes also
    {"classes": [18]}."""
    names = check_attributes(attributes)
    marginals = labels.marginals(np.asarray(joint, dtype=np.float64)[None])
    values: dict[str, Any] = {
        name: dict(zip(labels.NAMES[name], map(_share, marginals[name][0]), strict=True)) for name in names
    }
    if names == ALL:
        values["classes"] = [_share(value) for value in joint]
    return values


def check_attributes(attributes: Iterable[str]) -> tuple[str, ...]:
    """The attributes in the order of labels.ATTRIBUTES, each once; raises DataError for an unknown one or none."""
    asked = set(attributes)
    for name in sorted(asked - set(ALL)):
        raise DataError(f"attribute {name!r} is not known ({one_of(ALL, name)})")
    if not asked:
        raise DataError(f"no attribute was asked for ({one_of(ALL, '')})")
    return tuple(name for name in ALL if name in asked)


def _share(value: Any) -> float:
    """A probability as a number of 0..1: a sum of float32 may be a little above 1."""
    return min(max(float(value), 0.0), 1.0)
