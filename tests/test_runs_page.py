"""`threefold runs`: order, states, what may be compared, and that no score is cut."""

from __future__ import annotations

import pytest
from fake_run import simulate, write_run

from threefold.errors import RunError
from threefold.evidence.metrics import measure
from threefold.pages.runs_page import runs, runs_table


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two that may be compared, one on other folds, one failed, one stopped, one damaged, one without ages."""
    root = tmp_path_factory.mktemp("runs")
    hypothesis = {
        "hypothesis": "a hypothesis [bold]so long[/bold] that it does not fit into any table at all",
        "baseline": "b.yaml",
    }
    write_run(root / "low", simulate(30, 3, seed=1), recipe=hypothesis)
    write_run(root / "deep" / "high", simulate(30, 3, seed=4))
    write_run(root / "other", simulate(30, 3, seed=2), folds_digest="another")
    write_run(root / "partial", simulate(30, 3, known=(True, True, False)))
    failed = write_run(root / "failed", simulate(10, 2), complete=False)
    (failed.path / "failed.txt").write_text("Traceback")
    write_run(root / "stopped", simulate(10, 2), complete=False)
    damaged = write_run(root / "damaged", simulate(10, 2))
    (damaged.path / "metrics.json").write_text("{")
    return root


def test_best_first_and_every_state_is_there(root):
    rows = {row.name: row for row in runs_table(root)}
    assert {name: row.state for name, row in rows.items()} == {
        "low": "complete", "deep/high": "complete", "other": "complete", "partial": "complete",
        "failed": "failed", "stopped": "stopped", "damaged": "damaged",
    }  # fmt: skip
    scores = [row.macro_f1["value"] for row in rows.values() if row.macro_f1]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert list(rows)[3:] == ["damaged", "failed", "partial", "stopped"]
    expected = measure(simulate(30, 3, seed=1), draws=200)
    assert (rows["low"].macro_f1, rows["low"].accuracy) == (expected["macro_f1"], expected["accuracy"])
    assert (rows["low"].people, rows["low"].photos, rows["low"].folds, rows["low"].baseline) == (30, 210, "5", "b.yaml")


def test_other_folds_get_another_letter(root):
    rows = {row.name: row.group for row in runs_table(root)}
    assert rows["low"] == rows["deep/high"] != rows["other"]
    assert "Do not compare those scores." in str(runs(root))
    assert "Do not compare" not in str(runs(root / "deep"))


def test_plain_text_holds_everything_on_one_line_each(root):
    lines = runs(root).lines()
    line = next(line for line in lines if line.startswith("low"))
    score = measure(simulate(30, 3, seed=1), draws=200)["macro_f1"]
    assert f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]" in line
    assert "a hypothesis [bold]so long[/bold] that it does…" in line
    for part in ("complete", "b.yaml", "12.6 min", "2026-11-22", "210", " 30 "):
        assert part in line
    assert len(lines) == 1 + 7 + 1


@pytest.mark.parametrize("width", [60, 80, 100, 130, 200, 500])
def test_no_terminal_cuts_a_score(root, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))  # as a terminal of this width tells
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    text = str(runs(root))
    for row in runs_table(root):
        if row.macro_f1:
            assert f"{row.macro_f1['value']:.4f} [{row.macro_f1['low']:.4f}, {row.macro_f1['high']:.4f}]" in text
    assert ("left out, the terminal is too narrow" in text) == (width < 500)
    assert width < 80 or max(map(len, text.splitlines()[:8])) <= width


def test_no_runs_and_no_folder(tmp_path):
    assert str(runs(tmp_path)) == f"no runs in {tmp_path}"
    with pytest.raises(RunError, match="no such folder"):
        runs(str(tmp_path / "nowhere"))
