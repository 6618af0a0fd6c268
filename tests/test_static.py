"""The files of the pages, without a browser: strings, colours, sizes, and that nothing comes from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import browser
import pytest
from browser import STATIC

PAGES = ("index.html", "monitor.html")
SCRIPTS = sorted(STATIC.glob("*.js"))
CSS = (STATIC / "app.css").read_text(encoding="utf-8")
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in sorted(STATIC.iterdir())}
ANSWERED = {
    "mask": ("worn", "incorrect", "none", "indeterminate"), "verdict": ("worn", "incorrect", "none", "indeterminate"),
    "gender": ("male", "female", "indeterminate"), "age_group": ("<30", "30-59", ">=60", "indeterminate"),
    "why": ("small", "blurred", "unsure"), "attribute": ("mask", "gender", "age_group", "age"),
    "signal": ("off", "nobody", "worn", "incorrect", "none", "indeterminate", "paused", "waiting"),
    "camera": ("denied", "missing", "used", "insecure", "lost", "failed"),
    "monitor": ("running", "stopped", "unknown", "gone", "off", "locked", "error"),
    "refused": ("type", "size", "empty"),
    "error": ("down", "slow", "unauthorised", "missing", "too_large", "too_many", "unsupported_type", "unreadable",
              "invalid", "failed", "busy", "overloaded", "again", "still"),
}  # fmt: skip
"""Endings of keys that the scripts put together from what a service answers."""
PAIRS = (
    [(text, ground) for text in ("ink", "soft") for ground in ("page", "surface", "sunk")]
    + [("accent", ground) for ground in ("page", "surface", "sunk")]
    + [(state, ground) for state in ("worn", "incorrect", "none", "indeterminate")
       for ground in ("surface", "page", f"{state}-tint")]
    + [("ink", f"{state}-tint") for state in ("incorrect", "none")]
    + [(f"on-{state}", f"{state}-band") for state in ("worn", "incorrect", "none", "off")]
    + [("on-accent", "accent")]
)  # fmt: skip


def strings() -> dict[str, dict[str, str]]:
    text = TEXTS["strings.js"]
    return json.loads(text[text.index("= {") + 2 : text.rindex(";")])


def used_keys() -> set[str]:
    keys = set()
    for name, text in TEXTS.items():
        if name.endswith(".html"):
            keys |= set(re.findall(r'data-t(?:-label)?="([^"]+)"', text))
        elif name.endswith(".js") and name != "strings.js":
            quoted = set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)*)"', text))
            keys |= {word for word in quoted if word in strings()["en"]}
            keys |= set(re.findall(r'(?:\bt\(|say\([^;]*?, |key: )"([a-z_]+\.[a-z_.]+)"', text))
    return keys | {f"{start}.{end}" for start, ends in ANSWERED.items() for end in ends}


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colors(scheme: str) -> dict[str, str]:
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in CSS.split("@media", 1))
    dark = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", CSS.split("@media", 1)[1].split("\n}", 1)[0]))
    return light if scheme == "light" else light | dark


def test_both_languages_have_the_same_keys_and_fill_ins():
    english, korean = strings()["en"], strings()["ko"]
    assert english.keys() == korean.keys()
    for key, text in english.items():
        fills = [sorted(re.findall(r"\{(\w+)\}", one)) for one in (text, korean[key])]
        assert text and korean[key] and fills[0] == fills[1], key


def test_korean_is_korean_and_english_is_not():
    hangul = re.compile("[가-힣]")
    same = {"plain", "bars.share"}
    for key, text in strings()["ko"].items():
        assert key in same or hangul.search(text), key
        assert not hangul.search(strings()["en"][key]), key


def test_long_korean_sentences_are_formal():
    for key, text in strings()["ko"].items():
        for sentence in re.findall(r"([가-힣]+)\.(?:\s|$)", text):
            assert sentence.endswith(("니다", "세요")), (key, sentence)


def test_every_text_that_is_used_is_there_and_every_text_is_used():
    assert used_keys() == set(strings()["en"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_contrast_of_the_named_colours(scheme: str, text: str, ground: str):
    named = colors(scheme)
    assert contrast(named[text], named[ground]) >= 4.5


def test_contrast_is_computed_as_wcag_says():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_edges_of_controls_stand_out():
    for scheme in ("light", "dark"):
        named = colors(scheme)
        assert contrast(named["edge"], named["surface"]) >= 3


def test_nothing_comes_from_elsewhere_and_nothing_is_inline():
    for name, text in TEXTS.items():
        addresses = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        allowed = {"http://localhost"} if name == "strings.js" else set()
        assert {address.rstrip(".") for address in addresses} <= allowed, name
        assert "@import" not in text and "eval(" not in text and "innerHTML" not in text, name
    for name in PAGES:
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", TEXTS[name]), name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", TEXTS[name])), name


def test_every_file_that_is_asked_for_is_there():
    for name, text in TEXTS.items():
        linked = re.findall(r'(?:src|href)="/static/([^"]+)"', text) + re.findall(r'from "\./([^"]+)"', text)
        assert all((STATIC / file).is_file() for file in linked), name


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_are_short_and_say_what_they_are(file):
    lines = TEXTS[file.name].splitlines()
    assert len(lines) <= 400 and lines[0].startswith("// ")
    assert max(map(len, lines)) <= 120 or file.name == "strings.js"
    assert not any(word in TEXTS[file.name] for word in ("console.", "debugger", "TODO", "FIXME"))


class Outline(HTMLParser):
    """Headings, landmarks, ids, and fields of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.referred: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            self.referred |= set(attributes.get(name, "").split())


@pytest.mark.parametrize("page", PAGES)
def test_outline(page: str):
    outline = Outline(TEXTS[page])
    assert outline.levels.count(1) == 1 and {"header", "main", "footer"} <= set(outline.tags)
    steps = zip(outline.levels, outline.levels[1:], strict=False)
    assert outline.levels[0] == 1 and all(after - before <= 1 for before, after in steps)
    assert len(outline.ids) == len(set(outline.ids)) and outline.referred <= set(outline.ids)
    assert 'lang="en"' in TEXTS[page] and "width=device-width" in TEXTS[page]


def test_motion_stops_where_it_is_not_wanted():
    assert re.search(r"prefers-reduced-motion: reduce\) \{[^}]*animation: none !important", CSS)


@pytest.mark.parametrize("variable", [None, "CI", "THREEFOLD_BROWSER"])
def test_a_missing_browser_skips_here_and_fails_where_it_must_be(monkeypatch, tmp_path, variable):
    for name in ("CI", "THREEFOLD_BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "require")
    monkeypatch.setattr(browser, "DRIVER", tmp_path / "chromedriver")
    wanted = pytest.fail.Exception if variable else pytest.skip.Exception
    with pytest.raises(wanted, match="chromedriver"):
        browser.require_browser()
