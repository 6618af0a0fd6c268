"""Distillation: what a pupil learns from teachers, whose networks it may hear in which fold, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, contest
from safetensors.torch import load_file
from torch.nn import functional as F  # noqa: N812

import threefold as tf
from threefold.errors import LeakError, RecipeError, RunError
from threefold.learn.distil import Lesson, divergence, make_lesson, make_teachers
from threefold.learn.net import make_net
from threefold.learn.plan import make_plan, make_prepare
from threefold.recipe import make_recipe

SAME = {"data.folds": 2, "train.epochs": 2, "train.batch": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return contest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEFOLD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def recipe(data: Path, **changes: Any) -> tf.Recipe:
    base = {**dict(word.split("=", 1) for word in TINY), **SAME, "data.source": str(data)}
    return make_recipe(base | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tf.train(recipe(data, seed=1, train__final=True), out=tmp_path_factory.mktemp("runs") / "big").path


def test_divergence_is_zero_between_equals_and_falls_towards_the_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(5, 4, generator=generator)
    for kind in ("classes", "steps", "conditional", "value"):
        for temperature in (1.0, 3.0):
            assert divergence(kind, said, said, temperature).item() == pytest.approx(0, abs=1e-6)
            raw = torch.randn(5, 4, generator=generator, requires_grad=True)
            far = divergence(kind, raw, said, temperature)
            (gradient,) = torch.autograd.grad(far, raw)
            assert 0 < divergence(kind, raw - 0.1 * gradient, said, temperature) < far


def test_divergence_of_classes_is_hintons() -> None:
    raw, said = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.0, 1.0, 3.0]])
    expected = 4 * F.kl_div((raw / 2).log_softmax(1), (said / 2).softmax(1), reduction="batchmean")
    assert divergence("classes", raw, said, 2.0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_labels_keep_what_the_teachers_leave_them(data: Path) -> None:
    made = recipe(data)
    net = make_net(made, make_prepare(made), pretrained=False).eval().requires_grad_(False)
    images = torch.rand(2, 3, *make_prepare(made).size)
    outputs = {name: raw + 1.0 * torch.arange(raw.shape[1]) for name, raw in net(images).items()}
    losses = make_plan(made).make_losses({name: torch.ones(raw.shape[1]) for name, raw in outputs.items()})
    labels = torch.tensor(10.0)

    def loss(*weights: float) -> float:
        lesson = Lesson([(weight, 1.0, net) for weight in weights])
        return float(lesson.loss(labels, images, outputs, net.head.kinds, losses))

    whole = loss(1.0)
    assert whole > 0.1 and loss(0.25, 0.5) == pytest.approx(0.25 * 10 + 0.75 * whole, rel=1e-5)
    counts = {name: torch.ones(raw.shape[1]) for name, raw in outputs.items()}
    heavy = make_plan(recipe(data, loss__default="2*ce")).make_losses(counts)
    assert float(Lesson([(1.0, 1.0, net)]).loss(labels, images, outputs, net.head.kinds, heavy)) == pytest.approx(
        2 * whole, rel=1e-5
    ), "an output weighs what its losses weigh"


def test_a_pupil_without_labels_learns_what_its_teacher_says(data: Path, teacher: Path) -> None:
    """The whole weight is the teacher's, so that only its opinion of these pixels is learnt."""
    made = recipe(data)
    torch.manual_seed(0)
    pupil, images = make_net(made, make_prepare(made), pretrained=False), torch.rand(16, 3, 32, 24)
    lesson = make_lesson(make_teachers(f"teacher('{teacher}')"), 0, torch.device("cpu"))
    assert lesson is not None
    with torch.no_grad():
        says = {name: 4 * raw for name, raw in lesson.teachers[0][2](images).items()}
    lesson = Lesson([(1.0, 1.0, lambda seen: says)])  # type: ignore[list-item]  # with more to tell than two epochs teach
    losses = make_plan(made).make_losses({name: torch.ones(raw.shape[1]) for name, raw in says.items()})
    optimizer = torch.optim.AdamW(pupil.parameters(), lr=3e-3)
    seen = []
    for _ in range(40):
        loss = lesson.loss(torch.tensor(0.0), images, pupil(images), pupil.head.kinds, losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.3 * seen[0]


def test_a_fold_hears_only_the_teachers_network_of_that_fold(teacher: Path) -> None:
    rows = make_teachers(f"0.5*teacher('{teacher}')")
    cpu = torch.device("cpu")
    for fold, place in ((0, "fold0"), (1, "fold1"), (-1, "final")):
        lesson = make_lesson(rows, fold, cpu)
        assert lesson is not None and [weight for weight, _, _ in lesson.teachers] == [0.5]
        kept, own = load_file(teacher / place / "best.safetensors"), lesson.teachers[0][2].state_dict()
        assert all(torch.equal(kept[name], value) for name, value in own.items())
    with pytest.raises(RunError, match=r"big: holds no weights \(fold2/best"):
        make_lesson(rows, 2, cpu)
    assert make_lesson([], 0, cpu) is None


def test_without_a_last_network_all_folds_share_the_word(teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "folds")
    shutil.rmtree(tmp_path / "folds/final")
    lesson = make_lesson(make_teachers(f"0.5*teacher('{tmp_path / 'folds'}')"), -1, torch.device("cpu"))
    assert lesson is not None and [weight for weight, _, _ in lesson.teachers] == [0.25, 0.25]


def test_people_who_validate_may_not_have_taught(data: Path, teacher: Path, tmp_path: Path) -> None:
    made = recipe(data, train__distil=f"0.5*teacher('{teacher}')", data__seed=7)
    with pytest.raises(
        LeakError, match=r"validates fold \d here and has trained fold \d of .*data\.folds=.*split\.csv"
    ):
        tf.train(made, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cut_off_pupil_goes_on_to_the_same_bytes(data: Path, teacher: Path, tmp_path: Path) -> None:
    made = recipe(
        data, train__distil=f"0.5*teacher('{teacher}', temperature=2)", data__folds=str(teacher / "split.csv")
    )
    whole = tf.train(made, out=tmp_path / "whole").path
    shutil.copytree(whole, tmp_path / "cut")
    for gone in ("metrics.json", "oof.npz", "fold1/valid.npz", "fold1/fit.json", "fold1/last.pt"):
        (tmp_path / "cut" / gone).unlink()
    again = tf.train(made, out=tmp_path / "cut", resume=True).path
    for file in ("fold0/best.safetensors", "fold1/best.safetensors", "oof.npz"):
        assert (again / file).read_bytes() == (whole / file).read_bytes()
    plain = tf.train(recipe(data, data__folds=str(teacher / "split.csv")), out=tmp_path / "plain").path
    assert (plain / "oof.npz").read_bytes() != (whole / "oof.npz").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__distil": "1.5*teacher('RUN')"}, r"train\.distil: .*expected weights above 0 with a sum of at most 1"),
        ({"train__distil": "0.6*teacher('RUN')+0.6*teacher('RUN')"}, r"sum of at most 1"),
        ({"train__distil": "teacher('RUN')|teacher('RUN')"}, r"expected weights above 0"),
        ({"train__distil": "teacher('RUN', temperature=0)"}, r"temperature cannot be 0\.0; expected a number above 0"),
        ({"train__distil": "teacher('RUNX')"}, r"RUNX: no such run \(.*nearest: big in"),
        ({"train__distil": "tutor('RUN')"}, r"train\.distil: 'tutor' is not known"),
        ({"prepare__size": "48x32"}, r"big was trained on other pixels .*needs the same prepare\.crop, size"),
        ({"model__head": "logistic"}, r"train\.distil: logistic is fitted to labels only; expected none"),
        ({"model__head": "multi(age=years61)"}, r"train\.distil: .*big has age in another form"),
    ],
)  # fmt: skip
def test_what_cannot_teach_is_told_before_any_photo_is_read(
    changes: dict[str, Any], words: str, teacher: Path, tmp_path: Path
) -> None:
    chosen = {"train__distil": "0.5*teacher('RUN')", **changes}
    chosen["train__distil"] = chosen["train__distil"].replace("RUN", str(teacher))
    with pytest.raises((RecipeError, RunError), match=words.replace("RUN", str(teacher))):
        make_plan(recipe(tmp_path / "nowhere", **chosen))


def test_a_teacher_of_one_attribute_has_nothing_to_say_of_another(teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(re.sub(r"head: multi.*", "head: one(mask)", text))
    one, chosen = make_teachers(f"0.5*teacher('{copy}')")[0][1], recipe(tmp_path)
    assert one.recipe.model.head == "one(mask)"
    prepare = make_prepare(chosen)
    one.need_fit({"mask": torch.zeros(2, 3), "gender": torch.zeros(2, 2)}, {"mask": "classes"}, prepare)
    with pytest.raises(RecipeError, match=r"copy has no output that is learnt here \(mask; here: gender, age\)"):
        one.need_fit({"gender": torch.zeros(2, 2), "age": torch.zeros(2, 3)}, {}, prepare)


def test_runs_of_several_networks_and_cut_off_ones_do_not_teach(data: Path, teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(teacher, copy)
    (copy / "ensemble.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"several networks; name single runs: 0\.5\*teacher\('a'\)"):
        make_teachers(f"0.5*teacher('{copy}')")
    (copy / "metrics.json").unlink()
    with pytest.raises(RunError, match="not complete"):
        make_teachers(f"0.5*teacher('{copy}')")
