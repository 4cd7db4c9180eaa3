"""The work of a network, and the rate at which a machine could do it: that of one large matrix product."""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home
from paddle_rt.inference.engines import Mnn, OnnxRuntime, PaddleInference, openvino_core, switch_off_telemetry

_LENGTH = 2048
_WINOGRAD_SAVES = 1 - 64 / 324


def matrix_rate(backend: str, precision: str, threads: int, length: int = _LENGTH) -> float | None:
    """Measure the operations a second (two for a product and a sum) of a product of two square matrices.

    Args:
        backend: The backend whose library computes the product.
        precision: The precision of the product.
        threads: CPU threads.
        length: The number of rows and columns.

    Returns:
        The rate at the median time of nine products, or None where the library has no such product.
    """
    matrix = np.random.default_rng(0).standard_normal((length, length)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        if backend == "openvino":
            run = _openvino(matrix, precision, threads)
        elif precision != "fp32":
            return None
        elif backend in ("onnxruntime", "mnn"):
            run = _onnx(backend, matrix, threads, pathlib.Path(folder))
        else:
            run = _paddle(matrix, threads, pathlib.Path(folder))
        times = []
        for _ in range(12):
            start = time.perf_counter()
            run(matrix)
            times.append(time.perf_counter() - start)
    return 2 * length**3 / statistics.median(times[3:])


class Work(NamedTuple):
    """The floating-point operations of the products of a network, two for a product and a sum.

    Args:
        direct: Of the products as the graph writes them.
        winograd: With Winograd's algorithm for the convolutions of 3x3 and stride 1. Tiles of 6x6, the largest in use,
            need 64 products for 36 outputs instead of 324; their transforms, which only add, are not counted.
    """

    direct: float
    winograd: float


def count_operations(onnx_file: str | pathlib.Path) -> Work:
    """Count the operations of an ONNX graph of fixed size.

    Args:
        onnx_file: The graph.

    Raises:
        UserError: The graph leaves sizes open.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(onnx_file)), data_prop=True).graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    total = saved = 0
    for node in graph.node:
        if node.op_type == "Conv":
            operations = 2 * np.prod(shapes[node.input[1]][1:]) * np.prod(shapes[node.output[0]][1:])
            total += operations
            saved += operations * _WINOGRAD_SAVES if _has_winograd(node, shapes[node.input[1]]) else 0
        elif node.op_type in ("MatMul", "Gemm"):
            total += 2 * shapes[node.input[0]][-1] * np.prod(shapes[node.output[0]][1:])
        if node.op_type in ("Conv", "MatMul", "Gemm") and 0 in shapes[node.output[0]][1:]:
            raise UserError(f"{onnx_file} leaves sizes open; export it with --input_size to count its operations")
    return Work(float(total), float(total - saved))


def _has_winograd(node: Any, weight: list[int]) -> bool:
    """Return whether a convolution is one of 3x3 with stride 1, without dilation and groups."""
    values = {item.name: set(item.ints) or {item.i} for item in node.attribute}
    plain = all(values.get(name, {1}) == {1} for name in ("strides", "dilations", "group"))
    return plain and weight[2:] == [3, 3]


def _openvino(matrix: np.ndarray, precision: str, threads: int) -> Callable[[np.ndarray], object]:
    switch_off_telemetry()
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter(list(matrix.shape), openvino.Type.f32)
    left, right = x, ops.constant(matrix)
    if precision == "int8":
        edges = [ops.constant(np.array(value, np.float32)) for value in (-4.0, 4.0)]
        left, right = (ops.fake_quantize(m, *edges, *edges, 256 - (m is right)) for m in (left, right))
    hint = {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32")
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1"}
    model = openvino.Model([ops.matmul(left, right, False, False)], [x])
    request = openvino_core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda values: request.infer([values], share_inputs=True)


def _onnx(backend: str, matrix: np.ndarray, threads: int, folder: pathlib.Path) -> Callable[[np.ndarray], object]:
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, matrix.shape) for name in "xy"]
    constant = onnx.numpy_helper.from_array(matrix, "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", values[:1], values[1:],
                              [constant])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "product.onnx"))
    if backend == "mnn":
        from paddle_rt.export.mnn import convert_to_mnn

        convert_to_mnn(folder / "product.onnx", folder / "product.mnn")
        return Mnn(folder / "product.mnn", threads=threads).run
    return OnnxRuntime(folder / "product.onnx", threads=threads).run


def _paddle(matrix: np.ndarray, threads: int, folder: pathlib.Path) -> Callable[[np.ndarray], object]:
    import paddle

    class Product(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.weight = self.create_parameter(list(matrix.shape))
            self.weight.set_value(matrix)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.matmul(x, self.weight)

    product = Product()
    product.eval()
    spec = paddle.static.InputSpec(list(matrix.shape), "float32", "x")
    with temporary_home():  # where Paddle writes the code that it traces
        paddle.jit.save(paddle.jit.to_static(product, input_spec=[spec], full_graph=True), str(folder / "product"))
    return PaddleInference(folder / "product.json", folder / "product.pdiparams", threads=threads).run
