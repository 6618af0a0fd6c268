"""Photos of drawn people: the backdrop, the light and the camera around `portrait`, and one person's files.

Everything about one person and one photo depends on (seed, index, shot) alone, so a set of 20 people is the beginning
of the set of 2,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from threefold.data.layouts import CONTEST_MASKS
from threefold.draw import portrait
from threefold.draw.drawing import Floats, Painter, Pose, ellipse, mix, path
from threefold.draw.people import Person, draw_person
from threefold.draw.portrait import Look
from threefold.labels import NAMES, Mask, encode

RACE = "Drawn"
_IDS = 999_983  # a prime: k -> 618,034 k modulo it is one-to-one, so ids look random and neighbours are no couple


def person_id(seed: int, index: int) -> str:
    """Six digits, unique for index < 999,983, that give away neither order nor labels."""
    return f"{(index * 618_034 + seed * 7_919 + 104_729) % _IDS:06d}"


@dataclass(frozen=True)
class Drawn:
    """One written photo: its path below the folder, person, class 0..17, age and landmarks [68, 2] in pixels."""

    path: str
    person: str
    label: int
    age: int
    points: Floats


@dataclass(frozen=True, slots=True)
class Job:
    """One person to draw: into which folder (it exists), of which set, at (height, width); see `draw_files`."""

    folder: Path
    seed: int
    index: int
    size: tuple[int, int]
    hidden: bool


def draw_files(job: Job) -> list[Drawn]:
    """Draw the seven photos of a person: JPEG of a random quality.

    Plain: `{id}_{gender}_{race}_{age}/{shot}.jpg`. Hidden: `{40 hex digits}.jpg`, as in the contest's eval set.
    """
    folder, seed, index = job.folder, job.seed, job.index
    person, name = draw_person(seed, index), person_id(seed, index)
    home = f"{name}_{NAMES['gender'][person.gender]}_{RACE}_{person.age}"
    if not job.hidden:
        (folder / home).mkdir()
    drawn = []
    for shot, (stem, mask) in enumerate(CONTEST_MASKS.items()):
        rng = np.random.default_rng([seed, 2, index, shot])
        photo, points = draw_photo(person, mask, rng, job.size)
        file = f"{sha1(f'{seed} {index} {shot}'.encode()).hexdigest()}.jpg" if job.hidden else f"{home}/{stem}.jpg"
        quality = int(rng.integers(78, 96))
        (folder / file).write_bytes(simplejpeg.encode_jpeg(photo, quality=quality, colorsubsampling="420"))
        drawn.append(Drawn(file, name, encode(mask, person.gender, person.group), person.age, points))
    return drawn


def draw_photo(
    person: Person, mask: Mask, rng: np.random.Generator, size: tuple[int, int] = (512, 384)
) -> tuple[NDArray[np.uint8], Floats]:
    """One photo of a drawn person.

    size is (height, width) in pixels. Returns RGB [H, W, 3] and the 68 landmarks [68, 2] (x, y in pixels; where the
    points are, seen or under the mask). Pose, expression, clothes, backdrop, light and camera come from `rng` alone,
    never from the labels.
    """
    fine = 2 if size[0] < 320 else 1  # small photos are drawn twice as large, so that thin lines survive
    shape = (size[0] * fine, size[1] * fine)
    room = min(shape[1], 0.75 * shape[0])
    pose = Pose(
        yaw=float(np.clip(rng.normal(0, 0.2), -0.42, 0.42)),
        pitch=float(np.clip(rng.normal(0, 0.09), -0.2, 0.2)),
        roll=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        scale=room * float(rng.uniform(0.235, 0.29)),
        origin=(shape[1] / 2 + room * rng.uniform(-0.07, 0.07), shape[0] / 2 - room * rng.uniform(-0.02, 0.12)),
    )
    look = Look(
        smile=float(rng.uniform(-0.3, 1)),
        open=float(rng.uniform(0.05, 0.15)) if rng.random() < 0.3 else 0.0,
        lids=float(rng.uniform(0.7, 1.1)),
        gaze=float(rng.normal(0, 0.4)),
        clothes=_dull(rng.uniform(20, 235, 3), rng.uniform(0, 1)),
        collar=int(rng.integers(3)),
    )
    light = _light(shape, pose, rng)
    brush = Painter(_backdrop(shape, rng) / light, pose)  # the lamp stands before the person, not before the wall
    marks = portrait.landmarks(person, look)
    portrait.body(brush, person, look)
    portrait.head(brush, person, marks)
    portrait.features(brush, person, look, marks)
    portrait.mask(brush, person, marks, mask, rng)
    portrait.glasses(brush, person)
    portrait.hair(brush, person)
    photo = _camera(brush.canvas * light, size, rng)
    points = np.concatenate([pose(marks[:17], portrait.rim(marks[:17])), pose(marks[17:])])
    return photo, (points / fine).astype(np.float32)


def _dull(paint: NDArray[np.float64], share: float) -> Floats:
    """Colours [..., 3] with this share of grey, as rooms and clothes have."""
    grey = paint.mean(-1, keepdims=True)
    return np.asarray(paint + share * (grey - paint), np.float32)


def _backdrop(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """[3, H, W] wall or room out of focus: a gradient, perhaps with blobs, stripes or boxes; a quarter of the size."""
    height, width = max(8, shape[0] // 4), max(8, shape[1] // 4)
    ends, angle = _dull(rng.uniform(25, 240, (2, 3)), 0.75), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slope = np.clip(0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1).astype(np.float32)
    wall = ends[0][:, None, None] * (1 - slope) + ends[1][:, None, None] * slope
    room = Painter(np.ascontiguousarray(wall), Pose(0, 0, 0, height / 2, (width / 2, height / 2)))
    kind, blur = rng.integers(4), rng.uniform(0.0, 0.12)
    for _ in range(int(rng.integers(2, 9))):
        paint = mix(ends[rng.integers(2)], _dull(rng.uniform(10, 245, 3), 0.5), rng.uniform(0.2, 0.8))
        (x0, y0), (w, h) = rng.uniform(-1, 1, 2).tolist(), rng.uniform(0.1, 0.6, 2).tolist()
        if kind == 0:
            room.shape(ellipse(x0, y0, w, w), paint, 0.7, blur + 0.03, z=0)
        elif kind == 1:
            room.shape(path(x0, -2, x0 + w / 3, -2, x0 + w / 3, 2, x0, 2), paint, 0.7, blur, z=0)
        elif kind == 2:
            room.shape(path(x0, y0, x0 + w, y0, x0 + w, y0 + h, x0, y0 + h), paint, 0.9, blur, z=0)
    full = cv2.resize(room.canvas.transpose(1, 2, 0), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(full.transpose(2, 0, 1), np.float32)


def _light(shape: tuple[int, int], pose: Pose, rng: np.random.Generator) -> Floats:
    """[H, W] what a lamp does to the person: Lambert's law on a head-shaped ellipsoid, computed coarsely."""
    rows, columns = max(4, shape[0] // 8), max(4, shape[1] // 8)
    y, x = np.mgrid[0 : shape[0] - 1 : rows * 1j, 0 : shape[1] - 1 : columns * 1j].astype(np.float32)
    u, v = (x - pose.origin[0]) / pose.scale / 1.3, (y - pose.origin[1]) / pose.scale / 1.9
    far = np.maximum(1, np.hypot(u, v))
    u, v = u / far, v / far
    lamp = np.array([rng.normal(0, 0.7), rng.normal(-0.5, 0.4), 1.0])
    lamp /= np.linalg.norm(lamp)
    lambert = np.clip(u * lamp[0] + v * lamp[1] + np.sqrt(np.clip(1 - u**2 - v**2, 0, 1)) * lamp[2], 0, 1) / far
    strength = rng.uniform(0.15, 0.6)
    return np.asarray(cv2.resize((1 - strength + 1.2 * strength * lambert).astype(np.float32), shape[::-1]))


def _camera(canvas: Floats, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Focus, white balance, exposure, sensor noise: [3, H, W] float -> RGB [H, W, 3] uint8 of the wanted size."""
    blur = rng.uniform(0.1, 1.4) * canvas.shape[1] / 512
    photo: Floats = np.ascontiguousarray(canvas.transpose(1, 2, 0))
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), blur) if blur > 0.3 else photo, np.float32)
    photo = np.asarray(cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
    warmth, exposure = rng.normal(0, 0.04), rng.uniform(0.75, 1.08)
    grain = rng.standard_normal((*size, 1), dtype=np.float32) * np.float32(rng.uniform(0.5, 4))
    photo = photo * np.array([1 + warmth, 1, 1 - warmth], np.float32) * np.float32(exposure) + grain
    return np.clip(photo, 0, 255).astype(np.uint8)
