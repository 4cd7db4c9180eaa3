"""The door to an exported model: a frame in, labels out."""

import os

import cv2
import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.backends import BACKENDS, Engine, OnnxRuntime, PaddleInference
from paddle_rt.inference.deployment import Deployment, load_deployment
from paddle_rt.inference.transforms import Preprocess, restore
from paddle_rt.inference.upsample import labels_from_logits, warmup

PRECISIONS = ("fp32",)
DEVICES = ("cpu", "gpu")


class Segmenter:
    """Label frames with an exported model.

    Args:
        export_dir: The folder that tools/export.py wrote, or its deploy.yaml.
        backend: "onnxruntime" or "paddle".
        precision: "fp32".
        threads: CPU threads of the backend; None for every core.
        device: "cpu" or "gpu".

    Raises:
        UserError: The export is damaged or lacks the backend's graph, or a name is unknown.
    """

    def __init__(
        self,
        export_dir: str | os.PathLike,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        for kind, name, valid in (
            ("backend", backend, BACKENDS), ("precision", precision, PRECISIONS), ("device", device, DEVICES)
        ):  # fmt: skip
            if name not in valid:
                raise unknown(kind, name, valid)
        if threads is not None and not 1 <= threads <= 1024:
            raise UserError(f"threads must be from 1 to 1024, got {threads}")
        self.deployment = load_deployment(export_dir)
        batch, channels, *size = self.deployment.input_shape
        if batch not in (None, 1):
            raise UserError(f"the graph takes {batch} images at once, frames come one by one; export it with N = 1")
        if (self.deployment.num_classes or 0) > 256:
            raise UserError(f"labels are bytes: 256 classes at most, the graph has {self.deployment.num_classes}")
        if channels != 3:
            raise UserError(f"the graph takes {channels} channels, frames have 3")
        self._preprocess = Preprocess(self.deployment.transforms, size)
        self._threads = threads
        self._engine = _load_engine(self.deployment, backend, device, threads)

    def warmup(self) -> float:
        """Do what only the first frame costs: compile, or load from the cache, the loops that turn coarse logits into
        labels. Returns the seconds that it took."""
        return warmup() if self.deployment.output_op == "coarse" else 0.0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Label one frame.

        Args:
            frame: uint8 BGR [H, W, 3], as OpenCV reads it.

        Returns:
            Labels, uint8 [H, W].

        Raises:
            UserError: The frame is something else, or too large to run.
        """
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise UserError(f"a frame is uint8 BGR [H, W, 3], got {got}")
        try:
            image, trail = self._preprocess(frame)
        except cv2.error as error:  # a size beyond the memory
            raise UserError(f"the transforms cannot be run on an image of {list(frame.shape)}: {error}") from error
        try:
            output = self._engine.run(image[np.newaxis])[0]
        except Exception as error:  # each engine has exceptions of its own, for lack of memory as well
            raise UserError(f"the graph cannot be run on an image of {list(image.shape)}: {error}") from error
        self._check_output(output, image.shape[1:])
        if self.deployment.output_op == "argmax":
            return restore(output.astype(np.uint8), trail, cv2.INTER_NEAREST_EXACT)
        if self.deployment.output_op == "coarse":
            size, align_corners = image.shape[1:], self.deployment.align_corners
            return labels_from_logits(output, size, align_corners=align_corners, trail=trail, threads=self._threads)
        return _best_class(output, trail, frame.shape[:2])


    def _check_output(self, output: np.ndarray, size: tuple[int, ...]) -> None:
        """Refuse a graph that is not the one that deploy.yaml describes."""
        op, classes = self.deployment.output_op, self.deployment.num_classes
        if op == "argmax":
            fits = output.shape == size and (classes is None or int(output.max()) < classes)
        else:
            fits = output.ndim == 3 and classes in (None, output.shape[0])
            fits = fits and (op == "coarse" or output.shape[1:] == size)
        if not fits:
            raise UserError(
                f"the graph gives {output.dtype} {list(output.shape)} for an image of {list(size)}, which is not {op} "
                f"of {classes} classes as deploy.yaml says; are they of one export?"
            )


def _best_class(planes: np.ndarray, trail: list[tuple[str, int, int]], size: tuple[int, int]) -> np.ndarray:
    """Bring logits or probabilities [num_classes, h, w] to the image's size and take the first largest: [H, W].

    One class at a time, since all of them at a photograph's size would fill gigabytes.
    """
    best, labels = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for label, plane in enumerate(planes):
        plane = restore(plane, trail, cv2.INTER_LINEAR)
        labels[plane > best] = label
        np.maximum(best, plane, out=best)
    return labels


def _load_engine(deployment: Deployment, backend: str, device: str, threads: int | None) -> Engine:
    wanted = "onnx" if backend == "onnxruntime" else "paddle"
    if not (deployment.onnx if wanted == "onnx" else deployment.model):
        raise UserError(f"the export in {deployment.folder} has no {wanted} graph; export it with --formats {wanted}")
    if wanted == "onnx":
        return OnnxRuntime(deployment.folder / deployment.onnx, device, threads)
    return PaddleInference(deployment.folder / deployment.model, deployment.folder / deployment.params, device, threads)
