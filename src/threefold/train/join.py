"""`threefold ensemble`: several complete runs in, one run out that answers with their vote.

The run made is whole: `report`, `runs` and `predict` treat it like any other. It holds no weights but points at its
members (ensemble.json), so it goes where they go. Where weights or members were chosen by the truth, its score is that
of the cross-fit (`evidence.ensemble.cross_fit`), and the weights it predicts with are those fitted on everybody.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threefold.errors import RecipeError, RunError, one_of
from threefold.evidence.ensemble import VOTES, aligned, cross_fit, disagreement, join_votes, shares
from threefold.evidence.metrics import measure
from threefold.files import digest, write_json
from threefold.read.backends import oof_digest
from threefold.recipe import make_recipe
from threefold.runs import ENSEMBLE, Run, open_runs
from threefold.train.request import origin


def ensemble(
    runs: Sequence[Path | str],
    *,
    out: Path | str,
    weights: Sequence[float] | str | None = None,
    vote: str = "soft",
    members: int | None = None,
    seed: int = 0,
) -> Run:
    """Join complete runs about the same photos into the run directory `out`.

    weights: one number per run (or their text, `0.2,0.4,0.4`), `fit` for those that make macro F1 largest, None for
    equal ones. vote: `soft` (mean of probabilities) or `hard` (votes). members: only that many of the runs take part,
    chosen for what they add to each other. seed: of the cross-fit's lots, where the first run has a single fold.
    metrics.json gets `ensemble`: members and weights (0: not taken), vote, fitted, and how every two members disagree.
    Raises RunError for a run that is missing, incomplete, without out-of-fold predictions or named twice, RecipeError
    for weights and numbers that do not fit, DataError naming the first photo the runs do not agree on.
    """
    home, paths = Path(out), [Path(run) for run in runs]
    count = len(paths)
    numbers = None if weights == "fit" else _numbers(weights, count)
    if members is not None and (numbers is not None or not 2 <= members <= count):
        raise RecipeError(f"members: {members} of {count} runs; expected 2..{count}, and no weights but `fit`")
    if vote not in VOTES:
        raise RecipeError(f"vote: {vote!r} is not known ({one_of(VOTES, vote)})")
    Run.need_free(home)
    opened, names = open_runs(paths), [str(path) for path in paths]
    parts = aligned([run.predictions() for run in opened], names)
    fitted = weights == "fit" or members is not None
    if fitted:
        oof, fractions = cross_fit(parts, vote, members=members, weigh=weights == "fit", seed=seed)
    else:
        fractions = shares(numbers, count)
        oof = join_votes(parts, fractions, vote)
    rounded = [round(weight, 6) for weight in fractions.tolist()]
    run = _start(home, opened, names, vote, seed)
    rows = []
    for member, weight in zip(opened, rounded, strict=True):
        if weight:
            path = os.path.relpath(member.path.resolve(), home.resolve())
            rows.append({"path": path, "weight": weight, "digest": oof_digest(member)})
    write_json(home / ENSEMBLE, {"members": rows, "vote": vote})
    oof.save(home / "oof.npz")
    about: dict[str, Any] = {"members": names, "weights": rounded, "vote": vote, "fitted": fitted}
    about["disagreement"] = disagreement(parts, names)
    write_json(home / "metrics.json", {**measure(oof), "ensemble": about, "folds": [], "seconds": 0.0})
    return run


def _numbers(weights: Sequence[float] | str | None, count: int) -> Sequence[float] | None:
    """Weights as numbers, checked for `count` runs; None for equal ones."""
    if isinstance(weights, str):
        try:
            weights = [float(text) for text in weights.split(",")]
        except ValueError:
            raise RecipeError(f"weights: {weights!r} cannot be read; expected fit, or numbers like 0.2,0.8") from None
    if weights is not None:
        shares(weights, count)
    return weights


def _start(out: Path, opened: Sequence[Run], names: Sequence[str], vote: str, seed: int) -> Run:
    """The run directory with recipe, stamp, photos and folds of the first member; hypothesis and baseline tell of it.

    `threefold runs` letters runs by their folds: an ensemble over several dealings has a letter of its own.
    """
    first = opened[0]
    about = {"hypothesis": f"{vote} vote of {', '.join(names)}"}
    about["baseline"] = os.path.relpath(first.path.resolve(), out.resolve())
    recipe = make_recipe(first.recipe.flat() | about)
    folds = sorted({str(run.stamp.get("folds_digest")) for run in opened})
    stamp = {
        **first.stamp,
        **origin(commit=""),
        "device": "none",
        "seed": seed,
        "folds_digest": folds[0] if len(folds) == 1 else digest(*folds),
    }
    run = Run.create(out, recipe, stamp)
    for name in ("photos.csv", "split.csv"):
        try:
            shutil.copyfile(first.path / name, out / name)
        except OSError as error:
            raise RunError(f"{first.path / name}: cannot be copied ({error.strerror})") from None
    return run
