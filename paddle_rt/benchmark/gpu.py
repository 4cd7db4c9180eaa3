"""Pipelines on an NVIDIA GPU, measured in blocks: one at a time is in memory, in a process of its own.

Engines that share a GPU share its memory, caches and clocks, which change with its temperature. So a pipeline is not
run in turns with others, frame by frame, as on a CPU: it has a block of time, every pipeline has `BLOCKS` of them, and
their order is turned from one time to the next. What the GPU was doing is asked before and within each block.
"""

import contextlib
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_rt.benchmark.floor import Work
from paddle_rt.benchmark.measure import agreement, own_peak_memory, times_in_ms
from paddle_rt.benchmark.nvidia import gpu_state
from paddle_rt.benchmark.pipelines import Pipeline, prepare_groups
from paddle_rt.benchmark.plan import Plan
from paddle_rt.errors import UserError
from paddle_rt.inference import load_deployment
from paddle_rt.inference.engines import brief
from paddle_rt.inference.engines.gpu import find_gpu

_log = logging.getLogger(__name__)
BLOCKS = 2
WARM_UP = (50, 2.0)  # runs and seconds, both at least
# What is timed: the graph with its input and output on the device, the same with copies from and to the host, and the
# pipeline from a frame to its result.
SCOPES = ("network", "with_copies", "end_to_end")
_STAGES = ("preprocess", "labels")


@dataclass(frozen=True)
class Block:
    """What one process measured of one pipeline.

    Args:
        seconds: The times of the runs, by scope.
        stages: The times of the stages of the runs end to end.
        results: The pipeline's results, by frame.
        load_seconds: Until the first result.
        peak_rss_mb: The most memory that the process held, in MB.
        states: `gpu_state` before the pipeline was loaded and after the runs of each scope.
        report: `Engine.report`.
    """

    seconds: dict[str, list[float]]
    stages: dict[str, list[float]]
    results: list[Any]
    load_seconds: float
    peak_rss_mb: float
    states: list[dict[str, Any]]
    report: dict[str, Any]


def run(plan: Plan, frames: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """Measure each network with its variants on the GPU, one network after the other.

    Args:
        plan: The plan.
        frames: Its frames.

    Returns:
        The rows of `tabulate`, with the GPU's name, compute capability and driver.

    Raises:
        UserError: There is no GPU; a network, a checkpoint or an argument is wrong; or no pipeline of a network runs.
    """
    rows, gpu = [], find_gpu()
    for pipelines, operations in prepare_groups(plan, "gpu", frames):
        blocks = measure(pipelines, frames, plan.runs_on("gpu"))
        expected = references([pipeline for pipeline in pipelines if pipeline.side == "paddle_rt"], frames)
        rows += tabulate(blocks, expected, plan.size, operations)
    facts = {"gpu": gpu.name, "capability": list(gpu.capability), "driver": gpu.driver}
    return [{**row, **facts} for row in rows]


def measure(pipelines: Sequence[Pipeline], frames: Sequence[np.ndarray], runs: int) -> dict[Pipeline, list[Block]]:
    """Give every pipeline `BLOCKS` blocks. One that fails is left out, and a line of the log says why.

    Raises:
        UserError: Every pipeline fails.
    """
    blocks: dict[Pipeline, list[Block]] = {pipeline: [] for pipeline in pipelines}
    failures = []
    bar = tqdm(total=BLOCKS * len(pipelines), desc="blocks", disable=None)
    for number in range(BLOCKS):
        for pipeline in list(blocks)[:: -1 if number % 2 else 1]:
            bar.set_postfix_str(str(pipeline))
            try:
                blocks[pipeline].append(pipeline.in_own_process(measure_block, frames, runs))
            except (UserError, BrokenProcessPool) as error:
                reason = "its engine ended the process" if isinstance(error, BrokenProcessPool) else error
                failures.append(f"{pipeline}: {reason}")
                _log.warning("left out: %s", failures[-1])
                del blocks[pipeline]
            bar.update()
    bar.close()
    if not blocks:
        raise UserError(f"nothing could be measured: {'; '.join(failures)}")
    return blocks


def measure_block(
    pipeline: Pipeline, frames: Sequence[np.ndarray], runs: int, warm_up: tuple[int, float] = WARM_UP
) -> Block:
    """Load a pipeline and time it in every scope, in this process.

    Args:
        pipeline: The pipeline.
        frames: uint8 BGR [H, W, 3], taken in turns.
        runs: Runs of each scope whose times count.
        warm_up: The least runs and seconds before them.

    Raises:
        UserError: The pipeline cannot be loaded, or its engine fails.
    """
    states = [gpu_state()]
    start = time.perf_counter()
    predict = pipeline.load()
    predict.warmup()
    results = [predict(frames[0])]
    load_seconds = time.perf_counter() - start
    results += [predict(frame) for frame in frames[1:]]
    seconds = {}
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for scope, calls in _scopes(predict, frames).items():
        with _failing(scope):
            _warm_up(calls, *warm_up)
            seconds[scope] = []
            for call in itertools.islice(itertools.cycle(calls), runs):
                start = time.perf_counter()
                call()
                seconds[scope].append(time.perf_counter() - start)
                if scope == "end_to_end":
                    for stage in _STAGES:
                        stages[stage].append(predict.timings[stage])
        states.append(gpu_state())
    report = predict.engine_and_inputs(frames[0])[0].report
    return Block(seconds, stages, results, load_seconds, own_peak_memory(), states, report)


def _scopes(predict: Any, frames: Sequence[np.ndarray]) -> dict[str, list[Callable[[], Any]]]:
    """Return functions that do what a scope is about, one for each frame; the first scope has one frame."""
    engines = [predict.engine_and_inputs(frame) for frame in frames]
    engine, first = engines[0]
    graph = engine.run if len(first) == 1 else engine.step
    return {
        "network": [engine.resident(*first)],
        "with_copies": [partial(graph, *inputs) for _, inputs in engines],
        "end_to_end": [partial(predict, frame) for frame in frames],
    }


def _warm_up(calls: Sequence[Callable[[], Any]], runs: int, seconds: float) -> None:
    start = time.perf_counter()
    for number, call in enumerate(itertools.cycle(calls)):
        if number >= runs and time.perf_counter() - start >= seconds:
            return
        call()


@contextlib.contextmanager
def _failing(scope: str) -> Iterator[None]:
    """Turn what an engine raises while it runs, such as for lack of memory, into a UserError."""
    try:
        yield
    except Exception as error:  # each engine has its own exceptions
        raise UserError(f"the engine fails in {scope}: {brief(error)}") from error


def references(pipelines: Sequence[Pipeline], frames: Sequence[np.ndarray]) -> dict[str, list[Any]]:
    """Compute what the results are compared with: those of each export in single precision on the CPU.

    Returns:
        The results by frame, by `Pipeline.folder`.
    """
    found: dict[str, list[Any]] = {}
    for pipeline in pipelines:
        if pipeline.folder not in found:
            backend = "onnxruntime" if load_deployment(pipeline.folder).onnx else "paddle"
            exact = replace(pipeline, backend=backend, device="cpu", precision="fp32")
            found[pipeline.folder] = exact.in_own_process(_results, frames)
    return found


def _results(pipeline: Pipeline, frames: Sequence[np.ndarray]) -> list[Any]:
    predict = pipeline.load()
    return [predict(frame) for frame in frames]


def tabulate(
    blocks: Mapping[Pipeline, Sequence[Block]],
    expected: Mapping[str, list[Any]],
    size: Sequence[int],
    operations: Mapping[str, Work],
) -> list[dict[str, Any]]:
    """Make one row for each pipeline; the times of the first one are what the others' are compared with.

    Args:
        blocks: What was measured of pipelines of one group.
        expected: `references` by the folder of an export; PaddleSeg's pipeline is compared with the first of its group.
        size: (height, width).
        operations: The work of each network by `Pipeline.model`.

    Returns:
        Rows with the keys of a row of a CPU and, besides: network and with_copies with their percentiles, load_s,
        gpu_memory_mb, blocks, gpu_states, and the engine's report.
    """
    rows = []
    first = next(iter(blocks.values()))
    first_of_group = {p.name: p.folder for p in reversed(blocks) if p.folder in expected}
    for pipeline, measured in blocks.items():
        results = expected.get(pipeline.folder, expected.get(first_of_group.get(pipeline.name)))
        ratios = [a / b for a, b in zip(_medians(first), _medians(measured), strict=True)]
        row = {
            "model": pipeline.model, "size": list(size), "backend": pipeline.backend, "device": pipeline.device,
            "precision": pipeline.precision, "threads": pipeline.threads, "pipeline": pipeline.side,
            "output_op": pipeline.output_op,
        }  # fmt: skip
        for scope in SCOPES:
            row |= times_in_ms(scope, [second for block in measured for second in block.seconds[scope]])
        for stage in _STAGES:
            row[f"{stage}_ms"] = 1e3 * statistics.median(s for block in measured for s in block.stages[stage])
        work = operations.get(pipeline.model)
        row |= {
            "fps": 1e3 / row["end_to_end_ms"], "network_fps": 1e3 / row["network_ms"],
            "label_agreement": results and agreement(results, measured[0].results),
            "speedup": statistics.median(ratios), "peak_rss_mb": max(block.peak_rss_mb for block in measured),
            "gflop": work and work.direct / 1e9, "floor_gflop_per_s": None, "share_of_floor": None,
            "runs": sum(len(block.seconds["network"]) for block in measured), "blocks": len(measured),
            "load_s": measured[0].load_seconds, "gpu_memory_mb": _gpu_memory(measured),
            "gpu_states": [block.states for block in measured], **measured[0].report,
        }  # fmt: skip
        rows.append(row)
    return rows


def _medians(blocks: Sequence[Block]) -> list[float]:
    return [statistics.median(block.seconds["end_to_end"]) for block in blocks]


def _gpu_memory(blocks: Sequence[Block]) -> float | None:
    """Return the most memory of the GPU that was in use after the runs, less what was before, in MB."""
    before = [block.states[0]["memory_mb"] for block in blocks]
    after = [max((s["memory_mb"] or 0 for s in block.states[1:]), default=0) for block in blocks]
    return None if None in before else max(b - a for a, b in zip(before, after, strict=True))
