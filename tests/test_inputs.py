"""What is pointed at: order, names, places of copies; and frames of videos that are written here."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import square

from threefold.errors import DataError, PhotoError
from threefold.read import inputs
from threefold.read.inputs import count, find_photos, walk
from threefold.read.videos import count_frames, frame_name, frames, is_video


def video(path: Path, count: int = 30, rate: float = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """Frames that grow brighter by 8 each; skips where OpenCV cannot write this kind."""
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, rate, size)
    if not writer.isOpened():
        pytest.skip(f"OpenCV writes no {path.suffix} here")
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), i * 8, np.uint8))
    writer.release()
    return path


def photos(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        square(1, 0, 0, 0, 0).save(root / name, format="JPEG")
    return root


def test_walk_is_find_photos_one_at_a_time(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", "b/2.jpg", "a.png", "b/10.JPG", "b/._2.jpg")
    assert [(item.name, item.path) for item in walk([folder])] == find_photos([folder])
    assert [item.place for item in walk([folder])] == ["a.png", "b/10.JPG", "b/2.jpg"]
    one = folder / "a.png"
    assert [item.place for item in walk([one])] == ["a.png"]
    both = list(walk([folder, one]))
    assert len(both) == count([folder, one]) == 4 and both[-1].name == str(one)
    assert both[0].place == both[-1].place == str(one).lstrip("/"), "several inputs may hold the same names"
    inside = [item.place for item in walk([Path("/tmp/../") / one.relative_to("/"), folder])]
    assert ".." not in Path(inside[0]).parts


def test_a_large_folder_is_not_listed_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = []

    def endless(root: Path):  # type: ignore[no-untyped-def]
        for i in range(10**9):
            listed.append(i)
            yield root / f"{i}.jpg"

    monkeypatch.setattr(inputs, "photos_below", endless)
    assert [item.name for item in islice(walk([tmp_path]), 3)] == ["0.jpg", "1.jpg", "2.jpg"] and len(listed) == 3


def test_what_is_missing_or_empty_or_twice_is_said(tmp_path: Path) -> None:
    photos(tmp_path / "in", "a.jpg")
    with pytest.raises(DataError, match=r"nearest: .*a\.jpg"):
        walk([tmp_path / "in" / "b.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos here"):
        count([tmp_path / "empty"])
    (tmp_path / "x.MP4").write_text("no video")
    assert is_video(tmp_path / "x.MP4") and next(walk([tmp_path / "x.MP4"])).video
    with pytest.raises(DataError, match="is named twice"):
        walk([tmp_path / "x.MP4", tmp_path / "in" / ".." / "x.MP4"])
    assert count([tmp_path / "x.MP4"]) == 1, "a broken one is told when its turn comes"


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_frames_come_at_their_times(tmp_path: Path, suffix: str) -> None:
    path = video(tmp_path / f"a{suffix}")
    taken = list(frames(path, 1.0))
    assert [round(seconds, 3) for seconds, _ in taken] == [0.0, 1.0, 2.0] and count_frames(path, 1.0) in (3, 4)
    assert [float(image.mean()) for _, image in taken] == pytest.approx([0, 80, 160], abs=6)
    assert taken[0][1].shape == (48, 64, 3) and taken[0][1].dtype == np.uint8
    assert len(list(frames(path, 0))) == count_frames(path, 0) == 30
    assert len(list(frames(path, 0.25))) == 12, "the first frame of each quarter"
    rest = list(frames(path, 1.0, skip=1))
    assert [seconds for seconds, _ in rest] == [seconds for seconds, _ in taken[1:]]
    assert np.array_equal(rest[0][1], taken[1][1]) and not list(frames(path, 1.0, skip=3))
    assert frame_name("v/a.mp4", 12.3451) == "v/a.mp4#t=12.345"


def test_colours_are_rgb(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    if not writer.isOpened():
        pytest.skip("OpenCV writes no .avi here")
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    writer.release()
    ((_, image),) = frames(tmp_path / "a.avi")
    assert image[..., 0].mean() > 200 and image[..., 2].mean() < 50


def test_a_damaged_video_is_one_line_after_what_could_be_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PhotoError, match=r"gone\.mp4: no such file$"):
        next(frames(tmp_path / "gone.mp4"))
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(PhotoError, match=r"x\.mp4: not a video that can be read"):
        next(frames(tmp_path / "x.mp4"))
    path = video(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    times = []
    with pytest.raises(PhotoError, match=r"a\.avi: cut off or damaged") as caught:
        for seconds, _ in frames(path, 0):
            times.append(seconds)
    assert 1 <= len(times) < 30 and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="every: -1"):
        next(frames(path, -1))
    assert capfd.readouterr().err == "", "the decoder's own complaints are not shown"
