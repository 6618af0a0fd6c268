"""benchmarks/phenomena.py: its runs are trained once, reused where they fit, refused where not; what it prints."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers import TINY, contest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # its scripts import each other as they are run, by name

import phenomena  # noqa: E402
import phenomena_runs  # noqa: E402

SMALL = [word for text in (*TINY, "train.epochs=1") for word in ("--set", text)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    contest(folder / "set", people=12, eval_people=3)
    return folder / "set"


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The names of runs as they are trained."""
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path / "cache"))
    names, train = [], phenomena_runs.train
    monkeypatch.setattr(
        phenomena_runs, "train", lambda r, *, out, **o: names.append(out.name) or train(r, out=out, **o)
    )
    return names


def test_a_run_is_trained_once_and_refused_for_other_photos_or_another_budget(data, trained, tmp_path, capsys):
    asked = ["traps", str(data), *SMALL]
    for _ in range(2):
        phenomena.main(asked)
    text = capsys.readouterr().out
    assert trained == ["base"] and (data.parent / "runs/base/metrics.json").exists()
    assert text.count("| 3 one transform for both sides") == 2 and "photos hold 3 and 3 |" in text
    lines = text.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] and all(re.fullmatch(r"\|.*\|", line) for line in lines)
    other = tmp_path / "other"
    contest(other, people=13, eval_people=3)
    refusals = {
        "was trained on other photos or labels": ["traps", str(other), "--runs", str(data.parent / "runs"), *SMALL],
        "base: was made with train.epochs=1; expected train.epochs=2": [*asked, "--set", "train.epochs=2"],
        "no such folder or file": ["traps", str(tmp_path / "nowhere")],
    }
    for message, words in refusals.items():
        with pytest.raises(SystemExit) as stopped:
            phenomena.main(words)
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and message in said and said.count("\n") == 1
    assert trained == ["base"]


def test_the_docs_name_each_command():
    text = (ROOT / "docs/evidence.md").read_text()
    for what in ("split", *phenomena.NEEDS):
        assert re.search(rf"^    python benchmarks/phenomena\.py {what} twin700 +# \([a-d]\)", text, re.M), what
