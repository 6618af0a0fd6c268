"""`threefold train`: labelled photos in; folds, networks, out-of-fold predictions and an honest score out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefold import progress
from threefold.data.cache import content_digests, open_cache
from threefold.data.duplicates import fingerprint, near_duplicates, person_groups
from threefold.data.face import Face
from threefold.data.folds import make_split, read_split, write_split
from threefold.data.sources import read_faces
from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.metrics import measure
from threefold.files import digest, printable, write_csv, write_json
from threefold.labels import name as label_name
from threefold.learn.loader import Photos, make_photos
from threefold.learn.loop import Fit, fit
from threefold.learn.plan import Plan, make_net, make_plan, make_prepare
from threefold.predictions import Predictions, join
from threefold.recipe import Recipe, differences, load_recipe, make_recipe
from threefold.runs import Run
from threefold.stages.journal import Journal

FINAL = -1
"""The fold number of the network that is trained on all people: split.csv's mark for "always training"."""


def train(
    recipe: Path | str | Recipe, *, data: str = "", out: Path | str, overrides: Iterable[str] = (), resume: bool = False
) -> Run:
    """Train every fold of a recipe (a file or an object) on `data` and write the run directory `out`.

    `overrides` are `key=value` strings. `resume` goes on with an unfinished run of the same recipe and data, to the
    bit-identical end on the same machine; a finished one is returned as it is. Raises RecipeError, DataError or
    RunError before anything is written, TrainingError on a loss that is not finite.
    """
    out = Path(out)
    chosen = _recipe(recipe, data, overrides)
    plan = make_plan(chosen)
    if resume and out.exists():
        run = Run.open(out)
        _same(run, chosen)
        if run.state == "complete":
            progress.say(f"{out}: is complete already")
            return run
    else:
        Run.need_free(out)
    prepare = make_prepare(chosen)
    make_net(chosen, prepare, pretrained=True)  # weights that cannot be had: told before any photo is read
    faces = read_faces(chosen.data.source)
    if prepare.needs_box and (bare := [face for face in faces if face.box is None]):
        raise DataError(
            f"prepare.crop: {prepare.crop} needs a face box for every photo; {len(bare)} of {len(faces)} have none, "
            f"the first is {bare[0].id} (csv sources give them as left,top,right,bottom)"
        )
    with progress.bar("preparing photos") as report:
        images = open_cache(faces, prepare, progress=report)
    run = _start(out, chosen, faces, images, plan, resume)
    with run.training():
        _work(run, chosen, plan, make_photos(images, faces), read_split(run.path / "split.csv", faces))
    return run


def find_groups(images: NDArray[np.uint8], persons: Sequence[str]) -> NDArray[np.int64]:
    """[N] group numbers: people who share a near duplicate have the same, and so stay in one fold."""
    prints = np.stack([fingerprint(image) for image in images])
    return person_groups(persons, near_duplicates(prints, persons))


def _recipe(recipe: Path | str | Recipe, data: str, overrides: Iterable[str]) -> Recipe:
    if not isinstance(recipe, Recipe):
        chosen = load_recipe(Path(recipe), [*overrides, *([f"data.source={data}"] if data else [])])
    else:
        chosen = make_recipe(recipe.flat() | ({"data.source": data} if data else {}), overrides)
    if not chosen.data.source:
        raise RecipeError("data.source: no photos are named; give --data PATH (or layout:PATH,...) or data.source=...")
    return chosen


def _same(run: Run, recipe: Recipe) -> None:
    for key, stored, asked in differences(run.recipe, recipe):
        raise RunError(f"{run.path}: --resume with {key}={asked!r}, but the run was started with {stored!r}")


def _start(
    out: Path, recipe: Recipe, faces: Sequence[Face], images: NDArray[np.uint8], plan: Plan, resume: bool
) -> Run:
    """The run directory with its stamp, folds and list of photos; an existing one is checked to be of the same data."""
    data_digest = digest(*(f"{f.id}|{f.person}|{f.parts}|{f.age}" for f in faces), *content_digests(faces))
    if resume and (out / "photos.csv").exists():
        run = Run.open(out)
        if run.stamp["data_digest"] != data_digest:
            raise RunError(f"{out}: --resume with photos or labels that changed since the run was started")
        return run
    groups = find_groups(images, [face.person for face in faces])
    split = make_split(recipe.data.folds, faces, seed=recipe.data.seed, groups=groups)
    stamp = {
        "version": importlib.metadata.version("threefold"), "commit": _commit(), "created": _now(),
        "command": shlex.join(["threefold", *sys.argv[1:]]), "device": f"{plan.fabric.device} ({_machine()})",
        "data": recipe.data.source, "data_digest": data_digest,
        "folds_digest": digest(*sorted(f"{f.id}|{k}" for f, k in zip(faces, split.tolist(), strict=True))),
        "photos": len(faces), "persons": len({face.person for face in faces}), "seed": recipe.seed,
        "duplicate_groups": _joined(faces, groups), "packages": _packages(),
    }  # fmt: skip
    # a run killed between its first files has them written again, the same
    started = resume and (out / "stamp.json").exists()
    run = Run.open(out) if started else Run.create(out, recipe, stamp)
    write_split(out / "split.csv", faces, split)
    header = ("photo", "path", "person", "mask", "gender", "age", "age_group")
    write_csv(out / "photos.csv", [header, *map(_photo_row, faces)])
    return run


def _work(run: Run, recipe: Recipe, plan: Plan, photos: Photos, split: NDArray[np.int8]) -> None:
    begin = time.perf_counter()
    folds = sorted({int(fold) for fold in split if fold >= 0})
    fits: list[Fit] = []
    with Journal(run.path, len(folds), plan.epochs) as journal:
        for fold in folds:
            sides = photos.at(np.flatnonzero(split != fold)), photos.at(np.flatnonzero(split == fold))
            fits.append(_fold(run, recipe, plan, fold, *sides, journal))
        if recipe.train.final or not folds:
            whole = _final_plan(plan, fits)
            _fold(run, recipe, whole, FINAL, photos, None, journal)
    metrics: dict[str, Any] = {"photos": 0, "persons": 0, "macro_f1": None, "accuracy": None}
    if folds:
        oof = join([Predictions.load(run.path / f"fold{fold}" / "valid.npz") for fold in folds])
        oof.save(run.path / "oof.npz")
        metrics = measure(oof)
    rows = [
        {"fold": f.fold, "macro_f1": f.macro_f1, "best_epoch": f.best_epoch, "epochs": f.epochs, "seconds": f.seconds}
        for f in fits
    ]
    spent = {"seconds": round(sum(f.seconds for f in fits), 1), "seconds_last": round(time.perf_counter() - begin, 1)}
    write_json(run.path / "metrics.json", {**metrics, "folds": rows, **spent})


def _fold(
    run: Run, recipe: Recipe, plan: Plan, fold: int, train_side: Photos, valid: Photos | None, journal: Journal
) -> Fit:
    home = run.path / ("final" if fold == FINAL else f"fold{fold}")
    images = np.asarray(train_side.images)
    prepare = make_prepare(recipe, images[train_side.rows] if recipe.prepare.normalise == "dataset" else None)
    write_json(home / "prepare.json", prepare.to_dict())
    torch.manual_seed(int(digest("init", str(plan.seed), str(fold), size=7), 16))
    net = make_net(recipe, prepare, pretrained=True)
    with journal.fold(fold, home) as told:
        return fit(net, train_side, valid, plan, fold, home, on_epoch=told.epoch, on_batch=told.batch)


def _final_plan(plan: Plan, fits: Sequence[Fit]) -> Plan:
    """All people leave nobody to stop by: as many epochs as the folds' best ones on average, if those could stop."""
    if not fits or plan.stop.epochs == float("inf"):
        return plan
    return replace(plan, epochs=max(1, round(float(np.mean([f.best_epoch for f in fits])))))


def _photo_row(face: Face) -> tuple[str, ...]:
    mask, gender, group = face.parts
    age = "" if face.age is None else f"{face.age:g}"
    names = label_name("mask", mask), label_name("gender", gender), age, label_name("age_group", group)
    return (face.id, printable(str(face.photo.resolve())), face.person, *names)


def _joined(faces: Sequence[Face], groups: NDArray[np.int64]) -> int:
    """How many groups hold more than one person: near duplicates across persons, kept in one fold."""
    pairs = {(int(group), face.person) for group, face in zip(groups, faces, strict=True)}
    _, counts = np.unique([group for group, _ in pairs], return_counts=True)
    return int((counts > 1).sum())


def _packages() -> dict[str, str]:
    names = ("torch", "timm", "kornia", "lightning-fabric", "numpy", "opencv-python-headless", "simplejpeg")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _commit() -> str:
    """Commit of the checkout threefold runs from, with `+` when it has uncommitted changes; '' outside one."""
    try:
        root = Path(__file__).parent
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
        return said.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
