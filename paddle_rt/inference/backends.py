"""Engines that run an exported graph: float32 images [B, C, H, W] in, the graph's one output out."""

import os
import pathlib
from typing import Protocol

import numpy as np

from paddle_rt.errors import UserError


class Engine(Protocol):
    """A loaded graph."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Shape: float32 [B, C, H, W] to logits or probabilities [B, num_classes, H, W] or labels [B, H, W]."""


class OnnxRuntime:
    """ONNX Runtime on model.onnx.

    Args:
        graph: The .onnx file.
        device: "cpu" or "gpu" (CUDA).
        threads: Threads within an operator; None for every core.

    Raises:
        UserError: The package is missing, the file is damaged, or there is no such device.
    """

    def __init__(self, graph: pathlib.Path, device: str = "cpu", threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"backend onnxruntime needs the package onnxruntime: {error}") from error
        provider = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}[device]
        if provider not in onnxruntime.get_available_providers():
            raise UserError(f"this onnxruntime has no {provider}; install onnxruntime-gpu or use --device cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
        except Exception as error:  # its exceptions share no other base
            raise UserError(f"ONNX Runtime cannot load {graph}: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: images})[0]


class PaddleInference:
    """Paddle Inference on model.json and model.pdiparams.

    Args:
        graph, parameters: The two files.
        device: "cpu" or "gpu".
        threads: Threads of the CPU library; None for every core that the process may run on.
        onednn: Use oneDNN on the CPU, which is several times as fast.

    Raises:
        UserError: Paddle is missing, a file is damaged, or there is no such device.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        parameters: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        onednn: bool = True,
    ) -> None:
        try:
            import paddle
            from paddle import inference
        except ImportError as error:
            raise UserError(f"backend paddle needs the package paddlepaddle: {error}") from error
        config = inference.Config(str(graph), str(parameters))
        config.disable_glog_info()
        # A PIR graph has no memory pass without the new executor: PaddleSeg's deploy/python/infer.py dies of it.
        config.enable_new_executor(True)
        config.enable_memory_optim()
        if device == "gpu":
            if not paddle.is_compiled_with_cuda():
                raise UserError("this Paddle is built without CUDA; install paddlepaddle-gpu or use --device cpu")
            config.enable_use_gpu(256, 0)
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads or len(os.sched_getaffinity(0)))
            if onednn:
                config.set_mkldnn_cache_capacity(10)  # image sizes whose plans are kept
                config.enable_mkldnn()
            else:
                config.disable_mkldnn()
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:  # Paddle raises RuntimeError, ValueError, MemoryError, ... by what is damaged
            raise UserError(f"Paddle Inference cannot load {graph} with {parameters}: {error}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        self._input.reshape(images.shape)
        self._input.copy_from_cpu(np.ascontiguousarray(images))
        self._predictor.run()
        return self._output.copy_to_cpu()


BACKENDS = {"onnxruntime": OnnxRuntime, "paddle": PaddleInference}
