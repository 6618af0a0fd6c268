"""The bundled reader on people it was not trained with: the tables of its model card.

    python benchmarks/reader.py RUN [--on oof] [--draws 2000]

RUN is the run of recipes/reader.yaml. Its held-out people (fold 0 of `holdout(0.15)`) are judged by the network that
never saw them, with the run's decision where it has one. Per source and mask state: accuracy of worn against none,
macro F1 of mask, accuracy of gender, macro F1 of age group, of gender x age and of all 18 classes; per gender and age
group: accuracies; the first columns again by what UTKFace's file names say of looks (AGE_GENDER_RACE_DATE), where
persons are named by them.
Each with a 95 % interval over persons (BCa). A number for which fewer than 30 photos are known is left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.evidence.bootstrap import estimate, person_sums
from threefold.evidence.decide import FILE, Decision
from threefold.predictions import Predictions
from threefold.runs import Run

LEAST = 30
LOOKS = ("White", "Black", "Asian", "Indian", "others")
"""UTKFace's words for the codes 0 to 4 of its third field: what a person or a program thought on seeing the photo."""
Codes = NDArray[np.int64]


def macro_f1(truth: Codes, told: Codes, classes: int) -> tuple[Codes, Callable[[NDArray[np.float64]], NDArray]]:
    """Columns per photo (hit, truth, told per class) and the macro F1 of their sums; absent classes are left out."""
    one = np.eye(classes, dtype=np.int64)
    columns = np.hstack([one[truth] * (truth == told)[:, None], one[truth], one[told]])

    def of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        hit, true, said = np.split(sums, 3, axis=-1)
        f1 = np.where(true > 0, 2 * hit / np.maximum(true + said, 1), np.nan)
        return np.nanmean(f1, axis=-1, keepdims=True)

    return columns, of


def accuracy(truth: Codes, told: Codes) -> tuple[Codes, Callable[[NDArray[np.float64]], NDArray]]:
    """Likewise, the share of photos that are right."""
    columns = np.stack([truth == told, np.ones(len(truth), bool)], axis=1).astype(np.int64)
    return columns, lambda sums: sums[..., :1] / np.maximum(sums[..., 1:], 1)


def numbers(truth: NDArray[np.int8], told: Codes, joint: NDArray[np.float32]) -> dict[str, tuple]:
    """name -> (rows that are known, columns, statistic)."""
    mask, gender, group = (truth[:, k].astype(np.int64) for k in range(3))
    said = labels.decode_all(told).astype(np.int64)
    masses = joint.reshape(-1, 3, 6).sum(2)
    sides = (mask == 0) | (mask == 2)
    both = (gender >= 0) & (group >= 0)
    whole = both & (mask >= 0)
    parts = gender * 3 + group
    every = np.where(whole, mask, 0) * 6 + parts
    found = {
        "worn or none": (sides, *accuracy(mask[sides] == 0, (masses[:, 0] > masses[:, 2])[sides])),
        "mask F1": (mask >= 0, *macro_f1(mask[mask >= 0], said[mask >= 0, 0], 3)),
        "gender": (gender >= 0, *accuracy(gender[gender >= 0], said[gender >= 0, 1])),
        "age F1": (group >= 0, *macro_f1(group[group >= 0], said[group >= 0, 2], 3)),
        "gender x age F1": (both, *macro_f1(parts[both], (said[:, 1] * 3 + said[:, 2])[both], 6)),
        "18 classes F1": (whole, *macro_f1(every[whole], told[whole], 18)),
    }
    return found


def shares(truth: NDArray[np.int8], told: Codes, joint: NDArray[np.float32]) -> dict[str, tuple]:
    """Accuracies of the parts, for people who all have the same gender and age group."""
    said, known = labels.decode_all(told).astype(np.int64), np.ones(len(truth), bool)
    names = {f"{name} right": k for k, name in enumerate(labels.ATTRIBUTES)}
    return {name: (known, *accuracy(truth[:, k].astype(np.int64), said[:, k])) for name, k in names.items()}


def row(name: str, pick: NDArray[np.bool_], oof: Predictions, found: dict[str, tuple], draws: int) -> str:
    """One line of a table."""
    persons = oof.persons[pick]
    cells = [name, f"{pick.sum():,}", f"{len(np.unique(persons)):,}"]
    for known, columns, statistic in found.values():
        if known.sum() < LEAST:
            cells.append("")
            continue
        made = estimate(persons[known], person_sums(persons[known], columns), statistic, draws).number(0)
        cells.append(f"{100 * made['value']:.1f} ({100 * made['low']:.1f} to {100 * made['high']:.1f})")
    return "| " + " | ".join(cells) + " |"


def table(oof: Predictions, told: Codes, joint: NDArray[np.float32], groups: dict, of: Callable, draws: int) -> None:
    """Print one table: a row for each of `groups` (name -> photos), the columns of `of`."""
    lines = []
    for name, pick in groups.items():
        found = of(oof.truth[pick], told[pick], joint[pick])
        lines.append(row(name, pick, oof, found, draws))
    heads = ["", "photos", "people", *found]
    print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    print("\n".join(lines))


def main(path: Path, on: str, draws: int) -> None:
    """Print the tables."""
    run = Run.open(path)
    oof = run.predictions(on)
    decision = Decision.from_dict(run.read(FILE)["decision"], path / FILE) if (path / FILE).exists() else Decision()
    decided = decision.apply(oof.probabilities, oof.years)
    told, joint = decided.code.astype(np.int64), decided.probabilities.astype(np.float32)
    sources = np.array([photo.split("/")[0] for photo in oof.photos])
    print(f"{path.name}, {on}: {len(oof.photos):,} photos of {len(np.unique(oof.persons)):,} people, in %")
    groups = {"all": np.ones(len(told), bool)}
    for source in np.unique(sources):
        groups[str(source)] = sources == source
        for code, mask in enumerate(labels.NAMES["mask"]):
            groups[f"{source}, {mask}"] = (sources == source) & (oof.truth[:, 0] == code)
    table(oof, told, joint, groups, numbers, draws)
    people = {
        f"{word}, {years}": (oof.truth[:, 1] == gender) & (oof.truth[:, 2] == group)
        for gender, word in enumerate(labels.NAMES["gender"])
        for group, years in enumerate(labels.NAMES["age_group"])
    }
    table(oof, told, joint, people, shares, draws)
    codes = [re.search(r"(?:^|/)\d+_[01]_([0-4])_\d+", person) for person in oof.persons]
    looks = np.array([int(found[1]) if found else -1 for found in codes])
    if (looks >= 0).any():
        table(oof, told, joint, {word: looks == code for code, word in enumerate(LOOKS)}, numbers, draws)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--on", default="oof")
    parser.add_argument("--draws", type=int, default=2000)
    given = parser.parse_args()
    main(given.run, given.on, given.draws)
