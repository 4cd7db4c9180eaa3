"""Convert an ONNX graph to MNN's format."""

import importlib.util
import os
import pathlib
import subprocess
import sys

from paddle_rt.errors import InternalError, UserError
from paddle_rt.export.graph import write_gelu_apart

# MNN's own command line installs a package with pip to report its use, so the function behind it is called. A process
# of its own keeps what the converter prints, and its end where it refuses a graph, out of this one.
_CONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


class MnnConversionError(InternalError):
    """MNN's converter refuses a graph."""


def convert_to_mnn(onnx_file: pathlib.Path, file: pathlib.Path) -> None:
    """Convert an ONNX graph to MNN's format.

    Args:
        onnx_file: The graph.
        file: The file to write.

    Raises:
        UserError: The package is missing.
        MnnConversionError: MNN's converter refuses the graph.
    """
    if importlib.util.find_spec("_tools") is None:
        raise UserError("format mnn needs the package MNN: pip install MNN")
    import onnx

    model = onnx.load(str(onnx_file))
    write_gelu_apart(model)
    apart = file.with_suffix(".mnn.onnx")
    onnx.save(model, str(apart))
    flags = ["-f", "ONNX", "--modelFile", str(apart), "--MNNModel", str(file), "--bizCode", "paddle_rt"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, *flags], env=environment, capture_output=True, text=True, errors="replace"
        )
    finally:
        apart.unlink()
    if done.returncode or not file.is_file():
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise MnnConversionError(f"MNN cannot convert the graph: {lines[-1] if lines else f'code {done.returncode}'}")
