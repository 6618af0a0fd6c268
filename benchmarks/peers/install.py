"""Environments of the packages, each in a folder of its own, made once and used offline ever after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.catalogue import ENVIRONMENTS, Npm, Peer, Venv
from threefold.errors import AssetError, one_of
from threefold.progress import say

STAMP = "installed.json"
"""What was installed, written last: an environment without it, or with another, is not used."""


def default_folder() -> Path:
    """`threefold/peers` in the XDG cache folder of the user."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "threefold" / "peers"


def set_up(names: list[str], root: Path) -> None:
    """Make the environments `names` (all where empty) below `root`; those that are there as wanted are left alone."""
    for name in names or list(ENVIRONMENTS):
        if name not in ENVIRONMENTS:
            raise AssetError(f"environment {name!r} is not known ({one_of(ENVIRONMENTS, name)})")
        if is_ready(name, root):
            say(f"{name}: is there ({root / name})")
            continue
        say(f"{name}: installing into {root / name}")
        folder, wanted = root / name, ENVIRONMENTS[name]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make_npm(folder, wanted) if isinstance(wanted, Npm) else _make_venv(folder, wanted)
        (folder / STAMP).write_text(_stamp(wanted))


def is_ready(name: str, root: Path) -> bool:
    """True when environment `name` was installed whole, with the versions wanted now."""
    stamp = root / name / STAMP
    return stamp.is_file() and stamp.read_text() == _stamp(ENVIRONMENTS[name])


def why_absent(peer: Peer, root: Path) -> str | None:
    """One line on what a peer lacks and how to get it; None when it can run."""
    if peer.environment is None:
        return None
    if not is_ready(peer.environment, root):
        return f"not set up in {root}; `python -m benchmarks.peers setup {peer.environment}` does it"
    if isinstance(ENVIRONMENTS[peer.environment], Npm) and shutil.which("node") is None:
        return "needs node, which is not on this machine"
    return None


def command(peer: Peer, root: Path) -> list[str]:
    """What starts a peer's script, without its request and answers."""
    if peer.environment is None:
        return [sys.executable]
    wanted = ENVIRONMENTS[peer.environment]
    return ["node"] if isinstance(wanted, Npm) else [str(root / peer.environment / "bin" / "python")]


def _stamp(wanted: Venv | Npm) -> str:
    return json.dumps(asdict(wanted), indent=2) + "\n"


def _make_venv(folder: Path, wanted: Venv) -> None:
    absent = [module for module in wanted.borrow if find_spec(module) is None]
    if absent:
        raise AssetError(f"{folder.name}: needs {', '.join(absent)} in this Python; `pip install threefold[train]`")
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *wanted.packages], folder)
    if wanted.bare:
        _run([*pip, "--no-deps", *wanted.bare], folder)
    if wanted.borrow:
        own = next((folder / "lib").glob("python*/site-packages"))
        (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


def _make_npm(folder: Path, wanted: Npm) -> None:
    if shutil.which("npm") is None:
        raise AssetError(f"{folder.name}: npm is not on this machine")
    (folder / "package.json").write_text('{"private": true}\n')
    _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *wanted.packages], folder)
    for package in wanted.bare:
        with TemporaryDirectory() as place:
            _run(["npm", "pack", "--ignore-scripts", package], Path(place))
            with tarfile.open(next(Path(place).glob("*.tgz"))) as tarball:
                tarball.extractall(place, filter="data")
            target = folder / "node_modules" / package.rpartition("@")[0]
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(place) / "package", target)


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        told = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err!"))]
        raise AssetError(f"{folder.name}: {' '.join(words[:4])} ... failed ({(told or lines[-1:])[0]})")
