"""`fit`: learns, keeps the best epoch, stops, resumes to the bit, and says so when it cannot go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from threefold.data.face import Face
from threefold.errors import RunError, TrainingError
from threefold.learn.loader import Photos, chunks, make_photos
from threefold.learn.loop import Fit, fit, predict
from threefold.learn.net import Net, make_net
from threefold.learn.plan import make_plan, make_prepare
from threefold.predictions import Predictions
from threefold.recipe import Recipe, make_recipe

BASE = {
    "model.backbone": "test_efficientnet", "model.pretrained": "none", "prepare.size": "32x24", "train.epochs": 3,
    "train.batch": 8, "train.device": "cpu", "optim": "adamw(lr=3e-3)", "train.augment": "flip|noise",
    "train.mix": "mixup",
    "model.head": "multi(dropout=0.2)", "schedule": "cosine(warmup=0.1)",
}  # fmt: skip


class Killed(BaseException):
    """Stands in for a kill: nothing catches it."""


def recipe(**changes: Any) -> Recipe:
    return make_recipe(BASE | {key.replace("__", "."): value for key, value in changes.items()})


def photos(count: int = 48) -> Photos:
    """Colour tells mask (red), gender (green) and age group (blue)."""
    rng = np.random.default_rng(0)
    faces, images = [], np.empty((count, 32, 24, 3), dtype=np.uint8)
    for i in range(count):
        mask, gender, group = i % 3, i // 3 % 2, i // 6 % 3
        images[i] = np.clip(rng.normal([mask * 100, gender * 200, group * 100], 20, (32, 24, 3)), 0, 255)
        faces.append(Face(Path(f"{i}.jpg"), f"p{i // 2}", f"{i}.jpg", mask, gender, (20, 45, 70)[group], group))
    return make_photos(images, faces)


def run(
    home: Path, chosen: Recipe, *, rows: list[Any] | None = None, kill_at: int | None = None, whole: bool = False
) -> Fit:
    data, plan = photos(), make_plan(chosen)
    train, valid = data.at(np.arange(0, 32)), data.at(np.arange(32, 48))
    torch.manual_seed(chosen.seed)
    net = make_net(chosen, make_prepare(chosen), pretrained=True)
    updates = 0

    def count(done: int, total: int) -> None:
        nonlocal updates
        updates += 1
        if updates == kill_at:
            raise Killed

    seen_rows = rows if rows is not None else []
    return fit(net, train, None if whole else valid, plan, 0, home, on_epoch=seen_rows.append, on_batch=count)


def test_it_learns_what_colours_tell(tmp_path: Path) -> None:
    rows: list[Any] = []
    done = run(tmp_path, recipe(train__epochs=12, train__mix="none"), rows=rows)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    assert done.macro_f1 is not None and done.macro_f1 > 0.3
    assert [row["epoch"] for row in rows] == list(range(1, 13))


def test_the_best_epoch_by_macro_f1_is_kept_and_predicted(tmp_path: Path) -> None:
    rows: list[Any] = []
    done = run(tmp_path, recipe(), rows=rows)
    best = max(rows, key=lambda row: row["macro_f1"])
    assert (done.best_epoch, done.macro_f1) == (best["epoch"], pytest.approx(best["macro_f1"], abs=1e-6))
    stored = Predictions.load(tmp_path / "valid.npz")
    assert len(stored) == 16, "the whole validation fold: nothing is dropped for a batch size"
    from threefold.evidence.metrics import score

    assert score(stored) == pytest.approx(done.macro_f1, abs=1e-6)


@pytest.mark.parametrize("changes", [{}, {"train__ema": 0.9, "train__clip": 1.0, "optim": "sgd(lr=0.01)"}])
@pytest.mark.parametrize("kill_at", [2, 4, 7, 12])
def test_resume_ends_bit_identical(tmp_path: Path, changes: dict[str, Any], kill_at: int) -> None:
    """Four updates an epoch: killed in the first epoch, at the end of one, in the second, in the last."""
    chosen = recipe(**changes)
    run(tmp_path / "whole", chosen)
    with pytest.raises(Killed):
        run(tmp_path / "cut", chosen, kill_at=kill_at)
    rows: list[Any] = []
    run(tmp_path / "cut", chosen, rows=rows)
    for name in ("best.safetensors", "valid.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert [row["epoch"] for row in rows] == [1, 2, 3], "every epoch is told once, those before the kill included"
    last = [torch.load(tmp_path / side / "last.pt", weights_only=True) for side in ("whole", "cut")]
    assert all(torch.equal(a, b) for a, b in zip(last[0]["net"].values(), last[1]["net"].values(), strict=True))


def test_a_finished_fold_is_not_trained_again(tmp_path: Path) -> None:
    done = run(tmp_path, recipe())
    before = (tmp_path / "last.pt").stat().st_mtime_ns
    rows: list[Any] = []
    assert run(tmp_path, recipe(), rows=rows) == done
    assert len(rows) == 3 and (tmp_path / "last.pt").stat().st_mtime_ns == before


def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, recipe(seed=seed))
    read = {name: (tmp_path / name / "best.safetensors").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


def test_early_stopping_waits_as_long_as_it_was_told(tmp_path: Path) -> None:
    rows: list[Any] = []
    stopped = run(
        tmp_path, recipe(train__epochs=20, train__early_stop="patience(2, on=loss)", optim="sgd(lr=1e-12)"), rows=rows
    )
    losses = [row["valid_loss"] for row in rows]
    assert stopped.epochs == len(rows) < 20
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_a_loss_that_is_not_finite_names_step_and_photos(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"fold 0, step \d+: the loss is (nan|inf); lower `optim` lr.*\d+\.jpg"
    ) as caught:
        run(tmp_path, recipe(optim="sgd(lr=1e30)", train__epochs=4))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "fit.json").exists()


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With SGD without momentum an update is lr times the gradient, so its norm is at most lr * clip."""
    chosen = recipe(
        train__clip=1e-3, optim="sgd(lr=1.0, momentum=0, weight_decay=0)", train__epochs=1, schedule="cosine(floor=1)"
    )
    torch.manual_seed(chosen.seed)
    before = make_net(chosen, make_prepare(chosen), pretrained=True)
    run(tmp_path, chosen)
    after = torch.load(tmp_path / "last.pt", weights_only=True)["net"]
    moved = sum(float(((after[name] - p.detach()) ** 2).sum()) for name, p in before.named_parameters()) ** 0.5
    assert 0 < moved <= 4 * 1e-3 * 1.01


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    done = run(tmp_path, recipe(), whole=True)
    assert (done.best_epoch, done.macro_f1) == (3, None)
    assert (tmp_path / "best.safetensors").exists() and not (tmp_path / "valid.npz").exists()


def test_ema_is_what_is_judged_and_kept(tmp_path: Path) -> None:
    run(tmp_path, recipe(train__ema=0.99))
    full = torch.load(tmp_path / "last.pt", weights_only=True)
    assert full["ema"] is not None
    assert any(not torch.equal(full["net"][k], full["ema"][f"module.{k}"]) for k in full["net"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_mixed_precision_learns_and_keeps_whole_weights(tmp_path: Path, precision: str) -> None:
    rows: list[Any] = []
    run(tmp_path, recipe(train__epochs=4, train__precision=precision, train__mix="none"), rows=rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    stored = load_file(tmp_path / "best.safetensors")
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in stored.values())


def test_unknown_checkpoint_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt: checkpoint of format 99, this version reads 1"):
        run(tmp_path, recipe())


def test_partly_unknown_labels_train_and_score(tmp_path: Path) -> None:
    data = photos()
    parts = data.truth.copy()
    parts[::2, 1:] = -1  # every other photo knows its mask alone
    parts[1::2, 0] = -1  # the others all but the mask
    faces = [
        Face(Path(i), p, i, *(None if v < 0 else int(v) for v in row[:2]), None, None if row[2] < 0 else int(row[2]))
        for i, p, row in zip(data.ids.tolist(), data.persons.tolist(), parts, strict=True)
    ]
    partial = make_photos(np.asarray(data.images), faces)
    for head in ("multi", "flat18"):
        chosen = recipe(model__head=head)
        plan = make_plan(chosen)
        net = make_net(chosen, make_prepare(chosen), pretrained=True)
        rows: list[Any] = []
        sides = partial.at(np.arange(32)), partial.at(np.arange(32, 48))
        fit(net, *sides, plan, 0, tmp_path / head, on_epoch=rows.append)
        assert all(np.isfinite(rows[-1][name]) for name in ("train_loss", "valid_loss", "macro_f1", "mask", "gender"))


def test_prediction_does_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    chosen, data = recipe(), photos()
    net: Net = make_net(chosen, make_prepare(chosen), pretrained=True)
    whole, _, _ = predict(net, data, make_plan(chosen))
    single, _, _ = predict(net, data, make_plan(recipe(train__batch=1)))
    assert np.allclose(whole, single, atol=1e-6)


def test_chunks_hold_every_row_once_and_none_is_tiny() -> None:
    for count in range(1, 70):
        parts = list(chunks(np.arange(count), 8))
        assert np.array_equal(np.concatenate(parts), np.arange(count))
        assert max(map(len, parts)) <= 8 and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fit_json_is_plain_json(tmp_path: Path) -> None:
    run(tmp_path, recipe())
    assert json.loads((tmp_path / "fit.json").read_text())["epochs"] == 3
