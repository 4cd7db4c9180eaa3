"""Profiles a range of training iterations, as PaddleSeg's flag --profiler_options describes it."""

import pathlib
from typing import Any

from paddle import profiler

from paddle_rt.errors import UserError, unknown

_DEFAULTS = {
    "batch_range": "[10,20]",
    "state": "All",
    "sorted_key": "total",
    "tracer_option": "Default",
    "profile_path": "",
    "exit_on_finished": "True",
}
_ORDERS = {"max": "CPUMax", "min": "CPUMin", "ave": "CPUAvg", "total": "CPUTotal"}


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
        values = _parse(options)
        self._first, self._last = values["batch_range"]
        self._exit = values["exit_on_finished"].lower() in ("true", "yes", "1")
        self._order = _ORDERS.get(values["sorted_key"], "CPUTotal")
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


def _parse(options: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(_DEFAULTS)
    for option in filter(None, options.replace(" ", "").split(";")):
        key, equals, value = option.partition("=")
        if key not in _DEFAULTS:
            raise unknown("profiler option", key, _DEFAULTS)
        if not equals:
            raise UserError(f"--profiler_options takes key=value;key=value, got {options!r}")
        values[key] = value
    states = ("All", "CPU", "GPU")
    if values["state"] not in states:
        raise unknown("state in --profiler_options", values["state"], states)
    numbers = values["batch_range"].strip("[]").split(",")
    if len(numbers) != 2 or not all(n.isdecimal() for n in numbers) or not int(numbers[0]) < int(numbers[1]):
        raise UserError(
            f"batch_range in --profiler_options takes two increasing iterations such as [10,20], "
            f"got {values['batch_range']}"
        )
    values["batch_range"] = [int(number) for number in numbers]
    return values
