"""`threefold search RECIPE SPACE.yaml`: try recipe values with Optuna; every trial is an ordinary run, OUT/trial0003.

SPACE.yaml names recipe keys and what may stand there:

    train.mix: [none, "cutmix(p=0.5)", "mixup(alpha=0.2)"]                  one of a list
    train.epochs: {low: 5, high: 20, step: 5}                               a number; whole where low and high are
    optim: {choose: "adamw(lr={lr})", lr: {low: 1e-4, high: 1e-2, log: true}}     a text with numbers (or lists) in it

The best of many scores is too high (`evidence.ensemble.lead`), and the result says by about how much.
"""

import contextlib
import csv
import itertools
import math
import re
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from threefold.recipe import Recipe, make_recipe
from threefold.runs import Run
from threefold.train.request import check_recipe, complete_recipe, need_files, need_scored, open_recipe
from threefold.train.trials import SearchResult, summarise

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
        values = {}
        for key, text in self.fixed.items():
            value = chosen[key] if text is None else text
            for hole in _holes(value):
                value = value.replace(f"{{{hole}}}", str(_short(chosen[f"{key}.{hole}"])))
            values[key] = _short(value)
        return values

    def corners(self) -> Iterator[dict[str, Any]]:
        """Parameters such that each key in turn takes every choice and both ends of its numbers, others their first."""
        ends = {
            name: list(d.choices) if isinstance(d, CategoricalDistribution) else [cast(Any, d).low, cast(Any, d).high]
            for name, d in self.params.items()
        }
        first = {name: values[0] for name, values in ends.items()}
        for key in self.fixed:
            names = [name for name in ends if name == key or (name.startswith(f"{key}.") and name not in self.fixed)]
            for values in itertools.product(*(ends[name] for name in names)):
                yield first | dict(zip(names, values, strict=True))

    def check(self, recipe: Recipe, where: str, test: Callable[[Recipe], object]) -> None:
        """Call `test` with the recipe at every corner; RecipeError beginning with `where` for what cannot be."""
        for chosen in self.corners():
            candidate = make_recipe(recipe.flat() | self.values(chosen), where=where)
            try:
                test(candidate)
            except RecipeError as error:
                raise RecipeError(f"{where}: {error}") from None


def search(
    recipe: Path | str | Recipe,
    space: Path | str,
    *,
    data: str = "",
    out: Path | str,
    trials: int,
    storage: str = "",
    seed: int = 0,
    overrides: Iterable[str] = (),
) -> SearchResult:
    """Go on with the study in `out` (begin it) until it has `trials` trials; write search.json and best.yaml.

    storage: URL of an Optuna database for several machines; empty is OUT/study.db. A trial whose values do not fit
    together or whose loss is not finite counts as failed. Raises RecipeError or DataError before any photo is read,
    RunError where `out` is another search or no search, and where no trial was finished.
    """
    home, base = Path(out), open_recipe(recipe, overrides)
    start = complete_recipe(base, data, ())
    need_scored(start, seeds=1)
    layout = read_space(Path(space), start)
    if home.exists() and (not home.is_dir() or (any(home.iterdir()) and not (home / ".search").exists())):
        raise RunError(f"{home}: is already there and is no search; nothing is overwritten, choose another --out")
    need_files(start)
    # late: importing torch takes seconds
    from threefold.train.single import members

    layout.check(start, str(space), members)
    home.mkdir(parents=True, exist_ok=True)
    content = {"recipe": start.flat(), "space": yaml.safe_load(Path(space).read_text(encoding="utf-8"))}
    with lock(home / ".search"):
        study = _open_study(home, storage, content)
    while _train_trial(study, home, layout, start, trials, storage, seed):
        pass
    return summarise(study, home, base, layout.values, seed)


def read_space(path: Path, recipe: Recipe) -> Space:
    """Read a space; RecipeError, one line, unless every choice makes a recipe whose names are all known."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as a search space ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"{path}: expected lines like `train.mix: [none, mixup]`, found {content!r}")
    space = Space({}, {})
    for key, value in content.items():
        if key in FIXED:
            raise RecipeError(f"{path}: {key} cannot be searched; scores would not be comparable, or be luck")
        _add(space, f"{path}: {key}", key, value)
    space.check(recipe, str(path), check_recipe)
    return space


def _add(space: Space, where: str, key: str, value: Any) -> None:
    """Enter one key of SPACE.yaml: a list, {low, high, ...} or {choose: text or texts, hole: list or numbers, ...}."""
    texts, holes = value, {}
    if isinstance(value, dict) and value.get("choose") is not None:
        texts, holes = value["choose"], {name: part for name, part in value.items() if name != "choose"}
    if isinstance(texts, str):
        space.fixed[key], texts = texts, [texts]
    else:
        space.fixed[key] = None
        space.params[key] = _distribution(where, texts)
    named = {hole for text in texts for hole in _holes(text)}
    if odd := sorted(named ^ set(holes)):
        example = '{choose: "adamw(lr={lr})", lr: {low: 1e-4, high: 1e-2}}'
        rule = f"{{{odd[0]}}} must be both in the text to choose and among the values"
        raise RecipeError(f"{where}: {rule}, like lr here: {example}")
    space.params.update({f"{key}.{name}": _distribution(f"{where}.{name}", part) for name, part in holes.items()})


def _distribution(where: str, value: Any) -> BaseDistribution:
    try:
        with warnings.catch_warnings():
            # Optuna only warns of choices it cannot store and of steps that do not fit
            warnings.simplefilter("error")
            if isinstance(value, list) and value:
                return CategoricalDistribution(value)
            number = _Number.model_validate(value)
            low, high, step = number.low, number.high, number.step
            if isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
                return IntDistribution(low, high, number.log, step or 1)
            return FloatDistribution(low, high, number.log, step)
    except (ValidationError, ValueError, UserWarning) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        expected = "neither a list of texts and numbers nor {low: 1e-4, high: 1e-2, log: true}"
        raise RecipeError(f"{where}: {value!r} is {expected} ({' '.join(reason.split())})") from None


def _holes(text: Any) -> list[str]:
    return re.findall(r"\{(\w+)\}", text) if isinstance(text, str) else []


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _open_study(out: Path, storage: str, content: dict[str, Any]) -> optuna.Study:
    """The study of `out`, begun or there already; RunError where it was begun with another recipe or space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=storage or f"sqlite:///{out.resolve() / 'study.db'}",
            study_name=out.resolve().name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(),
        )
    except Exception as error:  # a missing driver, a server that is away, a URL that is none: each has its own class
        raise RecipeError(f"--storage: cannot be used ({' '.join(str(error).split())[:200]})") from None
    # the attribute is called so in studies that were begun with earlier versions
    begun = study.user_attrs.get("told", content)
    for part in ("recipe", "space"):
        for key in {**begun[part], **content[part]}:
            if (was := begun[part].get(key)) != (now := content[part].get(key)):
                raise RunError(f"{out}: is a search whose {part} has {key}: {was}, not {now}; choose another --out")
    study.set_user_attr("told", content)
    return study


@contextlib.contextmanager
def _claim(study: optuna.Study, out: Path, trials: int, storage: str) -> Iterator[Trial | None]:
    """A trial to work on: one that a killed process left behind, else a new one; None when there are enough.

    A process holds a lock on the trial it trains, until the end or until it is killed: a RUNNING trial that nobody
    holds is taken up. With a database server several machines work on one study; each then resumes only its own.
    """
    machine = f"{socket.gethostname()}:{out.resolve()}" if storage else ""
    with contextlib.ExitStack() as locks:
        trial = None
        with lock(out / ".search"):
            for old in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if old.user_attrs.get("home", "") == machine:
                    with contextlib.suppress(TimeoutError):
                        locks.enter_context(lock(out / f".trial{old.number:04d}", wait=0))
                        trial = Trial(study, old._trial_id)
                        break
            if trial is None and len(study.get_trials(deepcopy=False)) < trials:
                trial = study.ask()
                trial.set_user_attr("home", machine)
                locks.enter_context(lock(out / f".trial{trial.number:04d}", wait=0))
        yield trial


def _train_trial(
    study: optuna.Study, out: Path, space: Space, recipe: Recipe, trials: int, storage: str, seed: int
) -> bool:
    """One trial from claim to result; False when there is none left to claim."""
    from threefold.train.single import train_run

    with _claim(study, out, trials, storage) as trial:
        if trial is None:
            return False
        # tree-structured Parzen estimator (Bergstra et al. 2011), of every parameter by itself, drawn from a seed of
        # (seed, trial): one stream would start again after every stop, so a stopped search would go on otherwise
        drawn = int(digest("search", str(seed), str(trial.number), size=4), 16)
        study.sampler = optuna.samplers.TPESampler(seed=drawn, multivariate=False)
        values = space.values({name: _suggest(trial, name, choice) for name, choice in space.params.items()})
        progress.say(f"trial {trial.number + 1} of {trials}: {', '.join(f'{k}={v}' for k, v in values.items())}")
        home = out / f"trial{trial.number:04d}"
        result: dict[str, Any]
        try:
            chosen = make_recipe(recipe.flat() | values, where=f"trial {trial.number}")
            run = train_run(chosen, home, True, lambda done, so_far: _judge(trial, home, done, so_far))
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


def _suggest(trial: Trial, name: str, choice: BaseDistribution) -> Any:
    match choice:
        case IntDistribution():
            return trial.suggest_int(name, choice.low, choice.high, step=choice.step, log=choice.log)
        case FloatDistribution():
            return trial.suggest_float(name, choice.low, choice.high, step=choice.step, log=choice.log)
    return trial.suggest_categorical(name, cast(CategoricalDistribution, choice).choices)


def _judge(trial: Trial, home: Path, done: int, so_far: float) -> None:
    """After each fold but the last: stop what is below the median of the finished trials at the same fold.

    The folds hold the same people in every trial, so the comparison is fair.
    """
    with (home / "split.csv").open(encoding="utf-8", newline="") as file:
        folds = len({row["fold"] for row in csv.DictReader(file)} - {"-1"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resumed trial reports its finished folds again
        trial.report(so_far, done)
    if done < folds and math.isfinite(so_far) and trial.should_prune():
        raise optuna.TrialPruned(f"macro F1 {so_far:.4f} after {done} of {folds} folds is below the median")
