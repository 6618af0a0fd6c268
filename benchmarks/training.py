"""Training step on a CPU, ours against the plain way: CPU time of one thread, and the ratios, in one run.

python benchmarks/training.py [--backbone tf_efficientnet_lite0] [--size 128x96] [--batch 32] [--steps 6]

Channels first against channels last, and memory given back after every step against memory kept (learn/memory.py),
which is measured last because it cannot be undone.
"""

from __future__ import annotations

import argparse
import time

import torch

from threefold.learn.memory import keep_memory
from threefold.learn.net import bind_net, to_float
from threefold.photos.prepare import Prepare, parse_size


def seconds(backbone: str, size: tuple[int, int], batch: int, steps: int, memory_format: torch.memory_format) -> float:
    """Least CPU time of one update, of `steps`."""
    torch.manual_seed(0)
    net = bind_net(backbone, "multi")(Prepare(size=size)).train()
    if memory_format is torch.contiguous_format:
        net.to(memory_format=memory_format)
        first = next(module for module in net.backbone.children())
        first.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    photos = torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8)
    spent = []
    for _ in range(steps):
        begin = time.process_time()
        loss = sum(raw.logsumexp(1).mean() for raw in net(to_float(photos)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent.append(time.process_time() - begin)
    return min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=parse_size, default=(128, 96))
    asked = parser.parse_args()
    torch.set_num_threads(1)  # waiting threads would count as work
    step = (asked.backbone, asked.size, asked.batch, asked.steps)
    first = seconds(*step, torch.contiguous_format)
    last = seconds(*step, torch.channels_last)
    can = keep_memory()
    memory = seconds(*step, torch.channels_last)
    print(
        f"{asked.backbone}, batch {asked.batch}, {asked.size[0]}x{asked.size[1]}, one thread, torch {torch.__version__}"
    )
    lines = (("channels first", first, first), ("channels last", last, first), ("and memory kept", memory, last))
    for name, spent, than in lines:
        print(f"{name:15} {asked.batch / spent:6.1f} photos/s, {than / spent:.2f} times as fast as the line above")
    if not can:
        print("this C library keeps no memory: the last line is the second again")


if __name__ == "__main__":
    main()
