"""The first convolution on cells of the frame: equal to the one that it replaces, for every geometry that it takes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.export.graph import rewrite_stem
from tests.helpers import relative_error


def front(kernel: int, stride: int, padding: int, size: tuple, **attributes: object) -> onnx.ModelProto:
    """Frame, normalisation, order of the channels and one convolution, as an export writes them."""
    rng = np.random.default_rng(kernel + stride)
    constants = {
        "scale": rng.uniform(0.01, 0.02, 3).astype(np.float32), "shift": rng.normal(0, 2, 3).astype(np.float32),
        "order": np.array([2, 1, 0]), "weight": rng.normal(0, 0.1, (8, 3, kernel, kernel)).astype(np.float32),
        "bias": rng.normal(0, 1, 8).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["bgr"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["bgr", "order"], ["rgb"], axis=1),
        helper.make_node(
            "Conv", ["rgb", "weight", "bias"], ["y"], strides=[stride] * 2, pads=[padding] * 4, **attributes
        ),
    ]
    graph = helper.make_graph(
        nodes, "front", [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["batch", *size, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, "rows", "columns"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, frames: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"frame": frames})[0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size", "cells"),
    [
        (3, 2, 1, (32, 48), True), (7, 2, 3, (32, 48), True), (7, 4, 3, (32, 48), True), (4, 4, 0, (32, 48), True),
        (5, 2, 2, (6, 2), True), (3, 2, 1, (33, 48), False), (3, 2, 1, (32, 47), False), (3, 1, 1, (32, 48), False),
        (3, 2, 0, (32, 48), False), (7, 2, 2, (32, 48), False), (3, 2, 1, ("h", "w"), False),
    ],
)  # fmt: skip
def test_the_rewritten_stem_gives_the_same_numbers(kernel, stride, padding, size, cells):
    model = front(kernel, stride, padding, size)
    shape = [33 if isinstance(length, str) else length for length in size]
    frames = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    expected = run(model, frames)
    rewrite_stem(model)
    error = relative_error(run(model, frames), expected)
    assert error < 1e-6, f"relative error {error:.1e}"
    operators = [node.op_type for node in model.graph.node]
    assert "Gather" not in operators and ("Reshape" in operators) == cells
    assert operators[0] == "Cast", "TensorRT takes bytes as inputs and for nothing else"


def test_a_dilated_stem_keeps_its_stride():
    model = front(3, 2, 1, (32, 48), dilations=[2, 2])
    frames = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    expected = run(model, frames)
    rewrite_stem(model)
    assert "Reshape" not in [node.op_type for node in model.graph.node]
    error = relative_error(run(model, frames), expected)
    assert error < 1e-6, f"relative error {error:.1e}"


def test_another_front_stays_as_it_is():
    model = front(3, 2, 1, (32, 48))
    model.graph.node[2].op_type = "Sub"
    before = model.SerializeToString()
    rewrite_stem(model)
    assert model.SerializeToString() == before
