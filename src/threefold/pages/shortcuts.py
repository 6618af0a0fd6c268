"""Can a label be guessed from what is not the face? And how large is chance on this set?

**Shortcuts.** A network takes the easiest way: when all unmasked photos are brighter, or young women wear one track
suit, it need not look at faces, scores well here and fails elsewhere. Four parts of what was measured are tried, each
by a logistic regression that never sees a person it is scored on (folds.deal_folds, copies joined):

    file      source, format, width, height, shape: what says where a photo comes from
    light     brightness, contrast, sharpness, colourfulness of the whole photo
    border    the outer 15 % of a 24 x 18 thumbnail: background
    clothes   its lower quarter; of both without the cells that faces reach into, where the detector is here (`free`)

Folders are not among them: they are often named after the label by whoever sorted the photos. `gain` is the macro F1
less what the same answers score when they are dealt to the photos by lot: F1 of a class then is 2 p q / (p + q), where
p is its share of the photos and q that of the answers. Its interval is over persons. What is found is not always a
fault: a white mask makes a photo brighter, and hair reaches into the border.

**Noise.** Two simulated classifiers of equal worth on the very persons and labels of the set, compared by
`evidence.compare`: the interval of the score and of the difference, on all persons and on one of five folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.eda import Looks
from threefold.data.face import Face, truth
from threefold.data.folds import deal_folds
from threefold.evidence.bootstrap import Floats, Number, estimate, person_sums
from threefold.evidence.compare import compare_predictions as compare
from threefold.evidence.metrics import macro_f1
from threefold.predictions import Predictions

PARTS = ("file", "light", "border", "clothes")
FOLDS, LIMIT, COMPONENTS = 5, 8000, 40
"""Folds; photos that are used at most (whole persons, by lot); principal components a part is reduced to."""
CLEAR = 0.05
"""A gain is called clear where its whole interval lies above this. Where there was nothing to find (20 sets of 60
persons of noise, and 700 real persons with shuffled labels), 0 of 216 questions came out clear and 20 slight: the
interval does not know that the regression itself is fitted to chance. Of a dozen questions one is slight by chance."""
TARGET, SHARED = 0.75, 0.5
"""Macro F1 of the simulated classifiers, over the classes there are; and which part of the variance of a person's
errors two of them share. With 0.5 a difference is about as uncertain as a score, as it is between the runs of six
recipes on 700 drawn-mask persons (half widths of `compare` 0.029 to 0.043, and 0.032 to 0.043 of the scores)."""


def shortcuts(
    faces: Sequence[Face], looks: Looks, groups: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Every attribute of which two values are shown by FOLDS groups of persons each, from every part that varies.

    groups: [N] number of each photo's group of persons who share a photo (`duplicates.person_groups`).
    Of each attribute and part: f1 and gain, {value, low, high} with 95 % intervals; chance, what f1 is by lot; verdict,
    `clear` (see CLEAR), `slight` (the interval of gain leaves 0 out) or `none`; photos and persons that were used.
    """
    codes, parts = truth(faces), _parts(faces, looks)
    found = []
    for column, attribute in enumerate(labels.ATTRIBUTES):
        rows = _rows(np.where(looks.read, codes[:, column], labels.UNKNOWN), groups, seed)
        classes, y = np.unique(codes[rows, column], return_inverse=True)
        if len(classes) < 2:
            continue
        persons = np.array([faces[row].person for row in rows])
        folds = deal_folds([faces[row] for row in rows], FOLDS, seed=seed, groups=groups[rows])
        for part, features in parts.items():
            x = features[rows][:, features[rows].std(0) > 1e-6]
            if x.shape[1]:
                f1, chance, gain = _score(persons, y, _guess(x, y, folds, seed), len(classes), draws, seed)
                low = gain["low"] or 0.0
                verdict = "clear" if low > CLEAR else "slight" if low > 0 else "none"
                found.append({"attribute": attribute, "part": part, "f1": f1, "chance": chance, "gain": gain,
                              "verdict": verdict, "photos": len(rows), "persons": len(np.unique(persons))})  # fmt: skip
    return found


def _rows(codes: NDArray[np.int8], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows whose value is known and shown by FOLDS groups or more; about LIMIT at most, whole groups by lot."""
    enough = [code for code in range(3) if len(np.unique(groups[codes == code])) >= FOLDS]
    rows = np.flatnonzero(np.isin(codes, enough))
    lot = np.random.default_rng(seed).permutation(int(groups.max(initial=0)) + 1)[groups[rows]]
    return rows[lot <= np.sort(lot)[LIMIT - 1]] if len(rows) > LIMIT else rows


def _parts(faces: Sequence[Face], looks: Looks) -> dict[str, Floats]:
    """[N, F] of each part; rows that were not read hold zeros."""
    rows, columns = looks.thumbs.shape[1:3]
    down, across = round(0.15 * rows), round(0.15 * columns)
    inner = np.zeros((rows, columns), dtype=bool)
    inner[down:-down, across:-across] = True
    sides = np.array([[info.width, info.height] if info else [1, 1] for info in looks.infos], dtype=np.float64)
    shape = np.log(np.concatenate([sides, sides[:, :1] / sides[:, 1:]], axis=1))
    kinds = [[face.source for face in faces], [info.format if info else "" for info in looks.infos]]
    hot = [np.unique(kind)[None, :] == np.array(kind)[:, None] for kind in kinds]
    light = np.nan_to_num(looks.numbers.astype(np.float64))
    light[:, 2] = np.log1p(light[:, 2])
    outside = free(looks)
    lower = np.broadcast_to(np.arange(rows)[:, None] >= rows * 3 // 4, (rows, columns))
    return {
        "file": np.concatenate([*hot, shape], axis=1).astype(np.float64),
        "light": light,
        "border": looks.thumbs[:, ~inner & outside].reshape(len(faces), -1).astype(np.float64),
        "clothes": looks.thumbs[:, lower & outside].reshape(len(faces), -1).astype(np.float64),
    }


def _guess(x: Floats, y: NDArray[np.int64], folds: NDArray[np.int8], seed: int) -> NDArray[np.int64]:
    """[N] class of each photo by a regression on the other folds; classes weigh alike, as in macro F1."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    said = np.zeros_like(y)
    for fold in range(FOLDS):
        train = folds != fold
        components = min(COMPONENTS, x.shape[1], int(train.sum()) // 4)
        model = make_pipeline(
            StandardScaler(), PCA(components, random_state=seed), StandardScaler(),
            LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000),
        )  # fmt: skip
        if len(np.unique(y[train])) > 1:
            said[~train] = model.fit(x[train], y[train]).predict(x[~train])
    return said


def _score(
    persons: NDArray[np.str_], y: NDArray[np.int64], said: NDArray[np.int64], k: int, draws: int, seed: int
) -> tuple[Number, float, Number]:
    """Macro F1, what it is by lot, and the first less the second; see above."""
    true, answered = np.eye(k)[y], np.eye(k)[said]

    def statistic(total: Floats) -> Floats:
        right, is_so, is_said = np.split(total, 3, axis=-1)
        both = np.maximum(is_so + is_said, 1e-9)
        f1 = (2 * right / both).mean(-1)
        lot = (2 * is_so * is_said / both).mean(-1) / is_so.sum(-1)
        return np.stack([f1, lot, f1 - lot], axis=-1)

    sums = person_sums(persons, np.concatenate([true * answered, true, answered], axis=1))
    found = estimate(persons, sums, statistic, draws, seed)
    numbers = np.stack([found.value, found.low, found.high], axis=1).round(4).tolist()
    f1, lot, gain = (dict(zip(("value", "low", "high"), row, strict=True)) for row in numbers)
    return f1, lot["value"], gain


def free(looks: Looks) -> NDArray[np.bool_]:
    """[24, 18] cells of the thumbnails that faces (their boxes, grown by a tenth each way) hold in at most 1 photo of
    20; all of them where no face was found or looked for."""
    boxes = looks.boxes[np.isfinite(looks.boxes[:, 0])]
    if not len(boxes):
        return np.ones(looks.thumbs.shape[1:3], dtype=bool)
    low, high = boxes[:, :2], boxes[:, 2:]
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    down, across = ((np.arange(n) + 0.5) / n for n in looks.thumbs.shape[1:3])
    held = [(low[:, axis, None] < at) & (at < high[:, axis, None]) for axis, at in ((1, down), (0, across))]
    return np.asarray(np.einsum("nr,nc->rc", *(part.astype(float) for part in held)) <= 0.05 * len(boxes))


def noise(faces: Sequence[Face], *, seed: int = 0) -> dict[str, Any] | None:
    """Half widths of 95 % intervals for two simulated classifiers of macro F1 TARGET on these persons.

    {"macro_f1", "classes": that there are, "all": {photos, persons, score, difference}, "fold": the medians of FOLDS
    folds}, all of macro F1 over the classes there are: a difference below `difference` cannot be told from none. None
    where no ten persons know all three labels.
    """
    faces = [face for face in faces if face.label >= 0]
    persons = np.array([face.person for face in faces])
    names, of = np.unique(persons, return_inverse=True)
    if len(names) < 2 * FOLDS:
        return None
    rng = np.random.default_rng(seed)
    codes = truth(faces).astype(np.int64)
    label = labels.encode_all(codes)
    classes = len(np.unique(label))
    shared, own, each = (rng.normal(size=(n, 2, size)) for n, size in ((1, len(names)), (2, len(names)), (2, len(of))))
    spread = (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own)[..., of] + 0.5 * each
    slips = np.where(rng.random((2, len(of))) < 0.04, rng.integers(0, 3, (2, len(of))), codes[:, 0])

    def answers(skill: float) -> NDArray[np.int64]:
        """[2, N] classes: groups confused with their neighbours and genders swapped by person, masks by photo."""
        seen = np.array([-1.2, 0.2, 1.2])[codes[:, 2]] * skill + spread[:, 0]
        gender = np.where(spread[:, 1] > 0.65 * skill, 1 - codes[:, 1], codes[:, 1])
        age = (seen > -0.5 * skill).astype(np.int64) + (seen > 0.8 * skill)
        return np.asarray(slips * 6 + gender * 3 + age)

    low, high = 0.3, 12.0
    for _ in range(12):
        skill = (low + high) / 2
        good = np.mean([macro_f1(label, said) for said in answers(skill)]) * labels.CLASSES / classes >= TARGET
        low, high = (low, skill) if good else (skill, high)
    pair = answers(high)
    fold = np.random.default_rng(seed).permutation(len(names))[of] % FOLDS
    held = [
        _widths([faces[row] for row in np.flatnonzero(fold == k)], pair[:, fold == k], seed, classes)
        for k in range(FOLDS)
    ]
    scored = np.mean([macro_f1(label, said) for said in pair]) * labels.CLASSES / classes
    return {"macro_f1": round(float(scored), 3), "classes": classes, "all": _widths(faces, pair, seed, classes),
            "fold": {key: round(float(np.median([one[key] for one in held])), 4) for key in held[0]}}  # fmt: skip


def _widths(faces: Sequence[Face], pair: NDArray[np.int64], seed: int, classes: int) -> dict[str, Any]:
    known, nan = np.array([face.id for face in faces]), np.full(len(faces), np.nan, dtype=np.float32)
    persons = np.array([face.person for face in faces])
    fold = np.zeros(len(faces), dtype=np.int16)
    one, other = (
        Predictions(known, persons, np.eye(labels.CLASSES, dtype=np.float32)[said], truth(faces), nan, nan, fold)
        for said in pair
    )
    made = compare(one, other, draws=2000, seed=seed)
    numbers = (made.one["all.macro_f1"], made.headline)
    half = [((n["high"] or 0) - (n["low"] or 0)) / 2 * labels.CLASSES / classes for n in numbers]
    return {"photos": made.photos, "persons": made.persons, "score": round(half[0], 4), "difference": round(half[1], 4)}
