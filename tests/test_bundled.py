"""The reader that comes with the package: small, honest about itself, and readable without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import threefold
from threefold.assets import asset_path
from threefold.errors import AssetError
from threefold.labels import NAMES
from threefold.read.onnx import OnnxBackend
from threefold.read.reader import BUNDLED

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
CARD = BUNDLED.with_name("MODEL_CARD.md")


def test_it_is_small_and_says_what_it_is():
    backend = OnnxBackend(BUNDLED)
    assert BUNDLED.stat().st_size <= 12_000_000
    assert backend.info["name"] == "reader" and "research" in backend.info["licence"]
    assert "UTKFace" in backend.info["data"] and backend.info["years"]
    assert backend.decision is not None and backend.prepares[0].finds_faces
    assert {name: tuple(values) for name, values in backend.info["labels"].items()} == NAMES


def test_the_card_names_terms_limits_and_the_command_of_its_numbers():
    text = CARD.read_text(encoding="utf-8")
    for words in ("Research use", "under 18", "python benchmarks/reader.py", "recognition", "All-Age-Faces", "UTKFace"):
        assert words in text, words
    assert f"{BUNDLED.stat().st_size / 1e6:.1f} MB" in text
    for recipe in re.findall(r"`(recipes/[\w-]+\.yaml)`", text):
        assert (ROOT / recipe).is_file()


def test_answers_are_distributions_and_the_same_for_any_batch():
    backend = OnnxBackend(BUNDLED)
    height, width = backend.prepares[0].size
    photos = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    joint, years = backend((photos,))
    assert joint.shape == (5, 18) and np.allclose(joint.sum(1), 1, atol=1e-4) and (joint >= 0).all()
    assert years is not None and ((years >= 0) & (years <= 120)).all()
    alone = np.concatenate([backend((photos[row : row + 1],))[0] for row in range(5)])
    assert np.abs(alone - joint).max() < 1e-4


@pytest.fixture(scope="module")
def bare():
    """Ten portraits of All-Age-Faces with their labels; training knew most of them, so this is no measurement."""
    try:
        asset_path("yunet")
    except AssetError as error:
        pytest.skip(str(error))
    if not (SHARED / "aaf").is_dir():
        pytest.skip("../shared/data is not here")
    faces = threefold.read_faces(f"csv:{SHARED / 'aaf'}")
    return faces[:: len(faces) // 10][:10]


def test_it_reads_portraits(bare):
    read = threefold.load()
    said = [read(face.photo) for face in bare]
    assert all(reading.mask == "none" and reading.box is not None for reading in said)
    right = [reading.gender == NAMES["gender"][face.gender] for reading, face in zip(said, bare, strict=True)]
    assert sum(right) >= 8
    assert np.mean([abs(reading.age - face.age) for reading, face in zip(said, bare, strict=True)]) < 12


def test_it_reads_without_torch(bare):
    code = (
        "import sys; sys.modules['torch'] = None; import threefold; r = threefold.load()(sys.argv[1]);"
        "print(r.mask, r.gender, r.age_group)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bare[0].photo)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split()[0] == "none"
