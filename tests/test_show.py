"""`threefold show`: the picture shows what training sees, and a step that does nothing is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, contest
from PIL import Image

from threefold.data.face import Face
from threefold.data.sources import read_faces
from threefold.errors import RecipeError
from threefold.learn.loader import make_photos
from threefold.learn.loop import fit
from threefold.learn.net import make_net, to_float
from threefold.learn.plan import make_plan, make_prepare
from threefold.learn.target import make_target
from threefold.photos.decode import decode
from threefold.recipe import make_recipe
from threefold.train import sheet as module
from threefold.train.sheet import Change, in_words, spread
from threefold.train.show import show

RECIPE = make_recipe({}, TINY)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve people in the contest's layout, and a cache of their own."""
    home = tmp_path_factory.mktemp("show")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEFOLD_CACHE", str(home / "cache"))
        yield str(contest(home) / "train")


@pytest.fixture
def sheet(data, tmp_path, monkeypatch):
    """Run `show` and record what it draws."""
    record = {}
    draw = module._sheet

    def recording(recipe, changes, batches, captions, shares):
        record.update(batches=batches, captions=captions, shares=shares)
        return draw(recipe, changes, batches, captions, shares)

    monkeypatch.setattr(module, "_sheet", recording)

    def run(*overrides, **more):
        record["result"] = show(RECIPE, data=data, out=tmp_path / "sheet.png", overrides=overrides, **more)
        return record

    return run


def test_prepared_photos_are_those_of_prepare(sheet, data):
    record = sheet(top=5)
    faces = {face.id: face for face in read_faces(data)}
    assert len(record["captions"]) == len(record["shares"]) == 5 and len(record["batches"]) == 1 + module.DRAWS + 1
    for row, caption in enumerate(record["captions"]):
        name, text = caption.split("\n")
        face = faces[name]
        wanted = make_prepare(RECIPE)(decode(face.photo), face.box)
        assert torch.equal(record["batches"][0][row], to_float(torch.from_numpy(wanted)[None])[0])
        assert text.startswith(("worn", "incorrect", "none")) and text.endswith(f"({face.age:g})")
        assert record["shares"][row] == f"1.00 {text.rpartition(' ')[0]}"


def test_draw_one_and_the_mix_are_what_the_first_epoch_trains_on(sheet, data, tmp_path):
    """The loop itself, over the same batch in the same order, with a spy on what it augments and mixes."""
    keys = ["train.augment=flip|rotate(10)|noise(std=0.1)|erase", "train.mix=cutmix(p=0.7)", "train.epochs=1", "seed=3"]
    record = sheet(*keys, "train.batch=16", top=16)
    recipe = make_recipe(RECIPE.flat(), [*keys, "train.batch=16"])
    names = [caption.split("\n")[0] for caption in record["captions"]]
    faces = {face.id: face for face in read_faces(data)}
    chosen = [faces[name] for name in names]
    prepare, plan = make_prepare(recipe), make_plan(recipe)
    photos = make_photos(np.stack([prepare(decode(face.photo)) for face in chosen]), chosen)
    seen = {}

    def augment(images):
        seen["drawn"] = plan.augment(images)
        return seen["drawn"].clone()

    def mix(images, target, generator):
        seen["mixed"], seen["target"] = plan.mix(images, target, generator)
        return seen["mixed"], seen["target"]

    in_order = replace(plan, augment=augment, mix=mix, sampler=lambda photos: lambda rng, epoch: photos.rows)
    fit(make_net(recipe, prepare, pretrained=False), photos, None, in_order, 0, tmp_path, on_epoch=lambda row: None)
    assert torch.equal(record["batches"][1], seen["drawn"]) and torch.equal(record["batches"][-1], seen["mixed"])
    assert not torch.equal(record["batches"][1], record["batches"][2])
    assert record["shares"] == [in_words(seen["target"], row) for row in range(16)]
    assert any("\n" in text for text in record["shares"])


def test_the_change_of_a_step_is_the_mean_over_pixels(sheet, tmp_path):
    record = sheet("train.augment=flip(p=1.0)|flip(p=0.0)|none", "train.batch=8", top=3)
    whole = record["batches"][0].numpy()
    assert len(whole) == 8, "the batch is the recipe's, however few are shown"
    mirrored = np.abs(whole[..., ::-1] - whole).mean()
    result = record["result"]
    assert [change.key for change in result.changes] == ["augment"] * 3 + ["mix"]
    assert [change.step for change in result.changes] == ["flip(p=1.0)", "flip(p=0.0)", "none", "none"]
    assert [change.size for change in result.changes] == pytest.approx([mirrored, 0, 0, 0], abs=1e-6)
    lines = result.lines()
    assert lines[0] == f"contact sheet: {tmp_path / 'sheet.png'}" and result.path.is_file()
    assert lines[1] == f"augment flip(p=1.0): mean change of a pixel {mirrored:.3f} of 1"
    assert lines[2].startswith("! augment flip(p=0.0): mean change of a pixel 0.000 of 1: changes nothing in 16 draws")
    assert [line for line in lines if "changes nothing" in line] == [lines[2]]
    assert result.data()["changes"][2] == {"key": "augment", "step": "none", "size": 0.0}


def test_a_mix_that_does_nothing_is_named(sheet):
    lines = sheet("train.mix=mixup(p=0.0)", "train.batch=8", top=2)["result"].lines()
    assert lines[-1].startswith("! mix mixup(p=0.0): mean change of a pixel 0.000 of 1: changes nothing")


def test_the_picture_holds_every_photo_as_it_is(tmp_path):
    colours = torch.tensor([[200, 10, 10], [10, 200, 10], [10, 10, 200]]) / 255
    batches = [colour[None, :, None, None].expand(2, 3, 16, 12) for colour in colours]
    file = tmp_path / "a.png"
    long = Change("augment", "step(" + "x, " * 100 + ")", 0.0)
    file.write_bytes(module._sheet(RECIPE, [long], batches, ["얼굴.jpg\nworn male <30"] * 2, ["1.00 $x$"] * 2))
    pixels = np.array(Image.open(file).convert("RGB"))
    counts = [(pixels == np.round(colour.numpy() * 255)).all(-1).sum() for colour in colours]
    cell = (module._CELL - 0.06) * 110 * module._CELL * 16 / 12 * 110
    assert counts == pytest.approx([2 * cell] * 3, rel=0.03)
    assert (pixels == (180, 83, 10)).all(-1).any(), "a step of 0.000 is in the warning colour"


def face(label, person, number):
    parts = (None, None, None) if label < 0 else (label // 6, label // 3 % 2, label % 3)
    return Face(Path("x.jpg"), person, f"{person}/{number}", parts[0], parts[1], None, parts[2])


def test_photos_are_spread_over_classes_and_people():
    who = [
        face((mask * 6 + person % 6), f"p{person}", n)
        for person in range(60)
        for n, mask in enumerate([0] * 5 + [1, 2])
    ]
    for seed in range(5):
        rows = spread(who, 18, seed)
        assert sorted(who[row].label for row in rows) == list(range(18))
        assert len({who[row].person for row in rows}) == 18
        masks = Counter(who[row].mask for row in rows[:6])
        assert set(masks.values()) == {2} and len({who[row].label % 6 for row in rows[:6]}) == 6
    assert spread(who, 8, 0) != spread(who, 8, 1) and spread(who, 8, 0) == spread(who, 8, 0)
    assert Counter(who[row].label for row in spread(who, 36, 0)) == dict.fromkeys(range(18), 2)
    few = [face(-1, "a", 0), face(3, "a", 1)]
    assert sorted(spread(few, 8, 0)) == [0, 1]


def test_targets_in_words():
    whole = make_target(np.array([[0, 0, 0], [2, 1, 1]], dtype=np.int8), np.array([20, 40], dtype=np.float32))
    from threefold.learn.target import mix

    mixed = mix(whole, whole.take(np.array([1, 0])), torch.tensor([0.54, 1.0]))
    assert in_words(mixed, 0) == "0.54 worn male <30\n0.46 none female 30-59"
    assert in_words(mixed, 1) == "1.00 none female 30-59"
    part = make_target(np.array([[1, -1, -1], [-1, -1, -1]], dtype=np.int8), np.full(2, np.nan, dtype=np.float32))
    assert in_words(part, 0) == "mask: 1.00 incorrect" and in_words(part, 1) == "nothing is known"


def test_without_photos_there_is_nothing_to_show(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.source: no photos are named"):
        show(RECIPE, out=tmp_path / "a.png")
