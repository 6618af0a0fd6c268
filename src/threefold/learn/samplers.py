"""Samplers: which photos of the training half an epoch shows, how often and in which order.

A sampler is made for one training half and is then `(rng, epoch from 0) -> rows`. It returns rows of that half only, at
least one, the same for the same generator and epoch. Classes are those the photos are trained on (their targets, cuts
of the recipe included), so validation never sees a sampler.

Photos whose label is unknown have no class to be balanced with. They come as often as a known photo does on average,
whatever the sampler: they neither form a class that could be the rarest one nor get lost.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, RecipeError
from threefold.labels import UNKNOWN, parse
from threefold.learn.loader import Photos, Rows
from threefold.spec import need

Sampler = Callable[[np.random.Generator, int], Rows]
By = Literal["joint", "mask", "gender", "age_group"]
"""What the classes are: the 18 or those of one attribute."""


def shuffle(photos: Photos) -> Sampler:
    """Every photo once an epoch, in random order."""
    rows = _rows(photos)
    return lambda rng, epoch: rng.permutation(rows)


def weighted(
    photos: Photos, *, by: By = "joint", power: float = 1.0, boost: dict[str, float] | None = None, share: float = 1.0
) -> Sampler:
    """Draws with replacement, as many as photos times `share`; chances are inverse to the class's frequency ** power.

    torch's WeightedRandomSampler. Power 1 shows all classes equally often on average, 0.5 is half way, 0 is uniform.
    boost: beginnings of photo ids (with joined sources a source's name is one) -> factor of their chance, 0 or more;
    `SOURCE:LABEL` (as in `masks_real:incorrect`) takes only those photos that have this mask label. Factors multiply.
    """
    need(power >= 0, "train.sampler: power", power, "0 or more")
    for name, factor in (boost or {}).items():
        need(0 <= factor < float("inf"), f"train.sampler: boost of {name!r}", factor, "a factor of 0 or more")
    need(0 < share < float("inf"), "train.sampler: share", share, "a number above 0")
    rows, codes = _rows(photos), _classes(photos, by)
    labelled = codes != UNKNOWN
    weight = np.ones(len(rows))
    if labelled.any():
        counts = np.bincount(codes[labelled])[codes[labelled]]
        weight[labelled] = (counts.min() / counts) ** power  # relative to the rarest, which no power makes 0
        weight[~labelled] = weight[labelled].mean()
    for name, factor in (boost or {}).items():
        start, _, label = name.partition(":")
        if any(photos.ids) and not np.char.startswith(photos.ids, start).any():
            first = photos.ids[0]
            raise RecipeError(f"train.sampler: boost of {name!r}: no photo's id begins so; the first is {first!r}")
        selected = np.char.startswith(photos.ids[rows], start)
        if label:
            selected &= photos.truth[rows, 0] == parse("mask", label)
        weight[selected] *= factor
    if not weight.sum() > 0:
        raise RecipeError(f"train.sampler: boost {boost} leaves no photo a chance")
    draws = max(1, round(share * len(rows)))
    return lambda rng, epoch: rng.choice(rows, draws, p=weight / weight.sum())


def balanced(photos: Photos, *, by: By = "joint", mode: Literal["down", "up"] | int = "down") -> Sampler:
    """Every class equally often: as the rarest (`down`), as the most frequent (`up`) or `mode` photos of each.

    Without replacement where a class has enough photos (catalyst's BalanceClassSampler).
    """
    fits = not isinstance(mode, int) or mode >= 1
    need(fits, "train.sampler: mode", mode, "down, up or a number of photos above 0")
    size = {"down": np.min, "up": np.max}.get(str(mode), lambda sizes: mode)
    return _per_class(photos, by, lambda sizes, epoch: np.full(len(sizes), size(sizes)))


def dynamic(
    photos: Photos, *, by: By = "joint", decay: float = 0.9, start: int = 0, max_ratio: float | None = None
) -> Sampler:
    """From the frequencies as they are to equal ones, epoch by epoch, without replacement.

    A class that is D times as frequent as the rarest is shown D ** (decay ** (start + epoch)) times as often, at most
    `max_ratio` times: catalyst's DynamicBalanceClassSampler, after Wang et al., "Dynamic Curriculum Learning for
    Imbalanced Data Classification", 2019. Epochs get shorter, down to the rarest class's size times the classes.
    """
    if not 0 < decay < 1 or start < 0 or (max_ratio is not None and not max_ratio >= 1):
        raise RecipeError(
            f"train.sampler: decay={decay}, start={start}, max_ratio={max_ratio}; expected a decay between 0 and 1, "
            "a start of 0 or more, a max_ratio of 1 or more"
        )

    def wanted(sizes: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        ratio = np.minimum((sizes / sizes.min()) ** decay ** (start + epoch), max_ratio or np.inf)
        return np.asarray(ratio * sizes.min() + 1e-9, dtype=np.int64)  # a whole number stays one after the division

    return _per_class(photos, by, wanted)


def _rows(photos: Photos) -> Rows:
    if not len(photos):
        raise DataError("train.sampler: the training half of a fold is empty; expected at least one photo")
    return photos.rows


def _classes(photos: Photos, by: By) -> NDArray[np.int64]:
    """[n] class of each row by its target, UNKNOWN where that is not known."""
    mass = getattr(photos.target.take(photos.rows), by).cpu().numpy()
    return np.where(mass.sum(1) > 0.5, mass.argmax(1), UNKNOWN)


def _per_class(photos: Photos, by: By, wanted: Callable[[NDArray[np.int64], int], NDArray[np.int64]]) -> Sampler:
    """`wanted(sizes of the classes, epoch)` photos of each, without replacement where a class has enough.

    Of those of unknown class as many as of a known one on average: the share of the whole that is taken.
    """
    rows, codes = _rows(photos), _classes(photos, by)
    unknown = rows[codes == UNKNOWN]
    pools = [rows[codes == code] for code in np.unique(codes[codes != UNKNOWN])]
    sizes = np.array([len(pool) for pool in pools])

    def draw(rng: np.random.Generator, epoch: int) -> Rows:
        takes = wanted(sizes, epoch) if pools else sizes
        share = takes.sum() / sizes.sum() if pools else 1.0
        counts = zip([*pools, unknown], [*takes, round(len(unknown) * share)], strict=True)
        drawn = [rng.choice(pool, count, replace=bool(count > len(pool))) for pool, count in counts if count]
        return rng.permutation(np.concatenate(drawn))

    return draw


SAMPLERS = {"shuffle": shuffle, "weighted": weighted, "balanced": balanced, "dynamic": dynamic}
"""name -> factory(photos of the training half, **options) -> (rng, epoch) -> rows of one epoch."""
