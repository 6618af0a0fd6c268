"""HTML pages: one environment, one look, two languages; every page is a file that asks nobody for anything.

A page is a template of pages/templates that extends base.html.j2. What people read stands there in English, inside
`{% trans %}` or `_()`; templates/ko/*.yaml maps each of these messages to Korean. What came from a file is escaped.
Recipe keys and class names of CSVs stay as they are in every language; names of labels are translated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from threefold.errors import RecipeError, RunError, one_of

# jinja2 comes with the extra `train` and is imported where a page is made: results without a page need none
if TYPE_CHECKING:
    import jinja2

Translate = Callable[[str], str]
"""message -> the message in the language of a page; `str` leaves it in English."""
TEMPLATES = Path(__file__).parent / "templates"
LANGS = ("en", "ko")


def render(template: str, lang: str = "en", **context: Any) -> str:
    """The page of a template (`report` for report.html.j2); `translate` in it is for functions that write sentences.

    RecipeError: unknown language. RunError: a value is missing, so a file was written by something else.
    """
    from jinja2 import UndefinedError

    translate = translator(lang)
    try:
        return environment(lang).get_template(f"{template}.html.j2").render(lang=lang, translate=translate, **context)
    except (KeyError, UndefinedError) as error:
        raise RunError(f"a file lacks what the {template} needs ({error})") from None


@cache
def environment(lang: str = "en") -> jinja2.Environment:
    """Where templates are looked up, with the messages of a language; RecipeError for one there is not."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    translate = translator(lang)
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    env.policies["ext.i18n.trimmed"] = True
    env.install_gettext_callables(  # type: ignore[attr-defined]
        translate, lambda one, many, n: translate(one if n == 1 else many), newstyle=False
    )
    env.filters |= {"duration": lambda seconds: duration(seconds, translate), "number": lambda value: f"{value:,}"}
    return env


def translator(lang: str) -> Translate:
    """message -> the message in `lang`; in English where nobody translated it."""
    if lang not in LANGS:
        raise RecipeError(f"lang: {lang!r} is not known ({one_of(LANGS, lang)})")
    messages = catalogue(lang)
    return lambda message: messages.get(message, message)


@cache
def catalogue(lang: str) -> dict[str, str]:
    """Every message of a language, from all files of its folder; none for English, which the templates are in."""
    messages: dict[str, str] = {}
    for file in sorted((TEMPLATES / lang).glob("*.yaml")):
        messages |= yaml.safe_load(file.read_text(encoding="utf-8"))
    return messages


def duration(seconds: float, translate: Translate = str) -> str:
    """`2 h 5 min`, `3 min 7 s`, `9 s`; in the language of `translate`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = "{hours} h {minutes} min" if hours else "{minutes} min {seconds} s" if minutes else "{seconds} s"
    return translate(text).format(hours=hours, minutes=minutes, seconds=rest)
