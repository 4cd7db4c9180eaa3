"""Choose the engine that labels frames fastest on this machine, and keep the choice."""

import logging
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import VERIFICATION, file_digest, load_deployment
from paddle_rt.inference.engines import cores
from paddle_rt.inference.engines.cache import engine_cache, locked, read_manifest, write_manifest
from paddle_rt.inference.loading import load
from paddle_rt.inference.segmenter import FrameSegmenter

# Paddle is left out: importing it takes longer than what it could save. The first one that loads is the reference.
CANDIDATES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "mnn": "MNN"}  # the packages by backend
USUAL = "openvino"
LEAST_AGREEMENT = 0.9999  # of the labels, with the reference
OPEN_SIZE = (512, 1024)  # of the frames for a graph that leaves its size open
_PAUSE = 0.25  # seconds before each run: threads of the engine before wait for more work at full load for up to 0.2 s
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineChoice:
    """The engine that was chosen, and what was found.

    Args:
        backend: The engine.
        milliseconds: The median time of a frame, by backend.
        agreement: The share of labels that are the reference's, by backend.
        refusals: Why other backends were not timed.
        kept: Whether an earlier process measured it.
    """

    backend: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    kept: bool = False

    def __str__(self) -> str:
        times = [
            f"{name} {time:.0f} ms a frame, {self.agreement[name]:.4%} of the labels"
            for name, time in self.milliseconds.items()
        ]
        return "; ".join([f"backend {self.backend}", *times, *self.refusals])


def choose_backend(
    export_dir: str, render: Callable[[tuple[int, int]], Iterable[np.ndarray]], threads: int | None = None
) -> EngineChoice:
    """Return the backend that labels frames fastest in fp32 on the CPU, with labels that are those of ONNX Runtime.

    All installed backends whose graphs the export has label the same frames in turns, once for an export, a machine, a
    number of threads and the versions of the packages; the choice is kept in the cache of `engine_cache`. Exports of
    other tasks than segmentation, and those of one graph, are not timed.

    Args:
        export_dir: The export.
        render: Makes frames of a (height, width), uint8 BGR [H, W, 3], from which the engines are judged.
        threads: CPU threads; None for every core.

    Raises:
        UserError: The export is damaged, or no backend can run it.
    """
    deployment = load_deployment(export_dir)
    if not (deployment.onnx or deployment.mnn):
        return EngineChoice("paddle")
    if deployment.task != FrameSegmenter.task:
        return EngineChoice(USUAL)
    parts = {
        "kind": "choice of a backend",
        "export": file_digest(deployment.folder / VERIFICATION),
        "processor": _processor(),
        "threads": threads or cores(),
        "versions": {name: _version(package) for name, package in CANDIDATES.items()},
    }
    folder = engine_cache(parts)
    with locked(folder):
        found = read_manifest(folder, parts)
        if found is not None and found.get("backend") in CANDIDATES:
            return EngineChoice(found["backend"], found["milliseconds"], found["agreement"], found["refusals"], True)
        height, width = deployment.input_shape[2:]
        size = (height or OPEN_SIZE[0], width or OPEN_SIZE[1])
        choice = _measure(export_dir, list(render(size)), threads)
        measured = {key: getattr(choice, key) for key in ("backend", "milliseconds", "agreement", "refusals")}
        try:
            write_manifest(folder, {**parts, **measured})
        except UserError as error:  # the disk is full
            logger.warning("the choice of a backend is not kept: %s", error)
    return choice


def _measure(export_dir: str, frames: Sequence[np.ndarray], threads: int | None) -> EngineChoice:
    predictors: dict[str, Any] = {}
    errors = {}
    for backend in CANDIDATES:
        try:
            predictors[backend] = load(export_dir, backend, "fp32", threads)
        except UserError as error:
            errors[backend] = error
    if not predictors:  # the error of one that is installed says what is wrong with the export
        raise next((error for backend, error in errors.items() if _version(CANDIDATES[backend])), errors[USUAL])
    refusals = [f"not {backend}: {error}" for backend, error in errors.items()]
    if len(predictors) == 1:
        return EngineChoice(*predictors, refusals=refusals)
    for predictor in predictors.values():
        predictor.warmup(frames[0].shape[:2])
    seconds: dict[str, list[float]] = {backend: [] for backend in predictors}
    equal: dict[str, list[float]] = {backend: [] for backend in predictors}
    for frame in frames:
        truth = None
        for backend, predictor in predictors.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            labels = predictor(frame)
            seconds[backend].append(time.perf_counter() - start)
            truth = labels if truth is None else truth
            equal[backend].append(float((labels == truth).mean()))
    times = {backend: 1e3 * statistics.median(found) for backend, found in seconds.items()}
    agreement = {backend: statistics.fmean(found) for backend, found in equal.items()}
    right = [backend for backend in predictors if agreement[backend] >= LEAST_AGREEMENT]
    return EngineChoice(min(right, key=times.__getitem__), times, agreement, refusals)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> list[str]:
    """Return what tells one processor from another: its name and its instructions."""
    info = pathlib.Path("/proc/cpuinfo")
    first = info.read_text(errors="replace").partition("\n\n")[0].splitlines() if info.is_file() else []
    kept = [line for line in first if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part")]
    return [platform.machine(), platform.processor(), *kept]
