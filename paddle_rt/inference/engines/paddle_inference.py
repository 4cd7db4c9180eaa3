"""Paddle Inference."""

import pathlib
from collections.abc import Sequence

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home
from paddle_rt.inference.engines.base import Engine, cores, loading


class PaddleInference(Engine):
    """Paddle Inference on model.json and model.pdiparams.

    Args:
        graph: model.json.
        parameters: model.pdiparams.
        device: "cpu", "gpu" or "tensorrt".
        threads: CPU threads; None for every core.
        precision: "fp32", or "fp16" on a GPU.
        onednn: Whether to use oneDNN on the CPU, which is several times as fast.
        device_id: The number of the GPU, from 0.

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
        device_id: int = 0,
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
            config.enable_use_gpu(256, device_id, half)
            if device == "tensorrt":
                if inference.get_trt_compile_version() == (0, 0, 0):
                    raise UserError("this Paddle is built without TensorRT; install a build that has it, or use gpu")
                config.enable_tensorrt_engine(1 << 30, 1, 3, half, use_static=False, use_calib_mode=False)
        with loading("Paddle Inference", graph, parameters):
            self._predictor = inference.create_predictor(config)
        self._inputs = [self._predictor.get_input_handle(name) for name in self._predictor.get_input_names()]
        self._outputs = [self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()]

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        for handle, array in zip(self._inputs, inputs, strict=True):
            handle.reshape(array.shape)
            handle.copy_from_cpu(np.ascontiguousarray(array))
        self._predictor.run()
        return [handle.copy_to_cpu() for handle in self._outputs]
