"""Exports of pose networks: verified in every engine, with an open number of people, loaded, and quantised."""

import json
from collections.abc import Sequence

import numpy as np
import paddle
import pytest

from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.export.quantize import quantize
from paddle_rt.inference import KeypointSet, PoseEstimator, load, load_deployment
from paddle_rt.inference.pose_estimator import KeyPoints, PoseSettings
from paddle_rt.inference.pose_geometry import decode
from paddle_rt.models.base import Network
from paddle_rt.registry import create_model
from paddle_rt.tasks.pose.datasets import PoseDataset
from paddle_rt.tasks.pose.export import ExportingMixin, PoseExport, Truth
from tests.helpers import NORMALIZE, smooth_image

WIDTH, HEIGHT, K = 48, 64, 3
POINTS = KeypointSet(("a", "b", "c"), ((0, 1),), ((0, 1), (1, 2)))
SETTINGS = PoseSettings(POINTS, padding=1.2, decoding="dark", blur_kernel=3)
SPEC = PoseExport([NORMALIZE], SETTINGS, (WIDTH, HEIGHT))


class Heatmaps(Network):
    """Convolutions that give heatmaps at a quarter of the size."""

    def __init__(self, keypoints: int = K) -> None:
        super().__init__()
        self.first = paddle.nn.Conv2D(3, 8, 3, stride=2, padding=1)
        self.second = paddle.nn.Conv2D(8, 8, 3, stride=2, padding=1)
        self.last = paddle.nn.Conv2D(8, keypoints, 1)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.last(paddle.tanh(self.second(paddle.tanh(self.first(images)))))]


@pytest.fixture(scope="module")
def network() -> Heatmaps:
    paddle.seed(0)
    return Heatmaps()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pose") / "e"
    export(network, folder, SPEC, SPEC.input_shape(3))
    return folder


def crops(number: int) -> np.ndarray:
    return np.stack([smooth_image(HEIGHT, WIDTH, seed=seed) for seed in range(number)])


def expected(network: Network, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network in Paddle finds."""
    images = people[..., ::-1].astype(np.float32) / 255
    images = (images - np.float32(NORMALIZE["mean"])) / np.float32(NORMALIZE["std"])
    with paddle.no_grad():
        heatmaps = network(paddle.to_tensor(images.transpose(0, 3, 1, 2)))[0].numpy()
    return decode(heatmaps, "dark", blur_kernel=3)


def test_an_export_is_verified_with_any_number_of_people(exported):
    report = json.loads((exported / "verification.json").read_text())
    assert report["input_shape"] == [None, 3, HEIGHT, WIDTH] and report["output_op"] == "heatmaps"
    assert len(report["comparisons"]) == 2 * 6 and {row["input"][0] for row in report["comparisons"]} == {1, 3}
    worst = max(row["relative_error"] for row in report["comparisons"])
    assert worst < 1e-4, f"worst relative error {worst:.1e}"
    deployment = load_deployment(exported)
    assert deployment.task == "pose" and PoseSettings.from_dict(deployment.settings, "settings") == SETTINGS


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "paddle"])
def test_every_engine_finds_the_networks_keypoints(network, exported, backend):
    estimator, people = load(exported, backend, threads=1), crops(5)
    points, scores = expected(network, people)
    frame = np.concatenate(list(people), axis=1)
    inside = np.array([WIDTH, HEIGHT]) / SETTINGS.padding  # the box that the padding enlarges to the whole crop
    corners = [(WIDTH * number + (WIDTH - inside[0]) / 2, (HEIGHT - inside[1]) / 2) for number in range(5)]
    found = estimator(frame, np.hstack([corners, np.add(corners, inside)]))
    error = np.abs(found.points - points - np.arange(5)[:, None, None] * [WIDTH, 0]).max()
    assert error < 1e-2, f"{backend} is off by {error:.1e} pixels"
    error = np.abs(found.scores - scores).max()
    assert error < 1e-4, f"the scores are off by {error:.1e}"
    alone = estimator.predict_crop(people[4])
    np.testing.assert_allclose(alone.points[0], points[4], atol=1e-2)


def test_a_fixed_number_of_people_runs_in_groups(network, tmp_path):
    export(network, tmp_path / "e", SPEC, (2, 3, HEIGHT, WIDTH), formats=["onnx"])
    frame, boxes = smooth_image(90, 120), [[5, 5, 40, 60], [50, 10, 100, 80], [20, 20, 70, 80]]
    found = [PoseEstimator(tmp_path / "e", "openvino", threads=1)(frame, boxes[:count]) for count in (1, 2, 3)]
    np.testing.assert_allclose(found[0].points[0], found[2].points[0], atol=1e-3)
    np.testing.assert_allclose(found[1].points, found[2].points[:2], atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 3, None, None), "a graph for pose takes people of a fixed height and width, multiples of 4"),
        ((1, 3, 62, 48), "multiples of 4, got [1, 3, 62, 48]"),
        ((1, 1, 64, 48), "takes frames of 3 channels, got 1"),
    ],
)
def test_other_inputs_are_refused(network, tmp_path, shape, expected):
    with pytest.raises(UserError) as caught:
        export(network, tmp_path / "e", SPEC, shape)
    assert expected in str(caught.value)


def test_another_number_of_heatmaps_is_refused(network, tmp_path):
    spec = PoseExport([NORMALIZE], PoseSettings(), (WIDTH, HEIGHT))
    with pytest.raises(UserError, match="the network gives 3 heatmaps for 17 keypoints"):
        export(network, tmp_path / "e", spec, spec.input_shape(3), formats=["onnx"])
    assert not (tmp_path / "e").exists()


def test_graphs_for_gpus_and_half_precision(network, tmp_path):
    report = export(network, tmp_path / "e", SPEC, SPEC.input_shape(3), target="gpu", precisions=["fp32", "fp16"])
    shares = [row["keypoint_agreement"] for row in report["fp16"]["comparisons"] if row["frames"] == "photograph"]
    assert min(shares) > 0.9, f"half precision moves keypoints: {shares}"
    people = crops(2)
    points, _ = expected(network, people)
    for backend in ("onnxruntime", "paddle"):
        estimator = PoseEstimator(tmp_path / "e", backend, threads=1)
        found = [estimator.predict_crop(crop).points[0] for crop in people]
        error = np.abs(found - points).max()
        assert error < 1e-2, f"{backend} is off by {error:.1e} pixels"


@pytest.mark.slow
def test_int8_is_judged_by_pck_and_by_the_distance_of_keypoints(network, tmp_path):
    export(network, tmp_path / "e", SPEC, SPEC.input_shape(3), formats=["onnx"])
    people = crops(4)
    points, _ = expected(network, people)
    truths = [Truth(person, np.array([1, 1, 0]), 50.0) for person in points]
    report = quantize(tmp_path / "e", list(people), list(zip(people, truths, strict=True)), SPEC, max_drop=1.0)
    assert report["PCK@0.1_fp32"] == 1.0 and 0 <= report["PCK@0.1_int8"] <= 1
    estimators = [PoseEstimator(tmp_path / "e", "openvino", precision, 1) for precision in ("fp32", "int8")]
    single, quantised = ([estimator.predict_crop(crop) for crop in people] for estimator in estimators)
    assert report["differences"] == SPEC.differences(single, quantised)
    assert report["keypoint_agreement"] == SPEC.agreement(single, quantised)


def test_int8_with_merged_tokens_is_loaded(tmp_path):
    """OpenVINO refuses it if products of merged tokens are quantised; smaller images have too few tokens."""
    spec = PoseExport([NORMALIZE], SETTINGS, (64, 96))
    paddle.seed(0)
    tiny = {"embed_dim": 8, "depths": [1, 1, 1, 1], "head_channels": 16}
    network = create_model("segformerpp_b0_pose", num_keypoints=K, token_merging="bsm_hq", **tiny)
    export(network, tmp_path / "e", spec, spec.input_shape(3), formats=["onnx"])
    people = [smooth_image(96, 64, seed=seed) for seed in range(4)]
    quantize(tmp_path / "e", people, [(person, None) for person in people], spec)
    estimators = [PoseEstimator(tmp_path / "e", "openvino", precision, 1) for precision in ("fp32", "int8")]
    single, quantised = ([estimator.predict_crop(crop) for crop in people] for estimator in estimators)
    agreement = spec.agreement(single, quantised)
    print(f"{agreement:.3f} of the keypoints stay")
    assert agreement > 0.5, agreement


class People(PoseDataset):
    """A data set of these people."""

    def __init__(self, people: Sequence[dict]) -> None:
        super().__init__([], POINTS)
        self.people = people

    def __len__(self) -> int:
        return len(self.people)

    def person(self, index: int) -> dict:
        return self.people[index]


class Stub(ExportingMixin):
    """What the mixin needs of a task."""

    keypoints = POINTS

    def __init__(self, *people: dict) -> None:
        affine = {"type": "TopdownAffine", "input_size": [WIDTH, HEIGHT]}
        steps = [{"type": "GetBBoxCenterScale", "padding": 1.5}, affine, NORMALIZE]
        self.config = {"val_dataset": {"transforms": steps}, "test_config": {"decoding": "dark", "flip_test": False}}
        self.people = people

    def build_data(self, split: str) -> People:
        return People(self.people)


def test_the_config_says_how_people_are_cut_out():
    spec = Stub().export_spec()
    assert spec.settings == PoseSettings(POINTS, padding=1.5, decoding="dark") and spec.input_size == (WIDTH, HEIGHT)
    assert spec.transforms == [NORMALIZE]
    stub = Stub()
    stub.config["val_dataset"]["transforms"][1]["udp"] = True
    assert stub.export_spec().settings == PoseSettings(POINTS, 1.5, True, "dark", shift_heatmap=False)
    del stub.config["val_dataset"]
    with pytest.raises(UserError, match="the config has no val_dataset"):
        stub.export_spec()


def test_samples_are_people_who_have_been_cut_out():
    frame, box = smooth_image(90, 120), np.float32([20, 10, 60, 70])
    points = np.float32([(20, 10), (60, 70), (40, 40)])
    person = {"img": frame, "bbox": box, "keypoints": points, "visible": np.float32([1, 0, 1])}
    (first, truth), (_, other) = Stub(person, {"img": frame, "bbox": box}).raw_samples("val", 5)
    # 60 rows times 1.5 are 90 of the frame, for the 64 rows of the crop.
    expected = (points - [40, 40]) * 64 / 90 + [WIDTH / 2, HEIGHT / 2]
    np.testing.assert_allclose(truth.points, expected, atol=1e-4)
    assert truth.length == pytest.approx(60 * 64 / 90) and truth.visible.tolist() == [1, 0, 1]
    assert first.shape == (HEIGHT, WIDTH, 3) and first.dtype == np.uint8
    error = np.abs(first[32, 24].astype(int) - frame[40, 40]).max()
    assert error <= 2, f"the centre of the box is off by {error} grey levels"
    assert not other.visible.any() and other.points.shape == (3, 2)


def test_measures_of_results():
    def found(points: list, scores: list) -> KeyPoints:
        return KeyPoints(np.array([points], np.float32), np.array([scores], np.float32))

    before = [found([(0, 0), (10, 0), (9, 9)], [1, 0.5, 0])]
    after = [found([(0, 2), (10, 9), (30, 9)], [1, 1, 1])]  # moved by 2, 9 and 21; 0.05 of 64 / 1.2 are 2.67
    assert SPEC.agreement(before, after) == pytest.approx(1 / 1.5, abs=1e-5)
    assert SPEC.differences(before, after)["keypoint_distance_in_pixels"] == pytest.approx((2 + 4.5) / 1.5, abs=1e-4)
    truth = Truth(np.array([(0, 0), (10, 0), (9, 9)]), np.array([1, 1, 0]), 30.0)
    assert SPEC.score(after, [truth], None) == ("PCK@0.1", 0.5)
    name, value = SPEC.score(after, [Truth(truth.points, np.zeros(3), 30.0)], None)
    assert np.isnan(value)
