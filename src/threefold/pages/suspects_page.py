"""`threefold suspects RUN`: labels that are probably wrong, as a table and as a page to look them through.

RUN/suspects.csv has the form of `data.patches`, so that it can be trained with, but nobody has looked at it: most of a
list like this are people who are only hard to read. RUN/suspects.html shows each suspect with all photos of the person
and takes keep, change or can't tell from the keyboard; what it saves as patches.csv is what a human decided, behind the
rows of the `data.patches` that the run was trained with: the next training takes one file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.options import LEFT_ALONE
from threefold.data.tables import AGES, existing, read_rows
from threefold.errors import DataError, RecipeError
from threefold.evidence.suspects import KINDS, Suspect, find
from threefold.files import digest, write_csv, write_text
from threefold.pages import figures
from threefold.pages.html import render
from threefold.predictions import Predictions
from threefold.progress import say
from threefold.runs import Run

SHOWN = 7
"""Photos of a person on the page, at most; those the suspect is about come first."""
PATCH = ("person", "photo", "field", "value", "decision", "note")
"""Columns of the patch file the page saves."""
COLUMNS = ("rank", "kind", "person", "photo", "field", "value", "label", "score", "agree", "of", "decision")


def suspects(
    run: Path | str, *, out: Path | str | None = None, top: int = 200, photos: bool = True, lang: str = "en"
) -> tuple[list[Suspect], Path]:
    """Write suspects.csv and suspects.html of the `top` most suspicious labels into the run, or the folder `out`.

    photos: with thumbnails on the page; False for a page that may be handed on. lang: of the page (en, ko). Returns the
    suspects, most suspicious first, and the page. RunError: no out-of-fold predictions; RecipeError: top below 1, or an
    `out` that is a file.
    """
    if top < 1:
        raise RecipeError(f"top: {top}; expected 1 or more")
    opened = Run.open(Path(run))
    folder = Path(out) if out else opened.path
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"out: {folder} is a file; expected a folder to write suspects.csv and suspects.html into")
    oof = opened.predictions()
    found = find(oof)[:top]
    cards = _cards(opened, oof, found, photos)
    pictures = any(photo["picture"] for card in cards for photo in card["photos"])
    if photos and found and not pictures:
        say(f"{opened.path / 'photos.csv'}: none of its photos is where it says; the page has no pictures")
    patches = opened.recipe.data.patches
    page = render(
        "suspects",
        lang,
        name=opened.name,
        # not of the labels, so that a run retrained with the patch knows what was decided
        digest=digest(*sorted(oof.photos.tolist())),
        suspects=cards,
        pictures=pictures,
        patches=patches,
        earlier=_earlier(patches),
        kinds=[(kind, count) for kind in KINDS if (count := sum(one.kind == kind for one in found))],
        names=labels.NAMES,
        ages=AGES,
        people=len(np.unique(oof.persons)),
        expected=sum(one.confidence for one in found),
        photos=photos,
    )
    write_csv(folder / "suspects.csv", [COLUMNS, *(_row(rank, one) for rank, one in enumerate(found, 1))])
    write_text(folder / "suspects.html", page)
    return found, folder / "suspects.html"


def summary(found: Sequence[Suspect], page: Path) -> list[str]:
    """Lines for the terminal: how many of which kind, what to expect of them, and what to do next."""
    if not found:
        return ["no label is suspicious", f"page: {page}"]
    counts = Counter(one.kind for one in found)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    expected = sum(one.confidence for one in found)
    return [
        f"{len(found)} suspects ({kinds}); if errors are as frequent as in the contest, about {expected:.0f} are wrong",
        f"NOBODY HAS LOOKED AT {page.with_suffix('.csv')}: do not train with it unseen, most of these labels are right",
        f"look them through: {page}",
    ]


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


def _row(rank: int, one: Suspect) -> tuple[object, ...]:
    photo = one.photos[0] if one.kind == "mask" else ""
    where = (rank, one.kind, one.person, photo, one.attribute, one.proposed, one.label)
    return (*where, f"{one.score:.3f}", one.agree, one.of, "not looked at")


def _cards(run: Run, oof: Predictions, found: Sequence[Suspect], photos: bool) -> list[dict[str, Any]]:
    """What the page shows of each suspect: its fields, and of each photo thumbnail, label and probabilities."""
    paths = figures.photo_paths(run) if photos else {}
    marginals = oof.marginals()
    rows_of: dict[str, list[int]] = {}
    for row, person in enumerate(oof.persons.tolist()):
        rows_of.setdefault(person, []).append(row)
    cards = []
    for one in found:
        name = "age_group" if one.kind == "age" else one.attribute
        rows = sorted(rows_of[one.person], key=lambda row: str(oof.photos[row]) not in one.photos)
        shown = [_photo(oof, row, name, marginals[name], paths) for row in rows[:SHOWN]]
        concerned = [{**photo, "concerned": photo["id"] in one.photos} for photo in shown]
        card = {**asdict(one), "photos": concerned, "more": max(0, len(rows) - SHOWN), "values": labels.NAMES[name]}
        cards.append({**card, "photo": _row(0, one)[3], "confidence": one.confidence})
    return cards


def _photo(
    oof: Predictions, row: int, attribute: str, part: NDArray[np.floating], paths: dict[str, Path]
) -> dict[str, Any]:
    photo, code = str(oof.photos[row]), int(oof.truth[row, list(labels.ATTRIBUTES).index(attribute)])
    return {
        "id": photo,
        "picture": figures.thumbnail(paths[photo]) if photo in paths else None,
        "label": labels.name(attribute, code),
        "chances": [round(float(chance), 3) for chance in part[row]],
        "years": None if attribute != "age_group" or np.isnan(oof.years[row]) else round(float(oof.years[row]), 1),
    }
