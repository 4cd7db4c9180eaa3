"""Label the frames of a source while the next ones are read and the last ones are written."""

import collections
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.inference.media.sources import Frame, Source
from paddle_rt.inference.predictor import Predictor
from paddle_rt.inference.video_segmenter import VideoSegmenter

_AHEAD = 2  # frames that wait before and after the network: enough to overlap the stages, few enough for large images


@dataclass
class Report:
    """The result of `label_frames`.

    Args:
        labelled: The number of labelled frames.
        failures: One line for each frame that could not be read, labelled or written.
        seconds: The duration of the whole run.
        stages: Seconds by stage, added over the frames.
        interrupted: Whether the run was stopped before the source ended.
    """

    labelled: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: collections.defaultdict(float))
    interrupted: bool = False


def label_frames(
    predictor: Predictor,
    source: Source,
    write: Callable[[Frame, Any], None],
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[], object] = lambda: None,
    predict: Callable[[Frame], Any] | None = None,
) -> Report:
    """Label frames in this thread while one thread reads ahead and one writes; few frames wait between them.

    The state of a `VideoSegmenter` goes from frame to frame of a video and is cleared before any other frame; one that
    cannot be read or labelled leaves it unchanged.

    Args:
        predictor: A `Segmenter`, a `VideoSegmenter`, or the predictor of another task.
        source: The frames; the reading thread advances them.
        write: Receives each frame with its labels, in order, in the writing thread.
        stopped: Once it returns True, nothing more is read; frames that have been read are labelled and written.
        progress: Called after every frame, whether it was labelled or not.
        predict: What labels a frame; by default the predictor is called with its image.

    Returns:
        What was done.

    Raises:
        Exception: Whatever the source or `write` raised, after both threads have ended.
    """
    report, start = Report(), time.perf_counter()

    def read() -> Frame | None:
        with _timed(report, "read"):
            return None if stopped() else next(source.frames, None)

    def save(frame: Frame, labels: Any) -> None:
        with _timed(report, "write"):
            try:
                write(frame, labels)
            except UserError as error:
                if source.is_video:  # its frames go into one file
                    raise
                report.failures.append(f"{frame.source}: {error}")

    reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
    try:
        coming, going = collections.deque(reader.submit(read) for _ in range(_AHEAD)), collections.deque()
        while (frame := coming.popleft().result()) is not None:
            coming.append(reader.submit(read))
            labels = _label(predictor, predict or (lambda frame: predictor(frame.image)), frame, report)
            if labels is not None:
                going.append(writer.submit(save, frame, labels))
            if len(going) > _AHEAD:
                going.popleft().result()
            progress()
        for written in going:
            written.result()
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown()
    report.seconds, report.interrupted = time.perf_counter() - start, stopped()
    return report


def _label(predictor: Predictor, predict: Callable[[Frame], Any], frame: Frame, report: Report) -> Any | None:
    if isinstance(predictor, VideoSegmenter) and not frame.continues:
        predictor.reset()
    if isinstance(frame.image, UserError):
        report.failures.append(str(frame.image))
        return None
    try:
        labels = predict(frame)
    except UserError as error:
        report.failures.append(f"{frame.source}: {error}")
        return None
    for stage, seconds in predictor.timings.items():
        report.stages[stage] += seconds
    report.labelled += 1
    return labels


@contextlib.contextmanager
def _timed(report: Report, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report.stages[stage] += time.perf_counter() - start  # only one thread works at each stage


@contextlib.contextmanager
def interrupt_once() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C within the block into a request to stop; a second one raises KeyboardInterrupt.

    For the main thread only.

    Yields:
        A function that returns whether Ctrl-C was pressed.
    """
    caught = []

    def remember(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)


def describe(report: Report) -> str:
    """Return a line with the number of frames, frames per second, and milliseconds a frame by stage."""
    count = report.labelled
    if not count:
        return "0 frames labelled"
    order = ("read", "preprocess", "network", "labels", "write")
    stages = ", ".join(f"{name} {1000 * report.stages[name] / count:.1f}" for name in order if name in report.stages)
    frames = "frame" if count == 1 else "frames"
    return (
        f"{count} {frames} labelled in {report.seconds:.1f} s, {count / report.seconds:.1f} frames per second; "
        f"ms a frame, where reading and writing run in parallel with the rest: {stages}"
    )
