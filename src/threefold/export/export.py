"""`threefold export`: a run becomes one ONNX file that reads photos without torch, and that gives the same answers.

The graph is compared with the networks before anything is written: on random photos, and on the run's where they are
still here. float32 must agree to PARITY. What smaller weights cost is measured: for one fold's network on photos of
people whom it has never seen; for averages and final networks only on photos that they were trained on, and the result
says so.
"""

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as safetensors
from torch import nn

from threefold import labels
from threefold.errors import AssetError, CheckFailed, RecipeError, RunError
from threefold.evidence.decide import FILE, Decision
from threefold.evidence.ensemble import shares
from threefold.export.graph import Averaged, Joined, finished, halve, quantise, to_onnx
from threefold.export.parity import Loss, Photos, differences, measure_loss, random_photos, run_photos
from threefold.files import atomic_write
from threefold.learn.backbones import BACKBONES, Split, parts_of
from threefold.learn.net import Net
from threefold.learn.net_backend import NetBackend
from threefold.photos.quality import Limits
from threefold.read.backends import Backend, JoinedBackend, averaged_folds, open_run
from threefold.read.onnx import FORMAT, KEY, PROBABILITIES, YEARS, OnnxBackend, input_names
from threefold.read.reader import load
from threefold.results import Result
from threefold.runs import ENSEMBLE, Run

PARITY = 1e-4
"""The largest difference of a probability (and, relative, of an age in years) that float32 may have from torch."""
RANDOM, REAL, CALIBRATION = 24, 64, 256
"""Photos of the parity check, random and the run's; photos that the ranges of int8 are taken from."""
Parity = tuple[float, float | None, tuple[int, int]]
"""Differences of probabilities and of years, and the numbers of photos: fields of `Exported`."""
_TIMM = {"area": "box", "bilinear": "bilinear"}
"""timm's (Pillow's) name of an interpolation; Pillow's box filter is the mean over areas."""


@dataclass(frozen=True)
class Exported(Result):
    """The file that `export` wrote.

    size: bytes. networks: how many the graph holds. difference: the largest from torch in float32, of probabilities;
    years: of ages, relative, None without them. compared: on how many random and how many of the run's photos. loss: of
    float16 and int8. timm: the folder with model.safetensors and config.json, or why there is none. warnings: what
    could not be done as it should be.
    """

    path: Path
    precision: str
    size: int
    networks: int
    difference: float
    years: float | None
    compared: tuple[int, int]
    loss: Loss | None
    timm: Path | str
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The file, its difference from torch, what smaller weights cost, the files for timm, warnings."""
        networks = "1 network" if self.networks == 1 else f"{self.networks} networks"
        difference = f"largest difference from torch in float32: {self.difference:.1e}"
        if self.years is not None:
            difference += f" (years {self.years:.1e}, relative)"
        random, real = self.compared
        timm = f"{self.timm}/model.safetensors and config.json" if isinstance(self.timm, Path) else self.timm
        return [
            f"{self.path}: {self.precision}, {networks}, {self.size / 1e6:.1f} MB",
            f"{difference}, on {random} random and {real} of the run's photos",
            *(self.loss.lines(self.precision) if self.loss else []),
            f"for timm: {timm}",
            *(f"! {warning}" for warning in self.warnings),
        ]


def export(
    run: Path | str,
    out: Path | str | None = None,
    *,
    int8: bool = False,
    half: bool = False,
    fold: int | None = None,
    name: str = "",
    data: str = "",
    licence: str = "",
    limits: Limits | None = None,
    timm: bool = True,
    sample: int = 1000,
    seed: int = 0,
) -> Exported:
    """Write the model of a complete run as one ONNX file (default RUN/export/model.onnx), parity.json beside it.

    int8, half: see `export.graph`. fold: only the network (of separate parts, networks) of that fold; by default
    what `predict` reads with, the final network or all folds, averaged in the graph. name (the run's by default), data
    (what it was trained on), licence and the reader's limits are written into the file. timm: also model.safetensors
    and config.json, where the model is one timm network. sample: how many of the run's photos, at most, the loss of
    smaller weights is measured on; seed: which. parity.json has an entry for each file of its folder.
    Raises RunError for a run that cannot be read or exported and a file that cannot be written, RecipeError for options
    that do not go together, CheckFailed where float32 is further from torch than PARITY; nothing is written then.
    """
    path, file = Path(run), Path(out) if out else Path(run) / "export" / "model.onnx"
    if (int8 and half) or sample < 1:
        raise RecipeError(f"export: int8={int8}, half={half}, sample={sample}; expected one precision, 1 photo or more")
    if file.is_dir():
        raise RunError(f"{file}: is a folder; expected the file to write, like {file / 'model.onnx'}")
    warnings: list[str] = []
    opened, backend, decision = _open(path, fold, warnings)
    weights = _for_timm(opened, backend) if timm else "left out, as asked"
    sizes = [prepare.size for prepare in backend.prepares]
    model = to_onnx(_system(backend), sizes, input_names(len(sizes)), [PROBABILITIES, YEARS])
    info = _info(opened, backend, len(model.graph.output) > 1, name, data, licence)
    info |= {"decision": decision, "limits": asdict(limits) if limits else None}
    plain = content = finished(model, KEY, json.dumps(info))
    loss, precision = None, "int8" if int8 else "float16" if half else "float32"
    photos = _photos(opened, backend, _unseen_fold(path, fold), precision, sample, seed, warnings)
    parity = _parity(path, backend, OnnxBackend(plain), photos)
    if int8 or half:
        content, loss = _smaller(model, plain, info | {"precision": precision}, photos)
    beside, files = (weights, {}) if isinstance(weights, str) else (file.parent, weights)
    networks = len(_networks(backend))
    exported = Exported(file, precision, len(content), networks, *parity, loss, beside, tuple(warnings))
    _write(exported, content, files, fold)
    return exported


@dataclass(frozen=True)
class _Photos:
    """What an export is compared on. unseen: no network in the file was trained on the people of `real`."""

    random: Photos
    real: Photos | None
    calibration: Photos | None
    unseen: bool


def _open(path: Path, fold: int | None, warnings: list[str]) -> tuple[Run, Backend, dict[str, Any] | None]:
    """The run, its networks on the CPU, and its decision as it is written into the file."""
    run = Run.open(path)
    if fold is not None and (path / ENSEMBLE).exists():
        raise RunError(f"{path}: an ensemble has no folds; export one of its members by fold")
    reader = load(path)
    backend, decision = reader.backend, reader.decision
    if fold is not None:
        backend = open_run(path, fold=fold)
        decision = decision and of_one(run, decision)
        if reader.decision and not decision:
            warnings.append(f"{path / FILE} is of the mean of the networks; one alone is exported without a decision")
    for net in _networks(backend):  # on a GPU torch rounds convolutions more than what is checked here
        net.cpu()
    return run, backend, decision.to_dict() if decision else None


def of_one(run: Run, decision: Decision) -> Decision | None:
    """The part of a run's decision that holds for one of the networks that it reads with the mean of; None for none.

    A decision that was fitted to the mean (`decide --unlabelled`) holds that of single networks beside it; one on
    scored photos (`--on test`) was only ever of the mean.
    """
    content = run.read(FILE)
    if content.get("single"):
        return Decision.from_dict(content["single"], run.path / FILE)
    return None if content.get("on") == "test" and averaged_folds(run) else decision


def _networks(backend: Backend) -> list[Net]:
    """All networks of a backend."""
    if isinstance(backend, JoinedBackend):
        return [net for member in backend.members for net in _networks(member)]
    return list(backend.nets) if isinstance(backend, NetBackend) else []


def _system(backend: Backend) -> nn.Module:
    """A backend as one module."""
    if isinstance(backend, NetBackend):
        return Averaged(backend.nets)
    if not isinstance(backend, JoinedBackend):
        raise RunError(f"export: {type(backend).__name__} holds no networks that could be exported")
    numbers = {prepare.geometry: number for number, prepare in enumerate(backend.prepares)}
    inputs = [[numbers[prepare.geometry] for prepare in member.prepares] for member in backend.members]
    weights = shares(backend.weights, len(backend.members)).tolist()
    return Joined([_system(member) for member in backend.members], inputs, weights, backend.rule)


def _unseen_fold(path: Path, fold: int | None) -> int | None:
    """The fold whose people no network of the model was trained on, None where there is none."""
    if fold is not None or (path / ENSEMBLE).exists() or (path / "final").exists():
        return fold
    folds = sorted({file.relative_to(path).parts[0] for file in path.glob("fold*/**/best.safetensors")})
    return int(folds[0].removeprefix("fold")) if len(folds) == 1 else None


def _info(run: Run, backend: Backend, years: bool, name: str, data: str, licence: str) -> dict[str, Any]:
    """The metadata that is written into the file; contract in `read.onnx`."""
    photos, people = run.stamp.get("photos"), run.stamp.get("persons")
    return {
        "format": FORMAT,
        "name": name or run.name,
        "version": importlib.metadata.version("threefold"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": {key: list(values) for key, values in labels.NAMES.items()},
        "prepares": [prepare.to_dict() for prepare in backend.prepares],
        "decision": None,
        "years": years,
        "data": data or f"{photos} photos of {people} people",
        "licence": licence,
        "precision": "float32",
        "limits": None,
    }


def _photos(
    run: Run, backend: Backend, fold: int | None, precision: str, sample: int, seed: int, warnings: list[str]
) -> _Photos:
    """Random photos and, where they are still here, the run's. fold: the one whose people no network has seen."""
    count = REAL if precision == "float32" else sample
    spare = CALIBRATION if precision == "int8" else 0
    real = calibration = None
    try:
        real, calibration = run_photos(run, backend.prepares, fold, count, spare, seed)
    except AssetError as error:
        warnings.append(f"the run's photos are not looked at: {error}")
    if precision == "int8" and calibration is None:
        reason = "since the run's are not here, and fit real ones badly"
        warnings.append(f"int8: ranges are taken from random photos, {reason}")
    return _Photos(random_photos(backend.prepares, RANDOM, seed), real, calibration, fold is not None)


def _parity(path: Path, backend: Backend, graph: Backend, photos: _Photos) -> Parity:
    """Largest differences of probabilities and years, and on how many photos; CheckFailed above PARITY, or for NaN."""
    real = photos.real.first(REAL) if photos.real else None
    pairs = [differences(backend, graph, part) for part in (photos.random, real) if part]
    joint = float(np.max([joint for joint, _ in pairs]))  # NaN is the largest
    dated = [years for _, years in pairs if years is not None]
    years = float(np.max(dated)) if dated else None
    for output, value in (("probabilities", joint), ("years", years)):
        if value is not None and not value <= PARITY:
            fault = f"{output} of the exported graph differ from torch by {value:.1e}"
            raise CheckFailed(f"{path}: {fault}, allowed are {PARITY:.0e}; nothing was written")
    return joint, years, (len(photos.random), len(real) if real else 0)


def _smaller(model: Any, plain: bytes, info: dict[str, Any], photos: _Photos) -> tuple[bytes, Loss]:
    """The file with weights of the precision that `info` names, and what they cost against `plain`."""
    if info["precision"] == "int8":
        calibration = photos.calibration or photos.random
        names = input_names(len(calibration.batches))
        smaller = quantise(model, (dict(zip(names, batch, strict=True)) for batch in calibration.chunks()))
    else:
        smaller = halve(model)
    content = finished(smaller, KEY, json.dumps(info))
    judges, real = photos.real or photos.random, photos.real is not None
    return content, measure_loss(OnnxBackend(plain), OnnxBackend(content), judges, real=real, unseen=photos.unseen)


def _for_timm(run: Run, backend: Backend) -> dict[str, bytes] | str:
    """model.safetensors and config.json as timm's `local-dir:` and hubs read them, or one line why there are none."""
    nets = _networks(backend)
    if len(nets) > 1:
        return f"nothing, since the model is {len(nets)} networks"
    backbone, body = run.recipe.model.backbone, nets[0].backbone
    names = parts_of(backbone)
    if len(names) > 1 or names[0] in BACKBONES or isinstance(body, Split):
        return f"nothing, since {backbone} is no backbone of timm's"
    (prepare,) = backend.prepares
    architecture, _, tag = names[0].partition(".")
    timm_config: Any = body.pretrained_cfg
    fixed = bool(timm_config.get("fixed_input_size"))
    pretrained = {key: timm_config[key] for key in ("first_conv", "classifier") if key in timm_config} | {
        "tag": tag,
        "num_classes": 0,
        "input_size": [3, *prepare.size],
        "interpolation": _TIMM[prepare.interpolation],
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": nets[0].mean.flatten().tolist(),
        "std": nets[0].std.flatten().tolist(),
        "custom_load": False,
        "fixed_input_size": fixed,
    }
    config: dict[str, Any] = {"architecture": architecture, "num_classes": 0, "num_features": body.num_features}
    if fixed:
        config["model_args"] = {"img_size": list(prepare.size)}
    config |= {"pretrained_cfg": pretrained, "threefold": {"run": run.name, "prepare": prepare.to_dict()}}
    weights = {name: value.contiguous() for name, value in body.state_dict().items()}
    return {"model.safetensors": safetensors(weights, {"format": "pt"}), "config.json": _json(config)}


def _write(exported: Exported, model: bytes, beside: Mapping[str, bytes], fold: int | None) -> None:
    """Write all files, each whole at any moment. Where one fails (RunError), those that are new are removed."""
    file, folder = exported.path, exported.path.parent
    entry = exported.data() | {"path": file.name, "timm": isinstance(exported.timm, Path), "fold": fold}
    del entry["warnings"]
    files = {folder / name: content for name, content in beside.items()}
    entries = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stored = json.loads((folder / "parity.json").read_bytes())
        entries = {name: values for name, values in stored.items() if (folder / name).is_file()}
    files |= {file: model, folder / "parity.json": _json(entries | {file.name: entry})}
    new = [path for path in files if not path.exists()]
    try:
        for path, content in files.items():
            atomic_write(path, methodcaller("write", content))
    except OSError as error:
        for path in new:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written ({error.strerror or error})") from None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
