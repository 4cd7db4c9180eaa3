"""Write the graphs of a network as an export does, without verifying them."""

import pathlib
from collections.abc import Sequence

from paddle_rt.export.convert import convert_to_onnx
from paddle_rt.export.trace import Frames, TracedNetwork, TracedStep, save_graph
from paddle_rt.inference.preprocess import split_normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec

ROADS = {"paddle": "float32", "onnx": "uint8"}  # the type of the frames that a graph for a GPU takes


def write_graph(
    folder: pathlib.Path,
    network: Network,
    spec: ExportSpec,
    output_op: str,
    shape: Sequence[int | None],
    target: str = "cpu",
    road: str = "paddle",
) -> pathlib.Path:
    """Write one graph.

    Args:
        folder: The folder of the graph.
        network: The network.
        spec: The task's part of the export.
        output_op: What the graph computes.
        shape: [N, C, H, W]; None leaves a length open.
        target: "cpu" or "gpu".
        road: "paddle" for model.json, "onnx" for model.onnx.

    Returns:
        The graph's file.
    """
    traced = TracedStep if network.temporal_window > 1 else TracedNetwork
    dtype = ROADS[road] if target == "gpu" else "uint8"
    frames = Frames(split_normalize(spec.transforms)[1], dtype) if spec.takes_frames(output_op) else None
    files = save_graph(traced(network.for_export(target), spec, output_op, frames), folder, shape)
    if road == "paddle":
        return files[0]
    convert_to_onnx(*files, folder / "model.onnx", target)
    return folder / "model.onnx"
