"""Sources of frames: images, videos and cameras."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
# The headers of these formats hold the number of frames; for others OpenCV multiplies the duration by the frame rate.
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")


@dataclass(frozen=True)
class Frame:
    """A frame, or the reason why it cannot be read.

    Args:
        source: The file, or the video and the frame's number, for messages.
        name: The relative name of the files to write for it, without a suffix.
        image: uint8 BGR [H, W, 3], or an error whose message names the source.
    """

    source: str
    name: Path
    image: np.ndarray | UserError


@dataclass(frozen=True)
class Source:
    """The frames that a path on the command line stands for.

    Args:
        frames: The frames in their order; each is read when it is asked for.
        name: The name of the outputs of a video or a camera; empty for images.
        fps: Frames per second of a video or a camera; None for images.
        total: The expected number of frames, where known.
    """

    frames: Iterator[Frame]
    name: str = ""
    fps: float | None = None
    total: int | None = None

    @property
    def is_video(self) -> bool:
        """Whether each frame continues the one before it."""
        return self.fps is not None


def open_source(path: str, limit: int | None = None) -> Source:
    """Open the source that a path stands for.

    Args:
        path: An image, a folder of images, a text list of images, a video file, or camera:N.
        limit: Stop after this many frames; None for all of them, and for a camera until it is interrupted.

    Raises:
        UserError: Nothing is found, or a video or camera cannot be opened.
    """
    if path.startswith("camera:"):
        source = _open_camera(path)
    elif Path(path).suffix.lower() in VIDEO_SUFFIXES and not os.path.isdir(path):
        source = _open_video(path)
    else:
        files, root = imaging.list_images(path)
        source = Source(_read_images(files, output_names(files, root)), total=len(files))
    total = min((number for number in (source.total, limit) if number), default=None)
    return Source(itertools.islice(source.frames, limit), source.name, source.fps, total)


def _open_camera(path: str) -> Source:
    number = re.fullmatch(r"camera:(\d{1,4})", path)
    if not number:
        raise UserError(f"a camera is given as camera:0, camera:1 and so on, got {path!r}")
    capture = cv2.VideoCapture(int(number[1]))
    if not capture.isOpened():
        raise UserError(f"cannot open {path}: there is no such camera, or another program uses it")
    return Source(_read_camera(capture, path), f"camera_{number[1]}", _frame_rate(capture))


def _open_video(path: str) -> Source:
    try:
        size = os.stat(path).st_size
        Path(path).open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read video {path}: {error.strerror}") from error
    if not size:
        raise UserError(f"video {path} is empty (0 bytes)")
    # FFmpeg is named, since OpenCV's other readers treat a % in a path as a series of images. The path is absolute,
    # since FFmpeg takes what stands before a colon for a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UserError(
            f"cannot open video {path}: it is cut off, damaged, without frames, or not a video ({size} bytes)"
        )
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    total = int(promised) if 0 < promised < 1e9 and 0 < capture.get(cv2.CAP_PROP_FPS) <= 240 else None
    return Source(_read_video(capture, path, total), Path(path).stem, _frame_rate(capture), total)


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= 240 else 25.0  # cameras may report 0, videos with a varying rate 1000 and more


def _read_images(files: Sequence[str], names: Sequence[Path]) -> Iterator[Frame]:
    for file, name in zip(files, names, strict=True):
        try:
            yield Frame(file, name, imaging.read_image(file))
        except UserError as error:
            yield Frame(file, name, error)


def _read_camera(capture: cv2.VideoCapture, path: str) -> Iterator[Frame]:
    count = yield from _read_frames(capture, path)
    if count is not None:
        yield _failed(path, Path(f"{count:06d}"), f"the camera stopped after {count} frames")


def _read_video(capture: cv2.VideoCapture, path: str, promised: int | None) -> Iterator[Frame]:
    count = yield from _read_frames(capture, path)
    # FFmpeg skips damaged frames silently. A promise that is an estimate may be too high, since the sound of a video
    # may be longer than its frames.
    slack = 0 if Path(path).suffix.lower() in _COUNTED else 1 + (promised or 0) // 20
    if count is not None and promised and count < promised - slack:
        yield _failed(
            path,
            Path(f"{count:06d}"),
            f"its header promises {promised} frames, {count} can be decoded; it is damaged, cut off or trimmed",
        )


def _read_frames(capture: cv2.VideoCapture, path: str) -> Iterator[Frame]:
    """Yield the frames of a capture; return their number, or None after a frame of another size."""
    shape, decoded = None, 0
    for index in itertools.count():
        source, name = f"{path}, frame {index}", Path(f"{index:06d}")
        if not capture.grab():
            break
        complete, image = capture.retrieve()
        if not complete:
            yield _failed(source, name, "it cannot be decoded")
            continue
        shape = shape or image.shape
        if image.shape != shape:
            yield _failed(
                source,
                name,
                f"it is {image.shape[1]}x{image.shape[0]}, those before are {shape[1]}x{shape[0]}; a video has one "
                "size, so the rest is left out",
            )
            return None
        decoded += 1
        yield Frame(source, name, image)
    if not decoded:
        raise UserError(f"{path} gives no frame that can be decoded")
    return index


def _failed(source: str, name: Path, reason: str) -> Frame:
    return Frame(source, name, UserError(f"{source}: {reason}"))
