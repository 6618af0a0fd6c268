"""Photo files in, upright RGB pixels out: the only place of the package that decodes.

Why here and strict: a photo that is half grey because a copy was cut off, sideways because EXIF was ignored, or white
because 16 bits were clipped to 8 trains and scores as if nothing were wrong. So the format is found by content, every
oddity is read the way a viewer shows it, and what cannot be read whole is refused with a PhotoError naming the file.
ICC profiles are not applied.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageChops, UnidentifiedImageError

from threefold.errors import PhotoError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the photo as it is shown (EXIF orientation applied)."""
MAX_PIXELS = 100_000_000
EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "jpeg2000": (".jp2", ".j2k", ".jpx", ".jpf", ".jpc"),
    "ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Format -> its extensions, the usual one first. Nothing else is opened: some of Pillow's readers start programs."""

_DAMAGED = ("Corrupt JPEG data", "Premature end")
_QUIET = threading.RLock()


class TooManyPixels(PhotoError):
    """A photo that is refused for its size before anything is decoded."""


@dataclass(frozen=True)
class PhotoInfo:
    """A photo's header: format (a key of EXTENSIONS), size as shown, Pillow's mode, EXIF orientation 1..8, frames."""

    format: str
    width: int
    height: int
    mode: str
    orientation: int
    frames: int


def read(path: Path) -> bytes:
    """The bytes of a photo file; raises PhotoError when it is missing, not a file, or may not be read."""
    try:
        if not path.is_file() and path.exists():
            raise PhotoError(f"{path}: is a {'directory' if path.is_dir() else 'device or pipe'}, not a photo")
        return path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PhotoError(f"{path}: cannot be read ({_one_line(error)})") from None


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB of a photo file, upright; `read` and `decode_bytes` in one."""
    return decode_bytes(read(path), str(path), max_pixels=max_pixels)


def decode_bytes(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, min_side: int | None = None
) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 RGB, C-contiguous, upright (EXIF applied), transparency over white, first frame of an animation.

    16 bits keep the upper 8. `min_side` lets a JPEG be decoded at 1/2, 1/4 or 1/8 while its shorter side stays at least
    that long: a fifth faster at 384x512, for fingerprints only, since its pixels are not those of the full decode.
    Raises PhotoError naming `name`: empty, not an image, cut off, damaged, or more than `max_pixels` pixels (checked
    before anything is decoded; Pillow's own limit of 179 million stays above it).
    """
    image = _open(data, name, max_pixels)
    try:
        pixels = _jpeg(data, image, min_side) if image.format in ("JPEG", "MPO") else None
        if pixels is None:
            # TIFF and GIF warn while loading; PNG and WebP do not, and are to be decoded by several threads at once.
            with contextlib.nullcontext() if image.format in ("PNG", "WEBP") else _quiet():
                image.load()
            pixels = _pixels(image)
        orientation = _orientation(data, image)
        # 5 to 8 swap the axes, then each is mirrored as the table of the standard says: columns, both, rows
        if orientation >= 5:
            pixels = np.asarray(cv2.transpose(pixels), dtype=np.uint8)
        mirror = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
        return np.ascontiguousarray(pixels if mirror is None else cv2.flip(pixels, mirror), dtype=np.uint8)
    except Exception as error:  # Pillow's readers raise a dozen kinds on damaged bytes, SyntaxError among them
        raise PhotoError(f"{name}: cut off or damaged ({_one_line(error)})") from None


def header(data: bytes, name: str) -> tuple[str, int, int]:
    """(format, width, height) of the bytes of a photo as they are stored, before EXIF turns it; no pixel is decoded.

    format: a key of EXTENSIONS. Raises PhotoError naming `name`: empty, not an image, or cut off before its size; and
    TooManyPixels, a PhotoError, beyond Pillow's limit of 179 million.
    """
    image = _open(data, name, None)
    return _format(image), *image.size


def probe(data: bytes, name: str) -> PhotoInfo:
    """All that stands before the pixels, whatever the size; raises as `header` does.

    Frames are counted and EXIF is read, which takes a walk through the whole file: `header` is for photos of strangers.
    """
    image = _open(data, name, None)
    try:
        with _quiet():
            form = _format(image)
            frames = 1 if form == "jpeg" else int(getattr(image, "n_frames", 1))
            orientation = _orientation(data, image)
    except Exception as error:  # see decode_bytes
        raise PhotoError(f"{name}: cut off or damaged ({_one_line(error)})") from None
    width, height = image.size
    if orientation >= 5 and form != "tiff":  # Pillow turns the size of a TIFF, and only of a TIFF, itself
        width, height = height, width
    return PhotoInfo(form, width, height, image.mode, orientation, frames)


def wrong_extension(path: Path, info: PhotoInfo) -> str | None:
    """The extension that fits the content (`.png`) where the file has another one; None where it fits."""
    fitting = EXTENSIONS[info.format]
    return None if path.suffix.lower() in fitting else fitting[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings. Filters are global to the process, so one thread at a time may bend them."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes, name: str, max_pixels: int | None) -> Image.Image:
    if not data:
        raise PhotoError(f"{name}: empty file")
    try:
        with _quiet():
            Image.init()
            formats = [name.upper() for name in EXTENSIONS if name.upper() in Image.OPEN]
            image = Image.open(BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise PhotoError(f"{name}: {_why_unreadable(data)}") from None
    except Image.DecompressionBombError as error:
        pixels, limit = map(int, re.findall(r"\d+", str(error)))
        limit = min(limit, max_pixels or limit)
        raise TooManyPixels(f"{name}: {pixels:,} pixels are too many, the limit is {limit:,}") from None
    except Exception as error:  # see decode_bytes
        raise PhotoError(f"{name}: cut off or damaged ({_one_line(error)})") from None
    width, height = image.size
    if max_pixels is not None and (pixels := width * height) > max_pixels:
        size = f"{width}x{height} = {pixels:,} pixels"
        raise TooManyPixels(f"{name}: {size} are too many, the limit is {max_pixels:,}")
    return image


def _format(image: Image.Image) -> str:
    return "jpeg" if image.format == "MPO" else str(image.format).lower()  # a phone's JPEG with a depth map behind


def _jpeg(data: bytes, image: Image.Image, min_side: int | None) -> NDArray[np.uint8] | None:
    """Pixels before orientation; None where libjpeg-turbo does not read this kind of JPEG and Pillow has to."""
    # libjpeg-turbo takes half of Pillow's time, and through simplejpeg any warning about the data is an error.
    width, height = image.size
    factor = max(f for f in (1, 2, 4, 8) if f == 1 or (min_side and -(-min(width, height) // f) >= min_side))
    least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            raise OSError("its headers contradict each other")
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "CMYK" if image.mode == "CMYK" else "RGB", **least)
    except ValueError as error:
        if str(error).startswith(_DAMAGED):  # Pillow would take it and fill the rest with grey
            raise
        return None
    if image.mode != "CMYK":
        return pixels
    inks = 255 - pixels if "adobe" in image.info else pixels  # Adobe writes its inks inverted
    return np.asarray(Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes()).convert("RGB"))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """[H, W, 3] of a loaded Pillow image of any mode."""
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255 and gives white
        grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise OSError("its pixels are floating-point numbers of unknown range")
    if image.mode == "CMYK" and _format(image) == "jpeg" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def _orientation(data: bytes, image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 when there is none or it is nonsense, as viewers do."""
    if image.format == "PNG" and not any(tag in data for tag in (b"eXIf", b"Raw profile type exif", b"com.adobe.xmp")):
        return 1  # getexif would decode the whole file to look behind the pixels
    try:
        with _quiet():
            value = image.getexif().get(0x0112, 1)
    except Exception:  # unreadable EXIF does not make the pixels unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _why_unreadable(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] != b"avif":
        return f"{data[8:12].decode('latin-1')} files (HEIC, video) are not read; save it as JPEG"
    if data.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")):
        return "cut off or damaged in its header"
    return f"not an image (it begins with {data[:16]!r})"


def _one_line(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__
