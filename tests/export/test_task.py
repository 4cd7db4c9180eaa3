"""Exports of a task that the library does not know: with the defaults, and with a choice of its own."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np
import paddle
import pytest
import yaml

from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.export.quantize import quantize
from paddle_rt.export.verify import VerificationError
from paddle_rt.inference import Predictor, Segmenter, load, load_deployment, register_predictor
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec
from tests.helpers import NORMALIZE, smooth_image

SIZE = (32, 48)


class Regression(Network):
    """A number for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3, stride=2, padding=1)
        self.middle = paddle.nn.Conv2D(4, 4, 3, padding=1)
        self.linear = paddle.nn.Linear(4, 1)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.linear(paddle.tanh(self.middle(paddle.tanh(self.conv(images)))).mean([2, 3]))]


class Regressor(Predictor):
    """Gives the number."""

    task = "regression"

    def __call__(self, frame: np.ndarray) -> float:
        ((output, _),) = self.run_frames([frame])
        return float(output[0])


@dataclass(frozen=True)
class FrameExport(ExportSpec):
    """Graphs that take frames, and results that are equal where they are near."""

    def takes_frames(self, output_op: str) -> bool:
        return True

    def describe(self, network: Network, output_op: str, reference: np.ndarray) -> dict:
        return {"output_dtype": "float32", "settings": {"unit": "metre"}}

    def agreement(self, results: list[float], others: list[float]) -> float:
        return float(np.mean(np.isclose(results, others, rtol=0.5)))

    def score(self, results: list[float], truths: list[float], deployment: object) -> tuple[str, float]:
        return "minus_error", -float(np.abs(np.subtract(results, truths)).mean())


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_predictor("regression", Regressor)


@pytest.fixture(scope="module")
def network() -> Regression:
    paddle.seed(0)
    return Regression()


def expected(network: Regression, frame: np.ndarray) -> float:
    image = frame[..., ::-1].astype(np.float32) / 255
    image = (image - np.float32(NORMALIZE["mean"])) / np.float32(NORMALIZE["std"])
    with paddle.no_grad():
        return float(network(paddle.to_tensor(image.transpose(2, 0, 1)[np.newaxis]))[0])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "paddle"])
@pytest.mark.parametrize("spec_class", [ExportSpec, FrameExport])
def test_an_export_is_verified_and_loaded_by_its_task(network, tmp_path, spec_class, backend):
    report = export(network, tmp_path / "e", spec_class([NORMALIZE], task="regression"), (1, 3, *SIZE))
    assert report["output_op"] == "none" and len(report["comparisons"]) == 2 * 4
    worst = max(row["relative_error"] for row in report["comparisons"])
    assert worst < 1e-4, f"worst relative error {worst:.1e}"
    predictor = load(tmp_path / "e", backend, threads=1)
    assert isinstance(predictor, Regressor) and predictor.warmup() > 0
    frame = smooth_image(*SIZE)
    error = abs(predictor(frame) - expected(network, frame))
    assert error < 1e-4, f"{backend} is off by {error:.1e}"
    assert list(predictor.timings) == ["preprocess", "network", "postprocess"]


def test_deploy_yaml_names_the_task(network, tmp_path):
    export(network, tmp_path / "e", FrameExport([NORMALIZE], task="regression"), (1, 3, *SIZE), formats=["onnx"])
    described = yaml.safe_load((tmp_path / "e/deploy.yaml").read_text())["Deploy"]
    assert described["task"] == "regression" and described["settings"] == {"unit": "metre"}
    deployment = load_deployment(tmp_path / "e")
    assert deployment.takes_frames and deployment.settings == {"unit": "metre"} and deployment.num_classes is None
    with pytest.raises(UserError, match="is for the task 'regression', not 'segmentation'"):
        Segmenter(tmp_path / "e")


def test_a_task_without_a_predictor_is_named(network, tmp_path):
    export(network, tmp_path / "e", ExportSpec(task="regresion"), (1, 3, *SIZE), formats=["onnx"])
    with pytest.raises(UserError, match="unknown task with a predictor 'regresion', did you mean 'regression'"):
        load(tmp_path / "e")


def test_a_graph_that_the_task_rejects_is_not_published(network, tmp_path):
    class Strict(FrameExport):
        def compare(self, output: np.ndarray, output_op: str, reference: np.ndarray, tolerance: float) -> dict:
            return {"difference": 1.0, "passed": False}

    with pytest.raises(VerificationError, match="Paddle Inference, plain.*'difference': 1.0"):
        export(network, tmp_path / "e", Strict(task="regression"), (1, 3, *SIZE))
    assert not list(tmp_path.iterdir())


def test_the_task_judges_a_quantised_graph(network, tmp_path):
    spec = FrameExport([NORMALIZE], task="regression")
    export(network, tmp_path / "e", spec, (1, 3, *SIZE), formats=["onnx"])
    frames = [smooth_image(*SIZE, seed) for seed in range(4)]
    report = quantize(
        tmp_path / "e", frames, [(frame, expected(network, frame)) for frame in frames], spec, max_drop=0.5
    )
    assert report["agreement"] >= 0.5 and abs(report["minus_error_fp32"]) < 1e-4
    assert json.loads((tmp_path / "e/verification.json").read_text())["int8"] == report
    difference = np.mean([abs(load(tmp_path / "e", precision="int8")(f) - expected(network, f)) for f in frames])
    assert -difference == pytest.approx(report["minus_error_int8"], abs=1e-5)


def test_an_old_export_without_a_task_is_one_of_segmentation(network, tmp_path):
    export(network, tmp_path / "e", ExportSpec(task="segmentation"), (1, 3, *SIZE), formats=["onnx"])
    file: pathlib.Path = tmp_path / "e/deploy.yaml"
    text = file.read_text()
    assert "task: segmentation\n" in text
    file.write_text(text.replace("  task: segmentation\n", ""))
    assert load_deployment(tmp_path / "e").task == "segmentation"
    assert isinstance(load(tmp_path / "e"), Segmenter)
