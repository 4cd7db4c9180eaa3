"""Convert a Paddle graph for TensorRT and compare the result, in a process of its own.

    python -m paddle_rt.inference.engines.paddle_tensorrt_build JSON

JSON has the keys graph and parameters (absolute paths), precision (fp32 or fp16), save (the absolute path, without a
suffix, at which the result will be used) and result (the file for what is said of it): the number of engines and of
operators that stay in Paddle, or an error on one line. The process sees one GPU.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.inference.engines.base import brief
from paddle_rt.inference.engines.paddle_graph import GraphInput, PaddleGraph, float32_operators, read_graph
from paddle_rt.inference.engines.paddle_inference import LoadedGraph, converted_config, gpu_config, import_paddle

# How far an output may be from that of Paddle's kernels in single precision: ||difference|| / ||output|| for numbers,
# and the share of labels that differ. TensorRT multiplies in TF32, with 11 bits, where it calls that single precision.
_TOLERANCES = {"fp32": (0.01, 0.01), "fp16": (0.1, 0.03)}
_WORKSPACE = 1 << 32  # bytes that TensorRT may use to build an engine; PaddleX gives SegFormer as much


def main(arguments: Sequence[str]) -> int:
    """Do the job and write its result.

    Args:
        arguments: The JSON.

    Returns:
        0 if the graph is converted and right, else 1.
    """
    job = json.loads(arguments[0])
    try:
        result = _convert_and_compare(job)
    except UserError as error:
        result = {"error": str(error)}
    except Exception as error:  # noqa: BLE001  Paddle and TensorRT raise any of Python's; the other process tells it
        result = {"error": f"{type(error).__name__}: {brief(error)}"}
    with whole_file(job["result"]) as part:
        part.write_text(json.dumps(result), encoding="utf-8")
    return int("error" in result)


def _convert_and_compare(job: dict[str, str]) -> dict[str, int]:
    graph, parameters, save = (pathlib.Path(job[key]) for key in ("graph", "parameters", "save"))
    _, inference = import_paddle()
    content = read_graph(graph)
    inputs = [sample(entry) for entry in content.inputs]
    _convert(graph, save, content, inputs, job["precision"])
    converted = read_graph(save.with_suffix(".json"))
    _check_engines(converted, save)
    plain = LoadedGraph(inference, gpu_config(inference, graph, parameters, content, "fp32", 0))
    files = (save.with_suffix(".json"), save.with_suffix(".pdiparams"))
    engines = LoadedGraph(inference, converted_config(inference, *files, 0))
    compare(plain(*inputs), engines(*inputs), job["precision"])
    return {"engines": len(converted.engines), "operators_elsewhere": converted.operators.total()}


def sample(entry: GraphInput) -> np.ndarray:
    """Return an input to convert and compare with: colours that change smoothly, or the zeros of a video's state.

    They run from 0 to 255 for frames, and over what Normalize leaves of that for the images of other exports.
    """
    if len(entry.shape) != 4 or entry.name == "state":
        return np.zeros(entry.shape, entry.dtype)
    batch, channels, height, width = entry.shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, channels, height // 32 + 2, width // 32 + 2))
    planes = [cv2.resize(plane.astype(np.float32), (width, height)) for image in noise for plane in image]
    values = np.reshape(planes, entry.shape)
    return (values if entry.name == "frame" else values / 63.75 - 2).astype(entry.dtype)


def _convert(
    graph: pathlib.Path, save: pathlib.Path, content: PaddleGraph, inputs: list[np.ndarray], precision: str
) -> None:
    try:
        from paddle.tensorrt import Input, PrecisionMode, TensorRTConfig, convert
    except (ImportError, OSError, AttributeError) as error:  # it loads TensorRT and its plugins
        raise UserError(f"paddle.tensorrt cannot be imported ({brief(error)})") from error
    half = precision == "fp16"
    # The least, usual and greatest size are one. Sizes alone would have Paddle make its own data.
    settings: dict[str, Any] = {
        "inputs": [
            Input(warmup_data=(array, array, array), name=entry.name)
            for entry, array in zip(content.inputs, inputs, strict=True)
        ],
        "save_model_dir": str(save),
        "precision_mode": PrecisionMode.FP16 if half else PrecisionMode.FP32,
        "ops_run_float": float32_operators(content) if half else None,  # a list, since of a text every part counts
        "workspace_size": _WORKSPACE,
    }
    convert(str(graph.with_suffix("")), TensorRTConfig(**settings))


def _check_engines(converted: PaddleGraph, save: pathlib.Path) -> None:
    if not converted.engines:
        raise UserError("no engine came of it: TensorRT takes none of its operators")
    lost = [path for path in converted.engines if pathlib.Path(path).parent != save or not pathlib.Path(path).is_file()]
    if lost:
        raise UserError(f"the converted graph names the engine {lost[0]}, which is not in {save}")


def compare(expected: Sequence[np.ndarray], got: Sequence[np.ndarray], precision: str) -> None:
    """Compare the outputs of TensorRT's engines with those of Paddle's kernels.

    Raises:
        UserError: They are of other shapes or types, not finite, or further apart than the precision explains.
    """
    most_error, most_labels = _TOLERANCES[precision]
    for number, (a, b) in enumerate(zip(expected, got, strict=True)):
        where = f"output {number} of its engines"
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise UserError(f"{where} is {b.dtype} {list(b.shape)}, Paddle's own {a.dtype} {list(a.shape)}")
        if a.dtype.kind == "f":
            if not np.isfinite(b).all():
                raise UserError(f"{where} holds NaN or infinity")
            a, b = a.astype(np.float64), b.astype(np.float64)
            error, most = np.linalg.norm(b - a) / max(np.linalg.norm(a), 1e-30), most_error
        else:
            error, most = np.mean(a != b), most_labels
        if error > most:
            raise UserError(f"{where} differs from Paddle's own by {error:.2%} on the test image, more than {most:.0%}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
