"""A drawn person, painted: body, head, marks of age, features, mask, glasses and hair.

`landmarks` places the 68 usual points in face units; every part is drawn from them, so they are exact. The order of
the functions is the order of the layers, back to front. The numbers are a drawing: what they are worth shows on a
contact sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threefold.draw.drawing import Color, Floats, Painter, color, ellipse, even, mix, path, smooth, unit
from threefold.draw.people import Person
from threefold.labels import Mask

_BLACK, _WHITE = color(18, 15, 16), color(244, 242, 238)
_CLOTHS = np.array(
    [(238, 240, 242), (162, 206, 226), (150, 208, 190), (34, 34, 38), (226, 178, 190), (132, 136, 142), (40, 62, 112),
     (150, 44, 52), (202, 186, 160), (206, 188, 92), (92, 118, 84), (112, 84, 130), (214, 172, 140)], np.float32
)  # fmt: skip
_CLOTH_SHARES = np.array([0.24, 0.17, 0.05, 0.2] + [0.34 / 9] * 9)


@dataclass(frozen=True)
class Look:
    """What one photo adds to a person: smile -0.3..1, opening of the mouth, eyelids 0.5..1.1, gaze, clothes."""

    smile: float
    open: float
    lids: float
    gaze: float
    clothes: Color
    collar: int


def landmarks(p: Person, look: Look) -> Floats:
    """[68, 2] points in face units in the iBUG 300-W order (Sagonas et al. 2013): jaw, brows, nose, eyes, mouth."""
    angle = np.linspace(0, np.pi, 17)
    x = -p["width"] * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / p["square"])
    y = p["length"] * np.sin(angle) ** (2 / p["square"])
    jowl = 0.045 * max(p["sag"], 0) * np.exp(-(((np.abs(x) - 0.66) / 0.16) ** 2)) * (y > 0.6)
    jaw = np.stack([x * (1 - p["taper"] * y / p["length"]) + np.sign(x) * jowl, y + jowl], 1)
    lift = p["brow_arch"] * np.array([0, 0.6, 1, 1, 0.1]) - 0.035 * max(p["sag"], 0) * np.array([0, 0, 0, 0, 1])
    brow = np.stack([np.linspace(0.19, 0.73, 5) + p["eye_x"] - 0.43, p["brow_y"] - lift], 1)
    tip, half = p["nose_length"], p["nose_width"]
    bridge = np.stack([np.zeros(4), np.linspace(0.02, tip - 0.07, 4)], 1)
    base = np.stack([np.linspace(-half, half, 5), tip + np.array([0, 0.035, 0.06, 0.035, 0])], 1)
    across = np.array([-1, -0.4, 0.42, 1, 0.45, -0.45])  # the right eye of the picture, from its inner corner
    lids = p["eye_open"] * look.lids * np.array([0, -1, -0.95, 0, 0.6, 0.62])
    eye = np.stack([p["eye_x"] + p["eye"] * across, lids - p["eye_tilt"] * across], 1)
    flip = np.array([-1, 1])
    parts = [jaw, (brow * flip)[::-1], brow, bridge, base, (eye * flip)[[3, 2, 1, 0, 5, 4]], eye, _mouth(p, look)]
    return np.concatenate(parts).astype(np.float32) + p.wobble


def _mouth(p: Person, look: Look) -> Floats:
    """[20, 2]: outer lips, then the seam."""
    wide, lip = 1 + 0.14 * look.smile, max(p["lip"], 0.03)
    outer = [-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.62, 0.22, 0, -0.22, -0.62]
    x = np.array([*outer, -0.8, -0.25, 0, 0.25, 0.8, 0.25, 0, -0.25])
    up = np.array([0, -0.6, -1, -0.8, -1, -0.6, 0, 0.84, 1.16, 1.2, 1.16, 0.84, *[0.05] * 8])
    drop = np.array([0, 0, 0, 0, 0, 0, 0, 0.7, 0.97, 1, 0.97, 0.7, 0, 0, 0, 0, 0, 0.9, 1, 0.9])
    y = p["nose_length"] + 0.42 * (p["length"] - p["nose_length"]) - 0.07 * look.smile * x**2
    return np.stack([x * wide * p["mouth_width"], y + lip * up + look.open * drop], 1).astype(np.float32)


def rim(outline: Floats) -> Floats:
    """[N] depth along the outline of a face: the sides lie beside the head's axis, the chin before it."""
    return np.asarray(0.2 * np.maximum(outline[:, 1], 0) ** 2, np.float32)


def _arch(wide: float, rise: float) -> Floats:
    """[11, 2] upper half of an ellipse from right to left, its foot on the line y = -0.2."""
    angle = np.linspace(0, np.pi, 11)
    return np.stack([wide * np.cos(angle), -0.2 - rise * np.sin(angle)], 1).astype(np.float32)


def _cap(p: Person) -> tuple[float, float, bool]:
    """Half width and rise of the hair, and whether it is only a wreath."""
    volume = max(p["hair_volume"], 0.04)
    wreath = p["recede"] > 0.62 and p["hair_length"] < 0.75
    return p["width"] + volume * (0.4 + 0.6 * unit(p["hair_length"] * 1.4)), 1.14 + 1.3 * volume, wreath


def body(b: Painter, p: Person, look: Look) -> None:
    """The hair that falls behind, shoulders, clothes and neck."""
    wide, neck, low, cloth = p["shoulders"], p["neck"], p["length"], look.clothes
    if p["hair_length"] > 0.68:
        end, out = 4.8 * p["hair_length"] - 2.36, p["width"] + p["hair_volume"] + 0.1 + 0.15 * p.curl
        fall = even(0, -1.3, out, -0.5, out + 0.08, 0.6, out * (0.95 + 0.1 * p.curl), end, 0, end + 0.1)
        b.shape(smooth(fall), p.hair * 0.72, z=-0.35)
    b.shape(smooth(even(0.75, low + 0.5, wide, low + 0.95, wide * 1.15, 5)), cloth, z=-0.3)
    arm = path(wide * 0.7, 5, wide * 0.66, low + 1.3, wide * 0.6, low + 1)
    b.line(arm, cloth * 0.75, 0.06, 0.6, 0.03, z=-0.3, twin=True)
    throat = even(neck, 0.6, neck, low + 0.35, neck + 0.25, low + 0.62, 0, low + 0.85)
    b.shape(smooth(throat), p.skin * 0.86, z=-0.15)
    b.shape(ellipse(0, low + 0.02, neck * 1.1, 0.3), p.skin * 0.55, 0.6, 0.1, z=-0.1)
    for y in (low + 0.3, low + 0.44):
        ring = path(-neck * 0.8, y, 0, y + 0.06, neck * 0.8, y - 0.02)
        b.line(ring, p.skin * 0.6, 0.035, 0.6 * p["wrinkles"], 0.012, z=-0.05)
    if look.collar == 1:
        flap = path(0, low + 0.95, 0.8, low + 0.35, 0.95, low + 0.75, 0.4, low + 1.25)
        b.shape(flap, mix(cloth, _WHITE, 0.35), z=-0.1, twin=True)
    elif look.collar == 2:
        hem = path(-0.8, low + 0.5, -0.4, low + 0.8, 0.4, low + 0.8, 0.8, low + 0.5)
        b.line(hem, cloth * 0.7, 0.12, z=-0.1, taper=0.3)


def head(b: Painter, p: Person, marks: Floats) -> None:
    """Ears, skin with its soft shading, marks of age, beard."""
    wide, sag = p["width"], unit(p["sag"])
    skin = mix(p.skin, color(208, 186, 150) * (float(p.skin.mean()) / 190), 0.45 * p["sallow"])
    for size, tone in ((1.0, 0.92), (0.55, 0.72)):
        b.shape(ellipse(wide + 0.02, 0.2, 0.15 * size, p["ear"] * size), skin * tone, z=-0.25, twin=True)
    out, rise, wreath = _cap(p)
    if not wreath:
        b.shape(_arch(0.97 * out, 0.97 * rise), p.hair * 0.6, z=-0.1)
    outline = smooth(np.concatenate([marks[:17], _arch(wide, 1.1)[1:-1]]))
    b.shape(outline, skin, z=rim(outline))
    b.clip = b.stencil(outline, rim(outline))
    b.shape(ellipse(0.55, 0.5, 0.24, 0.17), mix(skin, color(214, 96, 86), 0.5), p["blush"] * 1.6, 0.12, twin=True)
    b.shape(ellipse(p["eye_x"], -0.04, 0.27, 0.14), skin * 0.62, 0.42 + 0.25 * sag, 0.07, twin=True)
    b.shape(ellipse(0.9, 0.75, 0.2, 0.5), skin * 0.72, 0.4 + 0.35 * sag, 0.16, twin=True)
    b.shape(ellipse(0.86, -0.45, 0.12, 0.3), skin * 0.7, 0.3 + 0.4 * sag, 0.1, twin=True)
    b.shape(ellipse(0, p["length"] - 0.22, 0.2, 0.12), skin * 1.1, 0.5, 0.08)
    b.shape(ellipse(0, -0.5, 0.5, 0.2), skin * 1.08, 0.5, 0.15)
    _age(b, p, marks, skin)
    _beard(b, p, marks)
    b.clip = None


def _age(b: Painter, p: Person, marks: Floats, skin: Color) -> None:
    """Wrinkles, folds, bags and spots: all grow steadily with their traits, none begins at a border."""
    dark, deep, bags, e = skin * 0.5, p["wrinkles"], p["bags"], p["eye_x"]
    for row in range(4):
        y, late = -0.42 - 0.11 * row, unit(1.5 * deep - 0.16 * row)
        furrow = path(-0.52, y + 0.04, -0.25, y, 0, y + 0.025, 0.25, y, 0.52, y + 0.04)
        b.line(furrow, dark, 0.04, 0.8 * late, 0.012)
        b.line(furrow + path(0, 0.035), skin * 1.1, 0.03, 0.5 * late, 0.015)
    for row, y in enumerate((-0.09, 0.0, 0.09)):
        foot = path(e + p["eye"] + 0.03, 0.4 * y, e + p["eye"] + 0.24, 1.7 * y)
        b.line(foot, dark, 0.038, 0.85 * unit(1.5 * deep - 0.12 * row), 0.008, twin=True)
    nose, corner = marks[35], marks[54]
    fold = np.concatenate([nose + path(0.03, -0.05, 0.15, 0.12), corner + path(0.12, -0.04, 0.13, 0.08)])
    b.line(fold, dark, 0.055, min(0.9, 0.08 + 0.85 * deep), 0.02, twin=True)
    b.line(corner + path(0.03, 0.04, 0.08, 0.26), dark, 0.05, min(0.8, 1.1 * deep - 0.25), 0.02, twin=True)
    b.line(path(0.05, -0.3, 0.06, -0.14), dark, 0.035, min(0.7, deep - 0.2), 0.012, twin=True)
    b.line(path(0.3, 0.3, 0.55, 0.42, 0.68, 0.7), dark, 0.05, min(0.6, 0.9 * deep - 0.35), 0.03, twin=True)
    bag = path(e - 0.18, 0.1, e - 0.05, 0.17, e + 0.08, 0.17, e + 0.19, 0.1)
    b.line(bag, dark, 0.06, min(0.9, bags), 0.02, twin=True)
    b.shape(ellipse(e, 0.12, 0.17, 0.05), mix(skin, color(128, 84, 110), 0.4), 0.7 * unit(bags), 0.03, twin=True)
    for x, y, size in p.spots:
        b.shape(ellipse(x * p["width"], y, size, size, 9), mix(skin, color(104, 62, 40), 0.6), 0.6, 0.012)


def _beard(b: Painter, p: Person, marks: Floats) -> None:
    """Shadow of a shaven beard, or the beard."""
    lip = p["nose_length"] + 0.12
    cheek = np.concatenate([marks[2:15], path(0.5, 0.8, 0.25, lip, -0.25, lip, -0.5, 0.8)])
    amount = max(min(0.5, p["stubble"]), 0.9 * p.beard)
    b.shape(smooth(cheek), mix(p.skin * 0.62, p.hair, 0.35 + 0.5 * p.beard), amount, 0.07)
    if p.beard > 0.6:
        b.line(marks[[48, 50, 52, 54]] + path(-0.05, 0, 0, -0.05, 0, -0.05, 0.05, 0), p.hair, 0.11, 0.9, 0.02)


def features(b: Painter, p: Person, look: Look, marks: Floats) -> None:
    """Nose, mouth, eyes and brows."""
    skin = p.skin
    b.shape(smooth(even(0.05, 0, 0.1, 0.45, 0, 0.58)), skin * 1.12, 0.5, 0.05)
    left, right = marks[31] + path(-0.03, -0.12, -0.035, 0), marks[35] + path(0.035, 0, 0.03, -0.12)
    b.line(np.concatenate([left, marks[32:35], right]), skin * 0.55, 0.055, 0.75, 0.018)
    for x, y in marks[[32, 34]]:
        b.shape(ellipse(x, y - 0.015, 0.05, 0.022, 12), skin * 0.3, 0.8, 0.01)
    b.line(path(0.1, 0.1, 0.11, 0.3, 0.16, 0.5), skin * 0.65, 0.07, 0.45, 0.04)
    _lips(b, p, look, marks)
    for lids in (marks[[36, 37, 38, 39, 40, 41]], marks[[45, 44, 43, 42, 47, 46]]):
        _eye(b, p, look, lids)
    for brow in (marks[17:22], marks[26:21:-1]):
        thick = max(p["brow_thick"], 0.03)
        b.line(brow, p.brows, thick, 0.85, 0.012, taper=0.6)
        b.line(brow + path(0, 0.01), p.brows * 0.8, thick * 0.5, 0.6, taper=0.9)


def _lips(b: Painter, p: Person, look: Look, marks: Floats) -> None:
    red = mix(p.skin * 0.8, color(176, 38, 54), min(0.9, max(0.05, p["lip_red"])))
    b.shape(smooth(marks[48:60], rounds=1), red, 0.9, 0.01)
    if look.open > 0:
        inner = smooth(marks[60:68], rounds=1)
        b.shape(inner, color(62, 18, 22))
        b.clip = b.stencil(inner)
        b.shape(ellipse(0, marks[62, 1] + 0.02, 0.7 * p["mouth_width"], 0.05), _WHITE, 0.9)
        b.clip = None
    else:
        b.line(marks[60:65], red * 0.45, 0.028, 0.9, 0.006)
    b.line(marks[58:55:-1] + path(0, -0.03), mix(red, _WHITE, 0.4), 0.04, 0.5, 0.015)
    b.line(marks[[59, 57, 55]] + path(0, 0.07), p.skin * 0.62, 0.05, 0.55, 0.03)


def _eye(b: Painter, p: Person, look: Look, lids: Floats) -> None:
    """`lids` [6, 2]: outer corner, two points above, inner corner, two points below."""
    outer, inner, sag, shadow = lids[0], lids[3], unit(p["sag"]), p["shadow"]
    away, lash = float(np.sign(outer[0])), min(1.2, max(0.0, p["lash"]))
    ball = smooth(lids)
    b.shape(ball, color(236, 230, 226))
    b.clip = b.stencil(ball)
    x, y = ((outer + inner) / 2 + path(look.gaze * 0.07, -0.012)[0]).tolist()
    for radius, paint in ((0.098, p.iris * 0.55), (0.08, p.iris), (0.041, _BLACK)):
        b.shape(ellipse(x, y, radius, radius, 16), paint)
    b.shape(ellipse(x + 0.03, y - 0.035, 0.022, 0.022, 8), _WHITE, 0.9)
    b.clip = None
    edge = lids[:4] + path(away * 0.02, -0.01, 0, 0, 0, 0, 0, 0)
    b.line(edge, _BLACK, 0.022 + 0.04 * lash, 0.9, 0.004, taper=0.6)
    b.line(outer + path(0, 0, away * 0.08, -0.02 - 0.05 * lash), _BLACK, 0.03, lash * (lash > 0.5))
    crease = lids[:4] + path(away * 0.04, -0.02, 0, -0.055, 0, -0.055, 0, -0.02)
    tint = mix(p.skin * 0.55, color(120, 74, 110), 1.8 * shadow)
    lid = np.concatenate([crease - path(0, 0.03 + 0.1 * unit(shadow)), edge[::-1]])
    b.shape(smooth(lid), tint, min(0.6, 1.8 * shadow), 0.02)
    b.line(crease + path(0, 0.03 * sag), p.skin * 0.45, 0.03, 0.6 + 0.3 * sag, 0.008)
    b.line(lids[[0, 5, 4, 3]] + path(0, 0.006), p.skin * 0.5, 0.02, 0.5, 0.006)


def mask(b: Painter, p: Person, marks: Floats, state: Mask, rng: np.random.Generator) -> None:
    """A mask of random make.

    WORN: over nose, mouth and chin. INCORRECT: the nose is out, or mouth and nose are (on the chin or below).
    """
    if state == Mask.NONE:
        return
    nose, chin, kind = p["nose_length"], p["length"], int(rng.integers(3))
    if state == Mask.WORN:
        top, bottom, side = rng.uniform(0.16, 0.6) * nose, chin + rng.uniform(0.02, 0.12), rng.uniform(0.28, 0.5)
    elif rng.random() < 0.5:
        top, bottom, side = nose + rng.uniform(0.07, 0.14), chin + rng.uniform(0.04, 0.14), rng.uniform(0.5, 0.7)
    else:
        top, bottom = marks[57, 1] + rng.uniform(0.08, 0.3), chin + rng.uniform(0.15, 0.4)
        side = rng.uniform(0.75, 0.95)
    peak, low = rng.uniform(0, 0.08), (side + bottom) / 2
    x0, x1 = np.interp([side, low], marks[8:17, 1][::-1], marks[8:17, 0][::-1]) * rng.uniform(0.84, 0.95)
    x1, x2 = (min(x1, 0.9 * x0), 0.5 * x0) if kind else (0.88 * x0, 0.62 * x0)
    half = path(0, top - peak, 0.16, top + 0.03 + peak, 0.5, 0.6 * top + 0.4 * side, x0, side, x1, low + 0.08)
    outline = smooth(even(*half.ravel(), x2, bottom - 0.06, 0, bottom))
    base = _CLOTHS[rng.choice(len(_CLOTHS), p=_CLOTH_SHARES)] * np.float32(rng.uniform(0.86, 1.03))
    cord = color(228, 226, 222) if rng.random() < 0.7 else base
    for x, y, ear in ((x0, side + 0.2, 0.05), (x1, low + 0.15, 0.38)):  # from under the cloth to the ear
        b.line(path(0.6 * x, y, p["width"], ear), cord, 0.035, 0.95, z=0.1, taper=0, twin=True)
    b.shape(outline + path(0, 0.03), p.skin * 0.35, 0.5, 0.045)
    b.shape(outline, base)
    b.clip = b.stencil(outline)
    _cloth(b, kind, base, (float(top), float(bottom), float(x0)), rng)
    b.clip = None


def _cloth(b: Painter, kind: int, base: Color, extent: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Pleats (kind 0), perhaps a pattern (1), a centre fold (2), and the shading that all share."""
    top, bottom, wide = extent
    dark, light, tall = base * 0.7, np.minimum(base * 1.08 + 8, 255), bottom - top
    if kind == 0:
        for y in top + tall * np.linspace(0.3, 0.8, int(rng.integers(2, 5))):
            pleat = path(-wide, y, 0, y + 0.05, wide, y)
            b.line(pleat, dark, 0.035, 0.7, 0.012, taper=0)
            b.line(pleat - path(0, 0.04), light, 0.03, 0.7, 0.012, taper=0)
        b.line(path(-0.3, top + 0.12, 0, top + 0.06, 0.3, top + 0.12), dark, 0.03, 0.5, 0.01)
    elif kind == 1 and rng.random() < 0.6:
        ink, dots, gap = _CLOTHS[rng.integers(len(_CLOTHS))], rng.random() < 0.5, rng.uniform(0.16, 0.3)
        for x in np.arange(-wide, wide, gap):
            for row, y in enumerate(np.arange(top, bottom, gap) if dots else ()):
                b.shape(ellipse(x + 0.5 * gap * (row % 2), y, gap * 0.24, gap * 0.24, 8), ink, 0.9)
            b.line(path(x, top - 0.1, x, bottom + 0.1), ink, gap * 0.35, 0.0 if dots else 0.9, taper=0)
    elif kind == 2:
        b.line(path(0, top - 0.05, 0.015, top + tall / 2, 0, bottom + 0.05), dark, 0.04, 0.8, 0.015, taper=0)
        b.line(path(0.05, top + 0.3 * tall, wide, top + 0.45 * tall), dark, 0.03, 0.6, 0.012, twin=True)
    b.shape(ellipse(wide * 0.95, top + tall / 2 + 0.1, 0.22, 0.5 * tall), dark, 0.65, 0.12, twin=True)
    b.shape(ellipse(0.05, top + 0.4 * tall, 0.25, 0.25 * tall), light, 0.5, 0.12)


def glasses(b: Painter, p: Person) -> None:
    """Frames of one of three kinds."""
    if p.glasses == 0:
        return
    frame, tall = ((_BLACK, 0.2), (color(120, 96, 60), 0.24), (color(92, 60, 44), 0.19))[p.glasses - 1]
    x = p["eye_x"]
    square = smooth(path(x - 0.3, -tall, x + 0.3, -tall, x + 0.27, tall * 1.1, x - 0.27, tall * 1.1))
    rim_line = ellipse(x, 0.03, 0.27, tall) if p.glasses == 2 else square
    b.shape(rim_line, color(225, 235, 245), 0.12, twin=True)
    b.line(np.concatenate([rim_line, rim_line[:2]]), frame, 0.045, 0.95, taper=0, twin=True)
    b.line(path(x + 0.28, -0.05, p["width"], -0.06), frame, 0.05, 0.9, taper=0, twin=True)
    b.line(path(-0.16, -0.03, 0, -0.07, 0.16, -0.03), frame, 0.045, 0.95, taper=0)


def hair(b: Painter, p: Person) -> None:
    """Hair over the forehead and along the sides, with strands; a wreath where little is left."""
    wide, reach, bald = p["width"], p["hair_length"], unit(p["recede"])
    sides = float(np.interp(reach, [0, 0.5, 0.7, 1.2], [-0.1, 0.15, 0.8, 2.2]))
    out, rise, wreath = _cap(p)
    edge, split = wide * (0.97 if reach < 0.62 else 0.86), 0.4 * p.parting
    if wreath:
        rest = path(out, sides, out, -0.5, wide * 0.9, -0.75, wide * 0.86, -0.3, edge, sides)
        b.shape(smooth(rest), p.hair, 0.9, 0.03, z=-0.05, twin=True)
        return
    line = -p["hairline"] - 0.42 * bald * (reach < 0.75) + 0.42 * p.fringe
    temple = line + 0.1 - 0.25 * bald
    tip = line - 0.1 + 0.06 * p.fringe
    right = path(edge, sides, edge, -0.15, 0.78 * wide, temple, 0.5, line - 0.04, split + 0.1, tip)
    hem = np.concatenate([right, path(split - 0.1, line - 0.02, -0.5, line), right[2::-1] * path(-1, 1)])
    hem[2:-2, 1] += 0.3 * p.parting * hem[2:-2, 0]  # combed to one side
    outer = np.concatenate([path(-out, sides, -out * 1.02, sides / 2), _arch(out, rise)[::-1]])
    outer = np.concatenate([outer, path(out * 1.02, sides / 2, out, sides)])
    waves = 1 + 0.05 * p.curl * np.cos(np.pi * np.arange(len(outer), dtype=np.float32))
    cap = smooth(np.concatenate([outer * waves[:, None], hem]).astype(np.float32))
    b.shape(cap, p.hair, 1.0, 0.012, z=0.12)
    b.clip = b.stencil(cap, z=0.12)
    for step, x in enumerate(np.linspace(-out, out, 12)):
        wave, tone = 0.08 * p.curl * (-1) ** step, (0.72, 1.22, 1.0)[step % 3]
        strand = path(split + 0.25 * x, -0.2 - rise, 0.75 * x + wave, -1.05, x - wave, -0.45, x + wave, 0.2, x, sides)
        b.line(strand, np.minimum(p.hair * tone + 10 * (tone > 1), 255), 0.1, 0.45, 0.02, z=0.12)
    b.shape(ellipse(0.3 * split, -1.05, 0.5, 0.09), np.minimum(p.hair * 1.35 + 14, 255), 0.45, 0.08, z=0.12)
    b.clip = None
