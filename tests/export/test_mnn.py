"""Graphs in MNN's format: what its converter refuses, and what its engine does with its inputs."""

import pathlib
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from paddle_rt.errors import UserError
from paddle_rt.export.mnn import MnnConversionError, convert_to_mnn
from paddle_rt.inference.engines import Mnn


def write_graph(path: pathlib.Path, op: str = "Conv", domain: str = "", size: tuple = ("h", "w")) -> pathlib.Path:
    """A convolution of 3x3 and stride 1 from bytes, or another operator in its place."""
    kernel = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["frame"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node(
            op, ["image", "kernel"], ["result"], domain=domain, **({"pads": [1] * 4} if not domain else {})
        ),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["n", *size, 3])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["n", 8, *size])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def converted(tmp_path):
    convert_to_mnn(write_graph(tmp_path / "g.onnx"), tmp_path / "g.mnn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.mnn", "g.onnx"]
    return tmp_path / "g.mnn"


def test_sizes_and_batches_may_change(converted, rng):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(converted.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    engine = Mnn(converted, threads=1)
    for shape in ((1, 32, 48, 3), (2, 32, 48, 3), (1, 31, 57, 3), (1, 32, 48, 3)):
        frames = rng.integers(0, 256, shape, np.uint8)
        (wanted,) = session.run(None, {"frame": frames})
        error = np.linalg.norm(engine.run(frames) - wanted) / np.linalg.norm(wanted)
        assert error < 1e-4, f"{shape}: relative error {error:.1e}"


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3, 32, 48), np.uint8), np.zeros((1, 32, 48, 3), np.float32), np.zeros((32, 48, 3), np.uint8)]
)
def test_an_input_that_does_not_fit_is_refused(converted, wrong):
    with pytest.raises(ValueError, match="the graph takes"):
        Mnn(converted, threads=1).run(wrong)


def test_a_graph_that_mnn_does_not_take_is_one_line(tmp_path):
    with pytest.raises(MnnConversionError, match="MNN cannot convert the graph: .*") as refused:
        convert_to_mnn(write_graph(tmp_path / "g.onnx", "Unheard", "own"), tmp_path / "g.mnn")
    assert "\n" not in str(refused.value) and [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "_tools", None)
    with pytest.raises(UserError, match="format mnn needs the package MNN: pip install MNN"):
        convert_to_mnn(tmp_path / "g.onnx", tmp_path / "g.mnn")
