"""HTML pages: one environment, one look, two languages; every page is a file that asks nobody for anything.

A page is a template of stages/templates that extends base.html.j2. What people read stands in English in the template,
inside `{% trans %}` or `_()`; templates/ko/*.yaml maps each of these messages to Korean. What came from a file is
escaped. Names that people type or that stand in files (recipe keys, class names in CSVs) stay as they are in every
language; names of labels are translated where a page says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from threefold.errors import RecipeError, RunError, one_of

TEMPLATES = Path(__file__).parent / "templates"
LANGS = ("en", "ko")


def render(template: str, lang: str = "en", **context: Any) -> str:
    """The page of a template (`report` for report.html.j2); its `say` translates as functions of ours do.

    RecipeError: unknown language. RunError: a value is missing, so a file was written by something else.
    """
    try:
        return environment(lang).get_template(f"{template}.html.j2").render(lang=lang, say=translator(lang), **context)
    except (KeyError, jinja2.UndefinedError) as error:
        raise RunError(f"a file lacks what the {template} needs ({error})") from None


@cache
def environment(lang: str = "en") -> jinja2.Environment:
    """Where templates are looked up, with the messages of a language; RecipeError for one there is not."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"],
    )  # fmt: skip
    made.policies["ext.i18n.trimmed"] = True
    say = translator(lang)
    made.install_gettext_callables(say, lambda one, many, n: say(one if n == 1 else many), newstyle=False)  # type: ignore[attr-defined]
    made.filters |= {"duration": lambda seconds: duration(seconds, say), "number": lambda value: f"{value:,}"}
    return made


def translator(lang: str) -> Callable[[str], str]:
    """message -> the message in `lang`; in English where nobody translated it."""
    if lang not in LANGS:
        raise RecipeError(f"lang: {lang!r} is not known ({one_of(LANGS, lang)})")
    words = catalogue(lang)
    return lambda message: words.get(message, message)


@cache
def catalogue(lang: str) -> dict[str, str]:
    """Every message of a language, from all files of its folder; none for English, which the templates are in."""
    found: dict[str, str] = {}
    for file in sorted((TEMPLATES / lang).glob("*.yaml")):
        found |= yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def duration(seconds: float, say: Callable[[str], str] = str) -> str:
    """`2 h 5 min`, `3 min 7 s`, `9 s`; in the language of `say`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = "{hours} h {minutes} min" if hours else "{minutes} min {seconds} s" if minutes else "{seconds} s"
    return say(text).format(hours=hours, minutes=minutes, seconds=rest)
