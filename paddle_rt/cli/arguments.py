"""Flags that several command lines share, with PaddleSeg's names."""

import argparse
from collections.abc import Callable, Sequence

from paddle_rt.errors import unknown

DEVICES = ["cpu", "gpu", "xpu", "npu", "mlu"]


def _whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

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
    """A parser that answers a mistake with one line, and an unknown flag with the nearest one.

    Args:
        description: What the tool does; --help shows it with the flags and their defaults.
    """

    def __init__(self, description: str) -> None:
        shown = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(description=description, formatter_class=shown, allow_abbrev=False)

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see --help\n")

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            raise unknown("flag or word", rest[0], [flag for flag in self._option_string_actions if flag[1] == "-"])
        return parsed


def new_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of every tool: --config, --device and --opts."""
    parser = Parser(description)
    parser.add_argument("-c", "--config", required=True, help="config file in PaddleSeg's schema")
    parser.add_argument("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    parser.add_argument("--opts", nargs="+", help="overrides of config keys, such as model.cross_size=8 batch_size=2")
    return parser


def add_test_time(parser: argparse.ArgumentParser, switch: str) -> None:
    """Add flips, scales and the sliding window; `switch` is the flag that turns flips and scales on."""
    group = parser.add_argument_group("test time")
    group.add_argument(switch, action="store_true", help="average over --scales and flips")
    group.add_argument("--scales", nargs="+", type=float, default=[1.0], help="factors of the image's size")
    group.add_argument("--flip_horizontal", action="store_true", help="also run the mirrored image")
    group.add_argument("--flip_vertical", action="store_true", help="also run the image upside down")
    group.add_argument("--is_slide", action="store_true", help="run windows of --crop_size, --stride apart")
    group.add_argument("--crop_size", nargs=2, type=positive, metavar=("W", "H"), help="size of the window")
    group.add_argument("--stride", nargs=2, type=positive, metavar=("W", "H"), help="step of the window")


def merge_test_config(test_config: dict, arguments: argparse.Namespace, switched: bool) -> dict:
    """Let the flags override a config's `test_config`, as PaddleSeg's tools do."""
    names = []
    if switched:
        names += ["scales", "flip_horizontal", "flip_vertical"]
    if arguments.is_slide:
        names += ["is_slide", "crop_size", "stride"]
    given = {name: getattr(arguments, name) for name in names}
    return {**test_config, **given, **({"aug_eval": True} if switched else {})}
