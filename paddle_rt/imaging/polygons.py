"""The regions of a label map as polygons, in the files of COCO and of LabelMe, for annotation tools.

A polygon stands for one connected region of a class. Its points lie in continuous coordinates: the pixel in the upper
left corner reaches from 0 to 1. Holes are cut out: a ring runs to each of them and back along the same line.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from paddle_rt.files import whole_file
from paddle_rt.imaging.labels import count_values

COCO = "coco_annotations.json"
LABELME = "labelme"  # the folder of its files
_TOLERANCE = 0.7  # pixels that a polygon may differ from the region's border; it keeps poles of two pixels
_LABELME_VERSION = "5.5.0"  # whose form the files have


class Polygon(NamedTuple):
    """A region of a class.

    Args:
        label: The class.
        area: Its pixels.
        points: x and y of its corners, float [N, 2].
    """

    label: int
    area: int
    points: np.ndarray


def find_polygons(labels: np.ndarray, classes: Sequence[int], min_area: int = 1) -> list[Polygon]:
    """Find the polygons of a label map.

    Args:
        labels: Class numbers, uint8 [H, W].
        classes: The classes that count.
        min_area: Regions of fewer pixels are left out, and holes of fewer pixels are filled.

    Returns:
        The polygons, the largest first.
    """
    present = np.flatnonzero(count_values(labels))
    found = []
    for label in sorted(set(present.tolist()).intersection(classes)):
        found += _polygons_of(labels == label, label, min_area)
    return sorted(found, key=lambda polygon: -polygon.area)


def _polygons_of(mask: np.ndarray, label: int, min_area: int) -> Iterator[Polygon]:
    count, regions, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for region in range(1, count):
        left, top, width, height, area = boxes[region]
        if area < min_area:
            continue
        part = regions[top : top + height, left : left + width] == region
        # At twice the size, the outlines run at a quarter of a pixel from the border, and not through pixels' centres.
        doubled = np.repeat(np.repeat(part, 2, axis=0), 2, axis=1).astype(np.uint8)
        rings, levels = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outer = next(i for i, (_, _, _, parent) in enumerate(levels[0]) if parent < 0)
        points = _simplified(rings[outer])
        for hole in (ring for ring, (_, _, _, parent) in zip(rings, levels[0], strict=True) if parent == outer):
            if _inner_area(hole) >= 4 * min_area:
                points = _joined(points, _simplified(hole))
        yield Polygon(label, int(area), (points + 0.5) / 2 + (left, top))


def _simplified(ring: np.ndarray) -> np.ndarray:
    simple = cv2.approxPolyDP(ring, 2 * _TOLERANCE, closed=True)
    simple = simple if len(simple) >= 3 else cv2.convexHull(ring)
    return simple[:, 0].astype(np.float64)


def _inner_area(ring: np.ndarray) -> float:
    """Return the number of pixels that a hole's ring, which runs through the pixels around it, encloses (Pick)."""
    return cv2.contourArea(ring) - len(ring) / 2 + 1


def _joined(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole to a ring between their nearest corners."""
    distances = ((ring[:, np.newaxis] - hole) ** 2).sum(axis=2)
    at, to = np.unravel_index(np.argmin(distances), distances.shape)
    return np.concatenate([ring[: at + 1], np.roll(hole, -to, axis=0), hole[to : to + 1], ring[at:]])


def write_labelme(
    path: str | os.PathLike, image: str, size: Sequence[int], polygons: Sequence[Polygon], names: Sequence[str]
) -> None:
    """Write the polygons of an image as a file that LabelMe opens.

    Args:
        path: The file to write.
        image: The image, to which the file refers by its place relative to the file's folder.
        size: (height, width) of the image.
        polygons: The polygons.
        names: The names of the classes.
    """
    shapes = [
        {
            "label": names[polygon.label],
            "points": polygon.points.tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for polygon in polygons
    ]
    content = {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": os.path.relpath(image, pathlib.Path(path).parent),
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def open_coco(
    path: str | os.PathLike, names: Sequence[str]
) -> Iterator[Callable[[str, Sequence[int], Sequence[Polygon]], None]]:
    """Open a file of COCO's instances; a class has the category of its number plus 1.

    Args:
        path: The file, which appears when the block ends without an error.
        names: The names of the classes.

    Yields:
        A function that adds an image: its name, its (height, width) and its polygons.
    """
    images: list[dict[str, Any]] = []
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)]
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        count = 0

        def add(name: str, size: Sequence[int], polygons: Sequence[Polygon]) -> None:
            nonlocal count
            images.append({"id": len(images) + 1, "file_name": name, "height": size[0], "width": size[1]})
            for polygon in polygons:
                count += 1
                entry = {"id": count, "image_id": len(images), **_annotation(polygon)}
                file.write(f"{',' * (count > 1)}\n{json.dumps(entry)}")

        yield add
        file.write(f'\n],\n"images": {json.dumps(images)}}}\n')


def _annotation(polygon: Polygon) -> dict[str, Any]:
    low, high = polygon.points.min(axis=0), polygon.points.max(axis=0)
    return {
        "category_id": polygon.label + 1,
        "segmentation": [polygon.points.ravel().tolist()],
        "area": polygon.area,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "iscrowd": 0,
    }
