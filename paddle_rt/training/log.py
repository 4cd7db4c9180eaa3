"""What a run tells: log lines in PaddleSeg's form, metrics.jsonl, a VisualDL log, and a progress bar on a terminal."""

import json
import logging
import pathlib
import statistics
import time
from typing import Any

import paddle
from tqdm import tqdm

from paddle_rt.files import flush, temporary_home, whole_file
from paddle_rt.run_logs import METRICS, append_whole, drop_partial_record, read_metrics, write_records
from paddle_rt.tasks.base import Scores
from paddle_rt.training.order import SampleOrder
from paddle_rt.training.state import Progress

_log = logging.getLogger(__name__)
_DIAGNOSED = 3  # evaluations of a run after which the log says what may be wrong
_FALLS = 0.97  # a loss that falls is below this share of the one at the start


class RunLog:
    """Collects the numbers of iterations and writes them every `log_iters` iterations; only the first process writes.

    Args:
        save_dir: Folder of metrics.jsonl and of the VisualDL log.
        iters: Iterations of the whole run.
        progress: The iterations that are done, and their losses since the last line. Rows of metrics.jsonl that an
            interrupted run has written after that are removed.
        log_iters: Iterations between lines.
        use_vdl: Also write a VisualDL log.
    """

    def __init__(self, save_dir: pathlib.Path, iters: int, progress: Progress, log_iters: int, use_vdl: bool) -> None:
        self.iters, self.log_iters, self.losses = iters, log_iters, progress.losses
        self.writes = paddle.distributed.get_rank() == 0
        self.reader_seconds: list[float] = []
        self.batch_seconds: list[float] = []
        self._file, self._vdl = save_dir / METRICS, None
        self._began = time.perf_counter()
        self._progress = progress
        self._lines: list[float] | None = None if progress.iteration else []  # the losses from the start of the run on
        if not self.writes:
            return
        _remove_rows_after(self._file, progress)
        for file in filter(pathlib.Path.is_file, save_dir.glob("vdlrecords.*.log")):
            drop_partial_record(file)
        if use_vdl:
            self._vdl = _VisualDL(save_dir)
        self._bar = tqdm(
            total=iters, initial=progress.iteration, desc="train", unit="it", disable=None, dynamic_ncols=True
        )

    def is_due(self, iteration: int) -> bool:
        """Tell whether a line is written after this iteration."""
        return iteration % self.log_iters == 0

    def batch_read(self) -> None:
        """Note that the samples of an iteration have arrived."""
        self.reader_seconds.append(time.perf_counter() - self._began)

    def step(self, iteration: int, order: SampleOrder, losses: list[float], lr: float, norm: float) -> None:
        """Note the numbers of an iteration, and write a line if one is due.

        Args:
            iteration: Counted from 1.
            order: Knows the epoch and the samples of an iteration.
            losses: The weighted losses; their sum is minimised.
            lr: Learning rate of the iteration.
            norm: Norm of all gradients before any clipping.
        """
        self.losses.append(losses)
        self.batch_seconds.append(time.perf_counter() - self._began)
        if self.writes:
            self._bar.update()
        if self.is_due(iteration):
            if self.writes:
                self._write_line(iteration, order, lr, norm)
            for numbers in (self.losses, self.reader_seconds, self.batch_seconds):
                numbers.clear()
        self._began = time.perf_counter()

    def _write_line(self, iteration: int, order: SampleOrder, lr: float, norm: float) -> None:
        parts = [statistics.fmean(column) for column in zip(*self.losses, strict=True)]
        if self._lines is not None:
            self._lines.append(sum(parts))
        loss, batch, reader = sum(parts), statistics.fmean(self.batch_seconds), statistics.fmean(self.reader_seconds)
        epoch, speed = order.epoch(iteration) + 1, order.samples_per_iteration / batch
        left = int(batch * (self.iters - iteration))
        eta = f"{left // 3600:02d}:{left // 60 % 60:02d}:{left % 60:02d}"
        _log.info(
            f"[TRAIN] epoch: {epoch}, iter: {iteration}/{self.iters}, loss: {loss:.4f}, lr: {lr:.6f}, "
            f"batch_cost: {batch:.4f}, reader_cost: {reader:.5f}, ips: {speed:.4f} samples/sec, grad_norm: {norm:.4f} "
            f"| ETA {eta}"
        )
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        numbers = {"loss": loss, "lr": lr, "batch_cost": batch, "reader_cost": reader, "grad_norm": norm, "ips": speed}
        self._write_row({"kind": "train", "iter": iteration, "epoch": epoch, **numbers, "losses": parts})
        if self._vdl is not None:
            each = {f"loss_{number}": value for number, value in enumerate(parts)} if len(parts) > 1 else {}
            self._vdl.add("Train/", {**numbers, **each}, iteration)

    def evaluation(self, iteration: int, name: str, scores: Scores) -> None:
        """Write the scores of a network; `name` is "model" or "ema_model"."""
        if not self.writes:
            return
        if name == "ema_model":
            _log.info("[EVAL] The moving average of the weights:")
        for text in (scores.summary, *scores.details):
            _log.info(text)
        self._write_row({"kind": "eval", "iter": iteration, "model": name, **scores.values})
        if self._vdl is not None:
            prefix = "Evaluate/Ema_" if name == "ema_model" else "Evaluate/"
            self._vdl.add(prefix, {**scores.values, **scores.curves}, iteration)

        scored = sum(row["model"] == "model" for row in self._progress.history)
        if name == "model" and scored <= _DIAGNOSED:
            for line in (*scores.faults, *loss_faults(self._lines or [])):
                _log.warning(f"[CHECK] {line}")

    def _write_row(self, row: dict[str, Any]) -> None:
        append_whole(self._file, f"{json.dumps(row)}\n".encode())

    def close(self) -> None:
        """End the progress bar."""
        if self.writes:
            self._bar.close()


def loss_faults(losses: list[float]) -> list[str]:
    """Return a line where the losses, one a log line from the start of a run on, say that it learns nothing."""
    quarter = len(losses) // 4
    if not quarter:
        return []
    if not any(losses):
        return ["the loss has been 0 from the start: every pixel of the training labels may be the ignored value"]
    first, last = statistics.fmean(losses[:quarter]), statistics.fmean(losses[-quarter:])
    if last <= _FALLS * first:
        return []
    return [
        f"the loss does not fall: {first:.4f} in the first quarter of the run so far, {last:.4f} in the last; look at "
        "the learning rate, and at the labels over their images (check-data --output)"
    ]


class _VisualDL:
    """A new VisualDL log in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        with temporary_home():
            from visualdl.component.base_component import meta_data, scalar

        self._scalar = scalar
        self._file = folder / f"vdlrecords.{int(time.time()):010d}.log"
        write_records(self._file, [meta_data(walltime=_milliseconds())])

    def add(self, prefix: str, numbers: dict[str, float], iteration: int) -> None:
        """Append the numbers of an iteration; their tags are the prefix and their names."""
        now = _milliseconds()
        write_records(self._file, [self._scalar(prefix + name, n, iteration, now) for name, n in numbers.items()])


def _milliseconds() -> int:
    return round(time.time() * 1000)


def _remove_rows_after(file: pathlib.Path, progress: Progress) -> None:
    """Leave those rows in metrics.jsonl that an uninterrupted run would have written by now."""
    if not file.is_file():
        return

    def stays(row: dict[str, Any]) -> bool:
        is_repeated = progress.owes_evaluation and row["kind"] == "eval"
        return row["iter"] < progress.iteration + (not is_repeated)

    text = "".join(json.dumps(row) + "\n" for row in read_metrics(file) if stays(row)).encode()
    if text != file.read_bytes():
        with whole_file(file) as temporary:
            temporary.write_bytes(text)
            flush(temporary)


def table(history: list[dict[str, Any]]) -> str:
    """Lay out the evaluations of a run: a row each, a column a score.

    Args:
        history: Each with the iteration, the network's name and its scores.
    """
    names = list(dict.fromkeys(name for row in history for name in row["scores"]))
    widths = {name: max(9, len(name) + 1) for name in names}
    lines = [f"{'iter':>8}  {'model':<9}" + "".join(f"{name:>{width}}" for name, width in widths.items())]
    for row in history:
        cells = "".join(f"{row['scores'].get(name, float('nan')):{width}.4f}" for name, width in widths.items())
        lines.append(f"{row['iter']:>8}  {row['model']:<9}{cells}")
    return "\n".join(lines)
