"""Pose's part of an export: people who have been cut out go in, heatmaps come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.pose_estimator import OUTPUT_OPS, STRIDE, KeyPoints, PoseEstimator, PoseSettings
from paddle_rt.inference.pose_geometry import box_to_center_scale, fix_aspect, transform_points, warp, warp_matrix
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.base import Task
from paddle_rt.tasks.export import ExportSpec
from paddle_rt.tasks.pose.metrics import pck

_PCK = 0.1
# A keypoint has moved if it is farther from its former place than this share of the longer side of the box.
_MOVED = 0.05


@dataclass(frozen=True)
class Truth:
    """The true keypoints of a person who has been cut out.

    Args:
        points: In pixels of the crop, [K, 2].
        visible: Which of them count, [K].
        length: The longer side of the box in pixels of the crop.
    """

    points: np.ndarray
    visible: np.ndarray
    length: float


@dataclass(frozen=True)
class PoseExport(ExportSpec):
    """What the exports of pose networks look like.

    A graph takes people who have been cut out, frames of the size of the network's input, and gives their heatmaps. The
    number of people is open, since it changes from frame to frame, and their size is fixed.

    Args:
        transforms: The normalisation alone; what is done before it, `settings` say.
        settings: How people are cut out and heatmaps are decoded.
        input_size: Width and height of the network's input.
        task: The task's name.
    """

    output_ops = OUTPUT_OPS
    int8_output = "heatmaps"
    agreement_key = "keypoint_agreement"
    one_by_one = True

    settings: PoseSettings = PoseSettings()
    input_size: Sequence[int] = (192, 256)
    task: str = field(default=PoseEstimator.task, kw_only=True)
    open_sizes: Sequence[tuple[int, int, int]] = field(default=((1, 256, 192), (3, 256, 192)), kw_only=True)

    def input_shape(self, channels: int) -> list[int | None]:
        width, height = self.input_size
        return [None, channels, height, width]

    def check(self, network: Network, input_shape: Sequence[int | None], output_op: str) -> None:
        if any(length is None or length % STRIDE for length in input_shape[2:]):
            raise UserError(
                f"a graph for pose takes people of a fixed height and width, multiples of {STRIDE}, got "
                f"{list(input_shape)}"
            )
        super().check(network, input_shape, output_op)

    def takes_frames(self, output_op: str) -> bool:
        return True

    def choices(self, output: np.ndarray, output_op: str) -> np.ndarray:
        return output.reshape(*output.shape[:2], -1).argmax(axis=2)

    def describe(self, network: Network, output_op: str, reference: np.ndarray) -> dict[str, Any]:
        maps, keypoints = reference.shape[1], len(self.settings.keypoints)
        if maps != keypoints:
            raise UserError(f"the network gives {maps} heatmaps for {keypoints} keypoints")
        return {"output_dtype": "float32", "settings": self.settings.to_dict()}

    def predict(self, predictor: PoseEstimator, frame: np.ndarray) -> KeyPoints:
        return predictor.predict_crop(frame)

    def agreement(self, results: Sequence[KeyPoints], others: Sequence[KeyPoints]) -> float:
        """Return the share of keypoints that did not move, weighted by their scores in `results`."""
        limit = _MOVED * max(self.input_size) / self.settings.padding
        return _weighted(results, _distances(results, others) < limit)

    def differences(self, results: Sequence[KeyPoints], others: Sequence[KeyPoints]) -> dict[str, float]:
        """Return how far keypoints moved on average in pixels of the input, weighted as in `agreement`."""
        return {"keypoint_distance_in_pixels": _weighted(results, _distances(results, others))}

    def score(self, results: Sequence[KeyPoints], truths: Sequence[Truth], deployment: Deployment) -> tuple[str, float]:
        points = np.concatenate([result.points for result in results])
        columns = zip(*((truth.points, truth.visible, truth.length) for truth in truths), strict=True)
        return f"PCK@{_PCK}", pck(points, *map(np.stack, columns), _PCK)[0]


def _distances(results: Sequence[KeyPoints], others: Sequence[KeyPoints]) -> np.ndarray:
    pairs = zip(results, others, strict=True)
    return np.stack([np.linalg.norm(a.points - b.points, axis=2) for a, b in pairs])


def _weighted(results: Sequence[KeyPoints], values: np.ndarray) -> float:
    """Return the mean of values; where a network sees no keypoint, its heatmap has its maximum anywhere."""
    weights = np.maximum(np.stack([result.scores for result in results]), 1e-6)
    return float((weights * values).sum() / weights.sum())


class ExportingMixin:
    """The export part of the task of pose, which has `config`, `keypoints` and `build_data`."""

    export_class = PoseExport

    def export_spec(self: Task) -> PoseExport:
        """Return what the exports of the config's network look like.

        Raises:
            UserError: The config has no validation data set.
        """
        steps = {step["type"]: step for step in _val_transforms(self.config)}
        affine, test = steps["TopdownAffine"], self.config.get("test_config", {})
        udp = affine.get("udp", False)
        settings = {"udp": udp, "shift_heatmap": not udp}
        settings |= {key: test[key] for key in ("decoding", "blur_kernel", "shift_heatmap") if key in test}
        if "padding" in steps["GetBBoxCenterScale"]:
            settings["padding"] = steps["GetBBoxCenterScale"]["padding"]
        return PoseExport(
            [steps[Normalize.__name__]], PoseSettings(self.keypoints, **settings), tuple(affine["input_size"])
        )

    def raw_samples(self: Task, split: str, number: int) -> list[tuple[np.ndarray, Truth]]:
        """Return people of a split who have been cut out as for scores, evenly spaced, with their true keypoints.

        Raises:
            UserError: The config has no such split, or its files are missing.
        """
        dataset, spec = self.build_data(split), self.export_spec()
        indices = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int)).tolist()
        return [_sample(dataset.person(index), spec) for index in indices]


def _val_transforms(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "val_dataset" not in config:
        raise UserError("the config has no val_dataset, whose transforms prepare a person for the network")
    return config["val_dataset"]["transforms"]


def _sample(person: Mapping[str, Any], spec: PoseExport) -> tuple[np.ndarray, Truth]:
    """Cut a person of a data set out. One with the box of a detector has no true keypoints."""
    size, settings, box = spec.input_size, spec.settings, person["bbox"]
    centers, scales = box_to_center_scale(box[np.newaxis], settings.padding)
    matrix = warp_matrix(centers[0], fix_aspect(scales, size)[0], size, udp=settings.udp)
    unknown = np.zeros((len(settings.keypoints), 3), np.float32)
    points, visible = person.get("keypoints", unknown[:, :2]), person.get("visible", unknown[:, 2])
    length = float((box[2:] - box[:2]).max() * matrix[0, 0])
    return warp(person["img"], matrix, size), Truth(transform_points(points, matrix), visible, length)
