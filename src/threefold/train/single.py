"""One training of a recipe: every fold's networks, their out-of-fold predictions, and a score per fold and over all.

`train_run` writes the run directory, metrics.json last; what was done before a stop is gone on with, to the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefold.data.face import Face
from threefold.data.folds import read_split, write_split
from threefold.errors import RunError
from threefold.evidence.ensemble import join_votes
from threefold.evidence.metrics import measure, score
from threefold.files import digest, printable, write_csv, write_json
from threefold.labels import name as label_name
from threefold.learn.loader import Photos
from threefold.learn.loop import Fit, fit
from threefold.learn.plan import Plan, make_prepare
from threefold.photos.cache import content_digests
from threefold.predictions import Predictions, join
from threefold.recipe import Recipe, load_recipe
from threefold.runs import Run
from threefold.train.gather import Member, deal, labelled_digest, members, prepared, read_all, sides
from threefold.train.journal import Journal
from threefold.train.request import finished_run
from threefold.train.tracking import make_tracker
from threefold.train.tracking import start as start_tracker

FINAL = -1
"""The fold number of the network that is trained on all people: split.csv's mark for "always training"."""


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
        start_tracker(tracker, run.path, recipe.flat())
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
        "version": importlib.metadata.version("threefold"),
        "commit": _commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["threefold", *sys.argv[1:]]),
        "device": f"{plan.fabric.device} ({machine})",
        "data": recipe.data.source,
        "data_digest": data_digest,
        "extra_digest": extra_digest,
        "folds_digest": digest(*sorted(f"{f.id}|{k}" for f, k in zip(faces[:dealt], split.tolist(), strict=False))),
        "photos": len(faces),
        "persons": len({face.person for face in faces}),
        "seed": recipe.seed,
        "duplicate_groups": _joined(faces, groups),
        "packages": _packages(),
        "baseline": load_recipe(baseline).flat() if baseline.is_file() else None,
    }
    # a run killed between its first files has them written again, the same
    started = resume and (out / "stamp.json").exists()
    run = Run.open(out) if started else Run.create(out, recipe, stamp)
    write_split(out / "split.csv", faces, split)
    header = ("photo", "path", "person", "mask", "gender", "age", "age_group")
    write_csv(out / "photos.csv", [header, *map(_photo_row, faces)])
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
        _join_parts(run, fold, [member for member, _ in nets])
        if on_fold:
            done = [Predictions.load(run.path / f"fold{f}" / "valid.npz") for f in folds[: len(fits)]]
            on_fold(len(fits), score(join(done)))
    if recipe.train.final or not folds:
        last = []
        for place, (member, photos) in enumerate(nets):
            whole = replace(member, plan=_final_plan(member.plan, [fit[place] for fit in fits]))
            last.append(_fold(run, whole, FINAL, *sides(recipe, photos, faces, split, None), journal))
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
    prepare = make_prepare(recipe, images[shown] if recipe.prepare.normalise == "dataset" else None)
    write_json(home / "prepare.json", prepare.to_dict())
    torch.manual_seed(int(digest("init", str(recipe.seed), str(fold), size=7), 16))
    net = plan.make_net(prepare)
    with journal.fold(fold, home, part=member.part) as log:
        return fit(net, train_side, valid, plan, fold, home, on_epoch=log.epoch, on_batch=log.batch)


def _join_parts(run: Run, fold: int, nets: Sequence[Member]) -> None:
    """valid.npz of a fold of separate networks: the product of what each says of its attribute."""
    home = run.path / f"fold{fold}"
    if nets[0].part:
        parts = [Predictions.load(home / member.part / "valid.npz") for member in nets]
        join_votes(parts, None, "marginals").save(home / "valid.npz")


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


def _commit() -> str:
    """Commit of the checkout threefold runs from, with `+` when it has uncommitted changes; '' outside one."""
    try:
        root = Path(__file__).parent
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
