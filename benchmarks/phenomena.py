"""The published phenomena, measured: leaking splits, wrong preparation, the baseline's traps, public against private.

    python benchmarks/phenomena.py split DATA       # (a) a photo split against a person split (trains twice)
    python benchmarks/phenomena.py parity DATA      # (b) eval photos prepared otherwise than training photos
    python benchmarks/phenomena.py traps DATA       # (c) the official baseline's traps, one by one
    python benchmarks/phenomena.py gaps DATA        # (d) the spread of public - private against the published one

Each prints the tables of docs/evidence.md. DATA is a practice set or twin in the contest's layout (train/ and eval/
with answers.csv). The runs that (b), (c) and (d) look at lie in --runs (the folder `runs` beside DATA): those of
docs/log.md are taken where they fit DATA, and trained where they are not there (phenomena_runs.py). threefold itself
cannot be made to do most of this: the faults are put in by hand here, outside the package.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from phenomena_reading import Altered, Images, judged, number
from phenomena_runs import RECIPES, need_runs
from phenomena_traps import trap_rows
from shake import published

import threefold
from threefold import labels
from threefold.data.face import Face
from threefold.errors import RecipeError, ThreefoldError
from threefold.evidence.compare import compare_predictions
from threefold.evidence.metrics import accuracy
from threefold.learn.loader import Photos
from threefold.learn.loop import fit
from threefold.learn.net import Net, make_net
from threefold.learn.net_backend import NetBackend
from threefold.learn.plan import make_plan, make_prepare
from threefold.photos.prepare import Prepare
from threefold.predictions import Predictions
from threefold.recipe import Recipe, load_recipe
from threefold.train.single import deal, prepared, read_all

NEEDS = {"parity": ("best-face", "base"), "traps": ("base",), "gaps": ("base", "best", "best-ensemble")}
EPOCHS = 6


def split(data: Path, overrides: Sequence[str], seed: int) -> None:
    """(a) and trap 10: the same recipe validated on a fifth of the photos and on a fifth of the people."""
    fixed = [f"data.source={data}", "data.folds=holdout(0.2)", f"train.epochs={EPOCHS}"]
    recipe = load_recipe(RECIPES / "base.yaml", [*fixed, *overrides])
    faces, dealt = read_all(recipe)
    photos = prepared(recipe, faces)
    by_person, _ = deal(recipe, faces, dealt, np.asarray(photos.images))
    held = by_person == 0
    by_photo = np.zeros(len(faces), dtype=bool)
    by_photo[np.random.default_rng(seed).permutation(len(faces))[: int(held.sum())]] = True
    rows, lost = [], []
    for name, valid in (("by person", held), ("by photo", by_photo)):
        cells, told = _validated(recipe, photos, faces, valid, seed, data)
        rows.append([name, *cells])
        lost.append(f"{told} ({name})")
    print(
        f"{len(faces):,} photos, {int(held.sum()):,} validate; {recipe.model.backbone}, {recipe.train.epochs} epochs\n"
    )
    table(["split", "people on both sides", "validation", "eval people"], rows)
    print()
    table(["trap", "what it does here"], [["10 the best epoch by accuracy", "; ".join(lost)]])


def _validated(
    recipe: Recipe, photos: Photos, faces: Sequence[Face], valid: NDArray[np.bool_], seed: int, data: Path
) -> tuple[list[str], str]:
    """Cells of a split's row, and what choosing its epoch by accuracy loses."""
    plan, prepare = make_plan(recipe), make_prepare(recipe)
    torch.manual_seed(seed)
    net = make_net(recipe, prepare, pretrained=True)
    side = photos.at(np.flatnonzero(valid))
    rows: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as home:
        fit(
            net, photos.at(np.flatnonzero(~valid)), side, plan, 0, Path(home),
            on_epoch=lambda row: rows.append((row["macro_f1"], _right(net, side))),
        )  # fmt: skip
        said = Predictions.load(Path(home) / "valid.npz")
    everybody = len({face.person for face in faces})
    both = len(set(said.persons) & {face.person for face, held in zip(faces, valid, strict=True) if not held})
    f1, acc = np.array(rows).T
    first, other = int(f1.argmax()), int(acc.argmax())
    told = f"{f1[first] - f1[other]:.3f} macro F1 lost, epoch {other + 1} instead of {first + 1}"
    outside = judged(NetBackend([net.eval()], prepare), data)
    return [f"{both} of {everybody}", number(said), number(outside)], told


def _right(net: Net, side: Photos) -> float:
    """Accuracy over the 18 classes on a side of `Photos`."""
    found = [joint.argmax(1) for joint in _answers(net, side)]
    return accuracy(labels.encode_all(side.truth[side.rows]), np.concatenate(found))


def _answers(net: Net, side: Photos) -> Iterator[NDArray[np.float32]]:
    was = net.training
    net.eval()
    with torch.inference_mode():
        for start in range(0, len(side), 256):
            batch = side.batch(side.rows[start : start + 256], torch.device("cpu"))
            yield net.read(batch)[0].numpy()
    net.train(was)


def parity(data: Path, runs: Sequence[Path]) -> None:
    """(b), traps 4 and 11: a run's network reads eval photos prepared as its training photos were, and otherwise."""
    columns = [_prepared_otherwise(data, run) for run in runs]
    names = [f"{run.name} (crop {own})" for run, (own, _) in zip(runs, columns, strict=True)]
    table(["eval photos are", *names], [[way, *(cells[way] for _, cells in columns)] for way in columns[0][1]])


def _prepared_otherwise(data: Path, run: Path) -> tuple[str, dict[str, str]]:
    """A run's own crop; way -> macro F1 as in training, otherwise the difference to that (a dash: none)."""
    backend = threefold.load(run).backend
    if not isinstance(backend, NetBackend):
        raise RecipeError(f"{run}: is a run of several preprocessings; expected one of a single network a fold")
    own = backend.prepares[0]
    height, width = own.size
    same = judged(backend, data)
    ways: dict[str, tuple[Prepare, Callable[[Images], Images]]] = {
        "without the crop": (replace(own, crop="none"), _same),
        "with a centre crop that training had not": (replace(own, crop="centre(410, 307)"), _same),
        "with height and width swapped": (replace(own, size=(width, height)), _same),
        "at half the size, enlarged": (replace(own, size=(height // 2, width // 2)), _enlarged),
        "with red and blue swapped": (own, _bgr),
        "normalised as ImageNet's, where the weights have their own": (own, partial(_renormalised, own=own)),
    }
    cells = {"prepared as in training": number(same)}
    for name, (prepare, change) in ways.items():
        if prepare == own and change is _same:
            cells[name] = "-"
            continue
        compared = compare_predictions(judged(Altered(backend, prepare, change), data), same, draws=2000)
        gap = compared.difference["all.macro_f1"]
        cells[name] = f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})".replace("-", "\N{MINUS SIGN}")
    return own.crop, cells


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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as the docs hold it."""
    for cells in (header, ["---"] * len(header), *rows):
        print("|" + "|".join(cells if cells[0] == "---" else [f" {cell} " for cell in cells]) + "|")


def shown(what: str, data: Path, runs: Sequence[Path], seed: int) -> None:
    """Print what is seen on runs."""
    if what == "parity":
        parity(data, runs)
    elif what == "traps":
        table(["trap", "what it does here"], trap_rows(data, runs[0], seed))
    else:
        published(runs)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and print one phenomenon; bad input is one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("split", *NEEDS))
    parser.add_argument("data", type=Path, help="folder with train/ and eval/")
    parser.add_argument("--runs", type=Path, help="folder of the runs (default: `runs` beside DATA); not for split")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="for what is trained, as train.epochs=1 to try the command quickly")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the photo split, of what (c) draws")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        if asked.what == "split":
            split(asked.data, asked.overrides, asked.seed)
        else:
            folder = asked.runs or asked.data.resolve().parent / "runs"
            runs = need_runs(NEEDS[asked.what], asked.data, folder, asked.overrides)
            shown(asked.what, asked.data, runs, asked.seed)
    except ThreefoldError as error:
        print(f"phenomena: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
