"""Annotation files and files of detections in COCO's form: everything in them is checked before it is used."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from paddle_rt.arguments import LONGEST_SIDE, check_section
from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file
from paddle_rt.inference.keypoints import KEYPOINT_SETS, KeypointSet
from paddle_rt.kinds import LIST, TEXT, Kind, listed, number, whole

_MAX_BYTES = 2**31  # the largest of COCO's own files has 230 MB
_LARGEST = 1e9  # pixels; far outside every image
_AREA_OF_BOX = 0.53  # share of the box that the body has where a file gives no area


def _are_numbers(values: Any) -> bool:
    plain = isinstance(values, list) and set(map(type, values)) <= {int, float}
    return plain and all(-_LARGEST < value < _LARGEST for value in values)


_BOX = Kind(
    "x, y, width and height, four finite numbers, the last two not negative",
    lambda value: _are_numbers(value) and len(value) == 4 and min(value[2:]) >= 0,
)
# What the entries of each list may hold. Keys beside these are ignored.
_TOP = {"images": LIST, "annotations": LIST, "categories": LIST}
_IMAGE = {"id": whole(), "file_name": TEXT, "width": whole(1, LONGEST_SIDE), "height": whole(1, LONGEST_SIDE)}
_CATEGORY = {
    "id": whole(),
    "name": TEXT,
    "keypoints": listed(TEXT),
    "skeleton": listed(listed(whole(1, 65_535), 2), valid="a list of pairs of keypoint numbers, the first being 1"),
}
_LINKS = {"id": whole(), "image_id": whole(), "category_id": whole()}
_PERSON = {
    "bbox": _BOX,
    "keypoints": Kind("a list of finite numbers, x, y and visibility of each keypoint", _are_numbers),
    "num_keypoints": whole(0),
    "area": number(0),
    "iscrowd": Kind("0 or 1", lambda value: value in (0, 1)),
}
_DETECTION = {"image_id": whole(), "category_id": whole(), "bbox": _BOX, "score": number()}


class Parsed(NamedTuple):
    """One annotation as MMPose reads it.

    Attributes:
        bbox: x1, y1, x2, y2, clipped to the image, float32 [4].
        keypoints: float32 [K, 2].
        visible: float32 [K]: 0 for a keypoint without a label, 1 for any other, hidden ones included.
        num_keypoints: As the file has it, or else the number of keypoints with a coordinate above 0 or below.
        area: As the file has it, or else 0.53 of the clipped box.
        kept: False for a crowd, a person without keypoints, and an empty box.
    """

    bbox: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    num_keypoints: int
    area: np.float32
    kept: bool


def parse(annotation: Mapping[str, Any], width: int, height: int) -> Parsed:
    """Read an annotation of an image of a size.

    Source: MMPose 1.2.0, BaseCocoStyleDataset.parse_data_info.
    """
    x, y, w, h = annotation["bbox"]
    left, right = (min(max(value, 0), width - 1) for value in (x, x + w))
    top, bottom = (min(max(value, 0), height - 1) for value in (y, y + h))
    bbox = np.array([left, top, right, bottom], np.float32)
    values = np.array(annotation["keypoints"], np.float32).reshape(-1, 3)
    keypoints, visible = values[:, :2], np.minimum(values[:, 2], np.float32(1))
    count = annotation.get("num_keypoints")
    if count is None:
        count = int(np.count_nonzero(keypoints.max(axis=1)))
    area = annotation.get("area", max((right - left) * (bottom - top) * _AREA_OF_BOX, 1.0))
    has_extent = bbox[2] > bbox[0] and bbox[3] > bbox[1]
    kept = not annotation.get("iscrowd") and count > 0 and has_extent and keypoints.max() > 0
    return Parsed(bbox, keypoints, visible, count, np.float32(area), bool(kept))


@dataclass(frozen=True)
class CocoFile:
    """A file of annotations whose content is in order.

    Attributes:
        path: The file.
        images: The images by their ids.
        category: The category that is read.
        annotations: Those of the category, image after image in the order of `images`.
        keypoints: Its keypoints.
    """

    path: str
    images: dict[int, dict[str, Any]]
    category: dict[str, Any]
    annotations: list[dict[str, Any]]
    keypoints: KeypointSet

    def ground_truth(self) -> dict[str, Any]:
        """Return what COCOeval takes, with an area, a number of keypoints and a crowd flag in each annotation.

        pycocotools takes the id 0 for "no annotation". If an id is 0 or less, all ids are moved so that the first is 1.
        """
        shift = max(0, 1 - min((annotation["id"] for annotation in self.annotations), default=1))
        annotations = []
        for annotation in self.annotations:
            row = {key: annotation[key] for key in (*_LINKS, *_PERSON) if key in annotation}
            row.setdefault("keypoints", [0] * (3 * len(self.keypoints)))  # of a crowd
            row.setdefault("num_keypoints", sum(value > 0 for value in row["keypoints"][2::3]))
            row.setdefault("iscrowd", 0)
            if "area" not in row:
                image = self.images[row["image_id"]]
                row["area"] = float(parse(row, image["width"], image["height"]).area)
            annotations.append({**row, "id": row["id"] + shift})
        return {"images": list(self.images.values()), "categories": [self.category], "annotations": annotations}


def read_annotations(path: str | os.PathLike, keypoints: KeypointSet | None = None) -> CocoFile:
    """Read a file of keypoint annotations.

    Args:
        path: JSON, as COCO's person_keypoints_val2017.json.
        keypoints: The keypoints; the annotations of its category are read. Without it they are those of the only
            category of the file that has keypoints, or else of "person".

    Raises:
        UserError: The file cannot be read, or something in it is missing or wrong; the message names the entry.
    """
    content = _read_json(path, "annotation file")
    check_section(f"{path}: the file", content, _TOP, tuple(_TOP), is_open=True)
    images = _by_id(path, "images", content["images"], _IMAGE, tuple(_IMAGE))
    categories = _by_id(path, "categories", content["categories"], _CATEGORY, ("id", "name"))
    category = _choose_category(path, list(categories.values()), keypoints)
    found = keypoints or _keypoints_of(path, category)
    names = category.get("keypoints", found.names)
    if len(names) != len(found):
        raise UserError(
            f"{path}: the category {category['name']!r} has {len(names)} keypoints, but {len(found)} are expected; "
            "see keypoints in the config"
        )
    entries = _by_id(path, "annotations", content["annotations"], _LINKS, tuple(_LINKS))
    people = _check_people(path, entries, images, categories, category, len(found))
    return CocoFile(os.fspath(path), images, category, people, found)


def read_keypoint_set(path: str | os.PathLike) -> KeypointSet:
    """Return the keypoints that an annotation file describes; see `read_annotations`."""
    return read_annotations(path).keypoints


class Detections(NamedTuple):
    """Boxes of a detector: those of a category, with a score that is not too low.

    Attributes:
        image_ids: int64 [N].
        boxes: x1, y1, x2, y2, as they are in the file, float32 [N, 4].
        scores: float32 [N].
        empty: How many boxes were left out because they have no extent.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    empty: int


def read_detections(path: str | os.PathLike, annotations: CocoFile, least_score: float = 0.0) -> Detections:
    """Read a file of detections, COCO's form of results with boxes.

    Args:
        path: JSON, a list of mappings with image_id, category_id, bbox and score.
        annotations: What the images and the category are.
        least_score: Boxes with a lower score are left out.

    Raises:
        UserError: The file cannot be read, something in it is wrong, or an image is not among the annotations'.
    """
    content = _read_json(path, "file of detections")
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a list of detections, got {shown(content)}; see docs/pose.md")
    taken = []
    for position, entry in enumerate(content):
        where = f"{path}: entry {position}"
        check_section(where, entry, _DETECTION, tuple(_DETECTION), is_open=True)
        if entry["image_id"] not in annotations.images:
            raise UserError(f"{where}: image_id {entry['image_id']} is no image of {annotations.path}")
        if entry["category_id"] == annotations.category["id"] and entry["score"] >= least_score:
            taken.append(entry)
    if content and not taken:
        raise UserError(
            f"{path} has no box of category {annotations.category['id']} ({annotations.category['name']}) with a score "
            f"of at least {least_score:g}"
        )
    boxes = np.array([entry["bbox"] for entry in taken], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    has_extent = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # the sum may have rounded it away
    image_ids = np.array([entry["image_id"] for entry in taken], np.int64)
    scores = np.array([entry["score"] for entry in taken], np.float32)
    kept = (image_ids[has_extent], boxes[has_extent], scores[has_extent])
    return Detections(*kept, int(np.count_nonzero(~has_extent)))


def _read_json(path: str | os.PathLike, what: str) -> Any:
    data = check_plain_file(path, what, _MAX_BYTES).read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno} ({what})"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8, the encoding of JSON: byte {error.start} ({what})") from error
    except RecursionError as error:
        raise UserError(f"{path} is not a {what}: its lists lie too deep in one another") from error
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path} has a number that is too long ({what})") from error


def _by_id(
    path: str | os.PathLike, name: str, entries: Sequence[Any], kinds: Mapping[str, Kind], required: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Check the entries of a list, and return them by their ids."""
    found: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        where = f"{path}: {name}[{position}]"
        check_section(where, entry, kinds, required, is_open=True)
        if entry["id"] in found:
            raise UserError(f"{where}: the id {entry['id']} stands twice; ids are unique")
        found[entry["id"]] = entry
    return found


def _choose_category(
    path: str | os.PathLike, categories: Sequence[dict[str, Any]], keypoints: KeypointSet | None
) -> dict[str, Any]:
    with_keypoints = [category for category in categories if category.get("keypoints")]
    names = ", ".join(repr(category["name"]) for category in categories) or "none"
    if keypoints is None and not with_keypoints:
        raise UserError(
            f"{path}: no category has keypoints (categories: {names}); use a file of keypoint annotations, or describe "
            "the keypoints in the config"
        )
    only = keypoints is None and len(with_keypoints) == 1
    name = with_keypoints[0]["name"] if only else "person" if keypoints is None else keypoints.category
    chosen = [category for category in categories if category["name"] == name]
    if len(chosen) != 1:
        count = f"{len(chosen)} categories are" if chosen else "no category is"
        raise UserError(
            f"{path}: {count} named {name!r}; the file has {names}; choose one by keypoints.category in the config"
        )
    return chosen[0]


def _keypoints_of(path: str | os.PathLike, category: Mapping[str, Any]) -> KeypointSet:
    """Return a set of our own if the names of a category are its names, or else what the category tells."""
    names = tuple(category.get("keypoints", ()))
    for known in KEYPOINT_SETS.values():
        if known.names == names:
            return replace(known, category=category["name"])
    skeleton = tuple((a - 1, b - 1) for a, b in category.get("skeleton", []))
    try:
        return KeypointSet(names, skeleton=skeleton, category=category["name"])
    except UserError as error:
        raise UserError(f"{path}: the category {category['name']!r}: {error}") from error


def _check_people(
    path: str | os.PathLike,
    entries: Mapping[int, dict[str, Any]],
    images: Mapping[int, Any],
    categories: Mapping[int, Any],
    category: Mapping[str, Any],
    number_of_keypoints: int,
) -> list[dict[str, Any]]:
    """Check the annotations of a category, and return them image after image."""
    people: dict[int, list[dict[str, Any]]] = {image: [] for image in images}
    for identity, entry in entries.items():
        where = f"{path}: annotation {identity}"
        for key, known in (("image_id", images), ("category_id", categories)):
            if entry[key] not in known:
                raise UserError(f"{where}: there is no {key.removesuffix('_id')} with the id {entry[key]}")
        if entry["category_id"] != category["id"]:
            continue
        check_section(where, entry, _PERSON, ("bbox",), is_open=True)
        if "keypoints" not in entry and not entry.get("iscrowd"):
            raise UserError(f"{where} has no keypoints; use a file of keypoint annotations, such as person_keypoints_*")
        found = len(entry.get("keypoints", ()))
        if "keypoints" in entry and found != 3 * number_of_keypoints:
            raise UserError(
                f"{where} has {found} values in keypoints, expected {3 * number_of_keypoints}: x, y and visibility of "
                f"{number_of_keypoints} keypoints"
            )
        people[entry["image_id"]].append(entry)
    return [entry for group in people.values() for entry in group]
