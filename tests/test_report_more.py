"""The report's parts about people, confidence, decisions and networks; in Korean; without faces, weights or photos."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_run import simulate, write_run
from safetensors.torch import save_file
from test_calibrate import ece
from test_report import read

from threefold import labels
from threefold.errors import AssetError, RecipeError, RunError
from threefold.evidence.calibrate import reliability
from threefold.evidence.compare import compare_predictions
from threefold.evidence.groups import majority
from threefold.files import write_json
from threefold.learn.net import make_net
from threefold.pages import figures, report_looks, report_parts
from threefold.pages.decide_page import decide
from threefold.pages.html import catalogue
from threefold.pages.report_looks import REGIONS, looks, regions, shares, unseen
from threefold.photos.decode import decode
from threefold.photos.prepare import Prepare
from threefold.read.backends import oof_digest
from threefold.recipe import make_recipe, write_recipe
from threefold.runs import Run

NET = {"model.backbone": "multilabel_cnn", "model.pretrained": "none", "prepare.size": "32x24"}
FACE = (48.0, 45.0, 144.0, 195.0)  # of the drawn photos, 192 x 256


@pytest.fixture(autouse=True)
def _few_draws_and_figures(request, monkeypatch):
    """Drawing takes most of the time of a page; the Korean one and the figures' own test are real."""
    if not request.node.name.startswith(("test_the_page_in_korean", "test_figures")):
        monkeypatch.setattr(figures, "_uri", lambda figure: "data:image/svg+xml;base64,AAAA")
    monkeypatch.setattr(report_parts, "DRAWS", 100)
    monkeypatch.setattr(report_looks, "PHOTOS", 16)


@pytest.fixture(scope="module")
def oof():
    return simulate(40, 2)


def weights(run: Run, recipe: dict[str, str], folders: list[str]) -> None:
    """Untrained networks, another in each folder, as `train` leaves them."""
    prepare = Prepare(size=(32, 24))
    for number, folder in enumerate(folders):
        torch.manual_seed(number)
        path = run.path / folder
        path.mkdir(parents=True, exist_ok=True)
        part = Path(folder).name
        made = make_recipe(recipe)
        net = make_net(made.part(part) if made.parts else made, prepare, pretrained=False)
        save_file({name: t.contiguous() for name, t in net.state_dict().items()}, path / "best.safetensors")
        write_json(path / "prepare.json", prepare.to_dict())


@pytest.fixture
def real(tmp_path, oof, monkeypatch):
    """A run with photos and networks, and a face detector that finds the drawn face."""
    run = write_run(tmp_path / "run", oof, pictures=tmp_path / "pictures", recipe=NET)
    weights(run, NET, ["fold0", "fold1"])

    def largest(image):
        height, width = image.shape[:2]
        return (FACE[0] * width / 192, FACE[1] * height / 256, FACE[2] * width / 192, FACE[3] * height / 256)

    monkeypatch.setattr(report_looks, "asset_path", Path)
    monkeypatch.setattr(report_looks.detect, "largest", largest)
    return run


def paths_of(run: Run) -> dict[str, Path]:
    lines = (run.path / "photos.csv").read_text().splitlines()[1:]
    return {line.split(",")[0]: Path(line.split(",")[1]) for line in lines}


def test_confidence_is_told_with_its_error(tmp_path, oof):
    page = read(write_run(tmp_path / "run", oof).path)
    for name, truth, marginal in zip(labels.ATTRIBUTES, oof.truth.T, oof.marginals().values(), strict=True):
        error = ece(reliability(marginal.max(1), marginal.argmax(1) == truth))
        assert f"{figures.TITLES[name]} ECE {error:.3f} (" in page.text
    sure = oof.probabilities.max(1)
    assert f"says {100 * sure.mean():.1f} %, is right in {100 * np.mean(oof.predicted == oof.label):.1f} %" in page.text
    table = next(t for t in page.tables if t[0][0].strip() == "answered")
    best = np.argsort(-sure, kind="stable")[: round(0.8 * len(oof))]
    wrong = np.mean(oof.predicted[best] != oof.label[best])
    assert float(table[4][1].split()[0]) == pytest.approx(wrong, abs=0.006) and table[4][0].strip() == "80 %"
    assert "threefold decide RUN" in page.text and "Decision rule" not in page.text


def test_a_decision_is_shown_with_its_cross_fit(tmp_path, oof):
    run = write_run(tmp_path / "run", oof)
    told = decide(run.path, rule="age", coverage=0.9).data()
    page = read(run.path)
    tried = told["tried"]
    assert f"by the rule (age) {tried['decided']['value']:.3f}: difference" in page.text
    assert "The rule is saved" in page.text and "threefold decide RUN" not in page.text
    assert all(line in page.text for line in told["words"])
    table = next(t for t in page.tables if "temperature" in " ".join(t[0]))
    assert float(table[3][1]) == pytest.approx(told["decision"]["temperature"]["gender"], abs=0.005)
    assert "was fitted on other predictions" not in page.text
    changed = replace(oof, years=oof.years + 1)
    changed.save(run.path / "oof.npz")
    assert "was fitted on other predictions" in read(run.path).text


def test_a_decision_for_the_mean_and_one_on_scored_photos_say_so(tmp_path, oof):
    run = write_run(tmp_path / "run", oof)
    told = decide(run.path, rule="none").data()
    mean = dict.fromkeys(told["decision"]["temperature"], 0.25)
    single = {"networks": 5, "unlabelled": 1234, "single": told["decision"]}
    write_json(run.path / "decision.json", told | single | {"decision": {**told["decision"], "temperature": mean}})
    page = read(run.path)
    assert "the mean of 5 networks" in page.text and "by 1,234 photos without labels" in page.text
    table = next(t for t in page.tables if "temperature" in " ".join(t[0]))
    assert table[3][1].split() == [f"{told['decision']['temperature']['gender']:.2f}", "→", "0.25"]
    assert "평균에 맞췄습니다" in read(run.path, lang="ko").text
    write_json(run.path / "decision.json", told | {"networks": 5})
    assert "--unlabelled PHOTOS` fits the temperatures to it" in read(run.path).text
    known = {key: told["review"][key] for key in ("macro_f1", "mask")}
    write_json(run.path / "decision.json", told | {"on": "test", "review": known})
    page = read(run.path)
    table = next(t for t in page.tables if "temperature" in " ".join(t[0]))
    assert "Fitted on scored photos" in page.text and [row[0].strip() for row in table[1:]] == ["Mask"]
    write_json(run.path / "decision.json", told | {"review": {"macro_f1": known["macro_f1"]}})
    with pytest.raises(RunError, match="is of none of the labels of this run"):
        read(run.path)


@pytest.mark.parametrize("content", ["{", "{}", json.dumps({"decision": {"offsets": []}})])
def test_a_broken_decision_is_one_line(tmp_path, oof, content):
    run = write_run(tmp_path / "run", oof)
    (run.path / "decision.json").write_text(content)
    with pytest.raises(RunError, match="decision") as caught:
        read(run.path)
    assert "\n" not in str(caught.value)


def test_a_baseline_on_the_same_people_is_compared_person_by_person(tmp_path, oof):
    other = simulate(40, 2, seed=5)
    other = replace(oof, probabilities=other.probabilities)
    write_run(tmp_path / "base", other)
    run = write_run(tmp_path / "run", oof, recipe={"optim": "adamp", "baseline": "base"})
    page = read(run.path)
    found = compare_predictions(oof, other, draws=100)
    assert found.verdict == "better" and "better In a paired comparison on the same 40 people" in page.text
    assert f"scores {found.headline['value']:+.3f} macro F1 against it" in page.text
    assert f"{found.headline['low']:+.3f} to {found.headline['high']:+.3f}".replace("-", "−") in page.text
    write_run(tmp_path / "elsewhere", simulate(30, 2))
    run = write_run(tmp_path / "second", oof, recipe={"baseline": "elsewhere"})
    assert "The two runs cannot be compared person by person: " in read(run.path).text


def test_groups_stand_in_one_table_and_the_furthest_in_another(tmp_path, oof):
    page = read(write_run(tmp_path / "run", oof).path)
    table = next(t for t in page.tables if t[0][0].strip() == "group")
    women = (oof.truth[:, 1] == 1) & (oof.truth[:, 2] == 0)
    row = next(row for row in table if row[0].strip() == "female <30")
    assert row[1].strip() == str(len(set(oof.persons[women].tolist()))) and row[2].strip() == str(women.sum())
    right = np.mean(oof.marginals()["gender"].argmax(1)[women] == 1)
    assert float(row[5].split()[0]) == pytest.approx(right, abs=0.0006)


def test_photos_of_one_person_that_disagree_are_marked(tmp_path, oof):
    page = read(write_run(tmp_path / "run", oof, pictures=tmp_path / "pictures").path)
    parts, agreed = labels.decode_all(oof.predicted), labels.decode_all(majority(oof))
    against = (parts != agreed).any(1)
    people = set(oof.persons[against].tolist())
    assert f"{len(people)} of the 40 people with several photos" in page.text
    section = page.source[page.source.index('id="disagree"') : page.source.index('id="recipe"')]
    shown = re.findall(r">person (\w+)<", section)
    assert shown and len(shown) == len(set(shown)) == min(report_parts.SHOWN, len(people)) and set(shown) <= people
    assert section.count('class="minority"') == sum(int(against[oof.persons == person].sum()) for person in shown)
    assert section.count("of this person, predicted") == 7 * len(shown)


def test_the_networks_are_asked_and_their_answers_drawn(real, oof, monkeypatch):
    page = read(real.path)
    for region in REGIONS:
        assert page.text.count(region) >= 2  # occlusion and Grad-CAM
    alts = [alt for alt in page.all("img", "alt") if alt.endswith("comes from")]
    section = page.source[page.source.index('id="looks"') :]
    drawn = section.count('class="seen"')
    assert drawn >= 4 and len(alts) == 6 * drawn
    assert "could not be asked" not in page.text and "Occlusion" in page.text and "Grad-CAM" in page.text
    monkeypatch.setattr(report_looks, "COARSE", 1)
    assert "too few for Grad-CAM" in page.text  # 2 x 2 places; none is less than 1 x 1
    found = looks(real, oof, paths_of(real), pictures=True)
    assert found["coarse"] is None
    for method in found["shares"]:
        assert [row["name"] for row in method["rows"]] == list(labels.ATTRIBUTES)
        for row in method["rows"]:
            assert sum(cell["value"] for cell in row["shares"]) == pytest.approx(1)
            assert sum(cell["area"] for cell in row["shares"]) == pytest.approx(1)
            assert all(cell["low"] <= cell["value"] <= cell["high"] for cell in row["shares"])
            assert row["photos"] <= 40


def test_a_network_that_looks_at_the_lower_face_is_found_out(real, oof, monkeypatch):
    """A backend whose mask is the brightness of the lower half of the face, and nothing else."""

    class Lower:
        prepares = (Prepare(size=(64, 48)),)

        def __call__(self, photos):
            bright = photos[0][:, 30:49, 12:36].mean((1, 2, 3)) / 255  # rows 120..195 of 256
            mask = np.stack([bright, 1 - bright, np.full(len(bright), 0.5)], 1)
            joint = np.einsum("nm,g,a->nmga", mask / mask.sum(1, keepdims=True), [0.5, 0.5], [1 / 3] * 3)
            return joint.reshape(-1, 18).astype(np.float32), None

    monkeypatch.setattr(report_looks, "unseen", lambda run: lambda photo: Lower())
    found = looks(real, oof, paths_of(real), pictures=True)
    (method,) = found["shares"]
    (row,) = method["rows"]  # gender and age depend on nothing: no share
    assert row["name"] == "mask" and method["method"] == "occlusion"
    upper, lower, below, around = (cell["value"] / cell["area"] for cell in row["shares"])
    assert lower > 1.5 * max(upper, below, around) and found["vote"]


def test_each_photo_is_read_by_the_network_that_did_not_see_it(real, oof):
    weights(real, NET, ["other", "final"])  # a final network has seen everybody
    network, prepare = unseen(real), Prepare(size=(32, 24))
    for fold in (0, 1):
        photo = str(oof.photos[oof.fold == fold][0])
        torch.manual_seed(fold)
        net = make_net(make_recipe(NET), prepare, pretrained=False).eval()
        batch = prepare(decode(paths_of(real)[photo]))[None]
        with torch.no_grad():
            expected = net.read(torch.from_numpy(batch))[0]
        np.testing.assert_allclose(network(photo)((batch,))[0], expected.numpy(), atol=1e-6)


def test_members_that_dealt_people_otherwise_read_with_their_own_folds(real, oof, tmp_path):
    turned = replace(oof, fold=(1 - oof.fold).astype(np.int16))
    second = write_run(tmp_path / "second", turned, recipe=NET)
    for fold in ("fold0", "fold1"):
        shutil.copytree(real.path / fold, second.path / fold)
    vote = write_run(tmp_path / "vote", oof, recipe=NET)
    members = [{"path": f"../{run.name}", "weight": 0.5, "digest": oof_digest(run)} for run in (real, second)]
    write_json(vote.path / "ensemble.json", {"members": members, "vote": "soft"})
    photo = str(oof.photos[0])
    batch = Prepare(size=(32, 24))(decode(paths_of(real)[photo]))[None]
    one, other = (unseen(run)(photo)((batch,))[0] for run in (real, second))
    assert not np.allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(unseen(vote)(photo)((batch,))[0], (one + other) / 2, atol=1e-6)
    found = looks(vote, oof, paths_of(real), pictures=True)
    assert found["vote"] and [method["method"] for method in found["shares"]] == ["occlusion"]


def test_separate_networks_have_a_map_each(real, oof):
    recipe = NET | {f"parts.{part}.optim": "adam" for part in ("mask", "gender", "age")}
    write_recipe(make_recipe(recipe), real.path / "recipe.yaml")
    weights(real, recipe, [f"fold{fold}/{part}" for fold in (0, 1) for part in ("mask", "gender", "age")])
    found = looks(real, oof, paths_of(real), pictures=True)
    assert found["missing"] is None and found["cam"] and not found["vote"]
    maps = [one for one in found["pictures"][0]["maps"] if one["method"] == "grad_cam"]
    assert sorted(one["attribute"] for one in maps) == sorted(labels.ATTRIBUTES)


def test_regions_part_the_photo_and_shares_are_of_what_is_above_zero():
    parts = regions((0.25, 0.25, 0.75, 0.75))
    assert (parts.sum(0) == 1).all()
    assert parts.mean((1, 2)) == pytest.approx([0.125, 0.125, 0.25, 0.5])
    assert parts[0, 30, 36] and parts[1, 60, 36] and parts[2, 90, 0] and parts[3, 10, 36] and parts[3, 40, 5]
    heat = np.full((96, 72), -3.0, dtype=np.float32)
    heat[60, 30:40] = 2
    assert shares(heat, (0.25, 0.25, 0.75, 0.75)).tolist() == [0, 1, 0, 0]
    assert np.isnan(shares(np.zeros((4, 3), np.float32), (0.25, 0.25, 0.75, 0.75))).all()


@pytest.mark.parametrize("broken", ["gone", "foreign", "other recipe", "no prepare", "no photos", "no detector"])
def test_what_the_networks_need_may_be_gone_and_the_page_says_so(real, oof, broken, monkeypatch):
    file = real.path / "fold0/best.safetensors"
    if broken == "gone":
        file.unlink()
    elif broken == "foreign":
        file.write_bytes(b"not weights")
    elif broken == "other recipe":
        save_file({"x": torch.zeros(2)}, file)
    elif broken == "no prepare":
        (real.path / "fold0/prepare.json").unlink()
    elif broken == "no photos":
        monkeypatch.setattr(report_looks, "decode", lambda path: decode(path.with_suffix(".gone")))
    else:

        def missing(name):
            raise AssetError(name)

        monkeypatch.setattr(report_looks, "asset_path", missing)
    if broken in ("gone", "no detector"):
        page = read(real.path)
        told = "holds no weights (fold0/best.safetensors)" if broken == "gone" else "`threefold assets yunet` gets it"
        assert told in page.text and ("Grad-CAM" in page.text) == (broken == "no detector")
        assert REGIONS[0] not in page.text
    else:
        assert looks(real, oof, paths_of(real), pictures=True)["missing"]


def test_without_places_in_the_map_occlusion_is_left(real, oof):
    recipe = NET | {"model.backbone": "test_efficientnet"}  # 32 x 24 pixels are one position of its last map
    write_recipe(make_recipe(recipe), real.path / "recipe.yaml")
    weights(real, recipe, ["fold0", "fold1"])
    found = looks(real, oof, paths_of(real), pictures=True)
    assert not found["cam"] and not found["vote"]
    assert [method["method"] for method in found["shares"]] == ["occlusion"]


def test_nobody_is_shown_where_photos_are_not_to_be(real, oof):
    page = read(real.path, photos=False)
    assert "image/jpeg" not in page.source and REGIONS[0] in page.text
    assert not [person for person in set(oof.persons.tolist()) if person in page.source]
    assert "Where it looks" not in read(real.path, looks=False).text


def test_the_page_in_korean(real):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = read(real.path, lang="ko")
    assert dict(page.tags[0][1]) == {"lang": "ko"}
    for words in ("결과", "사람 집단별 성능", "어디를 보는가", "올바른 착용", "남성", "가림"):
        assert words in page.text
    english = [
        message for message in catalogue("ko") if len(message) > 25 and "%" not in message and "{" not in message
    ]
    assert len(english) > 60 and not [message for message in english if message in page.text]
    with pytest.raises(RecipeError, match="lang: 'de' is not known"):
        read(real.path, lang="de")


def test_every_word_of_a_figure_has_its_korean():
    modules = (figures, report_looks, report_parts)
    said = {
        text for module in modules for text in re.findall(r'translate\("([^"]+)"\)', Path(module.__file__).read_text())
    }
    assert len(said) > 15
    assert not [text for text in said | set(figures.TITLES.values()) | set(REGIONS) if text not in catalogue("ko")]


def test_figures_survive_what_there_is_little_of(oof):
    assert figures.reliability([{"confidence": 1.0, "accuracy": 1.0}]).startswith("data:image/svg")
    assert figures.risk_coverage([("x", [[1.0, 0.0]])]).startswith("data:image/svg")
    row = {"year": 60, "said": [0.0, 0.5, 0.5], "bias": {"value": None, "low": None, "high": None}}
    assert figures.age_border([row], 60).startswith("data:image/svg")
    plain, hot = (figures.overlay(np.full((20, 10, 3), 90, np.uint8), heat) for heat in (None, np.eye(4)))
    assert plain != hot and hot.startswith("data:image/jpeg")
    assert figures.thumbnail(None) is None and figures.thumbnail(Path("gone.jpg")) is None
