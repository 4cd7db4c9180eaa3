"""The part that the predictors of all tasks share: an export, its preprocessing and its engine."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import VERIFICATION, Deployment, check_graph, load_deployment
from paddle_rt.inference.engines import ENGINES, Engine, Profile, brief, check_choice
from paddle_rt.inference.preprocess import Preprocess, ResizeSteps, planar_floats, split_normalize
from paddle_rt.kinds import check_count

# The first feature maps of a network take hundreds of bytes a pixel: a machine can hold about 64 million pixels.
MOST_PIXELS = 1 << 26


@dataclass(frozen=True)
class Prepared:
    """A frame that the preprocessing has prepared for the network.

    Args:
        image: The network's input.
        size: (height, width) of the input.
        resize_steps: The changes of the frame's size.
    """

    image: np.ndarray
    size: tuple[int, int]
    resize_steps: ResizeSteps


class Predictor:
    """An exported network behind its preprocessing. The predictor of a task extends it by what it makes of the output.

    Several threads may share a predictor; their networks run one after the other.

    Args:
        export_dir: The folder that tools/export.py wrote, or its deploy.yaml.
        backend: "openvino", "onnxruntime", "mnn" or "paddle".
        precision: "fp32", "bf16", "fp16" or "int8", as far as `engines.SUPPORTED` lists it.
        threads: CPU threads; None for every core.
        device: "cpu", "gpu" or "tensorrt".
        device_id: The number of the GPU, from 0.
        profile: For TensorRT in ONNX Runtime on a graph with open sizes: the smallest, the usual and the largest input,
            each as (batch, height, width). Sizes beyond them are refused.
        keeps_model: Keep what OpenVINO makes of the graph in the user's cache folder, so that the next process loads it
            sooner. TensorRT's engines, which take minutes, are always kept.

    Attributes:
        task: The task whose exports the class runs.
        stages: The stages of a call, as `timings` names them.
        deployment: The contents of deploy.yaml.
        threads: The argument of this name.

    Raises:
        UserError: The export is damaged, of another task or without a graph for the backend, a name is unknown, or a
            package is missing.
    """

    task: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = ("preprocess", "network", "postprocess")

    def __init__(
        self,
        export_dir: str | os.PathLike,
        backend: str = "openvino",
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
        device_id: int = 0,
        profile: Profile | None = None,
        keeps_model: bool = False,
    ) -> None:
        check_choice(backend, device, precision)
        if threads is not None:
            check_count("threads", threads, 1, 1024)
        check_count("device_id", device_id, 0, 1023)
        if device_id and device == "cpu":
            raise UserError(
                f"device_id {device_id} is the number of a GPU, but the device is cpu; choose another device"
            )
        if profile is not None and (backend, device) != ("onnxruntime", "tensorrt"):
            raise UserError(f"a profile is for backend onnxruntime on device tensorrt, not for {backend} on {device}")
        self.deployment = load_deployment(export_dir)
        if self.deployment.task != self.task:
            raise UserError(
                f"the export in {self.deployment.folder} is for the task {self.deployment.task!r}, not {self.task!r}; "
                "paddle_rt.inference.load chooses its predictor"
            )
        self.check(self.deployment)
        self._batch, _, *self._size = self.deployment.input_shape
        self._preprocess = Preprocess(self.deployment.transforms, self._size, self.deployment.takes_frames)
        self.threads, self._profile = threads, profile
        self._lock = threading.Lock()
        self._clocks = threading.local()
        settings = {"threads": threads, "device_id": device_id, **self.engine_settings(backend, device, profile)}
        if keeps_model and backend == "openvino":
            settings["keeps_model"] = True
        self._feeds_floats = self.deployment.takes_frames and self.deployment.target == "gpu" and backend == "paddle"
        with ThreadPoolExecutor(1) as beside:  # an engine compiles a graph in C++, mostly on one core
            beside.submit(self.load_rest)  # what it raises, it raises again at the first frame
            self._engine = _load_engine(self.deployment, backend, device, precision, settings)

    def load_rest(self) -> None:
        """Load what results need besides the engine, while that is loaded; a subclass says what."""

    def check(self, deployment: Deployment) -> None:
        """Check what the task expects of a deploy.yaml; a subclass extends the check.

        Raises:
            UserError: The export does not fit this predictor.
        """
        channels = deployment.input_shape[1]
        if channels not in ((3,) if deployment.takes_frames else (1, 3, 4)):
            raise UserError(f"the graph takes {channels} channels, but frames have 3, or 1 or 4 for graphs of images")

    def engine_settings(self, backend: str, device: str, profile: Profile | None) -> dict[str, Any]:
        """Return the arguments that only some engines take; a subclass may add to them."""
        return {} if profile is None else {"profile": profile}

    @property
    def channels(self) -> int:
        """The channels of a frame: 3, or 1 or 4 for a network that was trained on such images."""
        return self.deployment.input_shape[1]

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that this thread's last call spent in each of the stages."""
        return dict(getattr(self._clocks, "seconds", {}))

    @property
    def report(self) -> dict[str, Any]:
        """Facts of the engine, as `Engine.report` describes them."""
        return self._engine.report

    def warmup(self, size: Sequence[int] | None = None) -> float:
        """Predict a black frame, since the first run of an engine takes longer.

        Args:
            size: (height, width) of the frames to come. If it is None and the graph leaves its size open, no frame is
                predicted.

        Returns:
            The seconds that this took.
        """
        start = time.perf_counter()
        size = size or (None not in self._size and self._size)
        if size:
            self(np.zeros((*size, self.channels), np.uint8))
        return time.perf_counter() - start

    def __call__(self, frame: np.ndarray) -> Any:
        """Predict one frame, as `run_frames` takes it; each task defines its result."""
        raise NotImplementedError

    def run_frames(self, frames: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, Prepared]]:
        """Run the network on frames, on as many at once as the graph takes. They may differ in size.

        Args:
            frames: uint8 BGR [H, W, 3], as OpenCV reads them; [H, W] or [H, W, 1] for a network of grey images, and
                [H, W, 4] for one of 4 channels.

        Yields:
            For each frame the network's output, and the prepared frame.

        Raises:
            UserError: An item is not a frame, which is checked before the network runs, or it is too large.
        """
        self.begin(frames)
        prepared = [self.prepare(frame) for frame in frames]
        for _, group in itertools.groupby(prepared, key=lambda item: item.image.shape):
            group = list(group)
            most = self._batch or min(len(group), self._profile[2][0] if self._profile else len(group))
            for start in range(0, len(group), most):
                part = group[start : start + most]
                yield from zip(self.run_prepared(part), part, strict=True)

    def begin(self, frames: Sequence[np.ndarray]) -> None:
        """Check frames, and reset the timings of this thread.

        Raises:
            UserError: An item is not a frame.
        """
        for frame in frames:
            _check_frame(frame, self.channels)
        self._clocks.seconds = dict.fromkeys(self.stages, 0.0)

    def prepare(self, frame: np.ndarray) -> Prepared:
        """Apply the transforms to a frame.

        Raises:
            UserError: The frame is too large.
        """
        with self.timed("preprocess"):
            try:
                image, resize_steps = self._preprocess(frame)
            except cv2.error as error:  # the memory does not suffice for the size
                raise UserError(f"the transforms fail on an image of {list(frame.shape)}: {error}") from error
            if image.size > self.channels * MOST_PIXELS:
                raise UserError(
                    f"an image of {list(image.shape)} is too large for a network, which takes {MOST_PIXELS} pixels at "
                    "most; export with --input_size, or with a Resize in the config's val_dataset"
                )
            size = image.shape[:2] if self._preprocess.graph_normalizes else image.shape[1:]
            return Prepared(self.as_fed(image), size, resize_steps)

    def as_fed(self, images: np.ndarray) -> np.ndarray:
        """Return one or more prepared images in the layout that the graph takes."""
        return planar_floats(images) if self._feeds_floats else images

    def run_engine(self, graph: Callable[..., Any], images: np.ndarray, *state: np.ndarray) -> Any:
        """Run one of the engine's methods and measure its time.

        Raises:
            UserError: The engine fails, for example for lack of memory.
        """
        try:
            with self.timed("network"), self._lock:
                return graph(images, *state)
        except UserError:
            raise
        except Exception as error:  # each engine has its own exceptions, also for lack of memory
            raise UserError(f"the graph fails on an image of {list(images.shape[1:])}: {brief(error)}") from error

    def run_prepared(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """Run the network on prepared frames of one size, at most as many as the graph takes; return its outputs.

        Raises:
            UserError: The engine fails, or the graph gives another number of outputs.
        """
        batch = self._batch or len(prepared)
        images = self._stack(prepared, batch)
        outputs = self.run_engine(self._engine.run, images)
        if outputs.shape[:1] != (batch,):
            raise UserError(f"the graph returns {list(outputs.shape)} for {batch} images; is it from this export?")
        return outputs[: len(prepared)]

    def _stack(self, prepared: Sequence[Prepared], batch: int) -> np.ndarray:
        """Make a batch, which is filled up with copies of the last image."""
        with self.timed("preprocess"):
            images = [item.image for item in prepared]
            images = images[0][np.newaxis] if len(images) == 1 else np.stack(images)
            if len(images) < batch:
                images = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
            return images

    def engine_and_inputs(self, frame: np.ndarray) -> tuple[Engine, tuple[np.ndarray, ...]]:
        """Return the engine and the arrays that it runs on for a frame, which benchmarks run it on by itself.

        For a network for video, the second array is the state before the first frame.

        Raises:
            UserError: The argument is not a frame, or it is too large.
        """
        self.begin([frame])
        images, state_shape = self._stack([self.prepare(frame)], self._batch or 1), self.deployment.state_shape
        return self._engine, (images,) if state_shape is None else (images, np.zeros(state_shape, np.float32))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        yield
        self._clocks.seconds[stage] += time.perf_counter() - start


def _check_frame(frame: object, channels: int) -> None:
    is_image = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim in (2, 3)
    if not is_image or channels != (1 if frame.ndim == 2 else frame.shape[2]):
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        expected = {1: "grey [H, W]", 3: "BGR [H, W, 3]", 4: "[H, W, 4]"}[channels]
        raise UserError(f"a frame is uint8 {expected}, got {got}")
    if 0 in frame.shape:
        raise UserError(f"a frame has at least one pixel, got {list(frame.shape)}")


def graph_facts(deployment: Deployment) -> dict[str, Any]:
    """Return what a deploy.yaml says of its graphs themselves, which only another export can change.

    verification.json holds it as well. An edited deploy.yaml that contradicts it would give wrong results silently: the
    Normalize of a graph that takes frames, for one, is only a record of what the graph does.
    """
    keys = ("task", "target", "input_shape", "input_dtype", "output_op", "state_shape", "align_corners")
    facts = {key: getattr(deployment, key) for key in keys}
    if deployment.takes_frames:
        normalize = split_normalize(deployment.transforms)[1]
        facts["normalize"] = {"mean": list(normalize.mean), "std": list(normalize.std)}
    return facts


def _check_facts(deployment: Deployment) -> None:
    report = json.loads((deployment.folder / VERIFICATION).read_text(encoding="utf-8"))
    for key, value in graph_facts(deployment).items():
        verified = report.get(key, value)
        if verified != value:
            raise UserError(
                f"{deployment.folder / 'deploy.yaml'} gives {key} {value!r}, but the graph was verified with "
                f"{verified!r}, as {VERIFICATION} beside it says; export it again"
            )


def graph_names(deployment: Deployment, backend: str, device: str, precision: str) -> list[str]:
    """Return the files of an export that a backend runs on a device in a precision.

    Raises:
        UserError: The export does not have them.
    """
    if backend == "paddle":
        names, remedy = [deployment.model, deployment.params], "export it with --formats paddle"
    elif backend == "mnn":
        names, remedy = [deployment.mnn], "export it with --formats mnn"
    else:
        names, remedy = [deployment.onnx], "export it with --formats onnx"
        if precision == "int8":
            names, remedy = [deployment.int8], "make one with tools/quantize.py"
            if device == "tensorrt" and deployment.target != "gpu":
                names, remedy = [None], "export it with --target gpu, then use tools/quantize.py"
            if backend == "openvino" and deployment.target == "gpu":
                # Its int8 products of signed activations saturate on CPUs without VNNI.
                names, remedy = [None], "export it with --target cpu, or use backend onnxruntime"
        # OpenVINO and TensorRT make a graph of single precision compute in half; CUDA's provider needs one that does.
        if precision == "fp16" and backend == "onnxruntime" and (deployment.fp16 or device == "gpu"):
            names, remedy = [deployment.fp16], "export it with --target gpu --precision fp16"
    if not all(names):
        kind = f"{precision} graph for {backend}" + (" and TensorRT" if device == "tensorrt" else "")
        raise UserError(f"the export in {deployment.folder} has no {kind}; {remedy}")
    return names


def _load_engine(deployment: Deployment, backend: str, device: str, precision: str, settings: dict[str, Any]) -> Engine:
    names = graph_names(deployment, backend, device, precision)
    check_graph(deployment, *names)
    _check_facts(deployment)
    files = (deployment.folder / name for name in names)
    if deployment.fp16 in names:
        settings["is_half"] = True
    if backend == "paddle" and deployment.target == "gpu":
        settings["onednn"] = False  # its bilinear resize ignores aligned corners, which graphs for GPUs contain
    return ENGINES[backend](*files, device=device, precision=precision, **settings)
