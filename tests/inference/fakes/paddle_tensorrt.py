"""Paddle 3 for a GPU with TensorRT, on a machine that has none: its interface, and outputs from Paddle's CPU kernels.

It follows Paddle's "Paddle-TensorRT" page of the inference documentation 3.0 and python/paddle/tensorrt/export.py and
converter.py (Input, PrecisionMode, TensorRTConfig, convert and the files that it writes), and the signatures that
paddle.inference 3.2.2 gives in its docstrings (Config). What these do not have, it refuses. Every call is recorded.
"""

import ctypes
import enum
import functools
import hashlib
import importlib.machinery
import json
import os
import pathlib
import sys
import types

import numpy as np
import paddle
from paddle import inference

Precision = type(inference.PrecisionType.Half)
RealConfig, real_create_predictor, real_library = inference.Config, inference.create_predictor, ctypes.CDLL
# The methods of Config that make settings for a GPU, with the types of their arguments; all have defaults but sets.
METHODS = {
    "disable_glog_info": (), "disable_mkldnn": (), "enable_memory_optim": (bool,), "enable_new_executor": (bool,),
    "enable_new_ir": (bool,), "set_optimization_level": (int,), "exp_disable_mixed_precision_ops": (set,),
    "enable_use_gpu": (int, int, Precision),
}  # fmt: skip
CPU_METHODS = ("disable_gpu", "set_cpu_math_library_num_threads", "enable_mkldnn", "set_mkldnn_cache_capacity")


class FakePaddle:
    """The machine that is played, and what was done on it.

    Attributes:
        calls: Each call as (name, arguments...).
        fault: What goes wrong in `convert`: "raise", "no engines", "elsewhere" or "other"; None for nothing.
        other: The prefix of a graph that the fault "other" builds its engine of.
        gpu: What engines are built for; another one cannot load them.
        libraries: Libraries that ctypes finds.
    """

    def __init__(self):
        self.calls, self.fault, self.other, self.gpu = [], None, None, "sm_75"
        self.libraries = {"libnvinfer_plugin.so"}


def install(patch, paddle_version="3.2.2", tensorrt_version="8.6.1", count=1) -> FakePaddle:
    """Put the fakes into Paddle and sys.modules.

    Args:
        patch: pytest's monkeypatch.
        paddle_version, tensorrt_version: Of the packages; Paddle is built for this TensorRT.
        count: The number of GPUs.
    """
    fake = FakePaddle()

    def library(name, *arguments, **keywords):
        if "nvinfer" not in str(name):
            return real_library(name, *arguments, **keywords)
        if name not in fake.libraries:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()

    patch.setattr(ctypes, "CDLL", library)
    patch.setattr(paddle, "__version__", paddle_version)
    patch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    patch.setattr(paddle.device.cuda, "device_count", lambda: count)
    patch.setattr(paddle.device.cuda, "synchronize", lambda device=None: fake.calls.append(("synchronize", device)))
    patch.setattr(paddle.version, "cuda", lambda: "11.8")
    patch.setattr(paddle.version, "cudnn", lambda: "8.9.7")
    numbers = tuple(int(number) for number in tensorrt_version.split("."))
    patch.setattr(inference, "get_trt_compile_version", lambda: numbers)
    patch.setattr(inference, "Config", lambda *files: Config(fake, *files))
    patch.setattr(inference, "create_predictor", lambda config: create_predictor(fake, config))
    module = types.ModuleType("paddle.tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("paddle.tensorrt", None)
    module.Input, module.PrecisionMode, module.TensorRTConfig = Input, PrecisionMode, TensorRTConfig
    module.convert = lambda model_path, config: convert(fake, model_path, config)
    patch.setitem(sys.modules, "paddle.tensorrt", module)
    package = types.ModuleType("tensorrt")
    package.__version__ = tensorrt_version
    patch.setitem(sys.modules, "tensorrt", package)
    return fake


class Config:
    def __init__(self, fake, prog_file: str, params_file: str):
        assert isinstance(prog_file, str) and isinstance(params_file, str)
        self.fake, self.files, self.called = fake, (prog_file, params_file), {}
        fake.calls.append(("Config", prog_file, params_file))

    def __getattr__(self, name):
        if name in CPU_METHODS:
            return lambda *arguments: self.called.update({name: arguments})  # the real one judges them
        if name not in METHODS:
            raise AttributeError(f"Config has no {name}")
        expected = METHODS[name]

        def method(*arguments):
            if len(arguments) > len(expected) or not all(map(isinstance, arguments, expected)):
                raise TypeError(f"{name}(): incompatible function arguments {arguments}")
            self.called[name] = arguments
            self.fake.calls.append((name, *arguments))

        return method


def create_predictor(fake, config):
    """Make a real predictor for the CPU, of the graph that an engine was built of if there is one."""
    graph, parameters = config.files
    if "disable_gpu" in config.called:
        return real_predictor(graph, parameters, **config.called)
    fake.calls.append(("create_predictor",))
    assert "enable_use_gpu" in config.called and pathlib.Path(parameters).is_file()
    for operator in operators(graph):
        if operator["#"] == "1.tensorrt_engine":
            engine = json.loads(pathlib.Path(operator["A"][0]["AT"]["D"]).read_text())
            if engine["gpu"] != fake.gpu:
                raise RuntimeError("(External) the engine is for another GPU.")
            graph, parameters = (f"{engine['prefix']}.{suffix}" for suffix in ("json", "pdiparams"))
    return kept_predictor(graph, parameters, os.stat(graph).st_mtime_ns)


def real_predictor(graph, parameters, **settings):
    config = RealConfig(graph, parameters)
    for name, arguments in settings.items():
        getattr(config, name)(*arguments)
    return real_create_predictor(config)


@functools.cache
def kept_predictor(graph, parameters, changed):
    """Make a predictor of a file once, since this takes longer than all else. oneDNN resizes wrongly."""
    return real_predictor(graph, parameters, disable_gpu=(), disable_mkldnn=(), enable_new_executor=())


def operators(path):
    return json.loads(pathlib.Path(path).read_text())["program"]["regions"][0]["blocks"][0]["ops"]


class Input:
    def __init__(self, warmup_data=None, min_input_shape=None, max_input_shape=None, optim_input_shape=None,
                 input_data_type="float32", input_range=None, name=None):  # fmt: skip
        shapes = (min_input_shape, max_input_shape, optim_input_shape)
        if (warmup_data is None and None in shapes) or (warmup_data is not None and any(shapes)):
            raise ValueError("either warmup_data or all three shapes")
        self.warmup_data, self.name = warmup_data, name


class PrecisionMode(enum.Enum):
    FP32, FP16, BF16, INT8 = "FP32", "FP16", "BF16", "INT8"


class TensorRTConfig:
    def __init__(self, inputs, min_subgraph_size=3, save_model_dir=None, disable_ops=None,
                 precision_mode=PrecisionMode.FP32, ops_run_float=None, optimization_level=3, disable_passes=(),
                 workspace_size=1 << 30, use_cuda_graph=False, refit_params_path=None):  # fmt: skip
        self.settings = {name: value for name, value in locals().items() if name != "self"}
        assert isinstance(precision_mode, PrecisionMode) and isinstance(inputs, list)
        self.inputs, self.save_model_dir = inputs, save_model_dir


def convert(fake, model_path, config):
    """Write the files that Paddle writes; the engine's says of which graph it is."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    fake.calls.append(("convert", model_path, {**config.settings, "visible": visible}))
    if os.path.abspath(config.save_model_dir) == os.path.abspath(model_path):
        raise ValueError("save_model_dir and model_path cannot be the same")
    content, _ = json.loads(pathlib.Path(f"{model_path}.json").read_text()), os.stat(f"{model_path}.pdiparams")
    all_operators = operators(f"{model_path}.json")
    data = [operator for operator in all_operators if operator["#"] == "1.data"]
    for operator in data:
        values = {attribute["N"]: attribute["AT"].get("D") for attribute in operator["A"]}
        fed = next(entry for entry in config.inputs if entry.name == values["name"])
        assert len(config.inputs) == len(data) and isinstance(fed.warmup_data, tuple) and fed.warmup_data
        for array in fed.warmup_data:
            assert isinstance(array, np.ndarray) and array.dtype == values["dtype"], "the executor refuses this type"
            assert list(array.shape) == values["shape"], "the executor refuses this shape"
        if values["dtype"] == "uint8" and "pd_op.cast" not in (config.settings["disable_ops"] or ()):
            raise TypeError("Unsupported dtype: UINT8")
    if fake.fault == "raise":
        raise ValueError("Requested TensorRT version : 10.5.0 does not match\nthe range of installed versions : 8.x")
    folder = pathlib.Path(config.save_model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = fake.other if fake.fault == "other" else model_path
    file = folder / f"engine_{int(hashlib.sha256(model_path.encode()).hexdigest(), 16) % 10**8}_1.trt"
    file.write_text(json.dumps({"prefix": os.path.abspath(prefix), "gpu": fake.gpu}))
    file.with_suffix(".pir").write_text("the group of operators")
    stored = str(folder.parent / "elsewhere.trt") if fake.fault == "elsewhere" else str(file)
    path = {"N": "engine_serialized_data", "AT": {"#": "0.a_str", "D": stored}}
    engine = {"#": "1.tensorrt_engine", "A": [path], "I": [], "O": []}
    parameter = next(operator for operator in all_operators if operator["#"] == "p")
    if fake.fault != "no engines":
        content["program"]["regions"][0]["blocks"][0]["ops"] = [parameter, *data, engine, all_operators[-1]]
    pathlib.Path(f"{folder}.json").write_text(json.dumps(content))
    pathlib.Path(f"{folder}.pdiparams").write_bytes(b"parameters that stay in Paddle")
    return object()
