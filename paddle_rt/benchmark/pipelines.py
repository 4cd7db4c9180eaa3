"""The pipelines of a benchmark: exported networks of ours and of PaddleSeg, each ready to be loaded."""

import dataclasses
import logging
import multiprocessing
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.benchmark.floor import Work, count_operations
from paddle_rt.benchmark.plan import Choice, Model, Plan, read_model
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError
from paddle_rt.inference import load, load_deployment
from paddle_rt.inference.deployment import DEFAULT_TASK
from paddle_rt.inference.predictor import graph_names
from paddle_rt.registry import create_model, find_entry, model_config

if TYPE_CHECKING:
    from paddle_rt.models.base import Network
    from paddle_rt.tasks.export import ExportSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """One way to run a network.

    Args:
        model: The network as the plan names it, or the folder of its export.
        name: The name of the group of networks whose results are compared, a key of `Plan.groups`.
        side: "paddle_rt" or "paddleseg".
        backend: The backend that runs the graph.
        device: The device.
        precision: The precision of the graph.
        threads: CPU threads.
        folder: The folder of the export.
        task: The task of the network.
        output_op: What the graph computes.
    """

    model: str
    name: str
    side: str
    backend: str
    device: str
    precision: str
    threads: int
    folder: str
    task: str = DEFAULT_TASK
    output_op: str = "argmax"  # PaddleSeg's

    def __str__(self) -> str:
        return f"{self.model}, {self.side}, {self.backend} {self.device} {self.precision}"

    def load(self) -> Any:
        """Return a function from frames to results that has `timings`, `warmup` and `engine_and_inputs`."""
        if self.side == "paddleseg":
            from paddle_rt.paddleseg.pipeline import PaddleSegPipeline

            return PaddleSegPipeline(pathlib.Path(self.folder), self.threads, self.backend, device=self.device)
        return load(self.folder, self.backend, self.precision, self.threads, self.device)

    def in_own_process(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in a process that this pipeline has for itself."""
        needs_paddle = self.side == "paddleseg" or self.backend == "paddle"
        start = import_paddle if needs_paddle else None
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start) as pool:
            return pool.submit(function, self, *arguments).result()


def _spec(task: str) -> "ExportSpec":
    from paddle_rt.paddleseg.pipeline import TRANSFORMS
    from paddle_rt.tasks.base import find_task

    return find_task(task).export_class(TRANSFORMS, task=task)


def prepare_groups(
    plan: Plan, target: str, frames: Sequence[np.ndarray]
) -> Iterator[tuple[list[Pipeline], dict[str, Work]]]:
    """Prepare each network with its variants, one network after the other, in a folder that the next one removes.

    If the plan has networks of PaddleSeg alone, all networks are prepared together with them.

    Args:
        plan: The plan.
        target: The target of the exports, "cpu" or "gpu".
        frames: The frames that int8 is calibrated on.

    Yields:
        Pipelines that are measured together, and the operations of our graphs by `Pipeline.model`.
    """
    for names in [list(plan.groups)] if plan.beside else [[name] for name in plan.groups]:
        with tempfile.TemporaryDirectory() as scratch:
            folder, operations = pathlib.Path(scratch), {}
            pipelines = prepare_beside(plan, folder, target)
            for number, name in enumerate(names):
                prepared, work = prepare(plan, name, frames, folder / str(number), target)
                pipelines, operations = pipelines + prepared, operations | work
            yield pipelines, operations


def prepare_beside(plan: Plan, folder: pathlib.Path, target: str = "cpu") -> list[Pipeline]:
    """Export the networks that only PaddleSeg has, with random weights.

    Raises:
        UserError: PaddleSeg has no such network or backbone, or does not take an argument.
    """
    if not plan.beside:
        return []
    from paddle_rt.paddleseg.counterparts import paddleseg_network
    from paddle_rt.paddleseg.pipeline import export_paddleseg

    pipelines = []
    for number, model in enumerate(map(read_model, plan.beside)):
        place = folder / f"beside{number}"
        export_paddleseg(paddleseg_network(model.name, plan.num_classes, model.arguments), plan.size, place)
        choice = Choice("paddle", target, "fp32")
        pipelines.append(Pipeline(model.text, model.name, "paddleseg", *choice, plan.threads, str(place)))
    return pipelines


def prepare(
    plan: Plan, name: str, frames: Sequence[np.ndarray], folder: pathlib.Path, target: str = "cpu"
) -> tuple[list[Pipeline], dict[str, Work]]:
    """Export the variants of a network, and PaddleSeg's counterpart of the first, with the same weights.

    Args:
        plan: The plan.
        name: One of its groups.
        frames: The frames that int8 is calibrated on.
        folder: The folder of the exports.
        target: The target of the exports, "cpu" or "gpu".

    Returns:
        The pipelines, PaddleSeg's first, and the operations of our graphs by `Pipeline.model`.

    Raises:
        UserError: A checkpoint does not fit, PaddleSeg has no counterpart, or an export has no graph that is wanted.
    """
    if plan.exports:
        return _prepare_export(plan, name, folder, target)
    import paddle

    paddle.base.core.set_num_threads(plan.threads)  # of the network that graphs are compared with; 1 by default
    pipelines, operations = [], {}
    for number, model in enumerate(plan.groups[name]):
        paddle.seed(0)
        network = create_model(name, plan.num_classes, plan.weights.get(name), **model.arguments)
        if number == 0:
            pipelines += _counterparts(plan, model, network, folder / "paddleseg", target)
        ours = _export(plan, model, network, frames, folder / f"ours{number}", target)
        operations[model.text] = count_operations(folder / f"ours{number}" / "model.onnx")
        pipelines += ours
    return pipelines, operations


def _export(
    plan: Plan, model: Model, network: "Network", frames: Sequence[np.ndarray], folder: pathlib.Path, target: str
) -> list[Pipeline]:
    """Export a network; on a GPU with labels that the graph computes, but for int8, which quantises coarse logits."""
    from paddle_rt.export.publish import FORMATS, USUAL_FORMATS, export
    from paddle_rt.export.quantize import quantize

    task = find_entry(model.name).task
    spec, shape = _spec(task), [1, 3, *plan.size]
    precisions = {choice.precision for choice in plan.on(target)}
    quantised = folder
    if target == "cpu":
        formats = FORMATS if any(choice.backend == "mnn" for choice in plan.on(target)) else USUAL_FORMATS
        export(network, folder, spec, shape, formats=formats)
    else:
        output_op = "labels" if task == DEFAULT_TASK else None
        export(network, folder, spec, shape, output_op, target=target, precisions=sorted(precisions - {"int8"}))
        if "int8" in precisions:
            quantised = folder.with_name(f"{folder.name}_int8")
            export(network, quantised, spec, shape, spec.int8_output, formats=["onnx"], target=target)
    if "int8" in precisions:
        # The results are judged in the table, against the first row; a score needs truths, which frames do not have.
        quantize(quantised, frames, [(frame, None) for frame in frames[:1]], spec)
    pipelines = []
    for choice in plan.on(target):
        place = quantised if choice.precision == "int8" else folder
        ours = (str(place), task, load_deployment(place).output_op)
        pipelines.append(Pipeline(model.text, model.name, "paddle_rt", *choice, plan.threads, *ours))
    return pipelines


def _prepare_export(plan: Plan, name: str, folder: pathlib.Path, target: str) -> tuple[list[Pipeline], dict[str, Work]]:
    """Take an export as it is, and PaddleSeg's counterpart of the network that the plan names for it."""
    deployment, pipelines = load_deployment(name), []
    if plan.compares:
        model = read_model(plan.models[plan.exports.index(name)])
        plan = dataclasses.replace(plan, num_classes=deployment.num_classes or plan.num_classes)
        network = create_model(model.name, plan.num_classes, plan.weights[model.name], **model.arguments)
        counterparts = _counterparts(plan, model, network, folder / "paddleseg", target)
        pipelines = [dataclasses.replace(pipeline, name=name) for pipeline in counterparts]
    choices, refusals = [], []
    for choice in plan.on(target):
        try:
            graph_names(deployment, *choice)
            choices.append(choice)
        except UserError as error:
            refusals.append(str(error))
    if not choices:
        raise UserError(f"nothing to measure: {'; '.join(refusals)}")
    ours = (name, deployment.task, deployment.output_op)
    pipelines += [Pipeline(name, name, "paddle_rt", *choice, plan.threads, *ours) for choice in choices]
    work = None
    if deployment.onnx and None not in deployment.input_shape:
        work = count_operations(deployment.folder / deployment.onnx)
    return pipelines, {} if work is None else {name: work}


def _counterparts(plan: Plan, model: Model, network: "Network", folder: pathlib.Path, target: str) -> list[Pipeline]:
    """Export PaddleSeg's own implementation of a network with the network's weights.

    Where several networks are measured, one that PaddleSeg does not have is measured alone.

    Raises:
        UserError: It does not have the only one.
    """
    choices = plan.theirs(target)
    if not choices:
        return []
    from paddle_rt.checkpoint import load as load_weights
    from paddle_rt.paddleseg.counterparts import paddleseg_model
    from paddle_rt.paddleseg.pipeline import export_paddleseg

    try:
        counterpart = paddleseg_model({**model_config(model.name), **model.arguments}, plan.num_classes)
    except UserError as error:
        refusal = f"{model.text}: {error}; leave PaddleSeg out with --against none"
        if len(plan.groups) == 1:
            raise UserError(refusal) from error
        _log.warning("measured alone: %s", refusal)
        return []
    load_weights(counterpart, {key: value.numpy() for key, value in network.state_dict().items()})
    export_paddleseg(counterpart, plan.size, folder, any(choice.backend == "openvino" for choice in choices))
    return [Pipeline(model.text, model.name, "paddleseg", *c, plan.threads, str(folder)) for c in choices]
