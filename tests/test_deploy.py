"""What operators copy: the image, the units and the documents name options, paths and numbers that exist."""

from __future__ import annotations

import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.error
from pathlib import Path

import pytest
import typer.main
import yaml
from helpers import environment, threefold
from serving import app_of

from threefold.assets import HELPERS, assets_root
from threefold.cli import app
from threefold.labels import ATTRIBUTES
from threefold.read.output import Table
from threefold.serve import door
from threefold.serve import server as run
from threefold.serve.limits import MIB, RequestLimits
from threefold.serve.refusal import CODES
from threefold.watch import events
from threefold.watch.monitor import monitor_router

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: (ROOT / name).read_text() for name in (
    "README.md", "README.ko.md", "docs/deploy.md", "docs/reading.md", "docs/privacy.md",
)}  # fmt: skip
DEPLOY, READING = PAGES["docs/deploy.md"], PAGES["docs/reading.md"]
DOCKERFILE = re.sub(r"\\\n\s*", "", "\n".join(
    line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")
))  # fmt: skip
UNITS = sorted((ROOT / "deploy").glob("*.service"))
VERBS = {
    name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    | {"--help"}
    for name, command in typer.main.get_command(app).commands.items()
}
EVERY = set().union(*VERBS.values())
FOREIGN = {"--read-only", "--tmpfs", "--env-file", "--cpuset-cpus", "--cpus", "--stop-timeout", "--init"}
"""Options of docker that the documents name in their sentences."""
VARIABLES = {run.KEY, "THREEFOLD_ASSETS", "THREEFOLD_CACHE", "THREEFOLD_OPTIONS", "THREEFOLD_SOURCE"}


def commands(text: str) -> list[tuple[str, set[str]]]:
    """(verb, its options) of every `threefold VERB ...` and of every `docker run ... threefold OPTIONS`."""
    calls = []
    for whole in re.sub(r"\\\n\s*", " ", text).splitlines():
        line = re.split(r"\s#\s|\s{2,}#", whole)[0]
        if "docker run" in line:
            behind = re.split(r"\sthreefold(?::[\d.]+)?(?=\s|$)", line)[-1]  # the last such word is the image
            calls.append(("serve", set(re.findall(r"--[a-z][a-z-]*", behind))))
            continue
        for called in re.finditer(r"(?:^|[\s/`])threefold ([a-z]+)\b([^`;&)]*)", line):
            calls.append((called[1], set(re.findall(r"(?<=[\s\[])--[a-z][a-z0-9-]*", called[2]))))
    return [(verb, options) for verb, options in calls if verb in VERBS or options]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit sets, in order."""
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Z]\w+)=(.*)$", unit.read_text(), flags=re.MULTILINE):
        values.setdefault(name, []).append(value)
    return values


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s?", text)[1])


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_document_have_their_options(page: str) -> None:
    calls = commands(PAGES[page])
    assert len(calls) > 2
    for verb, options in calls:
        assert verb in VERBS and options <= VERBS[verb], (page, verb, options - VERBS.get(verb, set()))


@pytest.mark.parametrize("page", PAGES)
def test_options_and_variables_in_sentences_exist(page: str) -> None:
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    named = {
        name for code in re.findall(r"`([^`\n]+)`", prose) for name in re.findall(r"(?:^|\s)(--[a-z][a-z0-9-]*)", code)
    }
    assert named <= EVERY | FOREIGN, named - EVERY - FOREIGN
    assert set(re.findall(r"THREEFOLD_[A-Z]+", PAGES[page])) <= VARIABLES


def test_the_wrong_option_would_be_found() -> None:
    assert commands("    threefold serve --prot 1  # --host\n") == [("serve", {"--prot"})]
    assert commands("docker run --rm -p 1:2 \\\n  threefold:0.1.0 --attributes mask") == [("serve", {"--attributes"})]
    assert commands("A=1 /opt/threefold/bin/threefold assets yunet") == [("assets", set())]


def test_links_and_their_places_exist() -> None:
    def slugs(text: str) -> set[str]:
        heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            path, _, place = link.partition("#")
            target = (page.parent / path) if path else page
            assert target.exists(), (page.name, link)
            assert not place or place in slugs(target.read_text()), (page.name, link)


def test_files_named_in_the_documents_exist() -> None:
    for page, text in PAGES.items():
        for path in re.findall(r"\b((?:deploy|benchmarks|examples|recipes|tests)/[\w./-]+\.\w+)", text):
            assert (ROOT / path).is_file(), (page, path)


def test_the_korean_readme_has_the_commands_and_links_of_the_english_one() -> None:
    def code(text: str) -> list[str]:
        return [re.split(r"\s+# ?", line)[0].strip() for line in text.splitlines() if line.startswith("    ")]

    def links(text: str) -> list[str]:
        return re.findall(r"\]\(([^)]+)\)", text)

    english, korean = PAGES["README.md"], PAGES["README.ko.md"]
    assert code(english) == code(korean)
    assert set(links(english)) - {"README.ko.md"} == set(links(korean)) - {"README.md"}
    assert len(re.findall("^#", english, flags=re.MULTILINE)) == len(re.findall("^#", korean, flags=re.MULTILINE))
    assert english.count("\n|") == korean.count("\n|")


def test_addresses_are_those_of_the_service(tmp_path: Path) -> None:
    routes = set(app_of(monitor=monitor_router(tmp_path / "e.sqlite")).openapi()["paths"])
    routes |= {"/", "/openapi.json", "/monitor"}
    named = set()
    for text in (DEPLOY, READING):
        addresses = r"v\d/[\w./]+|readyz|healthz|metrics|docs|openapi\.json|monitor"
        named |= set(re.findall(rf"(?<![\w.\]/*])(/(?:{addresses})(?=[\s`,;)}}\]]))", text))
        named |= set(re.findall(r"127\.0\.0\.1:800\d(/[\w/]*)", text))
    assert {"/v1/read", "/readyz", "/openapi.json", "/monitor"} <= named
    assert named <= routes, named - routes


def test_the_table_of_errors_is_the_services() -> None:
    statuses_of: dict[str, int] = {}
    for statuses, codes in re.findall(r"^\| ([\d, ]+) \| ((?:`\w+`(?:, )?)+) \|", READING, flags=re.MULTILINE):
        numbers, names = [int(number) for number in statuses.split(",")], re.findall(r"`(\w+)`", codes)
        statuses_of |= dict(zip(names, numbers if len(numbers) > 1 else numbers * len(names), strict=True))
    assert statuses_of == {code: status for code, (status, _) in CODES.items()}


def test_columns_of_tables_and_events_are_documented() -> None:
    everything = {*Table(boxes=True).columns, *events.columns(ATTRIBUTES), *events.STATES}
    assert {name for name in everything if f"`{name}`" not in READING} == set()
    assert ",".join(Table().columns) in READING and ",".join(("hour", *events.STATES)) in READING


def test_limits_in_the_documents_and_the_proxies() -> None:
    limits = RequestLimits()
    assert (limits.photo_bytes, limits.pixels, limits.photos) == (10 * MIB, 40_000_000, 16)
    assert "10 MiB, 40 megapixels" in DEPLOY and "16 photos" in DEPLOY
    (nginx,), (caddy,) = blocks(DEPLOY, "nginx"), blocks(DEPLOY, "caddy")
    sizes = int(re.search(r"client_max_body_size (\d+)m;", nginx)[1]), int(re.search(r"max_size (\d+)MiB", caddy)[1])
    assert min(sizes) * MIB >= limits.json_bytes > (min(sizes) - 1) * MIB
    assert f"{sizes[0]} MiB as JSON" in DEPLOY and limits.form_bytes <= 161 * MIB
    idle = run.Server(app_of()).config.timeout_keep_alive
    assert seconds(re.search(r"keepalive_timeout (\w+);", nginx)[1]) < idle
    assert seconds(re.search(r"keepalive (\w+)", caddy)[1]) < idle
    assert "proxy_request_buffering off;" in nginx  # on, photos are written to the proxy's disk
    assert not set(re.findall(r"add_header ([\w-]+)", nginx)) & set(door.HEADERS)


def test_who_stops_the_service_waits_longer_than_it_drains() -> None:
    compose, kubernetes = (yaml.safe_load(block) for block in blocks(DEPLOY, "yaml")[:2])
    waits = [
        int(re.search(r"--stop-timeout (\d+)", DEPLOY)[1]),
        seconds(compose["services"]["threefold"]["stop_grace_period"]),
        int(settings(ROOT / "deploy/threefold.service")["TimeoutStopSec"][0]),
        kubernetes["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] - 5,
    ]
    assert min(waits) > run.DRAIN_SECONDS


def test_manifests_give_options_and_probes_that_exist() -> None:
    compose, kubernetes = (yaml.safe_load(block) for block in blocks(DEPLOY, "yaml")[:2])
    (box,) = kubernetes["spec"]["template"]["spec"]["containers"]
    service = compose["services"]["threefold"]
    for words in (service["command"], box["args"]):
        assert {word for word in words if word.startswith("-")} <= VERBS["serve"]
    assert [env["name"] for env in box["env"]] == [run.KEY]
    assert {box[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")} <= set(door.QUIET)
    assert str(kubernetes["spec"]["template"]["spec"]["securityContext"]["runAsUser"]) in DOCKERFILE
    assert service["read_only"] and box["securityContext"]["readOnlyRootFilesystem"]


def test_alerts_ask_for_metrics_that_exist() -> None:
    text = app_of().state.service.metrics.text().decode()
    there = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}
    there |= set(re.findall(r"^# TYPE (\w+)", text, flags=re.MULTILINE))  # histograms have no sample before a request
    there |= {f"{name}_{part}" for name in set(there) for part in ("bucket", "count")}
    named = set(re.findall(r"\b(?:threefold|process)_[a-z_]+", DEPLOY))
    assert len(named) > 8 and named <= there, named - there
    assert set(re.findall(r'status="(\d+)"', DEPLOY)) <= {"200", *(f"{status}" for status, _ in CODES.values())}


def test_the_image() -> None:
    build, runtime = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert build.split()[:3] == ["python:3.12-slim", "AS", "build"] and runtime.split()[0] == "python:3.12-slim"
    assert re.search(r"threefold\[serve\] @ file://", build)
    assert not re.search(r"torch|\[train|\[dev|root|pip ", runtime)
    assert not re.search(r"torch|train", build)
    user = re.search(r"^USER (\d+):(\d+)$", runtime, flags=re.MULTILINE)
    assert user and int(user[1]) >= 10_000
    assert runtime.index("USER") < runtime.index("HEALTHCHECK") < runtime.index("ENTRYPOINT")
    assert re.search(r"^EXPOSE 8000$", runtime, flags=re.MULTILINE)
    entry = yaml.safe_load(re.search(r"^ENTRYPOINT (.*)$", runtime, flags=re.MULTILINE)[1])
    assert entry[:2] == ["threefold", "serve"] and set(entry[2::2]) <= VERBS["serve"]
    (port,) = (p.default for p in typer.main.get_command(app).commands["serve"].params if p.name == "port")
    assert port == 8000


def test_the_image_has_the_detector_where_it_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, name = re.search(r"RUN THREEFOLD_ASSETS=(\S+) \S+/threefold assets (\w+)", DOCKERFILE).groups()
    assert name in HELPERS and f"COPY --from=build {folder} {folder}" in DOCKERFILE
    monkeypatch.setenv("THREEFOLD_ASSETS", re.search(r"ENV .*?THREEFOLD_ASSETS=(\S+)", DOCKERFILE)[1])
    assert assets_root() == Path(folder)


def test_what_the_image_is_made_of_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    copied = re.search(r"^COPY (?!--from)(.*) \./$", DOCKERFILE, flags=re.MULTILINE)[1].split()
    copied += re.findall(r"^COPY (\w+) \1$", DOCKERFILE, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        "README.md",
        *(path.split("/")[0] for path in [*wheel["packages"], *wheel["force-include"]]),
    }
    assert needed <= set(copied), "the wheel cannot be made of less"
    assert "*" in ignored and sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_the_health_check_says_what_readyz_says(status: int, well: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    command = yaml.safe_load(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE, flags=re.MULTILINE)[1])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # an environment's proxy must not be asked
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code = command[2].replace("127.0.0.1:8000", f"127.0.0.1:{server.server_port}")
        assert command[:2] == ["python", "-c"] and code != command[2]
        try:
            exec(code)
            assert well
        except urllib.error.HTTPError as error:
            error.close()
            assert not well


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units(unit: Path) -> None:
    values = settings(unit)
    for name, value in {
        "DynamicUser": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "Restart": "on-failure",
    }.items():  # fmt: skip
        assert values[name] == [value], name
    assert "User" not in values and values["LimitCORE"] == ["0"] and values["MemorySwapMax"] == ["0"]
    words = shlex.split(values["ExecStart"][0])
    assert words[0] == "/opt/threefold/bin/threefold" and words[1] == unit.stem.replace("threefold-", "").replace(
        "threefold", "serve"
    )
    assert {word for word in words if word.startswith("--")} <= VERBS[words[1]]
    assert values["EnvironmentFile"][0].startswith("/etc/threefold/")  # without a minus: no file, no start
    assert values["EnvironmentFile"][0] in DEPLOY and f"deploy/{unit.name}" in DEPLOY
    assert set(re.findall(r"THREEFOLD_[A-Z]+", unit.read_text())) <= VARIABLES
    assert "ORT_DISABLE_TELEMETRY=1" in values["Environment"][0].split()


def test_the_cameras_address_is_no_argument_that_others_can_see(tmp_path: Path) -> None:
    assert "SOURCE" not in settings(ROOT / "deploy/threefold-watch.service")["ExecStart"][0]
    done = threefold("watch", "--quiet", cwd=tmp_path, check=2, THREEFOLD_SOURCE="nowhere.mp4")
    assert "nowhere.mp4: no such file, folder, camera index or address" in done.stderr
    assert "Missing argument 'source'" in threefold("watch", cwd=tmp_path, check=2).stderr


def test_memory_of_the_unit_holds_what_the_service_may_hold() -> None:
    limits = RequestLimits()
    gigabytes = int(settings(ROOT / "deploy/threefold.service")["MemoryMax"][0].removesuffix("G"))
    assert gigabytes * 1024 * MIB >= limits.decoded_bytes + 3 * limits.held_bytes + 256 * MIB


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_units(unit: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/threefold/bin/threefold", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_onnxruntime_is_told_to_send_nothing(tmp_path: Path) -> None:
    """Its wheels send usage data and keep an identifier in the home unless this stands before they are loaded."""
    program = """
import os
from threefold.errors import RunError
from threefold.read.onnx import OnnxBackend
try:
    OnnxBackend(b"none")
except RunError:
    print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    variables = {name: value for name, value in environment(tmp_path).items() if name != "ORT_DISABLE_TELEMETRY"}
    home = tmp_path / "home"
    home.mkdir()
    place = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables | place, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("1", 0), done.stderr
    assert not list(home.rglob("*"))
