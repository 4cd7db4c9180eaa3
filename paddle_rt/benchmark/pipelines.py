"""The pipelines of a benchmark: exported networks of ours and of PaddleSeg, each ready to be loaded."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.benchmark.floor import count_operations
from paddle_rt.benchmark.plan import Model, Plan, read_model
from paddle_rt.errors import UserError
from paddle_rt.inference import load
from paddle_rt.paddleseg.pipeline import TRANSFORMS, PaddleSegPipeline, export_paddleseg
from paddle_rt.registry import create_model, find_entry, model_config

if TYPE_CHECKING:
    from paddle_rt.models.base import Network
    from paddle_rt.tasks.export import ExportSpec


@dataclass(frozen=True)
class Pipeline:
    """One way to run a network.

    Args:
        model: The network as the plan names it.
        side: "paddle_rt" or "paddleseg".
        backend: The backend that runs the graph.
        precision: The precision of the graph.
        threads: CPU threads.
        folder: The folder of the export.
        task: The task of the network.
    """

    model: str
    side: str
    backend: str
    precision: str
    threads: int
    folder: str
    task: str = "segmentation"

    @property
    def name(self) -> str:
        """The network's name without its arguments."""
        return read_model(self.model).name

    def load(self) -> Any:
        """Return a function from frames to results that has `timings` and `warmup`."""
        if self.side == "paddleseg":
            return PaddleSegPipeline(pathlib.Path(self.folder), self.threads, self.backend)
        return load(self.folder, self.backend, self.precision, self.threads)

    def spec(self) -> "ExportSpec":
        """Return the task's part of the export."""
        from paddle_rt.tasks.base import find_task

        return find_task(self.task).export_class(TRANSFORMS, task=self.task)


def prepare_beside(plan: Plan, folder: pathlib.Path) -> list[Pipeline]:
    """Export the networks that only PaddleSeg has, with random weights.

    Raises:
        UserError: PaddleSeg has no such network or backbone, or does not take an argument.
    """
    if not plan.beside:
        return []
    from paddle_rt.paddleseg.counterparts import paddleseg_network

    pipelines = []
    for number, model in enumerate(map(read_model, plan.beside)):
        place = folder / f"beside{number}"
        export_paddleseg(paddleseg_network(model.name, plan.num_classes, model.arguments), plan.size, place)
        pipelines.append(Pipeline(model.text, "paddleseg", "paddle", "fp32", plan.threads, str(place)))
    return pipelines


def prepare(
    plan: Plan, name: str, frames: Sequence[np.ndarray], folder: pathlib.Path
) -> tuple[list[Pipeline], dict[str, float]]:
    """Export the variants of a network, and PaddleSeg's counterpart of the first, with the same weights.

    Args:
        plan: The plan.
        name: One of its networks.
        frames: The frames that int8 is calibrated on.
        folder: The folder of the exports.

    Returns:
        The pipelines, PaddleSeg's first, and the operations of our graphs by `Model.text`.

    Raises:
        UserError: A checkpoint does not fit, or PaddleSeg has no counterpart.
    """
    import paddle

    paddle.base.core.set_num_threads(plan.threads)  # of the network that graphs are compared with; 1 by default
    pipelines, operations = [], {}
    for number, model in enumerate(plan.groups[name]):
        paddle.seed(0)
        network = create_model(name, plan.num_classes, plan.weights.get(name), **model.arguments)
        if number == 0:
            pipelines += _counterparts(plan, model, network, folder / "paddleseg")
        ours = _export(plan, model, network, frames, folder / f"ours{number}")
        operations[model.text] = count_operations(pathlib.Path(ours[0].folder) / "model.onnx")
        pipelines += ours
    return pipelines, operations


def _export(
    plan: Plan, model: Model, network: "Network", frames: Sequence[np.ndarray], folder: pathlib.Path
) -> list[Pipeline]:
    from paddle_rt.export.publish import export
    from paddle_rt.export.quantize import quantize

    task = find_entry(model.name).task
    pipelines = [Pipeline(model.text, "paddle_rt", *pair, plan.threads, str(folder), task) for pair in plan.choices]
    export(network, folder, pipelines[0].spec(), [1, 3, *plan.size])
    if any(pipeline.precision == "int8" for pipeline in pipelines):
        # The results are judged in the table, against the first row; a score needs truths, which frames do not have.
        quantize(folder, frames, [(frame, None) for frame in frames[:1]], pipelines[0].spec(), agreement=0.0)
    return pipelines


def _counterparts(plan: Plan, model: Model, network: "Network", folder: pathlib.Path) -> list[Pipeline]:
    """Export PaddleSeg's own implementation of a network with the network's weights."""
    if not plan.theirs:
        return []
    from paddle_rt.checkpoint import load as load_weights
    from paddle_rt.paddleseg.counterparts import paddleseg_model

    try:
        counterpart = paddleseg_model({**model_config(model.name), **model.arguments}, plan.num_classes)
    except UserError as error:
        raise UserError(f"{model.text}: {error}; leave PaddleSeg out with --against none") from error
    load_weights(counterpart, {key: value.numpy() for key, value in network.state_dict().items()})
    export_paddleseg(counterpart, plan.size, folder, "openvino" in plan.theirs)
    return [Pipeline(model.text, "paddleseg", backend, "fp32", plan.threads, str(folder)) for backend in plan.theirs]
