"""What an NVIDIA GPU is doing: its clocks, power and temperature, by nvidia-smi."""

import functools
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.inference.engines.gpu import find_gpu, nvidia_smi

_FIELDS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
    "memory_mb": "memory.used",
}
_REASONS = "clocks_event_reasons.active", "clocks_throttle_reasons.active"  # the name of drivers from 535, and before
# The bits that say why the clocks are not higher. Source: NVML's reference, nvmlClocksEventReasons.
_BITS = {
    0x2: "applications' clocks", 0x4: "power limit", 0x8: "hardware slowdown", 0x10: "sync boost",
    0x20: "temperature (driver)", 0x40: "temperature (hardware)", 0x80: "power brake", 0x100: "display clocks",
}  # fmt: skip


def gpu_state() -> dict[str, Any]:
    """Return what the GPU that CUDA counts as 0 is doing now.

    Returns:
        sm_mhz, memory_mhz, power_w, temperature_c, memory_mb (of all processes) and throttled, a list of what holds the
        clocks down; None for what its driver does not say.

    Raises:
        UserError: There is no driver, or it finds no GPU.
    """
    uuid, reasons = _identity()
    fields = [*_FIELDS.values(), *([reasons] if reasons else [])]
    *values, bits = next(values for found, *values in nvidia_smi("uuid", *fields) if found == uuid) + [""] * (
        not reasons
    )
    state: dict[str, Any] = {key: _number(value) for key, value in zip(_FIELDS, values, strict=True)}
    return {**state, "throttled": _throttled(bits)}


@functools.cache
def _identity() -> tuple[str, str | None]:
    """Return the identity of the GPU, and the name that its driver has for what holds the clocks down."""
    uuid = find_gpu().uuid
    for field in _REASONS:
        try:
            nvidia_smi(field)
        except UserError:  # a driver that does not know the field refuses the question
            continue
        return uuid, field
    return uuid, None


def _number(text: str) -> float | None:
    """Return the number in "1350 MHz", or None for what stands in its place where there is none."""
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None


def _throttled(bits: str) -> list[str] | None:
    try:
        number = int(bits, 16)
    except ValueError:  # "[N/A]"
        return None
    return [reason for bit, reason in _BITS.items() if number & bit]
