"""A Result: silent until it is asked, JSON that every program reads, tables that line up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

from threefold.cli.common import tell
from threefold.results import Result, plain, table_lines


@dataclass(frozen=True)
class Weighed(Result):
    """A result with everything."""

    no: str = ""

    @property
    def failure(self):
        return self.no

    def lines(self):
        return ["3 of 4", "! one was heavy"]

    def data(self):
        return {"mean": np.float32(0.5), "none": float("nan"), "all": np.array([[1, 2]]), "where": Path("a/b")}

    def rows(self):
        return [("name", "kg"), ("a,b", 1.5)]

    def page(self, lang="en"):
        return f"<html lang={lang}>"


def test_a_result_without_anything_says_nothing():
    assert (Result().lines(), Result().data(), Result().page(), Result().csv(), str(Result())) == ([], {}, None, "", "")
    assert Result().failure == ""


def test_json_holds_plain_values_and_no_nan():
    assert json.loads(Weighed().json()) == {"mean": 0.5, "none": None, "all": [[1, 2]], "where": "a/b"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({1: (2, {3})}, {"1": [2, [3]]}, id="nested"),
        pytest.param([float("inf"), -float("inf"), np.nan, np.float64("nan")], [None] * 4, id="no numbers"),
        pytest.param(np.array([np.nan, 1.0]), [None, 1.0], id="in an array"),
        pytest.param(np.bool_(True), True, id="numpy's truth"),
        pytest.param({"x": np.int8(3)}, {"x": 3}, id="numpy's integer"),
    ],
)
def test_plain_values(value, expected):
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_a_table_lines_up_in_korean_too():
    lines = table_lines(("이름", "n"), [("가나다", 7), ("ab", None), ("abcdef", 1000)])
    assert lines == ["이름    n", "가나다  7", "ab", "abcdef  1000"]
    assert table_lines(("name", "n"), [("a", 7), ("b", 1000)], right=True) == ["name     n", "a        7", "b     1000"]
    assert table_lines(("name",), []) == []


def test_lines_json_or_csv_are_shown(capsys):
    tell(Weighed())
    assert capsys.readouterr().out == "3 of 4\n! one was heavy\n"
    tell(Weighed(), json=True)
    assert json.loads(capsys.readouterr().out)["mean"] == 0.5
    tell(Weighed(), csv=Path("-"))
    assert capsys.readouterr().out == 'name,kg\n"a,b",1.5\n'


def test_files_are_written_and_named(tmp_path, capsys):
    page, table = tmp_path / "x.html", tmp_path / "x.csv"
    tell(Weighed(), html=page, csv=table, lang="ko")
    assert page.read_text() == "<html lang=ko>" and table.read_text() == 'name,kg\n"a,b",1.5\n'
    out = capsys.readouterr()
    assert out.out.startswith("3 of 4") and out.err == f"written: {page}, {table}\n"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"json": True, "csv": Path("-")}, 2, "--json and --csv - both print"),
        ({"csv": Path("x"), "html": Path("./x")}, 2, "expected two files"),
    ],
)
def test_two_outputs_in_one_place_are_refused(options, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        tell(Weighed(), **options)
    out = capsys.readouterr()
    assert end.value.code == code and message in out.err and out.out == "" and not list(tmp_path.iterdir())


def test_an_answer_of_no_is_shown_and_ends_with_1(capsys):
    with pytest.raises(SystemExit) as end:
        tell(Weighed(no="too heavy"))
    out = capsys.readouterr()
    assert (end.value.code, out.err) == (1, "threefold: too heavy\n") and "3 of 4" in out.out


def test_what_cannot_be_shown_is_refused_before_the_work(tmp_path):
    """The runs are not there either: what is told is the outputs, since a search would train for hours first."""
    for words, message in (
        (["--json", "--csv", "-"], "--json and --csv - both print"),
        (["--csv", "x.csv", "--html", "./x.csv"], "expected two files"),
        (["--csv", str(tmp_path)], "is a folder"),
    ):
        assert message in refused("compare", "runs/a", "runs/b", *words, cwd=tmp_path)
