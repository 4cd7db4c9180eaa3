"""ONNX Runtime on an NVIDIA GPU, through its CUDA and its TensorRT provider.

Inputs, outputs and a video's state have fixed places on the GPU, which lets a graph of fixed sizes run as one CUDA
graph; page-locked memory lies between them and NumPy. What TensorRT builds is kept by `engines.cache`.

Source: ONNX Runtime's pages "CUDA Execution Provider", "TensorRT Execution Provider", "I/O Binding"; its Python package
1.31.1; its pull requests 18707 (TensorRT obeys the precisions of a graph unless an option gives it freedom) and 26781
(which node runs where).
"""

import collections
import contextlib
import importlib
import io
import logging
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paddle_rt.errors import UserError, shown
from paddle_rt.files import whole_file
from paddle_rt.inference.deployment import file_digest
from paddle_rt.inference.engines import cuda
from paddle_rt.inference.engines.base import loading
from paddle_rt.inference.engines.cache import empty, engine_cache, keeping, locked, read_manifest, write_manifest
from paddle_rt.inference.engines.gpu import Gpu, check_precision, find_gpu
from paddle_rt.inference.external_data import external_files
from paddle_rt.kinds import check_count

# The smallest, the usual and the largest input, each as (batch, height, width).
Profile = Sequence[tuple[int, int, int]]

INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt-cu13<11"'
_PROVIDERS = {"gpu": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_NAMES = {"gpu": "CUDA", "tensorrt": "TensorRT"}
_OLDEST = (1, 31)  # the first version whose interface was read; the one that told which node runs where came in 1.24
_OLDEST_GPU = (7, 5)  # CUDA 13 and TensorRT 10.5 begin with Turing
_OLDEST_DRIVER = 580  # of CUDA 13
_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")  # what the TensorRT provider is linked with
_DTYPES = {
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
}
_STDOUT = threading.Lock()
logger = logging.getLogger(__name__)


class DeviceArray:
    """An array on a GPU, which nothing writes to any more; `numpy.asarray` and pickling copy it from there.

    Args:
        value: ONNX Runtime's OrtValue that holds it.
    """

    def __init__(self, value: Any) -> None:
        self.value, self.shape = value, tuple(value.shape())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value.numpy(), dtype)

    def __reduce__(self) -> tuple[Callable, tuple[np.ndarray]]:
        return np.asarray, (np.asarray(self),)


class GpuSession:
    """A graph in an ONNX Runtime session on a GPU.

    Args:
        graph: The .onnx file.
        device: "gpu" or "tensorrt".
        options: ONNX Runtime's SessionOptions.
        precision: "fp32", "fp16" or "int8".
        device_id: The number of the GPU, from 0.
        profile: As `OnnxRuntime` takes it.
        is_half: Whether the graph itself is in half precision.

    Attributes:
        report: As `Engine.report` describes it.

    Raises:
        UserError: A library, the driver or the GPU is missing or too old, the GPU does not have the precision, the
            provider takes no node of the graph, or it fails.
    """

    def __init__(
        self,
        graph: pathlib.Path,
        device: str,
        options: Any,
        precision: str,
        device_id: int,
        profile: Profile | None,
        is_half: bool,
    ) -> None:
        self._graph, self._options, self._device, self._device_id = graph, options, device, device_id
        self._is_half = is_half
        _check_package(device)
        self._gpu = _usable_gpu(device_id, precision)
        versions = {**_load_libraries(device), "driver": self._gpu.driver}
        self._cuda = cuda.Cuda(versions["cuda"], device_id)
        self.report = {"nodes_elsewhere": 0, "engines": 0, "cache": None, "versions": versions}
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._inputs, self._outputs = _interface(graph)
        items = (*self._inputs, *self._outputs)
        self._is_fixed = all(type(length) is int for _, shape, _ in items for length in shape)
        self._limits = _limits(self._inputs, profile, graph) if device == "tensorrt" else {}
        self._session = self._open_tensorrt(precision, is_half) if device == "tensorrt" else self._open_cuda()
        self._bound: tuple[tuple[int, ...], ...] | None = None
        if self.report["nodes_elsewhere"]:
            logger.warning(
                "%s leaves some of the nodes of %s to others, which costs copies and time: %s",
                *(_NAMES[device], graph, self._elsewhere),
            )

    # The session

    def _open_cuda(self) -> Any:
        session = self._open({}, uses_cuda_graph=False)
        if self._is_fixed and not self._count_nodes(session):
            del session  # its memory on the GPU is for the next one
            session = self._open({}, uses_cuda_graph=True)
        return session

    def _open_tensorrt(self, precision: str, is_half: bool) -> Any:
        """Open a session with the engine that is kept, or build the engine and keep it."""
        settings = {
            # A graph in half precision says itself what is half, and TensorRT obeys it unless this gives it freedom.
            "trt_fp16_enable": precision == "fp16" and not is_half,
            "trt_int8_enable": precision == "int8",
            "trt_layer_norm_fp32_fallback": precision == "fp16" and not is_half,
            **_profile_settings(self._limits),
        }
        if settings["trt_fp16_enable"]:
            logger.warning(
                "%s is in single precision: TensorRT chooses what it computes in half precision, and may choose what "
                "half precision cannot hold; export with --target gpu --precision fp16 to say what stays",
                self._graph,
            )
        machine = {"gpu": self._gpu.name, "capability": self._gpu.capability, **self.report["versions"]}
        files = {name: file_digest(self._graph.parent / name) for name in external_files(self._graph)}
        files[self._graph.name] = file_digest(self._graph)
        parts = {"engine": "onnxruntime/tensorrt", "files": files, "precision": precision, **machine, **settings}
        expected = {"parts": parts}
        folder, timings = engine_cache(parts), engine_cache({"engine": "timings of TensorRT", **machine})
        with locked(folder):
            settings |= _places(folder)
            manifest = read_manifest(folder, expected)
            try:
                left = self._build(folder, timings, settings) if manifest is None else manifest["nodes_elsewhere"]
                before = _engines(folder)
                session = self._open(settings, uses_cuda_graph=self._is_fixed and left == 0)
                counts = {"nodes_elsewhere": self._count_nodes(session)}
                # TensorRT builds anew where it refuses what was kept. Only what it has read again is kept: the provider
                # itself does not see that a disk is full.
                self.report["cache"] = "reused" if manifest is not None and _engines(folder) == before else "built"
                if self.report["cache"] == "built":
                    write_manifest(folder, expected | counts)
            except BaseException:
                if manifest is None:
                    empty(folder)
                raise
            return session

    def _build(self, folder: pathlib.Path, timings: pathlib.Path, settings: dict[str, Any]) -> int:
        """Build the engine with the measurements of earlier builds here; return the number of nodes elsewhere."""
        logger.warning(
            "TensorRT builds an engine of %s for %s, which takes minutes; it is kept in %s",
            self._graph.name,
            self._gpu.name,
            folder,
        )
        with locked(timings), keeping(timings):
            read_manifest(timings, {})
            _copy_timings(timings, folder)
        left = self._count_nodes(self._open(settings, uses_cuda_graph=False))
        with locked(timings), keeping(timings):
            _copy_timings(folder, timings)
            write_manifest(timings, {})
        return left

    def _open(self, settings: dict[str, Any], uses_cuda_graph: bool) -> Any:
        import onnxruntime

        # TF32, which the provider uses for float32 by default, has a mantissa of 10 bits.
        options = {"device_id": self._device_id, "use_tf32": 0}
        # The exhaustive search measures every algorithm for each new size. In half precision it misses those that the
        # heuristic finds, which make RTFormer and FANet more than twice as fast, and NHWC a little faster still.
        searches = self._is_fixed and not self._is_half
        options["cudnn_conv_algo_search"] = "EXHAUSTIVE" if searches else "HEURISTIC"
        options["prefer_nhwc"] = int(self._is_half)
        providers = [(_PROVIDERS["gpu"], options)]
        if self._device == "tensorrt":
            own = {"device_id": self._device_id, "trt_cuda_graph_enable": uses_cuda_graph, **settings}
            providers.insert(0, (_PROVIDERS["tensorrt"], own))
        else:
            options["enable_cuda_graph"] = int(uses_cuda_graph)
        kept = [settings["trt_engine_cache_path"]] if settings else []
        with loading(f"ONNX Runtime with {_NAMES[self._device]}", self._graph, *kept):
            # Its fallback prints the error and tries the same again.
            session = onnxruntime.InferenceSession(
                str(self._graph), self._options, providers=providers, enable_fallback=0
            )
        if session.get_providers()[0] != _PROVIDERS[self._device]:  # ONNX Runtime leaves it out silently
            raise UserError(
                f"ONNX Runtime cannot start {_PROVIDERS[self._device]}: its libraries of CUDA, cuDNN or TensorRT are "
                f"missing or of another version; {INSTALL}"
            )
        return session

    def _count_nodes(self, session: Any) -> int:
        """Report how many nodes another provider runs, and return it.

        Raises:
            UserError: The wanted provider runs none.
        """
        engines, elsewhere, taken = 0, collections.Counter(), 0
        for part in session.get_provider_graph_assignment_info():
            nodes = part.get_nodes()
            if part.ep_name == _PROVIDERS[self._device]:
                engines, taken = engines + 1, taken + len(nodes)
            else:
                elsewhere.update(node.op_type for node in nodes)
        left = elsewhere.total()
        self._elsewhere = ", ".join(f"{count} {name}" for name, count in elsewhere.most_common(8))
        if not taken:
            raise UserError(
                f"{_NAMES[self._device]} takes none of the {left} nodes of {self._graph} ({self._elsewhere}); export "
                f"it with --target gpu, or use {'device gpu' if self._device == 'tensorrt' else 'device cpu'}"
            )
        self.report.update(nodes_elsewhere=left, engines=engines if self._device == "tensorrt" else 0)
        return left

    # Runs

    def run(self, *inputs: np.ndarray | DeviceArray, keep: Sequence[int] = ()) -> list[np.ndarray | DeviceArray]:
        """Return the graph's outputs, which later runs do not change.

        Args:
            inputs: The graph's inputs, in their order.
            keep: The outputs, by their number, that stay on the GPU.
        """
        self._upload(inputs)
        self._session.run_with_iobinding(self._binding)
        results = []
        for number, value in enumerate(self._binding.get_outputs()):
            shape, dtype = tuple(value.shape()), _DTYPES[value.data_type()]
            if number in keep:  # the next run writes to the place of this one
                own = self._on_device(shape, dtype)
                self._cuda.copy(own.data_ptr(), value.data_ptr(), value.tensor_size_in_bytes())
                results.append(DeviceArray(own))
                continue
            buffer = self._downloads.get(number)
            if buffer is None or buffer.shape != shape:
                buffer = self._downloads[number] = self._cuda.page_locked(shape, dtype)
            self._cuda.copy(buffer.ctypes.data, value.data_ptr(), buffer.nbytes)
            results.append(buffer.copy())
        return results

    def resident(self, *inputs: np.ndarray) -> Callable[[], object]:
        """Return what `Engine.resident` describes."""
        self._upload(inputs)
        session, binding = self._session, self._binding
        return lambda: session.run_with_iobinding(binding)

    def _upload(self, inputs: Sequence[np.ndarray | DeviceArray]) -> None:
        """Copy the inputs to their places on the GPU."""
        shapes = tuple(tuple(array.shape) for array in inputs)
        if shapes != self._bound:
            self._check_shapes(shapes)
            self._bind(shapes)
        for array, value, buffer in zip(inputs, self._places, self._uploads, strict=True):
            if isinstance(array, DeviceArray):
                source = array.value.data_ptr()
            else:
                np.copyto(buffer, array, casting="no")
                source = buffer.ctypes.data
            self._cuda.copy(value.data_ptr(), source, buffer.nbytes)

    def _check_shapes(self, shapes: Sequence[Sequence[int]]) -> None:
        """Refuse sizes for which TensorRT would build anew, within the run and for minutes."""
        for (name, expected, _), shape in zip(self._inputs, shapes, strict=True):
            fits = len(shape) == len(expected) and all(
                type(length) is not int or length == got for length, got in zip(expected, shape, strict=True)
            )
            if not fits:
                raise ValueError(f"input {name} of the graph is {list(expected)}, got {list(shape)}")
        for (name, _, _), shape in zip(self._inputs, shapes, strict=True):
            least, _, most = self._limits.get(name, (shape, shape, shape))
            if not all(low <= length <= high for low, length, high in zip(least, shape, most, strict=True)):
                raise UserError(
                    f"an input of {list(shape)} lies beyond the engine's profile, {list(least)} to {list(most)}; load "
                    "it with a profile that includes the size, for which TensorRT builds another engine"
                )

    def _bind(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Make places on the GPU and buffers for inputs of these shapes, which replace the earlier ones."""
        self._bound, self._binding = None, self._session.io_binding()
        dtypes = [_DTYPES[kind] for _, _, kind in self._inputs]
        self._places = [self._on_device(*each) for each in zip(shapes, dtypes, strict=True)]
        self._uploads = [self._cuda.page_locked(*each) for each in zip(shapes, dtypes, strict=True)]
        self._downloads: dict[int, np.ndarray] = {}
        for (name, _, _), value in zip(self._inputs, self._places, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for name, shape, kind in self._outputs:
            if self._is_fixed:  # a CUDA graph writes to the addresses of the run that recorded it
                self._binding.bind_ortvalue_output(name, self._on_device(shape, _DTYPES[kind]))
            else:
                self._binding.bind_output(name, "cuda", self._device_id)
        self._bound = shapes

    def _on_device(self, shape: Sequence[int], dtype: np.dtype) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cuda", self._device_id)


def _check_package(device: str) -> None:
    """Check that the package is one for NVIDIA's GPUs, with the interface that is used here."""
    import onnxruntime

    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise UserError(
            f"this onnxruntime has no {_PROVIDERS[device]}: pip uninstall onnxruntime, and {INSTALL}; or use device cpu"
        )
    if tuple(int(number) for number in onnxruntime.__version__.split(".")[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UserError(f"onnxruntime-gpu {onnxruntime.__version__} is too old, {oldest} is needed: {INSTALL}")


def _usable_gpu(device_id: int, precision: str) -> Gpu:
    gpu = find_gpu(device_id)
    check_precision(gpu, precision)
    if gpu.capability < _OLDEST_GPU:
        capability, oldest = (".".join(map(str, each)) for each in (gpu.capability, _OLDEST_GPU))
        raise UserError(
            f"{gpu.name} (compute capability {capability}) is too old for CUDA 13 and TensorRT 10, which begin with "
            f"{oldest}; use backend paddle, or device cpu"
        )
    if int(gpu.driver.split(".")[0]) < _OLDEST_DRIVER:
        raise UserError(
            f"the NVIDIA driver {gpu.driver} is too old for CUDA 13, which needs {_OLDEST_DRIVER}; update it"
        )
    return gpu


def _load_libraries(device: str) -> dict[str, str]:
    """Load CUDA, cuDNN and TensorRT from pip's packages, or else from where the system looks; return their versions.

    The providers are linked with these libraries by name, and find what the process has loaded.

    Raises:
        UserError: One is missing or of another version.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # it warns that a provider is not one of its newer kind
    # It prints what it does not find, which our own error says. sys.stdout is that of all threads.
    with _STDOUT, contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()
    if device == "tensorrt":
        # preload_dlls leaves it out; importing the package loads it from the package's own folder.
        with contextlib.suppress(ImportError, OSError, AttributeError):
            importlib.import_module("tensorrt")
    versions = {"onnxruntime": onnxruntime.__version__, "cuda": str(onnxruntime.cuda_version)}
    try:
        cuda.load_library(f"libcudart.so.{versions['cuda'].split('.')[0]}")
        versions["cudnn"] = _dotted(cuda.load_library("libcudnn.so.9").cudnnGetVersion())
        if device == "tensorrt":
            inference, _ = (cuda.load_library(name) for name in _TENSORRT)
            versions["tensorrt"] = _dotted(inference.getInferLibVersion())
    except OSError as error:
        raise UserError(
            f"a library that ONNX Runtime's {_PROVIDERS[device]} needs is missing or of another version ({error}): "
            f"{INSTALL}; plain pip install tensorrt brings a version that it does not load"
        ) from error
    return versions


def _dotted(number: int) -> str:
    """Return the version that cuDNN 9 and TensorRT 10 give as a number, such as 101601 for 10.16.1."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


# The name, the shape and the type of an input or an output; a length that the graph leaves open is no int.
_Item = tuple[str, tuple[Any, ...], str]


def _interface(graph: pathlib.Path) -> tuple[list[_Item], list[_Item]]:
    """Return the inputs and the outputs of a graph, which TensorRT has to know before a session is opened for it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with loading("ONNX Runtime", graph):
        session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    return tuple(
        [(item.name, tuple(item.shape), item.type) for item in items]
        for items in (session.get_inputs(), session.get_outputs())
    )


def _limits(inputs: list[_Item], profile: Profile | None, graph: pathlib.Path) -> dict[str, list[list[int]]]:
    """Return the smallest, the usual and the largest shape of each input with open sizes, by its name.

    Raises:
        UserError: There is such an input and no profile, or a profile and no such input, or the profile is not one.
    """
    is_open = {name: any(type(length) is not int for length in shape) for name, shape, _ in inputs}
    if profile is None:
        if any(is_open.values()):
            raise UserError(
                f"{graph} leaves sizes open, for each of which TensorRT would build an engine: give a profile of the "
                "smallest, the usual and the largest size, or export with --input_size"
            )
        return {}
    if not any(is_open.values()):
        raise UserError(f"{graph} has fixed sizes, and takes no profile, which is for open sizes")
    check_profile(profile)
    return {name: [_fill(shape, kind, sizes) for sizes in profile] for name, shape, kind in inputs if is_open[name]}


def check_profile(profile: Profile) -> None:
    """Check that a profile is the smallest, the usual and the largest (batch, height, width).

    Raises:
        UserError: It is not.
    """
    is_list = isinstance(profile, Sequence) and all(isinstance(each, Sequence) and len(each) == 3 for each in profile)
    if not is_list or len(profile) != 3:
        raise UserError(
            f"a profile is the smallest, the usual and the largest (batch, height, width), got {shown(profile)}"
        )
    for sizes in profile:
        for name, size in zip(("batch", "height", "width"), sizes, strict=True):
            check_count(f"{name} of the profile", size)
    if not all(low <= usual <= high for low, usual, high in zip(*profile, strict=True)):
        raise UserError(f"a profile grows from the smallest over the usual to the largest size, got {shown(profile)}")


def _fill(shape: Sequence[Any], kind: str, sizes: tuple[int, int, int]) -> list[int]:
    """Return a shape with its open lengths filled in: frames are [N, H, W, C] bytes, the rest [N, C, H, W]."""
    lengths = dict(zip((0, 1, 2) if kind == "tensor(uint8)" else (0, 2, 3), sizes, strict=True))
    return [length if type(length) is int else lengths[axis] for axis, length in enumerate(shape)]


def _profile_settings(limits: dict[str, list[list[int]]]) -> dict[str, str]:
    if not limits:
        return {}
    return {
        f"trt_profile_{end}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, shapes[at]))}" for name, shapes in limits.items()
        )
        for at, end in enumerate(("min", "opt", "max"))
    }


def _places(folder: pathlib.Path) -> dict[str, Any]:
    """Return the options that make TensorRT's provider keep engines and measurements in a folder."""
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }


def _engines(folder: pathlib.Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.engine")}


def _copy_timings(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the measurements of algorithms, which speed up the next build."""
    for path in source.glob("*.timing"):
        with whole_file(target / path.name) as part:
            part.write_bytes(path.read_bytes())
