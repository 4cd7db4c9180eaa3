"""OpenVINO."""

import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import file_digest
from paddle_rt.inference.engines.base import Engine, UnsupportedError, cores, loading, switch_off_telemetry
from paddle_rt.inference.engines.cache import engine_cache, locked, read_manifest, write_manifest

if TYPE_CHECKING:
    import openvino

# OpenVINO plans a layer for each size of the image and keeps the plans that it used last: by default 5000, which fill a
# gigabyte if every image has another size. This many suffice where 8 sizes alternate.
_PLANS = "128"
logger = logging.getLogger(__name__)


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
        device_id: The number of the GPU among several.
        threads: CPU threads; None for every core.
        precision: The precision of the arithmetic. With "int8", the layers that are not quantised are computed in bf16
            where the CPU has it.
        batch: Fix an open length of the batch to this number, for which OpenVINO has faster kernels.
        keeps_model: Keep the graph as OpenVINO has transformed it in the folder of `engine_cache`, and take it from
            there if it is there, which is faster and needs less memory.

    Raises:
        UserError: The package is missing, the file is damaged, or the device or its precision is not available.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        device_id: int = 0,
        batch: int | None = None,
        keeps_model: bool = False,
    ) -> None:
        try:
            core = openvino_core()
        except ImportError as error:
            raise UserError(f"backend openvino needs its package ({error}): pip install openvino") from error
        name = f"{device.upper()}.{device_id}" if device_id else device.upper()
        if not any(name in (found, found.split(".")[0]) for found in core.available_devices):
            raise UserError(f"OpenVINO finds no {name} here, only {', '.join(core.available_devices)}; use device cpu")
        offered = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        if precision in ("bf16", "fp16") and precision.upper() not in offered:
            raise UnsupportedError(
                f"according to OpenVINO this {name} does not compute in {precision}; use fp32 or int8"
            )
        rest = "fp32" if precision != "int8" else "bf16" if "BF16" in offered else "fp32"
        hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[rest if precision == "int8" else precision]
        settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = str(threads or cores())
            settings["CPU_RUNTIME_CACHE_CAPACITY"] = _PLANS
        with loading("OpenVINO", graph):
            model = (_from_cache if keeps_model else _compiled)(graph, name, settings, batch)
            self._request = model.create_infer_request()
        self._inputs, self._outputs = len(model.inputs), len(model.outputs)

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        if len(inputs) != self._inputs:  # OpenVINO reads whatever memory a missing input has
            raise ValueError(f"the graph has {self._inputs} inputs, got {len(inputs)}")
        self._request.infer(inputs, share_inputs=True)
        # The outputs are copied since the next run writes to the same memory.
        return [self._request.get_output_tensor(i).data.copy() for i in range(self._outputs)]


def _compiled(
    graph: pathlib.Path, device: str, settings: dict[str, str], batch: int | None
) -> "openvino.CompiledModel":
    if batch is None:
        return openvino_core().compile_model(graph, device, settings)  # which does not read a graph that it has kept
    model = openvino_core().read_model(graph)
    model.reshape([batch, *list(model.inputs[0].partial_shape)[1:]])
    return openvino_core().compile_model(model, device, settings)


def _from_cache(
    graph: pathlib.Path, device: str, settings: dict[str, str], batch: int | None
) -> "openvino.CompiledModel":
    import openvino

    parts: dict[str, Any] = {
        "kind": "OpenVINO model", "openvino": openvino.__version__, "graph": file_digest(graph), "device": device,
        "settings": settings, "batch": batch,
    }  # fmt: skip
    folder = engine_cache(parts)
    with locked(folder):
        is_kept = read_manifest(folder, parts) is not None
        model = _compiled(graph, device, {**settings, "CACHE_DIR": str(folder)}, batch)
        if not is_kept:
            try:
                write_manifest(folder, parts)
            except UserError as error:  # the disk is full
                logger.warning("the model is not kept: %s", error)
    return model
