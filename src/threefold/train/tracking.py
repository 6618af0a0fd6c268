"""`track: wandb | mlflow`: a run's numbers in the tracker a team uses already, beside log.jsonl and TensorBoard.

What is sent is the recipe, the numbers of every epoch and the score: never a photo, a photo's name, a person or a
prediction; of the machine its platform and Python version. Both work without a network: wandb writes into the run
directory until `wandb sync`, MLflow into one SQLite file beside the runs. The packages are imported only when a recipe
asks for them.

After a resume `fit` tells every finished epoch again. A tracker must not show it twice: it finds the run it had begun
by what the run directory was made from (`_identity`) and leaves out the steps it holds already.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

from threefold import progress, spec
from threefold.errors import RecipeError, how_to_install
from threefold.files import digest

Row = dict[str, Any]


class Tracker(Protocol):
    """Contract of every row of TRACKERS."""

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """Begin, or go on with, the run of the run directory `home`; recipe: every key, flat."""

    def log(self, row: Row) -> None:
        """The numbers of one epoch of one fold, as `fit` tells them; told again after a resume."""

    def summary(self, metrics: Row) -> None:
        """What metrics.json will hold."""

    def close(self, failed: bool) -> None:
        """Nothing more comes; failed: the training ended with an error or was stopped."""


class Silent:
    """No tracker."""

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """Nothing."""

    def log(self, row: Row) -> None:
        """Nothing."""

    def summary(self, metrics: Row) -> None:
        """Nothing."""

    def close(self, failed: bool) -> None:
        """Nothing."""


class Wandb:
    """Weights & Biases. mode `auto`: what WANDB_MODE says, else online where there is an API key, else offline.

    Offline, the files in `RUN/wandb` are written anew after a resume, like log.jsonl: `wandb sync` then sends each
    epoch once.
    """

    def __init__(
        self, *, project: str = "threefold", entity: str = "", mode: Literal["auto", "online", "offline"] = "auto"
    ) -> None:
        _need("wandb")
        self.project, self.entity, self.mode, self.told = project, entity, mode, 0

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """See `Tracker`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports would go out even when offline
        import wandb

        by_key = "online" if _has_key() else "offline"
        mode = self.mode if self.mode != "auto" else os.environ.get("WANDB_MODE") or by_key
        if mode == "offline":
            shutil.rmtree(home / "wandb", ignore_errors=True)
        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            host="",
        )  # fmt: skip
        self.run = wandb.init(
            project=self.project, entity=self.entity or None, dir=str(home), id=_identity(home), name=name,
            config=recipe, mode=cast(Any, mode), resume=None if mode == "offline" else "allow", settings=settings,
        )  # fmt: skip
        if mode == "offline":
            progress.say(f"track: wandb is offline; `wandb sync {home}/wandb/offline-run-*` sends it later")

    def log(self, row: Row) -> None:
        """See `Tracker`. The step counts epochs over all folds; charts of a fold go by its own epoch."""
        fold, step = _fold(row), self.told
        self.told += 1
        if step < self.run.starting_step:
            return
        self.run.define_metric(f"{fold}/*", step_metric=f"{fold}/epoch")
        self.run.log({f"{fold}/{key}": value for key, value in {**_numbers(row), "epoch": row["epoch"]}.items()}, step)

    def summary(self, metrics: Row) -> None:
        """See `Tracker`."""
        self.run.summary.update(_scores(metrics))

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self.run.finish(exit_code=int(failed))


class Mlflow:
    """MLflow. uri: a server or a database; empty is MLFLOW_TRACKING_URI, or else mlflow.db beside the run directory.

    `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` (of the full package) then shows all runs of a folder.
    """

    def __init__(self, *, uri: str = "", experiment: str = "threefold") -> None:
        _need("mlflow", "sqlalchemy")
        self.uri, self.experiment = uri or os.environ.get("MLFLOW_TRACKING_URI", ""), experiment
        self.told: dict[str, set[int]] = {}
        if self.uri and (":" not in self.uri or self.uri.startswith("file:")):
            raise RecipeError(
                f"track: mlflow(uri={self.uri!r}): MLflow 3 keeps no runs in folders; expected sqlite:///FILE or a URL"
            )

    def start(self, home: Path, recipe: Row, name: str) -> None:
        """See `Tracker`."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.client = MlflowClient(self.uri or f"sqlite:///{home.resolve().parent / 'mlflow.db'}")
        known = self.client.get_experiment_by_name(self.experiment)
        where = known.experiment_id if known else self.client.create_experiment(self.experiment)
        identity = _identity(home)
        begun = self.client.search_runs([where], f"tags.threefold = '{identity}'")
        run = begun[0] if begun else self.client.create_run(where, tags={"threefold": identity}, run_name=name)
        self.id = run.info.run_id
        self.client.update_run(self.id, "RUNNING")
        self.client.log_batch(self.id, params=[Param(key, str(value)[:500]) for key, value in recipe.items()])

    def log(self, row: Row) -> None:
        """See `Tracker`. The step is the fold's epoch."""
        fold, epoch = _fold(row), int(row["epoch"])
        if fold not in self.told:
            self.told[fold] = {m.step for m in self.client.get_metric_history(self.id, f"{fold}/train_loss")}
        if epoch not in self.told[fold]:
            self._write({f"{fold}/{key}": value for key, value in _numbers(row).items()}, epoch)

    def summary(self, metrics: Row) -> None:
        """See `Tracker`."""
        self._write(_scores(metrics), 0)

    def close(self, failed: bool) -> None:
        """See `Tracker`."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")

    def _write(self, numbers: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(key, value, now, step) for key, value in numbers.items()])


def make_tracker(text: str) -> Tracker:
    """The tracker a recipe names, not yet started; RecipeError on a wrong option or a package that is not here."""
    return cast(Tracker, spec.build_one(text, TRACKERS, "track"))


def start(tracker: Tracker, home: Path, recipe: Row) -> None:
    """Start it for a run directory; whatever goes wrong (no login, no server) is one RecipeError before training."""
    try:
        tracker.start(home, recipe, home.resolve().name)
    except Exception as error:
        raise RecipeError(f"track: {recipe['track']} cannot be started ({_line(error)})") from error


def tell(tracker: Tracker, what: str, *args: Any) -> Tracker:
    """Call `log`, `summary` or `close`. A tracker that fails is left: its server is not worth a night of training."""
    try:
        getattr(tracker, what)(*args)
    except Exception as error:
        progress.say(f"track: {type(tracker).__name__.lower()} failed and is left out from here on ({_line(error)})")
        return Silent()
    return tracker


def _need(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise RecipeError(f"track: the package {package} is not installed; {how_to_install('track')}")


def _has_key() -> bool:
    """An API key in the environment or in ~/.netrc, where `wandb login` puts it."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host) is not None
    return False


def _identity(home: Path) -> str:
    """The same for a run and its resume, another for every other run: name, stamp and recipe of the directory."""
    return digest(home.resolve().name, *((home / name).read_bytes() for name in ("stamp.json", "recipe.yaml")))


def _fold(row: Row) -> str:
    """`fold0`, `final`, or `fold0.mask` where each attribute has a network of its own."""
    return (f"fold{row['fold']}" if row["fold"] >= 0 else "final") + (f".{row['part']}" if "part" in row else "")


def _numbers(row: Row) -> dict[str, float]:
    kept = {key: value for key, value in row.items() if key not in ("fold", "epoch", "step")}
    return {key: value for key, value in kept.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _scores(metrics: Row) -> dict[str, float]:
    """macro_f1, macro_f1_low, ... of {value, low, high}, and the attributes' as mask_macro_f1, ..."""
    found: dict[str, float] = {}
    for key, part in metrics.items():
        if isinstance(part, dict) and "value" in part:
            found |= {key + ("" if end == "value" else f"_{end}"): x for end, x in part.items() if x is not None}
        elif isinstance(part, dict) and "macro_f1" in part:
            found |= _scores({f"{key}_macro_f1": part["macro_f1"]})
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


TRACKERS: spec.Table = {"none": Silent, "wandb": Wandb, "mlflow": Mlflow}
"""name -> factory(**options) -> Tracker."""
