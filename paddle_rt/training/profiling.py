"""Profiles a range of training iterations, as PaddleSeg's flag --profiler_options describes it."""

import pathlib
import re
from typing import Any

from paddle import profiler

from paddle_rt.errors import UserError, shown, unknown

_DEFAULTS = {
    "batch_range": "[10,20]",
    "state": "All",
    "sorted_key": "total",
    "tracer_option": "Default",
    "profile_path": "",
    "exit_on_finished": "True",
}
_ORDERS = {"max": "CPUMax", "min": "CPUMin", "ave": "CPUAvg", "total": "CPUTotal"}
_CHOICES = {
    "state": ("All", "CPU", "GPU"),
    "sorted_key": tuple(_ORDERS),
    "exit_on_finished": ("True", "False", "true", "false", "yes", "no", "1", "0"),
}


class StepProfiler:
    """Profiles the iterations `batch_range`, writes a trace, and prints a summary.

    Args:
        options: "key=value;key=value", or None to profile nothing.
        folder: Where the trace goes unless the options name a profile_path.

    Raises:
        UserError: The options cannot be read.
    """

    def __init__(self, options: str | None, folder: pathlib.Path) -> None:
        self._profiler: Any = None
        if options is None:
            return
        values = read_options(options)
        self._first, self._last = values["batch_range"]
        self._exit = values["exit_on_finished"].lower() in ("true", "yes", "1")
        self._order = _ORDERS[values["sorted_key"]]
        state = values["state"]
        self._profiler = profiler.Profiler(
            targets=None if state == "All" else [getattr(profiler.ProfilerTarget, state)],
            scheduler=(self._first, self._last),
            on_trace_ready=profiler.export_chrome_tracing(values["profile_path"] or str(folder)),
        )
        self._steps = 0
        self._profiler.start()

    def step(self) -> bool:
        """Note the end of an iteration, and return whether the options ask to end the run here."""
        if self._profiler is None:
            return False
        self._profiler.step()
        self._steps += 1
        if self._steps < self._last:
            return False
        self._profiler.stop()
        self._profiler.summary(sorted_by=getattr(profiler.SortedKeys, self._order))
        self._profiler = None
        return self._exit


def read_options(options: str) -> dict[str, Any]:
    """Read PaddleSeg's option string of its profiler.

    Returns:
        The value of every option; `batch_range` as two numbers.

    Raises:
        UserError: An option is unknown, or its value is not what it may be.
    """
    values: dict[str, Any] = dict(_DEFAULTS)
    for option in filter(None, options.replace(" ", "").split(";")):
        key, equals, value = option.partition("=")
        if key not in _DEFAULTS:
            raise unknown("profiler option", key, _DEFAULTS)
        if not equals:
            raise UserError(f"--profiler_options takes key=value;key=value, got {shown(options)}")
        values[key] = value
    for key, valid in _CHOICES.items():
        if values[key] not in valid:
            raise unknown(f"{key} in --profiler_options", values[key], valid)
    numbers = re.fullmatch(r"\[(\d{1,9}),(\d{1,9})\]", values["batch_range"], re.ASCII)
    if not numbers or not int(numbers[1]) < int(numbers[2]):
        raise UserError(
            f"batch_range in --profiler_options takes two increasing iterations such as [10,20], "
            f"got {shown(values['batch_range'])}"
        )
    values["batch_range"] = [int(number) for number in numbers.groups()]
    return values
