"""The page of `eda`: what it says in both languages, what it shows, what it leaves out, and that nothing stops it."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import contest, refused, threefold

from threefold.errors import AssetError, DataError, RecipeError
from threefold.pages.eda_page import eda


@pytest.fixture(autouse=True)
def no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise AssetError(f"{name}: is not on this machine")

    monkeypatch.setattr("threefold.data.eda.asset_path", missing)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 persons; one photo is cut off, one missing, and the second person has a copy of one of the first."""
    root = contest(tmp_path_factory.mktemp("page"), people=36, eval_people=0) / "train"
    folders = sorted((root / "images").iterdir())
    for folder in folders:  # pictures that are told apart: near copies are looked for in detail, not in colour
        for photo in folder.iterdir():
            seed = zlib.crc32(str(photo.relative_to(root)).encode())
            noise = cv2.resize(np.random.default_rng(seed).integers(0, 99, (12, 9, 3)).astype(np.uint8), (72, 96))
            noise += np.uint8(100 * (photo.stem == "normal"))  # unmasked photos are brighter
            cv2.imwrite(str(photo), noise)
    shutil.copy(folders[0] / "mask2.jpg", folders[1] / "mask3.jpg")
    (folders[2] / "mask1.jpg").write_bytes((folders[2] / "mask1.jpg").read_bytes()[:500])
    (folders[3] / "normal.jpg").unlink()
    return root


def words(page: str) -> str:
    """The text of a page as it is read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)))


def test_the_page_says_and_shows_what_was_planted(faulty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = eda(f"contest:{faulty}")
    page, data = result.page(), json.loads(result.json())
    text = words(page)
    assert data["total"] == {"photos": 251, "persons": 36} and data["odd"] == {"000003_female_Drawn_44": 6}
    light = next(one for one in data["shortcuts"] if (one["attribute"], one["part"]) == ("mask", "light"))
    assert light["verdict"] == "clear" and light["gain"]["low"] > 0.05 and data["faces"] is None
    assert result.lines()[0] == "251 photos of 36 people" and "! 2 errors would corrupt" in result.lines()[1]
    assert any(line.startswith("! mask can be guessed from light: macro F1 ") for line in result.lines())
    assert capfd.readouterr() == ("", "")
    assert "251 photos of 36 people; 18 of the 18 classes are there." in text
    assert "Mask can be guessed without looking at the face, macro F1 from light" in text
    assert f"({light['f1']['value']:.3f}; by lot {light['chance']:.3f})" in text
    assert "join so many of them to others: 1. Training" in text and "One picture, two people" in text
    assert "threefold assets yunet brings it" in text and "cut off or damaged" in text
    assert f"differ by less than {data['noise']['all']['difference']:.3f} on all people" in text
    copies = page[page.index("One picture, two people") :]
    assert "mask2.jpg" in copies and "mask3.jpg" in copies
    examples = page[page.index('id="examples"') : page.index('id="outliers"')]
    assert examples.count("<img") == 18 * 4 and "000003_female_Drawn_44" in page[: page.index('id="shortcuts"')]
    outliers = page[page.index('id="outliers"') : page.index("One picture, two people")]
    named = re.findall(r"images/(\d{6})_", outliers[: outliers.index("brightest")])
    assert len(named) == len(set(named)) == 6  # the darkest: one photo a person
    assert "oddest shape" not in text and "darkest" in text  # all are of one size
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "None" not in text and "nan" not in text


def test_without_photos_nobody_is_shown_or_named_and_korean_is_korean(faulty: Path, tmp_path: Path) -> None:
    threefold("eda", f"contest:{faulty}", "--no-photos", "--lang", "ko", cwd=tmp_path)
    page = (tmp_path / "eda.html").read_text(encoding="utf-8")
    text = words(page)
    assert '<html lang="ko">' in page and "<img" not in page and "Drawn" not in page and "normal.jpg" not in page
    assert "사람 36명의 사진 251장" in text and "올바른 착용" in text and "읽을 수 없는 사진: 1" in text
    english = re.findall(r"[A-Za-z]{3,}", re.sub(r"\S*/\S*", "", text))  # paths aside
    names = {"threefold", "eda", "macro", "train", "contest", "Hasler", "sstrunk", "jpeg", "assets", "yunet"}
    assert set(english) <= names | {"check", "json"}


def test_partly_labelled_sources_joined_make_a_page(tmp_path: Path) -> None:
    """Masks come from one source, ages from the other, and no photo knows all three."""
    rng = np.random.default_rng(0)
    for name, row in (("masks<i>", "{i}.png,p{i},,,{mask}"), ("ages", "{i}.png,q{i},male,{age},")):
        folder = tmp_path / name
        folder.mkdir()
        rows = ["file,person,gender,age,mask"]
        for i in range(12):
            cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (40, 30 + i % 2, 3)).astype(np.uint8))
            rows.append(row.format(i=i, mask=("worn", "none")[i % 2], age=20 + 10 * (i % 4)))
        (folder / "labels.csv").write_text("\n".join(rows))
    page = eda(f"csv:{tmp_path / 'masks<i>'},csv:{tmp_path / 'ages'}").page()
    text = words(page)
    assert "24 photos of 24 people; 0 of the 18 classes are there." in text and "It takes ten people" in text
    assert "masks&lt;i&gt;" in page and "<i>" not in page
    assert "Where a label comes from one source alone" in text and "worn · unknown · unknown" in text
    assert re.search(r"Mask can be guessed .* file: source, format, size", text)  # one width for each mask


def test_what_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        eda(f"contest:{tmp_path / 'nowhere'}")
    assert "is a folder; expected the name of a file" in refused(
        "eda", "contest:nowhere", "--html", tmp_path, cwd=tmp_path
    )


def test_photos_none_of_which_can_be_read_make_a_page(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,person,gender,age,mask\n" + "".join(f"{i}.jpg,p{i},male,20,worn\n" for i in range(3))
    )
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(b"no photo")
    result = eda(f"csv:{tmp_path}")
    text = words(result.page())
    with pytest.raises(RecipeError, match="lang: 'kr' is not known"):
        result.page("kr")
    assert "Errors that would corrupt a result: 3." in text and "Nothing could be tried" in text
