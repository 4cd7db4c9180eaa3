"""Run exported graphs in their engines and compare them with the network that they were made from."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import paddle

from paddle_rt.errors import InternalError, UserError
from paddle_rt.inference.engines import Engine, Mnn, OnnxRuntime, OpenVino, PaddleInference, brief, switch_off_telemetry
from paddle_rt.inference.engines.mnn import mnn
from paddle_rt.inference.preprocess import Normalize, planar_floats, split_normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec, relative_error

TOLERANCE = 1e-4  # of ||graph - network|| / ||network||; about 1e-6 was measured
# For a network with `near_ties`: each choice that rounding decides otherwise changes the logits by 2e-5 to 3e-4,
# measured with SegFormer++ B0 at 1024x2048 and the bsm presets.
NEAR_TIE_TOLERANCE = 1e-3
# Where the network itself amplifies rounding, the tolerance is this multiple of its own response to a change of the
# input's last bit: an engine was measured to differ by up to 44 times that response.
ROUNDING_FACTOR = 100
LARGEST_TOLERANCE = 1e-2
_LEAST_FRAMES = 8  # of a video


class VerificationError(InternalError):
    """An exported graph does not run in an engine, or does not compute what its network computes."""


@dataclass(frozen=True)
class Case:
    """One input of the verification.

    Args:
        inputs: The graph's input.
        reference: The network's output for it, as `ExportSpec.reference` returns it.
        tolerance: The relative error that is allowed.
    """

    inputs: np.ndarray
    reference: np.ndarray
    tolerance: float


def make_cases(network: Network, spec: ExportSpec, input_shape: Sequence[int | None], output_op: str) -> list[Case]:
    """Run a network in evaluation mode on two inputs that fit the shape: one smooth as a photograph, and noise.

    Args:
        network: The network.
        spec: The task's part of the export.
        input_shape: [N, C, H, W]; lengths that are None are taken from the spec.
        output_op: What the graphs compute.

    Raises:
        UserError: The network's output is not finite, or rounding alone changes it too much to compare anything.
    """
    rng = np.random.default_rng(0)
    batch, channels, height, width = input_shape
    normalize = split_normalize(spec.transforms)[1] if spec.takes_frames(output_op) else None
    cases = []
    for position, (n, h, w) in enumerate(spec.open_sizes):
        images = inputs = rng.standard_normal((batch or n, channels, height or h, width or w)).astype(np.float32)
        if position == 0:
            images = inputs = np.stack([smooth(image) for image in images])
        if normalize is not None:
            inputs = np.clip(images * 60 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
            rgb = inputs[..., ::-1].astype(np.float32)
            images = np.stack([normalize(image) for image in rgb]).transpose(0, 3, 1, 2)
        reference = run_network(network, spec, images, output_op)
        if not np.isfinite(reference).all():
            raise _not_finite()
        nudged = np.nextafter(images, np.where(rng.random(images.shape) < 0.5, -np.inf, np.inf).astype(np.float32))
        rounding = relative_error(run_network(network, spec, nudged, output_op), reference)
        cases.append(Case(np.ascontiguousarray(inputs), reference, _tolerance(network, rounding)))
    return cases


def run_network(network: Network, spec: ExportSpec, images: np.ndarray, output_op: str) -> np.ndarray:
    """Run a network in eager mode and return what graphs are compared with.

    Raises:
        UserError: The network does not take images of this shape.
    """
    try:
        with paddle.no_grad():
            return spec.reference(network, paddle.to_tensor(images), output_op).numpy()
    except (ValueError, RuntimeError, AssertionError) as error:  # what Paddle's operators raise
        raise UserError(f"the network cannot run on {list(images.shape)}: {brief(error)}") from error


def _not_finite() -> UserError:
    return UserError("the network's outputs are not finite numbers; do the weights come from a run that diverged?")


def _tolerance(network: Network, rounding: float) -> float:
    """Return the error that is allowed if rounding of the input changes the output by `rounding`."""
    if rounding > LARGEST_TOLERANCE:
        raise UserError(f"rounding of the input changes the outputs by {rounding:.1e}: no graph can be compared")
    least = NEAR_TIE_TOLERANCE if network.near_ties else TOLERANCE
    return min(max(least, ROUNDING_FACTOR * rounding), LARGEST_TOLERANCE)


def verify(
    folder: pathlib.Path, files: dict[str, str], spec: ExportSpec, output_op: str, cases: Sequence[Case], target: str
) -> list[dict[str, Any]]:
    """Compare every graph in a folder with its network.

    Args:
        folder: The folder of the graphs.
        files: The names of the graphs by `model`, `params`, `onnx` and `mnn`.
        spec: The task's part of the export.
        output_op: What the graphs compute.
        cases: Inputs with the network's outputs.
        target: The target of the graphs, "cpu" or "gpu".

    Returns:
        A row for every engine and input with its error and what was allowed.

    Raises:
        VerificationError: A graph does not run, or does not compute what the network computes.
    """
    rows = []
    is_open = len({len(case.inputs) for case in cases}) > 1
    for name, engine, feed in _engines(folder, files, target, spec.one_by_one and is_open):
        # The first case again at the end: memory that an engine wrongly keeps shows in a later run.
        for number, case in enumerate([*cases, cases[0]]):
            try:
                output = engine.run(feed(case.inputs))
            except Exception as error:  # each engine has its own exceptions
                raise _cannot_run(name, case.inputs.shape, error) from error
            row = {"engine": name, "output_op": output_op, "input": list(case.inputs.shape)}
            row.update(spec.compare(output, output_op, case.reference, _allowed(engine, case)))
            if not row.pop("passed"):
                raise _mismatch(row)
            if number < len(cases):
                rows.append(row)
    return rows


@dataclass(frozen=True)
class VideoCase:
    """One video of the verification.

    Args:
        frames: uint8 BGR [n, 1, H, W, 3].
        logits: The network's coarse logits for each frame.
        tolerance: The relative error that is allowed.
    """

    frames: np.ndarray
    logits: list[np.ndarray]
    tolerance: float


def make_video_cases(network: Network, spec: ExportSpec, input_shape: Sequence[int | None]) -> list[VideoCase]:
    """Run a network for video on videos of at least 8 frames, long enough for the window to move.

    The logits are those of step after step in eager mode, except for the last frame, whose logits are those of the clip
    that ends with it. All of them are coarse, whatever the graphs give.

    Args:
        network: The network.
        spec: The task's part of the export.
        input_shape: [1, C, H, W]; lengths that are None are taken from the spec.

    Raises:
        UserError: As for `make_cases`.
    """
    rng = np.random.default_rng(1)
    normalize = split_normalize(spec.transforms)[1]
    is_fixed = None not in input_shape[2:]
    sizes = [tuple(input_shape[2:])] if is_fixed else [size[1:] for size in spec.open_sizes]
    cases, length = [], max(_LEAST_FRAMES, network.temporal_window + 2)
    for open_height, open_width in sizes:
        height, width = input_shape[2] or open_height, input_shape[3] or open_width
        frames = drifting_video(length, height, width, rng)
        images = _as_images(frames, normalize)
        logits = _run_video(network, images)
        if not all(np.isfinite(item).all() for item in logits):
            raise _not_finite()
        nudged = [np.nextafter(image, np.float32(np.inf)) for image in images]
        rounding = max(relative_error(a, b) for a, b in zip(_run_video(network, nudged), logits, strict=True))
        cases.append(VideoCase(frames, logits, _tolerance(network, rounding)))
    return cases


def _as_images(frames: np.ndarray, normalize: Normalize) -> list[np.ndarray]:
    return [normalize(frame[0, ..., ::-1].astype(np.float32)).transpose(2, 0, 1)[np.newaxis] for frame in frames]


def _run_video(network: Network, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    state, logits = paddle.zeros(network.state_shape()), []
    try:
        with paddle.no_grad():
            for image in images:
                coarse, state = network.coarse_step(paddle.to_tensor(image), state)
                logits.append(coarse.numpy())
            clip = np.stack(images[-network.temporal_window :], axis=1)
            logits[-1] = network.coarse_logits(paddle.to_tensor(clip)).numpy()
    except (ValueError, RuntimeError, AssertionError) as error:  # what Paddle's operators raise
        raise UserError(f"the network cannot run on {list(images[0].shape)}: {brief(error)}") from error
    return logits


def verify_video(
    folder: pathlib.Path, files: dict[str, str], network: Network, spec: ExportSpec, output_op: str,
    cases: Sequence[VideoCase], target: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Compare every video graph in a folder with its network, frame after frame, from a state of zeros.

    Args:
        folder: The folder of the graphs.
        files: The names of the graphs by `model`, `params`, `onnx` and `mnn`.
        network: The network.
        spec: The task's part of the export.
        output_op: What the graphs compute.
        cases: Videos with the network's logits.
        target: The target of the graphs, "cpu" or "gpu".

    Returns:
        A row for every engine and video with the largest error of its frames and what was allowed.

    Raises:
        VerificationError: A graph does not run, or does not compute what the network computes.
    """
    rows, state_shape = [], network.state_shape()
    for name, engine, feed in _engines(folder, files, target):
        for case in cases:
            shape = list(case.frames.shape[1:])
            about = {"engine": name, "output_op": output_op, "input": shape, "frames": len(case.frames)}
            state, judged = np.zeros(state_shape, np.float32), []
            for frame, coarse in zip(case.frames, case.logits, strict=True):
                with paddle.no_grad():
                    image = paddle.zeros([1, 1, *shape[1:3]])  # only its size counts
                    expected = spec.step_reference(network, paddle.to_tensor(coarse), image, output_op).numpy()
                try:
                    output, state = engine.step(feed(frame), state)
                except Exception as error:  # each engine has its own exceptions
                    raise _cannot_run(name, shape, error) from error
                found = spec.compare(output, output_op, expected, _allowed(engine, case))
                if not found.pop("passed") or list(state.shape) != list(state_shape):
                    raise _mismatch({**about, **found, "state": list(state.shape)})
                judged.append(found)
            rows.append({**about, **{key: max(found[key] for found in judged) for key in judged[0]}})
    return rows


def _allowed(engine: Engine, case: Case | VideoCase) -> float:
    return min(engine.rounding * case.tolerance, LARGEST_TOLERANCE)


def _cannot_run(engine: str, shape: Sequence[int], error: Exception) -> VerificationError:
    return VerificationError(f"{engine} cannot run the graph on {list(shape)}: {brief(error)}")


def _mismatch(row: dict[str, Any]) -> VerificationError:
    return VerificationError(f"the exported graph does not compute what the network does; nothing was written: {row}")


def _engines(
    folder: pathlib.Path, files: dict[str, str], target: str, one_by_one: bool = False
) -> Iterator[tuple[str, Engine, Callable[[np.ndarray], np.ndarray]]]:
    """Yield the name of each engine, the engine, and what it makes of the inputs of a case.

    With `one_by_one` the engines of ONNX graphs also come with the length of the batch fixed to one.
    """
    if "model" in files:
        graph, parameters = folder / files["model"], folder / files["params"]
        feed = planar_floats if target == "gpu" else np.ascontiguousarray
        yield "Paddle Inference, plain", PaddleInference(graph, parameters, onednn=False), feed
        if target == "cpu":
            yield "Paddle Inference, oneDNN", PaddleInference(graph, parameters), feed
    if "onnx" in files:
        yield "ONNX Runtime", OnnxRuntime(folder / files["onnx"]), np.ascontiguousarray
        yield "OpenVINO", OpenVino(folder / files["onnx"]), np.ascontiguousarray
    if "mnn" in files:
        yield "MNN", Mnn(folder / files["mnn"]), np.ascontiguousarray
    if "onnx" in files and one_by_one:
        yield "ONNX Runtime, one by one", _OneByOne(OnnxRuntime(folder / files["onnx"], batch=1)), np.ascontiguousarray
        yield "OpenVINO, one by one", _OneByOne(OpenVino(folder / files["onnx"], batch=1)), np.ascontiguousarray


class _OneByOne(Engine):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        (images,) = inputs
        return [np.concatenate([self._engine.run(images[n : n + 1]) for n in range(len(images))])]


def drifting_video(length: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a video of a photograph-like image that moves to the right, with noise, uint8 BGR [length, 1, H, W, 3]."""
    still = smooth(rng.standard_normal((3, height, width)))
    drift = [np.roll(still, 5 * t, axis=2) + 0.05 * rng.standard_normal(still.shape) for t in range(length)]
    return np.clip(np.stack(drift)[:, np.newaxis] * 60 + 128, 0, 255).astype(np.uint8).transpose(0, 1, 3, 4, 2)


def smooth(image: np.ndarray) -> np.ndarray:
    """Turn noise [C, H, W] into something like a normalised photograph: soft shapes with little grain."""
    height, width = image.shape[1:]
    coarse = [cv2.resize(plane[: height // 16 + 2, : width // 16 + 2], (width, height)) for plane in image]
    return np.stack(coarse) * 1.5 + 0.05 * image


def versions(formats: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that made and verified the graphs."""
    found = {"paddle": paddle.__version__}
    if set(formats).intersection(("onnx", "mnn")):
        switch_off_telemetry()
        import onnxruntime
        import openvino
        import paddle2onnx

        found.update(paddle2onnx=paddle2onnx.__version__, onnxruntime=onnxruntime.__version__)
        found.update(openvino=openvino.__version__)
    if "mnn" in formats:
        found["mnn"] = mnn().version()
    return found
