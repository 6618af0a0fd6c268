"""What a training run writes down: log.jsonl, TensorBoard events, a line or a bar for who waits, and a tracker.

`track: wandb`: a run's numbers in the tracker a team uses already, beside log.jsonl and TensorBoard.

What is sent is the recipe, the numbers of every epoch and the score: never a photo, a photo's name, a person or a
prediction; of the machine its platform and Python version. It works without a network: wandb writes into the run
directory until `wandb sync`. The package is imported only when a recipe asks for it.
"""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from torch.utils.tensorboard import SummaryWriter

from threefold import progress, spec
from threefold.errors import RecipeError, how_to_install
from threefold.files import digest, write_text

Row = dict[str, Any]
SCALARS = ("train_loss", "valid_loss", "macro_f1", "mask", "gender", "age_group", "lr", "photos_per_second")


class Tracker:
    """No tracker; what the others override."""

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """Begin, or go on with, the run of the run directory `home`; recipe: every key, flat."""

    def log(self, row: Row) -> None:
        """The numbers of one epoch of one fold, from `fit`.

        After a resume every finished epoch comes again, and the tracker must not show it twice.
        """

    def summary(self, metrics: Row) -> None:
        """What metrics.json will hold."""

    def close(self, failed: bool) -> None:
        """Nothing more comes; failed: the training ended with an error or was stopped."""


class Wandb(Tracker):
    """Weights & Biases. mode `auto`: what WANDB_MODE says, else online where there is an API key, else offline.

    Offline, the files in `RUN/wandb` are written anew after a resume, like log.jsonl: `wandb sync` then sends each
    epoch once.
    """

    def __init__(
        self, *, project: str = "threefold", entity: str = "", mode: Literal["auto", "online", "offline"] = "auto"
    ) -> None:
        if find_spec("wandb") is None:
            raise RecipeError(f"track: the package wandb is not installed; {how_to_install('track')}")
        self.project, self.entity, self.mode, self.logged = project, entity, mode, 0

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """See `Tracker`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports would go out even when offline
        import wandb

        by_key = "online" if _has_key() else "offline"
        mode = self.mode if self.mode != "auto" else os.environ.get("WANDB_MODE") or by_key
        if mode == "offline":
            shutil.rmtree(home / "wandb", ignore_errors=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            host="",
        )
        # the same for a run and its resume, another for every other run: name, stamp and recipe of the directory
        files = [(home / file).read_bytes() for file in ("stamp.json", "recipe.yaml")]
        self.run = wandb.init(
            project=self.project,
            entity=self.entity or None,
            dir=str(home),
            id=digest(home.resolve().name, *files),
            name=name,
            config=recipe,
            mode=cast(Any, mode),
            resume=None if mode == "offline" else "allow",
            settings=settings,
        )
        if mode == "offline":
            progress.say(f"track: wandb is offline; `wandb sync {home}/wandb/offline-run-*` sends it later")

    def log(self, row: Row) -> None:
        """See `Tracker`. The step counts epochs over all folds; charts of a fold go by its own epoch."""
        fold, step = fold_name(row), self.logged
        self.logged += 1
        if step < self.run.starting_step:
            return
        self.run.define_metric(f"{fold}/*", step_metric=f"{fold}/epoch")
        numbers = {
            key: value
            for key, value in row.items()
            if key not in ("fold", "step") and isinstance(value, int | float) and not isinstance(value, bool)
        }
        self.run.log({f"{fold}/{key}": value for key, value in numbers.items()}, step)

    def summary(self, metrics: Row) -> None:
        """See `Tracker`."""
        self.run.summary.update(_scores(metrics))

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self.run.finish(exit_code=int(failed))


def make_tracker(text: str) -> Tracker:
    """The tracker a recipe names, not yet started; RecipeError on a wrong option or a package that is not here."""
    return cast(Tracker, spec.build_one(text, TRACKERS, "track"))


def start(tracker: Tracker, home: Path, recipe: Row) -> None:
    """Start it for a run directory; whatever goes wrong (no login, no server) is one RecipeError before training."""
    try:
        tracker.start(home, recipe, home.resolve().name)
    except Exception as error:
        raise RecipeError(f"track: {recipe['track']} cannot be started ({_line(error)})") from error


def send(tracker: Tracker, method: str, *args: Any) -> Tracker:
    """Call `log`, `summary` or `close`. A tracker that fails is left: its server is not worth a night of training."""
    try:
        getattr(tracker, method)(*args)
    except Exception as error:
        progress.say(f"track: {type(tracker).__name__.lower()} failed and is left out from here on ({_line(error)})")
        return Tracker()
    return tracker


def _has_key() -> bool:
    """An API key in the environment or in ~/.netrc, where `wandb login` puts it."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host) is not None
    return False


def fold_name(row: Row) -> str:
    """`fold0`, `final`, or `fold0.mask` where each attribute has a network of its own."""
    return (f"fold{row['fold']}" if row["fold"] >= 0 else "final") + (f".{row['part']}" if "part" in row else "")


def _scores(metrics: Row) -> dict[str, float]:
    """macro_f1, macro_f1_low, ... of {value, low, high}, and the attributes' as mask_macro_f1, ..."""
    scores: dict[str, float] = {}
    for key, part in metrics.items():
        if isinstance(part, dict) and "value" in part:
            numbers = {key if end == "value" else f"{key}_{end}": number for end, number in part.items()}
            scores |= {name: number for name, number in numbers.items() if number is not None}
        elif isinstance(part, dict) and "macro_f1" in part:
            scores |= _scores({f"{key}_macro_f1": part["macro_f1"]})
    return scores


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


TRACKERS: spec.Table = {"none": Tracker, "wandb": Wandb}
"""name -> factory(**options) -> Tracker."""


class Journal(contextlib.AbstractContextManager["Journal"]):
    """One run's log. After a resume every finished epoch comes again, so the files are whole without being merged."""

    def __init__(self, home: Path, folds: int, epochs: int, tracker: Tracker | None = None) -> None:
        self.home, self.folds, self.epochs = home, folds, epochs
        self.tracker = tracker or Tracker()
        self.rows: list[Row] = []

    def __exit__(self, kind: object, *_: object) -> None:
        self.write()
        send(self.tracker, "close", kind is not None)

    def summary(self, metrics: Row) -> None:
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

    def epoch(self, row: Row) -> None:
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


def _words(row: Row) -> str:
    names = {"train_loss": "loss", "valid_loss": "validation", "macro_f1": "macro F1"}
    names |= {"mask": "mask", "gender": "gender", "age_group": "age"}
    words = [f"{word} {row[name]:.3f}" for name, word in names.items() if row[name] is not None]
    return ", ".join(words) + f", {row['photos_per_second']:.0f} photos/s" + (" *" if row["best"] else "")
