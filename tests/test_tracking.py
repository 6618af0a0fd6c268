"""Trackers for real, without a network: what was logged is read back from wandb's own file.

wandb's file is read by its published layout (LevelDB log records of protobuf messages), not by wandb.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from fake_run import STAMP, epochs, simulate

from threefold import progress
from threefold.errors import RecipeError
from threefold.evidence.metrics import measure
from threefold.recipe import make_recipe
from threefold.runs import Run
from threefold.train import tracking
from threefold.train.tracking import Journal, Tracker, fold_name, make_tracker, send, start

ROWS = [*epochs(0, 2), *epochs(1, 2), {**epochs(0, 1)[0], "fold": -1, "valid_loss": None, "macro_f1": None}]
METRICS = measure(simulate(20, 2), draws=20)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No key, no settings of the person who runs the tests, and no way out."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    local = socket.socket.connect

    def connect(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"), address
        return local(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def journal(tmp_path, text, rows, name="night", summary=True):
    """What `train` does with a tracker: a run, started; each epoch; the score."""
    home = tmp_path / name
    if not home.exists():
        Run.create(home, make_recipe({"track": text}), {**STAMP})
    tracker = make_tracker(text)
    start(tracker, home, Run.open(home).recipe.flat())
    with Journal(home, 2, 2, tracker) as log:
        for row in rows:
            with log.fold(row["fold"], home / "events") as fold:
                fold.epoch(row)
        if summary:
            log.summary(METRICS)
    return home


def records(home):
    """Messages of the only .wandb file there; its process may write the last of them after `finish` has returned."""
    end = time.monotonic() + 20
    while not (messages := parse(home)) or not messages[-1].HasField("exit"):
        assert time.monotonic() < end, [message.WhichOneof("record_type") for message in messages]
        time.sleep(0.02)
    return messages


def parse(home):
    """A 7-byte header, then blocks of 32 KB of records: (crc, length, kind) and a message or a part of one."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = home.glob("wandb/offline-run-*/*.wandb")
    data, at, part, messages = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            message = Record()
            message.ParseFromString(part)
            messages.append(message)
            part = b""
    return messages


def history(messages):
    """(step, {name: value}) of every epoch."""
    rows = []
    for record in messages:
        if record.HasField("history"):
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            rows.append((items["_step"], {k: v for k, v in items.items() if not k.startswith("_")}))
    return rows


def flat(row):
    fold = "final" if row["fold"] < 0 else f"fold{row['fold']}"
    names = ("train_loss", "valid_loss", "macro_f1", "mask", "gender", "age_group", "lr", "photos_per_second")
    return {f"{fold}/{name}": row[name] for name in (*names, "seconds") if row[name] is not None}


def test_wandb_offline_holds_recipe_epochs_and_score_once_after_a_resume(tmp_path):
    pytest.importorskip("wandb")
    text = "wandb(project=masks)"
    journal(tmp_path, text, ROWS[:3], summary=False)
    home = journal(tmp_path, text, ROWS)  # a resume tells the first three again
    messages = records(home)
    rows = history(messages)
    assert [step for step, _ in rows] == [0, 1, 2, 3, 4]
    for (_, stored), row in zip(rows, ROWS, strict=True):
        wanted = flat(row)
        assert stored.pop(next(k for k in stored if k.endswith("/epoch"))) == row["epoch"]
        assert stored == pytest.approx(wanted)
    (run,) = [record.run for record in messages if record.HasField("run")]
    assert (run.project, run.display_name) == ("masks", "night")
    config = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in run.config.update}
    assert config["train.augment"] == "flip" and config["track"] == text
    scores = {
        item.key: json.loads(item.value_json)
        for record in messages if record.HasField("summary") for item in record.summary.update
    }  # fmt: skip
    assert scores["macro_f1"] == METRICS["macro_f1"]["value"]
    assert scores["macro_f1_low"] == METRICS["macro_f1"]["low"]
    assert scores["mask_macro_f1"] == METRICS["mask"]["macro_f1"]["value"]
    kinds = Counter(record.WhichOneof("record_type") for record in messages)
    assert set(kinds) == {"header", "run", "telemetry", "metric", "summary", "history", "exit"}  # no files, no machine


def test_wandb_of_another_run_is_another_run(tmp_path):
    pytest.importorskip("wandb")
    (one,) = [r.run.run_id for r in records(journal(tmp_path, "wandb", ROWS[:1])) if r.HasField("run")]
    (other,) = [r.run.run_id for r in records(journal(tmp_path, "wandb", [], "other")) if r.HasField("run")]
    assert one != other


def test_wandb_is_online_only_with_a_key(tmp_path, monkeypatch):
    assert not tracking._has_key()
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {'k' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert tracking._has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not tracking._has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking._has_key()


def test_a_training_that_ends_with_an_error_is_a_failed_run(tmp_path):
    seen = []

    class Spy(Tracker):
        def close(self, failed):
            seen.append(failed)

    with pytest.raises(ValueError, match="loss"), Journal(tmp_path, 1, 1, Spy()):
        raise ValueError("loss")
    with Journal(tmp_path, 1, 1, Spy()):
        pass
    assert seen == [True, False]


def test_separate_networks_of_a_fold_are_told_apart(tmp_path):
    seen = []

    class Spy(Tracker):
        def log(self, row):
            seen.append((fold_name(row), row["epoch"]))

    with Journal(tmp_path, 1, 2, Spy()) as log:
        for part in ("", "mask", "age"):
            with log.fold(0, tmp_path / f"events{part}", part=part) as fold:
                fold.epoch(epochs(0, 1)[0])
    assert seen == [("fold0", 1), ("fold0.mask", 1), ("fold0.age", 1)]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.get("part") for line in lines] == [None, "mask", "age"]


def test_a_tracker_that_fails_is_told_once_and_left(monkeypatch):
    messages = []
    monkeypatch.setattr(progress, "say", messages.append)

    class Gone(Tracker):
        def log(self, row):
            raise ConnectionError("no route\nto host")

    tracker = send(send(Gone(), "log", {}), "log", {})
    assert type(tracker) is Tracker
    assert messages == ["track: gone failed and is left out from here on (no route to host)"]


def test_a_tracker_that_cannot_start_stops_the_run(tmp_path):
    class Gone(Tracker):
        def start(self, home, recipe, name):
            raise ConnectionError("no route")

    with pytest.raises(RecipeError, match=r"track: wandb cannot be started \(no route\)"):
        start(Gone(), tmp_path, {"track": "wandb"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wanb", "track: 'wanb' is not known (known: none, wandb; nearest: wandb)"),
        ("mlflow", "track: 'mlflow' is not known (known: none, wandb)"),
        ("wandb(projet=x)", "track: wandb has no option 'projet'"),
        ("wandb(mode=sometimes)", "track: wandb(mode=...) cannot be 'sometimes'"),
    ],
)
def test_wrong_texts_are_one_line(text, message):
    with pytest.raises(RecipeError) as caught:
        make_tracker(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(
        RecipeError, match=r"track: the package wandb is not installed; from a checkout `pip install '.\[track\]'`"
    ):
        make_tracker("wandb")
    assert type(make_tracker("none")) is Tracker


def test_a_tracker_is_imported_only_when_it_starts():
    pytest.importorskip("wandb")
    code = (
        "import sys; from threefold.train.tracking import make_tracker; make_tracker('wandb');"
        "print('wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False"
