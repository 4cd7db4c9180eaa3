"""Segmentation's part of an export: coarse logits, labels, probabilities or logits, and how they are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle

from paddle_rt.errors import UserError
from paddle_rt.imaging.palettes import class_names
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.segmenter import FRAME_OPS, LABEL_OPS, OUTPUT_OPS, FrameSegmenter
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec, compare_values, wrong_shape
from paddle_rt.tasks.segmentation.metrics import confusion_matrix, scores


@dataclass(frozen=True)
class SegmentationExport(ExportSpec):
    """What the exports of segmentation networks look like.

    With "coarse" a graph takes frames and gives the logits before the network's last resize, from which `Segmenter`
    computes labels faster on a CPU. With "labels" it takes frames and gives labels at their size, bytes (int32 from a
    Paddle graph for GPUs). With "argmax" (int32 labels [N, H, W]), "softmax" (float32 [N, num_classes, H, W]) or "none"
    (logits) it takes images, as PaddleSeg's exports do. Labels say little about the logits that they come from, so a
    graph with "argmax", "labels" or "softmax" is verified without it first.

    Args:
        transforms: The validation transforms, as a config describes them.
        dataset_type: The data set's type, which names classes and colours.
        ignore_index: The label that does not count when a quantised graph is scored.
        class_names: Names of the classes in place of those of `dataset_type`; none to take those.
        colors: RGB colours of the classes in place of those of `dataset_type`; none to take those.
        task: The task's name.
        open_sizes: As for `ExportSpec`.
    """

    output_ops = OUTPUT_OPS
    int8_output = "coarse"
    agreement_key = "label_agreement"

    dataset_type: str | None = None
    ignore_index: int = 255
    class_names: Sequence[str] = ()
    colors: Sequence[Sequence[int]] = ()
    task: str = field(default=FrameSegmenter.task, kw_only=True)

    def default_output(self, network: Network, channels: int) -> str:
        return "coarse" if network.output_stride is not None and channels == 3 else "argmax"

    def check(self, network: Network, input_shape: Sequence[int | None], output_op: str) -> None:
        super().check(network, input_shape, output_op)
        if output_op == "coarse" and network.output_stride is None:
            raise UserError(f"{type(network).__name__} has no coarse logits; use output_op argmax, softmax or none")
        if network.temporal_window > 1 and (output_op not in FRAME_OPS or input_shape[0] != 1):
            raise UserError(
                f"a network with a temporal window of {network.temporal_window} is exported as output_op coarse or "
                f"labels for one frame at a time, got {output_op} for {input_shape[0]}"
            )

    def takes_frames(self, output_op: str) -> bool:
        return output_op in FRAME_OPS

    def reference(self, network: Network, images: paddle.Tensor, output_op: str) -> paddle.Tensor:
        return network.coarse_logits(images) if output_op == "coarse" else network(images)[0]

    def step_reference(
        self, network: Network, coarse: paddle.Tensor, frame: paddle.Tensor, output_op: str
    ) -> paddle.Tensor:
        return coarse if output_op == "coarse" else network.resize_logits(coarse, frame)

    def finish(self, reference: paddle.Tensor, output_op: str) -> paddle.Tensor:
        if output_op in LABEL_OPS:
            return paddle.argmax(reference, axis=1, dtype="int32")
        return paddle.nn.functional.softmax(reference, axis=1) if output_op == "softmax" else reference

    def verified_outputs(self, output_op: str) -> list[str]:
        return [output_op] if output_op in ("coarse", "none") else ["none", output_op]

    def compare(self, output: np.ndarray, output_op: str, reference: np.ndarray, tolerance: float) -> dict[str, Any]:
        if output_op in LABEL_OPS:
            return _compare_labels(output, reference, tolerance)
        if output_op == "softmax":
            reference = np.exp(reference - reference.max(axis=1, keepdims=True))
            reference /= reference.sum(axis=1, keepdims=True)
        return compare_values(output, reference, tolerance)

    def choices(self, output: np.ndarray, output_op: str) -> np.ndarray | None:
        return output if output_op in LABEL_OPS else output.argmax(axis=1)

    def describe(self, network: Network, output_op: str, reference: np.ndarray) -> dict[str, Any]:
        classes = reference.shape[1]
        return {
            "num_classes": classes,
            "dataset_type": self.dataset_type,
            "class_names": list(self.class_names) or class_names(self.dataset_type, classes),
            "colors": [list(colour) for colour in self.colors],
            "align_corners": network.align_corners,
            "output_dtype": {"argmax": "int32", "labels": "uint8"}.get(output_op, "float32"),
        }

    def score(self, results: Sequence[Any], truths: Sequence[Any], deployment: Deployment) -> tuple[str, float]:
        pairs = zip(results, truths, strict=True)
        counts = [confusion_matrix(*pair, deployment.num_classes, self.ignore_index) for pair in pairs]
        return "mIoU", float(scores(sum(counts))["mIoU"])


class ExportingMixin:
    """The export part of `SegmentationTask`."""

    export_class = SegmentationExport
    config: Mapping[str, Any]
    given_names: list[str]
    given_colours: list[list[int]]

    def export_spec(self) -> SegmentationExport:
        """Return what the exports of the config's network look like.

        Raises:
            UserError: The config has no validation transforms.
        """
        dataset, (loss, *_) = self.config.get("val_dataset", {}), self.config["loss"]["types"]
        if "transforms" not in dataset:
            raise UserError("the config has no val_dataset with transforms, which deploy.yaml must contain")
        classes = (loss.get("ignore_index", 255), self.given_names, self.given_colours)
        return SegmentationExport(dataset["transforms"], dataset["type"], *classes)

    def raw_samples(self, split: str, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return frames and labels of a split, without transforms, evenly spaced; `take_samples` describes them.

        Raises:
            UserError: The config has no such split, or its files are missing.
        """
        return take_samples(self.plain_data(split), number)

    def plain_data(self, split: str) -> paddle.io.Dataset:
        """Build the data set of a split without transforms.

        Raises:
            UserError: The config has no such split, or its files are missing.
        """
        key = f"{split}_dataset"
        plain = {**self.config, key: {**self.config.get(key, {}), "transforms": []}}
        return type(self)(plain).build_data(split)


def take_samples(dataset: paddle.io.Dataset, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Take items of a data set that was built without transforms, evenly spaced.

    Args:
        dataset: Items with "img", float32 RGB [3, H, W] from 0 to 255, and "label", [H, W] or [1, H, W].
        number: How many items to take, at most.

    Returns:
        Pairs of a frame, uint8 BGR [H, W, 3], and its labels [H, W].
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int)).tolist()
    return [frame_of_item(dataset[index]) for index in indices]


def frame_of_item(item: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the frame, uint8 BGR [H, W, C], and the labels [H, W] of an item of a data set without transforms.

    Of a clip it is the last frame, which its labels belong to.
    """
    planes = item["img"][-1] if item["img"].ndim == 4 else item["img"]
    return np.ascontiguousarray(planes.transpose(1, 2, 0)[..., ::-1].astype(np.uint8)), np.squeeze(item["label"])


def _compare_labels(labels: np.ndarray, logits: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Judge labels: they may differ only where the two largest logits are closer than rounding can tell apart."""
    shape = (logits.shape[0], *logits.shape[2:])
    if labels.shape != shape:
        return wrong_shape(labels, shape)
    last = logits.shape[1] - 1
    valid = bool(((labels >= 0) & (labels <= last)).all())
    chosen = np.take_along_axis(logits, np.clip(labels, 0, last)[:, np.newaxis].astype(np.int64), axis=1)
    gap = float((logits.max(axis=1) - chosen[:, 0]).max())
    allowed = tolerance * float(np.abs(logits).max())
    return {
        "different_labels": int((labels != logits.argmax(axis=1)).sum()),
        "labels": labels.size,
        "largest_logit_gap": gap,
        "tolerance": allowed,
        "passed": valid and gap <= allowed,
    }
