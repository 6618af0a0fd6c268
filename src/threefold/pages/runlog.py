"""What is known of every run below a folder: what it was for, what changed, what came out, and beside which others.

Two scores can be set side by side only where the same photos were dealt into the same folds, and a difference is the
recipe's only where the code was the same. Data, folds and code are therefore lettered, each on its own: equal letters,
equal digests. A verdict is the paired bootstrap of `evidence.compare` of a run against the baseline its recipe names,
each of its own pair: of twenty changes that do nothing, one comes out better or worse by chance (`threefold ablate`
corrects for that, a log cannot: nobody knows how many questions it is).

A baseline that is a recipe file stands for the run of it: the listed complete run on the same photos and folds whose
recipe equals the file in every key but FREE, of several the one with the same seed, else the lowest. Nothing is written
into a run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threefold import labels, progress
from threefold.errors import RunError, ThreefoldError
from threefold.evidence.compare import headlines, verdict
from threefold.recipe import Recipe, differences
from threefold.runs import ENSEMBLE, Run, run_folders

FREE = ("hypothesis", "baseline", "data.source", "data.folds", "data.seed", "data.patches", "seed", "train.device",
        "train.final", "track")  # fmt: skip
"""Keys in which the run of a recipe file may differ from it: the digests say that photos, labels and folds are the
same, any seed is a run of the recipe, and the others do not touch out-of-fold predictions."""
_TOGETHER = 24  # runs judged on the same draws at a time: the fewer, the more of the time goes into drawing
NO_RUN, APART = "no baseline run", "not comparable"
WHY = {
    "gone": "baseline '{file}' is not here",
    "itself": "names itself as its baseline",
    "photos": "other photos or labels than {run}",
    "folds": "other folds than {run}",
    "state": "{run} is {state}",
    "no run": "no complete run of {file} on these photos and folds is here",
    "nearest": "no complete run of {file} on these photos and folds is here; the nearest, {run}, differs in {keys}",
    "code": "other code than {run}",
}
"""Messages of `Row.why`, which pages translate."""
_PRUNED = "optuna.exceptions.TrialPruned: "  # what `threefold search` stops a trial with
Number = dict[str, float]
Why = tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Row:
    """One run of the log; a Number is {value, low, high}, the ends those of the 95 % interval.

    kind: run, ensemble or trial (of a search). state: as `Run.state`, or `pruned` (a trial stopped for its score), or
    `damaged`. group: letter of data and folds together: who may be compared with whom; data_group, folds_group and
    code_group of each alone; behind that of the code `+`: with uncommitted changes, so not surely the same; `?`: of an
    unknown commit. An ensemble has no code of its own, a damaged stamp tells none of them: `-`. baseline: as the recipe
    names it; against: the run that was found for it. changed: `key: value` that differ from changed_from, a run, a
    recipe file or the defaults. mask, gender, age_group: their macro F1. difference: macro F1 minus the baseline run's;
    verdict: better, worse, can't tell, NO_RUN, APART, or empty where there is nothing to judge. why: message and its
    values, see `explain`.
    """

    name: str
    kind: str
    state: str
    group: str
    data_group: str
    folds_group: str
    code_group: str
    hypothesis: str
    baseline: str
    against: str
    changed: tuple[str, ...]
    changed_from: str
    macro_f1: Number | None
    accuracy: Number | None
    mask: Number | None
    gender: Number | None
    age_group: Number | None
    difference: Number | None
    verdict: str
    why: Why
    folds: str
    people: int
    photos: int
    seed: int | None
    seconds: float | None
    created: str
    commit: str
    version: str
    command: str
    recipe: dict[str, Any]


@dataclass(frozen=True)
class _Entry:
    run: Run
    recipe: Recipe
    row: Row
    same: tuple[str, str]  # digests of data and folds


def runs_table(root: Path, *, verdicts: bool = True) -> list[Row]:
    """Rows of every run below `root`, best macro F1 first, then those without a score by name.

    verdicts: also those that need a bootstrap. A run whose files are damaged is listed with the state `damaged` rather
    than hiding the others or staying hidden. Raises RunError when `root` is no folder.
    """
    found = _found(root)
    stamps = [stamp for _, stamp, _ in found]
    pairs = [(str(stamp.get("data_digest")), str(stamp.get("folds_digest"))) if stamp else None for stamp in stamps]
    codes = [(str(stamp.get("version")), str(stamp.get("commit"))) if stamp else None for stamp in stamps]
    data, folds = ([pair and pair[side] for pair in pairs] for side in (0, 1))
    letters = [_letters(pairs), _letters(data), _letters(folds), _letters(codes)]
    entries = [
        _entry(*each, marks, pair or ("", ""), root)
        for each, marks, pair in zip(found, zip(*letters, strict=True), pairs, strict=True)
    ]
    rows = _judged([_against(entry, entries, root) for entry in entries], verdicts)
    return sorted(rows, key=lambda row: (-row.macro_f1["value"] if row.macro_f1 else 1, row.name))


def explain(row: Row, say: Callable[[str], str] = str) -> str:
    """`row.why` in words; `say` translates the message and states, never names, keys or what an error said."""
    message, values = row.why
    return say(message).format(**values | ({"state": say(values["state"])} if "state" in values else {}))


def _found(root: Path) -> list[tuple[Run, dict[str, Any], str]]:
    """Runs below `root` with their stamp, by path: empty where it cannot be read, and then what is wrong with it."""
    found: list[tuple[Run, dict[str, Any], str]] = []
    for path in sorted(run_folders(root)):
        try:
            run = Run.open(path)
            found.append((run, run.stamp, ""))
        except ThreefoldError as error:
            found.append((Run(path), {}, str(error)))
    return found


def _entry(
    run: Run, stamp: dict[str, Any], broken: str, marks: Sequence[str], same: tuple[str, str], root: Path
) -> _Entry:
    state, recipe, metrics, flat = run.state, Recipe(), dict[str, Any](), dict[str, Any]()
    why: Why = ("", {})
    try:
        if broken:
            raise RunError(broken)
        recipe = run.recipe
        flat = recipe.flat()
        metrics = run.metrics if state == "complete" else {}
        if state == "failed":
            last = "".join((run.path / "failed.txt").read_text(encoding="utf-8").strip().splitlines()[-1:])
            state, why = "pruned" if last.startswith(_PRUNED) else state, _error(last.removeprefix(_PRUNED))
    except (ThreefoldError, OSError, ValueError) as error:
        state, why = "damaged", _error(error)
    kind = "ensemble" if (run.path / ENSEMBLE).exists() else "run"
    kind = "trial" if (run.path.resolve().parent / ".search").exists() else kind
    commit = str(stamp.get("commit") or "")
    mark = (
        "-" if kind == "ensemble" or broken else marks[3] + ("?" if not commit else "+" if commit.endswith("+") else "")
    )
    row = Row(
        name=_name(run.path, root), kind=kind, state=state, group=marks[0], data_group=marks[1], folds_group=marks[2],
        code_group=mark, hypothesis=" ".join(recipe.hypothesis.split()), baseline=recipe.baseline, against="",
        changed=(), changed_from="", macro_f1=_known(metrics.get("macro_f1")), accuracy=_known(metrics.get("accuracy")),
        **{name: _known(_inside(metrics, name).get("macro_f1")) for name in labels.ATTRIBUTES}, difference=None,
        verdict="", why=why, folds=recipe.data.folds, people=int(_finite(stamp.get("persons")) or 0),
        photos=int(_finite(stamp.get("photos")) or 0), seed=_whole(stamp.get("seed")),
        seconds=_finite(metrics.get("seconds")),
        created=str(stamp.get("created", "")), commit=commit, version=str(stamp.get("version", "")),
        command=str(stamp.get("command", "")), recipe=flat,
    )  # fmt: skip
    return _Entry(run, recipe, row, same)


def _against(entry: _Entry, entries: Sequence[_Entry], root: Path) -> tuple[Row, Run | None, Run]:
    """The row with its baseline and what changed, the baseline run where it can be judged against it, and the run."""
    row, other, run = entry.row, None, None
    base, source, told, why = Recipe(), "defaults", "", row.why
    if row.baseline and row.state != "damaged":
        source, told = row.baseline, NO_RUN
        try:
            base, run = entry.run.baseline()
            if run is None:
                other, why = _of_file(entry, base, entries)
                run = other.run if other else None
        except ThreefoldError as error:
            gone = str(error) == WHY["gone"].format(file=row.baseline)  # what is said most, so pages translate it
            source, why = "defaults", (WHY["gone"], {"file": row.baseline}) if gone else _error(error)
    if run and run.path.resolve() == entry.run.path.resolve():
        base, run, source, why = Recipe(), None, "defaults", (WHY["itself"], {})
    if run:
        base, source = run.recipe, _name(run.path.resolve(), root.resolve())
        told, why = _comparable(entry, run, source)
    ready = row.state == "complete"
    skipped = {"hypothesis", "baseline", "data.source"}
    changed = [f"{key}: {_said(value)}" for key, value, _ in differences(entry.recipe, base) if key not in skipped]
    row = replace(
        row, against=source if run else "", changed_from=source, changed=tuple(changed) if row.recipe else (),
        verdict=told if ready else "", why=why if ready else row.why,
    )  # fmt: skip
    return row, run if ready and not told else None, entry.run


def _of_file(entry: _Entry, base: Recipe, entries: Iterable[_Entry]) -> tuple[_Entry | None, Why]:
    """The complete run of a recipe file that `entry` may be compared with, or why there is none."""
    found = []
    for other in entries:
        if other is not entry and other.same == entry.same and other.row.state == "complete":
            keys = [key for key, _, _ in differences(other.recipe, base) if key not in FREE]
            seed = other.row.seed or 0
            if other.row.kind != "ensemble":  # which has the recipe of its first member
                found.append((len(keys), seed != entry.row.seed, seed, other.row.name, ", ".join(keys), other))
    if not found:
        return None, (WHY["no run"], {"file": entry.row.baseline})
    *_, name, odd, nearest = min(found, key=lambda each: each[:4])
    if odd:
        return None, (WHY["nearest"], {"file": entry.row.baseline, "run": name, "keys": odd})
    return nearest, ("", {})


def _comparable(entry: _Entry, other: Run, name: str) -> tuple[str, Why]:
    """Empty where a run may be judged against `other`, else the verdict; and what is to be said of the two."""
    stamp, own = other.stamp, entry.row
    for word, digest, mine in zip(("photos", "folds"), ("data_digest", "folds_digest"), entry.same, strict=True):
        if str(stamp.get(digest)) != mine:
            return APART, (WHY[word], {"run": name})
    if other.state != "complete":
        return NO_RUN, (WHY["state"], {"run": name, "state": other.state})
    commits = {own.commit, str(stamp.get("commit") or "")} - {""}
    same = own.kind == "ensemble" or (len(commits) < 2 and stamp.get("version") == own.version)
    return "", ("", {}) if same else (WHY["code"], {"run": name})


def _judged(found: Sequence[tuple[Row, Run | None, Run]], verdicts: bool) -> list[Row]:
    rows = {run.path: row for row, _, run in found}
    jobs: dict[Path, list[Run]] = {}
    for _, base, run in found:
        if base and verdicts:
            jobs.setdefault(base.path.resolve(), []).append(run)
    total, done = sum(map(len, jobs.values())), 0
    with progress.bar("verdicts", "runs") as report:
        for path, runs in jobs.items():
            for start in range(0, len(runs), _TOGETHER):
                part = runs[start : start + _TOGETHER]
                for run, told in zip(part, _verdicts(Run(path), part), strict=True):
                    rows[run.path] = replace(rows[run.path], **told)
                report(done := done + len(part), total)
    return list(rows.values())


def _verdicts(base: Run, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Difference and verdict of each run against `base`: what `threefold compare` says of each pair alone."""
    try:
        parts = [run.predictions() for run in (base, *runs)]
        found = headlines(parts, names=[str(run.path) for run in (base, *runs)])
    except ThreefoldError as error:
        if len(runs) > 1:  # which one is it
            return [told for run in runs for told in _verdicts(base, [run])]
        return [{"verdict": APART, "why": _error(error)}]
    made = []
    for gap, p in found:  # of `base` minus the run
        value, low, high = (None if (end := gap[name]) is None else 0.0 - end for name in ("value", "high", "low"))
        told = verdict(value or 0.0, p)
        made.append({"verdict": told, "difference": _known({"value": value, "low": low, "high": high})})
    return made


def _error(error: object) -> Why:
    return "{error}", {"error": str(error)}


def _known(number: object) -> Number | None:
    ends = {end: _finite(number.get(end)) for end in ("value", "low", "high")} if isinstance(number, dict) else {}
    known = {end: each for end, each in ends.items() if each is not None}
    return known if len(known) == 3 else None


def _inside(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    found = metrics.get(name)
    return found if isinstance(found, dict) else {}


def _finite(number: object) -> float | None:
    """A number of a file; None where it is none, so that one odd file costs one cell and not the log."""
    return number if isinstance(number, int | float) and math.isfinite(number) else None


def _whole(number: object) -> int | None:
    return number if isinstance(number, int) else None


def _said(value: object) -> str:
    return "not set" if value is None else str(value) or "''"


def _name(path: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        return path.relative_to(root).as_posix() if path != root else path.resolve().name
    return str(path)


def _letters(values: Sequence[Any]) -> list[str]:
    """One letter per different value, in the order they come: a, b, ... z, aa, ab, ...; `-` where it is None."""
    places = {value: number for number, value in enumerate(dict.fromkeys(each for each in values if each is not None))}
    return ["-" if value is None else _letter(places[value]) for value in values]


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
