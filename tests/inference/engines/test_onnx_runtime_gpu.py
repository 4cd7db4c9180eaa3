"""ONNX Runtime on a GPU, against the recorded interface of onnxruntime-gpu: calls, files, caches, and what is missing.

Nothing here runs on a GPU; the arithmetic is that of ONNX Runtime on the CPU.
"""

import concurrent.futures
import fcntl
import json
import logging
import pathlib
import pickle
import sys
import threading
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from paddle_rt.errors import UserError
from paddle_rt.inference import Segmenter, VideoSegmenter, load
from paddle_rt.inference.deployment import VERIFICATION, file_digest
from paddle_rt.inference.engines import DeviceArray, OnnxRuntime
from paddle_rt.inference.engines.cache import MANIFEST
from tests.helpers import NORMALIZE, message, written
from tests.inference.fakes.cuda_machine import TURING, Machine
from tests.inference.fakes.onnxruntime_gpu import CUDA, TENSORRT, Session
from tests.inference.fakes.onnxruntime_gpu import OnnxRuntime as FakeOnnxRuntime

HEIGHT, WIDTH, CLASSES = 8, 12, 4
STATE = [1, 2, 3, 3]
INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]" "tensorrt-cu13<11"'
PROFILE = ((1, 4, 6), (1, 8, 12), (2, 16, 24))


def write_graph(
    path: pathlib.Path, sizes: tuple = (1, HEIGHT, WIDTH), seed: int = 0, video: bool = False
) -> pathlib.Path:
    """Write a graph that gives logits of frames, and of the state beside them for a video."""
    batch, height, width = sizes
    weight = np.random.default_rng(seed).standard_normal((CLASSES, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weight"], ["logits"]),
    ]
    initializers = [onnx.numpy_helper.from_array(weight, "weight")]
    inputs = [helper.make_tensor_value_info("frame", TensorProto.UINT8, [batch, height, width, 3])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES, height, width])]
    if video:
        nodes[2] = helper.make_node("Conv", ["planes", "weight"], ["still"])
        nodes += [
            helper.make_node("ReduceMean", ["state"], ["mean"], keepdims=1),
            helper.make_node("Add", ["still", "mean"], ["logits"]),
            helper.make_node("ReduceMean", ["planes"], ["light"], keepdims=1),
            helper.make_node("Add", ["state", "light"], ["next"]),
        ]
        inputs.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, STATE))
        outputs.append(helper.make_tensor_value_info("next", TensorProto.FLOAT, STATE))
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write_export(folder: pathlib.Path, graph: pathlib.Path, shape: list, **more: object) -> pathlib.Path:
    """Describe a graph as an export does."""
    normalize = {"mean": NORMALIZE["mean"], "std": NORMALIZE["std"]}
    facts = dict(input_shape=shape, input_dtype="uint8", output_op="coarse", **more)
    deploy = {**facts, "transforms": [NORMALIZE], "onnx": graph.name, "num_classes": CLASSES,
              "class_names": list("abcd")}  # fmt: skip
    deploy = {key: value for key, value in deploy.items() if value is not None}
    (folder / "deploy.yaml").write_text(json.dumps({"Deploy": deploy}))
    files = {path.name: file_digest(path) for path in folder.glob("*.onnx")}
    (folder / VERIFICATION).write_text(json.dumps({"files": files, "normalize": normalize}))
    return folder


def frame(seed: int = 0, sizes: tuple = (1, HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*sizes, 3), dtype=np.uint8)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return start(tmp_path, monkeypatch)


def start(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, gpu: str = TURING) -> Machine:
    """Start a machine with a GPU, which has onnxruntime-gpu and TensorRT; what was cached in the folder is there."""
    machine = Machine(folder, gpu)
    machine.ort = FakeOnnxRuntime()
    machine.install(monkeypatch, folder, onnxruntime=machine.ort)
    return machine


@pytest.fixture
def graph(tmp_path) -> pathlib.Path:
    return write_graph(tmp_path / "model.onnx")


@pytest.fixture
def open_graph(tmp_path) -> pathlib.Path:
    return write_graph(tmp_path / "open.onnx", ("N", "H", "W"))


def cached(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of engines in the cache."""
    return sorted(
        path.parent for path in (folder / "cache").glob(f"*/{MANIFEST}") if list(path.parent.glob("*.engine"))
    )


def sessions(machine: Machine) -> list[str]:
    return [call[1] for call in machine.calls if call[0] == "session"]


def same(engine: OnnxRuntime, graph: pathlib.Path, *inputs: np.ndarray) -> None:
    """Assert that an engine gives what the graph gives on the CPU, bit for bit, and keeps what it gave."""
    first = engine._run(*inputs)
    wanted = OnnxRuntime(graph)._run(*inputs)
    engine._run(*(255 - array if array.dtype == np.uint8 else array + 1 for array in inputs))
    for got, expected in zip(first, wanted, strict=True):
        assert got.dtype == expected.dtype and np.array_equal(got, expected), np.abs(got - expected).max()


# Calls and options


def test_cuda_runs_a_fixed_graph_as_a_cuda_graph_with_page_locked_buffers(machine, graph):
    engine = OnnxRuntime(graph, "gpu")
    assert [call for call in machine.calls if call[0] != "array"] == [
        ("load", "cuda"),
        ("session", CUDA),
        ("session", CUDA),
    ]
    options = {"device_id": 0, "use_tf32": 0, "cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": 0}
    assert machine.ort.options == [{CUDA: {**options, "enable_cuda_graph": flag}} for flag in (0, 1)]
    same(engine, graph, frame())
    assert len(machine.memory) == 2, "one buffer for the way there, one for the way back"
    size, logits = frame().nbytes, 4 * CLASSES * HEIGHT * WIDTH
    assert [call for call in machine.calls if call[0] in ("copy", "run")] == 2 * [
        ("copy", size, 0), ("run", (1, HEIGHT, WIDTH, 3)), ("copy", logits, 0)]  # fmt: skip
    versions = {"onnxruntime": "1.31.1", "cuda": "13.0", "cudnn": "9.13.0", "driver": "580.65.06"}
    assert engine.report == {"nodes_elsewhere": 0, "engines": 0, "cache": None, "versions": versions}
    del engine
    assert not machine.memory, "the buffers are freed"


def test_tensorrt_builds_once_and_then_reuses(machine, graph, tmp_path, caplog):
    first = OnnxRuntime(graph, "tensorrt")
    assert [c for c in machine.calls if c[0] != "array"] == [
        ("load", "cuda"), ("load", "tensorrt"), ("session", TENSORRT, CUDA), ("session", TENSORRT, CUDA)]  # fmt: skip
    (record,) = caplog.records
    assert (
        record.levelno == logging.WARNING and "builds an engine of model.onnx for NVIDIA GeForce RTX" in record.message
    )
    (folder,) = cached(tmp_path)
    build, run = (options[TENSORRT] for options in machine.ort.options)
    assert build == {
        "device_id": 0, "trt_cuda_graph_enable": False, "trt_fp16_enable": False, "trt_int8_enable": False,
        "trt_layer_norm_fp32_fallback": False, "trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True, "trt_timing_cache_path": str(folder)}  # fmt: skip
    assert run == {**build, "trt_cuda_graph_enable": True}
    versions = {
        "onnxruntime": "1.31.1",
        "cuda": "13.0",
        "cudnn": "9.13.0",
        "tensorrt": "10.16.1",
        "driver": "580.65.06",
    }
    assert first.report == {"nodes_elsewhere": 0, "engines": 1, "cache": "built", "versions": versions}
    same(first, graph, frame())

    second = OnnxRuntime(graph, "tensorrt")
    assert machine.ort.builds == 1 and len(caplog.records) == 1 and len(sessions(machine)) == 3
    assert second.report == {**first.report, "cache": "reused"}
    same(second, graph, frame(1))


def test_the_device_id_reaches_every_call(tmp_path, monkeypatch, graph):
    machine = start(tmp_path, monkeypatch, f"{TURING}\nGPU-2, NVIDIA H100, 9.0, 580.65.06")
    engine = OnnxRuntime(graph, "tensorrt", device_id=1)
    same(engine, graph, frame())
    assert {settings["device_id"] for options in machine.ort.options for settings in options.values()} == {1}
    assert {call[-1] for call in machine.calls if call[0] in ("array", "copy")} == {1}
    assert "there is no GPU 2: the driver has 2" in message(OnnxRuntime, graph, "gpu", device_id=2)


@pytest.mark.parametrize("precision, is_half, flags", [
    ("fp32", False, (False, False, False)), ("fp16", False, (True, False, True)), ("fp16", True, (False, False, False)),
    ("int8", False, (False, True, False))])  # fmt: skip
def test_precisions_are_what_they_say(machine, graph, caplog, precision, is_half, flags):
    OnnxRuntime(graph, "tensorrt", precision=precision, is_half=is_half)
    options = machine.ort.options[-1][TENSORRT]
    keys = ("trt_fp16_enable", "trt_int8_enable", "trt_layer_norm_fp32_fallback")
    assert tuple(options[key] for key in keys) == flags
    assert ("export with --target gpu --precision fp16" in caplog.text) == flags[0]


def test_the_graph_s_inputs_stay_on_the_gpu_for_a_benchmark(machine, graph):
    engine = OnnxRuntime(graph, "gpu")
    run = engine.resident(frame())
    machine.calls.clear()
    run()
    run()
    assert machine.calls == 2 * [("run", (1, HEIGHT, WIDTH, 3))]


@pytest.mark.parametrize("wrong", [frame().astype(np.float32), frame(sizes=(1, 9, 12)), frame()[0]])
def test_a_wrong_input_is_refused_before_it_runs(machine, graph, wrong):
    engine = OnnxRuntime(graph, "gpu")
    with pytest.raises((ValueError, TypeError)):
        engine.run(wrong)
    assert not [call for call in machine.calls if call[0] == "run"]
    same(engine, graph, frame())


def test_a_state_of_another_type_is_refused_as_on_the_cpu(machine, tmp_path):
    graph = write_graph(tmp_path / "video.onnx", video=True)
    for engine in (OnnxRuntime(graph, "gpu"), OnnxRuntime(graph)):
        with pytest.raises(Exception, match="double|float64"):
            engine.step(frame(), np.zeros(STATE, np.float64))


# The cache


@pytest.mark.parametrize("change", ["gpu", "driver", "graph", "precision", "tensorrt", "onnxruntime", "name"])
def test_an_engine_of_another_gpu_graph_or_version_is_not_used(tmp_path, monkeypatch, machine, graph, change):
    OnnxRuntime(graph, "tensorrt")
    if change in ("gpu", "driver"):
        other = {"gpu": "NVIDIA GeForce RTX 3090, 8.6, 580.65.06", "driver": TURING.replace("580.65.06", "590.1")}
        machine = start(tmp_path, monkeypatch, other[change])
        machine.ort.builds = 1
    elif change == "graph":
        write_graph(graph, seed=1)
    elif change == "name":  # the provider's own file names hold it
        graph = graph.rename(graph.with_name("other.onnx"))
    elif change == "tensorrt":
        monkeypatch.setattr(machine, "getInferLibVersion", lambda: 101303)
    elif change == "onnxruntime":
        monkeypatch.setattr(machine.ort, "__version__", "1.32.0", raising=False)
    OnnxRuntime(graph, "tensorrt", precision="int8" if change == "precision" else "fp32")
    assert machine.ort.builds == 2 and len(cached(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["half an engine", "no engine", "half a manifest", "no manifest", "another file"])
def test_a_half_written_cache_is_built_anew(machine, graph, tmp_path, damage):
    OnnxRuntime(graph, "tensorrt")
    (folder,) = cached(tmp_path)
    (engine,), manifest = folder.glob("*.engine"), folder / MANIFEST
    if damage == "half an engine":
        engine.write_bytes(engine.read_bytes()[:10])
    elif damage == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:10])
    elif damage == "another file":
        manifest.unlink()
        (folder / "junk").write_text("junk")
    else:
        (engine if damage == "no engine" else manifest).unlink()
    assert OnnxRuntime(graph, "tensorrt").report["cache"] == "built"
    assert machine.ort.builds == 2 and cached(tmp_path) == [folder] and not (folder / "junk").exists()


@pytest.mark.parametrize("error", [RuntimeError("TensorRT EP Failed to Build Engine."), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(machine, graph, tmp_path, error):
    def fail(folder: pathlib.Path) -> None:
        assert list(folder.glob("*.engine")), "half of it is written"
        raise error

    machine.ort.on_build = fail
    with pytest.raises(UserError if isinstance(error, Exception) else KeyboardInterrupt) as caught:
        OnnxRuntime(graph, "tensorrt")
    assert isinstance(error, KeyboardInterrupt) or "ONNX Runtime with TensorRT cannot load" in str(caught.value)
    assert not [name for name in written(tmp_path / "cache") if not name.endswith(".lock")]
    machine.ort.on_build = lambda folder: None
    same(OnnxRuntime(graph, "tensorrt"), graph, frame())


def test_of_two_that_need_an_engine_one_builds_it(machine, graph, caplog):
    started = threading.Event()

    def wait(folder: pathlib.Path) -> None:
        started.set()
        waiting.wait(10)

    waiting = threading.Event()
    machine.ort.on_build = wait
    real = fcntl.flock

    def flock(file: object, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # the call that waits
            waiting.set()
        real(file, operation)

    with concurrent.futures.ThreadPoolExecutor() as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        first = pool.submit(OnnxRuntime, graph, "tensorrt")
        assert started.wait(10)
        second = pool.submit(OnnxRuntime, graph, "tensorrt")
        caches = [each.result(20).report["cache"] for each in (first, second)]
    assert caches == ["built", "reused"] and machine.ort.builds == 1
    assert "waiting for process" in caplog.text


def test_an_engine_that_the_provider_wrote_on_a_full_disk_is_not_kept(machine, graph, tmp_path, monkeypatch):
    real = Session.build

    def build(session: Session, options: dict) -> None:
        real(session, options)
        for engine in pathlib.Path(options["trt_engine_cache_path"]).glob("*.engine"):
            engine.write_text(engine.read_text()[:20])

    monkeypatch.setattr(Session, "build", build)
    assert "could not deserialize engine" in message(OnnxRuntime, graph, "tensorrt") and not cached(tmp_path)
    monkeypatch.setattr(Session, "build", real)
    assert OnnxRuntime(graph, "tensorrt").report["cache"] == "built"


def test_a_cache_that_cannot_be_written_is_a_warning(machine, graph, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "file/cache"))
    same(OnnxRuntime(graph, "tensorrt"), graph, frame())
    assert "engines are not kept" in caplog.text and "set PADDLE_RT_CACHE" in caplog.text


def test_measurements_of_earlier_builds_speed_up_the_next(machine, graph, tmp_path):
    found = []
    machine.ort.on_build = lambda folder: found.append([path.read_text() for path in folder.glob("*.timing")])
    seen = []
    real = FakeOnnxRuntime.InferenceSession

    def session(self: object, path: str, *args: object, **settings: object) -> object:
        for _, options in settings["providers"] if isinstance(settings["providers"][0], tuple) else []:
            folder = pathlib.Path(options.get("trt_timing_cache_path", "/nowhere"))
            seen.append([path.read_text() for path in folder.glob("*.timing")])
        return real(self, path, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeOnnxRuntime, "InferenceSession", session)
        OnnxRuntime(graph, "tensorrt")
        assert seen[0] == [], "the first build on this GPU has none"
        seen.clear()
        OnnxRuntime(write_graph(tmp_path / "second.onnx", seed=1), "tensorrt")
    assert seen[0] == ["timings of 1 builds"] and found[-1] == ["timings of 2 builds"]
    assert len(list((tmp_path / "cache").glob("*/*.timing"))) == 3, "two engines' own and the shared one"


def test_an_engine_that_the_provider_builds_anew_is_kept(machine, graph, tmp_path, monkeypatch):
    OnnxRuntime(graph, "tensorrt")
    (folder,) = cached(tmp_path)
    real = FakeOnnxRuntime.InferenceSession

    def session(self: object, path: str, *args: object, **settings: object) -> object:
        for engine in folder.glob("*.engine"):
            engine.unlink()
        return real(self, path, *args, **settings)

    monkeypatch.setattr(FakeOnnxRuntime, "InferenceSession", session)
    assert OnnxRuntime(graph, "tensorrt").report["cache"] == "built"
    monkeypatch.setattr(FakeOnnxRuntime, "InferenceSession", real)
    assert OnnxRuntime(graph, "tensorrt").report["cache"] == "reused"


# Open sizes


def test_open_sizes_have_one_engine_within_their_profile(machine, open_graph):
    engine = OnnxRuntime(open_graph, "tensorrt", profile=PROFILE)
    options = machine.ort.options[-1]
    assert options[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC" and not options[TENSORRT]["trt_cuda_graph_enable"]
    assert [options[TENSORRT][f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")] == [
        "frame:1x4x6x3", "frame:1x8x12x3", "frame:2x16x24x3"]  # fmt: skip
    for sizes in ((1, 4, 6), (2, 16, 24), (1, 8, 12), (2, 4, 24)):
        same(engine, open_graph, frame(sizes=sizes))
    assert machine.ort.builds == 1
    for sizes in ((1, 3, 6), (1, 17, 12), (3, 8, 12), (1, 8, 25)):
        said = message(engine.run, frame(sizes=sizes))
        assert "beyond the engine's profile, [1, 4, 6, 3] to [2, 16, 24, 3]" in said and "\n" not in said
    same(engine, open_graph, frame())
    assert OnnxRuntime(open_graph, "tensorrt", profile=PROFILE).report["cache"] == "reused"
    assert OnnxRuntime(open_graph, "tensorrt", profile=(*PROFILE[:2], (2, 16, 25))).report["cache"] == "built"


def test_open_sizes_without_a_profile_are_refused_and_run_on_cuda(machine, graph, open_graph):
    assert "give a profile" in message(OnnxRuntime, open_graph, "tensorrt") and not machine.ort.builds
    assert "has fixed sizes, and takes no profile" in message(OnnxRuntime, graph, "tensorrt", profile=PROFILE)
    engine = OnnxRuntime(open_graph, "gpu")
    for sizes in ((1, 3, 5), (3, 8, 12)):
        same(engine, open_graph, frame(sizes=sizes))


@pytest.mark.parametrize("profile, expected", [
    (5, "a profile is the smallest"), (((1, 4, 6),), "a profile is the smallest"),
    (((4, 6), (8, 12), (16, 24)), "a profile is the smallest"), (((1, 4, 6), (1, 3, 6), (1, 8, 12)), "grows from"),
    (((0, 4, 6), *PROFILE[1:]), "batch of the profile must be a whole number"),
    (((1, 4.0, 6), *PROFILE[1:]), "height of the profile must be a whole number")])  # fmt: skip
def test_what_is_no_profile(machine, open_graph, profile, expected):
    assert expected in message(OnnxRuntime, open_graph, "tensorrt", profile=profile)


def test_a_segmenter_stays_within_its_profile(machine, open_graph, tmp_path):
    export = write_export(tmp_path, open_graph, [None, 3, None, None])
    segment = Segmenter(export, "onnxruntime", device="tensorrt", profile=PROFILE)
    frames = [frame(seed)[0] for seed in range(5)]
    wanted = Segmenter(export, "onnxruntime").batch(frames)
    assert all(np.array_equal(a, b) for a, b in zip(segment.batch(frames), wanted, strict=True))
    assert [call[1][0] for call in machine.calls if call[0] == "run"] == [2, 2, 1]
    assert message(segment, frame(sizes=(1, 40, 12))[0]).startswith("an input of [1, 40, 12, 3] lies beyond")
    said = message(Segmenter, export, "onnxruntime", device="gpu", profile=PROFILE)
    assert said == "a profile is for backend onnxruntime on device tensorrt, not for onnxruntime on gpu"


# Half graphs of an export


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_half_precision_takes_the_export_s_half_graph(machine, graph, tmp_path, device, caplog):
    write_graph(tmp_path / "half.onnx", seed=2)
    export = write_export(tmp_path, graph, [1, 3, HEIGHT, WIDTH])
    if device == "gpu":
        assert "has no fp16 graph for onnxruntime; export it with --target gpu --precision fp16" in message(
            Segmenter, export, "onnxruntime", "fp16", None, "gpu")  # fmt: skip
    else:
        Segmenter(export, "onnxruntime", "fp16", None, device)
        assert "model.onnx is in single precision" in caplog.text
    write_export(tmp_path, graph, [1, 3, HEIGHT, WIDTH], fp16="half.onnx")
    caplog.clear()
    engine = load(export, "onnxruntime", "fp16", None, device)._engine
    same(engine, tmp_path / "half.onnx", frame())
    options = machine.ort.options[-1][CUDA]
    assert options["cudnn_conv_algo_search"] == "HEURISTIC" and options["prefer_nhwc"] == 1
    assert "single precision" not in caplog.text
    assert device == "gpu" or machine.ort.options[-1][TENSORRT]["trt_fp16_enable"] is False


# What a provider does not take


@pytest.mark.parametrize("device, provider", [("gpu", CUDA), ("tensorrt", TENSORRT)])
def test_nodes_elsewhere_are_counted_and_said(machine, graph, device, provider, caplog):
    machine.ort.not_on[provider] = {"Transpose"}
    engine = OnnxRuntime(graph, device)
    assert engine.report["nodes_elsewhere"] == 1 and engine.report["engines"] == (2 if device == "tensorrt" else 0)
    name = {"gpu": "CUDA", "tensorrt": "TensorRT"}[device]
    assert (
        f"{name} leaves some of the nodes of {graph} to others, which costs copies and time: 1 Transpose"
        == caplog.records[-1].message
    )
    assert not machine.ort.options[-1][provider].get("enable_cuda_graph")
    assert not machine.ort.options[-1][provider].get("trt_cuda_graph_enable")
    same(engine, graph, frame())
    if device == "tensorrt":
        caplog.clear()
        assert OnnxRuntime(graph, device).report == {**engine.report, "cache": "reused"} and len(caplog.records) == 1


@pytest.mark.parametrize("device, remedy", [("gpu", "device cpu"), ("tensorrt", "device gpu")])
def test_a_provider_that_takes_no_node_is_an_error(machine, graph, device, remedy, tmp_path):
    machine.ort.not_on[{"gpu": CUDA, "tensorrt": TENSORRT}[device]] = {"*"}
    said = message(OnnxRuntime, graph, device)
    assert f"takes none of the 3 nodes of {graph} (1 Cast, 1 Transpose, 1 Conv); export it with --target gpu" in said
    assert said.endswith(f"or use {remedy}") and not cached(tmp_path)


# What can be missing


@pytest.mark.parametrize("device, gone, expected", [
    ("gpu", "libcudart.so.13", "CUDAExecutionProvider needs is missing or of another version (libcudart.so.13"),
    ("gpu", "libcudnn.so.9", "libcudnn.so.9: cannot open"),
    ("tensorrt", "libnvinfer.so.10", "TensorrtExecutionProvider needs is missing or of another version (libnvinfer"),
    ("tensorrt", "libnvonnxparser.so.10", "libnvonnxparser.so.10: cannot open"),
])  # fmt: skip
def test_missing_libraries(machine, graph, device, gone, expected):
    machine.packages = {name: [x for x in found if x != gone] for name, found in machine.packages.items()}
    said = message(OnnxRuntime, graph, device)
    assert expected in said and INSTALL in said and "\n" not in said and not sessions(machine)
    machine.on_system.add(gone)  # as in a container, or with LD_LIBRARY_PATH
    same(OnnxRuntime(graph, device), graph, frame())


def test_a_tensorrt_that_does_not_load(machine, graph, tmp_path, monkeypatch, capsys):
    machine.packages["tensorrt"] = ["libnvinfer.so.11", "libnvonnxparser.so.11"]
    assert "plain pip install tensorrt brings a version that it does not load" in message(
        OnnxRuntime, graph, "tensorrt"
    )
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "libnvinfer.so.10" in message(OnnxRuntime, graph, "tensorrt")
    same(OnnxRuntime(graph, "gpu"), graph, frame())
    assert capsys.readouterr().out == "", "what preload_dlls prints is not for stdout"


def test_a_provider_that_does_not_start(machine, graph, monkeypatch):
    monkeypatch.setattr("paddle_rt.inference.engines.onnx_runtime_gpu._load_libraries", lambda device: {"cuda": "13.0"})
    machine.loaded.add("libcudart.so.13")
    said = message(OnnxRuntime, graph, "gpu")
    assert "cannot start CUDAExecutionProvider" in said and INSTALL in said


@pytest.mark.parametrize("device, provider", [("gpu", CUDA), ("tensorrt", TENSORRT)])
def test_an_onnxruntime_without_the_provider(machine, graph, device, provider):
    machine.ort.providers = ["AzureExecutionProvider", "CPUExecutionProvider"]
    said = message(OnnxRuntime, graph, device)
    assert said == f"this onnxruntime has no {provider}: pip uninstall onnxruntime, and {INSTALL}; or use device cpu"
    machine.ort.providers, machine.ort.__version__ = [TENSORRT, CUDA, "CPUExecutionProvider"], "1.22.0"
    assert f"onnxruntime-gpu 1.22.0 is too old, 1.31 is needed: {INSTALL}" in message(OnnxRuntime, graph, device)


def test_no_onnxruntime(machine, graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert INSTALL in message(OnnxRuntime, graph, "gpu")


@pytest.mark.parametrize("gpu, precision, expected", [
    ("NVIDIA GeForce GTX 980, 5.2, 580.1", "fp16", "has no fp16, which needs 5.3"),
    ("Tesla P100, 6.0, 580.1", "int8", "has no int8, which needs 6.1"),
    ("NVIDIA H100, 9.0, 550.54.14", "fp32", "the NVIDIA driver 550.54.14 is too old for CUDA 13, which needs 580"),
    ("Tesla V100, 7.0, 580.1", "fp16", "Tesla V100 (compute capability 7.0) is too old for CUDA 13 and TensorRT 10"),
])  # fmt: skip
def test_a_gpu_that_lacks_a_precision_or_is_too_old(tmp_path, monkeypatch, graph, gpu, precision, expected):
    machine = start(tmp_path, monkeypatch, gpu)
    assert expected in message(OnnxRuntime, graph, "tensorrt", precision=precision) and not sessions(machine)


def test_no_driver_and_a_driver_without_a_device(machine, graph, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "there is no GPU 0: the driver has 0" in message(OnnxRuntime, graph, "tensorrt")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert "No devices were found" in message(OnnxRuntime, graph, "tensorrt")
    (tmp_path / "nvidia-smi").unlink()
    assert "no NVIDIA driver here" in message(OnnxRuntime, graph, "gpu") and not sessions(machine)


def test_cuda_that_fails_is_one_line(machine, graph, tmp_path, monkeypatch):
    segment = Segmenter(write_export(tmp_path, graph, [1, 3, HEIGHT, WIDTH]), "onnxruntime", device="gpu")
    monkeypatch.setattr(machine, "cudaMemcpy", lambda *_: 700)
    assert "CUDA's cudaMemcpy fails on GPU 0 with error 700" in message(segment, frame()[0])


def test_a_damaged_graph(machine, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08junk")
    for device in ("gpu", "tensorrt"):
        assert "ONNX Runtime cannot load" in message(OnnxRuntime, tmp_path / "bad.onnx", device)


# Video


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_the_state_of_a_video_stays_on_the_gpu(machine, tmp_path, device):
    graph = write_graph(tmp_path / "video.onnx", video=True)
    engine, reference = OnnxRuntime(graph, device), OnnxRuntime(graph)
    state = on_cpu = np.zeros(STATE, np.float32)
    states, wanted = [], []
    for number in range(4):
        machine.calls.clear()
        logits, state = engine.step(frame(number), state)
        expected, on_cpu = reference.step(frame(number), on_cpu)
        assert np.array_equal(logits, expected), np.abs(logits - expected).max()
        sizes = [call[1] for call in machine.calls if call[0] == "copy"]
        assert sizes == [frame().nbytes, on_cpu.nbytes, logits.nbytes, on_cpu.nbytes], "to its place, and from there"
        assert isinstance(state, DeviceArray) and list(state.shape) == STATE
        states.append(state)
        wanted.append(on_cpu)
    for kept, expected in zip(states, wanted, strict=True):
        assert np.array_equal(np.asarray(kept), expected), "a later step has written to an earlier state"
    assert len(machine.memory) == 3, "no buffer for the state on its way back"
    again = pickle.loads(pickle.dumps(states[1]))
    assert isinstance(again, np.ndarray) and np.array_equal(again, wanted[1])
    for before in (states[1], again):  # a video is taken up again, and goes on elsewhere
        assert np.array_equal(engine.step(frame(2), before)[0], reference.step(frame(2), wanted[1])[0])
        assert np.array_equal(reference.step(frame(2), before)[1], wanted[2])
    place = weakref.ref(state.value)
    del state, states, kept, before
    assert place() is None, "the GPU's memory is kept by nobody"


def test_a_video_segmenter_takes_up_states(machine, tmp_path):
    graph = write_graph(tmp_path / "video.onnx", video=True)
    export = write_export(tmp_path, graph, [1, 3, HEIGHT, WIDTH], state_shape=STATE)
    on_gpu, on_cpu = (VideoSegmenter(export, "onnxruntime", device=d, scene_cut=None) for d in ("tensorrt", "cpu"))
    for number in range(3):
        assert np.array_equal(on_gpu(frame(number)[0]), on_cpu(frame(number)[0]))
    assert isinstance(on_gpu.state.contexts, DeviceArray)
    on_cpu.state = kept = on_gpu.state
    on_gpu(frame(3)[0])
    on_gpu.state = kept
    assert np.array_equal(on_gpu(frame(4)[0]), on_cpu(frame(4)[0]))
    assert np.array_equal(np.asarray(on_gpu.state.contexts), on_cpu.state.contexts)
