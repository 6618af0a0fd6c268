"""`threefold decide`: fit the decision rule on a run's out-of-fold predictions, say what it is worth, save it with it.

What is saved is fitted on everybody; every number beside it is of a cross-fit. `decision.json` may be made again, with
another rule or target, and the last one counts: it holds nothing that `oof.npz` and the arguments do not give again.
"""

from __future__ import annotations

import json as _json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from threefold import labels
from threefold.evidence.crossfit import sides
from threefold.evidence.decide import FILE, Decision, cross_fit
from threefold.evidence.review import COVERAGES, review
from threefold.files import write_json
from threefold.infer.backends import oof_digest
from threefold.predictions import Predictions
from threefold.runs import Run

FORMAT = 1
DRAWS = 2000
PAIRS = ("ece", "nll")


def decide(
    run: Path | str, *, rule: str = "auto", coverage: float | None = None, risk: float | None = None, seed: int = 0,
    json: bool = False, out: Path | str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write RUN/decision.json (or `out`), which `predict` then goes by, and return what it holds.

    rule, coverage, risk: as `evidence.decide.fit`. With `auto` a rule is kept only where the cross-fit says that it is
    better than the most probable class; else only temperatures are saved and what is said stays as it was. A rule
    that is asked for by name is kept whatever it is worth. An attribute whose temperature makes the log loss of people
    it was not fitted on worse keeps 1: networks of different folds may be sure in different ways. seed: of the lots
    where the run has one fold, and of the intervals. Prints a summary, or with `json` the file. Raises RunError,
    RecipeError or DataError.
    """
    opened = Run.open(Path(run))
    oof, path = opened.predictions(), Path(out) if out else opened.path / FILE
    options: dict[str, Any] = {"rule": rule, "coverage": coverage, "risk": risk, "seed": seed}
    decision, found = _judged(oof, options)
    tried = found["macro_f1"]
    kept = rule not in ("auto", "none") or (rule == "auto" and tried["verdict"] == "better")
    if rule == "auto" and not kept:
        options["rule"] = "none"
        decision, found = _judged(oof, options)
    worse = [name for name in labels.ATTRIBUTES if name in found and (found[name]["nll.difference"]["low"] or 0) > 0]
    if worse:
        left = [name for name in labels.ATTRIBUTES if name not in worse]
        decision, found = _judged(oof, options | {"tempered": left})
    told = {
        "format": FORMAT, "decision": decision.to_dict(), "words": decision.words(), "digest": oof_digest(opened),
        "rule": rule, "kept": kept, "tried": tried, "untempered": worse,
        "coverage": coverage, "risk": risk, "seed": seed, "draws": DRAWS,
        "photos": len(oof), "persons": len(set(oof.persons.tolist())),
        "parts": len(set(sides(oof, seed=seed).tolist())), "review": found,
    }  # fmt: skip
    write_json(path, told)
    if json:
        sys.stdout.write(_json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(opened.name, told, path)
    return told


def _judged(oof: Predictions, options: dict[str, Any]) -> tuple[Decision, dict[str, Any]]:
    decided, decision = cross_fit(oof, **options)
    return decision, review(oof, decided, draws=DRAWS, seed=options["seed"])


def _print(name: str, told: dict[str, Any], path: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, emoji=False)
    console.print(
        f"{name}: {told['photos']:,} photos of {told['persons']:,} people, each judged by what was fitted without "
        f"their part of the people ({told['parts']} parts); in brackets 95 % intervals",
        soft_wrap=True,
    )
    console.print(_verdict(told), soft_wrap=True)
    odd = [f"no temperature for {name}: it makes the log loss of other people worse" for name in told["untempered"]]
    for line in [*told["words"], *odd]:
        console.print(f"  {line}")
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
            temperature = told["decision"]["temperature"].get(task)
            pairs = [f"{found[f'{key}.plain']['value']:.3f} → {_number(found[f'{key}.decided'], 3)}" for key in PAIRS]
            keys = [*(f"risk.{share:g}" for share in COVERAGES), *(["said.share", "said.risk"] if silent else [])]
            cells = ["-" if found[key]["value"] is None else f"{found[key]['value']:.3f}" for key in keys]
            table.add_row(task, f"{temperature:.2f}" if temperature else "", *pairs, *cells)
    return table


def _number(number: dict[str, Any], digits: int = 4) -> str:
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
