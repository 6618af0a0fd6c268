"""The page of suspects under real keys and fingers: undo, a reload, a phone, and patches that the run had already."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import complaints, open_browser, resize
from fake_run import simulate, write_run
from test_suspects_page import suspects_and_page

from threefold import labels, progress
from threefold.data.face import Face
from threefold.data.options import apply_patches
from threefold.predictions import Predictions

SAVED = """
const files = {}
window.files = files
let text = ""
window.Blob = function (parts) { text = parts.join("") }
URL.createObjectURL = () => "blob:none"
HTMLAnchorElement.prototype.click = function () { files[this.download] = text }
"""
"""What the page hands to the browser to save is kept in `files` instead."""


@pytest.fixture(scope="module")
def wrong() -> Predictions:
    """60 people, of whom the first six are labelled with the other gender."""
    p = simulate(60, 3, seed=4)
    truth = p.truth.copy()
    rows = np.isin(p.persons, np.unique(p.persons)[:6])
    truth[rows, 1] = 1 - truth[rows, 1]
    return replace(p, truth=truth)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def look(driver: Any, page: Path, fresh: bool = False) -> None:
    """Load the page; fresh: with nothing decided before."""
    driver.get(page.as_uri())
    if fresh:
        driver.execute_script("localStorage.clear()")
        driver.refresh()
    driver.execute_script(SAVED)


def press(driver: Any, keys: str) -> list[str]:
    """[title, progress] after real key presses."""
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(keys).perform()
    return [driver.execute_script("return document.getElementById(arguments[0]).textContent", name).split(":")[0]
            for name in ("title", "progress")]  # fmt: skip


def save(driver: Any, button: str = "save") -> str | None:
    """The file a press on a button saves; None where it saves none."""
    code = "for (const name in files) delete files[name]; document.getElementById(arguments[0]).click()"
    driver.execute_script(code, button)
    found = driver.execute_script("return files")
    return next(iter(found.values()), None)


def faces(p: Predictions) -> list[Face]:
    rows = zip(p.photos.tolist(), p.persons.tolist(), p.truth.tolist(), p.ages.tolist(), strict=True)
    return [Face(Path(photo), person, photo, *codes[:2], age, codes[2]) for photo, person, codes, age in rows]


def test_a_decision_is_taken_back_and_a_key_held_down_decides_one(tmp_path, wrong, driver):
    _, page = suspects_and_page(write_run(tmp_path / "run", wrong, draws=20).path, top=5)
    resize(driver, 1200)
    complaints(driver)
    look(driver, page, fresh=True)
    assert press(driver, "") == ["1 of 5", "0 of 5 decided, 0 changed"]
    problem = driver.find_element("id", "problem")
    assert save(driver) is None and problem.text == "Nothing to save yet: no label is changed."
    assert save(driver, "save-all") is None and problem.text == "Nothing to save yet: nothing is decided."
    assert not driver.find_element("id", "undo").is_enabled()
    assert press(driver, "kc") == ["3 of 5", "2 of 5 decided, 1 changed"]
    assert press(driver, "z") == ["2 of 5", "1 of 5 decided, 0 changed"]
    assert press(driver, "jc") == ["2 of 5", "1 of 5 decided, 1 changed"]  # another opinion of the first
    assert press(driver, "z") == ["1 of 5", "1 of 5 decided, 0 changed"]
    assert driver.find_element("id", "keep").get_attribute("aria-pressed") == "true"
    assert press(driver, "zz") == ["1 of 5", "0 of 5 decided, 0 changed"]
    hold = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'k', bubbles: true, repeat: arguments[0]}))"
    for again in (False, True, True):
        driver.execute_script(hold, again)
    assert press(driver, "") == ["2 of 5", "1 of 5 decided, 0 changed"]
    driver.find_element("id", "note").send_keys("kc u\ue007")  # Enter leaves the note; nobody wanted a change
    assert press(driver, "") == ["2 of 5", "1 of 5 decided, 0 changed"]
    assert press(driver, "u") == ["3 of 5", "2 of 5 decided, 0 changed"]
    look(driver, page)
    assert press(driver, "") == ["3 of 5", "2 of 5 decided, 0 changed"]
    rows = list(csv.DictReader((save(driver, "save-all") or "").lstrip("\ufeff").splitlines()))
    assert [(row["decision"], row["note"]) for row in rows] == [("keep", ""), ("unsure", "kc u")]
    assert complaints(driver) == []


@pytest.mark.parametrize("kept", ["[1, 2]", '"x"', "{", '{"a": {"what": "sold"}, "b": null, "c": {"what": "keep"}}'])
def test_what_else_was_stored_under_its_name_does_not_stop_the_page(tmp_path, wrong, driver, kept):
    _, page = suspects_and_page(write_run(tmp_path / "run", wrong, draws=20).path, top=3)
    look(driver, page)
    driver.execute_script("localStorage.setItem(KEY, arguments[0])", kept)
    complaints(driver)
    look(driver, page)
    assert press(driver, "k") == ["2 of 3", "1 of 3 decided, 0 changed"]
    assert complaints(driver) == []


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_on_a_phone_the_buttons_stay_in_reach_of_a_thumb(tmp_path, wrong, driver, lang):
    _, page = suspects_and_page(write_run(tmp_path / "run", wrong, draws=20).path, top=3, lang=lang)
    resize(driver, 390, 844)
    look(driver, page, fresh=True)
    code = """return [document.documentElement.scrollWidth, ...[...document.querySelectorAll("button, select, input")]
      .filter(e => e.checkVisibility()).map(e => [e.id, e.getBoundingClientRect().toJSON()])]"""
    width, *found = driver.execute_script(code)
    assert width <= 390 and min(rect["height"] for _, rect in found) >= 44
    rects = dict(found)
    for name in ("keep", "change", "unsure", "undo", "back", "skip"):
        assert rects[name]["top"] > 400 and rects[name]["bottom"] <= 844  # although the card is longer than the screen
    driver.execute_script("scrollTo({top: 600, behavior: 'instant'})")
    driver.find_element("id", "keep").click()
    top = driver.execute_script("return document.getElementById('title').getBoundingClientRect().top")
    assert 0 <= top < 400  # the next one begins at its beginning
    resize(driver, 1200)


def test_patches_the_run_was_trained_with_are_saved_again(tmp_path, wrong, driver, capsys, monkeypatch):
    """The next `data.patches` is one file: what was corrected before must be in it, unless it is taken back."""
    names = np.unique(wrong.persons)
    first = tmp_path / "first.csv"
    still = labels.name("gender", int(wrong.truth[wrong.persons == names[0]][0, 1]))  # a correction that is none
    first.write_text(
        "\ufeffperson;photo;field;value;decision;note\r\n"
        f"{names[0]};;gender;{still};change;\r\n{names[40]};;age;33;change;seen, twice\r\n"
        f"{names[41]};;gender;female;keep;\r\n{names[50]};;mask;swap:incorrect,none;;\r\n"
    )
    patched, _ = apply_patches(faces(wrong), first)
    truth = np.array([face.parts for face in patched], np.int8)
    wrong = replace(wrong, truth=truth, ages=np.array([face.age for face in patched], np.float32))
    path = write_run(tmp_path / "run", wrong, draws=20, recipe={"data.patches": str(first)}).path
    found, page = suspects_and_page(path, top=50)
    look(driver, page, fresh=True)
    at = {one.person: n for n, one in enumerate(found) if one.kind in ("gender", "swap")}
    assert names[0] in at and names[50] in at
    driver.execute_script("at = arguments[0]; show(); decide('change'); at = arguments[1]; show(); decide('change')",
                          at[names[0]], at[names[50]])  # fmt: skip
    said = list(csv.reader((save(driver) or "").lstrip("\ufeff").splitlines()))[1:]
    gender = next(one.proposed for one in found if (one.kind, one.person) == ("gender", names[0]))
    assert said == [
        [names[40], "", "age", "33", "change", "seen, twice"],
        [names[0], "", "gender", gender, "change", ""],
    ]
    assert "2 rows" not in page.read_text("utf-8") and "the 3 rows of" in page.read_text("utf-8")

    first.unlink()
    monkeypatch.setattr(progress, "_shown", True)
    _, page = suspects_and_page(path, top=5)
    assert "cannot be read here: the file saved below does not hold its rows" in page.read_text("utf-8")
    assert "add its rows to what the page saves, or they are lost" in capsys.readouterr().err


def test_a_retrained_run_asks_nothing_twice(tmp_path, wrong, driver):
    """Labels are others after a patch, so the data's digest is; what was kept stays kept."""
    found, page = suspects_and_page(write_run(tmp_path / "one", wrong, draws=20).path, top=8)
    look(driver, page, fresh=True)
    assert press(driver, "kkk")[1] == "3 of 8 decided, 0 changed"
    changed = wrong.ages.copy()
    changed[wrong.persons == next(iter(set(wrong.persons) - {one.person for one in found}))] += 1
    again = write_run(tmp_path / "two", replace(wrong, ages=changed), draws=20, data_digest="e" * 32).path
    _, page = suspects_and_page(again, top=8)
    look(driver, page)
    assert press(driver, "")[1] == "3 of 8 decided, 0 changed"
