"""Show what lower precision and token merging cost a trained network: labels, mIoU by class, and time.

paddle-rt benchmark_quality -c CONFIG --model_path output/best_model
paddle-rt benchmark_quality -c CONFIG --model_path output/best_model --variants plain token_merging=bsm_hq
paddle-rt benchmark_quality --export output/inference_model --data FOLDER --devices cpu gpu

Every variant is exported for the size of the images of val_dataset and labels them in every engine and precision, in
turns; the first row is what the others are compared with. Another size: --opts val_dataset.height=512
val_dataset.width=1024. int8 is made as `paddle-rt quantize` makes it. With --export, exports are measured as they are,
also on a machine without Paddle, on the images and labels of a folder, such as `paddle-rt render_streetscenes` writes.
"""

import argparse
import importlib.util
import pathlib
import shlex
import sys
import tempfile
from typing import Any

from paddle_rt.cli.arguments import (
    WEIGHTS_HELP,
    Parser,
    complete_weights,
    count,
    file_or_folder,
    import_paddle_for,
    output_file,
    threads,
)
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError
from paddle_rt.inference.engines import BACKENDS, DEVICES, PRECISIONS, SUPPORTED

IGNORED = 255  # the label that does not count in the images of a folder


def main() -> None:
    arguments = parse_arguments()
    from paddle_rt.benchmark.plan import Choice

    choices = [
        Choice(backend, device, precision)
        for device in arguments.devices
        for backend in arguments.backends
        for precision in arguments.precisions
        if precision in SUPPORTED[backend].get(device, ())
    ]
    if not choices:
        raise UserError(f"none of the backends has any of the precisions on {' or '.join(arguments.devices)}")
    size, rows, refusals = (score_exports if arguments.export else score_network)(arguments, choices)

    from paddle_rt.benchmark.quality import COLUMNS, draw
    from paddle_rt.benchmark.report import machine, publish

    for refusal in refusals:
        print(f"left out: {refusal}", file=sys.stderr)
    facts = {"command": shlex.join(["paddle-rt", "benchmark_quality", *sys.argv[1:]]), "machine": machine()}
    content = {**facts, "size": list(size), "left_out": refusals, "rows": rows}
    print(publish(content, rows, COLUMNS, arguments.output, arguments.markdown))
    if arguments.chart and len(rows) < 2:
        raise UserError("no chart: it compares rows with the first, and there is only one")
    if arguments.chart:
        draw(rows, arguments.chart)


def score_network(
    arguments: argparse.Namespace, choices: list[Any]
) -> tuple[tuple[int, int], list[dict[str, Any]], list[str]]:
    """Export the network of a config and its variants, and score them on val_dataset.

    Returns:
        The size of the frames, the rows, and the reasons why others are missing.
    """
    import_paddle_for(arguments.config)
    from paddle_rt.benchmark import quality
    from paddle_rt.config import build_task, load_config
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    if config.task_name != "segmentation":
        raise UserError(f"{arguments.config} is of {config.task_name}, and this compares labels of segmentation")
    set_up("cpu", seed=0)
    task = build_task(config)
    samples, spec = task.raw_samples("val", arguments.images), task.export_spec()
    with tempfile.TemporaryDirectory() as folder:
        ways, refusals = quality.load_ways(
            config, arguments.model_path, arguments.variants, choices, samples, pathlib.Path(folder), arguments.threads
        )
        measure_all(ways, refusals, samples, config.values["model"]["num_classes"], spec.ignore_index)
    return samples[0][0].shape[:2], quality.rows_of(ways, task.class_names), refusals


def score_exports(
    arguments: argparse.Namespace, choices: list[Any]
) -> tuple[tuple[int, int], list[dict[str, Any]], list[str]]:
    """Score exports as they are on the images of a folder; returns what `score_network` returns."""
    if any(choice.backend == "paddle" for choice in choices) and importlib.util.find_spec("paddle"):
        import_paddle()  # without Paddle its rows are left out
    from paddle_rt.benchmark import quality
    from paddle_rt.inference import load_deployment

    exports = [load_deployment(folder) for folder in arguments.export]
    for folder, export in zip(arguments.export, exports, strict=True):
        if export.task != "segmentation":
            raise UserError(f"{folder} is an export of {export.task}, and this compares labels of segmentation")
        if export.state_shape:
            raise UserError(f"{folder} is an export for video, and this labels images one by one: see video_metrics")
        if export.names != exports[0].names:
            raise UserError(f"{folder} and {arguments.export[0]} have other classes: measure them in runs of their own")
    names = exports[0].names
    samples = quality.read_samples(arguments.data, arguments.images, len(names), IGNORED)
    ways, refusals = quality.load_exports(arguments.export, choices, samples, arguments.threads)
    measure_all(ways, refusals, samples, len(names), IGNORED)
    return samples[0][0].shape[:2], quality.rows_of(ways, names), refusals


def measure_all(ways: list[Any], refusals: list[str], samples: list[Any], classes: int, ignored: int) -> None:
    from paddle_rt.benchmark import quality

    if not ways:
        raise UserError(f"nothing to measure: {'; '.join(refusals)}")
    quality.measure(ways, samples, classes, ignored)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("-c", "--config", type=file_or_folder, help="config file in PaddleSeg's schema; of trained weights of the "
        "package their name, which --model_path gives too")  # fmt: skip
    add("--model_path", type=file_or_folder, help=WEIGHTS_HELP)
    add("--opts", nargs="+", help="overrides of config keys, such as val_dataset.height=512")
    add("--variants", nargs="+", default=["plain"], metavar="KEY=VALUE,...", help="arguments of the network that need "
        "no other weights, such as token_merging=bsm_hq,matching_every=2; plain: as in the config")  # fmt: skip
    add("--export", nargs="+", type=file_or_folder, metavar="DIR", help="in place of a config: exports, best "
        "of the size of the images; a GPU needs those of `paddle-rt export --target gpu`")  # fmt: skip
    add("--data", type=file_or_folder, help="with --export: folder with images/ and labels/; 255 does not count")
    add("--devices", nargs="+", default=["cpu"], choices=DEVICES, help="gpu and tensorrt are an NVIDIA GPU, without "
        "and with TensorRT")  # fmt: skip
    add("--backends", nargs="+", choices=BACKENDS, default=sorted(BACKENDS, key="openvino".__ne__), help="engines")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="where an engine has them")
    add("--images", type=count, default=100, help="at most so many; int8 is calibrated with as many of train_dataset")
    add("--threads", type=threads, default=2, help="CPU threads of every engine")
    add("--output", type=output_file, default="output/quality.json", help="the rows")
    add("--markdown", type=output_file, help="also write the table in Markdown")
    add("--chart", type=output_file, help="also draw the differences, by class too, and the speed, as a PNG file")
    arguments = parser.parse_args()
    if not arguments.export:
        if arguments.data:
            parser.error("--data gives the images of exports: it goes with --export")
        complete_weights(arguments, parser)
    elif arguments.data is None:
        parser.error("--export needs --data, the folder with images/ and labels/")
    elif arguments.config or arguments.model_path or arguments.opts or arguments.variants != ["plain"]:
        parser.error(
            "--export measures exports as they are: it goes without --config, --model_path, --opts, --variants"
        )
    return arguments
