"""`threefold ablate RECIPE KEY=VALUE ...`: one change at a time against the same baseline, on the same folds and seeds.

OUT/baseline and OUT/KEY=VALUE hold ordinary runs (with --seeds a folder of them, seed0, seed1, ...); ablation.csv,
.json and .html say what each change did. All changes are checked before the first network is trained.

Several changes are several questions: with twenty, one is "better" by chance. Verdicts are therefore Holm's, true of
all changes together, while each interval is of its own change alone. A change whose training breaks (a loss that is not
finite, too little memory) is listed as failed and the others go on; then the verb ends with exit code 1, since a script
that asked for five answers has four. Everything that was found is written by then, and --resume tries the broken one
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from threefold import progress
from threefold.errors import CheckFailed, DataError, RecipeError, TrainingError
from threefold.evidence.compare import holm, verdict
from threefold.evidence.seeds import seed_difference, spread
from threefold.files import digest, write_csv, write_json, write_text
from threefold.pages import html as pages
from threefold.recipe import Recipe, differences, make_recipe
from threefold.runs import Run
from threefold.train.gather import members, named_recipe, need_files
from threefold.train.repeat import need_folder, need_same, need_scored, repeat

BASELINE = "baseline"
_OTHERS = "scores on other people, folds or labels cannot be compared; --set changes it for all, the baseline included"
_UNSEEN = "it changes nothing that is measured"
REFUSED = {
    **dict.fromkeys(("data.source", "data.folds", "data.seed", "data.patches"), _OTHERS),
    **dict.fromkeys(("hypothesis", "baseline", "track", "train.final"), _UNSEEN),
    "seed": "a lucky seed is no finding; --seeds N trains everything under N seeds",
}
"""Keys that are no change, and why."""
Row = dict[str, Any]
_EMPTY: Row = dict.fromkeys((
    "change", "run", "state", "metric", "score", "difference", "p", "p_holm", "verdict", "persons_needed",
    "seeds_needed", "person_sd", "seed_sd", "scores", "differences", "other_folds", "seconds", "error",
))  # fmt: skip


def ablate(
    recipe: Path | str | Recipe, changes: Sequence[str], *, data: str = "", out: Path | str, seeds: int = 1,
    base: Iterable[str] = (), resume: bool = False, lang: str = "en",
) -> list[Row]:  # fmt: skip
    """Train a recipe and each of the `key=value` changes to it into the folder `out`; print and write the comparison.

    base: overrides that all of them share. seeds: trainings of each. `resume` goes on with what is there. Returns the
    rows of ablation.json, the baseline first, then the largest gain. Raises RecipeError or RunError before anything is
    trained, what broke the baseline's training, and CheckFailed at the end when a change's broke.
    """
    out, start = Path(out), named_recipe(recipe, data, base)
    asked = "the recipe given" if isinstance(recipe, Recipe) else _called(Path(recipe))
    pages.translator(lang)  # an unknown language is told now
    need_scored(start, seeds)
    need_folder(out, BASELINE, resume)
    plan = plan_changes(start, changes, asked)
    for name in (BASELINE, *(name for name, _ in plan.values())):
        need_same(out / name, seeds)
    first = repeat(start, out / BASELINE, seeds, resume)
    rows = [_result("", BASELINE, first, first)]
    for text, (name, changed) in plan.items():
        try:
            runs = repeat(changed, out / name, seeds, resume, f"../{BASELINE}")
            rows.append(_result(text, name, runs, first, len(plan)))
        except (RecipeError, DataError, TrainingError, MemoryError, torch.OutOfMemoryError) as error:
            why = str(error).partition("\n")[0] or "out of memory"
            progress.say(f"{text} failed: {why}")
            rows.append({**_EMPTY, "change": text, "run": name, "state": "failed", "error": why})
    told = [row for row in rows if row["difference"]]
    for row, p in zip(told, holm(np.array([row["p"] for row in told])).tolist(), strict=True):
        row |= {"p_holm": p, "verdict": verdict(row["difference"]["value"], p)}
    rows.sort(key=lambda row: (row["change"] != "", -row["difference"]["value"] if row["difference"] else 9))
    about = {"recipe": asked, "seeds": seeds, "people": first[0].metrics["persons"], "changes": len(told)}
    _write(out, rows, about, lang)
    print_ablation(rows, about)
    progress.say(f"written: {out / 'ablation.html'}")
    if failed := [row for row in rows if row["error"]]:
        raise CheckFailed(f"{len(failed)} of {len(plan)} changes failed, {failed[0]['change']}: {failed[0]['error']}")
    return rows


def plan_changes(start: Recipe, changes: Sequence[str], asked: str) -> dict[str, tuple[str, Recipe]]:
    """key=value -> its folder and recipe, everything checked but the photos; RecipeError naming the change,
    or DataError for a file of it that is not there."""
    if not changes:
        raise RecipeError("ablate: no change is named; expected key=value, as in train.mix=none")
    members(start)
    plain: dict[str, Recipe] = {}
    for given in changes:
        key, sign, value = (part.strip() for part in given.partition("="))
        if key in REFUSED:
            raise RecipeError(f"{given}: {key} cannot be ablated: {REFUSED[key]}")
        made = make_recipe(start.flat(), [given])
        if not differences(start, made):
            raise RecipeError(f"{given}: changes nothing, {asked} has {key}={start.flat()[key]} already")
        if same := [text for text, other in plain.items() if other == made]:
            raise RecipeError(f"{given}: is the same change as {same[0]}")
        members(made)
        need_files(made)  # or it would be told after the baseline was trained
        plain[f"{key}{sign}{value}"] = made
    told = {text: {**made.flat(), "hypothesis": f"{text} against {asked}"} for text, made in plain.items()}
    return {text: (_folder(text), make_recipe(flat)) for text, flat in told.items()}


def print_ablation(rows: Sequence[Row], about: Row, console: Console | None = None) -> None:
    """The table, coloured on a terminal, elsewhere plain and as wide as it needs, and what it cannot say itself."""
    console = progress.plain_console(console)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("change", rows[0]["metric"], "difference", "verdict", "time", "to tell it would take"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            row["change"] or BASELINE, _shown(row["score"], ".4f"), _shown(row["difference"], "+.4f"),
            row["verdict"] or ("failed" if row["error"] else ""), pages.duration(row["seconds"] or 0),
            row["error"] or needed(row),
        )  # fmt: skip
    console.print(table, markup=False)
    noise = "other people and other seeds" if about["seeds"] > 1 else "other people; seed noise is not in them"
    together = f" Verdicts hold for {about['changes']} changes together (Holm), an interval for its own change alone."
    lines = [
        f"{about['people']:,} people. 95 % intervals are for {noise}.{together if about['changes'] > 1 else ''}",
        *(f"{row['change']}: was dealt into other folds than the baseline" for row in rows if row["other_folds"]),
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def needed(row: Row) -> str:
    """`5,400 people or 9 seeds`: about what it would take to tell a difference of this size, either alone."""
    ways = (("persons_needed", "people"), ("seeds_needed", "seeds"))
    found = [f"{row[key]:,} {word}" for key, word in ways if row[key]]
    return " or ".join(found) if row["verdict"] == "can't tell" else ""


def _result(text: str, name: str, runs: Sequence[Run], first: Sequence[Run], among: int = 1) -> Row:
    """The row of a change's runs, one `among` so many, against the baseline's; of the baseline where none is named."""
    own, against = ([run.predictions() for run in side] for side in (runs, first))
    noise, has = spread(own), {"persons_needed": len(np.unique(own[0].persons)), "seeds_needed": len(own)}
    found = asdict(seed_difference(own, against, among=among)) if text else {}
    return {
        **_EMPTY, "change": text, "run": name, "state": "complete", "metric": noise.metric,
        "score": noise.recipe, "scores": noise.scores, "person_sd": noise.person_sd, "seed_sd": noise.seed_sd,
        **{key: found[key] for key in ("p", "differences") if found},
        # correcting for many changes can ask for more than a single comparison does: never tell fewer than there are
        **{key: found[key] for key, now in has.items() if found and (found[key] or 0) > now},
        "difference": found.get("headline"), "seconds": sum(run.metrics["seconds"] for run in runs),
        # near duplicates are looked for in prepared photos: other preparation may join, and so deal, other people
        "other_folds": runs[0].stamp["folds_digest"] != first[0].stamp["folds_digest"],
    }  # fmt: skip


def _called(path: Path) -> str:
    """A recipe file by its name; that of a run, recipe.yaml like that of every run, with the run's."""
    return f"{path.resolve().parent.name}/{path.name}" if path.name == "recipe.yaml" else path.name


def _folder(text: str) -> str:
    """A change as a name that file systems and shells take: itself, or what can be kept of it with a digest."""
    name = re.sub(r"[^\w.=+-]+", "-", text)[:48].strip("-.")
    return name if name == text else f"{name}-{digest(text, size=4)}"


def _shown(number: Row | None, form: str) -> str:
    return f"{number['value']:{form}} [{number['low']:{form}}, {number['high']:{form}}]" if number else "-"


def _write(out: Path, rows: Sequence[Row], about: Row, lang: str) -> None:
    kept = [key for key in _EMPTY if key not in ("scores", "differences")]
    wide = ("score", "difference")
    header = [name for key in kept for name in ((key, f"{key}_low", f"{key}_high") if key in wide else (key,))]
    lines = [
        [x for key in kept for x in ((row[key] or dict.fromkeys("vlh")).values() if key in wide else (row[key],))]
        for row in rows
    ]
    write_csv(out / "ablation.csv", [header, *lines])
    write_json(out / "ablation.json", {**about, "rows": list(rows)})
    ends = [abs(row["difference"][end]) for row in rows if row["difference"] for end in ("low", "high")]
    write_text(out / "ablation.html", pages.render(
        "ablate", lang, name=out.resolve().name, rows=rows, about=about, reach=max(ends, default=0) or 1,
    ))  # fmt: skip
