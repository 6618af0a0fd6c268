"""Runs on the same folds in one table: macro F1 out of fold, and the paired difference to the first of them.

python benchmarks/systems.py runs/base runs/000 runs/001 ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

from threefold.evidence.compare import compare_predictions
from threefold.predictions import Predictions
from threefold.runs import Run


def main(paths: list[str]) -> None:
    """Print the table."""
    first = Predictions.load(Path(paths[0]) / "oof.npz")
    print("| run | macro F1 (95 % interval) | mask | gender | age group | minus the first (95 % interval) |")
    print("|---|---|---|---|---|---|")
    for path in paths:
        metrics = Run.open(Path(path)).metrics
        score = metrics["macro_f1"]
        parts = " | ".join(f"{metrics[name]['macro_f1']['value']:.3f}" for name in ("mask", "gender", "age_group"))
        gap = compare_predictions(Predictions.load(Path(path) / "oof.npz"), first).difference["all.macro_f1"]
        apart = "" if path == paths[0] else f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"
        name = Path(path).name
        print(f"| {name} | {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) | {parts} | {apart} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run directories")
    main(parser.parse_args().runs)
