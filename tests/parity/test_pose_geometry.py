"""Boxes, matrices, warped images, decoding and flip test beside the outputs of SegFormer++'s fork of MMPose."""

import numpy as np
import pytest

from paddle_rt.inference import pose_geometry
from tests.helpers import SHARED, relative_error

GOLDEN = SHARED / "golden_pose"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the outputs of the original's pose code")


@pytest.mark.parametrize("number", range(15))
def test_the_way_from_a_box_to_the_input(number):
    with np.load(GOLDEN / "affine.npz") as file:
        images = [file["images_0"], file["images_1"]]
        case = {key[4:]: file[key] for key in file.files if key.startswith(f"c{number:02d}_")}
    image = images[case["image"]]
    image = np.ascontiguousarray(image[:, ::-1]) if case["flip"] else image
    size = case["input_size"]
    center, scale = pose_geometry.box_to_center_scale(case["bbox"][None])
    matrix = pose_geometry.warp_matrix(case["input_center"], case["input_scale"], size, float(case["rotation"]))
    found = {
        "center": center[0],
        "scale": scale[0],
        "input_scale": pose_geometry.fix_aspect(case["scale_aug"], size),
        "matrix": matrix,
        "keypoints_input": pose_geometry.transform_points(case["keypoints_after_flip"], matrix),
    }
    errors = {key: relative_error(value, case[key]) for key, value in found.items()}
    assert max(errors.values()) < 1e-6, errors
    np.testing.assert_array_equal(pose_geometry.warp(image, case["matrix"], size), case["warped"])
    most = np.abs(pose_geometry.warp(image, matrix, size).astype(int) - case["warped"]).max()
    assert most <= 1, f"{most} grey levels with our matrix"


def test_decoding():
    with np.load(GOLDEN / "decode.npz") as file:
        golden = dict(file)
    points, scores = pose_geometry.decode(golden["heatmaps"][None])
    np.testing.assert_array_equal(points[0], golden["keypoints_input"])
    np.testing.assert_array_equal(scores[0], golden["scores"])
    for j in (0, 1):
        center, scale = golden[f"input_center_{j}"][None], golden[f"input_scale_{j}"][None]
        in_image = pose_geometry.to_image(points, center, scale, golden["input_size"])[0]
        error = relative_error(in_image, golden[f"keypoints_image_{j}"])
        assert error < 1e-6, error


@pytest.mark.parametrize(("name", "shift"), [("noshift", False), ("shift", True)])
def test_the_flip_test(name, shift):
    with np.load(GOLDEN / "flip_test_coco.npz") as file:
        golden = dict(file)
    mirrored = pose_geometry.mirror_heatmaps(golden["of_flipped_input"], golden["flip_indices"], shift)
    np.testing.assert_array_equal(mirrored, golden[f"unflipped_{name}"])
    mean = (golden["plain"] + mirrored) * np.float32(0.5)
    np.testing.assert_array_equal(mean, golden[f"averaged_{name}"])
    points, scores = pose_geometry.decode(mean)
    np.testing.assert_array_equal(points, golden[f"keypoints_{name}"])
    np.testing.assert_array_equal(scores, golden[f"scores_{name}"])
