"""Write an ONNX graph in half precision, and compare it with the one in single precision on a CPU."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_rt.export.verify import VerificationError, drifting_video
from paddle_rt.inference.engines import OnnxRuntime, brief, switch_off_telemetry
from paddle_rt.tasks.export import ExportSpec, relative_error

# A Resize of logits in half precision must not cost more labels than this share.
_RESIZE_COST = 1e-3


def write_half(
    folder: pathlib.Path, files: dict[str, str], spec: ExportSpec, output_op: str, input_shape: Sequence[int | None],
    state_shape: Sequence[int] | None,
) -> dict[str, Any]:  # fmt: skip
    """Convert an export's ONNX graph to half precision, and verify it by rounding every tensor to half.

    The arithmetic of the graph runs in float32 with every tensor rounded, on a photograph-like frame, noise, black and
    grey; for a network for video on videos of them. The graph itself runs once in ONNX Runtime. Labels are resized in
    half precision unless that changes more of them.

    Args:
        folder: The folder of the export.
        files: The names of the graphs, by `onnx` and `fp16`.
        spec: The task's part of the export.
        output_op: What the graphs compute.
        input_shape: [N, C, H, W]; lengths that are None are taken from the spec.
        state_shape: The shape of the state of a network for video.

    Returns:
        The entry "fp16" of verification.json.

    Raises:
        VerificationError: Values are not finite in half precision, or the graph does not run.
    """
    switch_off_telemetry()
    import onnx

    from paddle_rt.export.graph.half import LIMIT, to_half

    frames_of = _make_videos(spec, input_shape, 1 if state_shape is None else state_shape[1] + 3)
    single = OnnxRuntime(folder / files["onnx"])
    expected = {kind: _run(single, frames, state_shape) for kind, frames in frames_of.items()}
    best = None
    for single_resize in (False, True) if output_op == "labels" else (False,):
        model = onnx.load(str(folder / files["onnx"]))
        kept = to_half(model, single_resize)
        onnx.checker.check_model(model, full_check=True)
        rounding = _Rounding(model)
        rows = []
        for kind, frames in frames_of.items():
            rows.append(_compare(rounding, kind, frames, expected[kind], spec, output_op, state_shape))
        share = min(row.get(spec.agreement_key, 1.0) for row in rows)
        if best is None or share > best[0] + _RESIZE_COST:
            best = share, model, {"float32_nodes": kept, "float32_resize": single_resize}, rows
    _, model, report, rows = best
    onnx.save(model, str(folder / files["fp16"]))
    _check_that_it_runs(folder / files["fp16"], frames_of["photograph"][:1], state_shape)
    return {**report, "limit": LIMIT, "comparisons": rows}


def _make_videos(spec: ExportSpec, input_shape: Sequence[int | None], length: int) -> dict[str, np.ndarray]:
    """Return videos of each kind, uint8 [length, N, H, W, 3]."""
    open_number, *open_size = spec.open_sizes[0]
    number, height, width = (
        input_shape[0] or open_number,
        *(a or b for a, b in zip(input_shape[2:], open_size, strict=True)),
    )
    rng, shape = np.random.default_rng(2), (length, number, height, width, 3)
    return {
        "photograph": np.repeat(drifting_video(length, height, width, rng), number, axis=1),
        "noise": rng.integers(0, 256, shape, np.uint8),
        "black": np.zeros(shape, np.uint8),
        "grey": np.full(shape, 128, np.uint8),
    }


def _run(engine: OnnxRuntime, frames: np.ndarray, state_shape: Sequence[int] | None) -> list[np.ndarray]:
    """Run a graph on the frames of a video and return its first outputs."""
    if state_shape is None:
        return [engine.run(frame) for frame in frames]
    state, outputs = np.zeros(state_shape, np.float32), []
    for frame in frames:
        output, state = engine.step(frame, state)
        outputs.append(output)
    return outputs


class _Rounding:
    """Runs the arithmetic of a graph in half precision by rounding every tensor of a graph in single precision."""

    def __init__(self, model: Any) -> None:
        import onnxruntime

        from paddle_rt.export.graph.half import rounded

        self.outputs = len(model.graph.output)
        model, self.names = rounded(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # The optimiser removes the pairs of Casts that round.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self.inputs = [item.name for item in self.session.get_inputs()]

    def run(self, *inputs: np.ndarray) -> tuple[list[np.ndarray], tuple[float, str], list[str]]:
        """Run the graph.

        Returns:
            Its outputs, the largest absolute value of its tensors with the tensor's name, and the tensors that are not
            finite.
        """
        results = self.session.run(None, dict(zip(self.inputs, inputs, strict=True)))
        observed = results[self.outputs :]
        broken = [name for name, total in zip(self.names, observed[1::2], strict=True) if not np.isfinite(total)]
        return results[: self.outputs], max(zip(map(float, observed[::2]), self.names, strict=True)), broken


def _compare(
    rounding: _Rounding, kind: str, frames: np.ndarray, expected: Sequence[np.ndarray], spec: ExportSpec,
    output_op: str, state_shape: Sequence[int] | None,
) -> dict[str, Any]:  # fmt: skip
    """Compare the rounded graph with the graph in single precision on one video."""
    states = [] if state_shape is None else [np.zeros(state_shape, np.float32)]
    largest, errors, shares = (0.0, ""), [], []
    for frame, reference in zip(frames, expected, strict=True):
        (output, *states), value, broken = rounding.run(frame, *states)
        if broken:
            raise VerificationError(
                f"half precision does not hold the values of {broken[0]} and {len(broken) - 1} further tensors on a "
                f"{kind} frame; nothing was written; export without --precision fp16"
            )
        largest = max(largest, value)
        choices, others = (spec.choices(item, output_op) for item in (output, reference))
        if choices is not None:
            shares.append(float((choices == others).mean()))
        if output.dtype == np.float32:
            errors.append(relative_error(output, reference))
    row = {"engine": "rounded to half", "output_op": output_op, "input": list(frames.shape[1:]), "frames": kind}
    row |= {spec.agreement_key: min(shares)} if shares else {}
    row |= {"relative_error_fp16": max(errors)} if errors else {}
    return row | {"largest_value": largest[0], "largest_at": largest[1]}


def _check_that_it_runs(file: pathlib.Path, frames: np.ndarray, state_shape: Sequence[int] | None) -> None:
    """Run a graph in ONNX Runtime, which computes on a CPU in single precision what it has no half kernel for."""
    try:
        (output,) = _run(OnnxRuntime(file), frames, state_shape)
    except Exception as error:  # the engine has its own exceptions
        raise VerificationError(f"ONNX Runtime cannot run the graph in half precision: {brief(error)}") from error
    if not np.isfinite(output).all():
        raise VerificationError("the graph in half precision gives values that are not finite; nothing was written")
