"""`threefold predict`: photos or videos and a model in; a table of readings, or the contest's submission, out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from threefold import labels, progress
from threefold.data.sources import eval_photos
from threefold.errors import CheckFailed, DataError
from threefold.evidence.decide import FILE
from threefold.files import digest, write_text
from threefold.read.answers import answer, check_attributes
from threefold.read.inputs import count, find_photos
from threefold.read.lines import drawing, read_lines
from threefold.read.output import (
    Line,
    Tally,
    check_format,
    columns,
    csv_row,
    header,
    rows,
    spool,
    write_table,
)
from threefold.read.reader import BUNDLED, Reading, check_which, load
from threefold.read.scored import matching, read_whole, score, submission
from threefold.read.unseen import check_decision, check_unseen
from threefold.runs import ENSEMBLE

Place = Path | str
KEPT = 10_000
"""Photos up to which the readings of a table are kept in memory as well."""
FLUSH = 64
"""Photos after which what was read is handed to the operating system: so many are read again after a kill."""


@dataclass(frozen=True)
class Predicted:
    """What `predict` did.

    readings: by photo name, of its largest face; all of a submission or of what was scored; of a table all of at most
    KEPT photos, none of more and of one that was resumed: the table has them. out: where they were written, None for
    stdout. score: against the answers, if asked for. photos, faces: that were read, in the whole table. indeterminate:
    of how many faces each attribute is not said. seconds: that reading took, this time; done: photos in that time.
    warnings: sentences about a score that may be too good.
    """

    readings: dict[str, Reading]
    out: Path | None
    score: dict[str, Any] | None
    photos: int
    faces: int
    indeterminate: dict[str, int]
    seconds: float
    done: int
    warnings: tuple[str, ...] = ()


def predict(
    photos: Sequence[Place], model: Place | None = None, *, out: Place | None = None, answers: Place | None = None,
    plain: bool = False, faces: str | None = None, boxes: bool = False, annotate: Place | None = None,
    probabilities: bool = False, attributes: Sequence[str] = tuple(labels.ATTRIBUTES), every: float = 1.0,
    resume: bool = False,
) -> Predicted:  # fmt: skip
    """Read photos and videos (files, folders, or the contest's eval folder) with a model: None the bundled one, an
    exported .onnx file, or a run.

    The contest's eval folder becomes a submission (`ImageID,ans` in the order of info.csv; default RUN/submission.csv),
    anything else a table: CSV on stdout, or .csv, .jsonl or .parquet by the extension of `out`. Columns: see
    `tables_out.columns`; `boxes`, `probabilities` and `attributes` choose them. What is not sure enough, or of a face
    too small or too blurred, is `indeterminate` (`class` is what was said all the same). `faces`: `all`, `largest` or
    `none` as of `Reader.faces`; None: the largest where the model crops around faces, else the whole photo. `every`:
    seconds between two frames of a video, 0 for all. `annotate`: folder for copies with boxes and words. `resume` goes
    on with a table of a killed run. `plain` leaves the model's decision aside.
    `answers` (CSV: ImageID,ans[,person,age]) are scored by what was said; `plain.macro_f1` beside it is what the most
    probable classes would have scored. A run keeps predictions and score as test.npz and eval.json; test.npz holds the
    probabilities as the networks gave them, so that runs are compared on it like with like. Photos the run was made
    from are refused (LeakError): a score on them says nothing.
    Photos that cannot be read are left out of a table and raise CheckFailed at the end; a submission and what is
    scored must be whole, so there they raise DataError at once. DataError also for options that exclude each other.
    """
    inputs, target = [Path(photo) for photo in photos], Path(out) if out else None
    given = eval_photos(inputs[0]) if len(inputs) == 1 and inputs[0].is_dir() else None
    asked = check_attributes(attributes)
    names = columns(asked, boxes=boxes, probabilities=probabilities)
    _check(target, faces, resume)
    if given is None and answers is None:
        return _table(inputs, model, target, names, asked, faces=faces, plain=plain, annotate=annotate, every=every,
                      resume=resume)  # fmt: skip
    more = {"--faces all": faces == "all", "--annotate": annotate, "--resume": resume}
    if given is not None:
        more |= {"--boxes": boxes, "--probabilities": probabilities, "--attributes": len(asked) < len(labels.SIZES)}
    for name in (name for name, on in more.items() if on):
        raise DataError(f"{name} does not go with {'a submission' if given is not None else '--answers'}")
    return _scored(inputs, given, model, target, names, asked, faces=faces, plain=plain, answers=answers)


def _check(target: Path | None, faces: str | None, resume: bool) -> None:
    """Refuse what cannot be, before a network is opened."""
    check_which(faces)
    if target is not None:
        check_format(target)
    elif resume:
        raise DataError("--resume goes on with a table in a file; name it with --out")


def _table(
    inputs: Sequence[Path], model: Place | None, target: Path | None, names: Sequence[str], asked: Sequence[str], *,
    faces: str | None, plain: bool, annotate: Place | None, every: float, resume: bool,
) -> Predicted:  # fmt: skip
    """The table of photos and videos, in memory of a batch."""
    total = count(inputs, every)
    draw = drawing(Path(annotate), inputs) if annotate else None
    reader, tally, begin = load(model, decision=not plain), Tally(), perf_counter()
    shares = names[-1] not in ("confidence", "quality")
    readings: dict[str, Reading] = {}

    def lines(earlier: Iterable[str] = (), before: int = 0) -> Iterator[Line]:
        read = read_lines(reader, inputs, faces, earlier=earlier, every=every, attributes=asked, probabilities=shares,
                          draw=draw)  # fmt: skip
        with progress.bar("reading") as report:
            for done, (line, found) in enumerate(read, start=1):
                if found and done <= KEPT:
                    readings[line["file"]] = found[0]
                yield line
                report(done, max(total - before, done))

    before = 0
    if target is None:
        sys.stdout.write(header(names))
        for line in tally.count(lines()):
            sys.stdout.writelines(map(csv_row, rows(line, names)))
    else:
        about = {"model": model_digest(model), "photos": list(map(str, inputs)), "faces": faces, "plain": plain,
                 "attributes": list(asked), "probabilities": shares, "every": every,
                 "annotate": str(annotate) if annotate else None}  # fmt: skip
        with spool(target, about, resume=resume) as kept:
            before = kept.count
            for done, line in enumerate(lines(kept.earlier(), before), start=1):
                kept.add(line)
                if done % FLUSH == 0:
                    kept.flush()
            write_table(target, tally.count(kept.lines()), names)
    everything = tally.photos + len(tally.broken)
    _tell(tally.broken, everything)
    seconds, whole = perf_counter() - begin, before == 0 and everything <= KEPT
    return Predicted(readings if whole else {}, target, None, tally.photos, tally.faces, tally.indeterminate, seconds,
                     everything - before)  # fmt: skip


def _scored(
    inputs: Sequence[Path], given: list[tuple[str, Path]] | None, model: Place | None, target: Path | None,
    names: Sequence[str], asked: Sequence[str], *, faces: str | None, plain: bool, answers: Place | None,
) -> Predicted:  # fmt: skip
    """A submission, or a table that is scored: one reading a photo, all of them or nothing."""
    if given is not None and target is not None and target.suffix.lower() != ".csv":
        raise DataError(f"{target}: a submission is a .csv")
    named = given if given is not None else find_photos(inputs)
    truth = matching(Path(answers), named) if answers else None
    home = Path(model) if model is not None and Path(model).is_dir() else None
    warnings: list[str] = []
    if home and truth:
        warnings = check_unseen(home, named, truth.persons or ()) + (check_decision(home) if not plain else [])
    reader, begin = load(model, decision=not plain), perf_counter()
    readings = read_whole(reader, named, faces)
    seconds, tally = perf_counter() - begin, Tally()
    shares = names[-1] not in ("confidence", "quality")
    lines = list(tally.count({"file": name, "faces": [answer(reading, face=0, attributes=asked, probabilities=shares)]}
                             for name, reading in readings.items()))  # fmt: skip
    if given is not None:
        text, target = submission(readings), target or (home / "submission.csv" if home else None)
    else:
        text = header(names) + "".join(csv_row(row) for line in lines for row in rows(line, names))
    if target is None:
        sys.stdout.write(text)
    elif given is not None:
        write_text(target, text)
    else:
        write_table(target, lines, names)
    found = score(readings, truth, home, reader.decision)
    return Predicted(readings, target, found, tally.photos, tally.faces, tally.indeterminate, seconds, len(readings),
                     tuple(warnings))  # fmt: skip


def model_digest(model: Place | None) -> str:
    """Digest by which a model is known again: of an exported one its bytes; of a run, whose networks never change, what
    it was made of, what it said out of fold, and its decision."""
    path = BUNDLED if model is None else Path(model)
    if path.is_file():
        return digest(path.read_bytes())
    files = [path / name for name in ("stamp.json", "metrics.json", "oof.npz", ENSEMBLE, FILE)]
    return digest(*(digest(file.name, file.read_bytes()) for file in files if file.is_file()))


def _tell(broken: Sequence[str], everything: int) -> None:
    if broken:
        listed = "\n".join(f"  {error}" for error in broken)
        raise CheckFailed(f"{len(broken)} of {everything} photos could not be read, the others were:\n{listed}")
