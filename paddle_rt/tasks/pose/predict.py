"""Estimate the poses of people in image files; write skeletons, and keypoints in COCO's form of results."""

import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.inference.boxes import BoxFile, ImageBoxes
from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.inference.pose_geometry import to_image
from paddle_rt.tasks.pose.evaluate import Decoding, estimate
from paddle_rt.tasks.pose.transforms import Transform, apply

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimator:
    """A network with all that turns the boxes of an image into keypoints.

    Args:
        network: In evaluation mode; returns a list whose first entry is heatmaps.
        transforms: The config's validation transforms.
        keypoints: The keypoints of the network.
        how: How heatmaps become keypoints.
        batch_size: People that run together.
    """

    network: paddle.nn.Layer
    transforms: Sequence[Transform]
    keypoints: KeypointSet
    how: Decoding
    batch_size: int = 32

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points in pixels of the image, [N, K, 2], and scores [N, K].

        Args:
            image: uint8 BGR [H, W, 3].
            boxes: x1, y1, x2, y2, [N, 4].
        """
        found = [np.zeros((0, len(self.keypoints), 2), np.float32)], [np.zeros((0, len(self.keypoints)), np.float32)]
        for start in range(0, len(boxes), self.batch_size):
            items = [
                apply(self.transforms, {"img": image, "bbox": box}, self.keypoints)
                for box in boxes[start : start + self.batch_size].astype(np.float32)
            ]
            images, centers, scales = (np.stack([item[key] for item in items]) for key in ("img", "center", "scale"))
            with paddle.no_grad():
                points, scores = estimate(self.network, paddle.to_tensor(images), self.how)
            found[0].append(to_image(points, centers, scales, images.shape[:1:-1], self.how.udp))
            found[1].append(scores)
        return np.concatenate(found[0]), np.concatenate(found[1])
