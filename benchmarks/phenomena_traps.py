"""The traps of the official baseline (docs: contest.md 2.4), each as one row of a table: what it does, on this data."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from phenomena_reading import Altered, Images, judged
from phenomena_runs import RECIPES

import threefold
from threefold.evidence.metrics import score
from threefold.learn.losses import LOSSES
from threefold.learn.net_backend import NetBackend
from threefold.photos.prepare import dataset_statistics
from threefold.predictions import Predictions
from threefold.read.backends import Backend
from threefold.recipe import load_recipe
from threefold.runs import Run
from threefold.train.single import prepared, read_all

Row = tuple[str, str]


def trap_rows(data: Path, path: Path, seed: int) -> list[Row]:
    """(trap, what it does here): of the traps that `split` and `parity` measure, where to look."""
    run = Run.open(path)
    _Lists.paths.clear()
    first, second = _Lists(["a", "b"]), _Lists(["c"])
    return [
        ("1 `random.choices` for the validation people", _choices(seed)),
        ("2 `drop_last` with validation batches of 1,000", _drop_last(run.predictions())),
        ("3 one transform for both sides, 5 noise of std 1 on normalised pixels", _noise(run.name, path, data)),
        ("4 the test is only resized", "see (b)"),
        ("6 label smoothing with its default", _losses()),
        ("7 `calc_statistics`", _statistics(data)),
        ("8 `--resize` of type list", f"`128` becomes `{list('128')}`"),
        ("9 a list on the class", f"two data sets of 2 and 1 photos hold {len(first.paths)} and {len(second.paths)}"),
        ("10 the best epoch by accuracy", "see (a)"),
        ("11 height and width swapped", "see (b)"),
    ]


def _choices(seed: int) -> str:
    """1: the baseline draws its validation people with replacement, from a list in the order of the disk."""
    draw = random.Random(seed)
    share = np.mean([len(set(draw.choices(range(2700), k=540))) / 2700 for _ in range(200)])
    one = random.Random(42).choices(sorted(map(str, range(2700))), k=540)
    other = random.Random(42).choices(sorted(map(str, range(2700)), reverse=True), k=540)
    same = len(set(one) & set(other)) / len(set(one))
    ways = "with the files listed the other way round"
    return f"{100 * share:.1f} % of the people validate, not 20; {ways}, {100 * same:.1f} % of them are the same people"


def _drop_last(said: Predictions) -> str:
    """2: validation batches of 1,000 with drop_last, divided by all photos: of up to 3,780, a fifth of 18,900."""
    rows = np.random.default_rng(0).permutation(len(said))[:3780]
    right = (said.predicted == said.label)[rows]
    kept = len(rows) // 1000 * 1000
    told = f"an accuracy of {right.mean():.3f} is shown as {right[:kept].sum() / len(rows):.3f}"
    return f"{told}; a perfect model as {kept / len(rows):.3f} ({len(rows):,} photos)"


def _noise(name: str, path: Path, data: Path) -> str:
    """3 and 5: the training augmentation, noise of std 1 after Normalize(std 0.24), falls on validation as well."""
    backend = threefold.load(path).backend
    assert isinstance(backend, NetBackend)
    drawn = np.random.default_rng(0)

    def read(std: float) -> float:
        def change(images: Images) -> Images:
            return np.asarray(np.clip(images + drawn.normal(0, std * 255, images.shape), 0, 255), dtype=np.uint8)

        return score(judged(Altered(backend, backend.prepares[0], change), data))

    little, much = read(0.05), read(0.24)
    return (
        f"{name} reads validation photos with that noise (0 dB) at {much:.3f} instead of {_clean(backend, data):.3f}; "
        f"with noise of 0.05 ({20 * np.log10(0.24 / 0.05):.0f} dB) at {little:.3f}"
    )


def _clean(backend: Backend, data: Path) -> float:
    return score(judged(backend, data))


def _losses() -> str:
    """6: label smoothing whose default smooths nothing, an F1 loss made for three classes."""
    raw = torch.randn(64, 18, generator=torch.Generator().manual_seed(0))
    code = torch.arange(64) % 18
    plain = float(torch.nn.functional.cross_entropy(raw, code))
    official = _official_smoothing(raw, code, classes=3, smoothing=0.0)
    ours = float(LOSSES["ce"](torch.ones(18), smoothing=0.1)(raw, torch.eye(18)[code], torch.ones(64)))
    told = f"{official:.4f}, cross-entropy {plain:.4f}, smoothed by 0.1 {ours:.4f}"
    try:
        torch.nn.functional.one_hot(code, 3)
    except RuntimeError:
        return f"{told}; `F1Loss(classes=3)` on 18 classes fails"
    return f"{told}; `F1Loss(classes=3)` on 18 classes passes"


def _official_smoothing(raw: torch.Tensor, code: torch.Tensor, classes: int, smoothing: float) -> float:
    """The formula of the baseline's LabelSmoothingLoss."""
    log = raw.log_softmax(1)
    wanted = torch.full_like(log, smoothing / (classes - 1)).scatter_(1, code[:, None], 1 - smoothing)
    return float((-wanted * log).sum(1).mean())


def _statistics(data: Path) -> str:
    """7: the spread about a mean that was divided by 255 already."""
    recipe = load_recipe(RECIPES / "base.yaml", [f"data.source={data}"])
    faces, _ = read_all(recipe)
    images = np.asarray(prepared(recipe, faces[:3000]).images)
    mean, std = dataset_statistics(images)
    wrong = [float(np.sqrt(((images[..., c].astype(np.float64) - mean[c]) ** 2).mean()) / 255) for c in range(3)]
    told, true = (", ".join(f"{value:.2f}" for value in values) for values in (wrong, std))
    return f"reports a spread of {told}; it is {true}"


class _Lists:
    paths: list[str] = []  # noqa: RUF012 - this is the trap

    def __init__(self, found: list[str]) -> None:
        self.paths.extend(found)
