"""TensorRT in Paddle Inference: a graph is converted once for a GPU, which takes minutes, and kept.

Paddle's own `Config.enable_tensorrt_engine` has no effect on a model.json: it is for the graphs of Paddle 2.
`paddle.tensorrt.convert` cuts out the parts of a graph that TensorRT takes, builds an engine of each, and writes a
graph that runs them. It changes flags of the process and may end it, so that it has a process of its own.

Source: PaddlePaddle/Paddle, python/paddle/tensorrt/export.py and converter.py; Paddle's page "Paddle-TensorRT" of its
inference documentation 3.0.
"""

import ctypes
import importlib.util
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import file_digest
from paddle_rt.inference.engines.base import brief
from paddle_rt.inference.engines.cache import engine_cache, keeping, locked, read_manifest, write_manifest
from paddle_rt.inference.engines.gpu import Gpu
from paddle_rt.inference.engines.paddle_graph import PaddleGraph, float32_operators

BUILDER = "paddle_rt.inference.engines.paddle_tensorrt_build"  # the module that the other process runs
INSTALL = (
    "install paddlepaddle-gpu from Paddle's own index (https://www.paddlepaddle.org.cn/en/install/quick; PyPI's ends "
    "at 2.6.2)"
)
INSTEAD = "use device gpu, or backend onnxruntime with device tensorrt"
_PLUGIN = "libnvinfer_plugin.so"
# Versions of Paddle, from the first and below the second; those of TensorRT that work with them; the least compute
# capability that these have; the release that Paddle documents. Up to 3.2, most of Paddle's converters are registered
# for TensorRT 8 alone (fixed by its pull requests 75591 and 75826), and layer_norm needs 8.6. TensorRT 10.5 is the
# last that has no Volta; from 10.8, Paddle's stack and arange fail (issues 79319 and 79320).
_RELEASES = (
    ((3, 0), (3, 3), (8, 6, 1), (8, 7), (5, 0), "8.6.1.6 with CUDA 11.8"),
    ((3, 3), (4, 0), (10, 5), (10, 8), (7, 5), "10.5.0.18 with CUDA 12.6"),
)
_SLOW_HALF = (6, 1)  # the compute capability at which half precision is 64 times as slow as single
# What Paddle does not convert, so that it would cut a graph into many engines; argsort becomes a TopK, which sorts no
# more than 3840 values.
_NOT_CONVERTED = ("put_along_axis", "put_along_axis_", "trilinear_interp", "argsort")
_LOG, _RESULT = "build.log", "result.json"
logger = logging.getLogger(__name__)


def check_tensorrt(paddle: ModuleType, inference: ModuleType, gpu: Gpu, precision: str) -> str:
    """Check that all of Paddle's and TensorRT's parts are there and fit each other.

    Returns:
        TensorRT's version.

    Raises:
        UserError: One is missing, too old or too new, for the others or for the GPU.
    """
    version = paddle.__version__
    row = next((row for row in _RELEASES if row[0] <= _numbers(version) < row[1]), None)
    if row is None:
        raise UserError(f"device tensorrt works with Paddle 3.0 to 3.x, this is Paddle {version}; {INSTALL}")
    *_, first, end, least, documented = row
    compiled = tuple(inference.get_trt_compile_version())
    if not any(compiled):
        raise UserError(f"this Paddle {version} is built without TensorRT; {INSTALL}, or {INSTEAD}")
    if importlib.util.find_spec("paddle.tensorrt") is None:
        raise UserError(f"this Paddle {version} has no package paddle.tensorrt; {INSTALL}, or {INSTEAD}")
    how = f"install TensorRT {documented} from NVIDIA's archive: its wheel, and its lib folder on LD_LIBRARY_PATH"
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise UserError(
            f"device tensorrt of backend paddle needs the package tensorrt ({brief(error)}); {how}"
        ) from error
    found = tensorrt.__version__
    if not first <= _numbers(found) < end:
        raise UserError(
            f"Paddle {version} works with TensorRT from {_dotted(first)} to below {_dotted(end)}, the package tensorrt "
            f"is {found}; {how}, or use backend onnxruntime"
        )
    if compiled[:2] != _numbers(found)[:2]:
        raise UserError(
            f"this Paddle {version} is built for TensorRT {_dotted(compiled)}, the package tensorrt is {found}; {how}"
        )
    if gpu.capability < least or (precision == "fp16" and gpu.capability == _SLOW_HALF):
        needs = f"needs {_dotted(least)}" if gpu.capability < least else "would compute in fp32 there, without a word"
        raise UserError(
            f"{gpu.name} has compute capability {_dotted(gpu.capability)}; for {precision}, TensorRT {found} {needs}; "
            "use device gpu"
        )
    try:
        ctypes.CDLL(_PLUGIN)
    except OSError as error:
        raise UserError(
            f"Paddle loads {_PLUGIN}, without a number, which is not found ({brief(error)}): pip's TensorRT lacks it; "
            f"{how}, or link {_PLUGIN}.{_numbers(found)[0]} to that name there"
        ) from error
    return found


def convert(
    graph: pathlib.Path,
    parameters: pathlib.Path,
    content: PaddleGraph,
    gpu: Gpu,
    versions: dict[str, str],
    precision: str,
    device_id: int,
) -> tuple[pathlib.Path, pathlib.Path, dict[str, Any]]:
    """Return a graph in which TensorRT's engines stand, from the cache or newly built.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        content: What the graph holds.
        gpu: The GPU.
        versions: All versions that the engines depend on.
        precision: "fp32" or "fp16".
        device_id: The number of the GPU, from 0.

    Returns:
        The converted graph, its parameters, and entries of `Engine.report`.

    Raises:
        UserError: TensorRT cannot take the graph, the build fails, or its outputs differ from Paddle's own.
    """
    check_convertible(graph, parameters, content)
    parts = {
        "engine": "paddle.tensorrt",
        "graph": file_digest(graph),
        "parameters": file_digest(parameters),
        "gpu": [gpu.name, *gpu.capability],
        "versions": versions,
        "precision": precision,
        "float32": float32_operators(content) if precision == "fp16" else [],
        "inputs": [[entry.name, list(entry.shape), entry.dtype] for entry in content.inputs],
    }
    folder = engine_cache(parts)
    save = folder / "model"
    # The converted graph names its engines by their absolute paths: one that was moved is built again.
    expected = {**parts, "folder": str(folder)}
    with locked(folder):
        manifest = read_manifest(folder, expected)
        reused = manifest is not None
        if manifest is None:
            job = {"graph": str(graph.absolute()), "parameters": str(parameters.absolute()), "precision": precision}
            job |= {"save": str(save), "result": str(folder / _RESULT)}
            try:
                manifest = {**expected, **_build(job, folder, gpu, device_id)}
            except UserError:
                read_manifest(folder, expected)  # empties the folder
                raise
            write_manifest(folder, manifest)
    report = {
        "engines": manifest["engines"],
        "nodes_elsewhere": manifest["operators_elsewhere"],
        "cache": "reused" if reused else "built",
    }
    return save.with_suffix(".json"), save.with_suffix(".pdiparams"), report


def check_convertible(graph: pathlib.Path, parameters: pathlib.Path, content: PaddleGraph) -> None:
    """Check what can be known of a graph before its conversion.

    A uint8 input is refused and not left to Paddle, with its cast among the operators that stay there (disable_ops):
    the graph of an export for the CPU that takes frames also gathers along axis -1 and resizes in three dimensions,
    which TensorRT refuses or which cut it into several engines.

    Raises:
        UserError: TensorRT cannot take the graph, or not as a whole.
    """
    if parameters != graph.with_suffix(".pdiparams"):
        raise UserError(
            f"paddle.tensorrt takes {graph.with_suffix('.pdiparams').name} beside {graph}, not {parameters}"
        )
    for entry in content.inputs:
        if entry.dtype == "uint8":
            raise UserError(
                f"{graph} takes uint8 frames, of which paddle.tensorrt makes no engine; export it with --target gpu"
            )
        if any(length < 1 for length in entry.shape):
            raise UserError(
                f"{graph} leaves lengths of its input {entry.name} open, {list(entry.shape)}; device tensorrt of "
                f"backend paddle needs fixed ones: export it with --input_size H W, or {INSTEAD}"
            )
    found = [f"{content.operators[name]} {name}" for name in _NOT_CONVERTED if content.operators[name]]
    if found:
        raise UserError(
            f"{graph} has {' and '.join(found)}, of which paddle.tensorrt makes no engine; export it with --target "
            f"gpu, or {INSTEAD}"
        )


def _build(job: dict[str, str], folder: pathlib.Path, gpu: Gpu, device_id: int) -> dict[str, int]:
    """Let the other process convert a graph and compare the result; return the counts for the manifest."""
    start = time.monotonic()
    words = (job["graph"], job["precision"], gpu.name, folder)
    logger.warning("building TensorRT engines of %s in %s for %s: minutes, the first time; kept in %s", *words)
    command = [sys.executable, "-m", BUILDER, json.dumps(job)]
    with keeping(folder), (folder / _LOG).open("wb") as log:
        code = subprocess.run(
            command,
            env=_environment(device_id),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    try:
        result = json.loads(pathlib.Path(job["result"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {"error": f"the process that converts it {_ending(code)}{_last_line(folder / _LOG)}"}
    if "error" in result:
        raise UserError(f"paddle.tensorrt cannot take {job['graph']}: {result['error']}; nothing is kept; {INSTEAD}")
    logger.info("%d TensorRT engines built in %.0f s", result["engines"], time.monotonic() - start)
    return result


def _environment(device_id: int) -> dict[str, str]:
    """Return the environment of the other process, which sees the chosen GPU alone, since convert uses number 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = visible.split(",")[device_id].strip() if visible is not None else str(device_id)
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)  # it imports what this process would
    return {**os.environ, "CUDA_VISIBLE_DEVICES": chosen, "PYTHONPATH": modules}


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" after {last[:200]!r}" if last else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
