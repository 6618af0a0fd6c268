"""The public surface: complete, sorted, found where it says; and what starts without torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_run import simulate, write_run

import threefold
import threefold.data
import threefold.evidence

HEAVY = ("torch", "timm", "kornia", "lightning", "lightning_fabric", "matplotlib", "tensorboard")
ROOMS = [
    module.name
    for room in (threefold.data, threefold.evidence)
    for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
]


def test_the_surface_is_sorted_and_complete():
    assert threefold.__all__ == sorted(set(threefold.__all__))
    promised = {"train", "load", "Reader", "read_faces", "deal_folds", "Predictions", "macro_f1", "ThreefoldError"}
    assert promised <= set(threefold.__all__)
    assert set(dir(threefold)) == {*threefold.__all__, "__version__"}


@pytest.mark.parametrize("name", threefold.__all__)
def test_a_name_is_where_it_says_and_documented(name):
    home = threefold._HOMES[name]
    value = getattr(threefold, name)
    assert value is getattr(sys.modules[home], name)
    assert value.__module__ == home
    assert value.__doc__


SHARED = sorted({module.name for module in pkgutil.iter_modules(threefold.__path__)} & set(threefold.__all__))


@pytest.mark.parametrize("name", SHARED)
def test_a_verb_with_the_name_of_a_room_is_the_verb_whatever_was_imported_before(name):
    code = f"import threefold.{name}, threefold; assert threefold.{name}.__module__ == {threefold._HOMES[name]!r}"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = f"import threefold; threefold.{name}; import threefold.{name}; assert callable(threefold.{name})"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'threefold' has no attribute 'trian'$"):
        _ = threefold.trian
    assert threefold.__version__.count(".") == 2


def loaded(code):
    """Which heavy libraries a fresh interpreter has loaded after running some code."""
    ask = f"import sys\n{code}\nprint('loaded:', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


HELP = """
sys.argv = ["threefold", "--help"]
from threefold.cli import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
"""


VERBS = """
sys.modules.update(dict.fromkeys(("torch", "jinja2", "matplotlib", "sklearn", "cleanlab", "scipy", "pandas")))
from pathlib import Path
from threefold.pages.{module} import {verb} as work
work({arguments})
"""


@pytest.mark.parametrize(
    ("module", "verb", "arguments"),
    [
        ("runs_page", "runs", "Path('runs')"),
        ("report", "report", "Path('runs/a')"),
        ("compare_page", "compare", "[Path('runs/a'), Path('runs/b')], draws=100"),
        ("shake_page", "shake", "[Path('runs/a'), Path('runs/b')], draws=100"),
        ("decide_page", "decide", "Path('runs/a')"),
    ],
)
def test_the_small_install_answers_what_needs_no_page(tmp_path, monkeypatch, module, verb, arguments):
    for name, seed in (("a", 0), ("b", 1)):
        write_run(tmp_path / "runs" / name, replace(simulate(40, 2), probabilities=simulate(40, 2, seed).probabilities))
    monkeypatch.chdir(tmp_path)
    loaded(VERBS.format(module=module, verb=verb, arguments=arguments))  # raises where one of them is imported


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import threefold", id="package"),
        pytest.param(HELP, id="help"),
        pytest.param("import threefold.read.reader; from threefold import Predictions, Recipe, Run", id="reader"),
        pytest.param("\n".join(f"import {room}" for room in ROOMS), id="data and evidence"),
    ],
)
def test_what_needs_no_network_loads_none(code):
    assert loaded(code) == []


def test_the_probe_sees_what_is_loaded():
    pytest.importorskip("matplotlib")
    assert loaded("import matplotlib") == ["matplotlib"]
    assert len(ROOMS) > 5


def test_the_command_is_installed_and_says_what_it_can():
    command = Path(sys.executable).with_name("threefold")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for verb in ("sample", "synth", "check", "train", "predict", "report", "runs"):
        assert f"  {verb} " in done.stdout
