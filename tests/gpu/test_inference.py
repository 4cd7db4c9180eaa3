"""Every engine, device and precision of a GPU gives the labels of the CPU."""

import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference import load
from paddle_rt.inference.engines import SUPPORTED
from paddle_rt.inference.engines.gpu import find_gpu
from paddle_rt.inference.engines.paddle_inference import import_paddle
from paddle_rt.inference.engines.paddle_tensorrt import check_tensorrt
from tests.gpu.conftest import SIZE
from tests.helpers import TINY, smooth_image

LEAST = {"fp32": 0.999, "fp16": 0.98, "int8": 0.8}  # shares of equal labels; of random weights, whose logits lie close
CHOICES = [
    (backend, place, precision)
    for backend in ("onnxruntime", "paddle")
    for place in ("gpu", "tensorrt")
    for precision in SUPPORTED[backend][place]
]
FRAMES = [smooth_image(*SIZE, seed) for seed in range(3)]


def skip_without(backend: str, place: str, precision: str) -> None:
    """Skip Paddle where it is missing, or where it cannot be beside the rest: the two may need different TensorRTs."""
    if backend == "paddle":
        pytest.importorskip("paddle")
    if (backend, place) == ("paddle", "tensorrt"):
        try:
            check_tensorrt(*import_paddle(), find_gpu(), precision)
        except UserError as error:
            pytest.skip(str(error))


def check(folder, backend: str, place: str, precision: str) -> None:
    """Compare labels with those of the CPU, twice: the second time TensorRT's engine is there already."""
    reference = load(folder, "onnxruntime", threads=1)
    expected = [reference(frame) for frame in FRAMES]
    for cache in ("built", "reused"):
        predict = load(folder, backend, precision, None, place)
        found = [predict(frame) for frame in FRAMES]
        same = float(np.mean(np.equal(found, expected)))
        assert same >= LEAST[precision], f"{same} of the labels agree"
        assert predict.report["nodes_elsewhere"] == 0, predict.report
        if place == "tensorrt":
            assert (predict.report["engines"], predict.report["cache"]) == (1, cache), predict.report


@pytest.mark.parametrize(("backend", "place", "precision"), [c for c in CHOICES if c[2] != "int8"])
def test_labels_are_those_of_the_cpu(gpu_export, nvidia, backend, place, precision):
    skip_without(backend, place, precision)
    check(gpu_export, backend, place, precision)


@pytest.fixture(scope="module")
def int8_export(exported):
    return exported("int8", "rtformer_slim", "coarse", images=FRAMES, **TINY)


@pytest.mark.slow
def test_labels_of_int8_are_nearly_those_of_the_cpu(int8_export, nvidia):
    check(int8_export, "onnxruntime", "tensorrt", "int8")


@pytest.fixture(scope="module")
def video_export(exported):
    return exported("video", "fanet18", "labels", temporal_window=3)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "place"), [c[:2] for c in CHOICES if c[2] == "fp32"])
def test_a_video_carries_its_state_on_the_gpu(video_export, nvidia, backend, place):
    skip_without(backend, place, "fp32")
    reference, predict = load(video_export, "onnxruntime", threads=1), load(video_export, backend, "fp32", None, place)
    same = float(np.mean([np.equal(predict(frame), reference(frame)) for frame in FRAMES]))
    assert same >= LEAST["fp32"], f"{same} of the labels agree"
