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
from helpers import threefold
from test_compare import worse

from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.compare import compare_predictions
from threefold.files import write_json
from threefold.pages.compare_page import SENTENCES, WORDS, compare
from threefold.pages.html import catalogue

OOF = simulate(40, 2)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """(a good run, one that answers a third of the people at random), alike in recipe and stamp."""
    write_run(tmp_path / "good", OOF, draws=50)
    write_run(tmp_path / "poor", worse(OOF, 0.35), draws=50)
    return tmp_path / "good", tmp_path / "poor"


def lines(*runs: Path, **options: object) -> str:
    return str(compare(runs, draws=200, **options))


def data(*runs: Path, **options: object) -> dict:
    return compare(runs, draws=200, **options).data()


def edit(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def test_json_is_one_object_of_the_first_minus_the_other(runs, capsys):
    result = compare(runs, draws=200)
    found = json.loads(result.json())
    assert found == result.data() and capsys.readouterr() == ("", "")
    expected = compare_predictions(OOF, worse(OOF, 0.35), draws=200)
    assert found["difference"] == expected.headline == expected.difference["all.macro_f1"]
    assert found["difference"]["low"] > 0 and found["verdict"] == "better"
    assert (found["one"], found["other"]) == ("good", "poor")
    assert found["persons_needed"] == expected.persons_needed and found["p"] == found["p_holm"] == expected.p
    assert set(found["numbers"]) == set(WORDS) and len(found["classes"]) == 18
    assert found["numbers"]["mask.accuracy"]["difference"] == expected.difference["mask.accuracy"]
    right = found["numbers"]["all.accuracy"]["difference"]["value"] * len(OOF)
    assert found["gained"] - found["lost"] == pytest.approx(right) and found["lost"] > 0


def test_words_and_tables_say_who_is_better_and_never_cut_a_number(runs):
    good, poor = runs
    text = lines(good, poor)
    assert re.match(r"good is better than poor by \+0\.\d{3} macro F1 \(95 % interval \+0\.\d{3} to \+0\.\d{3}\)", text)
    assert lines(poor, good).startswith("poor is worse than good by -0.")
    assert "280 photos of 40 persons, out of fold; 95 % intervals from 200 draws of persons" in text
    assert (
        re.search(r"takes about [\d,]+ persons; here are 40\.", text) and "What differs in the recipes: nothing" in text
    )
    assert "worn female 30-59" in text and "train/0000" in text
    assert text.count("train/0000") == 20


def test_a_difference_is_put_down_to_something_only_where_one_thing_differs(tmp_path, runs):
    good, _ = runs
    other = worse(OOF, 0.35)
    write_run(
        tmp_path / "one", other, recipe={"model.head": "flat18", "hypothesis": "x", "data.source": "csv:elsewhere"}
    )
    assert data(good, tmp_path / "one")["warnings"] == []
    assert data(good, tmp_path / "one")["recipe"] == [{"key": "model.head", "one": "multi", "other": "flat18"}]
    write_run(tmp_path / "two", other, recipe={"model.head": "flat18", "optim": "sgd(lr=0.1)"})
    (warning,) = data(good, tmp_path / "two")["warnings"]
    assert warning == (
        "good and two: 2 things differ (model.head, optim); a gain cannot be put down to any one of them."
    )
    assert f"! {warning}" in lines(good, tmp_path / "two")
    assert "differ in nothing but perhaps the seed" in data(good, runs[1])["warnings"][0]


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
    found = data(good, tmp_path / "odd")
    text = " ".join(found["warnings"])
    first = ("2 things differ (data.source, seed)", "commit 0123456789abcdef and abc+", "0.1.0 and 9.9")
    for words in (*first, "not read the same files", "different extra photos", "different folds", "seeds (0 and 7)"):
        assert words in text
    assert len(found["warnings"]) == 7
    alone = replace(OOF, persons=OOF.photos)
    for name, part in (("a", alone), ("b", worse(alone, 0.2))):
        write_run(tmp_path / name, part, draws=10)
    assert "a person of its own" in data(tmp_path / "a", tmp_path / "b")["warnings"][-1]


def test_an_ensemble_differs_from_its_first_member_by_its_vote(runs):
    good, poor = runs
    vote = {"members": ["/home/x/one", "../poor"], "weights": [2 / 3, 1 / 3], "vote": "soft"}
    edit(good / "metrics.json", ensemble=vote)
    (row,) = data(good, poor)["recipe"]
    assert row == {"key": "ensemble", "one": "one (0.67), poor (0.33), soft", "other": ""}
    edit(poor / "metrics.json", ensemble=vote)
    assert data(good, poor)["recipe"] == []


def test_of_several_runs_the_first_is_judged_and_the_table_corrects(tmp_path, runs):
    good, poor = runs
    for name, share, seed in (("mild", 0.15, 6), ("close", 0.12, 3)):
        write_run(tmp_path / name, worse(OOF, share, seed), draws=10)
    others = (poor, tmp_path / "mild", tmp_path / "close")
    found = data(good, *others)["comparisons"]
    assert [(row["one"], row["other"]) for row in found] == [("good", "poor"), ("good", "mild"), ("good", "close")]
    for row, path in zip(found, others, strict=True):
        assert row["difference"] == data(good, path)["difference"] and row["p_holm"] >= row["p"]
        assert (row["verdict"] == "can't tell") == (row["p_holm"] > 0.05)
        assert any("by chance too often" in line for line in row["sentences"]) == (row["p"] <= 0.05 < row["p_holm"])
    text = lines(good, *others).splitlines()
    header = next(line for line in text if line.startswith("good against"))
    assert re.split(r" {2,}", header.strip()) == [
        "good against", "its macro F1", "difference", "p", "p (Holm)", "verdict", "persons needed", "what differs"
    ]  # fmt: skip
    assert [line.split()[0] for line in text[text.index(header) + 1 :]] == ["poor", "mild", "close"]


def test_runs_are_told_by_what_tells_them_apart(tmp_path, runs):
    def names(*paths: Path) -> tuple[str, str]:
        found = data(*paths)
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
        data(good, poor, on="test")
    for run, part in ((good, worse(OOF, 0.35)), (poor, OOF)):
        part.save(run / "test.npz")
        write_json(run / "eval.json", {})
    assert data(good, poor, on="test")["verdict"] == "worse" and "eval photos" in lines(good, poor, on="test")


def test_every_photo_that_changed_sides_is_in_the_csv_and_none_is_named_at_zero(tmp_path, runs):
    result = compare(runs, draws=200, top=3)
    found, rows = result.data(), list(csv.DictReader(io.StringIO(result.csv())))
    assert len(found["changed"]) == 3 and len(rows) == found["gained"] + found["lost"] > 3
    for row, shown in zip(rows, found["changed"], strict=False):
        assert (row["photo"], row["truth"]) == (shown["photo"], shown["truth"]) and row["one"] == "good"
        assert row["other_answer"] == shown["other"]["answer"] and float(row["moved"]) == shown["moved"]
        assert float(row["one_confidence"]) == shown["one"]["confidence"]
    nobody = compare(runs, draws=200, top=0)
    assert not re.search(r"\d{6}_asian|data:image", nobody.json() + nobody.page() + str(nobody))
    assert nobody.rows() == result.rows(), "the table is asked for by itself"


def test_the_verb_writes_page_and_table_and_prints_once(tmp_path, runs):
    words = ("compare", *runs, "--draws", 200, "--top", 2)
    done = threefold(*words, "--csv", "all.csv", "--html", "page.html", "--no-photos", "--lang", "ko", cwd=tmp_path)
    result = compare(runs, draws=200, top=2, photos=False)
    assert done.stdout == f"{result}\n" and done.stderr == "written: page.html, all.csv\n"
    assert (tmp_path / "page.html").read_text() == result.page("ko")
    assert threefold(*words, "--csv", "-", cwd=tmp_path).stdout == (tmp_path / "all.csv").read_text() == result.csv()
    assert threefold(*words, "--json", cwd=tmp_path).stdout == result.json()


def test_what_is_printed_never_contradicts_the_verdict(tmp_path, runs, monkeypatch):
    """An end near 0 keeps the digits that tell it from 0; of few persons it is said why an interval is not enough."""
    near = {"value": 0.0122, "low": 0.0004, "high": 0.024}
    monkeypatch.setattr(
        "threefold.pages.compare_page.compare_all",
        lambda *_, **__: [
            replace(compare_predictions(OOF, worse(OOF, 0.35), draws=200), headline=near, persons_needed=13_847)
        ],
    )
    result = compare(runs)
    assert result.lines()[0] == "good is better than poor by +0.0122 macro F1 (95 % interval +0.0004 to +0.0240)."
    assert "takes about 14,000 persons" in result.lines()[1] and "+0.0004 to" in result.page()
    monkeypatch.undo()
    for people in (1, 5):
        part = OOF.take(np.arange(7 * people))
        right = replace(part, probabilities=np.eye(18, dtype=np.float32)[part.label])
        write_run(tmp_path / f"right{people}", right, draws=10)
        write_run(
            tmp_path / f"wrong{people}", replace(right, probabilities=np.roll(right.probabilities, 1, 1)), draws=10
        )
    (only,) = data(tmp_path / "right1", tmp_path / "wrong1")["sentences"]
    assert only.startswith("Can't tell right1 and wrong1 apart: of one person there is no interval (+0.")
    found = data(tmp_path / "right5", tmp_path / "wrong5")
    assert found["difference"]["low"] > 0 and found["verdict"] == "can't tell"
    assert "it takes 6 to tell anything" in found["sentences"][1] and "about 6 persons" in found["sentences"][2]


def test_the_page_says_the_same_and_asks_for_nothing(tmp_path):
    write_run(tmp_path / "<good>", OOF, pictures=tmp_path / "pictures", recipe={"model.head": "flat18"}, draws=10)
    for name, share in (("poor", 0.35), ("mild", 0.2)):
        write_run(tmp_path / name, worse(OOF, share), draws=10)
    result = compare([tmp_path / name for name in ("<good>", "poor", "mild")], draws=200, top=2)
    found, page = result.data(), result.page()
    assert "<good>" not in page and not re.search(r"https?://|<script|<link", page)
    for pair in found["comparisons"]:
        for text in (*pair["sentences"], *pair["warnings"], *(row["photo"] for row in pair["changed"])):
            assert text.replace("<good>", "&lt;good&gt;").replace("'", "&#39;") in page
    assert page.count('<section id="pair') == 2 and page.count("data:image/jpeg") == 4
    shutil.rmtree(tmp_path / "pictures")
    both = tmp_path / "<good>", tmp_path / "poor"
    assert compare(both, draws=200, top=2).page().count("photo not here") == 2
    bare = compare(both, draws=200, top=2, photos=False).page()
    assert "photo not here" not in bare and found["comparisons"][0]["changed"][0]["photo"] in bare


def test_the_page_speaks_korean_and_every_sentence_has_its_words(runs):
    words = catalogue("ko")
    for message in (*SENTENCES.values(), *WORDS.values()):
        holes = re.findall(r"\{\w+\}", message)
        assert message in words and sorted(re.findall(r"\{\w+\}", words[message])) == sorted(holes), message
    result = compare(runs, draws=200)
    english, page = result.data(), result.page("ko")
    assert english["sentences"][0].startswith("good is better") and english["sentences"][0] not in page
    assert "good이(가) poor보다 좋습니다" in page and "올바른 착용 여성 30-59" in page and 'lang="ko"' in page
    with pytest.raises(RecipeError, match="lang: 'kr'"):
        result.page("kr")


def test_what_cannot_be_compared_is_refused_by_name(tmp_path, runs):
    good, poor = runs
    with pytest.raises(RunError, match="expected 2 runs or more, not 1"):
        data(good)
    with pytest.raises(RunError, match=r"good/\.\./good: is given twice"):
        data(good, poor, good / ".." / "good")
    with pytest.raises(RunError, match="nearest: good"):
        data(tmp_path / "goood", poor)
    write_run(tmp_path / "stopped", OOF, complete=False)
    with pytest.raises(RunError, match="stopped: run is stopped, not complete"):
        data(good, tmp_path / "stopped")
    write_run(tmp_path / "fewer", OOF.take(np.arange(len(OOF) - 7)), draws=10)
    with pytest.raises(DataError, match=r"fewer: lacks 7 of the photos of .*good, the first is 'train/000039"):
        data(good, tmp_path / "fewer")
    swapped = OOF.persons.copy()
    swapped[8] = OOF.persons[0]
    write_run(tmp_path / "swapped", replace(OOF, persons=swapped), draws=10)
    with pytest.raises(
        DataError, match=r"swapped: person of 'train/000001_asian/1.jpg' is '000000_asian', in .*good it"
    ):
        data(good, tmp_path / "swapped")
