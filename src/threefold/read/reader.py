"""`Reader`: photos in, readings out. The same Prepare as in training, to the byte; of several models, each its own.

Where the model crops around faces, they are looked for here, once per photo whatever the number of models, and every
Prepare is given the box that it would have found itself. A face that is too small or too blurred is indeterminate,
not guessed. Where there is a decision (`threefold decide`), readings go by it: confidences are calibrated, the class
said is the rule's, and what is not sure enough is called indeterminate.

A reading is about one photo of one face. It never says who somebody is, and it is not valid for people under 18.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from threefold import labels
from threefold.errors import DataError, PhotoError, RunError, one_of
from threefold.evidence.decide import FILE, Decision
from threefold.photos import detect
from threefold.photos.decode import MAX_PIXELS, Box, decode, decode_bytes
from threefold.photos.detect import Detection, by_size
from threefold.photos.quality import OK, Limits, quality
from threefold.read.backends import Backend, oof_digest, open_run
from threefold.read.reading import Reading, make_reading
from threefold.runs import Run

BUNDLED = Path(__file__).parents[1] / "models" / "reader.onnx"
"""The reader that comes with the package: what `load()` opens."""
Which = Literal["all", "largest", "none"]
Image = NDArray[np.uint8]
Photo = Path | str | Image
Boxed = tuple[Photo, Box | None]
Faces = list[Reading] | PhotoError
"""Of a photo, the largest first, or why it cannot be read."""


@dataclass(frozen=True)
class _Face:
    """A face ready for the networks: one crop [H, W, 3] uint8 per Prepare, and what is known of it."""

    crops: tuple[NDArray[np.uint8], ...]
    number: int
    box: Box | None
    score: float | None
    quality: str


class Reader:
    """Reads photos with a backend, by a decision and within limits of quality where there are any.

    batch: faces that the backend is given at once, and photos that are decoded ahead. info: what the model says of
    itself (name, version, data, licence, ...). default_faces: what is read where nobody says which faces: `largest` by
    a model that crops around faces (where none is found, the centred part that training takes then), else `none`, the
    whole photo; of several networks together each sees what it was trained on, so ask for it by None. Thread-safe as
    far as the backend is (torch, onnx and fake are: they keep no state); the same photo has the same reading from any
    number of threads.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        batch: int = 64,
        decision: Decision | None = None,
        limits: Limits | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.backend, self.batch, self.decision = backend, batch, decision
        self.limits, self.info = limits or Limits(), info or {}
        around_faces = any(prepare.finds_faces for prepare in backend.prepares)
        self.default_faces: Which = "largest" if around_faces else "none"

    def __call__(self, photo: Photo, box: Box | None = None) -> Reading:
        """A path or uint8 RGB [H, W, 3] (EXIF applied) -> the Reading of the face in `box` (pixels), else of what the
        model reads by itself (`default_faces`). Raises PhotoError, and AssetError without the detector's file."""
        return self._one((photo, box), None)[0]

    def faces(self, photo: Photo, which: str | None = "all") -> list[Reading]:
        """Readings of the faces of one photo, the largest first; raises as `__call__`.

        which: `all`, also those far away (an empty list where no face is found), `largest` (the photo where none is
        found) or `none`: the photo is a portrait already and read whole, as far as the model's aspect allows; no face
        is looked for. None: what the model reads by itself (`default_faces`).
        """
        return self._one(photo, check_which(which))

    def read(self, photos: Iterable[Photo | Boxed]) -> list[Reading]:
        """Readings of many photos, in order; raises PhotoError for the first that cannot be read."""
        readings = []
        for answer in self.stream(photos):
            if isinstance(answer, PhotoError):
                raise answer
            readings.append(answer)
        return readings

    def stream(self, photos: Iterable[Photo | Boxed]) -> Iterator[Reading | PhotoError]:
        """A Reading as of `__call__` or the PhotoError of each photo or (photo, box), in order; see `stream_faces`."""
        for answer in self.stream_faces(photos, None):
            yield answer if isinstance(answer, PhotoError) else answer[0]

    def stream_faces(self, photos: Iterable[Photo | Boxed], which: str | None = "all") -> Iterator[Faces]:
        """What `faces` gives, or the PhotoError, of each photo, in order; of a (photo, box) the face in the box.

        A photo is decoded and its faces are found once, whatever the number of models. Decoding uses all cores. Not
        more than two batches of photos are taken ahead of what is handed out, and of those only crops are kept.
        """
        faces, source = check_which(which), iter(photos)
        with ThreadPoolExecutor() as pool:
            part = list(pool.map(lambda item: self._prepared(item, faces), islice(source, self.batch)))
            while part:
                # the next batch decodes while the network reads this one
                ahead = [pool.submit(self._prepared, item, faces) for item in islice(source, self.batch)]
                yield from self._read(part)
                part = [task.result() for task in ahead]

    def _one(self, item: Photo | Boxed, which: Which | None) -> list[Reading]:
        (answer,) = self._read([self._prepared(item, which)])
        if isinstance(answer, PhotoError):
            raise answer
        return answer

    def _prepared(self, item: Photo | Boxed, which: Which | None) -> list[_Face] | PhotoError:
        photo, box = item if isinstance(item, tuple) else (item, None)
        try:
            image = photo if isinstance(photo, np.ndarray) else decode(Path(photo))
            if box is not None:
                return [self._face(image, 0, box, None)]
            look = (which or self.default_faces) != "none"
            faces = by_size(detect_faces(image, far=which == "all")) if look else []
            if which == "all":
                return [self._face(image, number, face.box, face.score) for number, face in enumerate(faces)]
            if not faces:
                return [self._face(image, 0, None, None)]
            return [self._face(image, 0, faces[0].box, faces[0].score, asked=which is not None)]
        except PhotoError as error:
            return error
        except DataError as error:
            return PhotoError(f"{'photo' if isinstance(photo, np.ndarray) else photo}: {error}")

    def _face(self, image: Image, number: int, box: Box | None, score: float | None, asked: bool = True) -> _Face:
        """asked: for this face; else each network sees what it was trained on, a part or the whole of the photo. The
        detector has been asked, and no Prepare asks it again."""
        crops = tuple(
            prepare.face(image, box) if box is not None and (asked or prepare.finds_faces) else prepare.whole(image)
            for prepare in self.backend.prepares
        )
        return _Face(crops, number, box, score, OK if box is None else quality(image, box, self.limits))

    def _read(self, part: list[list[_Face] | PhotoError]) -> Iterator[Faces]:
        faces = [face for item in part if not isinstance(item, PhotoError) for face in item]
        readings: list[Reading] = []
        for start in range(0, len(faces), self.batch):
            batch = faces[start : start + self.batch]
            joint, years = self.backend(tuple(map(np.stack, zip(*(face.crops for face in batch), strict=True))))
            for row, face in enumerate(batch):
                age = None if years is None else float(years[row])
                reading = make_reading(
                    joint[row], age, face.box, self.decision, score=face.score, quality=face.quality, face=face.number
                )
                readings.append(reading)
        answers = iter(readings)
        for item in part:
            yield item if isinstance(item, PhotoError) else list(islice(answers, len(item)))


def check_which(which: str | None) -> Which | None:
    """`all`, `largest`, `none` or None; raises DataError for anything else."""
    if which is not None and which not in get_args(Which):
        raise DataError(f"faces: {which!r} is not known ({one_of(get_args(Which), which)})")
    return cast(Which | None, which)


def detect_faces(image: NDArray[np.uint8], *, far: bool = False) -> list[Detection]:
    """Faces of an upright RGB photo [H, W, 3] uint8, the surest first: box, score, five points. See `data.detect`."""
    return detect.detect(image, far=far)


def read_image(source: bytes | Path | str, name: str | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB, upright, of a photo's bytes or file; raises PhotoError naming `name` (default: the path)."""
    if isinstance(source, bytes):
        return decode_bytes(source, name or "photo", max_pixels=max_pixels)
    try:
        return decode(Path(source), max_pixels=max_pixels)
    except PhotoError as error:
        raise error if name is None else PhotoError(str(error).replace(str(source), name, 1)) from None


def load(model: Path | str | None = None, *, decision: bool = True, threads: int | None = None) -> Reader:
    """A Reader of the bundled model (None), of an exported one (a file), or of a run (a directory).

    It goes by the model's decision where it has one and `decision` is true, and by the limits an exported model names.
    threads: cores that one call of an exported model may use (None: all). Raises RunError naming what is wrong: no such
    run or file, a run that is not complete, a decision that was fitted on other out-of-fold predictions.
    """
    path = BUNDLED if model is None else Path(model)
    if model is None and not path.is_file():
        raise RunError("this install has no bundled reader; name a run directory or an .onnx file with --model")
    if path.is_file():
        from threefold.read.onnx import OnnxBackend  # onnxruntime takes a third of a second to load

        backend = OnnxBackend(path, threads=threads)
        limits = Limits.from_dict(backend.info.get("limits"), path)
        return Reader(backend, decision=backend.decision if decision else None, limits=limits, info=backend.info)
    if path.suffix.lower() == ".onnx" and not path.is_dir():
        near = [file.name for file in path.parent.glob("*.onnx")]
        raise RunError(f"{path}: no such file ({one_of(near, path.name)} in {path.parent})")
    if threads is not None:
        raise RunError(f"{path}: threads are of an exported model; a run computes with torch's (OMP_NUM_THREADS)")
    return _load_run(path, decision)


def _load_run(path: Path, decision: bool) -> Reader:
    backend, run = open_run(path), Run(path)
    rule = None
    if decision and (run.path / FILE).exists():
        stored, where = run.read(FILE), run.path / FILE
        if stored.get("digest") != oof_digest(run):
            raise RunError(
                f"{where}: was fitted on other predictions than {run.path / 'oof.npz'}; run `threefold decide`"
            )
        rule = Decision.from_dict(stored.get("decision"), where)
    stamp = run.stamp
    info = {
        "name": run.name,
        **{key: stamp.get(key) for key in ("version", "created", "data")},
        "labels": {name: list(words) for name, words in labels.NAMES.items()},
        "prepares": [prepare.to_dict() for prepare in backend.prepares],
        "decision": rule.to_dict() if rule else None,
    }
    return Reader(backend, decision=rule, info=info)
