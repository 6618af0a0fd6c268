"""The part of a report that asks the networks where they look: at the face, at the mask's place, or at the clothes?

Everything else of a report is made from files of the run. This part needs the photos and the weights too, and is left
out with a reason where one of them is gone. Each photo is read by the network of its fold, the one that never saw the
person; an ensemble by the members' networks of the folds that each of them had the person in.

Where a face is comes from YuNet (photos/detect.py), on the photo for occlusion and on the prepared photo for Grad-CAM.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold import labels, progress
from threefold.assets import asset_path
from threefold.errors import AssetError, PhotoError, ThreefoldError
from threefold.evidence.bootstrap import estimate, person_sums
from threefold.learn.net_backend import NetBackend
from threefold.pages import figures
from threefold.pages.report_parts import parts_of, surest_wrong
from threefold.photos import detect
from threefold.photos.decode import Box, decode
from threefold.predictions import Predictions
from threefold.read.backends import Backend, JoinedBackend, open_run
from threefold.runs import ENSEMBLE, Run

Heat = NDArray[np.float32]
METHODS = ("occlusion", "grad_cam")
REGIONS = ("upper half of the face", "lower half of the face", "below the face", "around and above")
PHOTOS, LEAST, PICTURES = 48, 12, 6
"""Photos the shares are of: the first divided by the passes an answer costs, but no fewer than the second; pictures."""
COARSE = 4
"""A feature map with fewer places than this down or across cannot tell the halves of a face apart, nor a face from
clothes: a photo of 64 x 48 leaves 2 x 2 of the usual networks."""
_GRID = (96, 72)  # what a map is scaled to before its regions are added up


class Map(NamedTuple):
    """Where one answer comes from, by one of METHODS: the photo as looked at [H, W, 3], its heat [h, w], and the face
    on it in relative coordinates 0..1, None where none was found."""

    method: str
    column: int
    image: NDArray[np.uint8]
    heat: Heat
    box: Box | None


def looks(run: Run, oof: Predictions, paths: Mapping[str, Path], *, pictures: bool, seed: int = 0) -> dict[str, Any]:
    """What the template shows; {missing: why} where photos or weights are gone. `pictures`: with photos of people."""
    faces = False
    with contextlib.suppress(AssetError):
        faces = bool(asset_path("yunet"))
    maps: dict[int, list[Map]] = {}
    try:
        network = unseen(run)
        first = network(str(oof.photos[0]))
        if not faces and any(prepare.finds_faces for prepare in first.prepares):
            asset_path("yunet")  # the network's own crop needs it
        leaves = _leaves(first)
        passes = sum(max(1, len(net.views)) for leaf in leaves for net in leaf.nets) or 1
        shown = _pictured(oof, seed) if pictures else []
        counted = _spread(oof, max(LEAST, PHOTOS // passes), seed) if faces else []
        rows = list(dict.fromkeys([*shown, *counted]))
        with progress.bar("looking") as report:
            for done, row in enumerate(rows, start=1):
                photo = str(oof.photos[row])
                with contextlib.suppress(PhotoError):
                    maps[row] = _look(decode(paths[photo]), network(photo), oof.predicted[row], faces)
                report(done, len(rows))
    # a foreign file may raise anything of these, and no report shall fail for its pictures
    except (ThreefoldError, ImportError, RuntimeError, LookupError, TypeError) as error:
        return {"missing": (str(error).splitlines() or [type(error).__name__])[0]}
    if not maps:
        return {"missing": "the photos are not here"}
    used = [(row, part) for row in counted for part in maps.get(row, ())]
    sizes = [part.heat.shape for parts in maps.values() for part in parts if part.method == "grad_cam"]
    return {
        "missing": None,
        "faces": faces,
        "regions": REGIONS,
        "vote": any(_single(first, column) is None for column in range(3)),
        "shares": [share for method in METHODS if (share := _shares(used, oof, method))],
        "coarse": min((size for size in sizes if min(size) < COARSE), default=None),
        "cam": all(len(parts) == len(METHODS) * 3 for parts in maps.values()),
        "pictures": [_picture(row, maps[row], oof) for row in shown if row in maps],
    }


def unseen(run: Run) -> Callable[[str], Backend]:
    """id of a photo -> the networks of the run (or of the ensemble's members) that did not see its person.

    Raises RunError, when asked for a photo, where weights are gone or the photo is of no fold.
    """
    if (run.path / ENSEMBLE).exists():
        plan = run.read(ENSEMBLE)
        members = [unseen(Run.open(run.path / row["path"])) for row in plan["members"]]
        weights, vote = [row["weight"] for row in plan["members"]], plan["vote"]
        return lambda photo: JoinedBackend([member(photo) for member in members], weights, vote)
    oof = run.predictions()
    folds = dict(zip(oof.photos.tolist(), oof.fold.tolist(), strict=True))
    of_fold = cache(lambda fold: open_run(run.path, fold=fold))
    return lambda photo: of_fold(folds[photo])


def _leaves(backend: Backend) -> list[NetBackend]:
    if isinstance(backend, JoinedBackend):
        return [leaf for member in backend.members for leaf in _leaves(member)]
    return [backend] if isinstance(backend, NetBackend) else []


def _single(backend: Backend, column: int) -> NetBackend | None:
    """The one network that answers for an attribute, None in a vote of several."""
    if isinstance(backend, JoinedBackend) and backend.rule == "marginals":
        return _single(backend.members[column], column)
    leaves = _leaves(backend)
    return leaves[0] if len(leaves) == 1 else None


def _look(photo: NDArray[np.uint8], backend: Backend, code: int, faces: bool) -> list[Map]:
    """Three maps of occlusion, and of Grad-CAM for the answers that one network gives."""
    from threefold.learn.attribution import grad_cam, occlusion

    box, codes = detect.largest(photo) if faces else None, labels.decode_all(np.array([code]))

    def read(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        # the box is that of the whole photo: a covered face must not move the crop
        return backend(tuple(np.stack([prepare(image, box) for image in batch]) for prepare in backend.prepares))[0]

    covered = occlusion(read, photo, codes[0])
    maps = [Map("occlusion", column, photo, heat, _relative(photo, box)) for column, heat in enumerate(covered)]
    singles = [_single(backend, column) for column in range(len(covered))]
    for leaf in dict.fromkeys(leaf for leaf in singles if leaf):
        image = leaf.prepares[0](photo, box)
        cams = grad_cam(leaf.nets[0], image[None], codes)
        place = _relative(image, detect.largest(image)) if faces else None
        if cams is not None:
            columns = [column for column, other in enumerate(singles) if other is leaf]
            maps += [Map("grad_cam", column, image, cams[0, column], place) for column in columns]
    return maps


def _relative(image: NDArray[np.uint8], box: Box | None) -> Box | None:
    height, width = image.shape[:2]
    return None if box is None else (box[0] / width, box[1] / height, box[2] / width, box[3] / height)


def regions(box: Box) -> NDArray[np.bool_]:
    """[4, 96, 72]: where each of REGIONS lies on a photo whose face is in a box of relative coordinates."""
    y, x = (np.arange(side) + 0.5 for side in _GRID)
    y, x = (y / _GRID[0])[:, None], (x / _GRID[1])[None]
    left, top, right, bottom = box
    face = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    upper = y < (top + bottom) / 2
    below = np.broadcast_to(y >= bottom, _GRID)
    return np.stack([face & upper, face & ~upper, below, ~face & ~below])


def shares(heat: Heat, box: Box) -> NDArray[np.float64]:
    """[4] share of what a map [h, w] holds above 0 in each of REGIONS; NaN where it holds nothing."""
    wide = np.maximum(cv2.resize(heat.astype(np.float32), _GRID[::-1], interpolation=cv2.INTER_LINEAR), 0)
    held = (regions(box) * wide).sum((1, 2)).astype(np.float64)
    return held / held.sum() if held.sum() > 0 else np.full(len(REGIONS), np.nan)


def _shares(used: Sequence[tuple[int, Map]], oof: Predictions, method: str) -> dict[str, Any] | None:
    """Mean share of each region over the photos with a face, per attribute with intervals, and that of their area.

    An attribute has its own area where its network has its own crop.
    """
    rows = []
    for column, name in enumerate(labels.ATTRIBUTES):
        sums = {}
        for row, part in used:
            if (part.method, part.column) == (method, column) and part.box:
                values = np.array([*shares(part.heat, part.box), *regions(part.box).mean((1, 2)), 1.0])
                if np.isfinite(values).all():
                    sums[row] = values
        if sums:
            persons = oof.persons[list(sums)]
            table = person_sums(persons, np.stack(list(sums.values())))
            means = estimate(persons, table, lambda total: total[..., :-1] / total[..., -1:], 2000)
            cells = [{**means.number(place), "area": float(means.value[4 + place])} for place in range(4)]
            rows.append({"name": name, "photos": len(sums), "shares": cells})
    return {"method": method, "rows": rows, "photos": rows[0]["photos"]} if rows else None


def _spread(oof: Predictions, count: int, seed: int) -> list[int]:
    """`count` rows of different people, the classes in turn."""
    order = np.random.default_rng(seed).permutation(len(oof))
    order = order[np.unique(oof.persons[order], return_index=True)[1]]  # one photo a person, by lot
    label = oof.label[order]
    rank = np.array([(label[:place] == code).sum() for place, code in enumerate(label)])
    return [int(row) for row in order[np.argsort(rank, kind="stable")][:count]]


def _pictured(oof: Predictions, seed: int) -> list[int]:
    """Rows for pictures: right answers of different classes, then the surest mistakes."""
    wrong = surest_wrong(oof)[: PICTURES // 2]
    right = np.flatnonzero(oof.label == oof.predicted)
    chosen: list[int] = []
    for row in right[np.random.default_rng(seed).permutation(len(right))].tolist():
        # three masks and, as far as three photos can, both genders and all ages
        if all((oof.truth[row, [0, 2]] != oof.truth[other, [0, 2]]).all() for other in chosen):
            chosen.append(row)
    return [*chosen[: PICTURES - len(wrong)], *wrong]


def _picture(row: int, maps: Sequence[Map], oof: Predictions) -> dict[str, Any]:
    codes = labels.decode(int(oof.predicted[row]))
    names, truth = parts_of(codes), parts_of(oof.truth[row])
    answers = [
        {"attribute": attribute, "value": name, "sure": float(marginal[row, code])}
        for (attribute, marginal), name, code in zip(oof.marginals().items(), names, codes, strict=True)
    ]
    return {
        "photo": str(oof.photos[row]),
        "plain": figures.overlay(maps[0].image, None),
        "maps": [
            answers[part.column] | {"method": part.method, "picture": figures.overlay(part.image, part.heat)}
            for part in maps
        ],
        "parts": [(true, name, true not in (name, "unknown")) for true, name in zip(truth, names, strict=True)],
    }
