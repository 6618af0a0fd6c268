"""Pages: every message has its Korean, nothing is fetched, wrong languages and missing values are one line."""

from __future__ import annotations

import re

import pytest

from threefold.errors import RecipeError, RunError
from threefold.pages.html import TEMPLATES, catalogue, environment, render, translator

PAGES = sorted(path.name for path in TEMPLATES.glob("*.html.j2"))


def messages(name: str) -> set[str]:
    """What a template says, as jinja2 looks it up."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    found = environment().extract_translations(text)
    return {part for _, _, said in found for part in (said if isinstance(said, tuple) else (said,)) if part}


@pytest.mark.parametrize("name", PAGES)
def test_every_message_is_there_in_korean_with_its_holes(name):
    words = catalogue("ko")
    holes = re.compile(r"%\(\w+\)s|\{\w+[^}]*\}")
    for message in sorted(messages(name)):
        assert message in words, f"{name}: {message!r} has no Korean"
        assert sorted(set(holes.findall(words[message]))) == sorted(set(holes.findall(message))), message
        assert words[message].strip()
        if "%(" in message:  # a block with variables is filled in with %
            assert words[message] % dict.fromkeys(re.findall(r"%\((\w+)\)s", message), "x")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nobody_for_anything(name):
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\(\s*[\"']?(?!data:)|<link\b|<iframe\b", text)


def test_what_comes_from_files_is_escaped_in_both_languages():
    for lang in ("en", "ko"):
        made = environment(lang).from_string("{% trans who=name %}Contents of {{ who }}{% endtrans %}{{ name }}")
        assert "<b>" not in made.render(name="<b>") and made.render(name="<b>").count("&lt;b&gt;") == 2


def test_a_language_changes_the_words_and_an_unknown_one_is_named():
    assert translator("ko")("Contents") == "목차" and translator("en")("Contents") == "Contents"
    assert translator("ko")("nobody wrote this") == "nobody wrote this"
    with pytest.raises(RecipeError, match="lang: 'kr' is not known"):
        render("base", "kr")


def test_durations_speak_the_language_of_the_page():
    for seconds, english, korean in (
        (9, "9 s", "9초"),
        (187, "3 min 7 s", "3분 7초"),
        (7500, "2 h 5 min", "2시간 5분"),
    ):
        for lang, words in (("en", english), ("ko", korean)):
            assert environment(lang).from_string("{{ x|duration }}").render(x=seconds) == words


def test_a_missing_value_is_an_error_that_names_it():
    with pytest.raises(RunError, match="a file lacks what the search needs"):
        render("search", name="x")


def test_catalogues_do_not_contradict_each_other():
    seen: dict[str, str] = {}
    import yaml

    for file in sorted((TEMPLATES / "ko").glob("*.yaml")):
        for message, words in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            assert seen.setdefault(message, words) == words, (file.name, message)
