"""Decoding: every way a photo can be stored gives the pixels a viewer shows; what is not whole is refused."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageChops

from threefold.errors import PhotoError
from threefold.photos import decode as photo
from threefold.photos.decode import TooManyPixels, decode, decode_bytes, header, probe, wrong_extension


def drawn(height: int = 48, width: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture without symmetry, so that JPEG keeps it and no wrong turn goes unseen."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def stored(image: NDArray[Any] | Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def refused(data: bytes, *words: str, **options: Any) -> None:
    with pytest.raises(PhotoError) as caught:
        decode_bytes(data, "face.jpg", **options)
    message = str(caught.value)
    assert message.startswith("face.jpg: ") and "\n" not in message
    for word in words:
        assert word in message


TURNED: dict[int, Any] = {  # what a camera stores for an upright picture, from the EXIF standard's table of sides
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: np.transpose(x, (1, 0, 2)),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(np.transpose(x, (1, 0, 2)), 2),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    data = stored(np.ascontiguousarray(TURNED[orientation](drawn())), form, exif=exif, **options)
    pixels = decode_bytes(data, "x")
    assert pixels.flags.c_contiguous and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - drawn()).max() <= (8 if form == "JPEG" else 0)
    info = probe(data, "x")
    assert (info.format, info.height, info.width, info.orientation) == (form.lower(), 48, 40, orientation)
    # as stored; Pillow turns the size of a TIFF, and only of a TIFF, itself
    turned = orientation >= 5 and form != "TIFF"
    assert header(data, "x") == (form.lower(), *((48, 40) if turned else (40, 48)))


def test_nonsense_orientation_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 17
    assert decode_bytes(stored(drawn(), "PNG", exif=exif), "x").tobytes() == drawn().tobytes()
    broken = stored(drawn(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode_bytes(broken, "x").tobytes() == drawn().tobytes()


def test_jpeg_equals_pillow() -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}):
        data = stored(drawn(61, 45), "JPEG", **options)
        assert np.array_equal(decode_bytes(data, "x"), np.asarray(Image.open(BytesIO(data)))), options
    grey = stored(Image.fromarray(drawn()).convert("L"), "JPEG")
    assert np.array_equal(decode_bytes(grey, "x"), np.asarray(Image.open(BytesIO(grey)).convert("RGB")))


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


@pytest.mark.parametrize("odd", [False, True], ids=["turbojpeg", "pillow"])
def test_cmyk(odd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inks are 255 - RGB without black; Adobe stores them inverted, and others as they are."""
    if odd:  # a kind that libjpeg-turbo's interface does not know

        def unknown(*_: Any) -> None:
            raise ValueError("Could not determine subsampling level")

        monkeypatch.setattr(simplejpeg, "decode_jpeg_header", unknown)
    inks = Image.fromarray(np.dstack([255 - drawn(), np.zeros((48, 40), np.uint8)]), "CMYK")
    data = stored(inks, "JPEG", quality=98)
    assert probe(data, "x").mode == "CMYK"
    assert np.abs(decode_bytes(data, "x").astype(int) - drawn()).max() <= 8
    plain = without_adobe(stored(ImageChops.invert(inks), "JPEG", quality=98))  # Pillow inverts what it saves
    assert np.abs(decode_bytes(plain, "x").astype(int) - drawn()).max() <= 8
    tiff = stored(inks, "TIFF")
    assert np.array_equal(decode_bytes(tiff, "x"), drawn())


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    expected = np.repeat((deep >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    assert np.array_equal(decode_bytes(stored(deep, "PNG"), "x"), expected)
    assert np.array_equal(decode_bytes(stored(deep, "TIFF"), "x"), expected)
    colour = cv2.imencode(".png", np.dstack([deep, deep, deep]))[1].tobytes()
    assert np.array_equal(decode_bytes(colour, "x"), expected)
    refused(stored(deep.astype(np.float32), "TIFF"), "floating-point")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_transparency_lies_over_white(mode: str) -> None:
    alpha = np.zeros((48, 40), np.uint8)
    alpha[:, 20:] = 255
    rgba = Image.fromarray(np.dstack([drawn(), alpha]))
    image = rgba.quantize(64) if mode == "P" else rgba.convert(mode)
    data = stored(image, "TIFF" if mode == "PA" else "PNG")
    pixels = decode_bytes(data, "x")
    assert (pixels[:, :20] == 255).all()
    opaque = rgba.convert("L").convert("RGB") if mode == "LA" else Image.fromarray(drawn())
    assert np.abs(pixels[:, 20:].astype(int) - np.asarray(opaque)[:, 20:]).mean() < (
        0.01 if mode in ("RGBA", "LA") else 9
    )


def test_palette_and_bilevel() -> None:
    palette = Image.fromarray(drawn()).quantize(16)
    assert np.array_equal(decode_bytes(stored(palette, "PNG"), "x"), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray(drawn()).convert("1")
    assert np.array_equal(decode_bytes(stored(bilevel, "PNG"), "x"), np.asarray(bilevel.convert("RGB")))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame(form: str) -> None:
    frames = [Image.fromarray(drawn(seed=seed)).quantize(200) for seed in range(3)]
    data = stored(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert probe(data, "x").frames == 3
    assert np.array_equal(decode_bytes(data, "x"), np.asarray(frames[0].convert("RGB")))


def test_scaled_decode_keeps_the_shorter_side() -> None:
    data = stored(drawn(200, 120), "JPEG", quality=95)
    sizes = {None: (200, 120), 120: (200, 120), 61: (200, 120), 60: (100, 60), 30: (50, 30), 15: (25, 15), 1: (25, 15)}
    for min_side, size in sizes.items():
        assert decode_bytes(data, "x", min_side=min_side).shape[:2] == size, min_side
    small = decode_bytes(data, "x", min_side=30).astype(int)
    assert np.abs(small - drawn(200, 120).reshape(50, 4, 30, 4, 3).mean((1, 3))).max() < 12


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@settings(deadline=None, max_examples=25)
@given(share=st.floats(0.0, 0.98))
def test_a_cut_file_is_refused(form: str, share: float) -> None:
    image = Image.fromarray(drawn(96, 80))
    data = stored(image, form)
    if form == "TIFF" and share > 0.5:  # its directory follows the pixels
        share = 0.5
    with pytest.raises(PhotoError, match=r"^x: "):
        decode_bytes(data[: int(len(data) * share)], "x")


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_cut_and_closed_is_refused(options: dict[str, Any], mode: str) -> None:
    """With an end marker put behind, Pillow alone takes it and fills the rest with grey."""
    noise = np.random.default_rng(0).integers(0, 60, (96, 80, 3), dtype=np.uint8)
    data = stored(Image.fromarray(drawn(96, 80) // 2 + noise).convert(mode), "JPEG", **options)
    refused(data[: len(data) * 2 // 3] + b"\xff\xd9", "cut off or damaged")


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    refused(bomb(100_000, 100_000) + idat, "10,000,000,000 pixels", "100,000,000")
    refused(bomb(12_000, 10_000) + idat, "12000x10000 = 120,000,000 pixels", "the limit is 100,000,000")
    refused(stored(drawn(), "JPEG"), "40x48 = 1,920 pixels", "the limit is 1,000", max_pixels=1000)
    assert probe(bomb(12_000, 10_000) + idat, "x").width == 12_000
    assert header(bomb(12_000, 10_000) + idat, "x") == ("png", 12_000, 10_000)
    with pytest.raises(TooManyPixels, match="10,000,000,000 pixels"):
        header(bomb(100_000, 100_000) + idat, "x")


def test_what_is_not_a_photo(tmp_path: Path) -> None:
    refused(b"", "empty file")
    refused(b"<!DOCTYPE html><html>", "not an image", "<!DOCTYPE html>")
    refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image")
    refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic", "save it as JPEG")
    refused(b"\x89PNG\r\n", "damaged in its header")
    (tmp_path / "note.jpg").write_text("not a photo")
    with pytest.raises(PhotoError, match=r"note\.jpg: not an image"):
        decode(tmp_path / "note.jpg")
    with pytest.raises(PhotoError, match="is a directory, not a photo"):
        decode(tmp_path)
    with pytest.raises(PhotoError, match=r"gone\.jpg: no such file"):
        decode(tmp_path / "gone.jpg")


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(stored(drawn(), "JPEG"))

    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(PhotoError, match=rf"^{re.escape(str(path))}: cannot be read \(Permission denied\)$"):
        decode(path)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really.jpg"
    path.write_bytes(stored(drawn(), "PNG"))
    assert np.array_equal(decode(path), drawn())
    info = probe(path.read_bytes(), str(path))
    assert info == photo.PhotoInfo("png", 40, 48, "RGB", 1, 1)
    assert wrong_extension(path, info) == ".png"
    assert wrong_extension(Path("A.PNG"), info) is None
    assert wrong_extension(Path("A.JPEG"), probe(stored(drawn(), "JPEG"), "x")) is None


def test_every_format_named_is_one_pillow_reads() -> None:
    Image.init()
    assert {form.upper() for form in photo.EXTENSIONS} <= set(Image.OPEN)
    for form in ("BMP", "PPM", "TIFF", "JPEG2000"):
        assert np.array_equal(decode_bytes(stored(drawn(), form), "x"), drawn())


def test_warnings_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # drawn() has 1,920: Pillow warns
    for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            decode_bytes(stored(drawn(), form), "x")
            probe(stored(drawn(), form), "x")
        assert not seen, form


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]),
    st.integers(0, 10**6),
    st.binary(min_size=1, max_size=8),
)
def test_damage_gives_pixels_or_one_line(form: str, where: int, junk: bytes) -> None:
    data = bytearray(stored(drawn(24, 20), form))
    where %= len(data)
    data[where : where + len(junk)] = junk
    try:
        pixels = decode_bytes(bytes(data), "x", max_pixels=10**6)
        assert pixels.ndim == 3 and pixels.shape[2] == 3
    except PhotoError as error:
        assert "\n" not in str(error)
