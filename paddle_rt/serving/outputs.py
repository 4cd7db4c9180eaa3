"""From the bytes of an image to the file that answers a request, for every task; nothing here knows of HTTP."""

import io
import json
import pathlib
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.imaging.polygons import find_polygons, open_coco, write_labelme
from paddle_rt.imaging.read_write import PNG_SIGNATURE
from paddle_rt.imaging.view import View
from paddle_rt.inference import Classifier, Deployment, PoseEstimator, VideoSegmenter
from paddle_rt.inference.boxes import PERSON, ImageBoxes, whole_image
from paddle_rt.inference.loading import LibraryPredictor
from paddle_rt.inference.media.predictions import open_keypoints
from paddle_rt.inference.segmenter import FrameSegmenter

ZIP = "application/zip"
MOST_BOXES = 64  # of an image: the network runs once for each
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_MOST_SCANS = 100  # of a JPEG; encoders write 10 or so, and each takes a pass over all pixels
_MOST_CHUNKS = 10_000  # of a PNG; encoders write one for 8 KiB or more
_THRESHOLD = 0.3  # keypoints with a lower score are not drawn
# What Pillow raises for headers that are damaged.
_DAMAGED = (OSError, SyntaxError, ValueError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


class TooLarge(UserError):
    """An image that has more pixels than the service takes."""


@dataclass(frozen=True)
class Upload:
    """An image of a request.

    Args:
        name: Its name, without folders.
        data: The bytes of the file.
        boxes: For pose, x1, y1, x2, y2 of each person; None for one box, the whole image.
    """

    name: str
    data: bytes
    boxes: list[Any] | None = None


@dataclass(frozen=True, eq=False)
class Item:
    """An image and what the network found in it.

    Args:
        upload: The image of the request.
        frame: The image, decoded.
        found: What the predictor returned.
    """

    upload: Upload
    frame: np.ndarray
    found: Any


@dataclass(frozen=True)
class Output:
    """A form in which a service answers.

    Args:
        media_type: The type of the answer.
        suffix: The suffix of its file.
        encode: Makes the file of an image, or the image's part of the one file for all images of a request.
        join: Makes that one file of all parts; None for a form with a file for each image.
    """

    media_type: str
    suffix: str
    encode: Callable[[Item], Any]
    join: Callable[[list[Any]], bytes] | None = None

    def pack(self, names: Sequence[str], parts: list[Any], batch: bool) -> tuple[str, bytes]:
        """Return the type and the content of an answer; several files become a ZIP file.

        Args:
            names: The names of the images.
            parts: What `encode` returned for each.
            batch: Whether the request was one for a batch.
        """
        if self.join:
            return self.media_type, self.join(parts)
        if not batch:
            return self.media_type, parts[0]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:  # without compression, since images are compressed
            for name, part in zip(output_names(names, "."), parts, strict=True):
                archive.writestr(f"{name}{self.suffix}", part)
        return ZIP, content.getvalue()


def decode(upload: Upload, channels: int, max_pixels: int) -> np.ndarray:
    """Decode an image whose header promises no more pixels than are allowed.

    Args:
        upload: The image, a JPEG, PNG, BMP, TIFF or WebP file.
        channels: The channels that the network takes.
        max_pixels: The most pixels that an image may have.

    Raises:
        TooLarge: The image has more pixels.
        UserError: It is damaged, of another format or of channels that the network does not take.
    """
    name, data = upload.name, upload.data
    if not data:
        raise UserError(f"image {name} is empty (0 bytes)")
    _check_parts(name, data)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:  # reads the header alone
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise TooLarge(
            f"image {name} has far more than {max_pixels} pixels, the most that this service takes"
        ) from error
    except _DAMAGED as error:
        raise UserError(
            f"cannot decode image {name}: it is damaged, or not an image ({len(data)} bytes); expected JPEG, PNG, BMP, "
            "TIFF or WebP"
        ) from error
    if width * height > max_pixels:
        raise TooLarge(f"image {name} has {width}x{height} pixels; this service takes at most {max_pixels}")
    return imaging.decode_image(name, data, channels)


def _check_parts(name: str, data: bytes) -> None:
    """Refuse an image of so many parts that decoding it takes far longer than its size lets expect."""
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _MOST_SCANS:
        raise UserError(f"image {name} has more than {_MOST_SCANS} scans; write it as a baseline JPEG")
    if data.startswith(PNG_SIGNATURE):
        at, count = len(PNG_SIGNATURE), 0
        while at + 12 <= len(data):
            at, count = at + 12 + int.from_bytes(data[at : at + 4], "big"), count + 1
            if count > _MOST_CHUNKS:
                raise UserError(f"image {name} has more than {_MOST_CHUNKS} chunks; write it anew")


def predict(predictor: LibraryPredictor, frame: np.ndarray, boxes: list[Any] | None) -> Any:
    """Run a predictor on an image that has nothing to do with the one before.

    Raises:
        UserError: The predictor refuses the image or the boxes.
    """
    if isinstance(predictor, PoseEstimator):
        return predictor(frame, boxes)
    if isinstance(predictor, Classifier):
        return predictor.predict(frame)
    if isinstance(predictor, VideoSegmenter):
        predictor.reset()
    return predictor(frame)


def outputs_of(predictor: LibraryPredictor) -> dict[str, Output]:
    """Return the forms in which a service answers for a predictor, the usual one first."""
    if isinstance(predictor, FrameSegmenter):
        return _segmentation(predictor.deployment)
    if isinstance(predictor, Classifier):
        return _classification()
    return _pose(predictor)


def _segmentation(deployment: Deployment) -> dict[str, Output]:
    names, palette = deployment.names, deployment.palette
    view = View(names, palette)

    def polygons(item: Item) -> tuple[str, tuple[int, ...], Any]:
        return item.upload.name, item.found.shape, find_polygons(item.found, range(len(names)), view.min_area)

    def labelme(item: Item) -> bytes:
        name, size, found = polygons(item)
        return _file(".json", lambda path: write_labelme(path, path.with_name(name), size, found, names))

    return {
        "labels": Output(
            "image/png",
            ".png",
            lambda item: _file(".png", lambda path: imaging.write_label(path, item.found, palette)),
        ),
        "overlay": _overlay(lambda item: view.draw(item.frame, item.found)),
        "coco": Output("application/json", ".json", polygons, _joined(lambda path: open_coco(path, names))),
        "labelme": Output("application/json", ".json", labelme),
    }


def _pose(predictor: PoseEstimator) -> dict[str, Output]:
    keypoints = predictor.settings.keypoints
    sides = imaging.body_sides(keypoints.names, keypoints.flip_pairs)

    def people(item: Item) -> tuple[Any, ImageBoxes]:
        boxes = whole_image(item.upload.name)
        if item.upload.boxes is not None:
            count = len(item.upload.boxes)
            boxes = ImageBoxes(np.asarray(item.upload.boxes), np.ones(count, np.float32), boxes.image_id)
        return item.found, boxes

    def draw(item: Item) -> np.ndarray:
        points, scores = item.found.points, item.found.scores
        return imaging.draw_skeletons(item.frame, points, scores, keypoints.skeleton, sides, _THRESHOLD)

    join = _joined(lambda path: open_keypoints(path, PERSON))
    return {"keypoints": Output("application/json", ".json", people, join), "overlay": _overlay(draw)}


def _classification() -> dict[str, Output]:
    def classes(item: Item) -> dict[str, Any]:
        top = zip(item.found.classes.tolist(), item.found.scores.tolist(), item.found.names, strict=True)
        found = [{"class": number, "score": round(score, 6), "name": name} for number, score, name in top]
        return {"image": item.upload.name, "classes": found}

    def draw(item: Item) -> np.ndarray:
        top = zip(item.found.names, item.found.scores, strict=True)
        return imaging.caption(item.frame, [f"{name} {score:.2f}" for name, score in top])

    as_json = Output("application/json", ".json", classes, lambda parts: (json.dumps(parts) + "\n").encode())
    return {"classes": as_json, "overlay": _overlay(draw)}


def _overlay(draw: Callable[[Item], np.ndarray]) -> Output:
    def encode(item: Item) -> bytes:
        return _file(".jpg", lambda path: imaging.write_image(path, draw(item)))

    return Output("image/jpeg", ".jpg", encode)


def _joined(open_file: Callable[[pathlib.Path], AbstractContextManager]) -> Callable[[list[Any]], bytes]:
    """Return what makes one JSON file of the parts of all images, by a writer of the package."""

    def join(parts: list[Any]) -> bytes:
        def write(path: pathlib.Path) -> None:
            with open_file(path) as add:
                for part in parts:
                    add(*part)

        return _file(".json", write)

    return join


def _file(suffix: str, write: Callable[[pathlib.Path], None]) -> bytes:
    """Return the bytes of a file that one of the package's writers writes."""
    with tempfile.TemporaryDirectory(prefix="paddle_rt_") as folder:
        path = pathlib.Path(folder) / f"answer{suffix}"
        write(path)
        return path.read_bytes()
