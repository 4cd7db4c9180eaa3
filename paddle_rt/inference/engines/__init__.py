"""Engines that run an exported graph.

The precision is always set explicitly, since OpenVINO, for one, chooses bf16 by itself where the CPU has it. A package,
a device or a precision that is not available is reported in one line that says what to do.
"""

from collections.abc import Callable

from paddle_rt.inference.engines.base import (
    BACKENDS,
    DEVICES,
    PRECISIONS,
    SUPPORTED,
    Engine,
    UnsupportedError,
    brief,
    check_choice,
    cores,
    switch_off_telemetry,
)
from paddle_rt.inference.engines.mnn import Mnn
from paddle_rt.inference.engines.onnx_runtime import OnnxRuntime
from paddle_rt.inference.engines.onnx_runtime_gpu import DeviceArray, Profile
from paddle_rt.inference.engines.openvino import OpenVino, openvino_core
from paddle_rt.inference.engines.paddle_inference import PaddleInference

ENGINES: dict[str, Callable[..., Engine]] = {
    "mnn": Mnn, "onnxruntime": OnnxRuntime, "openvino": OpenVino, "paddle": PaddleInference
}  # fmt: skip

__all__ = [
    "BACKENDS",
    "DEVICES",
    "ENGINES",
    "PRECISIONS",
    "SUPPORTED",
    "DeviceArray",
    "Engine",
    "Mnn",
    "OnnxRuntime",
    "OpenVino",
    "PaddleInference",
    "Profile",
    "UnsupportedError",
    "brief",
    "check_choice",
    "cores",
    "openvino_core",
    "switch_off_telemetry",
]
