"""Run exported graphs in their engines and compare them with the model that they were made from."""

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import paddle

from paddle_rt.errors import UserError
from paddle_rt.inference.engines import Engine, OnnxRuntime, OpenVino, PaddleInference
from paddle_rt.inference.preprocess import Normalize

TOLERANCE = 1e-4  # of ||graph - model|| / ||model||; measured is about 1e-6
# For a model with `near_ties`: one of them that rounding decides otherwise moves the logits by 2e-5 to 3e-4, measured
# with SegFormer++ B0 at 1024x2048 and the bsm presets.
NEAR_TIE_TOLERANCE = 1e-3
# Where the model itself multiplies rounding, its own answer to a change of the input's last bit is the yardstick.
ROUNDING_FACTOR = 100  # one change of the last bits finds up to 44 times less than an engine does, measured
LARGEST_TOLERANCE = 1e-2
# Sizes for what the graph leaves open: odd, not a multiple of anything in the network, and wider than high.
_OPEN_SIZES = ((1, 417, 545), (2, 256, 352))


@dataclass(frozen=True)
class Case:
    """One input, the model's logits for it, and the error that is allowed."""

    images: np.ndarray
    logits: np.ndarray
    tolerance: float


def make_cases(
    model: paddle.nn.Layer, input_shape: Sequence[int | None], normalize: Normalize | None = None
) -> list[Case]:
    """Run the model, in evaluation mode, on two inputs that fit the shape: noise, and something smooth like a picture.

    With `normalize` the inputs are uint8 BGR frames [N, H, W, 3], which it prepares for the model, and the logits are
    those before the model's last resize.

    Raises:
        UserError: The model's output is not finite, or rounding alone changes it too much to compare anything.
    """
    rng = np.random.default_rng(0)
    batch, channels, height, width = input_shape
    coarse = normalize is not None
    cases = []
    for position, (n, h, w) in enumerate(_OPEN_SIZES):
        images = graph_input = rng.standard_normal((batch or n, channels, height or h, width or w)).astype(np.float32)
        if position == 0:
            images = graph_input = np.stack([_smooth(image) for image in images])
        if coarse:
            graph_input = np.clip(images * 60 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
            rgb = graph_input[..., ::-1].astype(np.float32)
            images = np.stack([normalize(image) for image in rgb]).transpose(0, 3, 1, 2)
        logits = run_model(model, images, coarse)
        if not np.isfinite(logits).all():
            raise UserError("the model's logits are not finite numbers; are the weights those of a run that diverged?")
        nudged = np.nextafter(images, np.where(rng.random(images.shape) < 0.5, -np.inf, np.inf).astype(np.float32))
        rounding = relative_error(run_model(model, nudged, coarse), logits)
        cases.append(Case(np.ascontiguousarray(graph_input), logits, _tolerance(model, rounding)))
    return cases


def _tolerance(model: paddle.nn.Layer, rounding: float) -> float:
    """What an engine may differ from the model, given what rounding of the input changes."""
    if rounding > LARGEST_TOLERANCE:
        raise UserError(f"rounding of the input changes the logits by {rounding:.1e}: no graph can be compared")
    least = NEAR_TIE_TOLERANCE if getattr(model, "near_ties", False) else TOLERANCE
    return min(max(least, ROUNDING_FACTOR * rounding), LARGEST_TOLERANCE)


def run_model(model: paddle.nn.Layer, images: np.ndarray, coarse: bool = False) -> np.ndarray:
    """Logits of the main head in eager mode. Shape: [B, C, H, W] to [B, num_classes, H, W], or coarser with `coarse`.

    Raises:
        UserError: The model does not take images of this shape.
    """
    try:
        with paddle.no_grad():
            batch = paddle.to_tensor(images)
            return (model.coarse_logits(batch) if coarse else model(batch)[0]).numpy()
    except (ValueError, RuntimeError, AssertionError) as error:  # what Paddle's operators raise
        raise UserError(f"the model cannot run on {list(images.shape)}: {brief(error)}") from error


def brief(error: Exception) -> str:
    """An engine's message without the hints and source lines that Paddle puts behind it, on one line."""
    return " ".join(str(error).split("[Hint")[0].split())[:300]


@dataclass(frozen=True)
class VideoCase:
    """Frames of a video, uint8 BGR [n, 1, H, W, 3], the model's logits for each, and the error that is allowed."""

    frames: np.ndarray
    logits: list[np.ndarray]
    tolerance: float


def make_video_cases(
    model: paddle.nn.Layer, input_shape: Sequence[int | None], normalize: Normalize
) -> list[VideoCase]:
    """As `make_cases`, but videos, long enough that the window moves on and none shorter than 8 frames.

    The logits are those of a stream in eager mode, except that those of the last frame come from the clip computed at
    once.

    Raises:
        UserError: As `make_cases`.
    """
    rng = np.random.default_rng(1)
    cases, length = [], max(8, model.temporal_window + 2)
    for height, width in [input_shape[2:]] if None not in input_shape[2:] else [size[1:] for size in _OPEN_SIZES]:
        height, width = input_shape[2] or height, input_shape[3] or width
        still = _smooth(rng.standard_normal((3, height, width)))
        drift = [np.roll(still, 5 * t, axis=2) + 0.05 * rng.standard_normal(still.shape) for t in range(length)]
        frames = np.clip(np.stack(drift)[:, np.newaxis] * 60 + 128, 0, 255).astype(np.uint8).transpose(0, 1, 3, 4, 2)
        images = [normalize(frame[0, ..., ::-1].astype(np.float32)).transpose(2, 0, 1)[np.newaxis] for frame in frames]
        logits = _stream(model, images)
        if not all(np.isfinite(item).all() for item in logits):
            raise UserError("the model's logits are not finite numbers; are the weights those of a run that diverged?")
        nudged = [np.nextafter(image, np.float32(np.inf)) for image in images]
        rounding = max(relative_error(a, b) for a, b in zip(_stream(model, nudged), logits, strict=True))
        cases.append(VideoCase(frames, logits, _tolerance(model, rounding)))
    return cases


def _stream(model: paddle.nn.Layer, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    state, logits = None, []
    try:
        with paddle.no_grad():
            for image in images:
                coarse, state = model.stream_step(paddle.to_tensor(image), state)
                logits.append(coarse.numpy())
    except (ValueError, RuntimeError, AssertionError) as error:  # what Paddle's operators raise
        raise UserError(f"the model cannot run on {list(images[0].shape)}: {brief(error)}") from error
    logits[-1] = run_model(model, np.stack(images[-model.temporal_window :], axis=1), coarse=True)
    return logits


def verify_video(
    folder: pathlib.Path, files: dict[str, str], state_shape: Sequence[int], cases: Sequence[VideoCase]
) -> list[dict]:
    """Compare every video graph in `folder` with the model, frame after frame, from a state of zeros.

    Args, Returns, Raises: As `verify`; a row's error is that of its worst frame.
    """
    rows = []
    for name, engine in _engines(folder, files):
        for case in cases:
            shape = list(case.frames.shape[1:])
            state, errors = np.zeros(state_shape, np.float32), []
            try:
                for frame, expected in zip(case.frames, case.logits, strict=True):
                    logits, state = engine.step(frame, state)
                    fits = logits.shape == expected.shape and list(state.shape) == list(state_shape)
                    errors.append(relative_error(logits, expected) if fits else float("inf"))
            except Exception as error:  # each engine has exceptions of its own
                raise UserError(f"{name} cannot run the graph on {shape}: {brief(error)}") from error
            row = {"engine": name, "output_op": "coarse", "input": shape, "frames": len(errors)}
            row.update(relative_error=max(errors), tolerance=case.tolerance)
            if not row["relative_error"] <= case.tolerance:
                raise UserError(f"the exported graph does not compute what the model does; nothing was written: {row}")
            rows.append(row)
    return rows


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """||got - expected|| / ||expected||, in double precision; 0 where both are all zero."""
    difference = np.linalg.norm(got.astype(np.float64).ravel() - expected.astype(np.float64).ravel())
    return float(difference / max(np.linalg.norm(expected.astype(np.float64).ravel()), np.finfo(np.float32).tiny))


def verify(folder: pathlib.Path, files: dict[str, str], output_op: str, cases: Sequence[Case]) -> list[dict]:
    """Compare every graph in `folder` with the model.

    Args:
        folder: Where the graphs lie.
        files: Their names by `model`, `params` and `onnx`.
        output_op: What the graphs compute.
        cases: Inputs and the model's logits.

    Returns:
        A row for every engine and input with its error and what was allowed.

    Raises:
        UserError: A graph does not run, or its numbers are not the model's.
    """
    rows = []
    for name, engine in _engines(folder, files):
        for number, case in enumerate([*cases, cases[0]]):  # again: what an engine wrongly keeps shows in a later run
            try:
                output = engine.run(case.images)
            except Exception as error:  # each engine has exceptions of its own
                raise UserError(f"{name} cannot run the graph on {list(case.images.shape)}: {brief(error)}") from error
            row = {"engine": name, "output_op": output_op, "input": list(case.images.shape)}
            row.update(_compare(output, output_op, case))
            if not row.pop("passed"):
                raise UserError(f"the exported graph does not compute what the model does; nothing was written: {row}")
            if number < len(cases):
                rows.append(row)
    return rows


def _engines(folder: pathlib.Path, files: dict[str, str]) -> Iterator[tuple[str, Engine]]:
    if "model" in files:
        graph, parameters = folder / files["model"], folder / files["params"]
        yield "Paddle Inference, plain", PaddleInference(graph, parameters, onednn=False)
        yield "Paddle Inference, oneDNN", PaddleInference(graph, parameters)
    if "onnx" in files:
        yield "ONNX Runtime", OnnxRuntime(folder / files["onnx"])
        yield "OpenVINO", OpenVino(folder / files["onnx"])


def _compare(output: np.ndarray, output_op: str, case: Case) -> dict:
    """Judge one output. Labels may differ only where the model's two logits are nearer than rounding."""
    expected = case.logits
    if output_op == "softmax":
        expected = np.exp(expected - expected.max(axis=1, keepdims=True))
        expected /= expected.sum(axis=1, keepdims=True)
    shape = expected.shape if output_op != "argmax" else (expected.shape[0], *expected.shape[2:])
    if output.shape != shape:
        return {"output": list(output.shape), "expected": list(shape), "passed": False}
    if output_op != "argmax":
        error = relative_error(output, expected)
        return {"relative_error": error, "tolerance": case.tolerance, "passed": bool(error <= case.tolerance)}
    labels = expected.argmax(axis=1)
    last = expected.shape[1] - 1
    valid = bool(((output >= 0) & (output <= last)).all())
    chosen = np.take_along_axis(expected, np.clip(output, 0, last)[:, np.newaxis].astype(np.int64), axis=1)
    gap = float((expected.max(axis=1) - chosen[:, 0]).max())
    allowed = case.tolerance * float(np.abs(expected).max())
    return {
        "different_labels": int((output != labels).sum()),
        "labels": labels.size,
        "largest_logit_gap": gap,
        "tolerance": allowed,
        "passed": valid and gap <= allowed,
    }


def _smooth(image: np.ndarray) -> np.ndarray:
    """Turn noise [C, H, W] into something like a normalised picture: soft shapes with little grain."""
    height, width = image.shape[1:]
    coarse = [cv2.resize(plane[: height // 16 + 2, : width // 16 + 2], (width, height)) for plane in image]
    return np.stack(coarse) * 1.5 + 0.05 * image


def versions(formats: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that made and checked the graphs."""
    found = {"paddle": paddle.__version__}
    if "onnx" in formats:
        import onnxruntime
        import openvino
        import paddle2onnx

        found.update(paddle2onnx=paddle2onnx.__version__, onnxruntime=onnxruntime.__version__)
        found.update(openvino=openvino.__version__)
    return found
