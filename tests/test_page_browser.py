"""The photo half of the page at `/` in a browser: upload, boxes, words, errors, key, language, keyboard, colours."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import uvicorn
from browser import (
    CONTRAST,
    Page,
    complaints,
    drawn,
    face,
    focused,
    hosts,
    open_browser,
    photo,
    refused,
    resize,
    scripted_service,
    until,
    write_photo,
)
from fake_backend import FakeBackend

from threefold.labels import Mask
from threefold.photos.detect import Detection
from threefold.read import reader as reading
from threefold.serve.app import create_app

BOX = [90.0, 90.0, 270.0, 330.0]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with scripted_service() as (base, script), open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield Page(driver, base, script)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    suffixes = ("jpg", "png", "webp")
    return [write_photo(folder / f"p{i}.{suffix}", drawn(i, Mask(i))) for i, suffix in enumerate(suffixes)]


def answered(*faces, width=360, height=480):
    return 200, {"photos": [photo("a", list(faces), width, height)]}, {}


def test_a_photo_is_read_in_words_with_its_box_over_the_face(page, photos):
    page.open(read=answered(face(BOX, "incorrect")))
    page.choose(photos[0])
    card = page.cards("done")[0]
    assert page.text(".verdict .said") == "Mask worn incorrectly"
    assert [row.text.split("\n") for row in page.all(".readings:not(.small-rows) .reading")] == [
        ["Mask", "Incorrect", "81% sure"], ["Gender", "Male", "97% sure"], ["Age group", "30 to 59", "78% sure"],
        ["Age", "about 41 years"],
    ]  # fmt: skip
    assert "p0.jpg" in card.text and "1 face" in card.text
    picture, box = page.rect(".stage img"), page.rect(".box")
    scale = picture["width"] / 360
    assert scale == pytest.approx(picture["height"] / 480, rel=0.01)
    placed = [box["x"] - picture["x"], box["y"] - picture["y"], box["width"], box["height"]]
    assert placed == pytest.approx([90 * scale, 90 * scale, 180 * scale, 240 * scale], abs=1)
    assert page.text(".box .tag") == "Incorrect"
    fill, bar = page.rect(".fill"), page.rect(".bar")
    assert fill["width"] / bar["width"] == pytest.approx(0.81, abs=0.01)
    assert complaints(page.driver, network=True) == []


def test_boxes_stay_on_the_face_at_phone_width(page, photos):
    page.open(read=answered(face(BOX, "worn")))
    page.choose(photos[0])
    page.cards("done")
    resize(page.driver, 390)
    picture, box = page.rect(".stage img"), page.rect(".box")
    assert picture["width"] <= 358
    assert (box["x"] - picture["x"]) / picture["width"] == pytest.approx(90 / 360, abs=0.005)
    assert (box["y"] - picture["y"]) / picture["height"] == pytest.approx(90 / 480, abs=0.005)


def test_every_probability_is_there_on_request(page, photos):
    page.open(read=answered(face(BOX, "worn")))
    page.choose(photos[0])
    page.cards("done")
    assert not page.one(".small-rows").is_displayed()
    page.one(".card summary").click()
    rows = [row.text.split("\n")[-2:] for row in page.all(".small-rows .reading")]
    assert rows[:3] == [["Worn", "94%"], ["Incorrect", "4%"], ["None", "2%"]] and len(rows) == 8


def test_indeterminate_is_said_with_its_reason(page, photos):
    unsure = {"gender": "indeterminate", "age_group": "indeterminate"}
    page.open(
        read=answered(
            face(BOX, "indeterminate", 0, **unsure, quality="small"),
            face([0.0, 0.0, 60.0, 60.0], "indeterminate", 1, **unsure, quality="blurred"),
            face([300.0, 0.0, 360.0, 60.0], "worn", 2, gender="indeterminate"),
        )
    )
    page.choose(photos[0])
    page.cards("done")
    small, blurred, unsure_one = (item.text for item in page.all(".face"))
    assert "Face 1" in small and "too small" in small and "sure enough" not in small and "%" not in small
    assert "too blurred" in blurred and "about" not in blurred
    assert "Not sure enough to say: Gender." in unsure_one and "Mask worn correctly" in unsure_one
    assert [tag.text for tag in page.all(".tag")] == ["1\nNot sure", "2\nNot sure", "3\nWorn"]


def test_no_face_and_a_minor(page, photos):
    page.open(read=[answered(), answered(face(BOX, "none", age=14.0))])
    page.choose(photos[0])
    page.cards("done")
    assert "No face was found" in page.text(".card") and "larger" in page.text(".card .why")
    page.choose(photos[1])
    page.cards("done", 2)
    assert "not valid for people under 18" in page.all(".card")[1].text


def test_entrance_mode_has_no_word_of_gender_or_age(page, photos):
    model = {"name": "reader", "version": "1.2.0", "attributes": ["mask"]}
    page.open(model=(200, model, {}), read=answered(face(BOX, "none", mask_only=True)))
    page.says("#heading", "how a mask is worn")
    page.choose(photos[0])
    page.cards("done")
    page.one(".card summary").click()
    seen = page.text("main").lower()
    assert "no mask" in seen and not any(word in seen for word in ("gender", "male", "age", "years"))
    assert len(page.all(".readings:not(.small-rows) .reading")) == 1


def read_names(body: bytes) -> list[str]:
    return [part.split(b'"')[0].decode() for part in body.split(b'filename="')[1:]]


def test_many_photos_go_in_requests_of_sixteen(page, photos, tmp_path):
    files = [write_photo(tmp_path / f"n{i:02d}.jpg", drawn(1, size=(64, 48))) for i in range(18)]
    answer = lambda body: {"photos": [photo(name, [face([1, 1, 30, 30])], 48, 64) for name in read_names(body)]}  # noqa: E731
    page.open(read=(200, answer, {}))
    page.choose(*files)
    page.cards("done", 18)
    assert [len(read_names(body)) for body in page.script.reads()] == [16, 2]
    assert b'name="faces"\r\n\r\nall' in page.script.reads()[0]
    assert page.text("#progress-text") == "18 photos read"
    page.one("#clear").click()
    assert page.all(".card") == [] and not page.one("#progress").is_displayed()


def test_the_servers_own_limits_are_kept(page, photos, tmp_path):
    limits = {"photos": 2, "photo_bytes": 3 * 2**20}
    model = {"name": "reader", "version": "1", "attributes": ["mask"], "limits": limits}
    answer = lambda body: {"photos": [photo(n, [face(BOX, mask_only=True)]) for n in read_names(body)]}  # noqa: E731
    page.open(model=(200, model, {}), read=(200, answer, {}))
    page.says("#drop-limits", "up to 3 MiB")
    assert not page.one("#monitor-link").is_displayed()  # only where the service says that it has events
    big = tmp_path / "big.jpg"
    big.write_bytes(bytes(3 * 2**20 + 1))
    page.choose(*photos, big)
    page.cards("done", 3)
    assert [len(read_names(body)) for body in page.script.reads()] == [2, 1]
    assert "big.jpg" in page.text("#refused") and "3 MiB allowed" in page.text("#refused")


def test_wrong_files_are_refused_before_they_are_sent(page, tmp_path):
    page.open()
    for name, content in (("notes.txt", b"text"), ("empty.jpg", b""), ("large.png", bytes(10 * 2**20 + 1))):
        (tmp_path / name).write_bytes(content)
    page.choose(*(tmp_path / name for name in ("notes.txt", "empty.jpg", "large.png")))
    lines = [item.text for item in page.all("#refused li")]
    assert "not a JPEG" in lines[0] and "empty" in lines[1] and "10 MiB allowed" in lines[2]
    assert all(line.split(":")[0] in ("notes.txt", "empty.jpg", "large.png") for line in lines)
    assert page.script.reads() == [] and page.all(".card") == []


def test_photos_can_be_dropped(page):
    page.open(read=answered(face(BOX)))
    page.js("""
      const canvas = document.createElement("canvas");
      canvas.width = 360; canvas.height = 480;
      canvas.toBlob((blob) => {
        const data = new DataTransfer();
        data.items.add(new File([blob], "dropped.png", {type: "image/png"}));
        const zone = document.getElementById("drop").firstElementChild;
        const how = {dataTransfer: data, bubbles: true, cancelable: true};
        const send = (name) => zone.dispatchEvent(new DragEvent(name, how));
        send("dragenter");
        window.over = document.getElementById("drop").dataset.over;
        send("dragover");
        window.kept = !send("drop");
      });
    """)
    card = page.cards("done")[0]
    assert "dropped.png" in card.text and page.js("return [over, kept]") == ["true", True]
    assert page.js("return document.getElementById('drop').dataset.over") == "false"


@pytest.mark.parametrize(
    ("code", "status", "part"),
    [("too_large", 413, "larger than the server allows"), ("unsupported_type", 415, "JPEG, PNG or WebP"),
     ("unreadable", 422, "damaged"), ("invalid", 422, "Reload this page")],
)  # fmt: skip
def test_a_refused_photo_says_so_on_its_card(page, photos, code, status, part):
    page.open(read=refused(code, status))
    page.choose(photos[0])
    card = page.cards("failed")[0]
    assert "could not be read" in card.text and part in card.text
    assert page.text("#progress-text") == "1 of 1 photos could not be read"


def test_one_bad_photo_does_not_stop_the_others(page, photos):
    good, bad = photo("a", [face(BOX)]), {"name": "b", "error": {"code": "unreadable", "message": "b: cut off"}}
    page.open(read=(200, {"photos": [good, bad, good]}, {}))
    page.choose(*photos)
    page.cards("done", 2)
    assert "damaged" in page.cards("failed")[0].text


def test_a_batch_that_is_refused_is_sent_photo_by_photo(page, photos):
    page.open(read=[refused("too_large", 413), answered(face(BOX)), refused("too_large", 413), answered(face(BOX))])
    page.choose(*photos)
    page.cards("done", 2)
    page.cards("failed", 1)
    assert [len(read_names(body)) for body in page.script.reads()] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("status", "code", "part"), [(429, "rate_limited", "Too many requests"), (503, "overloaded", "busy")]
)
def test_a_busy_server_is_asked_again_when_it_said(page, photos, status, code, part):
    page.open(read=[refused(code, status, Retry_After="1"), answered(face(BOX))])
    began = time.monotonic()
    page.choose(photos[0])
    assert "Trying again in 1 s." in page.says("#notice", part)
    page.cards("done")
    assert time.monotonic() - began >= 1 and not page.one("#notice").is_displayed()


def test_waiting_can_be_cut_short(page, photos):
    page.open(read=[refused("overloaded", 503, Retry_After="600"), answered(face(BOX))])
    page.choose(photos[0])
    page.says("#notice", "Trying again in 600 s.")
    page.one("#notice button").click()
    page.cards("done")


@pytest.mark.parametrize(
    ("answer", "part"), [((0, {}, {}), "does not answer"), (refused("internal", 500), "went wrong")]
)
def test_a_server_that_fails_can_be_tried_again(page, photos, answer, part):
    page.open(read=[answer, answered(face(BOX))])
    page.choose(photos[0])
    page.says("#notice", part)
    assert page.text("#progress-text") == "0 of 1 photos read, the rest is waiting"
    page.one("#notice button").click()
    page.cards("done")
    assert not page.one("#notice").is_displayed()


def test_the_key_is_asked_for_kept_in_memory_and_sent(page, photos):
    page.open(read=answered(face(BOX)))
    page.script.key = "open sesame"
    page.driver.refresh()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    field = page.one("#key")
    assert field.get_attribute("type") == "password" and page.js("return document.activeElement.id") == "key"
    field.send_keys("wrong\n")
    page.says("#key-wrong", "refused")
    page.one("#key").send_keys("open sesame\n")
    page.says("#model", "reader 1.2.0")
    page.choose(photos[0])
    page.cards("done")
    assert page.script.asked[-1][1] == "Bearer open sesame"
    stored = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, key.value])"
    assert "sesame" not in page.js(stored)


def test_without_the_key_the_page_says_what_to_do(page):
    page.open()
    page.script.key = "k"
    page.driver.refresh()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key-cancel").click()
    page.says("#notice", "with a key only")
    page.one("#notice button").click()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key").send_keys("k\n")
    page.says("#model", "reader")


def test_a_server_that_is_down_from_the_start(page):
    page.open(model=[(0, {}, {}), (200, {"name": "reader", "version": "2", "attributes": ["mask"]}, {})])
    page.says("#notice", "does not answer")
    page.one("#notice button").click()
    page.says("#model", "reader 2")


def test_language_changes_everything_in_place_and_is_remembered(page, photos):
    page.open(read=answered(face(BOX, "none")))
    page.choose(photos[0])
    page.cards("done")
    page.one("[data-language=ko]").click()
    assert page.js("return [document.documentElement.lang, document.title]") == ["ko", "threefold: 얼굴 사진 판독"]
    assert page.text(".verdict .said") == "마스크를 착용하지 않았습니다" and "남성" in page.text(".card")
    assert page.text("#progress-text") == "사진 1장을 판독했습니다"
    latin = set("".join(c if c.isascii() and c.isalpha() else " " for c in page.text("body")).split())
    assert latin <= {"threefold", "reader", "English", "JPEG", "PNG", "WebP", "MiB", "p", "jpg"}
    page.driver.get(page.base + "/")
    page.says("h1", "사진에서")
    page.driver.get(page.base + "/?lang=en")
    page.says("h1", "Read the mask")


def test_language_of_the_browser_comes_first(page):
    page.open()
    page.js("localStorage.clear()")
    page.driver.get(page.base + "/")
    page.says("h1", "Read the mask")  # --lang=en-US


def test_everything_is_reached_by_keyboard_in_order_and_seen(page):
    page.open()
    page.says("#model", "reader")
    reached = focused(page.driver, 6)
    assert reached == ["skip", "brand", "ko", "en", "tab-photos", "files"]
    code = "const s = getComputedStyle(arguments[0]); return s.outlineStyle + ' ' + s.outlineWidth"
    assert page.js(code, page.one(".drop label")) == "solid 3px"
    page.js("document.getElementById('tab-photos').focus()")
    page.driver.switch_to.active_element.send_keys("\ue014")  # arrow right
    assert page.js("return document.activeElement.id") == "tab-camera" and page.one("#camera").is_displayed()
    assert page.js(code, page.one("#tab-camera")) == "solid 3px"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_contrast_and_width_with_results(page, photos, lang, dark):
    page.open(f"/?lang={lang}", read=answered(face(BOX, "worn"), face([0, 0, 80, 90], "indeterminate", 1)))
    page.choose(photos[0])
    page.cards("done")
    for width in (390, 320, 1200):
        resize(page.driver, width, dark=dark)
        assert page.overflow() <= 0, width
        small = (
            "return [...document.querySelectorAll('button, summary, select, .drop label, a.brand')]"
            ".filter(e => e.checkVisibility()).map(e => [e.id || e.textContent, e.getBoundingClientRect().height])"
            ".filter(([, height]) => height < 44)"
        )
        assert page.js(small) == []
    texts = page.js(CONTRAST)
    assert len(texts) > 25 and [(text, ratio) for text, ratio in texts if ratio < 4.5] == []


def test_nothing_is_asked_of_other_hosts(page, photos):
    hosts(page.driver)
    page.open(read=answered(face(BOX)))
    page.choose(photos[0])
    page.cards("done")
    page.driver.get(page.base + "/monitor")
    assert hosts(page.driver) - {"about:blank"} == {page.base}


def test_the_real_service_reads_what_the_page_sends(page, tmp_path, monkeypatch):
    detection = Detection((90.0, 90.0, 270.0, 330.0), 0.9, ((0.0, 0.0),) * 5)
    monkeypatch.setattr(
        reading, "detect_faces", lambda image, far=False: [detection] * (image.shape[0] > 400)
    )  # not while warming up
    app = create_app(reading.Reader(FakeBackend(), info={"name": "fake", "version": "3"}), key="k")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until("the service", lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        page.driver.get(f"http://127.0.0.1:{port}/?lang=en")
        until("the dialog", lambda: page.one("#key-dialog").is_displayed())
        page.one("#key").send_keys("k\n")
        page.says("#model", "fake 3")
        noise = np.random.default_rng(0).integers(20, 256, (480, 360, 3), np.uint8)  # mean 137: class 9
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"\xff\xd8\xff\xe0 no photo")
        page.choose(write_photo(tmp_path / "noise.png", noise), broken)
        page.cards("done")
        page.cards("failed")
        assert page.text(".verdict .said") == "Mask worn incorrectly" and "Female" in page.text(".readings")
        picture, box = page.rect(".stage img"), page.rect(".box")
        assert (box["x"] - picture["x"]) / picture["width"] == pytest.approx(0.25, abs=0.01)
        assert complaints(page.driver) == [], json.dumps(page.text("main"))
    finally:
        server.should_exit = True
        thread.join()
