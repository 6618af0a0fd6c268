"""`threefold ablate RECIPE KEY=VALUE ...`: one change at a time against the same baseline, on the same folds and seeds.

OUT/baseline and OUT/KEY=VALUE hold ordinary runs (with --seeds a folder of them, seed0, seed1, ...); ablation.csv and
.json say what every change did. All changes are checked before the first network is trained. A change whose training
breaks (a loss that is not finite, too little memory) is listed as failed and the others go on; the result then counts
as a failure, since whoever asked for five answers has four, and --resume tries the broken one again.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threefold import progress
from threefold.errors import DataError, RecipeError, TrainingError
from threefold.evidence.compare import holm, verdict
from threefold.evidence.seeds import seed_difference, spread
from threefold.files import digest, write_csv, write_json
from threefold.recipe import Recipe, differences, make_recipe
from threefold.results import Result, table_lines
from threefold.runs import Run
from threefold.train.request import check_recipe, complete_recipe, need_files, need_folder, need_same, need_scored

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
Plan = dict[str, tuple[str, Recipe]]
"""key=value -> its folder and recipe."""


@dataclass(frozen=True)
class AblateResult(Result):
    """Single changes against a baseline.

    about: recipe, seeds (trainings of each), people, changes (that were compared). trainings: the rows of
    ablation.json, the baseline first, then the largest gain.
    """

    path: Path
    about: Row
    trainings: list[Row]

    @property
    def failure(self) -> str:
        """How many changes failed, and why the first did."""
        failed = [row for row in self.trainings if row["error"]]
        if not failed:
            return ""
        count, first = len(self.trainings) - 1, failed[0]
        return f"{len(failed)} of {count} changes failed, {first['change']}: {first['error']}"

    def lines(self) -> list[str]:
        """The table, and what it cannot say itself."""
        from threefold.pages.html import duration

        columns = ("change", self.trainings[0]["metric"], "difference", "verdict", "time", "to tell it would take")
        rows = []
        for row in self.trainings:
            score, difference = _with_interval(row["score"], ".4f"), _with_interval(row["difference"], "+.4f")
            outcome = row["verdict"] or ("failed" if row["error"] else "")
            effort = row["error"] or needed(row)
            rows.append((row["change"] or BASELINE, score, difference, outcome, duration(row["seconds"] or 0), effort))
        noise = "other people and other seeds" if self.about["seeds"] > 1 else "other people; seed noise is not in them"
        note = f"{self.about['people']:,} people. 95 % intervals are for {noise}."
        if (count := self.about["changes"]) > 1:
            note += f" Verdicts hold for {count} changes together (Holm), an interval for its change alone."
        others = [row["change"] for row in self.trainings if row["other_folds"]]
        warnings = [f"! {change}: was dealt into other folds than the baseline" for change in others]
        return [*table_lines(columns, rows), note, *warnings]

    def data(self) -> Row:
        """What ablation.json holds."""
        return {**self.about, "rows": self.trainings}

    def rows(self) -> list[Sequence[object]]:
        """What ablation.csv holds: score and difference are three columns each."""
        table: list[Row] = []
        for row in self.trainings:
            cells: Row = {}
            for key, cell in row.items():
                if key in ("score", "difference"):
                    names = {"value": key, "low": f"{key}_low", "high": f"{key}_high"}
                    cells |= {name: (cell or {}).get(end) for end, name in names.items()}
                elif key not in ("scores", "differences"):
                    cells[key] = cell
            table.append(cells)
        return [list(table[0]), *(list(cells.values()) for cells in table)]

    def page(self, lang: str = "en") -> str:
        """The table with a bar for every difference, and the noises of seeds and persons."""
        from threefold.pages.html import render

        compared = [row["difference"] for row in self.trainings if row["difference"]]
        reach = max((abs(difference[end]) for difference in compared for end in ("low", "high")), default=0) or 1
        name = self.path.resolve().name
        return render("ablate", lang, name=name, rows=self.trainings, about=self.about, reach=reach)


def ablate(
    recipe: Path | str | Recipe,
    changes: Sequence[str],
    *,
    data: str = "",
    out: Path | str,
    seeds: int = 1,
    base: Iterable[str] = (),
    resume: bool = False,
) -> AblateResult:
    """Train a recipe and each of the `key=value` changes to it into the folder `out`; compare them, write the tables.

    base: overrides that all of them share. seeds: trainings of each. `resume` goes on with what is there. Raises
    RecipeError, DataError or RunError before anything is trained, and what broke the baseline's training; a change
    whose training broke is a failure of the result.
    """
    home, start = Path(out), complete_recipe(recipe, data, base)
    name = "the recipe given" if isinstance(recipe, Recipe) else Path(recipe).name
    if name == "recipe.yaml":  # of a run, where all are called so
        name = f"{Path(str(recipe)).resolve().parent.name}/{name}"
    need_scored(start, seeds)
    need_folder(home, BASELINE, resume)
    plan = plan_changes(start, changes, name)
    for folder in (BASELINE, *(folder for folder, _ in plan.values())):
        need_same(home / folder, seeds)
    rows, people = _train_all(start, plan, home, seeds, resume)
    # several changes are several questions, of which one is "better" by chance: verdicts are true of all together
    compared = [row for row in rows if row["difference"]]
    for row, p in zip(compared, holm(np.array([row["p"] for row in compared])).tolist(), strict=True):
        row |= {"p_holm": p, "verdict": verdict(row["difference"]["value"], p)}
    rows.sort(key=lambda row: (row["change"] != "", -row["difference"]["value"] if row["difference"] else 9))
    about = {"recipe": name, "seeds": seeds, "people": people, "changes": len(compared)}
    result = AblateResult(home, about, rows)
    write_csv(home / "ablation.csv", result.rows())
    write_json(home / "ablation.json", result.data())
    return result


def plan_changes(start: Recipe, changes: Sequence[str], name: str) -> Plan:
    """Folder and recipe of every change, checked as far as it goes without torch; name: of the baseline's recipe.

    RecipeError naming the change, or DataError for photos or a table of it that are not there.
    """
    if not changes:
        raise RecipeError("ablate: no change is named; expected key=value, as in train.mix=none")
    recipes: dict[str, Recipe] = {}
    for change in changes:
        key, sign, value = (part.strip() for part in change.partition("="))
        if key in REFUSED:
            raise RecipeError(f"{change}: {key} cannot be ablated: {REFUSED[key]}")
        changed = make_recipe(start.flat(), [change])
        if not differences(start, changed):
            raise RecipeError(f"{change}: changes nothing, {name} has {key}={start.flat()[key]} already")
        if same := [text for text, other in recipes.items() if other == changed]:
            raise RecipeError(f"{change}: is the same change as {same[0]}")
        check_recipe(changed)
        need_files(changed)
        recipes[f"{key}{sign}{value}"] = changed
    plan = {}
    for text, changed in recipes.items():
        # a name that file systems and shells take: the change itself, or what they take of it with a digest
        folder = re.sub(r"[^\w.=+-]+", "-", text)[:48].strip("-.")
        if folder != text:
            folder = f"{folder}-{digest(text, size=4)}"
        plan[text] = folder, make_recipe({**changed.flat(), "hypothesis": f"{text} against {name}"})
    return plan


def _train_all(start: Recipe, plan: Plan, out: Path, seeds: int, resume: bool) -> tuple[list[Row], int]:
    """The rows of the baseline and of every change, without verdicts, and how many people they are scored on."""
    # late: importing torch takes seconds
    import torch

    from threefold.train.repeat import repeat
    from threefold.train.single import members

    for recipe in (start, *(changed for _, changed in plan.values())):
        members(recipe)
    first = repeat(start, out / BASELINE, seeds, resume)
    rows = [_row("", BASELINE, first, first)]
    for text, (folder, changed) in plan.items():
        try:
            runs = repeat(changed, out / folder, seeds, resume, f"../{BASELINE}")
            rows.append(_row(text, folder, runs, first, len(plan)))
        except (RecipeError, DataError, TrainingError, MemoryError, torch.OutOfMemoryError) as error:
            reason = str(error).partition("\n")[0] or "out of memory"
            progress.say(f"{text} failed: {reason}")
            empty = dict.fromkeys(rows[0])
            rows.append({**empty, "change": text, "run": folder, "state": "failed", "error": reason})
    return rows, first[0].metrics["persons"]


def needed(row: Row) -> str:
    """`5,400 people or 9 seeds`: about what it would take to tell a difference of this size, either alone."""
    if row["verdict"] != "can't tell":
        return ""
    ways = (("persons_needed", "people"), ("seeds_needed", "seeds"))
    return " or ".join(f"{row[key]:,} {word}" for key, word in ways if row[key])


def _row(text: str, folder: str, runs: Sequence[Run], first: Sequence[Run], among: int = 1) -> Row:
    """The row of a change's runs, one of `among` changes, against the baseline's; the baseline's has no `text`."""
    predictions, baseline = ([run.predictions() for run in side] for side in (runs, first))
    noise = spread(predictions)
    difference: Row = {}
    if text:
        difference = asdict(seed_difference(predictions, baseline, among=among))
        # correcting for many changes can ask for more than a single comparison does: never say fewer than there are
        for key, now in (("persons_needed", len(np.unique(predictions[0].persons))), ("seeds_needed", len(runs))):
            difference[key] = difference[key] if (difference[key] or 0) > now else None
    return {
        "change": text,
        "run": folder,
        "state": "complete",
        "metric": noise.metric,
        "score": noise.recipe,
        "difference": difference.get("headline"),
        "p": difference.get("p"),
        "p_holm": None,
        "verdict": None,
        "persons_needed": difference.get("persons_needed"),
        "seeds_needed": difference.get("seeds_needed"),
        "person_sd": noise.person_sd,
        "seed_sd": noise.seed_sd,
        "scores": noise.scores,
        "differences": difference.get("differences"),
        # near duplicates are looked for in prepared photos: other preparation may join, and so deal, other people
        "other_folds": runs[0].stamp["folds_digest"] != first[0].stamp["folds_digest"],
        "seconds": sum(run.metrics["seconds"] for run in runs),
        "error": None,
    }


def _with_interval(number: Row | None, form: str) -> str:
    return f"{number['value']:{form}} [{number['low']:{form}}, {number['high']:{form}}]" if number else "-"
