"""What a benchmark needs before it can measure: frames, weights and the graphs of both sides."""

import pathlib
import platform
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml

from paddle_rt.benchmark.measure import Choice, count_operations, measure, tabulate, true_labels
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import list_images, read_image
from paddle_rt.paddleseg.pipeline import TRANSFORMS, export_paddleseg
from paddle_rt.registry import create_model, list_models, model_config

if TYPE_CHECKING:
    from paddle import nn

_RENDERED = 6
_RTFORMER_FAULT = """\
  With oneDNN, PaddleSeg's RTFormer is wrong from the second frame on: its cross attention is a convolution whose
  weights are computed from the frame, and oneDNN keeps those of the first frame. Its row shows what that costs.
"""
_PACKAGES = ("paddlepaddle", "paddleseg", "onnxruntime", "openvino", "numpy", "numba")


def read_models(texts: Sequence[str]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Read NAME or NAME:key=value,key=value; what shares a name is measured together.

    Returns:
        By name, what was given and its arguments.

    Raises:
        UserError: A model is unknown, or an argument is not key=value.
    """
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for text in texts:
        name, arguments = _read_model(text)
        if name not in list_models():
            raise unknown("model", name, list_models())
        groups.setdefault(name, []).append((text, arguments))
    return groups


def _read_model(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    arguments = {}
    for item in rest.split(",") if rest else []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"a model is given as NAME or NAME:key=value,key=value, got {text!r}")
        arguments[key] = yaml.safe_load(value)
    return name, arguments


def paddleseg_models(texts: Sequence[str], num_classes: int) -> "dict[str, nn.Layer]":
    """Build models that PaddleSeg alone has, with random weights, such as DDRNet_23 or STDCSeg:backbone=STDC1.

    Raises:
        UserError: PaddleSeg has no such model or backbone, or does not take an argument.
    """
    if not texts:
        return {}
    from paddle_rt.paddleseg.counterparts import paddleseg_network

    return {text: paddleseg_network(name, num_classes, rest) for text in texts for name, rest in [_read_model(text)]}


def checkpoints(pairs: Sequence[str], models: Iterable[str]) -> dict[str, str]:
    """Read NAME=FILE pairs.

    Raises:
        UserError: A model is not measured, or a pair is something else.
    """
    found = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not equals or not file:
            raise UserError(f"--checkpoint takes MODEL=FILE, got {pair!r}")
        if name not in models:
            raise unknown("model in --checkpoint", name, models)
        found[name] = file
    return found


def take_frames(path: str | None, size: Sequence[int]) -> list[np.ndarray]:
    """Frames of one size, uint8 BGR [H, W, 3]: images from a path, or rendered streets."""
    height, width = size
    if path is not None:
        images = [read_image(file) for file in list_images(path)[0]]
        return [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    from paddle_rt.streetscenes.render import render
    from paddle_rt.streetscenes.scenes import make_scene

    return [render(make_scene(100_000 + index), height, width)[0] for index in range(_RENDERED)]


def prepare(
    variants: Sequence[tuple[str, dict[str, Any]]], checkpoint: str | None, num_classes: int,
    frames: Sequence[np.ndarray], folder: pathlib.Path, *, size: Sequence[int], threads: int, against: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> tuple[list[Choice], dict[str, float]]:  # fmt: skip
    """Export a model's variants, and PaddleSeg's counterpart of the first, with the same weights.

    Args:
        variants: Of one name, as `read_models` gives them.
        checkpoint: Weights that fit them all; random ones if None.
        num_classes: Number of classes.
        frames: What int8 is calibrated on.
        folder: For the exports.
        size: (height, width).
        threads: CPU threads.
        against: "paddleseg" puts PaddleSeg's pipeline first, "paddleseg-openvino" its graph in OpenVINO.
        pairs: Backends and precisions.

    Returns:
        What to measure, and the operations of our graphs.
    """
    import paddle

    from paddle_rt.checkpoint import load
    from paddle_rt.export.publish import export
    from paddle_rt.paddleseg.counterparts import paddleseg_model

    paddle.base.core.set_num_threads(threads)  # of the model that graphs are compared with; one if not told
    choices, operations = [], {}
    for number, (model, arguments) in enumerate(variants):
        name, ours = model.partition(":")[0], folder / f"ours{number}"
        paddle.seed(0)
        net = create_model(name, num_classes, checkpoint, **arguments)
        if number == 0 and against:
            theirs = folder / "paddleseg"
            try:
                counterpart = paddleseg_model({**model_config(name), **arguments}, num_classes)
            except UserError as error:
                raise UserError(f"{model}: {error}; leave PaddleSeg out with --against none") from error
            load(counterpart, {key: value.numpy() for key, value in net.state_dict().items()})
            export_paddleseg(counterpart, size, theirs, "paddleseg-openvino" in against)
            backends = [{"paddleseg": "paddle", "paddleseg-openvino": "openvino"}[side] for side in sorted(against)]
            choices += [Choice(model, "paddleseg", backend, "fp32", threads, str(theirs)) for backend in backends]
        export(net, ours, TRANSFORMS, [1, 3, *size], "coarse")
        operations[model] = count_operations(ours / "model.onnx")
        if any(precision == "int8" for _, precision in pairs):
            from paddle_rt.export.quantize import quantize

            # Labels are judged in the table, against the first row; mIoU needs truth, which frames do not have.
            unlabelled = [(frame, np.zeros(frame.shape[:2], np.uint8)) for frame in frames[:1]]
            quantize(ours, frames, unlabelled, agreement=0.0)
        choices += [Choice(model, "paddle_rt", backend, precision, threads, str(ours)) for backend, precision in pairs]
    return choices, operations


def run(
    groups: dict[str, list[tuple[str, dict[str, Any]]]], beside: "dict[str, nn.Layer]", weights: dict[str, str],
    num_classes: int, frames: Sequence[np.ndarray], floors: dict[tuple[str, str], float | None], runs: int,
    rounds: Callable[[range], Iterable[int]], **how: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure each model with its variants, one model after another; with `beside` all of them and those in turns.

    Args:
        groups: As `read_models` gives them.
        beside: As `paddleseg_models` gives them; the first is what the others' times are compared with.
        weights: As `checkpoints` gives them.
        num_classes, frames: As `prepare` takes them, and `how` with the rest.
        floors: Operations a second of a large matrix product by (backend, precision).
        runs: Rounds.
        rounds: What shows their progress.

    Returns:
        The rows of `tabulate`.
    """
    rows = []
    for names in [list(groups)] if beside else [[name] for name in groups]:
        with tempfile.TemporaryDirectory() as scratch:
            folder, choices, operations = pathlib.Path(scratch), [], {}
            for number, (text, model) in enumerate(beside.items()):
                export_paddleseg(model, how["size"], folder / f"beside{number}")
                place = str(folder / f"beside{number}")
                choices.append(Choice(text, "paddleseg", "paddle", "fp32", how["threads"], place))
            for name in names:
                more, work = prepare(groups[name], weights.get(name), num_classes, frames, folder / name, **how)
                choices, operations = choices + more, operations | work
            records = measure(choices, frames, runs, rounds)
            own = {name: [r for r in records if r.choice.model.partition(":")[0] == name] for name in names}
            truth = {name: true_labels(of_model, frames) for name, of_model in own.items()}
            rows += tabulate(records, truth, how["size"], operations, floors)
    return rows


def machine() -> dict[str, str]:
    """The processor, Python and the packages' versions."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def page(table: str, chart: str, rows: Sequence[dict[str, Any]], command: Sequence[str]) -> str:
    """docs/benchmarks.md: how it was measured, the table and the chart."""
    row = rows[0]
    about = row["machine"]
    packages = ", ".join(f"{name} {about[name]}" for name in _PACKAGES)
    floors = {(r["backend"], r["precision"]): r["floor_gflop_per_s"] for r in rows if r["floor_gflop_per_s"]}
    rates = ", ".join(f"{backend} {precision} {rate:.0f}" for (backend, precision), rate in floors.items())
    work = ", ".join(dict.fromkeys(f"{r['model']} {r['gflop']:.0f}" for r in rows if r["gflop"]))
    theirs = {r["model"] for r in rows if r["pipeline"] == "paddleseg" and r["label_agreement"] is not None}
    truth = "PaddleSeg's graph without oneDNN" if theirs else "the model's first row here"
    notes = _RTFORMER_FAULT if any(model.startswith("rtformer") for model in theirs) else ""
    if any(r["random_weights"] for r in rows):
        notes += "  The weights are random: what bf16 and int8 change says little about trained ones.\n"
    return f"""# Benchmarks

From a decoded frame of {row["size"][0]}x{row["size"][1]} to its labels, {row["threads"]} threads of {about["cpu"]},
CPython {about["python"]}, {packages}. Written by

    python tools/benchmark.py {shlex.join(command)}

{table}

![Milliseconds a frame by stage]({chart})

- Every pipeline labels the same frame in turns, {row["runs"]} rounds, each in another random order, after a pause and
  an untimed frame of its own; times are medians, speed-up the median of the ratios within a round against the first row
  that was measured with it.
- `paddleseg` is PaddleSeg's deployment: its model class, with our weights where it is the counterpart of ours, its
  transforms, an argmax graph, Paddle Inference with oneDNN, or the same graph in OpenVINO.
- `same labels` is the share of pixels that get the label of {truth}.
{notes}\
- `of floor` is the network's rate as a share of that of one matrix product of 2048x2048 by 2048x2048 in the same
  library and precision, measured just before (GFLOP/s: {rates}). The networks need, in GFLOP a frame: {work}. A dash:
  the library has no such product.
- int8 is calibrated on the frames themselves. Peak MB is what a process that runs this pipeline alone holds at most.
"""
