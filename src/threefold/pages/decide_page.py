"""`threefold decide`: fit the decision rule on a run's predictions, say what it is worth, save it with it.

What is saved is fitted on everybody; every number beside it is of a cross-fit. `decision.json` may be made again, with
another rule or target, and the last one counts: it holds nothing that the predictions and the arguments do not give
again. Out-of-fold predictions are of single networks while `predict` takes the mean of all folds' networks, which is
less sure and more often right; `unlabelled` photos make the temperatures fit the mean (`evidence/averaged.py`), and
scored photos (`on="test"`) were read by it.
"""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from threefold import labels, progress
from threefold.data.sources import eval_photos
from threefold.errors import RunError
from threefold.evidence.averaged import for_mean
from threefold.evidence.crossfit import sides
from threefold.evidence.decide import FILE, Decision, cross_fit
from threefold.evidence.review import COVERAGES, review
from threefold.files import write_json
from threefold.predictions import Predictions
from threefold.read.backends import averaged_folds, oof_digest, open_run
from threefold.read.inputs import find_photos
from threefold.read.reader import Reader
from threefold.read.scored import read_whole
from threefold.read.unseen import check_unseen
from threefold.runs import Run

FORMAT = 1
PLACES = {"oof": "out of fold", "test": "scored eval photos"}
DRAWS = 2000
PAIRS = ("ece", "nll")
MOST = 2000
"""Photos without labels that are read at most; a temperature is one number, and every network reads each of them."""


def decide(
    run: Path | str, *, on: str = "oof", rule: str = "auto", coverage: float | None = None, risk: float | None = None,
    unlabelled: Path | str | None = None, seed: int = 0, json: bool = False, out: Path | str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write RUN/decision.json (or `out`), which `predict` then goes by, and return what it holds.

    on: `oof` (out of fold) or `test` (photos that `predict --answers` scored, of people the run never saw).
    rule, coverage, risk: as `evidence.decide.fit`. With `auto` a rule is kept only where the cross-fit says that it is
    better than the most probable class; else only temperatures are saved and what is said stays as it was. A rule
    that is asked for by name is kept whatever it is worth. An attribute whose temperature makes the log loss of people
    it was not fitted on worse keeps 1: networks of different folds may be sure in different ways.
    unlabelled: photos (a folder, a file or the contest's eval folder) of people the run never saw and like those it was
    trained on; at most MOST of them, drawn by `seed`, fit what is saved to the mean of the folds' networks. What is
    reported is of single networks all the same. seed: also of the lots where there is one fold, and of the intervals.
    Prints a summary, or with `json` the file. Raises RunError, RecipeError, DataError or LeakError.
    """
    opened = Run.open(Path(run))
    known, path = opened.predictions(on), Path(out) if out else opened.path / FILE
    folds = averaged_folds(opened) if on == "oof" else []
    named = _unseen(opened, unlabelled, folds, on, seed) if unlabelled else []
    options: dict[str, Any] = {"rule": rule, "coverage": coverage, "risk": risk, "seed": seed}
    decision, found = _judged(known, options)
    tried = found["macro_f1"]
    kept = rule not in ("auto", "none") or (rule == "auto" and tried["verdict"] == "better")
    if rule == "auto" and not kept:
        options["rule"] = "none"
        decision, found = _judged(known, options)
    worse = [name for name in labels.ATTRIBUTES if name in found and (found[name]["nll.difference"]["low"] or 0) > 0]
    if worse:
        left = [name for name in labels.ATTRIBUTES if name not in worse]
        decision, found = _judged(known, options | {"tempered": left})
    mean = _for_mean(opened, decision, named, folds, coverage) if named else decision
    told = {
        "format": FORMAT, "on": on, "decision": mean.to_dict(), "words": mean.words(),
        "networks": len(folds), "unlabelled": len(named), "single": decision.to_dict() if named else None,
        "digest": oof_digest(opened), "rule": rule, "kept": kept, "tried": tried, "untempered": worse,
        "coverage": coverage, "risk": risk, "seed": seed, "draws": DRAWS,
        "photos": len(known), "persons": len(set(known.persons.tolist())),
        "parts": len(set(sides(known, seed=seed).tolist())), "review": found,
    }  # fmt: skip
    write_json(path, told)
    if json:
        sys.stdout.write(_json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(opened.name, told, path)
    return told


def _unseen(run: Run, unlabelled: Path | str, folds: Sequence[int], on: str, seed: int) -> list[tuple[str, Path]]:
    """Names and files of at most MOST photos, none of which the run was made from."""
    if not folds:
        why = "scored photos were read by the mean itself" if on == "test" else "it reads with one network"
        raise RunError(f"{run.path}: unlabelled photos fit temperatures to the mean of several networks, but {why}")
    place = Path(unlabelled)
    found = (eval_photos(place) if place.is_dir() else None) or find_photos([place])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(found))[:MOST])
    named = [found[row] for row in drawn]
    for warning in check_unseen(run.path, named):
        progress.say(f"! {warning}")
    return named


def _for_mean(
    run: Run, single: Decision, named: Sequence[tuple[str, Path]], folds: Sequence[int], coverage: float | None
) -> Decision:
    """The decision for what `predict` reads with; every network reads every photo once more."""
    backends = [open_run(run.path), *(open_run(run.path, fold=fold) for fold in folds)]
    read = [np.stack([each.raw for each in read_whole(Reader(backend), named, None).values()]) for backend in backends]
    return for_mean(single, np.stack(read[1:]), read[0], coverage=coverage)


def _judged(known: Predictions, options: dict[str, Any]) -> tuple[Decision, dict[str, Any]]:
    decided, decision = cross_fit(known, **options)
    return decision, review(known, decided, draws=DRAWS, seed=options["seed"])


def _print(name: str, told: dict[str, Any], path: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)
    console.print(
        f"{name}: {told['photos']:,} photos of {told['persons']:,} people, {PLACES[told['on']]}, each judged by what "
        f"was fitted without their part of the people ({told['parts']} parts); in brackets 95 % intervals",
        soft_wrap=True,
    )
    if told["persons"] == told["photos"]:
        console.print("! every photo counts as a person of its own; where people have several, all this is too good")
    console.print(_verdict(told), soft_wrap=True)
    odd = [f"no temperature for {name}: it makes the log loss of other people worse" for name in told["untempered"]]
    for line in [*told["words"], *odd]:
        console.print(f"  {line}")
    if told["unlabelled"]:
        console.print(
            f"saved for the mean of {told['networks']} networks, by {told['unlabelled']:,} photos without labels; what "
            "follows is measured on single ones",
            soft_wrap=True,
        )
    elif told["networks"]:
        console.print(
            f"! predict reads with the mean of {told['networks']} networks, which is less sure than each and more "
            "often right; --unlabelled PHOTOS (of people like these, whom it never saw) fits the temperatures to it",
            soft_wrap=True,
        )
    console.print(
        _table(told),
        "as the networks say it → as saved; wrong of the surest so many photos",
        f"written: {path}",
        sep="\n",
    )


def _verdict(told: dict[str, Any]) -> str:
    rule, tried = told["rule"], told["tried"]
    if rule == "none":
        return "the most probable class is said; temperatures are saved"
    if tried["plain"]["value"] is None:
        return "no photo knows all three labels, so there is nothing to fit a rule on; temperatures are saved"
    plain, decided, gain = (_number(tried[key]) for key in ("plain", "decided", "difference"))
    numbers = f"macro F1 of the most probable class {plain}, of rule {rule} {decided}, difference {gain}: "
    if tried["verdict"] == "better":
        return f"{numbers}better. The rule is saved"
    if told["kept"]:
        return f"{numbers}{tried['verdict']}. The rule is saved because it was asked for by name"
    needed = tried["persons_needed"]
    people = f" (about {float(f'{needed:.2g}'):,.0f} people would tell a difference of this size)" if needed else ""
    return (
        f"{numbers}{tried['verdict']}{people}. Only temperatures are saved and what is said stays as it was; "
        "--rule age, offsets, classes or years saves one all the same"
    )


def _table(told: dict[str, Any]) -> Table:
    """Per task the temperature, calibration error and log loss before and after, and what is wrong of the surest."""
    table = Table(box=None, pad_edge=False)
    silent = told["coverage"] is not None or told["risk"] is not None
    shares = [f"of {share:.0%}" for share in COVERAGES]
    titles = ["", "temperature", "calibration error", "log loss", f"wrong {shares[0]}", *shares[1:]]
    for title in [*titles, *(["said", "wrong of it"] if silent else [])]:
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for task in ("class", *labels.ATTRIBUTES):
        if found := told["review"].get(task):
            of = [each["temperature"][task] for each in (told["single"], told["decision"]) if each and task != "class"]
            pairs = [f"{found[f'{key}.plain']['value']:.3f} → {_number(found[f'{key}.decided'], 3)}" for key in PAIRS]
            keys = [*(f"risk.{share:g}" for share in COVERAGES), *(["said.share", "said.risk"] if silent else [])]
            cells = ["-" if found[key]["value"] is None else f"{found[key]['value']:.3f}" for key in keys]
            table.add_row(task, " → mean ".join(f"{one:.2f}" for one in of), *pairs, *cells)
    return table


def _number(number: dict[str, Any], digits: int = 4) -> str:
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
