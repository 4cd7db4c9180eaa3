"""onnxruntime-gpu, as far as the product calls it, on a CPU, where the real package computes; anything else is refused.

Follows the Python package of onnxruntime-gpu 1.31.1 (onnxruntime_inference_collection.py, __init__.py, the names of
options in its providers' libraries) and ONNX Runtime's pages "CUDA Execution Provider" and "TensorRT Execution
Provider".
"""

import pathlib
from collections.abc import Callable

import numpy as np
import onnxruntime as real

from tests.inference.fakes import cuda_machine
from tests.inference.fakes.cuda_machine import Machine

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
CUDA_KEYS = {"device_id": range(8), "use_tf32": {0, 1}, "enable_cuda_graph": {0, 1}, "prefer_nhwc": {0, 1},
             "cudnn_conv_algo_search": {"EXHAUSTIVE", "HEURISTIC", "DEFAULT"}}  # fmt: skip
ENDS = [f"trt_profile_{end}_shapes" for end in ("min", "opt", "max")]
TENSORRT_KEYS = {
    "device_id": range(8), **dict.fromkeys(["trt_engine_cache_path", "trt_timing_cache_path", *ENDS], str),
    **dict.fromkeys(["trt_fp16_enable", "trt_int8_enable", "trt_engine_cache_enable", "trt_timing_cache_enable",
                     "trt_layer_norm_fp32_fallback", "trt_cuda_graph_enable"], bool)}  # fmt: skip
LIBRARIES = {CUDA: cuda_machine.CUDA, TENSORRT: cuda_machine.TENSORRT}
TYPES = {np.uint8: "tensor(uint8)", np.float32: "tensor(float)", np.int32: "tensor(int32)", np.int64: "tensor(int64)"}


class OrtValue:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = lambda: list(array.shape)
        self.data_type = lambda: TYPES[array.dtype.type]
        self.data_ptr = lambda: array.ctypes.data
        self.tensor_size_in_bytes = lambda: array.nbytes
        self.numpy = array.copy

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape, element_type, device_type="cpu", device_id=0) -> "OrtValue":
        assert type(shape) is list and element_type in TYPES and device_type == "cuda"
        Machine.here.calls.append(("array", tuple(shape), device_id))
        return cls(np.full(shape, 77, element_type))


class IOBinding:
    def __init__(self, session: "Session") -> None:
        self.session, self.inputs, self.outputs = session, {}, {item.name: None for item in session.cpu.get_outputs()}

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        assert name in [item.name for item in self.session.cpu.get_inputs()] and isinstance(ortvalue, OrtValue)
        self.inputs[name] = ortvalue

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        assert name in self.outputs and isinstance(ortvalue, OrtValue)
        self.outputs[name] = ortvalue

    def bind_output(self, name: str, device_type: str = "cpu", device_id: int = 0) -> None:
        assert name in self.outputs and device_type == "cuda"

    def get_outputs(self) -> list[OrtValue]:
        return list(self.outputs.values())


class Session:
    """An InferenceSession with a provider for GPUs."""

    def __init__(self, module: "OnnxRuntime", path: str, options, providers: list[tuple[str, dict]]) -> None:
        self.module, self.graph, self.captured = module, pathlib.Path(path), None
        self.machine = machine = Machine.here
        self.options = {name: {**settings} for name, settings in providers}
        for name, keys in ((CUDA, CUDA_KEYS), (TENSORRT, TENSORRT_KEYS)):
            for key, value in self.options.get(name, {}).items():
                if key not in keys or not (
                    isinstance(value, keys[key]) if isinstance(keys[key], type) else value in keys[key]
                ):
                    raise RuntimeError(f"[ONNXRuntimeError] : 11 : EP_FAIL : {name} has no option {key} = {value!r}")
        self.providers = [name for name in self.options if machine.loaded >= set(LIBRARIES[name])]
        machine.calls.append(("session", *self.providers))
        module.options.append(self.options)
        self.cpu = real.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.cuda_graph = any(
            s.get("enable_cuda_graph") or s.get("trt_cuda_graph_enable") for s in self.options.values()
        )
        if self.cuda_graph and any(part.ep_name != self.providers[0] for part in self.parts()):
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        if TENSORRT in self.providers:
            self.build(self.options[TENSORRT])

    def build(self, options: dict) -> None:
        assert options["trt_engine_cache_enable"] and options["trt_timing_cache_enable"]
        folder = pathlib.Path(options["trt_engine_cache_path"])
        engine = folder / f"TensorrtExecutionProvider_TRTKernel_graph_{self.graph.name}_0_0_sm75.engine"
        self.limits = [dict(each.split(":") for each in options[end].split(",")) for end in ENDS if end in options]
        content = repr(sorted((k, v) for k, v in options.items() if k not in ("trt_cuda_graph_enable", "device_id")))
        if engine.exists():
            if engine.read_text() != content:
                raise RuntimeError(f"TensorRT EP could not deserialize engine from cache: {engine}")
            return
        self.module.builds += 1
        engine.write_text(content[:5])
        (folder / "TensorrtExecutionProvider_cache_sm75.timing").write_text(f"timings of {self.module.builds} builds")
        self.module.on_build(folder)
        engine.write_text(content)

    def parts(self) -> list:
        """Return the nodes as the real package reports them, each run of a provider's nodes as one part."""
        parts = []
        for node in [node for part in self.cpu.get_provider_graph_assignment_info() for node in part.get_nodes()]:
            takes = [name for name in self.providers if not self.module.not_on[name] & {"*", node.op_type}]
            name = (takes or ["CPUExecutionProvider"])[0]
            if not parts or parts[-1].ep_name != name:
                parts.append(type("OrtEpAssignedSubgraph", (), {"ep_name": name, "nodes": []})())
                parts[-1].nodes, parts[-1].get_nodes = [], (lambda part=parts[-1]: part.nodes)
            parts[-1].nodes.append(node)
        return parts

    get_provider_graph_assignment_info = parts

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def get_providers(self) -> list[str]:
        return [*self.providers, "CPUExecutionProvider"]

    def run_with_iobinding(self, iobinding: IOBinding) -> None:
        assert iobinding.session is self and not self.machine.pending, "a copy is still under way"
        feed = {name: value.array for name, value in iobinding.inputs.items()}
        for name, largest in (self.limits[2] if TENSORRT in self.providers and self.limits else {}).items():
            fits = all(length <= int(most) for length, most in zip(feed[name].shape, largest.split("x"), strict=True))
            assert fits, "TensorRT builds anew, for minutes"
        places = [v.data_ptr() for v in [*iobinding.inputs.values(), *iobinding.outputs.values()] if v is not None]
        self.captured = self.captured or places
        assert not self.cuda_graph or self.captured == places, "a CUDA graph reads and writes where it was recorded"
        self.machine.calls.append(("run", *[value.shape for value in feed.values()]))
        for (name, place), result in zip(iobinding.outputs.items(), self.cpu.run(None, feed), strict=True):
            if place is None:
                iobinding.outputs[name] = OrtValue(result.copy())
            else:
                np.copyto(place.array, result, casting="no")


class OnnxRuntime:
    """The module.

    Attributes:
        providers: The providers that the package has.
        not_on: The operators that a provider does not take; {"*"} for all.
        on_build: Called with the folder while TensorRT builds, half of the engine being written.
        builds: The number of engines that were built.
        options: The options of each session on the GPU.
    """

    __version__, cuda_version, OrtValue = "1.31.1", "13.0", OrtValue
    SessionOptions, GraphOptimizationLevel = real.SessionOptions, real.GraphOptimizationLevel

    def __init__(self) -> None:
        self.providers, self.builds, self.options = [TENSORRT, CUDA, "CPUExecutionProvider"], 0, []
        self.not_on: dict[str, set[str]] = {TENSORRT: set(), CUDA: set()}
        self.on_build: Callable[[pathlib.Path], None] = lambda folder: None

    def get_available_providers(self) -> list[str]:
        return self.providers

    def set_default_logger_severity(self, severity: int) -> None:
        assert severity == 3

    def preload_dlls(self, cuda=True, cudnn=True, msvc=True, directory=None) -> None:
        print("Failed to load libcufft.so.12")  # as the real one prints
        Machine.here.load_package("cuda")

    def InferenceSession(self, path, sess_options=None, providers=None, provider_options=None, *, enable_fallback):  # noqa: N802
        assert enable_fallback == 0 and provider_options is None
        if providers == ["CPUExecutionProvider"]:
            return real.InferenceSession(path, sess_options, providers=providers)
        return Session(self, path, sess_options, providers)
