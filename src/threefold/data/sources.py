"""`read_faces("csv:PATH,utkface:PATH")`: labelled photos of one or several folders as a list of `Face`.

A source is a layout's name and a folder, joined by commas; without a name the layout is recognised. Ids and persons are
made unique here and are the same on every machine; the order is by id, never by the file system. Also the contest's
eval folder and its answers. How each layout is read is in `layouts.py`.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.face import Face
from threefold.data.layouts import SIGNS, SOURCES, age_and_group
from threefold.data.tables import Note, Row, existing, need_columns, read_age, read_label, read_rows, refuse, there
from threefold.errors import DataError, one_of
from threefold.files import printable


def read_faces(text: str | Path, note: Note = refuse) -> list[Face]:
    """Faces of one source or of several joined by commas, sorted by id.

    `id` is the photo's path below the source's root; when sources are joined, ids and persons begin with the root
    folder's name. A comma inside an existing path belongs to the path. Raises DataError for a folder that is missing or
    whose layout is not recognised, for no photos at all, and (unless `note` collects them) for the first error.
    """
    sources = split_sources(text)
    faces: list[Face] = []
    for name, (layout, root) in zip(source_names(sources), sources, strict=True):
        prefix = f"{name}/" if len(sources) > 1 else ""
        labelled = list(SOURCES[layout](root, note))
        if not labelled:
            raise DataError(f"{root}: no labelled photos found (read as {layout})")
        for face in labelled:
            faces.append(replace(face, id=_normal(prefix + face.id), person=_normal(prefix + face.person), source=name))
    return sorted(faces, key=lambda face: face.id)


def split_sources(text: str | Path) -> list[tuple[str, Path]]:
    """[(layout, existing root)] of a source text. See `read_faces`."""
    pieces = [str(text)] if isinstance(text, Path) else text.split(",")
    sources: list[tuple[str, Path]] = []
    while pieces:
        joined = (n for n in range(len(pieces), 0, -1) if there(_split_prefix(",".join(pieces[:n]))[1]))
        taken = next(joined, 1)
        piece = ",".join(pieces[:taken]).strip()
        if not piece:
            raise DataError(f"data: an empty source in {text!r}; expected LAYOUT:PATH joined by commas")
        layout, root = _split_prefix(piece)
        sources.append((layout or recognise(existing(root)), existing(root)))
        pieces = pieces[taken:]
    return sources


def _split_prefix(piece: str) -> tuple[str, Path]:
    head, colon, rest = piece.strip().partition(":")
    whole = Path(piece.strip()).expanduser()
    if not colon or there(whole) or not re.fullmatch(r"\w{2,}", head):
        return "", whole
    if head not in SOURCES:
        raise DataError(f"data: {head!r} in {piece!r} is no layout ({one_of(SOURCES, head)})")
    return head, Path(rest).expanduser()


def recognise(root: Path) -> str:
    """Name of the layout of an existing folder (or .csv file); raises DataError saying what was looked for."""
    for layout, (fits, _) in SIGNS.items():
        if fits(root):
            return layout
    signs = ", ".join(f"{sign} ({layout})" for layout, (_, sign) in SIGNS.items())
    raise DataError(f"{root}: no known layout; looked for {signs}")


def source_names(sources: Sequence[tuple[str, Path]]) -> list[str]:
    """`Face.source` of each source: its root folder's name; the second of one name is name-2, and so on."""
    names: list[str] = []
    for root in (root.resolve() for _, root in sources):
        base = (root.parent.name if root.is_file() else root.name) or "root"
        free = (base if n == 1 else f"{base}-{n}" for n in range(1, len(sources) + 1))
        names.append(next(name for name in free if name not in names))
    return names


def _normal(name: str) -> str:
    """NFC: the file system of a Mac hands out Korean names decomposed, and ids must not depend on the machine."""
    return unicodedata.normalize("NFC", printable(name))


def eval_photos(root: Path) -> list[tuple[str, Path]] | None:
    """(ImageID, path) in the order of `info.csv` of the contest's eval folder (`root/eval` or `root`).

    None when there is no info.csv. Raises DataError for no ids, ids that repeat and photos that are missing.
    """
    folder = next((folder for folder in (root / "eval", root) if (folder / "info.csv").is_file()), None)
    if folder is None:
        return None
    ids = [row.get("imageid") for row in read_rows(folder / "info.csv", ("imageid",))[1]]
    if not ids:
        raise DataError(f"{folder / 'info.csv'}: lists no photo")
    _refuse_repeated(ids, folder / "info.csv")
    photos = folder / "images" if (folder / "images").is_dir() else folder
    if outside := [name for name in ids if not name or Path(name).is_absolute() or ".." in Path(name).parts]:
        raise DataError(f"{folder / 'info.csv'}: ImageID {outside[0]!r} is no path below {photos}")
    if missing := [name for name in ids if not (photos / name).is_file()]:
        raise DataError(f"{photos}: {len(missing)} of {len(ids)} photos of info.csv are missing, first {missing[0]}")
    return [(name, photos / name) for name in ids]


@dataclass(frozen=True)
class Answers:
    """What is true of N photos. truth: [N, 3] int8 (mask, gender, age group), UNKNOWN where no label is. persons: [N]
    str or None. ages: [N] float32 years (NaN where unknown) or None."""

    ids: tuple[str, ...]
    truth: NDArray[np.int8]
    persons: tuple[str, ...] | None = None
    ages: NDArray[np.float32] | None = None

    @property
    def label(self) -> NDArray[np.int64]:
        """[N] class 0..17, UNKNOWN where a part is."""
        return labels.encode_all(self.truth)


def read_answers(path: Path) -> Answers:
    """Answers from a CSV `ImageID,ans` (class 0..17) and perhaps `person`, `age`; or a table of labels like the `csv:`
    layout's, `file` and any of mask, gender, age, age_group, person, where what is empty is unknown.

    Raises DataError naming the bad line.
    """
    columns, rows = read_rows(path, ())
    table = "file" in columns and "ans" not in columns
    name = "file" if table else "imageid"
    need_columns(path, columns, (name,) if table else ("imageid", "ans"))
    if not rows:
        raise DataError(f"{path}: no answers in it")
    if table and not set(columns) & {*labels.ATTRIBUTES, "age"}:
        raise DataError(f"{path}: no column of labels in its first line; expected {', '.join(labels.ATTRIBUTES)}, age")
    truth = [_labels(row) if table else _class(row) for row in rows]
    ids = tuple(row.get(name) for row in rows)
    _refuse_repeated(ids, path)
    owner = next((column for column in ("person", "person_id") if column in columns), None)
    persons = tuple(row.get(owner) or row.get(name) for row in rows) if owner else None
    years = [read_age(row, refuse) for row in rows] if "age" in columns else None
    ages = None if years is None else np.array([np.nan if y is None else y for y in years], dtype=np.float32)
    return Answers(ids, np.array(truth, dtype=np.int8), persons, ages)


def _class(row: Row) -> list[int]:
    text = row.get("ans")
    if not re.fullmatch(r"\d{1,2}", text, re.ASCII) or int(text) >= labels.CLASSES:
        raise DataError(f"{row.where('ans')}: {text!r} is no class; expected 0..{labels.CLASSES - 1}")
    return list(labels.decode(int(text)))


def _labels(row: Row) -> list[int]:
    parts = [read_label(row, "mask", refuse), read_label(row, "gender", refuse), age_and_group(row, refuse)[1]]
    return [labels.UNKNOWN if part is None else part for part in parts]


def _refuse_repeated(ids: Sequence[str], path: Path) -> None:
    if len(set(ids)) < len(ids):
        again = next(name for name, count in Counter(ids).items() if count > 1)
        raise DataError(f"{path}: ImageID {again!r} occurs twice")
