"""Photos of drawn people: body, head, marks of age, features, mask, glasses and hair; the backdrop, light and camera.

`landmarks` places the 68 usual points in face units; every part is drawn from them, so they are exact. `paint` lays
the parts over each other, back to front. The numbers are a drawing: what they are worth shows on a contact sheet.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.draw.drawing import Brush, Floats, ellipse, even, mix, path
from threefold.draw.people import Person
from threefold.labels import Mask

_BLACK, _BROWN, _WHITE, _RED = np.array([(18, 15, 16), (88, 58, 34), (244, 242, 238), (176, 38, 54)], np.float32)
_CLOTHS = np.array(
    [(238, 240, 242), (162, 206, 226), (34, 34, 38), (150, 208, 190), (226, 178, 190), (132, 136, 142), (40, 62, 112)],
    np.float32,
)
"""Colours of masks, the more frequent ones first."""


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


def landmarks(p: Person, smile: float, gap: float, lids: float) -> Floats:
    """[68, 2] points in face units in the iBUG 300-W order (Sagonas et al. 2013): jaw, brows, nose, eyes, mouth.

    smile -0.3..1, gap between the lips (face units), lids 0.5..1.1 (how far the eyes are open).
    """
    angle = np.linspace(0, np.pi, 17)
    cos, sin, power = np.cos(angle), np.sin(angle), 2 / p["square"]
    jaw = np.stack([-p["width"] * np.sign(cos) * np.abs(cos) ** power * (1 - 0.1 * sin), p["length"] * sin**power], 1)
    brow = np.stack([np.linspace(-0.24, 0.3, 5) + p["eye_x"], p["brow_y"] - 0.05 * np.array([0, 0.6, 1, 1, 0.1])], 1)
    tip, half = p["nose_length"], p["nose_width"]
    bridge = np.stack([np.zeros(4), np.linspace(0.02, tip - 0.07, 4)], 1)
    base = np.stack([np.linspace(-half, half, 5), tip + np.array([0, 0.035, 0.06, 0.035, 0])], 1)
    across = np.array([-1, -0.4, 0.42, 1, 0.45, -0.45])  # the right eye of the picture, from its inner corner
    eye = np.stack([p["eye_x"] + p["eye"] * across, p["eye_open"] * lids * np.array([0, -1, -0.95, 0, 0.6, 0.62])], 1)
    outer = [-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.62, 0.22, 0, -0.22, -0.62]
    x = np.array([*outer, -0.8, -0.25, 0, 0.25, 0.8, 0.25, 0, -0.25])
    up = np.array([0, -0.6, -1, -0.8, -1, -0.6, 0, 0.84, 1.16, 1.2, 1.16, 0.84, *[0.05] * 8])
    drop = np.array([0, 0, 0, 0, 0, 0, 0, 0.7, 0.97, 1, 0.97, 0.7, 0, 0, 0, 0, 0, 0.9, 1, 0.9])
    y = tip + 0.42 * (p["length"] - tip) - 0.07 * smile * x**2 + max(p["lip"], 0.03) * up + gap * drop
    mouth = np.stack([x * p["mouth_width"] * (1 + 0.14 * smile), y], 1)
    flip = np.array([-1, 1])
    parts = [jaw, (brow * flip)[::-1], brow, bridge, base, (eye * flip)[[3, 2, 1, 0, 5, 4]], eye, mouth]
    return np.concatenate(parts).astype(np.float32)


def paint(b: Brush, p: Person, marks: Floats, state: Mask, rng: np.random.Generator) -> None:
    """The whole person with its `landmarks`; clothes and mask by lot."""
    low, wide = p["length"], p["width"]
    if p["hair_length"] > 0.68:  # it falls behind the shoulders
        end = 4.8 * p["hair_length"] - 2.2
        b.shape(even(path(0, -1.4, wide + 0.25, -0.7, wide + 0.35, 0.6, wide + 0.2, end, 0, end)), p.hair * 0.72)
    b.shape(even(path(0.6, low + 0.4, 2, low + 0.85, 2.4, 5.5)), rng.uniform(20, 235, 3).astype(np.float32))
    b.shape(even(path(0.7, 0.4, 0.7, low + 0.35, 0.9, low + 0.65, 0, low + 0.95)), p.skin * 0.86)
    b.shape(ellipse(0, low + 0.02, 0.8, 0.3), p.skin * 0.55, 0.6, 0.1)
    _head(b, p, marks)
    _features(b, p, marks)
    if state != Mask.NONE:
        _mask(b, p, marks, state, rng)
    if p["glasses"] > 0.77:
        rim = ellipse(p["eye_x"], 0.03, 0.29, 0.23)
        b.line(np.concatenate([rim, rim[:1]]), _BLACK, 0.045, 0.9, twin=True)
        b.line(path(p["eye_x"] + 0.28, -0.03, p["width"], -0.06), _BLACK, 0.05, 0.9, twin=True)
        b.line(path(-0.16, -0.03, 0, -0.07, 0.16, -0.03), _BLACK, 0.045, 0.9)
    _hair(b, p)


def _head(b: Brush, p: Person, marks: Floats) -> None:
    """Ears, skin with its soft shading, wrinkles and beard."""
    skin, wide, x, old = p.skin, p["width"], p["eye_x"], max(p["wrinkles"], 0.0)
    dark = skin * 0.5
    b.shape(ellipse(wide + 0.02, 0.2, 0.17, 0.3), skin * 0.85, twin=True)
    outline = np.concatenate([marks[:17], path(wide, -0.6, 0.75, -1.15, 0, -1.4, -0.75, -1.15, -wide, -0.6)])
    b.shape(outline, skin)
    b.clip = b.inside(outline)
    b.shape(ellipse(x, -0.04, 0.29, 0.16), skin * 0.55, 0.2 + 0.5 * p["lash"] + 0.25 * old, 0.07, twin=True)
    b.shape(ellipse(0.95, 0.7, 0.25, 0.6), skin * 0.7, 0.4 + 0.35 * old, 0.16, twin=True)
    for row in range(3):  # furrows on the forehead and beside the eyes
        y = -0.46 - 0.14 * row
        b.line(path(-0.55, y + 0.04, -0.25, y, 0.25, y, 0.55, y + 0.04), dark, 0.045, min(0.8, old), 0.012)
        y = 0.12 * (row - 1)
        b.line(path(x + 0.25, 0.4 * y, x + 0.46, 1.7 * y), dark, 0.04, min(0.8, old), 0.01, twin=True)
    fold = marks[[35, 54, 54]] + path(0.05, 0, 0.1, -0.16, 0.13, 0.08)
    b.line(fold, dark, 0.06, 0.85 * old, 0.02, twin=True)
    b.line(path(x - 0.2, 0.1, x, 0.19, x + 0.2, 0.1), dark, 0.07, 0.85 * old, 0.025, twin=True)
    lip = p["nose_length"] + 0.12
    cheeks = np.concatenate([marks[2:15], path(0.5, 0.8, 0.25, lip, -0.25, lip, -0.5, 0.8)])
    b.shape(cheeks, mix(skin * 0.62, p.hair, p["stubble"] + 0.2), min(0.9, 1.2 * p["stubble"]), 0.07)
    b.clip = None


def _features(b: Brush, p: Person, marks: Floats) -> None:
    """Nose, mouth, eyes and brows."""
    skin = p.skin
    b.shape(even(path(0.06, 0, 0.11, 0.45, 0, 0.6)), skin * 1.12, 0.5, 0.05)
    wings = marks[[31, 31, 32, 33, 34, 35, 35]] + path(-0.05, -0.1, *[0] * 10, 0.05, -0.1)
    b.line(wings, skin * 0.5, 0.07, 0.8, 0.018)
    b.shape(marks[48:60], mix(skin * 0.8, _RED, p["lip_red"]), 0.95, 0.01)
    b.shape(marks[60:68], skin * 0.3)
    b.line(marks[60:65], skin * 0.3, 0.04, 0.9, 0.008)
    for brow, lids in ((marks[17:22], marks[36:42]), (marks[22:27], marks[42:48])):
        x, y = lids.mean(0)
        b.shape(lids, _WHITE)
        b.clip = b.inside(lids)
        b.shape(ellipse(x, y, 0.1, 0.1), _BROWN)
        b.shape(ellipse(x, y, 0.05, 0.05), _BLACK)
        b.clip = None
        b.line(lids[:4], _BLACK, 0.02 + 0.08 * max(0.0, p["lash"]), 0.9, 0.004)
        b.line(brow, p.hair * 0.85, max(p["brow_thick"], 0.03), 0.9, 0.012)


def _mask(b: Brush, p: Person, marks: Floats, state: Mask, rng: np.random.Generator) -> None:
    """A mask of random make.

    WORN: over nose, mouth and chin. INCORRECT: the nose is out, or mouth and nose are (on the chin or below).
    """
    nose, chin = p["nose_length"], p["length"]
    if state == Mask.WORN:
        top, bottom, side = rng.uniform(0.16, 0.6) * nose, chin + rng.uniform(0.02, 0.12), rng.uniform(0.28, 0.5)
    elif rng.random() < 0.5:
        top, bottom, side = nose + rng.uniform(0.07, 0.14), chin + rng.uniform(0.04, 0.14), rng.uniform(0.5, 0.7)
    else:
        top, bottom = marks[57, 1] + rng.uniform(0.08, 0.3), chin + rng.uniform(0.15, 0.4)
        side = rng.uniform(0.75, 0.95)
    tall, low = bottom - top, (side + bottom) / 2
    x0, x1 = np.interp([side, low], marks[8:17, 1][::-1], marks[8:17, 0][::-1]) * rng.uniform(0.88, 1)
    cloth = _CLOTHS[int(len(_CLOTHS) * rng.random() ** 1.7)] * np.float32(rng.uniform(0.86, 1.03))
    b.line(path(0.6 * x0, side + 0.1, p["width"], 0.05), _WHITE * 0.94, 0.04, 0.95, twin=True)
    b.line(path(0.6 * x1, low, p["width"], 0.38), _WHITE * 0.94, 0.04, 0.95, twin=True)
    outline = even(path(0, top - 0.05, 0.2, top, 0.55, 0.5 * (top + side), x0, side, x1, low, 0.35, bottom, 0, bottom))
    b.shape(outline, cloth)
    b.clip = b.inside(outline)
    if rng.random() < 0.5:
        for y in top + tall * np.array([0.3, 0.5, 0.7]):
            b.line(path(-x0, y, 0, y + 0.06, x0, y), cloth * 0.7, 0.045, 0.7, 0.012)
    else:
        b.line(path(0, top - 0.1, 0.02, top + tall / 2, 0, bottom), cloth * 0.7, 0.05, 0.8, 0.015)
    b.shape(ellipse(x0, top + tall / 2 + 0.1, 0.25, 0.6 * tall), cloth * 0.7, 0.65, 0.12, twin=True)
    b.clip = None


def _hair(b: Brush, p: Person) -> None:
    """Hair over the forehead and along the sides, with strands; little is left of it where the hairline recedes."""
    wide, reach = p["width"], p["hair_length"]
    end, out = np.interp(reach, [0, 0.5, 0.7, 1.2], [-0.1, 0.15, 0.8, 2.2]), wide + 0.08 + 0.1 * max(0.0, reach)
    line = -0.72 - 0.75 * (reach < 0.75) * np.clip(p["recede"], 0, 1)
    inner = 0.93 * wide if reach < 0.65 else 0.84 * wide
    crown = path(out, end, out, -0.5, 0.92 * out, -1.1, 0.55, -1.52)
    hem = path(0, line - 0.1, 0.6 * wide, line, inner, -0.3, inner, end)
    outline = even(np.concatenate([hem, crown]))
    b.shape(outline, p.hair, 1, 0.012)
    b.clip = b.inside(outline)
    for row, x in enumerate(np.linspace(-out, out, 12)):
        strand = path(0.25 * x, -1.6, 0.75 * x, -1.1, x, -0.4, x, end)
        b.line(strand, p.hair * (0.72, 1.25, 1.0)[row % 3], 0.1, 0.45, 0.02)
    b.clip = None
