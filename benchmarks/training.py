"""Training step, channels last against channels first: seconds of one thread's CPU time, and their ratio, in one run.

python benchmarks/training.py [--backbone tf_efficientnet_lite0] [--batch 32] [--steps 6]
"""

from __future__ import annotations

import argparse
import time

import torch

from threefold.learn.net import build_net, to_float


def seconds(backbone: str, batch: int, steps: int, memory_format: torch.memory_format) -> float:
    """Least CPU time of one update at 128x96, of `steps`."""
    torch.manual_seed(0)
    net = build_net(backbone, "multi", (128, 96), (0.5,) * 3, (0.5,) * 3).train()
    if memory_format is torch.contiguous_format:
        net.to(memory_format=memory_format)
        first = next(module for module in net.backbone.children())
        first.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    photos = torch.randint(0, 256, (batch, 128, 96, 3), dtype=torch.uint8)
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
    asked = parser.parse_args()
    torch.set_num_threads(1)  # waiting threads would count as work
    first = seconds(asked.backbone, asked.batch, asked.steps, torch.contiguous_format)
    last = seconds(asked.backbone, asked.batch, asked.steps, torch.channels_last)
    print(f"{asked.backbone}, batch {asked.batch}, 128x96, one thread, torch {torch.__version__}")
    print(f"channels first {asked.batch / first:6.1f} photos/s\nchannels last  {asked.batch / last:6.1f} photos/s")
    print(f"ratio {first / last:.2f}")


if __name__ == "__main__":
    main()
