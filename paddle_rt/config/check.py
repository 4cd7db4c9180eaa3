"""Checks of the sections of a config that all tasks share; the task checks its own."""

import math
import re
from typing import Any

from paddle_rt.components import check_network
from paddle_rt.config.optimizer import check_optimizer, check_schedule
from paddle_rt.errors import UserError, check_count, unknown
from paddle_rt.tasks import base

REQUIRED = ("batch_size", "iters", "optimizer", "lr_scheduler", "model")
OPTIONAL = ("task", "to_static_training")


def check(values: dict[str, Any]) -> None:
    """Check a merged config, and let its task add what follows from its sections.

    Args:
        values: The merged config.

    Raises:
        UserError: Names the first key, type or argument that is missing or unknown.
    """
    if not isinstance(values.get("task", ""), str):
        raise UserError(f"task must be the name of a task, got {values['task']!r}")
    task = base.find_task(values.get("task", base.DEFAULT))
    valid = (*REQUIRED, *OPTIONAL, *task.config_keys)
    for key in values:
        if key not in valid:
            raise unknown("config key", key, valid)
    for key in REQUIRED:
        if key not in values:
            raise UserError(f"config key {key!r} is missing; a config needs {', '.join(REQUIRED)}")
    for key in ("batch_size", "iters"):
        check_count(key, values[key])
    for key in ("optimizer", "lr_scheduler", "model"):
        if not isinstance(values[key], dict):
            raise UserError(f"config key {key!r} must hold a mapping, got {values[key]!r}")
    _check_numbers("", values)
    check_network(values["model"])
    check_optimizer(values["optimizer"])
    check_schedule(values["lr_scheduler"])
    if not isinstance(values.get("to_static_training", False), bool):
        raise UserError(f"to_static_training must be True or False, got {values['to_static_training']!r}")
    task.check(values)


def _check_numbers(where: str, value: Any) -> None:
    """Refuse 1e-3, which YAML reads as a text for want of a point, and what is not a finite number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        raise UserError(f"{where} is the text {value!r}: with an exponent, YAML wants a point too: {float(value):.1e}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _check_numbers(f"{where}.{key}".lstrip("."), part)
