"""Engines that run an exported graph.

The precision is always set explicitly, since OpenVINO, for one, chooses bf16 by itself where the CPU has it. A package,
a device or a precision that is not available is reported in one line that says what to do.
"""

import abc
import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.files import temporary_home

if TYPE_CHECKING:
    import openvino

DEVICES = ("cpu", "gpu", "tensorrt")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
# Precisions by backend and device; int8 runs the quantised graph of an export.
SUPPORTED = {
    "onnxruntime": {"cpu": ("fp32", "int8"), "gpu": ("fp32",), "tensorrt": ("fp32", "fp16", "int8")},
    "openvino": {"cpu": ("fp32", "bf16", "fp16", "int8"), "gpu": ("fp32", "fp16", "int8")},
    "paddle": {"cpu": ("fp32",), "gpu": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16")},
}
BACKENDS = tuple(SUPPORTED)


class UnsupportedError(UserError):
    """A backend, a device and a precision that exist, but not together."""


class Engine(abc.ABC):
    """A loaded graph."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the graph's output for images.

        Shape: float32 [B, C, H, W] or uint8 [B, H, W, C], as the graph requires, to [B, ...].
        """
        return self._run(images)[0]

    def step(self, frame: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the graph of a video network on a frame and the state before it; return logits and the next state.

        Shape: uint8 [1, H, W, 3] and deploy.yaml's state_shape to [1, num_classes, h, w] and state_shape.
        """
        logits, state = self._run(frame, state)
        return logits, state

    @abc.abstractmethod
    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Return the graph's outputs, which later runs do not change."""


def switch_off_telemetry() -> None:
    """Keep OpenVINO, NNCF and ONNX Runtime from reporting to their makers; to be called before one is imported.

    OpenVINO and NNCF report that they are imported through the package openvino_telemetry, unless it is not installed;
    ONNX Runtime reports by itself. All of them write into the user's home folder.
    """
    sys.modules.setdefault("openvino_telemetry", None)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def check_choice(backend: str, device: str, precision: str) -> None:
    """Check that a backend exists and that it offers the precision on the device.

    Raises:
        UserError: A name is unknown.
        UnsupportedError: The backend does not have the device or the precision.
    """
    for kind, name, valid in (
        ("backend", backend, BACKENDS), ("device", device, DEVICES), ("precision", precision, PRECISIONS)
    ):  # fmt: skip
        if name not in valid:
            raise unknown(kind, name, valid)
    offered = SUPPORTED[backend]
    if device not in offered:
        raise UnsupportedError(f"backend {backend} has no device {device}; it has {', '.join(offered)}")
    if precision not in offered[device]:
        others = [name for name, devices in SUPPORTED.items() if precision in devices.get(device, ())]
        where = f"; {precision} on {device} is for backend {' or '.join(others)}" if others else ""
        valid = ", ".join(offered[device])
        raise UnsupportedError(f"backend {backend} has no precision {precision} on {device}, only {valid}{where}")


@contextlib.contextmanager
def _loading(engine: str, *files: pathlib.Path) -> Iterator[None]:
    """Turn whatever an engine raises while it reads a graph, which may be damaged, into a UserError."""
    try:
        yield
    except Exception as error:  # the exceptions of an engine share no base, and damage leads to any of Python's
        raise UserError(f"{engine} cannot load {' with '.join(map(str, files))}: {brief(error)}") from error


def brief(error: Exception) -> str:
    """Return an engine's message on one line, without the hints and source lines that Paddle appends."""
    return " ".join(str(error).split("[Hint")[0].split())[:300] or type(error).__name__


class OnnxRuntime(Engine):
    """ONNX Runtime on an .onnx file.

    Args:
        graph: The file.
        device: "cpu", "gpu" (CUDA) or "tensorrt", where CUDA runs what TensorRT does not support.
        threads: Threads within an operator; None for every core.
        precision: "fp16" lets TensorRT compute in half precision; "int8" needs a quantised graph.

    Raises:
        UserError: The package is missing, the file is damaged, or the device is not available.
    """

    def __init__(
        self, graph: pathlib.Path, device: str = "cpu", threads: int | None = None, precision: str = "fp32"
    ) -> None:
        switch_off_telemetry()
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"backend onnxruntime needs its package ({error}): pip install onnxruntime, or onnxruntime-gpu on a GPU"
            ) from error
        wanted = {"cpu": "CPU", "gpu": "CUDA", "tensorrt": "Tensorrt"}[device] + "ExecutionProvider"
        if wanted not in onnxruntime.get_available_providers():
            raise UserError(
                f"this onnxruntime has no {wanted}: pip uninstall onnxruntime && pip install onnxruntime-gpu"
                f"{', and install TensorRT' if device == 'tensorrt' else ''}, or use device cpu"
            )
        providers: list[Any] = [wanted]
        if device == "tensorrt":
            flags = {"trt_fp16_enable": precision != "fp32", "trt_int8_enable": precision == "int8"}
            providers = [(wanted, flags), "CUDAExecutionProvider"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        with _loading("ONNX Runtime", graph):
            # Its fallback prints the error and tries the same again.
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        if self._session.get_providers()[0] != wanted:  # ONNX Runtime falls back to the CPU silently
            raise UserError(f"ONNX Runtime cannot start {wanted}: CUDA, cuDNN or TensorRT of its version is missing")
        self._inputs = [item.name for item in self._session.get_inputs()]

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        return self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))


# OpenVINO plans a layer for each size of the image and keeps the plans that it used last: by default 5000, which fill a
# gigabyte if every image has another size. This many suffice where 8 sizes alternate.
_PLANS = "128"


@functools.cache
def openvino_core() -> "openvino.Core":
    """Return OpenVINO's Core, of which the whole process has one.

    Each Core installs a signal stack in its thread and restores the previous one when it is destroyed. If the older of
    two Cores is destroyed first, the younger one restores memory that has been freed, and the next signal (Ctrl-C, or
    the end of a child process) kills the process.
    """
    switch_off_telemetry()
    import openvino

    return openvino.Core()


class OpenVino(Engine):
    """OpenVINO on an .onnx file.

    Args:
        graph: The file.
        device: "cpu" or "gpu" (Intel's).
        threads: CPU threads; None for every core.
        precision: The precision of the arithmetic. With "int8", the layers that are not quantised are computed in bf16
            where the CPU has it.

    Raises:
        UserError: The package is missing, the file is damaged, or the device or its precision is not available.
    """

    def __init__(
        self, graph: pathlib.Path, device: str = "cpu", threads: int | None = None, precision: str = "fp32"
    ) -> None:
        try:
            core = openvino_core()
        except ImportError as error:
            raise UserError(f"backend openvino needs its package ({error}): pip install openvino") from error
        name = device.upper()
        if not any(found.split(".")[0] == name for found in core.available_devices):
            raise UserError(f"OpenVINO finds no {name} here, only {', '.join(core.available_devices)}; use device cpu")
        offered = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        if precision in ("bf16", "fp16") and precision.upper() not in offered:
            raise UserError(f"according to OpenVINO this {name} does not compute in {precision}; use fp32 or int8")
        rest = "fp32" if precision != "int8" else "bf16" if "BF16" in offered else "fp32"
        hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[rest if precision == "int8" else precision]
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = str(threads or cores())
            settings["CPU_RUNTIME_CACHE_CAPACITY"] = _PLANS
        with _loading("OpenVINO", graph):
            model = core.read_model(graph)
            self._request = core.compile_model(model, name, settings).create_infer_request()
        self._inputs, self._outputs = len(model.inputs), len(model.outputs)

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        if len(inputs) != self._inputs:  # OpenVINO reads whatever memory a missing input has
            raise ValueError(f"the graph has {self._inputs} inputs, got {len(inputs)}")
        self._request.infer(inputs, share_inputs=True)
        # The outputs are copied since the next run writes to the same memory.
        return [self._request.get_output_tensor(i).data.copy() for i in range(self._outputs)]


class PaddleInference(Engine):
    """Paddle Inference on model.json and model.pdiparams.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        device: "cpu", "gpu" or "tensorrt".
        threads: CPU threads; None for every core.
        precision: "fp32", or "fp16" on a GPU.
        onednn: Whether to use oneDNN on the CPU, which is several times as fast.

    Raises:
        UserError: Paddle is missing, a file is damaged, or the device is not available.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        parameters: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        onednn: bool = True,
    ) -> None:
        try:
            with temporary_home():
                import paddle
                from paddle import inference
        except ImportError as error:
            raise UserError(
                f"backend paddle needs its package ({error}): pip install paddlepaddle, or paddlepaddle-gpu on a GPU"
            ) from error
        config = inference.Config(str(graph), str(parameters))
        config.disable_glog_info()
        # Without the new executor a PIR graph has no memory pass, and the predictor cannot be created.
        config.enable_new_executor(True)
        config.enable_memory_optim()
        if device == "cpu":
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads or cores())
            if onednn:
                config.set_mkldnn_cache_capacity(10)  # the number of image sizes whose plans are kept
                config.enable_mkldnn()
            else:
                config.disable_mkldnn()
        else:
            if not paddle.is_compiled_with_cuda() or not paddle.device.cuda.device_count():
                raise UserError("this Paddle finds no CUDA device; install paddlepaddle-gpu, or use device cpu")
            half = inference.PrecisionType.Half if precision == "fp16" else inference.PrecisionType.Float32
            config.enable_use_gpu(256, 0, half)
            if device == "tensorrt":
                if inference.get_trt_compile_version() == (0, 0, 0):
                    raise UserError("this Paddle is built without TensorRT; install a build that has it, or use gpu")
                config.enable_tensorrt_engine(1 << 30, 1, 3, half, use_static=False, use_calib_mode=False)
        with _loading("Paddle Inference", graph, parameters):
            self._predictor = inference.create_predictor(config)
        self._inputs = [self._predictor.get_input_handle(name) for name in self._predictor.get_input_names()]
        self._outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        for handle, array in zip(self._inputs, inputs, strict=True):
            handle.reshape(array.shape)
            handle.copy_from_cpu(np.ascontiguousarray(array))
        self._predictor.run()
        return [handle.copy_to_cpu() for handle in self._outputs]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


ONNX_ENGINES: dict[str, Callable[..., Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
