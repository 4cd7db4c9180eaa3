"""Pose estimation beside PaddleDetection's way: both find dots where they are, and every pipeline gets a row."""

import cv2
import numpy as np
import paddle
import pytest

from paddle_rt import registry
from paddle_rt.benchmark import pose
from paddle_rt.errors import UserError
from paddle_rt.export.trace import TracedNetwork, save_graph
from paddle_rt.models.base import Network
from paddle_rt.registry import Entry, register_model
from paddle_rt.tasks.pose.export import PoseExport
from tests.inference.test_pose_estimator import BOXES, PLACES, dotted

SIZE = (64, 48)


class Colours(Network):
    """Heatmaps that are the blue, green and red of an image, over and over."""

    def __init__(self, num_keypoints: int = 3, token_merging: str | None = None) -> None:
        super().__init__()
        self.first = paddle.nn.Conv2D(3, 3, 1)
        self.middle = paddle.nn.Conv2D(3, 3, 1)
        self.last = paddle.nn.Conv2D(3, num_keypoints, 1)
        for conv in (self.first, self.middle, self.last):
            conv.bias.set_value(np.zeros(conv.bias.shape, np.float32))
        self.first.weight.set_value(np.diag(np.float32([0.229, 0.224, 0.225]))[:, :, None, None])
        self.first.bias.set_value(np.float32([0.485, 0.456, 0.406]))
        self.middle.weight.set_value(np.eye(3, dtype=np.float32)[::-1].copy()[:, :, None, None])
        self.last.weight.set_value(np.eye(3, dtype=np.float32)[np.arange(num_keypoints) % 3][:, :, None, None])

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        means = paddle.nn.functional.avg_pool2d(images, 4, 4)
        return [self.last(self.middle(self.first(means)))]


def test_paddledetections_way_finds_the_same_dots(tmp_path):
    network, spec = Colours(), PoseExport(input_size=SIZE[::-1])
    save_graph(TracedNetwork(network, spec, "heatmaps", None), tmp_path, [None, 3, *SIZE])
    frame = cv2.blur(dotted(PLACES), (5, 5))
    theirs = pose.PaddleDetectionsWay(tmp_path, 1, SIZE, np.float32(BOXES))
    people = theirs(frame)
    error = np.abs(people.points - PLACES).max()
    assert error < 4, f"the keypoints are off by {error:.2f} pixels"
    assert list(theirs.timings) == ["preprocess", "network", "labels"] and min(theirs.timings.values()) > 0
    np.testing.assert_array_equal(theirs(frame).points, people.points)


def test_a_network_for_another_task_is_refused():
    with pytest.raises(UserError, match="rtformer_slim is a network for segmentation; paddle-rt benchmark measures it"):
        pose.PosePlan("rtformer_slim")
    with pytest.raises(UserError, match="unknown token merging 'bsm_hp', did you mean 'bsm_hq'"):
        pose.PosePlan(mergings=["bsm_hp"])


@pytest.mark.slow
def test_the_scene_has_boxes_inside_the_frame():
    frame, boxes = pose.scene(8)
    assert frame.shape == (720, 1280, 3) and boxes.shape == (8, 4)
    assert boxes.min() >= 0 and boxes[:, 2].max() <= 1280 and boxes[:, 3].max() <= 720
    assert ((boxes[:, 3] - boxes[:, 1]) >= 150).all()


@pytest.mark.slow
def test_every_pipeline_gets_a_row(monkeypatch):
    monkeypatch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))
    entry = Entry("tests.benchmark.test_pose", "Colours", "only", {}, task="pose", outputs="num_keypoints")
    register_model("colours", entry)
    monkeypatch.setattr(pose, "startup_and_memory", lambda *_: (1.0, 1.0))  # in processes that do not know this network
    rows = pose.run(pose.PosePlan("colours", SIZE, people=3, mergings=["bsm_hq"], threads=1, runs=2))
    names = [(row["model"], row["pipeline"], row["backend"], row["precision"]) for row in rows]
    ours = [("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "fp32")]
    ours = [choice for choice in ours if choice[1] != "bf16" or len(names) == 9]  # where the CPU has it
    assert names == [
        ("none", "paddledetection", "paddle", "fp32"),
        *(("none", "paddle_rt", *choice) for choice in ours),
        *(("bsm_hq", "paddle_rt", *choice) for choice in ours),
    ]
    assert rows[0]["speedup"] == rows[1]["against_unmerged"] == rows[1]["keypoint_agreement"] == 1.0
    parts = rows[1]["preprocess_ms"] + rows[1]["network_ms"] + rows[1]["labels_ms"]
    assert 0 < parts <= 1.5 * rows[1]["end_to_end_ms"]
