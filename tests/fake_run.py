"""A complete run directory made in a moment: simulated probabilities, drawn pictures, everything `train` writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from threefold import labels
from threefold.evidence.metrics import measure
from threefold.files import write_json
from threefold.predictions import Predictions
from threefold.recipe import make_recipe
from threefold.runs import Run

STAMP = {
    "version": "0.1.0",
    "commit": "0123456789abcdef",
    "created": "2026-11-22T10:00:00+00:00",
    "device": "cpu, 2 cores",
    "command": "threefold train recipes/base.yaml --data practice --out runs/x",
    "data": "contest:practice/train",
    "data_digest": "d" * 32,
    "folds_digest": "f" * 32,
    "seed": 0,
    "duplicate_groups": 0,
    "packages": {"torch": "2.12.0", "timm": "1.0.31", "numpy": "2.4.6"},
}


def simulate(
    people: int, folds: int, seed: int = 0, known: tuple[bool, bool, bool] = (True, True, True)
) -> Predictions:
    """Seven photos a person as in the contest, errors shared by a person's photos and most often about age."""
    rng = np.random.default_rng(seed)
    years = rng.choice([19, 22, 27, 35, 48, 55, 58, 60], people, p=[0.25, 0.12, 0.1, 0.05, 0.13, 0.14, 0.13, 0.08])
    gender = rng.integers(0, 2, people)
    rows = np.repeat(np.arange(people), 7)
    mask = np.tile([0, 0, 0, 0, 0, 1, 2], people)
    group = np.array([labels.age_group(year) for year in years])
    truth = np.stack([mask, gender[rows], group[rows]], axis=1).astype(np.int8)
    guess = years[rows] + rng.normal(0, 5, people)[rows] + rng.normal(0, 2, len(rows))
    age = np.stack([30 - guess, 12 - abs(guess - 45), guess - 60], axis=1) / 4
    sex = np.eye(2)[truth[:, 1]] * 4 + rng.normal(0, 1.2, (people, 2))[rows]
    worn = np.eye(3)[mask] * 5 + rng.normal(0, 1.3, (len(rows), 3))
    parts = [np.exp(x - x.max(1, keepdims=True)) for x in (worn, sex, age)]
    joint = np.einsum("na,nb,nc->nabc", *(p / p.sum(1, keepdims=True) for p in parts)).reshape(-1, 18)
    truth[:, ~np.array(known)] = labels.UNKNOWN
    persons = np.array([f"{row:06d}_asian" for row in rows])
    return Predictions(
        np.array([f"train/{person}/{i % 7}.jpg" for i, person in enumerate(persons)]),
        persons,
        joint.astype(np.float32),
        truth,
        np.where(known[2], years[rows], np.nan).astype(np.float32),
        guess.astype(np.float32),
        (rows % folds).astype(np.int16),
    )


def epochs(fold: int, count: int = 12) -> list[dict[str, Any]]:
    """Lines of log.jsonl that look like learning."""
    rng = np.random.default_rng(fold)
    score = 0.75 - 0.6 * np.exp(-np.arange(count) / 3) + rng.normal(0, 0.01, count)
    return [
        {
            "fold": fold, "epoch": e + 1, "step": 30 * (e + 1), "lr": 1e-3 * np.cos(np.pi * e / count / 2),
            "train_loss": 2.5 * np.exp(-e / 4) + 0.2, "valid_loss": 2.3 * np.exp(-e / 3) + 0.6 + e * 0.02,
            "macro_f1": float(score[e]), "mask": 0.9, "gender": 0.9, "age_group": 0.7, "seconds": 20.0,
            "photos_per_second": 150.0 + e, "best": bool(score[e] == score[: e + 1].max()),
        }
        for e in range(count)
    ]  # fmt: skip


def write_run(
    path: Path, oof: Predictions, *, pictures: Path | None = None, complete: bool = True, draws: int = 200,
    curves: int = 1, recipe: dict[str, Any] | None = None, **stamp: Any,
) -> Run:  # fmt: skip
    """A run directory at `path` about `oof`; photos are drawn into `pictures`, and `curves` folds have a log."""
    people = len(np.unique(oof.persons))
    run = Run.create(path, make_recipe(recipe or {}), {**STAMP, "photos": len(oof), "persons": people, **stamp})
    rows = list(zip(oof.photos.tolist(), oof.persons.tolist(), oof.truth.tolist(), oof.ages.tolist(), strict=True))
    with (path / "photos.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["photo", "path", "person", "mask", "gender", "age", "age_group"])
        for photo, person, codes, age in rows:
            mask, gender, group = (labels.name(name, code) for name, code in zip(labels.ATTRIBUTES, codes, strict=True))
            where = (pictures or Path("gone")) / Path(photo).relative_to("train") if photo.startswith("train") else ""
            table.writerow([photo, where, person, mask, gender, "" if np.isnan(age) else age, group])
    with (path / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["photo", "person", "fold"])
        table.writerows(zip(oof.photos, oof.persons, oof.fold, strict=True))
    folds = sorted(set(oof.fold.tolist()))
    lines = [line for fold in folds[:curves] for line in epochs(fold)]
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    oof.save(path / "oof.npz")
    if pictures:
        draw(oof, pictures)
    if complete:
        scored = [{"fold": fold, "macro_f1": 0.7 + fold / 50, "best_epoch": 11, "epochs": 12} for fold in folds]
        write_json(path / "metrics.json", {**measure(oof, draws=draws), "folds": scored, "seconds": 754.2})
    return run


def draw(oof: Predictions, pictures: Path) -> None:
    """A face-coloured oval with a mask or without, one colour of background per person."""
    for photo, person, truth in zip(oof.photos.tolist(), oof.persons.tolist(), oof.truth, strict=True):
        rng = np.random.default_rng(int.from_bytes(person.encode()[:6], "little"))
        image = np.full((256, 192, 3), rng.integers(90, 220, 3), np.uint8)
        cv2.ellipse(image, (96, 120), (55, 75), 0, 0, 360, (150, 180, 220), -1)
        if truth[0] == 0:
            cv2.rectangle(image, (47, 120), (145, 185), (210, 200, 120), -1)
        path = pictures / Path(photo).relative_to("train")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
