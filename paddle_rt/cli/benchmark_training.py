"""Time training steps beside PaddleSeg's.

paddle-rt benchmark_training --model segformerpp_b0:head=mlp

With --layers: steps of any network with Paddle's layers and with the project's kernels for a CPU. With --loops: whole
iterations of RTFormer-Slim, data loading included, in PaddleSeg's loop and in ours. With --loader: one sample of
2048x1024, from its files to arrays, by PaddleSeg's data set and by ours.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

from paddle_rt.cli.arguments import Parser, Size, count, output_file, refused_flags, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.files import whole_file


def main() -> None:
    arguments = parse_arguments()
    if arguments.loader is not None:
        rows = _loader(arguments)
    else:
        rows = (_loops if arguments.loops else _layers if arguments.layers else _steps)(arguments)
    from paddle_rt.benchmark.report import machine

    for row in rows:
        row["machine"] = machine()
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"rows in {arguments.output}")


def _loops(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from paddle_rt.benchmark.loops import LoopPlan, compare_loops

    plan = LoopPlan(arguments.batch_size, tuple(arguments.size), rounds=arguments.runs)
    with tempfile.TemporaryDirectory() as folder:
        rows = compare_loops(plan, pathlib.Path(folder))
    print(f"{'':42}  iteration ms  speed-up")
    for row in rows:
        print(f"{row['name']:42}  {row['iteration_ms']:12.0f}  {row['speedup']:8.2f}")
    return rows


def _loader(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import_paddle()
    import cv2

    from paddle_rt.benchmark.loader import compare_loaders

    cv2.setNumThreads(1)  # a process that loads samples has one core
    with tempfile.TemporaryDirectory() as folder:
        rows = compare_loaders(arguments.runs, pathlib.Path(folder), arguments.loader or None)
    print("  pipeline  sample ms  of which reading  speed-up")
    for row in rows:
        print(f"{row['pipeline']:>10}  {row['sample_ms']:9.1f}  {row['reading_ms']:16.1f}  {row['speedup']:8.2f}")
    return rows


def _layers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import_paddle()
    from paddle_rt.benchmark.plan import read_model
    from paddle_rt.benchmark.training import TrainingPlan, compare_layers

    with refused_flags():
        model = read_model(arguments.model)
    shape = (arguments.batch_size, 3, *arguments.size)
    row = compare_layers(TrainingPlan(model, shape, arguments.num_classes, arguments.threads, arguments.runs))
    print("processor time of a step, ms: Paddle's layers  our kernels  speed-up")
    print(f"{'':28}  {row['paddle_ms']:15.0f}  {row['kernels_ms']:11.0f}  {row['speedup']:8.2f}")
    return [row]


def _steps(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    import_paddle()
    from paddle_rt.benchmark.plan import read_model
    from paddle_rt.benchmark.training import TrainingPlan, compare_training
    from paddle_rt.registry import model_config, network_of

    with refused_flags():
        model = read_model(arguments.model)
        network_of({**model_config(model.name), **model.arguments})  # here, and not in the processes that build it
    shape = (arguments.batch_size, 3, *arguments.size)
    rows = compare_training(TrainingPlan(model, shape, arguments.num_classes, arguments.threads, arguments.runs))
    print("  pipeline   step ms  speed-up   peak MB  of which steps  first loss")
    for row in rows:
        print(
            f"{row['pipeline']:>10}  {row['step_ms']:8.0f}  {row['speedup']:8.2f}  {row['peak_rss_mb']:8.0f}  "
            f"{row['step_mb']:14.0f}  {row['loss']:10.4f}"
        )
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--loops", action="store_true", help="time whole iterations of the training loops on image files")
    add(
        "--layers", action="store_true", help="time steps with Paddle's layers and with the project's kernels for a CPU"
    )
    help_text = "time the loading of a sample with Cityscapes' transforms: a rendered one, or this 2048x1024 image"
    add("--loader", nargs="?", const="", metavar="IMAGE", help=help_text)
    add(
        "--model",
        default="segformerpp_b0:head=mlp",
        help="NAME or NAME:key=value,key=value; without --layers, PaddleSeg must have it",
    )
    add("--size", action=Size, help="size of the images; 512 1024, with --loops 240 320")
    add("--batch_size", type=count, help="images in a step; 1, with --loops 4")
    add("--num_classes", type=count, default=19, help="number of classes")
    add("--threads", type=threads, default=2, help="CPU threads of each model; --loops chooses them itself")
    add("--runs", type=count, default=10, help="rounds in which each has a turn")
    add("--output", type=output_file, default="output/bench_training.json", help="the rows")
    arguments = parser.parse_args()
    arguments.size = arguments.size or ([240, 320] if arguments.loops else [512, 1024])
    arguments.batch_size = arguments.batch_size or (4 if arguments.loops else 1)
    return arguments
