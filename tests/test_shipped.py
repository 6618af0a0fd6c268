"""Recipes that come with the package are found by name, listed and copied."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import threefold
from threefold.errors import RecipeError
from threefold.recipe import find_recipe, load_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "name", ["base", "base.yaml", "recipes/base.yaml", "contest/004", "004", "recipes/contest/004.yaml"]
)
def test_a_recipe_is_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name).stem == Path(name).stem
    assert load_recipe(name) == load_recipe(find_recipe(name))


def test_a_file_of_ones_own_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("train.epochs: 77\n")
    assert load_recipe("base.yaml").train.epochs == 77
    assert load_recipe("base").train.epochs != 77
    (tmp_path / "best").mkdir()  # a run of that name, say
    assert find_recipe("best").name == "best.yaml"


@pytest.mark.parametrize("name", ["bsae", "somewhere/base.yaml", "contest/999", ""])
def test_no_other_name_is_guessed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="no such recipe"):
        find_recipe(name)


def test_recipes_are_listed_with_what_they_are_for_and_copied(tmp_path):
    assert set(threefold.recipes().data()["recipes"]) == set(shipped_recipes())
    assert all(threefold.recipes().data()["recipes"].values()), "every recipe says what it is for"
    assert set(threefold.recipes("contest/004").data()["recipes"]) == {
        name for name in shipped_recipes() if name.startswith("contest/004")
    }
    out = tmp_path / "mine.yaml"
    threefold.recipes("base", out=out)
    assert out.read_text() == (ROOT / "recipes/base.yaml").read_text()
    with pytest.raises(RecipeError, match="nothing is overwritten"):
        threefold.recipes("base", out=out)
    with pytest.raises(RecipeError, match=r"no such recipe \(.*nearest: base"):
        threefold.recipes("bas1")


@pytest.mark.slow
def test_the_wheel_carries_them(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    assert {f"threefold/{name}" for name in expected} <= names
    assert {"threefold/components.json", "threefold/__init__.pyi", "threefold/py.typed"} <= names
