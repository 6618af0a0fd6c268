"""Whether photos were among those a run was made from: what is measured on them would say nothing of it.

The contest's eval photos have hashed names, so names prove nothing; bytes do. A copy that was saved anew is not found
here (`threefold check` and training look for those among the photos they are given).
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from threefold.data.tables import read_rows
from threefold.errors import LeakError
from threefold.evidence.decide import FILE
from threefold.photos.cache import content_digests
from threefold.runs import Run

EXTRA = "extra/"
"""How ids and persons of `data.extra` begin: photos that train in every fold, pseudo-labelled ones among them."""


def check_unseen(run: Path, photos: Sequence[tuple[str, Path]], persons: Collection[str] = ()) -> list[str]:
    """Sentences about people who may be on both sides; [] for a run without photos.csv.

    run: its directory. photos: (name, file) of those the run must not have seen; persons: who is on them, where known.
    Raises LeakError naming the first photo whose bytes are those of a photo the run trained or validated with; of one
    that only `data.extra` brought it is a sentence, since `threefold pseudo` puts the very photos of a test there,
    without their answers.
    """
    listed = run / "photos.csv"
    if not listed.is_file():
        return []
    names = ("photo", "path", "person")
    rows = [tuple(map(row.get, names)) for row in read_rows(listed, names)[1]]
    digests = content_digests([Path(path) for _, path, _ in rows])
    seen = {digest: photo for digest, (photo, _, _) in zip(digests, rows, strict=True) if digest}
    extra = 0
    for (name, path), digest in zip(photos, content_digests([path for _, path in photos]), strict=True):
        photo = seen.get(digest, "")
        if photo.startswith(EXTRA):
            extra += 1
        elif photo:
            raise LeakError(
                f"{path}: {name} is {photo} of {listed}, which the run was made from; expected photos of people it "
                f"has never seen, for what it says of these tells nothing (its honest score is out of fold)"
            )
    warnings = [f"{extra} of the {len(photos)} photos trained too (data.extra)"] if extra else []
    if both := {person for _, _, person in rows} & set(persons):
        warnings.append(
            f"{len(both)} of the people have names that people of the run have ({min(both)!r}); if they are the same "
            "people, what is measured here is too good"
        )
    return warnings


def check_decision(run: Path) -> list[str]:
    """A sentence where the run's decision was fitted on scored photos, which may be those that are scored again."""
    if (run / FILE).exists() and Run(run).read(FILE).get("on") == "test":
        return [
            f"{FILE} was fitted on scored photos (decide --on test); if these are among them, the score is too good "
            "(decide tells the honest one, --plain leaves it aside)"
        ]
    return []
