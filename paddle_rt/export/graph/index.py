"""An ONNX graph with an index of its values, so that it can be rewritten: producers, readers, shapes and constants."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(eq=False)
class Node:
    """A node whose inputs and outputs may change; of `proto` only the attributes are kept up to date."""

    proto: onnx.NodeProto
    op: str
    inputs: list[str]
    outputs: list[str]

    def get(self, name: str, default: Any = None) -> Any:
        values = [helper.get_attribute_value(item) for item in self.proto.attribute if item.name == name]
        return values[0] if values else default

    def same_as(self, other: "Node") -> bool:
        """Return whether both compute the same; attributes are compared in their order, which a converter keeps."""
        attributes, others = ([item.SerializeToString() for item in n.proto.attribute] for n in (self, other))
        alike = (self.op, self.inputs, len(self.outputs)) == (other.op, other.inputs, len(other.outputs))
        return alike and self.proto.domain == other.proto.domain and attributes == others


class Graph:
    """An ONNX graph with an index of the producer and the readers of each value.

    Args:
        model: The model. It is not changed before `write`, except that its inferred shapes, which become stale, are
            removed.

    Attributes:
        shapes: For each value, a number for each static dimension and a name for each open one; dimensions with the
            same name have the same size.
        types: For each value, ONNX's number of the element type.
        outputs: The names of the graph's outputs, which do not change.
        constants: The constants by name; those that nothing reads are not written.
        nodes: The nodes in their order.
        producers: The node that computes each value.
        readers: The nodes that read each value.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        del model.graph.value_info[:]  # stale once nodes change
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.shapes: dict[str, list[int | str]] = {}
        self.types: dict[str, int] = {}
        for value in [*inferred.input, *inferred.value_info, *inferred.output]:
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim]
                # An unnamed dimension equals no other.
                self.shapes[value.name] = [f"{value.name}[{i}]" if d == "" else d for i, d in enumerate(dims)]
        self.opsets = list(model.opset_import)
        self.outputs = {value.name for value in model.graph.output}
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[Node] = []
        self.producers: dict[str, Node] = {}
        self.readers: dict[str, list[Node]] = defaultdict(list)  # a node that reads a value twice appears twice
        for proto in model.graph.node:
            assert not any(item.HasField("g") for item in proto.attribute), f"{proto.name} holds a graph of its own"
            literal = proto.op_type == "Constant" and proto.attribute[0].name == "value"
            if literal and proto.output[0] not in self.outputs:
                self._take(proto.output[0], proto.attribute[0].t)
                continue
            node = Node(proto, proto.op_type, list(proto.input), list(proto.output))
            self.nodes.append(node)
            self.producers.update(dict.fromkeys(node.outputs, node))
            for name in filter(None, node.inputs):
                self.readers[name].append(node)
        self._share_integers()

    def _take(self, name: str, tensor: TensorProto) -> None:
        self.constants[name] = TensorProto.FromString(tensor.SerializeToString())
        self.constants[name].name = name

    def _share_integers(self) -> None:
        """Give equal axes, sizes and indices one name, so that nodes with equal inputs are recognised."""
        first: dict[tuple, str] = {}
        for name in [name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.INT64]:
            value = self.value(name)
            original = first.setdefault((value.shape, value.tobytes()), name)
            if original != name:
                self.redirect(name, original)

    def value(self, name: str) -> np.ndarray:
        """Return the value of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def real(self, name: str) -> np.ndarray | None:
        """Return a float32 constant in float64, or None for anything else."""
        tensor = self.constants.get(name)
        return self.value(name).astype(np.float64) if tensor and tensor.data_type == TensorProto.FLOAT else None

    def add(self, value: np.ndarray, near: str) -> str:
        """Store a constant under a new name derived from `near`; float64 is stored as float32. Return the name."""
        stem, number = near.split(".folded")[0], 0
        while (name := f"{stem}.folded{number or ''}") in self.constants or name in self.producers:
            number += 1
        value = value.astype(np.float32) if value.dtype == np.float64 else value
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def only_reader(self, name: str, node: Node) -> bool:
        """Return whether nothing but this node needs a value."""
        return name not in self.outputs and self.readers[name] == [node]

    def set_input(self, node: Node, position: int, name: str) -> None:
        """Make a node read another value at one of its inputs."""
        while len(node.inputs) <= position:
            node.inputs.append("")
        if node.inputs[position]:
            self.readers[node.inputs[position]].remove(node)
        node.inputs[position] = name
        self.readers[name].append(node)

    def redirect(self, old: str, new: str) -> None:
        """Make every reader of `old` read `new`."""
        for node in list(self.readers[old]):
            self.set_input(node, node.inputs.index(old), new)

    def remove(self, node: Node) -> None:
        """Remove a node."""
        self.nodes.remove(node)
        for name in filter(None, node.inputs):
            self.readers[name].remove(node)
        for name in node.outputs:
            self.producers.pop(name, None)

    def bypass(self, node: Node, source: str) -> bool:
        """Remove a node with one output and make its readers read `source`.

        Returns:
            Whether it was removed; it is not where an output of the graph would lose its name.
        """
        output = node.outputs[0]
        if output in self.outputs:
            producer = self.producers.get(source)
            if producer is None or source in self.outputs:
                return False
            self.remove(node)
            self.redirect(source, output)
            producer.outputs[producer.outputs.index(source)] = output
            del self.producers[source]
            self.producers[output] = producer
            return True
        self.redirect(output, source)
        self.remove(node)
        return True

    def freeze(self, node: Node, *values: np.ndarray) -> bool:
        """Replace a node by constants, one for each of its outputs.

        Returns:
            Whether it was replaced; a node that computes an output of the graph is not.
        """
        if self.outputs.intersection(node.outputs):
            return False
        for name, value in zip(node.outputs, values, strict=True):
            self.redirect(name, self.add(value, name))
        self.remove(node)
        return True

    def write(self, model: onnx.ModelProto) -> None:
        """Replace the model's nodes and constants."""
        nodes, constants = [], []
        for node in self.nodes:
            # A copy, since the node may be part of the list that is replaced.
            proto = onnx.NodeProto.FromString(node.proto.SerializeToString())
            proto.input[:] = node.inputs
            proto.output[:] = node.outputs
            nodes.append(proto)
        for name, tensor in self.constants.items():
            if self.readers[name] or name in self.outputs:
                constants.append(TensorProto.FromString(tensor.SerializeToString()))
        for repeated, items in ((model.graph.node, nodes), (model.graph.initializer, constants)):
            del repeated[:]
            repeated.extend(items)
