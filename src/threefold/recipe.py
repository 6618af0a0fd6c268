"""The typed schema of a recipe: every key, its default and what it may hold.

A recipe file is YAML that holds differences from these defaults, as flat dotted keys (`model.head: flat18`) or nested.
`key=value` on the command line has the same form as a line in the file. No inheritance, no interpolation. Component
values are spec strings (`spec.py`); which names exist is the business of the table of the component's own file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from threefold.errors import RecipeError, one_of
from threefold.files import write_text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise PydanticCustomError("number", "input should be a number")  # YAML reads `yes` and `on` as true
        return value


_Text = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""Text that YAML reads as a number where it is one."""


class Data(_Part):
    """Where the photos come from and how people are dealt."""

    source: str = Field("", description="layout:path[,layout:path...]; usually given as --data")
    folds: _Text = Field("5", description="number of folds, holdout(share), all, or the path of a split.csv")
    seed: int = Field(0, ge=0, description="seed of the dealing of people, apart from the training seed")
    extra: str = Field("", description="layout:path of photos that train in every fold and never validate")
    patches: str = Field("", description="CSV of corrected labels: person or photo, field, value")
    train_cuts: str = Field("30,60", description="first year of the middle and the old group in training targets only")
    drop_ages: str = Field("", description="years left out of training, never of validation: 57-59,27-29")
    copies: str = Field("none", description="turned and mirrored copies of the old in the training half: old(times=2)")


class PrepareKeys(_Part):
    """The one preprocessing, stored with the model."""

    crop: str = Field("none", description="none, centre(h,w) or face(margin)")
    size: _Text = Field("128x96", description="height x width in pixels")
    background: str = Field("keep", description="keep, or how what is behind the person is blanked out")
    interpolation: str = Field("area", description="area or bilinear")
    normalise: str = Field(
        "auto", description="auto (as the weights were trained), imagenet, half, dataset, given(mean=,std=)"
    )

    @field_validator("size", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return "x".join(map(str, value)) if isinstance(value, list | tuple) else value


class Model(_Part):
    """Backbone, its weights, and the head that turns features into one joint distribution."""

    backbone: str = Field("tf_efficientnet_lite0", description="any timm name, name+name (joint), split(name)")
    pretrained: str = Field("registry", description="registry, hub, none or the path of a .safetensors/.pt file")
    head: str = Field("multi", description="a head of learn/heads.py, or logistic, svm on frozen features")
    init: str = Field("default", description="initial values of layers that are not pretrained")


class Loss(_Part):
    """Loss per output of the head; an empty one is `default` (or what fits an output that is no softmax).

    A head may have outputs of other names than these; which names there are is checked with the head.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str]

    default: str = "ce"
    mask: str = ""
    gender: str = ""
    age: str = ""
    age_group: str = ""
    years: str = ""


class Train(_Part):
    """The loop."""

    epochs: int = Field(10, ge=1)
    batch: int = Field(32, ge=1)
    augment: str = Field("flip", description="chain of augmentations on batches: flip|rotate(10)|...; none")
    mix: str = Field("none", description="none, cutmix, mixup, ...")
    mix_off: int = Field(0, ge=0, description="last epochs without mix")
    distil: str = Field("none", description="runs to learn from beside the labels: 0.5*teacher('runs/big')")
    freeze: str = Field("none", description="what of the backbone is not trained, and when that ends")
    sampler: str = Field("shuffle", description="order and frequency of the training photos")
    early_stop: str = Field("none", description="none or patience(epochs, on=macro_f1|loss)")
    keep: str = Field("best", description="weights kept: best, last, or average(top=3) of the best epochs")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0 = off")
    clip: float = Field(0.0, ge=0, description="largest gradient norm; 0 = off")
    precision: str = Field("auto", description="auto (bf16 on a GPU, else 32), 32-true, bf16-mixed, 16-mixed")
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    final: bool = Field(False, description="after the folds, one more network on all people; predict uses it")


class Recipe(_Part):
    """A complete recipe. Frozen; `override` makes another one."""

    hypothesis: str = ""
    baseline: str = Field("", description="the recipe file or run this one is to be compared with")
    data: Data = Data()
    prepare: PrepareKeys = PrepareKeys()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()
    optim: str = "adamw(lr=1e-3, weight_decay=0.05)"
    schedule: str = "cosine(warmup=0.1)"
    tta: str = Field("none", description="views of a photo whose answers are averaged: flip, crops(0.9), flip|crops")
    track: str = Field("none", description="besides TensorBoard: wandb")
    seed: int = Field(0, ge=0)
    parts: dict[str, Any] = Field({}, description="separate networks: `parts.age.KEY` is KEY for the age network")

    def flat(self) -> dict[str, Any]:
        """`{"data.folds": "5", ...}`: every key in the order of the schema, then those of the parts."""
        parts = {f"parts.{key}": value for key, value in sorted(self.parts.items())}
        return _flatten(self.model_dump(exclude={"parts"})) | parts

    def part(self, attribute: str) -> Recipe:
        """The recipe of one of three separate networks: this one with its part's keys; the head is `one(attribute)`."""
        changes = {key.partition(".")[2]: value for key, value in self.parts.items() if key.startswith(f"{attribute}.")}
        others = ("parts.", *(f"loss.{name}" for name in PARTS if name != attribute))
        others += () if attribute == "age" else ("loss.years",)
        shared = {key: value for key, value in self.flat().items() if not key.startswith(others)}
        return make_recipe({**shared, "model.head": f"one({attribute})", **changes}, where=f"parts.{attribute}")


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package: `base`, `contest/004`, ..."""
    folder = Path(__file__).with_name("recipes")  # of an install; in a checkout it lies beside `src`
    if not folder.is_dir():
        folder = Path(__file__).parents[2] / "recipes"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(recipe: Path | str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package (`base`, `contest/004`, `004`).

    `recipes/base.yaml`, as docs and baselines write it, is found without a checkout too. Raises RecipeError.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    for called in (name, f"contest/{name}"):
        if called in shipped:
            return shipped[called]
    if path.exists() and path != Path():  # a folder, which hides no recipe of its name
        return path
    near = [file.name for file in path.parent.glob("*.yaml")]
    if path.parent != Path():
        raise RecipeError(f"{path}: no such recipe ({one_of(near, path.name)} in {path.parent})")
    raise RecipeError(f"{path}: no such recipe ({one_of([*near, *shipped], path.name)})")


def load_recipe(recipe: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file (or one by name, see `find_recipe`), apply `key=value` overrides, check names and types.

    Raises RecipeError, one line: file, key, value, what was expected, nearest key.
    """
    path = find_recipe(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from None
    try:
        content = yaml.load(text, _Loader)
        if not isinstance(content, dict | None):
            raise RecipeError(f"{path}: expected lines like `train.epochs: 10`, found {type(content).__name__}")
        flat = _flatten(content or {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-13-45 looks like a date
        raise RecipeError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return make_recipe(flat, overrides, where=str(path))


def make_recipe(values: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """A Recipe from flat keys plus `key=value` strings (which win); raises RecipeError."""
    flat = dict(values)
    origin = dict.fromkeys(flat, where)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"{text!r}: expected key=value, as in train.epochs=20")
        try:
            flat[key.strip()] = yaml.load(value, _Loader) if value.strip() else ""
        except (yaml.YAMLError, ValueError, RecursionError):
            flat[key.strip()] = value
        origin[key.strip()] = "command line"
    parts = {key.removeprefix("parts."): flat.pop(key) for key in list(flat) if key.startswith("parts.")}
    for key in flat:
        if key not in KEYS and not LOSS_KEY.fullmatch(key):
            raise RecipeError(f"{origin[key]}: unknown key {key!r} ({one_of(KEYS, key)})")
    try:
        recipe = Recipe.model_validate({**_nest({k: v for k, v in flat.items() if v is not None}), "parts": parts})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise RecipeError(f"{origin.get(key, where)}: {key} cannot be {first['input']!r}: {reason}") from None
    for key in parts:
        attribute, _, name = key.partition(".")
        if attribute not in PARTS or not (name in PART_KEYS or LOSS_KEY.fullmatch(name)):
            nearest = one_of(PART_KEYS, name) if attribute in PARTS else one_of(PARTS, attribute)
            raise RecipeError(f"{origin[f'parts.{key}']}: unknown key 'parts.{key}' ({nearest})")
        recipe.part(attribute)
    return recipe


def differences(one: Recipe, other: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value in one, value in other) for every key that differs, in the order of the schema."""
    left, right = one.flat(), other.flat()
    keys = dict.fromkeys((*left, *right))
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write every key, flat, atomically."""
    text = ""
    for key, value in recipe.flat().items():
        # PyYAML reads back what it writes of unusual white space only when that is escaped
        text += yaml.safe_dump({key: value}, allow_unicode=str(value).isprintable(), width=1000)
    write_text(path, text)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, where YAML would silently take the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if str(key) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep)


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        full = f"{prefix}{key}"
        more = _flatten(value, f"{full}.") if isinstance(value, dict) else {full: value}
        for twice in more.keys() & flat.keys():  # once dotted and once nested
            raise ValueError(f"key {twice!r} is there twice")
        flat |= more
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        room, dot, leaf = key.rpartition(".")
        (tree.setdefault(room, {}) if dot else tree)[leaf] = value
    return tree


KEYS: tuple[str, ...] = tuple(Recipe().flat())
"""Every key of a recipe, in the order of the schema; `parts.ATTRIBUTE.KEY` comes to these, and so does LOSS_KEY."""
LOSS_KEY = re.compile(r"loss\.\w+")
"""`loss.NAME` of any output that a head may have."""
PARTS = ("mask", "gender", "age")
PART_SECTIONS = ("prepare", "model", "loss", "train", "optim", "schedule", "tta")
PART_KEYS = tuple(key for key in KEYS if key.split(".")[0] in PART_SECTIONS and key != "train.final")
"""What a part may set for its own network."""
