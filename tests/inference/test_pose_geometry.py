"""Boxes, matrices and decoding of pose estimation on inputs whose results are known."""

import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference import pose_geometry
from tests.helpers import relative_error, smooth_image

SIZE = (48, 64)


def gaussians(points: np.ndarray, height: int = 32, width: int = 24) -> np.ndarray:
    """Return one exact Gaussian of sigma 3 for each point, [1, K, height, width]; points are in cells."""
    rows, columns = np.mgrid[:height, :width]
    distance = (columns - points[:, 0, None, None]) ** 2 + (rows - points[:, 1, None, None]) ** 2
    return np.exp(-distance / 18)[None].astype(np.float32)


@pytest.mark.parametrize("udp", [False, True])
def test_the_region_fills_the_input(udp):
    center, scale = pose_geometry.box_to_center_scale(np.array([[10, 20, 40, 90]]))
    scale = pose_geometry.fix_aspect(scale, SIZE)
    assert scale[0, 0] / scale[0, 1] == pytest.approx(48 / 64) and scale[0, 1] == 70 * 1.25
    matrix = pose_geometry.warp_matrix(center[0], scale[0], SIZE, udp=udp)
    corners = np.array([center[0] - scale[0] / 2, center[0] + scale[0] / 2])
    expected = [[0, 0], np.array(SIZE) - udp]
    np.testing.assert_allclose(pose_geometry.transform_points(corners, matrix), expected, atol=1e-4)
    back = pose_geometry.to_image(np.array([expected]), center, scale, SIZE, udp)
    np.testing.assert_allclose(back[0], corners, atol=1e-4)


@pytest.mark.parametrize("udp", [False, True])
def test_a_positive_rotation_turns_counter_clockwise(udp):
    matrix = pose_geometry.warp_matrix([50, 50], [48, 64], SIZE, 90, udp)
    middle = (np.array(SIZE) - udp) / 2
    right, above = pose_geometry.transform_points(np.array([[60, 50], [50, 40]]), matrix) - middle
    assert right[1] < -9 and abs(right[0]) < 1e-4, right
    assert above[0] < -9 and abs(above[1]) < 1e-4, above


def test_warping_by_whole_pixels_copies_them():
    image = smooth_image(80, 100)
    matrix = pose_geometry.warp_matrix([50, 40], SIZE, SIZE)
    np.testing.assert_array_equal(pose_geometry.warp(image, matrix, SIZE), image[8:72, 26:74])
    beyond = pose_geometry.warp(image, pose_geometry.warp_matrix([0, 0], SIZE, SIZE), SIZE)
    assert not beyond[:32].any() and not beyond[:, :24].any()


@pytest.mark.parametrize(("decoding", "most"), [("argmax", 0.5), ("quarter", 0.25), ("dark", 2e-3)])
@pytest.mark.parametrize("udp", [False, True])
def test_decoding_finds_gaussians(decoding, most, udp):
    points = np.random.default_rng(0).uniform(8, 15, (20, 2))
    cells = (np.array([96, 128]) - 1) / (np.array([24, 32]) - 1) if udp else 4
    found, scores = pose_geometry.decode(gaussians(points), decoding, udp)
    worst = np.abs(found[0] / cells - points).max()
    assert worst <= most + 1e-6, f"{decoding}: {worst} cells"
    assert scores.min() > 0.9


@pytest.mark.parametrize("decoding", pose_geometry.DECODINGS)
def test_decoding_at_borders_and_without_a_maximum(decoding):
    corners = np.array([[0, 0], [23, 0], [0, 31], [23, 31]])
    found, _ = pose_geometry.decode(gaussians(corners), decoding)
    np.testing.assert_array_equal(found[0], 4 * corners)
    for value in (0, -1, np.nan):
        found, scores = pose_geometry.decode(np.full((1, 2, 8, 6), value), decoding)
        np.testing.assert_array_equal(found, np.full((1, 2, 2), -4))
        np.testing.assert_array_equal(scores, np.full((1, 2), value, np.float32))
    nobody, _ = pose_geometry.decode(np.zeros((0, 17, 8, 6), np.float32), decoding)
    assert nobody.shape == (0, 17, 2)


def test_the_quarter_is_left_out_where_the_original_leaves_it_out():
    """No offset in x in the first two and the last column, nor in row 0; likewise in y."""
    points = np.array([[0.2, 9.2], [1.2, 9.2], [2.2, 9.2], [22.8, 9.2], [9.2, 0.2]])
    found, _ = pose_geometry.decode(gaussians(points))
    np.testing.assert_array_equal(found[0] / 4, [[0, 9], [1, 9.25], [2.25, 9.25], [23, 9.25], [9, 0]])


def test_an_unknown_decoding_is_refused():
    with pytest.raises(UserError, match="did you mean 'dark'"):
        pose_geometry.decode(np.zeros((1, 1, 4, 4), np.float32), "drak")


def test_mirrored_heatmaps_come_back():
    maps = np.random.default_rng(0).random((2, 3, 5, 4), np.float32)
    mirrored = maps[:, [0, 2, 1], :, ::-1]
    back = pose_geometry.mirror_heatmaps(mirrored, np.array([0, 2, 1]), shift=False)
    np.testing.assert_array_equal(back, maps)
    shifted = pose_geometry.mirror_heatmaps(mirrored, np.array([0, 2, 1]))
    np.testing.assert_array_equal(shifted[..., 1:], maps[..., :-1])
    assert relative_error(shifted[..., 0], maps[..., 0]) == 0
