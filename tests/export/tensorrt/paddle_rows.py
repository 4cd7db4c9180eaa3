"""What paddle.tensorrt takes: a row for each operator that has been read in Paddle's sources.

A row says what the marker asks before an operator may enter an engine, for which TensorRT its converter is registered,
and what the converter cannot convert. Sources, all of PaddlePaddle/Paddle, read at the commits below, which are of
spring 2025 (Paddle 3.0 to 3.2; pull requests 75591 and 75826 of October 2025, Paddle 3.3, register the converters that
are for TensorRT "8.x" here for later ones too):

| file | commit |
| --- | --- |
| paddle/fluid/pir/transforms/tensorrt/trt_op_marker_pass.cc | 02a5e4e |
| python/paddle/tensorrt/register.py | 071cc5a |
| python/paddle/tensorrt/converter.py | 662fb9f |
| python/paddle/tensorrt/util.py | d337c5a |
| python/paddle/tensorrt/impls/*.py | as in COMMITS |

An operator without a row fails the tests. To add one, read the marker's pattern (search the operator's name with "Op"
behind it) and the converter (search "pd_op.NAME") and write a row with both; NO_PATTERN if the marker has no pattern.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.export.tensorrt.pir import CONSTANTS, Operation, Program

COMMITS = {
    "activation": "54817d3", "attribute": "0ab6998", "common": "0ab6998", "conv": "0ab6998", "creation": "0ab6998",
    "linalg": "02a5e4e", "logic": "0ab6998", "manipulation": "7cc36bf", "math": "7cc36bf", "norm": "0ab6998",
    "ops": "7dcbc8c", "pooling": "02a5e4e", "search": "0ab6998",
}  # fmt: skip
FLOATS = ("float16", "float32", "float64")
NUMBERS = ("float32", "float64", "int32", "int64")
# Types that may cross the border of an engine. Source: map_dtype in util.py at d337c5a.
BORDER_DTYPES = ("float32", "float16", "int32", "int8", "bool", "int64")
TOPK_LIMIT = 3840  # K must be less. Source: TopK in onnx-tensorrt docs/operators.md, 10.1-GA; the layer is the same.

# Returns why an operator is refused, None if it is taken.
Check = Callable[[Program, Operation], str | None]


class UnknownOperator(Exception):
    """An operator that has no row."""


@dataclass(frozen=True)
class Row:
    """One operator.

    Args:
        marker: What the marker refuses.
        file: The file of impls that has the converter, None if none has.
        trt: The versions that the converter is registered for: the least one, or "8.x".
        converter: What the converter cannot convert, or converts into what is unlikely to build.
    """

    marker: Check
    file: str | None
    trt: str
    converter: Check

    @property
    def source(self) -> str:
        impl = "no converter" if self.file is None else f"impls/{self.file}.py at {COMMITS[self.file]}"
        return f"trt_op_marker_pass.cc at 02a5e4e, {impl}"


def find_row(name: str) -> Row:
    """Return the row of an operator.

    Raises:
        UnknownOperator: It has none.
    """
    if name not in ROWS:
        raise UnknownOperator(f"{name} has no row in tests/export/tensorrt/paddle_rows.py, which says how to add one")
    return ROWS[name]


def _anything(program: Program, operation: Operation) -> None:
    return None


def _no_pattern(program: Program, operation: Operation) -> str:
    return "the marker has no pattern for it"


def _made_by(program: Program, operation: Operation, position: int, name: str) -> bool:
    maker = program.maker(operation, position)
    return maker is not None and maker.name == name


def _needs(position: int, maker: str, what: str) -> Check:
    def check(program: Program, operation: Operation) -> str | None:
        return None if _made_by(program, operation, position, maker) else f"{what} is not a constant ({maker})"

    return check


def _dtypes(*allowed: str, position: int = 0) -> Check:
    def check(program: Program, operation: Operation) -> str | None:
        dtype = program.input_type(operation, position).dtype
        return None if dtype in allowed else f"input {position} is {dtype}, not {' or '.join(allowed)}"

    return check


def _no_bool(program: Program, operation: Operation) -> str | None:
    found = any(program.input_type(operation, position).dtype == "bool" for position in (0, 1))
    return "an input is bool" if found else None


def _cast(program: Program, operation: Operation) -> str | None:
    target = operation.attributes["dtype"]
    return None if target in ("bool", *FLOATS, "int32", "int64") else f"casts to {target}"


def _clip(program: Program, operation: Operation) -> str | None:
    return None if program.input_type(operation, 0).shape else "input of rank 0"


def _pool2d(program: Program, operation: Operation) -> str | None:
    attributes = operation.attributes
    if not _made_by(program, operation, 1, "pd_op.full_int_array"):
        return "the kernel's size is not a constant (pd_op.full_int_array)"
    kernel, pads = program.maker(operation, 1).attributes["value"], attributes["paddings"]
    if len(pads) > 2:
        return f"{len(pads)} paddings, not 2"
    if attributes["data_format"] in ("NHWC", "NDHWC"):
        return f"data format {attributes['data_format']}"
    if attributes["pooling_type"] not in ("max", "avg"):
        return f"pooling type {attributes['pooling_type']}"
    counts_inside = attributes["pooling_type"] == "avg" and not attributes["global_pooling"] and attributes["exclusive"]
    if counts_inside and any(size <= pad for size, pad in zip(kernel, pads, strict=True)):
        return "a padding is not smaller than the kernel"
    plain = not (attributes["adaptive"] or attributes["global_pooling"] or attributes["ceil_mode"])
    sizes = program.input_type(operation, 0).shape[-2:]
    small = any(0 < n < size - 2 * pad for n, size, pad in zip(sizes, kernel, pads, strict=True))
    strided = max(attributes["strides"]) > 1
    return "the padded input is smaller than the kernel" if plain and small and strided else None


def _slice(program: Program, operation: Operation) -> str | None:
    for position in (1, 2):
        maker = program.maker(operation, position)
        is_constant = maker is not None and maker.name == "pd_op.full_int_array"
        if is_constant and len(maker.attributes["value"]) != len(operation.attributes["axes"]):
            return "axes, starts and ends differ in number"
    return None


def _strided_slice(program: Program, operation: Operation) -> str | None:
    constant = all(_made_by(program, operation, position, "pd_op.full_int_array") for position in (1, 2, 3))
    return None if constant else "starts, ends or strides are not constants (pd_op.full_int_array)"


def _split(program: Program, operation: Operation) -> str | None:
    if _made_by(program, operation, 2, "pd_op.full"):
        axis = int(program.maker(operation, 2).attributes["value"])
        if program.input_type(operation, 0).shape[axis] == -1:
            return f"the length along axis {axis} is open"
    if _made_by(program, operation, 1, "pd_op.full_int_array"):
        lengths = program.maker(operation, 1).attributes["value"]
        if len(lengths) != len(program.types[operation.outputs[0]]):
            return "as many lengths as outputs are needed"
    return None


def _squeeze(program: Program, operation: Operation) -> str | None:
    if not _made_by(program, operation, 1, "pd_op.full_int_array"):
        return "axes are not constants (the marker reads a null pointer)"
    axes, shape = program.maker(operation, 1).attributes["value"], program.input_type(operation, 0).shape
    if not axes:
        return None if 1 in shape and -1 not in shape else "no axes are given"
    wrong = [axis for axis in axes if shape[axis] != 1]
    return f"the length along axis {wrong[0]} is {shape[wrong[0]]}, not 1" if wrong else None


def _unsqueeze(program: Program, operation: Operation) -> str | None:
    if not _made_by(program, operation, 1, "pd_op.full_int_array"):
        return "axes are not constants (the marker reads a null pointer)"
    is_fixed = -1 not in program.input_type(operation, 0).shape
    return "axis 0 of a fixed shape" if is_fixed and 0 in program.maker(operation, 1).attributes["value"] else None


def _stack(program: Program, operation: Operation) -> str | None:
    rank, axis = len(program.types[operation.inputs[0]][0].shape), operation.attributes["axis"]
    return None if -(rank + 1) <= axis <= rank else f"axis {axis} of rank {rank}"


def _transpose(program: Program, operation: Operation) -> str | None:
    rank = len(program.input_type(operation, 0).shape)
    return None if sorted(operation.attributes["perm"]) == list(range(rank)) else "perm has negative axes"


def _arg(program: Program, operation: Operation) -> str | None:
    """The conditions of argmax and argmin."""
    if not _made_by(program, operation, 1, "pd_op.full"):
        return "axis is not a constant (pd_op.full)"
    axis, dtype = int(program.maker(operation, 1).attributes["value"]), operation.attributes["dtype"]
    if axis == 0 or operation.attributes["flatten"]:
        return "axis 0 or flattened"
    if dtype not in ("int32", "int64"):
        return f"gives {dtype}, not int32 or int64"
    return _dtypes(*FLOATS)(program, operation)


def _topk(program: Program, operation: Operation) -> str | None:
    if not _made_by(program, operation, 1, "pd_op.full"):
        return "k is not a constant (pd_op.full)"
    return None if operation.attributes.get("sorted", True) else "the result is not sorted"


def _bilinear(program: Program, operation: Operation) -> str | None:
    attributes = operation.attributes
    if attributes["data_format"] not in ("NCHW", "NHWC") or attributes["interp_method"] != "bilinear":
        return f"data format {attributes['data_format']}, method {attributes['interp_method']}"
    sizes = operation.inputs[2]
    if sizes:
        upstream, value = [], sizes
        while value in program.makers and len(upstream) < 3:
            upstream.append(maker := program.makers[value])
            value = maker.inputs[0] if maker.inputs else 0
        if not any("shape64" in maker.name for maker in upstream):
            return "the size comes from a tensor without shape64 among its last three producers"
        if isinstance(program.types[sizes], tuple) and len(program.types[sizes]) == 2:
            return None
    if operation.inputs[3]:
        return "the scale comes from a tensor"
    if len(attributes["scale"]) > 1:
        return None if min(attributes["scale"]) > 0 else "a scale is not positive"
    return "one of out_h and out_w is not set" if (attributes["out_h"] > 0) != (attributes["out_w"] > 0) else None


def _same_rank(program: Program, operation: Operation) -> str | None:
    ranks = [len(program.input_type(operation, position).shape) for position in (0, 1)]
    return None if ranks[0] == ranks[1] else f"input of rank {ranks[0]}, index of rank {ranks[1]}"


def _full_with_tensor(program: Program, operation: Operation) -> str | None:
    dtype = operation.attributes["dtype"]
    return None if dtype in ("int32", "int64", "float32") else f"gives {dtype}"


# What converters refuse. The program is the folded one.


def _constant_weights(*positions: int) -> Check:
    """The converter reads these inputs as weights. Source: forbid_cast_op in util.py at d337c5a."""

    def check(program: Program, operation: Operation) -> str | None:
        makers = (program.maker(operation, position) for position in positions)
        computed = [maker.name for maker in makers if maker is not None and maker.name not in CONSTANTS]
        return f"a weight is computed by {computed[0]}" if computed else None

    return check


def _positive_axis(program: Program, operation: Operation) -> str | None:
    axis = operation.attributes["axis"] if "axis" in operation.attributes else _constant(program, operation, 2)
    return None if axis >= 0 else f"axis {axis} is handed to add_gather as it is"


def _constant(program: Program, operation: Operation, position: int) -> int:
    """The number that an input is, which was a pd_op.full."""
    return int(program.maker(operation, position).attributes["value"])


def _positive_axes(program: Program, operation: Operation) -> str | None:
    axes = [operation.attributes["start_axis"], operation.attributes["stop_axis"]]
    return None if min(axes) >= 0 else f"axes {axes}: a negative one becomes another axis"


def _resize_lengths(program: Program, operation: Operation) -> str | None:
    """A fixed size becomes a scale, from which TensorRT computes the length: the product, rounded down.

    Source: use_scales in common.py; NvInfer.h on IResizeLayer ("calculated as floor(input dimension * scale)").
    """
    given = (operation.attributes["out_h"], operation.attributes["out_w"])
    for length, wanted in zip(program.input_type(operation, 0).shape[2:], given, strict=True):
        if length > 0 and wanted > 0 and not operation.attributes["scale"]:
            scale = np.float32(wanted / length)
            found = int(np.float32(length) * scale)
            if found != wanted:
                return f"{length} times the scale {scale} is a length of {found}, not {wanted}"
    return None


def _equal_ranks(program: Program, operation: Operation) -> str | None:
    ranks = [len(program.input_type(operation, position).shape) for position in range(3)]
    return None if len(set(ranks)) == 1 else f"add_select gets inputs of ranks {ranks}"


def _argsort_limit(program: Program, operation: Operation) -> str | None:
    length = program.input_type(operation, 0).shape[operation.attributes["axis"]]
    return None if 0 < length < TOPK_LIMIT else f"sorts {length} values with TopK, whose K must be below {TOPK_LIMIT}"


def _topk_limit(program: Program, operation: Operation) -> str | None:
    k = program.types[operation.outputs[0]].shape[operation.attributes["axis"]]
    return None if 0 < k < TOPK_LIMIT else f"K is {k}; it must be below {TOPK_LIMIT}"


def _integer_arange(program: Program, operation: Operation) -> str | None:
    dtype = program.input_type(operation, 0).dtype
    return None if dtype == operation.attributes["dtype"] else f"its start is {dtype}, which gives floating point"


def _row(file: str, trt: str = "8.0", marker: Check = _anything, converter: Check = _anything) -> Row:
    return Row(marker, file, trt, converter)


def _rows(names: str, *arguments: object, **checks: Check) -> dict[str, Row]:
    return {f"pd_op.{name}": _row(*arguments, **checks) for name in names.split()}


NO_PATTERN = Row(_no_pattern, None, "8.0", _anything)
ROWS = {
    # Marked always (DEFINE_GENERAL_PATTERN).
    **_rows("relu tanh sigmoid logsigmoid relu6 softmax gelu hardsigmoid hardswish", "activation"),
    **_rows("elu softplus swish silu stanh mish thresholded_relu leaky_relu leaky_relu_ selu", "activation", "8.x"),
    **_rows("shape shape64", "attribute"),
    **_rows("embedding unbind", "common"),
    **_rows("dropout", "common", "8.x"),
    **_rows("conv2d", "conv", converter=_constant_weights(1)),
    **_rows("fused_conv2d_add_act", "conv", converter=_constant_weights(1, 2)),
    **_rows("depthwise_conv2d", "conv", "8.x", converter=_constant_weights(1)),
    **_rows("full full_int_array", "creation"),
    **_rows("assign assign_out_ assign_value assign_value_", "creation", "8.x"),
    **_rows("matmul", "linalg"),
    **_rows("bmm flip", "linalg", "8.x"),
    **_rows("reshape concat expand expand_as", "manipulation"),
    **_rows("tile roll numel", "manipulation", "8.x"),
    **_rows("add", "math", converter=_no_bool),
    **_rows("log isnan", "math", "8.x"),
    **_rows("batch_norm batch_norm_", "norm", converter=_constant_weights(1, 2, 3, 4)),
    **_rows("layer_norm", "norm", "8.6", converter=_constant_weights(1, 2)),
    **_rows("sqrt floor exp abs sin cos ceil reciprocal erf rsqrt", "ops"),
    **_rows("sign round", "ops", "8.2"),
    **_rows("nonzero", "search", "8.x"),
    # Marked under conditions.
    **_rows("pool2d", "pooling", marker=_pool2d),
    **_rows("transpose", "linalg", marker=_transpose),
    **_rows("multiply subtract divide", "math", marker=_no_bool),
    **_rows("minimum maximum floor_divide remainder less_equal greater_equal", "math", "8.x", marker=_no_bool),
    **_rows("greater_than less_than", "logic", "8.x", marker=_no_bool),
    **_rows("scale", "math", marker=_dtypes(*FLOATS, "int32", "int64")),
    **_rows("max", "math", marker=_dtypes(*NUMBERS)),
    **_rows("min sum mean", "math", "8.x", marker=_dtypes(*NUMBERS)),
    **_rows("clip", "math", "8.x", marker=_clip),
    **_rows("cumsum", "math", "8.x", marker=_needs(1, "pd_op.full", "axis")),
    **_rows("equal not_equal", "logic", "8.x"),
    **_rows("logical_not", "logic", "8.x", marker=_dtypes("bool")),
    **_rows("cast", "manipulation", "8.x", marker=_cast),
    **_rows("flatten", "manipulation", converter=_positive_axes),
    **_rows("squeeze", "manipulation", marker=_squeeze),
    **_rows("unsqueeze unsqueeze_", "manipulation", marker=_unsqueeze),
    **_rows("slice", "manipulation", marker=_slice),
    **_rows("strided_slice", "manipulation", "8.x", marker=_strided_slice),
    **_rows("split", "manipulation", "8.x", marker=_split),
    **_rows("split_with_num", "manipulation", "8.x"),
    **_rows("stack", "manipulation", "8.x", marker=_stack),
    **_rows("gather", "manipulation", "8.x", marker=_needs(2, "pd_op.full", "axis"), converter=_positive_axis),
    **_rows("gather_nd", "manipulation", "8.x"),
    **_rows("take_along_axis", "manipulation", "8.2", marker=_same_rank),
    **_rows("index_select", "search", "8.x", marker=_dtypes("int32", "int64", position=1), converter=_positive_axis),
    **_rows("argmax", "search", marker=_arg),
    **_rows("argmin", "search", "8.x", marker=_arg),
    **_rows("argsort", "search", "8.x", converter=_argsort_limit),
    **_rows("topk", "search", "8.x", marker=_topk, converter=_topk_limit),
    **_rows("where", "search", "8.x", converter=_equal_ranks),
    **_rows("bilinear_interp", "common", marker=_bilinear, converter=_resize_lengths),
    **_rows("arange", "creation", "8.x", converter=_integer_arange),
    **_rows("full_like", "creation", "8.x"),
    **_rows("full_with_tensor", "creation", "8.x", marker=_full_with_tensor),
    # Searched in the marker, and not there.
    "pd_op.trilinear_interp": NO_PATTERN,
    "pd_op.put_along_axis": NO_PATTERN,
    "pd_op.scatter": NO_PATTERN,
    "pd_op.scatter_nd_add": NO_PATTERN,
}
