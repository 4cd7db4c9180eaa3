"""The tables, the folding and the cutting on small graphs that are written by hand."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.tensorrt import onnx_rows, paddle_rows
from tests.export.tensorrt.__main__ import main
from tests.export.tensorrt.onnx_engines import partition as onnx_partition
from tests.export.tensorrt.onnx_rows import Graph
from tests.export.tensorrt.paddle_engines import partition
from tests.export.tensorrt.pir import Operation, Program, Tensor, fold_constants, read_program

F32 = "float32"


class Builder:
    """Writes a program: `self(name, inputs, dtype, shape, **attributes)` adds an operator and returns its output."""

    def __init__(self) -> None:
        self.operations, self.types = [], {}

    def __call__(self, name: str, inputs=(), dtype: str = F32, shape=(1, 8, 4, 4), outputs: int = 1, **attributes):
        numbers = [len(self.types) + i + 1 for i in range(outputs)]
        self.types.update((number, Tensor(dtype, tuple(shape))) for number in numbers)
        name = name if "." in name else f"pd_op.{name}"
        self.operations.append(Operation(name, attributes, list(inputs), numbers))
        return numbers[0]

    def many(self, value: int, number: int = 3) -> int:
        for _ in range(number):
            value = self("relu", [value])
        return value

    def program(self, *results: int) -> Program:
        for result in results:
            self("fetch", [result])
        return Program(self.operations, self.types)


def reasons(part) -> list[str]:
    return [reason for _, reason in part.refused] + [reason for _, reason in part.failures]


def test_an_operator_between_two_parts_cuts_and_one_beside_does_not():
    build = Builder()
    first = build.many(build("data"))
    beside = build.many(build("trilinear_interp", [first]), 1)
    last = build.many(build("trilinear_interp", [build.many(first)]))
    part = partition(build.program(build.many(build("add", [last, beside]))))
    assert [len(engine) for engine in part.engines] == [6, 8], "the second part takes what depends on both operators"
    assert [str(op).split()[0] for op, _ in part.refused] == ["pd_op.trilinear_interp"] * 2


def test_a_way_around_a_refused_operator_does_not_close_a_ring():
    build = Builder()
    first = build.many(build("data"))
    way, around = build.many(build("put_along_axis", [first])), build.many(first)
    part = partition(build.program(build("add", [way, around])))
    assert [len(engine) for engine in part.engines] == [3, 7], "the way around grows from the sum backwards"


def test_groups_below_three_operators_stay_in_paddle():
    build = Builder()
    part = partition(build.program(build.many(build("scatter", [build.many(build("data"), 2)]))))
    assert [len(engine) for engine in part.engines] == [3]
    assert reasons(part).count("its group is smaller than 3") == 2


def test_what_depends_on_parameters_alone_folds():
    build = Builder()
    weight = build("builtin.parameter", shape=(8,))
    shape = build("full_int_array", dtype="int64", shape=(4,), value=[1, -1, 1, 1])
    bias = build("reshape", [weight, shape], shape=(1, 8, 1, 1))
    build("full", shape=(3,), value=0.0)  # which nothing reads
    total = build("add", [build("data"), bias])
    folded = fold_constants(build.program(total))
    assert [op.name for op in folded.operations] == ["builtin.constant", "pd_op.data", "pd_op.add", "pd_op.fetch"]


def test_a_list_of_constants_that_two_read_does_not_fold():
    build = Builder()
    parts = [build("builtin.parameter", shape=(8,)) for _ in range(2)]
    both = build("builtin.combine", parts)
    build.types[both] = (Tensor(F32, (8,)),) * 2
    axis = build("full", dtype="int32", shape=(1,), value=0.0)
    once = fold_constants(build.program(build("concat", [both, axis], shape=(16,))))
    assert "pd_op.concat" not in [op.name for op in once.operations]
    twice = fold_constants(build.program(build("concat", [both, axis], shape=(16,))))
    assert [op.name for op in twice.operations].count("pd_op.concat") == 2


def pool(build, **changes):
    kernel = build("full_int_array", dtype="int64", shape=(2,), value=[3, 3])
    attributes = dict(
        paddings=[1, 1], data_format="NCHW", pooling_type="avg", global_pooling=False, exclusive=True, adaptive=False,
        ceil_mode=False, strides=[2, 2],
    )  # fmt: skip
    return build("pool2d", [build.many(build("data")), kernel], **{**attributes, **changes})


def with_axis(build, name, axis, dtype=F32, kind="full", **attributes):
    constant = build(kind, dtype="int64", shape=(1,), value=[axis] if kind == "full_int_array" else axis)
    return build(name, [build("data", dtype=dtype), constant], **attributes)


def select(build, axis, length=8):
    index = build("data", dtype="int64", shape=(length,))
    return build("index_select", [build("data"), index], axis=axis)


def gather(build, axis):
    index, constant = build("data", dtype="int64", shape=(3,)), build("full", dtype="int32", shape=(1,), value=axis)
    return build("gather", [build("data"), index, constant])


def topk(build, k, **attributes):
    constant = build("full", dtype="int32", shape=(1,), value=float(k))
    return build("topk", [build("data", shape=(1, 9999)), constant], shape=(1, k), outputs=2, axis=1, **attributes)


def resized(build, height=4, **changes):
    attributes = dict(data_format="NCHW", interp_method="bilinear", scale=[], out_h=8, out_w=8)
    return build("bilinear_interp", [build("data", shape=(1, 8, height, 4)), 0, 0, 0], **{**attributes, **changes})


PADDLE = {
    "pool": (pool, None),
    "pool, 4 paddings": (lambda b: pool(b, paddings=[1, 1, 1, 1]), "4 paddings, not 2"),
    "pool, NHWC": (lambda b: pool(b, data_format="NHWC"), "data format NHWC"),
    "pool, wide padding": (lambda b: pool(b, paddings=[3, 3]), "a padding is not smaller than the kernel"),
    "argmax": (lambda b: with_axis(b, "argmax", 1.0, flatten=False, dtype_="int64"), None),
    "argmax, axis 0": (lambda b: with_axis(b, "argmax", 0.0, flatten=False, dtype_="int64"), "axis 0 or flattened"),
    "argmax, bytes": (
        lambda b: with_axis(b, "argmax", 1.0, flatten=False, dtype_="uint8"), "gives uint8, not int32 or int64"
    ),
    "argmax, integers": (
        lambda b: with_axis(b, "argmax", 1.0, "int64", flatten=False, dtype_="int64"),
        "input 0 is int64, not float16 or float32 or float64",
    ),
    "squeeze": (lambda b: with_axis(b, "squeeze", 0, kind="full_int_array"), None),
    "squeeze of 8": (
        lambda b: with_axis(b, "squeeze", 1, kind="full_int_array"), "the length along axis 1 is 8, not 1"
    ),
    "unsqueeze": (lambda b: with_axis(b, "unsqueeze", 1, kind="full_int_array"), None),
    "unsqueeze 0": (lambda b: with_axis(b, "unsqueeze", 0, kind="full_int_array"), "axis 0 of a fixed shape"),
    "index_select": (lambda b: select(b, 1), None),
    "index_select, axis -1": (lambda b: select(b, -1), "axis -1 is handed to add_gather as it is"),
    "gather": (lambda b: gather(b, 0.0), None),
    "gather, axis -1": (lambda b: gather(b, -1.0), "axis -1 is handed to add_gather as it is"),
    "flatten": (lambda b: b("flatten", [b("data")], start_axis=2, stop_axis=3), None),
    "flatten, axis -1": (
        lambda b: b("flatten", [b("data")], start_axis=2, stop_axis=-1),
        "axes [2, -1]: a negative one becomes another axis",
    ),
    "topk": (lambda b: topk(b, 3839), None),
    "topk of 3840": (lambda b: topk(b, 3840), "K is 3840; it must be below 3840"),
    "topk, unsorted": (lambda b: topk(b, 2, sorted=False), "the result is not sorted"),
    "bilinear": (resized, None),
    "bilinear, 11 to 13": (
        lambda b: resized(b, 11, out_h=13), "11 times the scale 1.1818181276321411 is a length of 12, not 13"
    ),
    "bilinear, one length": (lambda b: resized(b, out_h=-1), "one of out_h and out_w is not set"),
    "cast": (lambda b: b("cast", [b("data", dtype="int64")], dtype_="float32"), None),
    "cast to bytes": (lambda b: b("cast", [b("data")], dtype_="uint8"), "casts to uint8"),
    "cast of bytes": (
        lambda b: b("cast", [b("data", dtype="uint8")], dtype_=F32),
        "TypeError: Unsupported dtype: UINT8 (its input from outside)",
    ),
    "add of bool": (lambda b: b("add", [b("data", dtype="bool")] * 2), "an input is bool"),
    "where": (lambda b: b("where", [b("data", dtype="bool"), b("data"), b("data")]), None),
    "where of other ranks": (
        lambda b: b("where", [b("data", dtype="bool"), b("data"), b("data", shape=(1,))]),
        "add_select gets inputs of ranks [4, 4, 1]",
    ),
    "multiply of bool": (lambda b: b("multiply", [b("data"), b("data", dtype="bool")]), "an input is bool"),
    "computed weight": (
        lambda b: b("conv2d", [b("data"), b.many(b("data"))]), "a weight is computed by pd_op.relu"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), PADDLE.values(), ids=PADDLE)
def test_rows_of_paddle(write, reason):
    build = Builder()
    result = build.many(write(build))
    for operation in build.operations:
        if "dtype_" in operation.attributes:  # the attribute, not the type of the output
            operation.attributes["dtype"] = operation.attributes.pop("dtype_")
    assert reasons(partition(build.program(result))) == ([] if reason is None else [reason])


def test_an_operator_without_a_row_is_named():
    build = Builder()
    with pytest.raises(paddle_rows.UnknownOperator, match=r"pd_op.fold has no row in tests/export/.*paddle_rows.py"):
        partition(build.program(build("fold", [build("data")])))
    graph = onnx_graph([helper.make_node("Trilu", ["x"], ["y"])])
    with pytest.raises(onnx_rows.UnknownOperator, match=r"Trilu has no row in tests/export/tensorrt/onnx_rows.py"):
        onnx_partition(graph, "10")


def test_every_row_has_its_source():
    for name, row in paddle_rows.ROWS.items():
        assert row.source.startswith("trt_op_marker_pass.cc at 02a5e4e, "), name
        assert row.trt in ("8.x", "8.0", "8.2", "8.6"), name
    for name, row in onnx_rows.ROWS.items():
        assert set(row.types) == {"8.6", "10"}, name


def test_the_reader_reads_types_and_attributes(tmp_path):
    tensor = {"#": "0.t_dtensor", "D": [{"#": "0.t_ui8"}, [1, -1], "NCHW", [], 0]}
    array = {"#": "0.a_array", "D": [{"#": "0.a_i64", "D": 3}, {"#": "0.a_i64", "D": 4}]}
    operations = [
        {"#": "p", "A": [0, 1, 1, "w"], "O": {"%": 1, "TT": tensor}},
        {"#": "0.combine", "A": [], "I": [{"%": 1}], "O": [{"%": 2, "TT": {"#": "0.t_vec", "D": [tensor]}}]},
        {"#": "1.fold", "A": [{"N": "value", "AT": array}], "I": [{"%": 2}, {"%": 0}], "O": []},
    ]
    content = {"program": {"regions": [{"blocks": [{"ops": operations}]}]}}
    (tmp_path / "model.json").write_text(json.dumps(content))
    program = read_program(tmp_path / "model.json")
    assert [op.name for op in program.operations] == ["builtin.parameter", "builtin.combine", "pd_op.fold"]
    assert program.types == {1: Tensor("uint8", (1, -1)), 2: (Tensor("uint8", (1, -1)),)}
    assert program.operations[2].attributes == {"value": [3, 4]}


def onnx_graph(nodes, inputs=(("x", TensorProto.FLOAT, (1, 8, 4, 4)),), outputs=("y",), constants=None) -> Graph:
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    for value in graph.output:
        value.ClearField("type")
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def one(op, names="x", result="y", **attributes) -> list[onnx.NodeProto]:
    return [helper.make_node(op, names.split(), result.split(), **attributes)]


def quantiser(zero) -> dict:
    return {"s": np.float32(0.1), "z": zero}


INT = TensorProto.INT64
BYTES = [("x", TensorProto.UINT8, (1, 4, 4, 3))]
ONNX = {
    "topk": (one("TopK", "x k", "y i"), {"constants": {"k": [3839]}}, None),
    "topk of 3840": (one("TopK", "x k", "y i"), {"constants": {"k": [3840]}}, "K is 3840; it must be below 3840"),
    "topk, unsorted": (one("TopK", "x k", "y i", sorted=0), {"constants": {"k": [2]}}, "sorted must be 1"),
    "resize, cubic": (one("Resize", "x e s", mode="cubic"), {"constants": {"e": [], "s": [1.0] * 4}}, "mode cubic"),
    "erf of integers": (one("Erf"), {"inputs": [("x", INT, (4,))]}, "x is int64, not float32 or float16"),
    "pooling in one dimension": (
        one("MaxPool", kernel_shape=[2]), {"inputs": [("x", 1, (1, 8, 4))]},
        "input of rank 3; only 2-D and 3-D pooling",
    ),
    "open axes": (
        one("Squeeze", "x a"), {"inputs": [("x", 1, (1, 8)), ("a", INT, (1,))]}, "axes is not an initializer"
    ),
    "statistics": (
        one("LayerNormalization", "x s", "y m"), {"constants": {"s": np.ones(4, np.float32)}},
        "only the first output is supported",
    ),
    "quantised to int8": (one("QuantizeLinear", "x s z"), {"constants": quantiser(np.int8(0))}, None),
    "quantised with a zero point": (
        one("QuantizeLinear", "x s z"),
        {"constants": quantiser(np.int8(3))},
        "zero point is not 0",
    ),
    "bytes and Cast": (one("Cast", to=1), {"inputs": BYTES}, None),
    "bytes and Erf": (one("Erf"), {"inputs": BYTES}, "x is uint8, not float32 or float16"),
    "Cast to bytes": (one("Cast", to=2), {}, None),
    "bytes inside": (
        [*one("Cast", "x", "z", to=2), *one("Cast", "z", to=1)], {}, "gives uint8 that is no output of the network"
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", ["8.6", "10"])
@pytest.mark.parametrize(("nodes", "arguments", "reason"), ONNX.values(), ids=ONNX)
def test_rows_of_onnx(nodes, arguments, reason, version):
    part = onnx_partition(onnx_graph(nodes, **arguments), version)
    found = [text for _, text in part.refused]
    assert found == ([] if reason is None else [reason])


def test_versions_differ():
    graph = onnx_graph(one("ReduceMax", axes=[1]), [("x", INT, (1, 8))])
    assert not onnx_partition(graph, "10").refused
    assert [text for _, text in onnx_partition(graph, "8.6").refused] == ["x is int64, not float32 or float16"]


def test_a_refused_node_cuts_runs_of_nodes_and_five_dimensions_are_doubted():
    nodes = [*one("Relu", "x", "a"), *one("Resize", "a e s", "b", mode="cubic"), *one("Relu", "b", "y")]
    part = onnx_partition(onnx_graph(nodes, constants={"e": np.float32([]), "s": np.ones(4, np.float32)}), "10")
    assert [len(engine) for engine in part.engines] == [1, 1] and part.faults()[0] == "2 engines"
    sizes = {"e": np.float32([]), "s": np.array([1, 8, 1, 8, 8])}
    deep = onnx_graph(one("Resize", "x e e s", mode="linear"), [("x", 1, (1, 8, 1, 4, 4))], constants=sizes)
    assert onnx_partition(deep, "10").faults() == ["Resize  may not build: Resize of rank 5"]


def test_command_prints_a_table_and_faults(tmp_path, capsys):
    nodes = [*one("Cast", "x", "z", to=2), *one("Cast", "z", to=1)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, (2,))], [helper.make_tensor_value_info("y", 1, (2,))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert f"| {tmp_path.name} | - | - | - | 2 | 1 | 1 |" in printed
    assert "TensorRT 10: Cast  is refused: gives uint8 that is no output of the network" in printed
