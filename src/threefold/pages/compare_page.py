"""`threefold compare RUN_A RUN_B [...]`: is the first run better than each of the others, and what made it so?

One rule for two runs and for many: the first run is judged, a difference is the first minus the other, and "better"
says that the first is. The numbers are those of `evidence.compare`; here they are joined with what the runs were made
from, since a difference can be put down to something only where one thing differs. One document holds everything: it is
the data, the lines are made from it, and the page renders it in its language.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threefold.evidence.bootstrap import Number, places
from threefold.evidence.compare import Comparison, changes, compare_all
from threefold.evidence.ensemble import aligned
from threefold.evidence.metrics import COLUMNS
from threefold.pages.figures import photo_paths, thumbnail
from threefold.pages.html import Translate, render, translator
from threefold.recipe import differences
from threefold.results import Result, table_lines
from threefold.runs import Run, open_runs

_NOT_TRIED = ("hypothesis", "baseline", "track")
"""Keys that change nothing in what is trained."""
_LABELS = {"all.macro_f1": "macro F1", "age_error": "age error in years (less is better)"}
WORDS = {
    name: _LABELS.get(name, name.removeprefix("all.").replace("_f1", " F1").replace("_", " ").replace(".", " "))
    for name in ("all.macro_f1", *COLUMNS)
    if not name.startswith("f1.")
}
"""What the numbers are called."""
SENTENCES = {
    "better": "{one} is better than {other} by {value} {what} (95 % interval {low} to {high}).",
    "worse": "{one} is worse than {other} by {value} {what} (95 % interval {low} to {high}).",
    "can't tell": "Can't tell {one} and {other} apart: {value} {what} (95 % interval {low} to {high}).",
    "one": "Can't tell {one} and {other} apart: of one person there is no interval ({value} {what}).",
    "few": "Its interval leaves 0 out, but so few persons all agree by chance too often: it takes 6 to tell anything.",
    "chance": "Alone its interval would tell, but among {count} comparisons one does so by chance too often.",
    "needed": "To tell a difference of this size, 4 times in 5, takes about {needed} persons; here are {persons}.",
    "never": "The two score the same: no number of persons tells a difference of 0.",
    "mean": "mean macro F1 of the labelled attributes",
    "many": "{one} and {other}: {count} things differ ({keys}); a gain cannot be put down to any one of them.",
    "nothing": "{one} and {other}: the recipes differ in nothing but perhaps the seed; this is chance, or the code.",
    "persons": "Every photo counts as a person of its own; where people have several, the intervals are too narrow.",
    "commit": "{one} and {other} were made by different code: commit {a} and {b}.",
    "version": "{one} and {other} were made by different versions of threefold: {a} and {b}.",
    "data_digest": "{one} and {other} did not read the same files, though photos, persons and labels agree.",
    "extra_digest": "{one} and {other} trained with different extra photos.",
    "folds_digest": "{one} and {other} dealt the people into different folds, which moves a score as well.",
    "seed": "{one} and {other} have different seeds ({a} and {b}): another seed alone moves a score.",
}
"""Every sentence that is put together here; those from `commit` on warn where that part of the stamp differs.

A page has them in its language."""
PLACES = {"oof": "out of fold", "test": "eval photos"}
"""What the predictions are of, by the argument `on`."""
_STAMPED = tuple(SENTENCES)[list(SENTENCES).index("commit") :]


@dataclass(frozen=True)
class Pair:
    """The first run and one of the others, what they are called, how they compare, and who changed sides."""

    runs: tuple[Run, Run]
    one: str
    other: str
    comparison: Comparison
    classes: list[dict[str, Any]]
    photos: list[dict[str, Any]]


@dataclass(frozen=True)
class CompareResult(Result):
    """The first of several runs against each of the others.

    about: on, draws, seed, and how many photos and persons there are. Of the photos that changed sides `top` are listed
    and, with `pictures`, shown on the page; `rows` has all of them.
    """

    about: dict[str, Any]
    pairs: tuple[Pair, ...]
    top: int
    pictures: bool

    def data(self) -> dict[str, Any]:
        """Of two runs the comparison itself; of more a list `comparisons`."""
        documents = self._documents(str)
        return self.about | ({"comparisons": documents} if len(documents) > 1 else documents[0])

    def lines(self) -> list[str]:
        """Verdict, warnings and tables."""
        documents, about = self._documents(str), self.about
        several = len(documents) > 1
        lines = [line for document in documents for line in document["sentences"][: 1 if several else None]]
        lines += dict.fromkeys(f"! {line}" for document in documents for line in document["warnings"])
        summary = f"{about['photos']:,} photos of {about['persons']:,} persons, {PLACES[about['on']]}; 95 % intervals "
        summary += f"from {about['draws']:,} draws of persons"
        if several:
            summary += "; verdicts corrected for the number of comparisons (Holm), intervals those of each one alone"
        lines.append(summary)
        for title, columns, rows in [_overview(documents)] if several else _details(documents[0]):
            if title:
                lines += ["", title if rows else f"{title}: nothing"]
            lines += table_lines(columns, rows)
        return lines

    def rows(self) -> list[Sequence[object]]:
        """All photos that changed sides."""
        columns = "one,other,photo,person,truth,one_answer,one_confidence,other_answer,other_confidence,moved"
        rows: list[Sequence[object]] = [columns.split(",")]
        for pair in self.pairs:
            for row in pair.photos:
                answers = (*row["one"].values(), *row["other"].values())
                rows.append((pair.one, pair.other, row["photo"], row["person"], row["truth"], *answers, row["moved"]))
        return rows

    def page(self, lang: str = "en") -> str:
        """The same as a page, with thumbnails where the photos are here."""
        documents = self._documents(translator(lang))
        listed = {row["photo"] for document in documents for row in document["changed"]}
        shown = self.pictures and self.about["on"] == "oof"
        paths = photo_paths(self.pairs[0].runs[0]) if shown and listed else {}
        pictures = {photo: thumbnail(path) for photo, path in paths.items() if photo in listed}
        context = {"words": WORDS, "pictures": pictures, "shown": shown, "places": places, "rough": rough}
        return render("compare", lang, about=self.about, pairs=documents, **context)

    def _documents(self, translate: Translate) -> list[dict[str, Any]]:
        return [_document(pair, len(self.pairs), self.top, translate) for pair in self.pairs]


def compare(
    runs: Sequence[Path | str],
    *,
    on: str = "oof",
    draws: int = 10_000,
    seed: int = 0,
    top: int = 20,
    photos: bool = True,
) -> CompareResult:
    """How the first run fares against each of the others; of more than two, verdicts are corrected (Holm).

    on: `oof` (out of fold) or `test` (eval photos that `predict --answers` scored). top: at most so many photos that
    changed sides are listed; with 0 the data and the page have nothing of a person. photos: thumbnails on the page.
    Raises RunError for fewer than two runs, one that is missing, incomplete, without predictions or given twice, and
    DataError, naming run and photo, where they are not about the same photos, persons and labels.
    """
    opened = open_runs([Path(run) for run in runs])
    paths, names = [str(run.path) for run in opened], _names(opened)
    parts = aligned([run.predictions(on) for run in opened], paths)
    comparisons = compare_all(parts, draws=draws, seed=seed, names=paths)
    pairs = tuple(
        Pair((opened[0], run), names[0], name, comparison, *changes(parts[0], part))
        for run, name, part, comparison in zip(opened[1:], names[1:], parts[1:], comparisons, strict=True)
    )
    about = {"on": on, "draws": draws, "seed": seed, "photos": len(parts[0]), "persons": comparisons[0].persons}
    return CompareResult(about, pairs, top, photos)


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: the way from the folder that holds them all (`train.mix=cutmix/seed0`).

    Where that is long, the names of their folders; where those are alike, the paths as they are.
    """
    paths = [run.path.resolve() for run in runs]
    ways = [path.relative_to(os.path.commonpath([other.parent for other in paths])) for path in paths]
    names = [run.name for run in runs]
    if all(len(way.parts) <= 3 for way in ways):
        return [way.as_posix() for way in ways]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _document(pair: Pair, count: int, top: int, translate: Translate) -> dict[str, Any]:
    """One of `count` comparisons as JSON, its sentences and names of classes in the language of `translate`."""

    def words(row: dict[str, Any], key: str) -> dict[str, Any]:
        return row | {key: " ".join(map(translate, row[key].split(" ")))}

    comparison, gained = pair.comparison, sum(row["gained"] for row in pair.photos)
    recipe, unknown = _recipe(*pair.runs), dict.fromkeys(("value", "low", "high"))
    sides = {"one": comparison.one, "other": comparison.other, "difference": comparison.difference}
    numbers = [name for name in WORDS if comparison.one[name]["value"] is not None]
    f1 = [{"f1": comparison.difference.get(f"f1.{row['code']}", unknown)} for row in pair.classes]
    return {
        "one": pair.one,
        "other": pair.other,
        "judged": list(comparison.judged),
        "difference": comparison.headline,
        **{key: getattr(comparison, key) for key in ("verdict", "persons_needed", "p", "p_holm")},
        "sentences": _sentences(pair, count, translate),
        "warnings": _warnings(pair, [row["key"] for row in recipe], translate),
        "numbers": {name: {key: side[name] for key, side in sides.items()} for name in numbers},
        "recipe": recipe,
        "gained": gained,
        "lost": len(pair.photos) - gained,
        "classes": [words(row, "name") | gap for row, gap in zip(pair.classes, f1, strict=True)],
        "changed": [
            words(row, "truth") | {side: words(row[side], "answer") for side in ("one", "other")}
            for row in pair.photos[:top]
        ],
    }


def _sentences(pair: Pair, count: int, translate: Translate) -> list[str]:
    """The verdict in words, and what it would take."""
    comparison, head, needed = pair.comparison, pair.comparison.headline, pair.comparison.persons_needed
    what = WORDS[comparison.judged[0]] if len(comparison.judged) == 1 else SENTENCES["mean"]
    values = {key: _signed(number, places(head)) for key, number in head.items()}
    values |= {"one": pair.one, "other": pair.other, "count": str(count), "what": translate(what)}
    values |= {"persons": f"{comparison.persons:,}", "needed": f"{rough(needed or 0):,}"}
    keys = ["one"]
    if comparison.persons > 1:
        keys = [comparison.verdict]
        if comparison.p > 0.05 and ((head["low"] or 0) > 0 or (head["high"] or 0) < 0):
            keys.append("few")
        if comparison.p <= 0.05 < comparison.p_holm:
            keys.append("chance")
        keys.append("never" if needed is None else "needed")
    return [translate(SENTENCES[key]).format(**values) for key in keys]


def rough(persons: int) -> int:
    """Rounded up to two digits, as little as is known of it: 13,847 -> 14,000."""
    step = int(10 ** max(len(str(persons)) - 2, 0))
    return -(-persons // step) * step


def _recipe(one: Run, other: Run) -> list[dict[str, Any]]:
    """{key, one, other} of everything that makes the runs differ: keys of the recipe, and the vote of an ensemble."""
    left_out = set(_NOT_TRIED)
    if one.stamp.get("data_digest") == other.stamp.get("data_digest"):
        left_out.add("data.source")  # another way to the same files makes no difference
    rows = [row for row in differences(one.recipe, other.recipe) if row[0] not in left_out]
    mine, theirs = (run.metrics.get("ensemble", {}) for run in (one, other))
    if any(mine.get(key) != theirs.get(key) for key in ("members", "weights", "vote")):
        rows.append(("ensemble", _vote(mine), _vote(theirs)))
    return [dict(zip(("key", "one", "other"), row, strict=True)) for row in rows]


def _vote(ensemble: dict[str, Any]) -> str:
    """`a (0.67), b (0.33), soft`, empty for a run that is no ensemble. Members by their folder: a page is shared."""
    names = [Path(member).name for member in ensemble.get("members") or []]
    weights, vote = ensemble.get("weights") or [], ensemble.get("vote")
    members = [f"{name} ({weight:.2g})" for name, weight in zip(names, weights, strict=False)] or names
    return ", ".join([*members, vote] if vote else members)


def _warnings(pair: Pair, keys: Sequence[str], translate: Translate) -> list[str]:
    """What stands in the way of putting a difference down to something; `keys`: what differs in the recipes."""
    one, other = (run.stamp for run in pair.runs)
    apart = {key: (one.get(key), other.get(key)) for key in _STAMPED}
    doubts = {
        "many": len(keys) > 1,
        "nothing": set(keys) <= {"seed"},
        **{key: a != b and not {None, ""} & {a, b} for key, (a, b) in apart.items()},
        "persons": pair.comparison.persons == pair.comparison.photos,
    }
    values = {"one": pair.one, "other": pair.other, "count": len(keys), "keys": ", ".join(keys)}
    sentences = []
    for key in filter(doubts.get, doubts):
        a, b = apart.get(key, ("", ""))
        sentences.append(translate(SENTENCES[key]).format(**values, a=a, b=b))
    return sentences


_Table = tuple[str, list[str], list[list[Any]]]


def _overview(pairs: Sequence[dict[str, Any]]) -> _Table:
    """Every other run in a row: its score, what the first is better by, p alone and corrected, what differs."""
    columns = ["its macro F1", "difference", "p", "p (Holm)", "verdict", "persons needed", "what differs"]
    rows = []
    for pair in pairs:
        score = _ends(pair["numbers"].get("all.macro_f1", {}).get("other"), "")
        chances = [f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (pair["p"], pair["p_holm"])]
        keys = ", ".join(row["key"] for row in pair["recipe"])
        needed = f"{rough(pair['persons_needed']):,}" if pair["persons_needed"] else "-"
        rows.append([pair["other"], score, _ends(pair["difference"]), *chances, pair["verdict"], needed, keys])
    return "", [f"{pairs[0]['one']} against", *columns], rows


def _details(pair: dict[str, Any]) -> list[_Table]:
    """Scores, what differs in the recipes, classes and photos, each a table with its title."""
    one, other = names = [pair["one"], pair["other"]]
    numbers = [
        [WORDS[name], _ends(row["one"], ""), _ends(row["other"], ""), _ends(row["difference"])]
        for name, row in pair["numbers"].items()
    ]
    classes = []
    for row in pair["classes"]:
        turned = [f"{row[f'{side}_photos']} ({row[f'{side}_persons']})" for side in ("gained", "lost")]
        classes.append([row["name"], row["persons"], row["photos"], *turned, _ends(row["f1"])])
    photos = []
    for row in pair["changed"]:
        answers = [f"{row[side]['answer']} {row[side]['confidence']:.2f}" for side in ("one", "other")]
        photos.append([row["photo"], row["truth"], *answers, _signed(row["moved"])])
    only = [f"only {name} right (persons)" for name in names]
    title = f"Classes ({pair['gained']:,} photos only {one} has right, {pair['lost']:,} only {other})"
    return [
        ("", ["", *names, f"{one} minus {other}"], numbers),
        ("What differs in the recipes", ["key", *names], [list(row.values()) for row in pair["recipe"]]),
        (title, ["class", "persons", "photos", *only, "F1 difference"], classes),
        ("Photos that changed sides", ["photo", "truth", *names, "truth more probable by"], photos),
    ]


def _signed(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:+.{digits}f}"


def _ends(number: Number | None, sign: str = "+") -> str:
    """`0.712 (0.650 to 0.761)`, with a sign by default."""
    if not number or number["value"] is None:
        return "-"
    form = f"{sign}.{places(number) if sign else 3}f"
    value, *ends = ("" if x is None else f"{x:{form}}" for x in number.values())
    return f"{value} ({' to '.join(ends)})" if all(ends) else value
