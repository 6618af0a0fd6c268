"""Where a face is in a photo: pose and shape from 49 or 68 landmarks.

A mean face in three dimensions is laid under the landmarks by an affine camera, so a turned head comes out of the fit,
and a face of 49 points gets its jaw and ears from the model; what the model misses is added as a smooth
displacement. Face units: the distance between the eyes' centres is 1, the origin lies between the eyes, x goes to the
image's right, y down, z out of the face.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError

Array = NDArray[Any]

_MODEL = {  # 49-point index: x, y, z in face units, weight
    19: (-0.69, 0.00, -0.12, 1), 22: (-0.30, 0.03, 0.03, 1), 25: (0.30, 0.03, 0.03, 1), 28: (0.69, 0.00, -0.12, 1),
    10: (0.0, -0.01, 0.17, 1), 11: (0.0, 0.19, 0.28, 0.7), 12: (0.0, 0.38, 0.40, 0.7), 13: (0.0, 0.57, 0.52, 1),
    14: (-0.21, 0.71, 0.22, 1), 16: (0.0, 0.76, 0.36, 1), 18: (0.21, 0.71, 0.22, 1),
    31: (-0.41, 1.04, 0.16, 1), 34: (0.0, 0.96, 0.38, 0.8), 37: (0.41, 1.04, 0.16, 1), 40: (0.0, 1.26, 0.36, 0.4),
}  # fmt: skip
_HALF_JAW = np.array(
    [(1.17, 0.1, -1.0), (1.16, 0.37, -0.95), (1.12, 0.65, -0.88), (1.05, 0.93, -0.78), (0.93, 1.2, -0.62),
     (0.74, 1.46, -0.38), (0.5, 1.66, -0.12), (0.25, 1.77, 0.1), (0.0, 1.81, 0.18)])  # fmt: skip
_MIRROR = np.array([-1, 1, 1])
JAW = np.concatenate([_HALF_JAW * _MIRROR, _HALF_JAW[-2::-1]])
"""[17, 3]: the model's jaw line in face units, from the image's left to its right; 8 is the chin."""
_TEMPLE = np.array(
    [(0.85, 0.3, -0.35), (0.98, 0.25, -0.55), (1.08, 0.2, -0.78), (1.15, 0.15, -0.97), (1.2, 0.12, -1.12)]
)
_LOBE = _TEMPLE + np.array([0, 0.6, 0])
_EARS = np.stack([_TEMPLE * _MIRROR, _TEMPLE, _LOBE * _MIRROR, _LOBE])
"""Ways along the side of the head to where a loop goes behind the ear."""
_FRONTAL = (0.04, 0.15)
"""Lean towards a frontal face, for yaw and for pitch: depth is seen only through the nose, and a long nose looks like
pitch."""
_REACH = 0.32
"""How far, in eye distances, a landmark's displacement from the model is felt."""


@dataclass(frozen=True, slots=True)
class FaceGeometry:
    """A face's pose and shape in a photo, in pixels; `scale` is the eye distance seen from the front.

    `camera` [2, 3] and `origin` [2] map face units to pixels; `anchors` [M, 2] (face units) with `offsets` [M, 2]
    (pixels, felt by a Gaussian of the distance) bend that to this person. `eyes` [2, 2] are the eyes' centres.
    """

    camera: Array
    origin: Array
    anchors: Array
    offsets: Array
    eyes: Array
    scale: float

    def project(self, places: Array) -> Array:
        """[..., 3] in face units -> [..., 2] pixels."""
        flat = places.reshape(-1, 3)
        bend = _felt(flat[:, :2], self.anchors) @ self.offsets
        placed = flat @ self.camera.T + self.origin + bend
        return np.asarray(placed.reshape(*places.shape[:-1], 2), np.float32)

    @property
    def ears(self) -> Array:
        """[4, 2]: where loops go behind the left and the right ear, above and then below; where the face hides an
        ear, the outermost point of the way there."""
        ways = self.project(_EARS)
        away = self.camera[:, 0] * np.array([-1, 1, -1, 1])[:, None]
        return np.asarray(ways[np.arange(4), np.einsum("epk,ek->ep", ways, away).argmax(axis=1)])


def fit_geometry(points: NDArray[np.floating]) -> FaceGeometry:
    """Landmarks [49, 2] or [68, 2] in pixels (the usual 68-point order, or that without jaw and inner mouth corners).

    Raises DataError for another shape, for values that are not finite, or for points that are no face (no extent).
    """
    places = np.asarray(points, np.float64)
    if places.shape not in ((49, 2), (68, 2)) or not np.isfinite(places).all():
        raise DataError(f"landmarks of shape {places.shape}: 49 or 68 finite (x, y) points were expected")
    inner = places if len(places) == 49 else np.delete(places, [*range(17), 60, 64], axis=0)
    eyes = np.stack([inner[19:25].mean(axis=0), inner[25:31].mean(axis=0)])
    apart = np.hypot(*(eyes[1] - eyes[0]))
    if apart < 2:
        raise DataError(f"landmarks span {np.ptp(places, axis=0).round(1)} pixels: no face to draw on")
    index = list(_MODEL)
    model, weight = np.array([_MODEL[i][:3] for i in index]), np.sqrt([_MODEL[i][3] for i in index])[:, None]
    across = (eyes[1] - eyes[0]) / apart
    upright = np.array([across, [-across[1], across[0]]])  # rows: the eye line, and down the face
    terms, seen = np.column_stack([model, np.ones(len(index))]) * weight, inner[index] @ upright.T * weight
    leans = [np.diag([0, 0, lean, 0]) for lean in _FRONTAL]
    solved = np.column_stack(
        [np.linalg.solve(terms.T @ terms + lean, terms.T @ seen[:, axis]) for axis, lean in enumerate(leans)]
    )
    camera, origin = upright.T @ solved[:3].T, upright.T @ solved[3]
    jaw, offsets = JAW, inner[index] - (model @ camera.T + origin)
    if len(places) == 68:
        jaw_offsets = places[:17] - (jaw @ camera.T + origin)
    else:  # an open mouth takes the chin along
        jaw, jaw_offsets = JAW[6:11], np.tile(0.9 * offsets[index.index(40)], (5, 1))
    anchors, offsets = np.vstack([model, jaw])[:, :2], np.vstack([offsets, jaw_offsets])
    offsets = np.linalg.solve(_felt(anchors, anchors) + 0.05 * np.eye(len(anchors)), offsets)
    return FaceGeometry(camera, origin, anchors, offsets, eyes, float(np.sqrt((camera**2).sum() / 2)))


def _felt(places: Array, anchors: Array) -> Array:
    """[N, M]: how much every place feels every anchor, a Gaussian of their distance."""
    apart = ((places[:, None] - anchors[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-apart / (2 * _REACH**2)))
