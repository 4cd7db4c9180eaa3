"""LabelMe's JSON files: shapes become class numbers as LabelMe 5 draws them, in the order of the file.

Source: https://github.com/wkentaro/labelme, `labelme/label_file.py` for the keys and `labelme/utils/shape.py` for what
each type of shape covers.
"""

import base64
import binascii
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.imaging.read_write import decode, walk_files
from paddle_rt.parallel import map_on_all_cores
from paddle_rt.tasks.segmentation.prepare.samples import (
    Classes,
    Drawn,
    Options,
    Pencil,
    Region,
    Sample,
    Source,
    check_points,
    clean_name,
    find_image,
    number_classes,
    paint,
    read_json,
    require_folder,
    split_names,
    walk_images,
)

_KEYS = ("shapes", "imagePath")
_WHAT = "LabelMe's annotations"
_LINE_WIDTH, _POINT_RADIUS = 10, 5  # pixels, LabelMe's
_Points = list[tuple[float, float]]


class _Scan(NamedTuple):
    """What the first look into a file finds: the names of its classes, and its image, if that is a file."""

    names: list[str]
    image: str | None


def read(folders: Sequence[str], options: Options) -> Source:
    """Read the JSON files of LabelMe in folders, one alone or one for each split, at any depth.

    The classes are the labels that occur, sorted. Images are looked for beside their file, then in the folders that the
    options name, and last in the file itself.

    Raises:
        UserError: A file is not as LabelMe writes it, an image is missing, or a class is not listed.
    """
    splits = split_names(len(folders))
    files = [(file, split) for folder, split in zip(folders, splits, strict=True) for file in _json_files(folder)]
    scan = partial(_scan, options.image_folders)
    scans = list(map_on_all_cores(scan, [file for file, _ in files], "read the annotations"))
    classes = number_classes(sorted({name for scan in scans for name in scan.names}), options)
    samples = []
    for (file, split), scan in zip(files, scans, strict=True):
        embedded = partial(_embedded, file) if scan.image is None else None
        samples.append(Sample(scan.image or file, partial(_draw, file, classes, options.by_area), split, embedded))
    root = os.path.commonpath([os.path.dirname(os.path.abspath(sample.image)) for sample in samples])
    used = {os.path.abspath(sample.image) for sample in samples}
    idle = [image for folder in folders for image in walk_images(folder) if os.path.abspath(image) not in used]
    notes = [f"images without annotations, which are left out: {len(idle)}, such as {min(idle)}"] if idle else []
    return Source(samples, classes.names, root, notes)


def _json_files(folder: str) -> list[str]:
    require_folder(folder, "--input")
    files = [file for file in walk_files(folder) if file.lower().endswith(".json")]
    if not files:
        raise UserError(f"--input: no JSON files of LabelMe in folder {folder}")
    return sorted(files)


def _scan(image_folders: Sequence[str], file: str) -> _Scan:
    content = read_json(file, _KEYS, _WHAT)
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise UserError(f"{file}: 'shapes' must be a list of shapes, got {shown(shapes)}")
    names = [_class_of(shape, f"{file}, shape {number}") for number, shape in enumerate(shapes, 1)]
    try:
        image = find_image(str(content["imagePath"]), [os.path.dirname(file) or ".", *image_folders], file)
    except UserError:
        if not content.get("imageData"):
            raise
        image = None
    return _Scan(names, image)


def _class_of(shape: dict[str, Any], where: str) -> str:
    return clean_name(shape.get("label"), where)


def _embedded(file: str) -> bytes:
    data = read_json(file, _KEYS, _WHAT)["imageData"]
    return _decode_base64(data, f"{file}: imageData")


def _decode_base64(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise UserError(f"{where} must be an image in base64, got {shown(text)}") from error


def _draw(file: str, classes: Classes, by_area: bool, size: tuple[int, int]) -> Drawn:
    content = read_json(file, _KEYS, _WHAT)
    stated = content.get("imageHeight") or size[0], content.get("imageWidth") or size[1]
    if stated != size:
        raise UserError(
            f"{file} was drawn on an image of {stated[1]}x{stated[0]}, but its image is {size[1]}x{size[0]}; "
            "give the image that was annotated"
        )
    pencil, regions, without_area = Pencil(size), [], 0
    for number, shape in enumerate(content["shapes"], 1):
        where = f"{file}, shape {number}"
        value = classes.number(_class_of(shape, where), where)
        drawn = _region(pencil, shape, value, where)
        if drawn is None:
            without_area += 1
        else:
            regions.append(drawn)
    labels, overlap = paint(size, regions, classes.unlabelled, by_area)
    return Drawn(labels, overlap, without_area)


def _region(pencil: Pencil, shape: dict[str, Any], value: int, where: str) -> Region | None:
    kind = shape.get("shape_type") or "polygon"  # versions before 3 write none
    if kind not in _SHAPES and kind != "mask":
        raise unknown("shape_type", kind, [*_SHAPES, "mask"], where)
    points = check_points(shape.get("points"), where)
    if kind == "mask":
        return _mask_region(shape.get("mask"), points, pencil.canvas.size[::-1], value, where)
    draw, numbers = _SHAPES[kind]
    if numbers and len(points) not in numbers:
        expected = " or ".join(map(str, numbers))
        raise UserError(f"{where}: a {kind} has {expected} point{'s' * (numbers != (1,))}, got {len(points)}")
    return pencil.region(partial(draw, points), value)


def _mask_region(text: Any, points: _Points, size: tuple[int, int], value: int, where: str) -> Region | None:
    """Return the part of a drawn mask that lies in the image; its first point says where its corner is."""
    mask = decode(f"of the mask in {where}", _decode_base64(text, f"{where}: mask"), cv2.IMREAD_UNCHANGED)
    mask = (mask if mask.ndim == 2 else mask.any(2)).astype(bool)
    left, top = (round(number) for number in points[0])
    mask = mask[max(-top, 0) : max(size[0] - top, 0), max(-left, 0) : max(size[1] - left, 0)]
    return Region(max(top, 0), max(left, 0), mask, value) if mask.any() else None


def _polygon(points: _Points, image: Image.Image) -> None:
    if len(points) > 2:
        ImageDraw.Draw(image).polygon(points, outline=1, fill=1)


def _rectangle(points: _Points, image: Image.Image) -> None:
    low, high = np.min(points, 0), np.max(points, 0)
    ImageDraw.Draw(image).rectangle([*low.tolist(), *high.tolist()], outline=1, fill=1)


def _disc(centre: tuple[float, float], radius: float, image: Image.Image) -> None:
    (x, y), r = centre, radius
    ImageDraw.Draw(image).ellipse([x - r, y - r, x + r, y + r], outline=1, fill=1)


def _circle(points: _Points, image: Image.Image) -> None:
    _disc(points[0], math.dist(*points), image)


def _point(points: _Points, image: Image.Image) -> None:
    _disc(points[0], _POINT_RADIUS, image)


def _line(points: _Points, image: Image.Image) -> None:
    ImageDraw.Draw(image).line(points, fill=1, width=_LINE_WIDTH)


# How each type of shape is drawn, and how many points it must have; empty for any number. X-AnyLabeling, which writes
# files of this form, gives all corners of a rectangle, and calls a turned one "rotation".
_SHAPES: dict[str, tuple[Callable[[_Points, Image.Image], None], tuple[int, ...]]] = {
    "polygon": (_polygon, ()),
    "rectangle": (_rectangle, (2, 4)),
    "oriented_rectangle": (_polygon, (4,)),
    "rotation": (_polygon, (4,)),
    "circle": (_circle, (2,)),
    "line": (_line, (2,)),
    "linestrip": (_line, ()),
    "point": (_point, (1,)),
}
