"""Cut the engines of an ONNX graph as ONNX Runtime's TensorRT provider does.

The importer reports runs of successive nodes that it supports, in topological order, and the provider builds an engine
for each. Source: ModelImporter::supportsModel at release/8.6-GA and release/10.1-GA of onnx/onnx-tensorrt.
"""

import pathlib
from dataclasses import dataclass

import onnx

from tests.export.tensorrt.onnx_rows import OPSETS, Graph, doubt, refusal


@dataclass
class Partition:
    """What becomes of a graph.

    Args:
        nodes: The number of nodes.
        engines: The nodes of each engine.
        refused: The nodes that TensorRT does not take, each with its reason.
        doubts: The nodes that it takes and that may not build, each with its reason.
    """

    nodes: int
    engines: list[list[onnx.NodeProto]]
    refused: list[tuple[onnx.NodeProto, str]]
    doubts: list[tuple[onnx.NodeProto, str]]

    def faults(self) -> list[str]:
        """Return what keeps the graph from being one engine that builds; nothing if it is."""
        found = [f"{node.op_type} {node.name} is refused: {reason}" for node, reason in self.refused]
        found += [f"{node.op_type} {node.name} may not build: {reason}" for node, reason in self.doubts]
        return found if len(self.engines) == 1 else [f"{len(self.engines)} engines", *found]


def read_graph(path: pathlib.Path) -> Graph:
    """Read model.onnx."""
    return Graph(onnx.load(str(path)))


def partition(graph: Graph, version: str) -> Partition:
    """Cut a graph for a version of TensorRT, "8.6" or "10".

    Raises:
        UnknownOperator: An operator has no row.
    """
    assert graph.opset in OPSETS[version], f"opset {graph.opset}; TensorRT {version} takes {OPSETS[version]}"
    engines, refused, doubts, follows = [], [], [], False
    for node in graph.nodes:
        if (reason := refusal(graph, node, version)) is not None:
            refused.append((node, reason))
            follows = False
            continue
        if not follows:
            engines.append([])
        engines[-1].append(node)
        follows = True
        if (reason := doubt(graph, node)) is not None:
            doubts.append((node, reason))
    return Partition(len(graph.nodes), engines, refused, doubts)
