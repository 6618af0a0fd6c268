"""`python -m benchmarks.peers setup | run | table | margins`; see the package's docstring and README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from benchmarks.peers.asking import Answers, ask
from benchmarks.peers.catalogue import ENVIRONMENTS, PEERS, THREEFOLD
from benchmarks.peers.install import default_folder, set_up, why_absent
from benchmarks.peers.lists import Sample, named_lists, read_sample
from benchmarks.peers.scores import joined, milliseconds, score_all
from benchmarks.peers.tables import page, short_table
from threefold.errors import DataError, ThreefoldError, one_of
from threefold.files import write_json
from threefold.progress import say, show

ALL_SETS = "all lists"
SCALES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0)


def chosen(names: str | None, model: str | None) -> list[str]:
    """The peers asked for, in the catalogue's order: all that are there, threefold only when it can be loaded."""
    wanted = [name.strip() for name in names.split(",")] if names else list(PEERS)
    for name in wanted:
        if name not in PEERS:
            raise DataError(f"--peers: {name!r} is not known ({one_of(PEERS, name)})")
    return [name for name in PEERS if name in wanted and (name != THREEFOLD or model is not None)]


def describe(sample: Sample, answers: dict[str, Answers], draws: int) -> dict[str, Any]:
    """What results.json holds of one list."""
    detector = sample.detector
    return {
        "photos": len(sample),
        "persons": len({face.person for face in sample.faces}),
        "without_face": sample.boxes.count(None),
        "detector_milliseconds": detector if isfinite(detector) else None,
        "milliseconds": {name: milliseconds([found]) for name, found in answers.items()},
        "failed": {name: list(found.errors) for name, found in answers.items() if found.errors},
        "scores": {name: score_all(sample.faces, found, PEERS[name].reads, draws) for name, found in answers.items()},
    }


def together(samples: list[Sample], answers: dict[str, list[Answers]], draws: int) -> dict[str, Any]:
    """`describe` of all lists as one; a person who is in several of them counts once."""
    faces = [face for sample in samples for face in sample.faces]
    boxes = [box for sample in samples for box in sample.boxes]
    whole = Sample(ALL_SETS, faces, boxes, float("nan"))
    return describe(whole, {name: joined(parts) for name, parts in answers.items()}, draws)


def run(options: argparse.Namespace) -> None:
    """Ask every package about every list, write results.json, print the table."""
    out, root = Path(options.out), Path(options.environments)
    kept = Path(options.answers) if options.answers else out.with_suffix(".answers")
    lists = named_lists(options.photos, options.sets)
    left_out: dict[str, str] = {}
    asked = []
    for name in chosen(options.peers, options.model):
        reason = why_absent(PEERS[name], root)
        if reason:
            left_out[name] = f"left out: {reason}"
            say(f"{name}: {left_out[name]}")
        else:
            asked.append(name)
    samples = [read_sample(name, source, options.limit) for name, source in lists.items()]
    answers: dict[str, list[Answers]] = {}
    for name in asked:
        try:
            answers[name] = [ask(name, sample, root, kept, _model(options.model)) for sample in samples]
        except ThreefoldError as error:
            left_out[name] = f"left out: {error}"
            say(f"{name}: {left_out[name]}")
    if not answers:
        raise DataError("no package could be asked; see the lines above")
    sets = {
        sample.name: describe(sample, {name: parts[place] for name, parts in answers.items()}, options.draws)
        for place, sample in enumerate(samples)
    }
    if len(samples) > 1:
        sets[ALL_SETS] = together(samples, answers, options.draws)
    facts = {name: {"package": PEERS[name].package, "licence": PEERS[name].licence} for name in answers}
    facts.get(THREEFOLD, {})["model"] = options.model
    results = {"threefold": version("threefold"), "machine": _machine(), "draws": options.draws, "peers": facts,
               "left_out": left_out, "sets": sets}  # fmt: skip
    write_json(out, results)
    print(page(results, options.short), end="")


def margins(options: argparse.Namespace) -> None:
    """What each package scores by the size of the crop around the same boxes."""
    root, kept = Path(options.environments), Path(options.answers or default_folder() / "answers")
    lists = named_lists(options.photos, options.sets)
    samples = [read_sample(name, source, options.limit) for name, source in lists.items()]
    faces = [face for sample in samples for face in sample.faces]
    scores: dict[str, Any] = {}
    speed: dict[str, float | None] = {}
    for name in chosen(options.peers, None):
        reason = why_absent(PEERS[name], root)
        if reason:
            say(f"{name}: left out: {reason}")
            continue
        for scale in options.scales:
            found = joined([ask(name, sample, root, kept, None, scale) for sample in samples])
            row = f"{name} x {scale}"
            scores[row], speed[row] = score_all(faces, found, PEERS[name].reads, 0), milliseconds([found])
    print("\n".join(short_table(scores, speed)))


def _model(model: str | None) -> str | None:
    """What `threefold.load` is given: None for the bundled reader."""
    return None if model == "bundled" else model


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    setup = verbs.add_parser("setup", help="make the packages' environments")
    setup.add_argument("names", nargs="*", metavar="ENVIRONMENT", help=f"of {', '.join(ENVIRONMENTS)}; all without")
    ask_all = verbs.add_parser("run", help="ask packages and threefold about photos, print the tables")
    ask_all.add_argument("--model", help="`bundled`, a .onnx file or a run; without it threefold is left out")
    ask_all.add_argument("--out", required=True, help="results.json")
    ask_all.add_argument("--draws", type=int, default=2000, help="of the bootstrap over persons")
    again = verbs.add_parser("table", help="print the tables of a results.json")
    again.add_argument("results")
    scan = verbs.add_parser("margins", help="what crop suits a package")
    scan.add_argument("--scales", type=float, nargs="+", default=SCALES, help="times YuNet's box")
    for verb in (ask_all, scan):
        verb.add_argument("--photos", help="LAYOUT:PATH[,LAYOUT:PATH ...] as one list, as `threefold train --data`")
        verb.add_argument("--sets", nargs="+", default=[], metavar="NAME=SOURCE", help="several lists, each scored")
        verb.add_argument("--peers", help=f"comma-separated, of {', '.join(PEERS)}")
        verb.add_argument("--limit", type=int, help="so many photos of each list, drawn by chance")
        verb.add_argument("--answers", help="folder that keeps answers between runs")
    for verb in (ask_all, again):
        verb.add_argument("--short", action="store_true", help="a line per package, no intervals")
    for verb in (setup, ask_all, scan):
        verb.add_argument("--environments", default=str(default_folder()), help="folder of the packages' environments")
    return parser


def main(words: list[str] | None = None) -> int:
    """Exit code: 2 with one line for what cannot be done."""
    show()
    options = _arguments().parse_args(words)
    try:
        if options.verb == "setup":
            set_up(options.names, Path(options.environments))
        elif options.verb == "table":
            print(page(json.loads(Path(options.results).read_text()), options.short), end="")
        else:
            {"run": run, "margins": margins}[options.verb](options)
    except ThreefoldError as error:
        say(f"benchmarks.peers: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
