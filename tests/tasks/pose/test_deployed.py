"""What is deployed finds the keypoints that the scores are computed from."""

import numpy as np
import paddle
import pytest

from paddle_rt.export.publish import export
from paddle_rt.inference import PoseEstimator
from paddle_rt.tasks.base import find_task
from paddle_rt.tasks.pose.evaluate import evaluate
from tests.helpers import NORMALIZE
from tests.tasks.pose.test_export import Heatmaps


@pytest.mark.parametrize("udp", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_estimator_finds_what_was_scored(tmp_path, udp):
    steps = [{"type": "GetBBoxCenterScale"}, {"type": "TopdownAffine", "input_size": [48, 64], "udp": udp}, NORMALIZE]
    section = {"type": "StreetPeople", "mode": "val", "num_samples": 5, "height": 96, "width": 128}
    task = find_task("pose")({
        "train_dataset": {**section, "transforms": steps},
        "val_dataset": {**section, "transforms": steps},
        "test_config": {"flip_test": True, "decoding": "dark" if udp else "quarter", "blur_kernel": 3},
        "keypoints": "coco",
    })  # fmt: skip
    paddle.seed(0)
    network, spec, dataset = Heatmaps(17), task.export_spec(), task.build_data("val")
    scored = evaluate(network, dataset, spec.settings, flip_test=True)
    export(network, tmp_path / "e", spec, spec.input_shape(3), formats=["onnx"])
    estimator = PoseEstimator(tmp_path / "e", "onnxruntime", threads=1, flip_test=True)
    for index in range(len(dataset)):
        person = dataset.person(index)
        found = estimator(person["img"], person["bbox"][None])
        error = np.abs(found.points[0] - scored["points"][index]).max()
        assert error < 0.05, f"person {index}: the keypoints are off by {error:.3f} pixels"
        error = np.abs(found.scores[0] - scored["scores"][index]).max()
        assert error < 1e-4, f"person {index}: the scores are off by {error:.1e}"
