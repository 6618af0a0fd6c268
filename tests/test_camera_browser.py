"""The camera half of the page at `/` in a browser whose camera shows drawn people."""

from __future__ import annotations

import time
from itertools import pairwise

import cv2
import numpy as np
import pytest
from browser import (
    CONTRAST,
    Page,
    complaints,
    drawn,
    face,
    open_browser,
    photo,
    refused,
    resize,
    scripted_service,
    until,
    write_camera,
)

from threefold.labels import Mask

SIZE = (640, 426)  # of the picture the camera shows
LEFT, RIGHT = [80.0, 80.0, 240.0, 290.0], [410.0, 80.0, 570.0, 290.0]
OVERRIDE = """
const before = navigator.mediaDevices.getUserMedia;
window.restore = () => { navigator.mediaDevices.getUserMedia = before; };
navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", arguments[0]));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camera")
    people = np.concatenate([drawn(11, Mask.NONE), drawn(12, Mask.WORN)], axis=1)
    picture = np.ascontiguousarray(cv2.resize(people, SIZE))
    camera = write_camera(folder / "people.y4m", [picture] * 3)
    with scripted_service() as (base, script), open_browser(folder, camera) as driver:
        yield Page(driver, base, script)


def frames(*faces):
    return 200, {"photos": [photo("frame.jpg", list(faces), *SIZE)]}, {}


def start(page, path="/?lang=en#camera", **say):
    page.open(path, **say)
    page.one("#start").click()


def state(page, name):
    until(f"signal {name}", lambda: page.one("#signal").get_attribute("data-state") == name)


def counted(page):
    return [int(page.text(f"#count-{name}")) for name in ("worn", "incorrect", "none")]


def test_frames_are_read_signalled_and_counted_once_per_person(page):
    start(page, read=frames(face(LEFT, "none"), face(RIGHT, "worn", 1)))
    state(page, "none")
    assert page.text("#signal-word") == "Please put on a mask"
    until("both counted", lambda: counted(page) == [1, 0, 1])
    asked = len(page.script.reads())
    until("ten more frames", lambda: len(page.script.reads()) >= asked + 10)
    assert counted(page) == [1, 0, 1]
    assert page.texts("#now li") == ["No mask\nMale, 30 to 59", "Mask worn correctly\nMale, 30 to 59"]
    assert "readings per second" in page.text("#speed") and "ms each" in page.text("#speed")
    page.one("#stop").click()
    state(page, "off")
    assert page.js("return document.getElementById('video').srcObject") is None and page.all(".box") == []
    assert page.js("return document.activeElement.id") == "start" and counted(page) == [1, 0, 1]
    page.one("#reset").click()
    assert counted(page) == [0, 0, 0]
    assert complaints(page.driver, network=True) == []


def test_what_is_sent_is_the_picture_of_the_camera(page):
    start(page, read=frames())
    state(page, "nobody")
    body = until("a frame", page.script.reads)[0]
    data = body[body.index(b"\xff\xd8\xff") : body.rindex(b"\xff\xd9") + 2]
    sent = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert sent.shape == (SIZE[1], SIZE[0], 3) and b'filename="frame.jpg"' in body
    people = np.concatenate([drawn(11, Mask.NONE), drawn(12, Mask.WORN)], axis=1)
    shown = cv2.cvtColor(cv2.resize(people, SIZE), cv2.COLOR_RGB2BGR)
    assert np.abs(sent.astype(int) - shown.astype(int)).mean() < 6  # not mirrored, whatever is shown


def test_frames_go_one_at_a_time(page):
    inside, most = [0], [0]

    def slow(body):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.12)
        inside[0] -= 1
        return frames()[1]

    start(page, read=(200, slow, {}))
    until("four frames", lambda: len(page.script.reads()) >= 4)
    assert most == [1]


def test_frames_stay_below_the_rate_that_the_server_takes(page):
    limits = {"photos": 16, "photo_bytes": 10 * 2**20, "requests_per_second": 4.0}
    model = {"name": "reader", "version": "1", "attributes": ["mask"], "limits": limits}
    moments = []

    def note(body):
        moments.append(time.monotonic())
        return frames()[1]

    page.open("/?lang=en#camera", model=(200, model, {}), read=(200, note, {}))
    page.says("#model", "reader")
    page.one("#start").click()
    until("six frames", lambda: len(moments) >= 6)
    assert moments[5] - moments[0] >= 5 / 4


def test_boxes_lie_over_the_mirrored_picture(page):
    start(page, read=frames(face(LEFT, "incorrect")))
    state(page, "incorrect")
    assert page.one("#mirror").is_selected()
    video = page.rect("#video")
    box = page.rect(".box")
    scale = video["width"] / SIZE[0]
    placed = [box["x"] - video["x"], box["y"] - video["y"], box["width"], box["height"]]
    assert placed == pytest.approx([400 * scale, 80 * scale, 160 * scale, 210 * scale], abs=1.5)
    assert page.js("return getComputedStyle(arguments[0]).transform", page.one("#video")).startswith("matrix(-1")
    page.one("#mirror").click()
    until("not mirrored", lambda: abs(page.rect(".box")["x"] - video["x"] - 80 * scale) < 1.5)
    assert page.js("return getComputedStyle(arguments[0]).transform", page.one("#video")) == "none"


def test_one_reading_is_no_verdict_and_a_mask_put_on_is_noticed(page):
    bare, worn = frames(face(LEFT, "none")), frames(face(LEFT, "worn"))
    start(page, read=[bare, bare, *[frames(face(LEFT, "indeterminate"))] * 500])
    state(page, "indeterminate")
    until("frames", lambda: len(page.script.reads()) > 8)
    assert counted(page) == [0, 0, 0] and page.text("#signal-word") == "Look at the camera, please"
    page.script.say["/v1/read"] = bare
    state(page, "none")
    page.script.say["/v1/read"] = worn
    state(page, "worn")
    assert counted(page) == [1, 0, 0]  # the same person still


def test_a_person_who_leaves_stays_counted_and_the_next_is_another(page):
    start(page, read=frames(face(LEFT, "worn")))
    state(page, "worn")
    page.script.say["/v1/read"] = frames()
    state(page, "nobody")
    time.sleep(1.7)  # longer than a person may be out of sight
    page.script.say["/v1/read"] = frames(face(LEFT, "none"))
    state(page, "none")
    assert counted(page) == [1, 0, 1]


def test_changes_are_spoken_and_not_more_often_than_every_three_seconds(page):
    page.open("/?lang=en#camera", read=frames(face(LEFT, "worn")))
    page.js("""
      window.said = [];
      const note = () => said.push([live.textContent, performance.now()]);
      new MutationObserver(note).observe(live, {childList: true, characterData: true, subtree: true});
    """)
    page.one("#start").click()
    state(page, "worn")
    page.script.say["/v1/read"] = frames(face(LEFT, "none"))
    state(page, "none")
    until("it is said", lambda: page.js("return live.textContent") == "Please put on a mask")
    messages = page.js("return said")
    assert page.one("#live").get_attribute("aria-live") == "polite"
    assert all(after[1] - before[1] >= 2900 for before, after in pairwise(messages))
    count = len(messages)
    time.sleep(0.4)
    assert len(page.js("return said")) == count  # what stays as it is, is not said again


def test_sound_is_off_until_it_is_asked_for(page):
    page.open("/?lang=en#camera", read=frames(face(LEFT, "none")))
    page.js("""
      window.tones = 0;
      const make = AudioContext.prototype.createOscillator;
      AudioContext.prototype.createOscillator = function () { tones += 1; return make.call(this); };
    """)
    page.one("#start").click()
    state(page, "none")
    assert page.js("return tones") == 0 and not page.one("#sound").is_selected()
    page.one("#sound").click()
    page.script.say["/v1/read"] = frames(face(RIGHT, "worn"))
    state(page, "worn")
    until("one tone", lambda: page.js("return tones") == 1)


@pytest.mark.parametrize(
    ("name", "part"),
    [("NotAllowedError", "may not use the camera"), ("NotFoundError", "No camera was found"),
     ("NotReadableError", "in use by another program"), ("TypeError", "could not be started")],
)  # fmt: skip
def test_camera_errors_have_their_own_sentences(page, name, part):
    page.open("/?lang=en#camera", read=frames())
    page.js(OVERRIDE, name)
    page.one("#start").click()
    page.says("#notice", part)
    assert page.one("#start").is_enabled() and page.text("#signal-word") == "The camera is off"
    page.js("restore()")
    page.one("#start").click()
    state(page, "nobody")
    assert not page.one("#notice").is_displayed()


def test_an_insecure_address_is_explained(page):
    page.open("/?lang=en#camera")
    page.js("Object.defineProperty(window, 'isSecureContext', {value: false})")
    page.one("#start").click()
    page.says("#notice", "https://")


def test_a_camera_that_is_unplugged_is_said(page):
    start(page, read=frames())
    state(page, "nobody")
    page.js("document.getElementById('video').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    page.says("#notice", "disconnected")
    state(page, "off")


def test_several_cameras_can_be_chosen(page):
    page.open("/?lang=en#camera", read=frames())
    page.js("""
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      window.wanted = [];
      navigator.mediaDevices.getUserMedia = (want) => {
        wanted.push(want.video.deviceId?.exact ?? "");
        return real({video: true});
      };
      const device = (deviceId, label) => ({kind: "videoinput", deviceId, label});
      navigator.mediaDevices.enumerateDevices = async () => [device("a", "Door"), device("b", "")];
    """)
    assert not page.one("#device").is_displayed()
    page.one("#start").click()
    until("the choice", lambda: page.one("#device").is_displayed())
    assert [option.text for option in page.all("#device option")] == ["Door", "Camera 2"]
    page.all("#device option")[1].click()
    until("the other camera", lambda: page.js("return wanted.at(-1)") == "b")


def test_nothing_is_sent_while_the_page_is_hidden(page):
    start(page, read=frames(face(LEFT, "worn")))
    state(page, "worn")
    page.js("""
      Object.defineProperty(document, "hidden", {value: true, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    """)
    state(page, "paused")
    asked = len(page.script.reads())
    time.sleep(0.5)
    assert len(page.script.reads()) == asked
    page.js("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    state(page, "worn")
    page.one("#tab-photos").click()
    until("the camera is off", lambda: page.js("return document.getElementById('video').srcObject") is None)


@pytest.mark.parametrize(
    ("answer", "part"),
    [(refused("overloaded", 503, Retry_After="1"), "busy"), (refused("rate_limited", 429, Retry_After="1"), "Too many"),
     ((0, {}, {}), "does not answer. Trying again")],
)  # fmt: skip
def test_the_camera_goes_on_when_the_server_is_back(page, answer, part):
    start(page, read=answer)
    page.says("#notice", part)
    state(page, "waiting")
    page.script.say["/v1/read"] = frames(face(LEFT, "worn"))
    state(page, "worn")
    assert not page.one("#notice").is_displayed()


def test_the_camera_stops_when_it_would_be_refused_again_and_without_the_key(page):
    start(page, read=refused("unsupported_type", 415))
    page.says("#notice", "does not take this kind of file")
    state(page, "off")
    page.script.key = "k"
    page.one("#start").click()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key-cancel").click()
    page.says("#notice", "with a key only")
    state(page, "off")
    page.script.say["/v1/read"] = frames(face(LEFT, "worn"))
    page.one("#notice button").click()
    until("the dialog", lambda: page.one("#key-dialog").is_displayed())
    page.one("#key").send_keys("k\n")
    state(page, "worn")


def test_entrance_mode_says_the_mask_only_in_korean_on_a_phone(page):
    model = {"name": "reader", "version": "1", "attributes": ["mask"]}
    start(page, "/?lang=ko#camera", model=(200, model, {}), read=frames(face(LEFT, "incorrect", mask_only=True)))
    state(page, "incorrect")
    for dark in (False, True):
        resize(page.driver, 390, dark=dark)
        assert page.overflow() <= 0
        assert page.text("#signal-word") == "코와 입을 모두 가려 주세요"
        assert page.text("#now li") == "마스크를 잘못 착용했습니다"
        assert [(text, ratio) for text, ratio in page.js(CONTRAST) if ratio < 4.5] == []


def test_faces_are_followed_by_overlap(page):
    page.open()
    results = page.js("""
      return import("/static/tracks.js").then((m) => {
        const at = (x, mask, more = {}) => ({box: [x, 0, x + 100, 100], mask, confidence: 0.9, ...more});
        let all = m.nobody(), crossed;
        for (let i = 0; i < 30; i += 1) {  // two people side by side walk on; order of the answers changes
          const pair = [at(10 * i, "worn"), at(150 + 10 * i, "none")];
          all = m.advance(all, i % 2 ? pair : pair.reverse(), 100 * i);
        }
        const walked = [m.counts(all), all.next - 1, m.signal(all, 2900)];
        all = m.advance(all, [at(290, "worn", {box: null})], 3000);
        return [m.overlap([0, 0, 2, 2], [1, 0, 3, 2]), m.overlap([0, 0, 1, 1], [1, 0, 2, 1]), walked,
          m.counts(m.advance(all, [], 9000)), m.signal(m.nobody(), 0), all.tracks.length];
      });
    """)
    assert results[0] == pytest.approx(1 / 3) and results[1] == 0
    assert results[2] == [{"worn": 1, "incorrect": 0, "none": 1}, 2, "none"]
    assert results[3:] == [{"worn": 1, "incorrect": 0, "none": 1}, "nobody", 2]
