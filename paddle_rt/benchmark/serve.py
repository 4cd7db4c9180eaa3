"""The service under load beside the bare predictor: requests a second, and how long each of them takes."""

import http.client
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from paddle_rt.errors import InternalError, UserError
from paddle_rt.inference import load
from paddle_rt.inference.segmenter import FrameSegmenter
from paddle_rt.serving.outputs import Item, Upload, decode, outputs_of, predict
from paddle_rt.streetscenes.render import render
from paddle_rt.streetscenes.scenes import make_scene

COLUMNS = (
    ("pipeline", "pipeline", "{}"), ("clients", "clients", "{}"), ("requests per s", "rate", "{:.2f}"),
    ("of the bare Segmenter", "share", "{:.0%}"), ("p50 ms", "p50_ms", "{:.1f}"), ("p99 ms", "p99_ms", "{:.1f}"),
    ("requests", "requests", "{}"), ("refused", "refused", "{}"), ("same answers", "same", "{:.2%}"),
)  # fmt: skip
_FRAMES = 4  # different images, which the clients send in turns
_QUALITY = 90  # of their JPEG files
_MOST_PIXELS = 2**30
_TIMEOUT = 120  # seconds for an answer
_OUTPUT = "labels"

# Answers for the image of a number: the status of HTTP, and whether the answer is the right one.
Call = Callable[[int], tuple[int, bool]]


@dataclass
class _Row:
    """What is measured of a pipeline; `calls` has the call of each client."""

    pipeline: str
    calls: list[Call]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    answers: list[tuple[int, bool]] = field(default_factory=list)

    def measure(self, duration: float) -> tuple[float, list[float], list[tuple[int, bool]]]:
        """Let all clients call for a time; return the rate of answers, and the seconds and answers of the calls."""
        seconds, answers, start = [], [], time.perf_counter()

        def work(call: Call, number: int) -> None:
            while (begin := time.perf_counter()) < start + duration:
                answers.append(call(number % _FRAMES))
                seconds.append(time.perf_counter() - begin)
                number += 1

        threads = [threading.Thread(target=work, args=(call, number)) for number, call in enumerate(self.calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(status == 200 for status, _ in answers) / (time.perf_counter() - start), seconds, answers

    def summary(self, bare: float) -> dict[str, Any]:
        """Return the row of the table, beside the rate of the bare predictor."""
        rate, (p50, p99) = statistics.median(self.rates), np.percentile(self.seconds, [50, 99]) * 1e3
        right = [is_right for status, is_right in self.answers if status == 200]
        return {
            "pipeline": self.pipeline,
            "clients": len(self.calls),
            "rate": rate,
            "share": rate / bare,
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "requests": len(self.answers),
            "refused": len(self.answers) - len(right),
            "same": float(np.mean(right)),
        }


def run(
    config: str,
    engine: tuple[str, str, int | None],
    size: tuple[int, int],
    clients: Sequence[int],
    runs: int,
    duration: float,
) -> list[dict[str, Any]]:
    """Measure the bare predictor, what the service does besides HTTP, and the service, in turns.

    Every client sends a JPEG on a connection that it keeps, waits for the PNG with the labels, and sends the next one.

    Args:
        config: The export.
        engine: Backend, precision and threads, the same for all.
        size: (height, width) of the images.
        clients: The numbers of clients that call the service at once.
        runs: The rounds, in which each row has a turn.
        duration: Seconds of a turn.

    Returns:
        A row for each, with the median rate of the rounds, and the percentiles of all requests.

    Raises:
        UserError: The export is not for segmentation.
    """
    predictor = load(config, *engine)
    if not isinstance(predictor, FrameSegmenter):
        raise UserError(f"{config} is an export for {predictor.task}; the service is timed for segmentation")
    rendered = [render(make_scene(number), *size)[0] for number in tqdm(range(_FRAMES), "images", disable=None)]
    images = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes() for image in rendered]
    uploads = [Upload("frame.jpg", image) for image in images]
    frames = [decode(upload, predictor.channels, _MOST_PIXELS) for upload in uploads]
    labels = [predict(predictor, frame, None) for frame in frames]
    encode = outputs_of(predictor)[_OUTPUT].encode
    files = [encode(Item(*found)) for found in zip(uploads, frames, labels, strict=True)]

    def bare(index: int) -> tuple[int, bool]:
        return 200, np.array_equal(predict(predictor, frames[index], None), labels[index])

    def coded(index: int) -> tuple[int, bool]:
        frame = decode(uploads[index], predictor.channels, _MOST_PIXELS)
        return 200, encode(Item(uploads[index], frame, predict(predictor, frame, None))) == files[index]

    rows = [_Row("bare Segmenter", [bare]), _Row("with decoding and encoding", [coded])]
    with ExitStack() as stack:
        port = stack.enter_context(_service(config, engine, max(clients)))
        for number in clients:
            rows.append(_Row("service", [stack.enter_context(_client(port, images, files)) for _ in range(number)]))
        for number in tqdm(range(runs + 1), "rounds", disable=None):
            for row in rows:
                rate, seconds, answers = row.measure(duration if number else min(duration, 1.0))
                if number:  # the first round brings all into the caches
                    row.rates.append(rate)
                    row.seconds += seconds
                    row.answers += answers
    return [row.summary(statistics.median(rows[0].rates)) for row in rows]


@contextmanager
def _client(port: int, images: Sequence[bytes], files: Sequence[bytes]) -> Iterator[Call]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)) as connection:

        def call(index: int) -> tuple[int, bool]:
            connection.request("POST", f"/predict?output={_OUTPUT}", images[index])
            response = connection.getresponse()
            return response.status, response.read() == files[index]

        yield call


@contextmanager
def _service(config: str, engine: tuple[str, str, int | None], queue: int) -> Iterator[int]:
    """Run the service in a process of its own, and yield its port."""
    flags = {"config": config, "backend": engine[0], "precision": engine[1], "threads": engine[2], "port": 0}
    flags["queue"] = max(queue, 16)
    line = [sys.executable, "-c", "from paddle_rt.cli import main; main()", "serve"]
    line += [word for key, value in flags.items() if value is not None for word in (f"--{key}", str(value))]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        first = process.stdout.readline()  # the address, once it answers
        if "http://" not in first:
            raise InternalError(f"the service does not start: {first.strip() or 'see above'}")
        yield int(first.partition("http://")[2].partition(";")[0].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
