"""Classification with an exported network: a frame goes in, its class comes out."""

from dataclasses import dataclass

import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.predictor import Predictor
from paddle_rt.kinds import check_count

OUTPUT_OPS = ("logits", "softmax")


@dataclass(frozen=True, eq=False)
class TopK:
    """The most likely classes of a frame, the most likely one first.

    Args:
        classes: Their numbers, int64 [k].
        scores: Their probabilities, float32 [k].
        names: Their names.
    """

    classes: np.ndarray
    scores: np.ndarray
    names: list[str]


def top_k(scores: np.ndarray, names: list[str], k: int) -> TopK:
    """Return the k most likely of all classes, or all of them where there are fewer.

    Args:
        scores: Probabilities [C].
        names: One name for each class.
        k: How many to return.
    """
    order = np.argsort(-scores, kind="stable")[:k]
    return TopK(order, scores[order].astype(np.float32), [names[label] for label in order])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits [C] into probabilities [C]."""
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


class Classifier(Predictor):
    """Classify frames with an exported network. Arguments and errors are those of `Predictor`.

    Several threads may share a classifier; their networks run one after the other.

    Example:
        classifier = Classifier("output/inference_model", backend="openvino", threads=2)
        label = classifier(frame)  # a number
        best = classifier.predict(frame, 5)  # best.classes, best.scores and best.names
    """

    task = "classification"
    stages = ("preprocess", "network", "labels")

    def __call__(self, frame: np.ndarray) -> int:
        """Classify one frame.

        Args:
            frame: uint8 BGR [H, W, 3], as OpenCV reads it.

        Returns:
            The number of the most likely class.

        Raises:
            UserError: The argument is not a frame, or it is too large.
        """
        return int(self.predict(frame, 1).classes[0])

    def predict(self, frame: np.ndarray, k: int = 5) -> TopK:
        """Return the most likely classes of one frame with their probabilities.

        Args:
            frame: uint8 BGR [H, W, 3].
            k: How many classes to return; all of them where there are fewer.

        Raises:
            UserError: As for a call, or k is below 1.
        """
        check_count("k", k)
        ((output, _),) = self.run_frames([frame])
        with self.timed("labels"):
            if output.shape != (self.deployment.num_classes,):
                raise UserError(
                    f"the graph returns {list(output.shape)}, but deploy.yaml describes {self.deployment.num_classes} "
                    "classes; are they from one export?"
                )
            scores = softmax(output) if self.deployment.output_op == "logits" else output
            return top_k(scores, self.deployment.class_names, k)

    def check(self, deployment: Deployment) -> None:
        """Check that the export is one of a classification network.

        Raises:
            UserError: It is not.
        """
        file = deployment.folder / "deploy.yaml"
        if deployment.output_op not in OUTPUT_OPS:
            raise UserError(f"{file}: {unknown('output_op', deployment.output_op, OUTPUT_OPS)}")
        if not deployment.takes_frames or deployment.state_shape is not None:
            raise UserError(f"{file}: a graph that classifies takes single frames, so input_dtype is uint8")
        if not deployment.num_classes:
            raise UserError(f"{file}: num_classes is missing; the file is not whole")
        super().check(deployment)
