"""Time a training step against PaddleSeg's.

paddle-rt benchmark_training --model segformerpp_b0:head=mlp
"""

import argparse
import json

from paddle_rt.cli.arguments import Parser, positive
from paddle_rt.cpu import import_paddle
from paddle_rt.files import whole_file


def main() -> None:
    arguments = parse_arguments()
    import_paddle()

    from paddle_rt.benchmark.plan import read_model
    from paddle_rt.benchmark.report import machine
    from paddle_rt.benchmark.training import TrainingPlan, compare_training

    model, shape = read_model(arguments.model), (arguments.batch_size, 3, *arguments.size)
    rows = compare_training(TrainingPlan(model, shape, arguments.num_classes, arguments.threads, arguments.runs))
    for row in rows:
        row["machine"] = machine()
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("  pipeline   step ms  speed-up   peak MB  of which steps  first loss")
    for row in rows:
        print(f"{row['pipeline']:>10}  {row['step_ms']:8.0f}  {row['speedup']:8.2f}  {row['peak_rss_mb']:8.0f}  "
              f"{row['step_mb']:14.0f}  {row['loss']:10.4f}")  # fmt: skip
    print(f"rows in {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model", default="segformerpp_b0:head=mlp", help="NAME or NAME:key=value,key=value; PaddleSeg must have it")
    add("--size", nargs=2, type=positive, default=[512, 1024], metavar=("H", "W"), help="size of the images")
    add("--batch_size", type=positive, default=1, help="images in a step")
    add("--num_classes", type=positive, default=19, help="number of classes")
    add("--threads", type=positive, default=2, help="CPU threads of each model")
    add("--runs", type=positive, default=10, help="steps of each model, in turns")
    add("--output", default="output/bench_training.json", help="the rows")
    return parser.parse_args()
