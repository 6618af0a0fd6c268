"""One training of a recipe: every fold's networks, their out-of-fold predictions, and a score per fold and over all.

`train_run` writes the run directory, metrics.json last; what was done before a stop is gone on with, to the same bytes.
Photos of `data.extra` stand behind those that are dealt: they train in every fold and validate in none, and an extra
photo that copies one of a person who validates is a leak.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefold import progress
from threefold.data.duplicates import fingerprint, near_duplicates, person_groups
from threefold.data.face import Face
from threefold.data.folds import make_split, read_split, write_split
from threefold.data.options import apply_patches, dropped, parse_ages, parse_cuts
from threefold.data.sources import read_faces
from threefold.errors import LeakError, RunError
from threefold.evidence.ensemble import join_votes
from threefold.evidence.metrics import measure, score
from threefold.files import digest, printable, write_csv, write_json
from threefold.labels import ATTRIBUTES
from threefold.labels import name as label_name
from threefold.learn.copies import expand, with_copies
from threefold.learn.loader import Photos, make_photos
from threefold.learn.loop import Fit, fit
from threefold.learn.plan import Plan, make_plan, make_prepare
from threefold.learn.target import make_target
from threefold.photos.cache import content_digests, open_cache
from threefold.predictions import Predictions, join
from threefold.recipe import PARTS, Recipe, load_recipe
from threefold.runs import Run
from threefold.train.request import finished_run, origin
from threefold.train.tracking import Journal, make_tracker, start

FINAL = -1
"""The fold number of the network that is trained on all people: split.csv's mark for "always training"."""
PACKAGES = ("torch", "timm", "kornia", "lightning-fabric", "numpy", "opencv-python-headless", "simplejpeg")
"""Their versions stand in a run's stamp."""


def train_run(recipe: Recipe, out: Path, resume: bool, on_fold: Callable[[int, float], None] | None = None) -> Run:
    """Train every fold of a recipe that names its photos into the run directory `out`. See `train`."""
    tracker = make_tracker(recipe.track)
    nets = members(recipe)
    if run := finished_run(out, recipe, resume):
        return run
    faces, dealt = read_all(recipe)
    photos = [prepared(member.recipe, faces) for member in nets]
    run = _start(out, recipe, faces, dealt, np.asarray(photos[0].images), nets[0].plan, resume)
    split = read_split(run.path / "split.csv", faces)
    with run.training():
        start(tracker, run.path, recipe.flat())
        epochs = max(member.plan.epochs for member in nets)
        with Journal(run.path, 1 + int(split.max()), epochs, tracker=tracker) as journal:
            _work(run, recipe, list(zip(nets, photos, strict=True)), faces, split, journal, on_fold)
    return run


def _start(
    out: Path, recipe: Recipe, faces: Sequence[Face], dealt: int, images: NDArray[np.uint8], plan: Plan, resume: bool
) -> Run:
    """The run directory with its stamp, folds and list of photos; an existing one is checked to be of the same data."""
    contents = content_digests([face.photo for face in faces])
    data_digest = labelled_digest(faces[:dealt], contents[:dealt])  # extra photos do not make scores incomparable
    extra_digest = labelled_digest(faces[dealt:], contents[dealt:]) if dealt < len(faces) else ""
    if resume and (out / "photos.csv").exists():
        run = Run.open(out)
        if (run.stamp["data_digest"], run.stamp.get("extra_digest", "")) != (data_digest, extra_digest):
            raise RunError(f"{out}: --resume with photos or labels that changed since the run was started")
        return run
    split, groups = deal(recipe, faces, dealt, images)
    for _, teacher in plan.teachers:
        for fold in sorted({int(fold) for fold in split if fold >= 0}):
            teacher.need_disjoint((face.person for face, k in zip(faces, split, strict=True) if k == fold), fold)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    # a recipe that is named as baseline is kept as it is now: later its file may be another, or elsewhere
    baseline = Path(recipe.baseline or "-")
    stamp = {
        **origin(_commit()),
        "device": f"{plan.fabric.device} ({machine})",
        "data": recipe.data.source,
        "data_digest": data_digest,
        "extra_digest": extra_digest,
        "folds_digest": digest(*sorted(f"{f.id}|{k}" for f, k in zip(faces[:dealt], split.tolist(), strict=False))),
        "photos": len(faces),
        "persons": len({face.person for face in faces}),
        "seed": recipe.seed,
        "duplicate_groups": _joined(faces, groups),
        "packages": {"python": platform.python_version(), **dict(zip(PACKAGES, map(version, PACKAGES), strict=True))},
        "baseline": load_recipe(baseline).flat() if baseline.is_file() else None,
    }
    # a run killed between its first files has them written again, the same
    started = resume and (out / "stamp.json").exists()
    run = Run.open(out) if started else Run.create(out, recipe, stamp)
    write_split(out / "split.csv", faces, split)
    rows: list[tuple[str, ...]] = [("photo", "path", "person", "mask", "gender", "age", "age_group")]
    for face in faces:
        mask, gender, group = map(label_name, ATTRIBUTES, face.parts)
        age = "" if face.age is None else f"{face.age:g}"
        rows.append((face.id, printable(str(face.photo.resolve())), face.person, mask, gender, age, group))
    write_csv(out / "photos.csv", rows)
    return run


def _work(
    run: Run,
    recipe: Recipe,
    nets: Sequence[tuple[Member, Photos]],
    faces: Sequence[Face],
    split: NDArray[np.int8],
    journal: Journal,
    on_fold: Callable[[int, float], None] | None,
) -> None:
    """Train all folds, and the network on all people where it is asked for; write oof.npz and metrics.json."""
    begin = time.perf_counter()
    folds = sorted({int(fold) for fold in split if fold >= 0})
    fits: list[list[Fit]] = []
    for fold in folds:
        halves = [sides(recipe, photos, faces, split, fold) for _, photos in nets]
        fits.append([_fold(run, net, fold, *half, journal) for (net, _), half in zip(nets, halves, strict=True)])
        if nets[0][0].part:
            home = run.path / f"fold{fold}"
            parts = [Predictions.load(home / member.part / "valid.npz") for member, _ in nets]
            join_votes(parts, None, "marginals").save(home / "valid.npz")
        if on_fold:
            done = [Predictions.load(run.path / f"fold{f}" / "valid.npz") for f in folds[: len(fits)]]
            on_fold(len(fits), score(join(done)))
    if recipe.train.final or not folds:
        last = []
        for place, (member, photos) in enumerate(nets):
            plan = member.plan
            if fits and plan.stop.epochs != float("inf"):
                # all people leave nobody to stop by: as many epochs as the folds' best ones on average
                plan = replace(plan, epochs=max(1, round(float(np.mean([fit[place].best_epoch for fit in fits])))))
            everybody = sides(recipe, photos, faces, split, None)
            last.append(_fold(run, replace(member, plan=plan), FINAL, *everybody, journal))
        fits.append(last)
    metrics: dict[str, Any] = {"photos": 0, "persons": 0, "macro_f1": None, "accuracy": None}
    if folds:
        oof = join([Predictions.load(run.path / f"fold{fold}" / "valid.npz") for fold in folds])
        oof.save(run.path / "oof.npz")
        metrics = measure(oof)
    rows = [_fit_row(run, fit, [member.part for member, _ in nets]) for fit in fits]
    total = round(sum(f.seconds for fit in fits for f in fit), 1)
    spent = {"seconds": total, "seconds_last": round(time.perf_counter() - begin, 1)}
    write_json(run.path / "metrics.json", {**metrics, "folds": rows, **spent})
    journal.summary(metrics)


def _fold(run: Run, member: Member, fold: int, train_side: Photos, valid: Photos | None, journal: Journal) -> Fit:
    home = run.path / ("final" if fold == FINAL else f"fold{fold}") / member.part
    recipe, plan = member.recipe, member.plan
    images = np.asarray(train_side.images)
    shown = np.unique(train_side.base[train_side.rows])
    dataset = recipe.prepare.normalise == "dataset"
    prepare = make_prepare(recipe, images[shown]) if dataset else plan.prepare
    write_json(home / "prepare.json", prepare.to_dict())
    torch.manual_seed(int(digest("init", str(recipe.seed), str(fold), size=7), 16))
    net = plan.make_net(prepare)
    with journal.fold(fold, home, part=member.part) as log:
        return fit(net, train_side, valid, plan, fold, home, on_epoch=log.epoch, on_batch=log.batch)


def _fit_row(run: Run, fits: Sequence[Fit], parts: Sequence[str]) -> dict[str, Any]:
    """A fold's line in metrics.json: of one network its numbers, of several their joint score and every one's line."""
    names = ("fold", "macro_f1", "best_epoch", "epochs", "seconds")
    rows = [{name: getattr(fit, name) for name in names} for fit in fits]
    if len(fits) == 1:
        return rows[0]
    file = run.path / f"fold{fits[0].fold}" / "valid.npz"
    return {
        "fold": fits[0].fold,
        "macro_f1": round(score(Predictions.load(file)), 6) if fits[0].fold != FINAL else None,
        "best_epoch": max(row["best_epoch"] for row in rows),
        "epochs": max(row["epochs"] for row in rows),
        "seconds": round(sum(fit.seconds for fit in fits), 2),
        "parts": dict(zip(parts, rows, strict=True)),
    }


def _joined(faces: Sequence[Face], groups: NDArray[np.int64]) -> int:
    """How many groups hold more than one person: near duplicates across persons, kept in one fold."""
    pairs = {(int(group), face.person) for group, face in zip(groups, faces, strict=True)}
    _, counts = np.unique([group for group, _ in pairs], return_counts=True)
    return int((counts > 1).sum())


def _commit() -> str:
    """Commit of the checkout threefold runs from, with `+` when it has uncommitted changes; '' outside one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@dataclass(frozen=True)
class Member:
    """One network of a run: of all three attributes (`part` is "") or of one (`separate` systems)."""

    part: str
    recipe: Recipe
    plan: Plan


def members(recipe: Recipe) -> list[Member]:
    """The networks a recipe trains in each fold, everything of them checked (weights too); raises RecipeError."""
    parts = {part: recipe.part(part) for part in PARTS} if recipe.parts else {"": recipe}
    nets = [Member(part, part_recipe, make_plan(part_recipe)) for part, part_recipe in parts.items()]
    parse_cuts(recipe.data.train_cuts)
    parse_ages(recipe.data.drop_ages)
    # weights that cannot be had and stages that a network has not are refused before any photo is read
    for member in nets:
        member.plan.freeze.at(member.plan.make_net(member.plan.prepare), 0)
    return nets


def labelled_digest(faces: Sequence[Face], contents: Sequence[str]) -> str:
    """What a run's stamp says its photos and labels were; contents: of `content_digests`, in the same order."""
    return digest(*(f"{f.id}|{f.person}|{f.parts}|{f.age}" for f in faces), *contents)


def read_all(recipe: Recipe) -> tuple[list[Face], int]:
    """Faces of a recipe with its patches applied, and how many of them are dealt; those behind are `data.extra`."""
    faces = read_faces(recipe.data.source)
    if recipe.data.patches:
        faces, done = apply_patches(faces, Path(recipe.data.patches))
        about = f"{done.unmatched} of {done.rows} rows are about others"
        first = f" (the first is {done.first})" if done.first else ""
        progress.say(f"data.patches: {done.photos} photos relabelled; {about}{first}")
    extra = read_faces(recipe.data.extra) if recipe.data.extra else []
    return faces + [replace(f, id=f"extra/{f.id}", person=f"extra/{f.person}") for f in extra], len(faces)


def prepared(recipe: Recipe, faces: Sequence[Face]) -> Photos:
    """All photos as one network sees them, with the targets and the copies that training shows it."""
    with progress.bar("preparing photos") as report:
        images = open_cache(faces, make_prepare(recipe), progress=report)
    photos = make_photos(images, faces)
    target = make_target(photos.truth, photos.ages, parse_cuts(recipe.data.train_cuts))
    return with_copies(replace(photos, target=target), recipe.data.copies)


def deal(
    recipe: Recipe, faces: Sequence[Face], dealt: int, images: NDArray[np.uint8]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """[N] fold of each photo (-1: always training) and [N] group numbers; LeakError for a copy among the extra ones."""
    # people who share a near duplicate have one number, and so stay in one fold
    persons = [face.person for face in faces]
    groups = person_groups(persons, near_duplicates(np.stack([fingerprint(image) for image in images]), persons))
    split = np.full(len(faces), -1, dtype=np.int8)
    split[:dealt] = make_split(recipe.data.folds, faces[:dealt], seed=recipe.data.seed, groups=groups[:dealt])
    judged = {int(group): row for row, group in enumerate(groups[:dealt]) if split[row] >= 0}
    for row in range(dealt, len(faces)):
        if (other := judged.get(int(groups[row]))) is not None:
            copy = f"{faces[row].id} is a copy of a photo of {persons[other]!r}"
            raise LeakError(f"data.extra: {copy}, who validates in fold {split[other]}; leave it out")
    return split, groups


def sides(
    recipe: Recipe, photos: Photos, faces: Sequence[Face], split: NDArray[np.int8], fold: int | None
) -> tuple[Photos, Photos | None]:
    """(training, validation) side of a fold; fold None: everybody trains. `data.drop_ages` leaves validation be."""
    usable = ~dropped(faces, parse_ages(recipe.data.drop_ages))
    if fold is None:
        return photos.at(expand(photos, np.flatnonzero(usable))), None
    train = photos.at(expand(photos, np.flatnonzero((split != fold) & usable)))
    return train, photos.at(np.flatnonzero(split == fold))
