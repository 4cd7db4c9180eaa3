"""Export a model as Paddle and ONNX graphs that were run and compared with it before anyone sees them."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import paddle

from paddle_rt.data.classes import class_names
from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.deployment import OUTPUT_OPS, Deployment, check_input_shape, save_deployment
from paddle_rt.verify import brief, make_cases, verify, versions

FORMATS = ("paddle", "onnx")
OPSET = 17
# What an export may leave in its folder. deploy.yaml comes last: with it the export is complete.
_FILES = ("model.json", "model.pdiparams", "model.onnx", "verification.json", "deploy.yaml")


def export(
    model: paddle.nn.Layer,
    save_dir: str | os.PathLike,
    transforms: list[dict[str, Any]],
    input_shape: Sequence[int | None] = (None, 3, None, None),
    output_op: str = "argmax",
    formats: Sequence[str] = FORMATS,
    dataset_type: str | None = None,
) -> dict[str, Any]:
    """Write model.json and model.pdiparams, model.onnx, deploy.yaml and verification.json, or nothing at all.

    The graphs take float32 images as `transforms` leave them. With "argmax" and "softmax" the same network is first
    exported and compared without them, since labels say little about the logits behind them.

    Args:
        model: A model of PaddleSeg's contract; its main logits are exported, auxiliary heads are not.
        save_dir: Folder for the files; an earlier export in it is replaced only when the new one is complete.
        transforms: The validation transforms, as the config describes them.
        input_shape: [N, C, H, W]; None leaves N, H or W open.
        output_op: "argmax" (int32 labels [N, H, W]), "softmax" (float32 [N, num_classes, H, W]), "none" (logits)
            or "coarse" (logits before the model's last resize, from which `Segmenter` computes labels faster).
        formats: "paddle", "onnx" or both.
        dataset_type: The data set's type, which names classes and colours.

    Returns:
        What verification.json holds: an error for each engine and input, what was allowed, and versions.

    Raises:
        UserError: An argument is wrong, the model cannot be exported, or a graph does not compute what the model does.
        OSError: The folder cannot be written.
    """
    _check_arguments(model, save_dir, input_shape, output_op, formats)
    with _evaluating(model), _scratch(pathlib.Path(save_dir)) as scratch:
        coarse = output_op == "coarse"
        cases = make_cases(model, input_shape, coarse)
        errors = []
        for op in dict.fromkeys([output_op if coarse else "none", output_op]):
            files = _write_graphs(model, scratch, input_shape, op, formats)
            errors += verify(scratch, files, op, cases)
        graph = {"input_shape": list(input_shape), "output_op": output_op}
        report = {**graph, "opset": OPSET, "versions": versions(formats), "comparisons": errors}
        (scratch / "verification.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        classes = cases[0].logits.shape[1]
        names = class_names(dataset_type, classes)
        about = {"num_classes": classes, "dataset_type": dataset_type, "class_names": names}
        about["align_corners"] = getattr(model, "coarse_align_corners", False)
        output_dtype = "int32" if output_op == "argmax" else "float32"
        save_deployment(Deployment(scratch, transforms, output_dtype=output_dtype, **graph, **about, **files))
        _publish(scratch, pathlib.Path(save_dir))
    return report


def _check_arguments(
    model: paddle.nn.Layer,
    save_dir: str | os.PathLike,
    input_shape: Sequence[int | None],
    output_op: str,
    formats: Sequence[str],
) -> None:
    if output_op not in OUTPUT_OPS:
        raise unknown("output_op", output_op, OUTPUT_OPS)
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    if not formats:
        raise UserError(f"no format given; valid are {', '.join(FORMATS)}")
    if output_op == "coarse" and not hasattr(model, "coarse_logits"):
        raise UserError(f"{type(model).__name__} has no coarse_logits; use output_op argmax, softmax or none")
    check_input_shape(input_shape)
    if pathlib.Path(save_dir).is_file():
        raise UserError(f"save_dir {save_dir} is a file; give a folder")


class _Exported(paddle.nn.Layer):
    """A model's main logits with an output operation behind them."""

    def __init__(self, model: paddle.nn.Layer, output_op: str) -> None:
        super().__init__()
        self.model = model
        self.output_op = output_op

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return _run(self.model, self.output_op, x)


@paddle.jit.not_to_static
def _run(model: paddle.nn.Layer, output_op: str, x: paddle.Tensor) -> paddle.Tensor:
    """Traced as it runs: Paddle's rewriting of Python code, which this switches off, has no part in the graph."""
    if output_op == "coarse":
        return model.coarse_logits(x)
    logits = model(x)[0]
    if output_op == "argmax":
        return paddle.argmax(logits, axis=1, dtype="int32")
    return paddle.nn.functional.softmax(logits, axis=1) if output_op == "softmax" else logits


def _write_graphs(
    model: paddle.nn.Layer,
    folder: pathlib.Path,
    input_shape: Sequence[int | None],
    output_op: str,
    formats: Sequence[str],
) -> dict[str, str]:
    """Write the graphs into `folder` and give their names by deploy.yaml's keys."""
    wrapper = _Exported(model, output_op)
    wrapper.eval()
    spec = paddle.static.InputSpec(list(input_shape), "float32", "x")
    try:
        paddle.jit.save(paddle.jit.to_static(wrapper, input_spec=[spec], full_graph=True), str(folder / "model"))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:  # what Paddle's operators and tracer raise
        raise UserError(f"Paddle cannot trace the model at {list(input_shape)}: {brief(error)}") from error
    graph, parameters, onnx_graph = (folder / f"model.{suffix}" for suffix in ("json", "pdiparams", "onnx"))
    if not graph.is_file():
        raise UserError("Paddle wrote no model.json; unset FLAGS_enable_pir_api, which switches its graph format off")
    files = {}
    if "onnx" in formats:
        convert_to_onnx(graph, parameters, onnx_graph)
        files["onnx"] = onnx_graph.name
    if "paddle" in formats:
        return {"model": graph.name, "params": parameters.name, **files}
    graph.unlink()
    parameters.unlink()
    return files


def convert_to_onnx(graph: pathlib.Path, parameters: pathlib.Path, target: pathlib.Path) -> None:
    """Convert a Paddle graph with paddle2onnx.

    Raises:
        UserError: A package is missing, or paddle2onnx or the ONNX checker refuses the graph.
    """
    try:
        import onnx
        import paddle2onnx
    except ImportError as error:
        raise UserError(f"format onnx needs the packages onnx and paddle2onnx: {error}") from error
    try:
        # The default optimize_tool, "polygraphy", installs packages with pip while it runs; "none" writes the graph.
        paddle2onnx.export(str(graph), str(parameters), str(target), opset_version=OPSET, optimize_tool="none")
        converted = onnx.load(str(target))
        _tidy(converted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # paddle2onnx logs what it met and goes on to an UnboundLocalError
        raise UserError(f"paddle2onnx cannot convert the graph: {type(error).__name__}: {brief(error)}") from error
    onnx.save(converted, str(target))


def _tidy(model: Any) -> None:
    """Make constants what parsers expect, initializers that a node reads directly, and name the open dimensions.

    paddle2onnx writes each parameter as a Constant node with an Identity behind it, beside initializers that nothing
    reads.
    """
    graph = model.graph
    outputs = {output.name for output in graph.output}
    constants, kept, source = list(graph.initializer), [], {}
    for node in graph.node:
        assert not any(attribute.HasField("g") for attribute in node.attribute), f"{node.name} holds a graph of its own"
        for position, name in enumerate(node.input):
            node.input[position] = source.get(name, name)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            constants.append(tensor)
        elif node.op_type == "Identity" and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input} | outputs
    _replace(graph.node, kept)
    _replace(graph.initializer, [constant for constant in constants if constant.name in read])
    for value, prefix in [*((i, "") for i in graph.input), *((o, "output_") for o in graph.output)]:
        dims = value.type.tensor_type.shape.dim
        sizes = (f"{prefix}height", f"{prefix}width")  # not the input's: coarse logits have sizes of their own
        for dim, name in zip(dims, ("batch", *("channels",) * (len(dims) - 3), *sizes), strict=True):
            if dim.dim_param:
                dim.dim_param = name


def _replace(repeated: Any, items: list[Any]) -> None:
    """Set a protobuf list; the items are copied first, since they may be parts of it."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del repeated[:]
    repeated.extend(copies)


@contextlib.contextmanager
def _evaluating(model: paddle.nn.Layer) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


@contextlib.contextmanager
def _scratch(save_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `save_dir`, on the same file system, that is gone afterwards."""
    scratch = save_dir.absolute().with_name(f".{save_dir.absolute().name}.{os.getpid()}.part")
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: pathlib.Path, save_dir: pathlib.Path) -> None:
    """Move a complete export to its place and remove what an earlier one had beyond it."""
    if not save_dir.exists():
        os.rename(scratch, save_dir)
        return
    (save_dir / "deploy.yaml").unlink(missing_ok=True)  # a kill in between leaves no export that looks whole
    fresh = [name for name in _FILES if (scratch / name).is_file()]
    for name in fresh:
        os.replace(scratch / name, save_dir / name)
    for name in set(_FILES) - set(fresh):
        (save_dir / name).unlink(missing_ok=True)
