"""An exported model: one ONNX file that holds the network, its Prepare, its decision and what it may be used for.

    photos  (of several preprocessings photos0, photos1, ...)  uint8 [B, H, W, 3]
    -> probabilities  float32 [B, 18],  and where the model has ages  years  float32 [B]

What the model says of itself is JSON under the one metadata key KEY, so that the file can be copied anywhere and stays
whole. Reading needs onnxruntime, never torch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold.errors import DataError, RecipeError, RunError
from threefold.evidence.decide import Decision
from threefold.labels import CLASSES, NAMES
from threefold.parallel import cores
from threefold.photos.prepare import Prepare
from threefold.read.backends import Answer, Batch

KEY, FORMAT = "threefold", 1
"""The metadata key, and the format of what stands there; another one is refused."""
PROBABILITIES, YEARS = "probabilities", "years"
"""Names of the outputs."""
PRECISIONS = ("float32", "float16", "int8")
"""How the weights are stored. float16 ones are computed with in float32; int8 is of the convolutions."""
_FIELDS: dict[str, Any] = {
    "labels": dict,
    "prepares": list,
    "decision": dict | None,
    "years": bool,
    "limits": dict | None,
    **dict.fromkeys(("name", "version", "created", "data", "licence", "precision"), str),
}


class OnnxBackend:
    """The Backend of a file that `threefold export` wrote. Thread-safe: a session keeps no state between calls.

    prepares: one for each input. model: the file, or its bytes. threads: cores one call may use, all of this process
    by default. Raises RunError naming what the file is not.
    """

    def __init__(self, model: Path | str | bytes, *, threads: int | None = None) -> None:
        where = "model" if isinstance(model, bytes) else str(model)
        if threads is not None and threads < 1:
            raise RecipeError(f"threads: {threads}; expected 1 or more")
        try:
            data = model if isinstance(model, bytes) else Path(model).read_bytes()
        except OSError as error:
            raise RunError(
                f"{where}: cannot be read ({error.strerror}); expected a model.onnx of `threefold export`"
            ) from None
        self._session = _open(data, where, threads or cores())
        self.info = _info(self._session.get_modelmeta().custom_metadata_map, where)
        try:
            self.prepares = tuple(Prepare.from_dict(values) for values in self.info["prepares"])
        except (RecipeError, AttributeError, TypeError) as error:
            raise RunError(f"{where}: its preprocessing cannot be used ({error})") from None
        if not self.prepares:
            raise RunError(f"{where}: names no preprocessing; export it again")
        stored = self.info["decision"]
        self.decision = None if stored is None else Decision.from_dict(stored, f"{where}: decision")
        self._names = input_names(len(self.prepares))
        self._outputs = [PROBABILITIES, YEARS] if self.info["years"] else [PROBABILITIES]
        self._check_ports(where)

    def __call__(self, photos: tuple[Batch, ...]) -> Answer:
        """See `Backend`; raises DataError for what is not uint8 [B, H, W, 3] of the model's sizes."""
        for batch, prepare in zip(photos, self.prepares, strict=True):
            if batch.dtype != np.uint8 or batch.shape[1:] != (*prepare.size, 3) or len(batch) != len(photos[0]):
                expected = f"[{len(photos[0])}, {prepare.size[0]}, {prepare.size[1]}, 3]"
                raise DataError(f"photos: {batch.dtype} {list(batch.shape)}; expected uint8 {expected}")
        if not len(photos[0]):
            none = np.empty((0, CLASSES), dtype=np.float32)
            return none, none[:, 0] if self.info["years"] else None
        inputs = dict(zip(self._names, photos, strict=True))
        outputs: list[NDArray[np.float32]] = self._session.run(self._outputs, inputs)
        return outputs[0], outputs[1] if self.info["years"] else None

    def _check_ports(self, where: str) -> None:
        """The graph takes and gives what its metadata say: a file that was put together by hand is refused here."""
        ports = [*self._session.get_inputs(), *self._session.get_outputs()]
        has = {port.name: (port.type, port.shape[1:]) for port in ports}
        sizes = {name: [*prepare.size, 3] for name, prepare in zip(self._names, self.prepares, strict=True)}
        wanted = {name: ("tensor(uint8)", size) for name, size in sizes.items()}
        wanted |= {name: ("tensor(float)", [CLASSES] if name == PROBABILITIES else []) for name in self._outputs}
        if has != wanted:
            raise RunError(f"{where}: its graph does not fit its metadata ({has}; expected {wanted})")


def input_names(count: int) -> list[str]:
    """Names of the inputs of a model of so many preprocessings."""
    return ["photos"] if count == 1 else [f"photos{number}" for number in range(count)]


def _open(data: bytes, where: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RunError(f"{where}: reading with an exported model needs onnxruntime ({error})") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what is wrong is raised; the rest is chatter on stderr
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen kinds that share no base
        reason = str(error).strip().splitlines()[:1]
        raise RunError(f"{where}: not a readable ONNX model ({''.join(reason) or type(error).__name__})") from None


def _info(metadata: dict[str, str], where: str) -> dict[str, Any]:
    if KEY not in metadata:
        raise RunError(f"{where}: an ONNX model, but not one of `threefold export` (no {KEY!r} in its metadata)")
    try:
        info = json.loads(metadata[KEY])
        if not isinstance(info, dict):
            raise ValueError(f"expected an object, found {type(info).__name__}")
    except ValueError as error:
        raise RunError(f"{where}: its metadata cannot be read ({error})") from None
    if info.get("format") != FORMAT:
        raise RunError(f"{where}: model of format {info.get('format')}, this version reads {FORMAT}")
    for key, kind in _FIELDS.items():
        if key not in info or not isinstance(info[key], kind):
            raise RunError(f"{where}: its metadata has no usable {key!r}; export it again")
    if info["labels"] != {name: list(values) for name, values in NAMES.items()}:
        raise RunError(f"{where}: a model of other labels ({info['labels']})")
    if info["precision"] not in PRECISIONS:
        raise RunError(f"{where}: precision {info['precision']!r} is not one of {', '.join(PRECISIONS)}")
    return info
