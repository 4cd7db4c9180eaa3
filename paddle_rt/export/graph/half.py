"""Convert ONNX graphs to half precision, node by node.

What stays in single precision, since half precision would lose too much or divide by zero:

| nodes | reason |
| --- | --- |
| a softmax that is divided by its sum and a small number (RTFormer) | weights below 6e-8 vanish, then the sum |
| from LayerNormalization to the TopK and ArgMax of token merging (SegFormer++) | similarities of 11 bits match others |
| lengths of vectors (FANet) | squares of values above 255 exceed the range, and small ones vanish |
| the state of a video (FANet) | it is carried from frame to frame |
| products that sum more than 1024 computed terms (FANet's contexts) | a running sum in half precision stops growing |

The last line does not concern products with the result of a softmax, which are averages.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.errors import UserError
from paddle_rt.export.graph.folding import batch_norm
from paddle_rt.export.graph.index import Graph, Node

LIMIT = 65504.0  # the largest number of half precision
_LONGEST_SUM = 1024
# The least normal number of half precision: a Clip that guards a division must not be rounded to zero.
_LEAST = 2.0**-14
_LAYOUT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
# Their results are among their inputs, so that nothing has to be rounded.
_EXACT = (*_LAYOUT, "Slice", "Split", "Concat", "Gather", "Expand", "Identity", "Relu", "MaxPool", "ReduceMax")


def to_half(model: onnx.ModelProto, single_resize: bool = False) -> int:
    """Convert a graph to half precision; its inputs and outputs keep their types.

    Args:
        model: An optimised model, which is changed in place.
        single_resize: Whether a Resize before the ArgMax of labels stays in single precision.

    Returns:
        The number of nodes that compute in single precision.

    Raises:
        UserError: A weight is too large for half precision.
    """
    graph = Graph(model)
    for node in list(graph.nodes):
        _expand_batch_norm(graph, node)
    graph.write(model)
    graph = Graph(model)  # with the types of the new values
    single = _single_nodes(graph, [value.name for value in model.graph.output[1:]], single_resize)
    conversion = _Conversion(graph, single)
    for node in list(graph.nodes):
        conversion.convert(node)
    for name in sorted(graph.outputs):
        conversion.restore_output(name)
    graph.write(model)
    return len(single)


class _Conversion:
    """Gives every node inputs of its precision."""

    def __init__(self, graph: Graph, single: set[Node]) -> None:
        self.graph, self.single = graph, single
        self.constants: dict[str, str] = {}
        self.casts: dict[str, str] = {}

    def is_half(self, name: str) -> bool:
        """Return whether a computed value of the original type float32 is in half precision now."""
        producer = self.graph.producers.get(name)
        return self.graph.types.get(name) == TensorProto.FLOAT and producer is not None and producer not in self.single

    def convert(self, node: Node) -> None:
        half = node not in self.single
        if half and node.op == "Cast" and node.get("to") == TensorProto.FLOAT:
            set_attribute(node, "to", TensorProto.FLOAT16)
        for position, name in enumerate(list(node.inputs)):
            if not name or (node.op == "Resize" and position):  # its scales are float32 in any case
                continue
            if name in self.graph.constants:
                if half and self.graph.constants[name].data_type == TensorProto.FLOAT:
                    self.graph.set_input(node, position, self._constant(name, node))
            elif self.graph.types.get(name) == TensorProto.FLOAT and self.is_half(name) != half:
                self.graph.set_input(node, position, self._cast(name, half))

    def _constant(self, name: str, node: Node) -> str:
        key = f"{name}.{node.op == 'Clip'}"
        if key not in self.constants:
            value = self.graph.value(name)
            if node.op == "Clip":
                value = np.clip(np.where((value > 0) & (value < _LEAST), np.float32(_LEAST), value), -LIMIT, LIMIT)
            with np.errstate(over="ignore"):
                half = value.astype(np.float16)
            if not np.isfinite(half).all():
                raise UserError(
                    f"a weight of {np.abs(value).max():.1e} is too large for half precision, at most {LIMIT}"
                )
            self.constants[key] = self.graph.add(half, name)
        return self.constants[key]

    def _cast(self, name: str, to_half: bool) -> str:
        key = f"{name}.{to_half}"
        if key not in self.casts:
            self.casts[key] = f"{name}.{'half' if to_half else 'single'}"
            kind = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
            add_node(self.graph, "Cast", name, self.casts[key], to=kind)
        return self.casts[key]

    def restore_output(self, name: str) -> None:
        """Let an output of the graph be float32 again."""
        if not self.is_half(name):
            return
        producer, inner = self.graph.producers[name], f"{name}.half"
        producer.outputs[producer.outputs.index(name)] = inner
        self.graph.producers[inner] = producer
        self.graph.redirect(name, inner)
        add_node(self.graph, "Cast", inner, name, to=TensorProto.FLOAT)


def _expand_batch_norm(graph: Graph, node: Node) -> None:
    """Replace a BatchNormalization, whose variances may exceed the range of half precision, by a product and a sum."""
    affine = batch_norm(graph, node)
    if affine is None:
        return
    shape = (1, -1, *(1,) * (len(graph.shapes[node.inputs[0]]) - 2))
    scale, shift = (
        graph.add(values.reshape(shape), name) for values, name in zip(affine, node.inputs[1:3], strict=True)
    )
    product = f"{node.outputs[0]}.scaled"
    place = graph.nodes.index(node)
    for position, (op, inputs, output) in enumerate(
        (("Mul", [node.inputs[0], scale], product), ("Add", [product, shift], node.outputs[0]))
    ):
        added = Node(helper.make_node(op, inputs, [output], name=output), op, inputs, [output])
        graph.nodes.insert(place + position, added)
        graph.producers[output] = added
        for name in inputs:
            graph.readers[name].append(added)
    output = node.outputs[0]
    graph.remove(node)
    graph.producers[output] = added


def _single_nodes(graph: Graph, states: Sequence[str], single_resize: bool) -> set[Node]:
    """Return the nodes that stay in single precision; `states` are the outputs that a next frame reads."""
    single = _ancestors(graph, states, lambda node: node.op == "MatMul")
    for node in graph.nodes:
        match node.op:
            case "Div":
                single.update(_normalisation(graph, node))
            case "TopK" | "ArgMax":
                if not _gives_labels(graph, node):
                    found = _ancestors(graph, node.inputs[:1], lambda n: n.op == "LayerNormalization")
                    if any(n.op == "LayerNormalization" for n in found):
                        single.update(found, [node])
                elif single_resize:
                    single.update(_ancestors(graph, node.inputs, lambda n: True), [node])
            case "Sqrt":
                single.update(_length(graph, node))
            case "MatMul":
                if _is_long_sum(graph, node):
                    single.add(node)
    return single


def _ancestors(graph: Graph, names: Iterable[str], is_last: Callable[[Node], bool]) -> set[Node]:
    """Return the nodes that float values come from, up to and including those that `is_last` accepts."""
    found: set[Node] = set()
    pending = list(names)
    while pending:
        node = graph.producers.get(pending.pop())
        if node is not None and node not in found:
            found.add(node)
            if not is_last(node):
                pending += [name for name in node.inputs if graph.types.get(name) == TensorProto.FLOAT]
    return found


def _normalisation(graph: Graph, node: Node) -> list[Node]:
    """Return the nodes that divide a softmax by its sum and a constant, if `node` is this division."""
    softmax, add = (graph.producers.get(name) for name in node.inputs)
    if softmax is None or softmax.op != "Softmax" or add is None or add.op != "Add":
        return []
    sums = [graph.producers[name] for name in add.inputs if name in graph.producers]
    if len(sums) != 1 or sums[0].op != "ReduceSum" or sums[0].inputs[0] != node.inputs[0]:
        return []
    return [softmax, sums[0], add, node]


def _length(graph: Graph, node: Node) -> set[Node]:
    """Return the nodes that compute the lengths of vectors, which a square root ends; none for another square root."""
    found = _ancestors(graph, [node.outputs[0]], lambda n: n.op == "Mul" and n.inputs[0] == n.inputs[1])
    return found if {n.op for n in found} <= {"Mul", "ReduceSum", "Clip", "Sqrt"} else set()


def _gives_labels(graph: Graph, node: Node) -> bool:
    """Return whether the result of a node is an output of the graph, but for its type."""
    name = node.outputs[0]
    return name in graph.outputs or any(n.op == "Cast" and n.outputs[0] in graph.outputs for n in graph.readers[name])


def _is_long_sum(graph: Graph, node: Node) -> bool:
    """Return whether a product of two computed matrices sums many terms, or a number of them that is not known."""
    for name in node.inputs:
        producer = graph.producers.get(name)
        while producer is not None and producer.op in _LAYOUT:
            producer = graph.producers.get(producer.inputs[0])
        if producer is None or producer.op == "Softmax":
            return False
    terms = graph.shapes[node.inputs[0]][-1]
    return not isinstance(terms, int) or terms > _LONGEST_SUM


def rounded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Make a float32 graph that computes what a graph in half precision computes, by rounding every tensor to half.

    Sums within a node are those of float32, as on a GPU that accumulates in single precision.

    Args:
        model: The graph in half precision.

    Returns:
        The model, and the names of the rounded tensors. It has two further outputs for each of them, in this order: the
        largest absolute value, and the sum of the absolute values, which is not finite if one of them is not.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = Graph(model)
    for name, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.FLOAT16:
            graph.constants[name] = numpy_helper.from_array(graph.value(name).astype(np.float32), name)
    names, added = [], []
    for node in list(graph.nodes):
        is_exact = node.op in _EXACT
        if node.op == "Cast" and node.get("to") == TensorProto.FLOAT16:
            set_attribute(node, "to", TensorProto.FLOAT)
            is_exact = graph.types[node.inputs[0]] != TensorProto.FLOAT  # bytes and truth values
        for position, name in enumerate(node.outputs):
            if graph.types.get(name) != TensorProto.FLOAT16 or is_exact:
                continue
            node.outputs[position] = f"{name}.exact"
            graph.producers[f"{name}.exact"] = node
            add_node(graph, "Cast", f"{name}.exact", f"{name}.rounded", to=TensorProto.FLOAT16)
            add_node(graph, "Cast", f"{name}.rounded", name, to=TensorProto.FLOAT)
            add_node(graph, "Abs", name, f"{name}.abs")
            for op in ("ReduceMax", "ReduceSum"):
                add_node(graph, op, f"{name}.abs", f"{name}.{op}", keepdims=0)
                added.append(helper.make_tensor_value_info(f"{name}.{op}", TensorProto.FLOAT, []))
                graph.outputs.add(f"{name}.{op}")
            names.append(name)
    graph.write(model)
    model.graph.output.extend(added)
    return model, names


def add_node(graph: Graph, op: str, source: str, target: str, **attributes: int) -> None:
    """Add a node with one input and one output behind the producer of its input."""
    node = Node(
        helper.make_node(op, [source], [target], name=f"{source}.{op}.{target}", **attributes), op, [source], [target]
    )
    producer = graph.producers.get(source)
    graph.nodes.insert(0 if producer is None else graph.nodes.index(producer) + 1, node)
    graph.producers[target] = node
    graph.readers[source].append(node)


def set_attribute(node: Node, name: str, value: int) -> None:
    """Give an attribute of a node another value."""
    kept = [item for item in node.proto.attribute if item.name != name]
    del node.proto.attribute[:]
    node.proto.attribute.extend([*kept, helper.make_attribute(name, value)])
