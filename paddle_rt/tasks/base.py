"""The contract of a task: everything that training, export and inference may ask about what a network learns.

The training loop knows batches, a list of losses and a score. What they mean is a task's business: segmentation,
classification, pose, or one that a user registers.
"""

import abc
import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle.io.dataloader.collate import default_collate_fn

from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.tasks.export import ExportSpec

DEFAULT = "segmentation"  # what PaddleSeg's configs, which name no task, are for


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Args:
        values: Scores by name, in the order in which they are shown.
        key: The name of the score that picks the best model; higher is better.
        summary: One line for the log.
        details: Further lines for the log, such as a table of classes.
        report: Everything that `val.py --output` writes, ready for JSON.
        curves: Further values by name, such as the score of each class, of which VisualDL draws curves.
        faults: A line for each thing that a person would look into where a network learns nothing.
        images: Images that flags of `val.py` ask for, uint8 BGR, by the names of their files.
    """

    values: dict[str, float]
    key: str
    summary: str = ""
    details: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The score that picks the best model."""
        return self.values[self.key]


class Task(abc.ABC):
    """What a network learns, described by the sections of a config that belong to the task.

    Attributes:
        name: Value of the config's key `task`.
        config_keys: Top-level keys of the config that this task reads beside those that all tasks share.
        export_class: The class that describes what exports of the task look like.

    Args:
        config: The merged config, checked by `check`.
    """

    name: ClassVar[str]
    config_keys: ClassVar[tuple[str, ...]]
    export_class: ClassVar[type[ExportSpec]] = ExportSpec

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, tool: str) -> None:
        """Add the flags that a tool ("val" or "predict") takes for this task alone."""

    def configure(self, arguments: argparse.Namespace) -> None:
        """Take over the values of the flags that `add_flags` added.

        Raises:
            UserError: They contradict each other or the config.
        """

    @classmethod
    @abc.abstractmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check the task's sections of a merged config, and add what they leave out and others determine.

        Raises:
            UserError: A key, a type or a value in them is missing or wrong.
        """

    @abc.abstractmethod
    def build_data(self, split: str) -> paddle.io.Dataset:
        """Build the data set of a split, "train" or "val".

        Its items are dictionaries that collate into a batch; `img` of a batch is what the network takes.

        Raises:
            UserError: The config has no such split, or its files are missing.
        """

    def check_data(self, train_data: paddle.io.Dataset, val_data: paddle.io.Dataset | None, batch_size: int) -> None:
        """Look at the data sets of a run as a whole, before its first step; by default nothing is looked at.

        Raises:
            UserError: They cannot be trained on in batches of this size.
        """

    def sample_weights(self, train_data: paddle.io.Dataset) -> np.ndarray | None:
        """Return the probability with which each training sample is drawn, or None for each of them once an epoch.

        Every process of a launch has to call it, and all get the same.

        Raises:
            UserError: They cannot be computed from the data.
        """
        return None

    def collate(self, items: list[Any]) -> Any:
        """Make a training batch of items, by default as Paddle does.

        Random numbers have to follow from the items, which are drawn under the seed of the run, its epoch and their
        place: then a run that is resumed sees the batches that it would have seen.
        """
        return default_collate_fn(items)

    @abc.abstractmethod
    def losses(self, outputs: list[paddle.Tensor], batch: Mapping[str, Any]) -> list[paddle.Tensor]:
        """Compute the weighted losses of a training batch; training minimises their sum.

        Raises:
            UserError: The config's losses do not fit the outputs.
        """

    @abc.abstractmethod
    def evaluate(self, network: paddle.nn.Layer, dataset: paddle.io.Dataset, num_workers: int = 0) -> Scores:
        """Score a network on a data set that `build_data("val")` built; every process of a launch has to call it.

        The network is left in evaluation mode.
        """

    @abc.abstractmethod
    def predict(self, network: paddle.nn.Layer, image_path: str, save_dir: str) -> None:
        """Run a network on an image, a folder or a list of images, and write the results below `save_dir`.

        Raises:
            UserError: No image was found, or some could not be read; the others have been written by then.
        """

    def export_spec(self) -> ExportSpec:
        """Return what exports of the task look like; by default they give the network's main output.

        Raises:
            UserError: The config lacks what an export needs.
        """
        return self.export_class(task=self.name)

    def raw_samples(self, split: str, number: int) -> list[tuple[np.ndarray, Any]]:
        """Return frames, uint8 BGR [H, W, 3], and their truths, for the calibration and the scores of int8.

        Args:
            split: "train" or "val".
            number: How many samples to return, at most.

        Raises:
            UserError: The task has no int8, or the data set is missing.
        """
        raise UserError(f"the task {self.name!r} has no samples to quantise a graph with")


_TASKS: dict[str, type[Task]] = {}


def check_required(config: Mapping[str, Any], task: str) -> None:
    """Check that a config has what every task needs to train: the sections train_dataset and loss.

    Raises:
        UserError: One is missing, or is no mapping.
    """
    for key in ("train_dataset", "loss"):
        if not isinstance(config.get(key), dict):
            found = f"must hold a mapping, got {shown(config[key])}" if key in config else "is missing"
            raise UserError(f"config key {key!r} {found}; {task} needs train_dataset and loss")


def register_task(task: type[Task]) -> type[Task]:
    """Make a task known by its name; also works as a decorator of its class."""
    _TASKS[task.name] = task
    return task


def find_task(name: str) -> type[Task]:
    """Return the task of a name.

    Raises:
        UserError: There is no such task.
    """
    import paddle_rt.tasks.classification.task
    import paddle_rt.tasks.pose.task
    import paddle_rt.tasks.segmentation.task  # noqa: F401  all register themselves

    if name not in _TASKS:
        raise unknown("task", name, _TASKS)
    return _TASKS[name]
