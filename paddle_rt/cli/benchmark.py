"""Time deployment against PaddleSeg's.

paddle-rt benchmark --models rtformer_slim --size 1024 2048
paddle-rt benchmark --models rtformer_slim --devices gpu tensorrt
paddle-rt benchmark --export output/inference_model

Exports are measured without Paddle and PaddleSeg, unless the backend paddle or --against paddleseg is given.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from paddle_rt.benchmark.plan import Choice, Plan, export_size, load_frames, read_model
from paddle_rt.cli.arguments import Parser, Size, count, file_or_folder, output_file, refused_flags, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import FlagError
from paddle_rt.files import whole_file
from paddle_rt.inference.engines import DEVICES
from paddle_rt.inference.engines.gpu import find_gpu


def main() -> None:
    arguments = parse_arguments()
    plan = make_plan(arguments)
    if "gpu" in plan.targets:
        print(f"on {find_gpu().name}", file=sys.stderr)
    if plan.needs_paddle:
        import_paddle()
    from paddle_rt.benchmark import gpu_report
    from paddle_rt.benchmark.report import CPU_COLUMNS, machine, text_table

    for line in plan.refusals:
        print(f"left out: {line}", file=sys.stderr)
    for name in {read_model(model).name: None for model in plan.models if read_model(model).name not in plan.weights}:
        print(f"warning: {name} has random weights: its label agreement means little", file=sys.stderr)
    rows = measure(plan)
    for row in rows:
        random = None if plan.exports else row["model"].partition(":")[0] not in plan.weights
        row.update(machine=machine(), random_weights=random)
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for columns, found in ((CPU_COLUMNS, on(rows, "cpu")), (gpu_report.COLUMNS, on(rows, "gpu"))):
        if found:
            print(text_table(found, columns))
    if arguments.markdown:
        write_page(pathlib.Path(arguments.markdown), rows)
    print(f"rows in {arguments.output}")


def on(rows: Sequence[dict[str, Any]], target: str) -> list[dict[str, Any]]:
    return [row for row in rows if (row["device"] == "cpu") == (target == "cpu")]


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Fill in what depends on other flags, and check the flags together."""
    if arguments.against is None:
        arguments.against = ["none"] if arguments.exports else ["paddleseg"]
    if arguments.models is None:
        arguments.models = [] if arguments.exports else ["rtformer_slim", "rtformer_base"]
    if arguments.size is None:
        arguments.size = export_size(arguments.exports) if arguments.exports else (1024, 2048)
    with refused_flags():
        plan = Plan(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Plan)})
    if arguments.markdown and len(plan.targets) > 1:
        raise FlagError("--markdown writes one page: give the device cpu a run of its own")
    return plan


def measure(plan: Plan) -> list[dict[str, Any]]:
    """Run the plan, the CPU first, and return the rows."""
    rows = []
    if "gpu" in plan.targets:
        from paddle_rt.benchmark import gpu

        if plan.short:
            print("warning: less than 200 runs on a GPU; percentiles of so few mean little", file=sys.stderr)
    frames = load_frames(plan)
    if "cpu" in plan.targets:
        from tqdm import tqdm

        from paddle_rt.benchmark.floor import matrix_rate
        from paddle_rt.benchmark.measure import run

        theirs = [Choice("paddle", "cpu", "fp32")] if plan.beside or "paddleseg" in plan.against else []
        pairs = dict.fromkeys((choice.backend, choice.precision) for choice in [*plan.on("cpu"), *theirs])
        floors = {pair: matrix_rate(*pair, plan.threads) for pair in tqdm(pairs, "floor", disable=None)}
        rows += run(plan, frames, floors)
    if "gpu" in plan.targets:
        rows += gpu.run(plan, frames)
    return rows


def write_page(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    from paddle_rt.benchmark import gpu_report
    from paddle_rt.benchmark.report import draw, markdown_table, page

    if on(rows, "gpu"):
        text = gpu_report.page(rows, sys.argv[1:])
    else:
        chart = path.with_suffix(".png")
        draw(rows, chart)
        text = page(markdown_table(rows), chart.name, rows, sys.argv[1:])
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", help="names of paddle_rt.list_models(), also with arguments, "
        "NAME:key=value,key=value; those of one name run together, against the first; by default rtformer_slim and "
        "rtformer_base. With --export, the networks of the exports, for --against paddleseg")  # fmt: skip
    add("--export", dest="exports", nargs="+", type=file_or_folder, default=[], metavar="DIR",
        help="measure these exports as they are; a GPU needs those of tools/export.py --target gpu")  # fmt: skip
    add(
        "--checkpoint",
        dest="checkpoints",
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="trained weights; random ones if not given",
    )
    add("--num_classes", type=count, default=19, help="of the checkpoints")
    add("--size", action=Size, help="size of the frames; by default that of the exports, or 1024 2048")
    add("--frames", type=file_or_folder, help="image, folder or list, resized to --size; rendered streets if not given")
    add(
        "--devices",
        nargs="+",
        default=["cpu"],
        choices=DEVICES,
        help="gpu and tensorrt are an NVIDIA GPU, which CUDA_VISIBLE_DEVICES chooses, without and with TensorRT; "
        "pipelines run on it in blocks, one in memory at a time",
    )
    add("--backends", nargs="+", help="openvino, mnn, onnxruntime, paddle; by default all that the device has")
    add("--precisions", nargs="+", help="fp32, bf16, fp16, int8; by default fp32 bf16 int8 on cpu, fp32 fp16 on gpu, "
        "and fp32 fp16 int8 on tensorrt")  # fmt: skip
    add("--against", nargs="+", choices=("paddleseg", "paddleseg-openvino", "none"), help="first rows: PaddleSeg's "
        "deployment, its graph in OpenVINO, or neither; by default paddleseg, and none with --export")  # fmt: skip
    add("--beside", nargs="+", default=[], metavar="MODEL", help="models of PaddleSeg alone, through its pipeline, in "
        "turns with all --models: DDRNet_23 BiSeNetV2 STDCSeg:backbone=STDC1; the first is the reference")  # fmt: skip
    add("--threads", type=threads, default=2, help="CPU threads of every pipeline")
    add("--runs", type=count, help="runs that count of each pipeline, by default 15 rounds on a CPU and 200 in each of "
        "two blocks on a GPU")  # fmt: skip
    add("--output", type=output_file, default="output/bench.json", help="the rows")
    add("--markdown", type=output_file, help="also write a page with the table, and for a CPU a chart beside it")
    return parser.parse_args()
