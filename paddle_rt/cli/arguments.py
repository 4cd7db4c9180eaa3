"""Flags that several command lines share, with PaddleSeg's names."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from paddle_rt.errors import unknown

if TYPE_CHECKING:  # both import Paddle, before which its threads have to be chosen
    from paddle_rt.config import Config
    from paddle_rt.tasks.base import Task

DEVICES = ["cpu", "gpu", "xpu", "npu", "mlu"]


def _whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got {text!r}")
        return int(text)

    return parse


positive = _whole_number(1)
not_negative = _whole_number(0)
seed = _whole_number(0, 2**32 - 1)  # what NumPy takes


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line, and an unknown flag with the nearest known one.

    Args:
        description: What the tool does; --help shows it with the flags and their defaults.
        add_help: Whether the parser answers --help.
    """

    def __init__(self, description: str, add_help: bool = True) -> None:
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False, add_help=add_help)

    def error(self, message: str) -> None:
        """End the tool with exit code 2 and one line."""
        self.exit(2, f"error: {message}; see --help\n")

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the command line.

        Raises:
            UserError: A flag or a word on it is unknown.
        """
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            raise unknown("flag or word", rest[0], [flag for flag in self._option_string_actions if flag[1] == "-"])
        return parsed


def new_parser(description: str, needs_config: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags of every tool that reads a config: --config, --device and --opts."""
    parser = Parser(description)
    parser.add_argument("-c", "--config", required=needs_config, help="config file in PaddleSeg's schema")
    parser.add_argument("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    parser.add_argument("--opts", nargs="+", help="overrides of config keys, such as model.cross_size=8 batch_size=2")
    return parser


def parse_for_task(parser: argparse.ArgumentParser, tool: str) -> tuple[argparse.Namespace, "Config", "Task"]:
    """Parse the command line of a tool that takes flags of the config's task, which are added to the parser.

    Args:
        parser: From `new_parser`.
        tool: The name by which the task knows the tool, "val" or "predict".

    Returns:
        The flags, the config, and its task, which has taken over the values of its flags.

    Raises:
        UserError: The config or a flag is wrong.
    """
    from paddle_rt.config import build_task, load_config
    from paddle_rt.tasks import base

    first = Parser("", add_help=False)
    first.add_argument("-c", "--config")
    first.add_argument("--opts", nargs="+")
    found, _ = first.parse_known_args()
    config = load_config(found.config, found.opts) if found.config else None
    base.find_task(config.task_name if config else base.DEFAULT).add_flags(parser, tool)
    arguments = parser.parse_args()  # ends the tool where there is no config
    task = build_task(config)
    task.configure(arguments)
    return arguments, config, task
