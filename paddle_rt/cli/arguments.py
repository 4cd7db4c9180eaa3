"""Flags that several command lines share, with PaddleSeg's names."""

import argparse
import contextlib
import difflib
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from paddle_rt.arguments import SIDE
from paddle_rt.config_file import read_config_file
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import FlagError, UserError, unknown
from paddle_rt.kinds import flag, whole
from paddle_rt.weights import described, find_card

if TYPE_CHECKING:  # both import Paddle, before which its threads have to be chosen
    from paddle_rt.config import Config
    from paddle_rt.tasks.base import Task

DEVICES = ["cpu", "gpu", "xpu", "npu", "mlu"]
MOST_PIXELS = 2**28
WEIGHTS_HELP = (
    "file of weights (.pdparams, .safetensors), folder that holds model.pdparams or model.safetensors, or name of "
    f"trained weights of the package: {described()}"
)

positive = flag(whole(1))
not_negative = flag(whole(0))
count = flag(whole(1, 1_000_000))  # of what lies in memory or takes time
threads = flag(whole(1, max(64, 8 * (os.cpu_count() or 1))))  # far more take turns on the cores for minutes
device_id = flag(whole(0, 1023))
workers = flag(whole(0, 1024))
seed = flag(whole(0, 2**32 - 1))  # what NumPy takes
side = flag(SIDE)  # pixels


def file_or_folder(text: str) -> str:
    """Return the name of a file or folder to read."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a file or folder")
    if os.path.lexists(text) and not os.path.basename(os.path.realpath(text)):
        raise argparse.ArgumentTypeError(f"{text} is the root of the file system; give a folder of its own")
    return text


def output_file(text: str) -> str:
    """Return the name of a file that can be written."""
    file_or_folder(text)
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text} is a folder; give the name of a file")
    if os.path.exists(text) and not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"{text} is a device, a pipe or a socket; give the name of a file")
    _check_place(pathlib.Path(text).parent)
    return text


def output_folder(text: str) -> str:
    """Return the name of a folder that can be written or made."""
    file_or_folder(text)
    _check_place(pathlib.Path(text))
    return text


def _check_place(folder: pathlib.Path) -> None:
    """Raise unless a folder can be written or made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise argparse.ArgumentTypeError(f"{existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{existing} cannot be written to")


class Size(argparse.Action):
    """Two sides of a size, height and width, of which the product is bounded too."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, nargs=2, type=side, metavar=("H", "W"), **settings)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if values[0] * values[1] > MOST_PIXELS:
            raise argparse.ArgumentError(self, f"{values[0]} x {values[1]} are more than {MOST_PIXELS} pixels")
        setattr(namespace, self.dest, values)


@contextlib.contextmanager
def refused_flags() -> Iterator[None]:
    """Turn a user's mistake in a block that looks at flags alone into a mistake in the flags."""
    try:
        yield
    except UserError as error:
        raise FlagError(str(error), error.details) from error


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that keeps the lines of commands in a description, and shows a default only where there is one."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks, fill = [], super()._fill_text
        for paragraph in text.strip().split("\n\n"):
            lines = paragraph.splitlines()
            is_command = any(line.startswith(("paddle-rt ", "python ")) for line in lines)
            blocks.append("\n".join(indent + line for line in lines) if is_command else fill(paragraph, width, indent))
        return "\n\n".join(blocks)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.default is not None and action.default is not False
        return super()._get_help_string(action) if has_default else action.help


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line, and an unknown flag with the nearest known one.

    Args:
        description: What the tool does; --help shows it with the flags and their defaults.
        add_help: Whether the parser answers --help.
    """

    def __init__(self, description: str, add_help: bool = True) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False, add_help=add_help)

    def error(self, message: str) -> None:
        """End the tool with exit code 2 and one line."""
        self.exit(2, f"error: {message}; see --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # argparse's own names no nearest choice
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, str(unknown("choice", value, action.choices)))

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the command line.

        Raises:
            FlagError: A flag or a word on it is unknown.
        """
        line = sys.argv[1:] if args is None else list(args)
        known = [flag for flag in self._option_string_actions if flag[1] == "-"]
        for word in itertools.takewhile("--".__ne__, line):  # argparse would ask for the flag that was meant
            if word.startswith("--") and " " not in word and word.partition("=")[0] not in known:
                raise FlagError(str(unknown("flag or word", word, known)))
        parsed, rest = self.parse_known_args(line, namespace)
        if rest:
            raise FlagError(str(unknown("flag or word", rest[0], known)))
        return parsed


def new_parser(description: str, needs_config: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags of every tool that reads a config: --config, --device and --opts."""
    parser = Parser(description)
    parser.add_argument("-c", "--config", type=file_or_folder, required=needs_config, help="config file in PaddleSeg's "
        "schema; of trained weights of the package their name, which --model_path gives too")  # fmt: skip
    parser.add_argument("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    parser.add_argument("--opts", nargs="+", help="overrides of config keys, such as model.cross_size=8 batch_size=2")
    return parser


def import_paddle_for(*configs: str) -> None:
    """Import Paddle, which takes seconds, once the configs can be read, so that a broken one is answered at once.

    Raises:
        UserError: A config is missing or not valid YAML. Its keys are checked when it is loaded.
    """
    for config in configs:
        read_config_file(config)
    import_paddle()


def complete_weights(
    arguments: argparse.Namespace, parser: argparse.ArgumentParser, default: str | None = None
) -> None:
    """Fill in the config where --model_path names weights of the package; end the tool where either stays unknown.

    Args:
        arguments: Its `config` and `model_path`, which may be None, are completed.
        parser: The parser of the tool.
        default: The name of the weights that are taken where neither is given, if they are there.
    """
    if arguments.config is None and arguments.model_path is None and default and find_card(default):
        arguments.model_path = default
    if arguments.config is None and arguments.model_path is not None and find_card(arguments.model_path):
        arguments.config = arguments.model_path
    flags = {"-c/--config": arguments.config, "--model_path": arguments.model_path}
    if missing := [flag for flag, value in flags.items() if value is None]:
        absent = "" if default is None or len(missing) < 2 else f" (the package holds no {default} to use without them)"
        parser.error(f"the following arguments are required: {', '.join(missing)}{absent}")


def parse_for_task(
    parser: argparse.ArgumentParser, tool: str, default: str | None = None
) -> tuple[argparse.Namespace, "Config", "Task"]:
    """Parse the command line of a tool that takes flags of the config's task, which are added to the parser.

    Args:
        parser: From `new_parser`, without a config that is required.
        tool: The name by which the task knows the tool, "val" or "predict".
        default: As for `complete_weights`.

    Returns:
        The flags, the config, and its task, which has taken over the values of its flags.

    Raises:
        UserError: The config or a flag is wrong.
    """
    first = Parser("", add_help=False)
    for flags in (("-c", "--config"), ("--model_path",)):
        first.add_argument(*flags, type=file_or_folder)
    first.add_argument("--opts", nargs="+")
    found, _ = first.parse_known_args()
    if not {"-h", "--help"}.intersection(sys.argv):
        _, rest = parser.parse_known_args()  # ends the tool where one of its flags is wrong, before the config is read
        wanted = [f"--{name}" for name in ("config", "model_path") if getattr(found, name) is None]
        for word in rest:  # some are flags of the task, which is not known yet
            if difflib.get_close_matches(word.partition("=")[0], wanted, cutoff=0.85):
                raise FlagError(str(unknown("flag or word", word, wanted)))
        complete_weights(found, parser, default)
    import_paddle_for(*filter(None, [found.config]))

    from paddle_rt.config import build_task, load_config
    from paddle_rt.tasks import base

    config = load_config(found.config, found.opts) if found.config else None
    base.find_task(config.task_name if config else base.DEFAULT).add_flags(parser, tool)
    arguments = parser.parse_args()  # prints the help where it is asked for
    arguments.config, arguments.model_path = found.config, found.model_path
    task = build_task(config)
    with refused_flags():
        task.configure(arguments)
    return arguments, config, task
