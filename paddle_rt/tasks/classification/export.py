"""Classification's part of an export: frames go in, logits or probabilities come out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle

from paddle_rt.inference.classifier import OUTPUT_OPS, Classifier
from paddle_rt.inference.deployment import Deployment
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec, compare_values


@dataclass(frozen=True)
class ClassificationExport(ExportSpec):
    """What the exports of classification networks look like.

    A graph takes frames and gives the logits or, with "softmax", the probabilities of the classes. Probabilities say
    little about the logits that they come from, so such a graph is verified with logits first.

    Args:
        transforms: The validation transforms, as a config describes them.
        names: One name for each class; empty for numbers.
        task: The task's name.
        open_sizes: As for `ExportSpec`.
    """

    output_ops = OUTPUT_OPS
    int8_output = "logits"

    names: Sequence[str] = ()
    task: str = field(default=Classifier.task, kw_only=True)
    open_sizes: Sequence[tuple[int, int, int]] = field(default=((1, 225, 161), (2, 128, 192)), kw_only=True)

    def takes_frames(self, output_op: str) -> bool:
        return True

    def finish(self, reference: paddle.Tensor, output_op: str) -> paddle.Tensor:
        return paddle.nn.functional.softmax(reference, axis=1) if output_op == "softmax" else reference

    def choices(self, output: np.ndarray, output_op: str) -> np.ndarray:
        return output.argmax(axis=1)

    def verified_outputs(self, output_op: str) -> list[str]:
        return ["logits", "softmax"] if output_op == "softmax" else ["logits"]

    def compare(self, output: np.ndarray, output_op: str, reference: np.ndarray, tolerance: float) -> dict[str, Any]:
        if output_op == "softmax":
            reference = np.exp(reference - reference.max(axis=1, keepdims=True))
            reference /= reference.sum(axis=1, keepdims=True)
        return compare_values(output, reference, tolerance)

    def describe(self, network: Network, output_op: str, reference: np.ndarray) -> dict[str, Any]:
        classes = reference.shape[1]
        names = list(self.names) or [f"class {label}" for label in range(classes)]
        return {"num_classes": classes, "class_names": names, "output_dtype": "float32"}

    def score(self, results: Sequence[int], truths: Sequence[int], deployment: Deployment) -> tuple[str, float]:
        return "top1", float(np.mean(np.asarray(results) == np.asarray(truths)))
