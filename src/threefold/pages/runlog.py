"""The rows of the experiment log: every run below a folder, what it was for, what changed and what came of it.

Two scores can be set side by side only where the same photos were dealt into the same folds, and a difference is the
recipe's only where the code was the same: data, folds and code are lettered, equal letters for equal digests. A verdict
is the paired bootstrap of `evidence.compare` of a run against the baseline that its recipe names. A baseline that is a
recipe file stands for a run of it, see `_run_of_file`. Nothing is written into a run.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NamedTuple

from threefold import labels, progress
from threefold.errors import ThreefoldError
from threefold.evidence.compare import headlines, verdict
from threefold.pages.html import Translate
from threefold.recipe import Recipe, differences
from threefold.runs import ENSEMBLE, Run, run_folders

# The digests say that photos, labels and folds are the same, any seed is a run of the recipe, and the others do not
# touch out-of-fold predictions.
FREE = {
    *("hypothesis", "baseline", "data.source", "data.folds", "data.seed", "data.patches"),
    *("seed", "train.device", "train.final", "track"),
}
"""Keys in which the run of a recipe file may differ from the file."""
LETTERED = {
    "group": ("data_digest", "folds_digest"),
    "data_group": ("data_digest",),
    "folds_group": ("folds_digest",),
    "code_group": ("version", "commit"),
}
"""Columns that hold a letter, and the values of a stamp that it stands for."""
UNTOLD = {"hypothesis", "baseline", "data.source"}
"""Keys that are not listed as changed: they say what a run is for and where its photos lay."""
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
"""Messages of `RunRow.why`, which pages translate."""
_TOGETHER = 24  # runs judged on the same draws at a time: the fewer, the more of the time goes into drawing
_PRUNED = "optuna.exceptions.TrialPruned: "  # what `threefold search` stops a trial with
ENDS = ("value", "low", "high")
Number = dict[str, float]
"""By ENDS: a number and the ends of its 95 % interval."""


class Why(NamedTuple):
    """A remark on a row: a message and the values of its holes. The message is empty where there is nothing to say."""

    message: str = ""
    values: dict[str, str] | None = None

    @classmethod
    def of(cls, error: object) -> Why:
        """What an exception said, which no page translates."""
        return cls("{error}", {"error": str(error)})

    def words(self, translate: Translate = str) -> str:
        """The whole sentence; `translate` does the message and states, never names, keys or what an error said."""
        values = {hole: translate(text) if hole == "state" else text for hole, text in (self.values or {}).items()}
        return translate(self.message).format(**values)


@dataclass
class RunRow:
    """One run of the log.

    kind: run, ensemble or trial (of a search). state: as `Run.state`, or `pruned` (a trial stopped for its score), or
    `damaged`. group: letter of data and folds together: who may be compared with whom; data_group, folds_group and
    code_group of each alone; behind that of the code `+`: with uncommitted changes, so not surely the same; `?`: of an
    unknown commit. An ensemble has no code of its own, a damaged stamp tells none of them: `-`. baseline: as the recipe
    names it; against: the run that stands for it. changed: `key: value` that differ from changed_from, a run, a recipe
    file or the defaults. mask, gender, age_group: their macro F1. difference: macro F1 minus the baseline run's;
    verdict: better, worse, can't tell, NO_RUN, APART, or empty where there is nothing to judge.
    """

    name: str
    kind: str = "run"
    state: str = "damaged"
    group: str = "-"
    data_group: str = "-"
    folds_group: str = "-"
    code_group: str = "-"
    hypothesis: str = ""
    baseline: str = ""
    against: str = ""
    changed: tuple[str, ...] = ()
    changed_from: str = "defaults"
    macro_f1: Number | None = None
    accuracy: Number | None = None
    mask: Number | None = None
    gender: Number | None = None
    age_group: Number | None = None
    difference: Number | None = None
    verdict: str = ""
    why: Why = field(default_factory=Why)
    folds: str = ""
    people: int = 0
    photos: int = 0
    seed: int | None = None
    seconds: float | None = None
    created: str = ""
    commit: str = ""
    version: str = ""
    command: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Entry:
    """A run and the row that is made of it; the stamp is empty where it is damaged."""

    run: Run
    row: RunRow
    recipe: Recipe = field(default_factory=Recipe)
    stamp: dict[str, Any] = field(default_factory=dict)


def runs_table(root: Path, *, verdicts: bool = True) -> list[RunRow]:
    """Rows of every run below `root`, best macro F1 first, then those without a score by name.

    verdicts: also those that need a bootstrap. A run whose files are damaged is listed with the state `damaged` rather
    than hiding the others or staying hidden. Raises RunError when `root` is no folder.
    """
    entries = [_entry(path, root) for path in sorted(run_folders(root))]
    _letter([entry for entry in entries if entry.stamp])
    by_base = defaultdict[Path, list[_Entry]](list)
    for entry in entries:
        if base := _baseline(entry, entries, root):
            by_base[base.path.resolve()].append(entry)
    if verdicts:
        _judge(by_base)
    rows = [entry.row for entry in entries]
    return sorted(rows, key=lambda row: (-row.macro_f1["value"] if row.macro_f1 else 1, row.name))


def _entry(path: Path, root: Path) -> _Entry:
    """A run as its files tell it; where one of them cannot be read the row stays `damaged` and says which."""
    entry = _Entry(Run(path), row := RunRow(_name(path, root)))
    is_trial = (path.resolve().parent / ".search").exists()
    row.kind = "trial" if is_trial else "ensemble" if (path / ENSEMBLE).exists() else "run"
    try:
        entry.run = run = Run.open(path)
        entry.stamp = stamp = run.stamp
        row.people, row.photos = (int(_finite(stamp.get(key)) or 0) for key in ("persons", "photos"))
        row.seed = stamp["seed"] if isinstance(stamp.get("seed"), int) else None
        row.created, row.version, row.command = (str(stamp.get(key, "")) for key in ("created", "version", "command"))
        row.commit = str(stamp.get("commit") or "")
        entry.recipe = recipe = run.recipe
        row.hypothesis, row.baseline = " ".join(recipe.hypothesis.split()), recipe.baseline
        row.folds, row.recipe = recipe.data.folds, recipe.flat()
        state = run.state
        metrics = run.metrics if state == "complete" else {}
        row.macro_f1, row.accuracy = _number(metrics, "macro_f1"), _number(metrics, "accuracy")
        for name in labels.ATTRIBUTES:
            setattr(row, name, _number(metrics, name, "macro_f1"))
        row.seconds = _finite(metrics.get("seconds"))
        if state == "failed":
            last = "".join((path / "failed.txt").read_text(encoding="utf-8").strip().splitlines()[-1:])
            state = "pruned" if last.startswith(_PRUNED) else "failed"
            row.why = Why.of(last.removeprefix(_PRUNED))
        row.state = state
    except (ThreefoldError, OSError, ValueError) as error:
        row.why = Why.of(error)
    return entry


def _letter(entries: Sequence[_Entry]) -> None:
    """Give every different value of a column a letter, in the order they come: a, b, ... z, aa, ab, ..."""
    for column, keys in LETTERED.items():
        names = ("".join(letters) for length in count(1) for letters in product(ascii_lowercase, repeat=length))
        letter_of = defaultdict[tuple[str, ...], str](names.__next__)
        for entry in entries:
            setattr(entry.row, column, letter_of[tuple(str(entry.stamp.get(key)) for key in keys)])
    for row in (entry.row for entry in entries):
        mark = "?" if not row.commit else "+" if row.commit.endswith("+") else ""
        row.code_group = "-" if row.kind == "ensemble" else row.code_group + mark


def _baseline(entry: _Entry, entries: Sequence[_Entry], root: Path) -> Run | None:
    """Tell the row its baseline and what changed from it; the baseline's run where the two may be judged."""
    row, outcome, why = entry.row, "", entry.row.why
    base, other, source = Recipe(), None, "defaults"
    if row.baseline and row.state != "damaged":
        outcome = NO_RUN
        try:
            base, other = entry.run.baseline()
            source = row.baseline
            if other is None:
                other, why = _run_of_file(entry, base, entries)
        except ThreefoldError as error:
            gone = WHY["gone"].format(file=row.baseline)  # what is said most, so pages translate it
            why = Why(WHY["gone"], {"file": row.baseline}) if str(error) == gone else Why.of(error)
    if other and other.path.resolve() == entry.run.path.resolve():
        other, base, source, why = None, Recipe(), "defaults", Why(WHY["itself"])
    if other:
        base, source = other.recipe, _name(other.path.resolve(), root.resolve())
        outcome, why = _comparable(entry, other, source)
    row.against, row.changed_from = source if other else "", source
    changed = {key: value for key, value, _ in differences(entry.recipe, base) if key not in UNTOLD}
    words = {key: "not set" if value is None else str(value) or "''" for key, value in changed.items()}
    row.changed = tuple(f"{key}: {value}" for key, value in words.items())
    if row.state != "complete":
        return None
    row.verdict, row.why = outcome, why
    return None if outcome else other


def _run_of_file(entry: _Entry, recipe: Recipe, entries: Sequence[_Entry]) -> tuple[Run | None, Why]:
    """The complete run that a baseline's recipe file stands for, or why there is none.

    It is on the same photos and folds and equals the file in every key but FREE; of several it is the one with the same
    seed, else the lowest.
    """
    file = entry.row.baseline
    candidates = []
    for other in entries:
        row = other.row
        # an ensemble has the recipe of its first member
        if other is entry or row.group != entry.row.group or row.state != "complete" or row.kind == "ensemble":
            continue
        keys = [key for key, _, _ in differences(other.recipe, recipe) if key not in FREE]
        seed = row.seed or 0
        candidates.append(((len(keys), seed != entry.row.seed, seed, row.name), keys, other.run))
    if not candidates:
        return None, Why(WHY["no run"], {"file": file})
    (*_, name), keys, run = min(candidates, key=lambda candidate: candidate[0])
    if keys:
        return None, Why(WHY["nearest"], {"file": file, "run": name, "keys": ", ".join(keys)})
    return run, Why()


def _comparable(entry: _Entry, other: Run, name: str) -> tuple[str, Why]:
    """Empty where a run may be judged against `other`, else the verdict; and what is to be said of the two."""
    stamp, row = other.stamp, entry.row
    for what, digest in (("photos", "data_digest"), ("folds", "folds_digest")):
        if stamp.get(digest) != entry.stamp.get(digest):
            return APART, Why(WHY[what], {"run": name})
    if other.state != "complete":
        return NO_RUN, Why(WHY["state"], {"run": name, "state": other.state})
    commits = {row.commit, str(stamp.get("commit") or "")} - {""}
    same = row.kind == "ensemble" or (len(commits) < 2 and stamp.get("version") == row.version)
    return "", Why() if same else Why(WHY["code"], {"run": name})


def _judge(by_base: Mapping[Path, Sequence[_Entry]]) -> None:
    """Give rows their difference and verdict: what `threefold compare` says of each pair alone.

    Of twenty changes that do nothing, one comes out better or worse by chance; `threefold ablate` corrects for that, a
    log cannot, since nobody knows how many questions it is.
    """
    done, total = 0, sum(map(len, by_base.values()))
    with progress.bar("verdicts", "runs") as report:
        for path, entries in by_base.items():
            for start in range(0, len(entries), _TOGETHER):
                batch = entries[start : start + _TOGETHER]
                _judge_batch(Run(path), batch)
                done += len(batch)
                report(done, total)


def _judge_batch(base: Run, entries: Sequence[_Entry]) -> None:
    runs = [base, *(entry.run for entry in entries)]
    try:
        results = headlines([run.predictions() for run in runs], names=[str(run.path) for run in runs])
    except ThreefoldError as error:
        if len(entries) == 1:
            entries[0].row.verdict, entries[0].row.why = APART, Why.of(error)
        else:  # one of them cannot be judged: which one?
            for entry in entries:
                _judge_batch(base, [entry])
        return
    for entry, (gap, p) in zip(entries, results, strict=True):
        # the gap is that of the base minus the run, so its ends change places
        ends = (("value", gap["value"]), ("low", gap["high"]), ("high", gap["low"]))
        entry.row.difference = gain = _number({end: 0.0 - number for end, number in ends if number is not None})
        entry.row.verdict = verdict(gain["value"] if gain else 0.0, p)


def _number(value: Any, *keys: str) -> Number | None:
    """{value, low, high} that lies below `keys` in what a file held; None where any of the three is no number."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    ends = {end: _finite(value.get(end)) for end in ENDS} if isinstance(value, dict) else {}
    number = {end: float(part) for end, part in ends.items() if part is not None}
    return number if len(number) == 3 else None


def _finite(value: object) -> float | None:
    """A number of a file; None where it is none, so that one odd file costs one cell and not the log."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _name(path: Path, root: Path) -> str:
    """A run as the log calls it: its path below `root`."""
    with contextlib.suppress(ValueError):
        return path.relative_to(root).as_posix() if path != root else path.resolve().name
    return str(path)
