"""Put the service under load, beside the bare Segmenter: requests a second and percentiles of their times.

paddle-rt benchmark_serve --config EXPORT/deploy.yaml --threads 2 --markdown output/bench_serve.md
"""

import argparse

from paddle_rt.cli.arguments import Parser, Size, count, file_or_folder, output_file, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.inference import BACKENDS
from paddle_rt.inference.engines import PRECISIONS
from paddle_rt.kinds import flag, number, whole


def main() -> None:
    arguments = parse_arguments()
    if arguments.backend == "paddle":
        import_paddle()
    from paddle_rt.benchmark.report import machine, publish
    from paddle_rt.benchmark.serve import COLUMNS, run

    engine = (arguments.backend, arguments.precision, arguments.threads)
    rows = run(arguments.config, engine, tuple(arguments.size), arguments.clients, arguments.runs, arguments.seconds)
    for row in rows:
        row.update(machine=machine(), **{key: getattr(arguments, key) for key in ("config", "size", "runs", "seconds")})
        row.update(zip(("backend", "precision", "threads"), engine, strict=True))
    print(publish(rows, rows, COLUMNS, arguments.output, arguments.markdown))


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=file_or_folder, required=True, help="deploy.yaml of an export for segmentation, or its folder")
    add("--backend", choices=BACKENDS, default="openvino", help="the engine")
    add("--precision", choices=PRECISIONS, default="fp32", help="in which it computes")
    add("--threads", type=threads, help="CPU threads of the network; by default one for each core")
    add("--size", action=Size, default=(512, 1024), help="size of the images")
    add("--clients", nargs="+", type=flag(whole(1, 256)), default=[1, 4, 16], help="clients that call at once")
    add("--runs", type=count, default=3, help="rounds that count")
    add("--seconds", type=flag(number(0.1, 3600)), default=10, help="how long a row is measured in a round")
    add("--output", type=output_file, default="output/bench_serve.json", help="the rows")
    add("--markdown", type=output_file, help="also write the table in Markdown")
    return parser.parse_args()
