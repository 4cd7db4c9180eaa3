"""ONNX Runtime."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.engines.base import Engine, loading, switch_off_telemetry
from paddle_rt.inference.engines.onnx_runtime_gpu import INSTALL, DeviceArray, GpuSession, Profile


class OnnxRuntime(Engine):
    """ONNX Runtime on an .onnx file.

    Args:
        graph: The file.
        device: "cpu", "gpu" (CUDA) or "tensorrt", where CUDA runs what TensorRT does not support.
        threads: Threads within an operator; None for every core.
        precision: "fp16" needs a graph in half precision, or lets TensorRT compute in half precision; "int8" needs a
            quantised graph.
        device_id: The number of the GPU, from 0.
        profile: For TensorRT on a graph with open sizes: the smallest, the usual and the largest input.
        is_half: Whether the graph itself is in half precision.
        batch: Fix an open length of the batch to this number, for which ONNX Runtime optimises better.

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
        profile: Profile | None = None,
        is_half: bool = False,
        batch: int | None = None,
    ) -> None:
        switch_off_telemetry()
        try:
            import onnxruntime
        except ImportError as error:
            gpu = f"on a GPU: {INSTALL}"
            raise UserError(
                f"backend onnxruntime needs its package ({error}): pip install onnxruntime, or {gpu}"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        if batch is not None:
            options.add_free_dimension_override_by_name("batch", batch)  # the name that our exports give the length
        self._on_gpu = None
        if device != "cpu":
            self._on_gpu = GpuSession(graph, device, options, precision, device_id, profile, is_half)
            self.report.update(self._on_gpu.report)
            return
        with loading("ONNX Runtime", graph):
            # Its fallback prints the error and tries the same again.
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers, enable_fallback=0)
        self._inputs = [item.name for item in self._session.get_inputs()]

    def step(self, frame: np.ndarray, state: np.ndarray | DeviceArray) -> tuple[np.ndarray, np.ndarray | DeviceArray]:
        """Run as `Engine.step` does; on a GPU the state stays there, where the next step finds it."""
        if self._on_gpu is None:
            return super().step(frame, state)
        logits, state = self._on_gpu.run(frame, state, keep=(1,))
        return logits, state

    def resident(self, *inputs: np.ndarray) -> Callable[[], object]:
        return super().resident(*inputs) if self._on_gpu is None else self._on_gpu.resident(*inputs)

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        if self._on_gpu is not None:
            return self._on_gpu.run(*inputs)
        return self._session.run(None, dict(zip(self._inputs, inputs, strict=True)))
