"""Write a config for a data set of one's own, with numbers that follow from the data and the machine, and the reasons.

paddle-rt new_config --data data/mine --model rtformer_slim
"""

import argparse
import os

from paddle_rt.cli.arguments import DEVICES, Parser, file_or_folder, output_file
from paddle_rt.cpu import import_paddle
from paddle_rt.kinds import flag, number
from paddle_rt.registry import list_models


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `prepare_data` has too, which ends with a config."""
    parser.add_argument("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    text = "the longest that training may take on this machine"
    parser.add_argument("--hours", type=flag(number(0, 1000, above=True)), default=3.0, help=text)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    text = "folder with train.txt, val.txt and labels.txt, as prepare_data writes it"
    parser.add_argument("--data", type=file_or_folder, required=True, help=text)
    models = list_models("segmentation")
    parser.add_argument("--model", choices=models, default="rtformer_slim", help="the network")
    parser.add_argument("--output", type=output_file, help="the config to write; by default MODEL.yml in the folder")
    add_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    output = args.output or os.path.join(args.data, f"{args.model}.yml")
    import_paddle()

    from paddle_rt.new_config.write import write_config

    write_config(args.data, args.model, output, args.device, args.hours)
    print_head(output)


def print_head(config: str) -> None:
    """Print the comments with which a config begins: the time and the commands."""
    print(config)
    with open(config, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                return
            print(line.rstrip())
