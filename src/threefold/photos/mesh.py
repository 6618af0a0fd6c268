"""Landmarks of a face that comes without any: 68 points out of the 468 of MediaPipe's face mesh (Kartynnik et al.,
"Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019).

For drawing masks on portraits (`threefold dress`); nothing that reads a photo needs it. Same photo, same points, for
any number of threads.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.photos.detect import Detection
from threefold.photos.networks import Tflite

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


def landmarks(image: NDArray[np.uint8], face: Detection) -> NDArray[np.float32] | None:
    """Upright RGB photo [H, W, 3] uint8 and one of its faces -> [68, 2] pixels in the usual order.

    None where mesh and detector disagree. Raises AssetError without the model.
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


_MESH = Tflite("mesh")
