"""Outputs of frames and their labels: indexed images, tables of classes, overlays and videos."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging.label_files import HEAT_MAPS, open_label_files
from paddle_rt.imaging.view import View
from paddle_rt.inference.boxes import ImageBoxes
from paddle_rt.inference.classifier import TopK
from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.inference.media.predictions import KEYPOINTS, PREDICTIONS, open_keypoints, open_predictions
from paddle_rt.inference.media.sources import Frame, Source
from paddle_rt.inference.pose_estimator import KeyPoints
from paddle_rt.inference.segmenter import Labels
from paddle_rt.stderr import library_messages

SAVE = ("labels", "overlay")
_CODECS = {".mp4": "mp4v", ".webm": "VP80"}


@contextlib.contextmanager
def open_outputs(
    source: Source, save_dir: str | os.PathLike, save: Sequence[str] | None, view: View
) -> Iterator[Callable[[Frame, np.ndarray | Labels], None]]:
    """Open the outputs of a source.

    Images get pseudo_color_prediction/NAME.png (indexed colours; the value of a pixel is its class) and
    added_prediction/NAME.jpg. A video or a camera gets NAME/000000.png and so on, and NAME_overlay.mp4. What else the
    view asks for, `imaging.label_files` writes; the heat maps of a video go to NAME_confidence/.

    Args:
        source: The source of the frames.
        save_dir: The folder of the outputs.
        save: "labels", "overlay" or both; None for both of images and for the overlay of a video.
        view: How labels are drawn, and what else is written.

    Yields:
        A function that writes a frame and its labels. The video appears when the block ends without an error.

    Raises:
        UserError: `save` holds an unknown name, a video cannot be written, or polygons of a video are asked for.
    """
    if source.is_video and view.polygons:
        raise UserError("polygons belong to images, but the source is a video; write its frames as images first")
    heat_maps = f"{source.name}_{HEAT_MAPS}" if source.is_video else HEAT_MAPS
    save, folder = _checked(save) or (("overlay",) if source.is_video else SAVE), Path(save_dir)
    overlays = _open_overlays(source, folder, "overlay" in save)
    with overlays as write_overlay, open_label_files(folder, view, heat_maps) as add:

        def write(frame: Frame, found: np.ndarray | Labels) -> None:
            labels, confidence = (found.map, found.confidence) if isinstance(found, Labels) else (found, None)
            if "labels" in save:
                labels_folder = folder / (source.name or "pseudo_color_prediction")
                imaging.write_label(labels_folder / f"{frame.name}.png", labels, view.palette)
            if write_overlay:
                write_overlay(frame, view.draw(frame.image, labels))
            add(frame.source, frame.name, labels, confidence)

        yield write


@contextlib.contextmanager
def open_class_outputs(
    source: Source, save_dir: str | os.PathLike, save: Sequence[str] | None
) -> Iterator[Callable[[Frame, TopK], None]]:
    """Open the outputs of a source whose frames are classified.

    The classes of all frames go to predictions.csv. The frames with the names of their classes become
    added_prediction/NAME.jpg, or NAME_overlay.mp4 of a video or a camera.

    Args:
        source: The source of the frames.
        save_dir: The folder of the outputs.
        save: "labels", the table, "overlay", the frames, or both; None for both.

    Yields:
        A function that writes a frame and its classes. Table and video appear when the block ends without an error.

    Raises:
        UserError: `save` holds an unknown name, or a video cannot be written.
    """
    save, folder = _checked(save) or SAVE, Path(save_dir)
    table = open_predictions(folder / PREDICTIONS) if "labels" in save else contextlib.nullcontext()
    with table as add, _open_overlays(source, folder, "overlay" in save) as write_overlay:

        def write(frame: Frame, found: TopK) -> None:
            if add:
                add(str(frame.name), found)
            if write_overlay:
                pairs = zip(found.names, found.scores, strict=True)
                write_overlay(frame, imaging.caption(frame.image, [f"{name} {score:.2f}" for name, score in pairs]))

        yield write


@contextlib.contextmanager
def open_pose_outputs(
    source: Source,
    save_dir: str | os.PathLike,
    save: Sequence[str] | None,
    keypoints: KeypointSet,
    category: int,
    threshold: float,
) -> Iterator[Callable[[Frame, tuple[KeyPoints, ImageBoxes]], None]]:
    """Open the outputs of a source in whose frames poses are estimated.

    The people of all frames go to keypoints.json, in COCO's form of results. The frames with their skeletons become
    added_prediction/NAME.jpg, or NAME_overlay.mp4 of a video or a camera.

    Args:
        source: The source of the frames.
        save_dir: The folder of the outputs.
        save: "labels", the JSON file, "overlay", the frames, or both; None for both.
        keypoints: The keypoints of a person.
        category: The number of the category of people.
        threshold: Keypoints with a lower score are not drawn.

    Yields:
        A function that writes a frame with its people and their boxes. File and video appear when the block ends
        without an error.

    Raises:
        UserError: `save` holds an unknown name, or a video cannot be written.
    """
    save, folder = _checked(save) or SAVE, Path(save_dir)
    sides = imaging.body_sides(keypoints.names, keypoints.flip_pairs)
    file = open_keypoints(folder / KEYPOINTS, category) if "labels" in save else contextlib.nullcontext()
    with file as add, _open_overlays(source, folder, "overlay" in save) as write_overlay:

        def write(frame: Frame, found: tuple[KeyPoints, ImageBoxes]) -> None:
            people, boxes = found
            if add:
                add(people, boxes)
            if write_overlay:
                drawn = imaging.draw_skeletons(
                    frame.image, people.points, people.scores, keypoints.skeleton, sides, threshold
                )
                write_overlay(frame, drawn)

        yield write


def _checked(save: Sequence[str] | None) -> Sequence[str] | None:
    for kind in save or ():
        if kind not in SAVE:
            raise unknown("output", kind, SAVE)
    return save


@contextlib.contextmanager
def _open_overlays(source: Source, folder: Path, wanted: bool) -> Iterator[Callable[[Frame, np.ndarray], None] | None]:
    """Yield a function that writes the overlay of a frame, into the video of a video; None where none is wanted."""
    if not wanted:
        yield None
    elif source.is_video:
        with write_video(folder / f"{source.name}_overlay.mp4", source.fps) as add:
            yield lambda frame, overlay: add(overlay)
    else:
        yield lambda frame, overlay: imaging.write_image(folder / "added_prediction" / f"{frame.name}.jpg", overlay)


@contextlib.contextmanager
def write_video(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Open a video to be written: MPEG-4 in an .mp4 file, or VP8, which browsers play, in a .webm file.

    Args:
        path: The file.
        fps: Frames per second.

    Yields:
        A function that adds a frame, uint8 BGR. The video appears if the block ends without an error and has frames.

    Raises:
        UserError: The video cannot be written.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")  # FFmpeg chooses the format by the suffix
    # MPEG-4 holds the rate as a fraction whose parts have 16 bits; OpenCV takes a power of ten for the denominator.
    fps = round(fps, 3 if fps < 65 else 2)
    writer, count = cv2.VideoWriter(), 0

    def add(image: np.ndarray) -> None:
        nonlocal count
        height, width = image.shape[:2]
        if height % 2 or width % 2:  # the codec needs even sides; OpenCV would cut off a row or a column
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if not count:
            path.parent.mkdir(parents=True, exist_ok=True)
            size, code = image.shape[1::-1], cv2.VideoWriter_fourcc(*_CODECS[path.suffix])
            with library_messages():  # OpenCV writes a line about the code of VP8, which WebM holds without one
                is_open = writer.open(os.path.abspath(part), cv2.CAP_FFMPEG, code, fps, size)
            if not is_open:
                raise UserError(f"cannot write video {path} of {width}x{height}; --save labels writes images")
        writer.write(image)
        count += 1

    try:
        yield add
        writer.release()
        if count:
            # OpenCV does not report a failure, so the frames are counted.
            if cv2.VideoCapture(os.path.abspath(part), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT) != count:
                raise UserError(f"video {path} could not be written completely; is the disk full?")
            os.replace(part, path)
    finally:
        writer.release()
        part.unlink(missing_ok=True)
