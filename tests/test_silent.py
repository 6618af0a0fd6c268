"""Verbs as library calls: each returns a Result and prints nothing, neither on stdout nor on stderr."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from importlib import import_module

import pytest
from fake_run import simulate, write_run
from helpers import contest

import threefold
from threefold.cli.common import verbs
from threefold.results import Result

ALIASES = {"list": "list_components"}
CALLS = {
    "sample": lambda home: threefold.sample(home / "drawn", people=6),
    "check": lambda home: threefold.check(home / "data"),
    "compare": lambda home: threefold.compare([home / "runs/a", str(home / "runs/b")], draws=100),
    "shake": lambda home: threefold.shake([home / "runs/a", home / "runs/b"], draws=100),
    "decide": lambda home: threefold.decide(home / "runs/a"),
    "suspects": lambda home: threefold.suspects(str(home / "runs/a")),
    "report": lambda home: threefold.report(home / "runs/a", looks=False),
    "runs": lambda home: threefold.runs(home / "runs"),
    "ensemble": lambda home: threefold.ensemble([home / "runs/a", home / "runs/b"], out=home / "joined"),
    "predict": lambda home: threefold.predict([home / "data/eval/images"], faces="none"),
    "recipes": lambda home: threefold.recipes(),
    "validate": lambda home: threefold.validate("base"),
    "list": lambda home: threefold.list_components("losses"),
    "describe": lambda home: threefold.describe("focal"),
    "assets": lambda home: threefold.assets(),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("silent")
    contest(home / "data", people=6, eval_people=1)
    for name, seed in (("a", 0), ("b", 1)):
        write_run(home / "runs" / name, replace(simulate(40, 2), probabilities=simulate(40, 2, seed).probabilities))
    return home


@pytest.mark.parametrize("name", CALLS)
def test_a_library_call_prints_nothing_and_its_result_says_everything(name, home, capfd):
    result = CALLS[name](home)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert isinstance(result, Result)
    assert result.lines() and all(isinstance(line, str) for line in result.lines())
    assert json.loads(result.json()), "JSON without NaN, and something in it"
    table = result.rows()
    assert table is None or len(table) > 0
    assert capfd.readouterr() == ("", "")


def test_the_result_of_a_comparison_has_lines_data_and_a_page(home):
    result = threefold.compare([home / "runs/a", home / "runs/b"], draws=100)
    assert result.data()["verdict"] in ("better", "worse", "can't tell")
    assert result.page().startswith("<!doctype html>") and 'lang="ko"' in result.page("ko")


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_the_function_of_a_verb_has_its_name_and_its_arguments(verb):
    """What the command line offers is what the function takes: no option goes to nobody."""
    name = ALIASES.get(verb, verb)
    function = getattr(threefold, name)
    assert function.__name__ == name
    assert import_module(function.__module__)
    assert function.__doc__ and inspect.signature(function).return_annotation != inspect.Signature.empty
