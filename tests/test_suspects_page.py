"""The page of suspects in a browser: keys decide, what is saved is a patch file that `data.patches` accepts."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import simulate, write_run

from threefold import labels
from threefold.data.face import Face
from threefold.data.options import apply_patches
from threefold.errors import RecipeError
from threefold.evidence.suspects import Suspect
from threefold.pages.suspects_page import suspects
from threefold.predictions import Predictions

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH to open the page with")

# what is injected: keys are pressed on the page, and what it hands to the browser to save is written into it instead
DRIVE = """<script>
const files = {}, states = []
let saved = ""
Blob = function (parts) { saved = parts.join("") }
URL.createObjectURL = () => "blob:none"
HTMLAnchorElement.prototype.click = function () { files[this.download] = saved }
const press = (key, target = document.body, code = key) =>
  target.dispatchEvent(new KeyboardEvent("keydown", {key, code, bubbles: true, cancelable: true}))
const shown = ["title", "progress", "problem"]
const note = () => states.push(shown.map(id => $(id).textContent.split(":")[0]))
const go = n => { at = n; show() }
addEventListener("load", () => {
  try { (() => { %s })() } catch (error) { files.error = String(error) }
  document.body.append(Object.assign(document.createElement("pre"),
    {id: "out", textContent: JSON.stringify({files, states, kept: JSON.parse(localStorage.getItem(KEY) ?? "null")})}))
})
</script></body>"""


PLANTED = {"gender": 0, "age": 1, "swap": 2}


@pytest.fixture(scope="module")
def planted() -> tuple[Predictions, Predictions, list[str]]:
    """90 people with right labels, the same with wrong ones, and the three whose labels are wrong, as in PLANTED."""
    p = simulate(90, 3, seed=4)
    truth, ages = p.truth.copy(), p.ages.copy()
    read = {person: abs(p.years[p.persons == person] - 19).max() for person in np.unique(p.persons[p.ages == 19])}
    young = sorted(read, key=read.__getitem__)[:3]  # the best read 19-year-olds: this is no test of the ranking
    for person, rows in ((person, p.persons == person) for person in young):
        if person == young[0]:
            truth[rows, 1] = 1 - truth[rows, 1]
        elif person == young[1]:
            ages[rows], truth[rows, 2] = 47, 1
        else:
            truth[rows, 0] = np.array([0, 2, 1])[truth[rows, 0]]
    return p, replace(p, truth=truth, ages=ages), young


def suspects_and_page(run: Path, lang: str = "en", **options: Any) -> tuple[tuple[Suspect, ...], Path]:
    """The suspects of a run, and their page in the folder of their table."""
    result = suspects(run, **options)
    page = result.folder / "suspects.html"
    page.write_text(result.page(lang), encoding="utf-8")
    return result.suspects, page


def faces(p: Predictions) -> list[Face]:
    """The faces the predictions are about."""
    rows = zip(p.photos.tolist(), p.persons.tolist(), p.truth.tolist(), p.ages.tolist(), strict=True)
    return [Face(Path(photo), person, photo, *codes[:2], age, codes[2]) for photo, person, codes, age in rows]


def drive(page: Path, script: str) -> dict[str, Any]:
    """The page after a script: files it would save, what the script noted, decisions the browser keeps."""
    copy = page.with_name("driven.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", DRIVE % script), encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, "the page's script did not come to its end"
    seen = json.loads(html.unescape(found[1]))
    assert "error" not in seen["files"], seen["files"]["error"]
    return seen


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@needs_browser
def test_keys_decide_and_a_reload_loses_nothing_and_the_patch_is_accepted(tmp_path, planted):
    right, wrong, young = planted
    found, page = suspects_and_page(write_run(tmp_path / "run", wrong, draws=20).path, out=tmp_path, top=12)
    at = {kind: [(one.kind, one.person) for one in found].index((kind, young[n])) for kind, n in PLANTED.items()}
    rest = sorted({*range(12)} - {*at.values()}, reverse=True)
    seen = drive(
        page,
        f"""
        note()
        go({at["gender"]}); press("c"); note()
        go({at["swap"]}); press("ArrowRight"); note()
        go({at["age"]}); if ($("select").offsetParent || !$("value").offsetParent) throw "years are typed, not chosen"
        $("value").value = "200"; press("Enter", $("value")); note()
        $("value").value = "21"; $("note").value = 'school, "18"'; press("k", $("note"))
        press("Enter", $("value")); note()
        go({rest[0]}); press("ㅏ", document.body, "KeyK"); note()
        go({rest[1]}); press("u"); note()
        go(5); press("j"); note(); press("ArrowDown"); note(); press("c", $("value")); press("Enter", $("back")); note()
        $("kind").value = "gender"; $("kind").dispatchEvent(new Event("change")); note()
        $("kind").value = ""; go({at["age"]}); if ($("value").value !== "21") throw "a decision is not shown again"
        $("save").click(); $("save-all").click()""",
    )
    told = [f"{n} of 12 decided, {changed} changed" for n, changed in ((0, 0), (1, 1), (2, 2), (2, 2), (3, 3), (4, 3))]
    assert [state[1] for state in seen["states"][:6]] == told
    assert [state[1] for state in seen["states"][6:]] == ["5 of 12 decided, 3 changed"] * 5
    assert seen["states"][3][2] == "Give years from 0 to 120, a group (<30, 30-59, >=60) or unknown."
    done: set[int] = set()  # a decision goes on to the next undecided one
    for state, n in zip((1, 2, 4, 5, 6), (at["gender"], at["swap"], at["age"], *rest[:2]), strict=True):
        done.add(n)
        following = next(k for k in [*range(n + 1, 12), *range(12)] if k not in done)
        assert seen["states"][state][0] == f"{following + 1} of 12"
    genders = sum(one.kind == "gender" for one in found)
    assert [state[0] for state in seen["states"][7:]] == ["5 of 12", "6 of 12", "6 of 12", f"1 of {genders}"]

    gender = labels.name("gender", int(right.truth[right.persons == young[0]][0, 1]))
    expected = {
        at["gender"]: [young[0], "", "gender", gender, "change", ""],
        at["age"]: [young[1], "", "age", "21", "change", 'school, "18"'],
        at["swap"]: [young[2], "", "mask", "swap:incorrect,none", "change", ""],
    }
    saved = seen["files"]["patches.csv"]
    assert rows(saved)[1:] == [expected[n] for n in sorted(expected)]
    assert [row[4] for row in rows(seen["files"]["decisions.csv"])[1:]] == [
        {**dict.fromkeys(expected, "change"), rest[0]: "keep", rest[1]: "unsure"}[n]
        for n in sorted([*expected, *rest[:2]])
    ]
    (tmp_path / "patches.csv").write_text(saved, encoding="utf-8")
    new, done = apply_patches(faces(wrong), tmp_path / "patches.csv")
    assert (done.rows, done.unmatched, done.photos) == (3, 0, 7 + 7 + 2)
    assert np.array_equal([face.parts for face in new], right.truth)  # all three errors are undone
    assert {face.age for face in new if face.person == young[1]} == {21.0}

    again = drive(page, 'note(); $("save").click()')
    assert again["files"]["patches.csv"] == saved and again["kept"] == seen["kept"]
    assert again["states"][0][1] == "5 of 12 decided, 3 changed"


def data_of(page: Path) -> list[dict[str, Any]]:
    """The suspects as the page's script reads them."""
    return json.loads(re.search(r"const SUSPECTS = (\[.*?\]), WORDS = ", page.read_text(encoding="utf-8"))[1])


def test_pictures_are_in_the_page_only_when_asked_for(tmp_path, planted):
    run = write_run(tmp_path / "run", planted[1], draws=20, pictures=tmp_path / "pictures").path
    found, page = suspects_and_page(run, top=3)
    assert page == run / "suspects.html" and (run / "suspects.csv").is_file()
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 7 * len(found)
    _, bare = suspects_and_page(run, out=tmp_path / "bare", top=3, photos=False)
    assert "data:image" not in bare.read_text(encoding="utf-8") and "Made without photos" in bare.read_text("utf-8")
    first, card = found[0], data_of(bare)[0]
    assert (card["kind"], card["person"], card["label"]) == (first.kind, first.person, first.label)
    rows_of = planted[1].persons == first.person
    name = "age_group" if first.kind == "age" else first.attribute
    assert np.allclose([photo["chances"] for photo in sorted(card["photos"], key=lambda photo: photo["id"])],
                       planted[1].marginals()[name][rows_of], atol=1e-3)  # fmt: skip


def test_a_name_cannot_break_the_page_and_korean_is_korean(tmp_path, planted):
    evil = "</script><b>&\u2028'"
    names = np.where(planted[1].persons == planted[2][0], evil, planted[1].persons)
    run = write_run(tmp_path / "run", replace(planted[1], persons=names), draws=20).path
    _, page = suspects_and_page(run, top=5, lang="ko")
    text = page.read_text(encoding="utf-8")
    assert '<html lang="ko">' in text and "라벨 유지" in text and "Keep label" not in text
    assert evil in {card["person"] for card in data_of(page)}
    assert "<b>&" not in text and text.count("</script>") == 1
    with pytest.raises(RecipeError, match="lang: 'kr' is not known"):
        suspects(run).page("kr")


def test_a_clean_set_says_so(tmp_path):
    p = simulate(40, 2)
    said = np.eye(labels.CLASSES, dtype=np.float32)[p.label]
    run = write_run(tmp_path / "run", replace(p, probabilities=said, years=p.ages), draws=20).path
    found, page = suspects_and_page(run)
    assert found == () and "No label is suspicious." in page.read_text(encoding="utf-8")
    assert (run / "suspects.csv").read_text().splitlines() == [
        "rank,kind,person,photo,field,value,label,score,agree,of,decision"
    ]
