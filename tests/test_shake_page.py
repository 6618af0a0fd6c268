"""`threefold shake`: what is printed is what was drawn, JSON holds all of it, and bad input is one line."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from fake_run import simulate, write_run
from test_shake import spoiled

from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.shake import choose, draw_contests, gaps, informed
from threefold.pages.html import catalogue
from threefold.pages.shake_page import SENTENCES, shake
from threefold.runs import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, base = tmp_path_factory.mktemp("runs"), simulate(60, 2, seed=1)
    parts = {"good": spoiled(base, 0.02, 0), "even": spoiled(base, 0.02, 1), "poor": spoiled(base, 0.5, 2)}
    parts["others"] = simulate(50, 2, seed=1)
    return {name: write_run(folder / name, part, draws=20).path for name, part in parts.items()}


def test_the_text_holds_the_numbers(runs):
    paths = [runs["good"], runs["poor"]]
    before = {path: sorted(path.rglob("*")) for path in paths}
    result = shake(paths, persons=1800, draws=300)
    data, text = result.data(), str(result)
    drawn = draw_contests([Run.open(path).predictions() for path in paths], persons=1800, draws=300)
    assert "300 contests of 900 public and 900 private people, drawn from 60" in text
    for path, row in zip(paths, gaps(drawn), strict=True):
        line = next(line for line in text.splitlines() if line.strip().startswith(str(path)))
        keys = ("public", "private", "gap_sd", "gap_50", "gap_90", "gap_95")
        assert line.split()[1:] == [f"{row[key]:.4f}" for key in keys]
    assert f"pick {paths[0]}: it beats {paths[1]} in private with " in text
    assert "knowing the public scores" not in text
    assert data["choice"]["pick"] == str(paths[0]) and data["choice"]["two"] == [str(path) for path in paths]
    assert {path: sorted(path.rglob("*")) for path in paths} == before, "a run is never edited"


def test_one_run_alone_has_a_gap_only(runs):
    result = shake([runs["good"]], draws=100)
    data, text = result.data(), str(result)
    assert f"public and private lie up to {data['runs'][0]['gap_90']:.3f} apart" in text
    assert "best in private" not in text and data["pairs"] == [] and data["strategies"] == {}


def test_public_scores_turn_the_choice(runs):
    paths = [runs[name] for name in ("good", "even", "poor")]
    picks = []
    for public in ("0.95,0.50,-", "0.50,0.95,-"):
        result = shake(paths, draws=400, public=public)
        picks.append(result.data()["choice"]["pick"])
    data, text = result.data(), str(result)
    assert picks == [str(paths[0]), str(paths[1])]
    assert "0.9500" in text and data["given"] == [0.5, 0.95, None]
    drawn = draw_contests([Run.open(path).predictions() for path in paths], draws=400)
    assert data["choice"]["expected"] == choose(informed(drawn, [0.5, 0.95, float("nan")]))["expected"]


def test_a_near_even_choice_is_said_to_be_one(runs):
    result = shake([runs["good"], runs["even"]], draws=400)
    data, text = result.data(), str(result)
    assert ("can't tell" in text) is not data["choice"]["sure"]
    assert data["choice"]["chance"] < 0.75


def test_json_is_all_of_it(runs, capsys):
    result = shake([runs["good"], runs["poor"]], draws=50, public=[0.7, 0.6])
    data = result.data()
    assert json.loads(result.json()) == json.loads(json.dumps(data))
    assert capsys.readouterr() == ("", "")
    assert {"runs", "pairs", "strategies", "choice", "given", "surprise", "persons", "draws", "seed", "on"} == set(data)
    assert data["persons"] == {"public": 30, "private": 30, "oof": 60}


def test_scores_in_another_order_are_asked_about(runs):
    paths = [runs["good"], runs["poor"]]
    assert "in the order of the runs" not in str(shake(paths, draws=2000, public="0.55,0.35"))
    result = shake(paths, draws=2000, public="0.35,0.75")
    data, text = result.data(), str(result)
    assert data["surprise"] < 0.001 and "less than once in 1,000 contests: are they in the order of the runs" in text


def test_a_copy_is_named_as_one(runs, tmp_path):
    copy = shutil.copytree(runs["good"], tmp_path / "copy")
    text = str(shake([runs["good"], copy], draws=100))
    assert text.endswith(f"pick {runs['good']} or {copy}, which score alike whoever is drawn")
    text = str(shake([runs["poor"], copy, runs["good"]], draws=300))
    assert f"pick {copy} or {runs['good']}, which score alike whoever is drawn: it beats {runs['poor']} in" in text


def test_the_table_is_a_row_a_run_and_the_page_says_the_same(runs):
    result = shake([runs["good"], runs["poor"]], draws=2000, public="0.35,0.75")
    columns, *rows = result.rows()
    assert [dict(zip(columns, row, strict=True)) for row in rows] == result.data()["runs"]
    english, korean = result.page(), result.page("ko")
    warned = [line for line in result.lines() if line.startswith("! ")]
    assert warned and all(line.removeprefix("! ").replace("'", "&#39;") in english for line in warned)
    for line in result.lines()[-3:]:
        assert line.replace("'", "&#39;") in english and line not in korean
    assert 'lang="ko"' in korean and "비공개" in korean
    words, messages = catalogue("ko"), [*SENTENCES.values()]
    result.parts(lambda message: messages.append(message) or message)
    for message in messages:
        assert sorted(re.findall(r"{\w+}", words[message])) == sorted(re.findall(r"{\w+}", message)), message


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (("good", "good"), {}, RunError, r"good: is given twice"),
        (("good", "others"), {}, DataError, r"others: .*70 .*photos .*good"),
        (("good",), {"on": "test"}, RunError, r"good: has no scored eval photos"),
        (("good",), {"public": "high"}, RecipeError, r"public: 'high' cannot be read; expected numbers like"),
        (("good", "poor"), {"public": "71.2,70.5"}, RecipeError, r"public: \[71.2, 70.5\] for 2 runs; expected"),
        (("good", "poor"), {"public": "0.7"}, RecipeError, r"public: \[0.7\] for 2 runs; expected"),
        (("good",), {"persons": 1}, DataError, r"1 persons, share 0.5 public: 0 and 1; expected 1 or more"),
    ],
)
def test_bad_input_is_one_line(runs, names, options, error, message):
    with pytest.raises(error, match=message) as caught:
        shake([runs[name] for name in names], draws=20, **options)
    assert "\n" not in str(caught.value)
