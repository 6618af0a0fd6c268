"""A photo read once for all that is asked of its file: header, digest of the bytes, fingerprint of the picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threefold.data import duplicates
from threefold.errors import PhotoError
from threefold.parallel import processes
from threefold.photos import decode as photo
from threefold.progress import Advance


@dataclass(frozen=True)
class Scan:
    """One photo as it was read: `info`, BLAKE2b of the bytes and fingerprint, or the reason it could not be."""

    info: photo.PhotoInfo | None = None
    digest: bytes = b""
    fingerprint: NDArray[np.uint8] | None = None
    reason: str = ""


def scan(path: Path) -> Scan:
    """Read a photo once, decode it whole (what is cut off is noticed only so) and fingerprint it."""
    try:
        data = photo.read(path)
        info = photo.probe(data, str(path))
        pixels = photo.decode_bytes(data, str(path), min_side=2 * duplicates.SIDE)
    except PhotoError as error:
        return Scan(reason=str(error))
    return Scan(info, hashlib.blake2b(data, digest_size=16).digest(), duplicates.fingerprint(pixels))


def scan_all(paths: Sequence[Path], progress: Advance | None = None) -> list[Scan]:
    """`scan` in order, on all cores; `progress(done, N)` is called after each."""
    scans: list[Scan] = []
    # By processes: threads reach half their speed, since headers are read in Python.
    for result in processes(scan, paths, least=500, chunk=32):
        scans.append(result)
        if progress:
            progress(len(scans), len(paths))
    return scans
