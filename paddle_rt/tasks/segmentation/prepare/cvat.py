"""CVAT's XML for images, version 1.1: polygons, boxes, ellipses and masks, in the order of their z_order.

Polygons are filled by pycocotools, as in CVAT's own export of segmentation masks.

Source: https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file
from paddle_rt.tasks.segmentation.prepare.samples import (
    Classes,
    Drawn,
    Options,
    Region,
    Sample,
    Source,
    check_points,
    clean_name,
    find_image,
    number_classes,
    paint,
    split_names,
)

_IGNORED_KINDS = ("tag", "attribute")  # of an image as a whole


class _Shape(NamedTuple):
    """A shape: what messages call it, its class, the name of its element and its attributes."""

    where: str
    name: str
    kind: str
    attributes: dict[str, str]


class _Image(NamedTuple):
    """An image: its file's name, its size as text, and its shapes, the lowest first."""

    name: str
    size: tuple[str | None, str | None]
    shapes: list[_Shape]


def read(files: Sequence[str], options: Options) -> Source:
    """Read annotations.xml of exports "CVAT for images 1.1", one alone or one for each split.

    The classes are the labels of the task in its order, with its colours. Images are looked for beside the file and in
    its folder "images" unless the options name another.

    Raises:
        UserError: A file is not as CVAT writes it, an image is missing, or a class is not listed.
    """
    contents = [_parse(file) for file in files]
    labels = {name: colour for found, _ in contents for name, colour in found.items()}
    classes = number_classes(labels, options)
    samples, empty = [], 0
    for file, (_, images), split in zip(files, contents, split_names(len(files)), strict=True):
        here = os.path.dirname(file) or "."
        folders = [*options.image_folders, os.path.join(here, "images"), here]
        for image in images:
            draw = partial(_draw, image, classes, options.by_area, file)
            samples.append(Sample(find_image(image.name, folders, file), draw, split))
            empty += not image.shapes
    root = os.path.commonpath([os.path.dirname(os.path.abspath(sample.image)) for sample in samples])
    notes = [f"images without a shape: {empty} of {len(samples)}"] if empty else []
    colours = [labels.get(name) or (0, 0, 0) for name in classes.names]
    return Source(samples, classes.names, root, notes, colours if len(set(colours)) == len(colours) else None)


def _parse(file: str) -> tuple[dict[str, tuple[int, int, int] | None], list[_Image]]:
    """Return the colours of the labels by their names, and the images."""
    check_plain_file(file, "CVAT's annotations", 2**32)
    labels, images = {}, []
    try:
        for _, element in ElementTree.iterparse(file):
            if element.tag == "label" and element.find("name") is not None:
                colour = re.fullmatch("#([0-9a-fA-F]{6})", (element.findtext("color") or "").strip())
                name = clean_name(element.findtext("name"), f"{file}: a label")
                labels[name] = tuple(bytes.fromhex(colour[1])) if colour else None
            elif element.tag == "track":
                raise UserError(f"{file} holds tracks of a video; export the task as 'CVAT for images 1.1'")
            elif element.tag == "image":
                images.append(_image(element, file))
                element.clear()  # files of hundreds of MB are common
    except ElementTree.ParseError as error:
        raise UserError(f"{file} is not valid XML ({error}); expected CVAT's annotations") from error
    if not images:
        raise UserError(f"{file} has no images; expected the XML of 'CVAT for images 1.1'")
    return labels, images


def _image(element: ElementTree.Element, file: str) -> _Image:
    name, shapes = element.get("name", ""), []
    for number, child in enumerate(element, 1):
        if child.tag not in _IGNORED_KINDS:
            where = f"{file}, image {name}, shape {number}"
            label = clean_name(child.get("label"), where)
            shapes.append(_Shape(where, label, child.tag, dict(child.attrib)))
    heights = [_numbers(shape, "z_order", "0")[0] for shape in shapes]
    order = sorted(range(len(shapes)), key=heights.__getitem__)  # of one height the later one is on top
    return _Image(name, (element.get("height"), element.get("width")), [shapes[index] for index in order])


def _draw(image: _Image, classes: Classes, by_area: bool, file: str, size: tuple[int, int]) -> Drawn:
    if image.size != (str(size[0]), str(size[1])):
        raise UserError(
            f"{file} has annotations for {image.name} of {image.size[1]}x{image.size[0]}, but it is "
            f"{size[1]}x{size[0]}; give the image that was annotated"
        )
    regions = [_region(shape, classes.number(shape.name, shape.where), size) for shape in image.shapes]
    labels, overlap = paint(size, filter(None, regions), classes.unlabelled, by_area)
    return Drawn(labels, overlap, regions.count(None))


def _numbers(shape: _Shape, names: str, default: str | None = None) -> list[float]:
    """Return attributes as numbers."""
    texts = [shape.attributes.get(name, default) for name in names.split()]
    try:
        values = [float(text) for text in texts]  # None is a TypeError
    except (TypeError, ValueError) as error:
        raise UserError(f"{shape.where}: {names} must be numbers, got {shown(texts)}") from error
    return [number for point in check_points([(value, 0) for value in values], shape.where) for number in point[:1]]


def _region(shape: _Shape, value: int, size: tuple[int, int]) -> Region | None:
    if shape.kind == "mask":
        return _mask(shape, value, size)
    if shape.kind == "polygon":
        text = shape.attributes.get("points", "")
        try:
            points = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
        except ValueError as error:
            raise UserError(f"{shape.where}: points must be x,y;x,y;..., got {shown(text)}") from error
        corners = np.array(check_points(points, shape.where))
    elif shape.kind == "box":
        left, top, right, bottom = _numbers(shape, "xtl ytl xbr ybr")
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif shape.kind == "ellipse":
        x, y, width, height = _numbers(shape, "cx cy rx ry")
        angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
        corners = np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], 1)
    else:
        raise UserError(f"{shape.where}: a {shape.kind} has no area; expected polygon, box, ellipse or mask")
    (angle,) = _numbers(shape, "rotation", "0")
    if angle:
        turn = cv2.getRotationMatrix2D(((corners.min(0) + corners.max(0)) / 2).tolist(), -angle, 1)
        corners = corners @ turn[:, :2].T + turn[:, 2]
    if len(corners) < 3:
        return None
    encoded = coco_mask.merge(coco_mask.frPyObjects([corners.reshape(-1).tolist()], *size))
    left, top, width, height = map(int, coco_mask.toBbox(encoded))
    if not width:
        return None
    return Region(top, left, coco_mask.decode(encoded)[top : top + height, left : left + width].astype(bool), value)


def _mask(shape: _Shape, value: int, size: tuple[int, int]) -> Region | None:
    """Return a mask of run lengths, row by row within its box, that begin with background."""
    left, top, width, height = (int(number) for number in _numbers(shape, "left top width height"))
    text = shape.attributes.get("rle", "")
    lengths = [int(part) for part in re.findall(r"\d{1,10}", text)] if re.fullmatch(r"[\d,\s]+", text) else []
    inside = left >= 0 and top >= 0 and width > 0 and left + width <= size[1] and top + height <= size[0]
    if sum(lengths) != width * height or not inside:
        raise UserError(f"{shape.where}: the run lengths must cover a box in the image, got {width}x{height}")
    mask = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(height, width).astype(bool)
    return Region(top, left, mask, value) if mask.any() else None
