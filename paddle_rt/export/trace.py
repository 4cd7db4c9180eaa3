"""Trace a network into a Paddle graph: model.json and model.pdiparams."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import paddle

from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home
from paddle_rt.inference.engines import brief
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec


@dataclass(frozen=True)
class Frames:
    """The frames that a graph takes, BGR with values from 0 to 255.

    Args:
        normalize: The normalisation of frames, which the graph does.
        dtype: "uint8" for frames [N, H, W, 3], "float32" for [N, 3, H, W].
    """

    normalize: Normalize
    dtype: str = "uint8"


class TracedNetwork(paddle.nn.Layer):
    """A network with a task's output and, where the graph takes frames, their normalisation.

    Args:
        network: The network, as its `for_export` returns it.
        spec: The task's part of the export.
        output_op: What the graph computes.
        frames: The frames that the graph takes; None for a graph that takes images.

    Attributes:
        refusal: The UserError that ended the trace, of which Paddle makes one with a traceback in its message.
    """

    refusal: UserError | None = None

    def __init__(self, network: Network, spec: ExportSpec, output_op: str, frames: Frames | None) -> None:
        super().__init__()
        self.network = network
        self.spec, self.output_op, self.frames = spec, output_op, frames

    def forward(self, inputs: paddle.Tensor) -> paddle.Tensor:
        with self.noting_refusals():
            return _run(self, inputs)

    @contextlib.contextmanager
    def noting_refusals(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.refusal = error
            raise


class TracedStep(TracedNetwork):
    """A step of a network for video, with the same arguments."""

    def forward(self, frame: paddle.Tensor, state: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        with self.noting_refusals():
            return _run_step(self, frame, state)


# `not_to_static` keeps Paddle from rewriting the Python code: the graph records the operators as they run.
@paddle.jit.not_to_static
def _run(traced: TracedNetwork, inputs: paddle.Tensor) -> paddle.Tensor:
    images = inputs if traced.frames is None else _normalize_frames(inputs, traced.frames, traced.network.takes_bgr)
    return _narrow(traced, traced.spec.output(traced.network, images, traced.output_op))


@paddle.jit.not_to_static
def _run_step(traced: TracedStep, frame: paddle.Tensor, state: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    images = _normalize_frames(frame, traced.frames, traced.network.takes_bgr)
    output, state = traced.spec.step_output(traced.network, images, state, traced.output_op)
    return _narrow(traced, output), state


def _narrow(traced: TracedNetwork, output: paddle.Tensor) -> paddle.Tensor:
    """Give labels as bytes where frames come as bytes."""
    return output.astype("uint8") if traced.output_op == "labels" and traced.frames.dtype == "uint8" else output


def _normalize_frames(inputs: paddle.Tensor, frames: Frames, takes_bgr: bool) -> paddle.Tensor:
    """Turn frames into images [N, 3, H, W] by one product and one sum; the images are RGB unless `takes_bgr`."""
    normalize = frames.normalize
    mean, std = (np.broadcast_to(np.array(v, np.float64), 3)[::-1] for v in (normalize.mean, normalize.std))
    values = [v.astype(np.float32) for v in (1 / (255 * std), -mean / std)]
    if frames.dtype == "float32":
        scale, shift = (paddle.to_tensor(v.reshape(1, 3, 1, 1)) for v in values)
        images = inputs * scale + shift
    else:
        scale, shift = (paddle.to_tensor(v) for v in values)
        images = (inputs.astype("float32") * scale + shift).transpose([0, 3, 1, 2])
    return images if takes_bgr else images.index_select(paddle.to_tensor([2, 1, 0]), axis=1)


def save_graph(
    traced: TracedNetwork, folder: pathlib.Path, input_shape: Sequence[int | None]
) -> tuple[pathlib.Path, pathlib.Path]:
    """Trace a layer and write model.json and model.pdiparams.

    Args:
        traced: The layer.
        folder: The folder of the files.
        input_shape: [N, C, H, W]; None for a length that the graph leaves open.

    Returns:
        The two files.

    Raises:
        UserError: Paddle cannot run the network at this shape, or its graph format is switched off.
    """
    traced.eval()
    batch, channels, *size = input_shape
    if traced.frames is None:
        specs = [paddle.static.InputSpec([batch, channels, *size], "float32", "x")]  # PaddleSeg's readers expect x
    elif traced.frames.dtype == "float32":
        specs = [paddle.static.InputSpec([batch, channels, *size], "float32", "frame")]
    else:
        specs = [paddle.static.InputSpec([batch, *size, channels], "uint8", "frame")]
    if isinstance(traced, TracedStep):
        specs.append(paddle.static.InputSpec(traced.network.state_shape(), "float32", "state"))
    try:
        with temporary_home():  # where Paddle writes the code that it traces
            paddle.jit.save(paddle.jit.to_static(traced, input_spec=specs, full_graph=True), str(folder / "model"))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:  # what Paddle's operators and tracer raise
        if traced.refusal is not None:
            raise traced.refusal from error
        raise UserError(f"Paddle cannot trace the network at {list(input_shape)}: {brief(error)}") from error
    graph, parameters = folder / "model.json", folder / "model.pdiparams"
    if not graph.is_file():
        raise UserError("Paddle wrote no model.json; unset FLAGS_enable_pir_api, which switches its graph format off")
    return graph, parameters
