"""Latency of an exported network against torch, and what float16 and int8 cost on real faces. One run, about 4 minutes.

    python benchmarks/export.py [--backbone efficientnet_lite0] [--size 112] [--photos ../shared/data/aaf]

1. Milliseconds per photo (least of ROUNDS, the four taking turns so that a busy machine slows all alike): torch, then
   onnxruntime in float32, float16 and int8, with 1 and 2 threads, for 1 and 32 photos at once, and the ratio to torch.
2. Loss, where the photos are here: logistic classifiers of gender and age group on frozen ImageNet features (a harsh
   test: nothing has learnt to be robust), fitted on 1,600 people, judged on 800 others.

Measured on 2 cores of a Xeon with AVX-512 VNNI and AMX, EfficientNet-Lite0, 112 x 112, onnxruntime 1.32, torch 2.14,
other work on the machine: float32 3.2 ms a photo (1 thread, one at a time), float16 3.3, int8 1.8; 13.5, 6.8 and 3.9
MB. torch took 3 to 5 times as long as float32. Difference of probabilities to float32 (mean; largest), answers changed,
macro F1 of the six gender x age groups (float32: 0.484):
    float16                            0.0001; 0.005    0.1 %   0.485
    int8 as written                    0.0105; 0.39    13.8 %   0.485
    int8, all eight bits               0.0069; 0.33     8.8 %   0.489   overflows without VNNI
    int8, seven bits for all           0.0135; 0.49    16.3 %   0.480
    int8, depthwise left in float32    0.0213; 0.75    27 %     0.483   and slower: numbers are cast back and forth
    int8, convolutions alone           0.0272; 0.87    34 %     0.434   ReLU6 must be inside, or it widens the ranges
    int8, eight bits, 99.99 percentile 0.0066; 0.33     7.6 %   0.504   not worth its memory (all activations)
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from threefold import labels
from threefold.evidence.metrics import f1_per_class
from threefold.export.graph import Averaged, finished, halve, quantise, to_onnx
from threefold.learn.backbones import trained_colours
from threefold.learn.net import Net, bind_net, to_float
from threefold.learn.target import make_target
from threefold.photos.decode import decode
from threefold.photos.prepare import Prepare

ROUNDS, FITTED, JUDGED = 15, 1600, 800
Read = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def faces(folder: Path, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int8], NDArray[np.str_]]:
    """Photos [N, size, size, 3], truth [N, 3] and persons of as many as are needed, drawn with a seed."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))[: FITTED + JUDGED]]
    prepare = Prepare(size=(size, size))
    images = np.stack([prepare(decode(folder / row["file"])) for row in chosen])
    truth = [(2, labels.parse("gender", row["gender"]), labels.age_group(float(row["age"]))) for row in chosen]
    return images, np.array(truth, dtype=np.int8), np.array([row["person"] for row in chosen])


def fit(net: Net, images: NDArray[np.uint8], truth: NDArray[np.int8], persons: NDArray[np.str_]) -> None:
    """The net's logistic heads on its own features."""
    with torch.inference_mode():
        parts = [net.features(to_float(torch.from_numpy(images[at : at + 64]))) for at in range(0, len(images), 64)]
    nothing = np.full(len(images), np.nan, dtype=np.float32)
    net.head.fit(torch.cat(parts).numpy(), make_target(truth, nothing, labels.CUTS), persons, 0)  # type: ignore[operator]


def reader(model: Any, threads: int) -> Read:
    """A function that reads photos with a graph on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = onnxruntime.InferenceSession(finished(model, "k", "v"), options, providers=["CPUExecutionProvider"])
    return lambda photos: session.run(["probabilities"], {"photos": photos})[0]


def latency(net: Net, models: dict[str, Any], size: int) -> None:
    """The table of 1."""

    def by_torch(photos: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return net.read(torch.from_numpy(photos))[0].numpy()

    for threads in (1, 2):
        torch.set_num_threads(threads)
        reads: dict[str, Read] = {"torch": by_torch, **{name: reader(model, threads) for name, model in models.items()}}
        for batch in (1, 32):
            photos = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
            spent: dict[str, list[float]] = {name: [] for name in reads}
            for _ in range(ROUNDS + 2):
                for name, read in reads.items():
                    begin = time.perf_counter()
                    read(photos)
                    spent[name].append((time.perf_counter() - begin) * 1e3 / batch)
            least = {name: min(times[2:]) for name, times in spent.items()}
            cells = [f"{name} {ms:6.2f} ms ({least['torch'] / ms:4.1f} x)" for name, ms in least.items()]
            print(f"{threads} thread(s), batch {batch:2}: " + "   ".join(cells), flush=True)


def loss(models: dict[str, Any], images: NDArray[np.uint8], truth: NDArray[np.int8]) -> None:
    """The table of 2."""
    label = labels.encode_all(truth)
    joints = {}
    for name, model in models.items():
        read = reader(model, 2)
        joints[name] = np.concatenate([read(images[at : at + 32]) for at in range(0, len(images), 32)])
    for name, joint in joints.items():
        apart = np.abs(joint - joints["float32"])
        changed = (joint.argmax(1) != joints["float32"].argmax(1)).mean()
        f1 = f1_per_class(label, joint.argmax(1))[12:].mean()
        size = len(finished(models[name], "k", "v")) / 1e6
        print(f"{name:8} {size:5.1f} MB   {apart.mean():.4f}; {apart.max():.3f}   {changed:6.1%}   macro F1 {f1:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/aaf"))
    asked = parser.parse_args()
    size = (asked.size, asked.size)
    torch.manual_seed(0)
    mean, std = trained_colours(asked.backbone)
    make_net = bind_net(asked.backbone, "logistic(C=0.01)", pretrained="registry")
    net = make_net(Prepare(size=size, mean=mean, std=std)).eval()
    here = (asked.photos / "labels.csv").is_file()
    if here:
        images, truth, persons = faces(asked.photos, asked.size)
        fit(net, images[:FITTED], truth[:FITTED], persons[:FITTED])
    else:
        print(f"{asked.photos}: no photos here; ranges come from random ones, and the loss is not measured")
        images = np.random.default_rng(0).integers(0, 256, (256, *size, 3), dtype=np.uint8)
    plain = to_onnx(Averaged([net]), [size], ["photos"], ["probabilities", "years"])
    batches = [{"photos": images[at : at + 16]} for at in range(0, 256, 16)]
    models = {"float32": plain, "float16": halve(plain), "int8": quantise(plain, batches)}
    latency(net, models, asked.size)
    if here:
        loss(models, images[FITTED:], truth[FITTED:])


if __name__ == "__main__":
    main()
