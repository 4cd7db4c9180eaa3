"""Train a model by a config in PaddleSeg's schema: paddle-rt train -c CONFIG --do_eval"""

import argparse

from paddle_rt.cli.arguments import new_parser, not_negative, positive, seed
from paddle_rt.cpu import import_paddle


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--save_dir", default="./output", help="folder of the checkpoints")
    add("--num_workers", type=not_negative, default=0, help="processes that load images")
    add("--do_eval", action="store_true", help="score every save_interval and keep the best model")
    add("--use_vdl", action="store_true", help="write a VisualDL log to save_dir")
    add("--use_ema", action="store_true", help="also keep a moving average of the weights")
    add("--resume_model", help="folder iter_N to go on from")
    add("--iters", type=positive, help="iterations, in place of the config's")
    add("--batch_size", type=positive, help="images on each card, in place of the config's")
    add("--learning_rate", type=float, help="in place of the config's")
    add("--save_interval", type=positive, default=1000, help="iterations between checkpoints")
    add("--log_iters", type=positive, default=10, help="iterations between log lines")
    add("--keep_checkpoint_max", type=not_negative, default=5, help="delete this run's older checkpoints; 0 keeps all")
    add("--seed", type=seed, help="seed of weights, augmentation and drop path")
    add("--precision", default="fp32", choices=["fp32", "fp16"], help="fp16: automatic mixed precision on a GPU")
    add("--amp_level", default="O1", choices=["O1", "O2"], help="level of the mixed precision")
    add("--profiler_options", help="PaddleSeg's option string, such as batch_range=[10,20];profile_path=profile")
    add("--data_format", default="NCHW", choices=["NCHW"], help="layout of the images")
    add("--repeats", type=positive, default=1, help="see every image so often in an epoch")
    return parser.parse_args()


def main() -> None:
    arguments = vars(parse_arguments())
    import_paddle()

    from paddle_rt.config.build import load_config
    from paddle_rt.training.train import train

    arguments.pop("data_format")
    overrides = {key: arguments.pop(key) for key in ("opts", "learning_rate", "batch_size", "iters")}
    train(load_config(arguments.pop("config"), **overrides), **arguments)
