"""Faces in a photo: boxes, scores and five points, by YuNet (Wu et al., "YuNet: a tiny millisecond-level face
detector", 2023) through OpenCV.

Training and prediction find the face of a photo that comes without a box by this one function, inside `Prepare`, so
that a network is shown the same crop on both sides. Same photo, same boxes, for any number of threads. `landmarks` is
for drawing masks (`threefold dress`); nothing that reads a photo needs it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.assets import HELPERS, asset_path
from threefold.photos.decode import Box
from threefold.photos.networks import Spares, Tflite, scaled

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

SIDE, MARGIN = 192, 1.5
"""What the network sees: a square of `MARGIN` x the face box, turned by the eye line, at `SIDE` pixels."""
APART = 0.35
"""How far, in eye distances, eyes and mouth may lie from where the detector saw them. Where the mesh misses the face,
the two disagree by more; the network's logit of whether there is a face is not given by OpenCV 5."""

_POINTS = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107), *(336, 296, 334, 293, 301),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144), *(362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181), *(78, 82, 13, 312, 308, 317, 14, 87),  # mouth
)  # fmt: skip
"""Vertices of the mesh at the usual 68 places."""


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


def landmarks(image: NDArray[np.uint8], face: Detection) -> NDArray[np.float32] | None:
    """Upright RGB photo [H, W, 3] uint8 and one of its faces -> [68, 2] pixels in the usual order.

    These are 68 of the 468 of MediaPipe's face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from
    Monocular Video on Mobile GPUs", 2019). None where mesh and detector disagree. Raises AssetError without the model.
    """
    left, top, right, bottom = face.box
    (x0, y0), (x1, y1) = face.points[:2]
    turn = np.degrees(np.arctan2(y1 - y0, x1 - x0))
    side = MARGIN * max(right - left, bottom - top)
    to_face = cv2.getRotationMatrix2D(((left + right) / 2, (top + bottom) / 2), float(turn), SIDE / side)
    to_face[0, 2] += SIDE / 2 - (left + right) / 2
    to_face[1, 2] += SIDE / 2 - (top + bottom) / 2
    crop = cv2.warpAffine(image, to_face, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    mesh = _MESH(np.asarray(crop, dtype=np.uint8)).reshape(468, 3)[list(_POINTS), :2]
    back = cv2.invertAffineTransform(to_face)
    points = np.asarray(mesh @ back[:, :2].T + back[:, 2], dtype=np.float32)
    # eyes and mouth corners, as the mesh has them and as the detector does
    corners = np.stack([points[36:42].mean(0), points[42:48].mean(0), points[48], points[54]])
    far = np.linalg.norm(corners - np.array(face.points)[[0, 1, 3, 4]], axis=1).max()
    eyes, mouth = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[3])
    return points if far < APART * max(float(eyes), float(mouth), 4.0) else None


def _make() -> cv2.FaceDetectorYN:
    path = asset_path("yunet", get=True)
    with _LOGGING:  # OpenCV 5 warns about its default target; the level of its log is one for all threads
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.FaceDetectorYN.create(str(path), "", (LOOKS[0], LOOKS[0]), SCORE, OVERLAP)
        finally:
            cv2.utils.logging.setLogLevel(level)


_DETECTORS = Spares(_make)
_MESH = Tflite("mesh")
