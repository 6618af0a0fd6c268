"""Plain lines where there is no terminal, a bar where there is one, and never a word on stdout."""

from __future__ import annotations

import pytest

from threefold import progress
from threefold.progress import bar, say, show


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """As under the command line, which switches it on."""
    monkeypatch.setattr(progress, "_shown", False)
    show()


def test_a_library_call_is_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_shown", False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("decoding") as report:
        report(3, 12)
    say("a note")
    assert capsys.readouterr() == ("", "")


def test_short_work_is_quiet_in_a_log(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with bar("decoding") as report:
        report(2000, 2000)
    assert capsys.readouterr() == ("", "")


def test_a_line_every_tenth(capsys, monkeypatch):
    monkeypatch.setattr("threefold.progress.QUIET", 0)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with bar("decoding") as report:
        for done in range(1, 2001):
            report(done, 2000)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 11
    assert lines[-1].startswith("decoding: 2,000 of 2,000 photos, ")


def test_work_that_never_reports_says_nothing(capsys):
    with bar("decoding"):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    with bar("decoding", "faces") as report:
        report(3, 12)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/12" in captured.err
    assert "faces/s" in captured.err
