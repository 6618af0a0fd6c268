"""Debian's chromium driven by selenium, a service that answers by script, and a camera that shows drawn people.

`open_browser` needs /usr/bin/chromium and /usr/bin/chromedriver. Where one is missing a test is skipped with the
reason, but on CI, or with THREEFOLD_BROWSER=require, that is a failure.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from threefold.draw.camera import draw_photo
from threefold.draw.people import draw_person
from threefold.labels import Mask

STATIC = Path(__file__).resolve().parents[1] / "src" / "threefold" / "serve" / "static"
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--force-device-scale-factor=1", "--lang=en-US",
)  # fmt: skip
SHARES: dict[str, dict[str, float]] = {
    "worn": {"worn": 0.94, "incorrect": 0.04, "none": 0.02},
    "incorrect": {"worn": 0.12, "incorrect": 0.81, "none": 0.07},
    "none": {"worn": 0.01, "incorrect": 0.02, "none": 0.97},
    "indeterminate": {"worn": 0.41, "incorrect": 0.35, "none": 0.24},
}


def face(box: list[float] | None, mask: str = "worn", number: int = 0, mask_only: bool = False, **more: Any) -> Any:
    """An answer about one face, as the service gives it; `more` replaces parts of it."""
    shares = SHARES[mask]
    answer: dict[str, Any] = {
        "face": number, "box": box, "score": 0.91, "quality": "ok", "mask": mask, "confidence": max(shares.values()),
        "confidences": {"mask": max(shares.values())}, "probabilities": {"mask": shares},
    }  # fmt: skip
    if not mask_only:
        answer |= {"class": 7, "gender": "male", "age_group": "30-59", "age": 41.2, "confidence": 0.6}
        answer["confidences"] |= {"gender": 0.97, "age_group": 0.78}
        answer["probabilities"] |= {
            "gender": {"male": 0.97, "female": 0.03},
            "age_group": {"<30": 0.15, "30-59": 0.78, ">=60": 0.07},
            "classes": [0.0] * 18,
        }
    return answer | more


def photo(name: str, faces: list[Any], width: int = 360, height: int = 480) -> dict[str, Any]:
    """The answer about one photo."""
    return {"name": name, "width": width, "height": height, "faces": faces}


def events(running: bool | None = True, hours: tuple[tuple[int, ...], ...] = (), recent: int = 0) -> dict[str, Any]:
    """An answer of /v1/events; `hours` holds worn, incorrect, none, indeterminate from eight o'clock on."""
    names = ("worn", "incorrect", "none", "indeterminate")
    rows = [
        {"time": f"2026-11-26T10:0{i}:00.000+09:00", "track": i, "kind": "event", "mask": names[i % 4], "seconds": 3.2,
         "gender": "female", "age_group": ">=60", "confidence": 0.93, "frames": 24}
        for i in range(recent)
    ]  # fmt: skip
    state = {"running": running, "fps": 14.2, "dropped": 31, "frames": 51240, "since": "2026-11-26T07:58:02+09:00"}
    return {
        "source": "rtsp://door/1",
        "state": None if running is None else state,
        "hours": [{"hour": f"2026-11-26T{8 + i:02d}:00", **dict(zip(names, h, strict=True))}
                  for i, h in enumerate(hours) if sum(h)],
        "total": {name: sum(h[i] for h in hours) for i, name in enumerate(names)},
        "recent": rows,
    }  # fmt: skip


class Script:
    """What the service answers. `say[path]` is (status, body, headers) or a list of them, the last of which stays.

    A status of 0 breaks the connection. `asked`: (path, authorization, body) of every request to /v1.
    """

    def __init__(self) -> None:
        self.say: dict[str, Any] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self.key = ""
        self.clear()

    def clear(self) -> None:
        """As at first: a model that serves everything and finds nobody."""
        self.asked.clear()
        self.key = ""
        parts = ["mask", "gender", "age_group"]
        self.say = {"/v1/model": (200, {"name": "reader", "version": "1.2.0", "attributes": parts}, {})}

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """The next answer of this path."""
        self.asked.append((path, authorization, body))
        if self.key and authorization != f"Bearer {self.key}":
            return refused("unauthorised", 401)
        answers = self.say.get(path, (404, {}, {}))
        if isinstance(answers, list):
            answers = answers.pop(0) if len(answers) > 1 else answers[0]
        status, content, headers = answers
        return status, content(body) if callable(content) else content, headers

    def reads(self) -> list[bytes]:
        """Bodies of the requests to /v1/read."""
        return [body for path, _, body in self.asked if path == "/v1/read"]


def refused(code: str, status: int, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """An error as the service words it; `Retry_After="2"` becomes a header."""
    body = {"error": {"code": code, "message": "one line"}, "request_id": "0"}
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/v1/"):
                self.tell(*script.answer(path, self.headers.get("Authorization", ""), b""))
                return
            pages = {"/": "index.html", "/monitor": "monitor.html"}
            file = STATIC / pages.get(path, path.removeprefix("/static/"))
            if file.parent == STATIC and file.is_file():
                self.send(200, file.read_bytes(), {"Content-Type": TYPES[file.suffix]})
            else:
                self.send(404, b"", {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.tell(*script.answer(self.path, self.headers.get("Authorization", ""), body))

        def tell(self, status: int, content: Any, headers: dict[str, str]) -> None:
            if status == 0:
                self.close_connection = True
                return
            self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            sent = {"Content-Security-Policy": POLICY, "Content-Length": str(len(body)), **headers}
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class Server(ThreadingHTTPServer):
    """A page asks for a dozen files at once: with the usual five waiting, a busy machine drops some for seconds."""

    daemon_threads = True
    request_queue_size = 256


@contextmanager
def scripted_service() -> Iterator[tuple[str, Script]]:
    """(address, script) of a service on a free port that serves the real pages and answers by the script."""
    script = Script()
    server = Server(("127.0.0.1", 0), _handler(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def require_browser() -> None:
    """Skip the test where there is no browser; fail where there has to be one."""
    missing = [str(file) for file in (CHROMIUM, DRIVER) if not file.exists()]
    try:
        importlib.import_module("selenium")
    except ImportError:
        missing.append("the Python package selenium")
    if missing:
        must = os.environ.get("CI") or os.environ.get("THREEFOLD_BROWSER") == "require"
        (pytest.fail if must else pytest.skip)(
            f"no browser to drive: {', '.join(missing)} (apt install chromium-driver)"
        )


@contextmanager
def open_browser(folder: Path, camera: Path | None = None) -> Iterator[Any]:
    """A headless chromium with its own empty profile below `folder`; `camera` is the .y4m its camera shows."""
    require_browser()
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    if camera:
        options.add_argument(f"--use-file-for-fake-video-capture={camera}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=str(DRIVER))  # given, so that selenium downloads none
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_script_timeout(30)
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


@dataclass(frozen=True)
class Page:
    """A browser, the address it looks at, and the script behind that address."""

    driver: Any
    base: str
    script: Script

    def open(self, path: str = "/?lang=en", **say: Any) -> None:
        """Load a page afresh, at desktop width and in the light scheme; `say` is what /v1/KEY answers from now on."""
        self.driver.get("about:blank")  # or a changed #part alone would load nothing
        self.script.clear()
        self.script.say |= {f"/v1/{name}": answer for name, answer in say.items()}
        resize(self.driver, 1200)
        complaints(self.driver)
        self.driver.get(self.base + path)
        until("the page's scripts", lambda: self.js("return document.querySelector('[aria-pressed=true]')"))

    def js(self, code: str, *values: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(code, *values)

    def one(self, css: str) -> Any:
        """The first element."""
        return self.driver.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        """Every element."""
        return list(self.driver.find_elements("css selector", css))

    def text(self, css: str) -> str:
        """The text of the first element, as it is seen."""
        return self.texts(css)[0]

    def texts(self, css: str) -> list[str]:
        """The texts of every element, all at one moment: what the camera shows is replaced many times a second."""
        code = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())"
        return list(self.js(code, css))

    def says(self, css: str, part: str) -> str:
        """Wait until the element's text holds `part`; the text."""
        try:
            return str(until(css, lambda: part in (text := self.text(css)) and text))
        except AssertionError:
            raise AssertionError(f"{css} says {self.text(css)!r}, never {part!r}") from None

    def choose(self, *files: Path) -> None:
        """Choose photos in the file dialog."""
        self.one("#files").send_keys("\n".join(map(str, files)))

    def cards(self, state: str, count: int = 1) -> list[Any]:
        """Wait for so many cards of a state."""
        css = f".card[data-state={state}]"
        return list(until(f"{count} {state}", lambda: len(cards := self.all(css)) == count and cards))

    def rect(self, css: str) -> dict[str, float]:
        """Where the first element is: x, y, width, height in CSS pixels."""
        code = "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()"
        return dict(self.js(code, css))

    def overflow(self) -> float:
        """CSS pixels that the page is wider than its window."""
        return float(self.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def until(what: str, check: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait for `check()` to be true; its value. An element that was replaced meanwhile is looked at again."""
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := check():
                return value
        except StaleElementReferenceException:
            pass
        time.sleep(0.03)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def complaints(driver: Any, network: bool = False) -> list[str]:
    """Errors and warnings of the console since the last look; those about an answered 4xx, 5xx only if `network`."""
    lines = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [line["message"] for line in lines if network or line["source"] != "network"]


def hosts(driver: Any) -> set[str]:
    """Schemes and hosts of all requests since the last look, those of data: and blob: left out."""
    sent = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    addresses = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    outside = [address for address in addresses if not address.startswith(("data:", "blob:"))]
    return {"/".join(address.split("/")[:3]) for address in outside}


def focused(driver: Any, steps: int) -> list[str]:
    """Ids (or the data-language) of what the Tab key reaches in so many presses."""
    from selenium.webdriver import ActionChains

    reached = []
    for _ in range(steps):
        ActionChains(driver).send_keys("\ue004").perform()
        code = "const e = document.activeElement; return e.id || e.dataset.language || e.className || e.tagName"
        reached.append(driver.execute_script(code))
    return reached


def resize(driver: Any, width: int, height: int = 900, dark: bool = False) -> None:
    """Set the size of the page in CSS pixels and the colour scheme."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def drawn(index: int, mask: Mask = Mask.WORN, size: tuple[int, int] = (480, 360)) -> Any:
    """RGB [H, W, 3] of a drawn person."""
    return draw_photo(draw_person(7, index), mask, np.random.default_rng(index), size)[0]


def write_photo(file: Path, image: Any) -> Path:
    """Write RGB as the format of the file's name."""
    assert cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return file


def write_camera(file: Path, pictures: list[Any], rate: int = 10) -> Path:
    """A YUV4MPEG2 file (4:2:0) of RGB pictures of one even size, which chromium shows in a loop."""
    height, width = pictures[0].shape[:2]
    with file.open("wb") as out:
        out.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in pictures:
            out.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).tobytes())
    return file


CONTRAST = """
const number = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const c = number(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
  if (e.closest(".unseen, .skip, option, :disabled, title")) continue;
  const svg = e.namespaceURI.endsWith("svg");
  const a = light(number(getComputedStyle(e)[svg ? "fill" : "color"])), b = light(ground(e));
  found.push([walk.currentNode.data.trim(), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)]);
}
return found;
"""
"""JavaScript that returns [text, contrast with its ground] of every text that is seen (WCAG 2.2, 1.4.3)."""
