"""Time deployment against PaddleSeg's.

paddle-rt benchmark --models rtformer_slim --size 1024 2048
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from paddle_rt.cli.arguments import Parser, Size, count, file_or_folder, output_file, refused_flags, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.files import whole_file


def main() -> None:
    arguments = parse_arguments()
    import_paddle()

    from tqdm import tqdm

    from paddle_rt.benchmark.floor import matrix_rate
    from paddle_rt.benchmark.measure import run
    from paddle_rt.benchmark.plan import Plan, load_frames
    from paddle_rt.benchmark.report import draw, machine, markdown_table, page, text_table

    with refused_flags():
        plan = Plan(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Plan)})
    for line in plan.refusals:
        print(f"left out: {line}", file=sys.stderr)
    frames, theirs = load_frames(plan), [("paddle", "fp32")] if plan.beside or "paddle" in plan.theirs else []
    pairs = dict.fromkeys([*plan.choices, *theirs])
    floors = {pair: matrix_rate(*pair, plan.threads) for pair in tqdm(pairs, "floor", disable=None)}
    for name in [name for name in plan.groups if name not in plan.weights]:
        print(f"warning: {name} has random weights: its label agreement means little", file=sys.stderr)
    rows = run(plan, frames, floors)
    for row in rows:
        row.update(machine=machine(), random_weights=row["model"].partition(":")[0] not in plan.weights)
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(text_table(rows))
    if arguments.markdown:
        chart = pathlib.Path(arguments.markdown).with_suffix(".png")
        draw(rows, chart)
        with whole_file(arguments.markdown) as part:
            part.write_text(page(markdown_table(rows), chart.name, rows, sys.argv[1:]), encoding="utf-8")
    print(f"rows in {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["rtformer_slim", "rtformer_base"], help="names of paddle_rt.list_models(), "
        "also with arguments, NAME:key=value,key=value; those of one name run together, against the first")  # fmt: skip
    add(
        "--checkpoint",
        dest="checkpoints",
        nargs="+",
        default=[],
        metavar="MODEL=FILE",
        help="trained weights; random ones if not given",
    )
    add("--num_classes", type=count, default=19, help="of the checkpoints")
    add("--size", action=Size, default=[1024, 2048], help="size of the frames")
    add("--frames", type=file_or_folder, help="image, folder or list, resized to --size; rendered streets if not given")
    add("--backends", nargs="+", default=["openvino", "onnxruntime", "paddle"], help="openvino, onnxruntime, paddle")
    add("--precisions", nargs="+", default=["fp32", "bf16", "int8"], help="fp32, bf16, fp16, int8")
    add("--against", nargs="+", default=["paddleseg"], choices=("paddleseg", "paddleseg-openvino", "none"),
        help="first rows: PaddleSeg's deployment, its graph in OpenVINO, or neither")  # fmt: skip
    add("--beside", nargs="+", default=[], metavar="MODEL", help="models of PaddleSeg alone, through its pipeline, in "
        "turns with all --models: DDRNet_23 BiSeNetV2 STDCSeg:backbone=STDC1; the first is the reference")  # fmt: skip
    add("--threads", type=threads, default=2, help="CPU threads of every pipeline")
    add("--runs", type=count, default=15, help="rounds in which each pipeline labels one frame")
    add("--output", type=output_file, default="output/bench.json", help="the rows")
    add("--markdown", type=output_file, help="also write a page with the table, and a chart beside it")
    return parser.parse_args()
