"""Whole training iterations, data loading included, of PaddleSeg's loop and of ours, in turns."""

import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from tqdm import tqdm

from paddle_rt.cpu import CODE_PATH, THREADS
from paddle_rt.errors import InternalError
from paddle_rt.imaging.labels import write_label
from paddle_rt.imaging.read_write import write_image

IMAGES = 24
IMAGE_SIZE = (360, 480)  # of CamVid's release with 12 classes


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Args:
        name: Shown in the table.
        loop: "paddleseg" trains PaddleSeg's RTFormer in PaddleSeg's loop, "paddle_rt" ours in ours.
        chooses_cpu: Whether the number of threads and MKL's code path are chosen as our tools choose them.
    """

    name: str
    loop: str
    chooses_cpu: bool


CONTENDERS = (
    Contender("PaddleSeg as its users start it", "paddleseg", False),
    Contender("PaddleSeg with our threads and code path", "paddleseg", True),
    Contender("paddle_rt", "paddle_rt", True),
)


@dataclass(frozen=True)
class LoopPlan:
    """What a benchmark of training loops measures.

    Args:
        batch_size: Images of an iteration.
        size: (height, width) of the training crops.
        steps: Iterations that a loop runs before the next one has its turn.
        rounds: Turns that count; one more is run before them.
    """

    batch_size: int = 4
    size: tuple[int, int] = (240, 320)
    steps: int = 4
    rounds: int = 10


def compare_loops(plan: LoopPlan, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Time the loops of `CONTENDERS` with RTFormer-Slim on image files and PaddleSeg's training transforms.

    Args:
        plan: The plan.
        folder: Gets images, configs and checkpoints; it can be removed afterwards.

    Returns:
        A row for each contender: name, iteration_ms (median), speedup (median of the ratios to the first contender
        within a round), rounds, steps, batch_size and size.
    """
    _write_images(folder / "data")
    seconds: list[list[float]] = [[] for _ in CONTENDERS]
    with _processes(plan, folder) as processes:
        for number in tqdm(range(plan.rounds + 1), "rounds", disable=None):
            for process, times in zip(processes, seconds, strict=True):
                taken = _run_steps(process)
                if number:
                    times.append(taken / plan.steps)
    return [
        {
            "name": contender.name,
            "iteration_ms": 1e3 * statistics.median(times),
            "speedup": statistics.median(a / b for a, b in zip(seconds[0], times, strict=True)),
            **vars(plan),
        }
        for contender, times in zip(CONTENDERS, seconds, strict=True)
    ]


def _write_images(folder: pathlib.Path) -> None:
    """Write rendered street scenes in the layout of a `Dataset`."""
    import numpy as np

    from paddle_rt.streetscenes.scenes import make_scene, render

    palette = np.zeros((19, 3), np.uint8)
    lines = []
    for index in tqdm(range(IMAGES), "images", disable=None):
        image, labels = render(make_scene(index), *IMAGE_SIZE, 0.0)
        write_image(folder / f"images/{index}.jpg", image)
        write_label(folder / f"labels/{index}.png", labels, palette)
        lines.append(f"images/{index}.jpg labels/{index}.png\n")
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")


def _config(plan: LoopPlan, folder: pathlib.Path, loop: str) -> dict[str, Any]:
    height, width = plan.size
    return {
        "batch_size": plan.batch_size,
        "iters": (plan.rounds + 2) * plan.steps + 1,
        "train_dataset": {
            "type": "Dataset",
            "dataset_root": str(folder / "data"),
            "train_path": str(folder / "data" / "train.txt"),
            "num_classes": 19,
            "mode": "train",
            "transforms": [
                {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 2, "scale_step_size": 0.25},
                {"type": "RandomPaddingCrop", "crop_size": [width, height]},
                {"type": "RandomHorizontalFlip"},
                {"type": "RandomDistort", "brightness_range": 0.4, "contrast_range": 0.4, "saturation_range": 0.4},
                {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            ],
        },
        "optimizer": {"type": "AdamW", "weight_decay": 0.0125},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 4e-4, "power": 1.0, "end_lr": 1e-6},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]},
        "model": {
            "type": "PaddleSegRTFormer" if loop == "paddleseg" else "RTFormer",
            "num_classes": 19,
            "base_channels": 32,
            "head_channels": 64,
            "use_injection": [True, True],
        },
    }


@contextmanager
def _processes(plan: LoopPlan, folder: pathlib.Path) -> Iterator[Sequence[subprocess.Popen]]:
    """Start a process for each contender, whose training waits for its first turn."""
    environment = {name: value for name, value in os.environ.items() if name not in (THREADS, CODE_PATH)}
    processes = []
    try:
        for number, contender in enumerate(CONTENDERS):
            config = folder / f"{number}.yml"
            config.write_text(yaml.safe_dump(_config(plan, folder, contender.loop)), encoding="utf-8")
            command = [sys.executable, "-m", "paddle_rt.benchmark.loop_process", contender.loop]
            command += [str(contender.chooses_cpu), str(config), str(folder / f"run_{number}"), str(plan.steps)]
            with open(folder / f"{number}.log", "w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
                )
            processes.append(process)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run_steps(process: subprocess.Popen) -> float:
    """Let a process run its next iterations, and return their seconds."""
    process.stdin.write("go\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise InternalError("a training process of the benchmark has ended; see the log files in its folder")
