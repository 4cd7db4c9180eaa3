"""Video: exported graphs with their state in every engine, VideoSegmenter and its state, and infer.py on videos."""

import json
import pathlib
from collections.abc import Callable

import cv2
import numpy as np
import onnx
import paddle
import pytest
import yaml

from paddle_rt.errors import UserError
from paddle_rt.export.publish import FORMATS, export
from paddle_rt.export.quantize import quantize
from paddle_rt.imaging.labels import read_label
from paddle_rt.imaging.palettes import palette
from paddle_rt.imaging.view import View
from paddle_rt.inference import BACKENDS, Segmenter, VideoSegmenter, labels_from_logits
from paddle_rt.inference.engines import openvino_core
from paddle_rt.inference.media.pipeline import label_frames
from paddle_rt.inference.media.sinks import open_outputs
from paddle_rt.inference.media.sources import Frame, Source, open_source
from paddle_rt.inference.preprocess import Preprocess
from paddle_rt.models import resnet
from paddle_rt.models.fanet import KEYS, FANet
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TENSORRT_OPERATORS, randomize, relative_error, run_python
from tests.inference.fakes.cuda_machine import Machine
from tests.inference.fakes.onnxruntime_gpu import OnnxRuntime

CLASSES, WINDOW, WIDTHS = 5, 3, (4, 8, 16, 32)
SIZE = (64, 96)


@pytest.fixture(scope="module")
def network() -> Callable[..., FANet]:
    """Makes tiny FANets of any window."""

    def make(window: int, seed: int = 0) -> FANet:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resnet, "WIDTHS", WIDTHS)
            model = FANet(CLASSES, temporal_window=window)
        randomize(model, seed)
        model.eval()
        return model

    return make


@pytest.fixture(scope="module")
def exports(network, tmp_path_factory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("exports")
    export(network(WINDOW), folder / "video", SegmentationExport([NORMALIZE], "CamVid"), [1, 3, *SIZE], formats=FORMATS)
    small = SegmentationExport([NORMALIZE], open_sizes=((1, 65, 97), (1, 48, 64)))
    export(network(2, seed=1), folder / "open", small, [None, 3, None, None], formats=["onnx"])
    export(network(1), folder / "image", SegmentationExport([NORMALIZE]), [1, 3, *SIZE], formats=["onnx"])
    return {name: folder / name for name in ("video", "open", "image")}


def video(frames: int, seed: int = 0, size: tuple[int, int] = SIZE, light: int = 0) -> list[np.ndarray]:
    """A still that moves on by two pixels a frame."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 160, (size[0] // 8 + 2, size[1] // 8 + 2, 3), dtype=np.uint8)
    still = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) // 2 + light
    return [np.ascontiguousarray(np.roll(still, 2 * t, axis=1)) for t in range(frames)]


def cut_video() -> list[np.ndarray]:
    return [*video(4), *video(4, seed=1, light=150)]


def clip_labels(model: FANet, frames: list[np.ndarray]) -> np.ndarray:
    """The last frame's labels, from the model on the whole clip at once."""
    images = np.stack([Preprocess([NORMALIZE])(frame)[0] for frame in frames])
    with paddle.no_grad():
        coarse = model.coarse_logits(paddle.to_tensor(images[np.newaxis])).numpy()[0]
    return labels_from_logits(coarse, frames[-1].shape[:2], align_corners=True)


def assert_alike(labels: np.ndarray, wanted: np.ndarray, what: str) -> None:
    assert len(np.unique(wanted)) > 1 and labels.dtype == np.uint8
    different = int((labels != wanted).sum())
    assert different <= 5, f"{what}: {different} of {labels.size} labels differ"


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_a_stream_is_its_clips_whatever_their_length(network, window):
    model = network(window)
    rng = np.random.default_rng(window)
    frames = paddle.to_tensor(rng.standard_normal([2, 9, 3, 33, 47]).astype("float32"))
    state = None
    with paddle.no_grad():
        for t in range(9):
            coarse, state = model.stream_step(frames[:, t], state)
            error = relative_error(coarse.numpy(), model.coarse_logits(frames[:, : t + 1]).numpy())
            assert error < 1e-5, f"frame {t}: relative error {error:.1e}"
            assert state.contexts.shape == [2, window - 1, sum(WIDTHS), KEYS], "the state grows"


def test_verification_speaks_of_sequences(exports):
    for name, engines in (("video", 5), ("open", 2)):
        rows = json.loads((exports[name] / "verification.json").read_text())["comparisons"]
        assert len({row["engine"] for row in rows}) == engines
        for row in rows:
            assert row["frames"] >= 8 and row["relative_error"] <= row["tolerance"] <= 1e-2, row


@pytest.mark.parametrize("name", ["video", "open"])
def test_the_graph_takes_frame_and_state(exports, name):
    graph = onnx.load(str(exports[name] / "model.onnx")).graph
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in [*graph.input, *graph.output]]
    state = yaml.safe_load((exports[name] / "deploy.yaml").read_text())["Deploy"]["state_shape"]
    assert [value.name for value in graph.input] == ["frame", "state"]
    assert shapes[1] == shapes[3] == state == [1, WINDOW - 1 if name == "video" else 1, sum(WIDTHS), KEYS]
    operators = {node.op_type for node in graph.node}
    assert operators <= TENSORRT_OPERATORS, f"not in TensorRT's list: {operators - TENSORRT_OPERATORS}"
    constants = {tensor.name for tensor in graph.initializer}
    assert not [n.name for n in graph.node if n.op_type == "Conv" and not set(n.input[1:]) <= constants]
    if name == "video":
        assert "Shape" not in operators
        dims = [len(tensor.dims) for n in graph.node if n.op_type == "Resize" for tensor in graph.initializer
                if tensor.name == n.input[3] and tensor.dims[0] != 4]  # fmt: skip
        assert not dims, "a Resize of other than four axes is left"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_labels_a_video_as_the_model_does(network, exports, backend):
    model, frames = network(WINDOW), video(9)
    segment = VideoSegmenter(exports["video"], backend, threads=1)
    assert segment.warmup() > 0 and segment.state is None
    for t, frame in enumerate(frames):
        predicted = segment.predict(frame)
        labels, confidence = predicted.map, predicted.confidence
        assert_alike(labels, clip_labels(model, frames[max(0, t + 1 - WINDOW) : t + 1]), f"frame {t}")
        assert confidence.shape == SIZE and segment.state.frames == min(t + 1, WINDOW - 1)
    assert (clip_labels(model, frames[-1:]) != labels).mean() > 0.01, "the window has no effect"
    assert list(segment.timings) == ["preprocess", "network", "labels"]


def test_bf16_streams_too(exports):
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute in bf16")
    single, half = (VideoSegmenter(exports["video"], "openvino", p, threads=1) for p in ("fp32", "bf16"))
    agreement = [float((single(frame) == half(frame)).mean()) for frame in video(9)]
    assert min(agreement) > 0.9, f"label agreement {min(agreement):.3f}"


def test_a_cut_clears_the_state(exports):
    fresh, segment = (VideoSegmenter(exports["video"], threads=1) for _ in range(2))
    blind = VideoSegmenter(exports["video"], threads=1, scene_cut=None)
    remembered, after = [], []
    for frame in cut_video():
        after.append((segment(frame), blind(frame)))
        remembered.append((segment.state.frames, blind.state.frames))
    assert remembered == [(1, 1), (2, 2), (2, 2), (2, 2), (1, 2), (2, 2), (2, 2), (2, 2)]
    first = fresh(cut_video()[4])
    assert np.array_equal(after[4][0], first) and not np.array_equal(after[4][1], first)


def test_reset_and_another_size_begin_anew(exports):
    segment = VideoSegmenter(exports["open"], threads=1)
    frames = video(3)
    first = [segment(frame) for frame in frames]
    segment.reset()
    assert segment.state is None
    for before, frame in zip(first, frames, strict=True):
        assert np.array_equal(segment(frame), before)
    assert segment.state.frames == 1
    narrow = frames[0][:, :65]
    changed = segment(narrow)
    segment.reset()
    assert changed.shape == (64, 65) and np.array_equal(segment(narrow), changed)
    fixed = VideoSegmenter(exports["video"], threads=1)
    for frame in (frames[0], frames[1], narrow, narrow):  # resized to what the graph takes: cleared all the same
        assert fixed(frame).shape == frame.shape[:2]
    assert fixed.state.frames == 2


def test_what_is_no_frame_leaves_the_state(exports):
    segment = VideoSegmenter(exports["video"], threads=1)
    segment(video(1)[0])
    state = segment.state
    for wrong in (None, np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(UserError, match="a frame "):
            segment(wrong)
        assert segment.state is state


def test_a_state_may_be_kept_and_is_refused_elsewhere(exports):
    """Two videos take turns on one segmenter."""
    videos, segment = [video(4), video(4, seed=3)], VideoSegmenter(exports["video"], "onnxruntime", threads=1)
    alone = []
    for frames in videos:
        segment.reset()
        alone.append([segment(frame) for frame in frames])
    states = [None, None]
    for t in range(4):
        for i in range(2):
            segment.state = states[i]
            assert np.array_equal(segment(videos[i][t]), alone[i][t])
            states[i] = segment.state
    other = VideoSegmenter(exports["open"], "onnxruntime", threads=1)
    with pytest.raises(UserError, match="comes from another export"):
        other.state = segment.state
    with pytest.raises(UserError, match="or None, got ndarray"):
        other.state = segment.state.contexts


def test_wrong_exports_and_arguments(network, exports, tmp_path):
    with pytest.raises(UserError, match="a model for video: use VideoSegmenter"):
        Segmenter(exports["video"])
    with pytest.raises(UserError, match="a model for images, without a state: use Segmenter"):
        VideoSegmenter(exports["image"])
    assert Segmenter(exports["image"], threads=1)(video(1)[0]).shape == SIZE
    for value in (0, -1.0, float("nan"), "25", True):
        with pytest.raises(UserError, match="scene_cut must be"):
            VideoSegmenter(exports["video"], scene_cut=value)
    for wrong in (dict(output_op="argmax"), dict(input_shape=[2, 3, *SIZE])):
        with pytest.raises(UserError, match="window of 2 is exported as output_op coarse or labels for one frame"):
            export(network(2), tmp_path / "e", SegmentationExport([NORMALIZE]), **wrong)
    with pytest.raises(UserError, match="int8 needs an ONNX graph of images, not of video"):
        quantize(exports["video"], video(1), [(video(1)[0], np.zeros(SIZE, np.uint8))], SegmentationExport())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "mnn"])
@pytest.mark.parametrize("shape", [None, [1, 2, 60, 16], [1, 9, 60, 32], [1, 60, 32], [1, 2, 0, 32], "large", [[1]]])
def test_another_state_shape_in_deploy_yaml_is_one_clear_line(exports, tmp_path, shape, backend):
    for file in exports["video"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    described = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    described["Deploy"]["state_shape"] = shape
    if shape is None:
        del described["Deploy"]["state_shape"]
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(UserError) as raised:
        (VideoSegmenter if shape else Segmenter)(tmp_path, backend, threads=1)(video(1)[0])
    assert "\n" not in str(raised.value), raised.value


def test_neither_paddle_nor_paddleseg_is_needed(exports):
    program = f"""
import sys
sys.modules["paddle"] = sys.modules["paddleseg"] = None  # importing either now fails
import numpy as np
from paddle_rt.inference import VideoSegmenter
for backend in ("onnxruntime", "openvino"):
    segment = VideoSegmenter({str(exports["video"])!r}, backend, threads=1)
    assert segment(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30)
"""
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr


def write_video(path: pathlib.Path, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Write a video and give its frames as they come out of the codec."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return [frame.image for frame in open_source(str(path)).frames]


def labelled(frames, segment, fps: float | None = 10.0) -> tuple[list[np.ndarray], list[str]]:
    results = []
    report = label_frames(segment, Source(iter(frames), "v", fps), lambda _, labels: results.append(labels))
    return results, report.failures


def test_frames_that_are_missing_leave_the_state(exports):
    frames = [Frame(f"frame {i}", pathlib.Path(f"{i}"), image) for i, image in enumerate(video(5))]
    broken = Frame("frame x", pathlib.Path("x"), UserError("frame x: it cannot be decoded"))
    segment = VideoSegmenter(exports["video"], threads=1)
    whole, _ = labelled(frames, segment)
    segment.reset()
    with_gap, failures = labelled([*frames[:3], broken, *frames[3:]], segment)
    assert failures == ["frame x: it cannot be decoded"]
    assert len(with_gap) == 5 and all(np.array_equal(a, b) for a, b in zip(whole, with_gap, strict=True))


def test_images_are_videos_of_one_frame(exports):
    frames = [Frame(f"{i}.png", pathlib.Path(f"{i}"), image) for i, image in enumerate(video(3))]
    segment = VideoSegmenter(exports["video"], threads=1)
    alone, _ = labelled(frames, segment, fps=None)
    for labels, frame in zip(alone, frames, strict=True):
        segment.reset()
        assert np.array_equal(labels, segment(frame.image))


def test_a_truncated_video(exports, tmp_path):
    """Cut off in the middle: what can be decoded is labelled, and the report tells of the rest."""
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE[::-1])
    for frame in video(12):
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    view = View([f"class {index}" for index in range(CLASSES)], palette(None, CLASSES))
    with open_outputs(source, tmp_path, ("overlay",), view) as write:
        report = label_frames(VideoSegmenter(exports["video"], threads=1), source, write)
    assert 0 < report.labelled < 12 and len(report.failures) == 1 and "12 frames" in report.failures[0]
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        open_source(str(tmp_path / "empty.mp4"))


def test_infer_carries_the_state_through_a_video(exports, tmp_path):
    """A video with a cut, from the command line, against frame after frame."""
    frames = write_video(tmp_path / "v.mp4", cut_video())
    command = ["deploy/python/infer.py", "--config", exports["video"], "--image_path"]
    command += [
        tmp_path / "v.mp4",
        "--save_dir",
        tmp_path / "out",
        "--threads",
        "1",
        "--backend",
        "openvino",
        "--save",
        "labels",
        "overlay",
    ]
    done = run_python(*command)
    assert done.returncode == 0 and done.stdout.startswith("8 frames labelled"), done.stderr
    segment = VideoSegmenter(exports["video"], threads=1)
    for i, frame in enumerate(frames):
        expected = segment(frame)
        assert np.array_equal(read_label(tmp_path / f"out/v/{i:06d}.png", CLASSES), expected), f"frame {i}"
        assert segment.state.frames == (1 if i in (0, 4) else 2)
    assert (tmp_path / "out/v_overlay.mp4").is_file()


@pytest.mark.parametrize("device", ["gpu", "tensorrt"])
def test_a_video_on_a_gpu_has_the_labels_of_the_cpu(exports, tmp_path, monkeypatch, device):
    """The GPU is a recorded interface, which computes on the CPU: what is tested is the state's way."""
    machine, module = Machine(tmp_path), OnnxRuntime()
    machine.install(monkeypatch, tmp_path, onnxruntime=module)
    on_gpu = VideoSegmenter(exports["video"], "onnxruntime", threads=1, device=device)
    on_cpu = VideoSegmenter(exports["video"], "onnxruntime", threads=1)
    for frame in cut_video():
        assert np.array_equal(on_gpu(frame), on_cpu(frame))
    assert np.array_equal(np.asarray(on_gpu.state.contexts), on_cpu.state.contexts)
    settings = list(module.options[-1].values())[0]
    assert settings[{"gpu": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}[device]]
