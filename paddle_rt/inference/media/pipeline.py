"""Pictures, videos and cameras in, label pictures and overlays out; reading, labelling and writing at the same time."""

import collections
import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.errors import UserError, unknown
from paddle_rt.files import output_names
from paddle_rt.inference.segmenter import FrameSegmenter
from paddle_rt.inference.video_segmenter import VideoSegmenter

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
SAVE = ("labels", "overlay")
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # their headers count the frames; for others OpenCV multiplies time by rate
_AHEAD = 2  # frames that wait before and behind the network: enough to overlap, few enough for large pictures


@dataclass(frozen=True)
class Frame:
    """A frame, or why there is none.

    Args:
        source: The file, or the video and the frame's number, for messages.
        name: Of the files to write, relative and without suffix.
        image: uint8 BGR [H, W, 3], or what is wrong with it.
    """

    source: str
    name: Path
    image: np.ndarray | UserError


@dataclass(frozen=True)
class Source:
    """What a command line means by its path.

    Args:
        frames: The frames in order; reading happens as they are asked for.
        name: Of a video's or camera's outputs; empty for pictures.
        fps: Frames per second of a video or camera; None for pictures.
        total: How many frames there should be, where known.
    """

    frames: Iterator[Frame]
    name: str = ""
    fps: float | None = None
    total: int | None = None


@dataclass
class Report:
    """What `label_frames` did: frames labelled, what went wrong with others, and seconds as a whole and by stage."""

    labelled: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: collections.defaultdict(float))
    interrupted: bool = False


def open_source(path: str, limit: int | None = None) -> Source:
    """Find out what a path means and open it.

    Args:
        path: A picture, a folder of pictures, a text list of pictures, a video file, or camera:N.
        limit: Stop after so many frames; None for all of them, and for a camera until it is interrupted.

    Raises:
        UserError: Nothing is there, or a video or camera cannot be opened.
    """
    if path.startswith("camera:"):
        source = _open_camera(path)
    elif Path(path).suffix.lower() in VIDEO_SUFFIXES and not os.path.isdir(path):
        source = _open_video(path)
    else:
        files, root = imaging.list_images(path)
        source = Source(_read_pictures(files, output_names(files, root)), total=len(files))
    total = min((number for number in (source.total, limit) if number), default=None)
    return Source(itertools.islice(source.frames, limit), source.name, source.fps, total)


def _open_camera(path: str) -> Source:
    number = re.fullmatch(r"camera:(\d{1,4})", path)
    if not number:
        raise UserError(f"a camera is given as camera:0, camera:1 and so on, got {path!r}")
    capture = cv2.VideoCapture(int(number[1]))
    if not capture.isOpened():
        raise UserError(f"cannot open {path}: there is no such camera, or another program uses it")
    return Source(_read_video(capture, path), f"camera_{number[1]}", _rate(capture))


def _open_video(path: str) -> Source:
    try:
        size = os.stat(path).st_size
        Path(path).open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read video {path}: {error.strerror}") from error
    if not size:
        raise UserError(f"video {path} is empty (0 bytes)")
    # FFmpeg by name, since other readers of OpenCV take a % for a series of pictures; absolute, since FFmpeg takes what
    # is before a colon for a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UserError(f"cannot open video {path}: it is cut off, damaged, without frames, or no video ({size} bytes)")
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    total = int(promised) if 0 < promised < 1e9 and 0 < capture.get(cv2.CAP_PROP_FPS) <= 240 else None
    return Source(_read_video(capture, path, total), Path(path).stem, _rate(capture), total)


def _rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= 240 else 25.0  # cameras may say 0, videos of a varying rate 1000 and more


def _read_pictures(files: Sequence[str], names: Sequence[Path]) -> Iterator[Frame]:
    for file, name in zip(files, names, strict=True):
        try:
            yield Frame(file, name, imaging.read_image(file))
        except UserError as error:
            yield Frame(file, name, error)


def _read_video(capture: cv2.VideoCapture, path: str, promised: int | None = None) -> Iterator[Frame]:
    shape, decoded = None, 0
    for index in itertools.count():
        source, name = f"{path}, frame {index}", Path(f"{index:06d}")
        if not capture.grab():
            break
        whole, image = capture.retrieve()
        if not whole:
            yield Frame(source, name, UserError("it cannot be decoded"))
            continue
        shape = shape or image.shape
        if image.shape != shape:
            yield Frame(source, name, UserError(
                f"it is {image.shape[1]}x{image.shape[0]}, those before are {shape[1]}x{shape[0]}; one video has one "
                "size, the rest is left out"
            ))  # fmt: skip
            return
        decoded += 1
        yield Frame(source, name, image)
    if not decoded:
        raise UserError(f"{path} gives no frame that can be decoded")
    if path.startswith("camera:"):
        yield Frame(path, name, UserError(f"the camera stopped after {index} frames"))
    # FFmpeg passes over damaged frames without a word; an estimate may be off by the sound that goes on for longer.
    slack = 0 if Path(path).suffix.lower() in _COUNTED else 1 + (promised or 0) // 20
    if promised and index < promised - slack:
        yield Frame(path, name, UserError(
            f"its header promises {promised} frames, {index} can be decoded; it is damaged, cut off or trimmed"
        ))  # fmt: skip


def label_frames(
    segment: FrameSegmenter,
    frames: Iterator[Frame],
    write: Callable[[Frame, np.ndarray], None],
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[], object] = lambda: None,
    pictures: bool = False,
) -> Report:
    """Label frames in this thread, while one other reads ahead and one writes behind; few frames wait between them.

    Args:
        segment: The exported model, a `Segmenter` or `VideoSegmenter`. The latter's state goes from frame to frame; one
            that is missing or cannot be labelled leaves it as it is.
        frames: Where the frames come from; advanced in the reading thread.
        write: Gets each frame with its labels, in order, in the writing thread.
        stopped: Once it says so no more is read; what was read is labelled and written.
        progress: Called after every frame, be it labelled or not.
        pictures: The frames have nothing to do with each other: a `VideoSegmenter` begins anew with each.

    Returns:
        What was done. Frames without an image and those that cannot be labelled are its failures.

    Raises:
        Exception: What `frames` or `write` raised, after both threads have ended.
    """
    report, start = Report(), time.perf_counter()

    def read() -> Frame | None:
        with _timed(report, "read"):
            return None if stopped() else next(frames, None)

    def save(frame: Frame, labels: np.ndarray) -> None:
        with _timed(report, "write"):
            write(frame, labels)

    reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
    try:
        coming = collections.deque(reader.submit(read) for _ in range(_AHEAD))
        going: collections.deque = collections.deque()
        while (frame := coming.popleft().result()) is not None:
            coming.append(reader.submit(read))
            if pictures and isinstance(segment, VideoSegmenter):
                segment.reset()
            labels = _label(segment, frame, report)
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


def _label(segment: FrameSegmenter, frame: Frame, report: Report) -> np.ndarray | None:
    try:
        if isinstance(frame.image, UserError):
            raise frame.image
        labels = segment(frame.image)
    except UserError as error:
        report.failures.append(str(error) if frame.source in str(error) else f"{frame.source}: {error}")
        return None
    for stage, seconds in segment.timings.items():
        report.stages[stage] += seconds
    report.labelled += 1
    return labels


@contextlib.contextmanager
def _timed(report: Report, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    report.stages[stage] += time.perf_counter() - start  # a stage belongs to one thread


@contextlib.contextmanager
def interrupt_once() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C only makes the function that it gives say True; a second one raises
    KeyboardInterrupt as always. For the main thread."""
    caught = []

    def remember(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def open_outputs(
    source: Source, save_dir: str | os.PathLike, save: Sequence[str] | None, colours: np.ndarray
) -> Iterator[Callable[[Frame, np.ndarray], None]]:
    """Give the function that writes a frame's labels.

    Args:
        source: Pictures get pseudo_color_prediction/NAME.png (indexed colours, the pixel's value is its class) and
            added_prediction/NAME.jpg; a video or camera NAME/000000.png and so on, and NAME_overlay.mp4.
        save_dir: Where these go.
        save: "labels", "overlay" or both; None for both of pictures and the overlay of a video.
        colours: RGB [num_classes, 3], uint8.

    Yields:
        A function of frame and labels. The video appears when the block ends, unless it raises.

    Raises:
        UserError: An unknown name in `save`, or a video that cannot be written.
    """
    save, folder = save or (SAVE if source.fps is None else ("overlay",)), Path(save_dir)
    for kind in save:
        if kind not in SAVE:
            raise unknown("output", kind, SAVE)
    is_video = source.fps is not None and "overlay" in save
    video = _write_video(folder / f"{source.name}_overlay.mp4", source.fps) if is_video else contextlib.nullcontext()
    with video as add_to_video:

        def write(frame: Frame, labels: np.ndarray) -> None:
            if "labels" in save:
                labels_folder = folder / (source.name or "pseudo_color_prediction")
                imaging.write_label(labels_folder / f"{frame.name}.png", labels, colours)
            if "overlay" in save:
                overlay = imaging.overlay(frame.image, labels, colours)
                if add_to_video:
                    add_to_video(overlay)
                else:
                    imaging.write_image(folder / "added_prediction" / f"{frame.name}.jpg", overlay)

        yield write


@contextlib.contextmanager
def _write_video(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that adds a frame; the video appears when the block ends without an error and has frames."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")  # FFmpeg goes by the suffix
    writer, count = cv2.VideoWriter(), 0

    def add(image: np.ndarray) -> None:
        nonlocal count
        height, width = image.shape[:2]
        # The codec wants even sides, and OpenCV would cut a row or column off.
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if not count:
            path.parent.mkdir(parents=True, exist_ok=True)
            size, code = image.shape[1::-1], cv2.VideoWriter_fourcc(*"mp4v")
            if not writer.open(os.path.abspath(part), cv2.CAP_FFMPEG, code, fps, size):
                raise UserError(f"cannot write video {path} of {width}x{height}; --save labels writes pictures")
        writer.write(image)
        count += 1

    try:
        yield add
        writer.release()
        if count:
            if cv2.VideoCapture(os.path.abspath(part), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) != count:
                raise UserError(f"video {path} could not be written whole; is the disk full?")  # OpenCV does not say
            os.replace(part, path)
    finally:
        writer.release()
        part.unlink(missing_ok=True)


def describe(report: Report) -> str:
    """Frames, frames per second, and milliseconds a frame by stage, in a line."""
    count = report.labelled
    if not count:
        return "0 frames labelled"
    order = ("read", "preprocess", "network", "labels", "write")
    stages = ", ".join(f"{name} {1000 * report.stages[name] / count:.1f}" for name in order if name in report.stages)
    return (
        f"{count} frames labelled in {report.seconds:.1f} s, {count / report.seconds:.1f} frames per second; "
        f"ms a frame, reading and writing beside the rest: {stages}"
    )
