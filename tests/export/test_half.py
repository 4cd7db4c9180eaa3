"""The conversion of ONNX graphs to half precision, and its verification by rounding, on graphs of a few nodes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.errors import UserError
from paddle_rt.export.graph.half import rounded, to_half


def model(nodes: list, constants: dict, shape: list[int], output: list[int | None]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(graph: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"x": x})


def types(graph: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output]}


def test_every_tensor_is_rounded_as_numpy_rounds_it():
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((3, 6)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Mul", ["product", "product"], ["square"]),
        helper.make_node("Relu", ["square"], ["y"]),
    ]
    half = model(nodes, {"w": weight}, [3, 6], [3, 4])
    assert to_half(half) == 0
    onnx.checker.check_model(half, full_check=True)
    graph, names = rounded(half)
    found, *observed = run(graph, x)
    product = (x.astype(np.float16).astype(np.float32) @ weight.astype(np.float16).astype(np.float32)).astype(
        np.float16
    )
    square = np.square(product.astype(np.float32)).astype(np.float16)
    error = np.abs(found - square.astype(np.float32)).max()
    assert error <= 2e-3 * square.max(), f"largest error {error:.1e}"
    assert found.dtype == np.float32 and len(observed) == 2 * len(names)
    assert float(observed[2 * names.index("square")]) == np.abs(found).max()


def test_values_beyond_the_range_are_seen():
    half = model([helper.make_node("Mul", ["x", "x"], ["y"])], {}, [2], [2])
    to_half(half)
    graph, names = rounded(half)
    sums = run(graph, np.array([1.0, 300.0], np.float32))[2::2]
    assert [name for name, total in zip(names, sums, strict=True) if not np.isfinite(total)]


def test_a_weight_beyond_the_range_is_refused():
    half = model([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.float32([1e5])}, [2], [2])
    with pytest.raises(UserError, match="a weight of 1.0e\\+05 is too large for half precision"):
        to_half(half)


def test_a_double_normalisation_stays_in_single_precision():
    """Scores of a wide range: in half precision the sum of a group would be 0, and its quotient not a number."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["softmax"], axis=2),
        helper.make_node("ReduceSum", ["softmax", "axes"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "epsilon"], ["guarded"]),
        helper.make_node("Div", ["softmax", "guarded"], ["weights"]),
        helper.make_node("Mul", ["weights", "two"], ["y"]),
    ]
    constants = {"axes": np.int64([1]), "epsilon": np.float32([1e-6]), "two": np.float32([2])}
    half = model(nodes, constants, [1, 4, 64], [1, 4, 64])
    assert to_half(half) == 4
    kinds = types(half)
    assert {kinds[name] for name in ("softmax", "sum", "guarded", "weights")} == {TensorProto.FLOAT}
    assert kinds["weights.half"] == TensorProto.FLOAT16
    x = 10 * np.random.default_rng(0).standard_normal((1, 4, 64)).astype(np.float32)
    assert np.isfinite(run(rounded(half)[0], x)[0]).all()


def test_lengths_long_sums_and_matching_stay_in_single_precision():
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["norm"], axis=-1),
        helper.make_node("Mul", ["norm", "norm"], ["square"]),
        helper.make_node("ReduceSum", ["square", "axes"], ["sum"], keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["length"]),
        helper.make_node("Div", ["norm", "length"], ["unit"]),
        helper.make_node("TopK", ["sum", "k"], ["values", "indices"], axis=1, largest=0),
        helper.make_node("Transpose", ["unit"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "unit"], ["long"]),
        helper.make_node("Relu", ["long"], ["y"]),
    ]
    constants = {"scale": np.ones(4, np.float32), "axes": np.int64([2]), "k": np.int64([3])}
    half = model(nodes, constants, [1, 2000, 4], [1, 4, 4])
    half.graph.output.append(helper.make_tensor_value_info("indices", TensorProto.INT64, [1, 3, 1]))
    to_half(half)
    kinds = types(half)
    assert {kinds[name] for name in ("norm", "square", "sum", "length", "long")} == {TensorProto.FLOAT}
    assert {kinds[name] for name in ("unit", "turned", "long.half")} == {TensorProto.FLOAT16}


def test_normalisation_and_clip_fit_into_the_range():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("BatchNormalization", ["x", "w", "b", "mean", "variance"], ["norm"]),
        helper.make_node("Clip", ["norm", "least"], ["y"]),
    ]
    constants = {name: rng.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("w", "b", "mean")}
    constants |= {"variance": np.float32([1e6, 2e8, 1.0]), "least": np.float32(1e-24)}
    half = model(nodes, constants, [1, 3, 4], [1, 3, 4])
    single = onnx.ModelProto.FromString(half.SerializeToString())
    x = rng.standard_normal((1, 3, 4)).astype(np.float32)
    to_half(half)
    assert "BatchNormalization" not in {node.op_type for node in half.graph.node}
    (expected,), found = run(single, x), run(rounded(half)[0], x)[0]
    error = np.abs(found - np.maximum(expected, 2.0**-14)).max()
    assert error < 4e-3 and found.min() >= 2.0**-14, f"largest error {error:.1e}, least {found.min():.1e}"
