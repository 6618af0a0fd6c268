"""Every published system trains: its real architecture, its own parts, a few steps on drawn people, and predicts.

The seven train at their real photo sizes as well; the files of their members and of what they tried at a smaller one.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from threefold.draw.sample import sample
from threefold.predictions import Predictions
from threefold.read.predict import predict
from threefold.recipe import load_recipe
from threefold.train.train import train

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "recipes/contest").glob("*.yaml"))
SEVEN = {"000", "001", "002", "003", "004", "4cv09", "5cv14"}
STEMS = {"mask1": "worn", "incorrect_mask": "incorrect", "normal": "none"}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv source of seven drawn people, a photo each."""
    root = tmp_path_factory.mktemp("drawn")
    sample(root, people=12, seed=0)
    rows = []
    for place, folder in enumerate(sorted((root / "train/images").iterdir())[:7]):
        _, gender, _, age = folder.name.split("_")
        for stem in list(STEMS)[place % 3 :][:1]:
            (photo,) = folder.glob(f"{stem}.*")
            rows.append((photo.relative_to(root), folder.name, gender, age, STEMS[stem]))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "person", "gender", "age", "mask"), *rows])
    return root


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_system_trains_and_predicts(path: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    recipe = load_recipe(path)
    few = ["train.epochs=1", "train.batch=3", "data.folds=holdout(0.3)", "model.pretrained=none", "train.device=cpu"]
    small = [] if path.stem in SEVEN else ["prepare.size=96x96"]
    for key in recipe.parts:
        name = key.partition(".")[2]
        few += [f"parts.{key}={word.partition('=')[2]}" for word in [*few, *small] if word.startswith(f"{name}=")]
    run = train(path, data=f"csv:{drawn}", out=tmp_path / "run", overrides=[*few, *small])
    oof = Predictions.load(run.path / "oof.npz")
    assert 1 <= len(oof) < 7 and np.isfinite(oof.probabilities).all()
    losses = [row["train_loss"] for row in run.log if row["train_loss"] is not None]
    assert all(np.isfinite(losses)) and (losses or path.stem == "001-18")
    photo = next((drawn / "train/images").rglob("normal.*"))
    (reading,) = predict([photo], run.path, out=tmp_path / "out.csv").readings.values()
    assert reading.joint.sum() == pytest.approx(1, abs=1e-4)
