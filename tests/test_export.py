"""`export`: the graph answers as the networks do, for every kind of network; files are whole or not there."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from fake_run import simulate, write_run
from helpers import every
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from threefold import labels, spec
from threefold.errors import AssetError, CheckFailed, RecipeError, RunError
from threefold.evidence.decide import Decision
from threefold.export import export as stage
from threefold.export import parity
from threefold.export.export import export
from threefold.export.graph import exportable, finished, halve, quantise, to_onnx, trace
from threefold.files import atomic_write, write_json
from threefold.learn.ages import AGES
from threefold.learn.backbones import make_body
from threefold.learn.classical import CLASSICAL
from threefold.learn.heads import HEADS
from threefold.learn.net import Net, make_net, to_float
from threefold.learn.net_backend import NetBackend
from threefold.learn.plan import NORMALISES, make_prepare
from threefold.learn.target import make_target
from threefold.learn.tta import make_views
from threefold.photos.prepare import Prepare
from threefold.photos.quality import Limits
from threefold.read.backends import Backend, JoinedBackend, oof_digest, open_run
from threefold.read.onnx import OnnxBackend
from threefold.read.reader import load
from threefold.recipe import PARTS, make_recipe
from threefold.runs import Run
from threefold.train.join import ensemble

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZE = (16, 12)
ONE = [
    *every(HEADS | CLASSICAL),
    "multi(split=True, hidden=[4])",
    "multi(conditioned=True, age=dldl)",
    "one(gender)",
    *(f"one(age, age={age})" for age in every(AGES)),
]


class Means(nn.Module):
    """Nine features of a photo that cost nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.amax((2, 3)), images[:, :, ::2, 1::2].mean((2, 3))], 1)


def net_of(head: str, *, normalise: str = "half", tta: str = "none", seed: int = 0) -> Net:
    torch.manual_seed(seed)
    built = spec.build_one(head, {**HEADS, **CLASSICAL}, "model.head", 9)
    if hasattr(built, "fit"):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 18, 60)
        target = make_target(labels.decode_all(codes), np.full(60, np.nan, dtype=np.float32), (30, 60))
        features = rng.normal(0, 1, (60, 9)).astype(np.float32)
        features[:, 0] += codes / 3
        built.fit(features, target, np.arange(60).astype(str), 0)
    recipe = make_recipe({"prepare.normalise": normalise, "model.backbone": "multilabel_cnn"})
    prepare = make_prepare(recipe, photos(9))
    net = Net(Means(), built, prepare.mean, prepare.std, make_views(tta))
    for weight in net.head.parameters():  # heads start near nothing: answers that are all alike prove little
        weight.data = weight.data * 4 + 0.1 * torch.randn_like(weight)
    return net.eval()


def photos(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (rng.random((count, *size, 3)) * rng.integers(20, 256, (count, 1, 1, 3))).astype(np.uint8)


class Heads(nn.Module):
    """Many heads on the same features: what an export costs goes by its operators."""

    def __init__(self, nets: Sequence[Net]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(exportable(net) for net in nets)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        features = self.nets[0].features(to_float(images[0]))
        raw = [net.head.outputs(features) for net in self.nets]
        both = zip(self.nets, raw, strict=True)
        outputs = [part for net, out in both for part in (net.head.joint(out), net.head.years(out))]
        return tuple(output for output in outputs if output is not None)


class Many(nn.Module):
    """Several systems in one graph."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        super().__init__()
        self.systems = nn.ModuleList(stage._system(backend) for backend in backends)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for system in self.systems for part in system(*images) if part is not None)


def agree(module: nn.Module, backends: Sequence[Backend]) -> None:
    """Each backend's answers are those of its part of the module's graph, for any number of photos."""
    count = sum(1 + (backend((photos(1),))[1] is not None) for backend in backends)
    names = [f"out{number}" for number in range(count)]
    session = onnxruntime.InferenceSession(finished(trace(module, [SIZE], ["photos"], names), "k", "v"))
    for number in (1, 2, 5):
        outputs = iter(session.run(names, {"photos": photos(number)}))
        for backend in backends:
            joint, years = backend((photos(number),))
            assert next(outputs) == pytest.approx(joint, abs=2e-6), backend
            if years is not None:
                assert next(outputs) == pytest.approx(years, rel=1e-5), backend
        assert next(outputs, None) is None


def test_every_head_and_age_answers_the_same_in_a_graph() -> None:
    nets = [net_of(head, seed=seed) for seed, head in enumerate(ONE)]
    backends = [NetBackend([net], Prepare(size=SIZE)) for net in nets]
    spread = [np.ptp(backend((photos(5),))[0], axis=0).max() for backend in backends]
    assert min(spread) > 1e-3, "photos must be told apart, or agreement means nothing"
    agree(Heads(nets), backends)


def test_every_normalisation_view_mean_and_vote_answers_the_same_in_a_graph() -> None:
    rules = every(NORMALISES)
    heads = ["flat18", "flat18", "one(mask)", "one(gender)", "one(age, age=regression)"]
    assert len(heads) >= len(rules), "every rule is that of a network"
    nets = [net_of(head, normalise=rule, seed=3) for head, rule in zip(heads, rules, strict=True)]
    looks = net_of("multi(age=regression)", tta="flip", seed=4)
    flat, other, mask, gender, age, views = (NetBackend([net], Prepare(size=SIZE)) for net in [*nets, looks])
    mean = NetBackend([nets[0], looks], Prepare(size=SIZE))
    assert len({backend((photos(2),))[0].tobytes() for backend in (flat, other)}) == 2
    assert not np.allclose(views((photos(2),))[0], NetBackend([net_of("flat18")], Prepare(size=SIZE))((photos(2),))[0])
    system = JoinedBackend([mask, gender, age], rule="marginals")
    hard = JoinedBackend([flat, other], [0.4, 0.6], "hard")
    backends = [hard, JoinedBackend([system, mean], [3, 1])]
    agree(Many(backends), backends)


def test_separate_branches_work_on_any_number_of_photos() -> None:
    torch.manual_seed(0)
    body = make_body("split(test_resnet)", SIZE, "none")
    head = HEADS["multi"](int(body.eval()(torch.zeros(1, 3, *SIZE)).shape[1]), split=True)
    backends = [NetBackend([Net(body, head, (0.5,) * 3, (0.5,) * 3).eval()], Prepare(size=SIZE))]
    agree(Many(backends), backends)


class Fixed(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, None]:
        one, two = images.chunk(2)
        return torch.cat([one, two]).flatten(1)[:, :18].float().softmax(1), None


def test_why_a_network_cannot_be_a_graph_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class Choosing(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, None]:
            picked = images.float() if images.float().mean() > 3 else -images.float()
            return picked.flatten(1)[:, :18].softmax(1), None

    for wrong, words in ((Fixed(), "works on one fixed number of photos"), (Choosing(), "cannot write this network")):
        with pytest.raises(RunError, match=rf"export: .*({words})") as error:
            to_onnx(wrong, [SIZE], ["photos"], ["probabilities", "years"])
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", ""), "the exporter's chatter must not leak"


def make_run(root: Path, changes: dict[str, Any], folds: int = 1, *, pictures: bool = True, seed: int = 0) -> Run:
    """A complete run of untrained networks on drawn photos of six people, half of them in fold 0."""
    recipe = {"model.pretrained": "none", "prepare.size": "32x24", "data.folds": max(folds, 2), **changes}
    oof = simulate(6, 2)
    run = write_run(root, oof, recipe=recipe, pictures=root.parent / "photos" if pictures else None, draws=20)
    chosen = make_recipe(recipe)
    for fold in range(folds):
        for part in PARTS if chosen.parts else ("",):
            torch.manual_seed(seed + fold)
            recipe_of_part = chosen.part(part) if part else chosen
            prepare = make_prepare(recipe_of_part)
            net = make_net(recipe_of_part, prepare, pretrained=False)
            for weight in net.parameters():
                weight.data += 0.05 * torch.randn_like(weight)
            home = run.path / f"fold{fold}" / part
            home.mkdir(parents=True)
            save_file({key: value.contiguous() for key, value in net.state_dict().items()}, home / "best.safetensors")
            write_json(home / "prepare.json", prepare.to_dict())
    return run


RECIPE = {"model.backbone": "test_efficientnet", "model.head": "multi(age=dldl)"}
Done = tuple[Run, stage.Exported, bytes]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with a decision, exported as it is; and its graph, for tests of what comes after it."""
    root = tmp_path_factory.mktemp("runs")
    run = make_run(root / "one", RECIPE)
    rule = Decision(abstain={"mask": 0.0, "gender": 0.0, "age_group": 0.5}).to_dict()
    write_json(run.path / "decision.json", {"decision": rule, "digest": oof_digest(run)})
    models: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "to_onnx", lambda *arguments: models.append(to_onnx(*arguments)) or models[0])
        exported = export(run.path, licence="CC0-1.0", limits=Limits(min_face=40))
    return run, exported, models[0].SerializeToString()


@pytest.fixture
def again(done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """`export` of the same run without waiting for torch's exporter; writes into the folder of the test."""
    model = onnx.load_model_from_string(done[2])
    monkeypatch.setattr(stage, "to_onnx", lambda *arguments: model)
    return partial(export, done[0].path, tmp_path / "out" / "m.onnx")


def test_an_export_reads_as_its_run_does(done: Done) -> None:
    run, exported, _ = done
    assert exported.path == run.path / "export/model.onnx" and exported.size == exported.path.stat().st_size
    assert 0 <= exported.difference < 1e-5 and exported.years is not None and exported.years < 1e-5
    assert exported.compared == (24, 21) and exported.loss is None and exported.networks == 1
    entry = json.loads((run.path / "export/parity.json").read_text())["model.onnx"]
    assert entry["difference"] == exported.difference and entry["precision"] == "float32"
    places = {"path": str(exported.path), "timm": str(run.path / "export")}
    assert entry.pop("fold") is None and json.loads(exported.json()) == entry | places | {"warnings": []}
    backend, torch_backend = OnnxBackend(exported.path), open_run(run.path)
    assert backend.prepares == torch_backend.prepares
    for number in (1, 2, 5):
        batch = (photos(number, (32, 24)),)
        assert backend(batch)[0] == pytest.approx(torch_backend(batch)[0], abs=1e-5)
    info = backend.info
    assert (info["name"], info["licence"], info["precision"]) == ("one", "CC0-1.0", "float32")
    assert info["limits"]["min_face"] == 40 and info["data"] == "42 photos of 6 people"
    picture = next((run.path.parent / "photos").rglob("*.jpg"))
    one, other = load(run.path)(picture), load(exported.path)(picture)
    assert (one.code, one.age_group) == (other.code, other.age_group) and one.age == pytest.approx(other.age, rel=1e-5)
    assert backend.decision == load(run.path).decision != Decision()
    content = exported.path.read_bytes()
    assert str(Path(stage.__file__).parents[2]).encode() not in content and b"stack_trace" not in content
    assert exported.lines()[0].startswith(f"{exported.path}: float32, 1 network, 0.")


def test_timm_opens_the_weights(done: Done) -> None:
    run, exported, _ = done
    assert exported.timm == run.path / "export"
    weights = load_file(run.path / "export/model.safetensors")
    plain = timm.create_model("test_efficientnet", num_classes=0)
    plain.load_state_dict(weights, strict=True)
    local = timm.create_model(f"local-dir:{run.path / 'export'}", pretrained=True).eval()
    assert local.num_classes == 0 and local.pretrained_cfg["input_size"][1:] == [32, 24]
    stored = load_file(run.path / "fold0/best.safetensors")
    assert all(torch.equal(value, stored[f"backbone.{key}"]) for key, value in local.state_dict().items())
    assert tuple(local.pretrained_cfg["mean"]) == pytest.approx(OnnxBackend(exported.path).prepares[0].mean)


@pytest.mark.parametrize(("option", "precision"), [("half", "float16"), ("int8", "int8")])
def test_the_loss_of_smaller_weights_is_measured(option: str, precision: str, again: Any, done: Any) -> None:
    exported = again(**{option: True}, sample=10)
    assert exported.size < 0.6 * done[1].size
    assert exported.precision == precision == OnnxBackend(exported.path).info["precision"]
    loss = exported.loss
    assert loss.own and loss.unseen and loss.photos == 10 and 0 < loss.mean <= loss.largest < 0.2
    assert loss.before is not None and loss.after is not None
    plain, small = OnnxBackend(done[1].path), OnnxBackend(exported.path)
    batch = (photos(8, (32, 24)),)
    small_joint, plain_joint = small(batch)[0], plain(batch)[0]
    assert small_joint == pytest.approx(plain_joint, abs=0.3) and not np.array_equal(small_joint, plain_joint)
    assert any("macro F1" in line for line in exported.lines())
    assert json.loads((exported.path.parent / "parity.json").read_text())["m.onnx"]["loss"]["mean"] == loss.mean


def test_int8_is_of_the_backbone_alone_and_half_leaves_the_graph_as_it_is(done: Any) -> None:
    model = onnx.load_model_from_string(done[2])
    batches = [{"photos": photos(4, (32, 24), seed)} for seed in range(2)]
    small = quantise(model, batches)
    makers = {out: node for node in small.graph.node for out in node.output}
    convs = [node for node in small.graph.node if node.op_type == "Conv"]
    assert convs and all(makers[node.input[0]].op_type == "DequantizeLinear" for node in convs)
    gemms = [node for node in small.graph.node if node.op_type in ("Gemm", "MatMul")]
    before = {makers[name].op_type for gemm in gemms for name in gemm.input if name in makers}
    assert gemms and "DequantizeLinear" not in before
    assert model.SerializeToString() == done[2], "the argument is not changed"
    session = onnxruntime.SessionOptions()
    session.optimized_model_filepath = str(done[0].path / "optimised.onnx")
    session.log_severity_level = 4
    onnxruntime.InferenceSession(finished(halve(model), "k", "v"), session)
    kinds = [node.op_type for node in onnx.load(session.optimized_model_filepath).graph.node]
    assert kinds.count("Cast") == 1, "the photos' alone: those of weights are done when the model is loaded"


def test_without_its_photos_a_run_is_compared_on_random_ones(again: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(stage, "run_photos", lambda *arguments: (None, None))
    exported = again(int8=True)
    assert exported.compared == (24, 0) and not exported.loss.own and not exported.loss.unseen
    assert exported.loss.before is None and "random photos" in "".join(exported.lines())
    assert "! int8: ranges are taken from random photos" in exported.lines()[-1]
    monkeypatch.setattr(stage, "run_photos", Mock(side_effect=AssetError("no face detector")))
    assert again().lines()[-1] == "! the run's photos are not looked at: no face detector"


def test_a_graph_that_answers_otherwise_is_not_written(again: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(stage, "PARITY", 1e-12)
    with pytest.raises(CheckFailed, match=r"probabilities .* differ from torch by .*, allowed are 1e-12; nothing was"):
        again()
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(stage, "differences", lambda *arguments: (0.0, float("nan")))
    with pytest.raises(CheckFailed, match="years of the exported graph differ from torch by nan"):
        again()


def test_a_full_disk_leaves_what_was_there(again: Any, monkeypatch: Any, tmp_path: Path) -> None:
    again()
    folder = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "config.json").unlink()

    fail = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))

    def full(path: Path, write: Callable[[Any], object]) -> None:
        atomic_write(path, fail if path.name == "m.onnx" else write)  # timm's files are written before the model

    monkeypatch.setattr(stage, "atomic_write", full)
    with pytest.raises(RunError, match=r"m\.onnx: cannot be written \(No space left on device\)"):
        again(name="other")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == {name: content for name, content in before.items() if name != "config.json"}


def test_systems_of_several_preprocessings_are_one_graph(tmp_path: Path) -> None:
    """An ensemble of three separate networks and of one more, four preprocessings, no photos, no timm network."""
    parts = {f"parts.{name}.prepare.size": size for name, size in zip(PARTS, ("20x16", "24x24", "16x16"), strict=True)}
    cnn = {"model.backbone": "multilabel_cnn"}
    make_run(tmp_path / "parts", cnn | parts, pictures=False)
    make_run(tmp_path / "one", cnn | {"tta": "flip"}, pictures=False, seed=7)
    joined = ensemble([tmp_path / "parts", tmp_path / "one"], out=tmp_path / "both", weights=[0.3, 0.7])
    exported = export(joined.path, tmp_path / "both.onnx")
    backend = OnnxBackend(exported.path)
    assert [prepare.size for prepare in backend.prepares] == [(20, 16), (24, 24), (16, 16), (32, 24)]
    assert exported.networks == 4 and exported.compared == (24, 0)
    assert exported.timm == "nothing, since the model is 4 networks"
    batches = tuple(photos(3, prepare.size) for prepare in backend.prepares)
    assert backend(batches)[0] == pytest.approx(open_run(joined.path)(batches)[0], abs=1e-5)
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(RunError, match="an ensemble has no folds"):
        export(joined.path, fold=0)


def test_which_fold_judges(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"model.backbone": "multilabel_cnn"}, 2)
    assert [stage._unseen_fold(run.path, fold) for fold in (None, 0, 1)] == [None, 0, 1]
    prepares = open_run(run.path).prepares
    judging, fitting = parity.run_photos(run, prepares, 1, 100, 5, 0)
    assert judging is not None and fitting is not None and (len(judging), len(fitting)) == (21, 5)
    judging, fitting = parity.run_photos(run, prepares, None, 100, 5, 0)
    assert judging is not None and (len(judging), len(fitting)) == (37, 5)
    warnings: list[str] = []
    rule = {"decision": Decision().to_dict(), "on": "test", "digest": oof_digest(run)}
    write_json(run.path / "decision.json", rule)
    assert stage._open(run.path, 0, warnings)[2] is None
    assert "is of the mean of the networks; one alone is exported without a decision" in warnings[0]
    shutil.rmtree(run.path / "fold0")
    assert stage._unseen_fold(run.path, None) == 1
    (run.path / "final").mkdir()
    assert stage._unseen_fold(run.path, None) is None
    for picture in (tmp_path / "photos").rglob("*.jpg"):
        picture.write_bytes(b"no photo")
    assert parity.run_photos(run, prepares, 1, 100, 5, 0) == (None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"int8": True, "half": True}, "expected one precision"),
        ({"sample": 0}, "sample=0; expected one precision, 1 photo or more"),
        ({"fold": 7}, r"holds no weights \(fold7/best.safetensors\)"),
        ({"out": "."}, "is a folder; expected the file to write"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str, done: Any) -> None:
    with pytest.raises((RecipeError, RunError), match=words):
        export(done[0].path, **options)
    with pytest.raises(RunError, match="no such run"):
        export(done[0].path / "nowhere")
