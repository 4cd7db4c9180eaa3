"""From a decoded frame to its labels: this project's deployment and PaddleSeg's, side by side.

Every pipeline labels the same frames in turns, so that a machine whose speed drifts slows all of them alike. A speed-up
is the median of the ratios within a round, not the ratio of medians.
"""

import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference import Segmenter
from paddle_rt.inference.engines import check_choice
from paddle_rt.paddleseg.pipeline import PaddleSegPipeline

STAGES = ("preprocess", "network", "labels")
# Threads of OpenMP and ONNX Runtime wait for more work at full load for up to 0.2 s after a frame, on the cores of
# whoever comes next.
_PAUSE = 0.25


@dataclass(frozen=True)
class Choice:
    """One way to run a model: `pipeline` is "paddle_rt" or "paddleseg", `model` a name or a name with arguments."""

    model: str
    pipeline: str
    backend: str
    precision: str
    threads: int
    folder: str

    def load(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from frames to labels with `timings` and `warmup`."""
        if self.pipeline == "paddleseg":
            return PaddleSegPipeline(pathlib.Path(self.folder), self.threads, self.backend)
        return Segmenter(self.folder, self.backend, self.precision, self.threads)


@dataclass
class Record:
    """What was measured of one choice: seconds by run, end to end and by stage, and the labels of each frame."""

    choice: Choice
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    labels: list[np.ndarray] = field(default_factory=list)


def measure(
    choices: Sequence[Choice], frames: Sequence[np.ndarray], runs: int, rounds: Callable[[range], Any] = lambda r: r
) -> list[Record]:
    """Run every choice on the same frame in turns.

    Args:
        choices: What to run.
        frames: uint8 BGR [H, W, 3], taken in turns.
        runs: Rounds whose times count.
        rounds: Wraps the range of rounds, such as a progress bar.

    Returns:
        A record for each choice, with the labels of the first round of each frame.
    """
    records = [Record(choice) for choice in choices]
    pipelines = [choice.load() for choice in choices]
    for pipeline in pipelines:
        pipeline.warmup()
    order = np.random.default_rng(0)
    for number in rounds(range(max(runs, len(frames)))):
        frame = frames[number % len(frames)]
        for index in order.permutation(len(choices)):
            time.sleep(_PAUSE)
            pipelines[index](frame)  # brings its weights and buffers back into the caches
            start = time.perf_counter()
            labels = pipelines[index](frame)
            seconds = time.perf_counter() - start
            record = records[index]
            if number < runs:
                record.seconds.append(seconds)
                for stage in STAGES:
                    record.stages[stage].append(pipelines[index].timings[stage])
            if number < len(frames):
                record.labels.append(labels)
    return records


def true_labels(records: Sequence[Record], frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the others' labels are compared with: PaddleSeg's graph without oneDNN, or the first record's labels."""
    first = records[0].choice
    if first.pipeline != "paddleseg":
        return records[0].labels
    plain = PaddleSegPipeline(pathlib.Path(first.folder), first.threads, onednn=False)
    return [plain(frame) for frame in frames]


def tabulate(
    records: Sequence[Record], truth: dict[str, list[np.ndarray]], size: Sequence[int], operations: dict[str, float],
    floors: dict[tuple[str, str], float | None],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each record; the times of the first are what the others' are compared with.

    Args:
        records: Of what was measured together.
        truth: `true_labels` by the name of the model; for a network that is no other's counterpart there are none.
        size: (height, width).
        operations: Floating-point operations of each network, two for each product and sum, by `Choice.model`.
        floors: Operations a second of a large matrix product by (backend, precision).
    """
    reference = records[0]
    rows = []
    for record in records:
        choice, middle = record.choice, lambda values: 1e3 * statistics.median(values)
        network = statistics.median(record.stages["network"])
        floor, work = floors.get((choice.backend, choice.precision)), operations.get(choice.model)
        pairs = zip(reference.seconds, record.seconds, strict=True)
        expected = truth.get(choice.model.partition(":")[0])
        same = expected and [float((a == b).mean()) for a, b in zip(expected, record.labels, strict=True)]
        rows.append({
            "model": choice.model, "size": list(size), "backend": choice.backend, "precision": choice.precision,
            "threads": choice.threads, "pipeline": choice.pipeline, "end_to_end_ms": middle(record.seconds),
            "p90_ms": 1e3 * float(np.percentile(record.seconds, 90)), "network_ms": 1e3 * network,
            "preprocess_ms": middle(record.stages["preprocess"]), "labels_ms": middle(record.stages["labels"]),
            "fps": 1 / statistics.median(record.seconds), "label_agreement": same and statistics.mean(same),
            "speedup": statistics.median(a / b for a, b in pairs), "peak_rss_mb": peak_memory(choice, size),
            "gflop": work and work / 1e9, "floor_gflop_per_s": floor and floor / 1e9,
            "share_of_floor": floor and work and work / network / floor, "runs": len(record.seconds),
        })  # fmt: skip
    return rows


def peak_memory(choice: Choice, size: Sequence[int]) -> float:
    """Most memory, in MB, that a process of its own held while it loaded the choice and labelled two frames."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, choice, tuple(size)).result()


def _peak_memory(choice: Choice, size: tuple[int, int]) -> float:
    pipeline = choice.load()
    for _ in range(2):
        pipeline(np.zeros((*size, 3), np.uint8))
    # Not ru_maxrss, which a new process inherits from the one that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def count_operations(onnx_file: str | pathlib.Path) -> float:
    """Floating-point operations of the products in an ONNX graph of fixed size, two for each product and sum.

    Raises:
        UserError: The graph leaves sizes open.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(onnx_file)), data_prop=True).graph
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += 2 * np.prod(shapes[node.input[1]][1:]) * np.prod(shapes[node.output[0]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += 2 * np.prod(shapes[node.input[0]][1:]) * shapes[node.output[0]][-1]
        if node.op_type in ("Conv", "MatMul", "Gemm") and 0 in shapes[node.output[0]][1:]:
            raise UserError(f"{onnx_file} leaves sizes open; export it with --input_size to count its operations")
    return float(total)


def possible(backends: Sequence[str], precisions: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of backend and precision that exist on a CPU, and why the others do not."""
    pairs, refusals = [], []
    for backend in backends:
        for precision in precisions:
            try:
                check_choice(backend, "cpu", precision)
            except UserError as error:
                if "unknown" in str(error):
                    raise
                refusals.append(str(error))
            else:
                pairs.append((backend, precision))
    if not pairs:
        raise UserError(f"nothing to measure: {'; '.join(refusals)}")
    return pairs, refusals
