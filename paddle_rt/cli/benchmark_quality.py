"""Show what lower precision and token merging cost a trained network: labels, mIoU by class, and time.

paddle-rt benchmark_quality -c CONFIG --model_path output/best_model
paddle-rt benchmark_quality -c CONFIG --model_path output/best_model --variants plain token_merging=bsm_hq

Every variant is exported for the size of the images of val_dataset and labels them in every engine and precision, in
turns; the first row is what the others are compared with. Another size: --opts val_dataset.height=512
val_dataset.width=1024. int8 is made as `paddle-rt quantize` makes it.
"""

import argparse
import pathlib
import shlex
import sys
import tempfile

from paddle_rt.cli.arguments import (
    WEIGHTS_HELP,
    complete_weights,
    count,
    file_or_folder,
    import_paddle_for,
    new_parser,
    output_file,
    threads,
)
from paddle_rt.errors import UserError
from paddle_rt.inference.engines import BACKENDS, PRECISIONS, SUPPORTED


def main() -> None:
    arguments = parse_arguments()
    import_paddle_for(arguments.config)

    from paddle_rt.benchmark import quality
    from paddle_rt.benchmark.plan import Choice
    from paddle_rt.benchmark.report import machine, publish
    from paddle_rt.config import build_task, load_config
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    if config.task_name != "segmentation":
        raise UserError(f"{arguments.config} is of {config.task_name}, and this compares labels of segmentation")
    choices = [
        Choice(backend, "cpu", precision)
        for backend in arguments.backends
        for precision in arguments.precisions
        if precision in SUPPORTED[backend].get("cpu", ())
    ]
    if not choices:
        raise UserError("none of the backends has any of the precisions on a CPU")
    set_up("cpu", seed=0)
    task = build_task(config)
    samples, spec = task.raw_samples("val", arguments.images), task.export_spec()
    with tempfile.TemporaryDirectory() as folder:
        ways, refusals = quality.load_ways(
            config, arguments.model_path, arguments.variants, choices, samples, pathlib.Path(folder), arguments.threads
        )
        if not ways:
            raise UserError(f"nothing to measure: {'; '.join(refusals)}")
        quality.measure(ways, samples, config.values["model"]["num_classes"], spec.ignore_index)
    rows = quality.rows_of(ways, task.class_names)
    for refusal in refusals:
        print(f"left out: {refusal}", file=sys.stderr)
    facts = {"command": shlex.join(["paddle-rt", "benchmark_quality", *sys.argv[1:]]), "machine": machine()}
    content = {**facts, "size": list(samples[0][0].shape[:2]), "left_out": refusals, "rows": rows}
    print(publish(content, rows, quality.COLUMNS, arguments.output, arguments.markdown))


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--model_path", type=file_or_folder, help=WEIGHTS_HELP)
    add("--variants", nargs="+", default=["plain"], metavar="KEY=VALUE,...", help="arguments of the network that need "
        "no other weights, such as token_merging=bsm_hq,matching_every=2; plain: as in the config")  # fmt: skip
    add("--backends", nargs="+", choices=BACKENDS, default=sorted(BACKENDS, key="openvino".__ne__), help="engines")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="where an engine has them")
    add("--images", type=count, default=100, help="of val_dataset; int8 is calibrated with as many of train_dataset")
    add("--threads", type=threads, default=2, help="CPU threads of every engine")
    add("--output", type=output_file, default="output/quality.json", help="the rows")
    add("--markdown", type=output_file, help="also write the table in Markdown")
    arguments = parser.parse_args()
    complete_weights(arguments, parser)
    return arguments
