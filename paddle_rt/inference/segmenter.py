"""The door to an exported model: frames in, labels out."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import Deployment, check_graph, load_deployment
from paddle_rt.inference.engines import ONNX_ENGINES, Engine, PaddleInference, check_choice
from paddle_rt.inference.preprocess import Preprocess, restore
from paddle_rt.inference.upsample import confidence_from_logits, labels_from_logits, warmup

# A network's first feature maps take hundreds of bytes a pixel: 64 million pixels are as much as a machine can hold.
_MOST_PIXELS = 1 << 26


class FrameSegmenter:
    """What `Segmenter` and `VideoSegmenter` share: an exported model, and what is done to a frame before and after it.

    Args, Raises: As `Segmenter`.
    """

    is_video = False

    def __init__(
        self,
        export_dir: str | os.PathLike,
        backend: str = "openvino",
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        check_choice(backend, device, precision)
        if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
            raise UserError(f"threads must be from 1 to 1024, got {threads!r}")
        self.deployment = load_deployment(export_dir)
        if self.is_video != (self.deployment.state_shape is not None):
            kinds = ("video: use VideoSegmenter", "images, without a state: use Segmenter")
            raise UserError(f"the export in {self.deployment.folder} is a model for {kinds[self.is_video]}")
        self._batch, channels, *self._size = self.deployment.input_shape
        if (self.deployment.num_classes or 0) > 256:
            raise UserError(f"labels are bytes: 256 classes at most, the graph has {self.deployment.num_classes}")
        if channels != 3:
            raise UserError(f"the graph takes {channels} channels, frames have 3")
        self._preprocess = Preprocess(self.deployment.transforms, self._size, self.deployment.input_dtype == "uint8")
        self._threads = threads
        self._lock = threading.Lock()
        self._stages = threading.local()
        self._engine = _load_engine(self.deployment, backend, precision, threads, device)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that this thread's last call spent in "preprocess", "network" and "labels"."""
        return dict(getattr(self._stages, "seconds", {}))

    def warmup(self, size: Sequence[int] | None = None) -> float:
        """Do what only the first frame costs: compile, or load from the cache, the loops that turn coarse logits into
        labels, and run the network once.

        Args:
            size: (height, width) of the frames to come; where it is None and the graph leaves its size open, the
                network is not run.

        Returns:
            The seconds that it took.
        """
        start = time.perf_counter()
        if self.deployment.output_op == "coarse":
            warmup()
        size = size or (None not in self._size and self._size)
        if size:
            self(np.zeros((*size, 3), np.uint8))
        return time.perf_counter() - start

    def _begin(self, frames: Sequence[np.ndarray], confidence: bool) -> None:
        """Refuse what cannot be labelled, and set the clocks to zero."""
        for frame in frames:
            _check_frame(frame)
        if confidence and self.deployment.output_op != "coarse":
            raise UserError("confidence needs a graph of coarse logits; export with --output_op coarse")
        self._stages.seconds = dict.fromkeys(("preprocess", "network", "labels"), 0.0)

    def _prepare(self, frame: np.ndarray) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
        try:
            image, trail = self._preprocess(frame)
        except cv2.error as error:  # a size beyond the memory
            raise UserError(f"the transforms cannot be run on an image of {list(frame.shape)}: {error}") from error
        if image.size > 3 * _MOST_PIXELS:
            raise UserError(
                f"an image of {list(image.shape)} is too large for a network, {_MOST_PIXELS} pixels at most; export "
                "with --input_size, or with a Resize in the config's val_dataset"
            )
        return image, trail

    def _infer(self, graph: Callable[..., Any], images: np.ndarray, *state: np.ndarray) -> Any:
        """Run one of the engine's methods."""
        try:
            with self._timed("network"), self._lock:
                return graph(images, *state)
        except Exception as error:  # each engine has exceptions of its own, for lack of memory as well
            told = " ".join(str(error).split())
            raise UserError(f"the graph cannot be run on an image of {list(images.shape[1:])}: {told}") from error

    def _labels(
        self, output: np.ndarray, size: Sequence[int], trail: list[tuple[str, int, int]], full: tuple[int, int],
        confidence: bool,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Turn one output of the graph into what a call gives."""
        self._check_output(output, size)
        if self.deployment.output_op == "argmax":
            return restore(output.astype(np.uint8), trail, cv2.INTER_NEAREST_EXACT)
        if self.deployment.output_op != "coarse":
            return _best_class(output, trail, full)
        how = dict(align_corners=self.deployment.align_corners, trail=trail, threads=self._threads)
        labels = labels_from_logits(output, size, **how)
        return (labels, confidence_from_logits(output, size, **how)) if confidence else labels

    def _check_output(self, output: np.ndarray, size: Sequence[int]) -> None:
        """Refuse a graph that is not the one that deploy.yaml describes."""
        op, classes = self.deployment.output_op, self.deployment.num_classes
        if op == "argmax":
            fits = output.shape == tuple(size) and (classes is None or int(output.max()) < classes)
        else:
            fits = output.ndim == 3 and classes in (None, output.shape[0])
            fits = fits and (op == "coarse" or output.shape[1:] == tuple(size))
        if not fits:
            raise UserError(
                f"the graph gives {output.dtype} {list(output.shape)} for an image of {list(size)}, which is not {op} "
                f"of {classes} classes as deploy.yaml says; are they of one export?"
            )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages.seconds[stage] += time.perf_counter() - start


class Segmenter(FrameSegmenter):
    """Label frames with an exported model. Several threads may share one; their networks run one after the other.

    Args:
        export_dir: The folder that tools/export.py wrote, or its deploy.yaml.
        backend: "openvino", "onnxruntime" or "paddle".
        precision: "fp32", "bf16", "fp16" or "int8", as `backends.SUPPORTED` says.
        threads: CPU threads; None for every core.
        device: "cpu", "gpu" or "tensorrt".

    Raises:
        UserError: The export is damaged, of a model for video or without the backend's graph, a name is unknown, or a
            package is missing.
    """

    def __call__(self, frame: np.ndarray, confidence: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Label one frame.

        Args:
            frame: uint8 BGR [H, W, 3], as OpenCV reads it.
            confidence: Also give the softmax probability of each pixel's class.

        Returns:
            Labels, uint8 [H, W]; with `confidence` also float32 [H, W].

        Raises:
            UserError: The frame is something else, or too large to run.
        """
        return self.batch([frame], confidence)[0]

    def batch(self, frames: Sequence[np.ndarray], confidence: bool = False) -> list:
        """Label frames, as many at once as the graph takes. They may differ in size.

        Args:
            frames, confidence: As in a call.

        Returns:
            What a call would give for each frame.

        Raises:
            UserError: As in a call, before any frame is labelled if one is no frame.
        """
        self._begin(frames, confidence)
        with self._timed("preprocess"):
            inputs = [self._prepare(frame) for frame in frames]
        results = []
        for shape, group in itertools.groupby(inputs, key=lambda item: item[0].shape):
            group = list(group)
            most = self._batch or len(group)
            for start in range(0, len(group), most):
                part = group[start : start + most]
                with self._timed("preprocess"):
                    images = part[0][0][np.newaxis] if len(part) == 1 else np.stack([image for image, _ in part])
                outputs = self._run(images, most if self._batch else len(part))
                size = shape[:2] if self._preprocess.normalized else shape[1:]
                for (_, trail), output in zip(part, outputs, strict=True):
                    with self._timed("labels"):
                        frame = frames[len(results)]
                        results.append(self._labels(output, size, trail, frame.shape[:2], confidence))
        return results

    def _run(self, images: np.ndarray, batch: int) -> np.ndarray:
        """Run the network on as many images as it wants, of which the first are given."""
        number = len(images)
        if number < batch:
            images = np.concatenate([images, np.repeat(images[-1:], batch - number, axis=0)])
        outputs = self._infer(self._engine.run, images)
        if outputs.shape[:1] != (batch,):
            raise UserError(f"the graph gives {list(outputs.shape)} for {batch} images; is it of this export?")
        return outputs[:number]


def _check_frame(frame: object) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"a frame is uint8 BGR [H, W, 3], got {got}")
    if 0 in frame.shape:
        raise UserError(f"a frame has at least one pixel, got {list(frame.shape)}")


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


def _load_engine(deployment: Deployment, backend: str, precision: str, threads: int | None, device: str) -> Engine:
    if backend == "paddle":
        names, missing = (deployment.model, deployment.params), "export it with --formats paddle"
        engine = PaddleInference
    else:
        quantised = precision == "int8"
        names = (deployment.int8 if quantised else deployment.onnx,)
        missing = "make one with tools/quantize.py" if quantised else "export it with --formats onnx"
        engine = ONNX_ENGINES[backend]
    if not all(names):
        kind = f"{precision} graph for {backend}"
        raise UserError(f"the export in {deployment.folder} has no {kind}; {missing}")
    check_graph(deployment, *names)
    return engine(*(deployment.folder / name for name in names), device=device, threads=threads, precision=precision)
