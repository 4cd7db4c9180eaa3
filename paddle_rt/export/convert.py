"""Convert a Paddle graph to ONNX and optimise it."""

import pathlib

from paddle_rt.errors import InternalError, UserError
from paddle_rt.inference.engines import brief, switch_off_telemetry

OPSET = 17


class ConversionError(InternalError):
    """paddle2onnx or the ONNX checker refuses a graph."""


def convert_to_onnx(graph: pathlib.Path, parameters: pathlib.Path, target: pathlib.Path) -> None:
    """Convert a Paddle graph with paddle2onnx and optimise the result.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        target: The ONNX file to write.

    Raises:
        UserError: A package is missing.
        ConversionError: paddle2onnx or the ONNX checker refuses the graph.
    """
    switch_off_telemetry()
    try:
        import onnx
        import paddle2onnx

        from paddle_rt.export.graph import optimise, rewrite_stem
    except ImportError as error:
        raise UserError(f"format onnx needs the packages onnx and paddle2onnx: {error}") from error
    try:
        # The default optimize_tool, "polygraphy", installs packages with pip while it runs; "none" writes the graph.
        paddle2onnx.export(str(graph), str(parameters), str(target), opset_version=OPSET, optimize_tool="none")
        converted = onnx.load(str(target))
        optimise(converted)
        rewrite_stem(converted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # paddle2onnx logs what it met and goes on to an UnboundLocalError
        raise ConversionError(
            f"paddle2onnx cannot convert the graph: {type(error).__name__}: {brief(error)}"
        ) from error
    onnx.save(converted, str(target))
