"""The device that a process computes on, and the seeds of its random generators."""

import logging
import random

import numpy as np
import paddle

_log = logging.getLogger(__name__)


def set_up(device: str, seed: int | None = None) -> None:
    """Join the launch's other processes, choose the device, and seed the generators.

    Args:
        device: "cpu", "gpu", "xpu" or a custom device of Paddle; the CPU where Paddle has no such device.
        seed: Seed of all random generators, or None to leave them as they are.
    """
    # Paddle's own handler may wait for ever when a signal strikes within malloc.
    paddle.disable_signal_handler()
    if paddle.distributed.ParallelEnv().nranks > 1 and not paddle.distributed.is_initialized():
        paddle.distributed.init_parallel_env()
    place = device if _has(device) else "cpu"
    paddle.set_device(place)
    _log.info(f"Set device: {place}")
    set_seed(seed)


def set_seed(seed: int | None) -> None:
    """Seed the generators of Paddle, NumPy and Python; None leaves them as they are."""
    if seed is not None:
        paddle.seed(seed)
        np.random.seed(seed)
        random.seed(seed)


def _has(device: str) -> bool:
    if device == "gpu":
        return paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device == "xpu":
        return paddle.is_compiled_with_xpu()
    return device in paddle.device.get_all_custom_device_type()
