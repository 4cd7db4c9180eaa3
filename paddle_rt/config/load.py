"""A config as one object: read, overridden and checked before anything is built."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddle_rt.config.check import check
from paddle_rt.config.override import override, parse_override
from paddle_rt.config_file import read_config_file
from paddle_rt.errors import UserError
from paddle_rt.tasks import base


@dataclass(frozen=True)
class Config:
    """A config of PaddleSeg's schema, checked to the last key.

    Args:
        path: The file that it was read from.
        values: The merged result, with what the task's check added.
    """

    path: str
    values: Mapping[str, Any]

    @property
    def task_name(self) -> str:
        """The task that the config is for."""
        return self.values.get("task", base.DEFAULT)

    @property
    def batch_size(self) -> int:
        """Samples of one training batch of each process."""
        return self.values["batch_size"]

    @property
    def iters(self) -> int:
        """Iterations of a whole training run."""
        return self.values["iters"]

    @property
    def to_static_training(self) -> bool:
        """Whether the network is trained as a compiled graph."""
        return self.values.get("to_static_training", False)


def load_config(
    path: str,
    opts: list[str] | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    iters: int | None = None,
) -> Config:
    """Read a config of PaddleSeg's schema and check all of it before anything is built.

    Args:
        path: A .yml or .yaml file; its `_base_` files are read relative to it.
        opts: Overrides `a.b.c=value`; a number in the key is a position in a list. They win over everything else.
        learning_rate: Overrides lr_scheduler.learning_rate.
        batch_size: Overrides batch_size.
        iters: Overrides iters.

    Returns:
        The config.

    Raises:
        UserError: The file cannot be read, or a key, type or argument is missing or unknown.
    """
    try:
        # A copy of its own for every section: a YAML anchor makes several of them one object.
        values = _without_sharing(read_config_file(path))
        numbers = [("lr_scheduler.learning_rate", learning_rate), ("batch_size", batch_size), ("iters", iters)]
        for key, value in numbers:
            if value is not None:
                override(values, key, value)
        for item in opts or []:
            override(values, *parse_override(item))
        check(values)
    except UserError as error:
        raise error if path in str(error) else UserError(f"{path}: {error}", error.details) from error
    return Config(path, values)


def _without_sharing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_sharing(part) for key, part in value.items()}
    return [_without_sharing(part) for part in value] if isinstance(value, list) else copy.copy(value)
