"""Run directories: never overwritten, their state told right while another process really holds them, damage told."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from threefold.errors import RecipeError, RunError
from threefold.files import write_json
from threefold.recipe import make_recipe
from threefold.runs import FORMAT, Run, run_folders

RECIPE = make_recipe({"model.head": "flat18"})


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "first", RECIPE, {"commit": "abc", "seed": 3})


@pytest.fixture
def other(run):
    """A second process that trains the run until the test ends."""
    code = """if True:
        import sys, time
        from pathlib import Path
        from threefold.runs import Run
        with Run.open(Path(sys.argv[1])).training():
            print("training", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "training\n"
    yield process
    process.kill()
    process.wait()


def test_what_is_created_is_opened(run):
    opened = Run.open(run.path)
    assert opened.recipe == RECIPE
    assert opened.stamp == {"format": FORMAT, "commit": "abc", "seed": 3}
    assert opened.name == "first"
    assert opened.state == "stopped"
    assert sorted(p.name for p in run.path.iterdir()) == ["recipe.yaml", "stamp.json"]


def test_a_folder_of_runs_is_no_run_but_names_them(run, tmp_path):
    with pytest.raises(RunError, match=r"runs: not a run directory \(no stamp\.json\); runs in it: first$"):
        Run.open(tmp_path / "runs")
    for number in range(9):
        Run.create(tmp_path / "many" / f"seed{number}", RECIPE, {})
    with pytest.raises(RunError, match=r"runs in it: seed0, .*seed7, \.\.\.$"):
        Run.open(tmp_path / "many")


def test_an_empty_recipe_is_not_taken_for_one_of_defaults(run):
    (run.path / "recipe.yaml").write_text("")
    with pytest.raises(RunError, match=r"recipe\.yaml: is empty"):
        _ = run.recipe


def test_a_baseline_is_remembered_where_its_file_is_gone(tmp_path, monkeypatch):
    base, recipe = tmp_path / "base.yaml", make_recipe({"baseline": "base.yaml", "train.mix": "mixup"})
    run = Run.create(tmp_path / "run", recipe, {"baseline": RECIPE.flat()})
    monkeypatch.chdir(run.path)
    assert run.baseline() == (RECIPE, None)
    base.write_text("tta: flip\n")
    assert run.baseline()[0] == make_recipe({"tta": "flip"}), "a file that is there is asked first"
    gone = Run.create(tmp_path / "gone", recipe, {"baseline": None})
    base.unlink()
    with pytest.raises(RecipeError, match=r"baseline 'base\.yaml' is not here"):
        gone.baseline()


def test_a_run_is_never_overwritten(run, tmp_path):
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(RunError, match=r"first: is already there .*choose another --out; --resume goes on with it$"):
        Run.create(run.path, make_recipe({}), {})
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "file").touch()
    for taken in ("photos", "file"):
        with pytest.raises(RunError, match=rf"{taken}: is already there .*choose another --out$"):
            Run.create(tmp_path / taken, RECIPE, {})
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", RECIPE, {}).state == "stopped"


def test_what_is_no_run(run, tmp_path):
    (run.path.parent / "notes").mkdir()
    with pytest.raises(RunError, match=r"frist: no such run \(known: first; nearest: first in "):
        Run.open(run.path.parent / "frist")
    with pytest.raises(RunError, match=r"no such run \(known: none in "):
        Run.open(tmp_path / "nowhere" / "x")
    with pytest.raises(RunError, match=r"notes: not a run directory \(no stamp\.json\)"):
        Run.open(run.path.parent / "notes")
    with pytest.raises(RunError, match=r"stamp\.json: no such run"):
        Run.open(run.path / "stamp.json")


@pytest.mark.parametrize(
    ("stamp", "message"),
    [
        ('{"format": 99}', r"run of format 99, this version reads 1"),
        ("{}", r"run of format None, this version reads 1"),
        ('{"format": 1', r"stamp\.json: cannot be read \("),
        ("", r"stamp\.json: cannot be read \("),
        ("[1]", r"stamp\.json: expected an object, found list"),
        ("\ufeff\x00", r"stamp\.json: cannot be read \("),
    ],
)
def test_a_damaged_stamp_is_one_line(run, stamp, message):
    (run.path / "stamp.json").write_text(stamp, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        Run.open(run.path)
    assert "\n" not in str(caught.value)


def test_the_states_of_a_run(run):
    with pytest.raises(RunError, match=r"run is stopped, not complete; `threefold train \.\.\. --resume` finishes it"):
        run.need_complete()
    with pytest.raises(RunError, match=r"metrics\.json: is missing; the run is incomplete"):
        _ = run.metrics
    with pytest.raises(ZeroDivisionError), run.training():
        assert run.state == "running"
        _ = 1 / 0
    assert run.state == "failed"
    assert "ZeroDivisionError" in (run.path / "failed.txt").read_text(encoding="utf-8")
    with run.training():  # resumed: the old failure is over
        assert not (run.path / "failed.txt").exists()
    assert run.state == "stopped"
    write_json(run.path / "metrics.json", {"photos": 1})
    assert run.state == "complete"
    assert run.metrics == {"photos": 1}
    run.need_complete()


def test_ctrl_c_is_stopped_not_failed(run):
    with pytest.raises(KeyboardInterrupt), run.training():
        raise KeyboardInterrupt
    assert run.state == "stopped"


def test_another_process_has_it_until_it_is_killed(run, other):
    (run.path / "failed.txt").write_text("of an earlier try")
    assert run.state == "running"
    with pytest.raises(RunError, match=r"first: another process is training this run"), run.training():
        pytest.fail("two processes train one run")
    assert (run.path / "failed.txt").exists()  # the one that was refused changed nothing
    other.kill()
    other.wait()
    assert run.state == "failed"
    with run.training():
        assert run.state == "running"


def test_looking_disturbs_nobody(run):
    with run.training():
        pass
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: run.state, range(40)))  # others who look at the same moment
    assert states == ["stopped"] * 40


def test_the_log_without_its_half_written_end(run):
    assert run.log == []
    rows = [{"epoch": 1, "note": "줄\u2028바꿈"}, {"epoch": 2}]
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    half = '{"epoch": 3, "note": "사'.encode()
    for cut in (0, 5, len(half), len(half) - 1):  # the last one within a character
        (run.path / "log.jsonl").write_bytes(whole + half[:cut])
        assert run.log == rows
    (run.path / "log.jsonl").write_bytes(b'{"epoch": 1\n' + whole)
    with pytest.raises(RunError, match=r"log\.jsonl: cannot be read \("):
        _ = run.log


def test_runs_are_listed_by_path(run, tmp_path):
    root = tmp_path / "runs"
    deep = Run.create(root / "b" / "deep", RECIPE, {})
    foreign = Run.create(root / "a", RECIPE, {})
    (foreign.path / "stamp.json").write_text('{"format": 2}')
    (root / "notes").mkdir()
    assert run_folders(root) == [foreign.path, deep.path, run.path]
    assert run_folders(run.path) == [run.path]
    with pytest.raises(RunError, match=r"nowhere: no such folder of runs"):
        run_folders(tmp_path / "nowhere")
