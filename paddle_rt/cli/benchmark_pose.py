"""Time pose estimation from a decoded frame of 1280x720 to the keypoints of its people, beside PaddleDetection's way.

paddle-rt benchmark_pose --model segformerpp_b0_pose --input_size 256 192 --people 8
"""

import argparse
import dataclasses
import sys

from paddle_rt.cli.arguments import Parser, Size, count, file_or_folder, output_file, refused_flags, threads
from paddle_rt.cpu import import_paddle


def main() -> None:
    arguments = parse_arguments()
    import_paddle()
    from paddle_rt.benchmark.pose import COLUMNS, PosePlan, run
    from paddle_rt.benchmark.report import machine, publish

    arguments.input_size = tuple(arguments.input_size)
    with refused_flags():
        plan = PosePlan(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(PosePlan)})
    if plan.checkpoint is None:
        print("warning: the weights are random: which keypoints are the same means little", file=sys.stderr)
    rows = run(plan)
    for row in rows:
        row.update(machine=machine(), random_weights=plan.checkpoint is None)
    print(publish(rows, rows, COLUMNS, arguments.output, arguments.markdown))


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", default="segformerpp_b0_pose", help='a name of paddle_rt.list_models("pose")')
    add("--checkpoint", type=file_or_folder, help="trained weights; random ones if not given")
    add("--input_size", action=Size, default=(256, 192), help="size of the network's input")
    add("--people", type=count, default=8, help="people in the frame")
    add("--mergings", nargs="*", default=["bsm_hq", "bsm_fast", "n2d_2x2"], help="measured beside the network without")
    add("--threads", type=threads, default=2, help="CPU threads of every pipeline")
    add("--runs", type=count, default=15, help="rounds that count, in which each pipeline has a turn")
    add("--output", type=output_file, default="output/bench_pose.json", help="the rows")
    add("--markdown", type=output_file, help="also write the table in Markdown")
    return parser.parse_args()
