"""`threefold export`: a run in, one ONNX file out that reads photos without torch, and proof that it says the same.

The graph is compared with the networks before anything is written: on random photos, and on the run's own where they
are still here. float32 must agree to PARITY. What smaller weights cost is measured, not assumed: for one fold's network
on photos of people it has never seen; for averages and final networks only on photos they were trained on, and the
result says so.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from safetensors.torch import save as safetensors
from torch import nn

from threefold import labels, progress
from threefold.errors import CheckFailed, RecipeError, RunError
from threefold.evidence.decide import FILE, Decision
from threefold.evidence.ensemble import shares
from threefold.export.graph import Averaged, Joined, finished, to_onnx
from threefold.export.parity import Loss, Photos, differences, measure_loss, own_photos, random_photos
from threefold.export.precision import halve, quantise
from threefold.files import atomic_write
from threefold.learn.backbones import BACKBONES, Split, parts_of
from threefold.learn.net import Net
from threefold.learn.net_backend import NetBackend
from threefold.photos.quality import Limits
from threefold.read.backends import Backend, JoinedBackend, averaged_folds, open_run
from threefold.read.onnx import FORMAT, KEY, PROBABILITIES, YEARS, OnnxBackend, input_names
from threefold.read.reader import load
from threefold.runs import ENSEMBLE, Run

PARITY = 1e-4
"""The largest difference of a probability (and, relative, of an age in years) that float32 may have from torch."""
RANDOM, OWN, CALIBRATION = 24, 64, 256
"""Photos of the parity check, random and the run's; photos that the ranges of int8 are taken from."""
_TIMM = {"area": "box", "bilinear": "bilinear"}
"""timm's (Pillow's) name of an interpolation; Pillow's box filter is the mean over areas."""


@dataclass(frozen=True)
class Exported:
    """What `export` made.

    size: bytes. networks: in the graph. difference: the largest from torch in float32, of probabilities; years: of
    ages, relative, None without them. compared: on how many random and how many of the run's photos. loss: of float16
    and int8. timm: the folder with model.safetensors and config.json, or why there is none.
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

    def lines(self) -> list[str]:
        """The same for people."""
        networks = "1 network" if self.networks == 1 else f"{self.networks} networks"
        apart = f"{self.difference:.1e}" + ("" if self.years is None else f" (years {self.years:.1e}, relative)")
        random, own = self.compared
        beside = f"{self.timm}/model.safetensors and config.json" if isinstance(self.timm, Path) else self.timm
        return [
            f"{self.path}: {self.precision}, {networks}, {self.size / 1e6:.1f} MB",
            f"largest difference from torch in float32: {apart}, on {random} random and {own} of the run's photos",
            *(self.loss.lines(self.precision) if self.loss else []),
            f"for timm: {beside}",
        ]


def export(
    run: Path | str, out: Path | str | None = None, *, int8: bool = False, half: bool = False, fold: int | None = None,
    name: str = "", data: str = "", licence: str = "", limits: Limits | None = None, timm: bool = True,
    photos: int = 1000, seed: int = 0,
) -> Exported:  # fmt: skip
    """Write the model of a complete run as one ONNX file (default RUN/export/model.onnx), parity.json beside it.

    int8, half: see `learn.precision`. fold: only the network (of separate parts, networks) of that fold; by default
    what `predict` reads with, the final network or all folds, averaged in the graph. name (the run's by default), data
    (what it was trained on), licence and the reader's limits are written into the file. timm: also model.safetensors
    and config.json, where the model is one timm network. photos: of the run's own, at most, that the loss of smaller
    weights is measured on; seed: which. parity.json has an entry for each file of its folder.
    Raises RunError for a run that cannot be read or exported and a file that cannot be written, RecipeError for options
    that do not go together, CheckFailed where float32 is further from torch than PARITY; nothing is written then.
    """
    path, file = Path(run), Path(out) if out else Path(run) / "export" / "model.onnx"
    if (int8 and half) or photos < 1:
        raise RecipeError(f"export: int8={int8}, half={half}, photos={photos}; expected one precision, 1 photo or more")
    if file.is_dir():
        raise RunError(f"{file}: is a folder; expected the file to write, like {file / 'model.onnx'}")
    opened, backend, decision = _open(path, fold)
    weights = _for_timm(opened, backend) if timm else "left out, as asked"
    model = to_onnx(
        _system(backend), [prepare.size for prepare in backend.prepares], input_names(len(backend.prepares)),
        [PROBABILITIES, YEARS],
    )  # fmt: skip
    info = _info(opened, backend, len(model.graph.output) > 1, name, data, licence)
    info |= {"decision": decision, "limits": asdict(limits) if limits else None}
    plain = finished(model, KEY, json.dumps(info))
    smaller, counts = int8 or half, (photos if int8 or half else OWN, CALIBRATION if int8 else 0)
    unseen, random = _unseen_fold(path, fold), random_photos(backend.prepares, RANDOM, seed)
    own, seen = own_photos(opened, backend.prepares, unseen, *counts, seed)
    difference, years, compared = _parity(path, backend, OnnxBackend(plain), random, own)
    written, loss = plain, None
    if smaller:
        info["precision"] = "int8" if int8 else "float16"
        written = finished(_quantised(model, seen, random) if int8 else halve(model), KEY, json.dumps(info))
        honest = own is not None and unseen is not None
        loss = measure_loss(OnnxBackend(plain), OnnxBackend(written), own or random, own=own is not None, unseen=honest)
    made = Exported(
        file, info["precision"], len(written), len(_networks(backend)), difference, years, compared, loss,
        weights if isinstance(weights, str) else file.parent,
    )  # fmt: skip
    _write(made, written, {} if isinstance(weights, str) else weights, fold)
    return made


def _open(path: Path, fold: int | None) -> tuple[Run, Backend, dict[str, Any] | None]:
    """The run, its networks on the CPU, and its decision as it is written into the file."""
    run = Run.open(path)
    if fold is not None and (path / ENSEMBLE).exists():
        raise RunError(f"{path}: an ensemble has no folds of its own; export one of its members by fold")
    reader = load(path)
    backend = reader.backend if fold is None else open_run(path, fold=fold)
    for net in _networks(backend):  # on a GPU torch rounds convolutions more than what is checked here
        net.cpu()
    decision = reader.decision if fold is None or not reader.decision else of_one(run, reader.decision)
    return run, backend, decision.to_dict() if decision else None


def of_one(run: Run, decision: Decision) -> Decision | None:
    """What of a run's decision is true of one of the networks it reads with the mean of; None where nothing is.

    A decision that was fitted to the mean (`decide --unlabelled`) holds that of single networks beside it; one on
    scored photos (`--on test`) was only ever of the mean.
    """
    told = run.read(FILE)
    if told.get("single"):
        return Decision.from_dict(told["single"], run.path / FILE)
    if told.get("on") == "test" and averaged_folds(run):
        progress.say(f"! {run.path / FILE} is of the mean of the networks, so one alone is exported without a decision")
        return None
    return decision


def _networks(backend: Backend) -> list[Net]:
    """All networks of a run's backend."""
    if isinstance(backend, JoinedBackend):
        return [net for member in backend.members for net in _networks(member)]
    return list(backend.nets) if isinstance(backend, NetBackend) else []


def _system(backend: Backend) -> nn.Module:
    """The same as a module."""
    if isinstance(backend, NetBackend):
        return Averaged(backend.nets)
    if not isinstance(backend, JoinedBackend):
        raise RunError(f"export: {type(backend).__name__} holds no networks that could be exported")
    place = {prepare.geometry: at for at, prepare in enumerate(backend.prepares)}
    inputs = [[place[prepare.geometry] for prepare in member.prepares] for member in backend.members]
    weights = shares(backend.weights, len(backend.members)).tolist()
    return Joined([_system(member) for member in backend.members], inputs, weights, backend.rule)


def _unseen_fold(path: Path, fold: int | None) -> int | None:
    """The fold whose people no network of the model was trained on, None where there is none."""
    if fold is not None or (path / ENSEMBLE).exists() or (path / "final").exists():
        return fold
    folds = sorted({file.relative_to(path).parts[0] for file in path.glob("fold*/**/best.safetensors")})
    return int(folds[0].removeprefix("fold")) if len(folds) == 1 else None


def _info(run: Run, backend: Backend, years: bool, name: str, data: str, licence: str) -> dict[str, Any]:
    """What the file says of itself; contract in `infer.onnx`."""
    stamp = run.stamp
    return {
        "format": FORMAT, "name": name or run.name, "version": importlib.metadata.version("threefold"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": {key: list(values) for key, values in labels.NAMES.items()},
        "prepares": [prepare.to_dict() for prepare in backend.prepares], "decision": None, "years": years,
        "data": data or f"{stamp.get('photos')} photos of {stamp.get('persons')} people", "licence": licence,
        "precision": "float32", "limits": None,
    }  # fmt: skip


def _parity(
    path: Path, backend: Backend, graph: Backend, random: Photos, own: Photos | None
) -> tuple[float, float | None, tuple[int, int]]:
    """Largest differences of probabilities and years, and on how many photos; CheckFailed above PARITY, or for NaN."""
    looked = [random, *([own.first(OWN)] if own else [])]
    found = [differences(backend, graph, photos) for photos in looked]
    joint = max(found, key=lambda pair: _rank(pair[0]))[0]
    years = max(found, key=lambda pair: _rank(pair[1]))[1]
    for what, value in (("probabilities", joint), ("years", years)):
        if _rank(value) > PARITY:
            raise CheckFailed(
                f"{path}: {what} of the exported graph differ from torch by {value:.1e}, allowed are {PARITY:.0e}; "
                "nothing was written"
            )
    return joint, years, (len(random), len(looked[1]) if own else 0)


def _rank(value: float | None) -> float:
    """NaN is the worst difference, None is none."""
    return 0.0 if value is None else float("inf") if math.isnan(value) else value


def _quantised(model: Any, seen: Photos | None, random: Photos) -> Any:
    if seen is None:
        progress.say("int8: the run's photos are not here; ranges are taken from random ones and fit real ones badly")
    photos = seen or random
    names = input_names(len(photos.batches))
    return quantise(model, (dict(zip(names, batch, strict=True)) for batch in photos.chunks()))


def _for_timm(run: Run, backend: Backend) -> dict[str, bytes] | str:
    """model.safetensors and config.json as timm's `local-dir:` and hubs read them, or in a line why there are none."""
    nets = _networks(backend)
    if len(nets) > 1:
        return f"nothing, since the model is {len(nets)} networks"
    recipe, body = run.recipe, nets[0].backbone
    names = parts_of(recipe.model.backbone)
    if len(names) > 1 or names[0] in BACKBONES or isinstance(body, Split):
        return f"nothing, since {recipe.model.backbone} is no backbone of timm's"
    (prepare,) = backend.prepares
    architecture, _, tag = names[0].partition(".")
    found: Any = body
    pretrained = {
        **{key: found.pretrained_cfg[key] for key in ("first_conv", "classifier") if key in found.pretrained_cfg},
        "tag": tag, "num_classes": 0, "input_size": [3, *prepare.size], "interpolation": _TIMM[prepare.interpolation],
        "crop_pct": 1.0, "crop_mode": "squash", "mean": list(nets[0].mean.flatten().tolist()),
        "std": list(nets[0].std.flatten().tolist()), "custom_load": False,
        "fixed_input_size": bool(found.pretrained_cfg.get("fixed_input_size")),
    }  # fmt: skip
    config: dict[str, Any] = {"architecture": architecture, "num_classes": 0, "num_features": found.num_features}
    if pretrained["fixed_input_size"]:
        config["model_args"] = {"img_size": list(prepare.size)}
    config |= {"pretrained_cfg": pretrained, "threefold": {"run": run.name, "prepare": prepare.to_dict()}}
    weights = {name: value.contiguous() for name, value in body.state_dict().items()}
    return {"model.safetensors": safetensors(weights, {"format": "pt"}), "config.json": _json(config)}


def _write(made: Exported, model: bytes, beside: Mapping[str, bytes], fold: int | None) -> None:
    """All files or, but for those that are replaced, none: each is whole at any moment. RunError where it cannot be."""
    folder = made.path.parent
    entry = asdict(made) | {"path": made.path.name, "timm": not isinstance(made.timm, str), "fold": fold}
    files = {**{folder / name: content for name, content in beside.items()}, made.path: model}
    files[folder / "parity.json"] = _json({**_entries(folder), made.path.name: entry})
    fresh = [path for path in files if not path.exists()]
    try:
        for path, content in files.items():
            atomic_write(path, partial(_put, content))
    except OSError as error:
        for path in fresh:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise RunError(f"{made.path}: cannot be written ({error.strerror or error})") from None


def _put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _entries(folder: Path) -> dict[str, Any]:
    """What parity.json says of files that are still here."""
    try:
        found = json.loads((folder / "parity.json").read_bytes())
        return {name: entry for name, entry in found.items() if (folder / name).is_file()}
    except (OSError, ValueError, AttributeError):
        return {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
