"""Classical baselines: the tensors say what scikit-learn says, survive a file, and train through the folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from threefold.errors import RecipeError
from threefold.learn.classical import CLASSICAL, Classical
from threefold.learn.net import bind_net, load_net
from threefold.learn.target import make_target
from threefold.photos.prepare import Prepare
from threefold.spec import build_one

RNG = np.random.default_rng(0)
CODES = np.stack([RNG.integers(0, size, 120) for size in (3, 2, 3)], 1).astype(np.int8)
FEATURES = (CODES @ RNG.normal(0, 1.2, (3, 6)) + RNG.normal(0, 1, (120, 6)) + 3).astype(np.float32)
PERSONS = np.array([f"p{i % 40}" for i in range(120)])
NOBODY = np.full(120, np.nan, dtype=np.float32)


def fitted(text: str, codes: np.ndarray = CODES) -> Classical:
    head: Classical = build_one(text, CLASSICAL, "model.head", 6)
    head.fit(FEATURES, make_target(codes, NOBODY), PERSONS, 0)
    return head.eval()


@pytest.mark.parametrize("text", [*CLASSICAL, "svm(kernel=linear)", "logistic(C=0.01)"])
def test_a_fit_is_a_joint_that_knows_something(text: str) -> None:
    joint = fitted(text).joint(fitted(text).outputs(torch.from_numpy(FEATURES)))
    assert joint.shape == (120, 18) and torch.allclose(joint.sum(1), torch.ones(120), atol=1e-5)
    cube = joint.view(-1, 3, 2, 3)
    for column, axes in enumerate(((2, 3), (1, 3), (1, 2))):
        right = (cube.sum(axes).argmax(1).numpy() == CODES[:, column]).mean()
        assert right > (0.55 if column != 1 else 0.7), (column, right)


def test_logistic_is_scikit_learns() -> None:
    scaled = StandardScaler().fit_transform(FEATURES)
    outputs = fitted("logistic(C=0.5)").outputs(torch.from_numpy(FEATURES))
    for column, name in enumerate(("mask", "gender", "age")):
        own = LogisticRegression(C=0.5, max_iter=2000).fit(scaled, CODES[:, column]).predict_proba(scaled)
        assert np.allclose(outputs[name].softmax(1).numpy(), own, atol=1e-3), name


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_decision_values_are_scikit_learns(kernel: str) -> None:
    machine = fitted(f"svm(C=2.0, kernel={kernel})").mask
    machine.fill(calibrate=np.eye(3), shift=np.zeros(3))
    scaled = StandardScaler().fit_transform(FEATURES)
    with torch.no_grad():
        said = machine(torch.from_numpy(FEATURES)).numpy()
    for code in range(3):
        own = SVC(C=2.0, kernel=kernel, gamma=1 / 6).fit(scaled, CODES[:, 0] == code).decision_function(scaled)
        assert np.allclose(said[:, code], own, atol=1e-3)


@pytest.mark.parametrize("text", CLASSICAL)
def test_unknown_labels_are_left_out_and_absent_classes_get_nothing(text: str) -> None:
    codes = CODES.copy()
    codes[:60, 1] = -1
    codes[:, 2] = np.minimum(codes[:, 2], 1)  # nobody is old
    codes[:, 0] = 2  # one class alone
    head = fitted(text, codes)
    cube = head.joint(head.outputs(torch.from_numpy(FEATURES))).view(-1, 3, 2, 3)
    assert cube[:, :, :, 2].max() < 0.01 and (cube[:, 2].sum((1, 2)) > 0.99).all()


def test_a_fit_survives_a_file(tmp_path: Path) -> None:
    net = bind_net("test_resnet", "svm")(Prepare(size=(32, 32)))
    features = net.features(torch.rand(120, 3, 32, 32)).detach().numpy()
    assert isinstance(net.head, Classical)
    net.head.fit(features, make_target(CODES, NOBODY), PERSONS, 0)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "net.safetensors")
    other = bind_net("test_resnet", "svm")(Prepare(size=(32, 32)))
    load_net(other, tmp_path / "net.safetensors")
    photos = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(net.eval().read(photos)[0], other.eval().read(photos)[0])


def test_values_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match="C cannot be -1"):
        fitted("svm(C=-1)")
    with pytest.raises(RecipeError, match="kernel"):
        fitted("svm(kernel=poly)")
