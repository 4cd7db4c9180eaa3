"""Paddle Inference on a CPU, and on a GPU with Paddle's kernels or with TensorRT."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home
from paddle_rt.inference.engines.base import Engine, brief, cores, loading
from paddle_rt.inference.engines.gpu import Gpu, check_precision, find_gpu
from paddle_rt.inference.engines.paddle_graph import PaddleGraph, float32_operators, read_graph
from paddle_rt.inference.engines.paddle_tensorrt import INSTALL, check_tensorrt, convert

_POOL_MB = 256  # GPU memory that is taken at once; Paddle takes more where that does not suffice


class PaddleInference(Engine):
    """Paddle Inference on model.json and model.pdiparams.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        device: "cpu", "gpu" for Paddle's own kernels, or "tensorrt" for engines that the first start builds and keeps.
        threads: CPU threads; None for every core.
        precision: "fp32", or "fp16" on a GPU.
        onednn: Whether to use oneDNN on the CPU, which is several times as fast.
        device_id: The number of the GPU, from 0.

    Raises:
        UserError: Paddle or TensorRT is missing or of a version that does not work, a file is damaged, the device or
            its precision is not available, or TensorRT cannot take the graph.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        parameters: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        onednn: bool = True,
        device_id: int = 0,
    ) -> None:
        paddle, inference = import_paddle()
        self._wait: Callable[[], object] | None = None  # for the GPU
        if device == "cpu":
            config = _cpu_config(inference, graph, parameters, threads or cores(), onednn)
        else:
            gpu = _check_gpu(paddle, device_id, precision)
            versions = self.report["versions"] = _versions(paddle, gpu)
            if device == "tensorrt":
                versions["tensorrt"] = check_tensorrt(paddle, inference, gpu, precision)
            self._wait = functools.partial(paddle.device.cuda.synchronize, device_id)
            with loading("Paddle Inference", graph):
                content = read_graph(graph)
            if device == "tensorrt":
                graph, parameters, facts = convert(graph, parameters, content, gpu, versions, precision, device_id)
                self.report.update(facts)
                config = converted_config(inference, graph, parameters, device_id)
            else:
                config = gpu_config(inference, graph, parameters, content, precision, device_id)
        with loading("Paddle Inference", graph, parameters):
            self._graph = LoadedGraph(inference, config)

    def resident(self, *inputs: np.ndarray) -> Callable[[], object]:
        if self._wait is None:
            return super().resident(*inputs)
        self._graph.feed(*inputs)
        return self._run_resident

    def _run_resident(self) -> None:
        self._graph.run()
        self._wait()

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        return self._graph(*inputs)


class LoadedGraph:
    """A predictor of Paddle Inference, called with arrays.

    Args:
        inference: paddle.inference.
        config: Its Config.

    Attributes:
        run: Runs the graph on what `feed` copied and leaves the outputs on the device; it may return before a GPU is
            done.
    """

    def __init__(self, inference: ModuleType, config: Any) -> None:
        self._predictor = inference.create_predictor(config)
        self.run = self._predictor.run
        self._inputs = [self._predictor.get_input_handle(name) for name in self._predictor.get_input_names()]
        self._outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return the graph's outputs."""
        self.feed(*inputs)
        self.run()
        return [handle.copy_to_cpu() for handle in self._outputs]

    def feed(self, *inputs: np.ndarray) -> None:
        """Copy the inputs for the next runs to the device."""
        for handle, array in zip(self._inputs, inputs, strict=True):
            handle.reshape(array.shape)
            handle.copy_from_cpu(np.ascontiguousarray(array))


def import_paddle() -> tuple[ModuleType, ModuleType]:
    """Import paddle and paddle.inference.

    Raises:
        UserError: The package is missing.
    """
    try:
        with temporary_home():
            import paddle
            from paddle import inference
    except ImportError as error:
        raise UserError(
            f"backend paddle needs its package ({error}): pip install paddlepaddle, or for a GPU {INSTALL}"
        ) from error
    return paddle, inference


def _check_gpu(paddle: ModuleType, device_id: int, precision: str) -> Gpu:
    """Return the GPU that Paddle is to use, after checking that it can.

    Raises:
        UserError: Paddle is built for the CPU, there is no driver or no such GPU, the GPU lacks the precision, or its
            driver is too old for Paddle's CUDA.
    """
    if not paddle.is_compiled_with_cuda():
        raise UserError(f"this Paddle {paddle.__version__} is built for the CPU; {INSTALL}, or use device cpu")
    gpu = find_gpu(device_id)
    check_precision(gpu, precision)
    cuda = f"CUDA {paddle.version.cuda()}, for which this Paddle is built"
    try:
        count = paddle.device.cuda.device_count()
    except Exception as error:  # Paddle passes on CUDA's errors as exceptions of several types
        raise UserError(f"{cuda}, does not start with driver {gpu.driver}: {brief(error)}") from error
    if device_id >= count:
        raise UserError(
            f"{cuda}, finds {count} GPUs, but driver {gpu.driver} has {gpu.name} as GPU {device_id}; is the driver too "
            "old for it?"
        )
    return gpu


def _versions(paddle: ModuleType, gpu: Gpu) -> dict[str, str]:
    version = paddle.version
    return {
        "paddle": paddle.__version__,
        "cuda": str(version.cuda()),
        "cudnn": str(version.cudnn()),
        "driver": gpu.driver,
    }


def _cpu_config(
    inference: ModuleType, graph: pathlib.Path, parameters: pathlib.Path, threads: int, onednn: bool
) -> Any:
    config = _config(inference, graph, parameters)
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(threads)
    if onednn:
        config.set_mkldnn_cache_capacity(10)  # the number of image sizes whose plans are kept
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    return config


def gpu_config(
    inference: ModuleType,
    graph: pathlib.Path,
    parameters: pathlib.Path,
    content: PaddleGraph,
    precision: str,
    device_id: int,
) -> Any:
    """Return the Config with which Paddle's own GPU kernels run a graph.

    Source: PaddleX makes these settings, in inference/models/common/static_infer.py.
    """
    half = precision == "fp16"
    config = _config(inference, graph, parameters)
    config.exp_disable_mixed_precision_ops({"feed", "fetch", *(float32_operators(content) if half else [])})
    config.disable_mkldnn()
    types = inference.PrecisionType
    config.enable_use_gpu(_POOL_MB, device_id, types.Half if half else types.Float32)
    config.enable_new_ir(True)
    config.set_optimization_level(3)
    return config


def converted_config(inference: ModuleType, graph: pathlib.Path, parameters: pathlib.Path, device_id: int) -> Any:
    """Return the Config that runs a graph with TensorRT's engines in it, which have a precision of their own.

    Source: as of `gpu_config`.
    """
    config = _config(inference, graph, parameters)
    config.exp_disable_mixed_precision_ops({"feed", "fetch"})
    config.enable_use_gpu(_POOL_MB, device_id, inference.PrecisionType.Float32)
    return config


def _config(inference: ModuleType, graph: pathlib.Path, parameters: pathlib.Path) -> Any:
    config = inference.Config(str(graph), str(parameters))
    config.disable_glog_info()
    # Without the new executor a PIR graph has no memory pass, and the predictor cannot be created.
    config.enable_new_executor(True)
    config.enable_memory_optim()
    return config
