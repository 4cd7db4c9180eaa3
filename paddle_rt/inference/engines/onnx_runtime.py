"""ONNX Runtime."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.engines.base import Engine, loading, switch_off_telemetry


class OnnxRuntime(Engine):
    """ONNX Runtime on an .onnx file.

    Args:
        graph: The file.
        device: "cpu", "gpu" (CUDA) or "tensorrt", where CUDA runs what TensorRT does not support.
        threads: Threads within an operator; None for every core.
        device_id: The number of the GPU, from 0.
        precision: "fp16" lets TensorRT compute in half precision; "int8" needs a quantised graph.

    Raises:
        UserError: The package is missing, the file is damaged, or the device is not available.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        device_id: int = 0,
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
        providers: list[Any] = [wanted if device == "cpu" else (wanted, {"device_id": device_id})]
        if device == "tensorrt":
            flags = {
                "device_id": device_id,
                "trt_fp16_enable": precision != "fp32",
                "trt_int8_enable": precision == "int8",
            }
            providers = [(wanted, flags), ("CUDAExecutionProvider", {"device_id": device_id})]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        with loading("ONNX Runtime", graph):
            # Its fallback prints the error and tries the same again.
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        if self._session.get_providers()[0] != wanted:  # ONNX Runtime falls back to the CPU silently
            raise UserError(f"ONNX Runtime cannot start {wanted}: CUDA, cuDNN or TensorRT of its version is missing")
        self._inputs = [item.name for item in self._session.get_inputs()]

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        return self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
