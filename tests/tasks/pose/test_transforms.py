"""Transforms and targets of pose on items whose results are known."""

import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference.keypoints import COCO, KeypointSet
from paddle_rt.inference.pose_geometry import decode
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.tasks.pose.targets import make_heatmaps
from paddle_rt.tasks.pose.transforms import (
    GenerateTarget,
    GetBBoxCenterScale,
    RandomBBoxTransform,
    RandomFlip,
    RandomHalfBody,
    TopdownAffine,
    apply,
)
from tests.helpers import smooth_image

SIZE, CELLS = (48, 64), (12, 16)
FIXED = [GetBBoxCenterScale(), TopdownAffine(SIZE), Normalize()]
RANDOM = [GetBBoxCenterScale(), RandomFlip(), RandomHalfBody(), RandomBBoxTransform(), TopdownAffine(SIZE), Normalize(),
          GenerateTarget(CELLS, 2)]  # fmt: skip


@pytest.fixture
def item(rng) -> dict:
    points = rng.uniform([30, 20], [70, 100], (17, 2)).astype(np.float32)
    return {
        "img": smooth_image(120, 160),
        "bbox": np.array([25, 15, 75, 105], np.float32),
        "keypoints": points,
        "visible": np.ones(17, np.float32),
        "id": 7,
    }


def test_an_item_becomes_what_the_network_takes(item):
    before = {key: np.copy(value) for key, value in item.items()}
    result = apply([*FIXED, GenerateTarget(CELLS, 2)], item, COCO)
    assert result["img"].shape == (3, 64, 48) and result["img"].dtype == np.float32
    assert result["target"].shape == (17, 16, 12) and result["target"].dtype == np.float32
    assert set(result) - set(item) == {"center", "scale", "rotation", "keypoints_input", "target", "weight"}
    assert all(np.array_equal(item[key], value) for key, value in before.items()), "the item itself is not changed"
    inside = np.round(result["keypoints_input"] / 4)
    peaks, scores = decode(result["target"][None], "argmax")
    np.testing.assert_array_equal(peaks[0] / 4, inside)
    assert (scores == 1).all() and (result["weight"] == 1).all()


def test_channels_become_rgb_and_an_item_to_predict_needs_no_keypoints():
    image = np.zeros((64, 48, 3), np.uint8)
    image[..., 0] = 255  # blue
    result = apply(FIXED, {"img": image, "bbox": np.array([0, 0, 48, 64], np.float32)}, COCO)
    assert result["img"][2].max() == 1 and result["img"][:2].max() == -1
    assert "keypoints_input" not in result


def test_joint_weights_count(item):
    weighted = KeypointSet(COCO.names, joint_weights=(1.0,) * 16 + (1.5,))
    result = apply([*FIXED, GenerateTarget(CELLS, 2)], item, weighted)
    np.testing.assert_array_equal(result["weight"], [1] * 16 + [1.5])


def test_flipping_twice_changes_nothing(item):
    twice = apply([GetBBoxCenterScale(), RandomFlip(1.0), RandomFlip(1.0), *FIXED[1:]], item, COCO)
    once = apply([GetBBoxCenterScale(), RandomFlip(1.0), *FIXED[1:]], item, COCO)
    never = apply([GetBBoxCenterScale(), RandomFlip(0.0), *FIXED[1:]], item, COCO)
    assert all(np.allclose(twice[key], never[key], atol=1e-4) for key in never)
    np.testing.assert_allclose(once["bbox"], [159 - 75, 15, 159 - 25, 105])
    np.testing.assert_allclose(once["keypoints"][1], [159, 0] + item["keypoints"][2] * [-1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("visible", "halves"),
    [
        (range(17), {"upper", "lower"}),
        ([0, *range(9, 17)], {"upper", "lower"}),
        ([0, *range(10, 17)], {"none"}),  # eight
        (range(11), {"upper"}),
        ([*range(11), 12], {"upper"}),  # a lower half of one
    ],
)
def test_which_half_of_the_body_is_taken(item, visible, halves):
    item["visible"][:] = 0
    item["visible"][list(visible)] = 1
    item = GetBBoxCenterScale()({**item, "keypoint_set": COCO})
    shown = np.array(visible)
    boxes = {"upper": shown[shown < 11], "lower": shown[shown >= 11], "none": None}
    np.random.seed(0)
    found = set()
    for _ in range(50):
        result = RandomHalfBody(prob=1.0)(item)
        for name, half in boxes.items():
            points = None if half is None or not len(half) else item["keypoints"][half]
            expected = item["center"] if points is None else points.mean(axis=0)
            if (name == "none" or points is not None) and np.allclose(result["center"], expected):
                found.add(name)
                if points is not None:
                    np.testing.assert_allclose(result["scale"], 1.5 * np.ptp(points, axis=0), rtol=1e-6)
    assert found == halves


def test_half_bodies_that_cannot_be(item):
    with pytest.raises(UserError, match="keypoints.upper_body and keypoints.lower_body are missing"):
        apply([GetBBoxCenterScale(), RandomHalfBody(), *FIXED[1:]], item, KeypointSet(COCO.names))
    item["keypoints"][:] = 50  # all at one point, which no box surrounds
    result = apply([GetBBoxCenterScale(), RandomHalfBody(prob=1.0), *FIXED[1:]], item, COCO)
    assert np.isfinite(result["keypoints_input"]).all() and (result["scale"] > 0).all()


def test_random_boxes_have_the_original_distribution(item):
    item = GetBBoxCenterScale()(item)
    np.random.seed(0)
    results = [RandomBBoxTransform()(item) for _ in range(4000)]
    shift = np.array([(r["center"] - item["center"]) / item["scale"] for r in results])
    factor = np.array([(r["scale"] / item["scale"])[0] for r in results])
    angle = np.array([r["rotation"] for r in results])
    shifted, turned = shift.any(axis=1), angle != 0
    assert np.array_equal(shift[:, 0] != 0, shift[:, 1] != 0), "one draw for both directions"
    shares = shifted.mean(), turned.mean()
    assert shares == pytest.approx((0.3, 0.6), abs=0.03)
    # The standard deviation of a normal distribution that is cut at one sigma is 0.5396.
    spreads = (shift[shifted] / 0.16).std(), ((factor - 1) / 0.5).std(), (angle[turned] / 80).std()
    assert spreads == pytest.approx((0.5396,) * 3, abs=0.02), spreads
    assert np.abs(shift).max() <= 0.16 + 1e-6 and np.abs(factor - 1).max() <= 0.5 + 1e-6 and np.abs(angle).max() <= 80


def test_one_seed_gives_one_result(item):
    def run() -> dict:
        np.random.seed(5)
        return apply(RANDOM, item, COCO)

    first, second = run(), run()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["img"], apply(RANDOM, item, COCO)["img"])


def test_a_scale_that_is_the_wrong_way_round_is_refused():
    with pytest.raises(UserError, match="first number is the smaller one"):
        RandomBBoxTransform(scale_factor=(1.5, 0.5))


def draw(*points: tuple[float, float], visible: float = 1.0, **options: bool) -> tuple[np.ndarray, np.ndarray]:
    return make_heatmaps(np.array(points), np.full(len(points), visible), SIZE, CELLS, 1, **options)


def test_slips_of_the_original_are_kept_and_can_be_corrected():
    # -2 cells + 1/2 is cut to -1: a column of the Gaussian more than there should be.
    kept, corrected = draw((-8.0, 20.0))[0], draw((-8.0, 20.0), corrected=True)[0]
    assert kept[0, 5, 0] == pytest.approx(np.exp(-0.5)) and corrected[0, 5, 0] == pytest.approx(np.exp(-2))
    # A square that ends just before column 0.
    (kept, weight), (_, corrected) = draw((-18.5, 20.0)), draw((-18.5, 20.0), corrected=True)
    assert not kept.any() and weight[0] == 1 and corrected[0] == 0
    (kept, weight), (_, corrected) = draw((20, 20), visible=0.4), draw((20, 20), visible=0.4, corrected=True)
    assert not kept.any() and weight[0] == np.float32(0.4) and corrected[0] == 0
    for options in ({}, {"corrected": True}, {"unbiased": True}, {"udp": True}):
        far, weight = draw((-40, 20), (20, 90), (100, 20), **options)
        assert not far.any() and not weight.any(), options


@pytest.mark.parametrize("sigma", [1, 2, 1.5])
@pytest.mark.parametrize("udp", [False, True])
def test_unbiased_targets_decode_to_their_points(udp, sigma):
    points = np.random.default_rng(0).uniform(80, 110, (10, 2))
    options = {"udp": True} if udp else {"unbiased": True}
    maps, _ = make_heatmaps(points, np.ones(10), (192, 256), (48, 64), sigma, **options)
    found, _ = decode(maps[None], "dark", udp, blur_kernel=3)
    worst = np.abs(found[0] - points).max()
    assert worst < 0.05, f"{worst} pixels"
