"""Photos of drawn people: the backdrop, the light and the camera around `portrait`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.draw.drawing import Brush, Floats
from threefold.draw.people import Person
from threefold.draw.portrait import landmarks, paint
from threefold.labels import Mask


def draw_photo(
    person: Person, mask: Mask, rng: np.random.Generator, size: tuple[int, int] = (512, 384)
) -> tuple[NDArray[np.uint8], Floats]:
    """One photo of a drawn person.

    size is (height, width) in pixels. Returns RGB [H, W, 3] and the 68 landmarks [68, 2] (x, y in pixels; where the
    points are, seen or under the mask). Pose, expression, clothes, backdrop, light and camera come from `rng` alone,
    never from the labels.
    """
    fine = 2 if size[0] < 320 else 1  # small photos are drawn twice as large, so that thin lines survive
    height, width = size[0] * fine, size[1] * fine
    room = min(width, 0.75 * height)
    marks = landmarks(person, rng.uniform(-0.3, 1), max(0.0, rng.uniform(-0.3, 0.15)), rng.uniform(0.7, 1.1))
    brush = Brush(
        canvas=_backdrop(height, width, rng),
        turn=(rng.uniform(-0.38, 0.38), rng.uniform(-0.17, 0.17), rng.uniform(-0.14, 0.14)),
        scale=room * rng.uniform(0.235, 0.29),
        origin=(width / 2 + room * rng.uniform(-0.07, 0.07), height / 2 - room * rng.uniform(-0.02, 0.12)),
    )
    paint(brush, person, marks, mask, rng)
    photo = _photograph(brush.canvas, size, rng)
    return photo, brush.place(marks) / np.float32(fine)


def _backdrop(height: int, width: int, rng: np.random.Generator) -> Floats:
    """[H, W, 3] a room out of focus: a few patches around one dull colour."""
    colour = rng.uniform(50, 205) + rng.uniform(-25, 25, 3)
    patches = colour + rng.normal(0, rng.uniform(5, 30), (*rng.integers(2, 8, 2), 1))
    return np.asarray(cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR).clip(5, 250), np.float32)


def _photograph(canvas: Floats, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light from one side, focus, white balance, exposure and grain: [H, W, 3] float -> RGB uint8 of that size."""
    photo = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.1, 1.4) * canvas.shape[0] / 512)
    photo = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
    down, across = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    light = rng.uniform(0.75, 1.08) * (1 + rng.normal(0, 0.15) * across + rng.normal(-0.1, 0.1) * down)
    warmth = rng.normal(0, 0.04)
    grain = rng.normal(0, rng.uniform(0.5, 4), (*size, 1))
    shown = photo * light[..., None] * (1 + warmth, 1, 1 - warmth) + grain
    return np.clip(shown, 0, 255).astype(np.uint8)
