"""Rewrite the ONNX graphs of exports: exact, and faster to run."""

from paddle_rt.export.graph.folding import optimise
from paddle_rt.export.graph.stem import rewrite_stem

__all__ = ["optimise", "rewrite_stem"]
