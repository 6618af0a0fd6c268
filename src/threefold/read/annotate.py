"""Boxes and words on a photo: what was read, for people to look at. The word stands beside the colour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError
from threefold.files import atomic_write
from threefold.photos.quality import OK
from threefold.read.reader import read_image
from threefold.read.reading import INDETERMINATE, Reading

COLOURS: dict[str, tuple[int, int, int]] = {
    "worn": (0, 133, 62),
    "incorrect": (180, 94, 0),
    "none": (200, 28, 40),
    "indeterminate": (96, 96, 96),
}
"""RGB by mask status: green, amber, red, grey; each dark enough that white text on it has a contrast of 4.5 or more."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT = (0.022, 12.0)
"""Height of a capital letter: of the photo's longer side, and the least, in pixels."""
WIDEST = 3.0
"""Words wider than so many widths of their box are made smaller, and then two lines."""
Area = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""
JPEG, JPEG_QUALITY = (".jpg", ".jpeg"), 92
"""What stays a JPEG when a copy is drawn on, and how well it is kept. A PNG stays one; all else becomes JPEG."""
Draw = Callable[[str, Path | NDArray[np.uint8], Sequence[Reading]], None]
"""Called with a photo's place among the copies, the photo and what was read of it."""


def annotate(image: NDArray[np.uint8], readings: Sequence[Reading]) -> NDArray[np.uint8]:
    """A copy of an RGB photo [H, W, 3] uint8 with boxes and words of its readings, the largest face on top.

    The words: mask, gender, age group (what was asked for), the confidence in percent, and why where a face is too
    small or too blurred. They scale with the photo, smaller for a face that is much narrower than its words, at least
    12 pixels high where that fits into the photo; on a plate of the colour of the mask status, above, below or in the
    box, where they hide least of other faces and their words. A reading without a box is of the whole photo, which is
    then framed.
    """
    drawn = np.ascontiguousarray(image).copy()
    rows, columns = drawn.shape[:2]
    height = max(TEXT[1], TEXT[0] * max(rows, columns))
    ordered = sorted(readings, key=lambda reading: reading.face)
    boxes: list[Area] = []
    for reading in ordered:
        left, top, right, bottom = map(round, reading.box or (0, 0, columns, rows))
        boxes.append((left, top, min(right, columns - 1), min(bottom, rows - 1)))
    plates: list[_Plate] = []
    for place, (reading, box) in enumerate(zip(ordered, boxes, strict=True)):
        hidden = [*boxes[:place], *boxes[place + 1 :], *(plate.area for plate in plates)]
        plates.append(_plate(words(reading), box, (rows, columns), height, hidden))
    for reading, (left, top, right, bottom), plate in reversed(list(zip(ordered, boxes, plates, strict=True))):
        colour = COLOURS[reading.mask if "mask" in reading.attributes else INDETERMINATE]
        line = max(1, round(min(height, (right - left) / 4) / 6))
        cv2.rectangle(drawn, (left, top), (right, bottom), (255, 255, 255), line + 2)  # seen on any background
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
        plate.draw(drawn, colour)
    return drawn


def words(reading: Reading) -> str:
    """`mask incorrect, male, 30-59, 81%` in ASCII: what is said of a face, in a line."""
    if reading.quality != OK:
        return f"{INDETERMINATE} ({reading.quality})"
    values = [getattr(reading, name) for name in reading.attributes]
    if "mask" in reading.attributes:
        values[0] = f"mask {values[0]}"  # `none` alone would say nothing
    return ", ".join([*values, f"{100 * reading.confidence:.0f}%"]).encode("ascii", "replace").decode()


def drawing(folder: Path, inputs: Sequence[Path]) -> Draw:
    """A Draw that writes a copy of each photo with boxes and words below `folder`, each whole or not at all.

    Raises DataError when `folder` lies in one that is read, or is a file: copies would be read as photos.
    """
    for path in inputs:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{folder}: lies in {path}, which is read; annotated copies need a folder of their own")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a folder for annotated copies")

    def draw(place: str, photo: Path | NDArray[np.uint8], readings: Sequence[Reading]) -> None:
        target = folder / place
        suffix = target.suffix.lower()
        if suffix not in (*JPEG, ".png"):
            target, suffix = target.with_name(f"{target.name}.jpg"), ".jpg"
        if isinstance(photo, Path) and target.exists() and target.samefile(photo):
            raise DataError(f"{photo}: would be overwritten by its annotated copy; choose another folder than {folder}")
        image = read_image(photo) if isinstance(photo, Path) else photo  # read again: kept, a batch would fill memory
        pixels = np.ascontiguousarray(annotate(image, readings)[:, :, ::-1])
        form, options = (".png", []) if suffix == ".png" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        data = cv2.imencode(form, pixels, options)[1].tobytes()
        atomic_write(target, lambda file: file.write(data))

    return draw


@dataclass(frozen=True)
class _Plate:
    """Lines of white text on a plate: where it lies, and how it is written."""

    lines: tuple[str, ...]
    area: Area
    scale: float
    thick: int
    step: int
    pad: int

    def draw(self, drawn: NDArray[np.uint8], colour: Sequence[int]) -> None:
        left, top, right, bottom = self.area
        cv2.rectangle(drawn, (left, top), (right, bottom), list(colour), cv2.FILLED)
        for number, text in enumerate(reversed(self.lines)):
            at = (left + self.pad, bottom - self.pad - number * self.step)
            cv2.putText(drawn, text, at, FONT, self.scale, (255, 255, 255), self.thick, cv2.LINE_AA)


def _plate(text: str, box: Area, size: tuple[int, int], height: float, hidden: Sequence[Area]) -> _Plate:
    """Words of a box [left, top, right, bottom] in a photo of (rows, columns), where they hide least of `hidden`."""
    rows, columns = size
    pad = max(2, round(height / 4))
    room = min(columns - 2 * pad, max(1, round(WIDEST * (box[2] - box[0]))))
    lines: tuple[str, ...] = (text,)
    wide = _measure(lines, *_font(height))[0]
    if wide > room:
        height = max(TEXT[1], height * room / wide)
        if _measure(lines, *_font(height))[0] > room and ", " in text:
            lines = (text[: text.index(", ")], text[text.index(", ") + 2 :])
        pad = max(2, round(height / 4))
    scale, thick = _font(height)
    width, tall = _measure(lines, scale, thick)
    if width + 2 * pad > columns:  # a small photo: smaller letters rather than cut words
        shrink = max(0.3, (columns - 2 * pad) / max(width, 1))
        scale, thick = scale * shrink, max(1, round(thick * shrink))
        width, tall = _measure(lines, scale, thick)
    step = tall + pad
    full = step * len(lines) + pad
    lefts = [min(max(0, left), max(0, columns - width - 2 * pad)) for left in (box[0], box[2] - width - 2 * pad)]
    bottoms = [y for y in (box[1], box[3] + full) if full <= y <= rows] or [min(max(box[1] + full, full), rows)]
    places = [(left, bottom - full, left + width + 2 * pad, bottom) for bottom in bottoms for left in lefts]
    area = min(places, key=lambda place: sum(_shared(place, other) for other in hidden))
    return _Plate(lines, area, scale, thick, step, pad)


def _font(height: float) -> tuple[float, int]:
    """OpenCV's scale and thickness of letters so many pixels high."""
    return cv2.getFontScaleFromHeight(FONT, max(1, round(height)), 1), max(1, round(height / 10))


def _measure(lines: Sequence[str], scale: float, thick: int) -> tuple[int, int]:
    """Width of the longest of some lines, and height of the letters, in pixels."""
    sizes = [cv2.getTextSize(text, FONT, scale, thick)[0] for text in lines]
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def _shared(one: Area, other: Area) -> int:
    """Pixels that two areas share."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(0, width) * max(0, height)
