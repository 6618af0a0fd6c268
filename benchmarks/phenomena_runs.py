"""The runs of docs/log.md that the published phenomena are shown on: taken where they are there and fit, else trained.

A run fits that is complete, was made from the recipe named here at the budget of docs/log.md and read the very photos
and labels of DATA (the digest in its stamp.json). One that does not is told and never touched; one that was stopped is
trained on. On two cores a run of 700 people takes about ten minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from threefold import progress
from threefold.data.sources import read_faces
from threefold.errors import RunError
from threefold.photos.cache import content_digests
from threefold.read.backends import oof_digest
from threefold.recipe import Recipe, differences, load_recipe
from threefold.runs import ENSEMBLE, Run
from threefold.train.join import ensemble
from threefold.train.single import labelled_digest
from threefold.train.train import train

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
BUDGET = (
    "data.folds=2", "data.seed=0", "seed=0", "train.epochs=5", "train.batch=32", "train.final=false",
    "model.backbone=efficientnet_lite0", "model.pretrained=registry", "prepare.size=128x96", "prepare.normalise=auto",
)  # fmt: skip
"""Of the recipes that were not made for it, as in docs/log.md."""
RUNS: dict[str, tuple[str, Sequence[str]]] = {
    "base": ("base.yaml", BUDGET), "best": ("best.yaml", ()), "best-face": ("best-face.yaml", ()),
}  # fmt: skip
VOTES = {"best-ensemble": ("best", "best-face", "base")}
_MAY_DIFFER = ("data.source", "hypothesis", "baseline", "track")


def need_runs(names: Iterable[str], data: Path, folder: Path, overrides: Sequence[str] = ()) -> list[Path]:
    """The runs of these names in `folder`, trained on DATA where they are not there; RunError for one that is another.

    overrides: key=value for all of them, to try the command at a smaller budget.
    """
    known, names = digest_of(data), list(names)
    for part in sorted({part for name in names for part in VOTES.get(name, (name,))}):
        if (folder / part).exists():  # before anything is trained
            _fit(Run.open(folder / part), _recipe(part, data, overrides), known, data)
    return [_need(name, data, folder, overrides).path for name in names]


def digest_of(data: Path) -> str:
    """What `train` writes into stamp.json about the photos and labels of a data set."""
    faces = read_faces(str(data))
    return labelled_digest(faces, content_digests([face.photo for face in faces]))


def _recipe(name: str, data: Path, overrides: Sequence[str]) -> Recipe:
    file, budget = RUNS[name]
    return load_recipe(RECIPES / file, [*budget, *overrides, f"data.source={data}"])


def _need(name: str, data: Path, folder: Path, overrides: Sequence[str]) -> Run:
    home = folder / name
    if name in VOTES:
        members = [_need(each, data, folder, overrides) for each in VOTES[name]]
        return _voted(home, members) if home.exists() else ensemble([run.path for run in members], out=home)
    if not home.exists():
        progress.show()
        progress.say(f"{home}: is not there, training recipes/{RUNS[name][0]}")
        return train(_recipe(name, data, overrides), out=home)
    run = Run.open(home)
    return run if run.state == "complete" else train(run.recipe, out=home, resume=True)


def _fit(run: Run, recipe: Recipe, known: str, data: Path) -> None:
    hint = "; give another --runs"
    for key, has, wanted in differences(run.recipe, recipe):
        if key not in _MAY_DIFFER:
            raise RunError(f"{run.path}: was made with {key}={has}; expected {key}={wanted}{hint}")
    if run.stamp.get("data_digest") != known:
        raise RunError(f"{run.path}: was trained on other photos or labels than those of {data}{hint}")


def _voted(home: Path, members: Sequence[Run]) -> Run:
    run = Run.open(home)
    run.need_complete()
    has = sorted(str(row["digest"]) for row in run.read(ENSEMBLE)["members"])
    if has != sorted(oof_digest(member) for member in members):
        names = ", ".join(member.name for member in members)
        raise RunError(f"{home}: is not the vote of {names} as they are now; give another --runs")
    return run
