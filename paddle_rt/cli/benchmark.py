"""Time deployment against PaddleSeg's: paddle-rt benchmark --models rtformer_slim --size 1024 2048"""

import argparse
import json
import pathlib
import sys

from paddle_rt.cli.arguments import Parser, positive
from paddle_rt.cpu import import_paddle
from paddle_rt.files import whole_file


def main() -> None:
    arguments = parse_arguments()
    import_paddle()

    from tqdm import tqdm

    from paddle_rt.benchmark.measure import floor as benchmark_floor
    from paddle_rt.benchmark.measure import plan as benchmark_setup
    from paddle_rt.benchmark.measure import possible
    from paddle_rt.benchmark.report import draw, markdown_table, text_table

    pairs, refusals = possible(arguments.backends, arguments.precisions)
    for line in refusals:
        print(f"left out: {line}", file=sys.stderr)
    groups = benchmark_setup.read_models(arguments.models)
    weights = benchmark_setup.checkpoints(arguments.checkpoint, groups)
    frames = benchmark_setup.take_frames(arguments.frames, arguments.size)
    beside = benchmark_setup.paddleseg_models(arguments.beside, arguments.num_classes)
    against = [] if "none" in arguments.against else arguments.against
    known = dict.fromkeys([*pairs, ("paddle", "fp32")] if beside or "paddleseg" in against else pairs)
    floors = {p: benchmark_floor.matrix_rate(*p, arguments.threads) for p in tqdm(known, "floor", disable=None)}
    how = dict(size=arguments.size, threads=arguments.threads, against=against, pairs=pairs)
    for name in [name for name in groups if name not in weights]:
        print(f"warning: {name} has random weights: its label agreement means little", file=sys.stderr)
    measured = weights, arguments.num_classes, frames, floors, arguments.runs, lambda r: tqdm(r, disable=None)
    rows = benchmark_setup.run(groups, beside, *measured, **how)
    for row in rows:
        row.update(machine=benchmark_setup.machine(), random_weights=row["model"].partition(":")[0] not in weights)
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(text_table(rows))
    if arguments.markdown:
        chart = pathlib.Path(arguments.markdown).with_suffix(".png")
        draw(rows, chart)
        page = benchmark_setup.page(markdown_table(rows), chart.name, rows, sys.argv[1:])
        with whole_file(arguments.markdown) as part:
            part.write_text(page, encoding="utf-8")
    print(f"rows in {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=["rtformer_slim", "rtformer_base"], help="names of paddle_rt.list_models(), "
        "also with arguments, NAME:key=value,key=value; those of one name run together, against the first")  # fmt: skip
    add("--checkpoint", nargs="+", default=[], metavar="MODEL=FILE", help="trained weights; random ones if not given")
    add("--num_classes", type=positive, default=19, help="of the checkpoints")
    add("--size", nargs=2, type=positive, default=[1024, 2048], metavar=("H", "W"), help="size of the frames")
    add("--frames", help="image, folder or list, resized to --size; rendered streets if not given")
    add("--backends", nargs="+", default=["openvino", "onnxruntime", "paddle"], help="openvino, onnxruntime, paddle")
    add("--precisions", nargs="+", default=["fp32", "bf16", "int8"], help="fp32, bf16, fp16, int8")
    add("--against", nargs="+", default=["paddleseg"], choices=("paddleseg", "paddleseg-openvino", "none"),
        help="first rows: PaddleSeg's deployment, its graph in OpenVINO, or neither")  # fmt: skip
    add("--beside", nargs="+", default=[], metavar="MODEL", help="models of PaddleSeg alone, through its pipeline, in "
        "turns with all --models: DDRNet_23 BiSeNetV2 STDCSeg:backbone=STDC1; the first is the reference")  # fmt: skip
    add("--threads", type=positive, default=2, help="CPU threads of every pipeline")
    add("--runs", type=positive, default=15, help="rounds in which each pipeline labels one frame")
    add("--output", default="bench.json", help="the rows")
    add("--markdown", help="also write a page with the table, and a chart beside it")
    return parser.parse_args()
