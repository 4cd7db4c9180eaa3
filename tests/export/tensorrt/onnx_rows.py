"""What TensorRT's ONNX importer takes: a row for each operator, for TensorRT 8.6 and 10.

Source of the types and of the restrictions: onnx/onnx-tensorrt docs/operators.md, tags release/8.6-GA (6ba67d3) and
release/10.1-GA (96e7811); a check whose docstring names another file was read there, at the same tags. TensorRT 8.6
narrows int64 to int32, and both narrow double to float.

An operator without a row fails the tests. To add one, copy its types and restrictions from both tags into ROWS; an
operator that a tag marks "N", or does not have, gets no types there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

VERSIONS = {"8.6": "release/8.6-GA", "10": "release/10.1-GA"}
OPSETS = {"8.6": range(9, 18), "10": range(9, 21)}  # 8.6: "up to Opset 17"
TOPK_LIMIT = 3840  # K must be less, says 10.1-GA; the limit is the layer's, so it holds for 8.6 as well

_NAMES = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float32", TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16", TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8", TensorProto.BOOL: "bool",
}  # fmt: skip
_LARGEST_SHAPE = 1024  # bytes of a tensor that may be a shape


class UnknownOperator(Exception):
    """An operator that has no row."""


class Graph:
    """An ONNX graph with the types, shapes and constants of its tensors; a length that is open is -1."""

    def __init__(self, model: onnx.ModelProto) -> None:
        light = onnx.ModelProto()
        light.CopyFrom(model)
        for tensor in light.graph.initializer:  # copying weights is most of the time of the inference
            if len(tensor.raw_data) > _LARGEST_SHAPE:
                tensor.ClearField("raw_data")
        model = onnx.shape_inference.infer_shapes(light, data_prop=True)
        self.graph, self.opset = model.graph, next(item.version for item in model.opset_import if not item.domain)
        self.nodes = list(self.graph.node)
        self.inputs = {value.name for value in self.graph.input}
        self.outputs = {value.name for value in self.graph.output}
        self.dtypes, self.shapes = {}, {}
        for value in (*self.graph.value_info, *self.graph.input, *self.graph.output):
            tensor = value.type.tensor_type
            self.dtypes[value.name] = _NAMES.get(tensor.elem_type, f"type {tensor.elem_type}")
            if tensor.HasField("shape"):
                self.shapes[value.name] = [
                    dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim
                ]
        for tensor in self.graph.initializer:
            self.dtypes[tensor.name] = _NAMES.get(tensor.data_type, f"type {tensor.data_type}")
            self.shapes[tensor.name] = list(tensor.dims)

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        made = {node.output[0]: node.attribute[0].t for node in self.nodes if node.op_type == "Constant"}
        return tensors | made

    def value(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def rank(self, name: str) -> int | None:
        return len(self.shapes[name]) if name in self.shapes else None


# Returns why a node is refused, None if it is taken.
Check = Callable[[Graph, onnx.NodeProto], str | None]


@dataclass(frozen=True)
class Row:
    """One operator.

    Args:
        types: The types of its first input by version (Where: the second; ConstantOfShape: the output).
        restriction: What is refused beyond types.
    """

    types: dict[str, Sequence[str]]
    restriction: Check

    @property
    def source(self) -> str:
        return f"onnx-tensorrt docs/operators.md at {' and '.join(VERSIONS.values())}"


def attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    """Return the value of an attribute."""
    found = next((item for item in node.attribute if item.name == name), None)
    value = default if found is None else onnx.helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def refusal(graph: Graph, node: onnx.NodeProto, version: str) -> str | None:
    """Return why a version of TensorRT refuses a node, None if it is taken.

    Raises:
        UnknownOperator: The operator has no row.
    """
    if node.op_type not in ROWS or node.domain:
        raise UnknownOperator(
            f"{':'.join(filter(None, (node.domain, node.op_type)))} has no row in tests/export/tensorrt/onnx_rows.py, "
            "which says how to add one"
        )
    row = ROWS[node.op_type]
    tensor = {"Where": lambda: node.input[1], "ConstantOfShape": lambda: node.output[0]}
    name = tensor.get(node.op_type, lambda: node.input[0] if node.input else node.output[0])()
    dtype = graph.dtypes.get(name, "of no known type")
    allowed = row.types[version]
    if not allowed:
        return f"not in the list of {VERSIONS[version]}"
    if dtype not in allowed:
        return f"{name} is {dtype}, not {' or '.join(allowed)}"
    return _bytes(graph, node) or row.restriction(graph, node)


def _bytes(graph: Graph, node: onnx.NodeProto) -> str | None:
    """uint8 is only for the network's inputs and outputs, with Cast directly beside them.

    Source: the note in operators.md at 10.1-GA; ModelImporter.cpp ("TensorRT does not support UINT8 types for
    intermediate tensors"), both tags; notInvalidType(..., "UINT8") in the importers of the operators.
    """
    if any(graph.dtypes.get(name) == "uint8" and name not in graph.outputs for name in node.output):
        return "gives uint8 that is no output of the network"
    reads = any(graph.dtypes.get(name) == "uint8" for name in node.input)
    gives = any(graph.dtypes.get(name) == "uint8" for name in node.output)
    return "takes or gives uint8 and is no Cast" if (reads or gives) and node.op_type != "Cast" else None


def doubt(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return why a node that the importer takes may not build, None if nothing is known.

    The importer checks the rank of a linear Resize only where it has scales (importer of Resize, both tags): at most
    the three innermost lengths may change. With sizes nothing is checked.
    """
    rank = graph.rank(node.input[0]) if node.op_type == "Resize" else 4
    return None if rank is not None and rank <= 4 else f"Resize of rank {rank}"


def _anything(graph: Graph, node: onnx.NodeProto) -> None:
    return None


def _constant(position: int, what: str) -> Check:
    def check(graph: Graph, node: onnx.NodeProto) -> str | None:
        name = node.input[position] if len(node.input) > position else ""
        return None if not name or name in graph.constants else f"{what} is not an initializer"

    return check


def _pool(graph: Graph, node: onnx.NodeProto) -> str | None:
    if graph.rank(node.input[0]) not in (4, 5):
        return f"input of rank {graph.rank(node.input[0])}; only 2-D and 3-D pooling"
    if len([name for name in node.output if name]) > 1:
        return "the output Indices is not supported"
    dilations = attribute(node, "dilations", [])
    return None if all(item == 1 for item in dilations) else f"dilations {dilations}"


def _first_output(graph: Graph, node: onnx.NodeProto) -> str | None:
    return None if not any(node.output[1:]) else "only the first output is supported"


def _resize(graph: Graph, node: onnx.NodeProto) -> str | None:
    mode, corners = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute(node, "nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", "linear"):
        return f"mode {mode}"
    if corners not in ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"):
        return f"coordinate_transformation_mode {corners}"
    if nearest not in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        return f"nearest_mode {nearest}"
    return "antialias" if attribute(node, "antialias", 0) else None


def _topk(graph: Graph, node: onnx.NodeProto) -> str | None:
    if attribute(node, "sorted", 1) != 1:
        return "sorted must be 1"
    if node.input[1] not in graph.constants:
        return "K is not a constant"
    k = int(graph.value(node.input[1]).item())
    return None if k < TOPK_LIMIT else f"K is {k}; it must be below {TOPK_LIMIT}"


def _no_reduction(graph: Graph, node: onnx.NodeProto) -> str | None:
    """10.1-GA has a plugin for ScatterElements with a reduction; 8.6-GA reads no such attribute (importer)."""
    reduction = attribute(node, "reduction", "none")
    return None if reduction == "none" else f"reduction {reduction}"


def _zero_point(graph: Graph, node: onnx.NodeProto) -> str | None:
    name = node.input[2] if len(node.input) > 2 else ""
    return None if not name or (name in graph.constants and not graph.value(name).any()) else "zero point is not 0"


_F = ("float32", "float16")
_I = (*_F, "int32", "int64")
_B = (*_I, "bool")


def _rows(
    names: str, types: Sequence[str], older: Sequence[str] | None = None, restriction: Check = _anything
) -> dict[str, Row]:
    """Return rows with the types of TensorRT 10, and those of 8.6 if they differ."""
    row = Row({"10": types, "8.6": types if older is None else older}, restriction)
    return dict.fromkeys(names.split(), row)


ROWS = {
    **_rows("BatchNormalization Ceil Conv ConvTranspose Elu Erf Exp Floor Gemm GlobalAveragePool GlobalMaxPool", _F),
    **_rows("HardSigmoid HardSwish InstanceNormalization LeakyRelu Log LogSoftmax MatMul Pow Reciprocal Clip", _F),
    **_rows("Round Sigmoid Softmax Softplus Sqrt Tanh", _F),
    **_rows("Relu", _I, _F),
    **_rows("Gelu", _F, ()),
    **_rows("AveragePool MaxPool", _F, restriction=_pool),
    **_rows("LayerNormalization", _F, restriction=_first_output),
    **_rows("Resize", _F, restriction=_resize),
    **_rows("CumSum", _F, restriction=_constant(1, "axis")),
    **_rows(
        "Abs Add ArgMax ArgMin Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Neg Range", _I
    ),
    **_rows("Sign Sub Sum", _I),
    **_rows("ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd", _I, _F, _constant(1, "axes")),
    **_rows("ReduceSum ReduceSumSquare", _I, _F, _constant(1, "axes")),
    **_rows("ScatterElements ScatterND", _I, restriction=_no_reduction),
    **_rows("TopK", _I, restriction=_topk),
    **_rows("Pad", _I, restriction=_constant(3, "axes")),
    **_rows("Concat Constant Expand Flatten Gather GatherElements GatherND Identity Reshape Shape Split Tile", _B),
    **_rows("Transpose Where", _B),
    **_rows("Slice", _B, restriction=_constant(3, "axes")),
    **_rows("Squeeze Unsqueeze", _B, restriction=_constant(1, "axes")),
    **_rows("OneHot", _B, restriction=_constant(1, "depth")),
    **_rows("ConstantOfShape", _B, ("float32",)),
    **_rows("And Not Or", ("bool",)),
    **_rows("Cast", (*_B, "uint8"), (*_B, "int8", "uint8")),
    **_rows("QuantizeLinear", _F, restriction=_zero_point),
    **_rows("DequantizeLinear", ("int8",), restriction=_zero_point),
    **_rows("Einsum", _F),
}
