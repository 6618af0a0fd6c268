"""`threefold eda DATA`: one page about a set of photos before anything is trained on it.

What people's notebooks show (classes, gender by age, years with the borders, examples, sizes), and what is missed
there: people beside photos, whether labels can be read off light, background or clothes, faces, outliers, copies, mean
pictures, and how large chance is on this very set. Reads each photo twice (`check`, `data.eda.measure`) and never stops
at a bad one. The page is one file; with `photos=False` nothing on it shows or names a person.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels
from threefold.data import duplicates
from threefold.data.check import CheckResult, check
from threefold.data.eda import NUMBERS, Eda, Looks, describe, measure
from threefold.data.face import Face
from threefold.data.sources import read_faces
from threefold.files import need_writable, write_text
from threefold.pages.figures import overlay, thumbnail
from threefold.pages.html import render, translator
from threefold.pages.shortcuts import PARTS, noise, shortcuts
from threefold.progress import bar

EXAMPLES, OUTLIERS, LISTED = 4, 6, 12
"""Photos shown of each set of labels and of each kind of outlier; people, pairs and problems listed at most."""


def eda(
    data: str, *, out: Path | str = "eda.html", photos: bool = True, lang: str = "en", json: bool = False, seed: int = 0
) -> Path:
    """Write the page about a source text (see `read_faces`) to `out` and return where; `json` prints its numbers.

    photos: with examples, outliers, mean pictures and names; lang: en or ko. Raises DataError when there is nothing to
    look at or `out` cannot be written, and RecipeError for an unknown language.
    """
    say = translator(lang)  # an unknown language and a page that cannot be written are told before photos are read
    need_writable(Path(out))
    with bar("checking") as progress:
        report = check(data, progress)
    faces = read_faces(data, lambda _: None)  # check has reported what is wrong
    with bar("looking") as progress:
        looks = measure(faces, progress, seed=seed)
    pairs = _pairs(faces, report)
    groups = duplicates.person_groups([face.person for face in faces], pairs)
    found = describe(faces, report, looks)
    guessed, chance = shortcuts(faces, looks, groups, seed=seed), noise(faces, seed=seed)
    context = {
        "found": found, "shortcuts": guessed, "noise": chance, "listed": LISTED,
        "blocked": [part for part in PARTS[2:] if all(one["part"] != part for one in guessed)], "numbers": NUMBERS,
        "gallery": _gallery(faces, looks, pairs, found, say, seed) if photos else None, "names": labels.NAMES,
    }  # fmt: skip
    write_text(Path(out), render("eda", lang, **context))
    if json:
        numbers = {**asdict(found), "shortcuts": guessed, "noise": chance}
        print(jsonlib.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False))
    return Path(out)


def _pairs(faces: Sequence[Face], report: CheckResult) -> Any:
    """[P, 2] rows of the copies across persons that `check` listed."""
    rows = {face.id: row for row, face in enumerate(faces)}
    found = [
        (rows[problem.where], rows[problem.text.split(" as ", 1)[1].rsplit("; training", 1)[0]])
        for problem in report.problems if problem.kind == "copies across persons"
    ]  # fmt: skip
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _gallery(
    faces: Sequence[Face], looks: Looks, pairs: Any, found: Eda, say: Callable[[str], str], seed: int
) -> dict[str, Any]:
    """Everything with pictures: examples by labels, outliers, odd persons, copies side by side, mean pictures."""

    def shown(row: int, text: str = "") -> dict[str, Any]:
        face = faces[row]
        return {"picture": thumbnail(face.photo), "id": face.id, "text": text, "words": words(face.parts)}

    def words(codes: Sequence[int]) -> str:
        pairs = zip(labels.ATTRIBUTES, codes, strict=True)
        return " · ".join(say(labels.name(name, code) or "unknown") for name, code in pairs)

    examples: dict[tuple[int, int, int], dict[str, int]] = {
        parts: {} for parts in sorted({face.parts for face in faces}, key=lambda parts: (min(parts) < 0, parts))
    }
    for row in np.random.default_rng(seed).permutation(np.flatnonzero(looks.read)).tolist():
        persons = examples[faces[row].parts]
        if len(persons) < EXAMPLES:
            persons.setdefault(faces[row].person, row)
    usual = max(found.photos_per_person, key=lambda count: found.photos_per_person[count])
    odd = sorted(found.odd.items(), key=lambda pair: -abs(pair[1] - usual))
    of = {person: row for row, person in reversed(list(enumerate(face.person for face in faces)))}
    return {
        "examples": [(words(parts), [shown(row) for row in rows.values()]) for parts, rows in examples.items()],
        "outliers": [(title, [shown(row, text) for row, text in rows]) for title, rows in _outliers(faces, looks)],
        "odd": [shown(of[who], f"{count}") for who, count in odd[:LISTED]],
        "copies": [(shown(i), shown(j)) for i, j in pairs[:LISTED].tolist()],
        "means": [
            [(words(labels.decode(code)) if task == "all" else say(labels.name(task, code)), overlay(mean, None))
             for (of_task, code), mean in sorted(looks.pictures.items()) if of_task == task and code >= 0]
            for task in (*labels.ATTRIBUTES, "all")
        ],
    }  # fmt: skip


def _outliers(faces: Sequence[Face], looks: Looks) -> list[tuple[str, list[tuple[int, str]]]]:
    """(title, rows with what was measured) of the photos that differ most from the rest, worst first, one a person.

    Nothing is listed by a measure that all photos share, such as one size for all.
    """
    nothing = (np.nan, np.nan)
    sides = np.array([(info.width, info.height) if info else nothing for info in looks.infos])
    shape = np.log(sides[:, 0] / sides[:, 1])
    middle = np.median(shape[looks.read]) if looks.read.any() else 0.0
    light = [[f"{value:.0f}" for value in column] for column in looks.numbers.T.tolist()]
    sizes = [f"{width:.0f}x{height:.0f}" for width, height in sides.tolist()]
    ranks = {
        "darkest": (looks.numbers[:, 0], light[0]), "brightest": (-looks.numbers[:, 0], light[0]),
        "blurriest": (looks.numbers[:, 2], light[2]), "smallest": (sides.prod(1), sizes),
        "oddest shape": (-abs(shape - middle), sizes),
    }  # fmt: skip
    found = []
    for title, (rank, texts) in ranks.items():
        worst: dict[str, int] = {}
        for row in np.argsort(rank, kind="stable").tolist():
            if looks.read[row] and len(worst) < OUTLIERS:
                worst.setdefault(faces[row].person, row)
        if worst and np.nanmax(rank) - np.nanmin(rank) > 1e-6:
            found.append((title, [(row, texts[row]) for row in worst.values()]))
    return found
