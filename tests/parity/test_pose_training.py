"""Transforms, targets and loss of pose beside the outputs of SegFormer++'s fork of MMPose."""

import numpy as np
import paddle
import pytest

from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.tasks.pose.losses import KeypointMSELoss
from paddle_rt.tasks.pose.targets import make_heatmaps
from paddle_rt.tasks.pose.transforms import (
    GetBBoxCenterScale,
    RandomFlip,
    TopdownAffine,
    half_body_box,
    transform_box,
)
from tests.helpers import SHARED, relative_error

GOLDEN = SHARED / "golden_pose"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the outputs of the original's pose code")


@pytest.mark.parametrize("number", range(15))
def test_the_transforms_of_a_person(number):
    with np.load(GOLDEN / "affine.npz") as file:
        image, flips = file[f"images_{file[f'c{number:02d}_image']}"], file["flip_indices"]
        case = {key[4:]: file[key] for key in file.files if key.startswith(f"c{number:02d}_")}
    pairs = tuple((left, right) for left, right in enumerate(flips.tolist()) if left < right)
    keypoints = KeypointSet(tuple(f"point {index}" for index in range(len(flips))), pairs)
    item = {key: case[key] for key in ("bbox", "keypoints", "visible")}
    item = GetBBoxCenterScale()({**item, "img": image, "keypoint_set": keypoints})
    item = RandomFlip(float(case["flip"]))(item)
    item = transform_box(item, case["offset"], float(case["scale_factor"]), float(case["rotation"]))
    found = {f"{key}_after_flip": item[key] for key in ("bbox", "keypoints", "visible")}
    found |= {"center_aug": item["center"], "scale_aug": item["scale"]}
    item = TopdownAffine(case["input_size"])(item)
    found |= {"input_center": item["center"], "input_scale": item["scale"], "keypoints_input": item["keypoints_input"]}
    errors = {key: relative_error(value, case[key]) for key, value in found.items()}
    assert max(errors.values()) < 1e-6, errors
    most = np.abs(item["img"].astype(int) - case["warped"]).max()
    assert most <= 1, f"{most} grey levels"


@pytest.mark.parametrize("number", range(3))
def test_half_bodies(number):
    with np.load(GOLDEN / "half_body.npz") as file:
        center, scale = half_body_box(file["keypoints"][file[f"ids_{number}"]])
        errors = relative_error(center, file[f"center_{number}"]), relative_error(scale, file[f"scale_{number}"])
    assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("case", ["small_s2", "small_s3", "coco", "jbd"])
def test_targets(case):
    with np.load(GOLDEN / "encode.npz") as file:
        golden = {key.removeprefix(f"{case}_"): file[key] for key in file.files if key.startswith(f"{case}_")}
    sizes = golden["input_size"], golden["heatmap_size"], int(golden["sigma"])
    heatmaps, weights = make_heatmaps(golden["keypoints"], golden["visible"], *sizes)
    error = relative_error(heatmaps, golden["heatmaps"])
    assert error < 1e-6, error
    np.testing.assert_array_equal(heatmaps > 0, golden["heatmaps"] > 0)
    np.testing.assert_array_equal(weights, golden["weights"])


@pytest.mark.parametrize(
    ("name", "weights", "options"),
    [
        ("none", None, {}),
        ("w01", "01", {}),
        ("wfrac", "fractional", {}),
        ("w01_flag_off", "01", {"use_target_weight": False}),
        ("w01_skip_empty", "01", {"skip_empty_channel": True}),
        ("w01_times_1000", "01", {"loss_weight": 1000}),
    ],
)
def test_the_loss_and_its_gradient(name, weights, options):
    with np.load(GOLDEN / "loss.npz") as file:
        golden = dict(file)
    output = paddle.to_tensor(golden["output"], stop_gradient=False)
    weight = None if weights is None else paddle.to_tensor(golden[f"weights_{weights}"])
    loss = KeypointMSELoss(**options)(output, paddle.to_tensor(golden["target"]), weight)
    loss.backward()
    errors = (
        relative_error(loss.numpy(), golden[f"loss_{name}"]),
        relative_error(output.grad.numpy(), golden[f"grad_{name}"]),
    )
    assert max(errors) < 1e-6, errors
