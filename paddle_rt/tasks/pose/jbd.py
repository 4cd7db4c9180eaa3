"""From the CSV files of the jump broadcast data set (JBD) to annotations in COCO's form.

Source: https://github.com/kaulquappe23/all-keypoints-jump-broadcast, for the format; SegFormer++'s converter, for the
names, the ids and the whole-numbered boxes.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file, whole_file
from paddle_rt.imaging.read_write import read_image
from paddle_rt.inference.keypoints import JBD
from paddle_rt.tasks.pose.coco import parse

SPLITS = ("train", "val", "test")
_KEYS = ("event", "frame_num", "athlete", "slowmotion")
_HEADER = [*_KEYS, *(f"{name}_{part}" for name in JBD.names for part in "xys")]
_BOX_HEADER = ["image_id", "min_x", "min_y", "width", "height"]
_MARGIN = 0.25  # of the extent of the keypoints, on each side, where there is no file of boxes
_MAX_BYTES = 2**28
Box = list[float]


class Row(NamedTuple):
    """One line of a file of keypoints: the frame and what is annotated in it, [20, 3]."""

    where: str
    event: int
    frame: int
    keypoints: np.ndarray

    @property
    def name(self) -> str:
        """The name of the frame, as files of boxes have it."""
        return f"{self.event}_({self.frame:05d})"


class Counts(NamedTuple):
    """How many frames of a split were written, and how many were left out since they have no box."""

    written: int
    without_box: int


def convert(
    keypoints: str | os.PathLike,
    images: str | os.PathLike,
    output: str | os.PathLike,
    boxes: str | os.PathLike | None = None,
    progress: Callable[[list[Row]], Iterable[Row]] = iter,
) -> dict[str, Counts]:
    """Write one annotation file for each split, SPLIT_jump.json.

    Args:
        keypoints: Folder that holds train.csv, val.csv or test.csv.
        images: Folder that holds the frames, EVENT/EVENT_(FRAME).jpg with five digits.
        output: Folder to write to.
        boxes: File of boxes; None for the extent of a frame's keypoints, and a quarter of it on each side.
        progress: Wraps the list of rows of each split, to show how far it is.

    Returns:
        The counts of each split that there is.

    Raises:
        UserError: A file is missing, or a line of it is not as described.
    """
    files = {split: Path(keypoints) / f"{split}.csv" for split in SPLITS}
    files = {split: file for split, file in files.items() if file.exists()}
    if not files:
        raise UserError(f"no train.csv, val.csv or test.csv in {keypoints}; give the data set's folder keypoints")
    known = None if boxes is None else read_boxes(boxes)
    splits = {split: read_keypoints(file) for split, file in files.items()}
    for rows in splits.values():
        _check_frames(rows, Path(images))
    contents = {}
    for split, rows in splits.items():
        contents[split] = {"images": [], "annotations": [], "categories": [_category()]}
        for row in progress(rows):
            _add(contents[split], row, Path(images), known)
    for split, content in contents.items():  # after all frames have been read, so that an error leaves nothing behind
        with whole_file(Path(output) / f"{split}_jump.json") as part:
            part.write_text(json.dumps(content), encoding="utf-8")
    written = {split: len(content["images"]) for split, content in contents.items()}
    return {split: Counts(written[split], len(rows) - written[split]) for split, rows in splits.items()}


def _category() -> dict[str, Any]:
    skeleton = [[a + 1, b + 1] for a, b in JBD.skeleton]
    return {"id": 1, "name": JBD.category, "keypoints": list(JBD.names), "skeleton": skeleton}


def _check_frames(rows: list[Row], images: Path) -> None:
    missing = [row for row in rows if not (images / _file(row)).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(rows)} frames are missing; the first is {images / _file(missing[0])} "
            f"({missing[0].where})"
        )


def _file(row: Row) -> str:
    return f"{row.event}/{row.name}.jpg"


def _add(content: dict[str, list], row: Row, images: Path, boxes: dict[str, Box] | None) -> None:
    """Add a frame and its person to an annotation file, unless it has no box."""
    height, width = read_image(images / _file(row)).shape[:2]
    box = _extent(row.keypoints, width, height) if boxes is None else boxes.get(row.name)
    if box is None:
        return
    number = int(f"{row.event}{row.frame:05d}")
    visible = np.clip(row.keypoints[:, 2:], 0, 1)
    person = {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "bbox": [int(value) for value in box],
        "keypoints": np.concatenate([row.keypoints[:, :2], visible], axis=1).reshape(-1).tolist(),
        "num_keypoints": int(np.count_nonzero(visible)),
        "iscrowd": 0,
    }
    person["area"] = float(parse(person, width, height).area)
    content["images"].append({"id": number, "file_name": _file(row), "width": width, "height": height})
    content["annotations"].append(person)


def _extent(keypoints: np.ndarray, width: int, height: int) -> Box | None:
    """Return the box around the visible keypoints with its margin, in whole pixels, as the data set's authors do."""
    points = keypoints[keypoints[:, 2] > 0, :2]
    if not len(points):
        return None
    low, high = np.trunc(points.min(0)), np.trunc(points.max(0))
    margin = np.trunc((high - low) * _MARGIN)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, (width, height))
    return [*low.tolist(), *(high - low).tolist()]


def read_keypoints(path: str | os.PathLike) -> list[Row]:
    """Read a file of keypoints: "#" and the number of rows, the names of the columns, and a row for each frame.

    Raises:
        UserError: The file cannot be read, a line is not as described, or a frame stands there twice.
    """
    lines = _read(path, ";", "file of keypoints")
    first = next(lines, ("", []))[1]
    count = first[0].strip().removeprefix("#").strip() if first and first[0].startswith("#") else ""
    if not count.isdecimal() or any(first[1:]):
        raise UserError(f"{path}, line 1: expected # and the number of rows, got {shown(';'.join(first))}")
    lines = _without_comments(lines)
    _check_header(lines, path, _HEADER, ";")
    rows, seen = [], set()
    for where, row in lines:
        if len(row) != len(_HEADER):
            raise UserError(f"{where}: {len(row)} values, expected {len(_HEADER)}")
        if not all(text.isdecimal() and len(text) < 6 for text in row[:2]):
            raise UserError(f"{where}: event and frame_num must be whole numbers of five digits, got {shown(row[:2])}")
        values = _numbers(where, row[len(_KEYS) :]).reshape(-1, 3)
        rows.append(Row(where, int(row[0]), int(row[1]), values))
        if rows[-1].name in seen:
            raise UserError(f"{where}: the frame {rows[-1].name} stands there twice; each has one person")
        seen.add(rows[-1].name)
    if len(rows) != int(count):
        raise UserError(f"{path}: line 1 says {int(count)} rows, but there are {len(rows)}; copy the file again")
    return rows


def read_boxes(path: str | os.PathLike) -> dict[str, Box]:
    """Read a file of boxes: image_id, min_x, min_y, width and height of each frame, with "," between.

    Raises:
        UserError: The file cannot be read, or a line is not as described.
    """
    lines = _without_comments(_read(path, ",", "file of boxes"))
    _check_header(lines, path, _BOX_HEADER, ",")
    boxes = {}
    for where, row in lines:
        if len(row) != len(_BOX_HEADER):
            raise UserError(f"{where}: {len(row)} values, expected {len(_BOX_HEADER)}")
        box = _numbers(where, row[1:]).tolist()
        if min(box[2:]) < 0:
            raise UserError(f"{where}: width and height must not be negative, got {shown(row[3:])}")
        boxes.setdefault(row[0].removesuffix(".jpg"), box)
    return boxes


def _read(path: str | os.PathLike, delimiter: str, what: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the stripped values of each line that is not blank."""
    check_plain_file(path, what, _MAX_BYTES)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8, the encoding of a {what}: byte {error.start}") from error
    lines = csv.reader(text.splitlines(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        for row in lines:
            if any(text.strip() for text in row):
                yield f"{path}, line {lines.line_num}", [text.strip() for text in row]
    except csv.Error as error:  # a value of more than 100,000 characters
        raise UserError(f"{path}, line {lines.line_num}: not a {what}: {error}") from error


def _without_comments(lines: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Leave out what begins with "#", as the authors' own reader does."""
    return ((where, row) for where, row in lines if not row[0].startswith("#"))


def _check_header(
    lines: Iterator[tuple[str, list[str]]], path: str | os.PathLike, expected: list[str], delimiter: str
) -> None:
    where, header = next(lines, (f"{path}", []))
    if header != expected:
        wrong = next((pair for pair in zip(header, expected, strict=False) if pair[0] != pair[1]), None)
        detail = f"{wrong[0]!r} in place of {wrong[1]!r}" if wrong else f"{len(header)} names for {len(expected)}"
        raise UserError(
            f"{where}: expected the names {shown(delimiter.join(expected))} with {delimiter!r} between, got {detail}"
        )


def _numbers(where: str, texts: list[str]) -> np.ndarray:
    values = []
    for text in texts:
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not abs(values[-1]) < 1e9:
            raise UserError(f"{where}: expected finite numbers, got {shown(text)}")
    return np.array(values)
