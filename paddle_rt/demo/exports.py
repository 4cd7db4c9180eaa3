"""Exports on the page: what they find in a frame, and how it is drawn, listed and timed."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.errors import UserError, shown
from paddle_rt.imaging.draw import as_bgr
from paddle_rt.imaging.labels import count_values
from paddle_rt.imaging.view import View
from paddle_rt.inference import Classifier, KeyPoints, Labels, PoseEstimator, TopK, VideoSegmenter, VideoState
from paddle_rt.inference.loading import LibraryPredictor
from paddle_rt.inference.pose_estimator import KEYPOINT_SCORE, person_scores
from paddle_rt.inference.segmenter import FrameSegmenter

VIEWS = ("labels", "confidence")
_TOP = 5  # classes of an image that is classified


@dataclass(frozen=True)
class Options:
    """What a user of the page has chosen.

    Args:
        opacity: Weight of the labels' colours over the image.
        classes: The names of the classes that are shown; None for all.
        contours: Whether the borders of regions are drawn.
        view: One of `VIEWS`.
        threshold: Keypoints with a lower score are not drawn.
    """

    opacity: float = 0.5
    classes: Sequence[str] | None = None
    contours: bool = False
    view: str = VIEWS[0]
    threshold: float = 0.3


@dataclass(frozen=True, eq=False)
class Found:
    """What an export found in a frame.

    Args:
        frame: The frame.
        result: A label map, `Labels`, `KeyPoints` or `TopK`.
        seconds: The duration of each stage.
        state: Of a network for video, its state after the frame.
    """

    frame: np.ndarray
    result: np.ndarray | Labels | KeyPoints | TopK
    seconds: Mapping[str, float]
    state: VideoState | None = None


class Row(NamedTuple):
    """A row of the table beside a drawing.

    Args:
        name: Of a class or a person.
        share: From 0 to 1: the area of a class, its probability, or the score of a person.
        more: The mean confidence of a class, or the number of the keypoints of a person; None where it is unknown.
        colour: RGB of a class, where labels have colours.
    """

    name: str
    share: float
    more: str | None = None
    colour: tuple[int, int, int] | None = None


@dataclass(eq=False)
class Export:
    """An export that many users of the page share: it predicts one frame at a time, and keeps nothing of it.

    Args:
        name: The name on the page, one of its own for each export.
        predictor: From `paddle_rt.inference.load`, of a task of the library.
        engine: What computes, in words.
    """

    name: str
    predictor: LibraryPredictor
    engine: str
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def labels_pixels(self) -> bool:
        """Whether the network is one for segmentation."""
        return isinstance(self.predictor, FrameSegmenter)

    @property
    def has_confidence(self) -> bool:
        """Whether the confidence of labels can be computed."""
        return self.labels_pixels and self.predictor.deployment.output_op == "coarse"

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, which every label has."""
        return self.predictor.deployment.names

    @property
    def timings(self) -> dict[str, float]:
        """Seconds that this thread's last frame spent in each stage."""
        return self.predictor.timings

    def find(
        self,
        frame: np.ndarray,
        boxes: np.ndarray | None = None,
        confidence: bool = False,
        state: VideoState | None = None,
    ) -> Found:
        """Run the network on a frame.

        Args:
            frame: uint8, in the channels of the network.
            boxes: People, x1, y1, x2, y2 each, for a network for pose; None for one box, the whole frame.
            confidence: Whether that of labels is computed, too, where it can be.
            state: Of a network for video, what the frame before it left; None for the first one.

        Raises:
            UserError: The frame or a box is not what the network takes.
        """
        with self._lock:
            predictor = self.predictor
            if isinstance(predictor, VideoSegmenter):
                predictor.state = state
            if isinstance(predictor, PoseEstimator):
                result = predictor(frame, boxes)
            elif isinstance(predictor, Classifier):
                result = predictor.predict(frame, _TOP)
            else:
                result = predictor.predict(frame) if confidence and self.has_confidence else predictor(frame)
            after = predictor.state if isinstance(predictor, VideoSegmenter) else None
            return Found(frame, result, predictor.timings, after)

    def draw(self, found: Found, options: Options) -> np.ndarray:
        """Return the drawing of what was found over its frame, uint8 BGR [H, W, 3]."""
        if isinstance(found.result, TopK):
            pairs = zip(found.result.names, found.result.scores, strict=True)
            return imaging.caption(as_bgr(found.frame), [f"{name} {score:.2f}" for name, score in pairs])
        if isinstance(found.result, KeyPoints):
            keypoints, people = self.predictor.settings.keypoints, found.result
            sides = imaging.body_sides(keypoints.names, keypoints.flip_pairs)
            drawn = (found.frame, people.points, people.scores, keypoints.skeleton, sides, options.threshold)
            return imaging.draw_skeletons(*drawn)
        view = self._view(options)
        if options.view == "confidence" and isinstance(found.result, Labels):
            return replace(view, legend=True).heat_map(found.result.confidence)
        return view.draw(found.frame, label_map(found))

    def rows(self, found: Found, options: Options) -> list[Row]:
        """Return the rows of the table: the classes of an image or its people."""
        if isinstance(found.result, TopK):
            return [Row(*pair) for pair in zip(found.result.names, found.result.scores.tolist(), strict=True)]
        if isinstance(found.result, KeyPoints):
            scores = found.result.scores
            totals = person_scores(np.ones(len(scores), np.float32), scores)
            return [
                Row(f"person {number}", float(total), f"{(values > KEYPOINT_SCORE).sum()} of {len(values)}")
                for number, (values, total) in enumerate(zip(scores, totals, strict=True), 1)
            ]
        labels = label_map(found)
        counts = count_values(labels)
        sums = None
        if isinstance(found.result, Labels):
            sums = np.bincount(labels.ravel(), found.result.confidence.ravel(), 256)
        return self.area_rows(counts, options, sums)

    def area_rows(self, counts: np.ndarray, options: Options, sums: np.ndarray | None = None) -> list[Row]:
        """Return a row for each class that is shown and there, the largest one first.

        Args:
            counts: The pixels of each value of a label, [256].
            options: Has the classes that are shown.
            sums: The sum of the confidences of each, [256]; None where they are unknown.
        """
        names, palette = self.class_names, self.predictor.deployment.palette
        there = np.flatnonzero((counts > 0) & self._view(options).shown)
        return [
            Row(
                names[label],
                float(counts[label] / counts.sum()),
                None if sums is None else f"{sums[label] / counts[label]:.2f}",
                tuple(palette[label].tolist()),
            )
            for label in there[np.argsort(-counts[there], kind="stable")]
        ]

    def _view(self, options: Options) -> View:
        chosen = options.classes
        numbers = None if chosen is None else [at for at, name in enumerate(self.class_names) if name in chosen]
        deployment = self.predictor.deployment
        return View(self.class_names, deployment.palette, options.opacity, numbers, options.contours)


def label_map(found: Found) -> np.ndarray:
    """Return the labels of a frame that was segmented."""
    return found.result.map if isinstance(found.result, Labels) else found.result


def describe_time(seconds: Mapping[str, float], frames: int = 1, confidence: bool = False) -> str:
    """Return milliseconds a frame, in all and by stage.

    Args:
        seconds: The duration of each stage, added over the frames.
        frames: Their number.
        confidence: Whether the last stage computed the confidence, too.
    """
    stages = {"labels and confidence" if confidence and name == "labels" else name: s for name, s in seconds.items()}
    parts = ", ".join(f"{name} {1e3 * value / frames:.1f}" for name, value in stages.items())
    return f"{1e3 * sum(stages.values()) / frames:.1f} ms a frame ({parts})"


def read_boxes(text: str) -> np.ndarray | None:
    """Return the boxes of a text with x1 y1 x2 y2 in pixels on each line; None for an empty text.

    Raises:
        UserError: A line is something else.
    """
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if words and len(values) != 4:
            raise UserError(f"boxes, line {number}: expected x1 y1 x2 y2 in pixels of the image, got {shown(line)}")
        boxes += [values] * bool(words)
    return np.array(boxes) if boxes else None


def in_channels(frame: np.ndarray, channels: int) -> np.ndarray:
    """Return a BGR frame of a camera in the channels that a network takes.

    Raises:
        UserError: They are 4, which no camera gives.
    """
    if channels == 4:
        raise UserError("the network takes images of 4 channels, which a webcam does not give; upload an image file")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if channels == 1 else frame


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder of an export: the last parts of its path, as many as tell it from the others.

    Raises:
        UserError: A folder is there twice.
    """
    paths = [folder.absolute() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"--config names an export twice: {', '.join(map(str, folders))}")
