"""`Predictions`: the one file that joins training and evidence.

Whatever the network was, it ends here as [N, 18] probabilities beside the truth, and everything that is claimed
later is numpy on this file. Saved as an .npz without pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, RunError
from threefold.files import atomic_write

FORMAT = 1


@dataclass(frozen=True)
class Predictions:
    """What a classifier said about N photos.

    photos: [N] str, ids of the photos, unique. persons: [N] str. probabilities: [N, 18] float32, rows sum to 1.
    truth: [N, 3] int8, (mask, gender, age group), UNKNOWN (-1) where nobody said.
    ages: [N] float32 true years, NaN where unknown. years: [N] float32 predicted years, NaN where the model has none.
    fold: [N] int16, which fold's model predicted the photo; -1 where that means nothing.
    Raises DataError when shapes, ranges or ids do not fit.
    """

    photos: NDArray[np.str_]
    persons: NDArray[np.str_]
    probabilities: NDArray[np.float32]
    truth: NDArray[np.int8]
    ages: NDArray[np.float32]
    years: NDArray[np.float32]
    fold: NDArray[np.int16]

    def __post_init__(self) -> None:
        count = self.photos.size
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.__dataclass_fields__, (count,))
        shapes |= {"probabilities": (count, labels.CLASSES), "truth": (count, 3)}
        for field, shape in shapes.items():
            if getattr(self, field).shape != shape:
                raise DataError(f"predictions: {field} has shape {getattr(self, field).shape}, expected {shape}")
        if count and {self.photos.dtype.kind, self.persons.dtype.kind} != {"U"}:
            raise DataError("predictions: photos and persons must be strings")
        ids, times = np.unique(self.photos, return_counts=True)
        if len(ids) != count:
            raise DataError(f"predictions: photo id {str(ids[times > 1][0])!r} occurs twice")
        if not np.allclose(self.probabilities.sum(1), 1, atol=1e-3) or (self.probabilities < 0).any():
            raise DataError("predictions: a row of probabilities is negative somewhere or does not sum to 1")
        if (self.truth < labels.UNKNOWN).any() or (self.truth >= list(labels.SIZES.values())).any():
            raise DataError("predictions: truth holds a code that is no label")

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def label(self) -> NDArray[np.int64]:
        """[N] true class 0..17, UNKNOWN where a part is unknown."""
        return labels.encode_all(self.truth)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[N] most probable class."""
        return np.asarray(self.probabilities.argmax(1), dtype=np.int64)

    def marginals(self) -> dict[str, NDArray[np.floating]]:
        """Probabilities per attribute; see `labels.marginals`."""
        return labels.marginals(self.probabilities)

    def take(self, rows: NDArray[Any]) -> Predictions:
        """The same predictions for some rows (mask or indices), in that order."""
        return Predictions(**{name: value[rows] for name, value in vars(self).items()})

    def align(self, photos: Sequence[str]) -> Predictions:
        """Rows in the order of `photos`; raises DataError naming the first that is missing."""
        where = {photo: row for row, photo in enumerate(self.photos.tolist())}
        missing = [photo for photo in photos if photo not in where]
        if missing:
            raise DataError(f"predictions: {len(missing)} photos are missing, the first is {missing[0]!r}")
        return self.take(np.array([where[photo] for photo in photos], dtype=np.int64))

    def save(self, path: Path) -> None:
        """Write atomically as .npz."""
        arrays: dict[str, Any] = {**vars(self), "format": np.array(FORMAT)}
        atomic_write(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote; raises RunError on a missing, broken or foreign file."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                stored = int(data["format"]) if "format" in data else None
                if stored == FORMAT:
                    return cls(**{name: data[name] for name in cls.__dataclass_fields__})
        except FileNotFoundError:
            raise RunError(f"{path}: no predictions here") from None
        except Exception as error:  # a damaged or foreign zip fails in a dozen ways, down to zlib.error and EOFError
            raise RunError(f"{path}: not a predictions file ({error})") from None
        raise RunError(f"{path}: predictions of format {stored}, this version reads {FORMAT}")


def join(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of different photos, one after the other (the folds of a cross-validation)."""
    return Predictions(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def product(marginals: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float32]:
    """Joint [N, 18] of independent attributes: mask [N, 3], gender [N, 2], age_group [N, 3]."""
    parts = (marginals[name] for name in labels.SIZES)
    joint = np.einsum("nm,ng,na->nmga", *parts).reshape(-1, labels.CLASSES)
    return np.asarray(joint / joint.sum(1, keepdims=True), dtype=np.float32)
