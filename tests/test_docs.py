"""Documents cannot lie about names: every key, component and verb is in them, and every name in them exists."""

from __future__ import annotations

import re
from pathlib import Path

from threefold import spec
from threefold.cli import app
from threefold.data.layouts import SOURCES
from threefold.learn.ages import AGES
from threefold.learn.augment import AUGMENTS
from threefold.learn.backbones import BACKBONES
from threefold.learn.classical import CLASSICAL
from threefold.learn.copies import COPIES
from threefold.learn.distil import KEY as DISTIL
from threefold.learn.distil import TEACHERS
from threefold.learn.freeze import FREEZES
from threefold.learn.heads import HEADS
from threefold.learn.init import INITS
from threefold.learn.losses import LOSSES
from threefold.learn.mixing import MIXES
from threefold.learn.optim import OPTIMS, SCHEDULES
from threefold.learn.plan import KEEPS, NORMALISES, STOPS, make_plan
from threefold.learn.samplers import SAMPLERS
from threefold.learn.tta import VIEWS
from threefold.photos.background import BACKGROUNDS
from threefold.photos.prepare import CROPS, RESIZES
from threefold.recipe import KEYS, PARTS, Recipe, load_recipe, make_recipe
from threefold.train.tracking import TRACKERS

ROOT = Path(__file__).resolve().parents[1]
TABLES = (
    CROPS, RESIZES, BACKGROUNDS, NORMALISES, BACKBONES, INITS, HEADS, AGES, CLASSICAL, LOSSES, AUGMENTS, MIXES, COPIES,
    SAMPLERS, FREEZES, KEEPS, STOPS, OPTIMS, SCHEDULES, VIEWS, TRACKERS,
)  # fmt: skip


def test_every_key_and_component_is_documented() -> None:
    text = (ROOT / "docs/recipes.md").read_text()
    for key in KEYS:
        assert f"`{key}`" in text, key
    for name in {name for table in TABLES for name in table}:
        assert re.search(rf"`{name}[(`]", text), name
    assert all(f"`{name}:`" in (ROOT / "docs/data.md").read_text() for name in SOURCES)


def test_documented_keys_and_defaults_are_true() -> None:
    rows = re.findall(r"^\| (`.+?) \| (.*?) \|", (ROOT / "docs/recipes.md").read_text(), flags=re.MULTILINE)
    flat = Recipe().flat()
    for names, defaults in rows:
        keys = re.findall(r"`(.+?)`", names)
        values = re.findall(r"`(.+?)`", defaults) or [""] * len(keys)
        for key, value in zip(keys, values, strict=True):
            stored = flat[key]
            expected = (
                str(stored).lower()
                if isinstance(stored, bool)
                else f"{stored:g}"
                if isinstance(stored, float)
                else str(stored)
            )
            assert value == expected, key


def test_every_recipe_is_valid_and_opens_with_its_command() -> None:
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        recipe = load_recipe(path)
        for own in [recipe.part(name) for name in PARTS] if recipe.parts else [recipe]:
            taught = spec.parse(own.train.distil, DISTIL)  # by runs, which are made by the commands in its head
            assert {call.name for call in taught} <= {"none", *TEACHERS}
            make_plan(make_recipe(own.flat() | {"train.distil": "none"}))
        head = path.read_text().split("\n\n")[0].split("hypothesis")[0]
        assert f"threefold train {path.relative_to(ROOT)}" in head, path


def test_the_readme_knows_every_verb_and_names_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"^    threefold ([a-z]+)\b", text, flags=re.MULTILINE))
    assert verbs == named


def test_links_in_documents_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
