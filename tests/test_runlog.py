"""The experiment log: verdicts against baselines, what may not be compared, filters, order, CSV, JSON and the page."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import optuna
import pytest
from fake_run import simulate, write_run

from threefold.errors import RecipeError
from threefold.evidence.compare import compare_predictions
from threefold.files import write_json
from threefold.pages.html import catalogue
from threefold.pages.runlog import WHY, runs_table
from threefold.pages.runs_page import condition, meets, ordered, runs
from threefold.predictions import Predictions
from threefold.recipe import make_recipe, write_recipe

BASE = {"train.epochs": 5, "hypothesis": "plain is enough"}


def spoilt(oof: Predictions, share: float) -> Predictions:
    """The same photos; of the first `share` of them the answer is a lot."""
    rows = np.arange(len(oof)) < share * len(oof)
    lots = oof.probabilities[np.random.default_rng(0).permutation(len(oof))]
    return replace(oof, probabilities=np.where(rows[:, None], lots, oof.probabilities))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten runs of whose baselines something is to be said, and a search with a pruned and a failed trial."""
    home = tmp_path_factory.mktemp("log")
    root, oof = home / "runs", simulate(60, 3, seed=1)
    write_recipe(make_recipe(BASE), home / "base.yaml")
    own = BASE | {"data.folds": "3", "data.source": "photos"}
    named = own | {"baseline": "../../base.yaml"}
    write_run(root / "base", spoilt(oof, 0.3), recipe=own)
    write_run(root / "base1", spoilt(oof, 0.1), recipe=own | {"seed": 1}, seed=1)
    write_run(root / "averaged", oof, recipe=named | {"baseline": "../base", "hypothesis": "two are better"}, commit="")
    write_json(root / "averaged" / "ensemble.json", {})
    mixed = {"train.mix": "cutmix(p=0.5)", "model.head": "flat18", "hypothesis": "CutMix [0.5] helps <b>the old</b>"}
    write_run(root / "good", oof, commit="beef", recipe=named | mixed)
    write_run(root / "bad1", spoilt(oof, 0.6), recipe=named | {"seed": 1, "loss.age": "kl"}, seed=1)
    write_run(root / "same", spoilt(oof, 0.3), recipe=named | {"optim": "sgd(lr=0.1)"}, commit="beef+")
    write_run(root / "photos", oof, recipe=named | {"baseline": "../base"}, data_digest="x" * 32)
    write_run(root / "dealt", oof, recipe=named | {"baseline": "../base"}, folds_digest="y" * 32)
    write_run(root / "alone", oof, recipe=named, folds_digest="z" * 32)
    write_run(root / "lost", oof, recipe=named | {"baseline": "gone.yaml"}, version="0.2.0", commit="")
    (root / "search").mkdir()
    (root / "search" / ".search").touch()
    for name, error in (("trial0000", optuna.TrialPruned("macro F1 0.1 is below")), ("trial0001", ValueError("no"))):
        run = write_run(root / "search" / name, oof, complete=False, recipe=own)
        with pytest.raises(type(error)), run.training():
            raise error
    return root


@pytest.fixture(scope="module")
def rows(root):
    return {row.name: row for row in runs_table(root)}


@pytest.mark.parametrize(
    ("name", "base"), [("good", "base"), ("bad1", "base1"), ("same", "base"), ("averaged", "base")]
)
def test_a_verdict_is_that_of_the_pair_alone(root, rows, name, base):
    one, other = (Predictions.load(root / run / "oof.npz") for run in (name, base))
    expected = compare_predictions(one, other)  # with the draws that `threefold compare` takes
    assert rows[name].against == base and rows[name].verdict == expected.verdict
    assert rows[name].difference == pytest.approx(expected.difference["all.macro_f1"])
    assert rows[name].verdict == {"good": "better", "bad1": "worse", "same": "can't tell", "averaged": "better"}[name]


def test_what_may_not_be_compared_is_said_with_the_reason_and_never_computed(rows):
    remarks = {name: (row.verdict, row.why.words()) for name, row in rows.items()}
    assert remarks["photos"] == ("not comparable", "other photos or labels than base")
    assert remarks["dealt"] == ("not comparable", "other folds than base")
    assert remarks["alone"] == (
        "no baseline run",
        "no complete run of ../../base.yaml on these photos and folds is here",
    )
    assert remarks["lost"] == ("no baseline run", "baseline 'gone.yaml' is not here")
    assert remarks["base"] == remarks["base1"] == ("", "")
    assert remarks["good"][1] == "other code than base" and remarks["bad1"][1] == remarks["averaged"][1] == ""
    assert all(row.difference is None for row in rows.values() if row.name not in ("good", "bad1", "same", "averaged"))


def test_what_changed_is_from_the_baseline_and_without_one_from_the_defaults(rows):
    assert rows["good"].changed == ("model.head: flat18", "train.mix: cutmix(p=0.5)")
    assert rows["bad1"].changed == ("loss.age: kl",) and rows["bad1"].changed_from == "base1"
    assert rows["alone"].changed == ("data.folds: 3",) and rows["alone"].changed_from == "../../base.yaml"
    assert rows["base"].changed == ("data.folds: 3", "train.epochs: 5") and rows["base"].changed_from == "defaults"
    assert rows["lost"].changed_from == "defaults" and rows["averaged"].changed == ()


def test_letters_say_which_of_data_folds_and_code_differs(rows):
    def letters(name):
        return rows[name].data_group, rows[name].folds_group, rows[name].code_group.rstrip("+?")

    base = letters("base")
    assert [one != two for one, two in zip(letters("photos"), base, strict=True)] == [True, False, False]
    assert [one != two for one, two in zip(letters("dealt"), base, strict=True)] == [False, True, False]
    assert [one != two for one, two in zip(letters("good"), base, strict=True)] == [False, False, True]
    assert rows["same"].code_group.endswith("+") and rows["lost"].code_group.endswith("?")
    assert rows["averaged"].code_group == "-" and rows["averaged"].kind == "ensemble"
    assert rows["averaged"].group == rows["base"].group != rows["photos"].group != rows["dealt"].group


def test_a_pruned_trial_has_not_failed(rows):
    pruned, failed = rows["search/trial0000"], rows["search/trial0001"]
    assert (pruned.kind, pruned.state, pruned.why.words()) == ("trial", "pruned", "macro F1 0.1 is below")
    assert (failed.kind, failed.state, failed.why.words()) == ("trial", "failed", "ValueError: no")


def test_the_nearest_run_of_a_file_and_an_unfinished_baseline_are_named(tmp_path):
    write_recipe(make_recipe(BASE), tmp_path / "base.yaml")
    oof = simulate(12, 2)
    write_run(tmp_path / "runs" / "near", oof, recipe=BASE | {"train.epochs": 4, "data.seed": 3})
    write_run(tmp_path / "runs" / "far", oof, recipe=BASE | {"train.epochs": 4, "model.head": "flat18"})
    write_run(tmp_path / "runs" / "one", oof, recipe=BASE | {"baseline": "../../base.yaml", "tta": "flip"})
    write_run(tmp_path / "runs" / "half", oof, complete=False)
    write_run(tmp_path / "runs" / "two", oof, recipe={"baseline": "half"})
    rows = {row.name: row for row in runs_table(tmp_path / "runs")}
    assert rows["one"].why.words().endswith("is here; the nearest, near, differs in train.epochs")
    assert (rows["two"].verdict, rows["two"].why.words()) == ("no baseline run", "half is stopped")
    assert rows["one"].difference is rows["two"].difference is None


def test_damaged_predictions_cost_only_the_verdict_of_their_run(root, rows, tmp_path):
    for name in ("base", "good", "averaged"):
        shutil.copytree(root / name, tmp_path / name)
    write_recipe(make_recipe(BASE | {"baseline": "../base"}), tmp_path / "good" / "recipe.yaml")
    (tmp_path / "good" / "oof.npz").write_bytes(b"PK")
    damaged = {row.name: row for row in runs_table(tmp_path)}
    assert (
        damaged["good"].verdict == "not comparable" and "oof.npz: not a predictions file" in damaged["good"].why.words()
    )
    assert (damaged["averaged"].verdict, damaged["averaged"].difference) == ("better", rows["averaged"].difference)
    cheap = {row.name: row for row in runs_table(root, verdicts=False)}
    assert {cheap[name].verdict for name in ("good", "bad1", "same", "averaged", "base")} == {""}
    assert cheap["photos"] == rows["photos"] and cheap["good"].against == "base"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("train.mix=cutmix", {"good"}),
        ("train.mix = CUTMIX(p=0.5)", {"good"}),
        ("state=pruned", {"search/trial0000"}),
        ("state!=complete", {"search/trial0000", "search/trial0001"}),
        ("verdict=can't tell", {"same"}),
        ("difference>0", {"good", "averaged"}),
        ("difference<=0", {"bad1", "same"}),
        ("changed=loss.age", {"bad1"}),
        ("seed=1.0", {"bad1", "base1"}),
        ("version>=0.2", {"lost"}),
        ("run=base", {"base"}),
        ("code=-", {"averaged"}),
        ("difference=", None),
        ("cutmix [0", {"good"}),
        ("TRIAL", {"search/trial0000", "search/trial0001"}),
    ],
)
def test_filters(rows, text, names):
    chosen = {name for name, row in rows.items() if meets(row, condition(text))}
    assert chosen == (names or {name for name, row in rows.items() if row.difference is None})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sort": "-macro_f"}, "--sort: there is no column 'macro_f' .*nearest: macro_f1"),
        ({"filters": ["train.mixx=cutmix"]}, "no column 'train.mixx' .*nearest: train.mix"),
        ({"filters": ["macro F1>good"]}, "macro F1 is a number, 'good' is none"),
        ({"filters": ["seconds>"]}, "seconds is a number, '' is none"),
    ],
)
def test_what_there_is_not_is_told_in_one_line_before_any_work(root, options, match, monkeypatch):
    monkeypatch.setattr("threefold.pages.runs_page.runs_table", lambda *_, **__: pytest.fail("worked"))
    with pytest.raises(RecipeError, match=match) as error:
        runs(root, **options)
    assert "\n" not in str(error.value)


def test_order_keeps_what_has_no_value_behind_in_both_directions(rows):
    up, down = (ordered(list(rows.values()), "difference", falling) for falling in (False, True))
    assert [row.name for row in up[:2]] == ["bad1", "same"] and {row.name for row in down[:2]} == {"good", "averaged"}
    assert all(row.difference is None for row in (*up[4:], *down[4:])) and len(up) == len(down) == 12
    assert ordered(list(rows.values()), "train.mix", False)[0].name == "good"
    names = [row.name for row in ordered(list(rows.values()), "name", False)]
    assert names == sorted(rows)


def test_csv_and_json_hold_the_same_as_the_rows(root, rows, capfd):
    table = list(csv.DictReader(io.StringIO(runs(root, sort="name", filters=["state=complete"]).csv())))
    assert [row["name"] for row in table] == sorted(name for name, row in rows.items() if row.state == "complete")
    good = next(row for row in table if row["name"] == "good")
    assert float(good["macro_f1"]) == rows["good"].macro_f1["value"] and good["commit"] == "beef"
    assert float(good["difference_low"]) == rows["good"].difference["low"] and good["why"] == "other code than base"
    assert good["changed"] == "model.head: flat18; train.mix: cutmix(p=0.5)"
    assert next(row for row in table if row["name"] == "base")["difference_high"] == ""
    (good,) = json.loads(runs(root, verdicts=False, filters=["name=good"]).json())["runs"]
    assert good["recipe"]["train.mix"] == "cutmix(p=0.5)" and good["difference"] is None
    assert good["gender"] == rows["good"].gender and good["why"] == "other code than base"
    assert capfd.readouterr() == ("", "")


def test_the_table_tells_verdicts_and_their_limits(root):
    lines = runs(root, sort="-difference").lines()
    assert re.match(r"(good|averaged) ", lines[1])
    assert re.search(r" \+0\.\d{4} \[\+0\.\d{4}, \+0\.\d{4}\] +better", "\n".join(lines))
    assert any("better, other code" in line for line in lines)
    assert "verdicts, each of its own pair" in lines[-1] and lines[-1].startswith("4 ")
    warnings = [line for line in lines if line.startswith("! ")]
    assert "Do not compare those scores." in warnings[0] and "may be the code's" in warnings[1]
    assert runs(root, filters=["nobody has this"]).lines() == [f"no runs in {root} meet the filters"]


def page(root, path, lang="en"):
    path.write_text(replace(runs(root), page_folder=path.parent).page(lang), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def test_every_reason_has_its_korean():
    holes = re.compile(r"\{\w+\}")
    for message in WHY.values():
        assert sorted(holes.findall(catalogue("ko")[message])) == sorted(holes.findall(message))


def test_the_page_in_both_languages(root, tmp_path):
    text, other = (page(root, tmp_path / f"{lang}.html", lang=lang) for lang in ("en", "ko"))
    assert "CutMix [0.5] helps &lt;b&gt;the old&lt;/b&gt;" in text and "<b>the old" not in text
    assert "other photos or labels than base" in text and "other photos" not in other
    for word in (
        "판정",
        "비교 불가",
        "기준 run 없음",
        "더 좋음",
        "중단(가지치기)",
        "사진이나 라벨이 다름(비교 대상: base)",
        "기준 &#39;gone.yaml&#39;: 여기에 없음",
    ):
        assert word in other, word
    assert text.count("<tbody role") == other.count("<tbody role") == 12
    assert 'aria-sort="descending"' in text and "threefold train recipes/base.yaml" in text


def test_a_report_is_linked_from_where_the_page_lies(root, tmp_path):
    shutil.copytree(root / "base", tmp_path / "runs" / "base #1")
    (tmp_path / "runs" / "base #1" / "report.html").write_text("x")
    pages = tmp_path / "pages"
    pages.mkdir()
    assert 'href="../runs/base%20%231/report.html"' in page(tmp_path / "runs", pages / "log.html")


DRIVE = """<script>
const names = () => runs.filter(run => !run.hidden).map(run => run.rows[0].cells[0].dataset.v), seen = {}
const press = n => (heads[n].firstElementChild.click(), names())
const ask = (column, sign, wanted) => {
  $("column").value = column; $("column").dispatchEvent(new Event("change"))
  $("sign").value = sign; $("wanted").value = wanted; $("wanted").dispatchEvent(new Event("input"))
  return names()
}
const asked = JSON.parse(document.body.dataset.asked)
const typed = text => { $("words").value = text; $("words").dispatchEvent(new Event("input")); return names() }
seen.start = names(); seen.gap = press(2); seen.up = press(2); seen.name = press(0); seen.sorted = heads[0].ariaSort
seen.words = typed("CUTMIX flat18"); seen.count = $("count").textContent; seen.mixed = $("mixed").hidden
typed(""); picks[1].value = picks[1].options[2].value; picks[1].dispatchEvent(new Event("change")); seen.folds = names()
seen.nobody = typed("nobody"); seen.nothing = $("nothing").hidden
typed(""); picks[1].value = ""; ask("", "has", "")
seen.asked = asked.map(filter => ask(...filter))
ask("people", "has", ""); seen.options = [...$("column").options].map(option => option.value)
ask("train.mix", "has", ""); seen.mix = ($("order").click(), names())
seen.shown = runs[0].querySelector(".shown").textContent
seen.back = ($("order").click(), names()); seen.way = $("order").dataset.way
document.title = JSON.stringify(seen)
</script></body>"""


ASKED = {
    "train.mix=cutmix": ("train.mix", "=", "cutmix"),
    "difference>=0": ("difference", ">=", "0"),
    "macro_f1<=0.5": ("macro_f1", "<=", "0.5"),
    "state!=complete": ("state", "!=", "complete"),
    "verdict=can't tell": ("verdict", "=", "can't tell"),
    "changed=loss.age": ("changed", "=", "loss.age"),
    "seed=1.0": ("seed", "=", "1.0"),
    "version>=0.2": ("version", ">=", "0.2"),
    "difference=": ("difference", "=", ""),
}
"""Filters of the command line, and what is picked on the page for the same."""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the chromium browser on PATH")
def test_a_browser_sorts_and_filters_the_page(root, rows, tmp_path):
    text = page(root, tmp_path / "log.html")
    asked = json.dumps(list(ASKED.values())).replace("'", "&#39;")
    (tmp_path / "log.html").write_text(
        text.replace("</body>", DRIVE).replace("<body", f"<body data-asked='{asked}'"), encoding="utf-8"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run(["chromium", *flags, "--dump-dom", (tmp_path / "log.html").as_uri()],
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL).group(1)
    seen = json.loads(title.replace("&quot;", '"').replace("&amp;", "&"))
    every = list(rows.values())
    assert seen["start"] == [row.name for row in ordered(every, "macro_f1", True)]
    for key, falling in (("gap", True), ("up", False)):
        judged = [row.name for row in ordered(every, "difference", falling) if row.difference]
        values = [rows[name].difference["value"] for name in seen[key][: len(judged)]]
        assert values == sorted(values, reverse=falling) and set(seen[key][: len(judged)]) == set(judged)
    assert seen["name"] == sorted(rows) and seen["sorted"] == "ascending"
    assert seen["words"] == ["good"] and seen["count"] == "1 of 12 runs" and seen["mixed"] is True
    letter = sorted({row.folds_group for row in every})[1]
    assert seen["folds"] == [row.name for row in ordered(every, "name", False) if row.folds_group == letter]
    assert seen["nobody"] == [] and seen["nothing"] is False
    for condition_, names in zip(ASKED, seen["asked"], strict=True):
        assert set(names) == {row.name for row in every if meets(row, condition(condition_))}, condition_
    assert {"accuracy", "seed", "verdict", "version", "optim"} < set(seen["options"]) and "tta" not in seen["options"]
    assert seen["mix"][0] == "good" and seen["shown"] == "train.mix: cutmix(p=0.5)"
    assert seen["back"][-1] == "good" and seen["way"] == "descending"


DAMAGE = {
    "metrics.json": [{"mask": [1]}, {"seconds": "fast"}, {"seconds": float("nan")}, {"macro_f1": {"value": "x"}}],
    "stamp.json": [{"persons": "many"}, {"seed": [1]}, {"created": 5}, {"format": 99}],
}


def test_no_odd_value_of_one_file_costs_the_log(root, tmp_path):
    """Each run is listed, what cannot be read is said, and everything that is written is valid."""
    for file, edits in DAMAGE.items():
        for number, edit in enumerate(edits):
            run = shutil.copytree(root / "base", tmp_path / f"{file}{number}") / file
            run.write_text(json.dumps(json.loads(run.read_text()) | edit))
    for name, text in (("empty", ""), ("list", "[]"), ("half", '{"format"')):
        (shutil.copytree(root / "base", tmp_path / name) / "stamp.json").write_text(text)
    write_recipe(
        make_recipe(BASE | {"baseline": "../self"}), shutil.copytree(root / "base", tmp_path / "self") / "recipe.yaml"
    )
    damaged = {row.name: row for row in runs_table(tmp_path)}
    assert len(damaged) == 12
    for name in ("empty", "list", "half", "stamp.json3"):
        row = damaged[name]
        assert (row.state, row.group, row.code_group, row.macro_f1) == ("damaged", "-", "-", None)
        assert row.why.words().startswith(str(tmp_path / name))
    assert {row.group for row in damaged.values()} == {"a", "-"}
    assert (damaged["self"].verdict, damaged["self"].why.words()) == ("no baseline run", "names itself as its baseline")
    text = page(tmp_path, tmp_path / "log.html")
    assert text.count("<tbody role") == 12 and re.search(r'id="mixed" hidden', text)
    json.loads(runs(tmp_path).json(), parse_constant=pytest.fail)
