"""Pose estimation with an exported network: a frame and the boxes of its people go in, their keypoints come out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from paddle_rt.arguments import check_section
from paddle_rt.errors import UserError, shown
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.engines import Profile
from paddle_rt.inference.keypoints import COCO, KeypointSet
from paddle_rt.inference.pose_geometry import (
    BLUR_KERNEL,
    DECODINGS,
    box_to_center_scale,
    decode,
    fix_aspect,
    mirror_heatmaps,
    to_image,
    warp,
    warp_matrix,
)
from paddle_rt.inference.predictor import Predictor
from paddle_rt.kinds import MAPPING, SWITCH, Kind, choice, number, whole

OUTPUT_OPS = ("heatmaps",)
STRIDE = 4  # pixels of a crop for one cell of a heatmap
KEYPOINT_SCORE = 0.2  # keypoints above it count for the score of a person
# Pixels of the crops that are in memory at once: 42 people of 192x256, or 6 of 480x640.
_GROUP_PIXELS = 1 << 21
_USUAL_PEOPLE = 8  # of a frame, for which TensorRT chooses its kernels
_LARGEST = float(1 << 20)  # no coordinate of a box is larger
SETTINGS = {
    "keypoints": MAPPING,
    "padding": number(0, 100, above=True),
    "udp": SWITCH,
    "decoding": choice(*DECODINGS),
    "blur_kernel": Kind("an odd number from 1 to 99", lambda value: whole(1, 99).accepts(value) and value % 2 == 1),
    "shift_heatmap": SWITCH,
}


@dataclass(frozen=True)
class PoseSettings:
    """What an export of a pose network says beside its graph, in the `settings` of deploy.yaml.

    Args:
        keypoints: The keypoints that the network finds.
        padding: Factor by which boxes are enlarged.
        udp: Whether lengths are measured between the centres of pixels; see `pose_geometry`.
        decoding: How the position of a maximum between the cells is found.
        blur_kernel: Size of the blur of the decoding "dark".
        shift_heatmap: Whether a flip test shifts the heatmaps of mirror images by one column.
    """

    keypoints: KeypointSet = COCO
    padding: float = 1.25
    udp: bool = False
    decoding: str = "quarter"
    blur_kernel: int = BLUR_KERNEL
    shift_heatmap: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a mapping for deploy.yaml."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"keypoints": self.keypoints.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "PoseSettings":
        """Return the settings that a mapping describes.

        Args:
            values: The arguments of the class, all of which are required.
            where: The place of the mapping, for messages.

        Raises:
            UserError: A key is unknown or missing, or a value is not what it may be.
        """
        check_section(where, values, SETTINGS, required=tuple(SETTINGS))
        return cls(**{**values, "keypoints": KeypointSet.from_dict(values["keypoints"], f"{where}.keypoints")})


@dataclass(frozen=True, eq=False)
class KeyPoints:
    """The keypoints of the people of a frame.

    Args:
        points: x and y in pixels of the frame, where pixel i has its centre at i, float32 [N, K, 2].
        scores: The values of the heatmaps there, about 0 to 1, float32 [N, K].
    """

    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def person_scores(box_scores: np.ndarray, keypoint_scores: np.ndarray) -> np.ndarray:
    """Return the score of each person: that of the box times the mean of the keypoints' scores above 0.2.

    Args:
        box_scores: [N].
        keypoint_scores: [N, K].

    Returns:
        [N]; 0 for a person without such a keypoint.

    Source: MMPose 1.3.2, CocoMetric.
    """
    counted = keypoint_scores > KEYPOINT_SCORE
    sums = np.where(counted, keypoint_scores, 0).sum(axis=1)
    return box_scores * sums / np.maximum(counted.sum(axis=1), 1)


class PoseEstimator(Predictor):
    """Estimate the poses of the people in a frame with an exported network; the errors are those of `Predictor`.

    The people of a frame are cut out, warped to the size of the network's input and run together, in groups of bounded
    memory. A graph whose batch is fixed runs as many people as it takes; what is missing is filled up with copies. A
    graph whose batch is open runs one after the other in OpenVINO and ONNX Runtime on a CPU, which is faster there.

    Several threads may share an estimator; their networks run one after the other.

    Args:
        export_dir: The export of a network for pose.
        *engine: The arguments of `Predictor` that follow the export. Without a `profile` TensorRT's largest input is
            the largest group of people.
        flip_test: Run mirror images of the people too and average the heatmaps, which takes twice the time.
        **options: Arguments of `Predictor` by name.

    Attributes:
        settings: What the export says beside its graph.
        input_size: Width and height of the network's input.

    Example:
        estimator = PoseEstimator("output/inference_model", backend="openvino", threads=2)
        people = estimator(frame, boxes)  # people.points [N, K, 2], people.scores [N, K]
        names = estimator.settings.keypoints.names
    """

    task = "pose"
    stages = ("preprocess", "network", "labels")

    def __init__(self, export_dir: str | os.PathLike, *engine: Any, flip_test: bool = False, **options: Any) -> None:
        super().__init__(export_dir, *engine, **options)
        self.settings = _read_settings(self.deployment)
        self._flip_indices = self.settings.keypoints.flip_indices if flip_test else None

    @property
    def input_size(self) -> tuple[int, int]:
        height, width = self.deployment.input_shape[2:]
        return width, height

    def engine_settings(self, backend: str, device: str, profile: Profile | None) -> dict[str, Any]:
        batch, _, height, width = self.deployment.input_shape
        self._group = self._together = batch or max(_GROUP_PIXELS // (height * width), 1)
        if batch is None and device == "cpu" and backend != "paddle":
            # An open length keeps OpenVINO from fusing attention, which takes 1.5 times as long; and with the length
            # fixed, 8 people in one batch take as long as 8 batches of one.
            self._together = 1
            return {"batch": 1}
        if batch is None and (backend, device) == ("onnxruntime", "tensorrt"):
            people = (1, min(_USUAL_PEOPLE, self._group), self._group)
            profile = profile or [(number, height, width) for number in people]
            self._group = self._together = profile[2][0]
        return super().engine_settings(backend, device, profile)

    def check(self, deployment: Deployment) -> None:
        """Check that the export is one of a pose network.

        Raises:
            UserError: It is not.
        """
        file, size = deployment.folder / "deploy.yaml", deployment.input_shape[2:]
        if deployment.output_op not in OUTPUT_OPS or not deployment.takes_frames or deployment.state_shape is not None:
            raise UserError(
                f"{file}: a graph for pose takes single frames, so input_dtype is uint8, and gives heatmaps; got "
                f"input_dtype {deployment.input_dtype} and output_op {deployment.output_op}"
            )
        if any(length is None or length % STRIDE for length in size):
            raise UserError(
                f"{file}: a graph for pose takes crops of a fixed size, a multiple of {STRIDE}, got {list(size)}"
            )
        _read_settings(deployment)
        super().check(deployment)

    def __call__(self, frame: np.ndarray, boxes: np.ndarray | None = None) -> KeyPoints:
        """Estimate the poses of the people in a frame.

        Args:
            frame: uint8 BGR [H, W, 3], as OpenCV reads it.
            boxes: x1, y1, x2, y2 of each person, [N, 4]. A box may reach beyond the frame: what lies outside is black,
                and keypoints may be found there. None stands for one box, the whole frame.

        Returns:
            The keypoints in the order of the boxes; arrays of length 0 where there are no boxes.

        Raises:
            UserError: The frame or the boxes are not as described, or a box is empty or lies outside the frame.
        """
        self.begin([frame])
        boxes = check_boxes(boxes, frame.shape)
        keypoints = len(self.settings.keypoints)
        points = np.empty((len(boxes), keypoints, 2), np.float32)
        scores = np.empty((len(boxes), keypoints), np.float32)
        centers, scales = box_to_center_scale(boxes, self.settings.padding)
        scales = fix_aspect(scales, self.input_size)
        for start in range(0, len(boxes), self._group):
            part = slice(start, start + self._group)
            with self.timed("preprocess"):
                crops = self._crop(frame, centers[part], scales[part])
            found, scores[part] = self._find(crops)
            with self.timed("labels"):
                points[part] = to_image(found, centers[part], scales[part], self.input_size, self.settings.udp)
        return KeyPoints(points, scores)

    def predict_crop(self, crop: np.ndarray) -> KeyPoints:
        """Estimate the pose of one person who has been cut out.

        Args:
            crop: uint8 BGR of the size of the network's input.

        Returns:
            The keypoints in pixels of the crop.

        Raises:
            UserError: The crop is not as described.
        """
        self.begin([crop])
        if crop.shape[1::-1] != self.input_size:
            raise UserError(f"a crop is {self.input_size} (width, height), got {crop.shape[1::-1]}")
        return KeyPoints(*self._find(crop[np.newaxis]))

    def _crop(self, frame: np.ndarray, centers: np.ndarray, scales: np.ndarray) -> np.ndarray:
        size, udp = self.input_size, self.settings.udp
        try:
            pairs = zip(centers, scales, strict=True)
            return np.stack([warp(frame, warp_matrix(*pair, size, udp=udp), size) for pair in pairs])
        except cv2.error as error:  # no side of a frame may have more than 32,767 pixels
            raise UserError(f"people cannot be cut out of a frame of {list(frame.shape)}: {error}") from error

    def _find(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keypoints in crops [N, H, W, 3], in their pixels [N, K, 2], and the scores [N, K]."""
        settings = self.settings
        heatmaps = self._run_crops(crops)
        if self._flip_indices is not None:
            mirrored = self._run_crops(np.ascontiguousarray(crops[:, :, ::-1]))
            with self.timed("labels"):
                heatmaps += mirror_heatmaps(mirrored, self._flip_indices, settings.shift_heatmap)
                heatmaps *= np.float32(0.5)
        with self.timed("labels"):
            return decode(heatmaps, settings.decoding, settings.udp, STRIDE, settings.blur_kernel)

    def _run_crops(self, crops: np.ndarray) -> np.ndarray:
        """Run the network on crops [N, H, W, 3], as many at once as it takes, and return heatmaps [N, K, H/4, W/4]."""
        outputs = []
        for start in range(0, len(crops), self._together):
            part = images = crops[start : start + self._together]
            missing = (self.deployment.input_shape[0] or 0) - len(part)
            if missing > 0:
                images = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            outputs.append(self.run_engine(self._engine.run, self.as_fed(images))[: len(part)])
        heatmaps = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        width, height = self.input_size
        expected = (len(crops), len(self.settings.keypoints), height // STRIDE, width // STRIDE)
        if heatmaps.shape != expected:
            raise UserError(
                f"the graph returns {list(heatmaps.shape)}, but deploy.yaml describes {list(expected)}; are they from "
                "one export?"
            )
        return heatmaps


def check_boxes(boxes: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Check the boxes of a frame and return them as float32 [N, 4].

    Args:
        boxes: As for a call of `PoseEstimator`.
        shape: The frame's shape.

    Raises:
        UserError: They are not boxes, or one is empty or lies outside the frame.
    """
    height, width = shape[:2]
    if boxes is None:
        return np.array([[0, 0, width, height]], np.float32)
    try:
        with np.errstate(over="ignore"):  # infinity is refused below
            found = np.asarray(boxes, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"boxes are numbers [N, 4] as x1 y1 x2 y2, got {shown(boxes)}") from error
    if found.shape in ((0,), (0, 4)):
        return np.zeros((0, 4), np.float32)
    if found.ndim != 2 or found.shape[1] != 4:
        raise UserError(f"boxes are numbers [N, 4] as x1 y1 x2 y2, got {list(found.shape)}")
    x1, y1, x2, y2 = found.T
    faults = {
        f"has a coordinate that is no number of pixels below {_LARGEST:.0f}": ~(np.abs(found) <= _LARGEST).all(axis=1),
        "is empty: x1 is below x2 and y1 below y2, unlike in COCO's form x y width height": (x1 >= x2) | (y1 >= y2),
        f"lies outside the frame of {width}x{height}": (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
    }
    for fault, is_faulty in faults.items():
        if is_faulty.any():
            index = int(is_faulty.argmax())
            text = " ".join(f"{value:g}" for value in found[index].tolist())
            raise UserError(f"box {index} of {len(found)}, {text}, {fault}")
    return found


def _read_settings(deployment: Deployment) -> PoseSettings:
    return PoseSettings.from_dict(deployment.settings, f"{deployment.folder / 'deploy.yaml'}: settings")
