"""Transforms of one person in an image, with the names and numbers of MMPose, which SegFormer++ trains with.

An item is a dictionary. The data set gives "img", uint8 BGR [H, W, 3], "bbox", float32 [4] as x1, y1, x2, y2,
"keypoints", float32 [K, 2] in pixels of the image, and "visible", float32 [K]. The transforms add "center" and "scale",
float32 [2], "rotation" in degrees, "keypoints_input", float32 [K, 2] in pixels of the network's input, and "target" and
"weight". An item to predict has neither "keypoints" nor "visible". All random numbers come from `numpy.random`, which
the training loop seeds.

Source: MMPose 1.2.0 mmpose/datasets/transforms; Kienzle et al., SegFormer++, arXiv 2405.14467.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.inference import pose_geometry
from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.tasks.pose.targets import make_heatmaps

Item = dict[str, Any]
Transform = Callable[[Item], Item] | Normalize
_SET = "keypoint_set"  # the key of an item under which transforms find the KeypointSet


def apply(transforms: Sequence[Transform], item: Mapping[str, Any], keypoints: KeypointSet) -> Item:
    """Transform an item.

    Args:
        transforms: What is done, in this order.
        item: As the data set gives it; it is not changed.
        keypoints: The keypoints of the data set.

    Returns:
        The item with all that the transforms added, and "img" as float32 [3, h, w], RGB where they normalise it.

    Raises:
        UserError: The keypoints lack what a transform needs.
    """
    item = {**item, _SET: keypoints}
    for transform in transforms:
        if isinstance(transform, Normalize):
            item["img"] = transform(cv2.cvtColor(item["img"], cv2.COLOR_BGR2RGB).astype(np.float32))
        else:
            item = transform(item)
    del item[_SET]
    return {**item, "img": np.ascontiguousarray(item["img"].transpose(2, 0, 1), np.float32)}


@dataclass(frozen=True)
class GetBBoxCenterScale:
    """Add the centre of the box, and its size times `padding` as the scale."""

    padding: float = 1.25

    def __call__(self, item: Item) -> Item:
        center, scale = pose_geometry.box_to_center_scale(item["bbox"][None], self.padding)
        return {**item, "center": center[0], "scale": scale[0], "rotation": 0.0}


@dataclass(frozen=True)
class RandomFlip:
    """Mirror an image, with the box and the keypoints, left to right.

    Args:
        prob: How often.
    """

    prob: float = 0.5

    def __call__(self, item: Item) -> Item:
        if np.random.rand() >= self.prob:
            return item
        last = np.float32(item["img"].shape[1] - 1)
        order = item[_SET].flip_indices
        mirrored = {"img": cv2.flip(item["img"], 1), "visible": item["visible"][order]}
        left, top, right, bottom = item["bbox"]
        mirrored["bbox"] = np.array([last - right, top, last - left, bottom], np.float32)
        for key, points in (("keypoints", item["keypoints"][order]), ("center", item["center"])):
            mirrored[key] = points * np.float32([-1, 1]) + np.array([last, 0], np.float32)
        return {**item, **mirrored}


@dataclass(frozen=True)
class RandomHalfBody:
    """Replace the box by one around the visible keypoints of the upper or the lower half of the body.

    The centre is the mean of these keypoints and the scale their extent times `padding`, in place of the padded box.

    Args:
        min_total_keypoints: Nothing changes for a person with fewer visible keypoints.
        min_upper_keypoints: An upper half with fewer visible keypoints is not taken.
        min_lower_keypoints: The same for the lower half.
        padding: Factor of the extent.
        prob: How often a half is taken.
        upper_prioritized_prob: How often it is the upper half where both could be taken.

    Raises:
        UserError: When called, if the keypoints have no halves.
    """

    min_total_keypoints: int = 9
    min_upper_keypoints: int = 2
    min_lower_keypoints: int = 3
    padding: float = 1.5
    prob: float = 0.3
    upper_prioritized_prob: float = 0.7

    def __call__(self, item: Item) -> Item:
        halves, visible = item[_SET].halves, item["visible"]
        if visible.sum() < self.min_total_keypoints or np.random.rand() > self.prob:
            return item
        upper, lower = (half[visible[half] > 0] for half in halves)
        prefers_upper = np.random.rand() < self.upper_prioritized_prob
        possible = (len(upper) >= self.min_upper_keypoints, len(lower) >= self.min_lower_keypoints)
        if not any(possible):
            return item
        half = upper if possible[0] and (prefers_upper or not possible[1]) else lower
        center, scale = half_body_box(item["keypoints"][half], self.padding)
        return {**item, "center": center, "scale": scale} if scale.any() else item


def half_body_box(points: np.ndarray, padding: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of points [K, 2] and their extent times the padding, each float32 [2]."""
    points = np.asarray(points, np.float32)
    return points.mean(axis=0), (points.max(axis=0) - points.min(axis=0)) * np.float32(padding)


@dataclass(frozen=True)
class RandomBBoxTransform:
    """Shift, resize and turn the box at random, by numbers of a normal distribution that is cut at one sigma.

    Args:
        shift_factor: Largest shift in both directions, as a share of the scale.
        shift_prob: How often the box is shifted.
        scale_factor: Smallest and largest factor of the scale.
        scale_prob: How often the box is resized.
        rotate_factor: Largest angle in degrees.
        rotate_prob: How often the box is turned.
    """

    shift_factor: float = 0.16
    shift_prob: float = 0.3
    scale_factor: Sequence[float] = (0.5, 1.5)
    scale_prob: float = 1.0
    rotate_factor: float = 80.0
    rotate_prob: float = 0.6

    def __post_init__(self) -> None:
        if self.scale_factor[0] > self.scale_factor[1]:
            raise UserError(
                f"RandomBBoxTransform: scale_factor is {list(self.scale_factor)}; the first number is the smaller one"
            )

    def __call__(self, item: Item) -> Item:
        drawn = np.array([_truncated_normal(u) for u in np.random.rand(4)])
        shifts, resizes, turns = np.random.rand(3) < (self.shift_prob, self.scale_prob, self.rotate_prob)
        low, high = self.scale_factor
        shift = drawn[:2] * self.shift_factor if shifts else np.zeros(2)
        factor = (low + high) / 2 + drawn[2] * (high - low) / 2 if resizes else 1.0
        angle = drawn[3] * self.rotate_factor if turns else 0.0
        return transform_box(item, shift, factor, float(angle))


_NORMAL = statistics.NormalDist()


def _truncated_normal(share: float) -> float:
    """Return the number below which a share of the standard normal distribution between -1 and 1 lies."""
    low, high = _NORMAL.cdf(-1), _NORMAL.cdf(1)
    return _NORMAL.inv_cdf(low + share * (high - low))


def transform_box(item: Item, shift: np.ndarray, factor: float, rotation: float) -> Item:
    """Return an item whose centre is shifted by a share of the scale, whose scale is multiplied, and which is turned.

    Args:
        item: With "center", "scale" and "rotation".
        shift: [2], in units of the scale.
        factor: Of the scale.
        rotation: Angle in degrees.
    """
    center = (item["center"] + shift * item["scale"]).astype(np.float32)
    scale = (item["scale"] * factor).astype(np.float32)
    return {**item, "center": center, "scale": scale, "rotation": item["rotation"] + rotation}


@dataclass(frozen=True)
class TopdownAffine:
    """Cut the box out as the network's input, and add the keypoints in its pixels.

    Args:
        input_size: Width and height of the input.
        udp: Measure lengths between the centres of pixels (unbiased data processing); see `pose_geometry`.
    """

    input_size: Sequence[int]
    udp: bool = False

    def __call__(self, item: Item) -> Item:
        scale = pose_geometry.fix_aspect(item["scale"], self.input_size)
        matrix = pose_geometry.warp_matrix(item["center"], scale, self.input_size, item["rotation"], self.udp)
        item = {**item, "scale": scale, "img": pose_geometry.warp(item["img"], matrix, self.input_size)}
        if "keypoints" in item:
            item["keypoints_input"] = pose_geometry.transform_points(item["keypoints"], matrix)
        return item


@dataclass(frozen=True)
class GenerateTarget:
    """Add the heatmaps as "target" and the weights of the keypoints as "weight".

    The weights are those of `targets.make_heatmaps`, where the arguments are described, times the keypoints'
    `joint_weights`.
    """

    heatmap_size: Sequence[int]
    sigma: float = 3.0
    unbiased: bool = False
    udp: bool = False
    corrected: bool = False

    def __call__(self, item: Item) -> Item:
        height, width = item["img"].shape[:2]
        target, weight = make_heatmaps(
            item["keypoints_input"], item["visible"], (width, height), self.heatmap_size, self.sigma, self.unbiased,
            self.udp, self.corrected,
        )  # fmt: skip
        return {**item, "target": target, "weight": weight * np.array(item[_SET].joint_weights, np.float32)}


FOR_SCORES: Catalogue = {cls.__name__: cls for cls in (GetBBoxCenterScale, TopdownAffine, Normalize)}
FOR_TRAINING: Catalogue = {
    cls.__name__: cls for cls in (RandomFlip, RandomHalfBody, RandomBBoxTransform, GenerateTarget)
}
