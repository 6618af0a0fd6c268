"""Exported models: what a file must be to be read, and what reading with it is. The graphs are built by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.decide import Decision
from threefold.photos.prepare import Prepare
from threefold.read.onnx import FORMAT, KEY, OnnxBackend
from threefold.read.reader import Reader, load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

PREPARES = (Prepare(size=(16, 12)), Prepare(size=(8, 20), interpolation="bilinear"))
DECISION = Decision(abstain={"mask": 0.0, "gender": 0.0, "age_group": 0.999})


def info(made_for: tuple[Prepare, ...] = PREPARES[:1], **changes: Any) -> dict[str, Any]:
    metadata = {
        "format": FORMAT, "name": "tiny", "version": "0.1.0", "created": "2026-11-26T10:00:00+00:00",
        "labels": {name: list(values) for name, values in labels.NAMES.items()},
        "prepares": [prepare.to_dict() for prepare in made_for], "decision": None, "years": True,
        "data": "drawn squares", "licence": "CC0-1.0", "precision": "float32", "limits": None,
    }  # fmt: skip
    return metadata | changes


def build(
    metadata: Any, prepares: tuple[Prepare, ...] = PREPARES[:1], *, years: bool = True, key: str = KEY, last: int = 18
) -> bytes:
    """Softmax of a fixed matrix times the channels' means, and a hundredth of their sum as the years."""
    rng = np.random.default_rng(0)
    names = ["photos"] if len(prepares) == 1 else [f"photos{at}" for at in range(len(prepares))]
    nodes, means = [], []
    for name in names:
        nodes.append(helper.make_node("Cast", [name], [f"{name}.f"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("ReduceMean", [f"{name}.f"], [f"{name}.m"], axes=[1, 2], keepdims=0))
        means.append(f"{name}.m")
    nodes += [
        helper.make_node("Concat", means, ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["all", "v"], ["two"]),
        helper.make_node("Squeeze", ["two", "one"], ["years"]),
    ]
    weights = {"w": rng.normal(0, 0.02, (3 * len(names), last)).astype(np.float32), "one": np.array([1])}
    weights["v"] = np.full((3 * len(names), 1), 0.01, dtype=np.float32)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["batch", *prepare.size, 3])
        for name, prepare in zip(names, prepares, strict=True)
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", last])]
    outputs += [helper.make_tensor_value_info("years", TensorProto.FLOAT, ["batch"])] if years else []
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is not None:
        model.metadata_props.add(key=key, value=metadata if isinstance(metadata, str) else json.dumps(metadata))
    return bytes(model.SerializeToString())


def photos(count: int, prepare: Prepare = PREPARES[0], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *prepare.size, 3), dtype=np.uint8)


def test_a_file_says_what_it_is_and_reads_any_number_of_photos(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(build(info(decision=DECISION.to_dict(), limits={"min_face": 40})))
    backend = OnnxBackend(tmp_path / "m.onnx", threads=1)
    assert backend.prepares == PREPARES[:1] and backend.decision == DECISION
    assert backend.info["licence"] == "CC0-1.0" and backend.info["limits"] == {"min_face": 40}
    whole, years = backend((photos(5),))
    assert whole.shape == (5, 18) and whole.dtype == np.float32 and years is not None and years.shape == (5,)
    assert np.allclose(whole.sum(1), 1, atol=1e-5)
    assert years == pytest.approx(photos(5).mean((1, 2)).sum(1) / 100, rel=1e-4)
    for count in (0, 1, 2):
        joint, some = backend((photos(5)[:count],))
        assert joint == pytest.approx(whole[:count], abs=1e-6) and some == pytest.approx(years[:count], rel=1e-6)


def test_a_model_of_two_preprocessings_gets_a_batch_for_each() -> None:
    backend = OnnxBackend(build(info(PREPARES), PREPARES))
    both = (photos(3), photos(3, PREPARES[1], 1))
    joint, years = backend(both)
    means = np.concatenate([batch.mean((1, 2)) for batch in both], axis=1)
    assert years == pytest.approx(means.sum(1) / 100, rel=1e-4) and joint.shape == (3, 18)
    image = np.random.default_rng(3).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    assert Reader(backend)(image).age == pytest.approx(
        sum(prepare(image).mean((0, 1)).sum() for prepare in PREPARES) / 100, rel=1e-4
    )
    for wrong in ((both[0], both[1][:2]), (both[0], both[0]), (both[0], both[1].astype(np.float32))):
        with pytest.raises(DataError, match=r"photos: .* expected uint8 \[3, 8, 20, 3\]"):
            backend(wrong)


def test_a_model_without_ages_has_none() -> None:
    backend = OnnxBackend(build(info(years=False), years=False))
    assert backend((photos(2),))[1] is None and backend((photos(0),))[1] is None


def test_the_reader_goes_by_the_decision_inside(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(build(info(decision=DECISION.to_dict())))
    assert load(tmp_path / "m.onnx")(photos(1)[0]).age_group == "indeterminate"
    assert load(tmp_path / "m.onnx", decision=False)(photos(1)[0]).age_group in labels.NAMES["age_group"]


def test_many_threads_get_their_own_answers() -> None:
    backend = OnnxBackend(build(info()), threads=1)
    batches = [photos(1 + seed % 4, seed=seed) for seed in range(64)]
    alone = [backend((batch,))[0] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: backend((batch,))[0], batches))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


NO_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "timm", "onnx", "onnxscript", "safetensors", "lightning_fabric")))
import numpy as np
from threefold import load
print(load(sys.argv[1])(np.zeros((40, 30, 3), dtype=np.uint8)).mask)
"""


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(build(info()))
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, tmp_path / "m.onnx"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() in labels.NAMES["mask"] and not done.stderr, done.stderr


GOOD = build(info())
OTHER = {"mask": ["on", "off"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable ONNX model"),
        (b"PK\x03\x04 not a model", "not a readable ONNX model"),
        (GOOD[: len(GOOD) // 2], "not a readable ONNX model"),
        (build(None), "not one of `threefold export`"),
        (build(info(), key="other"), "not one of `threefold export`"),
        (build("{half"), "its metadata cannot be read"),
        (build("[1]"), "its metadata cannot be read .expected an object, found list"),
        (build(info(format=9)), "model of format 9, this version reads 1"),
        (build(info(years="yes")), "no usable 'years'"),
        (build({key: value for key, value in info().items() if key != "licence"}), "no usable 'licence'"),
        (build(info(labels=OTHER)), "a model of other labels"),
        (build(info(precision="int4")), "precision 'int4' is not one of float32, float16, int8"),
        (build(info(prepares=[])), "names no preprocessing"),
        (build(info(prepares=[{"crop": "none", "shape": 3}])), r"its preprocessing cannot be used \(prepare\.shape"),
        (build(info(prepares=["none"])), "its preprocessing cannot be used"),
        (build(info(decision={"temperature": 1})), "decision: is not what `threefold decide` writes"),
        (build(info(PREPARES)), "its graph does not fit its metadata"),
        (build(info(PREPARES[1:])), "its graph does not fit its metadata"),
        (build(info(years=False)), "its graph does not fit its metadata"),
        (build(info(), last=17), "its graph does not fit its metadata"),
    ],
)
def test_what_is_no_model_of_ours_is_told_in_one_line(
    content: bytes, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(RunError, match=words) as error:
        OnnxBackend(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", ""), "onnxruntime must not talk beside the error"


def test_what_is_not_there_and_options_that_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(RunError, match=rf"{path}: cannot be read .*expected a model\.onnx"):
            OnnxBackend(path)
    with pytest.raises(RecipeError, match="threads: 0; expected 1 or more"):
        OnnxBackend(GOOD, threads=0)
