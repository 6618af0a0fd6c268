"""`threefold train`: labelled photos in; folds, networks, out-of-fold predictions and an honest score out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from threefold import progress
from threefold.data.face import Face
from threefold.data.folds import read_split, write_split
from threefold.errors import RunError
from threefold.evidence.ensemble import join_votes
from threefold.evidence.metrics import measure, score
from threefold.files import digest, printable, write_csv, write_json
from threefold.labels import name as label_name
from threefold.learn.loader import Photos
from threefold.learn.loop import Fit, fit
from threefold.learn.plan import Plan
from threefold.photos.cache import content_digests
from threefold.predictions import Predictions, join
from threefold.recipe import Recipe, differences, load_recipe
from threefold.runs import Run
from threefold.train.gather import Member, deal, labelled_digest, members, named_recipe, prepared, read_all, sides
from threefold.train.journal import Journal
from threefold.train.tracking import make_tracker
from threefold.train.tracking import start as start_tracker

FINAL = -1
"""The fold number of the network that is trained on all people: split.csv's mark for "always training"."""


def train(
    recipe: Path | str | Recipe, *, data: str = "", out: Path | str, overrides: Iterable[str] = (),
    resume: bool = False, on_fold: Callable[[int, float], None] | None = None,
) -> Run:  # fmt: skip
    """Train every fold of a recipe (a file or an object) on `data` and write the run directory `out`.

    `overrides` are `key=value` strings. `resume` goes on with an unfinished run of the same recipe and data, to the
    bit-identical end on the same machine; a finished one is returned as it is. `on_fold` is told after each fold how
    many are done and the macro F1 over them; what it raises stops the run. Raises RecipeError, DataError or RunError
    before anything is written, TrainingError on a loss that is not finite.
    """
    out = Path(out)
    chosen = named_recipe(recipe, data, overrides)
    tracker = make_tracker(chosen.track)
    made = members(chosen)
    if resume and out.exists():
        run = Run.open(out)
        _same(run, chosen)
        if run.state == "complete":
            progress.say(f"{out}: is complete already")
            return run
    else:
        Run.need_free(out)
    faces, dealt = read_all(chosen)
    photos = [prepared(member.recipe, faces) for member in made]
    run = _start(out, chosen, faces, dealt, np.asarray(photos[0].images), made[0].plan, resume)
    split = read_split(run.path / "split.csv", faces)
    with run.training():
        start_tracker(tracker, run.path, chosen.flat())
        nets = list(zip(made, photos, strict=True))
        with Journal(run.path, 1 + int(split.max()), max(m.plan.epochs for m in made), tracker=tracker) as journal:
            _work(run, chosen, nets, faces, split, journal, on_fold)
    return run


def _baseline(recipe: Recipe) -> dict[str, Any] | None:
    """The recipe that `recipe` names as its baseline, as it is now: later its file may be another, or elsewhere."""
    path = Path(recipe.baseline or "-")
    return load_recipe(path).flat() if path.is_file() else None


def _same(run: Run, recipe: Recipe) -> None:
    for key, stored, asked in differences(run.recipe, recipe):
        raise RunError(f"{run.path}: --resume with {key}={asked!r}, but the run was started with {stored!r}")


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
            teacher.need_disjoint((f.person for f, own in zip(faces, split, strict=True) if own == fold), fold)
    stamp = {
        "version": importlib.metadata.version("threefold"), "commit": _commit(), "created": _now(),
        "command": shlex.join(["threefold", *sys.argv[1:]]), "device": f"{plan.fabric.device} ({_machine()})",
        "data": recipe.data.source, "data_digest": data_digest, "extra_digest": extra_digest,
        "folds_digest": digest(*sorted(f"{f.id}|{k}" for f, k in zip(faces[:dealt], split.tolist(), strict=False))),
        "photos": len(faces), "persons": len({face.person for face in faces}), "seed": recipe.seed,
        "duplicate_groups": _joined(faces, groups), "packages": _packages(), "baseline": _baseline(recipe),
    }  # fmt: skip
    # a run killed between its first files has them written again, the same
    started = resume and (out / "stamp.json").exists()
    run = Run.open(out) if started else Run.create(out, recipe, stamp)
    write_split(out / "split.csv", faces, split)
    header = ("photo", "path", "person", "mask", "gender", "age", "age_group")
    write_csv(out / "photos.csv", [header, *map(_photo_row, faces)])
    return run


def _work(
    run: Run, recipe: Recipe, nets: Sequence[tuple[Member, Photos]], faces: Sequence[Face], split: NDArray[np.int8],
    journal: Journal, on_fold: Callable[[int, float], None] | None,
) -> None:  # fmt: skip
    begin = time.perf_counter()
    folds = sorted({int(fold) for fold in split if fold >= 0})
    fits: list[list[Fit]] = []
    for fold in folds:
        both = [sides(recipe, photos, faces, split, fold) for _, photos in nets]
        fits.append([_fold(run, net, fold, *side, journal) for (net, _), side in zip(nets, both, strict=True)])
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
    metrics = _measure(run, folds)
    rows = [_fit_row(run, fit, [member.part for member, _ in nets]) for fit in fits]
    total = round(sum(f.seconds for fit in fits for f in fit), 1)
    spent = {"seconds": total, "seconds_last": round(time.perf_counter() - begin, 1)}
    write_json(run.path / "metrics.json", {**metrics, "folds": rows, **spent})
    journal.summary(metrics)


def _measure(run: Run, folds: Sequence[int]) -> dict[str, Any]:
    if not folds:
        return {"photos": 0, "persons": 0, "macro_f1": None, "accuracy": None}
    oof = join([Predictions.load(run.path / f"fold{fold}" / "valid.npz") for fold in folds])
    oof.save(run.path / "oof.npz")
    return measure(oof)


def _fold(run: Run, member: Member, fold: int, train_side: Photos, valid: Photos | None, journal: Journal) -> Fit:
    home = run.path / ("final" if fold == FINAL else f"fold{fold}") / member.part
    recipe, plan = member.recipe, member.plan
    images = np.asarray(train_side.images)
    shown = np.unique(train_side.base[train_side.rows])
    prepare = plan.fold_prepare(images[shown] if recipe.prepare.normalise == "dataset" else None)
    write_json(home / "prepare.json", prepare.to_dict())
    torch.manual_seed(int(digest("init", str(plan.seed), str(fold), size=7), 16))
    net = plan.make_net(prepare)
    with journal.fold(fold, home, part=member.part) as told:
        return fit(net, train_side, valid, plan, fold, home, on_epoch=told.epoch, on_batch=told.batch)


def _join_parts(run: Run, fold: int, nets: Sequence[Member]) -> None:
    """valid.npz of a fold of separate networks: the product of what each says of its own attribute."""
    home = run.path / f"fold{fold}"
    if nets[0].part:
        each = [Predictions.load(home / member.part / "valid.npz") for member in nets]
        join_votes(each, None, "marginals").save(home / "valid.npz")


def _fit_row(run: Run, fits: Sequence[Fit], parts: Sequence[str]) -> dict[str, Any]:
    """A fold's line in metrics.json: of one network its own, of several their joint score and each one's line."""
    each = [{k: getattr(f, k) for k in ("fold", "macro_f1", "best_epoch", "epochs", "seconds")} for f in fits]
    if len(fits) == 1:
        return each[0]
    most = {k: max(row[k] for row in each) for k in ("best_epoch", "epochs")}
    file = run.path / f"fold{fits[0].fold}" / "valid.npz"
    whole = round(score(Predictions.load(file)), 6) if fits[0].fold != FINAL else None
    seconds = round(sum(f.seconds for f in fits), 2)
    own = dict(zip(parts, each, strict=True))
    return {"fold": fits[0].fold, "macro_f1": whole, **most, "seconds": seconds, "parts": own}


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
