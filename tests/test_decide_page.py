"""`threefold decide` and what `predict` makes of it: saved, shown, used, refused when stale, left aside when asked."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_backend import FakeBackend
from fake_run import simulate, write_run
from helpers import contest
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import RunError
from threefold.evidence.calibrate import temper
from threefold.evidence.decide import Decision, cross_fit, fit
from threefold.evidence.metrics import macro_f1
from threefold.files import write_json
from threefold.pages.decide_page import SENTENCES, decide
from threefold.pages.html import catalogue
from threefold.photos.prepare import Prepare
from threefold.predictions import Predictions, product
from threefold.read import reader
from threefold.read.backends import Answer, oof_digest
from threefold.read.predict import predict
from threefold.runs import Run


def helped(people: int = 200) -> Predictions:
    """Old people who get a fifth of the odds they should: the border is plainly at the wrong place."""
    one = simulate(people, 2)
    joint = np.full((len(one), 18), 0.002)
    rows = np.arange(len(one))
    joint[rows, one.label] = 0.4
    joint[rows, one.label - (one.truth[:, 2] == 2)] += 0.5
    return replace(one, probabilities=(joint / joint.sum(1, keepdims=True)).astype(np.float32))


class Hesitant(FakeBackend):
    """Middle-aged with 0.5, old with 0.4, for every photo; the mask by brightness."""

    def __call__(self, photos: tuple[NDArray[np.uint8], ...]) -> Answer:
        mask = (photos[0].mean((1, 2, 3)) / 256 * 3).astype(np.int64)
        joint = np.full((len(mask), 18), 0.1 / 16, dtype=np.float32)
        joint[np.arange(len(mask)), mask * 6 + 1] = 0.5
        joint[np.arange(len(mask)), mask * 6 + 2] = 0.4
        return joint, None


@pytest.fixture
def hesitant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "open_run", lambda path: Hesitant(Prepare(size=(32, 24))))


def save(run: Run, decision: Decision) -> None:
    write_json(run.path / "decision.json", {"decision": decision.to_dict(), "digest": oof_digest(run)})


def test_a_rule_that_is_better_is_saved_with_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oof = helped()
    run = write_run(tmp_path / "run", oof)
    result = decide(run.path, coverage=0.9)
    document = result.data()
    assert (run.path / "decision.json").read_text() == result.json() and capsys.readouterr() == ("", "")
    decided, decision = cross_fit(oof, coverage=0.9)
    assert Decision.from_dict(document["decision"]) == decision
    assert document["kept"] and document["digest"] == oof_digest(run)
    score = document["tried"]
    assert score["decided"]["value"] == pytest.approx(macro_f1(oof.label, decided.code))
    assert score["plain"]["value"] == pytest.approx(macro_f1(oof.label, oof.predicted))
    shown = " ".join(str(result).split())
    risk = f"{document['review']['mask']['risk.0.9']['value']:.3f}"
    for text in ("better. The rule is saved", "1,400 photos of 200 people", "(2 parts)", *document["words"]):
        assert text in shown
    assert "wrong of these" in shown and risk in shown and "written:" in shown
    again = decide(run.path, rule="none").data()
    assert json.loads((run.path / "decision.json").read_text())["words"] == again["words"] == []
    assert again["rule"] == "none" and set(again["decision"]["offsets"]) == {0.0}, "made again, the last one counts"
    assert document["decision"]["offsets"] != again["decision"]["offsets"]


def test_a_rule_that_is_not_better_is_not_saved_unless_asked_for(tmp_path: Path) -> None:
    oof = simulate(100, 2, seed=3)
    run = write_run(tmp_path / "run", oof)
    result = decide(run.path)
    document = result.data()
    assert document["tried"]["verdict"] != "better" and not document["kept"]
    assert Decision.from_dict(document["decision"]) == fit(oof, rule="none")
    assert document["review"]["macro_f1"]["difference"]["value"] == 0, "the numbers are of what is saved"
    assert "Only temperatures are saved and what is said stays as it was" in str(result)
    result = decide(run.path, rule="years", out=tmp_path / "else.json")
    document = result.data()
    assert document["decision"]["years_cuts"] and document["kept"] and (tmp_path / "else.json").exists()
    assert "saved because it was asked for by name" in str(result)
    assert json.loads((run.path / "decision.json").read_text())["rule"] == "auto"


def test_a_temperature_that_makes_other_people_worse_is_not_saved(tmp_path: Path) -> None:
    """The network of one fold is far too sure of the gender, that of the other far too unsure."""
    oof, rng = simulate(200, 2), np.random.default_rng(0)
    male, truth = rng.random(len(oof)), oof.truth.copy()
    truth[:, 1] = rng.random(len(oof)) > male
    gender = np.stack([male, 1 - male], axis=1)
    gender = np.where(oof.fold[:, None] == 0, temper(gender, 0.3), temper(gender, 3.0))
    oof = replace(oof, truth=truth, probabilities=product({**oof.marginals(), "gender": gender}))
    result = decide(write_run(tmp_path / "run", oof).path, rule="none")
    document = result.data()
    assert document["untempered"] == ["gender"] and document["decision"]["temperature"]["gender"] == 1
    assert document["decision"]["temperature"]["mask"] == fit(oof, rule="none").temperature["mask"] != 1
    assert document["review"]["gender"]["nll.difference"]["value"] == pytest.approx(0, abs=1e-6)
    assert "no temperature for gender" in str(result)


def test_without_three_labels_temperatures_are_saved_and_it_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulate(40, 2, known=(True, True, False)))
    result = decide(run.path)
    document = result.data()
    assert (
        set(document["review"]) == {"macro_f1", "mask", "gender"}
        and document["decision"]["temperature"]["age_group"] == 1
    )
    assert "no photo knows all three labels" in str(result)


def test_the_page_says_what_the_lines_say_in_its_language(tmp_path: Path) -> None:
    result = decide(write_run(tmp_path / "<run>", simulate(60, 2)).path, risk=0.05)
    english, korean = result.page(), result.page("ko")
    cells = [cell for row in re.findall(r"<tr>(.*)</tr>", english) for cell in re.findall(r"<t[hd][^>]*>([^<]*)<", row)]
    table = next(n for n, line in enumerate(result.lines()) if line.lstrip().startswith("temperature"))
    assert " ".join(result.lines()[table + 1].split()) in " ".join(" ".join(cells).split())
    assert "<run>" not in english and "Only temperatures are saved" in english and "온도만 저장" in korean
    words, messages = catalogue("ko"), [*SENTENCES.values()]
    result.parts(lambda message: messages.append(message) or message)
    for message in messages:
        assert sorted(re.findall(r"{\w+}", words[message])) == sorted(re.findall(r"{\w+}", message)), message


@pytest.mark.usefixtures("hesitant")
def test_a_run_is_read_by_its_decision_unless_it_is_stale(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulate(20, 2))
    assert reader.load(run.path).decision is None
    offsets = tuple(0.5 * (code % 3 == 2) for code in range(18))
    save(run, Decision(offsets=offsets, abstain={"mask": 0, "gender": 0, "age_group": 0.6}))
    photo = np.zeros((40, 32, 3), np.uint8)
    ruled, plain = reader.load(run.path)(photo), reader.load(run.path, decision=False)(photo)
    assert (ruled.code, ruled.age_group, ruled.indeterminate) == (2, "indeterminate", ("age_group",))
    assert (plain.code, plain.age_group, plain.indeterminate) == (1, "30-59", ())
    assert ruled.confidence == pytest.approx(0.4) and plain.confidence == pytest.approx(0.5)
    write_json(run.path / "decision.json", {"decision": {"offsets": []}, "digest": oof_digest(run)})
    with pytest.raises(RunError, match=r"decision\.json: is not what `threefold decide` writes"):
        reader.load(run.path)
    save(run, Decision())
    simulate(20, 2, seed=1).save(run.path / "oof.npz")
    with pytest.raises(RunError, match=r"decision\.json: was fitted on other predictions than .*oof\.npz"):
        reader.load(run.path)
    assert reader.load(run.path, decision=False)(photo).code == 1


@pytest.mark.usefixtures("hesitant")
def test_predict_scores_what_was_said_and_keeps_what_was_computed(tmp_path: Path) -> None:
    contest(tmp_path / "data", people=1, eval_people=6)
    run, answers = write_run(tmp_path / "run", simulate(20, 2)), tmp_path / "data/eval/answers.csv"
    offsets = tuple(0.5 * (code % 3 == 2) for code in range(18))
    save(run, Decision({"mask": 1.0, "gender": 1.0, "age_group": 2.0}, offsets, None,
                       {"mask": 0.0, "gender": 0.0, "age_group": 0.6}))  # fmt: skip
    done = predict([tmp_path / "data/eval"], run.path, answers=answers)
    with answers.open() as file:
        truth = {row["ImageID"]: int(row["ans"]) for row in csv.DictReader(file)}
    label = np.array([truth[name] for name in done.readings])
    code = np.array([reading.code for reading in done.readings.values()])
    assert set(code % 3) == {2} and done.indeterminate == {"mask": 0, "gender": 0, "age_group": 42}
    stored = json.loads((run.path / "eval.json").read_text())
    assert stored == done.score and stored["macro_f1"]["value"] == pytest.approx(macro_f1(label, code))
    assert stored["age_group"]["accuracy"]["value"] == pytest.approx((label % 3 == 2).mean())
    test = run.predictions("test")
    assert np.allclose(np.sort(test.probabilities, 1)[:, -2:], [0.4, 0.5]) and set(test.predicted % 3) == {1}
    assert stored["plain"]["macro_f1"]["value"] == pytest.approx(macro_f1(label, test.predicted))
    with (run.path / "submission.csv").open() as file:
        assert [int(row["ans"]) for row in csv.DictReader(file)] == code.tolist()
    plain = predict([tmp_path / "data/eval"], run.path, answers=answers, plain=True)
    assert plain.score and "plain" not in plain.score
    assert plain.score["macro_f1"] == stored["plain"]["macro_f1"]
    assert np.array_equal(run.predictions("test").probabilities, test.probabilities)


@pytest.mark.usefixtures("hesitant")
def test_the_table_says_indeterminate(tmp_path: Path) -> None:
    contest(tmp_path / "data", people=1, eval_people=0)
    run = write_run(tmp_path / "run", simulate(20, 2))
    save(run, Decision(abstain={"mask": 0, "gender": 0, "age_group": 0.6}))
    predict([tmp_path / "data/train"], run.path, out=tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(rows) == 7 and {row["age_group"] for row in rows} == {"indeterminate"}
    assert {int(row["class"]) % 3 for row in rows} == {labels.AgeGroup.MIDDLE}
    predict([tmp_path / "data/train"], run.path, plain=True, out=tmp_path / "plain.csv")
    assert "indeterminate" not in (tmp_path / "plain.csv").read_text()
