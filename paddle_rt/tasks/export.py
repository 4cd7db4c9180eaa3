"""The export part of the contract of a task: what a graph takes and gives, and how its results are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import paddle

from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.deployment import Deployment
from paddle_rt.models.base import Network


@dataclass(frozen=True)
class ExportSpec:
    """What the exports of a task look like. The defaults export the network's main output and compare it as it is.

    A graph takes images [N, C, H, W] as the transforms leave them; if `takes_frames` says so it takes frames
    [N, H, W, 3], uint8 BGR, and normalises them itself.

    Attributes:
        output_ops: The outputs that a graph may have; values of deploy.yaml's output_op.
        int8_output: The output that a graph must have to be quantised.
        agreement_key: The name of the share of results that quantisation leaves unchanged.
        one_by_one: Whether predictors give ONNX graphs with an open batch one input at a time on a CPU, which is then
            verified too.

    Args:
        transforms: The validation transforms, as a config describes them.
        task: The task's name, which decides on the predictor.
        open_sizes: (N, H, W) of the two inputs of the verification; a length counts where the graph leaves it open.
    """

    output_ops: ClassVar[tuple[str, ...]] = ("none",)
    int8_output: ClassVar[str] = "none"
    agreement_key: ClassVar[str] = "agreement"
    one_by_one: ClassVar[bool] = False

    transforms: Sequence[Mapping[str, Any]] = ()
    task: str = field(kw_only=True)
    # Odd, no multiples of anything in a network, and wider than high; and a batch of two.
    open_sizes: Sequence[tuple[int, int, int]] = field(default=((1, 417, 545), (2, 256, 352)), kw_only=True)

    def default_output(self, network: Network, channels: int) -> str:
        """Return the output of an export that asks for none."""
        return self.output_ops[0]

    def input_shape(self, channels: int) -> list[int | None]:
        """Return the shape [N, C, H, W] of the input of an export that asks for none; None for an open length."""
        return [None, channels, None, None]

    def check(self, network: Network, input_shape: Sequence[int | None], output_op: str) -> None:
        """Check that a network can be exported with this input and output.

        Raises:
            UserError: It cannot.
        """
        if output_op not in self.output_ops:
            raise unknown("output_op", output_op, self.output_ops)
        if self.takes_frames(output_op) and input_shape[1] != 3:
            raise UserError(
                f"output_op {output_op} is for a graph that takes frames of 3 channels, got {input_shape[1]}"
            )

    def takes_frames(self, output_op: str) -> bool:
        """Return whether a graph with this output takes frames and normalises them itself."""
        return False

    def reference(self, network: Network, images: paddle.Tensor, output_op: str) -> paddle.Tensor:
        """Compute the tensor that a graph's output is judged by."""
        return network(images)[0]

    def finish(self, reference: paddle.Tensor, output_op: str) -> paddle.Tensor:
        """Turn the tensor that a graph's output is judged by into that output."""
        return reference

    def output(self, network: Network, images: paddle.Tensor, output_op: str) -> paddle.Tensor:
        """Compute the output of a graph; this is what is traced."""
        return self.finish(self.reference(network, images, output_op), output_op)

    def step_reference(
        self, network: Network, coarse: paddle.Tensor, frame: paddle.Tensor, output_op: str
    ) -> paddle.Tensor:
        """Compute the tensor that the output of a graph for video is judged by from coarse logits and their frame."""
        return coarse

    def step_output(
        self, network: Network, frame: paddle.Tensor, state: paddle.Tensor, output_op: str
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Compute the output of a graph for video, and the next state; this is what is traced."""
        coarse, state = network.coarse_step(frame, state)
        return self.finish(self.step_reference(network, coarse, frame, output_op), output_op), state

    def verified_outputs(self, output_op: str) -> list[str]:
        """Return the outputs that are exported and verified for this one, which is the last of them."""
        return [output_op]

    def compare(self, output: np.ndarray, output_op: str, reference: np.ndarray, tolerance: float) -> dict[str, Any]:
        """Judge the output of an exported graph.

        Args:
            output: The graph's output.
            output_op: What the graph computes.
            reference: What `reference` returned for the same input.
            tolerance: The relative error that is allowed.

        Returns:
            The errors and what was allowed, for verification.json, and "passed".
        """
        return compare_values(output, reference, tolerance)

    def choices(self, output: np.ndarray, output_op: str) -> np.ndarray | None:
        """Return what the task reads off an output, of which half precision should change little; None for numbers."""
        return None

    def describe(self, network: Network, output_op: str, reference: np.ndarray) -> dict[str, Any]:
        """Return the fields of `Deployment` beside those that all tasks share; `reference` is that of one input."""
        return {"output_dtype": "float32"}

    def predict(self, predictor: Any, frame: np.ndarray) -> Any:
        """Return a predictor's result for a frame of the task's `raw_samples`."""
        return predictor(frame)

    def agreement(self, results: Sequence[Any], others: Sequence[Any]) -> float:
        """Return the share, 0 to 1, of a predictor's results that equal those of another predictor."""
        pairs = zip(results, others, strict=True)
        return float(np.mean([np.mean(np.asarray(a) == np.asarray(b)) for a, b in pairs]))

    def differences(self, results: Sequence[Any], others: Sequence[Any]) -> dict[str, float]:
        """Return further measures, by name, of how a predictor's results differ from those of another predictor."""
        return {}

    def score(self, results: Sequence[Any], truths: Sequence[Any], deployment: Deployment) -> tuple[str, float]:
        """Return the name and the value of the score of a predictor's results."""
        raise UserError(f"the task {self.task!r} does not say how the results of a quantised graph are scored")


def compare_values(output: np.ndarray, reference: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Compare an output with its reference by the relative error, in the form of `ExportSpec.compare`."""
    if output.shape != reference.shape:
        return wrong_shape(output, reference.shape)
    error = relative_error(output, reference)
    return {"relative_error": error, "tolerance": tolerance, "passed": bool(error <= tolerance)}


def wrong_shape(output: np.ndarray, expected: Sequence[int]) -> dict[str, Any]:
    """Describe an output of another shape, in the form of `ExportSpec.compare`."""
    return {"output": list(output.shape), "expected": list(expected), "passed": False}


def relative_error(output: np.ndarray, reference: np.ndarray) -> float:
    """Return ||output - reference|| / ||reference||, computed in double precision; 0 where both are zero."""
    difference = np.linalg.norm(output.astype(np.float64).ravel() - reference.astype(np.float64).ravel())
    return float(difference / max(np.linalg.norm(reference.astype(np.float64).ravel()), np.finfo(np.float32).tiny))
