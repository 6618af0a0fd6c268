"""Can a label be guessed from what is not the face? And how large is chance on this set?

Shortcuts: a network takes the easiest way. When all unmasked photos are brighter, or young women wear one track suit,
it need not look at faces, scores well here and fails elsewhere. What a simple classifier can guess, a network can.
Noise: two simulated classifiers of equal worth on the very persons and labels of the set, compared by
`evidence.compare`: the interval of the score and of the difference, on all persons and on one of five folds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.data.eda import Looks
from threefold.data.face import Face, truth
from threefold.data.folds import deal_folds
from threefold.evidence.bootstrap import Floats, estimate, person_sums
from threefold.evidence.compare import compare_predictions as compare
from threefold.evidence.metrics import macro_f1
from threefold.predictions import Predictions

# Folders are no part: they are often named after the label by whoever sorted the photos.
PARTS = ("file", "light", "border", "clothes")
"""What is tried. file: source, format, width, height, shape: what says where a photo comes from. light: brightness,
contrast, sharpness, colourfulness of the whole photo. border: the outer 15 % of a 24 x 18 thumbnail: background.
clothes: its lower quarter; of both without the cells that faces reach into, where the detector is here (`free`)."""
FOLDS, LIMIT, COMPONENTS = 5, 8000, 40
"""Folds; photos that are used at most (whole persons, by lot); principal components a part is reduced to."""
CLEAR = 0.05
"""A gain is called clear where its whole interval lies above this. Where there was nothing to find (20 sets of 60
persons of noise, and 700 real persons with shuffled labels), 0 of 216 questions came out clear and 20 slight: the
interval does not know that the regression itself is fitted to chance. Of a dozen questions one is slight by chance."""
Ints = NDArray[np.int64]
TARGET, SHARED = 0.75, 0.5
"""Macro F1 of the simulated classifiers, over the classes there are; and which part of the variance of a person's
errors two of them share. With 0.5 a difference is about as uncertain as a score, as it is between the runs of six
recipes on 700 drawn-mask persons (half widths of `compare` 0.029 to 0.043, and 0.032 to 0.043 of the scores)."""


def shortcuts(
    faces: Sequence[Face], looks: Looks, groups: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Every attribute of which two values are shown by FOLDS groups of persons each, from every part that varies.

    A logistic regression guesses it for persons it never saw (folds.deal_folds, copies joined). What it finds is not
    always a fault: a white mask makes a photo brighter, and hair reaches into the border.

    groups: [N] number of each photo's group of persons who share a photo (`duplicates.person_groups`).
    Of each attribute and part: f1 and gain, {value, low, high} with 95 % intervals over persons; chance, what f1 is by
    lot; verdict, `clear` (see CLEAR), `slight` (the interval of gain leaves 0 out) or `none`; photos and persons that
    were used.
    """
    codes, parts = truth(faces), _parts(faces, looks)
    guesses = []
    for column, attribute in enumerate(labels.ATTRIBUTES):
        rows = _rows(np.where(looks.read, codes[:, column], labels.UNKNOWN), groups, seed)
        classes, y = np.unique(codes[rows, column], return_inverse=True)
        if len(classes) < 2:
            continue
        persons = np.array([faces[row].person for row in rows])
        folds = deal_folds([faces[row] for row in rows], FOLDS, seed=seed, groups=groups[rows])
        about = {"photos": len(rows), "persons": len(np.unique(persons))}
        for part, features in parts.items():
            x = features[rows][:, features[rows].std(0) > 1e-6]
            if x.shape[1]:
                score = _score(persons, y, _guess(x, y, folds, seed), draws, seed)
                guesses.append({"attribute": attribute, "part": part} | score | about)
    return guesses


def _rows(codes: NDArray[np.int8], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows whose value is labelled and shown by FOLDS groups or more; about LIMIT at most, whole groups by lot."""
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

    guess = np.zeros_like(y)
    for fold in range(FOLDS):
        train = folds != fold
        pca = PCA(min(COMPONENTS, x.shape[1], int(train.sum()) // 4), random_state=seed)
        regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
        model = make_pipeline(StandardScaler(), pca, StandardScaler(), regression)
        if len(np.unique(y[train])) > 1:
            guess[~train] = model.fit(x[train], y[train]).predict(x[~train])
    return guess


def _score(persons: NDArray[np.str_], y: Ints, guess: Ints, draws: int, seed: int) -> dict[str, Any]:
    """f1, chance, gain and verdict of a guess, as `shortcuts` says.

    `gain` is the macro F1 less what the same answers score when they are dealt to the photos by lot: F1 of a class then
    is 2 p q / (p + q), where p is its share of the photos and q that of the answers. The interval does not cover that
    the regression itself is fitted.
    """
    true, answers = np.eye(y.max() + 1)[np.stack([y, guess])]

    def statistic(total: Floats) -> Floats:
        right, photos, answered = np.split(total, 3, axis=-1)
        both = np.maximum(photos + answered, 1e-9)
        f1 = (2 * right / both).mean(-1)
        lot = (2 * photos * answered / both).mean(-1) / photos.sum(-1)
        return np.stack([f1, lot, f1 - lot], axis=-1)

    sums = person_sums(persons, np.concatenate([true * answers, true, answers], axis=1))
    result = estimate(persons, sums, statistic, draws, seed)
    numbers = np.stack([result.value, result.low, result.high], axis=1).round(4).tolist()
    f1, lot, gain = (dict(zip(("value", "low", "high"), row, strict=True)) for row in numbers)
    verdict = "clear" if gain["low"] > CLEAR else "slight" if gain["low"] > 0 else "none"
    return {"f1": f1, "chance": lot["value"], "gain": gain, "verdict": verdict}


def free(looks: Looks) -> NDArray[np.bool_]:
    """[24, 18] cells of the thumbnails that faces (their boxes, grown by a tenth each way) cover in at most 1 photo of
    20; all of them where no face was found or looked for."""
    boxes = looks.boxes[np.isfinite(looks.boxes[:, 0])]
    if not len(boxes):
        return np.ones(looks.thumbs.shape[1:3], dtype=bool)
    low, high = boxes[:, :2], boxes[:, 2:]
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    down, across = ((np.arange(n) + 0.5) / n for n in looks.thumbs.shape[1:3])
    covered = [(low[:, axis, None] < at) & (at < high[:, axis, None]) for axis, at in ((1, down), (0, across))]
    return np.asarray(np.einsum("nr,nc->rc", *(part.astype(float) for part in covered)) <= 0.05 * len(boxes))


def noise(faces: Sequence[Face], *, seed: int = 0) -> dict[str, Any] | None:
    """Half widths of 95 % intervals for two simulated classifiers of macro F1 TARGET on these persons.

    {"macro_f1", "classes": that there are, "all": {photos, persons, score, difference}, "fold": the medians of FOLDS
    folds}, all of macro F1 over the classes there are: a difference below `difference` cannot be told from none. None
    where there are no ten persons with all three labels.
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
    sizes = ((1, len(names)), (2, len(names)), (2, len(of)))
    shared, separate, by_photo = (rng.normal(size=(n, 2, size)) for n, size in sizes)
    spread = (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * separate)[..., of] + 0.5 * by_photo
    slips = np.where(rng.random((2, len(of))) < 0.04, rng.integers(0, 3, (2, len(of))), codes[:, 0])

    def answers(skill: float) -> NDArray[np.int64]:
        """[2, N] classes: groups confused with their neighbours and genders swapped by person, masks by photo."""
        seen = np.array([-1.2, 0.2, 1.2])[codes[:, 2]] * skill + spread[:, 0]
        gender = np.where(spread[:, 1] > 0.65 * skill, 1 - codes[:, 1], codes[:, 1])
        age = (seen > -0.5 * skill).astype(np.int64) + (seen > 0.8 * skill)
        return np.asarray(slips * 6 + gender * 3 + age)

    def score(pair: NDArray[np.int64]) -> float:
        return float(np.mean([macro_f1(label, codes) for codes in pair])) * labels.CLASSES / classes

    low, high = 0.3, 12.0
    for _ in range(12):
        skill = (low + high) / 2
        low, high = (low, skill) if score(answers(skill)) >= TARGET else (skill, high)
    pair = answers(high)
    ids, nan = np.array([face.id for face in faces]), np.full(len(of), np.nan, dtype=np.float32)
    rest = (truth(faces), nan, nan, np.zeros(len(of), dtype=np.int16))
    predictions = [Predictions(ids, persons, np.eye(labels.CLASSES, dtype=np.float32)[part], *rest) for part in pair]
    fold = np.random.default_rng(seed).permutation(len(names))[of] % FOLDS
    folds = [_widths([part.take(fold == k) for part in predictions], classes, seed) for k in range(FOLDS)]
    return {
        "macro_f1": round(score(pair), 3),
        "classes": classes,
        "all": _widths(predictions, classes, seed),
        "fold": {key: round(float(np.median([widths[key] for widths in folds])), 4) for key in folds[0]},
    }


def _widths(pair: Sequence[Predictions], classes: int, seed: int) -> dict[str, Any]:
    result = compare(*pair, draws=2000, seed=seed)
    numbers = (result.one["all.macro_f1"], result.headline)
    half = [((n["high"] or 0) - (n["low"] or 0)) / 2 * labels.CLASSES / classes for n in numbers]
    size = {"photos": result.photos, "persons": result.persons}
    return size | {"score": round(half[0], 4), "difference": round(half[1], 4)}
