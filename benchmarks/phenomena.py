"""The phenomena the published teams reported, measured: leaking splits, wrong preparation, the baseline's traps.

    python benchmarks/phenomena.py split DATA [--epochs 8]     # a photo split against a person split (trains twice)
    python benchmarks/phenomena.py parity DATA RUN...          # eval photos prepared otherwise than training photos
    python benchmarks/phenomena.py traps DATA RUN              # the official baseline's traps, one by one

DATA is a practice set or twin in the contest's layout (train/ and eval/ with answers.csv); RUN is a run trained on it.
threefold itself cannot be made to do most of this: the faults are put in by hand here, outside the package.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import threefold
from threefold import labels
from threefold.data.prepare import Prepare, dataset_statistics
from threefold.data.sources import eval_photos, read_answers
from threefold.evidence.compare import difference
from threefold.evidence.metrics import accuracy, measure
from threefold.infer.backends import Answer, Backend, TorchBackend
from threefold.infer.reader import Reader
from threefold.learn.loader import Photos
from threefold.learn.loop import fit
from threefold.learn.losses import LOSSES
from threefold.learn.net import Net, make_net
from threefold.learn.plan import make_plan, make_prepare
from threefold.predictions import Predictions
from threefold.recipe import load_recipe
from threefold.stages.gather import deal, prepared, read_all

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "base.yaml"
Images = NDArray[np.uint8]


def split(data: Path, epochs: int, seed: int) -> None:
    """(a) and trap 10: the same recipe validated on a fifth of the photos and on a fifth of the people."""
    torch.set_num_threads(1)
    recipe = load_recipe(RECIPE, [f"data.source={data}", "data.folds=holdout(0.2)", f"train.epochs={epochs}"])
    faces, dealt = read_all(recipe)
    photos, plan, prepare = prepared(recipe, faces), make_plan(recipe), make_prepare(recipe)
    by_person, _ = deal(recipe, faces, dealt, np.asarray(photos.images))
    held = by_person == 0
    by_photo = np.zeros(len(faces), dtype=bool)
    by_photo[np.random.default_rng(seed).permutation(len(faces))[: int(held.sum())]] = True
    print(f"{len(faces):,} photos, {int(held.sum()):,} validate; {recipe.model.backbone}, {epochs} epochs, seed {seed}")
    for name, valid in (("person split", held), ("photo split", by_photo)):
        torch.manual_seed(seed)
        net = make_net(recipe, prepare, pretrained=True)
        side = photos.at(np.flatnonzero(valid))
        rows: list[tuple[float, float]] = []
        with tempfile.TemporaryDirectory() as home:
            fit(
                net, photos.at(np.flatnonzero(~valid)), side, plan, 0, Path(home),
                on_epoch=lambda row, net=net, side=side, rows=rows: rows.append((row["macro_f1"], right(net, side))),
            )  # fmt: skip
            said = Predictions.load(Path(home) / "valid.npz")
        both = len(set(said.persons) & {f.person for f, v in zip(faces, valid, strict=True) if not v})
        outside = judged(TorchBackend([net.eval()], prepare), data)
        print(f"{name}: people on both sides {both}; validation {number(said)}; eval people {number(outside)}")
        f1, acc = np.array(rows).T
        best = (int(f1.argmax()), int(acc.argmax()))
        print(f"  macro F1 by epoch {np.round(f1, 3)}, accuracy {np.round(acc, 3)}")
        print(
            f"  best epoch by macro F1 {best[0] + 1}, by accuracy {best[1] + 1}: {f1[best[0]] - f1[best[1]]:.3f} lost"
        )


def right(net: Net, side: Photos) -> float:
    """Accuracy over the 18 classes on a side of `Photos`."""
    found = [joint.argmax(1) for joint in answers(net, side)]
    return accuracy(labels.encode_all(side.truth[side.rows]), np.concatenate(found))


def answers(net: Net, side: Photos) -> Iterator[NDArray[np.float32]]:
    was = net.training
    net.eval()
    with torch.inference_mode():
        for start in range(0, len(side), 256):
            batch = side.batch(side.rows[start : start + 256], torch.device("cpu"))
            yield net.read(batch)[0].numpy()
    net.train(was)


class Altered:
    """A backend whose photos are prepared otherwise (`prepare`) or changed after it (`change`)."""

    def __init__(self, backend: TorchBackend, prepare: Prepare, change: Callable[[Images], Images]) -> None:
        self.backend, self.prepares, self.change = backend, (prepare,), change

    def __call__(self, photos: tuple[Images, ...]) -> Answer:
        return self.backend((np.ascontiguousarray(self.change(photos[0])),))


def judged(backend: Backend, data: Path) -> Predictions:
    """What a backend says of the eval people, beside the truth."""
    named = eval_photos(data / "eval") or []
    truth = read_answers(data / "eval" / "answers.csv")
    where = {name: row for row, name in enumerate(truth.ids)}
    rows = np.array([where[name] for name, _ in named])
    readings = Reader(backend).read(path for _, path in named)
    count = len(rows)
    return Predictions(
        photos=np.array([name for name, _ in named]), persons=np.array(truth.persons)[rows],
        probabilities=np.stack([reading.probabilities for reading in readings]),
        truth=labels.decode_all(truth.label[rows]), ages=np.full(count, np.nan, np.float32),
        years=np.full(count, np.nan, np.float32), fold=np.full(count, -1, np.int16),
    )  # fmt: skip


def number(predictions: Predictions) -> str:
    found = measure(predictions, draws=2000)["macro_f1"]
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def parity(data: Path, runs: list[Path]) -> None:
    """(b), traps 4 and 11: a run's network reads eval photos prepared as its training photos were, and otherwise."""
    torch.set_num_threads(1)
    for run in runs:
        backend = threefold.load(run).backend
        if not isinstance(backend, TorchBackend):
            raise SystemExit(f"{run}: is a run of several preprocessings; give one with a single network")
        own = backend.prepare
        height, width = own.size
        print(f"{run.name}: trained with crop={own.crop}, size={height}x{width}, interpolation={own.interpolation}")
        same = judged(backend, data)
        print(f"  as in training: macro F1 {number(same)}")
        ways: dict[str, tuple[Prepare, Callable[[Images], Images]]] = {
            "crop left out (trap 4)": (replace(own, crop="none"), _same),
            "a crop training had not, centre(410, 307)": (replace(own, crop="centre(410, 307)"), _same),
            "height and width swapped (trap 11)": (replace(own, size=(width, height)), _same),
            "half the size, enlarged": (replace(own, size=(height // 2, width // 2)), _enlarged),
            "red and blue swapped": (own, _bgr),
            "ImageNet's mean and std for the weights' own": (own, partial(_renormalised, own=own)),
        }
        for name, (prepare, change) in ways.items():
            if prepare == own and change is _same:
                continue
            try:
                other = judged(Altered(backend, prepare, change), data)
            except threefold.ThreefoldError as error:
                print(f"  {name}: cannot be done ({error})")
                continue
            gap = difference(other, same, draws=2000)["all.macro_f1"]
            print(f"  {name}: {number(other)}; {gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})")


def _same(images: Images) -> Images:
    return images


def _bgr(images: Images) -> Images:
    return images[..., ::-1]


def _enlarged(images: Images) -> Images:
    return images.repeat(2, 1).repeat(2, 2)


def _renormalised(images: Images, own: Prepare) -> Images:
    """Pixels that, through the network's own mean and std, arrive as ImageNet's would have made them."""
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    value = (images / 255 - mean) / std * np.array(own.std) + np.array(own.mean)
    return np.asarray(np.clip(value * 255, 0, 255), dtype=np.uint8)


def traps(data: Path, run: Path, seed: int) -> None:
    """(c): what each trap of the official baseline does, on this set or on this run's predictions."""
    torch.set_num_threads(1)
    _trap_choices(seed)
    said = Predictions.load(run / "oof.npz")
    _trap_drop_last(said)
    backend = threefold.load(run).backend
    clean = judged(backend, data)
    _trap_noise(backend, data, clean)
    _trap_losses()
    _trap_statistics(data)
    print(f'8  --resize with type=list: list("128") is {list("128")}; expected 128')
    first, second = _Lists(["a", "b"]), _Lists(["c"])
    print(f"9  two data sets of 2 and 1 photos that share a class-level list: {len(first.paths)}, {len(second.paths)}")
    flat = said.fold == said.fold[0]
    halves = [said.take(flat), said.take(~flat)]
    print(f"10 macro F1 against accuracy of {run.name}, by fold: " + "; ".join(
        f"{number(half)} against {accuracy(half.label, half.predicted):.3f}" for half in halves
    ))  # fmt: skip


def _trap_choices(seed: int) -> None:
    """1: the baseline draws its validation people with replacement."""
    draw = random.Random(seed)
    share = [len(set(draw.choices(range(2700), k=540))) / 2700 for _ in range(200)]
    print(
        f"1  random.choices for 20 % of 2,700 people: {np.mean(share):.1%} validate on average, {min(share):.1%} least"
    )
    one = random.Random(42).choices(sorted(map(str, range(2700))), k=540)
    other = random.Random(42).choices(sorted(map(str, range(2700)), reverse=True), k=540)
    same = len(set(one) & set(other)) / len(set(one))
    print(f"   same seed, files listed the other way round: {same:.1%} of the validation people are the same")


def _trap_drop_last(said: Predictions) -> None:
    """2: validation batches of 1,000 with drop_last, divided by all photos."""
    rows = np.random.default_rng(0).permutation(len(said))[:3780]
    right = (said.predicted == said.label)[rows]
    kept = len(rows) // 1000 * 1000
    print(
        f"2  drop_last with batches of 1,000 over {len(rows):,} photos: accuracy {right.mean():.3f} is shown as "
        f"{right[:kept].sum() / len(rows):.3f}; a perfect model is shown as {kept / len(rows):.3f}"
    )


def _trap_noise(backend: Backend, data: Path, clean: Predictions) -> None:
    """3 and 5: the training augmentation with noise of std 1 on normalised pixels also falls on validation."""
    if not isinstance(backend, TorchBackend):
        return
    drawn = np.random.default_rng(0)
    for std, what in ((0.05, "std 0.05"), (0.24, "AddGaussianNoise(0, 1) after Normalize(std 0.24): std 0.24")):

        def change(images: Images, std: float = std) -> Images:
            return np.asarray(np.clip(images + drawn.normal(0, std * 255, images.shape), 0, 255), dtype=np.uint8)

        noisy = judged(Altered(backend, backend.prepare, change), data)
        gap = difference(noisy, clean, draws=2000)["all.macro_f1"]
        ratio = 20 * np.log10(0.24 / std)
        print(
            f"3,5 validation photos with noise of {what} of 0..1 (signal to noise {ratio:.0f} dB): {number(noisy)}, "
            f"clean {number(clean)}; {gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"
        )


def _trap_losses() -> None:
    """6: label smoothing whose default smooths nothing, an F1 loss made for three classes."""
    raw = torch.randn(64, 18, generator=torch.Generator().manual_seed(0))
    code = torch.arange(64) % 18
    target, weight = torch.eye(18)[code], torch.ones(64)
    plain = torch.nn.functional.cross_entropy(raw, code)
    official = _official_smoothing(raw, code, classes=3, smoothing=0.0)
    ours = LOSSES["ce"](torch.ones(18), smoothing=0.1)(raw, target, weight)
    print(
        f"6  LabelSmoothingLoss with its defaults {official:.4f}, cross-entropy {plain:.4f}, smoothed by 0.1 (ours) "
        f"{float(ours):.4f}"
    )
    try:
        torch.nn.functional.one_hot(code, 3)
        print("   F1Loss(classes=3) on 18 classes: no error")
    except RuntimeError as error:
        print(f"   F1Loss(classes=3) on 18 classes: {str(error).splitlines()[0]}")


def _official_smoothing(raw: torch.Tensor, code: torch.Tensor, classes: int, smoothing: float) -> float:
    """The formula of the baseline's LabelSmoothingLoss."""
    log = raw.log_softmax(1)
    wanted = torch.full_like(log, smoothing / (classes - 1)).scatter_(1, code[:, None], 1 - smoothing)
    return float((-wanted * log).sum(1).mean())


def _trap_statistics(data: Path) -> None:
    """7: the spread about a mean that was divided by 255 already."""
    recipe = load_recipe(RECIPE, [f"data.source={data}"])
    faces, _ = read_all(recipe)
    images = np.asarray(prepared(recipe, faces[:3000]).images)
    mean, std = dataset_statistics(images)
    wrong = [float(np.sqrt(((images[..., c].astype(np.float64) - mean[c]) ** 2).mean()) / 255) for c in range(3)]
    print(f"7  calc_statistics: std {np.round(wrong, 3)}; it is {np.round(std, 3)} (mean {np.round(mean, 3)})")


class _Lists:
    paths: list[str] = []  # noqa: RUF012 - this is the trap

    def __init__(self, found: list[str]) -> None:
        self.paths.extend(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("split", "parity", "traps"):
        verb = verbs.add_parser(name)
        verb.add_argument("data", type=Path)
        verb.add_argument("--seed", type=int, default=0)
        if name == "split":
            verb.add_argument("--epochs", type=int, default=8)
        else:
            verb.add_argument("runs", type=Path, nargs="+" if name == "parity" else 1)
    asked = parser.parse_args()
    if asked.verb == "split":
        split(asked.data, asked.epochs, asked.seed)
    elif asked.verb == "parity":
        parity(asked.data, asked.runs)
    else:
        traps(asked.data, asked.runs[0], asked.seed)


if __name__ == "__main__":
    main()
