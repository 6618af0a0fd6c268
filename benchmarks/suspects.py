"""Planted label errors: how many of them does `threefold suspects` show among its first 50?

    python benchmarks/suspects.py plant DATA planted.csv --seed 0    # draw the errors; DATA in the contest's layout
    threefold train recipes/best.yaml --data DATA data.patches=planted.csv --out runs/planted
    python benchmarks/suspects.py score runs/planted planted.csv     # precision and recall, beside plain rankings
    python benchmarks/suspects.py after runs/base --repeats 20       # planted into its predictions instead: flatters

The errors are of the contest's kinds and as frequent as its teams found them: per 2,700 people 3 whose incorrect and
bare photo are swapped, 20 labelled with the other gender, 10 with an age that cannot be (half of them somebody under
30 labelled 34 to 48, as the five that three teams name; half somebody of 30 or more labelled at least 15 years off).
Nobody gets two errors. The model trains on the wrong labels: each planted person is judged by a fold that did not.

A suspect is a hit where that person's attribute was planted. Beside `suspects`, on the same predictions: photos by the
probability of their class (of the 18), and cleanlab's `find_label_issues` as it comes, on photos over the 18 classes.
Both name photos, so their list is taken person by person, and each entry may count for every attribute in which the
network disagrees. Intervals: bootstrap over the planted people (recall, difference) or the listed ones (precision), the
ranking as it is.

`after` plants in the truth of a finished run, many times, and needs no training: a quick look at whether an idea about
the ranking is any good. It flatters, since the network never trained on the wrong labels; compare its numbers only with
its own. Places are as many of 50 as there are people of 2,700.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from cleanlab.filter import find_label_issues

from threefold import labels
from threefold.data import face
from threefold.data.face import Face
from threefold.data.options import apply_patches
from threefold.data.sources import read_faces
from threefold.data.tables import read_rows
from threefold.errors import DataError, ThreefoldError
from threefold.evidence.suspects import find_suspects
from threefold.files import write_csv
from threefold.predictions import Predictions
from threefold.runs import Run

PER_2700 = {"swap": 3, "gender": 20, "age": 10}
YEARS = np.arange(18, 61)
"""Years the contest labels."""


def plant(faces: Sequence[Face], seed: int) -> list[tuple[str, str, str, str]]:
    """(person, field, value, was) of each planted error, sorted; every person has one at most."""
    rng = np.random.default_rng(seed)
    people: dict[str, list[Face]] = {}
    for one in faces:
        people.setdefault(one.person, []).append(one)
    names = [name for name in people if people[name][0].gender is not None and people[name][0].age is not None]
    swap = "swap:incorrect,none"
    pair = [labels.Mask.INCORRECT, labels.Mask.NONE]
    rows: list[tuple[str, str, str, str]] = []
    for kind, per in PER_2700.items():
        count = max(1, round(per * len(people) / 2700))
        for number in range(count):
            taken = {row[0] for row in rows}
            young = number % 2 == 0
            fit = [
                name
                for name in names
                if name not in taken
                and (kind != "swap" or sorted(f.mask for f in people[name] if f.mask in pair) == pair)
                and (kind != "age" or (people[name][0].age < 30) == young)
            ]
            name = fit[rng.integers(len(fit))]
            own = people[name][0]
            if kind == "swap":
                rows.append((name, "mask", swap, "incorrect, none"))
            elif kind == "gender":
                rows.append((name, "gender", labels.name("gender", 1 - own.gender), labels.name("gender", own.gender)))
            else:
                wrong = np.arange(34, 49) if young else YEARS
                wrong = wrong[abs(wrong - own.age) >= (1 if young else 15)]
                rows.append((name, "age", str(rng.choice(wrong)), f"{own.age:g}"))
    return sorted(rows)


Entry = tuple[str, frozenset[str]]
"""A person and the attributes of theirs that are called wrong."""


def rankings(oof: Predictions) -> dict[str, list[Entry]]:
    """Name of a ranking -> its entries, most suspicious first."""
    ours = [(one.person, frozenset([one.attribute.removesuffix("_group")])) for one in find_suspects(oof)]
    known = np.flatnonzero(oof.label >= 0)
    label, chance = oof.label[known], oof.probabilities[known]
    by_chance = known[np.argsort(chance[np.arange(len(known)), label], kind="stable")]
    issues = known[find_label_issues(label, chance, return_indices_ranked_by="self_confidence")]
    return {
        "suspects": list(dict.fromkeys(ours)),
        "photos by p(label) of 18 classes": _persons(oof, by_chance),
        "cleanlab find_label_issues, 18 classes": _persons(oof, issues),
    }


def _persons(oof: Predictions, rows: Iterable[int]) -> list[Entry]:
    """Photos in order as entries, one per person: its first photo, with the attributes the network disagrees in."""
    said, found = labels.decode_all(oof.predicted), {}
    for row in rows:
        wrong = [
            name for name, a, b in zip(("mask", "gender", "age"), said[row], oof.truth[row], strict=True) if a != b
        ]
        found.setdefault(str(oof.persons[row]), frozenset(wrong))
    return list(found.items())


def interval(values: Sequence[float], seed: int = 0) -> str:
    """`0.42 (0.30 to 0.55)`: the mean and its 95 % interval over draws of the values."""
    array = np.asarray(values, dtype=float)
    drawn = array[np.random.default_rng(seed).integers(len(array), size=(10_000, len(array)))].mean(1)
    return "{:.2f} ({:.2f} to {:.2f})".format(array.mean(), *np.quantile(drawn, [0.025, 0.975]))


def score(run: Path, planted: Path, top: int) -> None:
    """Print how many of the planted errors each ranking has among its first `top`."""
    oof = Run.open(run).predictions()
    errors = {(row.get("person"), row.get("field")): row for row in read_rows(planted, ("person", "field", "value"))[1]}
    for (person, field), row in errors.items():
        rows = np.flatnonzero(oof.persons == person)
        said = (
            {labels.name("gender", code) for code in oof.truth[rows, 1]} if field == "gender" else set(oof.ages[rows])
        )
        if not len(rows) or (
            field != "mask" and said != {row.get("value") if field == "gender" else float(row.get("value"))}
        ):
            raise DataError(
                f"{run}: {person} does not have the {field} of {row.where('value')}; was it trained with it?"
            )
    kinds = {"swap": "mask", "gender": "gender", "age": "age"}
    print(f"{run}: {len(np.unique(oof.persons))} people, {len(errors)} planted errors, first {top} entries")
    found: dict[str, list[bool]] = {}
    for name, entries in rankings(oof).items():
        listed = [[(person, field) in errors for field in fields] for person, fields in entries]
        ranks = {(who, field): rank for rank, (who, fields) in list(enumerate(entries))[::-1] for field in fields}
        found[name] = [ranks.get(error, top) < top for error in errors]
        print(f"{name}: {len(entries)} entries")
        print(f"  precision {interval([any(hit) for hit in listed[:top]])}, recall {interval(found[name])}")
        for kind, field in kinds.items():
            of = [error for error in errors if error[1] == field]
            places = sorted(ranks[error] + 1 for error in of if error in ranks)
            print(f"  {kind}: {sum(place <= top for place in places)} of {len(of)}; places {places}")
        if name != "suspects":
            gain = np.subtract(found["suspects"], found[name], dtype=float)
            print(f"  recall of suspects minus this: {interval(gain)}")
    sure = sum(one.confidence for one in find_suspects(oof)[:top])
    print(f"suspects expected {sure:.1f} wrong labels among its first {top}")


def after(run: Path, repeats: int) -> None:
    """Print what each ranking finds of errors planted into a run's predictions, on average over plantings."""
    oof = Run.open(run).predictions()
    parts = zip(oof.photos.tolist(), oof.persons.tolist(), oof.truth.tolist(), oof.ages.tolist(), strict=True)
    right = [
        Face(Path(photo), person, photo, *(None if code < 0 else code for code in codes[:2]),
             age if np.isfinite(age) else None, codes[2] if codes[2] >= 0 else None)
        for photo, person, codes, age in parts
    ]  # fmt: skip
    people = len(np.unique(oof.persons))
    top = max(1, round(50 * people / 2700))
    print(f"{run}: {people} people, {repeats} plantings after training (flatters), first {top} entries")
    told: dict[str, list[dict[str, float]]] = {}
    for seed in range(repeats):
        rows = plant(right, seed)
        errors = {row[:2] for row in rows}
        with TemporaryDirectory() as folder:
            write_csv(Path(folder) / "planted.csv", [("person", "field", "value", "was"), *rows])
            wrong = apply_patches(right, Path(folder) / "planted.csv")[0]
        planted = replace(oof, truth=face.truth(wrong), ages=face.ages(wrong))
        for name, entries in rankings(planted).items():
            told.setdefault(name, []).append(_found(entries, errors, top))
    for name, each in told.items():
        print(f"{name}:")
        for key in each[0]:
            mean, error = np.mean([one[key] for one in each]), np.std([one[key] for one in each]) / len(each) ** 0.5
            print(f"  {key} {mean:.3f} ± {error:.3f}")


def _found(entries: Sequence[Entry], errors: set[tuple[str, str]], top: int) -> dict[str, float]:
    """Precision and recall among the first entries; of each field, recall there and average precision in all."""
    hits = [{(person, field) for field in fields} & errors for person, fields in entries]
    first = set().union(*hits[:top])
    said = {"precision": float(np.mean([bool(hit) for hit in hits[:top]])), "recall": len(first) / len(errors)}
    for field in ("mask", "gender", "age"):
        own = [bool(hit & {(person, field)}) for hit, (person, fields) in zip(hits, entries, strict=True)
               if field in fields]  # fmt: skip
        count = sum(error[1] == field for error in errors)
        said[f"recall of {field}"] = sum(error[1] == field for error in first) / count
        ranks = np.flatnonzero(own)
        said[f"average precision of {field}"] = float(np.sum(np.arange(1, len(ranks) + 1) / (ranks + 1)) / count)
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("plant", help="draw errors and write them as a patch file")
    one.add_argument("data")
    one.add_argument("out", type=Path)
    one.add_argument("--seed", type=int, default=0)
    two = verbs.add_parser("score", help="precision and recall of the planted errors in a run trained with them")
    two.add_argument("run", type=Path)
    two.add_argument("planted", type=Path)
    two.add_argument("--top", type=int, default=50)
    three = verbs.add_parser("after", help="what is found of errors planted into the predictions of a run")
    three.add_argument("run", type=Path)
    three.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    if args.verb == "after":
        after(args.run, args.repeats)
        return
    if args.verb == "score":
        score(args.run, args.planted, args.top)
        return
    faces = read_faces(args.data)
    rows = plant(faces, args.seed)
    write_csv(args.out, [("person", "field", "value", "was"), *rows])
    print(
        f"{args.out}: {len(rows)} planted errors, {apply_patches(faces, args.out)[1].photos} photos have wrong labels"
    )


if __name__ == "__main__":
    try:
        main()
    except ThreefoldError as error:
        raise SystemExit(f"suspects: {error}") from None
