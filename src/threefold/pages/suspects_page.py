"""`threefold suspects RUN`: labels that are probably wrong, as a table and as a page to look them through.

RUN/suspects.csv has the form of `data.patches`, so that it can be trained with, but nobody has looked at it: most of a
list like this are people who are only hard to read. The page shows each suspect with all photos of the person and takes
keep, change or can't tell from the keyboard; what it saves as patches.csv is what a human decided, behind the rows of
the `data.patches` that the run was trained with: the next training takes one file.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels
from threefold.data.options import LEFT_ALONE
from threefold.data.tables import AGES, existing, read_rows
from threefold.errors import DataError, RecipeError
from threefold.evidence.suspects import KINDS, Suspect, find_suspects
from threefold.files import digest, write_text
from threefold.pages.figures import photo_paths, thumbnail
from threefold.pages.html import render
from threefold.predictions import Predictions
from threefold.progress import say
from threefold.results import Result
from threefold.runs import Run

SHOWN = 7
"""Photos of a person on the page, at most; those the suspect is about come first."""
PATCH = ("person", "photo", "field", "value", "decision", "note")
"""Columns of the patch file the page saves."""
COLUMNS = ("rank", "kind", "person", "photo", "field", "value", "label", "score", "agree", "of", "decision")


@dataclass(frozen=True)
class SuspectsResult(Result):
    """Suspects of a run, most suspicious first; `folder` has suspects.csv. pictures: thumbnails on the page."""

    run: Run
    oof: Predictions
    suspects: tuple[Suspect, ...]
    folder: Path
    pictures: bool

    @property
    def expected(self) -> float:
        """How many of the labels are wrong, if errors are as frequent as in the contest."""
        return sum(suspect.confidence for suspect in self.suspects)

    def lines(self) -> list[str]:
        """How many of which kind, what to expect of them, and what to do next."""
        if not self.suspects:
            return ["no label is suspicious"]
        counts = ", ".join(f"{count} {kind}" for kind, count in self._counts())
        table, frequent = self.folder / "suspects.csv", "if errors are as frequent as in the contest"
        return [
            f"{len(self.suspects)} suspects ({counts}); {frequent}, about {self.expected:.0f} are wrong",
            f"NOBODY HAS LOOKED AT {table}: do not train with it unseen, most of these labels are right",
            "the page shows them one by one and saves what you decide as a patch for the next training",
        ]

    def data(self) -> dict[str, Any]:
        """`suspects` as the table has them, with the photos that carry the label; `expected`; the folder."""
        suspects = [asdict(suspect) | {"confidence": suspect.confidence} for suspect in self.suspects]
        return {"run": self.run.path, "folder": self.folder, "expected": self.expected, "suspects": suspects}

    def rows(self) -> list[Sequence[object]]:
        """A suspect in a row, in the form of `data.patches`."""
        return [COLUMNS, *(_row(rank, suspect) for rank, suspect in enumerate(self.suspects, 1))]

    def page(self, lang: str = "en") -> str:
        """Every suspect to be kept or changed. DataError where the run's photos.csv cannot be read."""
        cards = _cards(self.run, self.oof, self.suspects, self.pictures)
        pictures = any(photo["picture"] for card in cards for photo in card["photos"])
        if self.pictures and self.suspects and not pictures:
            say(f"{self.run.path / 'photos.csv'}: none of its photos is where it says; the page has no pictures")
        patches = self.run.recipe.data.patches
        return render(
            "suspects",
            lang,
            name=self.run.name,
            # not of the labels, so that a run retrained with the patch knows what was decided
            digest=digest(*sorted(self.oof.photos.tolist())),
            suspects=cards,
            pictures=pictures,
            patches=patches,
            earlier=_earlier(patches),
            kinds=self._counts(),
            names=labels.NAMES,
            ages=AGES,
            people=len(np.unique(self.oof.persons)),
            expected=self.expected,
            photos=self.pictures,
        )

    def _counts(self) -> list[tuple[str, int]]:
        counts = Counter(suspect.kind for suspect in self.suspects)
        return [(kind, counts[kind]) for kind in KINDS if counts[kind]]


def suspects(run: Path | str, *, out: Path | str | None = None, top: int = 200, photos: bool = True) -> SuspectsResult:
    """Write suspects.csv of the `top` most suspicious labels into the run, or into the folder `out`.

    The result's page shows them. photos: with thumbnails; False for a page that may be handed on. RunError: no
    out-of-fold predictions; RecipeError: top below 1, or an `out` that is a file; ThreefoldError: scikit-learn is
    needed and not installed.
    """
    if top < 1:
        raise RecipeError(f"top: {top}; expected 1 or more")
    opened = Run.open(Path(run))
    folder = Path(out) if out else opened.path
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"out: {folder} is a file; expected a folder to write suspects.csv into")
    oof = opened.predictions()
    result = SuspectsResult(opened, oof, tuple(find_suspects(oof)[:top]), folder, photos)
    write_text(folder / "suspects.csv", result.csv())
    return result


def _earlier(patches: str) -> list[list[str]] | None:
    """Rows (as PATCH) of the patch file a run was trained with; [] where there was none, None where it is gone."""
    if not patches:
        return []
    try:
        rows = read_rows(existing(Path(patches)), ("field", "value"))[1]
    except DataError as error:
        say(f"data.patches of the run: {error}; add its rows to what the page saves, or they are lost")
        return None
    return [[row.get(name) for name in PATCH] for row in rows if row.get("decision").lower() not in LEFT_ALONE]


def _row(rank: int, suspect: Suspect) -> tuple[object, ...]:
    photo = suspect.photos[0] if suspect.kind == "mask" else ""
    label = (rank, suspect.kind, suspect.person, photo, suspect.attribute, suspect.proposed, suspect.label)
    return (*label, f"{suspect.score:.3f}", suspect.agree, suspect.of, "not looked at")


def _cards(run: Run, oof: Predictions, suspects: Sequence[Suspect], pictures: bool) -> list[dict[str, Any]]:
    """What the page shows of each suspect: its fields, and of each photo thumbnail, label and probabilities."""
    paths = photo_paths(run) if pictures else {}
    marginals = oof.marginals()
    cards = []
    for suspect in suspects:
        name = "age_group" if suspect.kind == "age" else suspect.attribute
        rows = np.flatnonzero(oof.persons == suspect.person).tolist()
        rows.sort(key=lambda row: str(oof.photos[row]) not in suspect.photos)
        photos = []
        for row in rows[:SHOWN]:
            photo, years = str(oof.photos[row]), float(oof.years[row])
            photos.append(
                {
                    "id": photo,
                    "picture": thumbnail(paths.get(photo)),
                    "label": labels.name(name, int(oof.truth[row, list(labels.ATTRIBUTES).index(name)])),
                    "chances": [round(float(chance), 3) for chance in marginals[name][row]],
                    "years": None if name != "age_group" or np.isnan(years) else round(years, 1),
                    "concerned": photo in suspect.photos,
                }
            )
        card = {**asdict(suspect), "photos": photos, "more": max(0, len(rows) - SHOWN), "values": labels.NAMES[name]}
        cards.append({**card, "photo": _row(0, suspect)[3], "confidence": suspect.confidence})
    return cards
