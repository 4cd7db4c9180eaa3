"""The backend "auto" of tools: the engine that is the fastest one here."""

import argparse
import sys
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from paddle_rt.inference.choice import USUAL, choose_backend

AUTO = "auto"
_FRAMES = 8


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
