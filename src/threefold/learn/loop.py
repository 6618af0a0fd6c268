"""`fit`: the one training loop. Explicit, on lightning-fabric, resumable to the bit.

`last.pt` holds the full state after each epoch, `best.safetensors` the epoch with the highest macro F1 over the whole
validation fold and `valid.npz` its predictions; `fit.json` is written last and means the fold is done. With
`train.keep: average` the weights of the best epochs wait in `kept/` and best.safetensors is their mean (Izmailov et
al., "Averaging Weights Leads to Wider Optima", 2018). A classical head (a support vector machine on frozen features)
is fitted here as well, in one go instead of epochs.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from threefold.errors import RunError, TrainingError
from threefold.evidence.metrics import TASKS, macro_f1, score, tasks
from threefold.files import atomic_write, digest, write_json
from threefold.learn.classical import Classical
from threefold.learn.distil import make_lesson
from threefold.learn.heads import merge
from threefold.learn.loader import Photos, Rows, chunks, to_device
from threefold.learn.losses import Losses
from threefold.learn.net import Net, load_net, to_float
from threefold.learn.plan import Plan
from threefold.learn.target import SoftTarget
from threefold.predictions import Predictions

FORMAT = 1
EpochRow = dict[str, Any]
SCORES = ("macro_f1", "mask", "gender", "age_group")


@dataclass(frozen=True)
class Fit:
    """What came of one fold: epochs done, the best one (from 1) and its validation macro F1 (None without one)."""

    fold: int
    epochs: int
    best_epoch: int
    macro_f1: float | None
    seconds: float


@dataclass
class FoldState:
    """What changes while a fold is trained, beside the tensors. kept: [macro F1, epoch] of each, the best first."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0
    watched: float = -math.inf
    watched_epoch: int = 0
    seconds: float = 0.0
    kept: list[list[float]] = field(default_factory=list)
    rows: list[EpochRow] = field(default_factory=list)


def fit(
    net: Net,
    train: Photos,
    valid: Photos | None,
    plan: Plan,
    fold: int,
    home: Path,
    *,
    on_epoch: Callable[[EpochRow], None],
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Fit:
    """Train `net` on one side of a fold and keep its best epoch by the other; without `valid`, the last epoch.

    `train` and `valid` are sides of the same `Photos` (`Photos.at`). Writes best.safetensors, last.pt, valid.npz and
    fit.json below `home`; goes on from last.pt where there is one. `on_epoch` gets one row per finished epoch, those
    before a resume included. Raises TrainingError when a loss is not finite, naming step and photos.
    """
    if (home / "fit.json").exists():
        stored = json.loads((home / "fit.json").read_text())
        for row in stored.pop("rows"):
            on_epoch(row)
        return Fit(**stored)
    if isinstance(net.head, Classical):
        row = _fit_classical(net, train, valid, plan, fold, home)
        on_epoch(row)
        result, rows = Fit(fold, 1, 1, row["macro_f1"], row["seconds"]), [row]
    else:
        trainer = _Trainer(net, train, valid, plan, fold, home)
        state = trainer.load_checkpoint()
        for row in state.rows:
            on_epoch(row)
        while state.epoch < plan.epochs and state.epoch - state.watched_epoch < plan.stop.epochs:
            trainer.run_epoch(state, on_batch)
            trainer.save_checkpoint(state)
            on_epoch(state.rows[-1])
        result, rows = trainer.finish(state), state.rows
    write_json(home / "fit.json", {**asdict(result), "rows": rows})
    return result


class _Trainer:
    """The objects of one fold: wrapped net, optimiser, schedule, EMA, losses."""

    def __init__(self, net: Net, train: Photos, valid: Photos | None, plan: Plan, fold: int, home: Path) -> None:
        fabric, options = plan.fabric, plan.recipe.train
        self.plan, self.options, self.fold, self.home = plan, options, fold, home
        self.train = to_device(train, fabric.device)
        self.valid = valid and self.train.at(valid.rows)  # sides of the same photos: one copy on the device
        self.target = train.target.to(fabric.device)
        self.sampler = plan.sampler(train)
        self.sizes = [len(list(chunks(self.order(epoch), options.batch))) for epoch in range(plan.epochs)]
        self.updates = round(float(np.mean(self.sizes)))  # an epoch's length to the schedule; samplers may vary
        targets = net.head.targets(train.target.take(train.rows))
        self.losses = plan.make_losses({name: soft.value.sum(0) for name, soft in targets.items()})
        self.lesson = make_lesson(plan.teachers, fold, fabric.device)
        self.net = net.to(fabric.device)
        self.wrapped, self.optimizer = fabric.setup(self.net, plan.optim(self.net))
        self.schedule = plan.schedule(self.optimizer.optimizer, plan.epochs, self.updates)
        self.ema = ModelEmaV3(self.net, decay=options.ema, use_warmup=True) if options.ema else None
        self.evaluated: Net = self.ema.module if self.ema else self.net  # what is validated and kept

    def order(self, epoch: int) -> Rows:
        """Rows of one epoch (from 0); the same whenever it is asked."""
        return self.sampler(np.random.default_rng([self.plan.recipe.seed, self.fold + 1, epoch + 1]), epoch)

    def run_epoch(self, state: FoldState, on_batch: Callable[[int, int], None]) -> None:
        """One pass over the sampler's rows, then the whole validation fold; adds a row to the state."""
        begin = time.perf_counter()
        rows = self.order(state.epoch)
        train_loss = self.train_epoch(state.epoch, rows, on_batch)
        spent = time.perf_counter() - begin
        row: EpochRow = {
            "fold": self.fold,
            "epoch": state.epoch + 1,
            "step": sum(self.sizes[: state.epoch + 1]),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": train_loss,
            "photos_per_second": round(len(rows) / spent, 1),
            **self.validate(),
        }
        state.epoch += 1
        state.seconds += time.perf_counter() - begin
        row["seconds"] = round(time.perf_counter() - begin, 2)
        row["best"] = self.keep_if_best(state, row)
        state.rows.append(row)
        self.report_metric(row)

    def train_epoch(self, epoch: int, rows: Rows, on_batch: Callable[[int, int], None]) -> float:
        """Train on `rows` once and return the mean loss of a photo."""
        # everything random in an epoch comes from seeds made of (seed, fold, epoch): no generator state has to be
        # saved, and an epoch that was cut off by a kill is simply done again
        generator = seed_epoch(self.plan.recipe.seed, self.fold, epoch + 1)
        self.net.train()
        self.plan.freeze.at(self.net, epoch)
        mixed = epoch < self.plan.epochs - self.options.mix_off
        total = torch.zeros((), device=self.plan.fabric.device)
        size, before = self.sizes[epoch], sum(self.sizes[:epoch])
        for step, part in enumerate(chunks(rows, self.options.batch)):
            self.schedule.step_update(epoch * self.updates + step * self.updates // size)
            total += self.update(part, before + step, generator if mixed else None) * len(part)
            on_batch(step + 1, size)
        return float(total) / len(rows)

    def update(self, rows: Rows, number: int, generator: torch.Generator | None) -> Tensor:
        """One update, without mix where there is no generator; returns the loss."""
        fabric = self.plan.fabric
        images = self.plan.augment(to_float(self.train.batch(rows, fabric.device)))
        target = self.target.take(rows)
        if generator:
            images, target = self.plan.mix(images, target, generator)
        outputs = self.wrapped(images)
        loss = total_loss(self.losses, outputs, self.net.head.targets(target))
        if self.lesson:
            with fabric.autocast():
                loss = self.lesson.loss(loss, images, outputs, self.net.head.kinds, self.losses)
        if not torch.isfinite(loss):
            ids, value = ", ".join(self.train.ids[rows][:8].tolist()), float(loss.detach())
            raise TrainingError(
                f"fold {self.fold}, step {number}: the loss is {value}; lower `optim` lr, set train.clip "
                f"or look at the photos of this batch: {ids}{', ...' if len(rows) > 8 else ''}"
            )
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if self.options.clip:
            fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=self.options.clip, error_if_nonfinite=False)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.net, step=number)
        return loss.detach()

    def validate(self) -> EpochRow:
        """Loss, headline macro F1 and those of the attributes, over every photo of the validation fold."""
        if self.valid is None:
            return dict.fromkeys(("valid_loss", *SCORES))
        joint, years, loss = predict(self.evaluated, self.valid, self.plan, losses=self.losses)
        predictions = self.valid.predictions(joint, years, self.fold)
        return {"valid_loss": loss, **_scores(predictions, self.evaluated.head.attributes)}

    def keep_if_best(self, state: FoldState, row: EpochRow) -> bool:
        """Keep the epoch if it is the best by macro F1, and note whether what early stopping watches got better."""
        metric, keep = row["macro_f1"], self.plan.keep
        unjudged = metric is None  # no validation side, or none of its labels known: every epoch replaces the last
        better = unjudged or keep.last or state.best_epoch == 0 or metric > state.best
        if better:
            state.best, state.best_epoch = (state.best if unjudged else metric), state.epoch
            _write(self.home / "best.safetensors", self.evaluated.state_dict())
        if keep.top > 1:
            state.kept.append([-math.inf if unjudged else metric, state.epoch])
            state.kept.sort(key=lambda entry: (-entry[0], -entry[1]))
            _write(self.kept_file(state.epoch), self.evaluated.state_dict())
            for _, epoch in state.kept[keep.top :]:
                self.kept_file(epoch).unlink(missing_ok=True)
            state.kept = state.kept[: keep.top]
        watched = 0.0 if unjudged else (metric if self.plan.stop.on == "macro_f1" else -row["valid_loss"])
        if unjudged or watched > state.watched:
            state.watched, state.watched_epoch = watched, state.epoch
        return bool(better)

    def kept_file(self, epoch: float) -> Path:
        """Weights of one of the best epochs."""
        return self.home / "kept" / f"epoch{epoch:.0f}.safetensors"

    def report_metric(self, row: EpochRow) -> None:
        """Give the schedule what it may react to: the macro F1, or minus the training loss where nothing validates."""
        self.schedule.step_metric(row["epoch"], -row["train_loss"] if row["macro_f1"] is None else row["macro_f1"])

    def save_checkpoint(self, state: FoldState) -> None:
        """The full state after an epoch, atomically."""
        full = {
            "format": FORMAT,
            "state": asdict(state),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "ema": self.ema and self.ema.state_dict(),
            "precision": self.plan.fabric.strategy.precision.state_dict(),
        }
        atomic_write(self.home / "last.pt", lambda file: torch.save(full, file))

    def load_checkpoint(self) -> FoldState:
        """State of last.pt, with every tensor in its place; a fresh one where there is none."""
        path = self.home / "last.pt"
        if not path.exists():
            return FoldState()
        full = torch.load(path, map_location=self.plan.fabric.device, weights_only=True)
        if full.get("format") != FORMAT:
            raise RunError(f"{path}: checkpoint of format {full.get('format')}, this version reads {FORMAT}")
        self.net.load_state_dict(full["net"])
        self.optimizer.optimizer.load_state_dict(full["optimizer"])
        if self.ema:
            self.ema.load_state_dict(full["ema"])
        self.plan.fabric.strategy.precision.load_state_dict(full["precision"])
        state = FoldState(**full["state"])
        for row in state.rows:
            self.report_metric(row)
        return state

    def finish(self, state: FoldState) -> Fit:
        """Make the kept weights and predict the validation fold once more with them."""
        if len(state.kept) > 1:
            parts = [load_file(self.kept_file(epoch)) for _, epoch in state.kept]
            mean = {  # whole numbers (batch counts) are those of the best
                name: torch.stack([part[name] for part in parts]).mean(0) if value.is_floating_point() else value
                for name, value in parts[0].items()
            }
            _write(self.home / "best.safetensors", mean)
        best = None if math.isinf(state.best) else round(state.best, 6)
        if self.valid is not None:
            load_net(self.net, self.home / "best.safetensors")
            predictions = keep_predictions(self.net, self.valid, self.plan, self.fold, self.home)
            if best is not None:
                best = round(score(predictions, self.net.head.attributes), 6)  # of what is kept: all views, the mean
        return Fit(self.fold, state.epoch, state.best_epoch, best, round(state.seconds, 2))


def seed_epoch(seed: int, fold: int, epoch: int) -> torch.Generator:
    """Seed the global generator, which dropout and augmentations draw from; returns the mixes' own. Epochs from 1."""
    parts = str([seed, fold + 1, epoch])
    torch.manual_seed(int(digest(parts, size=7), 16))
    return torch.Generator().manual_seed(int(digest("mix", parts, size=7), 16))


def _fit_classical(net: Net, train: Photos, valid: Photos | None, plan: Plan, fold: int, home: Path) -> EpochRow:
    """Fit a classical head on the frozen backbone's features, keep its weights and predictions; the row of an epoch."""
    begin, device = time.perf_counter(), plan.fabric.device
    net.to(device).eval()
    with torch.inference_mode():
        features = torch.cat([net.features(to_float(train.batch(rows, device))) for rows in chunks(train.rows, 64)])
    target, persons = train.target.take(train.rows), train.persons[train.rows]
    cast(Classical, net.head).fit(features.cpu().numpy(), target, persons, plan.recipe.seed)
    net.to(device)
    _write(home / "best.safetensors", net.state_dict())
    spent = time.perf_counter() - begin
    targets = net.head.targets(target.to(device))
    losses = plan.make_losses({name: soft.value.sum(0).cpu() for name, soft in targets.items()})
    with torch.inference_mode():
        loss = float(total_loss(losses, net.head.outputs(features), targets))
    row: EpochRow = {
        "fold": fold,
        "epoch": 1,
        "step": 1,
        "lr": 0.0,
        "train_loss": loss,
        "seconds": round(spent, 2),
        "best": True,
        "photos_per_second": round(len(train) / spent, 1),
        **dict.fromkeys(("valid_loss", *SCORES)),
    }
    if valid is not None:
        row |= _scores(keep_predictions(net, valid, plan, fold, home), net.head.attributes)
        row["valid_loss"] = predict(net, valid, plan, losses=losses)[2]
    return row


def keep_predictions(net: Net, valid: Photos, plan: Plan, fold: int, home: Path) -> Predictions:
    """valid.npz of a fold: the answers of the kept network, looking at every view, as prediction will."""
    if len(net.views) == 1:
        joint, years, _ = predict(net, valid, plan)
    else:
        with torch.inference_mode():
            net.eval()
            answers = [net.read(valid.batch(rows, plan.fabric.device)) for rows in chunks(valid.rows, 64)]
        joint = torch.cat([joint for joint, _ in answers]).cpu().numpy()
        numbers = [years for _, years in answers if years is not None]
        years = torch.cat(numbers).cpu().numpy() if numbers else None
    predictions = valid.predictions(joint, years, fold)
    predictions.save(home / "valid.npz")
    return predictions


def _scores(predictions: Predictions, attributes: tuple[str, ...]) -> EpochRow:
    """Headline macro F1 and those of the attributes a head knows; None where no label is."""
    scores: EpochRow = dict.fromkeys(SCORES)
    for name, truth, predicted in tasks(predictions):
        if name in attributes and (truth >= 0).any():
            scores[name] = macro_f1(truth, predicted, TASKS[name])
    whole = score(predictions, attributes)
    return scores | {"macro_f1": None if math.isnan(whole) else whole}


def _write(path: Path, weights: dict[str, Tensor]) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    atomic_write(path, lambda file: file.write(save(tensors)))


def total_loss(losses: Losses, outputs: dict[str, Tensor], targets: dict[str, SoftTarget]) -> Tensor:
    """Sum over a head's outputs of their weighted losses; unknown shares of a target weigh nothing."""
    parts = []
    for name, raw in outputs.items():
        value, share = targets[name]
        soft = value / share.clamp_min(1e-9)[:, None]
        parts += [weight * loss(raw.float(), soft, share) for weight, loss in losses[name]]
    return torch.stack(parts).sum()


@torch.inference_mode()
def predict(
    net: Net, photos: Photos, plan: Plan, *, losses: Losses | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, float]:
    """Joint [n, 18], years [n] or None, mean loss (NaN without `losses`) of one side of a fold, in its order."""
    net.eval()
    device, outputs = plan.fabric.device, []
    for rows in chunks(photos.rows, max(plan.recipe.train.batch, 64)):
        with plan.fabric.autocast():
            outputs.append({name: raw.float() for name, raw in net(to_float(photos.batch(rows, device))).items()})
    whole = merge(outputs)
    loss = float("nan")
    if losses is not None:
        loss = float(total_loss(losses, whole, net.head.targets(photos.target.take(photos.rows).to(device))))
    years = net.head.years(whole)
    return net.head.joint(whole).cpu().numpy(), None if years is None else years.cpu().numpy(), loss
