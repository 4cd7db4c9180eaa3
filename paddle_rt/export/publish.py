"""Export a model as Paddle and ONNX graphs that were run and compared with it before anyone sees them."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_rt.errors import UserError, unknown
from paddle_rt.export.verify import brief, make_cases, make_video_cases, verify, verify_video, versions
from paddle_rt.imaging.palettes import class_names
from paddle_rt.inference.deployment import (
    OUTPUT_OPS,
    VERIFICATION,
    Deployment,
    check_input_shape,
    file_digest,
    save_deployment,
)  # fmt: skip
from paddle_rt.inference.preprocess import Normalize, split_normalize
from paddle_rt.models.base import Network

FORMATS = ("paddle", "onnx")
OPSET = 17
# What an export may leave in its folder. deploy.yaml comes last: with it the export is complete.
_FILES = ("model.json", "model.pdiparams", "model.onnx", "model_int8.onnx", VERIFICATION, "deploy.yaml")


def export(
    model: paddle.nn.Layer,
    save_dir: str | os.PathLike,
    transforms: list[dict[str, Any]],
    input_shape: Sequence[int | None] = (None, 3, None, None),
    output_op: str | None = None,
    formats: Sequence[str] = FORMATS,
    dataset_type: str | None = None,
) -> dict[str, Any]:
    """Write model.json and model.pdiparams, model.onnx, deploy.yaml and verification.json, or nothing at all.

    The graphs take float32 images as `transforms` leave them; with "coarse" they take uint8 BGR frames [N, H, W, 3] and
    normalise themselves, and only what `transforms` do to the size is left to who runs them. With "argmax" and
    "softmax" the same network is first exported and compared without them, since labels say little about the logits
    behind them.

    A model for video, one with a `temporal_window` above 1, becomes a graph that takes one frame and the state that the
    frame before has left and gives coarse logits and the next state; it is compared over sequences of frames.

    Args:
        model: A model of PaddleSeg's contract; its main logits are exported, auxiliary heads are not.
        save_dir: Folder for the files; an earlier export in it is replaced only when the new one is complete.
        transforms: The validation transforms, as the config describes them.
        input_shape: [N, C, H, W]; None leaves N, H or W open.
        output_op: "coarse" (logits before the model's last resize, from which `Segmenter` computes labels faster),
            "argmax" (int32 labels [N, H, W]), "softmax" (float32 [N, num_classes, H, W]) or "none" (logits). If None,
            coarse for a model that has such logits and takes 3 channels, else argmax.
        formats: "paddle", "onnx" or both.
        dataset_type: The data set's type, which names classes and colours.

    Returns:
        What verification.json holds: an error for each engine and input, what was allowed, and versions.

    Raises:
        UserError: An argument is wrong, the model cannot be exported, or a graph does not compute what the model does.
        OSError: The folder cannot be written.
    """
    check_input_shape(input_shape)
    if output_op is None:
        output_op = "coarse" if hasattr(model, "coarse_logits") and input_shape[1] == 3 else "argmax"
    if _is_video(model):
        input_shape = [input_shape[0] or 1, *input_shape[1:]]
    _check_arguments(model, save_dir, input_shape, output_op, formats)
    with _evaluating(model), _scratch(pathlib.Path(save_dir)) as scratch:
        normalize = split_normalize(transforms)[1] if output_op == "coarse" else None
        files, errors, classes = _write_verified(model, scratch, input_shape, output_op, formats, normalize)
        graph = {"input_shape": list(input_shape), "output_op": output_op}
        digests = {name: file_digest(scratch / name) for name in files.values()}
        about = {"opset": OPSET, "versions": versions(formats), "files": digests}
        report = {**graph, **about, "comparisons": errors}
        (scratch / VERIFICATION).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        names = class_names(dataset_type, classes)
        about = {"num_classes": classes, "dataset_type": dataset_type, "class_names": names}
        about["align_corners"] = getattr(model, "align_corners", False)
        about["state_shape"] = model.state_shape() if _is_video(model) else None
        about["input_dtype"] = "uint8" if output_op == "coarse" else "float32"
        about["output_dtype"] = "int32" if output_op == "argmax" else "float32"
        save_deployment(Deployment(scratch, transforms, **graph, **about, **files))
        _publish(scratch, pathlib.Path(save_dir))
    return report


def _is_video(model: paddle.nn.Layer) -> bool:
    return getattr(model, "temporal_window", 1) > 1


def _write_verified(
    model: paddle.nn.Layer,
    folder: pathlib.Path,
    input_shape: Sequence[int | None],
    output_op: str,
    formats: Sequence[str],
    normalize: Normalize | None,
) -> tuple[dict[str, str], list[dict], int]:
    """Write the graphs and compare them; their names by deploy.yaml's keys, the errors, and the number of classes."""
    traced = model.for_export() if isinstance(model, Network) else model
    if _is_video(model):
        videos = make_video_cases(model, input_shape, normalize)
        files = _write_graphs(_ExportedStep(traced, normalize), folder, input_shape, formats, model.state_shape())
        return files, verify_video(folder, files, model.state_shape(), videos), videos[0].logits[0].shape[1]
    cases, errors = make_cases(model, input_shape, normalize), []
    for op in dict.fromkeys([output_op if normalize else "none", output_op]):
        files = _write_graphs(_Exported(traced, op, normalize), folder, input_shape, formats)
        errors += verify(folder, files, op, cases)
    return files, errors, cases[0].logits.shape[1]


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
    if output_op == "coarse" and input_shape[1] != 3:
        raise UserError(f"output_op coarse makes a graph that takes frames of 3 channels, got {input_shape[1]}")
    if output_op == "coarse" and not hasattr(model, "coarse_logits"):
        raise UserError(f"{type(model).__name__} has no coarse_logits; use output_op argmax, softmax or none")
    if _is_video(model) and (output_op != "coarse" or input_shape[0] != 1):
        raise UserError(
            f"a model with a temporal window of {model.temporal_window} is exported as output_op coarse for one frame "
            f"at a time, got {output_op} for {input_shape[0]}"
        )
    if None in input_shape[2:] and getattr(model, "needs_fixed_size", False):
        raise UserError(
            f"{type(model).__name__} with token merging needs a fixed height and width, got {list(input_shape)}; give "
            "them with --input_size"
        )
    if pathlib.Path(save_dir).is_file():
        raise UserError(f"save_dir {save_dir} is a file; give a folder")


class _Exported(paddle.nn.Layer):
    """A model's main logits with an output operation behind them and, where given, a normalisation before them."""

    def __init__(self, model: paddle.nn.Layer, output_op: str, normalize: Normalize | None) -> None:
        super().__init__()
        self.model = model
        self.output_op = output_op
        self.normalize = normalize

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return _run(self, x)


class _ExportedStep(paddle.nn.Layer):
    """A video model's step with a normalisation before it."""

    def __init__(self, model: paddle.nn.Layer, normalize: Normalize) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, frame: paddle.Tensor, state: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        return _run_step(self, frame, state)


@paddle.jit.not_to_static
def _run_step(
    exported: _ExportedStep, frame: paddle.Tensor, state: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor]:
    return exported.model.coarse_step(_normalize_frames(frame, exported.normalize), state)


@paddle.jit.not_to_static
def _run(exported: _Exported, x: paddle.Tensor) -> paddle.Tensor:
    """Traced as it runs: Paddle's rewriting of Python code, which this switches off, has no part in the graph."""
    model, output_op = exported.model, exported.output_op
    if exported.normalize is not None:
        x = _normalize_frames(x, exported.normalize)
    if output_op == "coarse":
        return model.coarse_logits(x)
    logits = model(x)[0]
    if output_op == "argmax":
        return paddle.argmax(logits, axis=1, dtype="int32")
    return paddle.nn.functional.softmax(logits, axis=1) if output_op == "softmax" else logits


def _normalize_frames(frames: paddle.Tensor, normalize: Normalize) -> paddle.Tensor:
    """Turn uint8 BGR frames [N, H, W, 3] into the network's input: one product, one sum, channels first, RGB."""
    mean, std = (np.broadcast_to(np.array(v, np.float64), 3)[::-1] for v in (normalize.mean, normalize.std))
    scale, shift = (paddle.to_tensor(v.astype(np.float32)) for v in (1 / (255 * std), -mean / std))
    images = (frames.astype("float32") * scale + shift).transpose([0, 3, 1, 2])
    return images.index_select(paddle.to_tensor([2, 1, 0]), axis=1)


def _write_graphs(
    exported: _Exported | _ExportedStep,
    folder: pathlib.Path,
    input_shape: Sequence[int | None],
    formats: Sequence[str],
    state_shape: Sequence[int] | None = None,
) -> dict[str, str]:
    """Write the graphs into `folder` and give their names by deploy.yaml's keys."""
    exported.eval()
    specs = [paddle.static.InputSpec(list(input_shape), "float32", "x")]
    if exported.normalize is not None:
        batch, channels, *size = input_shape
        specs = [paddle.static.InputSpec([batch, *size, channels], "uint8", "frame")]
    if state_shape:
        specs.append(paddle.static.InputSpec(list(state_shape), "float32", "state"))
    try:
        # PaddleSeg's readers expect the input's name x, which jit.save takes from the spec.
        paddle.jit.save(paddle.jit.to_static(exported, input_spec=specs, full_graph=True), str(folder / "model"))
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

        from paddle_rt.export.graph import optimise, rewrite_stem
    except ImportError as error:
        raise UserError(f"format onnx needs the packages onnx and paddle2onnx: {error}") from error
    try:
        # The default optimize_tool, "polygraphy", installs packages with pip while it runs; "none" writes the graph.
        paddle2onnx.export(str(graph), str(parameters), str(target), opset_version=OPSET, optimize_tool="none")
        converted = onnx.load(str(target))
        optimise(converted)
        rewrite_stem(converted)
        onnx.checker.check_model(converted, full_check=True)
    except Exception as error:  # paddle2onnx logs what it met and goes on to an UnboundLocalError
        raise UserError(f"paddle2onnx cannot convert the graph: {type(error).__name__}: {brief(error)}") from error
    onnx.save(converted, str(target))


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
