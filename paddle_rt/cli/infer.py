"""Run an exported network on images, a video, a stream or a camera.

paddle-rt infer --config EXPORT/deploy.yaml --image_path PATH

Needs no PaddleSeg and, but for the backend paddle, no Paddle. Ctrl-C ends it in order: what was read is labelled and
written, and a video holds all frames up to there. A network for video carries its state from frame to frame; a single
image is a video of one frame to it. A network for pose takes the boxes of people from --boxes.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
from tqdm import tqdm

from paddle_rt.cli.arguments import (
    Parser,
    Size,
    count,
    file_or_folder,
    not_negative,
    output_folder,
    positive,
    side,
)
from paddle_rt.cli.backend import add_engine_flags, load_predictor
from paddle_rt.errors import FlagError, UserError
from paddle_rt.imaging.view import add_view_flags, given_flags, view_of_flags
from paddle_rt.inference import Classifier, KeyPoints, PoseEstimator, VideoSegmenter
from paddle_rt.inference.boxes import PERSON, BoxFile, ImageBoxes, whole_image
from paddle_rt.inference.loading import LibraryPredictor
from paddle_rt.inference.media.pipeline import Report, describe, interrupt_once, label_frames
from paddle_rt.inference.media.sinks import SAVE, open_class_outputs, open_outputs, open_pose_outputs
from paddle_rt.inference.media.sources import Frame, Source, open_source
from paddle_rt.inference.segmenter import FrameSegmenter
from paddle_rt.inference.tiles import TiledSegmenter
from paddle_rt.inference.video_segmenter import SCENE_CUT
from paddle_rt.kinds import flag, number


def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our own line says what is wrong with a video
    cv2.setLogLevel(1)  # fatal errors alone
    predictor = open_predictor(arguments)
    boxes = None if arguments.boxes is None else BoxFile(arguments.boxes, arguments.box_category)
    predictor.warmup()
    with interrupt_once() as stopped:
        source = open_source(arguments.image_path, arguments.frames, stopped, predictor.channels)
        with (
            _open_outputs(predictor, source, arguments) as write,
            tqdm(desc="infer", total=source.total, unit="frame", disable=None) as bar,
        ):
            predict = _labelling(predictor, arguments, boxes, source.is_video)
            report = label_frames(predictor, source, write, stopped, bar.update, predict)
    if boxes is not None and boxes.unused:
        names = boxes.unused
        text = f"warning: no frame is one of {len(names)} images of {arguments.boxes}, such as {names[0]!r}"
        print(f"{text}; docs/pose.md says how they are named", file=sys.stderr)
    finish(report, arguments.save_dir)


def open_predictor(arguments: argparse.Namespace) -> LibraryPredictor:
    """Load the export, and check that the flags are for its task."""
    profile = arguments.profile and tuple((1, *size) for size in arguments.profile)
    predictor = load_predictor(arguments, profile)
    if arguments.boxes is not None and not isinstance(predictor, PoseEstimator):
        raise FlagError(f"--boxes is for exports of the task pose, but {arguments.config} is for {predictor.task}")
    if not isinstance(predictor, FrameSegmenter):
        flags = ["--tile"] * (arguments.tile is not None) + given_flags(arguments)
        if flags:
            raise FlagError(
                f"{flags[0]} is for exports of the task segmentation, but {arguments.config} is for {predictor.task}"
            )
    if isinstance(predictor, VideoSegmenter):
        predictor.scene_cut = arguments.scene_cut
    return predictor


def _open_outputs(
    predictor: LibraryPredictor, source: Source, arguments: argparse.Namespace
) -> contextlib.AbstractContextManager:
    if isinstance(predictor, Classifier):
        return open_class_outputs(source, arguments.save_dir, arguments.save)
    if isinstance(predictor, PoseEstimator):
        output = (arguments.save_dir, arguments.save, predictor.settings.keypoints)
        return open_pose_outputs(source, *output, arguments.box_category, arguments.threshold)
    deployment = predictor.deployment
    view = view_of_flags(arguments, deployment.names, deployment.palette)
    return open_outputs(source, arguments.save_dir, arguments.save, view)


def _labelling(
    predictor: LibraryPredictor,
    arguments: argparse.Namespace,
    file: BoxFile | None,
    is_video: bool,
) -> Callable[[Frame], Any] | None:
    """Return what labels a frame, or None for a call of the predictor."""
    if isinstance(predictor, Classifier):
        return lambda frame: predictor.predict(frame.image, arguments.topk)
    if not isinstance(predictor, PoseEstimator):
        return _segmentation(predictor, arguments)

    def find(frame: Frame) -> tuple[KeyPoints, ImageBoxes]:
        name = f"{frame.name}{'' if is_video else os.path.splitext(frame.source)[1]}"
        boxes = whole_image(name) if file is None else file.of(frame.source, name)
        return predictor(frame.image, boxes.boxes), boxes

    return find


def _segmentation(predictor: FrameSegmenter, arguments: argparse.Namespace) -> Callable[[Frame], Any] | None:
    """Return what labels a frame of an export for segmentation, or None for a call of the predictor."""
    segmenter = predictor
    if arguments.tile is not None:

        def track(places: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
            return tqdm(places, "tiles", leave=False, delay=2, disable=None)

        segmenter = TiledSegmenter(predictor, arguments.tile, arguments.overlap, track)
    if arguments.confidence:
        return lambda frame: segmenter.predict(frame.image)
    return None if segmenter is predictor else lambda frame: segmenter(frame.image)


def parse_arguments(line: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=file_or_folder, required=True, help="deploy.yaml of an export, or its folder")
    add(
        "--image_path",
        type=file_or_folder,
        required=True,
        help="an image, a folder with all images below it, a text list of images, "
        "a video file, the address of a video or a stream (http, rtsp, ...), or a camera by its number: 0, 1 ...",
    )
    add("--frames", type=positive, help="number of frames to read; by default all, and from a camera until Ctrl-C")
    add_engine_flags(parser)
    add(
        "--profile",
        nargs=3,
        type=_size,
        metavar="HxW",
        help="for TensorRT in ONNX Runtime on a graph with open sizes: the smallest, the usual and the largest size of "
        "an image, such as 512x1024 1024x2048 1024x2048",
    )
    add("--save_dir", type=output_folder, default="./output", help="folder for what is written")
    add(
        "--save",
        nargs="+",
        choices=SAVE,
        help="labels: an indexed PNG for each frame, or predictions.csv with the classes or keypoints.json with the "
        "people of all; overlay: a JPEG for "
        "an image, an MP4 for a video; by default both, but for label maps of a video",
    )
    add("--topk", type=count, default=5, help="classes of each frame, of a network that classifies")
    add(
        "--boxes",
        type=file_or_folder,
        help="of a network for pose, the boxes of people: COCO's results or annotations (JSON), or lines of text, "
        "image x1 y1 x2 y2 [score]; an image is named by its path or number, a frame of a video by its number from "
        "0; without the flag every frame is one box",
    )
    add("--box_category", type=not_negative, default=PERSON, help="the category of people in --boxes and in the output")
    add("--threshold", type=flag(number(0, 1)), default=0.3, help="keypoints with a lower score are not drawn")
    _add_segmentation_flags(parser)
    arguments = parser.parse_args(line)
    if arguments.overlap is not None and arguments.tile is None:
        raise FlagError("--overlap is that of tiles; give --tile H W, too")
    return arguments


def _add_segmentation_flags(parser: argparse.ArgumentParser) -> None:
    add_view_flags(parser)
    add = parser.add_argument_group("exports for segmentation").add_argument
    add(
        "--tile",
        action=Size,
        help="label large images tile by tile, as predict --is_slide does, in the memory of one row of tiles; the size "
        "of the graph where it is fixed",
    )
    add(
        "--overlap",
        type=not_negative,
        help="pixels that tiles have in common; by default an eighth of their shorter side",
    )
    add(
        "--scene_cut",
        type=_threshold,
        default=SCENE_CUT,
        help="the state of a network for video is cleared where a frame "
        "and the one before differ by more than this on average, of 255; off for never",
    )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return side(height), side(width)


def _threshold(text: str) -> float | None:
    return None if text == "off" else flag(number(0, 255))(text)


def finish(report: Report, save_dir: str) -> None:
    """Print what was done, and raise the error that ends the tool where something failed."""
    print(f"{describe(report)}\nresults are in {save_dir}")
    more = len(report.failures) - 10
    failures = "; ".join(report.failures[:10]) + (f"; and {more} more" if more > 0 else "")
    if report.interrupted:
        if failures:
            print(f"not labelled: {failures}", file=sys.stderr)
        raise KeyboardInterrupt
    if failures:
        raise UserError(f"not labelled: {failures}")
