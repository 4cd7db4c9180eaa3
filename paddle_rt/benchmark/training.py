"""Training steps of PaddleSeg's network and of ours, or of ours with two kinds of layers, in turns: time and memory."""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_rt.benchmark.plan import Model
from paddle_rt.cpu import THREADS, import_paddle

SIDES = ("paddleseg", "paddle_rt")
_state: dict[str, Any] = {}  # of a worker process: what `_build` made


@dataclass(frozen=True)
class TrainingPlan:
    """What a benchmark of training steps measures.

    Args:
        model: The network.
        shape: [B, 3, H, W] of the images.
        num_classes: The number of classes.
        threads: CPU threads of each network.
        runs: Rounds whose times count; one more is run before them.
    """

    model: Model
    shape: Sequence[int]
    num_classes: int = 19
    threads: int = 2
    runs: int = 10


def compare_training(plan: TrainingPlan) -> list[dict[str, Any]]:
    """Time whole steps: forward, cross-entropy at the image's size, backward, AdamW.

    Each network has a process of its own, whose memory is the network's alone. Both have the same initial weights and
    see the same random images.

    Args:
        plan: The plan.

    Returns:
        PaddleSeg's row and ours: model, pipeline, shape, threads, step_ms (median), speedup (median of the ratios
        within a round), peak_rss_mb of the process, step_mb (the memory that the steps added to it), loss of the first
        step, runs.

    Raises:
        UserError: PaddleSeg has no such network.
    """
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pools = {side: stack.enter_context(ProcessPoolExecutor(1, spawn, import_paddle)) for side in SIDES}
        for side, pool in pools.items():
            pool.submit(_build, side, plan).result()
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        losses = {}
        for number in tqdm(range(plan.runs + 1), plan.model.name, disable=None):
            for side, pool in pools.items():
                loss, duration = pool.submit(_step).result()
                losses.setdefault(side, loss)
                if number:
                    seconds[side].append(duration)
        memory = {side: pool.submit(_memory).result() for side, pool in pools.items()}
    rows = []
    for side in SIDES:
        ratios = [a / b for a, b in zip(seconds["paddleseg"], seconds[side], strict=True)]
        rows.append({
            "model": plan.model.name, "pipeline": side, "shape": list(plan.shape), "threads": plan.threads,
            "step_ms": 1e3 * statistics.median(seconds[side]), "speedup": statistics.median(ratios),
            "peak_rss_mb": memory[side][0], "step_mb": memory[side][0] - memory[side][1], "loss": losses[side],
            "runs": plan.runs,
        })  # fmt: skip
    return rows


def _build(side: str, plan: TrainingPlan) -> None:
    """Make the network, its optimizer and the images, in this process."""
    import paddle

    from paddle_rt.checkpoint import load
    from paddle_rt.paddleseg.counterparts import paddleseg_model
    from paddle_rt.registry import create_model, model_config
    from paddle_rt.tasks.segmentation.losses import CrossEntropyLoss

    paddle.base.core.set_num_threads(plan.threads)
    os.environ[THREADS] = str(plan.threads)  # read by the kernels of `paddle_rt.models.cpu_layers`
    paddle.seed(0)
    name, arguments = plan.model.name, plan.model.arguments
    network = create_model(name, plan.num_classes, **arguments)
    if side == "paddleseg":
        weights = {key: value.numpy() for key, value in network.state_dict().items()}
        network = paddleseg_model({**model_config(name), **arguments}, plan.num_classes)
        load(network, weights)
    network.train()
    plain = functools.partial(paddle.nn.functional.cross_entropy, axis=1)
    rng = np.random.default_rng(0)
    batch, _, height, width = plan.shape
    _state.update(
        network=network,
        loss=CrossEntropyLoss() if side == "paddle_rt" else plain,
        optimizer=paddle.optimizer.AdamW(6e-5, parameters=network.parameters(), weight_decay=0.01),
        images=paddle.to_tensor(rng.standard_normal(plan.shape).astype("float32")),
        truth=paddle.to_tensor(rng.integers(0, plan.num_classes, (batch, height, width))),
        before=_memory_in_mb("VmRSS"),
    )


def _step() -> tuple[float, float]:
    """Run one training step and return its loss and its seconds."""
    start = time.perf_counter()
    loss = sum(_state["loss"](logits, _state["truth"]) for logits in _state["network"](_state["images"]))
    loss.backward()
    _state["optimizer"].step()
    _state["optimizer"].clear_grad()
    return float(loss), time.perf_counter() - start


def compare_layers(plan: TrainingPlan) -> dict[str, Any]:
    """Time steps of one network with Paddle's layers and with the kernels of `paddle_rt.models.cpu_layers`, in turns.

    The times are processor time of all threads, which a busy machine changes least.

    Args:
        plan: The plan. The labels have the size of the network's output.

    Returns:
        A row: model, shape, threads, paddle_ms and kernels_ms (medians), speedup (median of the ratios within a round),
        runs.
    """
    import paddle

    from paddle_rt.models.cpu_layers import paddles_layers

    _build("paddle_rt", plan)
    with paddle.no_grad():
        output = _state["network"](_state["images"])[0]
    truth = np.random.default_rng(0).integers(0, output.shape[1], (output.shape[0], *output.shape[2:]))
    _state["truth"] = paddle.to_tensor(truth)
    seconds: dict[str, list[float]] = {"paddle": [], "kernels": []}
    for number in tqdm(range(plan.runs + 1), plan.model.name, disable=None):
        for side, layers in (("paddle", paddles_layers()), ("kernels", contextlib.nullcontext())):
            start = time.process_time()
            with layers:
                _step()
            if number:
                seconds[side].append(time.process_time() - start)
    return {
        "model": plan.model.name, "shape": list(plan.shape), "threads": plan.threads,
        "paddle_ms": 1e3 * statistics.median(seconds["paddle"]),
        "kernels_ms": 1e3 * statistics.median(seconds["kernels"]),
        "speedup": statistics.median(a / b for a, b in zip(*seconds.values(), strict=True)), "runs": plan.runs,
    }  # fmt: skip


def _memory() -> tuple[float, float]:
    """Return the most memory that this process held, and what it held before the first step, in MB."""
    return _memory_in_mb("VmHWM"), _state["before"]


def _memory_in_mb(key: str) -> float:
    return int(pathlib.Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0]) / 1024
