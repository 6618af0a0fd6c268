"""The report of made-up runs, read back as a browser would: what it says, what it must never do."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from fake_run import simulate, write_run
from helpers import refused, threefold
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from threefold.errors import RunError
from threefold.evidence.metrics import measure
from threefold.files import write_json
from threefold.labels import decode_all
from threefold.pages import figures, report_parts
from threefold.pages.figures import shade
from threefold.pages.report import report
from threefold.pages.report_parts import WORST

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with attributes, all text, and every table as rows of cell texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.feed(self.source)
        assert self.open == []  # every tag is closed, in order
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += f" {data.strip()}"

    def all(self, tag: str, key: str) -> list[str]:
        return [attributes[key] or "" for name, attributes in self.tags if name == tag and key in attributes]


def read(run: Path, lang: str = "en", **options: bool) -> Page:
    """The page of a run's report."""
    return Page(report(run, **options).page(lang))


@pytest.fixture(scope="module", autouse=True)
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_parts, "DRAWS", 100)
        yield


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Drawing takes most of the time; `page` and the test of equal bytes have real ones."""
    if "same_bytes" not in request.node.name and "page" not in request.fixturenames:
        monkeypatch.setattr(figures, "_uri", lambda figure: "data:image/svg+xml;base64,AAAA")


@pytest.fixture(scope="module")
def oof():
    return simulate(40, 4)


@pytest.fixture(scope="module")
def page(oof, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    recipe = {"hypothesis": "cutmix helps", "train.mix": "cutmix", "data.source": "contest:x"}
    run = write_run(root / "first", oof, pictures=root / "pictures", recipe=recipe, curves=4)
    return read(run.path)


def test_one_file_that_asks_nobody_for_anything(page):
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    assert all(src.startswith("data:image/") for src in page.all("img", "src"))
    assert all(href.startswith("#") for href in page.all("a", "href"))
    assert not re.search(r"url\(|@import|srcset|http-equiv", page.source)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert len(page.source) < 600_000


def test_it_can_be_found_and_heard(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [href[1:] for href in page.all("a", "href")] == ids
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert pictures and all(attributes.get("alt") for attributes in pictures)
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert all(int(b[1]) <= int(a[1]) + 1 for a, b in pairwise(headings))


def test_it_says_the_score_and_what_it_means(page, oof):
    scores = measure(oof, draws=200)
    assert f"{scores['macro_f1']['value']:.3f}" in page.text
    assert f"{scores['macro_f1']['low']:.3f} – {scores['macro_f1']['high']:.3f}" in page.text
    for part in ("mask", "gender", "age_group"):
        assert f"{scores[part]['macro_f1']['value']:.3f}" in page.text
    expected = (
        *("mean of the F1 of all 18 classes", "neither occurs nor is predicted counts 0", "bootstrap over persons"),
        *("practice sets", "drawn masks", "are not contest scores", "cutmix helps", "Nobody is on both sides"),
        *("threefold train recipes/base.yaml", "torch 2.12.0", "12 min 34 s", "156 photos a second", "cpu, 2 cores"),
    )
    assert [words for words in expected if words not in page.text] == []


def test_counts_and_confusion_are_those_of_the_predictions(page, oof):
    counts = next(table for table in page.tables if table[0][0].strip() == "gender, age")
    label = oof.label
    for gender in range(2):
        for group in range(3):
            for mask in range(3):
                rows = label == mask * 6 + gender * 3 + group
                cell = counts[1 + gender * 3 + group][1 + mask].split()
                assert cell == [str(rows.sum()), str(len(set(oof.persons[rows].tolist())))]
    truth, said = oof.truth[:, 2], oof.marginals()["age_group"].argmax(1)
    expected = confusion_matrix(truth, said, labels=range(3))
    table = next(t for t in page.tables if [c.strip() for c in t[0]] == ["truth", "<30", "30-59", ">=60"])
    for row, cells in zip(expected, table[1:], strict=True):
        shares = [f"{100 * n / row.sum():.1f}" for n in row]
        assert [c.split()[:2] for c in cells[1:]] == [[s, str(n)] for s, n in zip(shares, row, strict=True)]
    people = [[len(set(oof.persons[(truth == i) & (said == j)])) for j in range(3)] for i in range(3)]
    assert [[int(c.split("·")[1]) for c in cells[1:]] for cells in table[1:]] == people
    big = next(t for t in page.tables if len(t) == 21)
    whole = confusion_matrix(label, oof.predicted, labels=range(18))
    assert [[int(c.split()[1]) if c.strip() else 0 for c in row[1:]] for row in big[3:]] == whole.tolist()
    people = [[len(set(oof.persons[(label == i) & (oof.predicted == j)])) for j in range(18)] for i in range(18)]
    assert [[int(c.split()[2]) if c.strip() else 0 for c in row[1:]] for row in big[3:]] == people


def test_worst_photos_are_the_surest_mistakes_of_each_attribute_one_per_person(page, oof):
    expected: list[float] = []
    for column, part in enumerate(oof.marginals().values()):
        said = decode_all(oof.predicted)[:, column]
        best: dict[str, float] = {}
        for row in np.flatnonzero(said != oof.truth[:, column]).tolist():
            best[oof.persons[row]] = max(float(part[row, said[row]]), best.get(oof.persons[row], 0.0))
        expected += sorted(best.values(), reverse=True)[:WORST]
    assert 2 * WORST > len(expected) > WORST  # ages fill their part; masks, which are read best, still have one
    told = re.findall(r"\(age (\d+), predicted (\d+)\)", page.text)
    pairs = {(str(round(a)), str(round(y))) for a, y in zip(oof.ages.tolist(), oof.years.tolist(), strict=True)}
    assert len(told) == len(expected) and set(told) <= pairs
    assert re.findall(r"([\d.]+) % sure", page.text) == [f"{100 * value:.1f}" for value in expected]
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    jpegs = [each["src"] for each in pictures if re.match(r"Photo \d+, predicted .* labelled", each["alt"])]
    assert len(jpegs) == len(expected)
    data = base64.b64decode(jpegs[0].partition(",")[2])
    assert simplejpeg.decode_jpeg(data).shape == (152, 114, 3)
    assert len(data) < 10_000


def test_without_photos_nobody_can_be_recognised(tmp_path, oof):
    run = write_run(tmp_path / "run", oof, pictures=tmp_path / "pictures")
    page = read(run.path, photos=False)
    assert "Worst photos" not in page.text
    assert "image/jpeg" not in page.source
    assert not [person for person in set(oof.persons.tolist()) if person in page.source]
    assert not (run.path / "report.html").exists()  # the command line alone writes it


def test_the_result_has_the_numbers_of_the_page_a_person_on_both_sides_is_shouted(tmp_path, oof, capfd):
    fold = oof.fold.copy()
    fold[:1] = 1 - fold[:1]
    result = report(str(write_run(tmp_path / "run", replace(oof, fold=fold)).path))
    data = json.loads(result.json())
    assert data["scores"]["oof"]["macro_f1"] == measure(oof, draws=200)["macro_f1"]
    assert data["data"]["total"] == {"photos": 280, "people": 40} and len(data["fairness"]["rows"]) == 6
    assert data["cost"]["epochs"] == 12 and data["folds"]["shared"] == 1
    assert data["warnings"] == ["people on more than one side of the split: 1; the scores are too high"]
    assert result.lines()[0].startswith("run: macro F1 0.") and result.lines()[1] == f"! {data['warnings'][0]}"
    page = Page(result.page())
    assert "1 person is on more than one side of the split" in page.text
    assert "Nobody is on both sides" not in page.text
    assert capfd.readouterr() == ("", "")  # a library call prints nothing


def test_photos_that_are_gone_or_broken_are_no_reason_to_stop(tmp_path, oof):
    run = write_run(tmp_path / "run", oof, pictures=tmp_path / "pictures")
    pictures = sorted((tmp_path / "pictures").rglob("*.jpg"))
    for number, path in enumerate(pictures):
        path.unlink() if number % 2 else path.write_bytes(b"not a photo")
    page = read(run.path)
    worst = page.text[page.text.index("The mistakes the networks were surest of") :]
    worst = worst[: worst.index("A person has one gender")]
    assert worst.count("photo not here") == len(re.findall("% sure", worst)) > 0
    assert "image/jpeg" not in page.source
    assert "networks could not be asked where they look" in page.text


def test_nothing_from_a_file_becomes_markup(tmp_path, oof):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    persons = oof.persons.astype("<U80")
    persons[:] = np.char.add(persons, evil)
    photos = np.char.add(oof.photos, evil)
    recipe = {"hypothesis": evil, "baseline": evil, "data.source": evil, "model.head": evil}
    run = write_run(
        tmp_path / "run", replace(oof, persons=persons, photos=photos), recipe=recipe, command=evil, device=evil
    )
    page = read(run.path)
    assert "script" not in {tag for tag, _ in page.tags}
    assert all(src.startswith("data:") for src in page.all("img", "src"))
    assert page.text.count(evil) > 6


def test_partly_labelled_photos_get_no_18_class_score(tmp_path):
    oof = simulate(30, 3, known=(True, True, False))
    page = read(write_run(tmp_path / "run", oof).path)
    assert "No photo here has all three labels" in page.text
    assert "no photo has this label" in page.text
    assert "unknown 210 30" in " ".join(" ".join(row) for table in page.tables for row in table).replace("  ", " ")
    assert not [table for table in page.tables if len(table) == 21]
    assert "18 classes by mask" not in page.text


def test_classes_that_do_not_occur_are_told(tmp_path):
    oof = simulate(30, 3)
    young = oof.take(oof.truth[:, 2] != 2)
    page = read(write_run(tmp_path / "run", young).path)
    value = measure(young, draws=2)["macro_f1"]["value"]
    assert "Only 12 of the 18 classes occur in these photos. The others count 0, as in the contest" in page.text
    assert f"over the 12 that occur, macro F1 is {value * 1.5:.3f}" in page.text


def test_what_differs_from_the_baseline(tmp_path, oof, monkeypatch):
    recipe = {"train.mix": "cutmix", "train.epochs": 7, "baseline": "base.yaml", "data.source": "x"}
    (tmp_path / "base.yaml").write_text("train.epochs: 7\n")
    run = write_run(tmp_path / "run", oof, recipe=recipe)
    monkeypatch.chdir(tmp_path)
    page = read(run.path)
    table = next(t for t in page.tables if [c.strip() for c in t[0]] == ["key", "here", "baseline"])
    assert [[c.strip() for c in row] for row in table[1:]] == [["train.mix", "cutmix", "none"]]
    (tmp_path / "base.yaml").unlink()
    page = read(run.path)
    assert "The baseline cannot be read from here: baseline 'base.yaml' is not here" in page.text
    assert "train.epochs 7 10" in " ".join(" ".join(c.split()) for t in page.tables for r in t for c in r)


def test_a_baseline_that_is_a_run_brings_its_score(tmp_path, oof):
    write_run(tmp_path / "base", oof)
    run = write_run(tmp_path / "run", oof, recipe={"optim": "adamp", "baseline": "base"})
    page = read(run.path)  # found beside the run
    assert f"The baseline run scored macro F1 {measure(oof, draws=200)['macro_f1']['value']:.3f}" in page.text
    assert "paired comparison" in page.text


@pytest.mark.parametrize(("shift", "words"), [(0.0, "lies inside"), (0.9, "lies outside")])
def test_the_score_outside_training_stands_beside_it(tmp_path, oof, shift, words):
    run = write_run(tmp_path / "run", oof)
    outside = measure(simulate(40, 4), draws=50)
    outside["macro_f1"]["value"] = abs(outside["macro_f1"]["value"] - shift)
    write_json(run.path / "eval.json", outside)
    page = read(run.path)
    assert "People outside training" in page.text
    assert words in page.text


def test_a_score_outside_training_of_masks_only_is_shown_as_such(tmp_path, oof):
    run = write_run(tmp_path / "run", oof)
    masks = measure(simulate(40, 4, known=(True, False, False)), draws=50)
    write_json(run.path / "eval.json", masks)
    page = read(run.path)
    assert "People outside training: Mask" in page.text and "People outside training: Gender" not in page.text
    assert f"{masks['mask']['macro_f1']['value']:.3f}" in page.text
    only = write_run(tmp_path / "only", simulate(40, 2, known=(True, False, False)))
    write_json(only.path / "eval.json", measure(simulate(40, 4), draws=50))
    assert "People outside training" in read(only.path).text


def test_a_run_that_held_nobody_back(tmp_path, oof):
    run = write_run(tmp_path / "run", oof, recipe={"data.folds": "all"})
    (run.path / "oof.npz").unlink()
    split = (run.path / "split.csv").read_text().splitlines()
    (run.path / "split.csv").write_text("\n".join([split[0], *(re.sub(r"\d+$", "-1", line) for line in split[1:])]))
    folds = [{"fold": -1, "macro_f1": None, "best_epoch": 3, "epochs": 3}]
    nothing = {"photos": 0, "persons": 0, "macro_f1": None, "accuracy": None}
    write_json(run.path / "metrics.json", {**nothing, "folds": folds, "seconds": 3.0})
    page = read(run.path)
    assert "This run held nobody back" in page.text
    assert "Nobody is on both sides" in page.text


def test_an_incomplete_run_is_refused_and_nothing_is_written(tmp_path, oof):
    run = write_run(tmp_path / "run", oof, complete=False)
    before = sorted(path.name for path in run.path.iterdir())
    for path, words in ((run.path, "run is stopped, not complete"), (tmp_path / "nowhere", "no such run")):
        with pytest.raises(RunError, match=words):
            report(path)
    assert sorted(path.name for path in run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("split.csv", "photo,person\n", "split.csv: there is no column 'fold'"),
        ("split.csv", "photo,person,fold\na,b", r"split.csv, line 2: 2 cells for 3 columns \(cut off"),
        ("split.csv", "photo,person,fold\n", "does not know 'train/000000_asian/0.jpg'"),
        ("split.csv", "photo,person,fold\na,b,c\n", "split.csv, line 2, column fold: cannot be read .*'c'"),
        ("photos.csv", None, r"photos.csv: cannot be read \(No such file"),
        ("photos.csv", "photo,path,person,mask,gender,age,age_group\n", "does not list 'train/.*, which oof.npz"),
        ("oof.npz", "x", "not a predictions file"),
        ("metrics.json", "{}", "lacks what the report needs .*'photos'"),
        ("metrics.json", '{"photos": 0, "folds": null, "seconds": 1}', "folds is 'None'; expected a list"),
        ("metrics.json", '{"photos": 0, "folds": [], "seconds": "1"}', "seconds is '1'; expected a number"),
        ("metrics.json", '{"photos": 9, "folds": [], "seconds": 1}', "metrics.json: lacks what .*'macro_f1'"),
        ("eval.json", "{", "eval.json: cannot be read"),
        ("eval.json", "{}", "eval.json: lacks what the report needs .*'macro_f1'"),
        ("stamp.json", json.dumps({"format": 1}), "lacks what the report needs .*'created'"),
        ("log.jsonl", "[1]\n", "log.jsonl, line 1: expected an epoch of a fold .*, found .1."),
        ("log.jsonl", '{"fold": 0, "epoch": 1, "lr": "x"}\n', "log.jsonl, line 1: lr is 'x'; expected a number"),
        ("decision.json", "{}", "decision.json: lacks 'decision'; `threefold decide .*` writes it again"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, oof, name, content, words):
    run = write_run(tmp_path / "run", oof)
    (run.path / name).unlink(missing_ok=True) if content is None else (run.path / name).write_text(content)
    with pytest.raises(RunError, match=words) as caught:
        read(run.path)
    assert "\n" not in str(caught.value)


def test_the_command_writes_the_page_and_leaves_the_old_one_where_it_cannot(tmp_path, oof):
    run = write_run(tmp_path / "run", oof)
    (run.path / "oof.npz").rename(tmp_path / "oof.npz")
    (run.path / "report.html").write_text("old")
    assert "oof.npz" in refused("report", "run", cwd=tmp_path)
    assert (run.path / "report.html").read_text() == "old"
    (tmp_path / "oof.npz").rename(run.path / "oof.npz")
    options = ("--no-looks", "--no-photos")
    for html, words in ((".", "is a folder; expected"), ("oof.csv/page.html", "cannot be written")):
        (tmp_path / "oof.csv").touch()
        assert f"{html}: {words}" in refused("report", "run", *options, "--html", html, cwd=tmp_path)
    done = threefold("report", "run", *options, "--json", "--html", "a/page.html", "--lang", "ko", cwd=tmp_path)
    assert json.loads(done.stdout)["name"] == "run" and done.stderr == "written: a/page.html\n"
    assert '<html lang="ko">' in (tmp_path / "a/page.html").read_text(encoding="utf-8")


def test_folds_and_classes_are_told_in_parts(page, oof):
    """Macro F1 of each attribute in each fold, recall and precision of each class: scikit-learn's."""
    table = next(t for t in page.tables if t[0][0].strip() == "fold" and "macro F1" in t[0][1])
    for fold, row in enumerate(table[1:]):
        rows = oof.fold == fold
        said = [part.argmax(1) for part in oof.marginals().values()]
        scores = [f1_score(oof.truth[rows, k], said[k][rows], average="macro") for k in range(3)]
        assert [cell.strip() for cell in row[3:7]] == [*(f"{s:.3f}" for s in scores), str(rows.sum() // 7)]
    table = next(t for t in page.tables if [c.strip() for c in t[0]][-2:] == ["recall", "precision"])
    expected = precision_recall_fscore_support(oof.label, oof.predicted, labels=range(18), zero_division=np.nan)
    for code, row in enumerate(table[1:]):
        numbers = (expected[1][code], expected[0][code])
        assert [c.strip() for c in row[-2:]] == ["–" if np.isnan(n) else f"{n:.3f}" for n in numbers]


def test_the_same_run_gives_the_same_bytes(tmp_path, oof):
    run = write_run(tmp_path / "run", oof, pictures=tmp_path / "pictures")
    assert report(run.path).page() == report(run.path).page()


@pytest.mark.parametrize("right", [True, False])
def test_every_shade_can_be_read(right):
    """WCAG 2.2 contrast of the text on its cell, computed from the CSS: at least 4.5 to 1."""

    def luminance(rgb):
        x = np.array(rgb) / 255
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for share in np.linspace(0, 1, 101):
        css = shade(share, right)
        cell = luminance([int(n) for n in re.search(r"rgb\((.*?)\)", css)[1].split(",")])
        text = luminance([255] * 3 if css.endswith("#fff") else [0] * 3)
        high, low = max(cell, text), min(cell, text)
        assert (high + 0.05) / (low + 0.05) >= 4.5
