"""threefold: train, prove and run classifiers that read mask wearing, gender and age group from a photo of a face.

The verbs of the command line as functions. Names are looked up when they are first used, so that `import threefold`
stays light and never imports torch; reading with the bundled or an exported model needs
nothing more; what trains, reads with a run or writes a page needs `threefold[train]`.
`compare` is of two `Predictions`, `compare_runs` of run directories.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threefold.data.face import Face
    from threefold.data.folds import deal_folds
    from threefold.data.prepare import Prepare
    from threefold.data.sources import read_faces
    from threefold.errors import ThreefoldError
    from threefold.evidence.compare import compare
    from threefold.evidence.metrics import accuracy, macro_f1, measure
    from threefold.infer.reader import Reader, Reading, load
    from threefold.labels import AgeGroup, Gender, Mask
    from threefold.predictions import Predictions
    from threefold.recipe import Recipe, load_recipe
    from threefold.runs import Run, list_runs
    from threefold.stages.ablate import ablate
    from threefold.stages.check import check_data
    from threefold.stages.compare import compare_runs
    from threefold.stages.decide import decide
    from threefold.stages.dress import dress
    from threefold.stages.eda import eda
    from threefold.stages.ensemble import ensemble
    from threefold.stages.export import export
    from threefold.stages.predict import predict
    from threefold.stages.pseudo import pseudo
    from threefold.stages.report import report
    from threefold.stages.sample import sample
    from threefold.stages.search import search
    from threefold.stages.seeds import train_seeds
    from threefold.stages.shake import shake_runs
    from threefold.stages.show import show
    from threefold.stages.suspects import suspects
    from threefold.stages.synth import synth
    from threefold.stages.train import train

_HOMES = {
    "AgeGroup": "labels", "Face": "data.face", "Gender": "labels", "Mask": "labels", "Predictions": "predictions",
    "Prepare": "data.prepare", "Reader": "infer.reader", "Reading": "infer.reader", "Recipe": "recipe",
    "Run": "runs", "ThreefoldError": "errors", "ablate": "stages.ablate", "accuracy": "evidence.metrics",
    "check_data": "stages.check", "compare": "evidence.compare", "compare_runs": "stages.compare",
    "deal_folds": "data.folds", "decide": "stages.decide", "dress": "stages.dress", "eda": "stages.eda",
    "ensemble": "stages.ensemble", "export": "stages.export", "list_runs": "runs", "load": "infer.reader",
    "load_recipe": "recipe", "macro_f1": "evidence.metrics", "measure": "evidence.metrics",
    "predict": "stages.predict", "pseudo": "stages.pseudo", "read_faces": "data.sources", "report": "stages.report",
    "sample": "stages.sample", "search": "stages.search", "shake_runs": "stages.shake", "show": "stages.show",
    "suspects": "stages.suspects", "synth": "stages.synth", "train": "stages.train", "train_seeds": "stages.seeds",
}  # fmt: skip

__all__ = [
    "AgeGroup", "Face", "Gender", "Mask", "Predictions", "Prepare", "Reader", "Reading", "Recipe", "Run",
    "ThreefoldError", "ablate", "accuracy", "check_data", "compare", "compare_runs", "deal_folds", "decide", "dress",
    "eda", "ensemble", "export", "list_runs", "load", "load_recipe", "macro_f1", "measure", "predict", "pseudo",
    "read_faces", "report", "sample", "search", "shake_runs", "show", "suspects", "synth", "train", "train_seeds",
]  # fmt: skip
__version__ = version("threefold")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime's wheels send usage data to Microsoft by default


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'threefold' has no attribute {name!r}")
    value = getattr(import_module(f"threefold.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
