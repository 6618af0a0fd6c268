"""The reference of components, generated from the tables themselves: components.json and docs/components.md.

    python tools/reference.py

writes both; a test compares them with what this would write. A row that is added to a table appears by itself.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefold import spec
from threefold.components import FILE
from threefold.data.layouts import SOURCES
from threefold.files import write_text
from threefold.learn.ages import AGES
from threefold.learn.augment import AUGMENTS
from threefold.learn.backbones import BACKBONES
from threefold.learn.classical import CLASSICAL
from threefold.learn.copies import COPIES
from threefold.learn.distil import TEACHERS
from threefold.learn.freeze import FREEZES
from threefold.learn.heads import HEADS
from threefold.learn.init import INITS
from threefold.learn.losses import LOSSES
from threefold.learn.mixing import MIXES
from threefold.learn.optim import OPTIMS, SCHEDULES
from threefold.learn.plan import KEEPS, NORMALISES, STOPS
from threefold.learn.samplers import SAMPLERS
from threefold.learn.tta import VIEWS
from threefold.photos.background import BACKGROUNDS
from threefold.photos.prepare import CROPS, RESIZES
from threefold.train.tracking import TRACKERS

DOCUMENT = Path(__file__).parents[1] / "docs" / "components.md"


@dataclass(frozen=True)
class Kind:
    """A table, the recipe key that names its rows, how many leading arguments the code provides, what it is.

    closed: only these names can stand in the recipe (any timm name is a backbone). plain: names without options.
    """

    key: str
    rows: spec.Table
    provided: int
    description: str
    closed: bool = True
    plain: bool = False


KINDS: dict[str, Kind] = {
    "sources": Kind("data.source", SOURCES, 0, "layouts of labelled photos, as LAYOUT:PATH", closed=False, plain=True),
    "copies": Kind("data.copies", COPIES, 0, "copies of photos in the training half"),
    "crops": Kind("prepare.crop", CROPS, 0, "the part of a photo that the network sees"),
    "interpolations": Kind("prepare.interpolation", RESIZES, 0, "how a crop is scaled to the input", plain=True),
    "backgrounds": Kind("prepare.background", BACKGROUNDS, 0, "what becomes of the background"),
    "normalise": Kind("prepare.normalise", NORMALISES, 2, "mean and spread that pixels are normalised by"),
    "backbones": Kind(
        "model.backbone", BACKBONES, 0, "small networks beside every timm name", closed=False, plain=True
    ),
    "inits": Kind("model.init", INITS, 0, "initial values of layers without published weights"),
    "heads": Kind("model.head", HEADS, 1, "from features to one distribution over the classes"),
    "classical": Kind("model.head", CLASSICAL, 1, "classical models on frozen features, in place of a head"),
    "ages": Kind("model.head (age=)", AGES, 1, "what a head says of the age", closed=False),
    "losses": Kind("loss.NAME", LOSSES, 1, "what an output of the head is trained with; sums as 0.4*f1+0.6*focal"),
    "augments": Kind("train.augment", AUGMENTS, 0, "changes of training photos, drawn anew for each, as a|b"),
    "mixes": Kind("train.mix", MIXES, 0, "two photos of a batch become one"),
    "teachers": Kind("train.distil", TEACHERS, 0, "runs to learn from beside the labels", closed=False),
    "freezes": Kind("train.freeze", FREEZES, 0, "what of the backbone is not trained, and until when"),
    "samplers": Kind("train.sampler", SAMPLERS, 1, "which photos an epoch shows, how often and in which order"),
    "stops": Kind("train.early_stop", STOPS, 0, "when training ends before the last epoch"),
    "keeps": Kind("train.keep", KEEPS, 0, "which weights a fold keeps"),
    "optims": Kind("optim", OPTIMS, 0, "optimisers"),
    "schedules": Kind("schedule", SCHEDULES, 3, "learning rates over the training"),
    "views": Kind("tta", VIEWS, 0, "views of a photo whose answers are averaged"),
    "trackers": Kind("track", TRACKERS, 0, "where a run's numbers go beside TensorBoard"),
}


def catalogue() -> dict[str, Any]:
    """What components.json holds: {table: {key, description, closed, components: {name: {usage, ...}}}}."""
    return {
        name: {
            "key": kind.key,
            "description": kind.description,
            "closed": kind.closed,
            "components": {row: _component(row, factory, kind) for row, factory in kind.rows.items()},
        }
        for name, kind in KINDS.items()
    }


def _component(name: str, factory: Callable[..., Any], kind: Kind) -> dict[str, Any]:
    parameters = [] if kind.plain else list(inspect.signature(factory).parameters.values())[kind.provided :]
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    options, arguments = [], []
    for parameter in named:
        word, default = parameter.name, None
        if parameter.default is not parameter.empty:
            # as a recipe writes it: words without quotes
            is_word = isinstance(parameter.default, str) and parameter.default.isidentifier()
            default = parameter.default if is_word else repr(parameter.default)
        annotation = parameter.annotation
        if not isinstance(annotation, str):
            annotation = "" if annotation is parameter.empty else inspect.formatannotation(annotation)
        options.append({"name": word, "type": re.sub(r"\b[a-z_]+\.", "", annotation), "default": default})
        arguments.append(word if default is None else f"{word}={default}")
    usage = f"{name}({', '.join(arguments)})" if arguments else name
    description = (inspect.getdoc(factory) or "") if callable(factory) else ""
    return {"usage": usage, "description": description, "options": options, "open": len(named) < len(parameters)}


def document() -> str:
    """docs/components.md."""
    lines = [
        "# Components",
        "",
        "Generated from the tables by `python tools/reference.py`; do not edit. On the command line:",
        "`threefold list`, `threefold list losses`, `threefold describe focal`.",
    ]
    for name, table in catalogue().items():
        lines += ["", f"## {name}", "", f"`{table['key']}`: {table['description']}.", ""]
        for row in table["components"].values():
            summary = row["description"].split("\n\n")[0].replace("\n", " ")
            lines.append(f"- `{row['usage']}`: {summary}" if summary else f"- `{row['usage']}`")
    return "\n".join(lines) + "\n"


def json_text() -> str:
    """components.json."""
    return json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(FILE, json_text())
    write_text(DOCUMENT, document())
