"""Rewrite ONNX graphs for inference: fewer nodes, and the same results up to the rounding of float32.

Every step is algebra that holds for all inputs and all networks. Constants are folded in float64 and stored in float32.
Softmax, GELU and attention keep the nodes that engines recognise and fuse.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from paddle_rt.export.graph.index import Graph, Node

# A computed constant may be this large, or as large as its inputs; otherwise a fill or a tile would swell the file.
_LARGEST_RESULT = 1 << 20
# Folding DequantizeLinear would undo a quantisation.
_KEPT = ("DequantizeLinear", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial")
# A Cast to fewer bits keeps the lowest, so that the last of several in a row decides.
_BITS = {TensorProto.INT64: 64, TensorProto.INT32: 32, TensorProto.UINT8: 8}
_IDENTITY_RESIZES = (b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric")


def optimise(model: onnx.ModelProto) -> None:
    """Fold, merge and remove nodes until nothing changes, and name the open dimensions of inputs and outputs.

    Folded are BatchNormalization and per-channel arithmetic into the Conv or BatchNormalization before them;
    BatchNormalization into the unpadded Convs after it; scalar factors through MatMul and changes of layout into a
    constant; and nodes whose inputs are constants or static shapes. Removed are nodes without effect, duplicates, and
    nodes that no output needs. BatchNormalization before a Conv that pads with zeros stays, since those zeros are not
    normalised.

    Args:
        model: The model, which is changed in place. Control flow (nodes that hold graphs) is not supported; no exported
            network has any.
    """
    changed = True
    while changed:  # constants that were folded let shape inference determine more shapes
        graph = Graph(model)
        changed = _simplify(graph)
        graph.write(model)
    _name_dimensions(model)


def _simplify(graph: Graph) -> bool:
    """Apply every step to every node until none changes anything. Return whether there was a change."""
    changed = False
    progress = True
    while progress:
        progress = False
        for step in _STEPS:
            for node in list(graph.nodes):
                if graph.producers.get(node.outputs[0]) is node:
                    progress |= step(graph, node)
        for node in reversed(list(graph.nodes)):
            if not any(graph.readers[name] or name in graph.outputs for name in node.outputs):
                graph.remove(node)
                changed = True
        changed |= progress
    return changed


def _fold_constants(graph: Graph, node: Node) -> bool:
    """Compute nodes that read only constants, and nodes that take a static part of a shape."""
    if node.op == "Shape" and node.inputs[0] not in graph.constants:
        dims = graph.shapes.get(node.inputs[0], [""])[node.get("start", 0) : node.get("end")]
        return all(isinstance(dim, int) for dim in dims) and graph.freeze(node, np.array(dims, np.int64))
    producer = graph.producers.get(node.inputs[0]) if node.inputs else None
    if node.op in ("Slice", "Gather") and producer and producer.op == "Shape" and not producer.proto.attribute:
        open_dim = -(1 << 40)  # neither a size nor an index
        dims = [dim if isinstance(dim, int) else open_dim for dim in graph.shapes.get(producer.inputs[0], [])]
        if not dims or not all(name in graph.constants for name in node.inputs[1:]):
            return False
        (part,) = _evaluate(graph, node, {node.inputs[0]: np.array(dims, np.int64)})
        return not (part == open_dim).any() and graph.freeze(node, part)
    known = all(name in graph.constants for name in filter(None, node.inputs))
    if not known or node.op.startswith(_KEPT) or node.proto.domain or not all(node.outputs):
        return False
    try:
        results = _evaluate(graph, node, {})
    except NotImplementedError:  # the reference evaluator lacks the operator
        return False
    limit = max(_LARGEST_RESULT, sum(graph.value(name).nbytes for name in filter(None, node.inputs)))
    return sum(result.nbytes for result in results) <= limit and graph.freeze(node, *results)


def _evaluate(graph: Graph, node: Node, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a node for these values and the graph's constants."""
    feeds = {name: values[name] if name in values else graph.value(name) for name in filter(None, node.inputs)}
    inputs, outputs = ([helper.make_empty_tensor_value_info(name) for name in names] for names in (feeds, node.outputs))
    proto = onnx.NodeProto.FromString(node.proto.SerializeToString())
    proto.input[:], proto.output[:] = node.inputs, node.outputs
    model = helper.make_model(helper.make_graph([proto], "fold", inputs, outputs), opset_imports=graph.opsets)
    return [np.asarray(item) for item in ReferenceEvaluator(model).run(None, feeds)]


def _fix_reshape(graph: Graph, node: Node) -> bool:
    """Replace the computed sizes of a Reshape by a constant where they are static, copied from its input, or inferred.

    Converters compute them with Shape, Slice and Concat, even for a flatten.
    """
    target = graph.shapes.get(node.outputs[0])
    if node.op != "Reshape" or node.inputs[1] in graph.constants or not target or node.get("allowzero", 0):
        return False
    source = graph.shapes.get(node.inputs[0], [])
    sizes = [d if isinstance(d, int) else 0 if source[i : i + 1] == [d] else -1 for i, d in enumerate(target)]
    if sizes.count(-1) > 1:
        return False
    graph.set_input(node, 1, graph.add(np.array(sizes, np.int64), node.outputs[0]))
    return True


def _drop_no_op(graph: Graph, node: Node) -> bool:
    """Remove a node that returns its input: Identity, Dropout, a sum with 0, a Resize or Reshape to the same size."""
    if not node.inputs or any(graph.readers[name] or name in graph.outputs for name in node.outputs[1:]):
        return False
    source = node.inputs[0]
    neutral = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}.get(node.op)
    if neutral is not None:
        operand = node.inputs[1]
        if node.op in ("Add", "Mul") and source in graph.constants:
            source, operand = operand, source
        values = graph.real(operand)
        has_effect = values is None or bool((values != neutral).any()) or not _fits_into(graph, source, values.shape)
    else:
        has_effect = not _returns_input(graph, node)
    return not has_effect and graph.bypass(node, source)


def _returns_input(graph: Graph, node: Node) -> bool:
    """Return whether a node without arithmetic returns its first input."""
    source = node.inputs[0]
    match node.op:
        case "Identity":
            return True
        case "Dropout":
            training = node.inputs[2] if len(node.inputs) > 2 else ""
            return not training or (training in graph.constants and not graph.value(training).any())
        case "Cast":
            return node.get("to") == graph.types.get(source)
        case "Concat":
            return len(node.inputs) == 1
        case "Relu":
            producer = graph.producers.get(source)
            return producer is not None and producer.op == "Relu"
        case "Transpose":
            return node.get("perm") is not None and node.get("perm") == sorted(node.get("perm"))
        case "Reshape" | "Expand":
            return _keeps_static_shape(graph, node)
        case "Resize":
            mode = node.get("coordinate_transformation_mode", b"half_pixel")
            return mode in _IDENTITY_RESIZES and _keeps_static_shape(graph, node)
        case "Slice":
            return _goes_forward(graph, node) and _keeps_static_shape(graph, node)
    return False


def _keeps_static_shape(graph: Graph, node: Node) -> bool:
    """Return whether input and output of a node have the same shape, all of it static."""
    dims = graph.shapes.get(node.inputs[0])
    return dims is not None and dims == graph.shapes.get(node.outputs[0]) and all(isinstance(d, int) for d in dims)


def _fits_into(graph: Graph, name: str, shape: Sequence[int]) -> bool:
    """Return whether the value keeps its shape when it is broadcast with a constant of this shape."""
    dims = graph.shapes.get(name, [])
    return len(shape) <= len(dims) and all(size in (1, dim) for size, dim in zip(shape[::-1], dims[::-1], strict=False))


def _goes_forward(graph: Graph, node: Node) -> bool:
    """Return whether all steps of a Slice are known and positive."""
    return all(name in graph.constants and (graph.value(name) > 0).all() for name in node.inputs[4:])


def _keeps_shape(graph: Graph, name: str, factor: np.ndarray) -> bool:
    """Return whether the constant is a single number that adds no dimensions to the value."""
    return factor.size == 1 and (factor.ndim == 0 or factor.ndim <= len(graph.shapes.get(name, [])))


def _shorten_top_k(graph: Graph, node: Node) -> bool:
    """Reduce a TopK to the entries that are read.

    paddle2onnx writes a sort and a Slice; TensorRT takes at most 3840 entries.
    """
    readers = [reader for name in node.outputs for reader in graph.readers[name]]
    if node.op != "TopK" or not node.get("sorted", 1) or not readers or graph.outputs.intersection(node.outputs):
        return False
    rank = len(graph.shapes.get(node.inputs[0], []))
    read = [_first_entries(graph, reader, node.get("axis", -1), rank) for reader in readers]
    if None in read or node.inputs[1] not in graph.constants or not max(read) < graph.value(node.inputs[1]).item():
        return False
    graph.set_input(node, 1, graph.add(np.array([max(read)], np.int64), node.inputs[1]))
    return True


def _first_entries(graph: Graph, node: Node, axis: int, rank: int) -> int | None:
    """Return how many entries a Slice takes from the front of an axis; None for another Slice or another node."""
    if node.op != "Slice" or len(node.inputs) < 4 or not all(name in graph.constants for name in node.inputs[1:]):
        return None
    starts, ends, axes, *steps = (graph.value(name).tolist() for name in node.inputs[1:])
    plain = len(axes) == 1 and starts == [0] and steps in ([], [[1]]) and ends[0] > 0
    return ends[0] if plain and rank and axes[0] % rank == axis % rank else None


def _merge_pair(graph: Graph, node: Node) -> bool:
    """Merge two Transposes, two Reshapes or two Casts of whole numbers in a row."""
    producer = graph.producers.get(node.inputs[0]) if node.inputs else None
    if producer is None or producer.op != node.op:
        return False
    if node.op == "Transpose":
        first, second = producer.get("perm"), node.get("perm")
        if not first or not second:
            return False
        del node.proto.attribute[:]
        node.proto.attribute.append(helper.make_attribute("perm", [first[axis] for axis in second]))
    elif node.op == "Cast":
        kinds = (graph.types.get(producer.inputs[0]), producer.get("to"), node.get("to"))
        bits = [_BITS.get(kind) for kind in kinds]
        if None in bits or bits != sorted(bits, reverse=True):
            return False
    elif node.op != "Reshape" or node.inputs[1] not in graph.constants or (graph.value(node.inputs[1]) == 0).any():
        return False  # a 0 copies a size of the Reshape before it
    graph.set_input(node, 0, producer.inputs[0])
    return True


def _flatten_resize(graph: Graph, node: Node) -> bool:
    """Replace Unsqueeze, Resize to constant sizes and Squeeze of the same axis by a Resize without the axis."""
    resize = graph.producers.get(node.inputs[0]) if node.op == "Squeeze" and len(node.inputs) == 2 else None
    unsqueeze = graph.producers.get(resize.inputs[0]) if resize and resize.op == "Resize" else None
    if unsqueeze is None or unsqueeze.op != "Unsqueeze" or not graph.only_reader(resize.outputs[0], node):
        return False
    sizes = resize.inputs[3] if len(resize.inputs) == 4 else ""
    if sizes not in graph.constants or unsqueeze.inputs[1] != node.inputs[1] or node.inputs[1] not in graph.constants:
        return False
    axes = graph.value(node.inputs[1])
    if axes.size != 1:
        return False
    graph.set_input(resize, 3, graph.add(np.delete(graph.value(sizes), axes), sizes))
    graph.set_input(resize, 0, unsqueeze.inputs[0])
    graph.shapes[resize.outputs[0]] = graph.shapes[node.outputs[0]]
    return graph.bypass(node, resize.outputs[0])


def _merge_equal(graph: Graph, node: Node) -> bool:
    """Merge equal nodes into the first of them, except nodes whose value is an output of the graph."""
    if not node.inputs or len(node.outputs) > 1 or node.outputs[0] in graph.outputs or node.op.startswith(_KEPT):
        return False
    twins = [n for n in graph.readers[node.inputs[0]] if n is not node and n.same_as(node)]
    twins = [twin for twin in dict.fromkeys(twins) if twin.outputs[0] not in graph.outputs]
    for twin in twins:
        graph.bypass(twin, node.outputs[0])
    return bool(twins)


def batch_norm(graph: Graph, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Return scale and shift of a BatchNormalization with constant statistics, or None."""
    if node.op != "BatchNormalization" or node.get("training_mode", 0):
        return None
    parameters = [graph.real(name) for name in node.inputs[1:]]
    if any(values is None for values in parameters):
        return None
    weight, bias, mean, variance = parameters
    squares = variance + node.get("epsilon", 1e-5)
    if (squares <= 0).any():  # of damaged weights; the graph keeps the node, and the verification judges what it gives
        return None
    scale = weight / np.sqrt(squares)
    return scale, bias - mean * scale


def _affine(graph: Graph, node: Node) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Return the value that a node scales and shifts for each channel (axis 1), the scale and the shift, or None."""
    if (normalisation := batch_norm(graph, node)) is not None:
        return node.inputs[0], *normalisation
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    source, operand = node.inputs
    if node.op in ("Add", "Mul") and source in graph.constants:
        source, operand = operand, source
    constant, dims = graph.real(operand), graph.shapes.get(source)
    if constant is None or dims is None or constant.ndim > len(dims):
        return None
    shape = (1,) * (len(dims) - constant.ndim) + constant.shape
    if constant.size > 1 and (len(shape) < 2 or constant.size != shape[1]):
        return None
    vector = constant.ravel()
    if node.op == "Div" and not vector.all():
        return None
    if node.op in ("Mul", "Div"):
        return source, vector if node.op == "Mul" else 1 / vector, np.zeros(1)
    return source, np.ones(1), vector if node.op == "Add" else -vector


def _fold_behind(graph: Graph, node: Node) -> bool:
    """Fold a scale and a shift into the weight and bias of the Conv or BatchNormalization before them."""
    affine = _affine(graph, node)
    conv = graph.producers.get(affine[0]) if affine else None
    if conv is None or conv.op not in ("Conv", "BatchNormalization") or not graph.only_reader(affine[0], node):
        return False
    _, scale, shift = affine
    weight = graph.real(conv.inputs[1])
    absent = len(conv.inputs) < 3 or not conv.inputs[2]
    bias = np.zeros(1) if absent else graph.real(conv.inputs[2])
    if weight is None or bias is None or not {scale.size, shift.size} <= {1, len(weight)}:
        return False
    columns = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    graph.set_input(conv, 1, graph.add(weight * columns, conv.inputs[1]))
    bias = np.broadcast_to(bias * scale + shift, len(weight))
    if not absent or bias.any():
        graph.set_input(conv, 2, graph.add(bias, f"{conv.inputs[1]}.bias" if absent else conv.inputs[2]))
    return graph.bypass(node, affine[0])


def _fold_ahead(graph: Graph, node: Node) -> bool:
    """Fold a BatchNormalization that only unpadded Convs read into the weights and biases of all of them."""
    normalisation, output = batch_norm(graph, node), node.outputs[0]
    if normalisation is None or output in graph.outputs or not graph.readers[output]:
        return False
    if not all(_is_unpadded(graph, reader, output) for reader in graph.readers[output]):
        return False
    for conv in list(graph.readers[output]):
        weight, groups = graph.real(conv.inputs[1]), conv.get("group", 1)
        grouped = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        scale, shift = (values.reshape(groups, 1, -1, 1) for values in normalisation)
        bias = (grouped * shift).sum(axis=(2, 3)).ravel()
        absent = len(conv.inputs) < 3 or not conv.inputs[2]
        bias = bias if absent else bias + graph.real(conv.inputs[2])
        graph.set_input(conv, 2, graph.add(bias, f"{conv.inputs[1]}.bias" if absent else conv.inputs[2]))
        graph.set_input(conv, 1, graph.add((grouped * scale).reshape(weight.shape), conv.inputs[1]))
        graph.set_input(conv, 0, node.inputs[0])
    graph.remove(node)
    return True


def _is_unpadded(graph: Graph, node: Node, source: str) -> bool:
    """Return whether a node is a Conv of the value that has constant weights and no padding."""
    plain = node.op == "Conv" and node.inputs[0] == source and not any(node.get("pads", []))
    constant = all(graph.real(name) is not None for name in filter(None, node.inputs[1:]))
    return plain and constant and node.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")


def _fold_factor(graph: Graph, node: Node) -> bool:
    """Fold a scalar factor, such as the scale of attention scores, into constants before products and transposes."""
    if node.op not in ("Mul", "Div"):
        return False
    source, operand = node.inputs
    if node.op == "Mul" and source in graph.constants:
        source, operand = operand, source
    factor = graph.real(operand)
    if factor is None or not _keeps_shape(graph, source, factor) or (node.op == "Div" and not factor.all()):
        return False
    places = _factor_places(graph, source, node)
    if places is None:
        return False
    scalar = 1 / factor.item() if node.op == "Div" else factor.item()
    for place, position in places:
        graph.set_input(place, position, graph.add(graph.real(place.inputs[position]) * scalar, place.inputs[position]))
    return graph.bypass(node, source)


def _factor_places(graph: Graph, name: str, reader: Node) -> list[tuple[Node, int]] | None:
    """Return the constants to multiply, as (node, input), in order to multiply the value `name`, or None."""
    producer = graph.producers.get(name)
    if producer is None or not graph.only_reader(name, reader):
        return None
    constant = [graph.real(item) is not None for item in producer.inputs]
    if producer.op in ("Conv", "BatchNormalization"):
        own = range(1, min(len(producer.inputs), 3))
        return [(producer, i) for i in own if producer.inputs[i]] if all(constant[i] for i in own) else None
    if producer.op in ("MatMul", "Add") and any(constant):
        place = (producer, constant.index(True))
        if producer.op == "MatMul":
            return [place]
        rest = _factor_places(graph, producer.inputs[1 - place[1]], producer)
        return None if rest is None else [place, *rest]
    if producer.op == "MatMul":
        return _factor_places(graph, producer.inputs[0], producer) or _factor_places(
            graph, producer.inputs[1], producer
        )
    layouts = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice")
    return _factor_places(graph, producer.inputs[0], producer) if producer.op in layouts else None


_STEPS: tuple[Callable[[Graph, Node], bool], ...] = (
    _drop_no_op, _fold_constants, _fix_reshape, _shorten_top_k, _merge_pair, _flatten_resize, _merge_equal,
    _fold_behind, _fold_ahead, _fold_factor,
)  # fmt: skip


def _name_dimensions(model: onnx.ModelProto) -> None:
    """Name the open dimensions of images; outputs may be smaller than images, so their dimensions have other names."""
    for value, prefix in [*((i, "") for i in model.graph.input), *((o, "output_") for o in model.graph.output)]:
        tensor = value.type.tensor_type
        names = ["batch", *("channels",) * (len(tensor.shape.dim) - 3), f"{prefix}height", f"{prefix}width"]
        if tensor.elem_type == TensorProto.UINT8:  # a frame: channels last
            names = ["batch", "height", "width", "channels"]
        if len(names) != len(tensor.shape.dim):
            continue
        for dim, name in zip(tensor.shape.dim, names, strict=True):
            if dim.dim_param:
                dim.dim_param = name
