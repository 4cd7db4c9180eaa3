"""Train a network by a config in PaddleSeg's schema.

paddle-rt train -c CONFIG --do_eval
"""

import argparse
import os
import shlex
import sys

from paddle_rt.checkpoint import WEIGHTS_FORMATS
from paddle_rt.cli.arguments import (
    count,
    file_or_folder,
    import_paddle_for,
    new_parser,
    not_negative,
    output_folder,
    positive,
    refused_flags,
    seed,
    workers,
)
from paddle_rt.kinds import flag, number


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--save_dir", type=output_folder, default="./output", help="folder of the checkpoints")
    add("--num_workers", type=workers, default=0, help="processes that load images")
    add("--do_eval", action="store_true", help="score every save_interval and keep the best model")
    add("--use_vdl", action="store_true", help="write a VisualDL log to save_dir")
    add("--use_ema", action="store_true", help="also keep a moving average of the weights")
    add(
        "--resume_model",
        type=file_or_folder,
        help="folder iter_N to resume from, or auto: the newest checkpoint of save_dir, if any",
    )
    add("--iters", type=positive, help="iterations, in place of the config's")
    add("--batch_size", type=count, help="images on each card, in place of the config's")
    add("--learning_rate", type=flag(number(0, above=True)), help="in place of the config's")
    add("--save_interval", type=positive, default=1000, help="iterations between checkpoints")
    add("--log_iters", type=positive, default=10, help="iterations between log lines")
    add("--keep_checkpoint_max", type=not_negative, default=5, help="delete this run's older checkpoints; 0 keeps all")
    add("--early_stop_intervals", type=positive, help="stop after so many evaluations below the best")
    add("--accumulate", type=count, default=1, help="batches whose gradients are averaged for one iteration")
    add("--seed", type=seed, help="seed of weights, augmentation and stochastic depth")
    add("--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="automatic mixed precision on a GPU")
    add("--amp_level", default="O1", choices=["O1", "O2"], help="level of the mixed precision")
    add("--profiler_options", help="PaddleSeg's option string, such as batch_range=[10,20];profile_path=profile")
    add("--data_format", default="NCHW", choices=["NCHW"], help="layout of the images")
    add("--weights_format", default="pdparams", choices=WEIGHTS_FORMATS, help="format of the files of weights")
    add("--repeats", type=count, default=1, help="number of times that an epoch visits each image")
    add("--loop", default="paddle_rt", choices=["paddle_rt", "paddleseg"], help="paddleseg: PaddleSeg's own loop")
    return parser.parse_args()


def main() -> None:
    arguments = vars(parse_arguments())
    import_paddle_for(arguments["config"])

    from paddle_rt.config import load_config
    from paddle_rt.training import Interrupted, TrainOptions, train
    from paddle_rt.training.profiling import read_options

    with refused_flags():
        read_options(arguments["profiler_options"] or "")
    arguments.pop("data_format")
    if arguments.pop("loop") == "paddleseg":
        from paddle_rt.paddleseg.loop import train
    overrides = {key: arguments.pop(key) for key in ("opts", "learning_rate", "batch_size", "iters")}
    config = load_config(arguments.pop("config"), **overrides)
    try:
        train(config, TrainOptions(**arguments))
    except Interrupted as error:
        if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
            print(f"{error}. Resume with:\n{_command(error.checkpoint)}", file=sys.stderr)
        sys.exit(error.exit_code)


def _command(checkpoint: str) -> str:
    """Return this process's command line with the checkpoint to resume from."""
    program, *flags = sys.argv
    if "--resume_model" in flags:
        at = flags.index("--resume_model")
        del flags[at : at + 2]
    flags = [flag for flag in flags if not flag.startswith("--resume_model=")]
    start = program.split() if program.startswith("paddle-rt ") else ["python", program]
    return shlex.join([*start, *flags, "--resume_model", checkpoint])
