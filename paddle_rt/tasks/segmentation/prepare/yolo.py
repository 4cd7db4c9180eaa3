"""Ultralytics' YOLO segmentation data: polygons in text files, and data.yaml with classes and splits.

Ultralytics fills a polygon whose corners are cut to whole pixels by OpenCV's fillPoly, which is done here too, and lets
smaller polygons lie on top, as `by_area` does.

Source: https://docs.ultralytics.com/datasets/segment/; `ultralytics/data/utils.py`, for the order.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file
from paddle_rt.imaging.lists import read_images, read_lines
from paddle_rt.imaging.read_write import list_images
from paddle_rt.tasks.segmentation.prepare.samples import (
    Classes,
    Drawn,
    Options,
    Region,
    Sample,
    Source,
    check_points,
    clean_name,
    number_classes,
    paint,
)
from paddle_rt.yaml_file import read_yaml

_SPLITS = ("train", "val", "test")


def read(files: Sequence[str], options: Options) -> Source:
    """Read a data.yaml: the names of the classes, and the images of each split, whose labels have a .txt each.

    Where it names images to train on alone, they are divided like those of other formats.

    Raises:
        UserError: A file is not as Ultralytics describes it, an image is missing, or a class is not listed.
    """
    if len(files) > 1:
        raise UserError("--format yolo takes one --input, a data.yaml that names all splits")
    (file,) = files
    content = read_yaml(file, "data.yaml of Ultralytics")
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or sorted(names) != list(range(len(names))):
        raise UserError(f"{file}: 'names' must list the classes from 0 on, got {shown(names)}")
    cleaned = [clean_name(names[number], f"{file}: class {number}") for number in range(len(names))]
    classes = number_classes(cleaned, options)
    numbers = [classes.number(name, file) for name in cleaned]
    splits = [split for split in _SPLITS if content.get(split)]
    divides = len(splits) > 1
    samples, empty = [], 0
    for split in splits:
        for image in _images(file, content, split):
            labels = _labels_of(image)
            empty += labels is None
            draw = partial(_draw, labels, numbers, classes, options.by_area)
            samples.append(Sample(image, draw, split if divides else None))
    if not samples:
        raise UserError(f"{file} names no images; expected train, val or test")
    root = os.path.commonpath([os.path.dirname(os.path.abspath(sample.image)) for sample in samples])
    notes = [f"images without a .txt, which are without objects: {empty} of {len(samples)}"] if empty else []
    return Source(samples, classes.names, root, notes)


def _images(file: str, content: dict[str, Any], split: str) -> list[str]:
    """Return the images of a split, which is a folder, a list, or several of them."""
    parts = content[split] if isinstance(content[split], list) else [content[split]]
    here = os.path.dirname(file) or "."
    roots = [os.path.join(here, str(content.get("path") or ".")), here]  # "path" is often that of another computer
    found: list[str] = []
    for part in parts:
        # Roboflow writes "../train/images" for a folder beside the file, which Ultralytics finds too.
        names = [str(part), str(part).removeprefix("../")]
        places = [os.path.normpath(os.path.join(root, name)) for name in names for root in roots]
        place = next((place for place in places if os.path.exists(place)), None)
        if place is None:
            raise UserError(
                f"{file}: {split} names {shown(part)}, which is neither {' nor '.join(dict.fromkeys(places))}"
            )
        if os.path.isdir(place):
            found += list_images(place)[0]
        else:
            found += read_images(place, os.path.dirname(place) or ".")
    return found


def _labels_of(image: str) -> str | None:
    """Return the .txt of an image: the last folder "images" of its path becomes "labels"."""
    before, found, behind = image.rpartition(f"{os.sep}images{os.sep}")
    name = f"{before}{os.sep}labels{os.sep}{behind}" if found else image
    path = f"{os.path.splitext(name)[0]}.txt"
    return path if os.path.exists(path) else None


def _draw(file: str | None, numbers: Sequence[int], classes: Classes, by_area: bool, size: tuple[int, int]) -> Drawn:
    regions = []
    if file is not None and check_plain_file(file, "labels of YOLO", 2**28).read_bytes().strip():
        regions = [_region(line, numbers, size, f"{file}, line {number}") for number, line in read_lines(file)]
    labels, overlap = paint(size, filter(None, regions), classes.unlabelled, by_area)
    return Drawn(labels, overlap, regions.count(None))


def _region(line: str, numbers: Sequence[int], size: tuple[int, int], where: str) -> Region | None:
    first, *rest = line.split()
    if not first.isdecimal() or int(first) >= len(numbers):
        raise UserError(f"{where}: the class must be a number from 0 to {len(numbers) - 1}, got {shown(first)}")
    if len(rest) == 4:
        raise UserError(f"{where}: this is a box, which says nothing about pixels; expected the points of a polygon")
    try:
        values = [float(text) for text in rest]
        points = check_points(list(zip(values[::2], values[1::2], strict=True)), where)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: expected a class and pairs of numbers from 0 to 1, got {shown(line)}") from error
    if len(points) < 3:
        return None
    corners = (np.array(points) * size[::-1]).clip(-1, max(size) + 1).astype(np.int32)
    mask = cv2.fillPoly(np.zeros(size, np.uint8), [corners], 1)
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return None
    return Region(top, left, mask[top : top + height, left : left + width].astype(bool), numbers[int(first)])
