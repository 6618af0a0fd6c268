"""What a training run writes down: log.jsonl, TensorBoard events, a tracker, a line or a bar for who waits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from threefold import progress
from threefold.files import write_text
from threefold.train.tracking import Tracker, send

SCALARS = ("train_loss", "valid_loss", "macro_f1", "mask", "gender", "age_group", "lr", "photos_per_second")


class Journal(contextlib.AbstractContextManager["Journal"]):
    """One run's log. After a resume every finished epoch comes again, so the files are whole without being merged."""

    def __init__(self, home: Path, folds: int, epochs: int, tracker: Tracker | None = None) -> None:
        self.home, self.folds, self.epochs = home, folds, epochs
        self.tracker = tracker or Tracker()
        self.rows: list[dict[str, Any]] = []

    def __exit__(self, kind: object, *_: object) -> None:
        self.write()
        send(self.tracker, "close", kind is not None)

    def summary(self, metrics: dict[str, Any]) -> None:
        """The score, for the tracker."""
        self.tracker = send(self.tracker, "summary", metrics)

    def write(self) -> None:
        """log.jsonl as a whole: it is small, and a reader never sees half a line."""
        write_text(self.home / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))

    @contextlib.contextmanager
    def fold(self, number: int, home: Path, part: str = "") -> Iterator[FoldLog]:
        """The log of one network of a fold, open while it trains; part: its attribute, where networks are separate."""
        title = f"fold {number + 1} of {self.folds}" if number >= 0 else "all people"
        title += f", {part}" if part else ""
        # purge_step hides what an earlier, killed process wrote of this fold: its epochs come again
        writer = SummaryWriter(str(home), purge_step=1)
        try:
            with progress.bar(title, "batches") as report:
                yield FoldLog(self, title, part, writer, report)
        finally:
            writer.close()


class FoldLog:
    """What `fit` calls while it trains one network of one fold."""

    def __init__(
        self, journal: Journal, title: str, part: str, writer: SummaryWriter, report: progress.Advance
    ) -> None:
        self.journal, self.title, self.part, self.writer, self.report = journal, title, part, writer, report
        self.done = 0

    def batch(self, done: int, total: int) -> None:
        """After each update."""
        self.report(self.done * total + done, self.journal.epochs * total)

    def epoch(self, row: dict[str, Any]) -> None:
        """After each epoch, with the row of `fit`."""
        row = {**row, "part": self.part} if self.part else row
        self.done = row["epoch"]
        self.journal.rows.append(row)
        self.journal.write()
        for name in SCALARS:
            if row[name] is not None:
                self.writer.add_scalar(name, row[name], row["epoch"])
        self.writer.flush()
        self.journal.tracker = send(self.journal.tracker, "log", row)
        progress.say(f"{self.title}, epoch {row['epoch']} of {self.journal.epochs}: {_words(row)}")


def _words(row: dict[str, Any]) -> str:
    words = [f"loss {row['train_loss']:.3f}"]
    if row["valid_loss"] is not None:
        words.append(f"validation {row['valid_loss']:.3f}")
    names = {"macro_f1": "macro F1", "mask": "mask", "gender": "gender", "age_group": "age"}
    words += [f"{word} {row[name]:.3f}" for name, word in names.items() if row[name] is not None]
    return ", ".join(words) + f", {row['photos_per_second']:.0f} photos/s" + (" *" if row["best"] else "")
