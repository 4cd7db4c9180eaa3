"""What the engines share: the table of what exists, the interface, and the errors of loading."""

import abc
import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from paddle_rt.errors import UserError, unknown

DEVICES = ("cpu", "gpu", "tensorrt")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
# Precisions by backend and device; int8 runs the quantised graph of an export.
SUPPORTED = {
    "onnxruntime": {"cpu": ("fp32", "int8"), "gpu": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16", "int8")},
    "openvino": {"cpu": ("fp32", "bf16", "fp16", "int8"), "gpu": ("fp32", "fp16", "int8")},
    "mnn": {"cpu": ("fp32",)},
    "paddle": {"cpu": ("fp32",), "gpu": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16")},
}
BACKENDS = tuple(SUPPORTED)


class UnsupportedError(UserError):
    """A backend, a device and a precision that exist, but not together, or not on this machine."""


class Engine(abc.ABC):
    """A loaded graph.

    Attributes:
        rounding: How many times as much as in other engines single precision may round, since the engine has faster
            algorithms that do.
    """

    rounding: ClassVar[float] = 1.0

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """Facts for benchmarks, which an engine on a GPU fills in.

        nodes_elsewhere: The number of nodes that the device left to another one.
        engines: The number of parts of the graph that TensorRT runs.
        cache: "built" or "reused" for engines that are kept, else None.
        versions: The versions of what computes, by name.
        """
        return {"nodes_elsewhere": 0, "engines": 0, "cache": None, "versions": {}}

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the graph's output for images.

        Shape: float32 [B, C, H, W] or uint8 [B, H, W, C], as the graph requires, to [B, ...].
        """
        return self._run(images)[0]

    def step(self, frame: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the graph of a video network on a frame and the state before it; return logits and the next state.

        Shape: uint8 [1, H, W, 3] and deploy.yaml's state_shape to [1, num_classes, h, w] and state_shape.
        """
        logits, state = self._run(frame, np.asarray(state))  # the state of an engine on a GPU is there
        return logits, state

    def resident(self, *inputs: np.ndarray) -> Callable[[], object]:
        """Copy inputs to the device once, and return a function that runs the graph on them and waits for its end.

        The outputs stay on the device, so that a benchmark times the graph alone. On a CPU there is nothing to copy.
        """
        return lambda: self._run(*inputs)

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
        for elsewhere in (device, "cpu"):
            others = [name for name, devices in SUPPORTED.items() if precision in devices.get(elsewhere, ())]
            if others:
                break
        where = f"; {precision} on {elsewhere} is for backend {' or '.join(others)}" if others else ""
        valid = ", ".join(offered[device])
        raise UnsupportedError(f"backend {backend} has no precision {precision} on {device}, only {valid}{where}")


@contextlib.contextmanager
def loading(engine: str, *files: pathlib.Path) -> Iterator[None]:
    """Turn whatever an engine raises while it reads a graph, which may be damaged, into a UserError."""
    try:
        yield
    except Exception as error:  # the exceptions of an engine share no base, and damage leads to any of Python's
        raise UserError(f"{engine} cannot load {' with '.join(map(str, files))}: {brief(error)}") from error


def brief(error: Exception) -> str:
    """Return an engine's message on one line, without the hints and source lines that Paddle appends."""
    text = " ".join(str(error).split("[Hint")[0].split()) or type(error).__name__
    # ONNX Runtime begins with the C++ function that fails, and ends with why.
    return text if len(text) <= 400 else f"{text[:120]} ... {text[-270:]}"


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
