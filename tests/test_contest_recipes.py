"""The published systems: every recipe can be planned and says its command; docs/systems.md points at what exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from threefold.learn.plan import make_plan
from threefold.recipe import PARTS, Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "recipes/contest"
FILES = sorted(FOLDER.glob("*.yaml"))
PAGE = (ROOT / "docs/systems.md").read_text(encoding="utf-8")
OVERRIDE = r"(?:(?:data|prepare|model|loss|train|parts)\.[a-z_.]+|optim|schedule|tta|track|seed)="
SECTIONS = re.findall(r"^## \S+: .*? - `(\S+\.yaml)`\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)


def head(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n\n")[0]


@cache
def flat(name: str) -> dict[str, object]:
    return load_recipe(FOLDER / name).flat()


def plan(recipe: Recipe) -> None:
    for chosen in [recipe.part(name) for name in PARTS] if recipe.parts else [recipe]:
        make_plan(chosen)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_whole(path: Path) -> None:
    recipe = load_recipe(path)
    plan(recipe)
    assert recipe.hypothesis and recipe.model.pretrained != "registry"
    text = re.sub(r"\n# ?", " ", head(path))
    for words in ("Differs from the original:", "Measured: see docs/log.md", "dition"):
        assert words in text, words
    assert head(path).startswith("# ") and f"threefold train recipes/contest/{path.name} --data DATA" in head(path)
    if recipe.baseline:
        assert (ROOT / recipe.baseline).is_file()
        lead = load_recipe(ROOT / recipe.baseline)  # only what has the same folds can be compared or voted with
        assert (recipe.data.folds, recipe.data.seed) == (lead.data.folds, lead.data.seed)


@pytest.mark.parametrize("system", ["000", "001", "002", "003", "004", "4cv09", "5cv14"])
def test_a_system_is_there_and_what_votes_in_it_too(system: str) -> None:
    text = head(FOLDER / f"{system}.yaml")
    trained = re.findall(r"threefold train recipes/contest/(\S+)\.yaml --data DATA --out runs/(\S+)", text)
    assert trained[0] == (system, system) and all(name == run for name, run in trained)
    assert all((FOLDER / f"{name}.yaml").is_file() for name, _ in trained)
    for vote in re.findall(r"threefold ensemble (.*)", text):
        members = re.findall(r"runs/(\S+)", vote.split("--out")[0])
        assert set(members) == {name for name, _ in trained}
        weights = re.search(r"--weights (\S+)", vote)
        assert weights is None or len(weights[1].split(",")) == len(members)


def test_the_page_has_every_system_and_every_recipe() -> None:
    assert [name for name, _ in SECTIONS] == [
        f"{name}.yaml" for name in ("000", "001", "002", "003", "004", "4cv09", "5cv14")
    ]
    assert {path.name for path in FILES} == set(re.findall(r"`(\S+?\.yaml)`", PAGE))


def cells() -> list[tuple[str, str, str]]:
    """(recipe the cell speaks of, key, text) of each `key: value` and (recipe, "", overrides) of each `key=value`."""
    named_cells = []
    for name, section in SECTIONS:
        for row in re.findall(r"^\| (?!part )(?!---)(.*) \|$", section, flags=re.MULTILINE):
            columns = re.split(r"(?<!\\)\|", row)
            assert len(columns) == 5, row
            file = name
            for code in re.findall(r"`(.+?)`", columns[2].replace("\\|", "|")):
                pair = re.fullmatch(r"([a-z_.]+): (.+)", code)
                if code.endswith(".yaml"):
                    file = code
                elif pair:
                    named_cells.append((file, pair[1], pair[2]))
                elif re.match(OVERRIDE, code):
                    named_cells.append((file, "", code))
    return named_cells


def test_every_line_the_page_names_is_in_its_recipe() -> None:
    lines = [(file, key, value) for file, key, value in cells() if key]
    assert len(lines) > 100
    default = Recipe().flat()
    for file, key, value in lines:
        stored = flat(file).get(key)
        assert str(stored).lower() == value.lower(), (file, key, value, stored)
        written = f"\n{key}: " in (FOLDER / file).read_text(encoding="utf-8")
        assert written or str(default[key]) == value, (file, key)


OVERRIDES = sorted({(file, code) for file, key, code in cells() if not key})


@pytest.mark.parametrize(("file", "code"), OVERRIDES)
def test_every_override_the_page_names_can_be_planned(file: str, code: str) -> None:
    overrides = re.split(rf" (?={OVERRIDE})", code)
    plan(load_recipe(FOLDER / file, overrides))


def test_the_page_names_tests_and_files_that_exist() -> None:
    traps = PAGE[PAGE.index("## Traps") :]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", traps)
    assert len(named) >= 20 and all(f"def {name}(" in tests for name in named)
    assert all((ROOT / "src/threefold" / name).is_file() for name in re.findall(r"`(\w+/\w+\.py)`", PAGE))
