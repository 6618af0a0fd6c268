"""`compare` of made-up runs: which way round the words are, what is warned of, what JSON, table, page and CSV hold."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_run import simulate, write_run
from rich.console import Console
from test_compare import worse

from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.compare import compare, difference
from threefold.files import write_json
from threefold.pages.compare_page import SENTENCES, WORDS, compare_runs
from threefold.pages.html import catalogue

OOF = simulate(40, 2)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """(a good run, one that answers a third of the people at random), alike in recipe and stamp."""
    write_run(tmp_path / "good", OOF, draws=50)
    write_run(tmp_path / "poor", worse(OOF, 0.35), draws=50)
    return tmp_path / "good", tmp_path / "poor"


def printed(*runs: Path, width: int = 0, **options: object) -> str:
    """What the verb prints: plain, or on a terminal of some width."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=width > 0, width=width or None, color_system=None)
    compare_runs(runs, draws=200, console=console, **options)
    return file.getvalue()


def told(*runs: Path, **options: object) -> dict:
    return compare_runs(runs, draws=200, console=Console(file=io.StringIO()), **options)


def edit(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def test_json_is_one_object_of_the_first_minus_the_other(runs, capsys):
    made = compare_runs(runs, json=True, draws=200)
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found == made and out.err == ""
    expected = compare(OOF, worse(OOF, 0.35), draws=200)
    assert found["difference"] == expected.headline == difference(OOF, worse(OOF, 0.35), draws=200)["all.macro_f1"]
    assert found["difference"]["low"] > 0 and found["verdict"] == "better"
    assert (found["one"], found["other"]) == ("good", "poor")
    assert found["persons_needed"] == expected.persons_needed and found["p"] == found["p_holm"] == expected.p
    assert set(found["numbers"]) == set(WORDS) and len(found["classes"]) == 18
    assert found["numbers"]["mask.accuracy"]["difference"] == expected.difference["mask.accuracy"]
    right = found["numbers"]["all.accuracy"]["difference"]["value"] * len(OOF)
    assert found["gained"] - found["lost"] == pytest.approx(right) and found["lost"] > 0


def test_words_and_tables_say_who_is_better_and_never_cut_a_number(runs):
    good, poor = runs
    text = printed(good, poor)
    assert re.match(r"good is better than poor by \+0\.\d{3} macro F1 \(95 % interval \+0\.\d{3} to \+0\.\d{3}\)", text)
    assert printed(poor, good).startswith("poor is worse than good by -0.")
    assert "280 photos of 40 persons, out of fold; 95 % intervals from 200 draws of persons" in text
    assert (
        re.search(r"takes about [\d,]+ persons; here are 40\.", text) and "What differs in the recipes: nothing" in text
    )
    assert "worn female 30-59" in text and "train/0000" in text
    narrow = printed(good, poor, width=60)
    assert max(map(len, narrow.splitlines())) <= 130  # tables are folded; sentences are left to the terminal
    assert "".join(narrow.split()).count("train/0000") == 20


def test_a_difference_is_put_down_to_something_only_where_one_thing_differs(tmp_path, runs):
    good, _ = runs
    other = worse(OOF, 0.35)
    write_run(
        tmp_path / "one", other, recipe={"model.head": "flat18", "hypothesis": "x", "data.source": "csv:elsewhere"}
    )
    assert told(good, tmp_path / "one")["warnings"] == []
    assert told(good, tmp_path / "one")["recipe"] == [{"key": "model.head", "one": "multi", "other": "flat18"}]
    write_run(tmp_path / "two", other, recipe={"model.head": "flat18", "optim": "sgd(lr=0.1)"})
    (warning,) = told(good, tmp_path / "two")["warnings"]
    assert warning == (
        "good and two: 2 things differ (model.head, optim); a gain cannot be put down to any one of them."
    )
    assert f"! {warning}" in printed(good, tmp_path / "two")
    assert "differ in nothing but perhaps the seed" in told(good, runs[1])["warnings"][0]


def test_what_else_differs_is_warned_of(tmp_path, runs):
    good, _ = runs
    stamp = {
        "commit": "abc+",
        "version": "9.9",
        "data_digest": "x",
        "extra_digest": "y",
        "folds_digest": "z",
        "seed": 7,
    }
    edit(good / "stamp.json", extra_digest="other")
    write_run(tmp_path / "odd", worse(OOF, 0.35), recipe={"seed": 7, "data.source": "csv:elsewhere"}, **stamp)
    found = told(good, tmp_path / "odd")
    text = " ".join(found["warnings"])
    said = ("2 things differ (data.source, seed)", "commit 0123456789abcdef and abc+", "0.1.0 and 9.9")
    for words in (*said, "not read the same files", "different extra photos", "different folds", "seeds (0 and 7)"):
        assert words in text
    assert len(found["warnings"]) == 7
    alone = replace(OOF, persons=OOF.photos)
    for name, part in (("a", alone), ("b", worse(alone, 0.2))):
        write_run(tmp_path / name, part, draws=10)
    assert "a person of its own" in told(tmp_path / "a", tmp_path / "b")["warnings"][-1]


def test_an_ensemble_differs_from_its_first_member_by_its_vote(runs):
    good, poor = runs
    vote = {"members": ["/home/x/one", "../poor"], "weights": [2 / 3, 1 / 3], "vote": "soft"}
    edit(good / "metrics.json", ensemble=vote)
    (row,) = told(good, poor)["recipe"]
    assert row == {"key": "ensemble", "one": "one (0.67), poor (0.33), soft", "other": ""}
    edit(poor / "metrics.json", ensemble=vote)
    assert told(good, poor)["recipe"] == []


def test_of_several_runs_the_first_is_judged_and_the_table_corrects(tmp_path, runs, capsys):
    good, poor = runs
    for name, share, seed in (("mild", 0.15, 6), ("close", 0.12, 3)):
        write_run(tmp_path / name, worse(OOF, share, seed), draws=10)
    others = (poor, tmp_path / "mild", tmp_path / "close")
    compare_runs((good, *others), json=True, draws=200)
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert [(row["one"], row["other"]) for row in found] == [("good", "poor"), ("good", "mild"), ("good", "close")]
    for row, path in zip(found, others, strict=True):
        assert row["difference"] == told(good, path)["difference"] and row["p_holm"] >= row["p"]
        assert (row["verdict"] == "can't tell") == (row["p_holm"] > 0.05)
        assert any("by chance too often" in line for line in row["sentences"]) == (row["p"] <= 0.05 < row["p_holm"])
    lines = printed(good, *others).splitlines()
    header = next(line for line in lines if line.startswith("good against"))
    assert re.split(r" {2,}", header.strip()) == [
        "good against", "its macro F1", "difference", "p", "p (Holm)", "verdict", "persons needed", "what differs"
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[lines.index(header) + 1 :]] == ["poor", "mild", "close"]


def test_runs_are_told_by_what_tells_them_apart(tmp_path, runs):
    def names(*paths: Path) -> tuple[str, str]:
        found = told(*paths)
        return found["one"], found["other"]

    for way in ("mix=cutmix/seed0", "mix=none/seed0", "a/b/c/d/good", "a/b/c/d/other"):
        shutil.copytree(runs[1], tmp_path / way)
    assert names(runs[0], tmp_path / "mix=none" / "seed0") == ("good", "mix=none/seed0")
    assert names(tmp_path / "mix=cutmix/seed0", tmp_path / "mix=none/seed0") == ("mix=cutmix/seed0", "mix=none/seed0")
    assert names(runs[0], tmp_path / "a/b/c/d/other") == ("good", "other")
    assert names(runs[0], tmp_path / "a/b/c/d/good") == (str(runs[0]), str(tmp_path / "a/b/c/d/good"))


def test_eval_photos_are_compared_on_request(runs):
    good, poor = runs
    with pytest.raises(RunError, match="good: has no scored eval photos"):
        told(good, poor, on="test")
    for run, part in ((good, worse(OOF, 0.35)), (poor, OOF)):
        part.save(run / "test.npz")
        write_json(run / "eval.json", {})
    assert told(good, poor, on="test")["verdict"] == "worse" and "eval photos" in printed(good, poor, on="test")


def test_every_photo_that_changed_sides_is_in_the_csv_and_none_is_named_at_zero(tmp_path, runs):
    found = told(*runs, photos=3, csv=tmp_path / "all.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert len(found["changed"]) == 3 and len(rows) == found["gained"] + found["lost"] > 3
    for row, shown in zip(rows, found["changed"], strict=False):
        assert (row["photo"], row["truth"]) == (shown["photo"], shown["truth"]) and row["one"] == "good"
        assert row["other_answer"] == shown["other"]["answer"] and float(row["moved"]) == shown["moved"]
        assert float(row["one_confidence"]) == shown["one"]["confidence"]
    found = told(*runs, photos=0, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"\d{6}_asian|data:image", json.dumps(found) + page + printed(*runs, photos=0))


def test_the_photos_go_to_the_output_alone_and_two_outputs_need_two_places(tmp_path, runs, capsys):
    told(*runs, csv=tmp_path / "all.csv")
    capsys.readouterr()
    told(*runs, csv="-")
    assert capsys.readouterr().out == (tmp_path / "all.csv").read_text()
    with pytest.raises(RecipeError, match="--json and --csv - both print"):
        told(*runs, csv="-", json=True)
    with pytest.raises(RecipeError, match=r"--csv and --out are both .*x; expected two files"):
        told(*runs, csv=tmp_path / "x", out=tmp_path / "runs" / ".." / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_printed_never_contradicts_the_verdict(tmp_path, runs, monkeypatch):
    """An end near 0 keeps the digits that tell it from 0; of few persons it is said why an interval is not enough."""
    near = {"value": 0.0122, "low": 0.0004, "high": 0.024}
    monkeypatch.setattr(
        "threefold.pages.compare_page.compare_all",
        lambda *_, **__: [replace(compare(OOF, worse(OOF, 0.35), draws=200), headline=near, persons_needed=13_847)],
    )
    text = printed(*runs, out=tmp_path / "page.html")
    assert text.startswith("good is better than poor by +0.0122 macro F1 (95 % interval +0.0004 to +0.0240).")
    assert "takes about 14,000 persons" in text and "+0.0004 to" in (tmp_path / "page.html").read_text()
    monkeypatch.undo()
    for people in (1, 5):
        part = OOF.take(np.arange(7 * people))
        right = replace(part, probabilities=np.eye(18, dtype=np.float32)[part.label])
        write_run(tmp_path / f"right{people}", right, draws=10)
        write_run(
            tmp_path / f"wrong{people}", replace(right, probabilities=np.roll(right.probabilities, 1, 1)), draws=10
        )
    (only,) = told(tmp_path / "right1", tmp_path / "wrong1")["sentences"]
    assert only.startswith("Can't tell right1 and wrong1 apart: of one person there is no interval (+0.")
    found = told(tmp_path / "right5", tmp_path / "wrong5")
    assert found["difference"]["low"] > 0 and found["verdict"] == "can't tell"
    assert "it takes 6 to tell anything" in found["sentences"][1] and "about 6 persons" in found["sentences"][2]


def test_the_page_says_the_same_and_asks_for_nothing(tmp_path):
    write_run(tmp_path / "<good>", OOF, pictures=tmp_path / "pictures", recipe={"model.head": "flat18"}, draws=10)
    for name, share in (("poor", 0.35), ("mild", 0.2)):
        write_run(tmp_path / name, worse(OOF, share), draws=10)
    found = told(*(tmp_path / name for name in ("<good>", "poor", "mild")), photos=2, out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<good>" not in page and not re.search(r"https?://|<script|<link", page)
    for pair in found["comparisons"]:
        for text in (*pair["sentences"], *pair["warnings"], *(row["photo"] for row in pair["changed"])):
            assert text.replace("<good>", "&lt;good&gt;").replace("'", "&#39;") in page
    assert page.count('<section id="pair') == 2 and page.count("data:image/jpeg") == 4
    shutil.rmtree(tmp_path / "pictures")
    told(tmp_path / "<good>", tmp_path / "poor", out=tmp_path / "gone.html", photos=2)
    assert (tmp_path / "gone.html").read_text().count("photo not here") == 2


def test_the_page_speaks_korean_and_every_sentence_has_its_words(tmp_path, runs):
    words = catalogue("ko")
    for message in (*SENTENCES.values(), *WORDS.values()):
        holes = re.findall(r"\{\w+\}", message)
        assert message in words and sorted(re.findall(r"\{\w+\}", words[message])) == sorted(holes), message
    english = told(*runs, out=tmp_path / "page.html", lang="ko")
    page = (tmp_path / "page.html").read_text()
    assert english["sentences"][0].startswith("good is better") and english["sentences"][0] not in page
    assert "good이(가) poor보다 좋습니다" in page and "올바른 착용 여성 30-59" in page and 'lang="ko"' in page
    with pytest.raises(RecipeError, match="lang: 'kr'"):
        told(*runs, out=tmp_path / "page.html", lang="kr")


def test_what_cannot_be_compared_is_refused_by_name(tmp_path, runs):
    good, poor = runs
    with pytest.raises(RunError, match="expected 2 runs or more, not 1"):
        told(good)
    with pytest.raises(RunError, match=r"good/\.\./good: is given twice"):
        told(good, poor, good / ".." / "good")
    with pytest.raises(RunError, match="nearest: good"):
        told(tmp_path / "goood", poor)
    write_run(tmp_path / "stopped", OOF, complete=False)
    with pytest.raises(RunError, match="stopped: run is stopped, not complete"):
        told(good, tmp_path / "stopped")
    write_run(tmp_path / "fewer", OOF.take(np.arange(len(OOF) - 7)), draws=10)
    with pytest.raises(DataError, match=r"fewer: lacks 7 of the photos of .*good, the first is 'train/000039"):
        told(good, tmp_path / "fewer")
    swapped = OOF.persons.copy()
    swapped[8] = OOF.persons[0]
    write_run(tmp_path / "swapped", replace(OOF, persons=swapped), draws=10)
    with pytest.raises(
        DataError, match=r"swapped: person of 'train/000001_asian/1.jpg' is '000000_asian', in .*good it"
    ):
        told(good, tmp_path / "swapped")
