"""The mean pose in the box: a baseline for scores, which does not depend on the image."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from paddle_rt.errors import UserError

MOST_PEOPLE = 600  # that a mean is taken of: people that are rendered for it take time


def mean_pose(truth: Mapping[str, Any]) -> np.ndarray:
    """Return the mean position of each keypoint in the boxes of a data set.

    Args:
        truth: Annotations in COCO's form. Crowds and persons without a visible keypoint or with an empty box do not
            count.

    Returns:
        Shares of the width and of the height of the box, float64 [K, 2]; the middle for a keypoint never seen.

    Raises:
        UserError: No person counts.
    """
    people = [p for p in truth["annotations"] if not p.get("iscrowd") and min(p["bbox"][2:]) > 0]
    if not people:
        raise UserError("the training data has no person with a box to take a mean pose from")
    keypoints = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), -1, 3)
    boxes = np.array([person["bbox"] for person in people], np.float64)[:, np.newaxis]
    places = (keypoints[..., :2] - boxes[..., :2]) / boxes[..., 2:]
    visible = keypoints[..., 2:] > 0
    totals = visible.sum(axis=0)
    return np.where(totals > 0, (places * visible).sum(axis=0) / np.maximum(totals, 1), 0.5)


def place(pose: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Put a pose into boxes.

    Args:
        pose: Shares of width and height, [K, 2].
        boxes: x1, y1, x2, y2, [N, 4].

    Returns:
        Points, float64 [N, K, 2].
    """
    boxes = boxes.astype(np.float64)[:, np.newaxis]
    return boxes[..., :2] + pose * (boxes[..., 2:] - boxes[..., :2])
