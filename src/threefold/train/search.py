"""`threefold search RECIPE SPACE.yaml`: try recipe values with Optuna; every trial is an ordinary run, OUT/trial0003.

SPACE.yaml names recipe keys and what may stand there:

    train.mix: [none, "cutmix(p=0.5)", "mixup(alpha=0.2)"]                  one of a list
    train.epochs: {low: 5, high: 20, step: 5}                               a number; whole where low and high are
    optim: {choose: "adamw(lr={lr})", lr: {low: 1e-4, high: 1e-2, log: true}}     a text with numbers (or lists) in it

Values come from Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), drawn from a seed of (seed, trial),
so that a search which was stopped goes on as it would have gone. After each fold a trial is told the macro F1 so far
and is pruned when that is below the median of the finished trials at the same fold: the same people, so a fair
comparison.

A killed trial is resumed: a process holds a lock on the trial it trains, and a RUNNING trial that nobody holds is taken
up. With a database server several machines work on one study; each then resumes only its own.

The best of many scores is too high (evidence/selection.py), and the report says by about how much.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import itertools
import math
import re
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState
from pydantic import BaseModel, ConfigDict, ValidationError

from threefold import progress
from threefold.errors import RecipeError, RunError, TrainingError
from threefold.evidence.metrics import score
from threefold.files import digest, lock
from threefold.predictions import Predictions
from threefold.recipe import Recipe, load_recipe, make_recipe
from threefold.runs import Run
from threefold.train.gather import members
from threefold.train.tracking import make_tracker
from threefold.train.train import train
from threefold.train.trials import Search, summarise

FIXED = ("data.source", "data.folds", "data.seed", "data.patches", "seed", "hypothesis", "baseline")
"""Keys that cannot be searched: scores on other people or labels cannot be compared, and a lucky seed is no finding."""


class _Number(BaseModel):
    model_config = ConfigDict(extra="forbid")
    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None


@dataclass(frozen=True)
class Space:
    """What a search may choose from: Optuna parameters by name (`KEY` or `KEY.placeholder`), and texts with holes.

    fixed: recipe key -> its only text (None where the parameter of that name gives it).
    """

    fixed: dict[str, str | None]
    params: dict[str, BaseDistribution]

    def values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Recipe values of chosen parameters; numbers with four digits, as a person would write them."""
        found = {}
        for key, text in self.fixed.items():
            value = chosen[key] if text is None else text
            if isinstance(value, str):
                for hole in _holes(value):
                    value = value.replace(f"{{{hole}}}", str(_short(chosen[f"{key}.{hole}"])))
            found[key] = _short(value)
        return found

    def corners(self) -> Iterator[dict[str, Any]]:
        """Parameters such that each key in turn takes every choice and both ends of its numbers, others their first."""
        ends = {
            name: list(d.choices) if isinstance(d, CategoricalDistribution) else [cast(Any, d).low, cast(Any, d).high]
            for name, d in self.params.items()
        }
        first = {name: values[0] for name, values in ends.items()}
        for key in self.fixed:
            own = [name for name in ends if name == key or (name.startswith(f"{key}.") and name not in self.fixed)]
            for values in itertools.product(*(ends[name] for name in own)):
                yield first | dict(zip(own, values, strict=True))


def search(
    recipe: Path | str | Recipe, space: Path | str, *, data: str = "", out: Path | str, trials: int,
    storage: str = "", seed: int = 0, overrides: Iterable[str] = (), lang: str = "en",
) -> Search:  # fmt: skip
    """Go on with the study in `out` (begin it) until it has `trials` trials; print them, write what was found.

    `out` then holds search.json, search.html and best.yaml beside the runs. storage: URL of an Optuna database for
    several machines; empty is OUT/study.db. lang: of the page. A trial whose values do not fit together or whose loss
    is not finite counts as failed. Raises RecipeError before any photo is read, RunError where `out` is another search
    or no search.
    """
    out, texts = Path(out), [*overrides]
    base = make_recipe(recipe.flat(), texts) if isinstance(recipe, Recipe) else load_recipe(Path(recipe), texts)
    asked = make_recipe(base.flat() | ({"data.source": data} if data else {}))
    if not asked.data.source or asked.data.folds == "all":
        raise RecipeError("search: needs photos (--data PATH) and folds that hold somebody back to score by")
    layout = read_space(Path(space), asked)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / ".search").exists())):
        raise RunError(f"{out}: is already there and is no search; nothing is overwritten, choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    told = {"recipe": asked.flat(), "space": yaml.safe_load(Path(space).read_text(encoding="utf-8"))}
    with lock(out / ".search"):
        study = _study(out, storage, told, seed)
    while _work(study, out, layout, asked, trials, storage, seed):
        pass
    return summarise(study, out, base, layout.values, seed, lang)


def read_space(path: Path, recipe: Recipe) -> Space:
    """Read and check a space: every choice makes a recipe whose components can be made; else RecipeError, one line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as a search space ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"{path}: expected lines like `train.mix: [none, mixup]`, found {content!r}")
    made = Space({}, {})
    for key, value in content.items():
        if key in FIXED:
            raise RecipeError(f"{path}: {key} cannot be searched; scores would not be comparable, or be luck")
        _add(made, f"{path}: {key}", key, value)
    for chosen in made.corners():
        candidate = make_recipe(recipe.flat() | made.values(chosen), where=str(path))
        try:
            members(candidate), make_tracker(candidate.track)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None
    return made


def _add(space: Space, where: str, key: str, value: Any) -> None:
    """Enter one key of SPACE.yaml: a list, {low, high, ...} or {choose: text or texts, hole: list or numbers, ...}."""
    texts = value.get("choose") if isinstance(value, dict) else None
    if texts is None:
        texts, holes = value, {}
    else:
        holes = {name: part for name, part in value.items() if name != "choose"}
    if isinstance(texts, str):
        space.fixed[key], texts = texts, [texts]
    else:
        space.fixed[key] = None
        space.params[key] = _distribution(where, texts)
    known = {hole for text in texts if isinstance(text, str) for hole in _holes(text)}
    if known != set(holes):
        odd = sorted(known ^ set(holes))[0]
        raise RecipeError(f"{where}: {{{odd}}} must be both in the text to choose and among the values, like lr here: "
                          '{choose: "adamw(lr={lr})", lr: {low: 1e-4, high: 1e-2}}')  # fmt: skip
    space.params.update({f"{key}.{name}": _distribution(f"{where}.{name}", part) for name, part in holes.items()})


def _distribution(where: str, value: Any) -> BaseDistribution:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna only warns of choices it cannot store and of steps that do not fit
            if isinstance(value, list) and value:
                return CategoricalDistribution(value)
            number = _Number.model_validate(value)
            ends = (number.low, number.high, number.step or 1)
            if all(isinstance(end, int) for end in ends):
                return IntDistribution(int(number.low), int(number.high), number.log, int(ends[2]))
            return FloatDistribution(number.low, number.high, number.log, number.step)
    except (ValidationError, ValueError, UserWarning) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecipeError(f"{where}: {value!r} is neither a list of texts and numbers nor {{low: 1e-4, high: 1e-2, "
                          f"log: true}} ({' '.join(reason.split())})") from None  # fmt: skip


def _holes(text: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", text)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _study(out: Path, storage: str, told: dict[str, Any], seed: int) -> optuna.Study:
    """The study of `out`, begun or found; RunError where it was begun with another recipe or space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=storage or f"sqlite:///{out.resolve() / 'study.db'}", study_name=out.resolve().name,
            direction="maximize", load_if_exists=True, pruner=optuna.pruners.MedianPruner(),
        )  # fmt: skip
    except Exception as error:  # a missing driver, a server that is away, a URL that is none: each has its own class
        raise RecipeError(f"--storage: cannot be used ({' '.join(str(error).split())[:200]})") from None
    begun = study.user_attrs.get("told", told)
    for part in ("recipe", "space"):
        for key in {**begun[part], **told[part]}:
            if (was := begun[part].get(key)) != (now := told[part].get(key)):
                raise RunError(f"{out}: is a search whose {part} has {key}: {was}, not {now}; choose another --out")
    study.set_user_attr("told", told)
    return study


@contextlib.contextmanager
def _claimed(study: optuna.Study, out: Path, trials: int, storage: str) -> Iterator[Trial | None]:
    """A trial to work on, held by a lock: one that a killed process left behind, else a new one; None when all are."""
    mine = f"{socket.gethostname()}:{out.resolve()}" if storage else ""
    with contextlib.ExitStack() as held:
        trial = None
        with lock(out / ".search"):
            for old in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if old.user_attrs.get("home", "") == mine and held.enter_context(_held(out, old.number)):
                    trial = Trial(study, old._trial_id)
                    break
            if trial is None and len(study.get_trials(deepcopy=False)) < trials:
                trial = study.ask()
                trial.set_user_attr("home", mine)
                held.enter_context(_held(out, trial.number))
        yield trial


@contextlib.contextmanager
def _held(out: Path, number: int) -> Iterator[bool]:
    """Whether the lock of a trial could be had; it is held until the end, or until the process is killed."""
    with (out / f".trial{number:04d}").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _work(study: optuna.Study, out: Path, space: Space, recipe: Recipe, trials: int, storage: str, seed: int) -> bool:
    """One trial from claim to result; False when there is none left to claim."""
    with _claimed(study, out, trials, storage) as trial:
        if trial is None:
            return False
        # independent draws from a seed of the trial's own: one stream would start again after every stop
        study.sampler = optuna.samplers.TPESampler(
            seed=int(digest("search", str(seed), str(trial.number), size=4), 16), multivariate=False
        )
        values = space.values({name: _suggest(trial, name, each) for name, each in space.params.items()})
        progress.say(f"trial {trial.number + 1} of {trials}: {', '.join(f'{k}={v}' for k, v in values.items())}")
        home = out / f"trial{trial.number:04d}"
        result: dict[str, Any]
        try:
            chosen = make_recipe(recipe.flat() | values, where=f"trial {trial.number}")
            run = train(chosen, out=home, resume=True, on_fold=lambda done, so_far: _judge(trial, home, done, so_far))
            trial.set_user_attr("macro_f1", run.metrics["macro_f1"])
            result = {"values": score(Predictions.load(run.path / "oof.npz"))}
        except optuna.TrialPruned:
            result = {"state": TrialState.PRUNED}
        except (RecipeError, TrainingError) as error:  # values that do not fit together, or a rate that is too high
            progress.say(f"trial {trial.number + 1} failed: {error}")
            trial.set_user_attr("error", str(error))
            result = {"state": TrialState.FAIL}
        with contextlib.suppress(RunError):
            trial.set_user_attr("seconds", round(sum(row["seconds"] for row in Run.open(home).log), 1))
        study.tell(trial.number, **result)
        return True


def _suggest(trial: Trial, name: str, each: BaseDistribution) -> Any:
    match each:
        case IntDistribution():
            return trial.suggest_int(name, each.low, each.high, step=each.step, log=each.log)
        case FloatDistribution():
            return trial.suggest_float(name, each.low, each.high, step=each.step, log=each.log)
    return trial.suggest_categorical(name, cast(CategoricalDistribution, each).choices)


def _judge(trial: Trial, home: Path, done: int, so_far: float) -> None:
    """After each fold but the last: stop what is below the median of the finished trials."""
    with (home / "split.csv").open(encoding="utf-8", newline="") as file:
        folds = len({row["fold"] for row in csv.DictReader(file)} - {"-1"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resumed trial is told its finished folds again
        trial.report(so_far, done)
    if done < folds and math.isfinite(so_far) and trial.should_prune():
        raise optuna.TrialPruned(f"macro F1 {so_far:.4f} after {done} of {folds} folds is below the median")
