"""Paddle Inference on a GPU and with TensorRT, on the interface that tests/inference/fakes/paddle_tensorrt.py plays."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddle import inference, nn

from paddle_rt.errors import UserError
from paddle_rt.inference.engines import PaddleInference, check_choice, paddle_inference, paddle_tensorrt_build
from paddle_rt.inference.engines.gpu import Gpu
from paddle_rt.inference.engines.paddle_graph import float32_operators, read_graph
from tests.helpers import message, written
from tests.inference.fakes import paddle_tensorrt as fakes

SHAPE = [1, 3, 32, 64]
TURING = Gpu("GPU-1", "NVIDIA GeForce RTX 2080 Ti", (7, 5), "520.61.05")


class Net(nn.Layer):
    """A network of a few operators; `kind` adds what a graph may hold."""

    def __init__(self, kind: str = "logits"):
        super().__init__()
        self.conv, self.kind = nn.Conv2D(3, 4, 3, padding=1), kind

    def forward(self, frame, state=None):
        if self.kind == "frames":
            frame = frame.astype("float32").transpose([0, 3, 1, 2])
        features = nn.functional.softmax(self.conv(frame / 255), 1)
        if self.kind == "labels":
            return features.argmax(1, dtype="int32")
        if self.kind == "merging":
            return paddle.put_along_axis(features, features.argmax(1, keepdim=True), 0.0, 1)
        if self.kind == "cosine":
            return features.clip(min=1e-24).matmul(features.transpose([0, 1, 3, 2]))
        return features if state is None else (features, state + features.mean([2, 3]))


def save(folder: pathlib.Path, kind: str = "logits", shape: list = SHAPE, seed: int = 0) -> pathlib.Path:
    paddle.seed(seed)
    specs = [paddle.static.InputSpec(shape, "float32", "frame")]
    if kind == "frames":
        specs = [paddle.static.InputSpec([1, 32, 64, 3], "uint8", "frame")]
    if kind == "video":
        specs.append(paddle.static.InputSpec([1, 4], "float32", "state"))
    net = Net(kind)
    net.eval()
    paddle.jit.save(net, str(folder / "model"), specs)
    return folder / "model.json"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> dict[str, pathlib.Path]:
    kinds = ("logits", "labels", "merging", "cosine", "frames", "video")
    found = {kind: save(tmp_path_factory.mktemp(kind), kind) for kind in kinds}
    found["other"] = save(tmp_path_factory.mktemp("other"), seed=1)
    found["open"] = save(tmp_path_factory.mktemp("open"), shape=[1, 3, -1, -1])
    return found


@pytest.fixture
def fake(monkeypatch, tmp_path) -> fakes.FakePaddle:
    """Return the faked Paddle of a machine with an RTX 2080 Ti; the converting process runs within this one."""
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: TURING)
    machine = fakes.install(monkeypatch, count=2)
    monkeypatch.setattr(subprocess, "run", within_this_process)
    return machine


def within_this_process(command, *, env, stdin, stdout, stderr, check):
    assert command[:3] == [sys.executable, "-m", "paddle_rt.inference.engines.paddle_tensorrt_build"]
    assert stderr == subprocess.STDOUT and stdin == subprocess.DEVNULL and not check
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", env["CUDA_VISIBLE_DEVICES"])
        return subprocess.CompletedProcess(command, paddle_tensorrt_build.main(command[3:]))


def load(graph: pathlib.Path, device: str = "tensorrt", **arguments) -> PaddleInference:
    return PaddleInference(graph, graph.with_suffix(".pdiparams"), device, **arguments)


def image(dtype=np.float32, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def names(fake) -> list[str]:
    return [call[0] for call in fake.calls]


def cache_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


def one_line(call, *arguments, **keywords) -> str:
    said = message(call, *arguments, **keywords)
    assert "\n" not in said and "Hint" not in said, said
    return said


PLAIN = ["Config", "disable_glog_info", "enable_new_executor", "enable_memory_optim",
         "exp_disable_mixed_precision_ops", "disable_mkldnn", "enable_use_gpu", "enable_new_ir",
         "set_optimization_level", "create_predictor"]  # fmt: skip
CONVERTED = [name for name in PLAIN if name not in ("disable_mkldnn", "enable_new_ir", "set_optimization_level")]


def test_the_plain_gpu_is_set_up_as_paddlex_does(graphs, fake):
    engine = load(graphs["logits"], "gpu", device_id=1)
    assert names(fake) == PLAIN
    calls = {name: arguments for name, *arguments in fake.calls}
    assert calls["exp_disable_mixed_precision_ops"] == [{"feed", "fetch"}]
    assert calls["enable_use_gpu"] == [256, 1, inference.PrecisionType.Float32]
    assert calls["set_optimization_level"] == [3]
    assert engine.report["versions"] == {"paddle": "3.2.2", "cuda": "11.8", "cudnn": "8.9.7", "driver": "520.61.05"}
    cpu = load(graphs["logits"], "cpu").run(image())
    np.testing.assert_array_equal(engine.run(image()), cpu)


def test_a_graph_that_takes_frames_runs_on_the_plain_gpu(graphs, fake):
    frames = image(np.uint8, [1, 32, 64, 3])
    expected = load(graphs["frames"], "cpu").run(frames)
    np.testing.assert_array_equal(load(graphs["frames"], "gpu").run(frames), expected)


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_a_benchmark_runs_on_inputs_that_stay_on_the_gpu(graphs, fake, device):
    engine = load(graphs["logits"], device, device_id=1)
    run = engine.resident(image())
    fake.calls.clear()
    run()
    run()
    assert fake.calls == [("synchronize", 1), ("synchronize", 1)]
    np.testing.assert_array_equal(engine._graph._outputs[0].copy_to_cpu(), engine.run(image()))


def test_what_stays_in_single_precision(graphs, fake):
    load(graphs["logits"], "gpu", precision="fp16")
    calls = {name: arguments for name, *arguments in fake.calls}
    assert calls["exp_disable_mixed_precision_ops"] == [{"feed", "fetch", "pd_op.softmax", "pd_op.scale"}]
    assert calls["enable_use_gpu"][2] == inference.PrecisionType.Half
    cosine = float32_operators(read_graph(graphs["cosine"]))
    assert cosine == ["pd_op.softmax", "pd_op.scale", "pd_op.clip", "pd_op.matmul"], "FANet's sums need it"


@pytest.mark.parametrize("kind", ["logits", "labels", "video"])
def test_a_graph_is_converted_compared_and_kept(graphs, fake, tmp_path, caplog, kind):
    arguments = (image(), np.ones((1, 4), np.float32)) if kind == "video" else (image(),)
    engine = load(graphs[kind])
    assert names(fake) == ["convert", *PLAIN, *CONVERTED, *CONVERTED]
    folder = cache_folder(tmp_path)
    _, path, settings = fake.calls[0]
    assert path == str(graphs[kind].with_suffix("")), "the path without its suffix, as PaddleX gives it"
    inputs = settings.pop("inputs")
    for entry, (name, shape) in zip(inputs, [("frame", tuple(SHAPE)), ("state", (1, 4))], strict=False):
        assert entry.name == name
        assert [(array.shape, array.dtype) for array in entry.warmup_data] == 3 * [(shape, np.float32)]
    assert settings == {
        "min_subgraph_size": 3, "save_model_dir": str(folder / "model"), "disable_ops": None,
        "precision_mode": fakes.PrecisionMode.FP32, "ops_run_float": None, "optimization_level": 3,
        "disable_passes": (), "workspace_size": 1 << 32, "use_cuda_graph": False, "refit_params_path": None,
        "visible": "0",
    }  # fmt: skip
    assert engine.report == {
        "engines": 1, "nodes_elsewhere": 0, "cache": "built",
        "versions": {"paddle": "3.2.2", "cuda": "11.8", "cudnn": "8.9.7", "driver": "520.61.05", "tensorrt": "8.6.1"},
    }  # fmt: skip
    (number,) = {name.split("_")[1] for name in written(folder) if name.endswith(".trt")}
    kept = [".lock", "build.log", "manifest.json", f"model/engine_{number}_1.pir", f"model/engine_{number}_1.trt",
            "model.json", "model.pdiparams", "result.json"]  # fmt: skip
    assert sorted(written(folder)) == sorted(kept)
    assert len([record for record in caplog.records if "minutes" in record.message]) == 1
    for a, b in zip(engine._run(*arguments), load(graphs[kind], "cpu")._run(*arguments), strict=True):
        assert np.abs(a - b).max() < 1e-5, np.abs(a - b).max()


def test_the_kept_graph_is_used_again(graphs, fake, caplog):
    load(graphs["logits"])
    fake.calls.clear()
    caplog.clear()
    engine = load(graphs["logits"], device_id=1)
    assert names(fake) == CONVERTED and not caplog.records
    assert ("enable_use_gpu", 256, 1, inference.PrecisionType.Float32) in fake.calls
    assert (engine.report["cache"], engine.report["engines"]) == ("reused", 1)


def test_half_precision_names_what_stays_single(graphs, fake):
    load(graphs["cosine"], precision="fp16")
    settings = fake.calls[0][2]
    assert settings["precision_mode"] == fakes.PrecisionMode.FP16
    assert settings["ops_run_float"] == ["pd_op.softmax", "pd_op.scale", "pd_op.clip", "pd_op.matmul"]
    plain = [call for call in fake.calls if call[0] == "enable_use_gpu"][0]
    assert plain[3] == inference.PrecisionType.Float32, "it is compared with single precision"


@pytest.mark.parametrize("change", ["gpu", "capability", "driver", "paddle", "tensorrt", "precision", "parameters"])
def test_each_of_these_has_its_own_engines(graphs, fake, monkeypatch, tmp_path, change):
    load(graphs["logits"])
    gpus = {
        "gpu": Gpu("GPU-1", "Tesla T4", (7, 5), "520.61.05"),
        "capability": Gpu("GPU-1", TURING.name, (8, 6), TURING.driver),
        "driver": Gpu("GPU-1", TURING.name, TURING.capability, "535.54.03"),
    }
    graph, precision = graphs["logits"], "fp32"
    if change in gpus:
        monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: gpus[change])
    elif change == "paddle":
        monkeypatch.setattr(paddle, "__version__", "3.1.1")
    elif change == "tensorrt":
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "8.6.2")
    elif change == "precision":
        precision = "fp16"
    else:
        graph = graphs["other"]
    assert load(graph, precision=precision).report["cache"] == "built"
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "half an engine", "no engine", "moved"])
def test_a_damaged_cache_is_built_again(graphs, fake, monkeypatch, tmp_path, damage):
    load(graphs["logits"])
    folder = cache_folder(tmp_path)
    (engine,) = folder.glob("model/*.trt")
    manifest = folder / "manifest.json"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "no engine":
        engine.unlink()
    elif damage == "moved":  # the graph names its engines by their absolute paths
        shutil.copytree(tmp_path / "cache", tmp_path / "moved")
        monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "moved"))
    else:
        file = manifest if "manifest" in damage else engine
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    engine = load(graphs["logits"])
    assert engine.report["cache"] == "built"
    assert load(graphs["logits"]).report["cache"] == "reused"
    if damage == "moved":
        (path,) = read_graph(next((tmp_path / "moved").glob("*/model.json"))).engines
        assert path.startswith(str(tmp_path / "moved"))


def test_a_read_only_cache_is_a_warning(graphs, fake, monkeypatch, caplog):
    monkeypatch.setenv("PADDLE_RT_CACHE", "/proc/engines")
    engine = load(graphs["logits"])
    assert engine.report["cache"] == "built" and engine.run(image()).shape == (1, 4, 32, 64)
    assert [record.message for record in caplog.records if "PADDLE_RT_CACHE" in record.message], caplog.text


@pytest.mark.parametrize("fault, expected", [
    ("raise", "ValueError: Requested TensorRT version : 10.5.0 does not match the range"),
    ("no engines", "no engine came of it: TensorRT takes none of its operators"),
    ("elsewhere", "names the engine .*elsewhere.trt, which is not in"),
    ("other", r"output 0 of its engines differs from Paddle's own by [\d.]+% on the test image, more than 1%"),
])  # fmt: skip
def test_a_build_that_fails_keeps_nothing(graphs, fake, tmp_path, fault, expected):
    fake.fault, fake.other = fault, str(graphs["other"].with_suffix(""))
    with pytest.raises(UserError, match=expected) as caught:
        load(graphs["logits"])
    assert "\n" not in str(caught.value)
    assert "nothing is kept; use device gpu, or backend onnxruntime with device tensorrt" in str(caught.value)
    assert written(cache_folder(tmp_path)) == [".lock"]
    fake.fault = None
    assert load(graphs["logits"]).report["cache"] == "built"


@pytest.mark.parametrize("code, expected", [
    (-11, "the process that converts it was ended by SIGSEGV after 'terminate called'"),
    (-9, "was ended by SIGKILL, perhaps for lack of memory after 'terminate called'"),
    (3, "ended with exit code 3 after 'terminate called'"),
])  # fmt: skip
def test_a_process_that_dies(graphs, fake, monkeypatch, tmp_path, code, expected):
    def die(command, *, stdout, **_):
        stdout.write(b"[TRT] building\nterminate called\n\n")
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", die)
    assert expected in one_line(load, graphs["logits"])
    assert written(cache_folder(tmp_path)) == [".lock"]


def test_outputs_that_are_wrong():
    compare, a = paddle_tensorrt_build.compare, image()
    labels = (a[:, 0] % 5).astype(np.int32)
    compare([a, labels], [a * 1.005, labels], "fp32")
    assert "NaN or infinity" in one_line(compare, [a], [a * np.float32("nan")], "fp16")
    assert "is float32 [1, 3, 32], Paddle's own float32 [1, 3, 32, 64]" in one_line(compare, [a], [a[..., 0]], "fp32")
    assert "output 1 of its engines is int64" in one_line(compare, [a, labels], [a, labels.astype(np.int64)], "fp32")
    assert "differs from Paddle's own by 2.00%" in one_line(compare, [a], [a * 1.02], "fp32")
    compare([a], [a * 1.02], "fp16")
    wrong = np.where(np.arange(64) < 4, 9, labels).astype(np.int32)
    assert "by 6.25% on the test image, more than 3%" in one_line(compare, [labels], [wrong], "fp16")


@pytest.mark.parametrize("kind, expected", [
    ("frames", "takes uint8 frames, of which paddle.tensorrt makes no engine; export it with --target gpu"),
    ("open", "leaves lengths of its input frame open, [1, 3, -1, -1]; device tensorrt of backend paddle needs fixed"),
    ("merging", "has 1 put_along_axis, of which paddle.tensorrt makes no engine; export it with --target gpu, or use"),
])  # fmt: skip
def test_graphs_that_it_does_not_take(graphs, fake, tmp_path, kind, expected):
    assert expected in one_line(load, graphs[kind])
    assert not fake.calls and not (tmp_path / "cache").exists()
    assert load(graphs[kind], "gpu").report["engines"] == 0


def test_a_damaged_graph(graphs, fake, tmp_path):
    file = tmp_path / "model.json"
    file.write_text(graphs["logits"].read_text()[:900])
    assert "Paddle Inference cannot load" in one_line(load, file)


@pytest.mark.parametrize("precision, instead", [("int8", "int8 on tensorrt is for backend onnxruntime"),
                                                ("bf16", "bf16 on cpu is for backend openvino")])  # fmt: skip
def test_other_precisions_say_where_they_are(precision, instead):
    said = one_line(check_choice, "paddle", "tensorrt", precision)
    assert said == f"backend paddle has no precision {precision} on tensorrt, only fp32, fp16; {instead}"


def break_paddle(fake, monkeypatch, what: str) -> None:
    """Take away one thing that device tensorrt needs."""
    if what == "cuda":
        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    elif what == "count":
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    elif what == "start":

        def device_count():
            raise OSError("(External) CUDA error(35), CUDA driver version is insufficient\n  [Hint: 'cudaError'.]")

        monkeypatch.setattr(paddle.device.cuda, "device_count", device_count)
    elif what == "compiled":
        monkeypatch.setattr(inference, "get_trt_compile_version", lambda: (0, 0, 0))
    elif what == "compiled for another":
        monkeypatch.setattr(inference, "get_trt_compile_version", lambda: (8, 5, 3))
    elif what == "plugin":
        fake.libraries.clear()
    elif what.startswith("paddle "):
        monkeypatch.setattr(paddle, "__version__", what.split()[1])
    elif what.startswith("tensorrt "):
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", what.split()[1])
    elif what in ("Volta", "Pascal"):
        monkeypatch.setattr(paddle, "__version__", "3.3.0")
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.5.0")
        monkeypatch.setattr(inference, "get_trt_compile_version", lambda: (10, 5, 0))
        gpu = (
            Gpu("GPU-1", "Tesla V100", (7, 0), "560.1")
            if what == "Volta"
            else Gpu("GPU-1", "GTX 1080", (6, 1), "560.1")
        )
        monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: gpu)
    else:
        monkeypatch.setitem(sys.modules, what, None)


@pytest.mark.parametrize("what, expected", [
    ("cuda", "this Paddle 3.2.2 is built for the CPU; install paddlepaddle-gpu from Paddle's own index"),
    ("count", "CUDA 11.8, for which this Paddle is built, finds 0 GPUs, but driver 520.61.05 has NVIDIA GeForce RTX"),
    ("start", "does not start with driver 520.61.05: (External) CUDA error(35), CUDA driver version is insufficient"),
    ("compiled", "this Paddle 3.2.2 is built without TensorRT"),
    ("paddle.tensorrt", "this Paddle 3.2.2 has no package paddle.tensorrt"),
    ("tensorrt", "needs the package tensorrt (import of tensorrt halted; None in sys.modules); install"),
    ("plugin", "Paddle loads libnvinfer_plugin.so, without a number, which is not found"),
    ("compiled for another", "this Paddle 3.2.2 is built for TensorRT 8.5.3, the package tensorrt is 8.6.1"),
    ("tensorrt 8.5.3.1", "works with TensorRT from 8.6.1 to below 8.7, the package tensorrt is 8.5.3.1"),
    ("tensorrt 10.5.0", "Paddle 3.2.2 works with TensorRT from 8.6.1 to below 8.7, the package tensorrt is 10.5.0"),
    ("paddle 3.3.0", "Paddle 3.3.0 works with TensorRT from 10.5 to below 10.8, the package tensorrt is 8.6.1"),
    ("paddle 2.6.2", "device tensorrt works with Paddle 3.0 to 3.x, this is Paddle 2.6.2"),
    ("paddle 4.0.0", "device tensorrt works with Paddle 3.0 to 3.x, this is Paddle 4.0.0"),
    ("Volta", "Tesla V100 has compute capability 7.0; for fp32, TensorRT 10.5.0 needs 7.5; use device gpu"),
])  # fmt: skip
def test_what_is_missing_or_does_not_fit(graphs, fake, monkeypatch, tmp_path, what, expected):
    break_paddle(fake, monkeypatch, what)
    assert expected in one_line(load, graphs["logits"])
    assert not fake.calls and not (tmp_path / "cache").exists()


def test_half_precision_that_a_gpu_lacks(graphs, fake, monkeypatch):
    monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: Gpu("GPU-1", "GTX 1080", (6, 1), "520.61.05"))
    assert "for fp16, TensorRT 8.6.1 would compute in fp32 there" in one_line(load, graphs["logits"], precision="fp16")
    monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: Gpu("GPU-1", "GTX 980", (5, 2), "520.61.05"))
    for device in ("gpu", "tensorrt"):
        assert "GTX 980 (compute capability 5.2) has no fp16" in one_line(
            load, graphs["logits"], device, precision="fp16"
        )


def test_files_that_paddle_does_not_find_by_their_prefix(graphs, fake):
    said = one_line(PaddleInference, graphs["logits"], graphs["other"].with_suffix(".pdiparams"), "tensorrt")
    assert "takes model.pdiparams beside" in said


@pytest.mark.parametrize("visible, chosen", [(None, "1"), ("3,2", "2"), ("GPU-aa, GPU-bb", "GPU-bb")])
def test_the_other_process_sees_the_chosen_gpu(graphs, fake, monkeypatch, visible, chosen):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    load(graphs["logits"], device_id=1)
    uses = [call[2] for call in fake.calls if call[0] == "enable_use_gpu"]
    assert fake.calls[0][2]["visible"] == chosen
    assert uses == [0, 0, 1], "the other process has one GPU, which is number 0 there"


# In the place of Paddle's package: it imports the real one and puts the fakes into it.
STAND_IN = """
import pathlib, sys
sys.path.remove(str(pathlib.Path(__file__).parents[1]))
del sys.modules["paddle"]
import paddle, pytest
from tests.inference.fakes import paddle_tensorrt
paddle_tensorrt.install(pytest.MonkeyPatch())
"""


@pytest.mark.parametrize("fault", [None, "SIGSEGV"])
def test_a_process_of_its_own_converts(graphs, fake, monkeypatch, tmp_path, fault):
    monkeypatch.undo()
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paddle_inference, "find_gpu", lambda device_id: TURING)
    fakes.install(monkeypatch)
    (tmp_path / "paddle").mkdir()
    code = STAND_IN if fault is None else "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    (tmp_path / "paddle/__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    if fault:
        assert "the process that converts it was ended by SIGSEGV" in one_line(load, graphs["logits"])
    else:
        engine = load(graphs["logits"])
        assert (engine.report["cache"], engine.report["engines"]) == ("built", 1)
        assert json.loads((cache_folder(tmp_path) / "manifest.json").read_text())["versions"]["tensorrt"] == "8.6.1"
        assert engine.run(image()).shape == (1, 4, 32, 64)
