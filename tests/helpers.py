"""A tiny practice set of coloured squares in the contest's layout, and the command line run for real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "threefold"]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY = (
    "model.backbone=test_efficientnet",
    "model.pretrained=none",
    "prepare.size=32x24",
    "train.device=cpu",
    "train.batch=16",
)
EXAMPLES = {
    "bins": "bins(starts=[0,15,30,45,60,75])",
    "one": "one(mask)",
    "stages": "stages(1)",
    "given": "given(mean=[0.1,0.5,0.9], std=[0.2,0.3,0.4])",
}
"""Of the components that have an option without a default; every other one is tested by its name alone."""
MASKS = {**{f"mask{i}": 0 for i in range(1, 6)}, "incorrect_mask": 1, "normal": 2}


def every(table: Mapping[str, object]) -> list[str]:
    """Each row of a table of components as a recipe writes it: what a suite of contracts runs over."""
    return [EXAMPLES.get(name, name) for name in table]


def threefold(*args: object, cwd: Path, check: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; assert its exit code unless `check` is None, and that it never shows a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=environment(cwd, **env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def refused(*args: object, cwd: Path) -> str:
    """Run the command line, which must say no: exit code 2 and one line on stderr, which is returned."""
    done = threefold(*args, cwd=cwd, check=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("threefold: ")]
    assert len(lines) == 1 and done.stderr.rstrip().endswith(lines[0]), done.stderr
    return lines[0]


def environment(cwd: Path, **more: str) -> dict[str, str]:
    """Own cache below `cwd`, one thread, no terminal."""
    return {**os.environ, "THREEFOLD_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1", **more}


def square(
    person: int, mask: int, gender: int, group: int, photo: int, size: tuple[int, int] = (40, 32)
) -> Image.Image:
    """Colour tells the labels; noise and a pattern of their own keep people and photos apart."""
    rng = np.random.default_rng([person, photo])
    own = np.kron(np.random.default_rng(person).normal(0, 25, (8, 8)), np.ones((size[0] // 8, size[1] // 8)))
    colour = np.array([mask * 90 + 40, gender * 150 + 50, group * 90 + 40])
    return Image.fromarray(np.clip(rng.normal(colour, 12, (*size, 3)) + own[..., None], 0, 255).astype(np.uint8))


def contest(root: Path, people: int = 12, eval_people: int = 6) -> Path:
    """root/train and root/eval with answers; six gender x age groups in turn."""
    (root / "train/images").mkdir(parents=True)
    (root / "eval/images").mkdir(parents=True)
    rows, answers = ["id,gender,race,age,path"], ["ImageID,ans,person,age"]
    for i in range(people + eval_people):
        gender, group = i % 2, i // 2 % 3
        age = (22, 44, 60)[group]
        name = f"{i:06d}_{('male', 'female')[gender]}_Drawn_{age}"
        folder = root / ("train/images/" + name if i < people else "eval/images")
        folder.mkdir(parents=True, exist_ok=True)
        if i < people:
            rows.append(f"{i:06d},{('male', 'female')[gender]},Drawn,{age},{name}")
        for photo, (stem, mask) in enumerate(MASKS.items()):
            file = f"{stem}.jpg" if i < people else f"{i:020x}{photo:020x}.jpg"
            square(i, mask, gender, group, photo).save(folder / file, quality=95)
            if i >= people:
                answers.append(f"{file},{mask * 6 + gender * 3 + group},p{i},{age}")
    (root / "train/train.csv").write_text("\n".join(rows) + "\n")
    (root / "eval/answers.csv").write_text("\n".join(answers) + "\n")
    info = ["ImageID,ans", *(f"{line.split(',')[0]},0" for line in reversed(answers[1:]))]
    (root / "eval/info.csv").write_text("\n".join(info) + "\n")
    return root
