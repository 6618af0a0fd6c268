"""What is drawn on a photo: boxes and words that can be seen, inside the photo, on a copy."""

from __future__ import annotations

import numpy as np
import pytest

from threefold.read.annotate import COLOURS, annotate, words
from threefold.read.reading import Reading, reading_model


def reading(**more: object) -> Reading:
    values = {"face": 0, "box": [60.0, 50.0, 140.0, 150.0], "score": 0.9, "quality": "ok", "mask": "worn",
              "gender": "male", "age_group": "30-59", "age": None, "confidence": 0.812,
              "confidences": {"mask": 0.9, "gender": 0.95, "age_group": 0.95}}  # fmt: skip
    return reading_model(probabilities=False, classes=False)(**values | more)


def mask_alone(mask: str, confidence: float) -> Reading:
    values = {"face": 0, "box": None, "score": None, "quality": "ok", "mask": mask, "confidence": confidence}
    return reading_model(["mask"], probabilities=False)(**values, confidences={"mask": confidence})


def test_the_words_say_everything_in_ascii() -> None:
    assert words(reading()) == "mask worn, male, 30-59, 81%"
    assert words(mask_alone("none", 0.995)) == "mask none, 100%"
    assert words(reading(quality="small", mask="indeterminate")) == "indeterminate (small)"


@pytest.mark.parametrize("mask", list(COLOURS))
def test_a_box_is_drawn_in_its_colour_on_a_copy(mask: str) -> None:
    image = np.full((200, 200, 3), 127, np.uint8)
    drawn = annotate(image, [reading(mask=mask)])
    assert (image == 127).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    assert tuple(drawn[100, 60].tolist()) == tuple(drawn[150, 100].tolist()) == COLOURS[mask]
    assert (drawn[80:140, 80:130] == 127).all(), "the face itself stays as it is"
    assert (drawn[20:49] > 200).all(axis=2).sum() > 50, "white letters above the box"


def test_white_words_can_be_read_on_every_colour() -> None:
    for colour in COLOURS.values():
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("size", [(8, 8), (24, 300), (1, 1), (3000, 2000)])
def test_any_size_and_boxes_at_and_over_the_edge(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    boxes = [[0, 0, size[1], size[0]], [-5, -5, 3, 3], [size[1] - 1, size[0] - 1, size[1] + 9, size[0] + 9], None]
    drawn = annotate(image, [reading(box=box, face=i) for i, box in enumerate(boxes)])
    assert drawn.shape == image.shape and drawn.any()


def test_letters_grow_with_the_photo_and_the_largest_face_is_on_top() -> None:
    inked = [
        (annotate(np.full((s, s, 3), 127, np.uint8), [reading(box=[s * 0.3] * 2 + [s * 0.8] * 2)]) != 127).sum() / s**2
        for s in (700, 1400)
    ]
    assert inked[1] == pytest.approx(inked[0], rel=0.25)
    top = annotate(np.zeros((200, 200, 3), np.uint8), [reading(), reading(face=1, mask="none")])
    assert tuple(top[100, 60].tolist()) == COLOURS["worn"]
    assert np.array_equal(annotate(np.zeros((9, 9, 3), np.uint8), []), np.zeros((9, 9, 3)))


def test_the_words_of_a_crowd_hide_neither_faces_nor_each_other() -> None:
    image = np.full((720, 1280, 3), 127, np.uint8)
    lefts = range(60, 1200, 190)
    boxes = [[left, top, left + 45, top + 55] for top in (100, 400) for left in lefts]
    drawn = annotate(image, [reading(box=box, face=i, confidence=0.5) for i, box in enumerate(boxes)])
    for left, top, right, bottom in boxes:
        assert (drawn[top + 6 : bottom - 6, left + 6 : right - 6] == 127).all(), "the faces stay as they are"
    one = (annotate(image, [reading(box=boxes[0], confidence=0.5)]) == COLOURS["worn"]).all(axis=2).sum()
    all_of_them = (drawn == COLOURS["worn"]).all(axis=2).sum()
    assert all_of_them == pytest.approx(len(boxes) * one, rel=0.02), "as much as that of each alone"


def test_words_go_below_where_another_face_is_above() -> None:
    image = np.full((600, 600, 3), 127, np.uint8)
    upper, lower = [200, 150, 400, 300], [220, 310, 380, 450]
    drawn = annotate(image, [reading(box=upper), reading(box=lower, face=1)])
    assert (drawn[160:290, 210:390] == 127).all(), "the face above is not written over"
    assert (drawn[455:500] > 200).all(axis=2).any()
