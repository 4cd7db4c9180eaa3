"""Sources of frames: images, videos, cameras and streams."""

import base64
import http.client
import itertools
import logging
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.errors import UserError, unknown
from paddle_rt.files import check_plain_file, output_names

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
# The headers of these formats hold the number of frames; for others OpenCV multiplies the duration by the frame rate.
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")
# FFmpeg knows many more protocols, among them some that read local files or run other protocols.
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt")
_TIMEOUT = 10  # seconds for which a server may be silent
_WAITS = (1, 2, 4, 8, 16)  # seconds before each attempt to open a live source again
_STEADY = 60  # after this many seconds without an interruption, the attempts are counted from the first one again
_RATES = (0.01, 240)  # frames per second; cameras may report 0, videos with a varying rate 1000 and more
_USUAL_RATE = 25.0


@dataclass(frozen=True)
class Frame:
    """A frame, or the reason why it cannot be read.

    Args:
        source: The file, or the video and the frame's number, for messages.
        name: The relative name of the files to write for it, without a suffix.
        image: uint8, BGR [H, W, 3] or with the channels that were asked for, or an error whose message names the
            source.
        continues: Whether the frame continues a video that the frame before it belongs to.
    """

    source: str
    name: Path
    image: np.ndarray | UserError
    continues: bool = False


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
        """Whether the frames belong to one video."""
        return self.fps is not None


def open_source(
    path: str, limit: int | None = None, stopped: Callable[[], bool] = lambda: False, channels: int = 3
) -> Source:
    """Open the source that a path stands for.

    A camera or a live stream that stops is opened again, a few times with longer and longer waits in between, and each
    attempt is logged. A video file ends where it ends, also one that a server has. The frames of a video have the size
    of the first one; a change is logged.

    Args:
        path: An image, a folder of images, a text list of images, a video file, the address of a video or a stream
            (`SCHEMES`), or a camera: its number, or camera:N.
        limit: Stop after this many frames; None for all of them, and for a live source until it is interrupted.
        stopped: Once it returns True, a live source that stopped is not opened again.
        channels: The channels of a frame, 3, 1 or 4, as for `read_image`; videos have no 4.

    Raises:
        UserError: Nothing is found, or a video, a stream or a camera cannot be opened.
    """
    camera = re.fullmatch(r"(?:camera:|/dev/video)?(\d{1,4})", path)
    if camera and not (path.isdigit() and os.path.exists(path)):
        source = _open_camera(int(camera[1]), stopped)
    elif path.startswith("camera:"):
        raise UserError(f"a camera is given as camera:0, camera:1 and so on, got {path!r}")
    elif "://" in path:
        source = _open_address(path, stopped)
    elif Path(path).suffix.lower() in VIDEO_SUFFIXES and not os.path.isdir(path):
        source = _open_video(path)
    else:
        files, root = imaging.list_images(path)
        source = Source(_read_images(files, output_names(files, root), channels), total=len(files))
    frames = source.frames
    if source.is_video and channels != 3:
        if channels != 1:
            raise UserError(f"{path} has 3 channels, but the network takes {channels}")
        frames = map(_in_grey, frames)
    total = min((number for number in (source.total, limit) if number), default=None)
    return Source(itertools.islice(frames, limit), source.name, source.fps, total)


def _in_grey(frame: Frame) -> Frame:
    if isinstance(frame.image, UserError):
        return frame
    return replace(frame, image=cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY))


def _read_images(files: Sequence[str], names: Sequence[Path], channels: int) -> Iterator[Frame]:
    for file, name in zip(files, names, strict=True):
        try:
            yield Frame(file, name, imaging.read_image(file, channels))
        except UserError as error:
            yield Frame(file, name, error)


def _open_camera(number: int, stopped: Callable[[], bool]) -> Source:
    name = f"camera:{number}"
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UserError(f"cannot open {name}: there is no such camera, or another program uses it")
    captures = _reconnecting(capture, lambda: cv2.VideoCapture(number), name, stopped)
    return Source(_read_live(captures, name), f"camera_{number}", _frame_rate(capture))


def _open_video(path: str) -> Source:
    size = check_plain_file(path, "video").stat().st_size
    if not size:
        raise UserError(f"video {path} is empty (0 bytes)")
    # The path is absolute, since FFmpeg takes what stands before a colon for a protocol.
    capture = _capture(os.path.abspath(path))
    if not capture.isOpened():
        raise UserError(
            f"cannot open video {path}: it is cut off, damaged, without frames, or not a video ({size} bytes)"
        )
    total = _promised(capture)
    frames = _read_file(iter([capture]), path, Path(path).suffix, total)
    return Source(frames, Path(path).stem, _frame_rate(capture), total)


def _open_address(address: str, stopped: Callable[[], bool]) -> Source:
    """Open a video or a stream that FFmpeg fetches: a file where it has a length or the name of a video file."""
    parts, shown = _check_address(address)
    capture = _capture(address)
    if not capture.isOpened():
        raise UserError(
            f"cannot open {shown}: no server answers there within {_TIMEOUT} s, or what it sends is not a video"
        )
    path, total, rate = Path(unquote(parts.path)), _promised(capture), _frame_rate(capture)
    by_http = parts.scheme in ("http", "https")
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0 or (by_http and path.suffix.lower() in VIDEO_SUFFIXES):
        captures = _streamed_or_downloaded(capture, parts, shown, stopped) if by_http else iter([capture])
        frames = _read_file(captures, shown, path.suffix, total)
    else:
        frames = _read_live(_reconnecting(capture, lambda: _capture(address), shown, stopped), shown)
    name = re.sub(r"[^\w.-]", "_", path.stem or parts.hostname or "").lstrip(".") or "stream"
    return Source(frames, name, rate, total)


def _check_address(address: str) -> tuple[SplitResult, str]:
    """Check an address; return its parts, and the address without user and password, for messages."""
    try:
        parts = urlsplit(address)
        valid = bool(parts.netloc) and address.isprintable() and " " not in address
    except ValueError:  # a bracket that is not closed
        valid = False
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise unknown("scheme of an address", scheme, SCHEMES)
    if not valid:
        raise UserError(f"{address!r} is not an address such as rtsp://HOST:PORT/PATH")
    return parts, parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _capture(path: str) -> cv2.VideoCapture:
    # FFmpeg is named, since OpenCV's other readers treat a % in a path as a series of images.
    wait = int(1000 * _TIMEOUT)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG, limits)


def _reconnecting(
    capture: cv2.VideoCapture, connect: Callable[[], cv2.VideoCapture], name: str, stopped: Callable[[], bool]
) -> Iterator[cv2.VideoCapture]:
    """Yield a live source, and each time it has stopped the source that was opened anew, as often as `_WAITS` says."""
    waits = iter(_WAITS)
    while True:
        start = time.monotonic()
        yield capture
        if time.monotonic() - start > _STEADY:
            waits = iter(_WAITS)
        capture.release()  # a camera cannot be opened twice
        while not capture.isOpened():
            wait = next(waits, None)
            if wait is None:
                return
            logger.warning("%s stopped; it is opened again in %g s", name, wait)
            end = time.monotonic() + wait
            while time.monotonic() < end and not stopped():
                time.sleep(min(0.1, wait))
            if stopped():
                return
            capture = connect()


def _streamed_or_downloaded(
    capture: cv2.VideoCapture, parts: SplitResult, shown: str, stopped: Callable[[], bool]
) -> Iterator[cv2.VideoCapture]:
    """Yield a video file of an HTTP server as it arrives, and if that gave no frame, the whole file.

    The index of many MP4 files is at their end. Frames can be decoded before all of the file is there only if the
    server sends the part that is asked for, and not every server does.
    """
    yield capture
    if capture.get(cv2.CAP_PROP_POS_FRAMES) >= 1:
        return
    logger.info("%s is downloaded, since its frames cannot be decoded while it arrives", shown)
    request = urllib.request.Request(quote(shown, safe="%/:=&?~#+!$,;'@()*[]"))
    if "@" in parts.netloc:
        user = base64.b64encode(unquote(parts.netloc.rpartition("@")[0]).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {user}")
    with tempfile.NamedTemporaryFile(suffix=Path(parts.path).suffix) as file:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                if answer.length is None:
                    raise UserError(f"cannot download {shown}: its server does not say how long it is")
                while block := answer.read(1 << 20):
                    if stopped():
                        raise KeyboardInterrupt
                    file.write(block)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"cannot download {shown}: {error}") from error
        file.flush()
        yield _capture(file.name)


def _promised(capture: cv2.VideoCapture) -> int | None:
    """Return the number of frames that a video promises, None where it does not know."""
    promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return int(promised) if 0 < promised < 1e9 and 0 < rate <= _RATES[1] else None


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE  # NaN is in no range


def _read_live(captures: Iterator[cv2.VideoCapture], path: str) -> Iterator[Frame]:
    count = yield from _read_frames(captures, path)
    yield _failed(path, Path(f"{count:06d}"), f"it stopped after {count} frames and could not be opened again")


def _read_file(captures: Iterator[cv2.VideoCapture], path: str, suffix: str, promised: int | None) -> Iterator[Frame]:
    count = yield from _read_frames(captures, path)
    # FFmpeg skips damaged frames silently. A promise that is an estimate may be too high, since the sound of a video
    # may be longer than its frames.
    slack = 0 if suffix.lower() in _COUNTED else 1 + (promised or 0) // 20
    if promised and count < promised - slack:
        yield _failed(
            path,
            Path(f"{count:06d}"),
            f"its header promises {promised} frames, {count} can be decoded; it is damaged, cut off or trimmed",
        )


def _read_frames(captures: Iterator[cv2.VideoCapture], path: str) -> Iterator[Frame]:
    """Yield the frames of captures that follow each other, all in the size of the first; return their number."""
    first, resizes, index, decoded = None, False, 0, 0
    for capture in captures:
        continues = False
        while capture.grab():
            source, name = f"{path}, frame {index}", Path(f"{index:06d}")
            complete, image = capture.retrieve()
            index += 1
            if not complete:
                yield _failed(source, name, "it cannot be decoded")
                continue
            first = first or image.shape
            if image.shape != first and not resizes:
                resizes = True
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, first)]
                logger.warning("%s is %s, those before are %s; all get the size of the first one", source, *sizes)
            yield Frame(source, name, _resized(image, first), continues)
            decoded, continues = decoded + 1, True
    if not decoded:
        raise UserError(f"{path} gives no frame that can be decoded")
    return index


def _resized(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if image.shape == shape:
        return image
    shrinks = image.size > shape[0] * shape[1] * shape[2]
    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _failed(source: str, name: Path, reason: str) -> Frame:
    return Frame(source, name, UserError(f"{source}: {reason}"))
