"""`threefold compare RUN_A RUN_B [...]`: is the first run better than each of the others, and what made it so?

One rule for two runs and for many: the first run is judged, a difference is the first minus the other, and "better"
says that the first is. The numbers are `evidence.compare`'s; here they are joined with what the runs were made from,
since a difference can be put down to something only where one thing differs. One document holds all that is said: it is
what --json prints, the terminal shows and the page renders. Photos that changed sides are named and shown only as far
as `photos` allows, so that with 0 nothing of a person is in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from threefold.errors import RecipeError
from threefold.evidence.bootstrap import Number, places
from threefold.evidence.compare import Comparison, changes, compare_all
from threefold.evidence.ensemble import aligned
from threefold.evidence.metrics import COLUMNS
from threefold.files import csv_text, write_text
from threefold.progress import plain_console
from threefold.recipe import differences
from threefold.runs import Run, open_runs

Say = Callable[[str], str]
_NOT_TRIED = ("hypothesis", "baseline", "track")  # keys that change nothing in what is trained
WORDS = {"all.macro_f1": "macro F1"} | {
    name: name.removeprefix("all.").replace("_f1", " F1").replace("_", " ").replace(".", " ")
    for name in COLUMNS if not name.startswith("f1.")
} | {"age_error": "age error in years (less is better)"}  # fmt: skip
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
"""Every sentence that is put together here; those from `commit` on are warned of where that part of the stamp differs.

A page says them in its language."""
PLACES = {"oof": "out of fold", "test": "eval photos"}
"""What the predictions are of, by the argument `on`."""
_STAMPED = tuple(SENTENCES)[list(SENTENCES).index("commit") :]


@dataclass(frozen=True)
class _Pair:
    """The first run and one of the others: their names, what was found, and who changed sides (`changes`)."""

    runs: tuple[Run, Run]
    one: str
    other: str
    found: Comparison
    classes: list[dict[str, Any]]
    photos: list[dict[str, Any]]


def compare_runs(
    runs: Sequence[Path | str], *, on: str = "oof", json: bool = False, out: Path | str | None = None,
    csv: Path | str | None = None, draws: int = 10_000, seed: int = 0, photos: int = 20, lang: str = "en",
    console: Console | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Print how the first run fares against each of the others, and return it: what --json prints.

    on: `oof` (out of fold) or `test` (eval photos that `predict --answers` scored). photos: at most so many photos that
    changed sides are listed; 0 names none. csv: where all of them are written; "-" prints them instead of the tables.
    out: the same as an HTML page in `lang`, with thumbnails. Of two runs the document is the comparison itself; of more
    it has a list `comparisons`, whose verdicts are corrected for their number (Holm).
    Raises RecipeError for two outputs in one place, RunError for fewer than two runs, one that is missing, incomplete,
    without predictions or given twice, and DataError, naming run and photo, where they are not about the same photos,
    persons and labels.
    """
    printed = str(csv) == "-"
    if printed and json:
        raise RecipeError("--json and --csv - both print; give --csv a file")
    if csv and out and Path(csv).resolve() == Path(out).resolve():
        raise RecipeError(f"--csv and --out are both {out}; expected two files")
    opened = open_runs([Path(run) for run in runs])
    paths = [str(run.path) for run in opened]
    parts = aligned([run.predictions(on) for run in opened], paths)
    found = compare_all(parts, draws=draws, seed=seed, names=paths)
    names = _names(opened)
    pairs = [
        _Pair((opened[0], run), names[0], name, each, *changes(parts[0], part))
        for run, name, part, each in zip(opened[1:], names[1:], parts[1:], found, strict=True)
    ]
    told = {"on": on, "draws": draws, "seed": seed, "photos": len(parts[0]), "persons": found[0].persons}
    documents = [_document(pair, len(pairs), photos, str) for pair in pairs]
    whole = told | ({"comparisons": documents} if len(pairs) > 1 else documents[0])
    if csv and not printed:  # files first: what reads the output may close it (`| head`)
        write_text(Path(csv), csv_text(_rows(pairs)))
    if out:
        write_text(Path(out), _page(told, pairs, photos, lang))
    if printed:
        print(csv_text(_rows(pairs)), end="")
    elif json:
        print(dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(told, documents, console)
    return whole


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: the way from the folder that holds them all (`train.mix=cutmix/seed0`).

    Where that is long, the names of their folders; where those are alike, the paths as they are.
    """
    places = [run.path.resolve() for run in runs]
    ways = [place.relative_to(os.path.commonpath([each.parent for each in places])) for place in places]
    names = [run.name for run in runs]
    if all(len(way.parts) <= 3 for way in ways):
        return [way.as_posix() for way in ways]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _document(pair: _Pair, count: int, photos: int, say: Say) -> dict[str, Any]:
    """One of `count` comparisons as JSON, its sentences and names of classes in the language of `say`."""

    def words(row: dict[str, Any], key: str) -> dict[str, Any]:
        return row | {key: " ".join(map(say, row[key].split(" ")))}

    found, gained = pair.found, [row["gained"] for row in pair.photos]
    numbers = {name: {"one": found.one[name], "other": found.other[name], "difference": found.difference[name]}
               for name in WORDS if found.one[name]["value"] is not None}  # fmt: skip
    f1 = [found.difference.get(f"f1.{row['code']}", dict.fromkeys(("value", "low", "high"))) for row in pair.classes]
    recipe = _recipe(*pair.runs)
    return {
        "one": pair.one, "other": pair.other, "judged": list(found.judged), "difference": found.headline,
        "verdict": found.verdict, "persons_needed": found.persons_needed, "p": found.p, "p_holm": found.p_holm,
        "sentences": _sentences(pair, count, say), "warnings": _warnings(pair, [row["key"] for row in recipe], say),
        "numbers": numbers, "recipe": recipe, "gained": sum(gained), "lost": len(gained) - sum(gained),
        "classes": [words(row, "name") | {"f1": gap} for row, gap in zip(pair.classes, f1, strict=True)],
        "changed": [words(row, "truth") | {side: words(row[side], "answer") for side in ("one", "other")}
                    for row in pair.photos[:photos]],
    }  # fmt: skip


def _sentences(pair: _Pair, count: int, say: Say) -> list[str]:
    """The verdict in words, and what it would take."""
    found, head, needed = pair.found, pair.found.headline, pair.found.persons_needed
    values = {key: _signed(number, places(head)) for key, number in head.items()} | {
        "one": pair.one, "other": pair.other, "count": str(count), "persons": f"{found.persons:,}",
        "what": say(WORDS[found.judged[0]] if len(found.judged) == 1 else SENTENCES["mean"]),
        "needed": _people(needed),
    }  # fmt: skip
    if found.persons == 1:
        told = ["one"]
    else:
        out = (head["low"] or 0) > 0 or (head["high"] or 0) < 0
        told = [found.verdict, *["few"] * (out and found.p > 0.05), *["chance"] * (found.p <= 0.05 < found.p_holm)]
        told.append("never" if needed is None else "needed")
    return [say(SENTENCES[key]).format(**values) for key in told]


def rough(persons: int) -> int:
    """Rounded up to two digits, as little as is known of it: 13,847 -> 14,000."""
    step = int(10 ** max(len(str(persons)) - 2, 0))
    return -(-persons // step) * step


def _recipe(one: Run, other: Run) -> list[dict[str, Any]]:
    """{key, one, other} of everything that makes the runs differ: keys of the recipe, and the vote of an ensemble."""
    same = one.stamp.get("data_digest") == other.stamp.get("data_digest")
    left_out = (*_NOT_TRIED, *["data.source"] * same)  # another way to the same files makes no difference
    rows = [row for row in differences(one.recipe, other.recipe) if row[0] not in left_out]
    keys = ("members", "weights", "vote")
    votes = [[run.metrics.get("ensemble", {}).get(key) for key in keys] for run in (one, other)]
    if votes[0] != votes[1]:
        rows.append(("ensemble", _vote(*votes[0]), _vote(*votes[1])))
    return [dict(zip(("key", "one", "other"), row, strict=True)) for row in rows]


def _vote(members: list[str] | None, weights: list[float] | None, vote: str | None) -> str:
    """`a (0.67), b (0.33), soft`, empty for a run that is no ensemble. Members by their folder: a page is shared."""
    names = [Path(member).name for member in members or []]
    said = [f"{name} ({weight:.2g})" for name, weight in zip(names, weights or [], strict=False)] or names
    return ", ".join([*said, vote] if vote else said)


def _warnings(pair: _Pair, keys: Sequence[str], say: Say) -> list[str]:
    """What stands in the way of putting a difference down to something; `keys`: what differs in the recipes."""
    stamps = [[run.stamp.get(key) for run in pair.runs] for key in _STAMPED]
    apart = {key: ab for key, ab in zip(_STAMPED, stamps, strict=True) if ab[0] != ab[1] and not {None, ""} & {*ab}}
    said = ["many"] * (len(keys) > 1) + ["nothing"] * (set(keys) <= {"seed"}) + list(apart)
    said += ["persons"] * (pair.found.persons == pair.found.photos)
    values = {"one": pair.one, "other": pair.other, "count": len(keys), "keys": ", ".join(keys)}
    return [say(SENTENCES[key]).format(**values, **dict(zip("ab", apart.get(key, ()), strict=False))) for key in said]


def _print(told: dict[str, Any], pairs: Sequence[dict[str, Any]], console: Console | None) -> None:
    """Tables that fit the terminal; elsewhere plain and as wide as they need."""
    console = plain_console(console)
    many = len(pairs) > 1
    lines = [(line, "" if place else "bold") for pair in pairs
             for place, line in enumerate(pair["sentences"][: 1 if many else None])]  # fmt: skip
    lines += [(f"! {line}", "yellow") for line in dict.fromkeys(line for pair in pairs for line in pair["warnings"])]
    about = f"{told['photos']:,} photos of {told['persons']:,} persons, {PLACES[told['on']]}; 95 % intervals from "
    about += f"{told['draws']:,} draws of persons"
    about += "; verdicts corrected for the number of comparisons (Holm), intervals each one's own" * many
    for line, style in [*lines, (about, "")]:
        console.print(Text(line, style=style), soft_wrap=True)
    for title, columns, rows in _several(pairs) if many else _two(pairs[0]):
        if title:
            console.print(Text(f"\n{title}" + ("" if rows else ": nothing"), style="bold"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(Text(column))
        for row in rows:
            table.add_row(*(Text(str(cell), overflow="fold") for cell in row))
        if rows:
            console.print(table)


_Tables = list[tuple[str, list[str], list[list[Any]]]]


def _several(pairs: Sequence[dict[str, Any]]) -> _Tables:
    """Every other run in a row: its score, what the first is better by, p alone and corrected, what differs."""
    columns = [f"{pairs[0]['one']} against", "its macro F1", "difference", "p", "p (Holm)", "verdict", "persons needed",
               "what differs"]  # fmt: skip
    rows = [
        [pair["other"], _ends(pair["numbers"].get("all.macro_f1", {}).get("other"), ""), _ends(pair["difference"]),
         _chance(pair["p"]), _chance(pair["p_holm"]), pair["verdict"], _people(pair["persons_needed"]),
         ", ".join(row["key"] for row in pair["recipe"])]
        for pair in pairs
    ]  # fmt: skip
    return [("", columns, rows)]


def _two(pair: dict[str, Any]) -> _Tables:
    one, other = names = [pair["one"], pair["other"]]
    numbers = [[WORDS[name], _ends(row["one"], ""), _ends(row["other"], ""), _ends(row["difference"])]
               for name, row in pair["numbers"].items()]  # fmt: skip
    classes = [[row["name"], row["persons"], row["photos"], *(f"{row[f'{side}_photos']} ({row[f'{side}_persons']})"
                for side in ("gained", "lost")), _ends(row["f1"])] for row in pair["classes"]]  # fmt: skip
    photos = [[row["photo"], row["truth"], *(f"{row[side]['answer']} {row[side]['confidence']:.2f}"
               for side in ("one", "other")), _signed(row["moved"])] for row in pair["changed"]]  # fmt: skip
    only = [f"only {name} right (persons)" for name in names]
    return [
        ("", ["", *names, f"{one} minus {other}"], numbers),
        ("What differs in the recipes", ["key", *names], [list(row.values()) for row in pair["recipe"]]),
        (f"Classes ({pair['gained']:,} photos only {one} has right, {pair['lost']:,} only {other})",
         ["class", "persons", "photos", *only, "F1 difference"], classes),
        ("Photos that changed sides", ["photo", "truth", *names, "truth more probable by"], photos),
    ]  # fmt: skip


def _signed(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:+.{digits}f}"


def _ends(number: Number | None, sign: str = "+") -> str:
    """`0.712 (0.650 to 0.761)`, with a sign by default."""
    if not number or number["value"] is None:
        return "-"
    form = f"{sign}.{places(number) if sign else 3}f"
    value, *ends = ("" if x is None else f"{x:{form}}" for x in number.values())
    return f"{value} ({' to '.join(ends)})" if all(ends) else value


def _people(needed: int | None) -> str:
    return "-" if needed is None else f"{rough(needed):,}"


def _chance(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _rows(pairs: Sequence[_Pair]) -> list[Sequence[object]]:
    """All photos that changed sides, for a CSV."""
    columns = "one,other,photo,person,truth,one_answer,one_confidence,other_answer,other_confidence,moved"
    return [columns.split(","), *(
        (pair.one, pair.other, row["photo"], row["person"], row["truth"], *row["one"].values(), *row["other"].values(),
         row["moved"])
        for pair in pairs for row in pair.photos
    )]  # fmt: skip


def _page(told: dict[str, Any], pairs: Sequence[_Pair], photos: int, lang: str) -> str:
    # matplotlib (behind the thumbnails) and jinja2 come with [train]; the terminal's answer needs neither
    from threefold.pages.figures import photo_paths, thumbnail
    from threefold.pages.html import render, translator

    documents = [_document(pair, len(pairs), photos, translator(lang)) for pair in pairs]
    paths = photo_paths(pairs[0].runs[0]) if told["on"] == "oof" and photos else {}
    wanted = {row["photo"] for document in documents for row in document["changed"]}
    pictures = {photo: thumbnail(path) for photo, path in paths.items() if photo in wanted}
    return render(
        "compare", lang, told=told, pairs=documents, words=WORDS, pictures=pictures, places=places, rough=rough
    )
