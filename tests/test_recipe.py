"""Recipes: defaults, both ways to write a key, what wins over what, and each mistake as one line before any work."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from threefold.errors import RecipeError
from threefold.recipe import KEYS, Recipe, differences, load_recipe, make_recipe, write_recipe

PROMISED = set(
    """hypothesis baseline data.source data.folds data.seed prepare.crop prepare.size prepare.normalise
model.backbone model.pretrained model.head loss.default loss.mask loss.gender loss.age train.epochs train.batch
train.augment train.mix train.sampler train.early_stop train.ema optim schedule seed""".split()  # noqa: SIM905 - a list is as long again
)


@pytest.fixture
def write(tmp_path):
    def put(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return put


def test_the_promised_keys_are_there():
    assert set(KEYS) >= PROMISED
    assert tuple(Recipe().flat()) == KEYS
    assert len(set(KEYS)) == len(KEYS)


def test_an_empty_file_is_the_defaults(write):
    for text in ("", "# only a comment\n", "---\n", "loss.age:\n"):
        assert load_recipe(write(text)) == Recipe()


def test_flat_and_nested_say_the_same(write):
    flat = load_recipe(write("model.head: flat18\ntrain.epochs: 3\ntrain.ema: 0.9\nseed: 4\n"))
    nested = load_recipe(write("model: {head: flat18}\ntrain:\n  epochs: 3\n  ema: 0.9\nseed: 4\n"))
    mixed = load_recipe(write("model.head: flat18\ntrain:\n  epochs: 3\ntrain.ema: 0.9\nseed: 4\n"))
    assert flat == nested == mixed
    assert (flat.model.head, flat.train.epochs, flat.train.ema, flat.seed) == ("flat18", 3, 0.9, 4)
    assert flat.train.batch == Recipe().train.batch


def test_overrides_win_and_the_last_one_most(write):
    path = write("train.epochs: 3\nloss.age: focal\n")
    recipe = load_recipe(path, ["train.epochs=5", " train.epochs = 7", "loss.age=", "train.final=yes"])
    assert (recipe.train.epochs, recipe.loss.age, recipe.train.final) == (7, "", True)
    text = "loss.age=ce+0.5*merged_ce(weight=[1.5,1.5,7])"
    assert make_recipe({}, [text]).loss.age == "ce+0.5*merged_ce(weight=[1.5,1.5,7])"
    assert make_recipe({}, ["data.source=csv:a b/c,utkface:d"]).data.source == "csv:a b/c,utkface:d"
    assert (
        make_recipe({}, ["hypothesis=@bins: more, or less"]).hypothesis == "@bins: more, or less"
    )  # not YAML: as it is
    assert make_recipe({}, ["hypothesis=2026-13-45"]).hypothesis == "2026-13-45"


def test_numbers_in_other_clothes():
    assert make_recipe({"data.folds": 3}).data.folds == "3"
    assert make_recipe({"prepare.size": [128, 96]}).prepare.size == "128x96"
    assert make_recipe({"prepare.size": 224}).prepare.size == "224"
    assert make_recipe({"train.ema": "1e-3"}).train.ema == 1e-3  # YAML 1.1 reads 1e-3 as text
    assert make_recipe({"train.clip": 1}).train.clip == 1.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epochs", 0, "greater than or equal to 1"),
        ("train.epochs", "many", "valid integer"),
        ("train.epochs", 1.5, "valid integer"),
        ("train.epochs", True, "should be a number"),
        ("train.ema", 1, "less than 1"),
        ("train.ema", -0.1, "greater than or equal to 0"),
        ("train.ema", float("nan"), "less than 1"),
        ("train.ema", True, "should be a number"),
        ("train.final", "perhaps", "valid boolean"),
        ("seed", True, "should be a number"),
        ("seed", -1, "greater than or equal to 0"),
        ("data.seed", -1, "greater than or equal to 0"),
        ("data.folds", True, "valid string"),
        ("data.folds", 2.5, "valid string"),
        ("prepare.size", True, "valid string"),
        ("model.head", ["multi"], "valid string"),
        ("train.early_stop", False, "valid string"),  # `no` in YAML
    ],
)
def test_a_wrong_value_names_file_key_and_value(key, value, message):
    with pytest.raises(RecipeError, match=rf"^my\.yaml: {key} cannot be .*: .*{message}") as caught:
        make_recipe({key: value}, where="my.yaml")
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_override_is_the_command_lines(write):
    path = write("train.epochs: 3\n")
    with pytest.raises(RecipeError, match=r"^command line: train\.epochs cannot be 'x': "):
        load_recipe(path, ["train.epochs=x"])
    with pytest.raises(RecipeError, match=r"^command line: unknown key 'train\.epoch' .*nearest: train\.epochs\)$"):
        load_recipe(path, ["train.epoch=4"])
    with pytest.raises(RecipeError, match=r"^'train\.epochs': expected key=value, as in train\.epochs=20$"):
        load_recipe(path, ["train.epochs"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epoch: 3", r"unknown key 'train\.epoch' \(known: .*; nearest: train\.epochs\)$"),
        ("model: {hed: multi}", r"unknown key 'model\.hed' .*nearest: model\.head\)$"),
        ("train: 5", r"unknown key 'train' "),
        ("1: 2", r"unknown key '1' "),
        ("train: {augment: {a: 1}}", r"unknown key 'train\.augment\.a' .*nearest: train\.augment\)$"),
        ("seed: 1\nseed: 2", r"not YAML \(key 'seed' is there twice .*line 2"),
        ("train: {ema: 0.1, ema: 0.2}", r"not YAML \(key 'ema' is there twice"),
        ("train.ema: 0.1\ntrain: {ema: 0.2}", r"not YAML \(key 'train\.ema' is there twice\)$"),
        ("seed: [1", r"not YAML \(while parsing a flow sequence"),
        ("\tseed: 1", r"not YAML \("),
        ("seed: \x00", r"not YAML \("),
        ("hypothesis: 2026-13-45", r"not YAML \(month must be"),
        ("? [a]\n: b", r"unknown key \"\('a',\)\"|not YAML \("),
        ("train: &t {epochs: *t}", r"not YAML \("),
        ("seed: !!python/object/apply:os.getcwd []", r"not YAML \(could not determine a constructor"),
        ("- seed: 1", r"expected lines like `train\.epochs: 10`, found list$"),
        ("just words", r"expected lines like `train\.epochs: 10`, found str$"),
    ],
)
def test_a_bad_file_is_one_line(write, text, message):
    path = write(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(write, tmp_path):
    path = write("seed: 1", "age-bins.yaml")
    with pytest.raises(
        RecipeError, match=rf"no such recipe \(known: age-bins\.yaml; nearest: age-bins\.yaml in {tmp_path}"
    ):
        load_recipe(tmp_path / "age-bin.yaml")
    with pytest.raises(RecipeError, match=r"no such recipe \(known: none in "):
        load_recipe(tmp_path / "nowhere" / "base.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe"):
        load_recipe(tmp_path)
    path.write_bytes(b"hypothesis: \xff\xfe")
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe"):
        load_recipe(path)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(texts, texts, st.floats(0, 0.999999), st.integers(0, 2**40), st.booleans())
def test_what_is_written_is_read_back(tmp_path, hypothesis, source, ema, seed, final):
    values = {"hypothesis": hypothesis, "data.source": source, "train.ema": ema, "seed": seed, "train.final": final}
    recipe = make_recipe(values)
    write_recipe(recipe, tmp_path / "r.yaml")
    assert load_recipe(tmp_path / "r.yaml") == recipe


def test_a_written_recipe_is_complete_and_flat(tmp_path):
    write_recipe(make_recipe({"loss.age": "ce", "hypothesis": "none"}), tmp_path / "r.yaml")
    lines = (tmp_path / "r.yaml").read_text(encoding="utf-8").splitlines()
    assert [line.split(":")[0] for line in lines] == list(KEYS)
    assert "loss.age: ce" in lines


def test_differences_in_the_order_of_the_schema():
    one = make_recipe({"seed": 1, "model.head": "flat18"})
    assert differences(one, Recipe()) == [("model.head", "flat18", "multi"), ("seed", 1, 0)]
    assert differences(one, one) == []


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().train.epochs = 3
