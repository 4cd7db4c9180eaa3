"""Export a network as Paddle and ONNX graphs, which are published whole after they have been verified."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from paddle_rt.errors import UserError, unknown
from paddle_rt.export import convert
from paddle_rt.export.half import write_half
from paddle_rt.export.mnn import convert_to_mnn
from paddle_rt.export.trace import Frames, TracedNetwork, TracedStep, save_graph
from paddle_rt.export.verify import make_cases, make_video_cases, verify, verify_video, versions
from paddle_rt.inference.deployment import (
    TARGETS,
    VERIFICATION,
    Deployment,
    check_input_shape,
    file_digest,
    save_deployment,
)
from paddle_rt.inference.predictor import graph_facts
from paddle_rt.inference.preprocess import Normalize, split_normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.export import ExportSpec

FORMATS = ("paddle", "onnx", "mnn")
USUAL_FORMATS = FORMATS[:2]
PRECISIONS = ("fp32", "fp16")
# The files of an export. deploy.yaml comes last: with it the export is complete.
_FILES = (
    "model.json", "model.pdiparams", "model.onnx", "model_int8.onnx", "model_fp16.onnx", "model.mnn", VERIFICATION,
    "deploy.yaml",
)  # fmt: skip


def export(
    network: Network,
    save_dir: str | os.PathLike,
    spec: ExportSpec,
    input_shape: Sequence[int | None] = (None, 3, None, None),
    output_op: str | None = None,
    formats: Sequence[str] = USUAL_FORMATS,
    target: str = "cpu",
    precisions: Sequence[str] = ("fp32",),
) -> dict[str, Any]:
    """Write model.json with model.pdiparams, model.onnx, model.mnn, deploy.yaml, verification.json, or nothing at all.

    The spec decides what the graphs take and give, and how they are compared with the network. A network for video (one
    with a `temporal_window` above 1) becomes a graph that takes a frame and the state after the frame before it, and
    gives coarse logits and the next state; it is compared over videos.

    Args:
        network: The network, which is left as it was; outputs of auxiliary heads are not exported.
        save_dir: The folder of the files. An earlier export in it is replaced only when the new one is complete.
        spec: The task's part of the export.
        input_shape: [N, C, H, W]; None leaves N, H or W open.
        output_op: What the graphs compute; by default the spec's choice for the network.
        formats: Any of "paddle", "onnx" and, for the target "cpu", "mnn".
        target: The devices that the graphs are for, "cpu" or "gpu". For "gpu" the operators are those that TensorRT
            takes, and Paddle's graph takes frames as float32 [N, 3, H, W] with values from 0 to 255.
        precisions: "fp32" and, for the target "gpu" and the format "onnx", "fp16", which adds a graph in half
            precision.

    Returns:
        The contents of verification.json: an error for each engine and input, what was allowed, and versions.

    Raises:
        UserError: An argument is wrong, or the network cannot run or be traced at this shape.
        ConversionError: A graph cannot be converted to ONNX.
        MnnConversionError: The ONNX graph cannot be converted to MNN's format.
        VerificationError: A graph does not compute what the network computes.
        OSError: The folder cannot be written.
    """
    check_input_shape(input_shape)
    output_op = output_op or spec.default_output(network, input_shape[1])
    if network.temporal_window > 1:
        input_shape = [input_shape[0] or 1, *input_shape[1:]]
    _check_arguments(network, save_dir, input_shape, formats)
    spec.check(network, input_shape, output_op)
    _check_target(spec, output_op, formats, target, precisions)
    with _evaluating(network), _scratch_folder(pathlib.Path(save_dir)) as scratch:
        write = _write_video_graphs if network.temporal_window > 1 else _write_image_graphs
        writer = _Writer(scratch, formats, target)
        files, comparisons, description = write(network, spec, input_shape, output_op, writer)
        results = {"versions": versions(formats), "comparisons": comparisons}
        if "fp16" in precisions:
            files["fp16"] = "model_fp16.onnx"
            results["fp16"] = write_half(scratch, files, spec, output_op, input_shape, description.get("state_shape"))
        deployment = Deployment(
            scratch, [dict(step) for step in spec.transforms], list(input_shape), output_op, spec.task,
            "uint8" if spec.takes_frames(output_op) else "float32", target=target, **description, **files,
        )  # fmt: skip
        report = _describe(deployment, files, results)
        _publish(scratch, pathlib.Path(save_dir))
    return report


def _describe(deployment: Deployment, files: dict[str, str], results: dict[str, Any]) -> dict[str, Any]:
    """Write verification.json and then deploy.yaml, and return the contents of verification.json."""
    digests = {name: file_digest(deployment.folder / name) for name in files.values()}
    report = {**graph_facts(deployment), "opset": convert.OPSET, "files": digests, **results}
    text = json.dumps(report, indent=1) + "\n"
    (deployment.folder / VERIFICATION).write_text(text, encoding="utf-8")
    save_deployment(deployment)
    return report


def _check_arguments(
    network: Network, save_dir: str | os.PathLike, input_shape: Sequence[int | None], formats: Sequence[str]
) -> None:
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if not formats:
        raise UserError(f"no format was given; valid are {', '.join(FORMATS)}")
    if None in input_shape[2:] and network.needs_fixed_size:
        raise UserError(
            f"this {type(network).__name__} needs a fixed height and width, got {list(input_shape)}; give them with "
            "--input_size"
        )
    if pathlib.Path(save_dir).is_file():
        raise UserError(f"save_dir {save_dir} is a file; give a folder")


def _check_target(
    spec: ExportSpec, output_op: str, formats: Sequence[str], target: str, precisions: Sequence[str]
) -> None:
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if target == "gpu" and "mnn" in formats:
        raise UserError("format mnn is for target cpu, got target gpu")
    if target == "gpu" and not spec.takes_frames(output_op):
        valid = [op for op in spec.output_ops if spec.takes_frames(op)]
        raise UserError(
            f"target gpu is for graphs that take frames: output_op {' or '.join(valid) or 'of no kind'} of this task, "
            f"got {output_op}; use target cpu for {output_op}"
        )
    for precision in precisions:
        if precision == "int8":
            raise UserError(
                "an export has no precision int8; export it as output_op coarse, then use tools/quantize.py"
            )
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
    if "fp16" in precisions and (target != "gpu" or "onnx" not in formats):
        raise UserError(
            f"precision fp16 is for target gpu and format onnx, got target {target} and format {' '.join(formats)}; "
            "on a CPU, OpenVINO runs the fp32 graph in half precision"
        )


class _Writer:
    """Writes graphs in the formats that were asked for."""

    def __init__(self, folder: pathlib.Path, formats: Sequence[str], target: str) -> None:
        self.folder, self.formats, self.target = folder, formats, target

    def write(
        self, trace: Callable[[Frames | None], TracedNetwork], normalize: Normalize | None,
        input_shape: Sequence[int | None],
    ) -> dict[str, str]:  # fmt: skip
        """Write the graphs of a layer, and return their names by deploy.yaml's keys.

        Args:
            trace: Makes the layer for the frames that a graph takes.
            normalize: The normalisation of frames; None for graphs that take images.
            input_shape: As for `export`.
        """
        # PIR-TensorRT takes no bytes and onnx-tensorrt does, so the two graphs of a GPU have different inputs.
        shared = {"uint8": FORMATS} if self.target == "cpu" else {"uint8": ("onnx",), "float32": ("paddle",)}
        files = {}
        for dtype, formats in shared.items():
            formats = set(formats).intersection(self.formats)
            if not formats:
                continue
            traced = trace(None if normalize is None else Frames(normalize, dtype))
            graph, parameters = save_graph(traced, self.folder, input_shape)
            if formats.intersection(("onnx", "mnn")):
                self._convert(graph, parameters, formats, files)
            if "paddle" in formats:
                files.update(model=graph.name, params=parameters.name)
            else:
                graph.unlink()
                parameters.unlink()
        return files

    def _convert(self, graph: pathlib.Path, parameters: pathlib.Path, formats: set[str], files: dict[str, str]) -> None:
        """Write the graphs that are made from Paddle's, and add them to `files`."""
        converted = self.folder / "model.onnx"
        convert.convert_to_onnx(graph, parameters, converted, self.target)
        if "mnn" in formats:
            files["mnn"] = "model.mnn"
            convert_to_mnn(converted, self.folder / files["mnn"])
        if "onnx" in formats:
            files["onnx"] = converted.name
        else:
            converted.unlink()


_Written = tuple[dict[str, str], list[dict[str, Any]], dict[str, Any]]


def _write_image_graphs(
    network: Network, spec: ExportSpec, input_shape: Sequence[int | None], output_op: str, writer: _Writer
) -> _Written:
    """Write and verify the graphs of a network for images.

    Returns:
        The names of the graphs by deploy.yaml's keys, the rows of the verification, and the spec's fields of
        deploy.yaml.
    """
    cases, comparisons, files = make_cases(network, spec, input_shape, output_op), [], {}
    normalize = split_normalize(spec.transforms)[1] if spec.takes_frames(output_op) else None
    exported = network.for_export(writer.target)
    for op in spec.verified_outputs(output_op):
        trace = functools.partial(TracedNetwork, exported, spec, op)
        files = writer.write(trace, normalize, input_shape)
        comparisons += verify(writer.folder, files, spec, op, cases, writer.target)
    return files, comparisons, spec.describe(network, output_op, cases[0].reference)


def _write_video_graphs(
    network: Network, spec: ExportSpec, input_shape: Sequence[int | None], output_op: str, writer: _Writer
) -> _Written:
    """Write and verify the graphs of a network for video; the result is that of `_write_image_graphs`."""
    cases, comparisons, files = make_video_cases(network, spec, input_shape), [], {}
    normalize, exported = split_normalize(spec.transforms)[1], network.for_export(writer.target)
    for op in spec.verified_outputs(output_op):
        files = writer.write(functools.partial(TracedStep, exported, spec, op), normalize, input_shape)
        comparisons += verify_video(writer.folder, files, network, spec, op, cases, writer.target)
    description = spec.describe(network, output_op, cases[0].logits[0])
    return files, comparisons, description | {"state_shape": network.state_shape()}


@contextlib.contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        if training:
            network.train()


@contextlib.contextmanager
def _scratch_folder(save_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a folder beside `save_dir`, on the same file system, and remove it after the block."""
    scratch = save_dir.absolute().with_name(f".{save_dir.absolute().name}.{os.getpid()}.part")
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: pathlib.Path, save_dir: pathlib.Path) -> None:
    """Move a complete export to its place, and remove the files that only an earlier export had."""
    if not save_dir.exists():
        os.rename(scratch, save_dir)
        return
    (save_dir / "deploy.yaml").unlink(missing_ok=True)  # so that a kill in between leaves no export that looks whole
    fresh = [name for name in _FILES if (scratch / name).is_file()]
    for name in fresh:
        os.replace(scratch / name, save_dir / name)
    for name in set(_FILES) - set(fresh):
        (save_dir / name).unlink(missing_ok=True)
