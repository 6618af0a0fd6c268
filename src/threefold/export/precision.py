"""Smaller weights for an exported graph: float16 as they are stored, int8 as they are computed with.

float16: initialisers are stored in half the bytes and cast back, which onnxruntime does once when it loads the model,
so nothing is slower and only the weights are rounded. int8: static quantisation (QDQ) of the backbone's convolutions
and matrix products, weights per channel, activations by ranges seen on calibration photos (Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018; Wu et al., "Integer Quantization
for Deep Learning Inference", 2020). What a photo becomes before the backbone, and everything behind it, stays float32.
"""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from threefold.errors import RunError
from threefold.export.graph import BODY, quiet

LEAST = 512
"""Initialisers with fewer numbers stay float32: biases and scales are 1 % of a file, and the most sensitive."""
WEIGHTY = ("Conv", "MatMul", "Gemm")
QUANTISED = (*WEIGHTY, "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Clip", "Relu")
"""Operators that are quantised: layers with weights, and those between, so that no number is cast back and forth."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Key of a node's metadata under which torch's exporter lists the modules that the node lay in."""


def halve(model: Any) -> Any:
    """A copy of an onnx.ModelProto with its large float32 initialisers as float16 and a Cast behind each.

    Numbers that float16 cannot hold (above 65,504) keep their initialiser as it is.
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

    Weights of depthwise convolutions use all eight bits, those of other layers seven. Raises RunError where nothing can
    be quantised.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    inside = [node for node in model.graph.node if _in_body(node) and node.op_type in QUANTISED]
    if not any(node.op_type in WEIGHTY for node in inside):
        raise RunError("export: int8: this network's backbone has no convolution or matrix product to quantise")
    import onnx

    # With all eight bits, processors without VNNI (AVX2, before 2019) overflow in sums of two products, which nobody
    # would notice on the machine that exports. Seven cost half as much error again on EfficientNet-Lite0
    # (benchmarks/export.py). Depthwise convolutions, whose nine weights a channel feel the lost bit most, are not
    # computed that way.
    eight_bits = {"axis": 0, "quant_type": QuantType.QInt8, "reduce_range": False}
    depthwise = {node.input[1]: [eight_bits] for node in inside if _is_depthwise(node, model)}
    try:
        with tempfile.TemporaryDirectory() as folder, quiet():
            out = Path(folder) / "int8.onnx"
            quantize_static(
                copy.deepcopy(model),  # the quantiser changes its argument
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


def _in_body(node: Any) -> bool:
    """Whether a node came from a backbone: the exporter notes the modules that it lay in."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return any(BODY in str(scope).split(".") for scope in ast.literal_eval(scopes))


def _is_depthwise(node: Any, model: Any) -> bool:
    """Whether a node is a convolution of separate channels, with its weights in the file."""
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    weights = {tensor.name for tensor in model.graph.initializer}
    return node.op_type == "Conv" and group > 1 and node.input[1] in weights
