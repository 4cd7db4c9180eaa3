"""Segmentation with an exported network: a frame goes in, a label map comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.predictor import Predictor, Prepared
from paddle_rt.inference.preprocess import CROPS, ResizeSteps, restore
from paddle_rt.inference.upsample import confidence_from_logits, labels_from_logits, warmup

OUTPUT_OPS = ("argmax", "softmax", "none", "coarse", "labels")
FRAME_OPS = ("coarse", "labels")  # what a graph that takes frames may give
LABEL_OPS = ("argmax", "labels")


@dataclass(frozen=True, eq=False)
class Labels:
    """A label map with the network's confidence in it.

    Args:
        map: The class of each pixel, uint8 [H, W].
        confidence: The softmax probability of that class, float32 [H, W].
    """

    map: np.ndarray
    confidence: np.ndarray


# Makes a result of the graph's output, of the prepared frame, and of the frame's (height, width).
Finish = Callable[[np.ndarray, Prepared, tuple[int, int]], Any]


class FrameSegmenter(Predictor):
    """The part that `Segmenter` and `VideoSegmenter` share. Arguments and errors are those of `Predictor`.

    Attributes:
        is_video: Whether the class runs networks for video.
    """

    task = "segmentation"
    stages = ("preprocess", "network", "labels")
    is_video = False

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Label one frame; for a `VideoSegmenter` it is the next one of the video.

        Args:
            frame: uint8 BGR, as OpenCV reads it.

        Returns:
            The class of each pixel, uint8.

        Shape: [H, W, 3] to [H, W].

        Raises:
            UserError: The argument is not a frame, or it is too large.
        """
        return self._run_frame(frame, self._label_map)

    def predict(self, frame: np.ndarray) -> Labels:
        """Label one frame, as a call does, and compute the confidence of each label, which takes longer.

        Args:
            frame: uint8 BGR [H, W, 3].

        Returns:
            The label map and its confidence.

        Raises:
            UserError: As for a call; or the graph does not give coarse logits.
        """
        if self.deployment.output_op != "coarse":
            raise UserError("confidence needs a graph of coarse logits; export with --output_op coarse")
        return self._run_frame(frame, self._labels)

    def load_rest(self) -> None:
        """Import Numba and load the kernels that label pixels, which takes about a second in a new process."""
        if self.deployment.output_op == "coarse":
            warmup()

    def _run_frame(self, frame: np.ndarray, finish: Finish) -> Any:
        """Run the network on one frame and return what `finish` makes of its output."""
        raise NotImplementedError

    def check(self, deployment: Deployment) -> None:
        """Check that the export is one of a segmentation network of this kind.

        Raises:
            UserError: It is not.
        """
        op, file = deployment.output_op, deployment.folder / "deploy.yaml"
        if op not in OUTPUT_OPS:
            raise UserError(f"{file}: {unknown('output_op', op, OUTPUT_OPS)}")
        if deployment.takes_frames != (op in FRAME_OPS):
            raise UserError(f"{file}: input_dtype {deployment.input_dtype!r} does not fit output_op {op!r}")
        if any(step.get("type") in CROPS for step in deployment.transforms if isinstance(step, dict)):
            raise UserError(f"{file}: a transform cuts images, but every pixel of a frame gets a label")
        if deployment.state_shape and (op not in FRAME_OPS or deployment.input_shape[0] != 1):
            raise UserError(f"{file}: a graph with a state takes one frame and gives coarse logits or labels")
        if self.is_video != (deployment.state_shape is not None):
            kinds = ("video: use VideoSegmenter", "images, without a state: use Segmenter")
            raise UserError(f"the export in {deployment.folder} is a model for {kinds[self.is_video]}")
        if (deployment.num_classes or 0) > 256:
            raise UserError(f"labels are bytes: 256 classes at most, the graph has {deployment.num_classes}")
        super().check(deployment)

    def warmup(self, size: Sequence[int] | None = None) -> float:
        """Compile (or load) the kernels that label pixels, and label a black frame, as `Predictor.warmup` does."""
        seconds = warmup() if self.deployment.output_op == "coarse" else 0.0
        return seconds + super().warmup(size)

    def _label_map(self, output: np.ndarray, prepared: Prepared, size: tuple[int, int]) -> np.ndarray:
        with self.timed("labels"):
            self.check_output(output, prepared.size)
            op, steps = self.deployment.output_op, prepared.resize_steps
            if op in LABEL_OPS:
                return restore(output.astype(np.uint8), steps, cv2.INTER_NEAREST_EXACT)
            if op != "coarse":
                return _best_class(output, steps, size)
            return labels_from_logits(output, prepared.size, **self._upsampling(prepared))

    def _labels(self, output: np.ndarray, prepared: Prepared, size: tuple[int, int]) -> Labels:
        found = self._label_map(output, prepared, size)
        with self.timed("labels"):
            return Labels(found, confidence_from_logits(output, prepared.size, **self._upsampling(prepared)))

    def _upsampling(self, prepared: Prepared) -> dict[str, Any]:
        corners = self.deployment.align_corners
        return {"align_corners": corners, "resize_steps": prepared.resize_steps, "threads": self.threads}

    def check_output(self, output: np.ndarray, size: Sequence[int]) -> None:
        """Refuse the output of a graph that is not the one that deploy.yaml describes."""
        op, classes = self.deployment.output_op, self.deployment.num_classes
        if op in LABEL_OPS:
            fits = output.shape == tuple(size) and (classes is None or int(output.max()) < classes)
        else:
            fits = output.ndim == 3 and classes in (None, output.shape[0])
            fits = fits and (op == "coarse" or output.shape[1:] == tuple(size))
        if not fits:
            raise UserError(
                f"the graph returns {output.dtype} {list(output.shape)} for an image of {list(size)}, but deploy.yaml "
                f"describes the {op} output of {classes} classes; are they from one export?"
            )


class Segmenter(FrameSegmenter):
    """Label frames with an exported network for images. Arguments and errors are those of `Predictor`.

    Several threads may share a segmenter; their networks run one after the other.

    Example:
        segmenter = Segmenter("output/inference_model", backend="openvino", threads=2)
        label_map = segmenter(frame)  # uint8 [H, W]
        labels = segmenter.predict(frame)  # labels.map and labels.confidence
    """

    def batch(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Label frames, as many at once as the graph takes. They may differ in size.

        Args:
            frames: uint8 BGR [H, W, 3] each.

        Returns:
            The label map of each frame, as a call returns it.

        Raises:
            UserError: As for a call; no frame has been labelled if one item is not a frame.
        """
        outputs = zip(self.run_frames(frames), frames, strict=True)
        return [self._label_map(output, prepared, frame.shape[:2]) for (output, prepared), frame in outputs]

    def _run_frame(self, frame: np.ndarray, finish: Finish) -> Any:
        ((output, prepared),) = self.run_frames([frame])
        return finish(output, prepared, frame.shape[:2])


def _best_class(planes: np.ndarray, resize_steps: ResizeSteps, size: tuple[int, int]) -> np.ndarray:
    """Bring logits or probabilities [num_classes, h, w] to the frame's size and take the first largest: [H, W].

    One class is processed at a time, since all of them at the size of a photograph would fill gigabytes.
    """
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for label, plane in enumerate(planes):
        plane = restore(plane, resize_steps, cv2.INTER_LINEAR)
        labels[plane > best] = label
        np.maximum(best, plane, out=best)
    return labels
