"""The reference of components: never stale, complete, and the first look at a recipe, which takes no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from threefold.components import check_names, describe, list_components, tables
from threefold.errors import RecipeError
from threefold.recipe import load_recipe, make_recipe, shipped_recipes

ROOT = Path(__file__).resolve().parents[1]


def test_what_was_generated_is_what_the_tables_say_today():
    from reference import document, json_text

    from threefold.components import FILE

    stale = "run `python tools/reference.py`"
    assert FILE.read_text(encoding="utf-8") == json_text(), stale
    assert (ROOT / "docs/components.md").read_text(encoding="utf-8") == document(), stale


def test_every_component_with_options_says_what_it_does():
    silent = [
        f"{name}: {row.usage}"
        for name, table in tables().items()
        for row in table.components.values()
        if row.options and not row.description
    ]
    assert silent == []


def test_a_row_that_is_added_appears_by_itself(monkeypatch):
    from reference import catalogue

    from threefold.learn.losses import LOSSES

    def poly1(counts: object, eps: float = 1.0) -> object:
        """Cross-entropy plus eps (1 - p); Leng et al., 2022."""
        return counts, eps

    monkeypatch.setitem(LOSSES, "poly1", poly1)
    row = catalogue()["losses"]["components"]["poly1"]
    assert (row["usage"], row["options"]) == ("poly1(eps=1.0)", [{"name": "eps", "type": "float", "default": "1.0"}])
    assert row["description"].startswith("Cross-entropy plus")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_passes_the_first_look(name):
    check_names(load_recipe(name))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.mix=cutmx", r"train\.mix: 'cutmx' is not known \(.*nearest: cutmix"),
        ("train.augment=flip|rotat(5)", r"train\.augment: 'rotat' is not known \(.*nearest: rotate"),
        ("loss.age=focal(gama=2)", r"loss\.age: focal has no option 'gama' \(known: gamma, weight; nearest: gamma"),
        ("loss.default=0.4*f1+0.6*fokal", r"loss\.default: 'fokal' is not known"),
        ("model.head=mutli", r"model\.head: 'mutli' is not known \(.*svm.*nearest: multi"),
        ("optim=adamw(lr=1e-3", r"optim: cannot read"),
        ("parts.age.optim=adamx", r"optim: 'adamx' is not known"),
        ("data.copies=young", r"data\.copies: 'young' is not known"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest(line, message):
    with pytest.raises(RecipeError, match=message):
        check_names(make_recipe({}, [line]))


def test_what_others_made_and_every_backbone_pass():
    check_names(make_recipe({}, ["loss.default=mylib.poly1(eps=1)", "model.backbone=resnet18", "track=none"]))


def test_the_first_look_loads_no_torch():
    code = (
        "import sys; from threefold.components import check_names; from threefold.recipe import load_recipe;"
        "check_names(load_recipe('contest/004')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_tables_are_listed_and_components_described():
    assert {"losses", "heads", "augments"} <= set(list_components().data())
    lines = list_components("losses").lines()
    assert any(line.startswith("focal(gamma=2.0") for line in lines)
    focal = describe("focal")
    assert focal.data()["losses"]["components"]["focal"]["options"][0] == {
        "name": "gamma",
        "type": "float",
        "default": "2.0",
    }
    assert "Lin et al." in str(focal)
    with pytest.raises(RecipeError, match=r"table 'loses' is not known \(.*nearest: losses"):
        list_components("loses")
    with pytest.raises(RecipeError, match=r"component 'fokal' is not known \(.*nearest: focal"):
        describe("fokal")
