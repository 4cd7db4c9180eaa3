"""Frames in, labels out: every backend against the model itself, and everything that a frame or an export can be."""

import concurrent.futures
import functools
import json
import pathlib
import shutil
import sys

import cv2
import numpy as np
import openvino
import paddle
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_rt.errors import UserError
from paddle_rt.export.publish import FORMATS, export
from paddle_rt.inference import BACKENDS, Segmenter, confidence_from_logits, labels_from_logits, load
from paddle_rt.inference.deployment import file_digest
from paddle_rt.inference.engines import mnn as mnn_engine
from paddle_rt.inference.engines import openvino as openvino_engine
from paddle_rt.inference.engines import openvino_core
from paddle_rt.inference.preprocess import Preprocess
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, randomize, run_python, smooth_image, written
from tests.inference.fakes.cuda_machine import Machine
from tests.inference.fakes.onnxruntime_gpu import OnnxRuntime

CLASSES = 5
SHAPES = {"fixed": [1, 3, 96, 160], "open": [None, 3, None, None], "pair": [2, 3, 96, 160], "odd": [1, 3, 97, 131]}

frame_of = functools.partial(smooth_image, cell=8)


@pytest.fixture(scope="module")
def model() -> RTFormer:
    net = RTFormer(num_classes=CLASSES, base_channels=8, head_channels=8, spp_channels=8, cross_size=3)
    randomize(net)
    net.eval()
    return net


@pytest.fixture(scope="module")
def exports(model: RTFormer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("exports")
    for name, shape in SHAPES.items():
        export(model, folder / name, SegmentationExport([NORMALIZE], "CamVid"), shape, "coarse", FORMATS)
    return {name: folder / name for name in SHAPES}


def edited(export_dir: pathlib.Path, folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Copy an export and change its deploy.yaml."""
    shutil.copytree(export_dir, folder)
    described = yaml.safe_load((folder / "deploy.yaml").read_text())
    described["Deploy"].update(changes)
    (folder / "deploy.yaml").write_text(yaml.safe_dump(described))
    return folder


def expected_logits(model: RTFormer, image: np.ndarray) -> np.ndarray:
    """Coarse logits of a uint8 BGR image that has the network's size: PaddleSeg's normalisation, the model itself."""
    with paddle.no_grad():
        return model.coarse_logits(paddle.to_tensor(Preprocess([NORMALIZE])(image)[0][np.newaxis])).numpy()[0]


@pytest.mark.parametrize("name", ["fixed", "open"])
def test_openvino_keeps_its_model(exports, name, monkeypatch, tmp_path):
    """The second process takes it, with equal labels; a damaged one is made anew, and nothing is kept unasked."""
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    frame = frame_of(96, 160)
    labels = Segmenter(exports[name], threads=1)(frame)
    assert not (tmp_path / "cache").exists()
    assert np.array_equal(load(exports[name], threads=1, keeps_model=True)(frame), labels)
    (blob,) = (tmp_path / "cache").rglob("*.blob")
    written_at = blob.stat().st_mtime_ns
    assert np.array_equal(load(exports[name], threads=1, keeps_model=True)(frame), labels)
    assert [blob] == list((tmp_path / "cache").rglob("*.blob")) and blob.stat().st_mtime_ns == written_at
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-100])
    assert np.array_equal(load(exports[name], threads=1, keeps_model=True)(frame), labels)
    assert blob.stat().st_mtime_ns != written_at


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_and_confidence_are_the_model_s(model, exports, backend, shape):
    height, width = SHAPES[shape][2] or 101, SHAPES[shape][3] or 75
    frame = frame_of(height, width)
    segmenter = Segmenter(exports[shape], backend, threads=1)
    predicted = segmenter.predict(frame)
    labels, confidence = predicted.map, predicted.confidence
    assert np.array_equal(labels, segmenter(frame))
    logits = expected_logits(model, frame)
    wanted = labels_from_logits(logits, (height, width))
    assert len(np.unique(wanted)) > 1
    assert labels.dtype == np.uint8 and confidence.dtype == np.float32
    different = int((labels != wanted).sum())
    assert different <= labels.size // 10000, f"{different} of {labels.size} labels differ"
    error = np.abs(confidence - confidence_from_logits(logits, (height, width))).max()
    assert error < 1e-4, f"confidence is off by {error:.1e}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_of_other_sizes_are_resized_as_bytes(model, exports, backend):
    frame = frame_of(75, 133)
    resized = cv2.resize(frame, (160, 96), interpolation=cv2.INTER_LINEAR)
    wanted = labels_from_logits(expected_logits(model, resized), (96, 160), resize_steps=[("resize", 75, 133)])
    labels = Segmenter(exports["fixed"], backend, threads=1)(frame)
    different = int((labels != wanted).sum())
    assert different <= 2, f"{different} of {labels.size} labels differ"


def test_steps_that_change_the_size_stay_outside_the_graph(model, tmp_path):
    steps = [{"type": "ResizeByLong", "long_size": 96}, {"type": "Padding", "target_size": [96, 64]}, NORMALIZE]
    export(model, tmp_path / "e", SegmentationExport(steps), [1, 3, 64, 96], "coarse", ["onnx"])
    frame = frame_of(60, 120)
    resized = cv2.resize(frame, (96, 48), interpolation=cv2.INTER_LINEAR)
    padded = cv2.copyMakeBorder(resized, 0, 16, 0, 0, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    resize_steps = [("resize", 60, 120), ("padding", 48, 96)]
    wanted = labels_from_logits(expected_logits(model, padded), (64, 96), resize_steps=resize_steps)
    different = int((Segmenter(tmp_path / "e", threads=1)(frame) != wanted).sum())
    assert different <= 2, f"{different} of {wanted.size} labels differ"
    with pytest.raises(UserError, match="normalises last and once, but the transforms are Normalize, Resize"):
        export(model, tmp_path / "f", SegmentationExport([NORMALIZE, {"type": "Resize"}]), [1, 3, 64, 96], "coarse")


@pytest.mark.parametrize("shape", ["fixed", "open", "pair"])
def test_a_batch_is_its_frames(exports, shape):
    segment = Segmenter(exports[shape], "onnxruntime", threads=1)
    frames = [frame_of(96, 160, 1), frame_of(96, 160, 2), frame_of(50, 70, 3), frame_of(96, 160, 4)]
    for labels, frame in zip(segment.batch(frames), frames, strict=True):
        different = int((labels != segment(frame)).sum())
        assert different <= 1, f"{different} labels differ"
    assert segment.batch([]) == []


def test_timings_name_the_stages(exports):
    segment = Segmenter(exports["fixed"], threads=1)
    assert segment.timings == {} and segment.warmup() > 0
    segment(frame_of(96, 160))
    assert list(segment.timings) == ["preprocess", "network", "labels"] and min(segment.timings.values()) > 0


def test_float_exports_have_no_confidence(model, tmp_path):
    export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "argmax", ["onnx"])
    with pytest.raises(UserError, match="--output_op coarse"):
        Segmenter(tmp_path / "e", threads=1).predict(frame_of(64, 96))


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_share_a_segmenter_get_their_own_labels(exports, backend):
    segment = Segmenter(exports["open"], backend, threads=1)
    frames = [frame_of(64 + 8 * (i % 3), 96, i) for i in range(12)]
    alone = [segment(frame) for frame in frames]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(segment, frames))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_neither_paddle_nor_paddleseg_nor_a_network_nor_a_home_is_needed(exports, backend, tmp_path):
    program = f"""
import socket, sys, time
sys.modules["paddle"] = sys.modules["paddleseg"] = None  # importing either now fails
called = []
socket.getaddrinfo = lambda *names, **_: called.append(names)
import numpy as np
from paddle_rt.inference import Segmenter
segment = Segmenter({str(exports["fixed"])!r}, {backend!r}, threads=1)
labels = segment.predict(np.zeros((20, 30, 3), np.uint8))
assert labels.map.shape == labels.confidence.shape == (20, 30)
time.sleep(0.2)  # OpenVINO's telemetry reports in a thread
assert not called, called
"""
    done = run_python("-c", program, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == []


def test_the_precision_is_set_and_never_inherited(exports):
    offered = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    frame = frame_of(96, 160)
    segment = Segmenter(exports["fixed"], "openvino", "fp32", threads=1)
    properties = segment._engine._request.get_compiled_model()
    assert properties.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert properties.get_property("INFERENCE_NUM_THREADS") == 1
    if "BF16" in offered:
        half = Segmenter(exports["fixed"], "openvino", "bf16", threads=1)
        hint = half._engine._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
        assert hint == openvino.Type.bf16 and (half(frame) == segment(frame)).mean() > 0.9
    else:
        with pytest.raises(UserError, match="does not compute in bf16"):
            Segmenter(exports["fixed"], "openvino", "bf16")


def test_signals_are_heard_when_segmenters_are_gone(exports):
    """OpenVINO's Cores that go in the order of their coming leave a process that dies of its next signal."""
    program = f"""
import faulthandler, os, signal
from paddle_rt.inference import Segmenter
faulthandler.enable()
first, second = (Segmenter({str(exports["fixed"])!r}, "openvino", threads=1) for _ in range(2))
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = run_python("-c", program)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (dict(backend="openvimo"), "did you mean 'openvino'"),
        (dict(precision="fp23"), "did you mean 'fp32'"),
        (dict(device="cuda"), "unknown device 'cuda'"),
        (dict(backend="onnxruntime", precision="bf16"), "only fp32, int8; bf16 on cpu is for backend openvino"),
        (dict(backend="openvino", device="tensorrt"), "no device tensorrt; it has cpu, gpu"),
        (dict(backend="paddle", precision="int8"), "no precision int8 on cpu, only fp32"),
        (dict(precision="int8"), "no int8 graph for openvino; make one with tools.quantize.py"),
        (dict(threads=0), "threads must be a whole number from 1 to 1024"),
        (dict(threads=2.5), "threads must be a whole number from 1 to 1024"),
        (dict(device_id=1), "device_id 1 is the number of a GPU, but the device is cpu"),
        (dict(device_id=-1), "device_id must be a whole number from 0 to 1023"),
    ],
)
def test_wrong_choices(exports, choice, message):
    with pytest.raises(UserError, match=message):
        Segmenter(exports["fixed"], **choice)


@pytest.mark.parametrize(
    ("choice", "available", "message"),
    [
        (dict(backend="onnxruntime", device="gpu"), "CUDAExecutionProvider", "pip install .onnxruntime-gpu.cuda,cudnn"),
        (dict(backend="onnxruntime", device="tensorrt"), "TensorrtExecutionProvider", ".tensorrt-cu13<11"),
        (dict(backend="paddle", device="gpu"), "cuda", "install paddlepaddle-gpu"),
        (dict(backend="paddle", device="tensorrt"), "cuda", "install paddlepaddle-gpu"),
        (dict(backend="openvino", device="gpu"), "GPU", "OpenVINO finds no GPU here"),
    ],
)
def test_devices_that_are_not_there(exports, choice, available, message):
    import onnxruntime

    here = [*onnxruntime.get_available_providers(), *openvino_core().available_devices]
    if available in here or (available == "cuda" and paddle.is_compiled_with_cuda()):
        pytest.skip(f"{available} is there")
    with pytest.raises(UserError, match=message):
        Segmenter(exports["fixed"], **choice)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_is_not_installed_says_how_to_install_it(exports, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, {"mnn": "MNN"}.get(backend, backend), None)
    for module, name in ((openvino_engine, "openvino_core"), (mnn_engine, "mnn")):  # the cached one is there already
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)
    with pytest.raises(UserError, match="pip install"):
        Segmenter(exports["fixed"], backend)


@pytest.mark.parametrize(
    "frame",
    [
        None, "frame.png", [[1, 2], [3, 4]], np.zeros((8, 8), np.uint8), np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 3), np.int64),
        np.zeros((0, 8, 3), np.uint8), np.zeros((8, 0, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8),
    ],
    ids=lambda f: f"{f.dtype}{f.shape}" if isinstance(f, np.ndarray) else type(f).__name__,
)  # fmt: skip
def test_what_is_no_frame(exports, frame):
    with pytest.raises(UserError, match="a frame "):
        Segmenter(exports["open"], "onnxruntime", threads=1)(frame)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ["open", "fixed"])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (7, 3)])
def test_tiny_frames(exports, backend, shape, size):
    assert Segmenter(exports[shape], backend, threads=1)(frame_of(*size)).shape == size


def test_views_and_read_only_frames(exports):
    segment = Segmenter(exports["open"], threads=1)
    frame = frame_of(80, 120)
    for view in (frame[::2, ::2], frame[:, ::-1], frame[..., ::-1], frame.transpose(1, 0, 2), np.asfortranarray(frame)):
        view.flags.writeable = False
        np.testing.assert_array_equal(segment(view), segment(np.array(view, order="C")))


def test_a_frame_that_no_network_can_hold(exports):
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20000, 20000, 3))  # takes no memory
    with pytest.raises(UserError, match="too large for a network"):
        Segmenter(exports["open"], threads=1)(huge)


def test_a_graph_of_another_export_or_without_its_verification(exports, tmp_path):
    shutil.copytree(exports["fixed"], tmp_path / "a")
    shutil.copy(exports["odd"] / "model.onnx", tmp_path / "a")
    with pytest.raises(UserError, match="damaged, or from another export"):
        Segmenter(tmp_path / "a")
    shutil.copytree(exports["fixed"], tmp_path / "b")
    (tmp_path / "b/verification.json").unlink()
    with pytest.raises(UserError, match="no file verification.json"):
        Segmenter(tmp_path / "b")
    (tmp_path / "b/verification.json").write_text('{"files": {}')
    with pytest.raises(UserError, match="does not list the files"):
        Segmenter(tmp_path / "b")


@pytest.mark.parametrize("key, value", [
    ("input_shape", [1, 3, 96, 160]), ("align_corners", True), ("transforms", [{**NORMALIZE, "std": [1, 1, 1]}]),
])  # fmt: skip
def test_a_deploy_yaml_that_contradicts_its_verification(exports, tmp_path, key, value):
    folder = edited(exports["open"], tmp_path / "e", **{key: value})
    with pytest.raises(UserError, match=f"gives {'normalize' if key == 'transforms' else key} .*was verified with"):
        Segmenter(folder, "onnxruntime", threads=1)


@pytest.mark.parametrize("changes", [
    {"input_dtype": "float32", "output_op": "argmax"}, {"input_dtype": "float32", "output_op": "none"},
    {"state_shape": [1, 2, 3, 4], "input_shape": [1, 3, None, None]}, {"num_classes": None, "class_names": []},
    {"input_shape": [2, 3, 40, 40]},
])  # fmt: skip
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_deploy_yaml_that_contradicts_its_graph(exports, tmp_path, backend, changes):
    """Also where verification.json agrees with it: one line, or the labels of the graph."""
    folder = edited(exports["open"], tmp_path / "e", **changes)
    report = json.loads((folder / "verification.json").read_text())
    (folder / "verification.json").write_text(json.dumps({"files": report["files"]}))
    frame = frame_of(40, 40)
    try:
        predictor = load(folder, backend, threads=1)
        labels = predictor(frame)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        np.testing.assert_array_equal(labels, Segmenter(exports["open"], backend, threads=1)(frame))


DAMAGE = {
    "model.onnx": (b"\x22\x04Conv", b"\x22\x04\xeeonv"),
    "model.json": (b"conv2d", b"\xeeonv2d"),
    "model.mnn": (b"frame", b""),  # which moves all that follows
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_graph_whose_digest_is_right(exports, tmp_path, backend, capsys):
    """A name that is no text leads each engine to another exception."""
    folder = edited(exports["open"], tmp_path / "e")
    report = json.loads((folder / "verification.json").read_text())
    for name, (before, after) in DAMAGE.items():
        data = (folder / name).read_bytes()
        assert before in data
        (folder / name).write_bytes(data.replace(before, after, 1))
        report["files"][name] = file_digest(folder / name)
    (folder / "verification.json").write_text(json.dumps(report))
    capsys.readouterr()
    with pytest.raises(UserError, match="cannot load .*model") as caught:
        Segmenter(folder, backend, threads=1)
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""


def _mutations() -> st.SearchStrategy:
    values = st.one_of(
        st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
        st.lists(st.one_of(st.none(), st.integers(-2, 200)), max_size=5),
    )  # fmt: skip
    keys = st.sampled_from(
        ["model", "params", "onnx", "int8", "fp16", "target", "transforms", "input_shape", "input_dtype", "output_op",
         "output_dtype", "align_corners", "num_classes", "dataset_type", "class_names", "colors", "state_shape", "task",
         "settings", "surprise"]
    )  # fmt: skip
    return st.lists(st.tuples(keys, values), min_size=1, max_size=3)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=_mutations(), size=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_a_mutated_deploy_yaml_gives_labels_or_one_clear_line(exports, tmp_path, changes, size):
    folder = tmp_path / "fuzz"
    if not folder.exists():
        shutil.copytree(exports["open"], folder)
    described = yaml.safe_load((exports["open"] / "deploy.yaml").read_text())
    described["Deploy"].update(changes)
    (folder / "deploy.yaml").write_text(yaml.safe_dump(described))
    try:
        labels = Segmenter(folder, "onnxruntime", threads=1)(frame_of(40, 40)[: size[0], : size[1]])
    except UserError as error:
        assert str(error) and "\n" not in str(error).strip()
    else:
        assert labels.shape == size and labels.dtype == np.uint8


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 700), junk=st.binary(max_size=6))
def test_a_cut_or_overwritten_deploy_yaml(exports, tmp_path, cut, junk):
    folder = tmp_path / "cut"
    if not folder.exists():
        shutil.copytree(exports["open"], folder)
    text = (exports["open"] / "deploy.yaml").read_bytes()
    (folder / "deploy.yaml").write_bytes(text[:cut] + junk + (text[cut + len(junk) :] if cut % 2 else b""))
    try:
        labels = Segmenter(folder, "onnxruntime", threads=1)(frame_of(20, 30))
    except UserError as error:
        assert str(error)
    else:
        assert labels.shape == (20, 30)


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
@pytest.mark.parametrize("shape", ["fixed", "open", "pair"])
def test_exports_on_a_gpu_give_the_labels_of_the_cpu(exports, tmp_path, monkeypatch, device, shape):
    """The GPU is a recorded interface, which computes on the CPU: what is tested are the calls."""
    machine, module = Machine(tmp_path), OnnxRuntime()
    machine.install(monkeypatch, tmp_path, onnxruntime=module)
    sizes = ((1, 64, 64), (2, 96, 160), (2, 128, 192)) if (shape, device) == ("open", "tensorrt") else None
    frames = [frame_of(96, 160, seed) for seed in range(3)]
    segmenter = Segmenter(exports[shape], "onnxruntime", device=device, profile=sizes)
    wanted = Segmenter(exports[shape], "onnxruntime").batch(frames)
    assert all(np.array_equal(*pair) for pair in zip(segmenter.batch(frames), wanted, strict=True))
    assert segmenter.report["nodes_elsewhere"] == 0
    flag = {"gpu": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}[device]
    settings = list(module.options[-1].values())[0]
    assert settings[flag] == (shape != "open"), "a graph of fixed sizes is one CUDA graph"
