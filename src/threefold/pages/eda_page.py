"""`threefold eda DATA`: one page about a set of photos before anything is trained on it.

What people's notebooks show (classes, gender by age, years with the borders, examples, sizes), and what is missed
there: people beside photos, whether labels can be read off light, background or clothes, faces, outliers, copies, mean
pictures, and how large chance is on this very set. Reads each photo twice (`check`, `data.eda.measure`) and never stops
at a bad one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data import duplicates
from threefold.data.check import CheckResult, check
from threefold.data.eda import NUMBERS, Eda, Looks, describe, measure
from threefold.data.face import Face
from threefold.data.sources import read_faces
from threefold.pages.figures import TITLES, one_per_person, overlay, thumbnail
from threefold.pages.html import Translate, render, translator
from threefold.pages.shortcuts import PARTS, noise, shortcuts
from threefold.progress import bar
from threefold.results import Result

EXAMPLES, OUTLIERS, LISTED = 4, 6, 12
"""Photos shown of each set of labels and of each kind of outlier; people, pairs and problems listed at most."""


@dataclass(frozen=True)
class EdaResult(Result):
    """What a set of photos is like. copies: [P, 2] rows of `faces` that show one picture under two people; shortcuts,
    noise: of the functions of these names; photos: whether its page shows and names people."""

    faces: Sequence[Face]
    looks: Looks
    counts: Eda
    copies: NDArray[np.int64]
    shortcuts: list[dict[str, Any]]
    noise: dict[str, Any] | None
    photos: bool
    seed: int

    def lines(self) -> list[str]:
        """How much there is, what is wrong with it, and what a network could cheat by."""
        total, problems = self.counts.total, self.counts.check.problems
        lines = [f"{total['photos']:,} photos of {total['persons']:,} people"]
        if errors := sum(problem.severity == "error" for problem in problems):
            lines.append(f"! {errors} errors would corrupt a result; `threefold check` lists them")
        for one in self.shortcuts:
            if one["verdict"] == "clear":
                title, f1, chance = TITLES[one["attribute"]].lower(), one["f1"]["value"], one["chance"]
                lines.append(f"! {title} can be guessed from {one['part']}: macro F1 {f1:.3f}, by lot {chance:.3f}")
        if self.noise:
            gap, fold = self.noise["all"]["difference"], self.noise["fold"]["difference"]
            lines.append(f"two classifiers that differ by less than {gap:.3f} ({fold:.3f} on one fold) look the same")
        return lines

    def data(self) -> dict[str, Any]:
        """Every number of the page: the fields of `data.eda.Eda`, shortcuts and noise."""
        counts = {**asdict(self.counts), "check": self.counts.check.data()}
        return {**counts, "shortcuts": self.shortcuts, "noise": self.noise}

    def page(self, lang: str = "en") -> str:
        """The page; without `photos` nothing on it shows or names a person. RecipeError for an unknown language."""
        translate = translator(lang)
        tried = {one["part"] for one in self.shortcuts}
        return render(
            "eda",
            lang,
            counts=self.counts,
            shortcuts=self.shortcuts,
            noise=self.noise,
            listed=LISTED,
            blocked=[part for part in PARTS[2:] if part not in tried],
            numbers=NUMBERS,
            gallery=self._gallery(translate) if self.photos else None,
            names=labels.NAMES,
        )

    def _gallery(self, translate: Translate) -> dict[str, Any]:
        """Everything with pictures: examples by labels, outliers, odd persons, copies side by side, mean pictures."""

        def words(codes: Sequence[int]) -> str:
            pairs = zip(labels.ATTRIBUTES, codes, strict=True)
            return " · ".join(translate(labels.name(name, code) or "unknown") for name, code in pairs)

        def shown(row: int, text: str = "") -> dict[str, Any]:
            face = self.faces[row]
            return {"picture": thumbnail(face.photo), "id": face.id, "text": text, "words": words(face.parts)}

        def mean(task: str, code: int) -> tuple[str, str]:
            name = words(labels.decode(code)) if task == "all" else translate(labels.name(task, code))
            return name, overlay(self.looks.pictures[task, code], None)

        usual = max(self.counts.photos_per_person, key=lambda count: self.counts.photos_per_person[count])
        odd = sorted(self.counts.odd.items(), key=lambda pair: -abs(pair[1] - usual))[:LISTED]
        persons = [face.person for face in self.faces]
        lot = np.random.default_rng(self.seed).permutation(np.flatnonzero(self.looks.read)).tolist()
        examples = []
        for parts in sorted({face.parts for face in self.faces}, key=lambda parts: (min(parts) < 0, parts)):
            rows = one_per_person(persons, [row for row in lot if self.faces[row].parts == parts])[:EXAMPLES]
            examples.append((words(parts), [shown(row) for row in rows]))
        outliers = _outliers(persons, self.looks)
        means = sorted(key for key in self.looks.pictures if key[1] >= 0)
        return {
            "examples": examples,
            "outliers": [(title, [shown(row, text) for row, text in rows]) for title, rows in outliers],
            "odd": [shown(persons.index(person), f"{count}") for person, count in odd],
            "copies": [(shown(i), shown(j)) for i, j in self.copies[:LISTED].tolist()],
            "means": [[mean(*key) for key in means if key[0] == task] for task in (*labels.ATTRIBUTES, "all")],
        }


def eda(data: str, *, photos: bool = True, seed: int = 0) -> EdaResult:
    """Look at the photos of a source text (see `read_faces`).

    photos: the page has examples, outliers, mean pictures and names. seed: of the lots that choose photos and draw
    intervals. Raises DataError when there is nothing to look at.
    """
    with bar("checking") as progress:
        report = check(data, progress)
    faces = read_faces(data, lambda _: None)  # check has reported what is wrong
    looks = measure(faces, seed=seed)
    copies = _copies(faces, report)
    groups = duplicates.person_groups([face.person for face in faces], copies)
    guesses, chance = shortcuts(faces, looks, groups, seed=seed), noise(faces, seed=seed)
    return EdaResult(faces, looks, describe(faces, report, looks), copies, guesses, chance, photos, seed)


def _copies(faces: Sequence[Face], report: CheckResult) -> NDArray[np.int64]:
    """[P, 2] rows of the copies across persons that `check` listed."""
    row_of = {face.id: row for row, face in enumerate(faces)}
    pairs = [
        (row_of[problem.where], row_of[problem.text.split(" as ", 1)[1].rsplit("; training", 1)[0]])
        for problem in report.problems
        if problem.kind == "copies across persons"
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _outliers(persons: Sequence[str], looks: Looks) -> list[tuple[str, list[tuple[int, str]]]]:
    """(title, rows with what was measured) of the photos that differ most from the rest, worst first, one a person.

    Nothing is listed by a measure that all photos share, such as one size for all.
    """
    sides = np.array([(info.width, info.height) if info else (np.nan, np.nan) for info in looks.infos])
    shape = np.log(sides[:, 0] / sides[:, 1])
    middle = np.median(shape[looks.read]) if looks.read.any() else 0.0
    light, _, sharpness, _ = looks.numbers.T
    ranks = {
        "darkest": (light, light[:, None]),
        "brightest": (-light, light[:, None]),
        "blurriest": (sharpness, sharpness[:, None]),
        "smallest": (sides.prod(1), sides),
        "oddest shape": (-abs(shape - middle), sides),
    }
    outliers = []
    for title, (rank, values) in ranks.items():
        rows = one_per_person(persons, [row for row in np.argsort(rank, kind="stable").tolist() if looks.read[row]])
        if rows and np.nanmax(rank) - np.nanmin(rank) > 1e-6:
            texts = ["x".join(f"{part:.0f}" for part in values[row]) for row in rows[:OUTLIERS]]
            outliers.append((title, list(zip(rows, texts, strict=False))))
    return outliers
