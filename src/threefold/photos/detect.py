"""Faces in a photo: boxes, scores and five points, by YuNet (Wu et al., "YuNet: a tiny millisecond-level face
detector", 2023) through OpenCV.

Training and prediction find the face of a photo that comes without a box by this one function, inside `Prepare`, so
that a network is shown the same crop on both sides. Same photo, same boxes, for any number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.assets import HELPERS, asset_path
from threefold.photos.decode import Box
from threefold.photos.networks import Spares, scaled

LOOKS = (320, 640)
"""Longer side in pixels at which a photo is looked at: grown or shrunk to the first, and where no face is found there
and the photo is larger, at up to the second.

The network knows faces of 10 to 300 pixels. A portrait at 640 pixels is mostly beyond that: its box moves by a tenth
from that of the same portrait at 200 pixels, while at one size a face has one box whatever the photo's resolution.
Growing photos of 60 to 200 pixels to 320 finds more masked faces, and all of them more surely, than not growing;
growing them to 640 loses one masked face of ten. The second look is for faces that are far away.
"""
FAR = 800
"""Longer side in pixels of the further look for faces that are far away beside one that is near. It takes six times as
long as the first at most, which every face of a photo is worth and the largest one does not need."""
SCORE, OVERLAP = 0.6, 0.3
"""The least score of a face, and the overlap from which two boxes are one face."""

IDENTITY = f"{HELPERS['yunet'].sha256} {LOOKS} {SCORE} {OVERLAP}"
"""All that boxes depend on besides the photo and OpenCV's version: part of the name of a cache."""

_LOGGING = threading.Lock()


@dataclass(frozen=True)
class Detection:
    """A face: box (left, top, right, bottom) in pixels of the photo and on it; score, 0.6 to 1; five points (x, y).

    The points: the person's right eye, left eye, tip of the nose, right and left corner of the mouth.
    """

    box: Box
    score: float
    points: tuple[tuple[float, float], ...]


def detect(image: NDArray[np.uint8], *, far: bool = False) -> list[Detection]:
    """Faces of an upright RGB photo [H, W, 3] uint8, the surest first; raises AssetError without the model.

    Beside a face that is near, ones that are under a twentieth of the photo are found with `far` alone, down to a
    sixtieth. What else it finds has the same box and score with it and without.
    """
    longer = max(image.shape[:2])
    faces = _look(image, LOOKS[0] / longer)
    if not faces and longer > LOOKS[0]:
        faces = _look(image, min(1.0, LOOKS[1] / longer))
    if far and longer > LOOKS[1]:
        further = _look(image, min(1.0, FAR / longer))
        faces += [face for face in further if not any(_same(face, near) for near in faces)]
    return sorted(faces, key=lambda face: -face.score)


def _same(first: Detection, second: Detection) -> bool:
    """Whether the middle of one box lies in the other: two looks at a face, or a part of it taken for another one."""
    return _holds(first.box, second.box) or _holds(second.box, first.box)


def _holds(box: Box, other: Box) -> bool:
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _look(image: NDArray[np.uint8], scale: float) -> list[Detection]:
    height, width = image.shape[:2]
    looked_at = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.ascontiguousarray(scaled(image, *looked_at[::-1])[:, :, ::-1])  # the network was trained on BGR

    def ask(network: cv2.FaceDetectorYN) -> list[NDArray[np.float32]]:
        network.setInputSize(looked_at)
        rows = network.detect(small)[1]
        return [] if rows is None else list(np.asarray(rows, dtype=np.float32))

    size = np.array([width, height], dtype=np.float64)
    faces = []
    for row in _DETECTORS.use(ask):  # left, top, width, height, five times x, y, score
        places = row[:14].reshape(7, 2) * (size / looked_at)
        left, top = np.clip(places[0], 0, size).tolist()
        right, bottom = np.clip(places[0] + places[1], 0, size).tolist()
        if right > left and bottom > top:
            points = tuple((float(x), float(y)) for x, y in places[2:])
            faces.append(Detection((left, top, right, bottom), float(row[14]), points))
    return sorted(faces, key=lambda face: -face.score)


def by_size(faces: Iterable[Detection]) -> list[Detection]:
    """The largest by the area of its box first, of equal ones the surest."""
    return sorted(faces, key=lambda face: (face.box[0] - face.box[2]) * (face.box[3] - face.box[1]))


def largest(image: NDArray[np.uint8]) -> Box | None:
    """The box of the largest face by area (of equal ones the surest), None where no face is found."""
    faces = by_size(detect(image))
    return faces[0].box if faces else None


def _make() -> cv2.FaceDetectorYN:
    path = asset_path("yunet", get=True)
    with _LOGGING:  # OpenCV 5 warns about its default target; the level of its log is one for all threads
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.FaceDetectorYN.create(str(path), "", (LOOKS[0], LOOKS[0]), SCORE, OVERLAP)
        finally:
            cv2.utils.logging.setLogLevel(level)


_DETECTORS = Spares(_make)
