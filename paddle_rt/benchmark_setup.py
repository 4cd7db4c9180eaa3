"""What a benchmark needs before it can measure: frames, weights and the graphs of both sides."""

import pathlib
import platform
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import yaml

from paddle_rt.benchmark import TRANSFORMS, Choice, count_operations, export_paddleseg
from paddle_rt.data.images import list_images, read_image
from paddle_rt.errors import UserError, unknown
from paddle_rt.registry import create_model, list_models, model_config

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
        name, _, rest = text.partition(":")
        if name not in list_models():
            raise unknown("model", name, list_models())
        arguments = {}
        for item in rest.split(",") if rest else []:
            key, equals, value = item.partition("=")
            if not equals or not key:
                raise UserError(f"--models takes NAME or NAME:key=value,key=value, got {text!r}")
            arguments[key] = yaml.safe_load(value)
        groups.setdefault(name, []).append((text, arguments))
    return groups


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
    from paddle_rt.data.street_render import render
    from paddle_rt.data.streetscenes import make_scene

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

    from paddle_rt.export import export

    paddle.base.core.set_num_threads(threads)  # of the model that graphs are compared with; one if not told
    choices, operations = [], {}
    for number, (model, arguments) in enumerate(variants):
        name, ours = model.partition(":")[0], folder / f"ours{number}"
        paddle.seed(0)
        net = create_model(name, num_classes, checkpoint, **arguments)
        if number == 0 and against:
            theirs = folder / "paddleseg"
            theirs.mkdir(parents=True)
            weights = {key: value.numpy() for key, value in net.state_dict().items()}
            config = {**model_config(name), **arguments}
            export_paddleseg(config, num_classes, weights, size, theirs, "paddleseg-openvino" in against)
            backends = [{"paddleseg": "paddle", "paddleseg-openvino": "openvino"}[side] for side in sorted(against)]
            choices += [Choice(model, "paddleseg", backend, "fp32", threads, str(theirs)) for backend in backends]
        export(net, ours, TRANSFORMS, [1, 3, *size], "coarse")
        operations[model] = count_operations(ours / "model.onnx")
        if any(precision == "int8" for _, precision in pairs):
            from paddle_rt.quantize import quantize

            # Labels are judged in the table, against the first row; mIoU needs truth, which frames do not have.
            unlabelled = [(frame, np.zeros(frame.shape[:2], np.uint8)) for frame in frames[:1]]
            quantize(ours, frames, unlabelled, agreement=0.0)
        choices += [Choice(model, "paddle_rt", backend, precision, threads, str(ours)) for backend, precision in pairs]
    return choices, operations


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
    work = ", ".join(dict.fromkeys(f"{r['model']} {r['gflop']:.0f}" for r in rows))
    return f"""# Benchmarks

From a decoded frame of {row["size"][0]}x{row["size"][1]} to its labels, {row["threads"]} threads of {about["cpu"]},
CPython {about["python"]}, {packages}. Written by

    python tools/benchmark.py {shlex.join(command)}

{table}

![Milliseconds a frame by stage]({chart})

- Every pipeline labels the same frame in turns, {row["runs"]} rounds, each in another random order, after a pause and
  an untimed frame of its own; times are medians, speed-up the median of the ratios within a round against the first row
  of the model.
- `paddleseg` is PaddleSeg's deployment: its model class with the same weights, its transforms, an argmax graph, Paddle
  Inference with oneDNN.
- `same labels` is the share of pixels that get the label which PaddleSeg's graph gives without oneDNN.
{_RTFORMER_FAULT if any(r["model"].startswith("rtformer") for r in rows) else ""}\
- `of floor` is the network's rate as a share of that of one matrix product of 2048x2048 by 2048x2048 in the same
  library and precision, measured just before (GFLOP/s: {rates}). The networks need, in GFLOP a frame: {work}. A dash:
  the library has no such product.
- int8 is calibrated on the frames themselves. Peak MB is what a process that runs this pipeline alone holds at most.
"""
