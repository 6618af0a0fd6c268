"""threefold: train, prove and run classifiers that read mask wearing, gender and age group from a photo of a face.

The verbs of the command line as functions. Names are looked up when they are first used, so that `import threefold`
stays light and never imports torch; only `train` (and `load` of a run) needs `threefold[train]`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threefold.data.face import Face
    from threefold.data.folds import deal_folds
    from threefold.data.prepare import Prepare
    from threefold.data.sources import read_faces
    from threefold.errors import ThreefoldError
    from threefold.evidence.metrics import accuracy, macro_f1, measure
    from threefold.infer.reader import Reader, Reading, load
    from threefold.labels import AgeGroup, Gender, Mask
    from threefold.predictions import Predictions
    from threefold.recipe import Recipe, load_recipe
    from threefold.runs import Run, list_runs
    from threefold.stages.check import check_data
    from threefold.stages.predict import predict
    from threefold.stages.report import report
    from threefold.stages.sample import sample
    from threefold.stages.synth import synth
    from threefold.stages.train import train

_HOMES = {
    "AgeGroup": "labels", "Face": "data.face", "Gender": "labels", "Mask": "labels", "Predictions": "predictions",
    "Prepare": "data.prepare", "Reader": "infer.reader", "Reading": "infer.reader", "Recipe": "recipe", "Run": "runs",
    "ThreefoldError": "errors", "accuracy": "evidence.metrics", "check_data": "stages.check",
    "deal_folds": "data.folds", "list_runs": "runs", "load": "infer.reader", "load_recipe": "recipe",
    "macro_f1": "evidence.metrics", "measure": "evidence.metrics", "predict": "stages.predict",
    "read_faces": "data.sources", "report": "stages.report", "sample": "stages.sample", "synth": "stages.synth",
    "train": "stages.train",
}  # fmt: skip

__all__ = [
    "AgeGroup", "Face", "Gender", "Mask", "Predictions", "Prepare", "Reader", "Reading", "Recipe", "Run",
    "ThreefoldError", "accuracy", "check_data", "deal_folds", "list_runs", "load", "load_recipe", "macro_f1",
    "measure", "predict", "read_faces", "report", "sample", "synth", "train",
]  # fmt: skip
__version__ = version("threefold")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'threefold' has no attribute {name!r}")
    value = getattr(import_module(f"threefold.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
