"""Photos of drawn people: the backdrop, the light and the camera around `portrait`."""

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
    height, width = size
    room = min(width, 0.75 * height)
    marks = landmarks(person, rng.uniform(-0.3, 1), max(0.0, rng.uniform(-0.3, 0.15)), rng.uniform(0.7, 1.1))
    colour = rng.uniform(50, 205) + rng.uniform(-25, 25, 3)  # the backdrop: a few patches around it, out of focus
    patches = (colour + rng.normal(0, rng.uniform(5, 30), (*rng.integers(2, 8, 2), 1))).clip(5, 250)
    brush = Brush(
        canvas=np.asarray(cv2.resize(patches, (width, height)), np.float32),
        turn=(rng.uniform(-0.38, 0.38), rng.uniform(-0.17, 0.17), rng.uniform(-0.14, 0.14)),
        scale=room * rng.uniform(0.235, 0.29),
        origin=(width / 2 + room * rng.uniform(-0.07, 0.07), height / 2 - room * rng.uniform(-0.02, 0.12)),
    )
    paint(brush, person, marks, mask, rng)
    return _photograph(brush.canvas, rng), brush.place(marks)


def _photograph(canvas: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Focus, light from one side, white balance, exposure and grain: [H, W, 3] float -> RGB uint8."""
    height, width = canvas.shape[:2]
    photo = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.1, 1.4) * height / 512)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    light = rng.uniform(0.75, 1.08) * (1 + rng.normal(0, 0.15) * across + rng.normal(-0.1, 0.1) * down)
    warmth, grain = rng.normal(0, 0.04), rng.normal(0, rng.uniform(0.5, 4), (height, width, 1))
    shown = photo * light[..., None] * (1 + warmth, 1, 1 - warmth) + grain
    return np.clip(shown, 0, 255).astype(np.uint8)
