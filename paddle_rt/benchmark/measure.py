"""From a decoded frame to its result: our deployment and PaddleSeg's, measured side by side.

Every pipeline processes the same frames in turns, so that a machine whose speed drifts slows all of them alike. A
speed-up is the median of the ratios within a round, not the ratio of medians.
"""

import logging
import os
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_rt.benchmark.floor import Work
from paddle_rt.benchmark.pipelines import Pipeline, prepare_groups
from paddle_rt.benchmark.plan import Plan
from paddle_rt.errors import UserError
from paddle_rt.inference.engines import UnsupportedError

_log = logging.getLogger(__name__)
STAGES = ("preprocess", "network", "labels")
# Seconds before each turn: after a frame the threads of OpenMP and ONNX Runtime wait for more work at full load for up
# to 0.2 s, on the cores that the next pipeline needs.
PAUSE = 0.25
Floors = Mapping[tuple[str, str], float | None]  # operations a second of a large matrix product, by backend, precision


@dataclass
class Record:
    """The measurements of one pipeline.

    Args:
        pipeline: The pipeline.
        seconds: End to end, by run.
        stages: The seconds of each stage, by run.
        labels: The results by frame.
    """

    pipeline: Pipeline
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    labels: list[np.ndarray] = field(default_factory=list)


def run(plan: Plan, frames: Sequence[np.ndarray], floors: Floors) -> list[dict[str, Any]]:
    """Measure each network with its variants, one network after the other.

    If the plan has networks of PaddleSeg alone, all networks are measured with them in the same rounds.

    Args:
        plan: The plan.
        frames: Its frames.
        floors: Operations a second of a large matrix product by (backend, precision).

    Returns:
        The rows of `tabulate`.

    Raises:
        UserError: A network, a checkpoint or an argument is wrong.
    """
    rows = []
    for pipelines, operations in prepare_groups(plan, "cpu", frames):
        records = measure(pipelines, frames, plan.runs_on("cpu"))
        of_name = {name: [r for r in records if r.pipeline.name == name] for name in plan.groups}
        truth = {name: true_labels(of_group, frames) for name, of_group in of_name.items() if of_group}
        rows += tabulate(records, truth, plan.size, operations, floors)
    return rows


def measure(
    pipelines: Sequence[Pipeline], frames: Sequence[np.ndarray], runs: int, pause: float = PAUSE
) -> list[Record]:
    """Run every pipeline on the same frame in turns.

    Args:
        pipelines: The pipelines.
        frames: uint8 BGR [H, W, 3], taken in turns.
        runs: Rounds whose times count.
        pause: Seconds before each turn.

    Returns:
        A record for each pipeline, with the results of the first round of each frame. A pipeline whose precision this
        machine does not have is left out, and a line of the log says so.

    Raises:
        UserError: A pipeline cannot be loaded, or all of them are left out.
    """
    records, loaded, refusals = [], [], []
    for pipeline in pipelines:
        try:
            loaded.append(pipeline.load())
        except UnsupportedError as error:
            refusals.append(str(error))
            _log.warning("left out: %s: %s", pipeline, error)
        else:
            records.append(Record(pipeline))
    if not loaded:
        raise UserError(f"nothing to measure: {'; '.join(refusals)}")
    for predict in loaded:
        predict.warmup()
    order = np.random.default_rng(0)
    for number in tqdm(range(max(runs, len(frames))), "rounds", disable=None):
        frame = frames[number % len(frames)]
        for index in order.permutation(len(loaded)):
            time.sleep(pause)
            predict, record = loaded[index], records[index]
            predict(frame)  # brings its weights and buffers back into the caches
            start = time.perf_counter()
            labels = predict(frame)
            seconds = time.perf_counter() - start
            if number < runs:
                record.seconds.append(seconds)
                for stage in STAGES:
                    record.stages[stage].append(predict.timings[stage])
            if number < len(frames):
                record.labels.append(labels)
    return records


def true_labels(records: Sequence[Record], frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what the other results are compared with.

    These are the labels of PaddleSeg's graph without oneDNN, or of the first record where PaddleSeg is left out.
    """
    first = records[0].pipeline
    if first.side != "paddleseg":
        return records[0].labels
    from paddle_rt.paddleseg.pipeline import PaddleSegPipeline

    plain = PaddleSegPipeline(pathlib.Path(first.folder), first.threads, onednn=False)
    return [plain(frame) for frame in frames]


def tabulate(
    records: Sequence[Record],
    truth: Mapping[str, list[np.ndarray]],
    size: Sequence[int],
    operations: Mapping[str, Work],
    floors: Floors,
) -> list[dict[str, Any]]:
    """Make one row for each record; the times of the first record are what the others' are compared with.

    Args:
        records: What was measured together.
        truth: `true_labels` by the network's name; a network without a counterpart has none.
        size: (height, width).
        operations: The work of each network by `Pipeline.model`.
        floors: Operations a second of a large matrix product by (backend, precision).
    """
    rows = []
    for record in records:
        pipeline = record.pipeline
        expected = truth.get(pipeline.name)
        ratios = [a / b for a, b in zip(records[0].seconds, record.seconds, strict=True)]
        network = statistics.median(record.stages["network"])
        startup, memory = startup_and_memory(pipeline, size)
        floor, work = floors.get((pipeline.backend, pipeline.precision)), operations.get(pipeline.model)
        rows.append({
            "model": pipeline.model, "size": list(size), "backend": pipeline.backend, "device": pipeline.device,
            "precision": pipeline.precision, "threads": pipeline.threads, "pipeline": pipeline.side,
            **times_in_ms("end_to_end", record.seconds), "network_ms": 1e3 * network,
            "preprocess_ms": _median_ms(record.stages["preprocess"]), "labels_ms": _median_ms(record.stages["labels"]),
            "fps": 1 / statistics.median(record.seconds),
            "label_agreement": expected and agreement(expected, record.labels),
            "speedup": statistics.median(ratios), "startup_s": startup, "peak_rss_mb": memory,
            "gflop": work and work.direct / 1e9, "winograd_gflop": work and work.winograd / 1e9,
            "floor_gflop_per_s": floor and floor / 1e9,
            "share_of_floor": floor and work and work.direct / network / floor,
            "share_of_winograd_floor": floor and work and work.winograd / network / floor, "runs": len(record.seconds),
        })  # fmt: skip
    return rows


def _median_ms(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds)


def times_in_ms(scope: str, seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and two percentiles of times by the names that they have in a row.

    The percentiles of the time from a frame to its result, "end_to_end", are named without it.
    """
    prefix = "" if scope == "end_to_end" else f"{scope}_"
    p90, p99 = (1e3 * float(np.percentile(seconds, share)) for share in (90, 99))
    return {f"{scope}_ms": _median_ms(seconds), f"{prefix}p90_ms": p90, f"{prefix}p99_ms": p99}


def agreement(results: Sequence[Any], others: Sequence[Any]) -> float:
    """Return the share, 0 to 1, of a predictor's results that equal those of another one: of pixels, for label maps."""
    return float(np.mean([np.mean(np.equal(a, b)) for a, b in zip(results, others, strict=True)]))


def startup_and_memory(pipeline: Pipeline, size: Sequence[int]) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first result, and the most memory, in MB, that it holds.

    The process loads the pipeline and processes two frames.
    """
    return pipeline.in_own_process(_startup_and_memory, tuple(size))


def _startup_and_memory(pipeline: Pipeline, size: tuple[int, int]) -> tuple[float, float]:
    predict = pipeline.load()
    predict(np.zeros((*size, 3), np.uint8))
    seconds = _age()
    predict(np.zeros((*size, 3), np.uint8))
    return seconds, own_peak_memory()


def _age() -> float:
    """Return the seconds since this process started, to a hundredth."""
    ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def own_peak_memory() -> float:
    """Return the most memory, in MB, that this process has held."""
    # Not ru_maxrss, which a new process inherits from the one that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
