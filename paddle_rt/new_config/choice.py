"""Which numbers a config gets: from what the analysis of the data found, and from the machine."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_rt.analysis import Report
from paddle_rt.registry import find_entry

LEAST_SIDE = 192  # pixels that smaller images are enlarged to: the networks' outputs have 1/4 or 1/8 of the size
_TINY = 128
_MOST_SHORT = {"cpu": 320, "gpu": 1024}  # of the shorter side of an image; larger ones are reduced
_MOST_CROP = {"cpu": (320, 512), "gpu": (512, 1024)}  # height and width
_MOST_BATCH = {"cpu": 4, "gpu": 16}
_PIXELS_OF_A_GB = 250_000  # of a batch, for each GB of a GPU
_EPOCHS, _MOST_ITERS = 40, 40_000
_BALANCED = 5.0  # the largest class may be so many times the rarest one without weights
_MOST_WEIGHT = 20.0
_SIDES = re.compile(r"\b(left|right)\b|左|右", re.IGNORECASE)


@dataclass(frozen=True)
class Family:
    """What the networks of one class share when they are trained from random weights.

    Args:
        learning_rate: The highest rate.
        optimizer: The section of the config.
        coef: The weight of each of the network's losses.
        model: Keys of the model's section besides type and variant.
        power: Of the polynomial by which the rate falls.
    """

    learning_rate: float
    optimizer: str
    coef: Sequence[float]
    model: str = ""
    power: float = 1.0


FAMILIES = {
    "RTFormer": Family(
        1e-3, "{type: AdamW, beta1: 0.9, beta2: 0.999, weight_decay: 0.0125}", [1, 0.4],
        "drop_path_rate: 0.0\n  # running statistics of BatchNorm settle within so short a run (the release: 0.1)\n"
        "  bn_momentum: 0.9",
    ),
    "FANet": Family(1e-2, "{type: SGD, momentum: 0.9, weight_decay: 5.0e-4}", [1, 0.5, 0.5], power=0.9),
    "SegFormerPlusPlus": Family(
        1e-3, "{type: AdamW, beta1: 0.9, beta2: 0.999, weight_decay: 0.01}", [1], "head: conv\n  drop_path_rate: 0.0",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What trains.

    Args:
        device: "cpu" or "gpu".
        threads: CPU threads of Paddle.
        memory_gb: Memory of the GPU; 0 without one.
    """

    device: str
    threads: int
    memory_gb: float = 0.0

    def __str__(self) -> str:
        threads = f"CPU, {self.threads} thread{'s' * (self.threads > 1)}"
        return threads if self.device == "cpu" else f"GPU of {self.memory_gb:.0f} GB"


@dataclass(frozen=True)
class Choice:
    """The numbers of a config.

    Args:
        short_size: The shorter side that images are resized to; None to leave them as they are.
        crop: Height and width of what is trained on.
        scales: Smallest and largest factor by which images are scaled at random.
        flip: Whether images are mirrored at random.
        batch_size: Images of a batch.
        least_iters: Iterations that random weights need at least, by the number of classes.
        wanted_iters: Iterations without a limit on time.
        weights: A weight for each class in the loss; None for equal ones.
    """

    short_size: int | None
    crop: tuple[int, int]
    scales: tuple[float, float]
    flip: bool
    batch_size: int
    least_iters: int
    wanted_iters: int
    weights: list[float] | None


def choose(report: Report, machine: Machine) -> Choice:
    """Choose the numbers of a config.

    Args:
        report: The analysis; its first data set is the one to train on.
        machine: What trains.
    """
    train, *_ = report.splits.values()
    height, width = np.median(np.array(train.sizes), axis=0).astype(int).tolist()
    short, most = min(height, width), _MOST_SHORT[machine.device]
    short_size = LEAST_SIDE if short < _TINY else most if short > most else None
    factor = 1 if short_size is None else short_size / short
    crop = tuple(min(math.ceil(side * factor / 32) * 32, limit)
                 for side, limit in zip((height, width), _MOST_CROP[machine.device], strict=True))  # fmt: skip
    number = len(train.facts)
    fits = _MOST_BATCH["cpu"] if machine.device == "cpu" else int(machine.memory_gb * _PIXELS_OF_A_GB / math.prod(crop))
    batch_size = max(1, min(fits, _MOST_BATCH[machine.device], number))
    least = 500 + 50 * len(report.class_names)
    wanted = min(max(least, math.ceil(_EPOCHS * number / batch_size)), _MOST_ITERS)
    scales = (0.75, 1.5) if machine.device == "cpu" else (0.5, 2.0)
    flip = not any(_SIDES.search(name.replace("_", " ")) for name in report.class_names)
    return Choice(short_size, crop, scales, flip, batch_size, least, wanted, class_weights(report))


def class_weights(report: Report) -> list[float] | None:
    """Return the square roots of the weights by median frequency, or None where the classes are even enough.

    The weights themselves make a rare class so dear that it spreads far over its outlines.
    """
    train, *_ = report.splits.values()
    counts = [train.counts.pixels[label] for label in sorted(train.counts.classes)]
    if not counts or max(counts) <= _BALANCED * min(counts):
        return None
    return [round(min(math.sqrt(weight), _MOST_WEIGHT), 2) for weight in report.class_weights]


def iterations(choice: Choice, seconds: float | None, hours: float) -> int:
    """Return how many iterations there are time for.

    Args:
        choice: The other numbers.
        seconds: What one iteration takes; None where that is not known.
        hours: The longest that training may take.
    """
    if seconds is None:
        return choice.wanted_iters
    most = max(int(hours * 3600 / seconds), 100)
    return most if most < 100 * 2 else min(choice.wanted_iters, most // 100 * 100)


def family_of(model: str) -> Family:
    """Return what the family of a named network shares."""
    return FAMILIES[find_entry(model).class_name]
