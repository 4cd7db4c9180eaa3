"""One training step of PaddleSeg's model and of ours, in turns: time, and memory as the operating system counts it."""

import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

_state: dict[str, Any] = {}  # of a worker process: what `_build` made


def compare_training(
    name: str, arguments: dict[str, Any], num_classes: int, shape: Sequence[int], runs: int, threads: int,
    rounds: Callable[[range], Any] = lambda r: r,
) -> list[dict[str, Any]]:  # fmt: skip
    """Time whole steps: forward, cross-entropy at the image's size, backward, AdamW.

    Each model lives in a process of its own, so that the memory is its alone; both have the same initial weights and
    see the same random images.

    Args:
        name: One of `list_models()`.
        arguments: Of the model.
        num_classes: Number of classes.
        shape: Of the images, [B, 3, H, W].
        runs: Rounds whose times count; one more is run before.
        threads: CPU threads.
        rounds: Wraps the range of rounds, such as a progress bar.

    Returns:
        PaddleSeg's row and ours: model, pipeline, shape, threads, step_ms (median), speedup (median of the ratios
        within a round), peak_rss_mb of the process, step_mb (what the steps added to it), loss of the first step, runs.

    Raises:
        UserError: PaddleSeg has no such model.
    """
    sides = ("paddleseg", "paddle_rt")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as theirs, ProcessPoolExecutor(1, spawn) as ours:
        pools = dict(zip(sides, (theirs, ours), strict=True))
        for side, pool in pools.items():
            pool.submit(_build, side, name, arguments, num_classes, tuple(shape), threads).result()
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        losses = {}
        for number in rounds(range(runs + 1)):
            for side, pool in pools.items():
                loss, duration = pool.submit(_step).result()
                losses.setdefault(side, loss)
                if number:
                    seconds[side].append(duration)
        memory = {side: pool.submit(_memory).result() for side, pool in pools.items()}
    rows = []
    for side in sides:
        pairs = zip(seconds["paddleseg"], seconds[side], strict=True)
        rows.append({
            "model": name, "pipeline": side, "shape": list(shape), "threads": threads,
            "step_ms": 1e3 * statistics.median(seconds[side]), "speedup": statistics.median(a / b for a, b in pairs),
            "peak_rss_mb": memory[side][0], "step_mb": memory[side][0] - memory[side][1], "loss": losses[side],
            "runs": runs,
        })  # fmt: skip
    return rows


def _build(
    side: str, name: str, arguments: dict[str, Any], num_classes: int, shape: tuple[int, ...], threads: int
) -> None:
    """Make the model, its optimizer and the images, in this process."""
    import paddle

    from paddle_rt.checkpoint import load
    from paddle_rt.paddleseg.counterparts import paddleseg_model
    from paddle_rt.registry import create_model, model_config

    paddle.base.core.set_num_threads(threads)
    paddle.seed(0)
    model = create_model(name, num_classes, **arguments)
    if side == "paddleseg":
        weights = {key: value.numpy() for key, value in model.state_dict().items()}
        model = paddleseg_model({**model_config(name), **arguments}, num_classes)
        load(model, weights)
    model.train()
    rng = np.random.default_rng(0)
    batch, _, height, width = shape
    _state.update(
        model=model,
        optimizer=paddle.optimizer.AdamW(6e-5, parameters=model.parameters(), weight_decay=0.01),
        images=paddle.to_tensor(rng.standard_normal(shape).astype("float32")),
        truth=paddle.to_tensor(rng.integers(0, num_classes, (batch, height, width))),
        before=_status("VmRSS"),
    )


def _step() -> tuple[float, float]:
    """One training step: its loss and its seconds."""
    import paddle

    start = time.perf_counter()
    losses = [paddle.nn.functional.cross_entropy(x, _state["truth"], axis=1) for x in _state["model"](_state["images"])]
    loss = sum(losses)
    loss.backward()
    _state["optimizer"].step()
    _state["optimizer"].clear_grad()
    return float(loss), time.perf_counter() - start


def _memory() -> tuple[float, float]:
    """The most that this process held, and what it held before the first step, in MB."""
    return _status("VmHWM"), _state["before"]


def _status(key: str) -> float:
    return int(pathlib.Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) / 1024
