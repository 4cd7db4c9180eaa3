"""The flags of tools that choose an engine, and the backend "auto": the engine that is the fastest one here."""

import argparse
import sys
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from paddle_rt.cli.arguments import device_id, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError
from paddle_rt.inference import BACKENDS, load
from paddle_rt.inference.choice import USUAL, choose_backend
from paddle_rt.inference.engines import DEVICES, PRECISIONS, Profile
from paddle_rt.inference.loading import LibraryPredictor

AUTO = "auto"
_FRAMES = 8


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose an engine to a tool that runs an export."""
    add = parser.add_argument
    add(
        "--backend",
        choices=(AUTO, *BACKENDS),
        default=AUTO,
        help="the engine; auto times the installed ones once for an export and takes the fastest with the same labels",
    )
    add("--device", choices=DEVICES, default="cpu", help="where it computes")
    add("--device_id", type=device_id, default=0, help="the number of the GPU, from 0")
    add("--precision", choices=PRECISIONS, default="fp32", help="in which it computes")
    add("--threads", "--cpu_threads", type=threads, help="CPU threads; by default one for each core")


def load_predictor(arguments: argparse.Namespace, profile: Profile | None = None) -> LibraryPredictor:
    """Load the export that the flags name in the engine that they choose, which may be "auto".

    Args:
        arguments: Has `config` and the flags of `add_engine_flags`; the backend "auto" is replaced in it.
        profile: As for `Predictor`.

    Raises:
        UserError: The export is damaged, or is for a task whose results the tools cannot show.
    """
    settle_backend(arguments)
    if arguments.backend == "paddle":
        import_paddle()
    names = ("backend", "precision", "threads", "device", "device_id")
    engine = [getattr(arguments, name) for name in names]
    predictor = load(arguments.config, *engine, profile, keeps_model=True)
    if not isinstance(predictor, LibraryPredictor):
        raise UserError(
            f"{arguments.config} is an export for neither segmentation, classification nor pose; load it with "
            "paddle_rt.inference.load"
        )
    return predictor


def settle_backend(arguments: argparse.Namespace) -> None:
    """Replace the backend "auto" by the one that is chosen, and print what was found.

    It is chosen for fp32 on the CPU; for another device or precision it is OpenVINO.
    """
    if arguments.backend != AUTO:
        return
    if (arguments.device, arguments.precision) != ("cpu", "fp32"):
        arguments.backend = USUAL
        return
    choice = choose_backend(arguments.config, _render, arguments.threads)
    arguments.backend = choice.backend
    if choice.milliseconds:
        print(f"{choice}{'; measured before' if choice.kept else ''}", file=sys.stderr)


def _render(size: tuple[int, int]) -> Iterator[np.ndarray]:
    from paddle_rt.streetscenes.render import render
    from paddle_rt.streetscenes.scenes import make_scene

    for index in tqdm(range(_FRAMES), "frames to choose a backend", disable=None):
        yield render(make_scene(200_000 + index), *size)[0]
