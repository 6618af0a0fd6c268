"""A run directory: create it, fill it with whole files, tell its state, list many.

    recipe.yaml stamp.json split.csv photos.csv log.jsonl events.*  fold0/ fold1/ ... [final/]  oof.npz metrics.json

`metrics.json` is written last: its presence means complete. `failed.txt` holds the traceback of what stopped it. A run
is never edited and never overwritten; later stages add files. While one process trains, it holds `.lock`.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from threefold.errors import RecipeError, RunError, one_of
from threefold.files import is_locked, lock, new_folder, write_json, write_text
from threefold.predictions import Predictions
from threefold.recipe import Recipe, load_recipe, make_recipe, write_recipe
from threefold.results import Result

FORMAT = 1
ENSEMBLE = "ensemble.json"
"""What makes a run an ensemble: {members: [{path (from the run's directory, or absolute), weight, digest}], vote}."""


class Run(Result):
    """A run directory that exists, and the result of the verbs that train one.

    Reading is lazy; a missing or broken file raises RunError naming it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe, stamp: dict[str, Any]) -> Run:
        """Make `path` with recipe.yaml and stamp.json, at once; raises RunError when something is there already."""
        cls.need_free(path)
        with new_folder(path) as building:
            write_recipe(recipe, building / "recipe.yaml")
            write_json(building / "stamp.json", {"format": FORMAT, **stamp})
        return cls(path)

    @staticmethod
    def need_free(path: Path) -> None:
        """Raise RunError when `path` cannot become a new run, saying what can be done."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            hint = "; --resume goes on with it" if (path / "stamp.json").exists() else ""
            raise RunError(f"{path}: is already there and a run is never overwritten; choose another --out{hint}")

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run; raises RunError when `path` is none or of an unknown format."""
        if not path.is_dir():
            near = [stamp.parent.name for stamp in path.parent.glob("*/stamp.json")]
            raise RunError(f"{path}: no such run ({one_of(near, path.name)} in {path.parent})")
        if not (path / "stamp.json").exists():
            # two levels down, as a search or an ablation lies; all of a disk would take minutes
            stamps = [*path.glob("*/stamp.json"), *path.glob("*/*/stamp.json")]
            inside = sorted(str(stamp.parent.relative_to(path)) for stamp in stamps)
            names = ", ".join([*inside[:8], "..."] if len(inside) > 8 else inside)
            hint = f"; runs in it: {names}" if names else ""
            raise RunError(f"{path}: not a run directory (no stamp.json){hint}")
        run = cls(path)
        if run.stamp.get("format") != FORMAT:
            raise RunError(f"{path}: run of format {run.stamp.get('format')}, this version reads {FORMAT}")
        return run

    def lines(self) -> list[str]:
        """The score and where the run is."""
        return [score_line(self.metrics), f"run: {self.path}"]

    def data(self) -> dict[str, Any]:
        """Path, complete recipe, stamp and metrics."""
        return {"path": self.path, "recipe": self.recipe.flat(), "stamp": self.stamp, "metrics": self.metrics}

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def recipe(self) -> Recipe:
        """The complete recipe the run was made from; RunError where its file is empty."""
        path = self.path / "recipe.yaml"
        if path.exists() and not path.stat().st_size:
            raise RunError(f"{path}: is empty; expected the complete recipe of the run")
        return load_recipe(path)

    @property
    def stamp(self) -> dict[str, Any]:
        """Commit, versions, device, command, digests, seed."""
        return self.read("stamp.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """What the finished run measured; RunError while it is incomplete."""
        return self.read("metrics.json")

    @property
    def log(self) -> list[dict[str, Any]]:
        """One dict per epoch and fold; a half-written last line is left out. RunError when another is broken."""
        path = self.path / "log.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        try:
            return [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError as error:
            raise RunError(f"{path}: cannot be read ({error})") from None

    @property
    def state(self) -> str:
        """complete, failed, running (a process holds the lock) or stopped."""
        if (self.path / "metrics.json").exists():
            return "complete"
        if is_locked(self.path / ".lock"):
            return "running"
        return "failed" if (self.path / "failed.txt").exists() else "stopped"

    def need_complete(self) -> None:
        """Raise RunError unless the run is complete, saying what to do."""
        if self.state != "complete":
            raise RunError(
                f"{self.path}: run is {self.state}, not complete; `threefold train ... --resume` finishes it"
            )

    def predictions(self, which: str = "oof") -> Predictions:
        """`oof` (out of fold) or `test` (what `predict --answers` kept); RunError where the run has none."""
        self.need_complete()
        if which == "oof" and not self.metrics.get("photos"):
            raise RunError(f"{self.path}: has no out-of-fold predictions (data.folds: {self.recipe.data.folds})")
        if which == "test" and not (self.path / "eval.json").exists():
            raise RunError(
                f"{self.path}: has no scored eval photos; `threefold predict EVAL --model RUN --answers` does"
            )
        return Predictions.load(self.path / f"{which}.npz")

    def baseline(self) -> tuple[Recipe, Run | None]:
        """The recipe its own names as baseline, and the run where it names one; RecipeError when that is not here.

        The path is seen from here, from the run and from the folder of runs; a recipe that is in none of them is the
        one that was there when the run was made (stamp.json).
        """
        baseline = self.recipe.baseline
        if not baseline:
            raise RecipeError(f"{self.path}: its recipe names no baseline")
        for path in (Path(baseline), self.path / baseline, self.path.parent / baseline):
            if path.is_dir():
                other = Run.open(path)
                return other.recipe, other
            if path.is_file():
                return load_recipe(path), None
        if recorded := self.stamp.get("baseline"):
            return make_recipe(recorded, where=f"{self.path / 'stamp.json'}: baseline"), None
        raise RecipeError(f"baseline {baseline!r} is not here")

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Hold the run while it is trained; a traceback goes to failed.txt. RunError if another process has it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock(self.path / ".lock", wait=1))
            except TimeoutError:
                raise RunError(f"{self.path}: another process is training this run") from None
            (self.path / "failed.txt").unlink(missing_ok=True)
            try:
                yield
            except Exception:
                with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                    write_text(self.path / "failed.txt", traceback.format_exc())
                raise

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object of the run by its file name; raises RunError when it is missing or broken."""
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{path}: is missing; the run is incomplete") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise RunError(f"{path}: expected an object, found {type(value).__name__}")
        return value


def open_runs(paths: Sequence[Path], least: int = 2) -> list[Run]:
    """Complete runs, in order; RunError for fewer than `least`, for one that is incomplete and one given twice."""
    if len(paths) < least:
        raise RunError(f"{', '.join(map(str, paths))}: expected {least} runs or more, not {len(paths)}")
    opened: dict[Path, Run] = {}
    for path in paths:
        run = Run.open(path)
        run.need_complete()
        if opened.setdefault(path.resolve(), run) is not run:
            raise RunError(f"{path}: is given twice; expected different runs")
    return list(opened.values())


def run_folders(root: Path) -> list[Path]:
    """Every folder below `root` (itself included) with the stamp of a run, readable or not; RunError for no folder."""
    if not root.is_dir():
        raise RunError(f"{root}: no such folder of runs")
    return [stamp.parent for stamp in sorted(root.rglob("stamp.json"))]


def score_line(metrics: dict[str, Any]) -> str:
    """`macro F1 0.712 (95 % interval 0.650 to 0.761), accuracy 0.802; 840 photos of 120 people`."""
    words = []
    for word, score in (("macro F1", metrics["macro_f1"]), ("accuracy", metrics["accuracy"])):
        if score and score["value"] is not None:
            words.append(f"{word} {score['value']:.3f} (95 % interval {score['low']:.3f} to {score['high']:.3f})")
    for name in ("mask", "gender", "age_group"):
        score = metrics.get(name, {}).get("macro_f1")
        if score and score["value"] is not None:
            words.append(f"{name} macro F1 {score['value']:.3f}")
    if not words:
        return "no validation: trained on all people"
    return f"{', '.join(words)}; {metrics['photos']:,} photos of {metrics['persons']:,} people"
