"""Rewrite the first convolution of an ONNX graph exactly, so that it runs several times as fast on a CPU.

A convolution with stride s over three channels leaves a vector unit nearly idle. If the frame is cut into cells of
s x s pixels, it has 3 s^2 channels and the same convolution has stride 1: each weight moves to the cell and the channel
of its pixel, and the other weights are zeros. The border is padded with whole cells of zeros, which changes no result.
"""

import numpy as np
import onnx
from onnx import numpy_helper

# What an export puts before the network: the conversion to float, scale, shift, channels first, BGR to RGB.
_FRONT = ("Cast", "Mul", "Add", "Transpose", "Gather", "Conv")


def rewrite_stem(model: onnx.ModelProto) -> None:
    """Fold the order of the channels into the first convolution, and where the size is fixed cut the frame into cells.

    A graph that does not begin with a uint8 frame [N, H, W, 3], its normalisation and one convolution is not changed.

    Args:
        model: The model, which is changed in place.
    """
    graph = model.graph
    chain = _front(graph)
    if chain is None:
        return
    cast, scale, shift, transpose, order, conv = chain
    constants = {tensor.name: tensor for tensor in graph.initializer}
    permutation = numpy_helper.to_array(constants[order.input[1]]).ravel()
    weight = np.empty_like(numpy_helper.to_array(constants[conv.input[1]]))
    weight[:, permutation] = numpy_helper.to_array(constants[conv.input[1]])
    conv.input[0] = transpose.output[0]
    conv.input[1] = _add(graph, "stem.weight", weight)
    graph.node.remove(order)
    height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:3])
    geometry = _geometry(conv, weight.shape)
    if geometry is not None and height and width and height % geometry[0] == 0 and width % geometry[0] == 0:
        _cut_into_cells(graph, chain, weight, height, width, *geometry)
    read = {name for node in graph.node for name in node.input}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def _front(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """Return the nodes from the frame to the first convolution, or None for other nodes or several readers."""
    chain, name = [], graph.input[0].name
    if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return None
    constants = {tensor.name for tensor in graph.initializer}
    for kind in _FRONT:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type != kind or not set(readers[0].input[1:]) <= constants:
            return None
        chain.append(readers[0])
        name = readers[0].output[0]
    return chain


def _geometry(conv: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return stride and padding of a square convolution that divides the size by its stride exactly, or None."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    kernel, strides, pads = shape[2], attributes.get("strides", [1]), attributes.get("pads", [0])
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    automatic = attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    if not plain or automatic or shape[2] != shape[3] or len(set(strides)) > 1 or len(set(pads)) > 1:
        return None
    stride, padding = strides[0], pads[0]
    # The output has size / stride rows for every size that stride divides.
    exact = 0 <= kernel - 2 * padding - 1 < stride
    return (stride, padding) if stride > 1 and exact else None


def _cut_into_cells(
    graph: onnx.GraphProto, chain: list[onnx.NodeProto], weight: np.ndarray, height: int, width: int, stride: int,
    padding: int,
) -> None:  # fmt: skip
    cast, scale, shift, _, _, conv = chain  # the cast stays first, since TensorRT takes bytes only as inputs
    outputs, channels, kernel, _ = weight.shape
    before, after = -((-padding) // stride), (kernel - 1 - padding) // stride  # whole cells outside the border
    cells = np.zeros((outputs, stride, stride, channels, before + after + 1, before + after + 1), weight.dtype)
    for y in range(kernel):
        for x in range(kernel):
            (row, inner_row), (column, inner_column) = divmod(y - padding, stride), divmod(x - padding, stride)
            cells[:, inner_row, inner_column, :, row + before, column + before] = weight[:, :, y, x]
    conv.input[1] = _add(graph, "stem.cells", cells.reshape(outputs, -1, before + after + 1, before + after + 1))
    values = {"kernel_shape": [before + after + 1] * 2, "strides": [1, 1], "pads": [before, before, after, after]}
    kept = [attribute for attribute in conv.attribute if attribute.name not in values]
    del conv.attribute[:]
    conv.attribute.extend(kept + [onnx.helper.make_attribute(name, value) for name, value in values.items()])

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in (scale, shift):
        constant = numpy_helper.to_array(constants[node.input[1]])
        tiled = np.tile(np.broadcast_to(constant.ravel(), channels), stride * stride)
        node.input[1] = _add(graph, f"stem.{node.op_type.lower()}", tiled)
    rows = [0, height // stride, stride, width // stride, stride * channels]
    flat = [0, height // stride, width // stride, stride * stride * channels]
    nodes = [
        onnx.helper.make_node("Reshape", [cast.output[0], _add(graph, "stem.rows", np.array(rows))], ["stem.split"]),
        onnx.helper.make_node("Transpose", ["stem.split"], ["stem.grouped"], perm=[0, 1, 3, 2, 4]),
        onnx.helper.make_node("Reshape", ["stem.grouped", _add(graph, "stem.flat", np.array(flat))], ["stem.frame"]),
    ]
    scale.input[0] = "stem.frame"
    place = list(graph.node).index(cast) + 1
    for position, node in enumerate(nodes):
        graph.node.insert(place + position, node)


def _add(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name
