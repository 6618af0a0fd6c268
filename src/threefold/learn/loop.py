"""`fit`: the one training loop. Explicit, on lightning-fabric, resumable to the bit.

Everything random in an epoch is drawn from seeds made of (seed, fold, epoch), so no generator state has to be saved: an
epoch that was cut off by a kill is simply done again. `last.pt` holds the full state after each epoch,
`best.safetensors` the epoch with the highest macro F1 over the whole validation fold and `valid.npz` its predictions;
`fit.json` is written last and means the fold is done.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from threefold.errors import RunError, TrainingError
from threefold.evidence.metrics import TASKS, macro_f1, score, tasks
from threefold.files import atomic_write, digest, write_json
from threefold.learn.heads import merge
from threefold.learn.loader import Photos, chunks, to_device
from threefold.learn.net import Net, load_net, to_float
from threefold.learn.plan import Losses, Plan
from threefold.learn.target import Known

FORMAT = 1
Row = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """What came of one fold: epochs done, the best one (from 1) and its validation macro F1 (None without one)."""

    fold: int
    epochs: int
    best_epoch: int
    macro_f1: float | None
    seconds: float


@dataclass
class _State:
    """What changes while a fold is trained, beside the tensors."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    watched: float = -math.inf
    watched_epoch: int = 0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def fit(
    net: Net, train: Photos, valid: Photos | None, plan: Plan, fold: int, home: Path, *,
    on_epoch: Callable[[Row], None], on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:  # fmt: skip
    """Train `net` on one side of a fold and keep its best epoch by the other; without `valid`, the last epoch.

    `train` and `valid` are sides of the same `Photos` (`Photos.at`).

    Writes best.safetensors, last.pt, valid.npz and fit.json below `home`; goes on from last.pt where there is one.
    `on_epoch` gets one row per finished epoch, those before a resume included. Raises TrainingError when a loss is not
    finite, naming step and photos.
    """
    if (home / "fit.json").exists():
        stored = json.loads((home / "fit.json").read_text())
        for row in stored.pop("rows"):
            on_epoch(row)
        return Fit(**stored)
    worker = _Worker(net, train, valid, plan, fold, home)
    state = worker.resume()
    for row in state.rows:
        on_epoch(row)
    while state.epoch < plan.epochs and state.epoch - state.watched_epoch < plan.stop.epochs:
        worker.epoch(state, on_batch)
        worker.save(state)
        on_epoch(state.rows[-1])
    return worker.finish(state)


class _Worker:
    """The objects of one fold: wrapped net, optimiser, schedule, EMA, losses."""

    def __init__(self, net: Net, train: Photos, valid: Photos | None, plan: Plan, fold: int, home: Path) -> None:
        fabric = plan.fabric
        self.plan, self.fold, self.home = plan, fold, home
        self.train = to_device(train, fabric.device)
        self.valid = valid and self.train.at(valid.rows)  # sides of the same photos: one copy on the device
        self.target = train.target.to(fabric.device)
        self.sampler = plan.sampler(train)
        rng = np.random.default_rng([plan.seed, fold + 1, 0])
        self.updates = len(list(chunks(self.sampler(rng), plan.batch)))
        half = train.target.take(train.rows)
        counts = {name: known.value.sum(0) for name, known in net.head.targets(half).items()}
        self.losses = plan.losses(counts)
        self.net = net.to(fabric.device)
        self.wrapped, self.optimizer = fabric.setup(self.net, plan.optim(self.net))
        self.schedule = plan.schedule(self.optimizer.optimizer, plan.epochs, self.updates)
        self.ema = ModelEmaV3(self.net, decay=plan.ema, use_warmup=True) if plan.ema else None

    @property
    def judged(self) -> Net:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.net

    def epoch(self, state: _State, on_batch: Callable[[int, int], None]) -> None:
        """One pass over the sampler's rows, then the whole validation fold."""
        begin = time.perf_counter()
        seed = [self.plan.seed, self.fold + 1, state.epoch + 1]
        torch.manual_seed(int(digest(str(seed), size=7), 16))  # dropout and augmentations draw from it
        generator = torch.Generator().manual_seed(int(digest("mix", str(seed), size=7), 16))
        rows = self.sampler(np.random.default_rng(seed))
        self.net.train()
        total = torch.zeros((), device=self.plan.fabric.device)
        for step, part in enumerate(chunks(rows, self.plan.batch)):
            update = state.epoch * self.updates + step
            self.schedule.step_update(update)
            total += self.step(part, update, generator) * len(part)
            on_batch(step + 1, self.updates)
        spent = time.perf_counter() - begin
        row = {
            "fold": self.fold, "epoch": state.epoch + 1, "step": (state.epoch + 1) * self.updates,
            "lr": max(group["lr"] for group in self.optimizer.param_groups), "train_loss": float(total) / len(rows),
            "photos_per_second": round(len(rows) / spent, 1), **self.validate(),
        }  # fmt: skip
        state.epoch += 1
        state.seconds += time.perf_counter() - begin
        row |= {"seconds": round(time.perf_counter() - begin, 2), "best": self.judge(state, row)}
        state.rows.append(row)

    def step(self, rows: NDArray[np.int64], update: int, generator: torch.Generator) -> Tensor:
        """One update; returns the loss."""
        fabric = self.plan.fabric
        images = self.plan.augment(to_float(self.train.batch(rows, fabric.device)))
        images, target = self.plan.mix(images, self.target.take(rows), generator)
        outputs = self.wrapped(images)
        loss = total_loss(self.losses, outputs, self.net.head.targets(target))
        if not torch.isfinite(loss):
            ids, value = ", ".join(self.train.ids[rows][:8].tolist()), float(loss.detach())
            raise TrainingError(
                f"fold {self.fold}, step {update}: the loss is {value}; lower `optim` lr, set train.clip "
                f"or look at the photos of this batch: {ids}{', ...' if len(rows) > 8 else ''}"
            )
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if self.plan.clip:
            fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.plan.clip, error_if_nonfinite=False)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.net, step=update)
        return loss.detach()

    def validate(self) -> Row:
        """Loss, headline macro F1 and those of the attributes, over every photo of the validation fold."""
        names = ("valid_loss", "macro_f1", "mask", "gender", "age_group")
        if self.valid is None:
            return dict.fromkeys(names)
        joint, years, loss = predict(self.judged, self.valid, self.plan, losses=self.losses)
        predictions = self.valid.predictions(joint, years, self.fold)
        each = {
            name: macro_f1(truth, said, TASKS[name]) if (truth >= 0).any() else None
            for name, truth, said in tasks(predictions)
        }
        whole = score(predictions)
        values = (loss, None if math.isnan(whole) else whole, each["mask"], each["gender"], each["age_group"])
        return dict(zip(names, values, strict=True))

    def judge(self, state: _State, row: Row) -> bool:
        """Keep the epoch if it is the best by macro F1, and note whether what early stopping watches got better."""
        last = row["macro_f1"] is None  # nothing to judge by: no validation side, or none of its labels known
        better = last or state.best_epoch == 0 or row["macro_f1"] > state.best
        if better:
            state.best, state.best_epoch = (state.best if last else row["macro_f1"]), state.epoch
            tensors = {name: value.detach().cpu().contiguous() for name, value in self.judged.state_dict().items()}
            atomic_write(self.home / "best.safetensors", lambda file: file.write(to_safetensors(tensors)))
        watched = 0.0 if last else (row["macro_f1"] if self.plan.stop.on == "macro_f1" else -row["valid_loss"])
        if last or watched > state.watched:
            state.watched, state.watched_epoch = watched, state.epoch
        return better

    def save(self, state: _State) -> None:
        """The full state after an epoch, atomically."""
        full = {
            "format": FORMAT, "state": asdict(state), "net": self.net.state_dict(),
            "optimizer": self.optimizer.optimizer.state_dict(), "ema": self.ema and self.ema.state_dict(),
            "precision": self.plan.fabric.strategy.precision.state_dict(),
        }  # fmt: skip
        atomic_write(self.home / "last.pt", lambda file: torch.save(full, file))

    def resume(self) -> _State:
        """State of last.pt, with every tensor in its place; a fresh one where there is none."""
        path = self.home / "last.pt"
        if not path.exists():
            return _State()
        full = torch.load(path, map_location=self.plan.fabric.device, weights_only=True)
        if full.get("format") != FORMAT:
            raise RunError(f"{path}: checkpoint of format {full.get('format')}, this version reads {FORMAT}")
        self.net.load_state_dict(full["net"])
        self.optimizer.optimizer.load_state_dict(full["optimizer"])
        if self.ema:
            self.ema.load_state_dict(full["ema"])
        self.plan.fabric.strategy.precision.load_state_dict(full["precision"])
        return _State(**full["state"])

    def finish(self, state: _State) -> Fit:
        """Predict the validation fold once more with the kept weights, and say that the fold is done."""
        if self.valid is not None:
            load_net(self.net, self.home / "best.safetensors")
            joint, years, _ = predict(self.net, self.valid, self.plan)
            self.valid.predictions(joint, years, self.fold).save(self.home / "valid.npz")
        best = None if math.isinf(state.best) else round(state.best, 6)
        done = Fit(self.fold, state.epoch, state.best_epoch, best, round(state.seconds, 2))
        write_json(self.home / "fit.json", {**asdict(done), "rows": state.rows})
        return done


def total_loss(losses: Losses, outputs: dict[str, Tensor], targets: dict[str, Known]) -> Tensor:
    """Sum over a head's outputs of their weighted losses; unknown shares of a target weigh nothing."""
    parts = []
    for name, raw in outputs.items():
        value, known = targets[name]
        soft = value / known.clamp_min(1e-9)[:, None]
        parts += [weight * loss(raw.float(), soft, known) for weight, loss in losses[name]]
    return torch.stack(parts).sum()


@torch.inference_mode()
def predict(
    net: Net, photos: Photos, plan: Plan, *, losses: Losses | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, float]:
    """Joint [n, 18], years [n] or None, mean loss (NaN without `losses`) of one side of a fold, in its order."""
    net.eval()
    device = plan.fabric.device
    outputs = []
    for rows in chunks(photos.rows, max(plan.batch, 64)):
        with plan.fabric.autocast():
            outputs.append({name: raw.float() for name, raw in net(to_float(photos.batch(rows, device))).items()})
    whole = merge(outputs)
    loss = float("nan")
    if losses is not None:
        loss = float(total_loss(losses, whole, net.head.targets(photos.target.take(photos.rows).to(device))))
    years = net.head.years(whole)
    return net.head.joint(whole).cpu().numpy(), None if years is None else years.cpu().numpy(), loss
