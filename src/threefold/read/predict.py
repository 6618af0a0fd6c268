"""`threefold predict`: photos or videos and a model in; a table of readings, or the contest's submission, out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from threefold import progress
from threefold.data.sources import eval_photos
from threefold.errors import DataError
from threefold.evidence.decide import FILE
from threefold.files import csv_text, digest, write_text
from threefold.read.annotate import drawing
from threefold.read.inputs import count, find_photos
from threefold.read.lines import Line, read_lines, spool
from threefold.read.output import Table, check_format
from threefold.read.reader import BUNDLED, check_which, load
from threefold.read.reading import ALL, Reading, check_attributes
from threefold.read.scored import Photos, check_decision, check_unseen, matching, read_whole, score
from threefold.results import Result
from threefold.runs import ENSEMBLE, score_line

KEPT = 10_000
"""Photos up to which the readings of a table that is written are kept in memory as well."""
FLUSH = 64
"""Photos after which what was read is handed to the operating system: so many are read again after a kill."""
SUBMISSION = "a submission"
Write = Callable[[str], object]


@dataclass(frozen=True)
class Predicted(Result):
    """What `predict` did.

    readings: by photo name, of its largest face. All of them where nothing was written, of a submission and of what was
    scored; of a table all of at most KEPT photos, none of more and of one that was resumed: the table has them. out:
    where they were written. score: against the answers, if asked for. photos, faces: that were read, in the whole
    table. indeterminate: of how many faces each attribute is not said. seconds: that reading took, this time; done:
    photos in that time. warnings: sentences about a score that may be too good. broken: a message for each photo that
    could not be read.
    """

    readings: dict[str, Reading]
    out: Path | None
    photos: int
    faces: int
    indeterminate: dict[str, int]
    seconds: float
    done: int
    score: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """See `Result`: photos that could not be read."""
        broken, others = len(self.broken), ", the others were" if self.photos else ""
        return f"{broken} of {self.photos + broken} photos could not be read{others}" if broken else ""

    @property
    def aside(self) -> bool:
        """Without a file, stdout has the table."""
        return self.out is None

    def lines(self) -> list[str]:
        """See `Result`."""
        lines = [score_line(self.score)] if self.score else []
        lines += [f"! {warning}" for warning in (*self.warnings, *self.broken)]
        if unsure := [f"{name} {number:,}" for name, number in self.indeterminate.items() if number]:
            lines.append(f"indeterminate: {', '.join(unsure)} of {self.faces:,} faces")
        speed = f", {self.done / self.seconds:,.0f} photos/s" if self.done and self.seconds else ""
        lines.append(f"read: {self.photos:,} photos, {self.faces:,} faces{speed}")
        if self.out:
            lines.append(f"written: {self.out}")
        return lines

    def data(self) -> dict[str, Any]:
        """See `Result`; the readings are in the table."""
        names = ("out", "score", "photos", "faces", "indeterminate", "seconds", "warnings", "broken")
        return {name: getattr(self, name) for name in names}


def predict(
    inputs: Sequence[Path | str],
    model: Path | str | None = None,
    *,
    out: Path | str | None = None,
    answers: Path | str | None = None,
    plain: bool = False,
    faces: str | None = None,
    boxes: bool = False,
    annotate: Path | str | None = None,
    probabilities: bool = False,
    attributes: Sequence[str] = ALL,
    every: float = 1.0,
    resume: bool = False,
    write: Write | None = None,
) -> Predicted:
    """Read photos and videos (files, folders, or the contest's eval folder) with a model: None the bundled one, an
    exported .onnx file, or a run.

    The contest's eval folder becomes a submission (`ImageID,ans` in the order of info.csv; default RUN/submission.csv),
    anything else a table: .csv, .jsonl or .parquet by the extension of `out`; without it CSV goes to `write`, photo by
    photo, where there is one. Columns: see `output.Table`; `boxes`, `probabilities` and `attributes` choose them. What
    is not sure enough, or of a face too small or too blurred, is `indeterminate` (`class` is what was said all the
    same). `faces`: `all`, `largest` or `none` as of `Reader.faces`; None: what the model reads by itself. `every`:
    seconds between two frames of a video, 0 for all. `annotate`: folder for copies with boxes and words. `resume` goes
    on with a table of a killed run. `plain` leaves the model's decision aside.
    `answers` (CSV: ImageID,ans[,person,age]) are scored by what was said; `plain.macro_f1` beside it is what the most
    probable classes would have scored. A run keeps predictions and score as test.npz and eval.json; test.npz holds the
    probabilities as the networks gave them, so that runs are compared on it like with like. Photos the run was made
    from are refused (LeakError): a score on them says nothing.
    Photos that cannot be read are left out of a table, and are the result's `failure`; a submission and what is scored
    must be whole, so there they raise DataError at once. DataError also for options that exclude each other.
    """
    table = Table(check_attributes(attributes), boxes=boxes, probabilities=probabilities)
    copies = Path(annotate) if annotate else None
    job = _Job(list(map(Path, inputs)), model, Path(out) if out else None, table, faces, plain, copies, every, resume)
    eval_set = eval_photos(job.inputs[0]) if len(job.inputs) == 1 and job.inputs[0].is_dir() else None
    if eval_set is None and answers is None:
        job.check()
        return _table(job, write)
    job.check(SUBMISSION if eval_set is not None else "--answers")
    return _scored(job, eval_set, answers, write)


@dataclass(frozen=True)
class _Job:
    """What `predict` was asked for."""

    inputs: list[Path]
    model: Path | str | None
    out: Path | None
    table: Table
    faces: str | None
    plain: bool
    annotate: Path | None
    every: float
    resume: bool

    def check(self, whole: str = "") -> None:
        """Refuse what cannot be, before a network is opened. whole: what needs one reading of every photo, if any."""
        check_which(self.faces)
        if self.out is not None:
            check_format(self.out)
        elif self.resume:
            raise DataError("--resume goes on with a table in a file; name it with --out")
        refused = {"--faces all": self.faces == "all", "--annotate": self.annotate, "--resume": self.resume}
        if whole == SUBMISSION:
            refused |= {"--boxes": self.table.boxes, "--probabilities": self.table.probabilities}
            refused |= {"--attributes": self.table.attributes != ALL}
        if whole and any(refused.values()):
            raise DataError(f"{next(filter(refused.get, refused))} does not go with {whole}")
        if whole == SUBMISSION and self.out is not None and self.out.suffix.lower() != ".csv":
            raise DataError(f"{self.out}: {SUBMISSION} is a .csv")

    def about(self) -> dict[str, Any]:
        """What a run that goes on with a table must have in common with it."""
        return {
            "model": model_digest(self.model),
            "photos": list(map(str, self.inputs)),
            "faces": self.faces,
            "plain": self.plain,
            "attributes": list(self.table.attributes),
            "probabilities": self.table.probabilities,
            "every": self.every,
            "annotate": str(self.annotate) if self.annotate else None,
        }


class _Tally:
    """What is counted of lines as they pass, until the last one has: see `Predicted`."""

    def __init__(self) -> None:
        self.photos, self.faces, self.broken = 0, 0, list[str]()
        self.indeterminate: Counter[str] = Counter(dict.fromkeys(ALL, 0))
        self.begin, self.seconds = perf_counter(), 0.0

    def count(self, lines: Iterable[Line]) -> Iterator[Line]:
        """The same lines, counted."""
        for line in lines:
            if line.error:
                self.broken.append(line.error)
            else:
                self.photos, self.faces = self.photos + 1, self.faces + len(line.faces)
            self.indeterminate.update(name for face in line.faces for name in face.indeterminate)
            yield line
        self.seconds = perf_counter() - self.begin

    def result(self, readings: dict[str, Reading], out: Path | None, done: int, **more: Any) -> Predicted:
        """What `predict` returns."""
        unsure, broken = dict(self.indeterminate), tuple(self.broken)
        return Predicted(readings, out, self.photos, self.faces, unsure, self.seconds, done, broken=broken, **more)


def _table(job: _Job, write: Write | None) -> Predicted:
    """The table of photos and videos, in memory of a batch and of the readings of KEPT photos."""
    total = count(job.inputs, job.every)
    draw = drawing(job.annotate, job.inputs) if job.annotate else None
    reader, tally = load(job.model, decision=not job.plain), _Tally()
    limit = KEPT if job.out or write else None
    readings: dict[str, Reading] = {}

    def lines(earlier: Iterable[str] = (), before: int = 0) -> Iterator[Line]:
        read = read_lines(
            reader, job.inputs, job.faces, job.table.attributes, earlier=earlier, every=job.every, draw=draw
        )
        with progress.bar("reading") as report:
            for done, line in enumerate(read, start=1):
                if line.faces and (limit is None or done <= limit):
                    readings[line.file] = line.faces[0]
                yield line
                report(done, max(total - before, done))

    before = 0
    if job.out is None:
        write = write or (lambda text: None)
        write(job.table.header)
        for line in tally.count(lines()):
            write(job.table.csv(line))
    else:
        with spool(job.out, job.about(), resume=job.resume) as stored:
            before = stored.count
            for done, line in enumerate(lines(stored.earlier(), before), start=1):
                stored.add(line)
                if done % FLUSH == 0:
                    stored.flush()
            job.table.write(job.out, tally.count(stored.lines()))
    everything = tally.photos + len(tally.broken)
    whole = before == 0 and (limit is None or everything <= limit)
    return tally.result(readings if whole else {}, job.out, everything - before)


def _scored(job: _Job, eval_set: Photos | None, answers: Path | str | None, write: Write | None) -> Predicted:
    """A submission, or a table that is scored: one reading a photo, all of them or nothing."""
    photos = eval_set if eval_set is not None else find_photos(job.inputs)
    truth = matching(Path(answers), photos) if answers else None
    home = Path(job.model) if job.model is not None and Path(job.model).is_dir() else None
    warnings: list[str] = []
    if home and truth:
        warnings = check_unseen(home, photos, truth.persons or ())
        if not job.plain:
            warnings += check_decision(home)
    reader, tally = load(job.model, decision=not job.plain), _Tally()
    readings = read_whole(reader, photos, job.faces)
    lines = list(tally.count(Line(name, [reading.only(job.table.attributes)]) for name, reading in readings.items()))
    out = job.out
    if eval_set is not None:
        text = csv_text([("ImageID", "ans"), *((name, reading.code) for name, reading in readings.items())])
        out = out or (home / "submission.csv" if home else None)
    else:
        text = job.table.header + "".join(map(job.table.csv, lines))
    if out is None and write:
        write(text)
    elif out is not None and eval_set is not None:
        write_text(out, text)
    elif out is not None:
        job.table.write(out, lines)
    metrics = score(readings, truth, home, reader.decision)
    faces = {line.file: line.faces[0] for line in lines}
    return tally.result(faces, out, len(lines), score=metrics, warnings=tuple(warnings))


def model_digest(model: Path | str | None) -> str:
    """Digest by which a model is known again: of an exported one its bytes; of a run, whose networks never change, what
    it was made of, what it said out of fold, and its decision."""
    path = BUNDLED if model is None else Path(model)
    if path.is_file():
        return digest(path.read_bytes())
    files = [path / name for name in ("stamp.json", "metrics.json", "oof.npz", ENSEMBLE, FILE)]
    return digest(*(digest(file.name, file.read_bytes()) for file in files if file.is_file()))
