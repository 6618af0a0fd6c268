"""The picture of `threefold show`: what the network sees of some photos, step by step, and what it learns from them.

A row is a photo: as prepared, under several draws of the augmentation, and after the mix with the shares of its target.
The draws are seeded as the first epochs of fold 0 are.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from threefold import labels, spec
from threefold.data.face import Face
from threefold.files import atomic_write
from threefold.learn.loop import seed_epoch
from threefold.learn.net import to_float
from threefold.learn.plan import make_plan
from threefold.learn.target import Target
from threefold.recipe import PARTS, Recipe, make_recipe
from threefold.train.single import prepared, read_all

TRIED = 16
"""Draws over which the change of a step is averaged: one with p=0.1 shows in some of them."""
DRAWS = 4
"""Draws of the augmentation that are shown."""
BATCH = 64
"""Photos of the batch that is augmented and mixed, at most; as many as the recipe's batch holds."""
_LEFT, _RIGHT, _CELL = 2.6, 1.9, 1.45  # inches: the columns of labels and shares, and the width of a picture's


@dataclass(frozen=True)
class Change:
    """What a step does: its recipe key (`augment` or `mix`), its text, and the mean change of a pixel, 0..1."""

    key: str
    step: str
    size: float

    def line(self) -> str:
        """In words; a warning where the step does nothing although it should."""
        text = f"{self.key} {self.step}: mean change of a pixel {self.size:.3f} of 1"
        idle = self.step != "none" and self.size < 0.0005
        return f"! {text}: changes nothing in {TRIED} draws, look at its options" if idle else text


def write_sheet(recipe: Recipe, out: Path, top: int, seed: int) -> list[Change]:
    """Write the contact sheet of `top` photos as a PNG; what every step of the training changes."""
    chosen = recipe.part(PARTS[0]) if recipe.parts else recipe
    plan = make_plan(chosen)
    faces, _ = read_all(chosen)
    rows = spread(faces, max(top, min(plan.recipe.train.batch, BATCH)), seed)
    photos = prepared(chosen, [faces[row] for row in rows])
    order = np.arange(len(rows))
    images, target = to_float(photos.batch(order, torch.device("cpu"))), photos.target.take(order)
    draws = [_draw(plan.augment, images, plan.recipe.seed, epoch) for epoch in range(1, DRAWS + 1)]
    mixed, shares = plan.mix(draws[0], target, seed_epoch(plan.recipe.seed, 0, 1))
    changes = _changes(chosen, images, target)
    captions = []
    for face in (faces[row] for row in rows[:top]):
        names = [labels.name(name, code) or "?" for name, code in zip(labels.ATTRIBUTES, face.parts, strict=True)]
        captions.append(f"{face.id}\n{' '.join(names)}" + ("" if face.age is None else f" ({face.age:g})"))
    texts = [in_words(shares, row) for row in range(len(captions))]
    sheet = _sheet(chosen, changes, [images, *draws, mixed], captions, texts)
    atomic_write(out, lambda file: file.write(sheet))
    return changes


def spread(faces: Sequence[Face], count: int, seed: int) -> list[int]:
    """Rows of `count` photos (all, where there are fewer), each class in turn, of people not yet shown if it can."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(6)
    # masks take turns, and the six kinds of people come in another order under each
    codes = [turn % 3 * 6 + int(group[(turn + turn // 6) % 6]) for turn in range(labels.CLASSES)]
    pools: dict[int, list[int]] = {code: [] for code in (*codes, labels.UNKNOWN)}
    for row in rng.permutation(len(faces)).tolist():
        pools[faces[row].label].append(row)
    chosen: list[int] = []
    people: set[str] = set()
    while len(chosen) < min(count, len(faces)):
        for pool in filter(None, pools.values()):
            row = next((row for row in pool if faces[row].person not in people), pool[0])
            pool.remove(row)
            people.add(faces[row].person)
            chosen.append(row)
    return chosen[:count]


def in_words(target: Target, row: int) -> str:
    """`0.54 worn male <30` and `0.46 none female 30-59` on lines; by attribute where the class is not wholly known."""
    joint = target.joint[row]
    if float(joint.sum()) > 0.999:
        return "\n".join(f"{joint[code]:.2f} {labels.class_name(code)}" for code in _largest(joint))
    lines = []
    for name, names in labels.NAMES.items():
        mass = getattr(target, name)[row]
        if mass.any():
            lines.append(f"{name}: " + ", ".join(f"{mass[code]:.2f} {names[code]}" for code in _largest(mass)))
    return "\n".join(lines) or "nothing is known"


def _largest(mass: Tensor) -> list[int]:
    return [code for code in mass.argsort(descending=True, stable=True).tolist() if mass[code] >= 0.005][:3]


def _draw(augment: Callable[[Tensor], Tensor], images: Tensor, seed: int, epoch: int) -> Tensor:
    """As the loop draws in an epoch (from 1) of fold 0."""
    seed_epoch(seed, 0, epoch)
    return augment(images)


def _changes(recipe: Recipe, images: Tensor, target: Target) -> list[Change]:
    """Mean absolute change of a pixel, over TRIED draws, of each augmentation alone and of the mix."""
    changes = []
    for call in spec.parse(recipe.train.augment, "train.augment"):
        options = [*map(repr, call.args), *(f"{key}={value!r}" for key, value in call.options)]
        text = f"{call.name}({', '.join(options)})" if options else call.name
        alone = make_plan(make_recipe(recipe.flat(), [f"train.augment={text}"])).augment
        drawn = [_draw(alone, images, recipe.seed, epoch) - images for epoch in range(1, TRIED + 1)]
        changes.append(Change("augment", text, float(torch.stack(drawn).abs().mean())))
    mix, epochs = make_plan(recipe).mix, range(1, TRIED + 1)
    drawn = [mix(images, target, seed_epoch(recipe.seed, 0, epoch))[0] - images for epoch in epochs]
    return [*changes, Change("mix", recipe.train.mix, float(torch.stack(drawn).abs().mean()))]


def _sheet(
    recipe: Recipe, changes: Sequence[Change], batches: Sequence[Tensor], captions: Sequence[str], shares: Sequence[str]
) -> bytes:
    """The PNG: a header, then one row per photo with its labels, `batches` (all [B, 3, H, W]) and the mix's shares."""
    keys = {key.partition(".")[2]: value for key, value in recipe.flat().items() if key.startswith("prepare.")}
    steps = [("prepare", ", ".join(f"{key} {value}" for key, value in keys.items()), "mean change of a pixel, of 1")]
    steps += [(change.key, change.step, f"{change.size:.3f}") for change in changes]
    width = _LEFT + _CELL * len(batches) + _RIGHT
    header = [
        (f"{'' if line else key:9}{part}", "" if line else change)
        for key, step, change in steps
        for line, part in enumerate(textwrap.wrap(step, int(width * 9)))
    ]
    tall = _CELL * batches[0].shape[2] / batches[0].shape[3]
    top = 0.5 + 0.18 * len(header)
    height = top + (tall + 0.1) * len(captions)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=110)
        for line, (text, change) in enumerate(header):
            idle = change == "0.000" and text.split() not in (["augment", "none"], ["mix", "none"])
            style: dict[str, Any] = {"color": "#b4530a" if idle else "#1b2430", "family": "DejaVu Sans Mono"}
            figure.text(0.1 / width, 1 - (0.2 + 0.18 * line) / height, text, **style)
            figure.text(1 - 0.1 / width, 1 - (0.2 + 0.18 * line) / height, change, ha="right", **style)
        titles = ["prepared", *(f"draw {n}" for n in range(1, len(batches) - 1)), "draw 1, mixed"]
        for column, (title, batch) in enumerate(zip(titles, batches, strict=True)):
            left = (_LEFT + _CELL * column) / width
            figure.text(left, 1 - (top - 0.08) / height, title, color="#69727f")
            for row in range(len(captions)):
                low = 1 - (top + (tall + 0.1) * (row + 1) - 0.1) / height
                axes = figure.add_axes((left, low, (_CELL - 0.06) / width, tall / height))
                axes.imshow(batch[row].clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
                axes.set_axis_off()
        for row, (caption, share) in enumerate(zip(captions, shares, strict=True)):
            middle = 1 - (top + (tall + 0.1) * (row + 0.5)) / height
            # wrapped to the labels' column; letters that the font lacks are escaped
            plain = caption.encode("ascii", "backslashreplace").decode().replace("/", "/ ").split("\n")
            wrapped = "\n".join(part for line in plain for part in textwrap.wrap(line, 32)).replace("/ ", "/")
            for left, text in ((0.1, wrapped), (_LEFT + _CELL * len(batches) + 0.06, share)):
                figure.text(left / width, middle, text, va="center", linespacing=1.5)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
