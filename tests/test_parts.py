"""What a recipe can ask of training beyond one network: separate networks, extra photos, patches, kept weights."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, contest
from PIL import Image
from safetensors.torch import load_file

import threefold as tf
from threefold import labels, spec
from threefold.errors import LeakError, RecipeError
from threefold.learn.ages import bind_age
from threefold.recipe import make_recipe
from threefold.train.single import prepared, read_all, sides

PARTS = {
    "parts.mask.prepare.size": "32x24", "parts.gender.prepare.size": "40x32", "parts.gender.train.epochs": 1,
    "parts.age.model.head": "one(age, age=years61)", "parts.age.loss.age": "ce+merged_ce",
    "parts.age.prepare.size": "32x32",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return contest(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEFOLD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def recipe(data: Path, changes: dict[str, Any] | None = None) -> tf.Recipe:
    base = dict(word.split("=", 1) for word in TINY) | {"train.epochs": 2, "data.folds": 2, "train.batch": 16}
    return make_recipe({**base, "data.source": str(data), **(changes or {})})


def digests(run: tf.Run) -> dict[str, str]:
    files = [*run.path.rglob("best.safetensors"), *run.path.rglob("*.npz")]
    return {str(f.relative_to(run.path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_separate_networks_are_one_system(data: Path, tmp_path: Path) -> None:
    run = tf.train(recipe(data, PARTS), out=tmp_path / "run")
    oof = tf.Predictions.load(run.path / "oof.npz")
    for fold in (0, 1):
        parts = {
            name: tf.Predictions.load(run.path / f"fold{fold}/{name}/valid.npz") for name in ("mask", "gender", "age")
        }
        whole = tf.Predictions.load(run.path / f"fold{fold}/valid.npz").marginals()
        for attribute, part in zip(labels.ATTRIBUTES, parts.values(), strict=True):
            assert np.allclose(whole[attribute], part.marginals()[attribute], atol=1e-5)
            others = {key: value for key, value in part.marginals().items() if key != attribute}
            assert all(np.allclose(value, 1 / value.shape[1], atol=1e-5) for value in others.values())
        assert np.isfinite(parts["age"].years).all(), "61 years say an age"
    assert {(row["fold"], row["part"]) for row in run.log} == {
        (f, p) for f in (0, 1) for p in ("mask", "gender", "age")
    }
    assert [row["parts"]["gender"]["epochs"] for row in run.metrics["folds"]] == [1, 1]
    # prediction prepares a photo once for each network and gives what the folds said
    faces = {face.id: face for face in tf.read_faces(str(data))}
    reader = tf.load(run.path)
    assert {prepare.size for prepare in reader.backend.prepares} == {(32, 24), (40, 32), (32, 32)}
    reading = reader(faces[str(oof.photos[0])].photo)
    assert reading.joint.sum() == pytest.approx(1, abs=1e-5) and reading.age is not None
    assert "fold 1, age" in (tf.report(run.path).page() or "")


def test_a_cut_off_separate_system_goes_on_to_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole = tf.train(recipe(data, PARTS), out=tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole.path, cut)
    for gone in ("metrics.json", "oof.npz", "fold1/valid.npz", "fold1/gender/fit.json", "fold1/gender/last.pt"):
        (cut / gone).unlink()
    shutil.rmtree(cut / "fold1/age")
    assert digests(tf.train(recipe(data, PARTS), out=cut, resume=True)) == digests(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.sampler": "dynamic(by=age_group)", "schedule": "plateau(patience=1, warmup=0.1)", "train.epochs": 4},
        {"train.keep": "average(top=2)", "train.epochs": 4, "train.freeze": "gradual(every=1)", "train.mix": "mixup"},
        {"model.head": "multi(age=dldl, conditioned=True)", "train.mix": "cutmix(half=vertical)", "train.mix_off": 1},
        {"data.copies": "old(times=5)", "optim": "lion(lr=1e-4, layer_decay=0.7)", "tta": "flip", "train.epochs": 3},
    ],
)  # fmt: skip
def test_a_cut_off_run_goes_on_to_the_same_bytes(changes: dict[str, Any], data: Path, tmp_path: Path) -> None:
    """Whatever keeps a state of its own must be the same after a kill between any two epochs of a fold."""
    chosen = recipe(data, {**changes, "data.folds": "holdout(0.3)"})
    whole = tf.train(chosen, out=tmp_path / "whole")

    class Killed(Exception):
        pass

    from threefold.learn import loop

    saves: list[int] = []
    plain = loop._Trainer.save_checkpoint

    def dying(self: Any, state: Any) -> None:
        plain(self, state)
        saves.append(1)
        if len(saves) == 1 + int(chosen.train.epochs > 3):
            raise Killed

    loop._Trainer.save_checkpoint = dying  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            tf.train(chosen, out=tmp_path / "cut")
    finally:
        loop._Trainer.save_checkpoint = plain  # type: ignore[method-assign]
    assert digests(tf.train(chosen, out=tmp_path / "cut", resume=True)) == digests(whole)


def test_a_recipe_is_parsed_once_however_many_folds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "train.epochs": 1, "model.head": "multi(age=coral, conditioned=True)", "train.sampler": "weighted(power=0.5)",
        "train.mix": "mixup|cutmix", "loss.default": "0.5*ce+focal", "tta": "flip", "train.final": False,
    }  # fmt: skip
    plain, parsed = spec.parse, Counter[int]()

    def counting(*args: Any, **options: Any) -> Any:
        parsed[folds] += 1
        return plain(*args, **options)

    monkeypatch.setattr(spec, "parse", counting)
    for folds in (2, 3):
        bind_age.cache_clear()
        tf.train(recipe(data, {**changes, "data.folds": folds}), out=tmp_path / str(folds))
    assert 0 < parsed[2] == parsed[3]


def test_averaged_weights_are_the_mean_of_the_best_epochs(data: Path, tmp_path: Path) -> None:
    run = tf.train(recipe(data, {"train.keep": "average(top=2)", "train.epochs": 4}), out=tmp_path / "run")
    home = run.path / "fold0"
    files = sorted((home / "kept").iterdir())
    rows = sorted((row for row in run.log if row["fold"] == 0), key=lambda row: (-row["macro_f1"], -row["epoch"]))
    assert {file.stem for file in files} == {f"epoch{row['epoch']}" for row in rows[:2]}
    one, other, kept = (load_file(path) for path in (*files, home / "best.safetensors"))
    for name, value in kept.items():
        if value.is_floating_point():
            assert torch.allclose(value, (one[name] + other[name]) / 2, atol=1e-6), name


def test_training_targets_and_halves_follow_the_data_options(data: Path) -> None:
    options = {"data.train_cuts": "30,60", "data.drop_ages": "44", "data.copies": "old(times=2)"}
    chosen = recipe(data, options)
    faces, dealt = read_all(chosen)
    photos = prepared(chosen, faces)
    split = np.arange(len(faces), dtype=np.int8) // 42
    train, valid = sides(chosen, photos, faces, split, 0)
    assert valid is not None and dealt == len(faces) == 84
    assert set(train.ages[train.rows]) == {22.0, 60.0} and set(valid.ages[valid.rows]) == {22.0, 44.0, 60.0}
    old = (train.ages[train.rows] == 60).sum()
    assert old == 3 * (photos.ages[: len(faces)][split == 1] == 60).sum(), "each old photo and two copies"
    everybody, nobody = sides(chosen, photos, faces, split, None)
    assert nobody is None and len(everybody) > len(train)


def test_a_lower_cut_moves_training_targets_and_not_what_is_scored(data: Path) -> None:
    chosen = recipe(data, {"data.train_cuts": "30,40"})
    faces, _ = read_all(chosen)
    photos = prepared(chosen, faces)
    middle = photos.ages == 44
    assert (photos.target.age_group[torch.from_numpy(middle)].argmax(1) == 2).all()
    assert (photos.truth[middle, 2] == 1).all()


def test_patches_change_labels_before_anything_else(data: Path, tmp_path: Path) -> None:
    first = sorted(folder.name for folder in (data / "train/images").iterdir())[0]
    (tmp_path / "patches.csv").write_text(f"person,field,value\n{first},gender,female\n{first},age,61\nnobody,age,3\n")
    faces, _ = read_all(recipe(data, {"data.patches": str(tmp_path / "patches.csv")}))
    assert {(face.gender, face.age, face.age_group) for face in faces if face.person == first} == {(1, 61.0, 2)}


def test_extra_photos_train_everywhere_and_judge_nowhere(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["file,person,mask,gender,age"]
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i},none,male,25")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    plain = tf.train(recipe(data), out=tmp_path / "plain")
    told: list[tuple[int, float]] = []
    run = tf.train(
        recipe(data, {"data.extra": f"csv:{tmp_path}"}),
        out=tmp_path / "run",
        on_fold=lambda n, f1: told.append((n, f1)),
    )
    oof, other = (tf.Predictions.load(r.path / "oof.npz") for r in (run, plain))
    assert sorted(oof.photos) == sorted(other.photos) and len(oof) == 84
    stamps = run.stamp, plain.stamp
    for key in ("data_digest", "folds_digest"):
        assert stamps[0][key] == stamps[1][key], "scores stay comparable"
    assert digests(run) != digests(plain)
    assert [n for n, _ in told] == [1, 2] and told[1][1] == pytest.approx(run.metrics["macro_f1"]["value"])
    # a copy of a photo of somebody who validates would be a leak
    shutil.copy(next((data / "train/images").rglob("normal.jpg")), tmp_path / "0.png")
    with pytest.raises(LeakError, match=r"data\.extra: extra/0\.png is a copy of a photo of"):
        tf.train(recipe(data, {"data.extra": f"csv:{tmp_path}"}), out=tmp_path / "leak")


@pytest.mark.parametrize("head", ["logistic", "svm(C=10)"])
def test_a_classical_baseline_goes_through_the_same_folds(head: str, data: Path, tmp_path: Path) -> None:
    run = tf.train(recipe(data, {"model.head": head}), out=tmp_path / "run")
    assert run.metrics["macro_f1"]["value"] > 0.2 and [row["epochs"] for row in run.metrics["folds"]] == [1, 1]
    again = tf.train(recipe(data, {"model.head": head}), out=tmp_path / "again")
    assert digests(run) == digests(again)
    assert tf.load(run.path)(next((data / "eval/images").iterdir())).confidence > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts.age.loss.mask": "ce"}, r"loss\.mask: one\(age\) has no such output"),
        ({"parts.age.model.backbone": "resnet1"}, "model.backbone"),
        ({"parts.mask.model.head": "one(mask, age=bins11)"}, "model.head"),
    ],
)
def test_a_wrong_part_is_told_before_any_photo_is_read(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(RecipeError, match=words):
        tf.train(recipe(tmp_path, changes), out=tmp_path / "run")
