"""From networks to one ONNX graph: everything between prepared photos and the joint lies inside it.

What a run answers with becomes one module: networks whose answers are averaged (`Averaged`), or systems that are joined
by a vote or by their marginals (`Joined`), as `read.backends` does it outside a graph. Its weights can be made smaller
afterwards (`halve`, `quantise`).
"""

import ast
import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from threefold.errors import RunError
from threefold.evidence.ensemble import TIE
from threefold.labels import CLASSES, SIZES
from threefold.learn.classical import Machine
from threefold.learn.net import Net, to_float

OPSET = 18
"""ONNX operators of 2022: what onnxruntime reads since 1.14."""
Outputs = tuple[Tensor, Tensor | None]
"""Joint [B, 18], and years [B] where a network has them."""
Size = tuple[int, int]
"""(H, W) in pixels."""
BODY = "backbone"
"""The part of a `Net` that may be quantised; its name stands in the scope of every node that came from it."""
LEAST = 512
"""Initialisers with fewer numbers stay float32: biases and scales are 1 % of a file, and the most sensitive."""
WEIGHTY = ("Conv", "MatMul", "Gemm")
QUANTISED = (*WEIGHTY, "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Clip", "Relu")
"""Operators that are quantised: layers with weights, and those between, so that no number is cast back and forth."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of a node's metadata under which torch's exporter lists the modules that the node lay in."""


class Averaged(nn.Module):
    """The mean of networks that read the same bytes, and of the years of those that have them."""

    def __init__(self, nets: Sequence[Net]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(exportable(net) for net in nets)

    def forward(self, photos: Tensor) -> Outputs:
        """uint8 [B, H, W, 3] -> joint [B, 18], years [B] or None."""
        outputs = [_read(cast(Net, net), photos) for net in self.nets]
        years = [years for _, years in outputs if years is not None]
        return torch.stack([joint for joint, _ in outputs]).mean(0), torch.stack(years).mean(0) if years else None


class Joined(nn.Module):
    """Systems as one, by a rule of `evidence.ensemble.combine`: `soft`, `hard` or `marginals`.

    inputs: for each member the numbers of the inputs that it reads. weights: one per member, sum 1. Years are the mean,
    with these weights, of the members that have them (of `marginals` the third's).
    """

    def __init__(
        self, members: Sequence[nn.Module], inputs: Sequence[Sequence[int]], weights: Sequence[float], rule: str
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.inputs, self.weights, self.rule = inputs, list(weights), rule

    def forward(self, *photos: Tensor) -> Outputs:
        """uint8 [B, H, W, 3] of each preprocessing -> joint [B, 18], years [B] or None."""
        members = zip(self.members, self.inputs, strict=True)
        outputs = [member(*(photos[number] for number in numbers)) for member, numbers in members]
        weights = [0.0, 0.0, 1.0] if self.rule == "marginals" else self.weights
        weighted = [(weight, years) for weight, (_, years) in zip(weights, outputs, strict=True)]
        dated = [(weight, years) for weight, years in weighted if years is not None and weight > 0]
        total = sum(weight for weight, _ in dated)
        years = [weight / total * years for weight, years in dated]
        return self._joint([joint for joint, _ in outputs]), torch.stack(years).sum(0) if years else None

    def _joint(self, joints: list[Tensor]) -> Tensor:
        if self.rule == "marginals":
            cubes = [joint.view(-1, *SIZES.values()) for joint in joints]
            mask, gender, age = cubes[0].sum((2, 3)), cubes[1].sum((1, 3)), cubes[2].sum((1, 2))
            joint = (mask[:, :, None, None] * gender[:, None, :, None] * age[:, None, None]).flatten(1)
        else:
            votes = [_votes(joint) for joint in joints] if self.rule == "hard" else joints
            joint = torch.stack([weight * vote for weight, vote in zip(self.weights, votes, strict=True)]).sum(0)
        return joint / joint.sum(1, keepdim=True)


def _votes(joint: Tensor) -> Tensor:
    """One vote on the most probable class (the first of equals), and the probabilities as far as they break ties."""
    return (nn.functional.one_hot(joint.argmax(1), CLASSES).to(joint.dtype) + TIE * joint) / (1 + TIE)


def _read(net: Net, photos: Tensor) -> Outputs:
    """`Net.read` as one pass over a batch that holds all views."""
    images, views = to_float(photos), net.views or (lambda images: images,)
    # a pass for each view would repeat the whole network in the file, weights included: the exporter folds the
    # normalisations into copies of them
    outputs = {name: raw.float() for name, raw in net(torch.cat([view(images) for view in views])).items()}
    joint, years = net.head.joint(outputs), net.head.years(outputs)
    count = len(views)
    return joint.view(count, -1, CLASSES).mean(0), None if years is None else years.view(count, -1).mean(0)


class _Fixed(nn.Module):
    """A fitted `Machine` whose kernel is chosen before tracing, which cannot follow a choice by a tensor."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine, self.gamma = machine, float(machine.gamma)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, K], as `Machine`."""
        m = self.machine
        z = (features - m.mean) / m.scale
        if self.gamma > 0:
            distances = z.square().sum(1, keepdim=True) + m.support.square().sum(1) - 2 * z @ m.support.T
            z = torch.exp(-self.gamma * distances.clamp_min(0))
        return (z @ m.dual + m.bias) @ m.calibrate + m.shift


def exportable(net: Net) -> Net:
    """A copy on the CPU, in evaluation, without what tracing cannot follow."""
    net = copy.deepcopy(net).cpu().eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, Machine):
            net.set_submodule(name, _Fixed(module))
    return net


class _WithoutNone(nn.Module):
    """A system that leaves out the outputs which it does not have: a graph has no None."""

    def __init__(self, system: nn.Module) -> None:
        super().__init__()
        self.system = system

    def forward(self, *photos: Tensor) -> tuple[Tensor, ...]:
        """Joint [B, 18], and years [B] where there are any."""
        return tuple(output for output in self.system(*photos) if output is not None)


def to_onnx(system: nn.Module, sizes: Sequence[Size], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The graph of a system as an onnx.ModelProto: one input per size (H, W), any number of photos.

    outputs: names of the joint and of the years; a system without ages has the first alone. Raises RunError where the
    network, or the installation, cannot export.
    """
    with torch.inference_mode():
        _, years = system.eval()(*_example(sizes))
    return trace(_WithoutNone(system), sizes, inputs, outputs if years is not None else outputs[:1])


def trace(module: nn.Module, sizes: Sequence[Size], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """A module `forward(*photos)`, uint8 [B, H, W, 3] each -> tensors of B rows, as an onnx.ModelProto; RunError."""
    shapes: Any = (tuple({0: torch.export.Dim("batch", min=1)} for _ in sizes),)
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                module.eval(),
                _example(sizes),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                opset_version=OPSET,
                verbose=False,
            )
    except (ImportError, RuntimeError, ValueError, TypeError) as error:
        cause = error.__cause__ or error  # the exporter's own message is advice on many lines
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise RunError(f"export: torch cannot write this network as ONNX ({type(cause).__name__}: {reason})") from None
    model = program.model_proto
    if any(not port.type.tensor_type.shape.dim[0].dim_param for port in model.graph.input):
        raise RunError("export: this network works on one fixed number of photos only; nothing could read with it")
    return model


def finished(model: Any, key: str, text: str) -> bytes:
    """The bytes of a copy of a model that holds `text` under the metadata key `key`, and no other metadata.

    Raises RunError for models above the 2 GB that one ONNX file can hold.
    """
    from google.protobuf.message import EncodeError

    model = copy.deepcopy(model)
    graph = model.graph
    # the exporter notes lines of source code and paths of this machine
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    model.metadata_props.add(key=key, value=text)
    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise RunError(f"export: the model does not fit into one ONNX file ({error})") from None


def _example(sizes: Sequence[Size]) -> tuple[Tensor, ...]:
    """A batch of two black photos for each size: torch.export takes a dimension of one for a constant."""
    return tuple(torch.zeros(2, *size, 3, dtype=torch.uint8) for size in sizes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter and the quantiser from printing, warning and logging: what matters they raise."""
    level, sink = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def halve(model: Any) -> Any:
    """A copy of an onnx.ModelProto with its large float32 initialisers as float16 and a Cast behind each.

    They are stored in half the bytes and cast back, which onnxruntime does once when it loads the model, so nothing is
    slower and only the weights are rounded. Numbers that float16 cannot hold (above 65,504) keep their initialiser.
    """
    from onnx import TensorProto, helper, numpy_helper

    model, casts = copy.deepcopy(model), []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < LEAST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT, name=f"{name}.cast"))
    names = {cast.output[0] for cast in casts}
    infos = [value for value in model.graph.value_info if value.name not in names]
    for field, items in ((model.graph.node, [*casts, *model.graph.node]), (model.graph.value_info, infos)):
        del field[:]
        field.extend(items)
    return model


def quantise(model: Any, batches: Iterable[Mapping[str, NDArray[np.uint8]]]) -> Any:
    """A copy of an onnx.ModelProto whose backbones compute in int8; batches: calibration photos by input name.

    Static quantisation (QDQ) of convolutions and matrix products, weights per channel, activations by ranges seen on
    the photos (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", 2018; Wu et al., "Integer Quantization for Deep Learning Inference", 2020). What a photo becomes before
    the backbone, and everything behind it, stays float32. Weights of depthwise convolutions use all eight bits, those
    of other layers seven. Raises RunError where nothing can be quantised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # With all eight bits, processors without VNNI (AVX2, before 2019) overflow in sums of two products, which nobody
    # would notice on the machine that exports. Seven cost half as much error again on EfficientNet-Lite0
    # (benchmarks/export.py). Depthwise convolutions, whose nine weights a channel feel the lost bit most, are not
    # computed that way.
    eight_bits = {"axis": 0, "quant_type": QuantType.QInt8, "reduce_range": False}
    model = copy.deepcopy(model)  # the quantiser changes its argument
    inside, depthwise = [], {}
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        if node.op_type in QUANTISED and any(BODY in str(scope).split(".") for scope in ast.literal_eval(scopes)):
            inside.append(node)
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            if node.op_type == "Conv" and groups > 1 and node.input[1] in weights:
                depthwise[node.input[1]] = [eight_bits]
    if not any(node.op_type in WEIGHTY for node in inside):
        raise RunError("export: int8: this network's backbone has no convolution or matrix product to quantise")
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            out = Path(folder) / "int8.onnx"
            quantize_static(
                model,
                out,
                _Calibration(iter(batches)),
                quant_format=QuantFormat.QDQ,
                calibrate_method=CalibrationMethod.MinMax,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_quantize=[node.name for node in inside],
                extra_options={"TensorQuantOverrides": depthwise},
            )
            return onnx.load(out)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"export: int8: onnxruntime cannot quantise this network ({reason})") from None


class _Calibration:
    """The photos as onnxruntime asks for them: a CalibrationDataReader."""

    def __init__(self, batches: Iterator[Mapping[str, NDArray[np.uint8]]]) -> None:
        self.batches = batches

    def get_next(self) -> Mapping[str, NDArray[np.uint8]] | None:
        """The next batch, None after the last."""
        return next(self.batches, None)
