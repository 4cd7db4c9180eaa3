"""Checks of the sections of a config that all tasks share; the task checks its own."""

import math
import re
from typing import Any

from paddle_rt import registry
from paddle_rt.arguments import RANGES
from paddle_rt.components import check_network
from paddle_rt.config.optimizer import check_optimizer, check_schedule
from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.paddledetection import refuse_keys
from paddle_rt.tasks import base

REQUIRED = ("batch_size", "iters", "optimizer", "lr_scheduler", "model")
OPTIONAL = ("task", "to_static_training")


def check(values: dict[str, Any]) -> None:
    """Check a merged config, and let its task add what follows from its sections.

    Args:
        values: The merged config.

    Raises:
        UserError: Names the first key, type or argument that is missing, unknown or not what it may be.
    """
    if not isinstance(values.get("task", ""), str):
        raise UserError(f"task must be the name of a task, got {shown(values['task'])}")
    refuse_keys(values)
    task = base.find_task(values.get("task", base.DEFAULT))
    valid = (*REQUIRED, *OPTIONAL, *task.config_keys)
    for key in values:
        if key not in valid:
            raise unknown("config key", key, valid)
    for key in REQUIRED:
        if key not in values:
            raise UserError(f"config key {key!r} is missing; a config needs {', '.join(REQUIRED)}")
    _check_numbers("", values)
    for key, kind in RANGES["config"].items():
        if key in values and not kind.accepts(values[key]):
            raise UserError(f"{key} must be {kind.valid}, got {shown(values[key])}")
    for key in ("optimizer", "lr_scheduler", "model"):
        if not isinstance(values[key], dict):
            raise UserError(f"config key {key!r} must hold a mapping, got {shown(values[key])}")
    check_network(values["model"])
    _check_task_of_network(values["model"], task.name)
    check_optimizer(values["optimizer"])
    check_schedule(values["lr_scheduler"], values["iters"])
    task.check(values)


def _check_task_of_network(section: dict[str, Any], task: str) -> None:
    """Refuse a network of another task, if the config's task has networks of its own."""
    tasks = {entry.task for entry in registry.entries_of(section["type"])}
    valid = registry.class_names(task)
    if tasks and valid and task not in tasks:
        raise UserError(
            f"model.type {section['type']} is a network for {' or '.join(tasks)}, but the config's task is {task}; "
            f"change task, or take {' or '.join(valid)}"
        )


def _check_numbers(where: str, value: Any) -> None:
    """Refuse 1e-3 and 1.0e3, which YAML reads as texts for want of a point or a sign, and what is not finite."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,20}\.?\d{0,20}[eE][-+]?\d{1,3}", value):
        written = f"{float(value):.1e}"
        raise UserError(f"{where} is the text {value!r}: YAML wants a point and the exponent's sign, {written}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(f"{where}.{key}".lstrip("."), part)
    elif isinstance(value, list):
        for position, part in enumerate(value):
            _check_numbers(f"{where}[{position}]", part)
