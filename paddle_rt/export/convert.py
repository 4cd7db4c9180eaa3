"""Convert a Paddle graph to ONNX and optimise it."""

import pathlib

from paddle_rt.errors import InternalError, UserError
from paddle_rt.inference.engines import brief, switch_off_telemetry

OPSET = 17


class ConversionError(InternalError):
    """paddle2onnx or the ONNX checker refuses a graph."""


def convert_to_onnx(graph: pathlib.Path, parameters: pathlib.Path, file: pathlib.Path, target: str = "cpu") -> None:
    """Convert a Paddle graph with paddle2onnx and optimise the result.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        file: The ONNX file to write.
        target: "cpu", where the first convolution is rewritten, or "gpu".

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
        paddle2onnx.export(str(graph), str(parameters), str(file), opset_version=OPSET, optimize_tool="none")
        converted = onnx.load(str(file))
        optimise(converted)
        if target == "cpu":
            rewrite_stem(converted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # paddle2onnx logs what it met and goes on to an UnboundLocalError
        raise ConversionError(
            f"paddle2onnx cannot convert the graph: {type(error).__name__}: {brief(error)}"
        ) from error
    onnx.save(converted, str(file))
