"""Results that are an answer in sentences and some tables: `decide` and `shake`, as lines and as a page."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from threefold.pages.html import Translate, render, translator
from threefold.results import Result, table_lines

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns and rows, in a language."""


class Answer(Result, ABC):
    """What a verb says is put together once, in the language of a `translate`, for the terminal and for the page."""

    sentences: ClassVar[Mapping[str, str]]
    """Every sentence with its holes, by key."""

    @abstractmethod
    def parts(self, translate: Translate) -> dict[str, Any]:
        """verb; name of what it is about; about: what the numbers are of; tables, warnings, and lines of the answer."""

    def sentence(self, translate: Translate, key: str, **values: Any) -> str:
        """One of `sentences`, its holes filled."""
        return translate(self.sentences[key]).format(**values)

    def lines(self) -> list[str]:
        """Tables first and the answer last, where a terminal ends."""
        parts = self.parts(str)
        lines = [parts["about"]]
        for title, columns, rows in parts["tables"]:
            lines += ["", f"{title}:", *table_lines(columns, rows, right=True)]
        return [*lines, "", *(f"! {line}" for line in parts["warnings"]), *parts["answer"]]

    def page(self, lang: str = "en") -> str:
        """The same as a page, the answer first."""
        return render("answer", lang, **self.parts(translator(lang)))
