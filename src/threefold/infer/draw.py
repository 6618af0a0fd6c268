"""Boxes and words on a photo: what was read, for people to look at. The word stands beside the colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "worn": (0, 133, 62),
    "incorrect": (180, 94, 0),
    "none": (200, 28, 40),
    "indeterminate": (96, 96, 96),
}
"""RGB by mask status: green, amber, red, grey; each dark enough that white text on it has a contrast of 4.5 or more."""
OTHER = "indeterminate"
"""The colour of an answer that says nothing of masks."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT = (0.022, 12.0)
"""Height of a capital letter: of the photo's longer side, and the least, in pixels."""


def annotate(image: NDArray[np.uint8], answers: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """A copy of an RGB photo [H, W, 3] uint8 with boxes and words of its `answers.answer` dicts, the largest on top.

    The words: mask, gender, age group (what the answer holds), the confidence in percent, and why where a face is too
    small or too blurred. They scale with the photo, at least 12 pixels high where that fits into it, on a plate of the
    colour of the mask status: above the box, where there is no room below it, else in it. An answer without a box is
    about the whole photo, which is then framed.
    """
    drawn = np.ascontiguousarray(image).copy()
    rows, columns = drawn.shape[:2]
    height = max(TEXT[1], TEXT[0] * max(rows, columns))
    line = max(1, round(height / 6))
    for answer in sorted(answers, key=lambda answer: -int(answer.get("face", 0))):
        colour = COLOURS.get(str(answer.get("mask", OTHER)), COLOURS[OTHER])
        box = answer.get("box") or (0, 0, columns, rows)
        left, top, right, bottom = (round(float(side)) for side in box)
        right, bottom = min(right, columns - 1), min(bottom, rows - 1)
        cv2.rectangle(drawn, (left, top), (right, bottom), (255, 255, 255), line + 2)  # seen on any background
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
        _plate(drawn, words(answer), (left, top, bottom), colour, height)
    return drawn


def words(answer: Mapping[str, Any]) -> str:
    """`incorrect, male, 30-59, 81%` in ASCII: what is said of a face, in a line."""
    if answer.get("quality", "ok") != "ok":
        return f"indeterminate ({answer['quality']})"
    parts = [
        f"{'mask ' * (name == 'mask')}{answer[name]}" for name in ("mask", "gender", "age_group") if name in answer
    ]
    if "confidence" in answer:
        parts.append(f"{100 * float(answer['confidence']):.0f}%")
    return ", ".join(parts).encode("ascii", "replace").decode()


def _plate(
    drawn: NDArray[np.uint8], text: str, side: tuple[int, int, int], colour: Sequence[int], height: float
) -> None:
    """White text on a plate along the left side of a box (x, top, bottom): above it, else below, else in it."""
    rows, columns = drawn.shape[:2]
    scale = cv2.getFontScaleFromHeight(FONT, max(1, round(height)), 1)
    thick = max(1, round(height / 10))
    width, tall = cv2.getTextSize(text, FONT, scale, thick)[0]
    pad = max(2, round(height / 4))
    if width + 2 * pad > columns:  # a small photo: smaller letters rather than cut words
        shrink = max(0.3, (columns - 2 * pad) / max(width, 1))
        scale, thick = scale * shrink, max(1, round(thick * shrink))
        width, tall = cv2.getTextSize(text, FONT, scale, thick)[0]
    left = min(max(0, side[0]), max(0, columns - width - 2 * pad))
    full = tall + 2 * pad
    bottom = next((y for y in (side[1], side[2] + full) if full <= y <= rows), side[1] + full)
    bottom = min(max(bottom, full), rows)
    cv2.rectangle(drawn, (left, bottom - tall - 2 * pad), (left + width + 2 * pad, bottom), list(colour), cv2.FILLED)
    cv2.putText(drawn, text, (left + pad, bottom - pad), FONT, scale, (255, 255, 255), thick, cv2.LINE_AA)
