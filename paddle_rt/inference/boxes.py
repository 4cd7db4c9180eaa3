"""Files of boxes: which image has which people, from COCO's results, COCO's annotations, or lines of text."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file
from paddle_rt.kinds import listed, number, whole

_MAX_BYTES = 2**30
_BOX, _SCORE, _CATEGORY = listed(number(), 4), number(), whole()
_Key = str | int
PERSON = 1  # the category of people in COCO


@dataclass(frozen=True)
class ImageBoxes:
    """The boxes of one image.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the image, [N, 4]; None for one box, the whole image.
        scores: The score of each box, [N]; 1 where the file has none.
        image_id: The image as COCO's results name it: the id in the file, or else the number or the name of the image.
    """

    boxes: np.ndarray | None
    scores: np.ndarray
    image_id: int | str


def whole_image(name: Path | str) -> ImageBoxes:
    """Return one box, the whole image, for an image of a name; see `BoxFile.of`."""
    return ImageBoxes(None, np.ones(1, np.float32), _image_id(Path(name)))


def _image_id(name: Path) -> int | str:
    return int(name.stem) if name.stem.isdecimal() and len(name.stem) < 19 else str(name)


class BoxFile:
    """A file of boxes.

    It holds one of:

    - COCO's results: a list of mappings with image_id, bbox (x, y, width, height) and, if there are, score and
      category_id;
    - COCO's annotations: a mapping with images (id, file_name) and annotations (image_id, bbox, ...);
    - lines of text: image x1 y1 x2 y2, and a score from 0 to 1 if there is one.

    An image is named by its path, relative to the folder that is read, with or without its suffix; or by a number:
    that of a video's frame, from 0, or the one that all digits of a file's name make, or else the last of them in a row
    (000000000139.jpg is 139). Each name stands for one image.

    Args:
        path: The file, UTF-8.
        category: Boxes of other categories are left out, where the file has categories.

    Raises:
        UserError: The file cannot be read, or holds something else.
    """

    def __init__(self, path: str | os.PathLike, category: int = PERSON) -> None:
        self.path = path
        text = _read(path)
        entries = _from_json(path, text, category) if text.lstrip()[:1] in ("[", "{") else _from_text(path, text)
        self._boxes: dict[_Key, list[tuple[Sequence[float], float, int | str | None]]] = {}
        for name, *entry in entries:
            self._boxes.setdefault(_key(name), []).append(tuple(entry))
        self._taken: dict[_Key, str] = {}

    @property
    def unused(self) -> list[_Key]:
        """The images of the file that nobody has asked for yet."""
        return [key for key in self._boxes if key not in self._taken]

    def of(self, source: str, name: Path | str) -> ImageBoxes:
        """Return the boxes of an image; none where the file does not name it.

        Args:
            source: The image's file, or another description that is unique.
            name: The image's path relative to the folder, or the number of a frame.

        Raises:
            UserError: Another image has taken the boxes of this name already.
        """
        name = Path(name)
        digits = re.findall("[0-9]+", name.stem)
        numbers = [int(text) for text in ("".join(digits), digits[-1]) if len(text) < 19] if digits else []
        keys = [_key(source), _key(str(name)), _key(str(name.with_suffix(""))), *numbers]
        key = next((key for key in keys if key in self._boxes), None)
        if key is None:
            return ImageBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), _image_id(name))
        if self._taken.setdefault(key, source) != source:
            raise UserError(f"in {self.path} {key!r} stands for {self._taken[key]} and for {source}; give their paths")
        boxes, scores, ids = zip(*self._boxes[key], strict=True)
        image_id = _image_id(name) if ids[0] is None else ids[0]
        return ImageBoxes(np.array(boxes, np.float64), np.array(scores, np.float32), image_id)


def _key(name: _Key) -> _Key:
    """Return a number for whatever is one, and a path without dots."""
    if isinstance(name, int):
        return name
    return int(name) if name.isdecimal() and len(name) < 19 else os.path.normpath(name)


def _read(path: str | os.PathLike) -> str:
    data = check_plain_file(path, "file of boxes", _MAX_BYTES).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8, the encoding of a file of boxes") from error


_Entry = tuple[_Key, Sequence[float], float, int | str | None]


def _from_text(path: str | os.PathLike, text: str) -> Iterator[_Entry]:
    for position, line in enumerate(re.split("\r\n|\n|\r", text), 1):
        words = line.split()
        if not words:
            continue
        for count in (5, 4):
            name = line.strip().rsplit(None, count)
            values = _numbers(name[1:]) if len(name) == count + 1 else None
            if values is not None and (count == 4 or 0 <= values[4] <= 1):
                yield name[0], values[:4], 1.0 if count == 4 else values[4], None
                break
        else:
            raise UserError(
                f"{path}, line {position}: expected image x1 y1 x2 y2 and, if there is one, a score from 0 to 1, got "
                f"{shown(line.strip())}"
            )


def _numbers(words: Sequence[str]) -> list[float] | None:
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _from_json(path: str | os.PathLike, text: str, category: int) -> list[_Entry]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole or not JSON: {error}") from error
    names: Mapping[Any, Any] = {}
    if isinstance(content, dict):
        names, content = _annotations(path, content)
    entries, categories = [], set()
    for position, item in enumerate(content):
        where = f"{path}, entry {position}"
        image = item.get("image_id") if isinstance(item, dict) else None
        if isinstance(image, bool) or not isinstance(image, int | str):
            raise UserError(
                f"{where}: expected a mapping with image_id, a number or a path, and bbox, got {shown(item)}"
            )
        box, score = item.get("bbox"), item.get("score", 1.0)
        if not _BOX.accepts(box) or not _SCORE.accepts(score):
            raise UserError(f"{where}: bbox is [x, y, width, height] and score a number, got {shown([box, score])}")
        if not _CATEGORY.accepts(item.get("category_id", category)):
            raise UserError(f"{where}: category_id is a whole number, got {shown(item['category_id'])}")
        if item.get("iscrowd"):
            continue
        categories.add(item.get("category_id", category))
        if item.get("category_id", category) == category:
            x, y, width, height = box
            entries.append((names.get(image, image), (x, y, x + width, y + height), score, image))
    if categories and not entries:
        raise UserError(
            f"{path} has no box of category {category}, only of {', '.join(map(str, sorted(categories)))}; choose one "
            "with --box_category"
        )
    return entries


def _annotations(path: str | os.PathLike, content: dict[str, Any]) -> tuple[dict[Any, str], list[Any]]:
    """Return the names of the images by their ids, and the annotations."""
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise UserError(
            f"{path} is neither COCO's results, a list, nor COCO's annotations, with images and annotations"
        )
    names = {}
    for position, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str) or "id" not in image:
            raise UserError(f"{path}, image {position}: expected a mapping with id and file_name, got {shown(image)}")
        if not isinstance(image["id"], int | str):
            raise UserError(f"{path}, image {position}: id is a number or a text, got {shown(image['id'])}")
        names[image["id"]] = image["file_name"]
    return names, annotations
