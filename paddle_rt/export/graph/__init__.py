"""Rewrite the ONNX graphs of exports exactly, so that they run faster."""

from paddle_rt.export.graph.folding import optimise
from paddle_rt.export.graph.gelu import write_gelu_apart
from paddle_rt.export.graph.stem import rewrite_stem

__all__ = ["optimise", "rewrite_stem", "write_gelu_apart"]
