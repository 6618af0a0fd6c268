"""The numbers of results.json as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.peers.catalogue import THREEFOLD
from benchmarks.peers.scores import METRICS, STATES

BEST = "best package"
SPLIT = ("gender", "age_group", "worn_none")
"""Metrics that the short table gives by how the mask is truly worn."""
NOTHING = "-"


def cell(number: dict[str, Any] | None, interval: bool = True) -> str:
    """`91.2 (89.0-93.1)` in percent; `-` for a number that is not there."""
    if number is None or number["value"] is None:
        return NOTHING
    value = f"{100 * number['value']:.1f}"
    if not interval or number["low"] is None:
        return value
    return f"{value} ({100 * number['low']:.1f}-{100 * number['high']:.1f})"


def long_table(scores: dict[str, Any], speed: dict[str, float | None]) -> list[str]:
    """A line per package and state, every metric with its interval. scores: {peer: {state: {metric: number}}}."""
    rows = [["package", "mask", *(metric.title for metric in METRICS.values()), "ms"]]
    for peer, states in scores.items():
        for state in STATES:
            if state in states:
                cells = [cell(states[state].get(name)) for name in METRICS]
                rows.append([peer, state, *cells, _speed(speed.get(peer)) if state == "all" else ""])
    return _markdown(rows)


def short_table(scores: dict[str, Any], speed: dict[str, float | None]) -> list[str]:
    """A line per package, states side by side and no intervals; last the best of the packages in every column."""
    ends = [name for name in METRICS if name not in SPLIT]
    split = [f"{METRICS[name].title}: {' / '.join(METRICS[name].states)}" for name in SPLIT]
    rows = [["package", *split, *(METRICS[name].title for name in ends), "ms"]]
    others = {peer: states for peer, states in scores.items() if peer != THREEFOLD}
    times = {peer: speed[peer] for peer in others if speed.get(peer) is not None}
    for peer, states in [*scores.items(), *([(BEST, best(others.values()))] if others else [])]:
        parts = [
            " / ".join(cell(states.get(state, {}).get(name), False) for state in METRICS[name].states) for name in SPLIT
        ]
        whole = [cell(states.get("all", {}).get(name), False) for name in ends]
        fastest = min(times.values(), default=None) if peer == BEST else speed.get(peer)
        rows.append([peer, *parts, *whole, _speed(fastest)])
    return _markdown(rows)


def best(of: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{state: {metric: the highest number}} of several packages."""
    found: dict[str, dict[str, Any]] = {}
    for states in of:
        for state, numbers in states.items():
            row = found.setdefault(state, {})
            for name, number in numbers.items():
                if name not in row or number["value"] > row[name]["value"]:
                    row[name] = number
    return found


def page(results: dict[str, Any], short: bool) -> str:
    """All tables of results.json, a list after the other, and what was left out."""
    table = short_table if short else long_table
    lines = []
    for name, row in results["sets"].items():
        detector = row["detector_milliseconds"]
        detail = f"{row['photos']:,} photos of {row['persons']:,} persons, {row['without_face']} without a face found"
        lines += [f"### {name}", "", detail + (f"; detector {detector:.1f} ms" if detector is not None else ""), ""]
        speed = {peer: row["milliseconds"].get(peer) for peer in row["scores"]}
        lines += [*table(row["scores"], speed), ""]
    lines += [f"{peer}: {reason}" for peer, reason in results["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _speed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _markdown(rows: list[list[str]]) -> list[str]:
    rule = ["---"] * len(rows[0])
    return [f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]]]
