"""Backends: `(uint8 [B, H, W, 3], ...) -> ([B, 18] probabilities, [B] years or None)`, whatever computes them.

A backend may hold several models that prepare a photo differently: it names its preprocessings, and is called with one
batch for each. The networks of a run answer by torch (`learn.net_backend`), imported only when a run is opened.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from threefold.errors import RunError, how_to_install
from threefold.evidence.ensemble import combine, mean_years
from threefold.files import digest
from threefold.labels import CLASSES
from threefold.photos.prepare import Prepare
from threefold.recipe import PARTS, Recipe
from threefold.runs import ENSEMBLE, Run

Batch = NDArray[np.uint8]
Answer = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class Backend(Protocol):
    """What a Reader asks: its preprocessings and the probabilities of prepared photos."""

    @property
    def prepares(self) -> tuple[Prepare, ...]:
        """The preprocessings the models were trained with, each once."""

    def __call__(self, photos: tuple[Batch, ...]) -> Answer:
        """Per preprocessing uint8 [B, H, W, 3] of the same B photos -> probabilities [B, 18], years [B] or None."""


class JoinedBackend:
    """Several backends as one, by a rule of `evidence.ensemble.combine`: `soft` and `hard` votes by `weights` (equal
    where None), or `marginals` of three members that know mask, gender and age each (the years are the third's).

    Preprocessings of equal geometry give equal bytes and are asked for once. Raises RecipeError as `combine` does.
    """

    def __init__(self, members: Sequence[Backend], weights: Sequence[float] | None = None, rule: str = "soft") -> None:
        self.members, self.weights, self.rule = members, weights, rule
        # an unknown rule or wrong weights are refused here, not when the first photo is read
        combine(np.full((len(members), 1, CLASSES), 1 / CLASSES), weights, rule)
        geometries = {prepare.geometry: prepare for member in members for prepare in member.prepares}
        self.prepares, self._geometries = tuple(geometries.values()), tuple(geometries)

    def __call__(self, photos: tuple[Batch, ...]) -> Answer:
        """See `Backend`."""
        batches = dict(zip(self._geometries, photos, strict=True))
        answers = [member(tuple(batches[prepare.geometry] for prepare in member.prepares)) for member in self.members]
        joints = np.stack([joint for joint, _ in answers])
        weights: Sequence[float] | None = (0, 0, 1) if self.rule == "marginals" else self.weights
        years = np.stack([np.full(len(joint), np.nan) if year is None else year for joint, year in answers])
        mean = mean_years(years, weights)
        return combine(joints, self.weights, self.rule), None if np.isnan(mean).all() else mean


def open_run(path: Path, *, fold: int | None = None) -> Backend:
    """The backend of a complete run: its final network where it has one, else all its folds. Raises RunError.

    The networks of separate parts are joined by their marginals, the members of an ensemble by its vote. `fold`: only
    what was trained in that fold (by each member), as its people were read out of fold.
    """
    run = Run.open(path)
    run.need_complete()
    if not (path / ENSEMBLE).exists():
        recipe = run.recipe
        if not recipe.parts:
            return _networks(run, recipe, fold)
        return JoinedBackend([_networks(run, recipe.part(part), fold, f"{part}/") for part in PARTS], rule="marginals")
    plan = run.read(ENSEMBLE)
    members: list[Backend] = []
    try:
        for row in plan["members"]:
            member = run.path / row["path"]
            if not member.is_dir():
                raise RunError(f"{run.path}: its member {member} is gone; an ensemble reads with its members' networks")
            if oof_digest(Run.open(member)) != row["digest"]:
                raise RunError(f"{run.path}: its member {member} is another run than the one that was joined")
            members.append(open_run(member, fold=fold))
        return JoinedBackend(members, [row["weight"] for row in plan["members"]], plan["vote"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.path / ENSEMBLE}: is not what an ensemble writes ({error})") from None


def oof_digest(run: Run) -> str:
    """Digest of a run's out-of-fold predictions, by which ensembles and decisions know its networks again; of a run
    without folds, of its stamp. Raises RunError."""
    folded = bool(run.metrics.get("photos"))
    path = run.path / ("oof.npz" if folded else "stamp.json")
    try:
        return digest(path.read_bytes())
    except OSError as error:
        raise RunError(f"{run.path}: has no {path.name} ({error.strerror})") from None


def averaged_folds(run: Run) -> list[int]:
    """Numbers of the folds whose networks are averaged when a run reads; [] where one network reads alone (of all
    people, or of the only fold), and for an ensemble with such a member. Raises RunError."""
    if (run.path / ENSEMBLE).exists():
        members = [Run.open(run.path / row["path"]) for row in run.read(ENSEMBLE)["members"]]
        return sorted(set.intersection(*(set(averaged_folds(member)) for member in members)))
    if (run.path / "final").is_dir():
        return []
    folds = sorted(int(path.name.removeprefix("fold")) for path in run.path.glob("fold[0-9]*"))
    return folds if len(folds) > 1 else []


def _networks(run: Run, recipe: Recipe, fold: int | None, part: str = "") -> Backend:
    try:
        # torch, which reading with an exported model must never need
        from threefold.learn.net_backend import NetBackend
    except ImportError as error:
        raise RunError(f"{run.path}: reading with a run needs torch ({error}); {how_to_install('train')}") from None
    return NetBackend.of_run(run, recipe, fold, part)
