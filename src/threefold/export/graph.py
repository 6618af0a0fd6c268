"""From networks to one ONNX graph: everything between prepared photos and the joint lies inside it.

A `System` is what a run answers with, as one module: networks whose answers are averaged (`Averaged`), or systems that
are joined by a vote or by their marginals (`Joined`), as `infer.backends` does it outside a graph.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from threefold.errors import RunError
from threefold.evidence.ensemble import TIE
from threefold.labels import CLASSES, SIZES
from threefold.learn.classical import Machine
from threefold.learn.net import Net, to_float

OPSET = 18
"""ONNX operators of 2022: what onnxruntime reads since 1.14."""
Said = tuple[Tensor, Tensor | None]
BODY = "backbone"
"""The part of a `Net` that may be quantised; its name stands in the scope of every node that came from it."""


class Averaged(nn.Module):
    """The mean of networks that read the same bytes, and of the years of those that have them."""

    def __init__(self, nets: Sequence[Net]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(exportable(net) for net in nets)

    def forward(self, photos: Tensor) -> Said:
        """uint8 [B, H, W, 3] -> joint [B, 18], years [B] or None."""
        joints, years = zip(*(_answer(cast(Net, net), photos) for net in self.nets), strict=True)
        known = [year for year in years if year is not None]
        return torch.stack(joints).mean(0), torch.stack(known).mean(0) if known else None


class Joined(nn.Module):
    """Systems as one, by a rule of `evidence.ensemble.combine`: `soft`, `hard` or `marginals`.

    inputs: for each member which of the given photos it reads. weights: one per member, sum 1; years are the mean, so
    weighted, of those that have them (of `marginals` the third's).
    """

    def __init__(
        self, members: Sequence[nn.Module], inputs: Sequence[Sequence[int]], weights: Sequence[float], rule: str
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.inputs, self.weights, self.rule = [list(own) for own in inputs], list(weights), rule

    def forward(self, *photos: Tensor) -> Said:
        """uint8 [B, H, W, 3] of each preprocessing -> joint [B, 18], years [B] or None."""
        said = [member(*(photos[i] for i in own)) for member, own in zip(self.members, self.inputs, strict=True)]
        weights = [0.0, 0.0, 1.0] if self.rule == "marginals" else self.weights
        dated = [(weight, year) for weight, (_, year) in zip(weights, said, strict=True) if year is not None and weight]
        total = sum(weight for weight, _ in dated)
        years = [weight / total * year for weight, year in dated]
        return self._joint([joint for joint, _ in said]), torch.stack(years).sum(0) if years else None

    def _joint(self, joints: list[Tensor]) -> Tensor:
        if self.rule == "marginals":
            cubes = [joint.view(-1, *SIZES.values()) for joint in joints]
            mask, gender, age = cubes[0].sum((2, 3)), cubes[1].sum((1, 3)), cubes[2].sum((1, 2))
            joint = (mask[:, :, None, None] * gender[:, None, :, None] * age[:, None, None]).flatten(1)
        else:
            cast_votes = [_votes(joint) if self.rule == "hard" else joint for joint in joints]
            weighted = [weight * vote for weight, vote in zip(self.weights, cast_votes, strict=True)]
            joint = torch.stack(weighted).sum(0)
        whole: Tensor = joint / joint.sum(1, keepdim=True)
        return whole


def _votes(joint: Tensor) -> Tensor:
    """One vote on the most probable class (the first of equals), and the probabilities as far as they break ties."""
    return (nn.functional.one_hot(joint.argmax(1), CLASSES).to(joint.dtype) + TIE * joint) / (1 + TIE)


def _answer(net: Net, photos: Tensor) -> Said:
    """What `Net.read` says, with the views one behind the other in the batch: a pass for each would repeat the whole
    network in the file, weights included, since the exporter folds the normalisations into copies of them."""
    images, views = to_float(photos), net.views or (lambda images: images,)
    outputs = {name: raw.float() for name, raw in net(torch.cat([view(images) for view in views])).items()}
    joint, years = (
        None if said is None else said.view(len(views), -1, *said.shape[1:]).mean(0)
        for said in (net.head.joint(outputs), net.head.years(outputs))
    )
    return cast(Tensor, joint), years


class _Fixed(nn.Module):
    """A fitted `Machine` whose kernel is known when the graph is made: tracing cannot follow a choice by a tensor."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine, self.gamma = machine, float(machine.gamma)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, K], as `Machine`."""
        m = self.machine
        z = (features - m.mean) / m.scale
        if self.gamma > 0:
            apart = z.square().sum(1, keepdim=True) + m.support.square().sum(1) - 2 * z @ m.support.T
            z = torch.exp(-self.gamma * apart.clamp_min(0))
        return (z @ m.dual + m.bias) @ m.calibrate + m.shift


def exportable(net: Net) -> Net:
    """A copy on the CPU, in evaluation, without what tracing cannot follow."""
    made = copy.deepcopy(net).cpu().eval()
    for name, module in list(made.named_modules()):
        if isinstance(module, Machine):
            made.set_submodule(name, _Fixed(module))
    return made


class _Told(nn.Module):
    """A system whose answer leaves out what it does not have: a graph has no None."""

    def __init__(self, system: nn.Module) -> None:
        super().__init__()
        self.system = system

    def forward(self, *photos: Tensor) -> tuple[Tensor, ...]:
        """Joint [B, 18], and years [B] where there are any."""
        return tuple(part for part in self.system(*photos) if part is not None)


def to_onnx(system: nn.Module, sizes: Sequence[tuple[int, int]], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The graph of a system as an onnx.ModelProto: one input per size (H, W), any number of photos.

    outputs: names of the joint and of the years; a system without ages has the first alone. Raises RunError where the
    network, or the installation, cannot export.
    """
    with torch.inference_mode():
        _, years = system.eval()(*_example(sizes))
    return trace(_Told(system), sizes, inputs, outputs if years is not None else outputs[:1])


def trace(module: nn.Module, sizes: Sequence[tuple[int, int]], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """A module `forward(*photos)`, uint8 [B, H, W, 3] each -> tensors of B rows, as an onnx.ModelProto; RunError."""
    shapes: Any = (tuple({0: torch.export.Dim("batch", min=1)} for _ in sizes),)
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                module.eval(), _example(sizes), dynamo=True, input_names=list(inputs), output_names=list(outputs),
                dynamic_shapes=shapes, opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except (ImportError, RuntimeError, ValueError, TypeError) as error:
        cause = error.__cause__ or error  # the exporter's own message is advice on many lines
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise RunError(f"export: torch cannot write this network as ONNX ({type(cause).__name__}: {reason})") from None
    model = program.model_proto
    if any(not port.type.tensor_type.shape.dim[0].dim_param for port in model.graph.input):
        raise RunError("export: this network works on one fixed number of photos only; nothing could read with it")
    return model


def finished(model: Any, key: str, text: str) -> bytes:
    """The bytes of a copy of a model that says `text` under the metadata key `key`.

    What the exporter wrote down of its own is left out: it holds lines of source code and paths of this machine.
    Raises RunError for models above the 2 GB that one ONNX file can hold.
    """
    from google.protobuf.message import EncodeError

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    for part in (made, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    made.metadata_props.add(key=key, value=text)
    try:
        return bytes(made.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise RunError(f"export: the model does not fit into one ONNX file ({error})") from None


def _example(sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Two photos: torch.export takes a dimension of one for a constant."""
    return tuple(torch.zeros(2, *size, 3, dtype=torch.uint8) for size in sizes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter and the quantiser talk on stderr, in warnings and in logs; what matters is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        silent = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
