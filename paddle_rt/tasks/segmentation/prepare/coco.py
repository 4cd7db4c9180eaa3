"""COCO's instance annotations: polygons and run lengths become class numbers through pycocotools.

COCO's instances have no order: its tools score each mask by itself, and where a map of classes is made of them (the
helper of COCO-Stuff) they are painted in the order of the file. That is done here too, so that a later annotation lies
on top as in tools that export COCO in the order of drawing; with `by_area` smaller ones do. Groups (`iscrowd`) are
painted first, since their outlines are coarse.

Source: https://cocodataset.org/#format-data; https://github.com/nightrome/cocostuffapi, `cocostuffhelper.py`.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from paddle_rt.errors import UserError, shown
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
    read_json,
    split_names,
)

_KEYS = ("images", "annotations", "categories")
_WHAT = "COCO's instance annotations"


class _Shape(NamedTuple):
    """An annotation: what messages call it, its class, and its polygons or run lengths."""

    where: str
    value: int
    segmentation: Any


def read(files: Sequence[str], options: Options) -> Source:
    """Read annotation files in COCO's form, one alone or one for each split.

    The classes are the categories in the order of their ids. Images are looked for beside the file unless the options
    name their folder.

    Raises:
        UserError: A file is not in COCO's form, an image is missing, or a category is not listed.
    """
    contents = [(file, read_json(file, _KEYS, _WHAT)) for file in files]
    for file, content in contents:
        for key in _KEYS:
            _check_entries(content[key], f"{file}: {key}")
    categories = [_categories(file, content) for file, content in contents]
    classes = number_classes(_in_order_of_ids(categories), options)
    samples: list[Sample] = []
    empty = 0
    for (file, content), split, names in zip(contents, split_names(len(files)), categories, strict=True):
        shapes = _shapes(file, content, names, classes)
        folders = [*options.image_folders, os.path.dirname(file) or "."]
        for entry in content["images"]:
            image = find_image(str(entry.get("file_name")), folders, f"{file}, image {shown(entry['id'])}")
            size = entry.get("height"), entry.get("width")
            draw = partial(_draw, shapes.get(entry["id"], []), classes.unlabelled, options.by_area, size, file)
            samples.append(Sample(image, draw, split))
            empty += entry["id"] not in shapes
    root = os.path.commonpath([os.path.dirname(os.path.abspath(sample.image)) for sample in samples])
    notes = [f"images without an annotation: {empty} of {len(samples)}"] if empty else []
    return Source(samples, classes.names, root, notes)


def _check_entries(entries: Any, where: str) -> None:
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where} must be a list that is not empty, got {shown(entries)}")
    seen = set()
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int | str):
            raise UserError(f"{where}: an entry must be a mapping with an id, got {shown(entry)}")
        if number in seen:
            raise UserError(f"{where}: the id {shown(number)} occurs twice")
        seen.add(number)


def _categories(file: str, content: dict[str, Any]) -> dict[Any, str]:
    return {entry["id"]: clean_name(entry.get("name"), f"{file}: category {shown(entry['id'])}")
            for entry in content["categories"]}  # fmt: skip


def _in_order_of_ids(categories: Sequence[dict[Any, str]]) -> list[str]:
    """Return the names of all files' categories by their ids: numbers first, also those that are written as texts."""
    found = {(number, name) for one in categories for number, name in one.items()}
    keys = {pair: (not str(pair[0]).isdecimal(), str(pair[0]).zfill(30), pair[1]) for pair in found}
    return [name for _, name in sorted(found, key=keys.__getitem__)]


def _shapes(file: str, content: dict[str, Any], names: dict[Any, str], classes: Classes) -> dict[Any, list[_Shape]]:
    """Return the annotations of each image by its id, groups first."""
    shapes, images = defaultdict(list), {entry["id"] for entry in content["images"]}
    for entry in sorted(content["annotations"], key=lambda entry: not entry.get("iscrowd")):
        where = f"{file}, annotation {shown(entry['id'])}"
        image, category, segmentation = (entry.get(key) for key in ("image_id", "category_id", "segmentation"))
        if not isinstance(image, int | str) or image not in images:
            raise UserError(f"{where}: image_id {shown(image)} is no image of the file")
        if not isinstance(category, int | str) or category not in names:
            raise UserError(f"{where}: category_id {shown(category)} is no category of the file")
        if not segmentation:
            raise UserError(f"{where} has no segmentation, a box alone says nothing about pixels; remove it")
        shapes[image].append(_Shape(where, classes.number(names[category], where), segmentation))
    return shapes


def _draw(
    shapes: Sequence[_Shape], unlabelled: int, by_area: bool, stated: tuple[Any, Any], file: str, size: tuple[int, int]
) -> Drawn:
    if stated != size:
        raise UserError(
            f"{file} has annotations for an image of {stated[1]}x{stated[0]}, but it is {size[1]}x{size[0]}; give the "
            "image that was annotated"
        )
    regions = [_region(shape, size) for shape in shapes]
    labels, overlap = paint(size, filter(None, regions), unlabelled, by_area)
    return Drawn(labels, overlap, regions.count(None))


def _region(shape: _Shape, size: tuple[int, int]) -> Region | None:
    where, value, segmentation = shape
    if isinstance(segmentation, list):
        flat = [_polygon(part, where) for part in segmentation]
        encoded = [part for part in flat if len(part) >= 6]  # fewer than three points have no area
        encoded = coco_mask.merge(coco_mask.frPyObjects(encoded, *size)) if encoded else None
    else:
        encoded = _run_lengths(segmentation, size, where)
    if encoded is None or not coco_mask.area(encoded):
        return None
    left, top, width, height = map(int, coco_mask.toBbox(encoded))
    mask = coco_mask.decode(encoded)[top : top + height, left : left + width].astype(bool)
    return Region(top, left, mask, value)


def _polygon(numbers: Any, where: str) -> list[float]:
    if not isinstance(numbers, list) or len(numbers) % 2:
        raise UserError(f"{where}: a polygon must be a list [x, y, x, y, ...], got {shown(numbers)}")
    return [number for point in check_points(list(zip(numbers[::2], numbers[1::2], strict=True)), where)
            for number in point] if numbers else []  # fmt: skip


def _run_lengths(encoded: Any, size: tuple[int, int], where: str) -> dict[str, Any]:
    """Return compressed run lengths, of which pycocotools itself does not check that they fit the image."""
    counts = encoded.get("counts") if isinstance(encoded, dict) else None
    if counts is None or encoded.get("size") != list(size):
        expected = f"polygons, or run lengths with counts and the size {list(size)}"
        raise UserError(f"{where}: segmentation must be {expected}, got {shown(encoded)}")
    if isinstance(counts, str):
        lengths = _decompress(counts, where)
    else:
        lengths = counts
    whole = isinstance(lengths, list) and all(type(length) is int and length >= 0 for length in lengths)
    if not whole or sum(lengths) != size[0] * size[1]:
        raise UserError(f"{where}: the run lengths must cover the {size[0] * size[1]} pixels of the image")
    return coco_mask.frPyObjects({"counts": lengths, "size": list(size)}, *size)


def _decompress(text: str, where: str) -> list[int]:
    """Return the run lengths that a text stands for: six bits a character, and from the third on differences."""
    lengths, number, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise UserError(f"{where}: counts are no compressed run lengths: {shown(text)}")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits & 16) << (shift - 4)  # the sign
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    if shift:
        raise UserError(f"{where}: counts end within a number: {shown(text)}")
    return lengths
