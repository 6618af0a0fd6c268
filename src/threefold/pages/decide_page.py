"""`threefold decide`: fit the decision rule on a run's predictions, report what it is worth, save it with the run.

What is saved is fitted on everybody; every number beside it is of a cross-fit. `decision.json` may be made again, with
another rule or target, and the last one counts: it holds nothing that the predictions and the arguments do not give
again. Out-of-fold predictions are of single networks while `predict` takes the mean of all folds' networks, which is
less sure and more often right; `unlabelled` photos make the temperatures fit the mean (`evidence.decide.for_mean`), and
scored photos (`on="test"`) were read by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels, progress
from threefold.data.sources import eval_photos
from threefold.errors import RunError
from threefold.evidence.decide import FILE, Decision, cross_fit, for_mean
from threefold.evidence.metrics import sides
from threefold.evidence.review import COVERAGES, review
from threefold.files import write_json
from threefold.pages.answer_page import Answer, Table
from threefold.pages.html import Translate
from threefold.predictions import Predictions
from threefold.read.backends import averaged_folds, oof_digest, open_run
from threefold.read.inputs import find_photos
from threefold.read.reader import Reader
from threefold.read.scored import check_unseen, read_whole
from threefold.runs import Run

PLACES = {"oof": "out of fold", "test": "scored eval photos"}
DRAWS = 2000
MOST = 2000
"""Photos without labels that are read at most; a temperature is one number, and every network reads each of them."""
SENTENCES = {
    "about": "{name}: {photos} photos of {persons} people, {place}, each judged by what was fitted without their part "
    "of the people ({parts} parts); in brackets 95 % intervals",
    "persons": "every photo counts as a person of its own; where people have several, all this is too good",
    "none": "the most probable class is said; temperatures are saved",
    "unknown": "no photo knows all three labels, so there is nothing to fit a rule on; temperatures are saved",
    "tried": "macro F1 of the most probable class {plain}, of rule {rule} {decided}, difference {gain}: {verdict}",
    "needed": " (about {needed} people would tell a difference of this size)",
    "better": "The rule is saved",
    "asked": "The rule is saved because it was asked for by name",
    "left": "Only temperatures are saved and what is said stays as it was; --rule age, offsets, classes or years saves "
    "one all the same",
    "untempered": "no temperature for {attribute}: it makes the log loss of other people worse",
    "mean": "saved for the mean of {networks} networks, by {unlabelled} photos without labels; what follows is "
    "measured on single ones",
    "single": "predict reads with the mean of {networks} networks, which is less sure than each and more often right; "
    "--unlabelled PHOTOS (of people like these, whom it never saw) fits the temperatures to it",
    "legend": "as the networks say it → as saved; wrong of the surest so many photos",
}
"""Every sentence that is put together here."""


@dataclass(frozen=True)
class DecideResult(Answer):
    """What was saved at `path` for the run `name`; `document` is the data and what the file holds."""

    sentences = SENTENCES
    name: str
    path: Path
    document: dict[str, Any]

    def data(self) -> dict[str, Any]:
        """The decision, how it was made, and the `review` of its cross-fit."""
        return self.document

    def lines(self) -> list[str]:
        """What it is worth, what is saved and why, and where."""
        return [*super().lines(), f"written: {self.path}"]

    def parts(self, translate: Translate) -> dict[str, Any]:
        """One table; the answer is what is said from now on: the rule, its words, attributes without temperature."""
        document = self.document
        counts = {key: f"{document[key]:,}" for key in ("photos", "persons", "parts", "networks", "unlabelled")}
        place = translate(PLACES[document["on"]])
        about = self.sentence(translate, "about", name=self.name, place=place, **counts)
        single = document["networks"] and not document["unlabelled"]
        doubts = {"persons": document["persons"] == document["photos"], "single": single}
        warnings = [self.sentence(translate, key, **counts) for key, holds in doubts.items() if holds]
        answer = [self._verdict(translate), *document["words"]]
        for name in document["untempered"]:
            answer.append(self.sentence(translate, "untempered", attribute=translate(name)))
        if document["unlabelled"]:
            answer.append(self.sentence(translate, "mean", **counts))
        parts = {"about": about, "tables": [self._table(translate)], "warnings": warnings, "answer": answer}
        return parts | {"verb": "decide", "name": self.name}

    def _verdict(self, translate: Translate) -> str:
        rule, tried = self.document["rule"], self.document["tried"]
        if rule == "none" or tried["plain"]["value"] is None:
            return self.sentence(translate, "none" if rule == "none" else "unknown")
        plain, decided, gain = (_number(tried[key], 4) for key in ("plain", "decided", "difference"))
        values = {"plain": plain, "decided": decided, "gain": gain, "verdict": translate(tried["verdict"])}
        text = self.sentence(translate, "tried", rule=rule, **values)
        ending = "better" if tried["verdict"] == "better" else "asked" if self.document["kept"] else "left"
        if ending == "left" and (needed := tried["persons_needed"]):
            text += self.sentence(translate, "needed", needed=f"{float(f'{needed:.2g}'):,.0f}")
        return f"{text}. {self.sentence(translate, ending)}"

    def _table(self, translate: Translate) -> Table:
        """Per task temperature, calibration error and log loss before and after, and what is wrong of the surest."""
        document = self.document
        keys = [f"risk.{share:g}" for share in COVERAGES]
        shares = [translate("of {share}").format(share=f"{share:.0%}") for share in COVERAGES]
        columns = ["", *map(translate, ("temperature", "calibration error", "log loss"))]
        columns += [f"{translate('wrong')} {shares[0]}", *shares[1:]]
        if document["coverage"] is not None or document["risk"] is not None:
            keys += ["said.share", "said.risk"]
            columns += [translate("answered"), translate("wrong of these")]
        decisions = [decision for decision in (document["single"], document["decision"]) if decision]
        rows = []
        for task in ("class", *labels.ATTRIBUTES):
            if numbers := document["review"].get(task):
                temperatures = [f"{one['temperature'][task]:.2f}" for one in decisions if task != "class"]
                row = [translate(task), f" → {translate('mean')} ".join(temperatures)]
                for key in ("ece", "nll"):
                    row.append(f"{numbers[f'{key}.plain']['value']:.3f} → {_number(numbers[f'{key}.decided'], 3)}")
                values = [numbers[key]["value"] for key in keys]
                rows.append([*row, *("-" if value is None else f"{value:.3f}" for value in values)])
        return self.sentence(translate, "legend"), columns, rows


def decide(
    run: Path | str,
    *,
    on: str = "oof",
    rule: str = "auto",
    coverage: float | None = None,
    risk: float | None = None,
    unlabelled: Path | str | None = None,
    seed: int = 0,
    out: Path | str | None = None,
) -> DecideResult:
    """Write RUN/decision.json (or `out`), which `predict` then goes by, and return what it holds.

    on: `oof` (out of fold) or `test` (photos that `predict --answers` scored, of people the run never saw).
    rule, coverage, risk: as `evidence.decide.fit`. With `auto` a rule is kept only where the cross-fit says that it is
    better than the most probable class; else only temperatures are saved and what is said stays as it was. A rule
    that is asked for by name is kept whatever it is worth. An attribute whose temperature makes the log loss of people
    it was not fitted on worse keeps 1.
    unlabelled: photos (a folder, a file or the contest's eval folder) of people the run never saw and like those it was
    trained on; at most MOST of them, drawn by `seed`, fit what is saved to the mean of the folds' networks. What is
    reported is of single networks all the same. seed: also of the lots where there is one fold, and of the intervals.
    Raises RunError, RecipeError, DataError or LeakError.
    """
    opened = Run.open(Path(run))
    predictions, path = opened.predictions(on), Path(out) if out else opened.path / FILE
    folds = averaged_folds(opened) if on == "oof" else []
    photos = _unseen(opened, unlabelled, folds, on, seed) if unlabelled else []
    decision, outcome, numbers = _fitted(predictions, rule=rule, coverage=coverage, risk=risk, seed=seed)
    mean = _for_mean(opened, decision, photos, folds, coverage) if photos else decision
    document = {
        "format": 1,
        "on": on,
        "decision": mean.to_dict(),
        "words": mean.words(),
        "networks": len(folds),
        "unlabelled": len(photos),
        "single": decision.to_dict() if photos else None,
        "digest": oof_digest(opened),
        **outcome,
        "coverage": coverage,
        "risk": risk,
        "seed": seed,
        "draws": DRAWS,
        "photos": len(predictions),
        "persons": len(set(predictions.persons.tolist())),
        "parts": len(set(sides(predictions, seed=seed).tolist())),
        "review": numbers,
    }
    write_json(path, document)
    return DecideResult(opened.name, path, document)


def _fitted(predictions: Predictions, **options: Any) -> tuple[Decision, dict[str, Any], dict[str, Any]]:
    """What is saved; rule asked for, whether it is kept, what was tried, attributes without temperature; the review."""
    rule = options["rule"]
    decision, numbers = _judged(predictions, options)
    tried = numbers["macro_f1"]
    keep = rule not in ("auto", "none") or (rule == "auto" and tried["verdict"] == "better")
    if rule == "auto" and not keep:
        options = options | {"rule": "none"}
        decision, numbers = _judged(predictions, options)
    # networks of different folds may be sure in different ways, so that one temperature makes some of them worse
    reviewed = [name for name in labels.ATTRIBUTES if name in numbers]
    worse = [name for name in reviewed if (numbers[name]["nll.difference"]["low"] or 0) > 0]
    if worse:
        left = [name for name in labels.ATTRIBUTES if name not in worse]
        decision, numbers = _judged(predictions, options | {"tempered": left})
    return decision, {"rule": rule, "kept": keep, "tried": tried, "untempered": worse}, numbers


def _unseen(run: Run, unlabelled: Path | str, folds: Sequence[int], on: str, seed: int) -> list[tuple[str, Path]]:
    """Names and files of at most MOST photos, none of which the run was made from."""
    if not folds:
        why = "scored photos were read by the mean itself" if on == "test" else "it reads with one network"
        raise RunError(f"{run.path}: unlabelled photos fit temperatures to the mean of several networks, but {why}")
    place = Path(unlabelled)
    photos = (eval_photos(place) if place.is_dir() else None) or find_photos([place])
    drawn = np.sort(np.random.default_rng(seed).permutation(len(photos))[:MOST])
    photos = [photos[row] for row in drawn]
    for warning in check_unseen(run.path, photos):
        progress.say(f"! {warning}")
    return photos


def _for_mean(
    run: Run, single: Decision, photos: Sequence[tuple[str, Path]], folds: Sequence[int], coverage: float | None
) -> Decision:
    """The decision for what `predict` reads with; every network reads every photo once more."""
    mean, *members = (
        np.stack([reading.raw for reading in read_whole(Reader(backend), photos, None).values()])
        for backend in (open_run(run.path), *(open_run(run.path, fold=fold) for fold in folds))
    )
    return for_mean(single, np.stack(members), mean, coverage=coverage)


def _judged(predictions: Predictions, options: dict[str, Any]) -> tuple[Decision, dict[str, Any]]:
    decided, decision = cross_fit(predictions, **options)
    return decision, review(predictions, decided, draws=DRAWS, seed=options["seed"])


def _number(number: dict[str, Any], digits: int) -> str:
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
