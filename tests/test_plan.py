"""From recipe strings to objects: what is made, and what is refused before any photo is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import every
from torch import nn

from threefold.errors import RecipeError
from threefold.learn.losses import CrossEntropy, Focal, Symmetric
from threefold.learn.plan import KEEPS, NORMALISES, STOPS, make_plan, make_prepare
from threefold.recipe import Recipe, make_recipe

TINY = {
    "model.backbone": "test_efficientnet",
    "model.pretrained": "none",
    "prepare.size": "32x32",
    "train.device": "cpu",
}


def recipe(**changes: Any) -> Recipe:
    return make_recipe(TINY | {key.replace("__", "."): value for key, value in changes.items()})


def test_normalisation_by_name() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    for name, mean, std in (
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("half", (0.5,) * 3, (0.5,) * 3),
        ("given(mean=[0.1,0.2,0.3], std=[0.4,0.5,0.6])", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ("dataset", (images / 255).mean((0, 1, 2)), (images / 255).std((0, 1, 2))),
    ):
        prepare = make_prepare(recipe(prepare__normalise=name), images)
        assert prepare.mean == pytest.approx(mean, abs=1e-6) and prepare.std == pytest.approx(std, abs=1e-6), name
    assert make_prepare(recipe(model__backbone="efficientnet_lite0")).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("text", every(NORMALISES))
def test_a_normalisation_is_a_mean_and_a_spread_that_divides(text: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    plan = make_plan(recipe(prepare__normalise=text))
    for prepare in (plan.prepare, make_prepare(plan.recipe, images), make_prepare(plan.recipe, images[:1] * 0)):
        assert len(prepare.mean) == len(prepare.std) == 3 and min(prepare.std) > 0


@pytest.mark.parametrize("text", [*every(STOPS), "patience(3, on=loss)"])
def test_a_stop_waits_at_least_an_epoch(text: str) -> None:
    stop = make_plan(recipe(train__early_stop=text)).stop
    assert stop.epochs >= 1 and stop.on in ("macro_f1", "loss")


@pytest.mark.parametrize("text", [*every(KEEPS), "average(top=2)"])
def test_what_is_kept_is_at_least_one_epoch(text: str) -> None:
    assert make_plan(recipe(train__keep=text)).keep.top >= 1


def test_an_attribute_has_its_own_loss_or_the_default() -> None:
    plan = make_plan(recipe(loss__age="0.4*ce+0.6*focal(gamma=1)", loss__mask="focal", loss__default="sce"))
    losses = plan.make_losses({"mask": torch.ones(3), "gender": torch.ones(2), "age": torch.ones(3)})
    assert [type(loss) for _, loss in losses["mask"]] == [Focal]
    assert [type(loss) for _, loss in losses["gender"]] == [Symmetric]
    assert [(weight, type(loss)) for weight, loss in losses["age"]] == [(0.4, CrossEntropy), (0.6, Focal)]


def test_a_component_from_outside_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylib.py").write_text(
        "def poly1(counts, *, eps: float = 1.0):\n    return lambda raw, target, weight: raw.sum() * 0 + eps\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = make_plan(recipe(loss__default="mylib.poly1(eps=2)"))
    ((_, loss),) = plan.make_losses({"mask": torch.ones(3)})["mask"]
    assert loss(torch.ones(1, 3), torch.ones(1, 3), torch.ones(1)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__early_stop": "patience(0)"}, r"train\.early_stop: patience cannot be 0"),
        ({"train__early_stop": "patience(3, on=accuracy)"}, r"patience\(on=\.\.\.\) cannot be 'accuracy'"),
        ({"train__early_stop": "patiense(3)"}, "nearest: patience"),
        ({"train__precision": "16-mixed"}, r"train\.precision: '16-mixed'"),
        ({"train__precision": "64"}, r"train\.precision"),
        ({"train__device": "tpu"}, r"train\.device: 'tpu' is not one of"),
        ({"train__sampler": "shufle"}, "nearest: shuffle"),
        ({"prepare__normalise": "given(mean=[0.5,0.5,0.5], std=[0,1,1])"}, "std above 0"),
        ({"prepare__normalise": "given(mean=[127,127,127], std=[1,1,1])"}, r"expected numbers in 0\.\.1"),
        ({"model__head": "multi|flat18"}, r"model\.head"),
        ({"loss__age": "ce(weight=[1,2])"}, r"loss: weight cannot be \[1\.0, 2\.0\]; expected 3 numbers"),
        ({"loss__age": "l1"}, r"loss\.age: l1 does not fit the output age of multi \(those do: .*ce, .*focal"),
        ({"loss__years": "l1"}, r"loss\.years: multi has no such output \(known: age, gender, mask"),
        ({"loss__gendr": "ce"}, r"loss\.gendr: multi has no such output \(known: age, gender, mask; nearest: gender\)"),
        ({"model__head": "multi(age=coral)", "loss__age": "ce"}, r"loss\.age: ce does not fit .* \(those do: bce\)"),
        ({"model__head": "multi(age=bins12)"}, r"model\.head: 'bins12' is not known \(.*nearest: bins11\)"),
        ({"model__backbone": "split(vit_tiny_patch16_22)"}, "nearest: vit_tiny_patch16_224"),
        ({"model__backbone": "a+b+c+d+e"}, r"model\.backbone"),
        ({"train__keep": "average(top=0)"}, r"train\.keep: top cannot be 0"),
        ({"train__freeze": "stage(2)"}, "nearest: stages"),
        ({"tta": "flop"}, r"tta: 'flop' is not known \(.*nearest: flip\)"),
        ({"data__copies": "old(times=3)"}, r"data\.copies: old\(times=\.\.\.\) cannot be 3"),
        ({"model__init": "norml"}, "nearest: normal"),
    ],
)
def test_refused_before_any_photo_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        make_plan(recipe(**changes))
    assert "\n" not in str(caught.value)


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"train\.device: cuda is asked for and this machine has no CUDA device"):
        make_plan(recipe(train__device="cuda"))


def test_optimiser_and_schedule_are_made_for_the_training() -> None:
    plan = make_plan(recipe(optim="sgd(lr=0.5)", schedule="step(every=1, gamma=0.1)"))
    optimizer = plan.optim(nn.Linear(2, 2))
    schedule = plan.schedule(optimizer, 3, 4)
    schedule.step_update(4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
