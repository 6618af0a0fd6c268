"""`threefold pseudo`: what a model is sure of on photos nobody labelled becomes training data of the next one.

The photos join the training half of every fold of a new run with the teacher's recipe (`data.extra`), and never
validate. Nothing is written into the folder of photos: OUT.pseudo/ holds a link to it, the labels (a csv source) and
pseudo.json, which says how they came about. That the unlabelled people are others than the labelled ones only the user
can know.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threefold import labels, progress
from threefold.data.duplicates import fingerprint, near_duplicates
from threefold.data.face import Face
from threefold.data.sources import read_faces, split_sources
from threefold.data.tables import existing
from threefold.errors import DataError, PhotoError, RecipeError, RunError
from threefold.files import new_folder, write_csv, write_json
from threefold.photos.cache import open_cache
from threefold.read.inputs import find_photos
from threefold.read.reader import load
from threefold.read.reading import Reading
from threefold.recipe import Recipe, make_recipe
from threefold.runs import Run
from threefold.train.request import complete_recipe, need_files

LINK = "photos"
NOTE = "pseudo.json"
# The teacher is the mean of networks that trained on the labelled people, so all but one of them learned from those
# whom a given fold validates. Nothing of these people is in the labels but what a network remembers of them, and no
# photo of theirs is added; still the score errs on the high side, by an amount it does not show, and does not prove
# that pseudo labels helped. People outside both sets do (`predict --answers`).
HONESTY = (
    "the teacher has seen people whom the folds validate: the out-of-fold score errs on the high side, "
    "judge the gain on people outside both sets"
)


def pseudo(
    run: Path | str,
    inputs: Path | str,
    *,
    out: Path | str,
    confidence: float = 0.95,
    limit: int | None = None,
    resume: bool = False,
    overrides: Iterable[str] = (),
) -> Run:
    """Label the folder `inputs` with the complete run `run` and train its recipe again with its photos into `out`.

    confidence: least probability of the most probable class, above 0 up to 1. limit: at most this many photos of each
    predicted class, the surest first, so that the easy classes do not drown the rare ones. `overrides` change the
    recipe of the new run. Each photo counts as a person of its own. Labels of an earlier round in the teacher's
    data.extra are replaced. `resume` goes on with the labels as they were made. Raises RecipeError, DataError (no photo
    is sure enough) or RunError before anything is trained; see `train`.
    """
    home, folder, teacher = Path(out), existing(Path(inputs)), Run.open(Path(run))
    if not 0 < confidence <= 1 or (limit is not None and limit < 1):
        raise RecipeError(f"confidence {confidence}, limit {limit}: expected above 0 up to 1, and 1 or more (or none)")
    if not folder.is_dir():
        raise DataError(f"{folder}: is one photo; expected a folder of photos")
    teacher.need_complete()
    labelled = home.with_name(f"{home.name}.pseudo")
    note = {"teacher": str(run), "created": teacher.stamp.get("created"), "photos": str(inputs)}
    note |= {"confidence": confidence, "limit": limit}
    baseline = os.path.relpath(teacher.path.resolve(), home.resolve())
    about = {"hypothesis": f"what {run} is sure of in {inputs} helps to train", "baseline": baseline}
    changed = complete_recipe(make_recipe(teacher.recipe.flat() | about), "", overrides)
    need_files(changed)
    extra = split_sources(changed.data.extra) if changed.data.extra else []
    sources = [f"{layout}:{root}" for layout, root in extra if not (root / NOTE).exists()]
    recipe = make_recipe(changed.flat() | {"data.extra": ",".join([*sources, f"csv:{labelled}"])})
    labelled_before = resume and (labelled / NOTE).exists()
    if labelled_before:
        stored = Run(labelled).read(NOTE)
        for key, value in note.items():
            if (was := stored.get(key)) != value:
                raise RunError(f"{labelled}: --resume with {key} {value!r}, but the labels were made with {was!r}")
    elif not resume:
        Run.need_free(home)
    # late: importing torch takes seconds
    from threefold.train.single import members, train_run

    if not labelled_before:
        # what is wrong with the recipe is said before a photo is read
        _label(teacher, folder, labelled, members(recipe)[0].recipe, note)
    progress.say(HONESTY)
    return train_run(recipe, home, resume)


def _label(teacher: Run, folder: Path, labelled: Path, recipe: Recipe, note: dict[str, Any]) -> None:
    """Write the folder `labelled`, whole or not at all."""
    photos = find_photos([folder])
    readings: dict[str, Reading] = {}
    with progress.bar("reading") as report:
        answers = load(teacher.path, decision=False).stream(path for _, path in photos)
        for done, ((name, _), answer) in enumerate(zip(photos, answers, strict=True), start=1):
            if not isinstance(answer, PhotoError) and not answer.indeterminate:  # a face too small or blurred to label
                readings[name] = answer
            report(done, len(photos))
    sure = _surest(readings, note["confidence"], note["limit"])
    if not sure:
        best = max((reading.confidence for reading in readings.values()), default=0.0)
        raise DataError(f"{folder}: no photo reaches confidence {note['confidence']}, the surest has {best:.3f}")
    files = dict(photos)
    are_copies = _copies([Face(files[name], f"{LINK}/{name}", f"{LINK}/{name}") for name in sure], recipe)
    used = [name for name, is_copy in zip(sure, are_copies, strict=True) if not is_copy]
    if not used:
        raise DataError(f"{folder}: all {len(sure)} photos that are sure enough are copies of labelled ones")
    rows: list[tuple[str, ...]] = [("file", *labels.ATTRIBUTES, "confidence")]
    for name, answer in ((name, readings[name]) for name in used):
        words = (answer.mask, answer.gender, answer.age_group)
        rows.append((f"{LINK}/{name}", *words, f"{answer.confidence:.6f}"))
    unreadable = len(photos) - len(readings)
    counts = {"read": len(readings), "unreadable": unreadable, "copies": sum(are_copies), "used": len(used)}
    with new_folder(labelled) as building:
        (building / LINK).symlink_to(folder.resolve(), target_is_directory=True)
        write_csv(building / "labels.csv", rows)
        write_json(building / NOTE, {**note, **counts})
    left = f"{counts['copies']} copies of labelled photos, {unreadable} that cannot be read"
    progress.say(f"{len(used):,} of {len(photos):,} photos are labelled in {labelled}; left out: {left}")


def _surest(readings: dict[str, Reading], confidence: float, limit: int | None) -> list[str]:
    """Names in their order, at most `limit` of each class."""
    classes: dict[int, list[str]] = {}
    for name, reading in sorted(readings.items(), key=lambda item: -item[1].confidence):
        if reading.confidence >= confidence:
            classes.setdefault(reading.code, []).append(name)
    chosen = {name for names in classes.values() for name in names[:limit]}
    return [name for name in readings if name in chosen]


def _copies(unlabelled: Sequence[Face], recipe: Recipe) -> list[bool]:
    """Which photos show the picture of a labelled one, in the pixels the (first) network sees, as `train` looks.

    A copy may show a person who validates, under another name.
    """
    from threefold.learn.plan import make_prepare

    labelled, prepare = read_faces(recipe.data.source), make_prepare(recipe)
    prints = []
    for faces in (labelled, unlabelled):
        with progress.bar("looking for copies") as report:
            prints += [fingerprint(image) for image in open_cache(faces, prepare, progress=report)]
    # one name for all labelled people and one for the others: only pairs across the two are looked for
    sides = ["labelled"] * len(labelled) + ["new"] * len(unlabelled)
    copies = {j for _, j in near_duplicates(np.stack(prints), sides).tolist()}
    return [row in copies for row in range(len(labelled), len(prints))]
